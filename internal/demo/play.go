package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The cast. The names in the story are those of the standard's roles: Entity A,
// MAF, Entity B.
const (
	meter    = "meter7@maf.localhost"
	other    = "meter8@maf.localhost"
	city     = "//city.example/platform"
	rival    = "//rival.example/platform"
	exitGood = 0
	exitNo   = 4 // maf's exit code when the other side refuses
)

// A performance is what the steps share.
type performance struct {
	*stage
	*narrator
	city    *platform
	expires time.Time // of the meter's first Kc
}

func play(ctx context.Context, s *stage, n *narrator) error {
	p := &performance{stage: s, narrator: n}
	p.prologue()
	for _, step := range []func(context.Context) error{
		p.factory, p.mafHandshake, p.association, p.thief, p.impostors, p.expiry,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	p.epilogue()
	p.flush()
	return nil
}

func (p *performance) prologue() {
	if p.json {
		return
	}
	fmt.Fprintf(p.out, `
A water meter in a cellar wants to tell the city's platform how much water went
through. The two have never met. A key office that both know introduces them.
That is clause 8.2.2.3 of oneM2M TS-0003. Each party is a program of its own,
running on this machine for the next seconds:

   the water meter      %s  maf, this tool
   the key office       %s       mafd, TLS at %s, DTLS at %s
   the city's platform  %s  an IN-CSE, played by maf
`, p.paint(bold, "Entity A"), p.paint(bold, "MAF"), p.runtime.TLS[0], p.runtime.DTLS[0], p.paint(bold, "Entity B"))
}

// do runs a command, shows it, and demands its exit code.
func (p *performance) do(ctx context.Context, exit int, stdin string, args ...string) (outcome, error) {
	o, err := p.run(ctx, stdin, args...)
	if err != nil {
		return o, err
	}
	p.command(o)
	if o.Exit != exit {
		return o, fmt.Errorf("the last command ended with %d, not %d\n%s", o.Exit, exit, o.Stderr)
	}
	return o, nil
}

// sees waits for what a platform sees next, shows it, and demands that it is a
// refusal or not.
func (p *performance) sees(ctx context.Context, who string, b *platform, refused bool) (Event, error) {
	e, err := b.next(ctx)
	if err != nil {
		return e, err
	}
	p.event(who, e)
	if (e.Refused != "") != refused {
		return e, errors.New("that was not to happen")
	}
	return e, nil
}

func (p *performance) factory(ctx context.Context) error {
	p.chapter("The factory gives the meter a key")
	p.say(`
The key office gets the same key. It also notes the one platform that the meter
may reach, and what the meter is called there.`)
	_, err := p.do(ctx, exitGood, "", "client", "add", meter, "--entity-b", city,
		"--ae-id", "Smeter7", "--lifetime", keyLife.String(), "--km-out", "meter7.key")
	if err != nil {
		return err
	}
	p.say(`
The key (Km) is known by its name (KmID). It stays in the meter and in the office
and never travels. The platform gets no key at all, only a certificate by which
the office knows it:`)
	if _, err := p.do(ctx, exitGood, "", "entity-b", "add", city, "--out", "platform"); err != nil {
		return err
	}
	p.city, err = p.startPlatform(ctx, "platform")
	return err
}

func (p *performance) mafHandshake(ctx context.Context) error {
	p.chapter("The meter calls the key office")
	_, err := p.do(ctx, exitGood, "", "handshake", meter, "--maf", p.runtime.DTLS[0], "--dtls",
		"--km-file", "meter7.key", "--kc-file", "meter7.kc")
	if err != nil {
		return err
	}
	p.say(`
In an ordinary DTLS handshake both showed that they have Km, without saying it.
From that session each worked out a new key (Kc) and its name (KcID): Kc was never
sent. The office had it safely on its disk before it let the handshake succeed.
Any device that speaks TLS or DTLS with pre-shared keys can do this as it is.`)
	return nil
}

// report has the meter, or who says to be it, talk to a platform.
func (p *performance) report(ctx context.Context, exit int, text string, b *platform, as, kcFile string) (outcome, error) {
	name, _, _ := strings.Cut(as, "@")
	return p.do(ctx, exit, text+"\n", "connect", b.address, "--as", as, "--maf", p.runtime.TLS[0],
		"--km-file", name+".key", "--kc-file", kcFile)
}

func (p *performance) association(ctx context.Context) error {
	p.chapter("The meter calls the platform")
	if _, err := p.report(ctx, exitGood, "1742 cubic metres", p.city, meter, "meter7.kc"); err != nil {
		return err
	}
	e, err := p.sees(ctx, "The platform", p.city, false)
	if err != nil {
		return err
	}
	p.expires = *e.Expires
	p.say(`
The platform knew neither the meter nor the key. The meter gave the key's name,
and behind its @ stands the office to ask. The office made sure who asked, and
handed out Kc, how long it is good for, and whose it is. The meter and the
platform then proved to each other that they have it.`)
	return nil
}

func (p *performance) thief(ctx context.Context) error {
	p.chapter("A thief knows the meter's name, but not its key")
	wrong := make([]byte, 32)
	rand.Read(wrong)
	if err := os.WriteFile(filepath.Join(p.dir, "wrong.key"), []byte(hex.EncodeToString(wrong)+"\n"), 0o600); err != nil {
		return err
	}
	var answers []string
	for _, name := range []string{meter, "nobody@maf.localhost"} {
		o, err := p.do(ctx, exitNo, "", "handshake", name, "--maf", p.runtime.TLS[0], "--km-file", "wrong.key")
		if err != nil {
			return err
		}
		answers = append(answers, o.Stderr)
	}
	if answers[0] != answers[1] {
		return errors.New("the two refusals differ")
	}
	p.say(`
The second name does not even exist. The thief gets the same answer, so trying
names does not tell him which meters there are. The office's log does know:`)
	return p.officeLog()
}

func (p *performance) impostors(ctx context.Context) error {
	p.chapter("Nobody can pose as somebody else")
	p.say("Another meter has a key of its own. It can say what it wants:")
	_, err := p.do(ctx, exitGood, "", "client", "add", other, "--entity-b", city, "--ae-id", "Smeter8",
		"--lifetime", keyLife.String(), "--km-out", "meter8.key")
	if err != nil {
		return err
	}
	if _, err := p.report(ctx, exitGood, "I am meter7 and used nothing", p.city, other, "meter8.kc"); err != nil {
		return err
	}
	if _, err := p.sees(ctx, "The platform", p.city, false); err != nil {
		return err
	}
	p.say("And another platform, with a good certificate, wants to be called by the meter:")
	if _, err := p.do(ctx, exitGood, "", "entity-b", "add", rival, "--out", "rival"); err != nil {
		return err
	}
	b, err := p.startPlatform(ctx, "rival")
	if err != nil {
		return err
	}
	if _, err := p.report(ctx, exitNo, "1743 cubic metres", b, meter, "rival.kc"); err != nil {
		return err
	}
	if _, err := p.sees(ctx, "The rival", b, true); err != nil {
		return err
	}
	p.say(`
The office hands a key only to the platform that it was made for. The rival is
told that there is no such key, and without it can't answer the meter's call.`)
	return nil
}

func (p *performance) expiry(ctx context.Context) error {
	p.chapter("A key does not live for ever")
	p.say(fmt.Sprintf(`
The meter's Kc was good for %s, so that this does not take long; a day is usual.
We wait for its end, and the meter calls again with it.`, keyLife))
	select {
	case <-time.After(time.Until(p.expires) + time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	if _, err := p.report(ctx, exitGood, "1744 cubic metres", p.city, meter, "meter7.kc"); err != nil {
		return err
	}
	if _, err := p.sees(ctx, "The platform", p.city, true); err != nil {
		return err
	}
	if _, err := p.sees(ctx, "The platform", p.city, false); err != nil {
		return err
	}
	p.say(`
The platform turned the old key away. The meter took that as the sign to call the
office again, and came back with a new one.`)
	return nil
}

func (p *performance) epilogue() {
	if p.json {
		return
	}
	fmt.Fprintf(p.out, `
%s

   mafd                        # a key office of your own, on this machine only
   maf client add me@maf.localhost --entity-b //sp.example.com/in-cse --km-out me.key
   maf handshake me@maf.localhost --maf 127.0.0.1:7443 --km-file me.key

   And with OpenSSL as the device, no code of ours on it:

   openssl s_client -connect 127.0.0.1:7443 -tls1_2 -psk_identity me@maf.localhost \
       -psk $(cat me.key) -keymatexport EXPORTER-oneM2M-Connection -keymatexportlen 48 </dev/null

   The demo's programs have ended, and its folder is gone.

`, p.paint(bold, "What to try next"))
}

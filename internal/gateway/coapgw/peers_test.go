package coapgw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/onem2m-maf/maf/internal/gateway/backendtest"
	"github.com/onem2m-maf/maf/internal/gateway/coap"
	"github.com/onem2m-maf/maf/internal/gateway/httpgw"
	"github.com/onem2m-maf/maf/internal/peers"
	"github.com/onem2m-maf/maf/saef"
)

// credentials does a MAF Handshake for a foreign client.
func credentials(t *testing.T, g *rig, d *saef.Device) peers.Options {
	t.Helper()
	for range 100 {
		key, err := d.Handshake(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// libcoap's client takes its key from the command line, where a NUL ends it.
		if !bytes.Contains(key.Kc.Bytes(), []byte{0}) {
			return peers.Options{Network: "udp", Addr: g.listener.Addr().String(), Identity: []byte(key.KcID.String()), PSK: key.Kc.Bytes()}
		}
	}
	t.Fatal("every key has a NUL")
	return peers.Options{}
}

// oneM2M are coap-client's options for a request.
func oneM2M(originator string, more ...string) []string {
	return append([]string{"-O", "279," + originator, "-O", "283,r1"}, more...)
}

// teachLibcoap has libcoap's programs know the options of oneM2M.
func teachLibcoap(t *testing.T) {
	t.Helper()
	lib := filepath.Join(t.TempDir(), "onem2m.so")
	out, err := exec.Command("cc", "-shared", "-fPIC", "-o", lib, "testdata/onem2m.c", "-ldl").CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		peers.Missing(t, err.Error())
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Setenv("LD_PRELOAD", lib)
}

// libcoap's client, built with OpenSSL and with GnuTLS, speaks with the CSE through the
// gateway: it retrieves, creates, transfers in blocks both ways, observes, and is refused
// when it names another originator.
func TestLibcoap(t *testing.T) {
	teachLibcoap(t)
	for _, library := range []string{"openssl", "gnutls"} {
		t.Run(library, func(t *testing.T) {
			big := `{"m2m:cin":{"con":"` + strings.Repeat("0123456789abcdef", 300) + `"}}`
			var observer atomic.Pointer[coap.Message]
			backend := newCSE(t, nil)
			store := &coap.Blocks{SZX: 3, Max: 1 << 16}
			t.Cleanup(store.Close)
			state := func(_ context.Context, m *coap.Message) *coap.Message {
				switch {
				case m.Code == coap.POST:
					return reply(m, coap.Created, 2001, string(m.Payload))
				case strings.HasSuffix(strings.Join(m.Options.Strings(coap.URIPath), "/"), "big"):
					return reply(m, coap.Content, 2000, big)
				}
				answer := reply(m, coap.Content, 2000, `{"m2m:cnt":{"st":0}}`)
				if n, ok := m.Options.Uint(coap.Observe); ok && n == 0 {
					answer.Options.AddUint(coap.Observe, 1)
					observer.Store(m)
				}
				return answer
			}
			backend.answers(func(m *coap.Message) *coap.Message { return store.Serve(t.Context(), m, state) })
			g := newRig(t, backend.addr, nil)
			o := credentials(t, g, g.site.AE("meter7", "//sp.example.com/in-cse/Cmeter7"))
			run := func(path, want string, more ...string) {
				t.Helper()
				report := peers.CoAPClient(t, library, o, path, more...).Wait()
				if got := strings.Join(report.Lines, "\n"); !strings.Contains(got, want) {
					t.Errorf("%s %q:\n%.300s\nwithout %.100q", path, more, got, want)
				}
			}
			run("in-cse/c", `{"m2m:cnt":{"st":0}}`, oneM2M("Cmeter7")...)
			run("in-cse", `{"m2m:cnt":{"rn":"c"}}`, oneM2M("Cmeter7", "-m", "post", "-t", "50", "-O", "267,0x03", "-e", `{"m2m:cnt":{"rn":"c"}}`)...)
			if ty, _ := backend.last(t).Options.Uint(267); ty != 3 {
				t.Errorf("the CSE got type %d", ty)
			}
			run("in-cse/c", "4106 ORIGINATOR_NOT_AUTHENTICATED", oneM2M("Cother")...)
			run("in-cse/c", "4000 BAD_REQUEST", oneM2M("Cmeter7", "-O", "256,Cother")...)
			run("in-cse/big", big, oneM2M("Cmeter7")...)
			run("in-cse/big", big, oneM2M("Cmeter7", "-b", "64")...)
			file := filepath.Join(t.TempDir(), "big")
			if err := os.WriteFile(file, []byte(big), 0o600); err != nil {
				t.Fatal(err)
			}
			run("in-cse", big, oneM2M("Cmeter7", "-m", "post", "-t", "50", "-O", "267,0x04", "-f", file, "-b", "256")...)

			p := peers.CoAPClient(t, library, o, "in-cse/c", oneM2M("Cmeter7", "-s", "3")...)
			eventually(t, "the observation", func() bool { return observer.Load() != nil })
			m := observer.Load()
			changed := reply(m, coap.Content, 2000, `{"m2m:cnt":{"st":1}}`)
			changed.Token = m.Token
			changed.Options.AddUint(coap.Observe, 2)
			backend.whoAsked(m).Confirm(*changed, func(error) {})
			if lines := strings.Join(p.Wait().Lines, "\n"); !strings.Contains(lines, `"st":0`) || !strings.Contains(lines, `"st":1`) {
				t.Errorf("observed:\n%s", lines)
			}
		})
	}
}

// A CoAP device in front of an HTTP CSE (TS-0008 to TS-0009).
func TestCrossing(t *testing.T) {
	for name, style := range backendtest.Styles {
		t.Run(name, func(t *testing.T) {
			cse := backendtest.Start(t, style)
			big := strings.Repeat("x", 5000)
			cse.Answer = func(r *backendtest.Request) (int, string) {
				if r.Method == "POST" {
					return 2001, `{"m2m:cin":{"con":"` + big + `"}}`
				}
				return 2000, `{"m2m:cnt":{}}`
			}
			g := newRig(t, "127.0.0.1:9", func(c *Config, _ *BackendConfig) {
				b, err := httpgw.NewBackend(httpgw.BackendConfig{URL: cse.URL})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(b.Close)
				c.Backend = b
			})
			d := g.ae()
			d.dialect = Early
			answer := d.do(d.request(coap.POST, "~/in-cse/base", "Cmeter7", `{"m2m:cin":{"con":"`+big+`"}}`, 267, 4, coap.URIQuery, "rcn=1"))
			if answer.Code != coap.Created || d.status(answer) != 2001 || len(answer.Payload) < 5000 {
				t.Errorf("%v, %d, %.100q", answer.Code, d.status(answer), answer.Payload)
			}
			got := cse.Requests()
			if len(got) != 1 || got[0].Origin != "Cmeter7" || got[0].Type != "4" || got[0].Path != "/~/in-cse/base?rcn=1" && got[0].Path != "/~/in-cse/base" {
				t.Fatalf("the CSE got %+v", got)
			}
			if fmt.Sprint(got[0].Originators) != "[Cmeter7]" {
				t.Errorf("originators %q", got[0].Originators)
			}
			// There is nothing to observe.
			m := d.request(coap.GET, "in-cse/c", "Cmeter7", "", coap.Observe, 0)
			if answer := d.do(m); d.status(answer) != 2000 || answer.Options.Has(coap.Observe) {
				t.Errorf("%v", answer)
			}
			if answer := d.do(d.request(coap.GET, "in-cse/c", "Cother", "")); answer.Code != coap.Forbidden || d.status(answer) != 4106 {
				t.Errorf("another originator: %v", answer)
			}
			// A registration: the AE-ID that the CSE assigns is learned, and held to.
			cse.Answer = func(*backendtest.Request) (int, string) { return 2001, `{"m2m:ae":{"aei":"Clamp9"}}` }
			lamp := g.dial(g.site.Unnamed("lamp"), nil)
			if answer := lamp.do(lamp.request(coap.POST, "in-cse", "Clamp9", `{"m2m:ae":{"api":"Nx","rr":true,"srv":["3"]}}`, 267, 2)); lamp.status(answer) != 2001 {
				t.Errorf("registration: %d %q", lamp.status(answer), answer.Payload)
			}
			cse.Answer = nil
			if answer := lamp.do(lamp.request(coap.GET, "in-cse", "Clamp8", "")); lamp.status(answer) != 4106 {
				t.Errorf("not as Clamp8: %d", lamp.status(answer))
			}
			if answer := lamp.do(lamp.request(coap.GET, "in-cse", "Clamp9", "")); !answer.Code.IsSuccess() {
				t.Errorf("as Clamp9: %d %q", lamp.status(answer), answer.Payload)
			}
		})
	}
}

package httpgw

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/onem2m-maf/maf/internal/gateway/access"
	"github.com/onem2m-maf/maf/internal/gateway/policy"
	"github.com/onem2m-maf/maf/internal/gateway/primitive"
	"github.com/onem2m-maf/maf/saef"
)

// ContactsConfig says where devices may be notified.
type ContactsConfig struct {
	// URL is where the CSE reaches the gateway: "http://127.0.0.1:8090".
	URL string
	// Networks are those in which devices may have the CSE's notifications
	// delivered. Without any, no device may name an address: it would be able to
	// have the gateway and the CSE call anybody.
	Networks []netip.Prefix
	// Never are addresses, "host:port", to which nothing is delivered although
	// they are in Networks: the CSE's own, where a device would have the gateway
	// speak as the CSE.
	Never []string
	// From are the networks of those who may send notifications. Without any, only
	// this machine may: devices that read an address of the gateway's at the CSE
	// could send to another device by it.
	From []netip.Prefix
	// Key makes tokens; gateways that share it deliver each other's. None: a
	// random one, with which all addresses are lost at a restart.
	Key      saef.Secret
	Recorder access.Recorder // nil: nobody
	Log      *slog.Logger    // nil: no log
}

// Contacts replace the addresses of devices (poa, nu) by ones of the gateway's.
// Such an address holds the original one and whose it is, sealed: the gateway
// keeps no table of them. Serve takes what the CSE sends there.
type Contacts struct {
	config ContactsConfig
	base   string       // what all of the gateway's addresses begin with
	host   string       // of base
	key    []byte       // of the tags
	block  cipher.Block // of the texts
	server notifyServer
}

// NewContacts checks the configuration.
func NewContacts(c ContactsConfig) (*Contacts, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" {
		return nil, fmt.Errorf("notify URL %q: not one such as http://127.0.0.1:8090", c.URL)
	}
	if c.Recorder == nil {
		c.Recorder = access.Discard{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	contacts := &Contacts{config: c, base: "http://" + u.Host + tokenPath, host: u.Host, key: keyOrRandom(c.Key)}
	textKey, err := hkdf.Expand(sha256.New, contacts.key, "text", 16)
	if err != nil {
		return nil, err
	}
	if contacts.block, err = aes.NewCipher(textKey); err != nil {
		return nil, err
	}
	contacts.server.init()
	contacts.config.Never = append(slices.Clip(c.Never), withPort(u)) // nor to itself
	return contacts, nil
}

const (
	tokenPath = "/n/"
	tagLen    = 16
)

// address returns the gateway's address for an owner's own one, which others that
// can read it at the CSE do not learn from it. The same two give the same address:
// a tag over them and, with that as its nonce, the text encrypted (a synthetic IV,
// as in RFC 5297).
func (c *Contacts) address(owner, original string) string {
	text := []byte(owner + "\n" + original)
	tag := c.tag(text)
	c.crypt(tag, text)
	return c.base + base64.RawURLEncoding.EncodeToString(append(tag, text...))
}

func (c *Contacts) tag(text []byte) []byte {
	mac := hmac.New(sha256.New, c.key)
	mac.Write([]byte("contact\n"))
	mac.Write(text)
	return mac.Sum(nil)[:tagLen]
}

// crypt encrypts or decrypts text in place.
func (c *Contacts) crypt(tag, text []byte) { cipher.NewCTR(c.block, tag).XORKeyStream(text, text) }

// open is the inverse of address, for what follows the base. What follows the
// token is rest, which is empty or begins with a slash or question mark.
func (c *Contacts) open(s string) (owner, original, rest string, ok bool) {
	token := s
	if i := strings.IndexAny(s, "/?"); i >= 0 {
		token, rest = s[:i], s[i:]
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(sealed) < tagLen {
		return "", "", "", false
	}
	tag, text := sealed[:tagLen], sealed[tagLen:]
	c.crypt(tag, text)
	if !hmac.Equal(tag, c.tag(text)) {
		return "", "", "", false
	}
	owner, original, _ = strings.Cut(string(text), "\n")
	return owner, original, rest, true
}

// replace returns what the CSE gets for an address that a device names. c may be
// nil: then there is nobody that a device may have called.
func (c *Contacts) replace(owner, address string) (string, error) {
	if isResource(address) {
		return address, nil // the CSE's own way to its registrees
	}
	if c == nil {
		return "", errors.New("an address for notifications, which are not delivered here")
	}
	if token, ok := strings.CutPrefix(address, c.base); ok {
		if whose, _, rest, ok := c.open(token); !ok || whose != owner || rest != "" {
			return "", errors.New("an address of the gateway's that is not this peer's")
		}
		return address, nil
	}
	// Another protocol's address is another binding's to replace: passed on from
	// here, the CSE would publish to any topic that a device names.
	if err := c.check(address); err != nil {
		return "", err
	}
	return c.address(owner, address), nil
}

// isResource reports whether an address is a resource identifier, behind which
// some clients put the serialisation they want.
func isResource(address string) bool {
	path, query, more := strings.Cut(address, "?")
	return CheckTo(path) == nil && (!more || query == "ct=json" || query == "ct=xml" || query == "ct=cbor")
}

// check refuses addresses that would not be delivered to, as far as that shows
// without asking for a name.
func (c *Contacts) check(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "" || !isPlain(address, 1024, false) {
		return errors.New("an address that is no plain http URL")
	}
	if len(c.config.Networks) == 0 {
		return errors.New("an address, and no network is allowed for notifications")
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil && !c.allows(ip) {
		return errors.New("an address that is not allowed for notifications")
	}
	return nil
}

// allows reports whether a device may be called there. The unspecified address
// means this machine to the system, whatever network holds it.
func (c *Contacts) allows(ip netip.Addr) bool {
	return !ip.Unmap().IsUnspecified() && inAny(c.config.Networks, ip)
}

func inAny(networks []netip.Prefix, ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(ip) })
}

// replaceContacts replaces the addresses in a request of the device's: in its
// content, and the notification URI of a non-blocking request.
func (d *deviceConn) replaceContacts(r *Request, content *primitive.Value) *refusal {
	replace := func(address string) (string, error) {
		return d.server.config.Contacts.replace(d.name, address)
	}
	if uris := r.Params[NotificationURI]; uris != "" {
		list := strings.Split(uris, "&")
		for i := range list {
			var err error
			if list[i], err = replace(list[i]); err != nil {
				return malformed(err.Error())
			}
		}
		r.Params[NotificationURI] = strings.Join(list, "&")
	}
	if err := policy.ReplaceContacts(content, replace); err != nil {
		return malformed(err.Error())
	}
	return nil
}

// addresses are the CSE's own, and what stands there for devices.
type addresses struct {
	hosts  []string
	public string
}

func newAddresses(hosts []string, public string) (addresses, error) {
	a := addresses{hosts, strings.TrimSuffix(public, "/")}
	for _, host := range hosts {
		if u, err := url.Parse("http://" + host); err != nil || u.Host != host || host == "" {
			return a, fmt.Errorf("address %q of the CSE: not one such as 10.0.0.5:8080", host)
		}
	}
	if u, err := url.Parse(public); len(hosts) > 0 && (err != nil || u.Scheme == "" || u.Host == "") {
		return a, fmt.Errorf("public URL %q: not one such as https://gateway.example.com:8443", public)
	}
	return a, nil
}

// translateBack puts into an answer what its reader knows: the device's own
// addresses for those that the CSE keeps, and the gateway's for the CSE's. It
// looks at strings that begin like an address and leaves all else as it is.
func (d *deviceConn) translateBack(r *Response) {
	if !isJSONType(r.ContentType) || !d.concerns(r.Content) {
		return
	}
	opening := []byte(`"http://`)
	var out []byte
	rest := r.Content
	for {
		i := bytes.Index(rest, opening)
		if i < 0 {
			break
		}
		end := bytes.IndexByte(rest[i+1:], '"')
		if end < 0 {
			break
		}
		end += i + 1
		// A quote that is escaped stands within some other string.
		text := rest[i+1 : end]
		if i > 0 && rest[i-1] == '\\' || bytes.IndexByte(text, '\\') >= 0 {
			end = i + 1
			out = append(out, rest[:end]...)
		} else {
			out = append(out, rest[:i]...)
			out = primitive.String(d.restore(string(text))).Append(out)
			end++
		}
		rest = rest[end:]
	}
	if out != nil {
		r.Content = append(out, rest...)
	}
}

// concerns reports whether there may be something to translate, at little cost.
func (d *deviceConn) concerns(content []byte) bool {
	if c := d.server.config.Contacts; c != nil && bytes.Contains(content, []byte(c.host)) {
		return true
	}
	for _, host := range d.server.names.hosts {
		if bytes.Contains(content, []byte(host)) {
			return true
		}
	}
	return false
}

// restore translates one address.
func (d *deviceConn) restore(s string) string {
	if c := d.server.config.Contacts; c != nil {
		if token, ok := strings.CutPrefix(s, c.base); ok {
			// Another's address stays hidden: only the gateway may use it.
			if owner, original, rest, ok := c.open(token); ok && owner == d.name {
				return original + rest
			}
		}
	}
	names := &d.server.names
	for _, host := range names.hosts {
		if rest, ok := strings.CutPrefix(s, "http://"+host); ok && (rest == "" || rest[0] == '/') {
			return names.public + rest
		}
	}
	return s
}

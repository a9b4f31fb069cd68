package httpgw

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"

	"github.com/onem2m-maf/maf/internal/gateway/access"
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
	// Key makes tokens; gateways that share it deliver each other's. None: a
	// random one, with which all addresses are lost at a restart.
	Key      saef.Secret
	Recorder access.Recorder // nil: nobody
	Log      *slog.Logger    // nil: no log
}

// Contacts replace the addresses of devices (poa, nu) by ones of the gateway's.
// Such an address holds the original one and whose it is, authenticated: the
// gateway keeps no table of them. Serve takes what the CSE sends there.
type Contacts struct {
	config ContactsConfig
	base   string // what all of the gateway's addresses begin with
	host   string // of base
	key    []byte
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
	contacts.server.init()
	return contacts, nil
}

const (
	tokenPath = "/n/"
	tagLen    = 16
)

// address returns the gateway's address for an owner's own one.
func (c *Contacts) address(owner, original string) string {
	sealed := append(c.tag(owner, original), owner+"\n"+original...)
	return c.base + base64.RawURLEncoding.EncodeToString(sealed)
}

func (c *Contacts) tag(owner, original string) []byte {
	mac := hmac.New(sha256.New, c.key)
	mac.Write([]byte("contact\n" + owner + "\n" + original))
	return mac.Sum(nil)[:tagLen]
}

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
	owner, original, _ = strings.Cut(string(sealed[tagLen:]), "\n")
	if !hmac.Equal(sealed[:tagLen], c.tag(owner, original)) {
		return "", "", "", false
	}
	return owner, original, rest, true
}

// replace returns what the CSE gets for an address that a device names. Those
// that are no HTTP URL are none of this binding's: resource identifiers, and
// other protocols' addresses.
func (c *Contacts) replace(owner, address string) (string, error) {
	if token, ok := strings.CutPrefix(address, c.base); ok {
		if whose, _, rest, ok := c.open(token); !ok || whose != owner || rest != "" {
			return "", errors.New("an address of the gateway's that is not this peer's")
		}
		return address, nil
	}
	scheme, _, ok := strings.Cut(address, ":")
	if !ok || !strings.EqualFold(scheme, "http") && !strings.EqualFold(scheme, "https") {
		return address, nil
	}
	if err := c.check(address); err != nil {
		return "", err
	}
	return c.address(owner, address), nil
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

func (c *Contacts) allows(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	for _, network := range c.config.Networks {
		if network.Contains(ip) {
			return true
		}
	}
	return false
}

// replaceContacts replaces the addresses in a request of the device's: pointOfAccess,
// notificationURI and subscriberURI of the resource in content, and the
// notification URI of a non-blocking request.
func (d *deviceConn) replaceContacts(r *Request, content *primitive.Value) *refusal {
	c := d.server.config.Contacts
	if c == nil {
		return nil
	}
	if uris := r.Params[NotificationURI]; uris != "" {
		list := strings.Split(uris, "&")
		for i := range list {
			var err error
			if list[i], err = c.replace(d.name, list[i]); err != nil {
				return malformed(err.Error())
			}
		}
		r.Params[NotificationURI] = strings.Join(list, "&")
	}
	for _, resource := range content.Members() {
		for _, name := range []string{"poa", "nu", "su"} {
			if v := resource.Get(name); v != nil {
				replaced, err := c.replaceIn(d.name, v)
				if err != nil {
					return malformed(err.Error())
				}
				resource.Set(name, replaced)
			}
		}
	}
	return nil
}

// replaceIn replaces one address, or a list of them.
func (c *Contacts) replaceIn(owner string, v *primitive.Value) (*primitive.Value, error) {
	if s, ok := v.Str(); ok {
		address, err := c.replace(owner, s)
		return primitive.String(address), err
	}
	if v.Kind() != primitive.KindArray {
		return v, nil
	}
	var list []*primitive.Value
	for _, e := range v.Elems() {
		replaced, err := c.replaceIn(owner, e)
		if err != nil {
			return nil, err
		}
		list = append(list, replaced)
	}
	return primitive.Array(list...), nil
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

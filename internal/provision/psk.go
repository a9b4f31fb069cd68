package provision

import (
	"bytes"
	"encoding/hex"
	"errors"

	"github.com/onem2m-maf/maf/internal/secret"
)

// readPSK reads identity:key, in which each program sees a key of its own. A
// device's key is what its program made of the line.
func readPSK(format Format, line []byte, f *fields) (secret.Key, error) {
	identity, text, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return secret.Key{}, errors.New("it is not identity:key")
	}
	identity, text = bytes.TrimSpace(identity), bytes.TrimSpace(text)
	// Some cut at the first colon and some at each.
	if bytes.IndexByte(text, ':') >= 0 {
		return secret.Key{}, errors.New("it has a second colon")
	}
	if len(text) == 0 {
		return secret.Key{}, errors.New("it has no key")
	}
	f.kmID = string(identity)
	if format == EMQX { // hands the text itself to TLS, also one of hexadecimal digits
		return secret.New(text), nil
	}
	raw := make([]byte, hex.DecodedLen(len(text)))
	if _, err := hex.Decode(raw, text); err == nil {
		return secret.Own(raw), nil
	}
	clear(raw)
	if format == Stunnel { // takes what is not hexadecimal as it is
		return secret.New(text), nil
	}
	return secret.Key{}, errors.New("the key is not hexadecimal")
}

package mafd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/onem2m-maf/maf/internal/configfile"
	"github.com/onem2m-maf/maf/internal/kek"
	"github.com/onem2m-maf/maf/internal/seal"
)

// KeysetConfig says what the keyset's file is encrypted with.
type KeysetConfig struct {
	KEK      KEKSource // zero for a file in the clear
	Previous KEKSource // what it may still be encrypted with
	// Transit says where sources of kind "transit" are. Key is the source's.
	Transit kek.TransitConfig
}

// KEKSource names a key-encryption key. In the configuration it is a text such as
// "file:/run/keys/kek", "credential:kek" or "transit:mafd".
type KEKSource struct{ Kind, Name string }

// readKEKSource reads where a key-encryption key comes from.
func readKEKSource(p *KEKSource) configfile.Setter {
	return configfile.Text(func(s, dir string) error {
		kind, name, _ := strings.Cut(s, ":")
		switch {
		case s == "":
			*p = KEKSource{}
			return nil
		case name == "" || kind != "file" && kind != "credential" && kind != "transit":
			return fmt.Errorf(`must be like "file:PATH", "credential:NAME" or "transit:KEY", not %q`, s)
		case kind == "file" && !filepath.IsAbs(name):
			name = filepath.Join(dir, name)
		}
		*p = KEKSource{kind, name}
		return nil
	})
}

// settings names the keys of the configuration file under "keyset".
func (c *KeysetConfig) settings() map[string]configfile.Setter {
	return map[string]configfile.Setter{
		"keyset.kek":                readKEKSource(&c.KEK),
		"keyset.previous_kek":       readKEKSource(&c.Previous),
		"keyset.transit.url":        text(&c.Transit.URL),
		"keyset.transit.token_file": configfile.Path(&c.Transit.TokenFile),
		"keyset.transit.ca":         configfile.Path(&c.Transit.CA),
		"keyset.transit.namespace":  text(&c.Transit.Namespace),
	}
}

func text(p *string) configfile.Setter {
	return configfile.Text(func(s, _ string) error {
		*p = s
		return nil
	})
}

// problem says what is wrong with c as a whole, if anything.
func (c *KeysetConfig) problem() (key, text string) {
	usesTransit := c.KEK.Kind == "transit" || c.Previous.Kind == "transit"
	switch {
	case usesTransit && c.Transit.URL == "":
		return "keyset.transit.url", "is missing; set it to where the transit engine is, such as https://vault.example.com:8200/v1/transit"
	case usesTransit && c.Transit.TokenFile == "":
		return "keyset.transit.token_file", "is missing; name a file with a token for keyset.transit.url"
	case c.Previous != (KEKSource{}) && c.Previous == c.KEK:
		return "keyset.previous_kek", "is the same as keyset.kek; remove it"
	}
	return "", ""
}

// file returns how the keyset at path is kept.
func (c *KeysetConfig) file(path string) (f seal.File, err error) {
	f.Path = path
	// A nil pointer must not become an interface that isn't nil.
	if c.KEK != (KEKSource{}) {
		if f.KEK, err = c.open(c.KEK); err != nil {
			return f, fmt.Errorf("keyset.kek: %w", err)
		}
	}
	if c.Previous != (KEKSource{}) {
		if f.Previous, err = c.open(c.Previous); err != nil {
			return f, fmt.Errorf("keyset.previous_kek: %w", err)
		}
	}
	return f, nil
}

func (c *KeysetConfig) open(s KEKSource) (seal.KEK, error) {
	switch s.Kind {
	case "file":
		return kek.File(s.Name)
	case "credential":
		return kek.Credential(os.Getenv("CREDENTIALS_DIRECTORY"), s.Name)
	case "transit":
		transit := c.Transit
		transit.Key = s.Name
		return kek.NewTransit(transit)
	}
	return nil, errors.New("there is no such kind of key-encryption key")
}

package saef

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/onem2m-maf/maf/internal/kdf"
	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/wholefile"
	"github.com/onem2m-maf/maf/onem2m"
)

// FileCache is a [Cache] in a file of its own at this path, which only its
// owner may read (0600). It holds Kc in the clear: whoever reads it can be the
// device towards Entity B until Kc expires.
//
// Writing replaces the file as a whole, so that a power cut leaves a usable one.
type FileCache string

// cachedKey is the file's JSON.
type cachedKey struct {
	KmID        onem2m.KmID `json:"KmID"`
	KcID        onem2m.KcID `json:"KcID"`
	Kc          string      `json:"Kc"` // base64
	Established time.Time   `json:"established"`
}

// Load reads the key. There is none when the file isn't there, or holds another
// master key's.
func (path FileCache) Load(id onem2m.KmID) (Key, error) {
	text, err := os.ReadFile(string(path))
	if errors.Is(err, fs.ErrNotExist) {
		return Key{}, nil
	}
	if err != nil {
		return Key{}, err
	}
	defer clear(text)
	var c cachedKey
	// The decoder's own error could quote the file.
	if json.Unmarshal(text, &c) != nil {
		return Key{}, fmt.Errorf("%s is not a key file", string(path))
	}
	kc, err := base64.StdEncoding.DecodeString(c.Kc)
	if err != nil || len(kc) != kdf.ConnectionLength-len(c.KcID.Relative) || c.KcID.IsZero() {
		return Key{}, fmt.Errorf("%s holds no complete key", string(path))
	}
	if c.KmID != id {
		return Key{}, nil
	}
	return Key{KcID: c.KcID, Kc: secret.Own(kc), Established: c.Established}, nil
}

// Store writes the key.
func (path FileCache) Store(id onem2m.KmID, k Key) error {
	text, err := json.Marshal(cachedKey{
		KmID: id, KcID: k.KcID, Kc: base64.StdEncoding.EncodeToString(k.Kc.Bytes()), Established: k.Established,
	})
	if err != nil {
		return err
	}
	defer clear(text)
	return wholefile.Write(string(path), append(text, '\n'), 0o600)
}

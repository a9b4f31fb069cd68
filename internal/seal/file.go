package seal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/onem2m-maf/maf/internal/wholefile"
)

// File says where a keyset is kept and how.
type File struct {
	Path string
	// KEK is what the file is encrypted with; nil for a file in the clear.
	KEK KEK
	// Previous, when not nil, is tried on a file that KEK does not open.
	Previous KEK
}

// KEK is a key-encryption key: an AEAD whose String names it for people.
type KEK interface {
	tink.AEADWithContext
	String() string
}

// Create makes a new keyset and writes it to the file, which must not exist yet
// (errors.Is(err, fs.ErrExist) when it does). When it returns nil, the file is
// on stable storage.
func (f File) Create(ctx context.Context) (*Keyset, error) {
	handle, err := keyset.NewHandle(aead.XChaCha20Poly1305KeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	dates := []keyDates{{ID: KeyID(handle.KeysetInfo().GetPrimaryKeyId()), Created: now()}}
	data, _, err := f.marshal(ctx, handle, dates)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	// Only once the file is safe may a box be sealed that needs it.
	if err := wholefile.Create(f.Path, data, 0o600); err != nil {
		return nil, fmt.Errorf("seal: creating the keyset file: %w", err)
	}
	return f.Load(ctx)
}

// Load reads the keyset (errors.Is(err, fs.ErrNotExist) when there is none). It
// refuses a file that is open to anybody but its owner. One in the clear is read
// even where there is a KEK: see Keyset.Protect.
func (f File) Load(ctx context.Context) (*Keyset, error) {
	k := &Keyset{file: f}
	r, seen, err := f.read(ctx)
	if err != nil {
		return nil, err
	}
	k.ring.Store(r)
	k.seen = seen
	return k, nil
}

// read reads the file, and what stat says of the very file that was read.
func (f File) read(ctx context.Context) (*ring, fs.FileInfo, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return nil, nil, fmt.Errorf("seal: %w", err)
	}
	defer file.Close()
	// Ask the open file, not the path, which may lead elsewhere by now.
	info, err := file.Stat()
	if err != nil {
		return nil, nil, fmt.Errorf("seal: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("seal: %s is not a regular file", f.Path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, nil, fmt.Errorf("%w: %s has mode %#o", ErrPermissions, f.Path, uint32(mode))
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile))
	defer clear(data)
	if err != nil {
		return nil, nil, fmt.Errorf("seal: %w", err)
	}
	r, err := f.parse(ctx, data)
	if err != nil {
		return nil, nil, fmt.Errorf("seal: %s: %w", f.Path, err)
	}
	return r, info, nil
}

// maxFile is far beyond any keyset, and keeps a wrong path from filling memory.
const maxFile = 1 << 20

// formatName stands in the file. A file that means something else by what is in
// it gets another.
const formatName = "maf-keyset-1"

// content is the file as JSON.
type content struct {
	Format string `json:"format"`
	// KEK is for people: what the keyset is encrypted with. Empty, and only then,
	// it is in the clear.
	KEK  string     `json:"kek"`
	Keys []keyDates `json:"keys"`
	// Keyset is Tink's JSON of a keyset, or of an encrypted one, whose associated
	// data binds it to Keys.
	Keyset json.RawMessage `json:"keyset"`
}

// keyDates is what Tink does not keep of a key.
type keyDates struct {
	ID      KeyID     `json:"id"`
	Created time.Time `json:"created,omitzero"`
	Demoted time.Time `json:"demoted,omitzero"`
}

// now is in the form that the file keeps times in.
func now() time.Time { return time.Now().UTC().Truncate(time.Second) }

// binding is the associated data of an encrypted keyset.
func binding(dates []keyDates) ([]byte, error) {
	list, err := json.Marshal(dates)
	return append([]byte(formatName+" "), list...), err
}

// marshal returns the file's text for the keyset, and the ring that reading it
// gives: a key service that encrypts and does not decrypt (a matter of its
// policy) must be found out before the old file is gone.
func (f File) marshal(ctx context.Context, handle *keyset.Handle, dates []keyDates) (_ []byte, _ *ring, err error) {
	c := content{Format: formatName, Keys: dates}
	var inner bytes.Buffer
	defer func() { clear(inner.Bytes()) }()
	if f.KEK == nil {
		err = insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&inner))
	} else {
		c.KEK = f.KEK.String()
		var bound []byte
		if bound, err = binding(dates); err == nil {
			err = handle.WriteWithContext(ctx, keyset.NewJSONWriter(&inner), f.KEK, bound)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("seal: encrypting the keyset: %w", err)
	}
	c.Keyset = inner.Bytes()
	data, err := json.Marshal(c)
	if err != nil {
		return nil, nil, fmt.Errorf("seal: %w", err)
	}
	data = append(data, '\n')
	r, err := f.parse(ctx, data)
	if err != nil {
		clear(data)
		return nil, nil, fmt.Errorf("seal: what was encrypted does not open again: %w", err)
	}
	return data, r, nil
}

// errForm hides the parsers' errors, which may quote the file.
var errForm = errors.New("it does not hold a keyset")

// parse reads the file's text. A keyset that another program of Tink's made,
// without anything around it, is good too.
func (f File) parse(ctx context.Context, data []byte) (*ring, error) {
	var c content
	defer func() { clear(c.Keyset) }()
	if json.Unmarshal(data, &c) != nil {
		return nil, errForm
	}
	switch c.Format {
	case formatName:
	case "":
		c = content{Keyset: bytes.Clone(data)}
	default:
		return nil, fmt.Errorf("it is of format %.40q, which this program does not know", c.Format)
	}
	if c.KEK != "" {
		handle, err := f.decrypt(ctx, &c)
		if err != nil {
			return nil, err
		}
		return newRing(handle, c.Keys, c.KEK)
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(c.Keyset)))
	if err != nil {
		return nil, errForm
	}
	return newRing(handle, c.Keys, "")
}

func (f File) decrypt(ctx context.Context, c *content) (*keyset.Handle, error) {
	if f.KEK == nil && f.Previous == nil {
		return nil, fmt.Errorf("the keyset is encrypted with %.200q, and no key-encryption key is configured", c.KEK)
	}
	bound, err := binding(c.Keys)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, kek := range []KEK{f.KEK, f.Previous} {
		if kek == nil {
			continue
		}
		handle, err := keyset.ReadWithContext(ctx, keyset.NewJSONReader(bytes.NewReader(c.Keyset)), kek, bound)
		if err == nil {
			return handle, nil
		}
		errs = append(errs, fmt.Errorf("%v: %w", kek, err))
	}
	return nil, fmt.Errorf("the keyset, encrypted with %.200q, does not open: %w", c.KEK, errors.Join(errs...))
}

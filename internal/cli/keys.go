package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/onem2m-maf/maf/internal/secret"
	"github.com/onem2m-maf/maf/internal/wholefile"
)

// kmVariable is the environment variable that may hold a master key.
const kmVariable = "MAF_KM"

// maxKeyFile bounds a key file: what is larger is not a key.
const maxKeyFile = 4096

// keySource is where a master key comes from. The command line is the last
// choice: every user of the machine can read it.
type keySource struct {
	file, insecure string
}

func (s *keySource) flags(f *pflag.FlagSet) {
	f.StringVar(&s.file, "km-file", "", `file holding the master key (Km) in hexadecimal or base64; "-" is standard input`)
	f.StringVar(&s.insecure, "insecure-km", "", "the master key itself; other users of this machine can see it")
}

// given reports whether a flag names a key; the environment is not looked at.
func (s *keySource) given() bool { return s.file != "" || s.insecure != "" }

// read returns the key from the flags or else from the environment.
func (s *keySource) read(stdin io.Reader) (secret.Key, error) {
	switch {
	case s.insecure != "" && s.file != "":
		return secret.Key{}, errors.New("--km-file and --insecure-km are both given; one key is enough")
	case s.insecure != "":
		return parseKey("--insecure-km", []byte(s.insecure))
	case s.file == "-":
		return readKey("standard input", stdin)
	case s.file != "":
		f, err := os.Open(s.file)
		if err != nil {
			return secret.Key{}, err
		}
		defer f.Close()
		return readKey(s.file, f)
	case os.Getenv(kmVariable) != "":
		return parseKey("$"+kmVariable, []byte(os.Getenv(kmVariable)))
	}
	return secret.Key{}, &advised{errors.New("no master key (Km) is given"),
		"--km-file FILE, --km-file - for standard input, or $" + kmVariable, exitUsage}
}

func readKey(name string, r io.Reader) (secret.Key, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxKeyFile+1))
	defer clear(data)
	if err != nil {
		return secret.Key{}, err
	}
	if len(data) > maxKeyFile {
		return secret.Key{}, fmt.Errorf("%s is too large for a key", name)
	}
	return parseKey(name, data)
}

func parseKey(name string, text []byte) (secret.Key, error) {
	key, err := secret.Parse(bytes.TrimSpace(text))
	if err != nil {
		return key, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

// A keyFile is a new file that only its owner can read, made before there is
// a key to put in.
type keyFile struct {
	f    *os.File
	done bool
}

func newKeyFile(path string) (*keyFile, error) {
	// O_EXCL: never through a link that someone planted, never over a key.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, &advised{fmt.Errorf("%s exists, and a key file is never overwritten", path), "another name", exitFailed}
	}
	if err != nil {
		return nil, err
	}
	k := &keyFile{f: f}
	// The name, too, must outlive a power cut: this will be the only copy.
	if err := wholefile.SyncDir(filepath.Dir(path)); err != nil {
		k.abandon()
		return nil, err
	}
	return k, nil
}

// write fills the file and closes it.
func (k *keyFile) write(text string) error {
	_, err := io.WriteString(k.f, text)
	return k.close(err)
}

// close ends the writing, which ended with err, and makes it durable.
func (k *keyFile) close(err error) error {
	if err == nil {
		err = k.f.Sync()
	}
	if cerr := k.f.Close(); err == nil {
		err = cerr
	}
	k.done = err == nil
	return err
}

// abandon removes the file unless it was written.
func (k *keyFile) abandon() {
	if !k.done {
		k.f.Close()
		os.Remove(k.f.Name())
	}
}

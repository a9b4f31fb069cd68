package peers

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
)

//go:embed testdata
var sources embed.FS

// missingError says that the machine lacks something, unlike an error in our own
// sources, which must never be taken for a reason to skip.
type missingError string

func (e missingError) Error() string { return string(e) }

// building holds, for each program of this process, the one attempt to build it.
var building sync.Map // key string -> func() error (a sync.OnceValue)

// build makes the library's program, unless an earlier run of the same sources left it
// in the cache, and returns how to start it.
func build(l library) ([]string, error) {
	key, err := cacheKey(l)
	if err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, missingError("no folder to build foreign peers in: " + err.Error())
	}
	dir := filepath.Join(cache, "maf-peers", key)
	program := filepath.Join(dir, "peer-"+l.name)
	argv := []string{program}
	if l.interpreter != "" {
		interpreter, err := exec.LookPath(l.interpreter)
		if err != nil {
			return nil, missingError(err.Error())
		}
		argv = []string{interpreter, program}
	}
	once, _ := building.LoadOrStore(key, sync.OnceValue(func() error {
		if _, err := os.Stat(program); err == nil {
			return nil
		}
		return buildInto(l, dir, program)
	}))
	return argv, once.(func() error)()
}

// cacheKey names a build by all that goes into it. Shared libraries are bound at run
// time, so an upgraded one needs no new build.
func cacheKey(l library) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q", l)
	for _, name := range append(l.sources, "peer.h") {
		b, err := sources.ReadFile("testdata/" + name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n", name, len(b))
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil))[:16], nil
}

// buildInto builds in a folder of its own and renames the result into place, since other
// test processes may be building the same program.
func buildInto(l library, dir, program string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return missingError("no folder to build foreign peers in: " + err.Error())
	}
	work, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	for _, name := range append(l.sources, "peer.h") {
		b, err := sources.ReadFile("testdata/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(work, name), b, 0o600); err != nil {
			return err
		}
	}
	result := filepath.Join(work, l.sources[0])
	if l.language != "" {
		result = filepath.Join(work, "a.out")
		if err := compile(l, work, result); err != nil {
			return err
		}
	}
	return os.Rename(result, program)
}

// compile runs the system's compiler in the folder work.
func compile(l library, work, result string) error {
	name := map[string]string{"c": "cc", "c++": "c++"}[l.language]
	compiler, err := exec.LookPath(name)
	if err != nil {
		return missingError("no compiler: " + err.Error())
	}
	probe := slices.Concat(l.flags, []string{"-x", l.language, "-E", "-include", l.header, os.DevNull})
	if err := exec.Command(compiler, probe...).Run(); err != nil {
		return missingError("the development files of " + l.name + " are not installed (" + l.header + ")")
	}
	args := slices.Concat([]string{"-O1", "-Wall", "-Wextra", "-Werror", "-o", result}, l.flags)
	for _, source := range l.sources {
		// peer.c is C whatever compiles the rest.
		if filepath.Ext(source) == ".c" {
			args = append(args, "-x", "c", source, "-x", "none")
		} else {
			args = append(args, source)
		}
	}
	cmd := exec.Command(compiler, append(args, l.libs...)...)
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the %s peer: %v\n%s", l.name, err, out)
	}
	return nil
}

package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// unpack returns the files of a tar by name, with their headers.
func unpack(t *testing.T, text []byte) (map[string][]byte, map[string]*tar.Header) {
	t.Helper()
	files, headers := make(map[string][]byte), make(map[string]*tar.Header)
	r := tar.NewReader(bytes.NewReader(text))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return files, headers
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name], headers[h.Name] = content, h
	}
}

// TestBuild: every digest leads to a blob that has it, the program can be run by
// the image's user, and the same files give the same octets.
func TestBuild(t *testing.T) {
	program := filepath.Join(t.TempDir(), "mafd")
	if err := os.WriteFile(program, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	image, err := build("arm64", "maf:v1", []string{"/usr/bin/mafd=" + program})
	if err != nil {
		t.Fatal(err)
	}
	again, err := build("arm64", "maf:v1", []string{"/usr/bin/mafd=" + program})
	if err != nil || !bytes.Equal(image, again) {
		t.Errorf("a second build differs (%v)", err)
	}

	blobs, _ := unpack(t, image)
	type described struct {
		Digest string
		Size   int
	}
	blob := func(d described) []byte {
		t.Helper()
		b, ok := blobs["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
		if !ok || len(b) != d.Size || digest(b) != d.Digest {
			t.Fatalf("no blob, or another, under %+v", d)
		}
		return b
	}
	parse := func(text []byte, v any) {
		t.Helper()
		if err := json.Unmarshal(text, v); err != nil {
			t.Fatal(err)
		}
	}
	var index struct{ Manifests []described }
	parse(blobs["index.json"], &index)
	var manifest struct {
		Config described
		Layers []described
	}
	parse(blob(index.Manifests[0]), &manifest)
	var config struct {
		Architecture string
		Config       struct{ Entrypoint []string }
		RootFS       struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	parse(blob(manifest.Config), &config)
	layer := blob(manifest.Layers[0])
	if config.Architecture != "arm64" || config.RootFS.DiffIDs[0] != digest(layer) {
		t.Errorf("the configuration: %+v", config)
	}
	files, headers := unpack(t, layer)
	name := config.Config.Entrypoint[0][1:]
	if string(files[name]) != "a program" || headers[name].Mode != 0o755 {
		t.Errorf("the program: %q, %+v", files[name], headers[name])
	}
	if state := headers["var/lib/mafd/"]; state == nil || state.Uid != nobody || state.Mode != 0o700 {
		t.Errorf("the state folder: %+v", state)
	}
	for name := range files { // folders come before what is in them
		for dir := filepath.Dir(strings.TrimSuffix(name, "/")); dir != "."; dir = filepath.Dir(dir) {
			if headers[dir+"/"] == nil {
				t.Errorf("%s has no folder %s", name, dir)
			}
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, file := range []string{"mafd", "usr/bin/mafd=main.go", "/usr/../mafd=main.go", "/usr/bin/mafd=nowhere"} {
		if _, err := build("amd64", "maf", []string{file}); err == nil {
			t.Errorf("it took %q", file)
		}
	}
}

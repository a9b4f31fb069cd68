// Command image makes a container image of files: an OCI image layout in a tar
// file, as "podman load", "docker load" and "skopeo copy oci-archive:" take it.
// The same files give the same octets.
//
//	image -o maf.oci.tar -arch amd64 -tag maf:v1.0.0 /usr/bin/mafd=dist/mafd ...
//
// It is here because a static program needs no engine to become an image.
package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// nobody is the user that the image's program runs as.
const nobody = 65532

func main() {
	out := flag.String("o", "", "the `file` to make")
	arch := flag.String("arch", "amd64", "the programs' architecture, by its name in Go")
	tag := flag.String("tag", "maf:latest", "the image's name")
	flag.Parse()
	if *out == "" || flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: image -o FILE [-arch ARCH] [-tag NAME] PATH=FILE ...")
		os.Exit(2)
	}
	image, err := build(*arch, *tag, flag.Args())
	if err == nil {
		err = os.WriteFile(*out, image, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// build returns the image of files that are given as PATH=FILE.
func build(arch, tag string, files []string) ([]byte, error) {
	layer, err := makeLayer(files)
	if err != nil {
		return nil, err
	}
	layout := newLayout()
	config, err := layout.addJSON(map[string]any{
		"architecture": arch,
		"os":           "linux",
		"config": map[string]any{
			"User":       fmt.Sprintf("%d:%d", nobody, nobody),
			"Env":        []string{"STATE_DIRECTORY=/var/lib/mafd", "PATH=/usr/bin"},
			"Entrypoint": []string{"/usr/bin/mafd"},
			"Cmd":        []string{"-config", "/etc/maf/mafd.toml"},
			"Volumes":    map[string]any{"/var/lib/mafd": struct{}{}},
			"WorkingDir": "/var/lib/mafd",
			"StopSignal": "SIGTERM",
		},
		// The layer is not compressed, so its digest is that of its content.
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	if err != nil {
		return nil, err
	}
	manifest, err := layout.addJSON(map[string]any{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.manifest.v1+json",
		"config":        descriptor("application/vnd.oci.image.config.v1+json", config),
		"layers":        []any{descriptor("application/vnd.oci.image.layer.v1.tar", layout.add(layer))},
	})
	if err != nil {
		return nil, err
	}
	entry := descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
	entry["annotations"] = map[string]string{"org.opencontainers.image.ref.name": tag}
	entry["platform"] = map[string]string{"architecture": arch, "os": "linux"}
	return layout.close(map[string]any{
		"schemaVersion": 2,
		"mediaType":     "application/vnd.oci.image.index.v1+json",
		"manifests":     []any{entry},
	})
}

// makeLayer returns a tar of the files, of the folders above them, and of a
// folder for state.
func makeLayer(files []string) ([]byte, error) {
	content := make(map[string][]byte)
	folders := map[string]bool{"tmp": true, "var": true, "var/lib": true}
	for _, file := range files {
		name, from, ok := strings.Cut(file, "=")
		if !ok || !path.IsAbs(name) || path.Clean(name) != name {
			return nil, fmt.Errorf("%q is not PATH=FILE with an absolute path", file)
		}
		text, err := os.ReadFile(from)
		if err != nil {
			return nil, err
		}
		content[name[1:]] = text
		for dir := path.Dir(name[1:]); dir != "."; dir = path.Dir(dir) {
			folders[dir] = true
		}
	}
	content["etc/passwd"] = fmt.Appendf(nil, "root:x:0:0::/:/\nmafd:x:%d:%d::/var/lib/mafd:/\n", nobody, nobody)
	folders["etc"] = true

	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, dir := range sorted(folders) {
		h := tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, Format: tar.FormatUSTAR}
		if dir == "tmp" {
			h.Mode = 0o1777
		}
		w.WriteHeader(&h)
	}
	w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "var/lib/mafd/", Mode: 0o700, Uid: nobody, Gid: nobody, Format: tar.FormatUSTAR})
	for _, name := range sorted(content) {
		mode := int64(0o644)
		if strings.HasPrefix(name, "usr/bin/") {
			mode = 0o755
		}
		w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content[name])), Format: tar.FormatUSTAR})
		w.Write(content[name])
	}
	return b.Bytes(), w.Close() // which has the first error of all of them
}

func sorted[V any](m map[string]V) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// A layout is an OCI image layout that is being written.
type layout struct {
	b bytes.Buffer
	w *tar.Writer
}

func newLayout() *layout {
	l := &layout{}
	l.w = tar.NewWriter(&l.b)
	return l
}

func (l *layout) file(name string, content []byte) {
	l.w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), Format: tar.FormatUSTAR})
	l.w.Write(content)
}

// add adds a blob and returns it.
func (l *layout) add(blob []byte) []byte {
	l.file("blobs/sha256/"+strings.TrimPrefix(digest(blob), "sha256:"), blob)
	return blob
}

func (l *layout) addJSON(v any) ([]byte, error) {
	blob, err := json.Marshal(v) // sorts the names
	if err != nil {
		return nil, err
	}
	return l.add(blob), nil
}

// close returns the layout with its index.
func (l *layout) close(index any) ([]byte, error) {
	text, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	l.file("index.json", text)
	l.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	err = l.w.Close()
	return l.b.Bytes(), err
}

func descriptor(mediaType string, blob []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": digest(blob), "size": len(blob)}
}

func digest(blob []byte) string {
	sum := sha256.Sum256(blob)
	return "sha256:" + hex.EncodeToString(sum[:])
}

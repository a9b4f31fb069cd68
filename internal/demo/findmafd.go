package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// module is the first line of the go.mod of the source tree that we look for.
const module = "module github.com/onem2m-maf/maf\n"

// ErrNoMafd says that there is no mafd program to be had.
var ErrNoMafd = errors.New("the demo needs the program mafd beside maf, and it isn't there")

// findMafd returns the path of mafd: the one that was named, else the one
// beside maf, else one built from the source tree that we are in ("go run
// ./cmd/maf demo" makes no mafd), else the one in $PATH.
func findMafd(ctx context.Context, o Options, dir string) (string, error) {
	if o.Mafd != "" {
		return o.Mafd, nil
	}
	name := "mafd"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	if beside := filepath.Join(filepath.Dir(o.Maf), name); isFile(beside) {
		return beside, nil
	}
	if root := sourceTree(); root != "" {
		fmt.Fprintln(o.Progress, "building mafd (the first time takes a while)...")
		return build(ctx, root, filepath.Join(dir, name))
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", ErrNoMafd
}

// sourceTree returns the root of this project's source tree when the current
// folder is in one and there is a Go toolchain, else "".
func sourceTree() string {
	if _, err := exec.LookPath("go"); err != nil {
		return ""
	}
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	for {
		if text, err := os.ReadFile(filepath.Join(dir, "go.mod")); err == nil && strings.HasPrefix(string(text), module) {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

func build(ctx context.Context, root, target string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", target, "./cmd/mafd")
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building mafd: %w\n%s", err, text)
	}
	return target, nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

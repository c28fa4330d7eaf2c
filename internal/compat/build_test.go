package compat

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/writhq/writ/migrations"
	writsql "github.com/writhq/writ/sql"
)

// tree is a release's sources, and the rig that was built of them.
type tree struct {
	Release
	dir, rig string
}

// before builds the release before this one.
func before(t *testing.T) tree {
	t.Helper()
	root := repository(t)
	release, err := Before(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	old := tree{Release: release, dir: filepath.Join(t.TempDir(), "writ")}
	archive := exec.CommandContext(t.Context(), "git", "-C", root, "archive", release.Commit)
	var stdout, stderr bytes.Buffer
	archive.Stdout, archive.Stderr = &stdout, &stderr
	if err := archive.Run(); err != nil {
		t.Fatalf("git archive: %v: %s", err, stderr.String())
	}
	unpack(t, &stdout, old.dir)
	old.rig = build(t, old.dir)
	return old
}

func repository(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

func unpack(t *testing.T, from io.Reader, dir string) {
	t.Helper()
	for r := tar.NewReader(from); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if !strings.HasPrefix(path, dir+string(filepath.Separator)) {
			t.Fatalf("the archive holds %s", h.Name)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// build builds the rig of the sources in dir, as «make build» does its command, so that what all depend on is compiled already.
func build(t *testing.T, dir string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "rig")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "./internal/compat/rig")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the rig of %s: %v\n%s", dir, err, out)
	}
	return binary
}

// upgradable reports whether a database of the old release becomes one of this by its migrations. Those of a tagged release
// must not have been edited since, and a release that changes its functions has a migration more; before the first one, they may be.
func (old tree) upgradable(t *testing.T) bool {
	t.Helper()
	files, err := fs.Glob(os.DirFS(filepath.Join(old.dir, "migrations")), "*.sql")
	if err != nil {
		t.Fatal(err)
	}
	kept, functions := true, true
	for _, name := range files {
		was, err := os.ReadFile(filepath.Join(old.dir, "migrations", name))
		if err != nil {
			t.Fatal(err)
		}
		if is, err := migrations.Files.ReadFile(name); err != nil || !bytes.Equal(was, is) {
			kept = false
			if old.Tagged {
				t.Errorf("migrations/%s was edited since it was released (%v): put it back, and add a migration", name, err)
			}
		}
	}
	for _, f := range writsql.Repeatable() {
		was, err := os.ReadFile(filepath.Join(old.dir, "sql", f.Name+".sql"))
		functions = functions && err == nil && string(was) == f.Text
	}
	if old.Tagged && !functions && len(files) == migrations.Version {
		t.Errorf("files of sql/ were changed since the release, and there is no new migration: add one, if an empty one, and raise migrations.Version, so that older binaries leave the newer functions alone")
	}
	return kept
}

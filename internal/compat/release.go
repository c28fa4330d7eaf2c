// Package compat holds two releases against each other: the binaries of the one before, which its test builds, and those of
// this one work on one database and one broker, as they do while a deployment rolls.
package compat

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os/exec"
	"strings"
)

// The file names the release before this one: the commit of its tag, or, until there is one, the commit that the test began with. It must hold
// internal/compat/rig. It is raised with each release, and, before the first, where a change to the unreleased schema makes it useless.
//
//go:embed RELEASE
var recorded string

// Release is the one before this.
type Release struct {
	Commit string
	Tagged bool // else nothing has been released yet
}

// Before finds the release before this one, for the repository at root. Where its commit is not there, as in a shallow clone, the
// remote is asked for that alone. The error says what to do.
func Before(ctx context.Context, root string) (Release, error) {
	if _, err := git(ctx, root, "rev-parse", "--git-dir"); err != nil {
		return Release{}, fmt.Errorf("the release before this one is built from the repository's history, and there is none: run this in a git clone: %w", err)
	}
	r := Release{Commit: content(recorded)}
	if len(r.Commit) != 40 {
		return r, fmt.Errorf("internal/compat/RELEASE names %q; it must name a commit, by 40 hex digits", r.Commit)
	}
	if _, err := git(ctx, root, "cat-file", "-e", r.Commit+"^{tree}"); err != nil {
		if _, err := git(ctx, root, "fetch", "--quiet", "--no-tags", "--depth=1", "origin", r.Commit); err != nil {
			return r, fmt.Errorf("commit %s, which internal/compat/RELEASE names, is not in this clone, nor is it to be had from its remote: run git fetch --unshallow --tags: %w", r.Commit, err)
		}
	}
	tags, err := git(ctx, root, "tag", "--points-at", r.Commit)
	if err != nil {
		return r, err
	}
	r.Tagged = tags != ""
	// A newer tag that is known must be the one. HEAD's own does not count, nor what a shallow clone does not have.
	if newest, err := git(ctx, root, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^"); err == nil {
		commit, err := git(ctx, root, "rev-list", "-1", newest)
		if err == nil && commit != r.Commit {
			err = fmt.Errorf("internal/compat/RELEASE names commit %s, and %s has been released since: name its commit, %s", r.Commit, newest, commit)
		}
		return r, err
	}
	return r, nil
}

// content takes the comments off.
func content(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, " ")
}

// git runs a command in the repository and returns its output without the last newline.
func git(ctx context.Context, root string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", root}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

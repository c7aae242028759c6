#!/usr/bin/env bash
# Checks what can be checked without running the code: generated files, licence headers, shell scripts, and that the
# repository says nothing of the machine it was written on. `make verify` runs it after the linters.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
failed=0

# Reports a check by name; the findings, if any, come by standard input.
check() {
  local findings
  findings=$(cat)
  if [ -z "$findings" ]; then
    echo "ok      $1"
  else
    printf 'FAILED  %s\n%s\n' "$1" "$findings"
    failed=1
  fi
}

# Prints how the generated files differ from what the sources say now, and puts the latter in their place.
generated() {
  local before
  before=$(mktemp -d)
  cp -r api config docs "$before"
  if ! make --no-print-directory generate manifests reference >"$before/log" 2>&1; then
    cat "$before/log"
  fi
  for tree in api config docs; do diff -ru "$before/$tree" "$tree" || true; done
  rm -rf "$before"
}

# Prints the Go files without the licence header.
without_header() {
  local file header
  header=$(cat hack/boilerplate.go.txt)
  git ls-files --cached --others --exclude-standard '*.go' | while read -r file; do
    case $(head -c 1000 "$file") in
    "$header"*) ;;
    '//go:build '*"$header"*) ;;
    *) echo "$file" ;;
    esac
  done
}

# Prints the shell scripts.
scripts() {
  git ls-files --cached --others --exclude-standard '*.sh'
  git grep -l --untracked -E '^#!.*\b(ba)?sh$' -- ':!*.sh'
}

# Prints lines with the clone's directory, the home directory, or a module proxy's name other than the public one.
machine_traces() {
  local word
  {
    pwd
    case $HOME in /root | /) ;; *) echo "$HOME" ;; esac
    go env GOPROXY | tr ',|' '\n' | grep '://' | grep -v '^https://proxy\.golang\.org' || true
  } | while read -r word; do git grep --untracked -n -F -e "$word" || true; done
}

# Prints what keeps the packages that decide without libvirt from being built without it.
pure_with_cgo() {
  CGO_ENABLED=0 go vet ./internal/{domain,bootstrap,network,placement,hosturi,gateway} 2>&1 || true
}

# Prints how the rights that the manager is given differ from those that it uses.
unused_rights() {
  go test -count=1 ./test/manifests 2>&1 | grep -v '^ok' || true
}

generated | check "generated files are up to date"
without_header | check "Go files start with the licence header"
scripts | sort -u | xargs shellcheck -x --severity=warning | check "shellcheck finds nothing"
machine_traces | check "no traces of this machine"
pure_with_cgo | check "the pure packages build without cgo"
unused_rights | check "the manager has the rights that it uses and no more"
exit "$failed"

#!/usr/bin/env bash
# Runs the fuzz targets whose names match a regular expression, each for FUZZTIME. The last line sums up: "N clean, M failed".
# What makes a target fail is kept in testdata/fuzz beside it, where `go test` runs it from then on.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
pattern=${1:-.}

clean=0 failed=0
while IFS=: read -r file target; do
  if [[ ! $target =~ $pattern ]]; then
    continue
  fi
  echo "=== $target in $(dirname "$file") for ${FUZZTIME:=10m}"
  # go test has no limit of time while it fuzzes: this is for a target that hangs. To make what it finds smaller is given
  # little time, of which it would spend most otherwise.
  if timeout --kill-after=1m 3h go test -run '^$' -fuzz "^$target\$" -fuzztime "$FUZZTIME" -fuzzminimizetime 1s "./$(dirname "$file")"; then
    clean=$((clean + 1))
  else
    failed=$((failed + 1))
  fi
done < <(grep -roE --include='*_test.go' '^func Fuzz[A-Za-z0-9]*' internal | sed 's/:func /:/' | sort)

echo "$clean clean, $failed failed"
[ "$clean" -gt 0 ] && [ "$failed" -eq 0 ]

#!/usr/bin/env bash
# Runs `go test` with the given flags and packages. The last line sums up: "N passed, M failed".
# A skipped test counts as failed: what a test needs has to be there.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
events=$(mktemp)
trap 'rm -f "$events"' EXIT

status=0
# The hosts and daemons of the tests aren't inputs that Go's test cache knows of, hence -count=1.
"$GOTESTSUM" --format "${GOTESTSUM_FORMAT:-pkgname}" --hide-summary=skipped --jsonfile "$events" -- -count=1 -timeout 20m "$@" || status=$?

read -r passed failed < <(jq -rs '
  def tests(action): [.[] | select(.Action == action and .Test != null)] | length;
  # A package that failed without a failed test in it did not build, timed out or ended early.
  def failed_packages: ([.[] | select(.Action == "fail" and .Test != null) | .Package] | unique) as $known
    | [.[] | select(.Action == "fail" and .Test == null and .Package != null) | .Package] | unique - $known | length;
  "\(tests("pass")) \(tests("fail") + tests("skip") + failed_packages)"' "$events")

jq -r 'select(.Action == "skip" and .Test != null) | "skipped: \(.Package) \(.Test)"' "$events"
if [ "$passed" -eq 0 ] || [ "$failed" -gt 0 ]; then
  status=1
fi
echo "$passed passed, $failed failed"
exit "$status"

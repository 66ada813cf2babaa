#!/bin/sh
# What `npm test` and CI run, word for word. Every step runs, so that one look shows everything that is wrong; the tests
# come last, because their last line is the count of them.
set -u
cd "$(dirname "$0")/.." || exit 1
PATH="$PWD/node_modules/.bin:$PATH"
failed=

step() {
  name=$1
  shift
  if ! "$@"; then
    echo "check: $name FAILED" >&2
    failed="$failed $name"
  fi
}

step format prettier --check --log-level=warn .
step lint npm run -s lint
step build npm run -s build
step types npm run -s types
step licences npm run -s licences
[ -z "$failed" ] || echo "check: failed before the tests:$failed" >&2
sh scripts/test-packages.sh
vitest run || failed="$failed tests"
[ -z "$failed" ]

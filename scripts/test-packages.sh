#!/bin/sh
# What the tests use of the system. As root on Debian it is installed; elsewhere it is named, and the tests that need it say
# that they were skipped.
set -u
missing=
# program:package
for pair in ip:iproute2 mount:mount; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing for the tests:$missing"
  # shellcheck disable=SC2086
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing; } >/dev/null 2>&1 && exit 0
  echo "could not be installed:$missing"
else
  echo "some tests need these packages, and are skipped without:$missing"
fi
exit 0

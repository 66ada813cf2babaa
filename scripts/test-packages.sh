#!/bin/sh
# What the tests use of the system. As root on Debian it is installed; elsewhere it is named, and the tests that need it say
# that they were skipped.
set -u
PATH="$PATH:/usr/sbin"
missing=
# program:package
for pair in ip:iproute2 mount:mount openssl:openssl redis-server:redis-server pgbouncer:pgbouncer faketime:faketime prometheus:prometheus \
  amtool:prometheus-alertmanager prometheus-postgres-exporter:prometheus-postgres-exporter \
  prometheus-redis-exporter:prometheus-redis-exporter prometheus-nginx-exporter:prometheus-nginx-exporter \
  prometheus-node-exporter:prometheus-node-exporter prometheus-blackbox-exporter:prometheus-blackbox-exporter \
  systemd-analyze:systemd strace:strace docker-compose:docker-compose jq:jq curl:curl; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
# nginx passes TCP on with a module only
[ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing="$missing nginx libnginx-mod-stream"
# pg_dump, pg_basebackup and a server of their version: the PostgreSQL of npm has no such tools
ls /usr/lib/postgresql/*/bin/pg_basebackup >/dev/null 2>&1 || missing="$missing postgresql"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  echo "installing for the tests:$missing"
  # the tests start what they need: a package must start no service of its own (Debian's policy-rc.d, unless there is one)
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy"
  fi
  # the system itself may be at it when it has just started
  patient='-o DPkg::Lock::Timeout=300 -o Acquire::Retries=3'
  # shellcheck disable=SC2086
  { apt-get $patient update -qq && DEBIAN_FRONTEND=noninteractive apt-get $patient install -y -qq --no-install-recommends $missing; } >/dev/null 2>&1 && exit 0
  echo "could not be installed:$missing"
else
  echo "some tests need these packages, and are skipped without:$missing"
fi
exit 0

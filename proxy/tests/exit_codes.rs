//! Exit codes and the channels of commands that need no server (user-experience 3.2, 3.3).
#![expect(clippy::expect_used, reason = "a test that cannot start its binary has failed")]

use std::path::Path;
use std::process::{Command, Output};

fn ringgate(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringgate"))
        .args(arguments)
        .env_clear()
        .env("RINGGATE_HOME", home)
        .current_dir(home)
        .output()
        .expect("the binary runs")
}

#[test]
fn each_kind_of_failure_has_its_code_and_says_so_on_stderr() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("wrong.yaml"), "nod: {}\n").unwrap();
    let full = home.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("file"), "x").unwrap();
    let table: [(&[&str], i32); 18] = [
        (&["config", "chekc"], 2),
        (&["db", "login"], 2),
        (&["db", "ls", "--frmat", "json"], 2),
        (&["get", "roles", "--format", "toml"], 2),
        (&["proxy", "db", "orders"], 2),
        (&["proxy", "db", "--tunnel", "--listen", "0.0.0.0:1", "orders"], 2),
        (&["audit", "search", "--since", "yesterday", "--dir", "."], 2),
        (&["ca", "sign", "--host", "h", "--out", "x", "--ttl", "soon"], 2),
        (&["quickstart", "--data-dir", "d", "--db", "orders"], 2),
        (&["quickstart", "--data-dir", "d", "--listen", "postgres=0.0.0.0:1"], 2),
        (&["db", "ls"], 3),
        (&["db", "connect", "orders"], 3),
        (&["status"], 3),
        (&["create", "wrong.yaml"], 3),
        (&["audit", "verify", "--dir", "full"], 5),
        (&["quickstart", "--data-dir", "full"], 6),
        (&["config", "check", "wrong.yaml"], 1),
        (&["server", "-c", "wrong.yaml"], 78),
    ];
    for (arguments, code) in table {
        let output = ringgate(home.path(), arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        if arguments[0] != "config" || code != 1 {
            assert!(said.starts_with("error: "), "{arguments:?}: {said}");
            assert!(output.stdout.is_empty(), "{arguments:?}");
        }
    }
}

#[test]
fn a_misspelt_command_is_answered_with_the_nearest_one() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, nearest) in [(["config", "chekc"], "check"), (["audit", "serach"], "search")] {
        let said = ringgate(home.path(), &arguments).stderr;
        assert!(String::from_utf8_lossy(&said).contains(nearest), "{arguments:?}");
    }
}

#[test]
fn data_goes_to_stdout_in_every_form() {
    let home = tempfile::tempdir().unwrap();
    let json = ringgate(home.path(), &["version", "--format", "json"]);
    assert_eq!(json.status.code(), Some(0));
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["client"]["version"], env!("CARGO_PKG_VERSION"));
    let yaml = ringgate(home.path(), &["version", "--format", "yaml"]);
    assert!(String::from_utf8_lossy(&yaml.stdout).starts_with("client:\n"));
    let help = ringgate(home.path(), &["db", "connect", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(help.stderr.is_empty());
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = ringgate(home.path(), &["completion", shell]);
        assert!(String::from_utf8_lossy(&script.stdout).contains("quickstart"), "{shell}");
    }
}

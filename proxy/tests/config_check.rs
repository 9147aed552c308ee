//! `config check` on files with one mistake each: the one message, its place, and the exit code.
#![expect(clippy::expect_used, reason = "a test that cannot start its binary has failed")]

use std::path::Path;
use std::process::{Command, Output};

fn check(folder: &Path, file: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringgate"))
        .args(["config", "check", file])
        .current_dir(folder)
        .env_clear()
        .output()
        .expect("the binary runs")
}

/// Every file ends with `# expect: LINE:COLUMN: MESSAGE`.
#[test]
fn every_wrong_file_gives_its_one_message_with_line_and_column() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config_check");
    let mut count = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let text = std::fs::read_to_string(folder.join(&name)).unwrap();
        let expected = text.lines().last().and_then(|line| line.strip_prefix("# expect: ")).unwrap();
        let output = check(&folder, &name);
        let shown = String::from_utf8(output.stdout).unwrap();
        let problems: Vec<&str> = shown.lines().filter(|line| line.starts_with(&name)).collect();
        if problems != [format!("{name}:{expected}")] || output.status.code() != Some(1) || !output.stderr.is_empty() {
            wrong.push(format!("{name}: expected {expected}, got {:?}:\n{shown}", output.status));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count >= 40, "only {count} files");
}

#[test]
fn a_secret_written_by_mistake_is_not_shown() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config_check");
    for file in ["literal_secret.yaml", "secret_in_uri.yaml"] {
        let output = check(&folder, file);
        let shown = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&shown).contains("hunter2"), "{file}");
    }
}

#[test]
fn a_mistake_shows_its_line_and_the_nearest_known_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/config_check");
    let output = check(&folder, "unknown_key.yaml");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "unknown_key.yaml:4:3: unknown key `shutdwn_grace` in `runtime`\n  line:   shutdwn_grace: 30s\n  \
         try:  `shutdown_grace`\n"
    );
}

#[test]
fn a_sound_file_is_ok_and_what_is_shown_of_it_is_sound_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("a.yaml"),
        "node: { data_dir: data }\nlisteners: { postgres: { addr: \":5432\" } }\n",
    )
    .unwrap();
    let output = check(folder.path(), "a.yaml");
    assert_eq!(output.status.code(), Some(0));
    let shown = Command::new(env!("CARGO_BIN_EXE_ringgate"))
        .args(["config", "show", "a.yaml"])
        .current_dir(folder.path())
        .env_clear()
        .output()
        .unwrap();
    assert!(shown.status.success());
    std::fs::write(folder.path().join("b.yaml"), shown.stdout).unwrap();
    let output = check(folder.path(), "b.yaml");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_file_that_is_not_there_is_an_error_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let output = check(folder.path(), "nowhere.yaml");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: cannot read nowhere.yaml\n  why: "));
}

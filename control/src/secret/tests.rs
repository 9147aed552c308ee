use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn command(words: &[&str]) -> SecretRef {
    SecretRef::Command(words.iter().map(|w| (*w).to_owned()).collect())
}

fn shell(script: &str) -> SecretRef {
    command(&["/bin/sh", "-c", script])
}

#[test]
fn a_file_gives_its_content_without_the_last_line_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pw");
    for (content, secret) in
        [("hunter2", "hunter2"), ("hunter2\n", "hunter2"), ("hunter2\r\n", "hunter2"), ("a\nb\n", "a\nb")]
    {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(*resolve(&SecretRef::File(path.clone())).unwrap(), secret, "{content:?}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(resolve(&SecretRef::File(path)).is_ok(), "a readable file is used, with a warning");
}

#[test]
fn unusable_content_is_refused_without_showing_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pw");
    let long = "hunter2".repeat(SECRET_BYTES_MAX);
    for content in [&b""[..], b"\n", b"hunter2\0x", b"hunter2\xff", long.as_bytes()] {
        fs::write(&path, content).unwrap();
        let error = resolve(&SecretRef::File(path.clone())).unwrap_err();
        assert!(matches!(error, SecretError::Unusable(_)), "{error}");
        assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"));
    }
    let longest = "x".repeat(SECRET_BYTES_MAX);
    fs::write(&path, format!("{longest}\n")).unwrap();
    assert_eq!(*resolve(&SecretRef::File(path)).unwrap(), longest);
}

#[test]
fn missing_places_are_named() {
    let file = resolve(&SecretRef::File("/no/such/secret".into())).unwrap_err();
    assert!(file.to_string().contains("/no/such/secret"), "{file}");
    let variable = resolve(&SecretRef::Env("RINGGATE_NO_SUCH_VARIABLE".into())).unwrap_err();
    assert!(variable.to_string().contains("RINGGATE_NO_SUCH_VARIABLE"), "{variable}");
    let program = resolve(&command(&["/no/such/program"])).unwrap_err();
    assert!(program.to_string().contains("/no/such/program"), "{program}");
}

#[test]
fn a_variable_gives_its_value() {
    let value = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    assert_eq!(*resolve(&SecretRef::Env("CARGO_MANIFEST_DIR".into())).unwrap(), value);
}

#[test]
fn a_command_gives_its_first_line() {
    for script in
        ["echo hunter2", "printf hunter2", "echo hunter2; echo more", "echo hunter2; head -c 1000000 /dev/zero"]
    {
        assert_eq!(*resolve(&shell(script)).unwrap(), "hunter2", "{script}");
    }
}

#[test]
fn a_command_that_fails_is_refused_without_showing_what_it_said() {
    for script in ["echo hunter2; exit 3", "echo hunter2 >&2; exit 1", "echo; true", "true", "kill -9 $$"] {
        let error = resolve(&shell(script)).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{script}: {error}");
    }
}

#[test]
fn a_command_is_ended_at_its_deadline() {
    let words = ["/bin/sleep".to_owned(), "3600".to_owned()];
    let error = first_line_of(&words, Duration::from_millis(50)).unwrap_err();
    assert!(error.to_string().contains("took longer"), "{error}");
}

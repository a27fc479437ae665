//! Commands whose reader goes away before they have said all.

use std::io::Read as _;
use std::process::{Command, Stdio};

use undertone::audio::Encoding;

use crate::process::undertone;
use crate::signal::{encode, speech, wav};
use crate::support::model_folder;

/// Runs a command whose standard output is closed before it begins to speak.
#[track_caller]
fn unheard(args: &[&str]) -> (Option<i32>, String) {
    // The reading end is closed at once: the first write fails.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command: Command = undertone(args);
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_command_that_nobody_listens_to_ends_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let data = encode(&speech(1, 1.0, 16_000), Encoding::Linear16);
    for number in 0..3 {
        let clip = wav(Encoding::Linear16, 16_000, 1, &data);
        std::fs::write(path(&format!("{number}.wav")), clip).unwrap();
    }
    let model = model_folder("tiny-steps").display().to_string();
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    std::fs::write(path("secret"), secret).unwrap();
    let delivery = format!(
        "schema: undertone.delivery/v1\nsinks:\n  - name: a\n    webhook: {{url: \
         'http://127.0.0.1:9/', allow_private: true, secrets: [{{file: '{}'}}]}}\n",
        path("secret")
    );
    std::fs::write(path("delivery.yaml"), delivery).unwrap();
    let (file, clips) = (path("delivery.yaml"), folder.path().display().to_string());
    let store = format!("sqlite:{}", path("store.db"));
    for args in [
        &["--help"][..],
        &["--version"],
        &["policy", "list"],
        &["policy", "schema"],
        &["policy", "show", "care-call"],
        &["models", "--model", &model],
        &["check", "--model", &model, "--escalation-store", &store],
        &["completions", "bash"],
        &["delivery", "schema"],
        &["delivery", "check", &file],
        &["delivery", "sample", &file, "--sink", "a"],
        &["analyze", "--model", &model, &clips],
        &["analyze", "--format", "json", "--model", &model, &clips],
    ] {
        let (code, errors) = unheard(args);
        assert!(!errors.contains("panicked"), "{args:?}: {errors}");
        assert!(!errors.contains("Broken pipe"), "{args:?}: {errors}");
        assert_eq!(code, Some(0), "{args:?}: {errors}");
    }
}

#[test]
fn a_reader_that_wants_one_line_gets_it() {
    let mut child = undertone(&["policy", "list"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 8];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
}

#[test]
fn a_disk_that_is_full_is_told() {
    let Ok(full) = std::fs::File::options().write(true).open("/dev/full") else {
        // Linux only.
        return;
    };
    let child =
        undertone(&["policy", "schema"]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("No space left"), "{errors}");
}

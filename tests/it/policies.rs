//! Policies from the command line: tried on recordings, rehearsed on composed conversations.

use std::path::{Path, PathBuf};
use std::process::Output;

use undertone::audio::Encoding;

use crate::process::undertone;
use crate::signal::{encode, speech, wav};
use crate::support::model_folder;

/// Arousal is always above -1: the first rule holds as soon as enough was said, the second never does.
const POLICY: &str = "\
schema: undertone.policy/v1
name: heard
version: \"1\"
description: For a test.
rules:
  - name: says-something
    title: Says something
    severity: low
    when: {level: {of: arousal, over: 4s, on: -0.98, off: -0.99, min_speech: 500ms}}
    on_session_end: clear
    reason: Arousal is {{ arousal | round(1) }}.
  - name: very-angry
    title: Very <angry>
    severity: high
    when: {level: {of: angry, over: 4s, on: 1.0, off: 0.99}}
    reason: anger
";

struct Desk {
    root: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { root: tempfile::tempdir().unwrap() };
        std::fs::write(desk.path("heard.yaml"), POLICY).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A recording with a voice on each of its channels.
    fn record(&self, name: &str, seeds: &[u64], seconds: f64) {
        let voices: Vec<Vec<f32>> =
            seeds.iter().map(|seed| speech(*seed, seconds, 16_000)).collect();
        let frames = 0..voices[0].len();
        let samples: Vec<f32> =
            frames.flat_map(|at| voices.iter().map(move |voice| voice[at])).collect();
        let data = encode(&samples, Encoding::Linear16);
        let file = wav(Encoding::Linear16, 16_000, seeds.len() as u16, &data);
        std::fs::write(self.path(name), file).unwrap();
    }

    fn policy(&self, args: &[&str]) -> Output {
        let model = model_folder("tiny-steps").display().to_string();
        let mut command = undertone(&["policy"]);
        command.args(args).args(["--model", &model]).current_dir(self.root.path());
        command.output().unwrap()
    }
}

fn said(output: &Output) -> String {
    let of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", of(&output.stdout), of(&output.stderr))
}

fn rows(output: &Output) -> Vec<serde_json::Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn hello() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/hello.wav").display().to_string()
}

#[test]
fn a_recording_is_watched_and_what_was_raised_is_told_with_its_time_and_reason() {
    let desk = Desk::new();
    let hello = hello();
    let output = desk.policy(&["test", "heard.yaml", &hello, "--plot", "hello.svg"]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for line in
        ["raised   low", "cleared  low", "says-something", "Arousal is ", "1 raised by heard"]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.contains("mean of arousal over 4 s"), "{text}");
    assert!(!text.contains("very-angry"), "{text}");
    let svg = std::fs::read_to_string(desk.path("hello.svg")).unwrap();
    assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>"));
    for part in ["Says something", "Very &lt;angry&gt;", "raised 0:0", "on -0.98", "off 0.99"] {
        assert!(svg.contains(part), "{part}");
    }
    assert!(!svg.contains("NaN"));
}

#[test]
fn each_channel_is_watched_by_itself_if_asked_for_and_a_line_of_json_tells_it() {
    let desk = Desk::new();
    desk.record("call.wav", &[1, 2], 8.0);
    let args = ["test", "heard.yaml", "call.wav", "--format", "json"];
    let mixed = rows(&desk.policy(&args)).remove(0);
    assert_eq!(mixed["raised"], 1, "{mixed}");
    let apart = rows(&desk.policy(&[&args[..], &["--separate-channels"]].concat())).remove(0);
    assert_eq!(apart["raised"], 2, "{apart}");
    let decisions = apart["decisions"].as_array().unwrap();
    let channels: Vec<&serde_json::Value> = decisions.iter().map(|d| &d["channel"]).collect();
    assert!(channels.contains(&&0.into()) && channels.contains(&&1.into()), "{apart}");
    let first = &decisions[0];
    assert_eq!((&first["action"], &first["severity"]), (&"raised".into(), &"low".into()));
    assert!(first["onset_s"].as_f64().unwrap() <= first["at_s"].as_f64().unwrap());
    assert_eq!(first["evidence"]["conditions"][0]["holds"], true);
}

#[test]
fn a_bad_policy_is_told_as_check_tells_it_and_one_that_is_not_there_with_those_that_are() {
    let desk = Desk::new();
    let hello = hello();
    std::fs::write(desk.path("bad.yaml"), POLICY.replace("over: 4s", "over: never")).unwrap();
    let output = desk.policy(&["test", "bad.yaml", &hello]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("bad.yaml:9:"), "{}", said(&output));
    let output = desk.policy(&["test", "nobody", &hello]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("care-call"), "{}", said(&output));
    let output = desk.policy(&["test", "care-call", &hello]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn a_recording_that_cannot_be_read_is_told_and_the_others_are_watched() {
    let desk = Desk::new();
    std::fs::write(desk.path("noise.wav"), b"no sound").unwrap();
    let hello = hello();
    let output = desk.policy(&["test", "heard.yaml", "noise.wav", &hello]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("noise.wav: ") && text.contains("1 raised by heard"), "{text}");
    let output = desk.policy(&["test", "heard.yaml", &hello, &hello, "--plot", "x.svg"]);
    assert!(said(&output).contains("--plot draws one recording"), "{}", said(&output));
}

/// Two actors with a phrase or two of everything that is said in a rehearsal.
fn corpus(desk: &Desk) {
    std::fs::create_dir(desk.path("corpora")).unwrap();
    for actor in 1..=2_u64 {
        for (index, acted) in ["01", "02", "03", "04", "05", "06"].iter().enumerate() {
            for take in 1..=2 {
                let name = format!("corpora/03-01-{acted}-01-01-0{take}-0{actor}.wav");
                let seed = 100 * actor + 10 * index as u64 + take;
                desk.record(&name, &[seed], 1.2 + 0.1 * take as f64);
            }
        }
    }
}

#[test]
fn a_rehearsal_gives_the_same_figures_for_any_number_of_jobs_and_keeps_no_sound_unasked() {
    let desk = Desk::new();
    corpus(&desk);
    let rehearse = |jobs: &str, more: &[&str]| {
        let out = format!("{jobs}.json");
        let fixed = ["rehearse", "corpora", "--policy", "heard.yaml", "--sessions", "1"];
        let output = desk.policy(&[&fixed[..], &["--jobs", jobs, "--out", &out], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains("### heard 1+"), "{}", said(&output));
        std::fs::read_to_string(desk.path(&out)).unwrap()
    };
    let one = rehearse("1", &[]);
    assert_eq!(std::fs::read_dir(desk.root.path()).unwrap().count(), 3, "nothing but the figures");
    assert_eq!(one, rehearse("2", &["--keep-audio", "kept"]));
    let json: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!(json["settings"]["speakers"]["ravdess"], 2);
    assert_eq!(json["settings"]["sessions"], 2);
    let part = &json["policies"][0]["parts"][0];
    assert_eq!(part["kinds"][0]["feeling"], "angry");
    assert_eq!(part["kinds"][0]["stretches"], 2);
    assert!(part["alarms"]["low"]["count"].as_u64().unwrap() >= 2, "it speaks of everything");
    assert_eq!(part["alarms"]["high"]["count"], 0);

    let labels = std::fs::read_to_string(desk.path("kept").join("ravdess-01-0.txt")).unwrap();
    let truth: Vec<&str> = labels.lines().map(|line| line.split('\t').nth(2).unwrap()).collect();
    assert_eq!(truth, ["angry", "sad"]);
    let kept = std::fs::metadata(desk.path("kept").join("ravdess-01-0.wav")).unwrap().len();
    assert!((600 * 32_000..610 * 32_000).contains(&kept), "{kept}");
}

//! `undertone evaluate`: models judged on a tiny corpus that is synthesised here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use undertone::audio::Encoding;
use undertone::corpus::scan;
use undertone::evaluation::{self, Condition, Plan, Protocol};
use undertone::wire::parse::default_analysis;

use crate::process::undertone;
use crate::signal::{encode, silence, speech, wav};
use crate::support::{model_folder, open_model, settings};

/// Emotions by RAVDESS' codes, with an intensity each.
const ACTED: [&str; 5] = ["01-01", "03-01", "04-02", "05-02", "05-01"];
/// The clip of one actor that nobody would notice.
const SILENT: &str = "03-01-06-01-01-01-01";

/// Three actors, whom folds 0, 1 and 2 are dealt, five phrases each, and a clip of silence.
fn corpus(folder: &Path) {
    for actor in 1..=3_u64 {
        for (index, acted) in ACTED.iter().enumerate() {
            let samples = speech(10 * actor + index as u64, 1.3 + 0.2 * actor as f64, 16_000);
            write(folder, &format!("03-01-{acted}-01-01-{actor:02}"), &samples);
        }
    }
    write(folder, SILENT, &silence(7, 0.8, 16_000));
}

fn write(folder: &Path, name: &str, samples: &[f32]) {
    let bytes = wav(Encoding::Linear16, 16_000, 1, &encode(samples, Encoding::Linear16));
    std::fs::write(folder.join(format!("{name}.wav")), bytes).unwrap();
}

/// Folds 0 and 2 of one seed, a random run, all with one tiny model.
fn protocol(folder: &Path) {
    for run in ["fold-0-seed-1", "fold-2-seed-1", "random-seed-1"] {
        let to = folder.join(run);
        std::fs::create_dir_all(&to).unwrap();
        for file in ["model.onnx", "model.toml"] {
            std::fs::copy(model_folder("tiny-steps").join(file), to.join(file)).unwrap();
        }
    }
    let listed = "03-01-01-01-01-01-01\n03-01-04-02-01-01-02\n";
    std::fs::write(folder.join("random-seed-1/clips.txt"), listed).unwrap();
    let json = r#"{"schema": 1, "name": "tiny", "description": "Three runs.", "runs": [
        {"model": "fold-0-seed-1", "kind": "fold", "fold": 0, "seed": 1},
        {"model": "fold-2-seed-1", "kind": "fold", "fold": 2, "seed": 1},
        {"model": "random-seed-1", "kind": "random", "seed": 1, "clips": "random-seed-1/clips.txt"}]}"#;
    std::fs::write(folder.join("protocol.json"), json).unwrap();
}

struct Bench {
    root: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let bench = Self { root };
        std::fs::create_dir(bench.path("corpora")).unwrap();
        corpus(&bench.path("corpora"));
        protocol(&bench.path("protocol"));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn evaluate(&self, args: &[&str]) -> Output {
        let corpora = self.path("corpora").display().to_string();
        let mut command = undertone(&["evaluate", &corpora]);
        command.current_dir(self.root.path()).args(args).output().unwrap()
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn json(folder: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(folder.join("evaluation.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The numbers of `value` by their path, all of them finite: JSON has no others.
fn numbers(path: &str, value: &serde_json::Value, into: &mut BTreeMap<String, f64>) {
    match value {
        serde_json::Value::Number(number) => {
            into.insert(path.to_owned(), number.as_f64().unwrap());
        }
        serde_json::Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(index, item)| numbers(&format!("{path}/{index}"), item, into)),
        serde_json::Value::Object(items) => {
            for (name, item) in items {
                numbers(&format!("{path}/{name}"), item, into);
            }
        }
        _ => {}
    }
}

fn rows(folder: &Path) -> Vec<BTreeMap<String, String>> {
    csv::Reader::from_path(folder.join("clips.csv"))
        .unwrap()
        .deserialize()
        .map(|row| row.unwrap())
        .collect()
}

#[test]
fn a_protocol_gives_finite_figures_and_the_same_for_one_job_and_for_four() {
    let bench = Bench::new();
    for jobs in ["1", "4"] {
        let output = bench.evaluate(&["--protocol", "protocol", "--out", jobs, "--jobs", jobs]);
        assert!(output.status.success(), "{}", said(&output));
        let text = said(&output);
        assert!(text.contains("Seed 1: folds 0, 2 only"), "{text}");
        assert!(text.contains("random split"), "{text}");
    }
    let (one, four) = (json(&bench.path("1")), json(&bench.path("4")));
    let (mut left, mut right) = (BTreeMap::new(), BTreeMap::new());
    numbers("", &one, &mut left);
    numbers("", &four, &mut right);
    assert!(left.len() > 300, "{}", left.len());
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
    for (path, value) in &left {
        assert!((value - right[path]).abs() < 1e-5, "{path}: {value} and {}", right[path]);
    }
    assert_eq!(one["corpora_fingerprint"], four["corpora_fingerprint"]);

    let part = &one["corpora"][0];
    assert_eq!(part["corpus"], "ravdess");
    assert_eq!(part["clips"], 11, "folds 0 and 2: two actors and the silent clip");
    assert_eq!(part["unheard"], 1);
    assert_eq!(part["conditions"].as_array().unwrap().len(), Condition::ALL.len());
    assert!(part["conditions"].as_array().unwrap().iter().all(|c| c["ua"]["mean"].is_number()));
    assert_eq!(one["random"]["all"]["clips"], 2);

    let html = std::fs::read_to_string(bench.path("4").join("report.html")).unwrap();
    assert!(html.contains("<svg") && html.contains("Robustness") && !html.contains("NaN"));
    assert!(!html.contains("http://") && !html.contains("https://"));
}

#[test]
fn a_fold_run_never_meets_a_clip_of_another_fold() {
    let bench = Bench::new();
    let args = ["--protocol", "protocol", "--conditions", "clean", "--out", "out"];
    let output = bench.evaluate(&args);
    assert!(output.status.success(), "{}", said(&output));
    let folds: BTreeMap<String, u8> = scan::scan(&bench.path("corpora"))
        .unwrap()
        .clips
        .into_iter()
        .map(|clip| (clip.name, clip.fold))
        .collect();
    let mut met = BTreeMap::<String, BTreeSet<String>>::new();
    for row in rows(&bench.path("out")) {
        if let Ok(fold) = row["fold"].parse::<u8>() {
            assert_eq!(folds[&row["clip"]], fold, "{row:?}");
        }
        met.entry(row["run"].clone()).or_default().insert(row["clip"].clone());
        let sum: f64 = undertone::emotion::Emotion::ALL
            .iter()
            .map(|emotion| row[emotion.name()].parse::<f64>().unwrap())
            .sum();
        assert!((sum - 1.0).abs() < 1e-4, "{row:?}");
        assert_eq!(row["unheard"] == "true", row["clip"] == SILENT, "{row:?}");
    }
    assert_eq!(met["fold-0-seed-1"].len(), 6);
    assert_eq!(met["fold-2-seed-1"].len(), 5);
    assert_eq!(met["random-seed-1"].len(), 2);
}

#[test]
fn one_model_is_judged_on_everything_and_the_report_says_that_nobody_checked() {
    let bench = Bench::new();
    let model = model_folder("tiny-steps").display().to_string();
    let output = bench.evaluate(&["--model", &model, "--conditions", "telephone", "--out", "out"]);
    assert!(output.status.success(), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("Nobody has checked"), "{text}");
    assert!(text.contains("ravdess is a foreign corpus"), "it was trained on \"none\": {text}");
    let json = json(&bench.path("out"));
    assert_eq!(json["protocol"]["kind"], "model");
    assert_eq!(json["corpora"][0]["clips"], 16);
    assert_eq!(json["settings"]["conditions"], serde_json::json!(["clean", "telephone"]));
    assert_eq!(json["models"][0]["sha256"].as_str().unwrap().len(), 64);
}

#[test]
fn what_cannot_be_used_is_refused_with_file_and_field() {
    let bench = Bench::new();
    let file = bench.path("protocol").join("protocol.json");
    let good = std::fs::read_to_string(&file).unwrap();
    for (from, to, says) in [
        ("\"fold\": 2", "\"fold\": 9", "runs[1].fold"),
        ("\"fold-2-seed-1\"", "\"no-such-model\"", "no-such-model"),
        ("\"schema\": 1", "\"schema\": 7", "schema: is 7"),
        ("\"name\": \"tiny\"", "\"nam\": \"tiny\"", "nam"),
    ] {
        std::fs::write(&file, good.replace(from, to)).unwrap();
        let output = bench.evaluate(&["--protocol", "protocol"]);
        assert_eq!(output.status.code(), Some(1));
        let text = said(&output);
        assert!(text.contains(says), "{text}");
    }
    let dimensions = model_folder("tiny-dimensions").display().to_string();
    let output = bench.evaluate(&["--model", &dimensions]);
    assert!(said(&output).contains("needs labels"), "{}", said(&output));
    let output = bench.evaluate(&["--corpora", "savee"]);
    assert!(said(&output).contains("no clips"), "{}", said(&output));
}

#[test]
fn a_clip_that_cannot_be_read_is_told_and_the_others_are_judged() {
    let bench = Bench::new();
    std::fs::write(bench.path("corpora").join("03-01-07-01-01-01-01.wav"), b"no sound").unwrap();
    let model = model_folder("tiny-window").display().to_string();
    let output = bench.evaluate(&["--model", &model, "--conditions", "clean", "--out", "out"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("03-01-07-01-01-01-01: "), "{}", said(&output));
    let json = json(&bench.path("out"));
    assert_eq!(json["failed"][0]["clip"], "03-01-07-01-01-01-01");
    assert_eq!(json["corpora"][0]["clips"], 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_out_does_not_depend_on_chunks() {
    let bench = Bench::new();
    let mut verdicts = Vec::new();
    for (chunk_ms, jobs) in [(100, 64), (7, 1), (1_300, 3)] {
        let protocol = Protocol::of_model(None);
        let clips = scan::scan(&bench.path("corpora")).unwrap().clips;
        let selection = evaluation::select(clips, &protocol, &[], None).unwrap();
        let settings = settings();
        let plan = Plan {
            runs: vec![(protocol.runs[0].clone(), Arc::new(open_model("tiny-steps", &settings)))],
            clips: selection.clips,
            labels: selection.labels,
            conditions: vec![Condition::Clean, Condition::Telephone],
            analysis: default_analysis(&settings.defaults()),
            jobs,
            chunk: Duration::from_millis(chunk_ms),
        };
        verdicts.push(evaluation::judge(Arc::new(plan), |_| {}).await.unwrap());
    }
    let (first, others) = verdicts.split_first().unwrap();
    assert_eq!(first.all.len(), 32);
    for other in others {
        assert_eq!(first.all.len(), other.all.len());
        for (a, b) in first.all.iter().zip(&other.all) {
            assert_eq!((a.clip, a.condition), (b.clip, b.condition));
            assert_eq!(a.heard.course.len(), b.heard.course.len());
            assert_eq!((a.heard.answered, a.heard.unheard), (b.heard.answered, b.heard.unheard));
            for (x, y) in a.heard.course.iter().zip(&b.heard.course) {
                assert_eq!(x.speech_s, y.speech_s);
                let apart = x.probabilities.iter().zip(y.probabilities).map(|(p, q)| (p - q).abs());
                assert!(apart.fold(0.0, f64::max) < 1e-5);
            }
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn ctrl_c_ends_it_with_130_and_leaves_nothing_half_written() {
    use rustix::process::{Pid, Signal, kill_process};

    let bench = Bench::new();
    for actor in 1..=24_u64 {
        let samples = speech(actor, 20.0, 16_000);
        write(&bench.path("corpora"), &format!("03-01-08-01-02-01-{actor:02}"), &samples);
    }
    let corpora = bench.path("corpora").display().to_string();
    let out = bench.path("out").display().to_string();
    let model = model_folder("tiny-steps").display().to_string();
    let mut child =
        undertone(&["evaluate", &corpora, "--model", &model, "--out", &out]).spawn().unwrap();
    let pid = child.id();
    // From when it catches the signal it is at work; /proc tells.
    loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        if caught & (1 << (Signal::INT.as_raw() - 1)) != 0 {
            break;
        }
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be interrupted");
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(!bench.path("out").exists());
}

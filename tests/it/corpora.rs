//! Corpora from the command line: what is found in them, what is left out, the report.

use std::path::Path;
use std::process::Output;

use undertone::audio::Encoding;

use crate::process::undertone;
use crate::signal::{encode, speech, wav};

/// A folder with a clip of each given name and seed; equal seeds are equal sounds.
fn corpus(clips: &[(&str, u64)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, seed) in clips {
        let samples = speech(*seed, 1.6, 16_000);
        let file = wav(Encoding::Linear16, 16_000, 1, &encode(&samples, Encoding::Linear16));
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, file).unwrap();
    }
    root
}

fn run(args: &[&str]) -> Output {
    undertone(&[&["corpus"], args].concat()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

const CLIPS: [(&str, u64); 5] = [
    ("Actor_07/03-01-03-01-02-01-07.wav", 1),
    ("Actor_07/03-01-03-01-02-02-07.wav", 1),
    ("AudioWAV/1001_DFA_ANG_XX.wav", 2),
    ("AudioWAV/1001_DFA_SAD_XX.wav", 2),
    ("AudioWAV/1002_DFA_NEU_XX.wav", 3),
];

#[test]
fn a_manifest_is_written_without_duplicates_and_each_is_printed() {
    let root = corpus(&CLIPS);
    let file = root.path().join("found.csv");
    let done = run(&["scan", path(root.path()), "--write", path(&file)]);
    let told = text(&done.stdout);
    assert!(done.status.success(), "{told}{}", text(&done.stderr));
    assert!(told.contains("sex of 2 speakers is unknown"), "{told}");
    assert_eq!(told.matches("left out: ").count(), 3, "{told}");
    let manifest = std::fs::read_to_string(&file).unwrap();
    let names: Vec<&str> = manifest.lines().skip(1).map(|l| l.split(',').nth(1).unwrap()).collect();
    assert_eq!(names, ["03-01-03-01-02-01-07", "1002_DFA_NEU_XX"]);
}

#[test]
fn all_clips_are_kept_on_demand_and_audio_is_not_read_in_a_hurry() {
    let root = corpus(&CLIPS);
    let file = root.path().join("found.csv");
    for option in ["--keep-all", "--quick"] {
        let done = run(&["scan", path(root.path()), "--write", path(&file), option]);
        let told = text(&done.stdout);
        assert!(told.contains("wrote 5 of 5 clips"), "{told}");
        assert_eq!(told.contains("the same sound"), option == "--keep-all", "{told}");
        assert_eq!(told.contains("audio was not read"), option == "--quick", "{told}");
    }
}

#[test]
fn the_report_is_one_file_with_every_section_and_no_word_of_the_corpus_is_taken_for_html() {
    let hostile = "OAF_<img onerror=alert(1)>&_angry.wav";
    let root = corpus(&[CLIPS[0], CLIPS[1], (hostile, 4), ("OAF_a_angry.wav", 4)]);
    let out = tempfile::tempdir().unwrap();
    let file = out.path().join("report.html");
    let done = run(&["explore", path(root.path()), "--out", path(&file)]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 1, "one file");
    let html = std::fs::read_to_string(&file).unwrap();
    for section in [
        "At a glance",
        "Emotions and speakers",
        "Durations",
        "Levels and silence",
        "What each emotion looks like",
        "Waveform of",
        "Spectrogram",
        "Mel spectrogram",
        "Chroma",
        "MFCCs",
        "What is wrong",
        "03-01-03-01-02-01-07, 03-01-03-01-02-02-07",
    ] {
        assert!(html.contains(section), "{section}");
    }
    assert!(html.contains("OAF_&lt;img onerror=alert(1)&gt;&amp;_angry"));
    for foreign in ["<img", "<script", "http:", "https:", "src=", "<link", "url("] {
        assert!(!html.contains(foreign), "{foreign}");
    }
    assert!(!html.contains(path(root.path())), "the folder's place is nobody's business");
}

//! `undertone analyze` on archives: folders and a real S3-compatible server, workers killed and stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use undertone::archive::schema::{CLIPS, Column, UTTERANCES};
use undertone::archive::{Cell, read_table};
use undertone::audio::Encoding;

use crate::bucket::Bucket;
use crate::process::undertone;
use crate::signal::{encode, speech, wav};
use crate::support::{PATIENCE, TOLERANCE, model_folder};

fn clip(seed: u64, seconds: f64) -> Vec<u8> {
    let samples = encode(&speech(seed, seconds, 16_000), Encoding::Linear16);
    wav(Encoding::Linear16, 16_000, 1, &samples)
}

/// `undertone analyze` with a tiny model and the bucket's environment.
fn command(bucket: Option<&Bucket>, args: &[&str]) -> Command {
    let model = model_folder("tiny-steps").display().to_string();
    let mut command = undertone(&["analyze", "--model", &model]);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.envs(bucket.into_iter().flat_map(Bucket::environment));
    command
}

fn analyze(bucket: Option<&Bucket>, args: &[&str]) -> Output {
    command(bucket, args).output().unwrap()
}

/// What it says, if it ended as it should.
#[track_caller]
fn said(output: &Output, code: i32) -> String {
    let both = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let both = both.join("");
    assert_eq!(output.status.code(), Some(code), "{both}");
    both
}

/// A row by its columns.
type Row = BTreeMap<&'static str, Cell>;

fn parts(folder: &Path, table: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder.join(table)) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    paths.sort();
    paths
}

fn rows<R>(folder: &Path, table: &str, columns: &[Column<R>]) -> Vec<Row> {
    let names: Vec<&'static str> = columns.iter().map(|column| column.name).collect();
    let mut rows = Vec::new();
    for path in parts(folder, table) {
        let bytes = std::fs::read(&path).unwrap().into();
        let cells = read_table(bytes, &names).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        rows.extend(cells.into_iter().map(|cells| names.iter().copied().zip(cells).collect()));
    }
    rows
}

fn path_of(row: &Row) -> &str {
    row["path"].text().unwrap()
}

/// Both tables, sorted by what names a row.
fn tables(folder: &Path) -> [Vec<Row>; 2] {
    let mut clips = rows(folder, "clips", CLIPS);
    let mut utterances = rows(folder, "utterances", UTTERANCES);
    let number = |row: &Row| (row["channel"].whole(), row["utterance"].whole());
    clips.sort_by(|a, b| path_of(a).cmp(path_of(b)));
    utterances.sort_by(|a, b| (path_of(a), number(a)).cmp(&(path_of(b), number(b))));
    [clips, utterances]
}

/// The same but for when: the model's numbers to 1e-5.
#[track_caller]
fn assert_same(found: &[Vec<Row>; 2], expected: &[Vec<Row>; 2]) {
    for (found, expected) in found.iter().zip(expected) {
        let paths = |rows: &[Row]| rows.iter().map(|row| path_of(row).to_owned()).collect();
        let (have, want): (Vec<String>, Vec<String>) = (paths(found), paths(expected));
        assert_eq!(have, want);
        for (found, expected) in found.iter().zip(expected) {
            for (name, cell) in found {
                match (cell, &expected[name]) {
                    _ if *name == "analyzed_at" => {}
                    (Cell::Number(a), Cell::Number(b)) => {
                        assert!((a - b).abs() <= f64::from(TOLERANCE), "{name}: {a} {b}");
                    }
                    (a, b) => assert_eq!(a, b, "{name} of {}", path_of(found)),
                }
            }
        }
    }
}

/// Each utterance belongs to a clip's row, and each clip has as many as it says.
#[track_caller]
fn assert_joined([clips, utterances]: &[Vec<Row>; 2]) {
    let key = |row: &Row| (path_of(row).to_owned(), row["analyzed_at"].whole().unwrap());
    let mut left: BTreeMap<_, i64> =
        clips.iter().map(|row| (key(row), row["utterances"].whole().unwrap_or(0))).collect();
    for row in utterances {
        *left.get_mut(&key(row)).expect("its clip is there") -= 1;
    }
    assert!(left.values().all(|count| *count == 0), "{left:?}");
}

/// Clips with something to hear, one that is none, and a file that is not looked at.
fn small(bucket: &Bucket) {
    for (name, seconds) in [("a", 3.0), ("b c/d", 1.5), ("b c/e", 0.2)] {
        bucket.put(&format!("calls/2026/{name}.wav"), &clip(seconds as u64 + 1, seconds));
    }
    bucket.put("calls/2026/text.wav", b"It was a dark and stormy night.");
    bucket.put("calls/2026/notes.txt", b"no audio");
    bucket.put("calls/2027/z.wav", &clip(9, 0.5));
}

#[test]
fn tables_say_what_the_listing_says_and_failures_are_rows_too() {
    let bucket = Bucket::start();
    small(&bucket);
    let input = "s3://calls/2026";
    let listed = analyze(Some(&bucket), &["--format", "json", input]);
    assert!(said(&listed, 1).contains("s3://calls/2026/text.wav: not a known audio container"));
    let listed: Vec<serde_json::Value> = String::from_utf8_lossy(&listed.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(listed.len(), 3);
    assert_eq!(listed[1]["path"], "s3://calls/2026/b c/d.wav");

    let to_tables = [input, "--output", "s3://results/one"];
    let report = said(&analyze(Some(&bucket), &to_tables), 1);
    assert!(report.contains("4 files: 4 analysed now"), "{report}");
    assert!(report.contains("1 failed") && report.contains("--allow-failures"), "{report}");
    let found = tables(&bucket.folder("results/one"));
    assert_joined(&found);
    let [clips, utterances] = &found;
    assert_eq!(clips.len(), 4);
    for (row, json) in clips.iter().zip(&listed) {
        assert_eq!(path_of(row), json["path"].as_str().unwrap());
        assert_eq!(row["seconds"], Cell::Number(json["seconds"].as_f64().unwrap()));
        assert_eq!(row["emotion"].text(), json["emotion"].as_str());
        assert_eq!(row["model_name"], Cell::Text("tiny-steps".into()));
        assert_eq!((&row["error"], &row["codec"]), (&Cell::Null, &Cell::Text("pcm_s16le".into())));
        assert_eq!(
            (row["sample_rate_hz"].whole(), row["channels"].whole()),
            (Some(16_000), Some(1))
        );
        for (column, value) in
            [("valence", &json["valence"]), ("p_sad", &json["probabilities"]["sad"])]
        {
            match (&row[column], value.as_f64()) {
                (Cell::Number(a), Some(b)) => assert!((a - b).abs() <= f64::from(TOLERANCE)),
                (a, b) => assert_eq!((a, b), (&Cell::Null, None)),
            }
        }
        let spoken = json["utterances"].as_array().unwrap();
        let own = utterances.iter().filter(|u| path_of(u) == path_of(row));
        for (row, json) in own.zip(spoken) {
            assert_eq!(row["start_s"], Cell::Number(json["start"].as_f64().unwrap()));
            assert_eq!(row["end_s"], Cell::Number(json["end"].as_f64().unwrap()));
        }
        assert_eq!(row["utterances"].whole(), Some(spoken.len() as i64));
    }
    assert!(utterances.len() >= 2);
    let text = &clips[3];
    assert_eq!(text["error_code"], Cell::Text("unsupported".into()));
    assert!(text["error"].text().unwrap().contains("not a known audio container"));
    assert_eq!((&text["seconds"], &text["utterances"]), (&Cell::Null, &Cell::Null));

    // All is done; the failure still counts, until as many are allowed.
    let again = said(&analyze(Some(&bucket), &to_tables), 1);
    assert!(again.contains("0 analysed now") && again.contains("4 before; 1 failed"), "{again}");
    let allowed = [&to_tables[..], &["--allow-failures", "1"]].concat();
    said(&analyze(Some(&bucket), &allowed), 0);
    let retried = [&to_tables[..], &["--retry-failed"]].concat();
    assert!(said(&analyze(Some(&bucket), &retried), 1).contains("1 analysed now"));
    assert_same(&tables(&bucket.folder("results/one")), &found);

    // A folder of this machine in and out, by path and by URL.
    let (from, to) = (bucket.folder("calls/2026"), bucket.folder("local"));
    let url = format!("file://{}", from.display()).replace(' ', "%20");
    let output = to.display().to_string();
    said(&analyze(None, &[&url, "--output", &output]), 1);
    let local = tables(&to);
    assert_joined(&local);
    assert_eq!((local[0].len(), local[1].len()), (4, utterances.len()));
    assert_eq!(path_of(&local[0][0]), from.join("a.wav").display().to_string());
    let again = said(&analyze(None, &[&from.display().to_string(), "--output", &output]), 1);
    assert!(again.contains("0 analysed now"), "{again}");
}

/// More objects than a page of a listing has.
const MANY: usize = 1_234;

fn many(bucket: &Bucket, count: usize) {
    let clips: Vec<Vec<u8>> = (0..7).map(|seed| clip(seed, 0.3 + 0.1 * seed as f64)).collect();
    for number in 0..count {
        let key = format!("calls/many/{}/{number}.wav", number % 10);
        bucket.put(&key, &clips[number % clips.len()]);
    }
}

#[test]
fn shards_side_by_side_give_the_tables_of_one_run_over_many_pages() {
    let bucket = Bucket::start();
    many(&bucket, MANY);
    said(&analyze(Some(&bucket), &["s3://calls/many/", "--output", "s3://results/one"]), 0);
    let workers: Vec<Child> = (0..3)
        .map(|index| {
            let shard = format!("{index}/3");
            let args = ["s3://calls/many/", "--output", "s3://results/three", "--shard", &shard];
            command(Some(&bucket), &args).spawn().unwrap()
        })
        .collect();
    for worker in workers {
        said(&worker.wait_with_output().unwrap(), 0);
    }
    let (one, three) = (bucket.folder("results/one"), bucket.folder("results/three"));
    assert_eq!(parts(&three, "clips").len(), 3);
    let expected = tables(&one);
    assert_eq!(expected[0].len(), MANY);
    assert_same(&tables(&three), &expected);
    // Another number of workers finds all of it done.
    let args = ["s3://calls/many/", "--output", "s3://results/three", "--shard", "1/2"];
    assert!(said(&analyze(Some(&bucket), &args), 0).contains("0 analysed now"));
}

/// Waits until a worker has written so many parts.
#[track_caller]
fn until_parts(folder: &Path, count: usize, worker: &mut Child) {
    let began = Instant::now();
    while parts(folder, "clips").len() < count {
        assert!(worker.try_wait().unwrap().is_none(), "it ended before it could be stopped");
        assert!(began.elapsed() < PATIENCE, "no parts are written");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_worker_that_is_killed_or_stopped_is_gone_on_from_with_the_same_rows() {
    let bucket = Bucket::start();
    many(&bucket, 400);
    let input = "s3://calls/many";
    said(&analyze(Some(&bucket), &[input, "--output", "s3://results/whole"]), 0);
    let expected = tables(&bucket.folder("results/whole"));
    for (signal, name) in
        [(Signal::KILL, "killed"), (Signal::TERM, "stopped"), (Signal::INT, "int")]
    {
        let (output, folder) =
            (format!("s3://results/{name}"), bucket.folder(&format!("results/{name}")));
        let args = [input, "--output", &output, "--part-rows", "20", "--jobs", "1"];
        let mut worker = command(Some(&bucket), &args).spawn().unwrap();
        until_parts(&folder, 3, &mut worker);
        kill_process(Pid::from_child(&worker), signal).unwrap();
        let ended = worker.wait_with_output().unwrap();
        let stopped = signal != Signal::KILL;
        if stopped {
            let report = said(&ended, 130);
            assert!(report.contains("the same command goes on from here"), "{report}");
            // All that it says it has analysed is there.
            let [clips, _] = tables(&folder);
            let analysed = format!("400 files: {} analysed now", clips.len());
            assert!(report.contains(&analysed), "{} rows: {report}", clips.len());
        }
        let before = rows(&folder, "clips", CLIPS).len();
        assert!((60..400).contains(&before), "{before}");
        let report = said(&analyze(Some(&bucket), &args), 0);
        assert!(report.contains(&format!("{before} before")), "{report}");
        let found = tables(&folder);
        assert_joined(&found);
        assert_same(&found, &expected);
    }
}

#[test]
fn an_object_that_changed_is_analysed_again_and_its_later_row_holds() {
    let bucket = Bucket::start();
    small(&bucket);
    let args = ["s3://calls/2027/z.wav", "s3://calls/2026/a.wav", "--output", "s3://results/x"];
    said(&analyze(Some(&bucket), &args), 0);
    bucket.put("calls/2027/z.wav", &clip(5, 2.0));
    assert!(said(&analyze(Some(&bucket), &args), 0).contains("1 analysed now"));
    let found = tables(&bucket.folder("results/x"));
    assert_joined(&found);
    let mut of_it: Vec<&Row> =
        found[0].iter().filter(|row| path_of(row) == "s3://calls/2027/z.wav").collect();
    of_it.sort_by_key(|row| row["analyzed_at"].whole());
    assert_eq!((found[0].len(), of_it.len()), (3, 2));
    assert_eq!(of_it[1]["seconds"], Cell::Number(2.0));
}

#[test]
fn a_large_object_is_read_and_one_beyond_the_limit_is_refused_unread() {
    let bucket = Bucket::start();
    // Twelve minutes: 23 MB.
    bucket.put("calls/long.wav", &clip(3, 720.0));
    let args = ["s3://calls", "--output", "s3://results/x"];
    let small = ["--max-object-bytes", "1000000", "--max-buffered-bytes", "1000000"];
    let report = said(&analyze(Some(&bucket), &[&args[..], &small].concat()), 1);
    assert!(report.contains("--max-object-bytes"), "{report}");
    let limits = ["--retry-failed", "--max-buffered-bytes", "268435456"];
    said(&analyze(Some(&bucket), &[&args[..], &limits].concat()), 0);
    let [clips, utterances] = tables(&bucket.folder("results/x"));
    assert_eq!(clips[0]["error_code"], Cell::Text("too_large".into()));
    assert_eq!((clips.len(), &clips[1]["seconds"]), (2, &Cell::Number(720.0)));
    assert!(utterances.len() > 200, "{}", utterances.len());
    let output = analyze(None, &["x.wav", "--max-buffered-bytes", "1"]);
    assert!(said(&output, 1).contains("--max-buffered-bytes must be --max-object-bytes"));
}

#[test]
fn what_keeps_a_store_from_being_used_is_told_with_the_remedy() {
    let mut bucket = Bucket::start();
    small(&bucket);
    let args = ["s3://calls/2026", "--output", "s3://results/x"];
    let with = |name: &str, value: &str, args: &[&str]| {
        command(Some(&bucket), args).env(name, value).output().unwrap()
    };
    let wrong = said(&with("AWS_SECRET_ACCESS_KEY", "planted", &args), 1);
    assert!(wrong.contains("AWS_SECRET_ACCESS_KEY") && wrong.contains("403"), "{wrong}");
    assert!(!wrong.contains("planted"), "{wrong}");
    let plain = said(&with("AWS_ALLOW_HTTP", "false", &args), 64);
    assert!(plain.contains("AWS_ALLOW_HTTP=true"), "{plain}");
    let gone = said(&analyze(Some(&bucket), &["s3://nowhere/x/"]), 1);
    assert!(gone.contains("s3://nowhere/") && gone.contains("bucket's name"), "{gone}");
    let empty = said(&analyze(Some(&bucket), &["s3://calls/1999"]), 1);
    assert!(empty.contains("s3://calls/1999: no audio files"), "{empty}");

    said(&analyze(Some(&bucket), &[&args[..], &["--allow-failures", "1"]].concat()), 0);
    let other = model_folder("tiny-window").display().to_string();
    let mixed = [&args[..], &["--model", &other, "--model-name", "tiny-window"]].concat();
    let mixed = said(&analyze(Some(&bucket), &mixed), 1);
    assert!(mixed.contains("model.name is \"tiny-steps\" there"), "{mixed}");

    bucket.go_away();
    let tries = ["--storage-retries", "3", "--storage-retry-timeout", "20s"];
    let down = said(&analyze(Some(&bucket), &[&args[..], &tries].concat()), 1);
    assert!(
        down.contains("after 3 retries") && down.contains("the endpoint, the network"),
        "{down}"
    );
}

#[test]
fn a_store_that_goes_away_in_the_middle_ends_the_work_and_it_goes_on_when_it_is_back() {
    let mut bucket = Bucket::start();
    many(&bucket, 300);
    // Tables go elsewhere, so that it is the reading that fails.
    let output = bucket.folder("tables");
    let output = output.display().to_string();
    let args = ["s3://calls/many", "--output", &output, "--part-rows", "20", "--jobs", "1"];
    let tries =
        ["--storage-retries", "1", "--storage-retry-timeout", "1s", "--max-unreadable", "3"];
    let mut worker = command(Some(&bucket), &[&args[..], &tries].concat()).spawn().unwrap();
    until_parts(Path::new(&output), 2, &mut worker);
    bucket.go_away();
    let ended = said(&worker.wait_with_output().unwrap(), 1);
    assert!(ended.contains("3 clips in a row could not be read"), "{ended}");
    let before: BTreeSet<PathBuf> = parts(Path::new(&output), "clips").into_iter().collect();
    bucket.resume();
    said(&analyze(Some(&bucket), &args), 0);
    let found = tables(Path::new(&output));
    assert_joined(&found);
    // Those that could not be read have a row that says so, and a later one that holds.
    let away = found[0].iter().filter(|row| row["error_code"] != Cell::Null);
    assert!((1..=3).contains(&away.clone().count()));
    assert!(away.clone().all(|row| row["error_code"] == Cell::Text("unreadable".into())));
    let heard: BTreeSet<&str> =
        found[0].iter().filter(|row| row["error_code"] == Cell::Null).map(path_of).collect();
    assert_eq!((heard.len(), found[0].len()), (300, 300 + away.count()));
    assert!(parts(Path::new(&output), "clips").into_iter().collect::<BTreeSet<_>>() > before);
}

#[test]
fn flags_that_cannot_be_meant_are_refused_with_what_would_be_right() {
    for (args, code, says) in [
        (&["x", "--shard", "4/4"][..], 2, "numbered from 0 to 3"),
        (&["x", "--shard", "one"], 2, "0/4 for the first of four"),
        (&["ftp://host/x"], 2, "s3://"),
        (&["x", "--retry-failed"], 2, "--output"),
        (&["x", "--output", "y", "--format", "json"], 2, "--format"),
        (&["x", "--output", "y", "--part-rows", "0"], 1, "--part-rows must be 1 or more"),
    ] {
        let text = said(&analyze(None, args), code);
        assert!(text.contains(says), "{args:?}: {text}");
    }
}

#[test]
fn progress_comes_as_lines_where_nobody_looks() {
    let bucket = Bucket::start();
    many(&bucket, 300);
    let args = ["s3://calls/many", "--output", "s3://results/x", "--progress-interval", "20ms"];
    let report = said(&analyze(Some(&bucket), &args), 0);
    let lines = report.lines().filter(|line| line.contains(" of 300 files, 0 failed, "));
    assert!(lines.clone().count() > 0, "{report}");
    assert!(lines.clone().any(|line| line.ends_with(" left")), "{report}");
}

/// Rows of the tables in the documentation: name, type, whether it may be null, what it holds.
fn documented(heading: &str) -> Vec<[String; 4]> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/archives.md");
    let text = std::fs::read_to_string(path).unwrap();
    let section = text.split(heading).nth(1).expect(heading);
    let section = section.split("\n#").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_end_matches('|').splitn(4, '|').map(str::trim).collect();
        [cells[0].trim_end_matches('`'), cells[1], cells[2], cells[3]].map(ToOwned::to_owned)
    })
    .collect()
}

#[test]
fn the_documentation_names_every_column_with_its_type_and_meaning() {
    fn of<R>(columns: &[Column<R>]) -> Vec<[String; 4]> {
        let row = |column: &Column<R>| {
            let null = if column.required { "" } else { "null" };
            [column.name, column.kind.name(), null, column.doc].map(ToOwned::to_owned)
        };
        columns.iter().map(row).collect()
    }
    assert_eq!(documented("## `clips`"), of(CLIPS));
    assert_eq!(documented("## `utterances`"), of(UTTERANCES));
}

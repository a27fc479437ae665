//! Workers that are killed, get in each other's way, or are told to be more: the tables are the same.
//!
//! Time is paused: a store whose requests take virtual milliseconds, so that a worker can be killed at each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStore, ObjectStoreExt as _};
use proptest::prelude::*;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::schema::{CLIPS, UTTERANCES};
use super::store::Store;
use super::*;
use crate::emotion::Emotion;
use crate::wire::parse::{ClipSettings, Defaults, default_analysis};

/// An archive and its output.
struct World {
    clips: Vec<Clip>,
    stored: Arc<InMemory>,
}

/// Sleeps and makes something up, by the clip's path alone.
struct Fake {
    heard: AtomicUsize,
    pace: u64,
    /// The path that cannot be read.
    away: Option<String>,
}

fn number(path: &str) -> u64 {
    path.bytes().fold(7, |sum, byte| (sum * 31 + u64::from(byte)) % 1_009)
}

impl Hear for Fake {
    async fn hear(&self, clip: &Clip, _: Audio) -> Result<Heard, HearError> {
        let number = number(&clip.path);
        tokio::time::sleep(Duration::from_millis(self.pace * (1 + number % 7))).await;
        self.heard.fetch_add(1, Ordering::Relaxed);
        let fail =
            |code| Err(HearError::Clip(Failure { code, message: format!("no {}", clip.path) }));
        if self.away.as_deref() == Some(&clip.path) {
            return fail(FailureCode::Unreadable);
        }
        if number.is_multiple_of(5) {
            return fail(FailureCode::Unsupported);
        }
        let verdict =
            Verdict { emotion: Some(Emotion::Happy), confidence: Some(0.5), ..Verdict::default() };
        let utterance = |index| Utterance {
            index,
            start_s: f64::from(index),
            end_s: f64::from(index) + 0.5,
            verdict,
            ..Utterance::default()
        };
        let utterances = (0..(number % 4) as u32).map(utterance).collect();
        Ok(Heard { seconds: number as f64, verdict, utterances, ..Heard::default() })
    }
}

fn version(content: u64) -> Version {
    Version { bytes: content, etag: Some(format!("\"{content}\"")), modified_us: 5 }
}

fn clip(path: String, content: u64) -> Clip {
    let source = Source::File((&path).into());
    Clip { path, version: version(content), source }
}

fn origin() -> Origin {
    let manifest = crate::model::Manifest::parse(include_str!(
        "../../tests/data/models/tiny-steps/model.toml"
    ))
    .unwrap();
    let analysis = default_analysis(&Defaults::default());
    Origin::new(&manifest, &ClipSettings { analysis, separate_channels: false })
}

/// A worker's run.
struct Worker {
    shard: Shard,
    pace: u64,
    away: Option<String>,
    retry_failed: bool,
}

impl Worker {
    fn on(shard: Shard) -> Self {
        Self { shard, pace: 3, away: None, retry_failed: false }
    }
}

impl Watch for () {
    fn clip(&mut self, _: &ClipRow) {}
}

impl World {
    fn new(clips: usize) -> Self {
        let clips = (0..clips).map(|n| clip(format!("s3://calls/{n}.wav"), n as u64)).collect();
        Self { clips, stored: Arc::default() }
    }

    /// With requests that take time, each another one, so that a kill can come between any two.
    fn store(&self) -> Store {
        let config = ThrottleConfig {
            wait_put_per_call: Duration::from_millis(5),
            wait_get_per_call: Duration::from_millis(2),
            wait_list_per_call: Duration::from_millis(1),
            ..ThrottleConfig::default()
        };
        let inner: Arc<dyn ObjectStore> = self.stored.clone();
        Store::from_parts(Arc::new(ThrottledStore::new(inner, config)), "memory://")
    }

    /// Works to the end; how it ended and how many clips were heard.
    async fn work(&self, worker: Worker) -> Result<(Ending, usize), ArchiveError> {
        let mut output = Output::with(self.store(), origin(), worker.shard).await?;
        let (earlier, torn) = output.earlier().await?;
        let plan = Plan::new(self.clips.clone(), worker.shard, &earlier, torn, worker.retry_failed);
        let settings = RunSettings {
            bounds: Bounds { jobs: 2, object_bytes: 1 << 20, buffered_bytes: 1 << 20 },
            part_rows: 4,
            part_interval: Duration::from_millis(25),
            max_unreadable: 3,
        };
        let (heard, stop) = (AtomicUsize::new(0), CancellationToken::new());
        let fake = Arc::new(Fake { heard, pace: worker.pace, away: worker.away });
        let ending =
            run(plan, &mut output, earlier, fake.clone(), settings, &stop, &mut ()).await?;
        Ok((ending, fake.heard.load(Ordering::Relaxed)))
    }

    async fn names(&self, table: &str) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut listed = self.stored.list(Some(&Key::from(table)));
        while let Some(meta) = listed.next().await {
            names.insert(meta.unwrap().location.filename().unwrap().to_owned());
        }
        names
    }

    async fn table(&self, table: &str, names: &[&str]) -> Vec<Vec<Cell>> {
        let mut rows = Vec::new();
        for name in self.names(table).await {
            let got = self.stored.get(&Key::from(format!("{table}/{name}"))).await.unwrap();
            rows.extend(read_table(got.bytes().await.unwrap(), names).unwrap());
        }
        rows
    }

    /// Both tables without the times, sorted; each utterance's clip must be there, and each clip have as many as
    /// it says.
    async fn tables(&self) -> [Vec<String>; 2] {
        let mut counted: BTreeMap<(String, i64), i64> = BTreeMap::new();
        for cells in self.table("clips", &["path", "analyzed_at", "utterances"]).await {
            let key = (cells[0].text().unwrap().to_owned(), cells[1].whole().unwrap());
            counted.insert(key, cells[2].whole().unwrap_or(0));
        }
        for cells in self.table("utterances", &["path", "analyzed_at"]).await {
            let key = (cells[0].text().unwrap().to_owned(), cells[1].whole().unwrap());
            *counted.get_mut(&key).expect("its clip is there") -= 1;
        }
        assert!(counted.values().all(|left| *left == 0), "{counted:?}");
        assert_eq!(self.names("clips").await, self.names("utterances").await);
        let all = |names: Vec<&'static str>| -> Vec<&str> {
            names.into_iter().filter(|name| *name != "analyzed_at").collect()
        };
        let clips = all(CLIPS.iter().map(|column| column.name).collect());
        let utterances = all(UTTERANCES.iter().map(|column| column.name).collect());
        let sorted = |rows: Vec<Vec<Cell>>| {
            let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
            rows.sort();
            rows
        };
        [
            sorted(self.table("clips", &clips).await),
            sorted(self.table("utterances", &utterances).await),
        ]
    }
}

#[track_caller]
fn assert_same(found: &[Vec<String>; 2], expected: &[Vec<String>; 2], when: &str) {
    for (found, expected) in found.iter().zip(expected) {
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found, expected, "{when}");
        }
        assert_eq!(found.len(), expected.len(), "{when}");
    }
}

/// Runs a future whose time is virtual.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(future)
}

async fn undisturbed(clips: usize) -> [Vec<String>; 2] {
    let world = World::new(clips);
    let (ending, heard) = world.work(Worker::on(Shard::WHOLE)).await.unwrap();
    assert_eq!((ending.clips, heard), (clips, clips));
    assert!(ending.parts > clips / 4 && !ending.stopped);
    let tables = world.tables().await;
    assert_eq!(tables[0].len(), clips);
    assert!(tables[1].len() > clips / 2);
    tables
}

#[test]
fn a_worker_that_is_killed_at_any_moment_is_gone_on_from_with_the_same_tables() {
    at_once(async {
        let expected = undisturbed(14).await;
        let (mut torn, mut spared) = (0, 0);
        for moment in 1.. {
            let world = World::new(14);
            let killed = Duration::from_millis(moment);
            let first = tokio::time::timeout(killed, world.work(Worker::on(Shard::WHOLE))).await;
            let lacking = world.names("clips").await.len() - world.names("utterances").await.len();
            let (ending, heard) = world.work(Worker::on(Shard::WHOLE)).await.unwrap();
            let when = format!("killed after {moment} ms");
            assert_same(&world.tables().await, &expected, &when);
            assert_eq!(ending.mended, lacking, "{when}");
            torn += lacking;
            spared += 14 - heard.min(14);
            if first.is_ok() {
                assert_eq!(heard, 0, "there was nothing left to do");
                break;
            }
        }
        assert!(torn > 3, "no part was ever torn: {torn}");
        assert!(spared > 100, "nothing was ever spared: {spared}");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn however_often_workers_are_killed_and_however_many_there_are_the_tables_are_the_same(
        kills in prop::collection::vec((1_u64..150, 1_u32..5, 0_u32..5), 0..10),
        last in 1_u32..5,
    ) {
        at_once(async {
            let world = World::new(23);
            for (moment, count, index) in kills {
                let shard = Shard::new(index % count, count).unwrap();
                let work = world.work(Worker::on(shard));
                // A kill or an end: either is fine.
                let _ = tokio::time::timeout(Duration::from_millis(moment), work).await;
            }
            for index in 0..last {
                world.work(Worker::on(Shard::new(index, last).unwrap())).await.unwrap();
            }
            assert_same(&world.tables().await, &undisturbed(23).await, "in the end");
        });
    }

    #[test]
    fn workers_on_one_shard_do_not_disturb_each_other(
        paces in prop::collection::vec(1_u64..9, 2..4),
        late in 0_u64..80,
    ) {
        at_once(async {
            let world = World::new(17);
            let work = |pace: u64, late: u64| {
                let worker = Worker { pace, ..Worker::on(Shard::WHOLE) };
                let world = &world;
                async move {
                    tokio::time::sleep(Duration::from_millis(late)).await;
                    world.work(worker).await.unwrap()
                }
            };
            let third = paces.get(2).copied().unwrap_or(1);
            tokio::join!(work(paces[0], 0), work(paces[1], late), work(third, late / 2));
            assert_same(&world.tables().await, &undisturbed(17).await, "in the end");
        });
    }
}

#[test]
fn a_clip_that_changed_has_a_later_row_and_the_others_are_not_touched() {
    at_once(async {
        let mut world = World::new(9);
        world.work(Worker::on(Shard::WHOLE)).await.unwrap();
        world.clips[3].version = version(99);
        let (_, heard) = world.work(Worker::on(Shard::WHOLE)).await.unwrap();
        assert_eq!(heard, 1);
        let rows = world.table("clips", &["path", "bytes", "analyzed_at"]).await;
        let mut of_it: Vec<(i64, i64)> = rows
            .iter()
            .filter(|cells| cells[0].text() == Some("s3://calls/3.wav"))
            .map(|cells| (cells[2].whole().unwrap(), cells[1].whole().unwrap()))
            .collect();
        of_it.sort_unstable();
        assert_eq!((rows.len(), of_it.len(), of_it[1].1), (10, 2, 99));
        world.tables().await;
    });
}

#[test]
fn clips_that_could_not_be_read_are_tried_by_the_next_run_others_only_if_asked_to() {
    at_once(async {
        let world = World::new(12);
        let failing = world.clips.iter().filter(|clip| number(&clip.path).is_multiple_of(5));
        let failing = failing.count();
        assert!(failing > 0);
        let path = "s3://calls/1.wav".to_owned();
        let worker = Worker { away: Some(path), ..Worker::on(Shard::WHOLE) };
        world.work(worker).await.unwrap();
        let (_, heard) = world.work(Worker::on(Shard::WHOLE)).await.unwrap();
        assert_eq!(heard, 1);
        let retrying = Worker { retry_failed: true, ..Worker::on(Shard::WHOLE) };
        let (_, heard) = world.work(retrying).await.unwrap();
        assert_eq!(heard, failing);
    });
}

#[test]
fn a_part_whose_clip_cannot_be_read_stays_torn_and_is_mended_later() {
    at_once(async {
        let expected = undisturbed(14).await;
        let world = World::new(14);
        world.work(Worker::on(Shard::WHOLE)).await.unwrap();
        // The twin of a part with utterances goes missing, as when its writer was killed.
        let rows = world.table("utterances", &["path"]).await;
        let path = rows[0][0].text().unwrap().to_owned();
        let first = world.names("utterances").await.pop_first().unwrap();
        world.stored.delete(&Key::from(format!("utterances/{first}"))).await.unwrap();
        let worker = Worker { away: Some(path), ..Worker::on(Shard::WHOLE) };
        let (ending, _) = world.work(worker).await.unwrap();
        assert_eq!((ending.torn, ending.mended), (1, 0));
        let (ending, _) = world.work(Worker::on(Shard::WHOLE)).await.unwrap();
        assert_eq!((ending.torn, ending.mended), (0, 1));
        assert_same(&world.tables().await, &expected, "mended");
    });
}

#[test]
fn results_of_another_model_or_under_other_settings_are_not_mixed() {
    at_once(async {
        let world = World::new(3);
        world.work(Worker::on(Shard::WHOLE)).await.unwrap();
        let mut other = origin();
        other.model.sha256 = "0".repeat(64);
        let refused = Output::with(world.store(), other, Shard::WHOLE).await.unwrap_err();
        let refused = refused.to_string();
        assert!(refused.contains("model.sha256") && refused.contains("--output"), "{refused}");
    });
}

#[test]
fn a_part_that_is_none_is_told_with_its_name() {
    at_once(async {
        let world = World::new(3);
        let at = Key::from("clips/part-00000-of-00001-00000000.parquet");
        world.stored.put(&at, "nonsense".into()).await.unwrap();
        let error = world.work(Worker::on(Shard::WHOLE)).await.unwrap_err().to_string();
        assert!(error.contains("memory://clips/part-00000-of-00001-00000000.parquet"), "{error}");
    });
}

//! What a checkpoint costs: the bytes that a client carries, and the CPU time of making and of taking one.
//!
//! `cargo bench --bench checkpoint`. Ten minutes of syllables and pauses, watched by the policy `care-call`, with the
//! default model; sizes are printed first, in the middle of an utterance and in a pause.
#![allow(
    missing_docs,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement, not a library"
)]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use undertone::audio::{AudioFormat, Encoding, Lane};
use undertone::config::Settings;
use undertone::model::Model;
use undertone::policy::{Policy, Watcher, WatcherState, embedded};
use undertone::session::{Analysis, AnalysisState, Keyring};
use undertone::units::{ChannelCount, SampleRate};
use undertone::wire::event::Event;
use undertone::wire::parse::{Defaults, default_analysis};

#[path = "../tests/it/signal.rs"]
#[allow(
    dead_code,
    clippy::indexing_slicing,
    clippy::manual_midpoint,
    reason = "shared with the tests, which use all of it and allow the rest"
)]
mod signal;

use signal::{encode, speech};

/// Largest token here, bytes.
const LIMIT: usize = 1 << 20;
/// Ten minutes, to the middle of a phrase of [`speech`], and a moment in a pause behind it when its utterance has ended.
const SPEAKING_S: f64 = 598.8;
const SILENT_S: f64 = 600.2;

/// One stream after ten minutes.
struct Stream {
    name: &'static str,
    model: Arc<Model>,
    policy: Arc<Policy>,
    keys: Keyring,
    analysis: Analysis,
    watcher: Watcher,
}

impl Stream {
    fn heard(name: &'static str, rate_hz: u32, channels: u32, seconds: f64) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let load = Settings::default().load();
        let model = Arc::new(Model::embedded(&load).expect("ONNX Runtime is there"));
        let text = embedded().iter().find(|(name, _)| *name == "care-call").map(|(_, text)| *text);
        let policy = Policy::parse(text.expect("care-call is built in")).expect("a good policy");
        let policy = Arc::new(policy);
        let format = AudioFormat {
            encoding: Encoding::Linear16,
            rate: SampleRate::new(rate_hz).expect("a rate of a stream"),
            channels: ChannelCount::new(channels).expect("channels of a stream"),
        };
        let mut settings = default_analysis(&Defaults::default());
        settings.estimate_interval = Some(Duration::from_millis(500));
        settings.readings = true;
        let lanes = Lane::separate(format.channels);
        let silence = Duration::from_secs(30);
        let mut analysis = Analysis::new(Arc::clone(&model), format, &lanes, &settings, silence)
            .expect("lanes of the format");
        let mut watcher = Watcher::new(Arc::clone(&policy));
        let (mut events, mut decisions) = (Vec::new(), Vec::new());
        let voice = speech(1, seconds, rate_hz);
        for second in voice.chunks(rate_hz as usize) {
            let samples: Vec<f32> =
                second.iter().flat_map(|x| std::iter::repeat_n(*x, channels as usize)).collect();
            let bytes = encode(&samples, Encoding::Linear16);
            runtime.block_on(analysis.push(&bytes, &mut events)).expect("samples are taken");
            for event in events.drain(..) {
                if let Event::Reading(reading) = event {
                    watcher.observe(&reading, &mut decisions);
                }
            }
        }
        let keys = Keyring::random().expect("random numbers");
        Self { name, model, policy, keys, analysis, watcher }
    }

    fn encode(&self) -> Vec<u8> {
        let state = (self.analysis.state(), self.watcher.state(), self.policy.text());
        postcard::to_stdvec(&state).expect("memory grows")
    }

    fn checkpoint(&self) -> bytes::Bytes {
        self.keys.seal(b"tenant/name", &self.encode(), u64::MAX, LIMIT).expect("it fits")
    }

    fn resume(&self, token: &[u8]) -> (Analysis, Watcher) {
        let bytes = self.keys.open(b"tenant/name", token, 0, LIMIT).expect("its own token");
        let (analysis, watcher, text): (AnalysisState, WatcherState, String) =
            postcard::from_bytes(&bytes).expect("its own state");
        let policy = Arc::new(Policy::parse(&text).expect("a good policy"));
        let analysis = Analysis::resume(Arc::clone(&self.model), &analysis).expect("its own");
        (analysis, Watcher::resume(policy, &watcher).expect("its own"))
    }

    fn print(&self, when: &str) {
        let size = |bytes: Result<Vec<u8>, postcard::Error>| bytes.map_or(0, |bytes| bytes.len());
        println!(
            "{} {when}: token {} bytes; analysis {}, watcher {}, policy {}",
            self.name,
            self.checkpoint().len(),
            size(postcard::to_stdvec(&self.analysis.state())),
            size(postcard::to_stdvec(&self.watcher.state())),
            self.policy.text().len(),
        );
    }
}

fn checkpoints(criterion: &mut Criterion) {
    for (name, rate_hz, channels) in [
        ("mono_16k", 16_000, 1),
        ("mono_48k", 48_000, 1),
        ("mono_11025", 11_025, 1),
        ("eight_16k", 16_000, 8),
    ] {
        Stream::heard(name, rate_hz, channels, SILENT_S).print("in a pause");
        let stream = Stream::heard(name, rate_hz, channels, SPEAKING_S);
        stream.print("in an utterance");
        let token = stream.checkpoint();
        let mut group = criterion.benchmark_group(name);
        group.bench_function("take_encode_seal", |bencher| bencher.iter(|| stream.checkpoint()));
        group.bench_function("open_decode_resume", |bencher| {
            bencher.iter(|| stream.resume(black_box(&token)));
        });
        group.finish();
    }
}

criterion_group!(benches, checkpoints);
criterion_main!(benches);

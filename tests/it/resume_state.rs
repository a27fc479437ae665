//! A stream that goes on from its state, anywhere and however often, gives what it would have given.
//!
//! Here to the bit: the engines run one row at a time, so that nothing depends on who else is there.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use undertone::audio::{AudioFormat, Encoding, Lane};
use undertone::model::{Model, Models};
use undertone::policy::{Decision, Policy, Watcher, WatcherState};
use undertone::session::analysis::ResumeError;
use undertone::session::{Analysis, AnalysisState};
use undertone::units::{ChannelCount, SampleRate};
use undertone::wire::event::{ChannelSummary, Event};
use undertone::wire::parse::{AnalysisSettings, Defaults, default_analysis};

use crate::signal::{Noise, encode, interleave, speech};
use crate::support::{data, open_model, settings};

const ENCODINGS: [Encoding; 4] =
    [Encoding::Linear16, Encoding::Float32, Encoding::MuLaw, Encoding::ALaw];
/// Those of the sinc resampler as well: 11,025, 12,345 and 47,999 Hz.
const RATES: [u32; 10] =
    [8_000, 11_025, 12_345, 16_000, 22_050, 24_000, 32_000, 44_100, 47_999, 48_000];
const MODELS: [&str; 4] = ["tiny-steps", "tiny-window", "tiny-waveform", "tiny-dimensions"];

/// The tiny models, one row at a time.
static ALONE: LazyLock<Models> = LazyLock::new(|| {
    let mut settings = settings();
    settings.engine_max_batch = 1;
    Models::from_parts(MODELS.iter().map(|name| open_model(name, &settings)).collect())
});

/// Raises as soon as there is speech, and again and again.
const POLICY: &str = "
schema: undertone.policy/v1
name: eager
version: '1'
description: For tests.
budget: 5
rules:
  - name: level
    title: Level
    severity: high
    when: {level: {of: distress, over: 2s, on: 0.01, off: 0.001, min_speech: 256ms}}
    dwell: 300ms
    clear_after: 0s
    cooldown: 500ms
    update_every: 700ms
    reason: '{{ distress | percent }}'
  - name: share
    title: Share
    severity: low
    when: {share: {of: arousal, at: 0, over: 3s, on: 0.5, off: 0.2, min_speech: 256ms}}
    clear_after: 1s
    cooldown: 1s
    reason: share
";

/// A stream from its first byte to its last.
#[derive(Debug, Clone)]
struct Case {
    model: &'static str,
    format: AudioFormat,
    lanes: Vec<Lane>,
    settings: AnalysisSettings,
    data: Vec<u8>,
    /// Bytes before which the caller says that the turn changes.
    turns: Vec<usize>,
}

fn case(seed: u64, seconds: f64) -> Case {
    let mut random = Noise::new(seed);
    let mut pick = |bound: usize| random.below(bound);
    let channels = [1, 1, 1, 2, 3, 8][pick(6)];
    let format = AudioFormat {
        encoding: ENCODINGS[pick(4)],
        rate: SampleRate::new(RATES[pick(RATES.len())]).unwrap(),
        channels: ChannelCount::new(channels).unwrap(),
    };
    let lanes = match pick(3) {
        0 => vec![Lane::mix(format.channels)],
        _ => Lane::separate(format.channels),
    };
    let mut settings = default_analysis(&Defaults::default());
    let interval = [0, 100, 250, 1_000][pick(4)];
    settings.estimate_interval = (interval > 0).then(|| std::time::Duration::from_millis(interval));
    settings.readings = pick(4) > 0;
    let gain = if pick(3) == 0 { 6.0 } else { 1.0 };
    let voices: Vec<Vec<f32>> = (0..u64::from(channels))
        .map(|channel| {
            let voice = speech(seed ^ (channel << 32), seconds, format.rate.hz());
            voice.into_iter().map(|x| (gain * x).clamp(-1.0, 1.0)).collect()
        })
        .collect();
    let data = encode(&interleave(&voices), format.encoding);
    let turns = (0..pick(3)).map(|_| pick(data.len())).collect();
    Case { model: MODELS[pick(4)], format, lanes, settings, data, turns }
}

/// All that comes of a stream.
#[derive(Debug, PartialEq)]
struct Outcome {
    events: Vec<Event>,
    decisions: Vec<Decision>,
    summaries: Vec<ChannelSummary>,
}

/// A stream at work.
struct Work {
    model: Arc<Model>,
    analysis: Analysis,
    watcher: Watcher,
    outcome: Outcome,
}

impl Work {
    fn new(case: &Case) -> Self {
        let model = ALONE.get(case.model).unwrap().clone();
        let no_speech = std::time::Duration::from_millis(800);
        let (format, lanes, settings) = (case.format, &case.lanes, &case.settings);
        let analysis = Analysis::new(model.clone(), format, lanes, settings, no_speech).unwrap();
        let watcher = Watcher::new(Arc::new(Policy::parse(POLICY).unwrap()));
        let outcome = Outcome { events: Vec::new(), decisions: Vec::new(), summaries: Vec::new() };
        Self { model, analysis, watcher, outcome }
    }

    /// Everything but what has been told goes through bytes.
    fn move_over(&mut self) -> usize {
        let saved = (self.analysis.state(), self.watcher.state());
        let bytes = postcard::to_stdvec(&saved).unwrap();
        let (analysis, watcher): (AnalysisState, WatcherState) =
            postcard::from_bytes(&bytes).unwrap();
        assert_eq!((&analysis, &watcher), (&saved.0, &saved.1));
        self.analysis = Analysis::resume(self.model.clone(), &analysis)
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(self.analysis.state(), analysis, "a new one has the state of the old one");
        let policy = Policy::parse(self.watcher.policy().text()).unwrap();
        self.watcher = Watcher::resume(Arc::new(policy), &watcher).unwrap();
        bytes.len()
    }

    async fn push(&mut self, chunk: &[u8]) {
        let from = self.outcome.events.len();
        self.analysis.push(chunk, &mut self.outcome.events).await.unwrap();
        self.watch(from);
    }

    fn watch(&mut self, from: usize) {
        for event in &self.outcome.events[from..] {
            if let Event::Reading(reading) = event {
                self.watcher.observe(reading, &mut self.outcome.decisions);
            }
        }
    }

    async fn finish(mut self) -> Outcome {
        let from = self.outcome.events.len();
        self.analysis.finish(&mut self.outcome.events).await.unwrap();
        self.watch(from);
        self.watcher.finish(self.analysis.position(), &mut self.outcome.decisions);
        self.outcome.summaries = self.analysis.summaries();
        self.outcome
    }
}

/// Plays the stream, which moves over before each byte of `cuts`.
async fn play(case: &Case, cuts: &[usize]) -> Outcome {
    let mut marks: Vec<(usize, bool)> = cuts.iter().map(|at| (*at, true)).collect();
    marks.extend(case.turns.iter().map(|at| (*at, false)));
    marks.sort_unstable();
    let mut work = Work::new(case);
    let mut at = 0;
    for (mark, moves) in marks {
        work.push(&case.data[at..mark]).await;
        at = mark;
        if moves {
            work.move_over();
        } else {
            work.analysis.turn(&mut work.outcome.events);
        }
    }
    work.push(&case.data[at..]).await;
    work.finish().await
}

#[test]
fn a_stream_that_moves_anywhere_gives_the_same_to_the_bit() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let property =
        (any::<u64>(), 0.3..3.5, prop::collection::vec(any::<prop::sample::Index>(), 1..5));
    let (spoke, decided) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    runner
        .run(&property, |(seed, seconds, cuts)| {
            let case = case(seed, seconds);
            let cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(case.data.len())).collect();
            let (whole, moved) =
                runtime.block_on(async { (play(&case, &[]).await, play(&case, &cuts).await) });
            let utterance = |event: &&Event| matches!(event, Event::Utterance(_));
            spoke.set(spoke.get() + whole.events.iter().filter(utterance).count());
            decided.set(decided.get() + whole.decisions.len());
            for (index, (a, b)) in whole.events.iter().zip(&moved.events).enumerate() {
                prop_assert_eq!(a, b, "event {} of {:?}", index, case.format);
            }
            prop_assert_eq!(whole, moved);
            Ok(())
        })
        .unwrap();
    assert!(spoke.get() > 20 && decided.get() > 20, "{} {}", spoke.get(), decided.get());
}

/// The samples of a WAVE file of 16 bits.
fn samples_of(file: &str) -> (u32, Vec<u8>) {
    let bytes = std::fs::read(data(file)).unwrap();
    let rate = u32::from_le_bytes(bytes[24..28].try_into().unwrap());
    let start = bytes.windows(4).position(|w| w == b"data").unwrap() + 8;
    (rate, bytes[start..].to_vec())
}

#[tokio::test]
async fn speech_that_moves_every_tenth_of_a_second_gives_the_same_to_the_bit() {
    let (rate, data) = samples_of("hello.wav");
    for model in MODELS {
        let format = AudioFormat {
            encoding: Encoding::Linear16,
            rate: SampleRate::new(rate).unwrap(),
            channels: ChannelCount::MONO,
        };
        let mut settings = default_analysis(&Defaults::default());
        settings.estimate_interval = Some(std::time::Duration::from_millis(100));
        settings.readings = true;
        let (lanes, turns) = (vec![Lane::channel(0)], Vec::new());
        let case = Case { model, format, lanes, settings, data: data.clone(), turns };
        // Not a whole number of samples.
        let tenth = rate as usize / 5 + 1;
        let cuts: Vec<usize> = (0..case.data.len()).step_by(tenth).collect();
        let whole = play(&case, &[]).await;
        let spoken = whole.events.iter().any(|event| matches!(event, Event::Utterance(_)));
        assert!(spoken, "nothing was spoken: this says nothing");
        assert_eq!(whole, play(&case, &cuts).await, "{model}");
    }
}

#[tokio::test]
async fn minutes_into_a_stream_it_can_still_move() {
    for rate_hz in [11_025, 48_000] {
        let mut case = case(3, 0.1);
        case.model = "tiny-steps";
        case.format.rate = SampleRate::new(rate_hz).unwrap();
        case.format.channels = ChannelCount::MONO;
        case.lanes = vec![Lane::channel(0)];
        case.data = encode(&speech(9, 130.0, rate_hz), case.format.encoding);
        case.turns = Vec::new();
        let cuts: Vec<usize> = (1..13).map(|n| n * case.data.len() / 13 - n).collect();
        assert_eq!(play(&case, &[]).await, play(&case, &cuts).await, "{rate_hz} Hz");
    }
}

/// A stream that was broken off.
async fn begun(case: &Case, at: usize) -> Work {
    let mut work = Work::new(case);
    work.push(&case.data[..at]).await;
    work
}

#[tokio::test]
async fn a_state_is_resumed_with_its_own_model_only() {
    let case = case(4, 1.0);
    let state = begun(&case, case.data.len() / 2).await.analysis.state();
    assert_eq!(state.model(), case.model);
    assert_eq!((state.format(), state.lanes()), (case.format, &case.lanes[..]));
    assert_eq!(state.settings(), &case.settings);
    for name in MODELS.into_iter().filter(|name| *name != case.model) {
        let refused = Analysis::resume(ALONE.get(name).unwrap().clone(), &state).unwrap_err();
        assert!(matches!(refused, ResumeError::OtherModel { .. }), "{refused}");
        assert!(refused.to_string().contains(name) && refused.to_string().contains(case.model));
    }
}

#[tokio::test]
async fn settings_that_no_stream_can_have_are_refused() {
    let changes: [fn(&mut AnalysisSettings); 6] = [
        |settings| settings.lead_in_hops = 5_000,
        |settings| settings.segmenter.min_speech_hops = 0,
        |settings| settings.segmenter.hang_over_hops = 1 << 40,
        |settings| settings.segmenter.off = 2.0,
        |settings| settings.tracker.carry = f32::NAN,
        |settings| settings.estimate_interval = Some(std::time::Duration::from_hours(2)),
    ];
    for change in changes {
        let mut case = case(5, 0.2);
        change(&mut case.settings);
        let work = Work::new(&case);
        let refused = Analysis::resume(work.model.clone(), &work.analysis.state()).unwrap_err();
        assert!(refused.to_string().contains("settings"), "{refused}");
    }
}

#[tokio::test]
async fn no_damaged_byte_of_a_state_panics() {
    let mut accepted = 0;
    for (seed, seconds) in [(6, 0.9), (7, 1.4), (8, 2.1), (9, 0.35)] {
        let case = case(seed, seconds);
        let work = begun(&case, case.data.len() - 3).await;
        let saved = postcard::to_stdvec(&work.analysis.state()).unwrap();
        let mut random = Noise::new(seed);
        for _ in 0..200 {
            let mut damaged = saved.clone();
            for _ in 0..=random.below(2) {
                // Most of it is numbers; positions and lengths stand at the beginning and in between.
                let most = if random.below(2) == 0 { 120 } else { saved.len() };
                let at = random.below(most);
                damaged[at.min(saved.len() - 1)] ^= 1 << random.below(8);
            }
            damaged.truncate(saved.len() - random.below(2) * random.below(9));
            let Ok(state) = postcard::from_bytes::<AnalysisState>(&damaged) else { continue };
            let Ok(mut analysis) = Analysis::resume(work.model.clone(), &state) else { continue };
            accepted += 1;
            let mut events = Vec::new();
            // It may fail: a model can make something infinite of a damaged state.
            if analysis.push(&case.data[..case.data.len() / 3], &mut events).await.is_ok() {
                analysis.turn(&mut events);
                let _ = analysis.finish(&mut events).await;
            }
        }
    }
    assert!(accepted > 100, "only {accepted} of them were gone on from: the test says little");
}

/// A state of token version 2, in the middle of an utterance. Whatever changes a type that is part of a state makes it
/// unreadable, or worse; then `session::token::VERSION` goes up, so that replicas of two builds refuse each other's
/// tokens instead of misreading them, and this file is replaced by the one that the failing test leaves.
const KEPT: &str = "states/version-2.bin";

/// The stream of [`KEPT`], left in its first phrase.
async fn kept() -> Work {
    let mut case = case(12, 0.1);
    case.model = "tiny-steps";
    case.format = AudioFormat {
        encoding: Encoding::Linear16,
        rate: SampleRate::new(48_000).unwrap(),
        channels: ChannelCount::MONO,
    };
    case.lanes = vec![Lane::channel(0)];
    case.settings.readings = true;
    case.data = encode(&speech(12, 4.6, 48_000), Encoding::Linear16);
    begun(&case, case.data.len() - 1).await
}

#[tokio::test]
async fn a_state_that_an_earlier_build_made_is_read() {
    let now = kept().await;
    let again = postcard::to_stdvec(&(now.analysis.state(), now.watcher.state())).unwrap();
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join("state.bin");
    std::fs::write(&made, &again).unwrap();
    let bytes = std::fs::read(data(KEPT)).unwrap();
    let read = postcard::from_bytes::<(AnalysisState, WatcherState)>(&bytes);
    let (analysis, watcher) = read.unwrap_or_else(|error| {
        panic!("states have changed ({error}): see KEPT; {} is of this build", made.display())
    });
    assert!(Analysis::resume(now.model.clone(), &analysis).is_ok(), "see KEPT");
    assert!(Watcher::resume(now.watcher.policy().clone(), &watcher).is_ok(), "see KEPT");
    // Numbers may differ in their last bits where another CPU made them, all else must not.
    assert!(again.len().abs_diff(bytes.len()) < 64, "{} bytes, now {}", bytes.len(), again.len());
}

#[tokio::test]
async fn a_state_is_small() {
    // Bounds with a margin; benches/checkpoint.rs measures.
    for (channels, rate_hz, most) in [(1, 16_000, 14_000), (1, 48_000, 16_000), (8, 16_000, 80_000)]
    {
        let mut case = case(11, 0.1);
        case.model = "tiny-steps";
        case.format = AudioFormat {
            encoding: Encoding::Linear16,
            rate: SampleRate::new(rate_hz).unwrap(),
            channels: ChannelCount::new(channels).unwrap(),
        };
        case.lanes = Lane::separate(case.format.channels);
        case.settings.readings = true;
        let voices: Vec<Vec<f32>> =
            (0..u64::from(channels)).map(|n| speech(n, 20.0, rate_hz)).collect();
        case.data = encode(&interleave(&voices), case.format.encoding);
        case.turns = Vec::new();
        let mut largest = 0;
        for part in [0.31, 0.5, 0.77, 0.9, 1.0] {
            let at = (part * case.data.len() as f64) as usize;
            largest = largest.max(begun(&case, at).await.move_over());
        }
        println!("{channels} channels at {rate_hz} Hz: at most {largest} bytes");
        assert!(largest <= most, "{channels} channels at {rate_hz} Hz: {largest} bytes");
    }
}

//! Bodies of the targets about resuming. They panic where an invariant of `undertone::session` is broken.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use undertone::audio::{AudioFormat, Encoding, Lane};
use undertone::model::Model;
use undertone::policy::{Policy, Watcher, WatcherState, embedded};
use undertone::session::{Analysis, AnalysisState, Keyring};
use undertone::tracking::Affect;
use undertone::units::{ChannelCount, SampleRate};
use undertone::wire::event::Event;
use undertone::wire::parse::{Defaults, default_analysis};

/// Input beyond this many bytes finds nothing new and only makes the fuzzer slow.
const MAX_BYTES: usize = 1 << 16;
/// Bytes of each push: a tenth of a second or so.
const CHUNK: usize = 3_001;

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime")
});

static POLICY: LazyLock<Arc<Policy>> = LazyLock::new(|| {
    let (_, text) = embedded()[0];
    Arc::new(Policy::parse(text).expect("a policy that is built in"))
});

/// A state: three bytes choose whether it is decoded from the rest as it is, or is a good one that the rest
/// damages, three bytes a place. It is refused, or gone on from with audio to the end of the stream.
pub fn resume_state(data: &[u8], model: &Arc<Model>) {
    let data = &data[..data.len().min(MAX_BYTES)];
    let Some((&[mode, format, stop], rest)) = data.split_first_chunk() else { return };
    let bytes =
        if mode & 1 == 0 { rest.to_vec() } else { damaged(saved(model, format, stop), rest) };
    let Ok((analysis, watcher)) = postcard::from_bytes::<(AnalysisState, WatcherState)>(&bytes)
    else {
        return;
    };
    let watcher = Watcher::resume(Arc::clone(&POLICY), &watcher);
    match Analysis::resume(Arc::clone(model), &analysis) {
        Ok(analysis) => {
            go_on(analysis, watcher.unwrap_or_else(|_| Watcher::new(Arc::clone(&POLICY))));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// `bytes` with the byte at every place that `damage` names changed.
fn damaged(mut bytes: Vec<u8>, damage: &[u8]) -> Vec<u8> {
    for change in damage.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % bytes.len();
        bytes[at] ^= change[2];
    }
    bytes
}

/// [`save`], once for every model, format and 32 stops.
fn saved(model: &Arc<Model>, format: u8, stop: u8) -> Vec<u8> {
    static SAVED: Mutex<BTreeMap<(String, u8, u8), Vec<u8>>> = Mutex::new(BTreeMap::new());
    let (format, stop) = (format & 0xf, stop & 0xf8);
    let mut saved = SAVED.lock().expect("nobody panics while it is held");
    let key = (model.manifest.name.clone(), format, stop);
    saved.entry(key).or_insert_with(|| save(model, format, stop)).clone()
}

/// A good state, in bytes, of a stream that was left after `stop` eightieths of a second.
fn save(model: &Arc<Model>, format: u8, stop: u8) -> Vec<u8> {
    let rates = [8_000, 11_025, 16_000, 48_000];
    let format = AudioFormat {
        encoding: if format & 1 == 0 { Encoding::Linear16 } else { Encoding::MuLaw },
        rate: SampleRate::new(rates[usize::from(format >> 1) % rates.len()]).expect("a rate"),
        channels: ChannelCount::new(1 + u32::from(format >> 3) % 2).expect("one or two"),
    };
    let mut settings = default_analysis(&Defaults::default());
    settings.estimate_interval = Some(Duration::from_millis(100));
    settings.readings = true;
    let lanes = Lane::separate(format.channels);
    let mut analysis =
        Analysis::new(Arc::clone(model), format, &lanes, &settings, Duration::from_secs(1))
            .expect("lanes of the format");
    let frames = format.rate.hz() as usize * usize::from(stop) / 80;
    let audio = voice(frames * format.bytes_per_frame());
    let mut events = Vec::new();
    let pushed = RUNTIME.block_on(analysis.push(&audio, &mut events));
    pushed.expect("samples are taken");
    let mut watcher = Watcher::new(Arc::clone(&POLICY));
    watch(&mut watcher, &events);
    postcard::to_stdvec(&(analysis.state(), watcher.state())).expect("memory grows")
}

/// Teeth of a saw, whatever they are taken for.
fn voice(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| if n % 2 == 1 { (n / 2 % 113) as u8 } else { n as u8 }).collect()
}

fn go_on(mut analysis: Analysis, mut watcher: Watcher) {
    let mut events = Vec::new();
    let audio = voice(10 * CHUNK);
    RUNTIME.block_on(async {
        for (index, chunk) in audio.chunks(CHUNK).enumerate() {
            // A state that can be gone on from need not make sense to the model.
            if analysis.push(chunk, &mut events).await.is_err() {
                return;
            }
            if index == 5 {
                analysis.turn(&mut events);
            }
        }
        let _ = analysis.finish(&mut events).await;
    });
    watch(&mut watcher, &events);
    for event in &events {
        match event {
            Event::Estimate(estimate) => check(estimate.judgement.affect.as_ref()),
            Event::Utterance(utterance) => check(utterance.judgement.affect.as_ref()),
            Event::Warning(_) | Event::Reading(_) => {}
        }
    }
    for summary in analysis.summaries() {
        check(summary.affect.as_ref());
    }
}

fn watch(watcher: &mut Watcher, events: &[Event]) {
    let mut decisions = Vec::new();
    for event in events {
        if let Event::Reading(reading) = event {
            watcher.observe(reading, &mut decisions);
        }
    }
}

fn check(affect: Option<&Affect>) {
    for value in affect.iter().flat_map(|a| [a.valence, a.arousal, a.distress]) {
        assert!(value.is_finite() && value.abs() <= 1.1, "{value}");
    }
}

/// A token: the first byte chooses whether it is the rest as it is, or a good one that the rest damages.
pub fn resume_token(data: &[u8]) {
    let data = &data[..data.len().min(MAX_BYTES)];
    let Some((mode, rest)) = data.split_first() else { return };
    let ring = ring(data);
    if mode & 1 == 0 {
        // Nobody finds a tag by chance.
        assert!(ring.open(b"context", rest, 1, MAX_BYTES).is_err());
        return;
    }
    let good = ring.seal(b"context", b"payload", 9, MAX_BYTES).expect("random numbers");
    let bytes = damaged(good.to_vec(), rest);
    let opened = ring.open(b"context", &bytes, 1, MAX_BYTES);
    assert_eq!(opened.is_ok(), bytes == good);
}

/// A key that depends on every byte of `data`. The fuzzer sees what is compared: with a key that stays it reads the
/// right tag off the comparison with a wrong one, and forges a token after a few million tries.
fn ring(data: &[u8]) -> Keyring {
    // Digits of base64 that may stand at its end, too.
    const DIGITS: &[u8; 16] = b"AEIMQUYcgkosw048";
    let key: String = (0..43)
        .map(|place| {
            let mut hasher = DefaultHasher::new();
            (place, data).hash(&mut hasher);
            char::from(DIGITS[(hasher.finish() & 15) as usize])
        })
        .collect();
    Keyring::parse(&format!("test:{key}=")).expect("a key")
}

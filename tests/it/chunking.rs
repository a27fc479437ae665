//! What comes out depends on the audio alone: not on chunks, on the network, on other streams, or on
//! whether it is streamed or sent as a file.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use undertone::audio::Encoding;
use undertone::wire::v1;
use undertone::wire::v1::stream_emotion_request::Message as Request;
use undertone::wire::v1::stream_emotion_response::Message as Response;

use crate::signal::{Noise, encode, interleave, speech, wav};
use crate::support::{
    Answer, Format, Server, TINY, TOLERANCE, Told, assert_same, audio, chunks, difference,
    duration, mark, ms, run_well, send, settings, stream, take_numbers, told, turn, wrap,
};

const ENCODINGS: [Encoding; 4] =
    [Encoding::Linear16, Encoding::Float32, Encoding::MuLaw, Encoding::ALaw];
const RATES: [u32; 7] = [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000];
const MODELS: [&str; 4] = ["tiny-steps", "tiny-window", "tiny-waveform", "tiny-dimensions"];

/// A stream's format, configuration and audio, made from one number.
#[derive(Debug, Clone)]
struct Case {
    format: Format,
    config: v1::StreamConfig,
    data: Vec<u8>,
}

fn case(seed: u64, seconds: f64) -> Case {
    let mut random = Noise::new(seed);
    let mut pick = |bound: usize| random.below(bound);
    let format = Format {
        encoding: ENCODINGS[pick(4)],
        // Every other stream has a rate that nobody would think of.
        rate_hz: if pick(2) == 0 { RATES[pick(7)] } else { 8_000 + pick(40_001) as u32 },
        channels: [1, 1, 1, 2, 2, 3][pick(6)],
    };
    let mut config = format.config();
    config.model = MODELS[pick(4)].to_owned();
    config.estimate_interval = duration([0.1, 0.25, 0.5, 1.0][pick(4)]);
    let separate = pick(2) == 0;
    if let Some(audio) = &mut config.audio
        && separate
    {
        audio.channel_mode = v1::ChannelMode::Separate.into();
    }
    // Some streams are overdriven, so that clipping is warned of.
    let gain = if pick(4) == 0 { 6.0 } else { 1.0 };
    let voices: Vec<Vec<f32>> = (0..u64::from(format.channels))
        .map(|channel| {
            let voice = speech(seed ^ (channel << 32), seconds, format.rate_hz);
            voice.into_iter().map(|x| (gain * x).clamp(-1.0, 1.0)).collect()
        })
        .collect();
    let mut data = encode(&interleave(&voices), format.encoding);
    // Some streams end inside a frame.
    let frame = encode(&[0.0], format.encoding).len() * format.channels as usize;
    data.extend(std::iter::repeat_n(0, pick(2) * pick(frame)));
    Case { format, config, data }
}

/// The fewest chunks that are allowed: of 1 MiB.
fn largest(data: &[u8]) -> Vec<Request> {
    chunks(data, 1 << 20)
}

/// Chunks of random sizes, many of them tiny.
fn shredded(data: &[u8], seed: u64) -> Vec<Request> {
    let mut random = Noise::new(seed);
    let mut rest = data;
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let size = match random.below(4) {
            0 => 1 + random.below(3),
            1 => 1 + random.below(600),
            2 => 1 + random.below(9_000),
            _ => 1 + random.below(120_000),
        };
        let (chunk, behind) = rest.split_at(size.min(rest.len()));
        messages.push(audio(chunk.to_vec()));
        rest = behind;
    }
    messages
}

#[test]
fn any_chunking_gives_the_same_events_and_probabilities_in_process_and_over_the_network() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Server::start());
    let client = runtime.block_on(server.client());
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 10,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let property = (any::<u64>(), any::<u64>(), 1.0..3.5);
    let spoke = std::cell::Cell::new(0);
    runner
        .run(&property, |(seed, cut, seconds)| {
            let case = case(seed, seconds);
            runtime.block_on(async {
                let whole = run_well(&TINY, case.config.clone(), largest(&case.data));
                let whole = whole.await;
                spoke.set(spoke.get() + whole.utterances().len());
                let whole = told(&whole);
                let cuts = run_well(&TINY, case.config.clone(), shredded(&case.data, cut)).await;
                assert_same("random chunks", &whole, &told(&cuts));
                let live = stream(&client, case.config.clone(), shredded(&case.data, !cut)).await;
                assert_same("over the network", &whole, &told(&live.fine()));
            });
            Ok(())
        })
        .unwrap();
    assert!(spoke.get() > 0, "nothing was ever spoken: the property says nothing");
    runtime.block_on(server.stop()).unwrap();
}

#[tokio::test]
async fn chunks_of_single_bytes_give_the_same() {
    let case = case(77, 1.6);
    let data = &case.data[..case.data.len().min(60_000)];
    let whole = run_well(&TINY, case.config.clone(), vec![audio(data.to_vec())]).await;
    let bytes = run_well(&TINY, case.config.clone(), chunks(data, 1)).await;
    assert_eq!(bytes.finished().chunks, data.len() as u64);
    assert_same("single bytes", &told(&whole), &told(&bytes));
}

#[tokio::test]
async fn marks_and_turns_between_chunks_fall_on_the_same_sample_for_any_chunking() {
    for seed in [5, 6, 7] {
        let case = case(seed, 3.0);
        let boundary =
            |n| if n % 2 == 0 { v1::turn::Boundary::End } else { v1::turn::Boundary::Start };
        let with_marks = |cut: fn(&[u8], u64) -> Vec<Request>| {
            let fifth = case.data.len() / 5 + 1;
            let parts = case.data.chunks(fifth).enumerate();
            parts
                .flat_map(|(n, part)| {
                    let mut messages = cut(part, n as u64 + seed);
                    messages.push(mark(&format!("m{n}")));
                    messages.push(turn(boundary(n)));
                    messages
                })
                .collect::<Vec<_>>()
        };
        let whole = with_marks(|part, _| vec![audio(part.to_vec())]);
        let whole = run_well(&TINY, case.config.clone(), whole).await;
        let cuts = run_well(&TINY, case.config.clone(), with_marks(shredded)).await;
        assert_eq!(whole.marks().len(), 5);
        assert_same("marks and turns", &told(&whole), &told(&cuts));
    }
}

/// What a clip's answer and a stream's have in common.
fn comparable(
    estimates: Vec<v1::Estimate>,
    utterances: Vec<v1::Utterance>,
    channels: Vec<v1::ChannelSummary>,
) -> Told {
    let mut told = Told { events: Vec::new(), numbers: Vec::new() };
    for mut estimate in estimates {
        take_numbers(estimate.affect.as_mut(), &mut told.numbers);
        told.events.push(Response::Estimate(estimate.into()));
    }
    for mut utterance in utterances {
        take_numbers(utterance.affect.as_mut(), &mut told.numbers);
        told.events.push(Response::Utterance(utterance.into()));
    }
    let mut channels = channels;
    for channel in &mut channels {
        take_numbers(channel.affect.as_mut(), &mut told.numbers);
    }
    told.events
        .push(Response::Finished(v1::Finished { channels, ..v1::Finished::default() }.into()));
    told
}

#[tokio::test]
async fn streamed_equals_a_file_of_the_same_samples() {
    let server = Server::start().await;
    let client = server.client().await;
    let mut utterances = 0;
    for (seed, encoding) in [(21, 0), (22, 1), (23, 2), (24, 3), (25, 0), (26, 1)] {
        let mut case = case(seed, 4.0);
        // The one difference allowed: a file ends with a whole frame.
        let encoding = ENCODINGS[encoding];
        let channels = case.format.channels;
        case.format.encoding = encoding;
        let voices: Vec<Vec<f32>> = (0..u64::from(channels))
            .map(|channel| speech(seed + channel, 4.0, case.format.rate_hz))
            .collect();
        case.data = encode(&interleave(&voices), encoding);
        let mode = case.config.audio.as_ref().unwrap().channel_mode;
        case.config.audio = case.format.config().audio;
        case.config.audio.as_mut().unwrap().channel_mode = mode;
        let live = stream(&client, case.config.clone(), chunks(&case.data, 4_000)).await.fine();
        let request = v1::AnalyzeAudioRequest {
            content: wav(encoding, case.format.rate_hz, channels as u16, &case.data).into(),
            model: case.config.model.clone(),
            channel_mode: mode,
            estimate_interval: case.config.estimate_interval,
            ..v1::AnalyzeAudioRequest::default()
        };
        let clip = client.clone().analyze_audio(request).await.unwrap().into_inner();
        assert_eq!(clip.audio, live.finished().audio);
        assert_eq!(clip.model, case.config.model);
        utterances += clip.utterances.len();
        let owned = |answer: &Answer| {
            let estimates = answer.estimates().into_iter().cloned().collect();
            let utterances = answer.utterances().into_iter().cloned().collect();
            comparable(estimates, utterances, answer.finished().channels.clone())
        };
        let from_file = comparable(clip.estimates, clip.utterances, clip.channels);
        assert_same(&format!("{:?}", case.format), &owned(&live), &from_file);
    }
    assert!(utterances >= 6, "{utterances}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_sessions_at_once_give_what_each_gives_alone() {
    const SESSIONS: u64 = 200;
    let cases: Vec<Case> = (0..SESSIONS).map(|n| case(1_000 + n, 1.9)).collect();
    let mut alone = Vec::new();
    for case in &cases {
        let answer = run_well(&TINY, case.config.clone(), largest(&case.data)).await;
        alone.push(told(&answer));
    }
    // Other engines: these wait for company, so that batches of many sizes come about.
    let mut settings = settings();
    settings.engine_max_wait = ms(2);
    settings.engine_max_batch = 64;
    let models = undertone::model::Models::from_parts(
        MODELS.iter().map(|name| crate::support::open_model(name, &settings)).collect(),
    );
    let server = Server::serve(settings, models).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(server.client().await);
    }
    let sessions: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(n, case)| {
            let client = clients[n % clients.len()].clone();
            let (config, cut) = (case.config.clone(), shredded(&case.data, n as u64));
            tokio::spawn(async move { stream(&client, config, cut).await })
        })
        .collect();
    let mut worst = 0.0_f32;
    for ((n, session), alone) in sessions.into_iter().enumerate().zip(&alone) {
        let together = told(&session.await.unwrap().fine());
        worst = worst.max(difference(&alone.numbers, &together.numbers));
        assert_same(&format!("session {n}: {:?}", cases[n].format), alone, &together);
    }
    println!("probabilities differ by at most {worst:e}");
    assert!(worst <= TOLERANCE);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn an_empty_stream_is_a_stream() {
    let server = Server::start().await;
    let client = server.client().await;
    let answer = stream(&client, case(1, 0.0).config, []).await.fine();
    assert_eq!(answer.responses.len(), 2, "{:?}", answer.responses);
    let requests = vec![wrap(Request::Config(case(1, 0.0).config.into()))];
    assert_eq!(send(&client, requests).await.fine().finished().chunks, 0);
}

//! What a client is told, in which order, and when.

use undertone::audio::Encoding;
use undertone::wire::v1;
use undertone::wire::v1::stream_emotion_request::Message as Request;
use undertone::wire::v1::stream_emotion_response::Message as Response;
use undertone::wire::v1::warning::Reason;

use crate::signal::{encode, interleave, silence, speech};
use crate::support::Script;
use crate::support::{
    Answer, Format, PLAIN, TINY, assert_same, audio, chunks, context, duration, mark, ms,
    run_session, run_well, seconds, settings, told, turn,
};

fn with_interval(interval_s: f64) -> v1::StreamConfig {
    v1::StreamConfig { estimate_interval: duration(interval_s), ..PLAIN.config() }
}

fn plain(samples: &[f32]) -> Vec<u8> {
    encode(samples, PLAIN.encoding)
}

async fn hear(config: v1::StreamConfig, samples: &[f32]) -> Answer {
    run_well(&TINY, config, chunks(&plain(samples), 3_200)).await
}

#[tokio::test]
async fn started_tells_the_configuration_in_force_with_every_default_filled_in() {
    let mut config = PLAIN.config();
    config.labels = [("ward".to_owned(), "7".to_owned())].into();
    let answer = run_well(&TINY, config, vec![]).await;
    let started = answer.started();
    assert_eq!(started.session_id.len(), 36, "a UUID: {}", started.session_id);
    assert!(started.model.as_ref().unwrap().is_default);
    let config = started.config.as_ref().unwrap();
    assert_eq!(config.session_id, started.session_id);
    assert_eq!(config.model, "tiny-steps");
    assert!((seconds(config.estimate_interval) - 0.5).abs() < 1e-9);
    assert_eq!(config.labels["ward"], "7");
    let audio = config.audio.as_ref().unwrap();
    assert_eq!(audio.channel_roles().collect::<Vec<_>>(), [v1::ChannelRole::Subject]);
    assert_eq!(audio.channel_mode(), v1::ChannelMode::Mix);
    let voice = config.voice_activity.as_ref().unwrap();
    assert!(voice.on_threshold > voice.off_threshold && voice.off_threshold > 0.0);
    assert!(seconds(voice.hang_over) >= 0.6);
    assert!(config.min_confidence.is_some() && config.min_speech.is_some());
    let limits = started.limits.as_ref().unwrap();
    assert_eq!(limits.max_chunk_bytes, 1 << 20);
    assert!(seconds(limits.max_audio) > 3_600.0 && seconds(limits.idle_timeout) > 1.0);
}

#[tokio::test]
async fn estimates_are_finite_probabilities_with_monotone_times() {
    let answer = hear(with_interval(0.1), &speech(4, 8.0, 16_000)).await;
    let estimates = answer.estimates();
    assert!(estimates.len() > 30, "{}", estimates.len());
    let mut before = 0.0;
    for estimate in &estimates {
        let (start, end) = (seconds(estimate.start), seconds(estimate.end));
        let evidence = seconds(estimate.evidence_end);
        assert!(start <= end && evidence <= end + 1e-9, "{estimate:?}");
        assert!(end > before && end <= 8.0 + 1e-9, "{estimate:?}");
        before = end;
        assert!((0.0..=1.0).contains(&estimate.speech_ratio));
        assert!((-100.0..=3.1).contains(&estimate.level_dbfs));
        assert_eq!(estimate.abstains, estimate.abstain_reason() != v1::AbstainReason::Unspecified);
        let Some(affect) = &estimate.affect else {
            assert!(estimate.abstains);
            continue;
        };
        assert!(start <= evidence, "{estimate:?}");
        let sum: f32 = affect.scores.iter().map(|score| score.probability).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{sum}");
        for value in [affect.confidence, affect.valence, affect.arousal, affect.distress] {
            assert!(value.is_finite() && value.abs() <= 1.0);
        }
    }
    // While somebody speaks the evidence is at most a step and a hop old, once there is any.
    for estimate in estimates.iter().filter(|e| e.speech_ratio > 0.99 && !e.abstains) {
        let age = seconds(estimate.end) - seconds(estimate.evidence_end);
        assert!(age <= 0.256 + 0.016 + 1e-9, "{age}");
    }
    assert!(estimates.iter().any(|e| !e.abstains));
}

#[tokio::test]
async fn an_estimate_abstains_until_there_is_enough_speech_and_says_why() {
    let samples = speech(4, 2.0, 16_000);
    let config = v1::StreamConfig { min_speech: duration(1.0), ..with_interval(0.1) };
    let answer = hear(config, &samples).await;
    let reasons: Vec<v1::AbstainReason> =
        answer.estimates().iter().map(|e| e.abstain_reason()).collect();
    assert_eq!(reasons[0], v1::AbstainReason::NoEvidence);
    assert!(reasons.contains(&v1::AbstainReason::TooLittleSpeech));
    assert!(reasons.contains(&v1::AbstainReason::Unspecified));
    for estimate in answer.estimates() {
        let little = seconds(estimate.speech) < 1.0;
        if !little {
            assert_ne!(estimate.abstain_reason(), v1::AbstainReason::TooLittleSpeech);
        }
    }
    let unsure = v1::StreamConfig { min_confidence: Some(1.0), ..with_interval(0.1) };
    let answer = hear(unsure, &samples).await;
    let last = answer.estimates().pop().unwrap().clone();
    assert_eq!(last.abstain_reason(), v1::AbstainReason::Unsure);
    assert!(last.affect.is_some(), "the numbers are there all the same");
}

#[tokio::test]
async fn estimates_come_at_the_interval_asked_for_while_somebody_speaks() {
    // Long syllables without a pause: the whole stream is one phrase's worth of voice, again and again.
    let samples: Vec<f32> = (0..16).flat_map(|_| speech(8, 1.8, 16_000).split_off(4_800)).collect();
    let length = samples.len() as f64 / 16_000.0;
    for interval in [0.1, 0.5, 2.0, 10.0] {
        let answer = hear(with_interval(interval), &samples).await;
        let ends: Vec<f64> = answer.estimates().iter().map(|e| seconds(e.end)).collect();
        assert_eq!(answer.finished().estimates, ends.len() as u64);
        let expected = length / interval;
        assert!(
            (ends.len() as f64 - expected).abs() <= 1.0 + 0.05 * expected,
            "{interval}: {} of {expected:.1}",
            ends.len()
        );
        for (index, pair) in ends.windows(2).enumerate() {
            // A hop's rounding each, never drifting: the n-th is due at n intervals.
            let due = interval * (pair[1] / interval + 1e-6).floor();
            assert!(pair[1] - due < 0.016 + 1e-9, "{interval}: {pair:?}");
            if index > 2 {
                assert!(pair[1] - pair[0] <= interval + 0.016 + 1e-9, "{interval}: {pair:?}");
            }
        }
    }
}

#[tokio::test]
async fn silence_gives_no_estimates_and_a_no_speech_warning_each_time_it_lasts_as_long() {
    let mut settings = settings();
    settings.no_speech_warning = ms(2_000);
    let context = context(&settings, TINY.clone());
    let data = plain(&silence(1, 7.0, 16_000));
    let script = Script::new(with_interval(0.1), chunks(&data, 3_200));
    let (responses, ended) = run_session(&context, script).await;
    ended.unwrap();
    let answer = Answer { responses, status: None };
    assert!(answer.estimates().is_empty() && answer.utterances().is_empty());
    let warnings = answer.warnings();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for (warning, at) in warnings.iter().zip([2.0, 4.0, 6.0]) {
        assert_eq!(warning.reason(), Reason::NoSpeech);
        assert!((seconds(warning.position) - at).abs() < 0.1, "{warning:?}");
        assert_eq!(warning.channel, Some(0));
    }
    let summary = &answer.finished().channels[0];
    assert_eq!((summary.utterances, &summary.affect), (0, &None));
    assert!(seconds(summary.speech) < 1e-9);
}

#[tokio::test]
async fn marks_are_echoed_in_order_with_the_audio_received_before_them() {
    let format = Format { encoding: Encoding::MuLaw, rate_hz: 8_000, channels: 1 };
    let data = encode(&speech(2, 3.0, 8_000), format.encoding);
    let mut messages = vec![mark("begin")];
    for (index, chunk) in data.chunks(4_000).enumerate() {
        messages.push(audio(chunk.to_vec()));
        messages.push(mark(&format!("half second {index}")));
    }
    messages.push(mark("end"));
    let answer = run_well(&TINY, format.config(), messages).await;
    let marks: Vec<(&str, f64)> =
        answer.marks().iter().map(|m| (m.name.as_str(), seconds(m.position))).collect();
    assert_eq!(marks[0], ("begin", 0.0));
    for (index, (name, position)) in marks[1..7].iter().enumerate() {
        assert_eq!(*name, format!("half second {index}"));
        assert!((position - 0.5 * (index + 1) as f64).abs() < 1e-9, "{name}: {position}");
    }
    assert_eq!(marks[7], ("end", 3.0));
    // Nothing about audio behind a mark comes before its echo, and the other way round.
    let mut passed = 0.0;
    for response in &answer.responses {
        match response {
            Response::Mark(mark) => passed = seconds(mark.position),
            Response::Estimate(e) => {
                assert!(seconds(e.end) > passed - 0.02 - 1e-9, "{e:?} behind the mark at {passed}");
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn the_end_of_a_turn_closes_the_utterance_without_waiting_for_the_hang_over() {
    let samples = speech(5, 1.5, 16_000);
    let config = v1::StreamConfig {
        voice_activity: Some(v1::VoiceActivityConfig {
            hang_over: duration(10.0),
            ..v1::VoiceActivityConfig::default()
        }),
        ..PLAIN.config()
    };
    let data = plain(&samples);
    let mut messages = chunks(&data, 3_200);
    messages.push(turn(v1::turn::Boundary::End));
    messages.push(mark("turn ended"));
    messages.push(turn(v1::turn::Boundary::End));
    messages.extend(chunks(&plain(&silence(1, 1.0, 16_000)), 3_200));
    messages.extend(chunks(&data, 3_200));
    messages.push(turn(v1::turn::Boundary::Start));
    let answer = run_well(&TINY, config, messages).await;
    let order: Vec<&str> = answer
        .responses
        .iter()
        .filter_map(|response| match response {
            Response::Utterance(_) => Some("utterance"),
            Response::Mark(_) => Some("mark"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["utterance", "mark", "utterance"]);
    let utterances = answer.utterances();
    assert_eq!((utterances[0].index, utterances[1].index), (0, 1));
    assert!(seconds(utterances[0].end) <= 1.5 + 1e-9);
    assert!(seconds(utterances[1].start) >= 2.5);
}

#[tokio::test]
async fn utterances_lie_where_the_voice_is_and_the_summary_counts_them() {
    let samples = speech(6, 7.6, 16_000);
    let messages = chunks(&plain(&samples), 3_200).into_iter().map(|message| match message {
        Request::Audio(chunk) => {
            Request::Audio(v1::AudioChunk { captured_at_us: Some(4_711), ..chunk })
        }
        other => other,
    });
    let answer = run_well(&TINY, PLAIN.config(), messages.collect()).await;
    let utterances = answer.utterances();
    // Phrases of 1.5 s begin at 0.3, 2.8 and 5.3 s.
    assert_eq!(utterances.len(), 3);
    for (index, (utterance, begins)) in utterances.iter().zip([0.3, 2.8, 5.3]).enumerate() {
        assert_eq!((utterance.channel, utterance.index), (0, index as u32));
        let (start, end) = (seconds(utterance.start), seconds(utterance.end));
        assert!((start - begins).abs() < 0.15, "begins at {begins}: {start}");
        assert!((end - begins - 1.5).abs() < 0.3, "ends at {}: {end}", begins + 1.5);
        let spoken = seconds(utterance.speech);
        assert!(spoken > 0.9 && spoken <= end - start + 0.02, "{spoken}");
        assert!(utterance.affect.is_some());
    }
    let finished = answer.finished();
    assert_eq!(finished.reason(), v1::FinishReason::Client);
    assert!((seconds(finished.audio) - 7.6).abs() < 1e-6);
    assert_eq!(finished.chunks, 76);
    assert_eq!(finished.last_captured_at_us, Some(4_711));
    let [summary] = finished.channels.as_slice() else { panic!("{finished:?}") };
    assert_eq!(summary.utterances, 3);
    let spoken: f64 = utterances.iter().map(|u| seconds(u.speech)).sum();
    assert!((seconds(summary.speech) - spoken).abs() < 1e-6);
    assert!(summary.affect.is_some());
    assert_eq!(summary.clipped_samples, 0);
}

#[tokio::test]
async fn a_gap_or_repetition_in_the_sequence_is_warned_of_where_it_is() {
    let chunk = |sequence| {
        Request::Audio(v1::AudioChunk {
            data: vec![0; 3_200].into(),
            sequence: Some(sequence),
            ..v1::AudioChunk::default()
        })
    };
    let sequences = [7, 8, 10, 10, 11, 3, 4];
    let answer = run_well(&TINY, PLAIN.config(), sequences.map(chunk).to_vec()).await;
    let warnings = answer.warnings();
    let found: Vec<(Reason, f64)> = warnings
        .iter()
        .map(|w| (w.reason(), (seconds(w.position) * 10.0).round() / 10.0))
        .collect();
    let gap = Reason::SequenceGap;
    assert_eq!(found, [(gap, 0.2), (gap, 0.3), (gap, 0.5)]);
    assert!(warnings[0].message.contains("10") && warnings[0].message.contains('8'));
}

#[tokio::test]
async fn clipping_is_warned_of_once_in_ten_seconds_and_counted() {
    let loud: Vec<f32> =
        speech(7, 12.0, 16_000).iter().map(|x| (x * 8.0).clamp(-1.0, 1.0)).collect();
    let answer = hear(PLAIN.config(), &loud).await;
    let clipping: Vec<f64> = answer
        .warnings()
        .iter()
        .filter(|warning| warning.reason() == Reason::Clipping)
        .map(|warning| seconds(warning.position))
        .collect();
    assert_eq!(clipping.len(), 2, "{clipping:?}");
    assert!(clipping[1] - clipping[0] >= 10.0);
    assert!(answer.finished().channels[0].clipped_samples > 1_000);
    let quiet = hear(PLAIN.config(), &speech(7, 3.0, 16_000)).await;
    assert!(quiet.warnings().is_empty(), "{:?}", quiet.warnings());
}

#[tokio::test]
async fn bytes_of_an_unfinished_frame_are_warned_of_at_the_end() {
    let format = Format { encoding: Encoding::Float32, rate_hz: 16_000, channels: 2 };
    let answer = run_well(&TINY, format.config(), vec![audio(vec![0; 8 * 800 + 5])]).await;
    let [warning] = answer.warnings()[..] else { panic!("{:?}", answer.warnings()) };
    assert_eq!(warning.reason(), Reason::TrailingBytes);
    assert!((seconds(warning.position) - 0.05).abs() < 1e-9);
    assert!(warning.message.contains("5 bytes") && warning.message.contains("8 bytes"));
}

#[tokio::test]
async fn events_that_are_not_wanted_do_not_come() {
    let loud: Vec<f32> =
        speech(7, 4.0, 16_000).iter().map(|x| (x * 8.0).clamp(-1.0, 1.0)).collect();
    let config = v1::StreamConfig {
        events: Some(v1::EventSelection {
            no_utterances: true,
            no_warnings: true,
            no_escalation_updates: true,
        }),
        ..PLAIN.config()
    };
    let answer = hear(config, &loud).await;
    assert!(answer.utterances().is_empty() && answer.warnings().is_empty());
    assert!(answer.finished().channels[0].utterances > 0);
}

fn stereo(roles: &[v1::ChannelRole], mode: v1::ChannelMode) -> v1::StreamConfig {
    let format = Format { channels: 2, ..PLAIN };
    let mut config = format.config();
    let audio = config.audio.as_mut().unwrap();
    audio.channel_roles = roles.iter().map(|role| i32::from(*role)).collect();
    audio.channel_mode = mode.into();
    config
}

#[tokio::test]
async fn channels_analysed_separately_are_two_voices_and_mixed_they_are_one() {
    let (left, right) = (speech(11, 4.0, 16_000), speech(12, 4.0, 16_000));
    let both = interleave(&[left.clone(), right.clone()]);
    let separate = hear(stereo(&[], v1::ChannelMode::Separate), &both).await;
    for (channel, voice) in [(0, &left), (1, &right)] {
        // Each lane says what a mono stream of it says.
        let alone = hear(PLAIN.config(), voice).await;
        let of_channel = |answer: &Answer| {
            let mut responses: Vec<Response> = Vec::new();
            for response in &answer.responses {
                let mut response = response.clone();
                let wanted = match &mut response {
                    Response::Estimate(e) => std::mem::take(&mut e.channel) == channel,
                    Response::Utterance(u) => std::mem::take(&mut u.channel) == channel,
                    _ => false,
                };
                if wanted {
                    responses.push(response);
                }
            }
            told(&Answer { responses, status: None })
        };
        let mut expected = alone;
        for response in &mut expected.responses {
            match response {
                Response::Estimate(e) => e.channel = channel,
                Response::Utterance(u) => u.channel = channel,
                _ => {}
            }
        }
        assert_same(&format!("channel {channel}"), &of_channel(&separate), &of_channel(&expected));
    }
    assert_eq!(separate.finished().channels.len(), 2);

    let mean: Vec<f32> = left.iter().zip(&right).map(|(l, r)| (l + r) / 2.0).collect();
    let mixed = hear(stereo(&[], v1::ChannelMode::Mix), &both).await;
    let expected = hear(PLAIN.config(), &mean).await;
    assert_eq!(mixed.finished().channels.len(), 1);
    // Not the same numbers: 16 bits are rounded once here and twice there.
    assert_eq!(mixed.utterances().len(), expected.utterances().len());
}

#[tokio::test]
async fn the_agents_channel_is_not_heard() {
    use v1::ChannelRole::{Agent, Ignored, Subject};
    let (subject, agent) = (silence(11, 3.0, 16_000), speech(12, 3.0, 16_000));
    for role in [Agent, Ignored] {
        let samples = interleave(&[agent.clone(), subject.clone()]);
        let answer = hear(stereo(&[role, Subject], v1::ChannelMode::Separate), &samples).await;
        assert!(answer.utterances().is_empty() && answer.estimates().is_empty());
        let [summary] = answer.finished().channels.as_slice() else { panic!("one channel") };
        assert_eq!(summary.channel, 1);
    }
    let samples = interleave(&[agent, subject]);
    let swapped = hear(stereo(&[Subject, Agent], v1::ChannelMode::Mix), &samples).await;
    assert!(!swapped.utterances().is_empty());
    assert!(swapped.utterances().iter().all(|utterance| utterance.channel == 0));
}

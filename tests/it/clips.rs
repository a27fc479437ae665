//! `AnalyzeAudio`: whole files in every container, and clear errors for what is none.

use tonic::Code;
use undertone::audio::Encoding;
use undertone::wire::v1;

use crate::signal::{encode, silence, speech, wav};
use crate::support::{Client, PLAIN, Server, assert_error, data, duration, ms, seconds};

fn request(content: Vec<u8>) -> v1::AnalyzeAudioRequest {
    v1::AnalyzeAudioRequest { content: content.into(), ..v1::AnalyzeAudioRequest::default() }
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(data(name))
        .unwrap_or_else(|error| panic!("{name}: {error}; run tests/data/make_containers.sh"))
}

async fn analyze(
    client: &Client,
    request: v1::AnalyzeAudioRequest,
) -> Result<v1::AnalyzeAudioResponse, tonic::Status> {
    client.clone().analyze_audio(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn every_container_that_is_promised_is_read() {
    let server = Server::start().await;
    let client = server.client().await;
    for (name, length, channels) in [
        ("tone_16k_mono.wav", 1.0, 1),
        ("tone_8k_mulaw.wav", 1.0, 1),
        ("tone_8k_float_stereo.wav", 0.25, 2),
        ("tone_16k_adpcm.wav", 1.0, 1),
        ("tone_16k.flac", 1.0, 1),
        ("tone_44k_stereo.ogg", 1.0, 2),
        ("tone_24k.mp3", 1.0, 1),
        ("tone_48k_stereo.m4a", 1.0, 2),
        ("tone_16k_alac.m4a", 1.0, 1),
        ("tone_11k.aiff", 1.0, 1),
        ("tone_44k_stereo.mkv", 1.0, 2),
    ] {
        for hint in ["", name, "audio/nonsense"] {
            let request = v1::AnalyzeAudioRequest {
                format_hint: hint.to_owned(),
                channel_mode: v1::ChannelMode::Separate.into(),
                ..request(file(name))
            };
            let answer = analyze(&client, request).await.unwrap_or_else(|e| panic!("{name}: {e}"));
            // Lossy codecs pad to whole blocks: up to 2,048 samples and the encoder's delay.
            let heard = seconds(answer.audio);
            assert!((heard - length).abs() < 0.08, "{name}: {heard} s");
            assert_eq!(answer.channels.len(), channels, "{name}");
            assert_eq!((answer.undecodable_packets, answer.model.as_str()), (0, "tiny-steps"));
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_decoded_is_refused_with_what_was_found() {
    let server = Server::start().await;
    let client = server.client().await;
    let mut cut = file("tone_16k.flac");
    cut.truncate(40);
    let cases = [
        ("text", b"It was a dark and stormy night.".to_vec(), Code::InvalidArgument, "supported"),
        ("zeros", vec![0; 5_000], Code::InvalidArgument, "supported"),
        ("opus.ogg", file("opus.ogg"), Code::InvalidArgument, "opus"),
        ("opus.webm", file("opus.webm"), Code::InvalidArgument, "opus"),
        ("video_only.mkv", file("video_only.mkv"), Code::InvalidArgument, "no audio track"),
        ("sixteen_channels.wav", file("sixteen_channels.wav"), Code::InvalidArgument, "16"),
        ("rate_3k.wav", file("rate_3k.wav"), Code::InvalidArgument, "3000"),
        ("no_samples.wav", file("no_samples.wav"), Code::DataLoss, "empty"),
        ("a cut header", cut, Code::DataLoss, "flac"),
    ];
    for (name, content, code, says) in cases {
        let status = analyze(&client, request(content)).await.expect_err(name);
        let reason = match code {
            Code::DataLoss => "AUDIO_UNDECODABLE",
            _ => "AUDIO_FORMAT",
        };
        assert_error(&status, code, reason, Some("content"));
        let text = status.message().to_lowercase();
        assert!(text.contains(says), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_bad_request_for_a_clip_names_the_field_of_that_request() {
    let server = Server::start().await;
    let client = server.client().await;
    let good = wav(PLAIN.encoding, 16_000, 1, &encode(&silence(1, 0.2, 16_000), PLAIN.encoding));
    let voice = v1::VoiceActivityConfig { on_threshold: 2.0, ..v1::VoiceActivityConfig::default() };
    let cases = [
        ("content", request(Vec::new())),
        ("channel_mode", v1::AnalyzeAudioRequest { channel_mode: 9, ..request(good.clone()) }),
        (
            "estimate_interval",
            v1::AnalyzeAudioRequest { estimate_interval: duration(0.01), ..request(good.clone()) },
        ),
        (
            "voice_activity.on_threshold",
            v1::AnalyzeAudioRequest { voice_activity: Some(voice), ..request(good.clone()) },
        ),
    ];
    for (field, request) in cases {
        let status = analyze(&client, request).await.unwrap_err();
        assert_error(&status, Code::InvalidArgument, "INVALID_REQUEST", Some(field));
    }
    analyze(&client, request(good)).await.unwrap();
}

#[tokio::test]
async fn a_clip_that_is_too_large_or_too_long_is_refused() {
    let server = Server::with(|settings| {
        settings.max_clip_bytes = 100_000;
        settings.max_clip_length = ms(5_000);
    })
    .await;
    let client = server.client().await;
    let clip = |seconds: f64| {
        let data = encode(&silence(1, seconds, 8_000), Encoding::MuLaw);
        wav(Encoding::MuLaw, 8_000, 1, &data)
    };
    analyze(&client, request(clip(4.9))).await.unwrap();
    // The limit is looked at every 256 hops, about four seconds.
    let status = analyze(&client, request(clip(9.5))).await.unwrap_err();
    assert_error(&status, Code::OutOfRange, "CLIP_TOO_LONG", Some("content"));
    let status = analyze(&client, request(vec![0; 100_001])).await.unwrap_err();
    assert_error(&status, Code::InvalidArgument, "INVALID_REQUEST", Some("content"));
    assert!(status.message().contains("100001"));
    // Far beyond the limit, the transport already says no.
    let status = analyze(&client, request(vec![0; 400_000])).await.unwrap_err();
    assert_error(&status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", None);
    assert!(status.message().contains("400"), "{status:?}");
}

#[tokio::test]
async fn the_time_line_comes_only_if_asked_for() {
    let server = Server::start().await;
    let client = server.client().await;
    let data = encode(&speech(4, 4.0, 16_000), PLAIN.encoding);
    let content = wav(PLAIN.encoding, 16_000, 1, &data);
    let answer = analyze(&client, request(content.clone())).await.unwrap();
    assert!(answer.estimates.is_empty());
    assert_eq!(answer.utterances.len(), 2);
    assert_eq!(answer.channels[0].utterances, 2);
    let with_line =
        v1::AnalyzeAudioRequest { estimate_interval: duration(0.25), ..request(content) };
    let with_line = analyze(&client, with_line).await.unwrap();
    assert!(with_line.estimates.len() > 8);
    // The engine sums in another order now and then: see `model::engine`.
    assert_eq!(with_line.utterances.len(), answer.utterances.len());
    for (with, without) in with_line.utterances.iter().zip(&answer.utterances) {
        assert_eq!(
            (with.start, with.end, with.speech),
            (without.start, without.end, without.speech)
        );
        let (with, without) = (with.affect.as_ref().unwrap(), without.affect.as_ref().unwrap());
        for (a, b) in with.scores.iter().zip(&without.scores) {
            assert!((a.probability - b.probability).abs() <= 1e-5);
        }
    }
}

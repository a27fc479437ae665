//! What a client may not do: each refusal has its code, its reason and the field's name.

use std::time::Duration;

use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use undertone::audio::Encoding;
use undertone::config::StoreUrl;
use undertone::wire::v1;
use undertone::wire::v1::escalation_service_client::EscalationServiceClient;
use undertone::wire::v1::stream_emotion_request::Message as Request;

use crate::pki::{Bearing, Site, caller, hash};
use crate::process::metric;
use crate::raw::{DATA, END_HEADERS, HEADERS, Raw, call, frame, header};
use crate::signal::{encode, silence, speech};
use crate::support::{
    Client, Format, PATIENCE, PLAIN, Server, Talk, assert_error, audio, channel, chunks, duration,
    http_get, mark, ms, send, stream, turn, until, wrap,
};

fn config(change: impl FnOnce(&mut v1::StreamConfig)) -> v1::StreamConfig {
    let mut config = PLAIN.config();
    change(&mut config);
    config
}

fn audio_format(change: impl FnOnce(&mut v1::AudioFormat)) -> v1::StreamConfig {
    config(|config| change(config.audio.as_mut().unwrap()))
}

fn voice(change: impl FnOnce(&mut v1::VoiceActivityConfig)) -> v1::StreamConfig {
    let mut voice = v1::VoiceActivityConfig::default();
    change(&mut voice);
    config(|config| config.voice_activity = Some(voice))
}

#[tokio::test]
async fn a_bad_configuration_is_refused_with_the_name_of_each_field() {
    let server = Server::start().await;
    let client = server.client().await;
    let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    let overflow = Some(prost_types::Duration { seconds: i64::MAX, nanos: i32::MIN });
    let cases = [
        ("config.audio", config(|c| c.audio = None)),
        ("config.audio.encoding", audio_format(|a| a.encoding = 0)),
        ("config.audio.encoding", audio_format(|a| a.encoding = -7)),
        ("config.audio.sample_rate_hz", audio_format(|a| a.sample_rate_hz = 0)),
        ("config.audio.sample_rate_hz", audio_format(|a| a.sample_rate_hz = 7_999)),
        ("config.audio.sample_rate_hz", audio_format(|a| a.sample_rate_hz = u32::MAX)),
        ("config.audio.channel_count", audio_format(|a| a.channel_count = 9)),
        ("config.audio.channel_roles", audio_format(|a| a.channel_roles = vec![1, 1])),
        ("config.audio.channel_roles", audio_format(|a| a.channel_roles = vec![2])),
        ("config.audio.channel_roles", audio_format(|a| a.channel_roles = vec![99])),
        ("config.audio.channel_mode", audio_format(|a| a.channel_mode = 3)),
        ("config.session_id", config(|c| c.session_id = "a b".to_owned())),
        ("config.session_id", config(|c| c.session_id = "ü".to_owned())),
        ("config.session_id", config(|c| c.session_id = "x".repeat(129))),
        ("config.estimate_interval", config(|c| c.estimate_interval = duration(0.099))),
        ("config.estimate_interval", config(|c| c.estimate_interval = duration(10.001))),
        ("config.estimate_interval", config(|c| c.estimate_interval = negative)),
        ("config.estimate_interval", config(|c| c.estimate_interval = overflow)),
        ("config.min_speech", config(|c| c.min_speech = duration(10.5))),
        ("config.min_confidence", config(|c| c.min_confidence = Some(1.01))),
        ("config.min_confidence", config(|c| c.min_confidence = Some(f32::NAN))),
        ("config.labels", config(|c| c.labels = [(String::new(), String::new())].into())),
        ("config.labels", config(|c| c.labels = [("k".to_owned(), "v".repeat(256))].into())),
        (
            "config.labels",
            config(|c| c.labels = (0..33).map(|n| (n.to_string(), String::new())).collect()),
        ),
        ("config.voice_activity.on_threshold", voice(|v| v.on_threshold = 1.0)),
        ("config.voice_activity.on_threshold", voice(|v| v.on_threshold = f32::INFINITY)),
        ("config.voice_activity.off_threshold", voice(|v| v.off_threshold = 0.99)),
        ("config.voice_activity.min_speech", voice(|v| v.min_speech = duration(2.5))),
        ("config.voice_activity.hang_over", voice(|v| v.hang_over = duration(0.05))),
    ];
    for (field, config) in cases {
        let answer = stream(&client, config, [audio(vec![0; 320])]).await;
        assert_error(answer.error(), Code::InvalidArgument, "INVALID_REQUEST", Some(field));
        assert!(answer.responses.is_empty(), "{field}");
        assert!(answer.error().message().contains(field));
    }
    let all_wrong = config(|c| {
        c.audio = Some(v1::AudioFormat::default());
        c.session_id = "?".to_owned();
        c.min_speech = negative;
    });
    let answer = stream(&client, all_wrong, []).await;
    for field in ["encoding", "sample_rate_hz"] {
        let field = format!("config.audio.{field}");
        assert_error(answer.error(), Code::InvalidArgument, "INVALID_REQUEST", Some(&field));
    }
    for field in ["config.session_id", "config.min_speech"] {
        assert_error(answer.error(), Code::InvalidArgument, "INVALID_REQUEST", Some(field));
    }
    assert!(server.sessions().await.is_empty());
}

#[tokio::test]
async fn messages_out_of_order_are_refused() {
    let server = Server::start().await;
    let client = server.client().await;
    let good = || wrap(Request::Config(PLAIN.config().into()));
    let empty = v1::StreamEmotionRequest { message: None };
    for (what, first) in [
        ("audio", wrap(audio(vec![0; 320]))),
        ("mark", wrap(mark("m"))),
        ("turn", wrap(turn(v1::turn::Boundary::End))),
        ("empty message", empty.clone()),
    ] {
        let answer = send(&client, vec![first, good()]).await;
        let status = answer.error();
        assert_error(status, Code::FailedPrecondition, "CONFIG_MISSING", Some("config"));
        assert!(status.message().contains(what), "{status:?}");
    }
    let answer = send(&client, vec![]).await;
    assert_error(answer.error(), Code::FailedPrecondition, "CONFIG_MISSING", Some("config"));

    let answer = send(&client, vec![good(), good()]).await;
    assert_error(answer.error(), Code::FailedPrecondition, "CONFIG_TWICE", Some("config"));
    answer.started();

    let later = [
        ("message", empty),
        ("audio.data", wrap(audio(Vec::new()))),
        ("mark.name", wrap(mark(&"x".repeat(256)))),
        ("turn.boundary", wrap(turn(v1::turn::Boundary::Unspecified))),
        ("turn.boundary", wrap(Request::Turn(v1::Turn { boundary: 17 }))),
    ];
    for (field, request) in later {
        let answer = send(&client, vec![good(), request]).await;
        assert_error(answer.error(), Code::InvalidArgument, "INVALID_REQUEST", Some(field));
        answer.started();
    }
}

#[tokio::test]
async fn an_unknown_model_is_not_found_and_the_known_ones_are_named() {
    let server = Server::start().await;
    let client = server.client().await;
    let answer = stream(&client, config(|c| c.model = "gpt".to_owned()), []).await;
    assert_error(answer.error(), Code::NotFound, "MODEL_NOT_FOUND", Some("config.model"));
    assert!(answer.error().message().contains("tiny-window"));
    let clip = v1::AnalyzeAudioRequest {
        content: vec![1].into(),
        model: "gpt".to_owned(),
        ..v1::AnalyzeAudioRequest::default()
    };
    let status = client.clone().analyze_audio(clip).await.unwrap_err();
    assert_error(&status, Code::NotFound, "MODEL_NOT_FOUND", Some("model"));
    let name = v1::GetModelRequest { name: "gpt".to_owned() };
    let status = client.clone().get_model(name).await.unwrap_err();
    assert_error(&status, Code::NotFound, "MODEL_NOT_FOUND", Some("name"));
}

#[tokio::test]
async fn a_session_id_is_taken_for_as_long_as_its_session_lives() {
    let server = Server::start().await;
    let client = server.client().await;
    let named = || config(|c| c.session_id = "bed-7:night".to_owned());
    let first = Talk::open(&client, named()).await;
    let second = stream(&client, named(), []).await;
    let field = Some("config.session_id");
    assert_error(second.error(), Code::AlreadyExists, "SESSION_ID_TAKEN", field);
    assert_eq!(server.sessions().await[0]["id"], "bed-7:night");
    first.close().await.fine();
    stream(&client, named(), []).await.fine();
}

#[tokio::test]
async fn a_full_server_refuses_further_streams_and_says_when_to_come_back() {
    let server = Server::with(|settings| settings.max_streams = 3).await;
    let client = server.client().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(Talk::open(&client, PLAIN.config()).await);
    }
    let refused = stream(&client, PLAIN.config(), []).await;
    let details = assert_error(refused.error(), Code::ResourceExhausted, "SERVER_FULL", None);
    let retry = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(retry > Duration::ZERO && retry <= Duration::from_secs(60));
    open.pop().unwrap().close().await;
    stream(&client, PLAIN.config(), []).await.fine();
}

#[tokio::test]
async fn a_chunk_above_the_limit_is_refused_and_one_at_the_limit_is_taken() {
    let server = Server::with(|settings| settings.max_chunk_bytes = 4_096).await;
    let client = server.client().await;
    let answer = stream(&client, PLAIN.config(), [audio(vec![0; 4_096])]).await.fine();
    assert_eq!(answer.started().limits.as_ref().unwrap().max_chunk_bytes, 4_096);
    let answer = stream(&client, PLAIN.config(), [audio(vec![0; 4_097])]).await;
    assert_error(answer.error(), Code::ResourceExhausted, "CHUNK_TOO_LARGE", Some("audio.data"));
    assert!(answer.error().message().contains("4097"));
}

#[tokio::test]
async fn a_float_sample_that_is_no_number_is_data_loss() {
    let server = Server::start().await;
    let client = server.client().await;
    let format = Format { encoding: Encoding::Float32, ..PLAIN };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut samples = speech(1, 1.0, 16_000);
        samples[9_000] = bad;
        let data = encode(&samples, format.encoding);
        let answer = stream(&client, format.config(), chunks(&data, 6_400)).await;
        let status = answer.error();
        assert_error(status, Code::DataLoss, "AUDIO_UNDECODABLE", Some("audio.data"));
        assert!(status.message().contains("9000"), "{status:?}");
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_is_ended_at_the_idle_time_out() {
    let server = Server::with(|settings| settings.idle_timeout = ms(200)).await;
    let client = server.client().await;
    // From before it opens: under load its first word is heard late.
    let began = std::time::Instant::now();
    let quiet = Talk::open(&client, PLAIN.config()).await;
    let (_requests, answer) = (quiet.requests, crate::support::read(quiet.responses).await);
    assert_error(answer.error(), Code::DeadlineExceeded, "IDLE_TIMEOUT", None);
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
    // Nor may it wait for ever before it begins.
    let (_hold, inbox) = tokio::sync::mpsc::channel(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(inbox);
    let opened = client.clone().stream_emotion(requests).await.unwrap();
    let answer = crate::support::read(opened.into_inner()).await;
    assert_error(answer.error(), Code::DeadlineExceeded, "IDLE_TIMEOUT", None);
    assert!(server.sessions().await.is_empty());
}

#[tokio::test]
async fn a_stream_longer_than_allowed_is_ended() {
    let server = Server::with(|settings| settings.max_stream_length = ms(2_000)).await;
    let client = server.client().await;
    let data = encode(&silence(1, 2.5, 16_000), PLAIN.encoding);
    stream(&client, PLAIN.config(), chunks(&data[..64_000], 3_200)).await.fine();
    let answer = stream(&client, PLAIN.config(), chunks(&data, 3_200)).await;
    assert_error(answer.error(), Code::OutOfRange, "STREAM_TOO_LONG", None);
}

#[tokio::test]
async fn audio_faster_than_allowed_is_refused_after_the_burst_with_the_time_to_wait() {
    let server = Server::with(|settings| {
        settings.max_realtime_factor = 2.0;
        settings.realtime_burst = ms(3_000);
    })
    .await;
    let client = server.client().await;
    let data = encode(&silence(1, 8.0, 16_000), PLAIN.encoding);
    let burst = stream(&client, PLAIN.config(), chunks(&data[..96_000], 32_000)).await.fine();
    let limits = burst.started().limits.as_ref().unwrap();
    assert!((limits.max_realtime_factor - 2.0).abs() < f32::EPSILON);
    let answer = stream(&client, PLAIN.config(), chunks(&data, 32_000)).await;
    let details = assert_error(answer.error(), Code::ResourceExhausted, "AUDIO_TOO_FAST", None);
    let retry = details.retry_info().unwrap().retry_delay.unwrap();
    // A second behind the burst is allowed after half a second.
    assert!(retry > Duration::from_millis(1) && retry <= Duration::from_millis(500), "{retry:?}");
}

#[tokio::test]
async fn a_message_that_is_no_protobuf_is_refused_and_hurts_nobody_else() {
    let server = Server::start().await;
    let client = server.client().await;
    let other = Talk::open(&client, PLAIN.config()).await;
    // gRPC-Web over HTTP/1.1, so that the bytes can be anything: field 1 with a length beyond the end.
    let body = [&[0, 0, 0, 0, 3][..], &[0x0a, 0x7f, 0x00]].concat();
    let path = "/undertone.v1.EmotionService/StreamEmotion";
    let (status, answer) = crate::protocol::grpc_web(server.grpc, path, &body).await;
    assert_eq!(status, 200);
    let answer = String::from_utf8_lossy(&answer);
    // INVALID_ARGUMENT is 3.
    assert!(answer.contains("grpc-status:3"), "{answer:?}");
    other.close().await.fine();
}

#[tokio::test]
async fn what_carries_no_audio_is_small_and_comes_soon() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::with(|settings| {
        settings.request_timeout = ms(700);
        settings.escalation_store =
            StoreUrl(format!("sqlite:{}", folder.path().join("store.db").display()));
    })
    .await;
    let channel = channel(server.grpc).await;
    let name = "x".repeat(70_000);
    // Anybody may ask this one, so that it takes the least.
    let asked = HealthCheckRequest { service: "x".repeat(5_000) };
    let status = HealthClient::new(channel.clone()).check(asked).await.unwrap_err();
    assert_error(&status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", None);
    let asked = v1::GetModelRequest { name: name.clone() };
    let status = server.client().await.get_model(asked).await.unwrap_err();
    assert_error(&status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", None);
    let asked = v1::GetEscalationRequest { id: name };
    let mut escalations = EscalationServiceClient::new(channel);
    let status = escalations.get_escalation(asked).await.unwrap_err();
    assert_error(&status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE", None);

    // A message of a hundred bytes of which three come.
    let mut raw = Raw::greet(server.grpc).await;
    raw.open(1, "ListModels").await;
    raw.push(&frame(DATA, 0, 1, &[0, 0, 0, 0, 100, 1, 2, 3])).await;
    let seen = raw.watch(PATIENCE, |seen| !seen.ended.is_empty()).await;
    assert_eq!(seen.ended, [1], "{seen:?}");
}

#[tokio::test]
async fn what_is_cut_off_at_the_drain_deadline_is_counted_before_the_server_ends() {
    let server = Server::with(|settings| settings.drain_deadline = ms(500)).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
    // Windows so small that even the last messages do not fit once estimates have filled them.
    let narrow = endpoint.initial_stream_window_size(1_024).initial_connection_window_size(65_535);
    let client = Client::new(narrow.connect().await.unwrap());
    let config = v1::StreamConfig { estimate_interval: duration(0.1), ..PLAIN.config() };
    let talk = Talk::dial(&client, config).await;
    talk.say(audio(encode(&speech(1, 20.0, 16_000), PLAIN.encoding))).await;
    // All servers of this process share its metrics.
    let other = Server::start().await;
    let cut_off = async || {
        let page = http_get(other.http, "/metrics").await.1;
        metric(&page, "undertone_streams_total", "\"cut_off\"").unwrap_or_default()
    };
    until("it is full", async || !server.sessions().await.is_empty()).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = cut_off().await;
    server.stop().await.unwrap();
    assert!(cut_off().await > before);
    drop(talk);
}

#[tokio::test]
async fn who_watches_the_health_is_told_and_holds_up_no_end() {
    let server = Server::with(|settings| settings.drain_deadline = ms(60_000)).await;
    let mut health = HealthClient::new(channel(server.grpc).await);
    let asked = HealthCheckRequest { service: String::new() };
    let mut watch = health.watch(asked).await.unwrap().into_inner();
    let serving = watch.message().await.unwrap().unwrap().status;
    // So does somebody who has a tool ask what there is, and forgets it.
    let reflection = ServerReflectionClient::new(channel(server.grpc).await)
        .server_reflection_info(tokio_stream::pending())
        .await
        .unwrap();
    let began = std::time::Instant::now();
    server.stop().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_ne!(watch.message().await.unwrap().unwrap().status, serving);
    let status = watch.message().await.unwrap_err();
    assert_error(&status, Code::Unavailable, "DRAINING", None);
    drop(reflection);
}

#[tokio::test]
async fn nobody_takes_more_than_its_share_of_clips_and_watches() {
    let site = Site::new();
    let of = |name: &str| {
        let hash = hash(&format!("ut_{name}"));
        format!(
            "  - {{name: {name}, tenant: {name}, roles: [analyze, watch], tokens: [{{hash: '{hash}'}}]}}\n"
        )
    };
    let server = Server::with(|settings| {
        site.identities(settings, &format!("identities:\n{}{}", of("ours"), of("theirs")));
        settings.escalation_store = StoreUrl(format!("sqlite:{}", site.path("store.db").display()));
        (settings.max_watchers, settings.max_clips, settings.max_clips_waiting) = (4, 1, 1);
    })
    .await;
    let bearing = |name: &str| Bearing(Some(format!("Bearer ut_{name}")));
    let watch = async |name: &str| {
        let channel = channel(server.grpc).await;
        let mut client = EscalationServiceClient::with_interceptor(channel, bearing(name));
        client.watch_escalations(v1::WatchEscalationsRequest::default()).await
    };
    let _held = (watch("ours").await.unwrap(), watch("ours").await.unwrap());
    let status = watch("ours").await.unwrap_err();
    assert_error(&status, Code::ResourceExhausted, "TOO_MANY_WATCHES", None);
    assert!(status.message().contains("max_share"), "{status:?}");
    let _theirs = (watch("theirs").await.unwrap(), watch("theirs").await.unwrap());

    // A clip that does not come.
    let mut raw = Raw::greet(server.grpc).await;
    let head = [call("AnalyzeAudio"), header("authorization", "Bearer ut_ours")].concat();
    raw.push(&frame(HEADERS, END_HEADERS, 1, &head)).await;
    let clip = async |name: &str| {
        let mut client = caller(channel(server.grpc).await, Some(&format!("ut_{name}")));
        client.analyze_audio(v1::AnalyzeAudioRequest::default()).await.unwrap_err()
    };
    until("the share is taken", async || clip("ours").await.code() == Code::ResourceExhausted)
        .await;
    assert_error(&clip("ours").await, Code::ResourceExhausted, "TOO_MANY_CLIPS", None);
    assert_error(&clip("theirs").await, Code::InvalidArgument, "INVALID_REQUEST", Some("content"));
}

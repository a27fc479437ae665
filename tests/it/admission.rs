//! Who gets in: quotas, a server without room, and what its neighbours are told of it.

use std::time::Duration;

use tonic::Code;
use undertone::config::Settings;
use undertone::wire::v1;
use undertone::wire::v1::stream_emotion_response::Message as Response;

use crate::clients::slow_model;
use crate::process::metric;
use crate::signal::{encode, silence, wav};
use crate::support::{
    Client, PLAIN, Server, Talk, assert_error, audio, chunks, duration, http_get, ms, settings,
    stream, until,
};

fn clip(seconds: f64) -> v1::AnalyzeAudioRequest {
    let samples = silence(1, seconds, 16_000);
    v1::AnalyzeAudioRequest {
        content: wav(PLAIN.encoding, 16_000, 1, &encode(&samples, PLAIN.encoding)).into(),
        ..v1::AnalyzeAudioRequest::default()
    }
}

#[tokio::test]
async fn an_identity_may_have_as_many_streams_as_its_quota_says() {
    let server = Server::with(|settings| settings.quota_streams = 2).await;
    let client = server.client().await;
    let first = Talk::open(&client, PLAIN.config()).await;
    let second = Talk::open(&client, PLAIN.config()).await;
    let refused = stream(&client, PLAIN.config(), []).await;
    let details = assert_error(refused.error(), Code::ResourceExhausted, "QUOTA_STREAMS", None);
    let retry = details.retry_info().unwrap().retry_delay.unwrap();
    assert!((Duration::from_secs(2)..=Duration::from_secs(3)).contains(&retry), "{retry:?}");
    let violation = &details.quota_failure().unwrap().violations[0];
    assert_eq!(violation.subject, "identity:anonymous");
    // A clip is no stream.
    client.clone().analyze_audio(clip(0.5)).await.unwrap();
    first.close().await.fine();
    until("its place is free", async || stream(&client, PLAIN.config(), []).await.status.is_none())
        .await;
    second.close().await.fine();
}

#[tokio::test]
async fn at_its_quota_an_identity_may_go_on_with_a_stream_and_open_no_other() {
    let server = Server::with(|settings| settings.quota_streams = 1).await;
    let client = server.client().await;
    let config = v1::StreamConfig { checkpoint_interval: duration(1.0), ..PLAIN.config() };
    // Its client loses it, and the server has not noticed yet.
    let mut lost = Talk::open(&client, config).await;
    lost.say(audio(encode(&silence(1, 1.1, 16_000), PLAIN.encoding))).await;
    let checkpoint = loop {
        if let Some(Response::Checkpoint(checkpoint)) = lost.next().await.unwrap() {
            break checkpoint;
        }
    };
    let resumed =
        v1::StreamConfig { resume_token: checkpoint.resume_token, ..v1::StreamConfig::default() };
    let other = stream(&client, PLAIN.config(), []).await;
    assert_error(other.error(), Code::ResourceExhausted, "QUOTA_STREAMS", None);
    let answer = stream(&client, resumed.clone(), []).await.fine();
    assert_eq!(answer.started().resumed_from, checkpoint.point);
    assert_error(lost.close().await.error(), Code::Aborted, "TAKEN_OVER", None);
    // Nobody is there whose place it could take.
    let first = until_let_in(&client).await;
    let refused = stream(&client, resumed, []).await;
    assert_error(refused.error(), Code::ResourceExhausted, "QUOTA_STREAMS", None);
    first.close().await.fine();
}

/// A stream, as soon as those before have given their place back.
async fn until_let_in(client: &Client) -> Talk {
    until("its place is free", async || stream(client, PLAIN.config(), []).await.status.is_none())
        .await;
    loop {
        let mut talk = Talk::dial(client, PLAIN.config()).await;
        if let Ok(Some(_)) = talk.next().await {
            return talk;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn audio_beyond_the_quota_ends_the_stream_and_says_when_to_go_on() {
    let server = Server::with(|settings| settings.quota_audio_per_minute = ms(2_000)).await;
    let client = server.client().await;
    let data = encode(&silence(1, 3.0, 16_000), PLAIN.encoding);
    let answer = stream(&client, PLAIN.config(), chunks(&data, 32_000)).await;
    let details = assert_error(answer.error(), Code::ResourceExhausted, "QUOTA_AUDIO", None);
    assert!(details.quota_failure().is_some());
    answer.started();
    for status in [
        stream(&client, PLAIN.config(), []).await.status.unwrap(),
        client.clone().analyze_audio(clip(0.5)).await.unwrap_err(),
    ] {
        let details = assert_error(&status, Code::ResourceExhausted, "QUOTA_AUDIO", None);
        // A chunk of a second is paid for in half a minute, at two seconds a minute.
        let retry = details.retry_info().unwrap().retry_delay.unwrap();
        assert!(retry > Duration::from_secs(10) && retry < Duration::from_secs(46), "{retry:?}");
    }
}

#[tokio::test]
async fn a_clip_is_charged_by_its_audio() {
    let server = Server::with(|settings| settings.quota_audio_per_minute = ms(2_000)).await;
    let client = server.client().await;
    // Longer than what there is, and answered: it is paid for afterwards.
    client.clone().analyze_audio(clip(4.0)).await.unwrap();
    let status = client.clone().analyze_audio(clip(0.5)).await.unwrap_err();
    let details = assert_error(&status, Code::ResourceExhausted, "QUOTA_AUDIO", None);
    let retry = details.retry_info().unwrap().retry_delay.unwrap();
    assert!(retry > Duration::from_secs(50) && retry <= Duration::from_secs(91), "{retry:?}");
}

#[tokio::test]
async fn a_clip_that_is_refused_in_the_end_is_charged_all_the_same() {
    let server = Server::with(|settings| {
        settings.quota_audio_per_minute = ms(2_000);
        settings.max_clip_length = ms(3_000);
    })
    .await;
    let client = server.client().await;
    client.clone().analyze_audio(clip(4.0)).await.unwrap_err();
    let status = client.clone().analyze_audio(clip(0.5)).await.unwrap_err();
    assert_error(&status, Code::ResourceExhausted, "QUOTA_AUDIO", None);
}

#[tokio::test]
async fn without_memory_new_streams_and_clips_are_refused_and_the_ports_say_so() {
    let server = Server::with(|settings| settings.max_memory = 1).await;
    let client = server.client().await;
    let mut refused = None;
    until("memory has been looked at", async || {
        refused = stream(&client, PLAIN.config(), []).await.status;
        refused.is_some()
    })
    .await;
    let status = client.clone().analyze_audio(clip(0.5)).await.unwrap_err();
    for status in [refused.unwrap(), status] {
        let details = assert_error(&status, Code::ResourceExhausted, "SERVER_OVERLOADED", None);
        assert_eq!(details.error_info().unwrap().metadata["cause"], "memory");
        assert!(details.retry_info().is_some());
    }
    let (status, body) = http_get(server.http, "/readyz").await;
    assert!(status == 200 && body.starts_with("ready, full"), "{status} {body}");
    let (status, body) = http_get(server.http, "/accepting").await;
    assert!(status == 503 && body.contains("max_memory"), "{status} {body}");
    let (_, metrics) = http_get(server.http, "/metrics").await;
    for call in ["clip", "stream"] {
        let labels = format!("call=\"{call}\",reason=\"memory\"");
        let refused = metric(&metrics, "undertone_streams_refused_total", &labels);
        assert!(refused >= Some(1.0), "{call}: {refused:?}");
    }
}

#[tokio::test]
async fn a_replica_with_as_many_streams_as_it_may_have_is_ready_and_does_not_accept() {
    let server = Server::with(|settings| settings.max_streams = 1).await;
    let client = server.client().await;
    assert_eq!(http_get(server.http, "/accepting").await, (200, "accepting\n".to_owned()));
    let only = Talk::open(&client, PLAIN.config()).await;
    let (status, body) = http_get(server.http, "/readyz").await;
    assert!(status == 200 && body.contains("full"), "{status} {body}");
    assert_eq!(http_get(server.http, "/accepting").await.0, 503);
    only.close().await.fine();
    until("it accepts again", async || http_get(server.http, "/accepting").await.0 == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_falls_behind_refuses_new_streams_and_serves_those_there_are() {
    let settings = Settings { max_engine_lag: ms(100), ..settings() };
    let server = Server::serve(settings, slow_model(Duration::from_millis(300))).await;
    let client = server.client().await;
    let mut talks = Vec::new();
    for _ in 0..10 {
        talks.push(Talk::open(&client, PLAIN.config()).await);
    }
    let data = encode(&crate::signal::speech(1, 1.2, 16_000), PLAIN.encoding);
    for talk in &talks {
        talk.say(audio(data.clone())).await;
    }
    let mut refused = None;
    until("the lag is seen", async || {
        refused = stream(&client, PLAIN.config(), []).await.status;
        refused.is_some()
    })
    .await;
    let status = refused.unwrap();
    let details = assert_error(&status, Code::ResourceExhausted, "SERVER_OVERLOADED", None);
    assert_eq!(details.error_info().unwrap().metadata["cause"], "engine_lag");
    for talk in talks {
        talk.close().await.fine();
    }
}

//! Twilio Media Streams: a phone call's audio, forked to this server.
//!
//! In: text frames in JSON, `connected`, `start`, `media` (mu-law at 8 kHz, base64, 20 ms each), `dtmf`, `mark`,
//! `stop`. Out: nothing. Twilio takes audio and marks alone, and a stream that is forked (`<Start><Stream>`) none
//! of these: who wants to know watches the session, or gets its escalations.
//!
//! What the stream is about is said in `TwiML`, see `docs/telephony.md`: `<Parameter>`s named `policy`, `model`,
//! `session_id` and `track` are settings, all others are labels.
//!
//! Source: Twilio, "Media Streams: WebSocket messages"; "Webhooks security".

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tonic::Status;

use super::talk::{Ears, Heard, Mouth, close, talk};
use super::{Ingress, refuse};
use crate::session::SourceError;
use crate::wire::event::Ingress as Way;
use crate::wire::v1;
use crate::wire::v1::stream_config::Policy;
use crate::wire::v1::stream_emotion_request::Message as Request;

/// Twilio's samples a second.
const RATE_HZ: u32 = 8_000;

/// Takes a request to upgrade.
pub(super) async fn upgrade(
    State(ingress): State<Arc<Ingress>>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let urls = ingress.urls("wss", text("host").unwrap_or_default(), &uri);
    let (identity, account) = match ingress.admit(upgrade.as_ref().err(), || {
        ingress.gate.admit_twilio(&urls, text("x-twilio-signature"))
    }) {
        Ok(admitted) => admitted,
        Err(refused) => return refused,
    };
    let Ok(upgrade) = upgrade else {
        return refuse(StatusCode::BAD_REQUEST, "this is a WebSocket");
    };
    let token = ingress.live.tasks.token();
    ingress.bounded(upgrade).on_upgrade(async move |socket| {
        let _token = token;
        let ears = Call { account, track: None };
        talk(&ingress, Ok(identity), socket, (ears, Mute), None).await;
    })
}

/// A message of Twilio's.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Connected {},
    Start {
        start: Start,
    },
    Media {
        media: Media,
    },
    Dtmf {},
    Mark {},
    Stop {},
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Start {
    account_sid: String,
    stream_sid: String,
    call_sid: String,
    #[serde(default)]
    tracks: Vec<String>,
    #[serde(default)]
    custom_parameters: HashMap<String, String>,
    media_format: MediaFormat,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MediaFormat {
    encoding: String,
    sample_rate: u32,
    channels: u32,
}

#[derive(Debug, Deserialize)]
struct Media {
    /// `inbound`: what the caller says; `outbound`: what the caller hears.
    #[serde(default)]
    track: String,
    /// The number of the chunk on its track, from 1.
    #[serde(default)]
    chunk: Option<String>,
    payload: String,
}

/// A call that is listened to.
#[derive(Debug)]
struct Call {
    /// The account that has signed.
    account: String,
    /// The track that is listened to; none before `start`.
    track: Option<String>,
}

impl Ears for Call {
    type Reply = std::convert::Infallible;

    fn way(&self) -> Way {
        Way::Twilio
    }

    fn hear(&mut self, message: Message, _reply: &mut dyn FnMut(Self::Reply)) -> Heard {
        let Message::Text(text) = message else {
            return refused("Twilio sends text frames");
        };
        match serde_json::from_str(&text) {
            Ok(Event::Start { start }) => self.start(start),
            Ok(Event::Media { media }) => self.media(media),
            Ok(Event::Stop {}) => Heard::End,
            Ok(Event::Connected {} | Event::Dtmf {} | Event::Mark {} | Event::Other) => {
                Heard::Nothing
            }
            Err(error) => refused(format!("no message of Media Streams: {error}")),
        }
    }
}

fn refused(words: impl Into<String>) -> Heard {
    Heard::Refused(SourceError::Refused(words.into()))
}

fn request(message: Request) -> Heard {
    Heard::Request(v1::StreamEmotionRequest { message: Some(message) })
}

impl Call {
    fn start(&mut self, start: Start) -> Heard {
        if start.account_sid != self.account {
            return refused("start.accountSid is not the account that has signed the request");
        }
        let format = &start.media_format;
        if (format.encoding.as_str(), format.sample_rate, format.channels)
            != ("audio/x-mulaw", RATE_HZ, 1)
        {
            return refused("start.mediaFormat must be audio/x-mulaw, 8000, 1 channel");
        }
        let mut said = start.custom_parameters;
        let mut take = |name: &str| said.remove(name).filter(|value| !value.is_empty());
        // Without a word, what the caller says, if that comes; else what comes.
        let comes = |track: &str| start.tracks.iter().any(|one| one == track);
        let default = if comes("outbound") && !comes("inbound") { "outbound" } else { "inbound" };
        let track = take("track").unwrap_or_else(|| default.to_owned());
        if !matches!(track.as_str(), "inbound" | "outbound") {
            return refused("the parameter `track` must be inbound or outbound");
        }
        self.track = Some(track);
        let mut config = v1::StreamConfig {
            session_id: take("session_id").unwrap_or(start.stream_sid),
            audio: Some(v1::AudioFormat {
                encoding: v1::AudioEncoding::Mulaw.into(),
                sample_rate_hz: RATE_HZ,
                channel_count: 1,
                ..v1::AudioFormat::default()
            }),
            model: take("model").unwrap_or_default(),
            policy: take("policy").map(Policy::PolicyName),
            labels: said,
            ..v1::StreamConfig::default()
        };
        config.labels.insert("twilio.call".to_owned(), start.call_sid);
        request(Request::Config(config.into()))
    }

    fn media(&self, media: Media) -> Heard {
        match &self.track {
            None => return refused("media came before start"),
            Some(track) if !media.track.is_empty() && media.track != *track => {
                return Heard::Nothing;
            }
            Some(_) => {}
        }
        let Ok(data) = STANDARD.decode(&media.payload) else {
            return refused("media.payload is no base64");
        };
        if data.is_empty() {
            return Heard::Nothing;
        }
        let sequence = media.chunk.and_then(|chunk| chunk.parse().ok());
        request(Request::Audio(v1::AudioChunk {
            data: data.into(),
            sequence,
            ..v1::AudioChunk::default()
        }))
    }
}

/// Twilio is told nothing.
struct Mute;

impl Mouth for Mute {
    type Reply = std::convert::Infallible;

    fn say(&mut self, _response: v1::StreamEmotionResponse) -> Option<String> {
        None
    }

    fn reply(&mut self, reply: Self::Reply) -> Option<String> {
        match reply {}
    }

    fn last(&mut self, status: Option<&Status>) -> (Option<String>, CloseFrame) {
        let frame = match status {
            None => close(close_code::NORMAL, ""),
            Some(status) => {
                // Nobody else is there to be told: Twilio shows the close code at most.
                tracing::warn!(code = ?status.code(), error = status.message(), "a Twilio stream ended badly");
                close(close_code::POLICY, status.message())
            }
        };
        (None, frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> Call {
        Call { account: "AC1".to_owned(), track: None }
    }

    fn hear(call: &mut Call, text: &str) -> Heard {
        call.hear(Message::Text(text.into()), &mut |reply| match reply {})
    }

    fn start(parameters: &str, tracks: &str) -> String {
        format!(
            r#"{{"event":"start","sequenceNumber":"1","streamSid":"MZ1","start":{{"accountSid":"AC1",
            "streamSid":"MZ1","callSid":"CA1","tracks":{tracks},"customParameters":{parameters},
            "mediaFormat":{{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1}}}}}}"#
        )
    }

    fn config(call: &mut Call, text: &str) -> v1::StreamConfig {
        match hear(call, text) {
            Heard::Request(v1::StreamEmotionRequest { message: Some(Request::Config(config)) }) => {
                *config
            }
            Heard::Refused(error) => panic!("{error}"),
            _ => panic!("no configuration"),
        }
    }

    #[test]
    fn parameters_are_settings_or_labels() {
        let mut call = call();
        assert!(matches!(hear(&mut call, r#"{"event":"connected"}"#), Heard::Nothing));
        let text = start(r#"{"policy":"care-call","ward":"7","model":""}"#, r#"["inbound"]"#);
        let config = config(&mut call, &text);
        assert_eq!(config.session_id, "MZ1");
        assert_eq!(config.policy, Some(Policy::PolicyName("care-call".to_owned())));
        assert_eq!(config.model, "");
        let labels = [("ward", "7"), ("twilio.call", "CA1")];
        assert_eq!(config.labels, labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn one_track_is_heard_the_caller_s_unless_said_otherwise() {
        for (parameters, tracks, heard) in [
            ("{}", r#"["inbound","outbound"]"#, "inbound"),
            ("{}", r#"["outbound"]"#, "outbound"),
            (r#"{"track":"outbound"}"#, r#"["inbound","outbound"]"#, "outbound"),
        ] {
            let mut call = call();
            config(&mut call, &start(parameters, tracks));
            for track in ["inbound", "outbound"] {
                let text = format!(
                    r#"{{"event":"media","media":{{"track":"{track}","chunk":"3","payload":"/38="}}}}"#
                );
                let is_heard = match hear(&mut call, &text) {
                    Heard::Request(v1::StreamEmotionRequest {
                        message: Some(Request::Audio(chunk)),
                    }) => {
                        assert_eq!((&chunk.data[..], chunk.sequence), (&[0xff, 0x7f][..], Some(3)));
                        true
                    }
                    _ => false,
                };
                assert_eq!(is_heard, track == heard, "{track}");
            }
        }
    }

    #[test]
    fn what_is_no_message_or_of_another_account_is_refused() {
        let other = start("{}", "[]").replace("AC1", "AC2");
        let opus = start("{}", "[]").replace("audio/x-mulaw", "audio/opus");
        let wrong_track = start(r#"{"track":"both"}"#, "[]");
        let early = r#"{"event":"media","media":{"payload":"/38="}}"#.to_owned();
        for text in [other, opus, wrong_track, early, "{}".to_owned(), "[".to_owned()] {
            assert!(matches!(hear(&mut call(), &text), Heard::Refused(_)), "{text}");
        }
        let mut call = call();
        config(&mut call, &start("{}", "[]"));
        let text = r#"{"event":"media","media":{"track":"inbound","payload":"%"}}"#;
        assert!(matches!(hear(&mut call, text), Heard::Refused(_)));
        assert!(matches!(hear(&mut call, r#"{"event":"new-one","x":1}"#), Heard::Nothing));
        assert!(matches!(hear(&mut call, r#"{"event":"stop","stop":{}}"#), Heard::End));
    }
}

//! Genesys `AudioHook`, version 2: a contact centre's call, of which the customer is heard.
//!
//! In: text frames in JSON (`open`, `ping`, `paused`, `resumed`, `discarded`, `update`, `error`, `close`), each
//! numbered; binary frames, mu-law at 8 kHz, one or two interleaved channels. Out: `opened` once the session has
//! begun, `pong`, `updated`, `reconnect` when the server drains, `disconnect` when something is wrong, `closed`. A
//! connection probe (`open` with empty ids) is answered and opens no session.
//!
//! Of the channels, `external` is the customer and is listened to, `internal` is the agent and is not.
//!
//! Source: Genesys, "`AudioHook` protocol" (version 2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use futures_util::SinkExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Status};

use super::talk::{Ears, Heard, Mouth, close, talk};
use super::{Ingress, refuse};
use crate::identity::Identity;
use crate::server::identity::Signed;
use crate::session::SourceError;
use crate::wire::event::Ingress as Way;
use crate::wire::v1;
use crate::wire::v1::stream_config::Policy;
use crate::wire::v1::stream_emotion_request::Message as Request;
use crate::wire::v1::stream_emotion_response::Message as Answer;

/// The id of what is not there, in a probe.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";
/// Samples a second.
const RATE_HZ: u32 = 8_000;
/// Longest text message that the protocol has, bytes.
const MAX_TEXT: usize = 64 * 1024;

/// Takes a request to upgrade.
pub(super) async fn upgrade(
    State(ingress): State<Arc<Ingress>>,
    headers: HeaderMap,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (authority, target) = ingress.called(text("host").unwrap_or_default(), &uri);
    let request = Signed { headers: &headers, authority: &authority, target: &target };
    let identity =
        match ingress.admit(upgrade.as_ref().err(), || ingress.gate.admit_audiohook(request)) {
            Ok(identity) => identity,
            Err(refused) => return refused,
        };
    let organisation = text("audiohook-organization-id").unwrap_or_default().to_owned();
    let Ok(upgrade) = upgrade else {
        return refuse(StatusCode::BAD_REQUEST, "this is a WebSocket");
    };
    let token = ingress.live.tasks.token();
    ingress.bounded(upgrade).on_upgrade(async move |socket| {
        let _token = token;
        let cut_off = ingress.live.cut_off.clone();
        cut_off.run_until_cancelled(open(&ingress, identity, organisation, socket)).await;
    })
}

/// What every message of the client has.
#[derive(Debug, Deserialize)]
struct Envelope {
    version: String,
    id: String,
    #[serde(rename = "type")]
    kind: String,
    seq: u64,
    #[serde(default)]
    parameters: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Open {
    organization_id: String,
    conversation_id: String,
    #[serde(default)]
    media: Vec<Media>,
    #[serde(default)]
    custom_config: Option<CustomConfig>,
}

/// One way in which the client can send audio.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Media {
    #[serde(rename = "type")]
    kind: String,
    format: String,
    channels: Vec<String>,
    rate: u32,
}

/// What an integration's configuration says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CustomConfig {
    policy: String,
    model: String,
    labels: std::collections::HashMap<String, String>,
}

/// What both halves of a conversation know.
#[derive(Debug)]
struct Shared {
    /// The session's id, as the client has it.
    id: String,
    /// The number of the client's last message.
    heard: AtomicU64,
    /// Whether the client has closed the session.
    has_closed: AtomicBool,
}

/// Numbers our messages.
struct Numbered {
    shared: Arc<Shared>,
    seq: u64,
}

impl Numbered {
    fn message(&mut self, kind: &str, parameters: &Value) -> String {
        self.seq += 1;
        json!({
            "version": "2",
            "id": self.shared.id,
            "type": kind,
            "seq": self.seq,
            "clientseq": self.shared.heard.load(Ordering::Relaxed),
            "parameters": parameters,
        })
        .to_string()
    }
}

/// The transaction that opens a session, or a probe.
async fn open(
    ingress: &Ingress,
    identity: Arc<Identity>,
    organisation: String,
    mut socket: WebSocket,
) {
    let deadline = Instant::now() + ingress.context.limits.config_timeout;
    let Ok(Some(Ok(Message::Text(text)))) = timeout_at(deadline, socket.recv()).await else {
        // Whoever does not begin with text in time speaks another protocol, or nothing.
        let _ = timeout_at(
            deadline,
            socket.send(Message::Close(Some(close(close_code::PROTOCOL, "open is missing")))),
        )
        .await;
        return;
    };
    let envelope = envelope(&text, 0);
    let id = envelope.as_ref().map_or_else(|_| NOBODY.to_owned(), |envelope| envelope.id.clone());
    let shared =
        Arc::new(Shared { id, heard: AtomicU64::new(1), has_closed: AtomicBool::new(false) });
    let mut numbered = Numbered { shared: shared.clone(), seq: 0 };
    let asked = envelope.and_then(|envelope| asked(envelope, &organisation));
    let asked = match asked {
        Ok(asked) => asked,
        Err(problem) => {
            let parameters = json!({"reason": "error", "info": problem});
            let words = numbered.message("disconnect", &parameters);
            farewell(&mut socket, words, ingress).await;
            return;
        }
    };
    match asked {
        Asked::Probe => probe(ingress, socket, numbered).await,
        Asked::Session { media, config } => {
            let ears = Ear { shared };
            let mouth = Voice { numbered, media };
            let first = v1::StreamEmotionRequest { message: Some(Request::Config(config)) };
            talk(ingress, Ok(identity), socket, (ears, mouth), Some(first)).await;
        }
    }
}

/// What a client wants with `open`.
#[derive(Debug)]
enum Asked {
    /// To see whether somebody is there.
    Probe,
    Session {
        media: Media,
        config: Box<v1::StreamConfig>,
    },
}

/// A message behind number `before`.
fn envelope(text: &str, before: u64) -> Result<Envelope, String> {
    if text.len() > MAX_TEXT {
        return Err(format!("a message has more than {MAX_TEXT} bytes"));
    }
    let envelope: Envelope =
        serde_json::from_str(text).map_err(|error| format!("no message of AudioHook: {error}"))?;
    if envelope.version != "2" {
        return Err("version must be \"2\"".to_owned());
    }
    if envelope.seq != before + 1 {
        return Err(format!("seq is {}, not {}", envelope.seq, before + 1));
    }
    Ok(envelope)
}

fn asked(envelope: Envelope, organisation: &str) -> Result<Asked, String> {
    if envelope.kind != "open" {
        return Err(format!("the first message must be open, not {}", envelope.kind));
    }
    let open: Open = serde_json::from_value(envelope.parameters)
        .map_err(|error| format!("open.parameters: {error}"))?;
    if open.organization_id != organisation {
        return Err("organizationId is not the header's Audiohook-Organization-Id".to_owned());
    }
    if open.conversation_id == NOBODY {
        return Ok(Asked::Probe);
    }
    let usable = |media: &&Media| {
        (media.kind.as_str(), media.format.as_str(), media.rate) == ("audio", "PCMU", RATE_HZ)
            && media.channels.iter().any(|channel| channel == "external")
            && media.channels.iter().all(|channel| role(channel).is_some())
    };
    let media = open.media.iter().find(usable).cloned().ok_or(
        "media offers no PCMU at 8000 Hz with the channel external; listen to the customer",
    )?;
    let custom = open.custom_config.unwrap_or_default();
    let mut labels = custom.labels;
    labels.insert("audiohook.conversation".to_owned(), open.conversation_id);
    let config = v1::StreamConfig {
        session_id: envelope.id,
        audio: Some(v1::AudioFormat {
            encoding: v1::AudioEncoding::Mulaw.into(),
            sample_rate_hz: RATE_HZ,
            channel_count: u32::try_from(media.channels.len()).unwrap_or(u32::MAX),
            channel_roles: media
                .channels
                .iter()
                .filter_map(|channel| role(channel))
                .map(Into::into)
                .collect(),
            ..v1::AudioFormat::default()
        }),
        model: custom.model,
        policy: Some(custom.policy).filter(|policy| !policy.is_empty()).map(Policy::PolicyName),
        labels,
        ..v1::StreamConfig::default()
    };
    Ok(Asked::Session { media, config: config.into() })
}

/// Whose voice a channel is.
fn role(channel: &str) -> Option<v1::ChannelRole> {
    match channel {
        "external" => Some(v1::ChannelRole::Subject),
        "internal" => Some(v1::ChannelRole::Agent),
        _ => None,
    }
}

async fn farewell(socket: &mut WebSocket, words: String, ingress: &Ingress) {
    let said = async {
        socket.send(Message::Text(words.into())).await?;
        socket.send(Message::Close(Some(close(close_code::NORMAL, "")))).await
    };
    let _ = tokio::time::timeout(ingress.context.limits.send_timeout, said).await;
}

/// Answers a probe until it closes.
async fn probe(ingress: &Ingress, mut socket: WebSocket, mut numbered: Numbered) {
    let deadline = Instant::now() + ingress.context.limits.config_timeout;
    let answered = async {
        let opened = numbered.message("opened", &json!({"media": []}));
        socket.send(Message::Text(opened.into())).await?;
        while let Some(message) = socket.recv().await {
            let Message::Text(text) = message? else {
                continue;
            };
            let before = numbered.shared.heard.load(Ordering::Relaxed);
            let Ok(envelope) = envelope(&text, before) else {
                break;
            };
            numbered.shared.heard.store(envelope.seq, Ordering::Relaxed);
            match envelope.kind.as_str() {
                "ping" => {
                    let pong = numbered.message("pong", &json!({}));
                    socket.send(Message::Text(pong.into())).await?;
                }
                "close" => {
                    let closed = numbered.message("closed", &json!({}));
                    socket.send(Message::Text(closed.into())).await?;
                    break;
                }
                _ => {}
            }
        }
        socket.flush().await
    };
    // A probe that breaks off has seen what it wanted.
    let _ = timeout_at(deadline, answered).await;
}

/// What the protocol wants said at once.
enum Reply {
    Pong,
    Updated,
}

struct Ear {
    shared: Arc<Shared>,
}

impl Ears for Ear {
    type Reply = Reply;

    fn way(&self) -> Way {
        Way::AudioHook
    }

    fn hear(&mut self, message: Message, reply: &mut dyn FnMut(Reply)) -> Heard {
        match message {
            Message::Binary(data) if data.is_empty() => Heard::Nothing,
            Message::Binary(data) => {
                let chunk = v1::AudioChunk { data, ..v1::AudioChunk::default() };
                Heard::Request(v1::StreamEmotionRequest { message: Some(Request::Audio(chunk)) })
            }
            Message::Text(text) => match self.text(&text) {
                Ok(kind) => act(&kind, reply),
                Err(problem) => Heard::Refused(SourceError::Refused(problem)),
            },
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => Heard::Nothing,
        }
    }
}

impl Ear {
    fn text(&self, text: &str) -> Result<String, String> {
        let envelope = envelope(text, self.shared.heard.load(Ordering::Relaxed))?;
        if envelope.id != self.shared.id {
            return Err("id is another session's".to_owned());
        }
        self.shared.heard.store(envelope.seq, Ordering::Relaxed);
        if envelope.kind == "close" {
            self.shared.has_closed.store(true, Ordering::Relaxed);
        }
        if envelope.kind == "error" {
            tracing::warn!(said = %envelope.parameters, "an AudioHook client reports an error");
        }
        Ok(envelope.kind)
    }
}

fn act(kind: &str, reply: &mut dyn FnMut(Reply)) -> Heard {
    match kind {
        "ping" => {
            reply(Reply::Pong);
            // A sign of life for the session as well: a call on hold sends pings and no audio.
            let mark = v1::Mark { name: String::new() };
            Heard::Request(v1::StreamEmotionRequest { message: Some(Request::Mark(mark)) })
        }
        "update" => {
            reply(Reply::Updated);
            Heard::Nothing
        }
        "close" => Heard::End,
        "open" => Heard::Refused(SourceError::Refused("open came twice".to_owned())),
        // What is new in a later version need not concern us.
        _ => Heard::Nothing,
    }
}

struct Voice {
    numbered: Numbered,
    media: Media,
}

impl Mouth for Voice {
    type Reply = Reply;

    fn say(&mut self, response: v1::StreamEmotionResponse) -> Option<String> {
        match response.message? {
            Answer::Started(_) => {
                let media = json!([{
                    "type": self.media.kind,
                    "format": self.media.format,
                    "channels": self.media.channels,
                    "rate": self.media.rate,
                }]);
                Some(self.numbered.message("opened", &json!({"media": media})))
            }
            Answer::Draining(_) => {
                let info = json!({"info": "the server is about to end"});
                Some(self.numbered.message("reconnect", &info))
            }
            _ => None,
        }
    }

    fn reply(&mut self, reply: Reply) -> Option<String> {
        let kind = match reply {
            Reply::Pong => "pong",
            Reply::Updated => "updated",
        };
        Some(self.numbered.message(kind, &json!({})))
    }

    fn last(&mut self, status: Option<&Status>) -> (Option<String>, CloseFrame) {
        let words = match status {
            None if self.numbered.shared.has_closed.load(Ordering::Relaxed) => {
                self.numbered.message("closed", &json!({}))
            }
            // It is the client that closes; a server that ends first says so.
            None => {
                let parameters =
                    json!({"reason": "completed", "info": "the server is about to end"});
                self.numbered.message("disconnect", &parameters)
            }
            Some(status) => {
                let reason = match status.code() {
                    Code::Unauthenticated | Code::PermissionDenied => "unauthorized",
                    _ => "error",
                };
                let parameters = json!({"reason": reason, "info": status.message()});
                self.numbered.message("disconnect", &parameters)
            }
        };
        (Some(words), close(close_code::NORMAL, ""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: &str = "e160e428-53e2-487c-977d-96989bf5c99d";

    fn opening(change: impl Fn(&mut Value)) -> Result<Asked, String> {
        let mut message = json!({
            "version": "2", "type": "open", "seq": 1, "serverseq": 0, "id": SESSION,
            "position": "PT0S",
            "parameters": {
                "organizationId": "o", "conversationId": "c",
                "participant": {"id": "p", "ani": "+1", "aniName": "J", "dnis": "+2"},
                "media": [
                    {"type": "audio", "format": "L16", "channels": ["external"], "rate": 8000},
                    {"type": "audio", "format": "PCMU", "channels": ["external", "internal"], "rate": 8000},
                ],
                "customConfig": {"policy": "care-call", "labels": {"queue": "7"}},
            },
        });
        change(&mut message);
        asked(envelope(&message.to_string(), 0)?, "o")
    }

    #[test]
    fn the_customer_is_listened_to_and_the_agent_is_not() {
        let Asked::Session { media, config } = opening(|_| {}).unwrap() else {
            panic!("a probe");
        };
        assert_eq!((media.format.as_str(), media.channels.len()), ("PCMU", 2));
        let audio = config.audio.as_ref().unwrap();
        let roles: Vec<_> = audio.channel_roles().collect();
        assert_eq!(roles, [v1::ChannelRole::Subject, v1::ChannelRole::Agent]);
        assert_eq!((audio.channel_count, config.session_id.as_str()), (2, SESSION));
        assert_eq!(config.policy, Some(Policy::PolicyName("care-call".to_owned())));
        assert_eq!(config.labels["audiohook.conversation"], "c");
        assert_eq!(config.labels["queue"], "7");
    }

    #[test]
    fn a_probe_is_one() {
        let probe = opening(|message| {
            message["parameters"]["conversationId"] = json!(NOBODY);
            message["parameters"]["media"] = json!([]);
        });
        assert!(matches!(probe, Ok(Asked::Probe)));
    }

    #[test]
    fn what_cannot_be_opened_is_said() {
        let with = |path: &str, value: Value| {
            opening(|message| *message.pointer_mut(path).unwrap() = value.clone()).unwrap_err()
        };
        assert!(with("/version", json!("1")).contains("version"));
        assert!(with("/seq", json!(2)).contains("seq"));
        assert!(with("/type", json!("close")).contains("first message"));
        assert!(with("/parameters/organizationId", json!("x")).contains("organizationId"));
        assert!(with("/parameters/media", json!([])).contains("media"));
        assert!(with("/parameters/media/1/channels", json!(["internal"])).contains("external"));
    }

    #[test]
    fn messages_are_numbered_both_ways() {
        let shared = Arc::new(Shared {
            id: SESSION.to_owned(),
            heard: AtomicU64::new(1),
            has_closed: AtomicBool::new(false),
        });
        let mut ear = Ear { shared: shared.clone() };
        let said = |seq: u64, kind: &str| {
            let message = json!({
                "version": "2", "type": kind, "seq": seq, "serverseq": 1, "id": SESSION,
                "position": "PT1.5S", "parameters": {},
            });
            Message::Text(message.to_string().into())
        };
        let mut replies = Vec::new();
        let heard = ear.hear(said(2, "ping"), &mut |reply| replies.push(reply));
        assert!(matches!(heard, Heard::Request(_)) && replies.len() == 1);
        let mut voice = Voice {
            numbered: Numbered { shared, seq: 1 },
            media: Media {
                kind: "audio".to_owned(),
                format: "PCMU".to_owned(),
                channels: vec!["external".to_owned()],
                rate: RATE_HZ,
            },
        };
        let pong: Value = serde_json::from_str(&voice.reply(Reply::Pong).unwrap()).unwrap();
        assert_eq!(
            (&pong["type"], &pong["seq"], &pong["clientseq"]),
            (&json!("pong"), &json!(2), &json!(2))
        );
        for quiet in ["paused", "resumed", "discarded", "something-new"] {
            let seq = 3 + ["paused", "resumed", "discarded", "something-new"]
                .iter()
                .position(|q| *q == quiet)
                .unwrap() as u64;
            assert!(matches!(ear.hear(said(seq, quiet), &mut |_| {}), Heard::Nothing));
        }
        assert!(matches!(ear.hear(said(9, "ping"), &mut |_| {}), Heard::Refused(_)), "a gap");
        assert!(matches!(ear.hear(said(7, "close"), &mut |_| {}), Heard::End));
    }
}

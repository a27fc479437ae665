//! The service's own protocol over WebSocket, see `docs/websocket.md`.
//!
//! In: text frames, each one `StreamEmotionRequest` in protobuf's JSON, or `{"end": {}}`; binary frames, each one
//! chunk of audio. Out: text frames, each one `StreamEmotionResponse`; at the end `finished` and the close code
//! 1000, or `{"error": ...}` and 4000 plus the gRPC code.

use std::sync::Arc;

use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade, close_code};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::Instrument as _;

use super::talk::{Ears, Heard, Mouth, close, talk};
use super::{Ingress, refuse};
use crate::identity::Role;
use crate::server::identity::Access;
use crate::server::status;
use crate::session::SourceError;
use crate::wire::event::Ingress as Way;
use crate::wire::v1::stream_emotion_request::Message as Request;
use crate::wire::{code_name, json, v1};

/// The name of the protocol and its version.
const PROTOCOL: &str = "undertone.v1";
/// What stands before a token among the protocols that a browser offers: its scripts cannot send headers.
const BEARER: &str = "undertone.bearer.";
/// The close code of an error is this and the gRPC code (RFC 6455, section 7.4.2: private use).
const ERROR: u16 = 4000;

/// Takes a request to upgrade.
pub(super) async fn upgrade(
    State(ingress): State<Arc<Ingress>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    if let Some(why) = ingress.withheld {
        return refuse(StatusCode::FORBIDDEN, why.trim_end());
    }
    if !ingress.origins.admit(&headers) {
        return refuse(
            StatusCode::FORBIDDEN,
            "pages of this origin may not call; see allowed_origins",
        );
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(rejection) => {
            return refuse(StatusCode::BAD_REQUEST, format!("{rejection}; this is a WebSocket"));
        }
    };
    let offered: Vec<&str> = offered(&headers).collect();
    if !offered.contains(&PROTOCOL) {
        return refuse(
            StatusCode::BAD_REQUEST,
            "offer the protocol undertone.v1 (Sec-WebSocket-Protocol)",
        );
    }
    let credentials = credentials(&headers, &offered);
    let span = super::span("/v1/stream", &headers);
    let token = ingress.live.tasks.token();
    ingress.bounded(upgrade).protocols([PROTOCOL]).on_upgrade(async move |socket| {
        let _token = token;
        // After the upgrade: a browser's script learns nothing of an answer that is none.
        let method = "GET /v1/stream";
        let admitted =
            ingress.gate.admit_as(Access::Role(Role::Stream), method, &credentials, None).await;
        let identity = admitted.map(|standing| standing.identity().clone());
        let identity = identity.map_err(|refusal| status::of_refusal(&refusal));
        talk(&ingress, identity, socket, (Own, Own), None).instrument(span).await;
    })
}

fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim)
}

/// What says who calls: the header, or what stands for it.
fn credentials(headers: &HeaderMap, offered: &[&str]) -> HeaderMap {
    let mut credentials = HeaderMap::new();
    let name: HeaderName = header::AUTHORIZATION;
    for value in headers.get_all(&name) {
        credentials.append(name.clone(), value.clone());
    }
    for token in offered.iter().filter_map(|protocol| protocol.strip_prefix(BEARER)) {
        if let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {token}")) {
            value.set_sensitive(true);
            credentials.append(name.clone(), value);
        }
    }
    credentials
}

/// Understands and speaks the protocol.
struct Own;

impl Ears for Own {
    type Reply = std::convert::Infallible;

    fn way(&self) -> Way {
        Way::WebSocket
    }

    fn hear(&mut self, message: Message, _reply: &mut dyn FnMut(Self::Reply)) -> Heard {
        match message {
            Message::Binary(data) => {
                let chunk = v1::AudioChunk { data, ..v1::AudioChunk::default() };
                let message = Some(Request::Audio(chunk));
                Heard::Request(v1::StreamEmotionRequest { message })
            }
            Message::Text(text) if is_end(&text) => Heard::End,
            Message::Text(text) => match json::request(&text) {
                Ok(request) => Heard::Request(request),
                Err(error) => Heard::Refused(SourceError::Refused(error.to_string())),
            },
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => Heard::Nothing,
        }
    }
}

/// Whether the client half-closes.
fn is_end(text: &str) -> bool {
    // Short, unlike nearly all messages.
    text.len() <= 64
        && serde_json::from_str::<serde_json::Value>(text)
            .is_ok_and(|value| value == json!({"end": {}}))
}

impl Mouth for Own {
    type Reply = std::convert::Infallible;

    fn say(&mut self, response: v1::StreamEmotionResponse) -> Option<String> {
        Some(json::response(&response))
    }

    fn reply(&mut self, reply: Self::Reply) -> Option<String> {
        match reply {}
    }

    fn last(&mut self, status: Option<&Status>) -> (Option<String>, CloseFrame) {
        match status {
            None => (None, close(close_code::NORMAL, "")),
            Some(status) => {
                let details = status.get_error_details();
                let reason = details.error_info().map_or("", |info| info.reason.as_str());
                // Codes are 0 to 16.
                let code = ERROR + u16::try_from(i32::from(status.code())).unwrap_or_default();
                (Some(error(status, &details)), close(code, reason))
            }
        }
    }
}

/// An error with all that there is to say of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<Field<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<String>,
}

#[derive(Serialize)]
struct Field<'a> {
    field: &'a str,
    description: &'a str,
}

fn error(status: &Status, details: &ErrorDetails) -> String {
    let fields = details.bad_request().map(|bad| bad.field_violations.as_slice());
    let fields = fields.unwrap_or_default().iter();
    let delay = details.retry_info().and_then(|info| info.retry_delay);
    let problem = Problem {
        code: code_name(status.code()),
        message: status.message(),
        reason: details.error_info().map(|info| info.reason.as_str()),
        fields: fields.map(|v| Field { field: &v.field, description: &v.description }).collect(),
        retry_after: delay.map(|delay| format!("{:.3}s", delay.as_secs_f64())),
    };
    json!({"error": problem}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_as_a_header_or_as_a_protocol() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            "undertone.v1, undertone.bearer.ut_secret".parse().unwrap(),
        );
        let offered: Vec<&str> = offered(&headers).collect();
        assert_eq!(offered, ["undertone.v1", "undertone.bearer.ut_secret"]);
        let credentials = credentials(&headers, &offered);
        assert_eq!(credentials[header::AUTHORIZATION], "Bearer ut_secret");
        assert!(!format!("{credentials:?}").contains("secret"));
    }

    #[test]
    fn an_error_has_its_field_and_its_remedy() {
        let violation = crate::wire::parse::Violation {
            field: "config.audio",
            problem: "is missing".to_owned(),
        };
        let status = status::invalid(&[violation]);
        let (words, frame) = Own.last(Some(&status));
        assert_eq!((frame.code, frame.reason.as_str()), (4003, "INVALID_REQUEST"));
        let json: serde_json::Value = serde_json::from_str(&words.unwrap()).unwrap();
        assert_eq!(json["error"]["code"], "INVALID_ARGUMENT");
        assert_eq!(json["error"]["fields"][0]["field"], "config.audio");
        let (words, _) = Own.last(Some(&status::draining()));
        let json: serde_json::Value = serde_json::from_str(&words.unwrap()).unwrap();
        assert_eq!(json["error"]["retryAfter"], "0.000s");
    }

    #[test]
    fn the_end_is_a_message_of_its_own() {
        assert!(is_end(r#"{"end": {}}"#) && is_end(" {\"end\":{}}\n"));
        assert!(!is_end(r#"{"end": true}"#) && !is_end(r#"{"mark": {}}"#));
    }
}

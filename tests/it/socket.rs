//! A WebSocket client that is talked to message by message, and what a refused upgrade answers.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::support::PATIENCE;

/// An open connection.
pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The protocol that the server chose.
    pub(crate) protocol: Option<String>,
}

/// What came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Came {
    /// Text that is JSON.
    Json(Value),
    /// The server has closed, with this code and reason.
    Closed(u16, String),
    /// The connection broke.
    Broken,
}

impl Socket {
    /// Opens `path` with these headers.
    ///
    /// # Errors
    /// Status and text of an answer that is no upgrade.
    pub(crate) async fn open(
        address: SocketAddr,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, (u16, String)> {
        let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match tokio_tungstenite::connect_async(request).await {
            Ok((stream, answer)) => {
                let protocol = answer.headers().get("sec-websocket-protocol");
                let protocol = protocol.map(|value| value.to_str().unwrap().to_owned());
                Ok(Self { stream, protocol })
            }
            Err(Error::Http(answer)) => {
                let body = answer.body().clone().unwrap_or_default();
                Err((answer.status().as_u16(), String::from_utf8(body).unwrap()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) async fn say(&mut self, json: &Value) {
        self.text(&json.to_string()).await;
    }

    pub(crate) async fn text(&mut self, text: &str) {
        self.stream.send(Message::Text(text.into())).await.expect("the socket is open");
    }

    pub(crate) async fn bytes(&mut self, data: &[u8]) {
        let message = Message::Binary(data.to_vec().into());
        self.stream.send(message).await.expect("the socket is open");
    }

    /// Sends it if the socket takes it.
    pub(crate) async fn try_text(&mut self, text: &str) -> bool {
        self.stream.send(Message::Text(text.into())).await.is_ok()
    }

    pub(crate) async fn close(&mut self, code: u16) {
        let frame = CloseFrame { code: code.into(), reason: "".into() };
        self.stream.send(Message::Close(Some(frame))).await.expect("the socket is open");
    }

    pub(crate) async fn next(&mut self) -> Came {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("no answer");
            match next {
                Some(Ok(Message::Text(text))) => {
                    return Came::Json(serde_json::from_str(&text).expect("JSON"));
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Came::Closed(frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(Message::Close(None))) => return Came::Closed(1005, String::new()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Came::Broken,
            }
        }
    }

    /// The next text.
    pub(crate) async fn json(&mut self) -> Value {
        match self.next().await {
            Came::Json(json) => json,
            other => panic!("no text but {other:?}"),
        }
    }

    /// All texts up to the end, and how it came.
    pub(crate) async fn rest(&mut self) -> (Vec<Value>, Came) {
        let mut texts = Vec::new();
        loop {
            match self.next().await {
                Came::Json(json) => texts.push(json),
                end => return (texts, end),
            }
        }
    }
}

/// The headers of the service's own protocol.
pub(crate) const OWN: (&str, &str) = ("sec-websocket-protocol", "undertone.v1");

/// Opens the service's own protocol.
pub(crate) async fn own(address: SocketAddr) -> Socket {
    Socket::open(address, "/v1/stream", &[OWN]).await.expect("it is upgraded")
}

/// A configuration for 16-bit mono at 16 kHz, with more.
pub(crate) fn config(more: Value) -> Value {
    let mut config =
        json!({"audio": {"encoding": "AUDIO_ENCODING_LINEAR16", "sampleRateHz": 16000}});
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    json!({"config": config})
}

//! One session over one WebSocket, whatever the protocol.
//!
//! Two halves run side by side: the session, which reads the socket as it goes on ([`Hearing`]), and what says
//! to the client what the session answers ([`speak`]). When the session has ended, the last word is said, the
//! socket is closed, and what the client still sends is thrown away for a moment, so that it can read the last
//! word before its own unread bytes would break the connection.

use std::pin::pin;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Status;

use super::Ingress;
use crate::server::service::{refused, serve_stream};
use crate::server::status;
use crate::session::{OUTBOX, Source, SourceError};
use crate::wire::event::Ingress as Way;
use crate::wire::v1;

/// Replies of the protocol itself that may wait to be said; more are not said. Whoever asks for so many does not
/// read.
const REPLIES: usize = 4;
/// How long a client may take to close its side after the last word.
const CLOSES_WITHIN: Duration = Duration::from_secs(2);

/// What a message of the client means.
pub(super) enum Heard {
    /// Something for the session.
    Request(v1::StreamEmotionRequest),
    /// The client has said all that it had to say.
    End,
    /// Nothing for the session.
    Nothing,
    /// It cannot be understood.
    Refused(SourceError),
}

/// How messages of a protocol are understood.
pub(super) trait Ears: Send {
    /// A reply that the protocol itself wants.
    type Reply: Send;

    /// The protocol.
    fn way(&self) -> Way;

    /// What a message means; `reply` takes what the protocol wants said at once.
    fn hear(&mut self, message: Message, reply: &mut dyn FnMut(Self::Reply)) -> Heard;
}

/// How things are said in a protocol.
pub(super) trait Mouth: Send {
    /// A reply that the protocol itself wants.
    type Reply: Send;

    /// Says what the session answers; nothing, where the protocol has no words for it.
    fn say(&mut self, response: v1::StreamEmotionResponse) -> Option<String>;

    /// Says what the protocol itself wants.
    fn reply(&mut self, reply: Self::Reply) -> Option<String>;

    /// The last word: all went well, or not.
    fn last(&mut self, status: Option<&Status>) -> (Option<String>, CloseFrame);
}

/// A close frame.
pub(super) fn close(code: u16, reason: &str) -> CloseFrame {
    // A control frame has 125 bytes at most (RFC 6455, section 5.5), of which the code takes two.
    let reason: String = reason.chars().take(123).collect();
    CloseFrame { code, reason: reason.into() }
}

/// The client's side of a socket, as the session reads it.
struct Hearing<E: Ears> {
    socket: SplitStream<WebSocket>,
    ears: E,
    replies: mpsc::Sender<E::Reply>,
    /// Heard before the session began.
    first: Option<v1::StreamEmotionRequest>,
    has_ended: bool,
}

impl<E: Ears> Source for Hearing<E> {
    async fn next(&mut self) -> Result<Option<v1::StreamEmotionRequest>, SourceError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        // Cancel-safe: nothing is awaited between taking a message and giving it on.
        while !self.has_ended {
            let message = match self.socket.next().await {
                Some(Ok(Message::Close(frame))) => return self.closed(frame.as_ref()),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(of_socket(&error)),
                None => return Err(SourceError::Vanished("the connection ended".to_owned())),
            };
            let replies = &self.replies;
            let mut reply = |reply| drop(replies.try_send(reply));
            match self.ears.hear(message, &mut reply) {
                Heard::Request(request) => return Ok(Some(request)),
                Heard::End => self.has_ended = true,
                Heard::Nothing => {}
                Heard::Refused(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn ingress(&self) -> Way {
        self.ears.way()
    }
}

impl<E: Ears> Hearing<E> {
    /// Whoever closes in order has said all; whoever goes away has not.
    fn closed(
        &mut self,
        frame: Option<&CloseFrame>,
    ) -> Result<Option<v1::StreamEmotionRequest>, SourceError> {
        self.has_ended = true;
        match frame.map(|frame| frame.code) {
            Some(close_code::NORMAL) => Ok(None),
            code => Err(SourceError::Vanished(format!("the client closed with {code:?}"))),
        }
    }
}

fn of_socket(error: &axum::Error) -> SourceError {
    let words = error.to_string();
    // axum gives tungstenite's error as a source; its kinds are told apart by what they say.
    if words.contains("too long") || words.contains("Space limit exceeded") {
        SourceError::TooLarge(words)
    } else if words.contains("UTF-8") {
        SourceError::Refused(words)
    } else {
        SourceError::Vanished(words)
    }
}

/// Runs a session for `identity` over `socket`; `first` was heard before.
pub(super) async fn talk<E, M>(
    ingress: &Ingress,
    identity: Result<std::sync::Arc<crate::identity::Identity>, Status>,
    socket: WebSocket,
    (ears, mut mouth): (E, M),
    first: Option<v1::StreamEmotionRequest>,
) where
    E: Ears,
    M: Mouth<Reply = E::Reply>,
{
    let limit = ingress.context.limits.send_timeout;
    let (mut sink, stream) = socket.split();
    let admitted =
        identity.and_then(|identity| ingress.context.admission.admit(&identity).map_err(refused));
    let (mut stream, status) = match admitted {
        Err(status) => (stream, Some(status)),
        Ok(permit) => {
            let (outbox, inbox) = mpsc::channel(OUTBOX);
            let (replies, wanted) = mpsc::channel(REPLIES);
            let mut hearing = Hearing { socket: stream, ears, replies, first, has_ended: false };
            let context = ingress.context.clone();
            let session = Box::pin(serve_stream(context, permit, &mut hearing, outbox));
            let session = ingress.live.cut_off.run_until_cancelled(session);
            let said = speak(&mut sink, &mut mouth, inbox, wanted, limit);
            let (ended, said) = tokio::join!(session, said);
            if said.is_err() {
                return;
            }
            (hearing.socket, ended.unwrap_or_else(|| Some(status::draining())))
        }
    };
    let (words, frame) = mouth.last(status.as_ref());
    let farewell = async {
        if let Some(words) = words {
            sink.send(Message::Text(words.into())).await?;
        }
        sink.send(Message::Close(Some(frame))).await
    };
    if !matches!(timeout(limit, farewell).await, Ok(Ok(()))) {
        return;
    }
    let mut closes = pin!(tokio::time::sleep(CLOSES_WITHIN));
    loop {
        // Cancel-safe: what is read is thrown away.
        tokio::select! {
            next = stream.next() => if !matches!(next, Some(Ok(_))) {
                return;
            },
            () = &mut closes => return,
        }
    }
}

/// The client has gone, or does not read.
struct Gone;

/// Says what the session answers until it has ended.
async fn speak<M: Mouth>(
    sink: &mut SplitSink<WebSocket, Message>,
    mouth: &mut M,
    mut inbox: mpsc::Receiver<v1::StreamEmotionResponse>,
    mut replies: mpsc::Receiver<M::Reply>,
    limit: Duration,
) -> Result<(), Gone> {
    loop {
        // Cancel-safe: receiving is.
        let words = tokio::select! {
            biased;
            Some(reply) = replies.recv() => mouth.reply(reply),
            response = inbox.recv() => match response {
                Some(response) => mouth.say(response),
                None => return Ok(()),
            },
        };
        let Some(words) = words else {
            continue;
        };
        match timeout(limit, sink.send(Message::Text(words.into()))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(Gone),
        }
    }
}

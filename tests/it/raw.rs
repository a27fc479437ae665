//! HTTP/2 by hand, for clients that do not keep to it: frames are written as they are, and what comes
//! back is told as far as it matters. RFC 9113 (frames) and RFC 7541 (HPACK, literals only).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// One header: never indexed, not compressed; names under 127 bytes.
pub(crate) fn header(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0x10, name.len() as u8];
    block.extend(name.as_bytes());
    // An integer with a prefix of seven bits.
    if value.len() < 127 {
        block.push(value.len() as u8);
    } else {
        block.push(127);
        let mut rest = value.len() - 127;
        while rest >= 128 {
            block.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        block.push(rest as u8);
    }
    block.extend(value.as_bytes());
    block
}

/// The headers of a gRPC call.
pub(crate) fn call(method: &str) -> Vec<u8> {
    [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", &format!("/undertone.v1.EmotionService/{method}")),
        header(":authority", "test"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ]
    .concat()
}

/// A connection's two ways.
pub(crate) struct Raw {
    pub(crate) read: OwnedReadHalf,
    pub(crate) write: OwnedWriteHalf,
}

/// How a connection ended, or that it did not.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The code of the GOAWAY, the last one if there were several.
    pub(crate) goaway: Option<u32>,
    /// Streams that were reset, and their codes.
    pub(crate) resets: Vec<(u32, u32)>,
    /// Streams that the server has ended.
    pub(crate) ended: Vec<u32>,
    /// Whether the connection was closed.
    pub(crate) closed: bool,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("the server listens");
        socket.set_nodelay(true).unwrap();
        let (read, write) = socket.into_split();
        Self { read, write }
    }

    /// Connects and begins HTTP/2.
    pub(crate) async fn greet(address: SocketAddr) -> Self {
        let mut raw = Self::connect(address).await;
        raw.write.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
        raw
    }

    /// Writes as much as the server takes; it may close meanwhile, or stop to read.
    pub(crate) async fn push(&mut self, bytes: &[u8]) {
        let _ = tokio::time::timeout(Duration::from_secs(10), self.write.write_all(bytes)).await;
    }

    /// Opens stream `id` with a call of `method` whose body is still to come.
    pub(crate) async fn open(&mut self, id: u32, method: &str) {
        self.push(&frame(HEADERS, END_HEADERS, id, &call(method))).await;
    }

    /// Reads until the connection is closed, `done` says so, or `patience` is over.
    pub(crate) async fn watch(&mut self, patience: Duration, done: impl Fn(&Seen) -> bool) -> Seen {
        let mut seen = Seen::default();
        let _ = tokio::time::timeout(patience, async {
            while !done(&seen) {
                let mut head = [0; 9];
                if self.read.read_exact(&mut head).await.is_err() {
                    seen.closed = true;
                    return;
                }
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
                let mut payload = vec![0; length];
                if self.read.read_exact(&mut payload).await.is_err() {
                    seen.closed = true;
                    return;
                }
                let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
                match head[3] {
                    GOAWAY => seen.goaway = Some(word(4)),
                    RST_STREAM => seen.resets.push((stream, word(0))),
                    HEADERS | DATA if head[4] & END_STREAM != 0 => seen.ended.push(stream),
                    _ => {}
                }
            }
        })
        .await;
        seen
    }

    /// Reads until the connection is closed.
    pub(crate) async fn end(&mut self, patience: Duration) -> Seen {
        self.watch(patience, |_| false).await
    }
}

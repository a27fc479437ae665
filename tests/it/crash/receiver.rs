//! A receiver of webhooks as bad as they come: it refuses, hangs, resets, loses its own answers, and notes
//! all that it saw.
//!
//! What it takes counts as arrived, whatever it then answers: a sender that does not hear of it sends
//! again. Written on sockets, because no HTTP server lets its handlers break the protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use undertone::escalation::Occurrence;

use crate::signal::Noise;

/// How it behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Temper {
    /// It takes everything at once.
    Good,
    /// It takes everything and needs a while for it.
    Slow,
    /// Anything may happen.
    Bad,
    /// It takes nothing.
    Down,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whim {
    Take,
    TakeAfter(Duration),
    TakeAndReset,
    TakeAndHang,
    TakeAndBreakOff,
    Refuse(u16),
    Reset,
    Hang,
}

/// Longer than the senders of these tests wait.
const HANG: Duration = Duration::from_millis(1_500);
/// How long the end of one attempt may be noticed behind the beginning of the next.
const GRACE: Duration = Duration::from_millis(80);

/// One occurrence that was taken.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    /// The idempotency key.
    pub(super) id: String,
    pub(super) body: Vec<u8>,
}

impl Arrival {
    /// What it says.
    pub(super) fn occurrence(&self) -> Occurrence {
        let body: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        serde_json::from_value(body["data"].clone()).expect("an occurrence")
    }
}

/// All that was seen.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// Everything that was taken, in order, whether once or more often.
    pub(super) arrivals: Vec<Arrival>,
    /// Requests.
    pub(super) attempts: usize,
    /// Keys of occurrences of which two attempts were side by side.
    pub(super) side_by_side: BTreeSet<String>,
    under_way: BTreeMap<String, usize>,
}

impl Seen {
    /// Those taken, each once, in the order in which they came first.
    pub(super) fn firsts(&self) -> Vec<&Arrival> {
        let mut known = BTreeSet::new();
        self.arrivals.iter().filter(|arrival| known.insert(&arrival.id)).collect()
    }

    /// Occurrences that were taken.
    pub(super) fn distinct(&self) -> usize {
        self.firsts().len()
    }
}

#[derive(Debug)]
struct Shared {
    seen: Mutex<Seen>,
    temper: Mutex<(Temper, Noise)>,
}

/// A running receiver.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Receiver {
    /// One on a free port; `seed` decides its moods.
    pub(super) async fn start(temper: Temper, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            temper: Mutex::new((temper, Noise::new(seed))),
        });
        let all = shared.clone();
        let accept = tokio::spawn(async move {
            // Ends, with all connections, when the receiver is dropped.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(converse(stream, all.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, shared, accept }
    }

    pub(super) fn turn(&self, temper: Temper) {
        self.shared.temper.lock().unwrap().0 = temper;
    }

    pub(super) fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Shared {
    fn whim(&self) -> Whim {
        let (temper, noise) = &mut *self.temper.lock().unwrap();
        let mut millis = |most| Duration::from_millis(noise.below(most) as u64);
        match temper {
            Temper::Good => Whim::Take,
            Temper::Down => Whim::Refuse(503),
            Temper::Slow => Whim::TakeAfter(Duration::from_millis(150) + millis(500)),
            Temper::Bad => match noise.below(100) {
                0..50 => Whim::Take,
                50..60 => Whim::TakeAfter(Duration::from_millis(noise.below(400) as u64)),
                60..67 => Whim::TakeAndReset,
                67..70 => Whim::TakeAndHang,
                70..74 => Whim::TakeAndBreakOff,
                74..89 => Whim::Refuse([500, 502, 503, 429, 404][noise.below(5)]),
                89..97 => Whim::Reset,
                _ => Whim::Hang,
            },
        }
    }

    fn take(&self, request: &Request) {
        let arrival = Arrival { id: request.id.clone(), body: request.body.clone() };
        self.seen.lock().unwrap().arrivals.push(arrival);
    }

    /// An attempt begins. Another one of the same occurrence must have ended.
    async fn begin(self: &Arc<Self>, id: &str) -> UnderWay {
        let busy = || self.seen.lock().unwrap().under_way.get(id).is_some_and(|n| *n > 0);
        if busy() {
            // The sender may have hung up a moment ago.
            tokio::time::sleep(GRACE).await;
        }
        let is_second = busy();
        let mut seen = self.seen.lock().unwrap();
        seen.attempts += 1;
        if is_second {
            seen.side_by_side.insert(id.to_owned());
        }
        *seen.under_way.entry(id.to_owned()).or_default() += 1;
        UnderWay { shared: self.clone(), id: id.to_owned() }
    }
}

/// An attempt, as long as its connection stands and it is not answered.
struct UnderWay {
    shared: Arc<Shared>,
    id: String,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut seen = self.shared.seen.lock().unwrap();
        if let Some(count) = seen.under_way.get_mut(&self.id) {
            *count -= 1;
        }
    }
}

struct Request {
    id: String,
    body: Vec<u8>,
}

async fn converse(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(request) = read(&mut stream).await {
        let under_way = shared.begin(&request.id).await;
        let whim = shared.whim();
        if !matches!(whim, Whim::Refuse(_) | Whim::Reset | Whim::Hang) {
            shared.take(&request);
        }
        let answer: &[u8] = match whim {
            Whim::Take => b"HTTP/1.1 204 No Content\r\n\r\n",
            Whim::TakeAfter(pause) => {
                if gone_within(&mut stream, pause).await {
                    return;
                }
                b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"
            }
            Whim::Refuse(status) => {
                &format!("HTTP/1.1 {status} No\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n")
                    .into_bytes()
            }
            Whim::TakeAndReset | Whim::Reset => {
                let _ = stream.set_zero_linger();
                return;
            }
            Whim::TakeAndHang | Whim::Hang => {
                gone_within(&mut stream, HANG).await;
                return;
            }
            Whim::TakeAndBreakOff => {
                let _ = stream.write_all(b"HTTP/1.1 20").await;
                return;
            }
        };
        drop(under_way);
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// Waits; whether the sender hung up meanwhile.
async fn gone_within(stream: &mut TcpStream, pause: Duration) -> bool {
    // Nothing may come: whatever ends the wait early is the end.
    tokio::time::timeout(pause, stream.read_u8()).await.is_ok()
}

/// One request; `None` if the sender hung up.
async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).expect("a head of text");
    let header = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map_or_else(|| panic!("no {name} in {head}"), |(_, value)| value.trim().to_owned())
    };
    let length: usize = header("content-length").parse().expect("a number");
    let mut body = bytes.split_off(head_end);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Request { id: header("webhook-id"), body })
}

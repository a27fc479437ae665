//! Connections of a port: how many there may be, and that each begins to speak.
//!
//! In: sockets as they are accepted. Out: the same, [`Held`]: counted for as long as they live, and
//! broken off if the client has not sent an HTTP/2 preface's worth of bytes in time, or leaves what it is
//! sent unread. What comes behind the preface has time-outs of its own in HTTP/2 (pings) and on the HTTP port
//! (a request's head).
//!
//! Whoever accepts asks [`Connections::admit`] first, so that a client that is too many costs an accept
//! and a close, and wraps what speaks HTTP by [`Place::hold`]: the socket, or TLS on top of it once the
//! handshake is over.
//!
//! Connections that are too many are closed rather than left in the kernel's queue: their clients hear
//! of it at once and go elsewhere.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::config::Settings;
use crate::telemetry::{labels, metrics};

/// Length of HTTP/2's connection preface, RFC 9113, section 3.4: by then it is clear what is spoken.
const PREFACE: usize = 24;
/// File descriptors that the process needs besides connections: store, sinks, files.
const OTHER_FILES: u64 = 128;
/// Pause after an accept that failed: with no descriptor left it would fail again at once.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Those that are open, counted.
#[derive(Debug, Clone)]
pub struct Connections {
    shared: Arc<Shared>,
    timeouts: Timeouts,
}

#[derive(Debug, Clone, Copy)]
struct Timeouts {
    /// Until a client begins to speak.
    preface: Duration,
    /// For which a client may leave unread what it is sent.
    unread: Duration,
}

#[derive(Debug)]
struct Shared {
    /// Of [`labels::PORTS`].
    port: &'static str,
    limit: usize,
    /// 0 for none.
    per_address: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    count: usize,
    /// Empty where there is no limit per address.
    by_address: HashMap<IpAddr, usize>,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Open> {
        // The counts are right after each statement.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    /// Those of the gRPC port; none is open yet. Raises the process's limit of open files as far as it may, if
    /// that is needed.
    pub fn new(settings: &Settings) -> Self {
        let limit = room(settings.max_connections, settings.max_http_connections);
        Self::limited(labels::GRPC, limit, settings.max_connections_per_address, settings)
    }

    /// Those of the HTTP port.
    pub(super) fn of_http(settings: &Settings) -> Self {
        Self::limited(labels::HTTP, settings.max_http_connections, 0, settings)
    }

    fn limited(port: &'static str, limit: u32, per_address: u32, settings: &Settings) -> Self {
        Self {
            shared: Arc::new(Shared {
                port,
                limit: limit as usize,
                per_address: per_address as usize,
                open: Mutex::default(),
            }),
            timeouts: Timeouts {
                preface: settings.preface_timeout.0,
                unread: settings.send_timeout.0,
            },
        }
    }

    /// A place for a connection from `peer`; `None` if there are too many: close it.
    pub fn admit(&self, peer: SocketAddr) -> Option<Place> {
        let shared = &self.shared;
        let address = (shared.per_address > 0).then(|| peer.ip().to_canonical());
        let mut open = shared.open();
        if open.count >= shared.limit {
            drop(open);
            metrics().connection_refused("connections");
            return None;
        }
        if let Some(address) = address {
            let count = open.by_address.entry(address).or_default();
            if *count >= shared.per_address {
                drop(open);
                metrics().connection_refused("connections_of_address");
                return None;
            }
            *count += 1;
        }
        open.count += 1;
        drop(open);
        metrics().connection_opened(shared.port);
        Some(Place { shared: shared.clone(), address, timeouts: self.timeouts })
    }

    /// Accepts from `listener`, one after the other, those for which there is a place.
    pub fn accept(self, listener: TcpListener) -> Incoming {
        Incoming { listener, connections: self, pause: None }
    }
}

/// How many connections there may be, given the process's limit of open files.
fn room(wanted: u32, of_http: u32) -> u32 {
    let others = OTHER_FILES + u64::from(of_http);
    let needed = u64::from(wanted) + others;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return wanted;
    }
    let raised = maximum.map_or(needed, |maximum| maximum.min(needed));
    let limit = Rlimit { current: Some(raised), maximum };
    let current = match setrlimit(Resource::Nofile, limit) {
        Ok(()) => raised,
        Err(_) => current.unwrap_or(needed),
    };
    if current >= needed {
        return wanted;
    }
    let room = u32::try_from(current.saturating_sub(others)).unwrap_or(wanted).max(1);
    tracing::warn!(
        max_connections = wanted,
        room,
        "the process may open {current} files: raise that limit (ulimit -n {needed}) for as many \
         connections as are configured"
    );
    room
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    address: Option<IpAddr>,
    timeouts: Timeouts,
}

impl Place {
    /// `io` in this place, for as long as it lives. The client has to begin to speak HTTP from now on.
    pub fn hold<IO>(self, io: IO) -> Held<IO> {
        let deadline = Some(Box::pin(sleep(self.timeouts.preface)));
        Held { io, place: self, deadline, heard: 0, unread: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics().connection_ended(self.shared.port);
        let mut open = self.shared.open();
        open.count = open.count.saturating_sub(1);
        if let Some(address) = self.address
            && let Some(count) = open.by_address.get_mut(&address)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.by_address.remove(&address);
            }
        }
    }
}

/// A connection that holds a place.
#[derive(Debug)]
pub struct Held<IO> {
    io: IO,
    place: Place,
    /// Until enough has been heard.
    deadline: Option<Pin<Box<Sleep>>>,
    heard: usize,
    /// As long as nothing more can be written: until that is too long.
    unread: Option<Pin<Box<Sleep>>>,
}

impl<IO> Held<IO> {
    /// What came of writing, or that it has been waited for too long.
    fn written<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.unread = None;
            return written;
        }
        let limit = self.place.timeouts.unread;
        let unread = self.unread.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(unread.as_mut().poll(context));
        metrics().connection_refused("unread");
        Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Held<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(deadline) = &mut this.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            metrics().connection_refused("preface_timeout");
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::TimedOut)));
        }
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.io).poll_read(context, buffer));
        if this.deadline.is_some() {
            this.heard += buffer.filled().len().saturating_sub(before);
            if this.heard >= PREFACE {
                this.deadline = None;
            }
        }
        Poll::Ready(read)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Held<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write(context, bytes);
        this.written(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_write_vectored(context, slices);
        this.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_flush(context);
        this.written(context, written)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.io).poll_shutdown(context);
        this.written(context, written)
    }
}

impl<IO: Connected> Connected for Held<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.io.connect_info()
    }
}

/// Connections of one listener, each with its place.
#[derive(Debug)]
pub struct Incoming {
    listener: TcpListener,
    connections: Connections,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<(TcpStream, SocketAddr, Place)> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(context)) {
                Ok((stream, peer)) => {
                    let Some(place) = self.connections.admit(peer) else {
                        continue;
                    };
                    // Small messages both ways all the time: waiting to fill packets only adds latency. A
                    // socket that refuses is broken, which the next read tells.
                    let _ = stream.set_nodelay(true);
                    return Poll::Ready((stream, peer, place));
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections now");
                    self.pause = Some(Box::pin(sleep(AFTER_FAILURE)));
                }
            }
        }
    }
}

/// Whether only the one connection failed.
fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

impl Stream for Incoming {
    type Item = io::Result<Held<TcpStream>>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let accepted = self.get_mut().poll(context);
        accepted.map(|(stream, _, place)| Some(Ok(place.hold(stream))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Span;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn connections(limit: u32, per_address: u32) -> Connections {
        Connections::new(&Settings {
            max_connections: limit,
            max_connections_per_address: per_address,
            preface_timeout: Span(Duration::from_secs(10)),
            ..Settings::default()
        })
    }

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, last], 1))
    }

    #[tokio::test]
    async fn a_place_is_given_back_when_its_connection_ends() {
        let connections = connections(3, 2);
        let first = connections.admit(peer(1)).unwrap();
        let second = connections.admit(peer(1)).unwrap();
        assert!(connections.admit(peer(1)).is_none(), "two of one address");
        let other = connections.admit(peer(2)).unwrap();
        assert!(connections.admit(peer(3)).is_none(), "three of all");
        drop(first.hold(()));
        let third = connections.admit(peer(1)).unwrap();
        drop((second, other, third));
        assert_eq!(connections.shared.open().count, 0);
        assert!(connections.shared.open().by_address.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_trickles_its_preface_is_broken_off_at_the_deadline() {
        let place = connections(1, 0).admit(peer(1)).unwrap();
        let (mut client, server) = tokio::io::duplex(64);
        let mut held = place.hold(server);
        let trickle = tokio::spawn(async move {
            for _ in 0..12 {
                client.write_all(b"P").await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let began = tokio::time::Instant::now();
        let error = held.read_exact(&mut [0; PREFACE]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 10);
        trickle.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_has_spoken_may_be_silent() {
        let place = connections(1, 0).admit(peer(1)).unwrap();
        let (mut client, server) = tokio::io::duplex(64);
        let mut held = place.hold(server);
        client.write_all(&[7; PREFACE]).await.unwrap();
        held.read_exact(&mut [0; PREFACE]).await.unwrap();
        let write = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            client.write_all(b"x").await.unwrap();
        };
        let mut late = [0];
        let (read, ()) = tokio::join!(held.read_exact(&mut late), write);
        assert_eq!((read.unwrap(), &late), (1, b"x"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_broken_off_and_one_that_reads_slowly_is_not() {
        let place = connections(1, 0).admit(peer(1)).unwrap();
        let limit = place.timeouts.unread;
        let (mut client, server) = tokio::io::duplex(64);
        let mut held = place.hold(server);
        let slowly = async {
            for _ in 0..10 {
                tokio::time::sleep(limit.mul_f32(0.9)).await;
                client.read_exact(&mut [0; 64]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(held.write_all(&[0; 11 * 64]), slowly);
        written.unwrap();
        let began = tokio::time::Instant::now();
        let error = held.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), limit);
    }

    #[test]
    fn the_http_port_has_connections_of_its_own_and_not_those_of_the_grpc_port() {
        let settings =
            Settings { max_connections: 1, max_http_connections: 9, ..Settings::default() };
        let http = Connections::of_http(&settings);
        let open: Vec<_> = (0..9).map(|_| http.admit(peer(1)).unwrap()).collect();
        assert!(http.admit(peer(1)).is_none());
        assert!(Connections::new(&settings).admit(peer(1)).is_some());
        drop(open);
    }
}

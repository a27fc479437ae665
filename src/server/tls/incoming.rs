//! A listening socket -> connections with a TLS handshake. Those without one: [`crate::server::connections`].
//!
//! They are a stream for tonic; the HTTP port takes them one by one. Dropping one closes the socket and cuts
//! off handshakes under way.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;

use super::certificates::{Port, Tls};
use crate::config::Settings;
use crate::server::connections::{Connections, Held, Place};
use crate::telemetry::metrics;

/// Pause after an error that accepting at once again would only repeat, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections as they come.
#[derive(Debug)]
struct Accept {
    listener: TcpListener,
    connections: Connections,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Accept {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(TcpStream, SocketAddr, Place)> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(context)) {
                Ok((stream, peer)) => {
                    // One that is too many is closed.
                    let Some(place) = self.connections.admit(peer) else {
                        continue;
                    };
                    // Small messages both ways all the time: waiting to fill packets only adds latency. A
                    // socket that refuses has broken already.
                    let _ = stream.set_nodelay(true);
                    return Poll::Ready((stream, peer, place));
                }
                Err(error) if is_the_clients(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections now");
                    self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
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

/// Connections whose handshake is done, in the order in which that is.
#[derive(Debug)]
pub(in crate::server) struct Handshakes {
    accept: Accept,
    tls: Arc<Tls>,
    port: Port,
    limit: usize,
    timeout: Duration,
    under_way: JoinSet<Option<Shaken>>,
}

type Shaken = (Held<TlsStream<TcpStream>>, SocketAddr);

impl Handshakes {
    /// Of `listener`'s connections.
    pub(in crate::server) fn new(
        listener: TcpListener,
        tls: Arc<Tls>,
        port: Port,
        connections: Connections,
        settings: &Settings,
    ) -> Self {
        Self {
            accept: Accept { listener, connections, pause: None },
            tls,
            port,
            limit: settings.max_handshakes as usize,
            timeout: settings.handshake_timeout.0,
            under_way: JoinSet::new(),
        }
    }

    /// The socket's own address.
    ///
    /// # Errors
    /// If the operating system does not say.
    pub(in crate::server) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.accept.listener.local_addr()
    }

    /// The next connection.
    ///
    /// # Cancellation
    /// Safe: handshakes go on.
    pub(in crate::server) async fn next(&mut self) -> Shaken {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Shaken> {
        loop {
            while let Poll::Ready(Some(ended)) = self.under_way.poll_join_next(context) {
                // A handshake that panics is one that fails.
                if let Ok(Some(shaken)) = ended {
                    return Poll::Ready(shaken);
                }
            }
            if self.under_way.len() >= self.limit {
                // Woken by the next one that ends, which is within the time-out.
                return Poll::Pending;
            }
            let (stream, peer, place) = ready!(self.accept.poll(context));
            let config = self.tls.config(self.port);
            self.under_way.spawn(handshake((stream, peer, place), config, self.timeout));
        }
    }
}

impl Stream for Handshakes {
    type Item = io::Result<Held<TlsStream<TcpStream>>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context).map(|(stream, _)| Some(Ok(stream)))
    }
}

async fn handshake(
    (stream, peer, place): (TcpStream, SocketAddr, Place),
    config: Arc<ServerConfig>,
    timeout: Duration,
) -> Option<Shaken> {
    match tokio::time::timeout(timeout, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => Some((place.hold(stream), peer)),
        Ok(Err(error)) => {
            metrics().handshake_failed("failed");
            tracing::debug!(%peer, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            metrics().handshake_failed("timed_out");
            tracing::debug!(%peer, ?timeout, "TLS handshake took too long");
            None
        }
    }
}

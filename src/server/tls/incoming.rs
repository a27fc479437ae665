//! A listening socket -> connections with a TLS handshake. Those without one: [`crate::server::connections`].
//!
//! They are a stream for both ports. Dropping it closes the socket and cuts off handshakes under way.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;

use super::certificates::{Port, Tls};
use crate::config::Settings;
use crate::server::connections::{Connections, Held, Incoming, Place};
use crate::telemetry::metrics;

/// Connections whose handshake is done, in the order in which that is.
#[derive(Debug)]
pub(in crate::server) struct Handshakes {
    incoming: Incoming,
    tls: Arc<Tls>,
    port: Port,
    limit: usize,
    timeout: Duration,
    under_way: JoinSet<Option<Shaken>>,
}

type Shaken = Held<TlsStream<TcpStream>>;

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
            incoming: connections.accept(listener),
            tls,
            port,
            limit: settings.max_handshakes as usize,
            timeout: settings.handshake_timeout.0,
            under_way: JoinSet::new(),
        }
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
            let (stream, peer, place) = ready!(self.incoming.poll(context));
            let config = self.tls.config(self.port);
            self.under_way.spawn(handshake((stream, peer, place), config, self.timeout));
        }
    }
}

impl Stream for Handshakes {
    type Item = io::Result<Held<TlsStream<TcpStream>>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context).map(|stream| Some(Ok(stream)))
    }
}

async fn handshake(
    (stream, peer, place): (TcpStream, SocketAddr, Place),
    config: Arc<ServerConfig>,
    timeout: Duration,
) -> Option<Shaken> {
    match tokio::time::timeout(timeout, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => Some(place.hold(stream)),
        Ok(Err(error)) => {
            // A balancer that looks whether anybody listens opens a connection and says nothing.
            let closed = error.kind() == io::ErrorKind::UnexpectedEof;
            metrics().handshake_failed(if closed { "closed" } else { "failed" });
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

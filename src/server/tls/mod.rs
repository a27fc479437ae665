//! TLS of both ports: files -> certificates in force -> connections whose handshake is done.
//!
//! rustls on ring, TLS 1.2 and 1.3. What always holds:
//! - A new pair of files is taken as a whole or not at all; what is in force stays until then. Connections
//!   keep what they began with, so that a change drops no stream.
//! - A client that does not get on with its handshake holds up nobody: handshakes run side by side, each has
//!   a time-out, and so many at once are all that there are.
//! - Clients' certificates are asked for on the gRPC port alone: browsers, Prometheus and probes have none.
//!   Where they are asked for no session is resumed, so that each is checked whenever it is shown.

mod certificates;
mod incoming;

pub use certificates::TlsError;
pub(super) use certificates::{Port, Tls};
pub(super) use incoming::Handshakes;

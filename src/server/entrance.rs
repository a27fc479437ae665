//! Who may call and over what, for both ports: read before anything listens, and again while it serves.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connections::Connections;
use super::identity::Gate;
use super::tls::{Handshakes, Port, Tls};
use super::{ServeError, http, reload};
use crate::config::Settings;

/// Who may call and over what, checked but not served.
#[derive(Debug)]
pub struct Entrance {
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) gate: Arc<Gate>,
}

impl Entrance {
    /// Reads certificates and identities.
    ///
    /// # Errors
    /// [`ServeError`] with the setting's name.
    pub fn new(settings: &Settings) -> Result<Self, ServeError> {
        Ok(Self { tls: Tls::open(settings)?, gate: Gate::open(settings)? })
    }

    /// Says who can call, where that may surprise.
    pub(super) fn tell(&self, settings: &Settings) {
        let everybody = !settings.is_guarded();
        if settings.is_local() {
            if everybody {
                tracing::info!(
                    "only this machine can call, without saying who: no identities are configured"
                );
            }
        } else if settings.insecure && (everybody || self.tls.is_none()) {
            tracing::warn!(
                tls = self.tls.is_some(),
                identities = settings.is_guarded(),
                "insecure: other machines can call without TLS, without saying who, or both"
            );
        }
    }

    /// Looks at the files on `tasks` until `background` ends.
    pub(super) fn keep(
        &self,
        settings: &Settings,
        background: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        tasks.spawn(self.gate.clone().keep(background.clone()));
        if let Some(tls) = &self.tls {
            let (tls, pause, stop) = (tls.clone(), settings.tls_reload.0, background.clone());
            tasks.spawn(reload::keep("certificates", pause, stop, move || tls.reload()));
        }
    }

    pub(super) fn http(&self, listener: TcpListener, settings: &Settings) -> http::Incoming {
        let connections = Connections::of_http(settings);
        match &self.tls {
            Some(tls) if settings.has_http_tls() => {
                let tls = tls.clone();
                let port = Port::Http;
                http::Incoming::Tls(Handshakes::new(listener, tls, port, connections, settings))
            }
            Some(_) | None => http::Incoming::Plain(connections.accept(listener)),
        }
    }
}

//! Who can reach the ports, and whether that may be.
//!
//! What always holds: where other machines can reach a port, there is TLS and something that says who may call, or
//! somebody wrote `insecure`. Without any configuration only this machine can call. Certificates of clients are
//! asked for on the gRPC port alone: with them and no identities the HTTP port answers everybody, and so tells
//! nothing of a tenant (`server::http`).

use std::net::SocketAddr;

use super::{ClientAuth, ConfigError, Settings};

impl Settings {
    /// Whether the ports speak TLS.
    pub fn has_tls(&self) -> bool {
        !self.tls_certificate.as_os_str().is_empty()
    }

    /// Whether the HTTP port does.
    pub fn has_http_tls(&self) -> bool {
        self.has_tls() && self.http_tls
    }

    /// Whether identities are configured.
    pub fn has_identities(&self) -> bool {
        !self.identities.as_os_str().is_empty()
    }

    /// Whether clients' certificates are asked for.
    pub fn has_client_ca(&self) -> bool {
        !self.tls_client_ca.as_os_str().is_empty()
    }

    /// Whether a client without a certificate is turned away in the handshake.
    pub fn requires_client_certificate(&self) -> bool {
        match self.tls_client_auth {
            ClientAuth::Auto => self.has_client_ca() && !self.has_identities(),
            ClientAuth::Optional => false,
            ClientAuth::Required => true,
        }
    }

    /// Whether not just anybody may call.
    pub fn is_guarded(&self) -> bool {
        self.has_identities() || self.requires_client_certificate()
    }

    /// Whether only this machine reaches the HTTP port.
    pub fn is_http_local(&self) -> bool {
        is_loopback(self.http_address)
    }

    /// Whether only this machine reaches both ports.
    pub fn is_local(&self) -> bool {
        is_loopback(self.grpc_address) && self.is_http_local()
    }

    /// Settings of TLS that belong together, and ports that are open to more than they should be.
    pub(super) fn check_exposure(&self) -> Result<(), ConfigError> {
        let refuse =
            |key, problem: &str| Err(ConfigError::Value { key, problem: problem.to_owned() });
        let has_key = !self.tls_key.as_os_str().is_empty();
        match (self.has_tls(), has_key) {
            (true, false) => return refuse("tls_key", "is missing; tls_certificate needs its key"),
            (false, true) => {
                return refuse("tls_certificate", "is missing; tls_key alone does nothing");
            }
            (false, false) if self.has_client_ca() => {
                return refuse("tls_client_ca", "needs tls_certificate and tls_key");
            }
            _ => {}
        }
        if self.tls_client_auth != ClientAuth::Auto && !self.has_client_ca() {
            return refuse("tls_client_auth", "needs tls_client_ca: who signs the certificates?");
        }
        for (key, address) in
            [("grpc_address", self.grpc_address), ("http_address", self.http_address)]
        {
            if !is_loopback(address) && !self.insecure {
                self.check_public(key, address)?;
            }
        }
        Ok(())
    }

    fn check_public(&self, key: &'static str, address: SocketAddr) -> Result<(), ConfigError> {
        let lacking = match (self.has_tls(), self.is_guarded()) {
            (true, true) => return Ok(()),
            (false, false) => {
                "without TLS and by everybody; set tls_certificate, tls_key and identities"
            }
            (false, true) => {
                "without TLS, and tokens could be read on the way; set tls_certificate and tls_key"
            }
            (true, false) => "by everybody; set identities, or tls_client_ca",
        };
        let problem = format!(
            "{address} can be reached from other machines {lacking}, or stay on 127.0.0.1, or accept it with \
             --insecure"
        );
        Err(ConfigError::Value { key, problem })
    }
}

/// Whether nobody else reaches it. All addresses (`0.0.0.0`, `::`) are no loopback.
fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tls() -> Settings {
        Settings {
            tls_certificate: "tls.crt".into(),
            tls_key: "tls.key".into(),
            ..Settings::default()
        }
    }

    fn public(settings: Settings) -> Settings {
        Settings { grpc_address: "0.0.0.0:50051".parse().unwrap(), ..settings }
    }

    #[track_caller]
    fn refused(settings: &Settings, key: &str, words: &str) {
        let error = settings.check_exposure().unwrap_err().to_string();
        assert!(error.starts_with(&format!("{key}: ")) && error.contains(words), "{error}");
    }

    #[test]
    fn by_default_only_this_machine_can_call() {
        let settings = Settings::default();
        assert!(settings.is_local() && settings.check_exposure().is_ok());
    }

    #[test]
    fn a_public_port_needs_tls_and_identities_or_somebody_who_says_insecure() {
        let identities = || Settings { identities: "who.yaml".into(), ..Settings::default() };
        refused(&public(Settings::default()), "grpc_address", "without TLS and by everybody");
        refused(&public(identities()), "grpc_address", "tokens could be read");
        refused(&public(tls()), "grpc_address", "by everybody; set identities");
        assert!(public(Settings { identities: "i".into(), ..tls() }).check_exposure().is_ok());
        assert!(public(Settings { tls_client_ca: "ca".into(), ..tls() }).check_exposure().is_ok());
        let optional =
            Settings { tls_client_ca: "ca".into(), tls_client_auth: ClientAuth::Optional, ..tls() };
        refused(&public(optional), "grpc_address", "by everybody");
        let insecure = Settings { insecure: true, ..Settings::default() };
        assert!(public(insecure).check_exposure().is_ok());
        let http = Settings { http_address: "[::]:9464".parse().unwrap(), ..Settings::default() };
        refused(&http, "http_address", "[::]:9464");
    }

    #[test]
    fn settings_of_tls_belong_together() {
        let only = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings
        };
        refused(&only(|s| s.tls_certificate = "c".into()), "tls_key", "is missing");
        refused(&only(|s| s.tls_key = "k".into()), "tls_certificate", "is missing");
        refused(&only(|s| s.tls_client_ca = "ca".into()), "tls_client_ca", "needs");
        let required = |s: &mut Settings| s.tls_client_auth = ClientAuth::Required;
        refused(&only(required), "tls_client_auth", "tls_client_ca");
    }

    #[test]
    fn certificates_are_a_must_where_nothing_else_says_who_may_call() {
        let with = |identities: &str, tls_client_auth| Settings {
            tls_client_ca: "ca".into(),
            identities: identities.into(),
            tls_client_auth,
            ..tls()
        };
        assert!(with("", ClientAuth::Auto).requires_client_certificate());
        assert!(!with("who.yaml", ClientAuth::Auto).requires_client_certificate());
        assert!(with("who.yaml", ClientAuth::Required).requires_client_certificate());
        assert!(!tls().requires_client_certificate());
    }
}

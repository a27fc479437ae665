//! Where a test's servers are at home: a folder with the delivery file, and the settings that all have.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::process::Process;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A folder and the settings of its servers.
#[derive(Debug)]
pub(super) struct Site {
    folder: TempDir,
    args: Vec<String>,
}

impl Site {
    /// Escalations are kept at `store` and delivered as the sink that `sink` describes wants it.
    pub(super) fn new(store: &str, sink: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let delivery = folder.path().join("delivery.yaml");
        let text = format!("schema: undertone.delivery/v1\nsinks:\n  - name: ward\n{sink}\n");
        std::fs::write(&delivery, text).unwrap();
        std::fs::write(secret_path(folder.path()), SECRET).unwrap();
        let args = [
            "--escalation-store",
            store,
            "--delivery",
            &delivery.display().to_string(),
            "--delivery-lease",
            "3s",
            "--delivery-poll",
            "50ms",
            "--worker-threads",
            "2",
        ];
        Self { args: args.map(str::to_owned).into(), folder }
    }

    /// One whose sink is a webhook.
    pub(super) fn with_webhook(store: &str, address: std::net::SocketAddr) -> Self {
        let site = Self::new(store, "");
        let secret = secret_path(site.folder.path());
        let sink = format!(
            "    webhook: {{url: 'http://{address}/hook', allow_private: true, secrets: [{{file: '{}'}}]}}
    timeout: 1s
    connect_timeout: 500ms
    retry: {{first: 100ms, longest: 500ms, attempts: 1000}}
    concurrency: 16
    circuit: {{failures: 1000, pause: 1s}}",
            secret.display()
        );
        let text = format!("schema: undertone.delivery/v1\nsinks:\n  - name: ward\n{sink}\n");
        std::fs::write(site.folder.path().join("delivery.yaml"), text).unwrap();
        site
    }

    /// With leases of another length.
    pub(super) fn with_lease(mut self, lease: &str) -> Self {
        let flag = self.args.iter().position(|arg| arg == "--delivery-lease").unwrap();
        self.args[flag + 1] = lease.to_owned();
        self
    }

    /// With further settings.
    pub(super) fn and(mut self, more: &[&str]) -> Self {
        self.args.extend(more.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// Starts a server there and waits until it serves.
    pub(super) async fn serve(&self, more: &[&str]) -> Process {
        self.serve_under(&[], more).await
    }

    /// Starts one at given addresses.
    pub(super) async fn serve_at(&self, grpc: &str, http: &str) -> Process {
        self.serve(&["--grpc-address", grpc, "--http-address", http]).await
    }

    /// Starts one by way of another command, such as one that gives it another user.
    pub(super) async fn serve_under(&self, command: &[&str], more: &[&str]) -> Process {
        let args: Vec<&str> =
            self.args.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Process::start_under(command, &args).await
    }
}

fn secret_path(folder: &Path) -> PathBuf {
    folder.join("secret")
}

//! `undertone health`: asks a server how it is, over `grpc.health.v1`.
//!
//! For what can run a program but speaks no gRPC: the health check of a container that holds nothing but this
//! binary, a script that waits for a server. Out: one word on standard output, or why there is none on standard
//! error, and the exit code 0 for a server that serves, 1 for any other.

use std::process::ExitCode;

use super::client::{
    Client, CredentialArgs, Credentials, DEFAULT_TARGET, Failure, Uri, parse_target,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
No token is needed. In a container set UNDERTONE_TARGET, and over TLS UNDERTONE_CA and \
UNDERTONE_SERVER_NAME: its health check has no other flags.

Exit code 0 if the server says SERVING, 1 if it says anything else, or nothing.")]
pub(super) struct Args {
    /// The server, HOST:PORT, http://HOST:PORT or https://HOST:PORT.
    #[arg(long, env = "UNDERTONE_TARGET", default_value = DEFAULT_TARGET, value_parser = parse_target)]
    target: Uri,
    /// The service that is asked about, such as undertone.v1.EscalationService; the whole server if not given.
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    /// Longest time until the answer.
    #[arg(long, value_name = "TIME", default_value = "3s")]
    timeout: humantime::Duration,
    #[command(flatten)]
    credentials: CredentialArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let credentials = args.credentials.read(&args.target)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(ask(args, &credentials)) {
        Ok(answer) => {
            tell!("{answer}")?;
            Ok(if answer == "SERVING" { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(failure) => {
            complain!("{failure}");
            Ok(ExitCode::FAILURE)
        }
    }
}

async fn ask(args: &Args, credentials: &Credentials) -> Result<&'static str, Failure> {
    let answer =
        async { Client::connect(&args.target, credentials).await?.health(&args.service).await };
    tokio::time::timeout(args.timeout.into(), answer).await.unwrap_or_else(|_| {
        let (target, timeout) = (&args.target, args.timeout);
        Err(Failure::unavailable(format!("no answer from {target} within {timeout}")))
    })
}

//! `undertone mcp`: the Model Context Protocol on standard input and output, for clients that start a process.
//!
//! It talks to a running server, and needs none to begin with: each call finds the server anew. Nothing but the
//! protocol goes to standard output.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::client::{Client, CredentialArgs, DEFAULT_TARGET, Uri, parse_target};
use super::signals::stop_on_signal;
use crate::mcp::{Files, Tools, Way, over_stdio};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
For MCP clients that start servers themselves:

  {\"mcpServers\": {\"undertone\": {\"command\": \"undertone\", \"args\": [\"mcp\"]}}}

Others call http://HOST:9464/mcp of a running server, with the header `Authorization: Bearer TOKEN` where it knows \
identities. Ends when its input does.")]
pub(super) struct Args {
    /// The server, HOST:PORT, http://HOST:PORT or https://HOST:PORT. It may come and go.
    #[arg(long, env = "UNDERTONE_TARGET", default_value = DEFAULT_TARGET, value_parser = parse_target)]
    target: Uri,
    /// Longest time that the server may take for one call.
    #[arg(long, value_name = "TIME", default_value = "5m")]
    timeout: humantime::Duration,
    /// Largest audio file that is sent to the server, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 32 << 20, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    max_clip_bytes: u64,
    /// Folder below which audio files may be read [default: all that this process can read]
    #[arg(long, value_name = "DIR")]
    files_below: Option<PathBuf>,
    #[command(flatten)]
    credentials: CredentialArgs,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(serve(args));
    // A read of standard input that waits would hold up the end.
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let Args { target, timeout, max_clip_bytes, files_below, credentials } = args;
    let below = files_below.map(|folder| folder.canonicalize()).transpose();
    let below = below.context("--files-below")?;
    let read = credentials.read(&target)?;
    let channel = Client::lazily(&target, &read)?;
    let way = Way::of_one(channel, timeout.into(), move || {
        // Before each call: the token may have been replaced.
        let credentials = credentials.read(&target).map_err(|error| format!("{error:#}"))?;
        Ok(credentials.authorization().cloned())
    });
    let tools = Tools::new(way, Some(Files { max_bytes: max_clip_bytes, below }));
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(stop.clone(), None));
    let served = over_stdio(tools, stop).await;
    signals.abort();
    Ok(served?)
}

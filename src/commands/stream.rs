//! `undertone stream`: a file at the pace of its sound, or a microphone, to a server; what comes back is
//! shown while it comes.
//!
//! Two tasks: one reads and paces the audio, the other reads the answers and draws. Between the first and
//! the transport stands a queue of two chunks; when the server or the network holds it up, it waits.

mod carrier;
mod events;
mod output;
mod screen;
mod source;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::client::{
    CredentialArgs, DEFAULT_TARGET, Encoding, Failure, PolicyArgs, Response, Uri, audio_request,
    parse_target,
};
use super::signals::INTERRUPTED;
use crate::config::Span;
use crate::wire::{render, v1};
use carrier::{Carried, Carrier, Server};
use output::{Format, Output};
use source::{Shape, Source};

/// Requests between the pacer and the transport. Two keep the transport busy; more would only let audio
/// grow old.
const QUEUE: usize = 2;
/// Time between two pictures of the live view.
const PICTURE: Duration = Duration::from_millis(100);
/// Longest wait for the summary once all has been sent.
const SUMMARY_TIMEOUT: Duration = Duration::from_secs(10);
/// Audio between two checkpoints: what is sent again after a break at most.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    /// The person listened to.
    Subject,
    /// The agent's own voice: not analysed.
    Agent,
    /// Anything else: not analysed.
    Ignored,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files (wav, flac, ogg, mp3, m4a, aiff, mkv) are sent at the pace of their sound, as LINEAR16 at their own \
rate with all their channels. What is piped in goes out as it comes: raw samples, by default 16-bit, \
16 kHz, one channel.

  undertone stream speech.wav
  arecord -q -f S16_LE -r 16000 -c 1 | undertone stream -
  ffmpeg -loglevel error -f pulse -i default -f s16le -ac 1 -ar 16000 - | undertone stream -
  undertone stream call.wav --roles subject,agent --label ward=3b
  undertone stream speech.wav --format json | jq -r 'select(.event == \"utterance\") | .emotion'

A stream that breaks off, or whose server drains, goes on where it was, at whoever answers at the target \
(--reconnect-for). Where that cannot be, because its server's keys are lost for instance, another stream begins \
with the audio that was not yet safe, and times count from there.

Ctrl-C ends the stream cleanly: the summary still comes, and the exit code is 130. A second one ends the \
program at once. Exit code 1 if the stream ended badly. NO_COLOR turns colours off.")]
pub(super) struct Args {
    /// An audio file, or - for raw audio from standard input.
    #[arg(value_name = "FILE|-")]
    input: PathBuf,
    /// The server, HOST:PORT or http://HOST:PORT.
    #[arg(long, env = "UNDERTONE_TARGET", default_value = DEFAULT_TARGET, value_parser = parse_target)]
    target: Uri,
    /// How events are shown.
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    /// How many times faster than its sound a file is sent.
    #[arg(long, default_value_t = 1.0, value_parser = parse_speed)]
    speed: f64,
    /// Length of a chunk, in ms.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=2_000))]
    chunk_ms: u32,
    /// Time between two estimates, 100ms to 10s [default: the server's, 500ms]
    #[arg(long)]
    interval: Option<Span>,
    /// Name of the model; the server's default one if not given.
    #[arg(long)]
    model_name: Option<String>,
    #[command(flatten)]
    policy: PolicyArgs,
    /// How long a stream that has broken off is tried to be gone on with; 0s: it ends there.
    #[arg(long, default_value = "60s", value_name = "TIME")]
    reconnect_for: Span,
    /// Names the session in the server's listings.
    #[arg(long)]
    session_id: Option<String>,
    /// A note for the audit trail, KEY=VALUE; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_label)]
    label: Vec<(String, String)>,
    /// Analyse each channel on its own instead of their mean.
    #[arg(long)]
    separate_channels: bool,
    /// Whose voice each channel carries, first channel first, such as subject,agent
    /// [default: all subjects]
    #[arg(long, value_enum, value_delimiter = ',')]
    roles: Vec<Role>,
    /// How piped audio is coded.
    #[arg(long, value_enum, default_value = "linear16", help_heading = "Piped audio")]
    encoding: Encoding,
    /// Rate of piped audio, 8000 to 48000 Hz.
    #[arg(long, default_value_t = 16_000, help_heading = "Piped audio")]
    rate: u32,
    /// Interleaved channels of piped audio, 1 to 8.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8), help_heading = "Piped audio")]
    channels: u32,
    #[command(flatten)]
    credentials: CredentialArgs,
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(speed) if (0.1..=100.0).contains(&speed) => Ok(speed),
        _ => Err("must be a number from 0.1 to 100".to_owned()),
    }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE, such as ward=3b".to_owned()),
    }
}

impl Args {
    fn open(&self) -> anyhow::Result<Source> {
        if self.input.as_os_str() != "-" {
            return Source::file(&self.input, self.chunk_ms);
        }
        let shape = Shape { encoding: self.encoding, rate_hz: self.rate, channels: self.channels };
        Source::pipe(shape, self.chunk_ms)
    }

    fn config(&self, shape: Shape) -> v1::StreamConfig {
        let roles = self.roles.iter().map(|role| match role {
            Role::Subject => v1::ChannelRole::Subject.into(),
            Role::Agent => v1::ChannelRole::Agent.into(),
            Role::Ignored => v1::ChannelRole::Ignored.into(),
        });
        let mode =
            if self.separate_channels { v1::ChannelMode::Separate } else { v1::ChannelMode::Mix };
        v1::StreamConfig {
            session_id: self.session_id.clone().unwrap_or_default(),
            audio: Some(v1::AudioFormat {
                encoding: shape.encoding.wire().into(),
                sample_rate_hz: shape.rate_hz,
                channel_count: shape.channels,
                channel_roles: roles.collect(),
                channel_mode: mode.into(),
            }),
            estimate_interval: self.interval.map(|interval| render::duration(interval.0)),
            checkpoint_interval: (!self.reconnect_for.0.is_zero())
                .then(|| render::duration(CHECKPOINT_INTERVAL)),
            model: self.model_name.clone().unwrap_or_default(),
            labels: self.label.iter().cloned().collect(),
            ..v1::StreamConfig::default()
        }
    }

    /// Whether events of several channels will come.
    fn several_channels(&self, shape: Shape) -> bool {
        let subjects = match self.roles.len() {
            0 => shape.channels as usize,
            _ => self.roles.iter().filter(|role| **role == Role::Subject).count(),
        };
        self.separate_channels && subjects > 1
    }
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(stream(args));
    // A pipe that nobody writes to cannot be waited for.
    runtime.shutdown_background();
    result
}

async fn stream(args: Args) -> anyhow::Result<ExitCode> {
    let source = args.open()?;
    let shape = source.shape();
    let server = Server::new(args.target.clone(), args.credentials.clone())?;
    let (requests, queue) = mpsc::channel(QUEUE);
    let policy = args.policy.choice()?;
    let config =
        v1::StreamConfig { policy, no_policy: args.policy.no_policy, ..args.config(shape) };
    let (out, responses) = mpsc::channel(QUEUE);
    let patience = args.reconnect_for.0;
    tokio::spawn(Carrier::new(server, config, patience, queue, out).run());
    let stop = CancellationToken::new();
    let sent = Arc::new(AtomicU64::new(0));
    let sender =
        Sender { source, requests, speed: args.speed, stop: stop.clone(), sent: sent.clone() };
    let listening = Listening {
        output: Output::new(args.format, args.several_channels(shape))?,
        responses,
        stop,
        patience,
        sent: Box::new(move || shape.duration(sent.load(Ordering::Relaxed))),
    };
    listening.run(sender).await
}

/// Reads and paces the audio.
struct Sender {
    source: Source,
    requests: mpsc::Sender<v1::StreamEmotionRequest>,
    speed: f64,
    stop: CancellationToken,
    /// Bytes sent.
    sent: Arc<AtomicU64>,
}

impl Sender {
    /// Sends until the audio ends, it is stopped, or nobody listens. Dropping `requests` half-closes.
    async fn run(mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut bytes = 0;
        for sequence in 0.. {
            // Both branches are cancel-safe, and after the token no more is wanted.
            let chunk = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                chunk = self.source.next() => chunk?,
            };
            let Some(chunk) = chunk else {
                return Ok(());
            };
            bytes += chunk.len() as u64;
            if !self.source.paces_itself() {
                // A chunk leaves when its last sample has sounded, as from a microphone.
                let due = self.source.shape().duration(bytes).div_f64(self.speed);
                tokio::select! {
                    () = self.stop.cancelled() => return Ok(()),
                    () = sleep_until(began + due) => {}
                }
            }
            if self.requests.send(audio_request(chunk, sequence)).await.is_err() {
                // The stream has ended; its answers say why.
                return Ok(());
            }
            self.sent.store(bytes, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Reads the answers and shows them.
struct Listening {
    output: Output,
    responses: mpsc::Receiver<Result<Carried, Failure>>,
    stop: CancellationToken,
    /// How long a break is mended for.
    patience: Duration,
    sent: Box<dyn Fn() -> Duration>,
}

impl Listening {
    async fn run(mut self, sender: Sender) -> anyhow::Result<ExitCode> {
        match self.responses.recv().await.transpose()? {
            Some(Carried::Response(started)) if matches!(*started, Response::Started(_)) => {
                self.output.show(&started)?;
            }
            Some(other) => bail!("the server began with {other:?}"),
            None => bail!("the server ended the stream before it began"),
        }
        let mut sending = tokio::spawn(sender.run());
        let ended = self.listen(&mut sending).await;
        self.stop.cancel();
        drop(self.output);
        let interrupted = match ended {
            Ok(interrupted) => interrupted,
            Err(Ended::Failed(failure)) => return Err(failure.into()),
            // Whoever reads has seen enough, as `head` has.
            Err(Ended::Unread(error)) if error.kind() == ErrorKind::BrokenPipe => false,
            Err(Ended::Unread(error)) => return Err(error).context("standard output"),
        };
        // What went wrong with the audio, if anything did.
        sending.await?.context("the audio ended early")?;
        Ok(if interrupted { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
    }

    /// Shows what comes until the summary. Gives whether it was interrupted.
    async fn listen(
        &mut self,
        sending: &mut JoinHandle<anyhow::Result<()>>,
    ) -> Result<bool, Ended> {
        let mut pictures = interval(PICTURE);
        pictures.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut interrupted = false;
        let mut deadline = None;
        loop {
            if deadline.is_none() && (sending.is_finished() || self.stop.is_cancelled()) {
                deadline = Some(Instant::now() + SUMMARY_TIMEOUT + self.patience);
            }
            // All branches are cancel-safe: a message, a tick and a signal are each taken whole.
            tokio::select! {
                carried = self.responses.recv() => {
                    let response = match carried.transpose()? {
                        Some(Carried::Response(response)) => response,
                        Some(Carried::Note(note)) => {
                            self.output.note(&note)?;
                            // Not counted: it is tried for as long as was asked for.
                            deadline = None;
                            continue;
                        }
                        None => {
                            let message = "the stream ended without a summary";
                            return Err(Failure::unavailable(message).into());
                        }
                    };
                    self.output.show(&response)?;
                    if matches!(*response, Response::Finished(_)) {
                        return Ok(interrupted);
                    }
                }
                _ = pictures.tick() => {
                    self.output.tick((self.sent)())?;
                    if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                        let limit = SUMMARY_TIMEOUT + self.patience;
                        let message = format!("no summary within {limit:?}");
                        return Err(Failure::unavailable(message).into());
                    }
                }
                _ = interrupts.recv() => {
                    if interrupted {
                        return Err(Failure::unavailable("interrupted twice").into());
                    }
                    interrupted = true;
                    self.stop.cancel();
                }
            }
        }
    }
}

/// Why nothing more is shown.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Failed(#[from] Failure),
    #[error(transparent)]
    Unread(#[from] std::io::Error),
}

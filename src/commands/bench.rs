//! `undertone bench`: real-time streams against a running server, and what came of it.
//!
//! In: a target and a number of streams. Out: a report; see [`report`]. Four phases: the streams start,
//! one by one, spread evenly over the chunk period and the estimate interval; they settle; what happens
//! is measured; they half-close and are waited for. Only the third counts, but for streams that end
//! badly, which count always.

mod audio;
mod load;
mod report;
mod server;

use std::collections::BTreeMap;
use std::f64::consts::SQRT_2;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::ensure;
use clap::ValueEnum as _;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::client::{
    Client, CredentialArgs, Credentials, DEFAULT_TARGET, Encoding, Failure, PolicyArgs, Uri,
    parse_target,
};
use super::signals::INTERRUPTED;
use crate::config::Span;
use crate::wire::{render, v1};
use audio::LoopedAudio;
use load::{Plan, Seen, Stage, run_stream};
use report::{Latency, Report};
use server::Reading;

/// Streams that share a connection unless told otherwise. HTTP/2 servers take 100 to 200.
const STREAMS_PER_CONNECTION: u32 = 100;
/// Streams that start in a second.
const STARTS_PER_SECOND: u32 = 250;
/// From the last start to the beginning of the measurement: utterances are open by then, and what
/// starting costs is over.
const SETTLE: Duration = Duration::from_secs(3);
/// Longest wait for the summaries.
const FINISH_TIMEOUT: Duration = Duration::from_secs(15);
/// File descriptors that the process needs besides its connections, amply.
const OTHER_FILES: u64 = 64;
/// Share of its threads above which the generator itself may be what is slow.
const BUSY: f64 = 0.8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Streams start one by one, 250 a second, each at its own phase: their chunks and their estimates are \
spread evenly over the chunk period and the estimate interval, as those of people who called at their \
own times would be. All starting on one beat would measure a herd that does not exist.

Latency runs from the moment that a chunk is handed to the transport to the arrival of the estimate \
whose audio it completes. A chunk that leaves late does not push the next one back: look at the missed \
pace before believing a latency.

For the server's CPU time and memory its metrics page is read before and after. Memory per stream is \
what the resident set grew by: start the server freshly, or what earlier streams left hides it.

  undertone bench --streams 1000 --seconds 60
  undertone bench --streams 200 --encoding mulaw --format json > result.json

Exit code 1 if a stream ended badly, 130 if interrupted (the report says what was measured).")]
pub(super) struct Args {
    /// The server, HOST:PORT, http://HOST:PORT or https://HOST:PORT.
    #[arg(long, env = "UNDERTONE_TARGET", default_value = DEFAULT_TARGET, value_parser = parse_target)]
    target: Uri,
    /// Streams at once.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    streams: u32,
    /// Time measured, in seconds; starting and settling come before.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// Length of a chunk, in ms.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=2_000))]
    chunk_ms: u32,
    /// Connections that the streams share [default: one per 100 streams, as a process of an agent
    /// framework shares one]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    connections: Option<u32>,
    /// The server's metrics page, or "none" [default: port 9464 of the target, over TLS if that is]
    #[arg(long)]
    metrics: Option<String>,
    /// Audio file to loop, mixed to mono [default: a built-in signal that sounds like speech to a voice
    /// detector, about two thirds of it voice]
    #[arg(long, value_name = "FILE")]
    audio: Option<PathBuf>,
    /// How the audio is coded.
    #[arg(long, value_enum, default_value = "linear16")]
    encoding: Encoding,
    /// Rate of the built-in signal, 8000 to 48000 Hz [default: 8000 for mulaw and alaw, else 16000]
    #[arg(long, conflicts_with = "audio", value_parser = clap::value_parser!(u32).range(8_000..=48_000))]
    rate: Option<u32>,
    /// Time between two estimates of a stream.
    #[arg(long, default_value = "500ms")]
    interval: Span,
    /// Name of the model; the server's default one if not given.
    #[arg(long)]
    model_name: Option<String>,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Threads of the generator. One does for some thousand streams and leaves the server the rest.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// How the report looks.
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    #[command(flatten)]
    credentials: CredentialArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let connections =
        args.connections.unwrap_or_else(|| args.streams.div_ceil(STREAMS_PER_CONNECTION));
    let connections = connections.min(args.streams);
    check_files(connections)?;
    let audio = load_audio(args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.threads.into())
        .enable_all()
        .build()?;
    let report = runtime.block_on(measure(args, connections, audio))?;
    match args.format {
        Format::Text => tell!("{report}")?,
        Format::Json => tell!("{}", serde_json::to_string(&report)?)?,
    }
    Ok(if report.interrupted {
        ExitCode::from(INTERRUPTED)
    } else if report.errors > 0 {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn check_files(connections: u32) -> anyhow::Result<()> {
    let needed = u64::from(connections) + OTHER_FILES;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    ensure!(
        limit.is_none_or(|limit| limit >= needed),
        "{connections} connections need about {needed} open files, the limit is {}; raise it with \
         `ulimit -n {needed}` or lower --connections (the server needs as many)",
        limit.unwrap_or_default()
    );
    Ok(())
}

fn load_audio(args: &Args) -> anyhow::Result<LoopedAudio> {
    let default_rate = match args.encoding {
        Encoding::Mulaw | Encoding::Alaw => 8_000,
        Encoding::Linear16 | Encoding::Float32 => 16_000,
    };
    if let Some(path) = &args.audio {
        LoopedAudio::file(path, args.encoding, args.chunk_ms)
    } else {
        let rate = args.rate.unwrap_or(default_rate);
        LoopedAudio::built_in(args.encoding, rate, args.chunk_ms)
    }
}

/// The metrics page that goes with the target.
fn metrics_url(args: &Args) -> Option<String> {
    match args.metrics.as_deref() {
        Some("none") => None,
        Some(url) => Some(url.to_owned()),
        None => {
            let host = args.target.host().unwrap_or("127.0.0.1");
            let scheme = args.target.scheme_str().unwrap_or("http");
            Some(format!("{scheme}://{host}:9464/metrics"))
        }
    }
}

/// Reads the server's metrics; what cannot be read is said once and then left out.
struct Meter<'a> {
    url: Option<String>,
    credentials: &'a Credentials,
}

impl Meter<'_> {
    async fn read(&mut self) -> Option<Reading> {
        match Reading::take(self.url.as_deref()?, self.credentials.ca()).await {
            Ok(reading) => Some(reading),
            Err(error) => {
                let url = self.url.take().unwrap_or_default();
                complain!("undertone: {error:#}: {url}; server figures are left out (--metrics)");
                None
            }
        }
    }
}

async fn measure(args: &Args, connections: u32, audio: LoopedAudio) -> anyhow::Result<Report> {
    let credentials = args.credentials.read(&args.target)?;
    let mut meter = Meter { url: metrics_url(args), credentials: &credentials };
    let idle = meter.read().await;
    if idle.as_ref().is_some_and(|idle| idle.streams_ended() > 0.0) {
        complain!(
            "undertone: the server has served streams before; memory per stream will read too low"
        );
    }
    let clients = connect(args, connections, &credentials).await?;
    let config = v1::StreamConfig {
        audio: Some(audio.format()),
        estimate_interval: Some(render::duration(args.interval.0)),
        model: args.model_name.clone().unwrap_or_default(),
        policy: args.policy.choice()?,
        no_policy: args.policy.no_policy,
        ..v1::StreamConfig::default()
    };
    let stage = Arc::new(Stage::new(audio, config));
    let ramp = Duration::from_secs_f64(f64::from(args.streams) / f64::from(STARTS_PER_SECOND));
    let mut streams = start(args, &clients, &stage);
    let bar = progress_bar(ramp + SETTLE + Duration::from_secs(args.seconds.into()));
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut phases = Phases { stage: &stage, streams: args.streams, bar: &bar };

    // Neither branch loses anything: a phase that is broken off is not looked at.
    let mut broken_off = tokio::select! {
        () = phases.pass("starting", ramp + SETTLE) => false,
        _ = &mut interrupted => true,
    };
    let before = meter.read().await;
    let (began, cpu_before) = (Instant::now(), cpu_time());
    stage.measuring.store(true, Relaxed);
    if !broken_off {
        broken_off = tokio::select! {
            () = phases.pass("measuring", Duration::from_secs(args.seconds.into())) => false,
            _ = &mut interrupted => true,
        };
    }
    stage.measuring.store(false, Relaxed);
    let (took, cpu) = (began.elapsed(), cpu_time().saturating_sub(cpu_before));
    let after = meter.read().await;
    stage.stopping.store(true, Relaxed);
    bar.set_message("finishing");
    let (seen, failures) = finish(&mut streams, broken_off).await;
    bar.finish_and_clear();
    warn_if_busy(args, took, cpu);

    let mut latencies: Vec<f32> =
        seen.iter().flat_map(|seen| &seen.latencies_ms).copied().collect();
    let heard: f64 = seen.iter().map(|seen| seen.audio.as_secs_f64()).sum();
    let speech: f64 = seen.iter().map(|seen| seen.speech.as_secs_f64()).sum();
    let chunks = stage.chunks.load(Relaxed);
    let audio_seconds = stage.audio.duration(chunks).as_secs_f64();
    let mean = |name| after.as_ref()?.mean_since(before.as_ref()?, name);
    Ok(Report {
        streams: args.streams,
        connections,
        chunk_ms: args.chunk_ms,
        interval_ms: u64::try_from(args.interval.0.as_millis()).unwrap_or(u64::MAX),
        encoding: args
            .encoding
            .to_possible_value()
            .map_or_else(String::new, |v| v.get_name().into()),
        rate_hz: stage.audio.format().sample_rate_hz,
        seconds: took.as_secs_f64(),
        audio_seconds,
        speech_ratio: (heard > 0.0).then(|| speech / heard),
        latency_ms: Latency::of(&mut latencies),
        estimates: stage.estimates.load(Relaxed),
        chunks,
        missed_pace: stage.missed.load(Relaxed),
        errors: failures.values().sum(),
        error_reasons: failures,
        refused_ms: Latency::of(
            &mut stage.refused_ms.lock().unwrap_or_else(PoisonError::into_inner),
        ),
        server_cpu_ms_per_audio_second: cpu_per_audio_second(before.as_ref(), after.as_ref()),
        server_bytes_per_stream: bytes_per_stream(args.streams, idle.as_ref(), after.as_ref()),
        server_batch_rows: mean("undertone_engine_batch"),
        server_engine_wait_ms: mean("undertone_engine_wait_seconds").map(|s| 1000.0 * s),
        server_engine_run_ms: mean("undertone_engine_run_seconds").map(|s| 1000.0 * s),
        generator_cpu_ms_per_audio_second: (audio_seconds > 0.0)
            .then(|| 1000.0 * cpu.as_secs_f64() / audio_seconds),
        interrupted: broken_off,
    })
}

async fn connect(
    args: &Args,
    connections: u32,
    credentials: &Credentials,
) -> anyhow::Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(connections as usize);
    for _ in 0..connections {
        clients.push(Client::connect(&args.target, credentials).await?);
    }
    Ok(clients)
}

/// Lets every stream start at its own phase. The golden ratio's multiples, taken modulo 1, are spread
/// evenly for every number of streams.
fn start(args: &Args, clients: &[Client], stage: &Arc<Stage>) -> JoinSet<Result<Seen, Failure>> {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    let began = Instant::now();
    let interval = args.interval.0;
    let mut streams = JoinSet::new();
    for (index, client) in (0..args.streams).zip(clients.iter().cycle()) {
        let at = f64::from(index) / f64::from(STARTS_PER_SECOND);
        let whole_intervals = (at / interval.as_secs_f64()).floor() as u32;
        let phase = (f64::from(index) * GOLDEN).fract();
        let plan = Plan {
            start: began + interval * whole_intervals + interval.mul_f64(phase),
            // Another irrational number, or phase and place would go together.
            offset: (stage.audio.len() as f64 * (f64::from(index) * SQRT_2).fract()) as u64,
        };
        streams.spawn(run_stream(stage.clone(), client.clone(), plan));
    }
    streams
}

/// Passes time and tells about it.
struct Phases<'a> {
    stage: &'a Stage,
    streams: u32,
    bar: &'a ProgressBar,
}

impl Phases<'_> {
    /// Waits for `duration`, less if every stream has ended.
    async fn pass(&mut self, name: &'static str, duration: Duration) {
        let end = Instant::now() + duration;
        let from = self.bar.position();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let (live, failed) = (self.stage.live.load(Relaxed), self.stage.failed.load(Relaxed));
            let estimates = self.stage.estimates.load(Relaxed);
            self.bar.set_position(from + duration.saturating_sub(left).as_millis() as u64);
            self.bar.set_message(format!(
                "{name}: {live} streams, {estimates} estimates, {failed} errors"
            ));
            if left.is_zero() || failed >= u64::from(self.streams) {
                return;
            }
            sleep(left.min(Duration::from_millis(250))).await;
        }
    }
}

/// Waits for the summaries; counts what went wrong by its reason.
async fn finish(
    streams: &mut JoinSet<Result<Seen, Failure>>,
    broken_off: bool,
) -> (Vec<Seen>, BTreeMap<String, u64>) {
    let mut seen = Vec::with_capacity(streams.len());
    let mut failures = BTreeMap::new();
    let mut fail = |reason: String| *failures.entry(reason).or_insert(0) += 1;
    let wait = async {
        while let Some(ended) = streams.join_next().await {
            match ended {
                Ok(Ok(stream)) => seen.push(stream),
                Ok(Err(failure)) => fail(failure.kind()),
                Err(error) => fail(format!("generator: {error}")),
            }
        }
    };
    // Those who broke it off do not want to wait for streams that had not begun.
    let limit = if broken_off { Duration::from_secs(1) } else { FINISH_TIMEOUT };
    let late = timeout(limit, wait).await.is_err();
    if late && !broken_off {
        for _ in 0..streams.len() {
            fail(format!("no summary within {FINISH_TIMEOUT:?}"));
        }
    }
    streams.abort_all();
    (seen, failures)
}

fn cpu_per_audio_second(before: Option<&Reading>, after: Option<&Reading>) -> Option<f64> {
    let cpu = after?.cpu_seconds()? - before?.cpu_seconds()?;
    let audio = after?.audio_seconds()? - before?.audio_seconds().unwrap_or_default();
    (audio > 0.0).then(|| 1000.0 * cpu / audio)
}

fn bytes_per_stream(streams: u32, idle: Option<&Reading>, full: Option<&Reading>) -> Option<f64> {
    Some((full?.resident_bytes()? - idle?.resident_bytes()?) / f64::from(streams))
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn warn_if_busy(args: &Args, took: Duration, cpu: Duration) {
    let share = cpu.as_secs_f64() / (took.as_secs_f64() * f64::from(args.threads)).max(1e-3);
    if share > BUSY {
        complain!(
            "undertone: the generator itself was busy {:.0} % of the time; its latencies are part of \
             the measured ones (see --threads)",
            100.0 * share
        );
    }
}

fn progress_bar(length: Duration) -> ProgressBar {
    let bar = ProgressBar::new(length.as_millis() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
        bar.set_style(style);
    }
    bar
}

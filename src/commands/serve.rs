//! `undertone serve`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::load_models;
use super::signals::stop_on_signal;
use crate::config::{Settings, Source};
use crate::model::Models;
use crate::server::{Observer, Sockets, run as serve};

pub(super) fn run(source: &Source) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let settings = source.resolve()?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(worker_threads(&settings));
    runtime.enable_all().build()?.block_on(work(settings, started))
}

/// The engine has a thread of its own. A worker too many costs wake-ups: measured with 1,000 streams on
/// two cores, one worker took a tenth less CPU time than two.
fn worker_threads(settings: &Settings) -> usize {
    match settings.worker_threads as usize {
        0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1)),
        threads => threads,
    }
}

async fn work(settings: Settings, started: Instant) -> anyhow::Result<ExitCode> {
    let observer = Observer::install(&settings).context("telemetry")?;
    let stop = CancellationToken::new();
    let signals = tokio::spawn(stop_on_signal(stop.clone(), None));
    // Whatever ends it, be it a port that is taken, is in the log before the log ends.
    let served = open_and_serve(&settings, started, observer.clone(), stop).await;
    if let Err(error) = &served {
        tracing::error!(error = format!("{error:#}"), "ended");
    } else {
        tracing::info!("ended");
    }
    tokio::task::spawn_blocking(move || observer.shut_down()).await?;
    // Only now: a second signal ends the process at once also while a collector keeps it waiting.
    signals.abort();
    served?;
    Ok(ExitCode::SUCCESS)
}

async fn open_and_serve(
    settings: &Settings,
    started: Instant,
    observer: Arc<Observer>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let in_force = toml::to_string(settings)?.replace('\n', ", ");
    tracing::info!(version = env!("CARGO_PKG_VERSION"), settings = in_force, "starting");
    let sockets = Sockets::bind(settings).await?;
    // Loading blocks for some 100 ms; nothing else is going on yet.
    let models = load_models(settings)?;
    tell_licences(&models);
    let (grpc, http) = (sockets.grpc_address()?, sockets.http_address()?);
    let serving = || {
        let after_ms = started.elapsed().as_millis();
        tracing::info!(%grpc, %http, after_ms, "serving");
    };
    Ok(serve(settings, models, sockets, observer, stop, serving).await?)
}

fn tell_licences(models: &Models) {
    for model in models.iter() {
        let manifest = &model.manifest;
        tracing::info!(model = manifest.name, version = manifest.version, "model ready");
        for data in manifest.non_commercial() {
            tracing::warn!(
                model = manifest.name,
                corpus = data.corpus,
                licence = data.licence,
                "trained on data that may not be used commercially"
            );
        }
    }
}

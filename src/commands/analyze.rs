//! `undertone analyze`: files, folders and object storage, without a server.
//!
//! Without `--output` one line or object per clip comes on standard output, see [`listing`]. With it results go
//! into tables, resumably, see [`tables`]. A clip that cannot be analysed is reported and the rest go on.

mod listing;
mod tables;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::archive::{Bounds, Location, Shard, StoreSettings};
use crate::config::{Environment, Settings, Source, Span};
use crate::model::{Model, Models};
use crate::session::clip;
use crate::wire::parse::{ClipSettings, default_analysis};

/// Files side by side unless told otherwise. On two cores 32 gave 1.2 times what 16 did and 64 another tenth.
const JOBS: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A table for people.
    Table,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files: wav, flac, ogg (Vorbis), mp3, m4a (AAC, ALAC), aiff, mkv.

  undertone analyze calls/ --format json
  undertone analyze s3://bucket/calls/ --output s3://bucket/results/ --shard 3/16

URLs: s3://bucket/prefix, gs://, az://, abfs://, abfss://, file:///folder. Credentials, region and endpoint come from \
the environment (AWS_*, GOOGLE_*, AZURE_*). docs/archives.md has the tables' columns, and how workers share the work.

Exit code 1 if a file could not be analysed (the others are) or the work cannot go on, 130 if interrupted; with \
--output what is done by then is written, and the same command goes on from there.")]
pub(super) struct Args {
    /// Audio files, folders to look for them in, or URLs of object storage.
    #[arg(required = true)]
    paths: Vec<Location>,
    /// A table, or one JSON object per line with `path, seconds, emotion, probabilities, confidence,
    /// valence, arousal, distress, utterances`.
    #[arg(long, value_enum, default_value = "table", conflicts_with = "output")]
    format: Format,
    /// Name of the model; the default one if not given.
    #[arg(long)]
    model_name: Option<String>,
    /// Analyse each channel on its own; the first one's summary is the file's.
    #[arg(long)]
    separate_channels: bool,
    /// Files analysed side by side; 0 for one per core. They share the model's runs: more are faster, and leave more
    /// unfinished when the work is stopped.
    #[arg(long, value_name = "N", default_value_t = JOBS)]
    jobs: usize,
    /// Analyse one share of the files: index/count, the index from 0. A file's path alone decides in which share
    /// it is.
    #[arg(long, value_name = "I/N", default_value_t = Shard::WHOLE)]
    shard: Shard,
    #[command(flatten)]
    tables: tables::TableArgs,
    #[command(flatten)]
    stores: StoreArgs,
    #[command(flatten)]
    source: Source,
}

/// How object storage is reached.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Object storage")]
struct StoreArgs {
    /// Largest object that is read, in bytes. It is held in memory; files of this machine are not.
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    max_object_bytes: u64,
    /// Objects in memory at once, in bytes; further ones wait to be read.
    #[arg(long, value_name = "BYTES", default_value_t = 512 << 20)]
    max_buffered_bytes: u64,
    /// How often a request is tried again when the store does not answer or is too busy.
    #[arg(long, value_name = "N", default_value_t = 10)]
    storage_retries: usize,
    /// Time from a request's beginning after which it is not tried again.
    #[arg(long, value_name = "TIME", default_value = "3m")]
    storage_retry_timeout: Span,
    /// Longest silence of the store before a request has failed.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    storage_timeout: Span,
}

impl StoreArgs {
    fn settings(&self) -> StoreSettings {
        StoreSettings {
            options: Environment.object_storage(),
            retries: self.storage_retries,
            retry_timeout: self.storage_retry_timeout.0,
            timeout: self.storage_timeout.0,
        }
    }
}

impl Args {
    fn bounds(&self, jobs: usize) -> Bounds {
        Bounds {
            jobs,
            object_bytes: self.stores.max_object_bytes,
            buffered_bytes: self.stores.max_buffered_bytes,
        }
    }
}

/// What hears, and how.
struct Listener {
    model: Arc<Model>,
    clip: ClipSettings,
    jobs: usize,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let settings = args.source.resolve()?;
    let buffered = args.stores.max_buffered_bytes;
    ensure!(
        buffered >= args.stores.max_object_bytes,
        "--max-buffered-bytes must be --max-object-bytes ({}) or more, not {buffered}",
        args.stores.max_object_bytes
    );
    args.tables.check()?;
    let listener = listener(args, &settings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match &args.tables.output {
            Some(output) => tables::run(args, output, listener).await,
            None => listing::run(args, listener).await,
        }
    })
}

fn listener(args: &Args, settings: &Settings) -> anyhow::Result<Listener> {
    let mut load = settings.load();
    // Whoever comes later finds the batch under way; nobody waits for an answer here.
    load.engine.max_wait = Duration::ZERO;
    let models = Models::load(&settings.models, &load)?;
    let name = args.model_name.as_deref().unwrap_or_default();
    let model = models
        .get(name)
        .cloned()
        .with_context(|| format!("there is no model {name:?}; loaded are {}", models.names()))?;
    let mut clip = clip::settings(default_analysis(&settings.defaults()), args.separate_channels);
    clip.analysis.estimate_interval = None;
    let jobs = if args.jobs == 0 { num_cpus::get() } else { args.jobs };
    Ok(Listener { model, clip, jobs })
}

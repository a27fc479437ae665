//! `undertone corpus` and `undertone features`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use crate::config::Source;
use crate::corpus::{extract, manifest, scan};
use crate::features::{DEFAULT_COEFFICIENTS, MAX_COEFFICIENTS};
use crate::wire::parse::default_analysis;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Find the clips of RAVDESS, TESS, SAVEE and CREMA-D in a folder and count them.
    ///
    /// Reads a manifest.csv if the folder has one, else the publishers' layouts: Actor_01/03-01-….wav,
    /// `OAF_angry/OAF_back_angry.wav`, `ALL/DC_a01.wav` or DC/a01.wav, `AudioWAV/1001_DFA_ANG_XX.wav`.
    Scan {
        /// The folder.
        folder: PathBuf,
        /// Write what was found to this manifest.
        #[arg(long)]
        write: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct FeaturesArgs {
    /// The folder with the corpora.
    folder: PathBuf,
    /// Folder for features.npz and features.csv.
    #[arg(long, default_value = "training/data")]
    out: PathBuf,
    /// MFCCs per hop, 1 to 128.
    #[arg(long, default_value_t = DEFAULT_COEFFICIENTS)]
    coefficients: usize,
    #[command(flatten)]
    source: Source,
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    let Command::Scan { folder, write } = command;
    let found = scan::scan(&folder)?;
    print!("{}", scan::summary(&found.clips));
    if !found.strangers.is_empty() {
        let (count, first) = (found.strangers.len(), found.strangers.first());
        let first = first.map_or_else(String::new, |path| path.display().to_string());
        println!("{count} audio files are of no known corpus, such as {first}");
    }
    if let Some(file) = write {
        manifest::write(&found.clips, &file)?;
        println!("wrote {}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn features(args: &FeaturesArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        (1..=MAX_COEFFICIENTS).contains(&args.coefficients),
        "--coefficients must be 1 to {MAX_COEFFICIENTS}"
    );
    let settings = args.source.resolve()?;
    let mut analysis = default_analysis(&settings.defaults());
    analysis.estimate_interval = None;
    let clips = scan::scan(&args.folder)?.clips;
    let bar = if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} clips, {eta} left")?;
        ProgressBar::new(clips.len() as u64).with_style(style)
    } else {
        ProgressBar::hidden()
    };
    let done = extract::extract(&clips, args.coefficients, &analysis, &args.out, || bar.inc(1))
        .with_context(|| format!("extracting to {}", args.out.display()))?;
    bar.finish_and_clear();
    println!(
        "{} clips, {} steps of 256 ms -> {}",
        done.clips,
        done.steps,
        args.out.join("features.npz").display()
    );
    if let Some(first) = done.unheard.first() {
        let count = done.unheard.len();
        println!(
            "in {count} clips the service finds no utterance; they are whole, such as {first}"
        );
    }
    for (clip, error) in &done.failed {
        eprintln!("undertone: {clip}: {error}");
    }
    Ok(if done.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

//! `undertone policy`: policies checked, explained, listed and shown; tried on recordings, and rehearsed.

mod recording;
mod rehearse;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};

use crate::policy::{self, MAX_BYTES, Policy};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check policies and say in plain sentences what they do.
    ///
    /// Faults are printed as `FILE:LINE:COLUMN: problem`, with the line. Exits 1 if there are any.
    Check {
        /// The policies' YAML files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print the JSON Schema of policies, for editors.
    Schema,
    /// List the policies that are built in, and those of a folder.
    List {
        /// A folder with policies: *.yaml and *.yml.
        folder: Option<PathBuf>,
    },
    /// Print the YAML of a policy that is built in, to start one's own from.
    Show {
        /// Its name.
        name: String,
    },
    /// Try a policy on recordings: what would have been raised, when, and why.
    Test(recording::Args),
    /// Measure policies on conversations that are put together from labelled clips.
    Rehearse(rehearse::Args),
}

pub(super) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check { files } => {
            let mut good = true;
            for file in &files {
                good &= check(file)?;
            }
            Ok(verdict(good))
        }
        Command::Schema => {
            put!("{}", policy::schema())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::List { folder } => list(folder.as_deref()),
        Command::Show { name } => show(&name),
        Command::Test(args) => recording::run(&args),
        Command::Rehearse(args) => rehearse::run(&args),
    }
}

/// A policy by its file, or by the name of one that is built in. `None` if its file is bad, which is told on
/// stderr by then.
fn find(name: &str) -> anyhow::Result<Option<Policy>> {
    let known = policy::embedded();
    if let Some((_, text)) = known.iter().find(|(known, _)| *known == name) {
        return Ok(Some(Policy::parse(text).with_context(|| format!("the built-in {name}"))?));
    }
    let file = Path::new(name);
    if !file.exists() {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let names = names.join(", ");
        anyhow::bail!("{name}: there is no such file, and built in are {names}");
    }
    Ok(load(file))
}

/// Only where somebody looks.
fn progress_bar(length: u64, what: &str) -> anyhow::Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let template = format!("{{wide_bar}} {{pos}}/{{len}} {what}, {{eta}} left");
    Ok(ProgressBar::new(length).with_style(ProgressStyle::with_template(&template)?))
}

fn verdict(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Reads a policy, or says on stderr why not.
fn load(file: &Path) -> Option<Policy> {
    let text = match read(file) {
        Ok(text) => text,
        Err(error) => {
            complain!("{}: {error:#}", file.display());
            return None;
        }
    };
    match Policy::parse(&text) {
        Ok(policy) => Some(policy),
        Err(error) => {
            let (line, column) = (error.line.max(1), error.column.max(1));
            complain!("{}:{line}:{column}: {}", file.display(), error.message());
            super::output::complaint(format_args!("{}", error.excerpt()), "");
            None
        }
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    let size = std::fs::metadata(file)?.len();
    anyhow::ensure!(size <= MAX_BYTES as u64, "{size} bytes, and at most {MAX_BYTES} are read");
    String::from_utf8(std::fs::read(file)?).context("is not UTF-8")
}

fn check(file: &Path) -> std::io::Result<bool> {
    let Some(policy) = load(file) else { return Ok(false) };
    tell!("{} {}\n{}\n", policy.name(), policy.version(), policy.description())?;
    tell!("{}", policy.explain())?;
    Ok(true)
}

fn print_line(policy: &Policy, whence: &str) -> std::io::Result<()> {
    tell!("{} {} ({whence})", policy.name(), policy.version())?;
    tell!("  {}", policy.description())
}

fn list(folder: Option<&Path>) -> anyhow::Result<ExitCode> {
    for (name, text) in policy::embedded() {
        let policy = Policy::parse(text).with_context(|| format!("the built-in policy {name}"))?;
        print_line(&policy, "built in")?;
    }
    let mut good = true;
    if let Some(folder) = folder {
        for file in files_of(folder)? {
            match load(&file) {
                Some(policy) => print_line(&policy, &file.display().to_string())?,
                None => good = false,
            }
        }
    }
    Ok(verdict(good))
}

/// The policies of a folder, in the order of their names.
fn files_of(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = || std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
    let files: std::io::Result<Vec<PathBuf>> = read();
    let mut files = files.with_context(|| format!("cannot list {}", folder.display()))?;
    files.retain(|file| file.extension().is_some_and(|end| end == "yaml" || end == "yml"));
    files.sort();
    Ok(files)
}

fn show(name: &str) -> anyhow::Result<ExitCode> {
    let known = policy::embedded();
    let Some((_, text)) = known.iter().find(|(known, _)| *known == name) else {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        anyhow::bail!("no policy {name:?} is built in; there are {}", names.join(", "));
    };
    put!("{text}")?;
    Ok(ExitCode::SUCCESS)
}

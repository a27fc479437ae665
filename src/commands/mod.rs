//! The command line: thin. Each command is a file; this one is the table of contents.
//!
//! Exit codes: 0 all went well, 1 something failed, 2 wrong usage (clap), 64 bad configuration,
//! 130 interrupted. Who closes the pipe that a command writes to ends it quietly: that is no failure.

#[macro_use]
mod output;

mod analyze;
mod bench;
mod client;
mod corpus;
mod delivery;
mod escalations;
mod evaluate;
mod health;
mod identities;
mod mcp;
mod policy;
mod serve;
mod signals;
mod stream;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config::{ConfigError, Settings, Source};
use crate::model::Models;
use crate::yaml::YamlError;

/// Exit code for bad configuration: `EX_USAGE` of sysexits.h.
const BAD_CONFIG: u8 = 64;

/// Live emotion from speech, for agents.
#[derive(Debug, Parser)]
#[command(
    name = "undertone",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "Start a server with `undertone serve`, then in a second terminal \
                  `undertone stream speech.wav`."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve undertone.v1 over gRPC.
    ///
    /// Every setting is a flag, an environment variable and a key of one TOML file; a flag beats a
    /// variable, a variable beats the file. Ends cleanly on SIGTERM and Ctrl-C: live streams are told,
    /// finished and answered first.
    Serve(Source),
    /// Push audio to a server at real-time pace and show the emotion move, live.
    Stream(stream::Args),
    /// Ask a server how it is; for health checks of containers, which have no shell.
    Health(health::Args),
    /// Give a language model a server's tools, over the Model Context Protocol on standard input and output.
    Mcp(mcp::Args),
    /// Score files, folders and object storage, without a server.
    Analyze(analyze::Args),
    /// Check a configuration and print the settings in force, without serving.
    Check(Source),
    /// List the models that a server with these settings has.
    Models(Source),
    /// Look at the escalations of a store, acknowledge them, replay what did not arrive.
    #[command(subcommand)]
    Escalations(escalations::Command),
    /// Check, explain and list policies of escalation, and try them out.
    #[command(subcommand)]
    Policy(policy::Command),
    /// Check who is told of escalations, and try it out.
    #[command(subcommand)]
    Delivery(delivery::Command),
    /// Check who may call, and make tokens.
    #[command(subcommand)]
    Identities(identities::Command),
    /// Find the clips of speech-emotion corpora.
    #[command(subcommand)]
    Corpus(corpus::Command),
    /// Extract training features with the service's own code.
    Features(corpus::FeaturesArgs),
    /// Judge models on labelled clips, honestly.
    Evaluate(evaluate::Args),
    /// Load a running server with real-time streams and measure it.
    Bench(bench::Args),
    /// Print a new line for the file of keys that resume tokens are sealed with (`resume_keys`).
    ///
    /// Put it first in the file; leave the lines before until their tokens have expired.
    ResumeKey,
    /// Print a completion script for a shell.
    ///
    /// For bash: `undertone completions bash > ~/.local/share/bash-completion/completions/undertone`
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command.
pub fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Serve(source) => serve::run(&source),
        Command::Stream(args) => stream::run(args),
        Command::Health(args) => health::run(&args),
        Command::Mcp(args) => mcp::run(args),
        Command::Analyze(args) => analyze::run(&args),
        Command::Check(source) => check(&source),
        Command::Models(source) => models(&source),
        Command::Escalations(command) => escalations::run(&command),
        Command::Policy(command) => policy::run(command),
        Command::Delivery(command) => delivery::run(&command),
        Command::Identities(command) => identities::run(&command),
        Command::Corpus(command) => corpus::run(command),
        Command::Features(args) => corpus::features(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::ResumeKey => resume_key(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "undertone", &mut script);
            let said = put!("{}", String::from_utf8_lossy(&script));
            said.map(|()| ExitCode::SUCCESS).map_err(anyhow::Error::from)
        }
    };
    result.unwrap_or_else(|error| {
        if output::reader_gone(&error) {
            return ExitCode::SUCCESS;
        }
        complain!("undertone: {error:#}");
        if is_bad_config(&error) { ExitCode::from(BAD_CONFIG) } else { ExitCode::FAILURE }
    })
}

/// Whether a setting is to blame, and not the world.
fn is_bad_config(error: &anyhow::Error) -> bool {
    use crate::archive::ArchiveError;
    use crate::escalation::StoreError;
    use crate::server::ServeError;
    use crate::server::identity::IdentitiesError;
    error.is::<ConfigError>()
        || matches!(error.downcast_ref(), Some(ArchiveError::Location { .. }))
        || error.is::<IdentitiesError>()
        || error.is::<crate::server::observe::ObserveError>()
        || error.is::<YamlError>()
        || matches!(
            error.downcast_ref::<ServeError>(),
            Some(
                ServeError::Config(_)
                    | ServeError::Policies(_)
                    | ServeError::DefaultPolicy { .. }
                    | ServeError::Lease { .. }
                    | ServeError::Tls(_)
                    | ServeError::Identities(_)
                    | ServeError::Store(StoreError::Url(_))
            )
        )
}

fn resume_key() -> anyhow::Result<ExitCode> {
    tell!("{}", crate::session::token::new_key()?)?;
    Ok(ExitCode::SUCCESS)
}

fn check(source: &Source) -> anyhow::Result<ExitCode> {
    let settings = source.resolve()?;
    load_models(&settings)?;
    crate::server::observe::check(&settings)?;
    crate::server::Prepared::new(&settings)?;
    crate::server::keyring(&settings)?;
    crate::server::Entrance::new(&settings)?;
    put!("{}", toml::to_string(&settings)?)?;
    Ok(ExitCode::SUCCESS)
}

fn load_models(settings: &Settings) -> Result<Models, crate::model::ModelError> {
    Models::load(&settings.models, &settings.load())
}

fn models(source: &Source) -> anyhow::Result<ExitCode> {
    let settings = source.resolve()?;
    for (index, model) in load_models(&settings)?.iter().enumerate() {
        let manifest = &model.manifest;
        let default = if index == 0 { ", default" } else { "" };
        tell!("{} {} ({}{default})", manifest.name, manifest.version, manifest.input.kind())?;
        tell!("  {}", manifest.description)?;
        if !manifest.labels().is_empty() {
            let labels: Vec<&str> = manifest.labels().iter().map(|label| label.name()).collect();
            tell!("  emotions: {}", labels.join(", "))?;
        }
        for data in &manifest.training_data {
            let note = if data.commercial_use { "" } else { "; no commercial use" };
            tell!("  trained on {} ({}{note})", data.corpus, data.licence)?;
        }
        if !manifest.protocol.is_empty() {
            tell!("  measured: {}", manifest.protocol)?;
        }
        for (name, value) in &manifest.figures {
            tell!("    {name} = {value:.4}")?;
        }
        tell!("  sha256 {}", manifest.sha256)?;
    }
    Ok(ExitCode::SUCCESS)
}

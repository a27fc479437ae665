//! `undertone identities`: checks a file of identities, makes tokens.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::Subcommand;

use crate::config::Environment;
use crate::identity::{Identity, Role};
use crate::server::identity::{Identities, TokenHash, new_token};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check a file of identities, and the files of keys that it names; print who may do what.
    ///
    /// Nothing is connected to. Exits with 64 if the file cannot be used.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Make a token: the token itself on standard output, the line for the file on standard error.
    ///
    /// The token is shown this once and kept nowhere. Put it where its caller reads it; the file of
    /// identities gets its hash.
    ///
    ///   undertone identities token > ward-7.token
    Token {
        /// Until when it is to be good, such as 90d; for ever, if not given.
        #[arg(long, value_name = "TIME")]
        expires_in: Option<humantime::Duration>,
    },
    /// Print the JSON Schema of files of identities, for editors.
    Schema,
}

pub(super) fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check { file } => check(file)?,
        Command::Token { expires_in } => token(expires_in.map(Into::into))?,
        Command::Schema => tell!("{}", serde_json::to_string_pretty(&Identities::schema())?)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path) -> anyhow::Result<()> {
    let text =
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let identities =
        Identities::parse(&text, &Environment).with_context(|| file.display().to_string())?;
    for identity in identities.all() {
        tell!("{}", in_words(identity))?;
    }
    for (name, issuer) in identities.issuers() {
        tell!("{name}/...: whom {issuer} vouches for")?;
    }
    Ok(())
}

fn in_words(identity: &Identity) -> String {
    let roles: Vec<&str> = identity.roles.iter().copied().map(Role::name).collect();
    let roles = if roles.is_empty() { "nothing".to_owned() } else { roles.join(", ") };
    let reach = if identity.all_tenants { ", sees all tenants" } else { "" };
    format!("{}: tenant {}{reach}; may {roles}", identity.name, identity.tenant)
}

/// The year 10000 in seconds since 1970: RFC 3339 has years of four digits.
const END_OF_DATES: Duration = Duration::from_secs(253_402_300_800);

fn token(expires_in: Option<Duration>) -> anyhow::Result<()> {
    let expires = expires_in
        .map(|after| {
            let at = SystemTime::now().checked_add(after);
            at.filter(|at| at.duration_since(UNIX_EPOCH).is_ok_and(|at| at < END_OF_DATES))
                .context("--expires-in: that is too far away")
        })
        .transpose()?;
    let token = new_token()?;
    let hash = TokenHash::of(&token);
    let expires = expires
        .map(|at| format!(", expires: {}", humantime::format_rfc3339_seconds(at)))
        .unwrap_or_default();
    complain!("for the file of identities:\n      - {{hash: '{hash}'{expires}}}");
    tell!("{token}")?;
    Ok(())
}

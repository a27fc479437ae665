//! What the building of every sink needs: its place in the file, its secrets, its times.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::file::Words;
use super::secret::Secret;
use crate::secrets::{Named, Secrets};
use crate::yaml::Fault;

/// What all kinds of sinks have.
pub(super) struct Common<'a> {
    /// The path of the sink's own settings, such as `sinks[0].webhook`.
    pub(super) field: String,
    /// Where secrets come from.
    pub(super) secrets: &'a dyn Secrets,
    /// Longest time of one attempt.
    pub(super) timeout: Duration,
    /// Longest time until a connection is made.
    pub(super) connect_timeout: Duration,
    /// Longest Retry-After.
    pub(super) retry_after: Duration,
}

/// What all sinks over HTTP have.
pub(super) struct HttpSettings<'a> {
    pub(super) url: &'a Words,
    pub(super) allow_private: bool,
    pub(super) allow_http: bool,
    pub(super) ca: Option<&'a Path>,
    pub(super) token: Option<&'a Named>,
    pub(super) headers: Option<&'a BTreeMap<String, Words>>,
}

impl Common<'_> {
    /// The secret that the setting `name` names.
    ///
    /// # Errors
    /// [`Fault`] if it is not there, or empty.
    pub(super) fn secret(&self, name: &str, named: &Named) -> Result<Secret, Fault> {
        let field = format!("{}.{name}", self.field);
        let (text, source) = match named {
            Named::Env(variable) => {
                let text = self.secrets.variable(variable).ok_or_else(|| {
                    let problem = format!("the environment variable {variable} is not set");
                    Fault::new(&field, problem, "set it where the service is started")
                })?;
                (text, format!("the environment variable {variable}"))
            }
            Named::File(path) => {
                let text = self.secrets.file(path).map_err(|error| {
                    let problem = format!("cannot read {}: {error}", path.display());
                    Fault::new(&field, problem, "make the file readable for the service")
                })?;
                (text, path.display().to_string())
            }
        };
        let secret = Secret::new(&text);
        if secret.reveal().is_empty() {
            return Err(Fault::new(field, format!("{source} is empty"), "put the secret there"));
        }
        Ok(secret)
    }

    /// The text of the setting `name`, and whether it is a secret.
    ///
    /// # Errors
    /// [`Fault`] if it is a secret that is not there.
    pub(super) fn words(&self, name: &str, words: &Words) -> Result<(String, bool), Fault> {
        match words {
            Words::Plain(text) => Ok((text.clone(), false)),
            Words::Secret(named) => Ok((self.secret(name, named)?.reveal().to_owned(), true)),
        }
    }
}

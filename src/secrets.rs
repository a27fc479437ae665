//! Where secrets come from: files that people write only name them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Where secrets come from.
pub trait Secrets {
    /// The value of an environment variable; `None` where it is not set or no text.
    fn variable(&self, name: &str) -> Option<String>;

    /// The text of a file.
    ///
    /// # Errors
    /// If it cannot be read or is no text.
    fn file(&self, path: &Path) -> io::Result<String>;
}

/// The name of a secret: `{env: NAME}` or `{file: PATH}`.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(rename = "Secret", rename_all = "lowercase")]
pub enum Named {
    /// An environment variable.
    Env(String),
    /// A file; a line break at its end does not count.
    File(PathBuf),
}

impl Named {
    /// Reads the one entry of a map.
    ///
    /// # Errors
    /// If it is another one, or not the only one.
    pub fn in_map<'de, A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let wrong = || de::Error::custom("write exactly one of {env: NAME} and {file: PATH}");
        let named = match map.next_key::<String>()?.as_deref() {
            Some("env") => Self::Env(map.next_value()?),
            Some("file") => Self::File(map.next_value()?),
            _ => return Err(wrong()),
        };
        if map.next_key::<String>()?.is_some() {
            return Err(wrong());
        }
        Ok(named)
    }
}

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NamedVisitor)
    }
}

struct NamedVisitor;

/// What is said of a value that is none. It is not repeated: it may be the secret.
fn in_the_open<E: de::Error>() -> E {
    E::custom("a secret must not stand in this file; write {env: NAME} or {file: PATH}")
}

impl<'de> Visitor<'de> for NamedVisitor {
    type Value = Named;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{env: NAME} or {file: PATH}")
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<Named, E> {
        Err(in_the_open())
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Named, E> {
        Err(in_the_open())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Named, E> {
        Err(in_the_open())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Named, E> {
        Err(in_the_open())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Named, E> {
        Err(in_the_open())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Named, A::Error> {
        Named::in_map(map)
    }
}

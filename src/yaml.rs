//! YAML files that people write: read strictly, and told about by line, column, field and remedy.
//!
//! In: a text, and the type that it should have. Out: a value, or what is wrong with the text and where.
//! Nothing of the text's values is ever told: they may be secrets.

mod places;

use serde::de::DeserializeOwned;

use places::{Place, Places};

/// Why a file cannot be used. No variant holds a value of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// It is no YAML, or not of the right shape.
    #[error("line {line}, column {column}: {field}: {problem}")]
    Shape {
        /// Line, counted from 1; 0 if unknown.
        line: u64,
        /// Column, counted from 1; 0 if unknown.
        column: u64,
        /// The nearest field, such as `sinks[0].webhook.url`.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// A field has a value that it cannot have.
    #[error("line {line}, column {column}: {field}: {problem}; {remedy}")]
    Field {
        /// Line, counted from 1; 0 if unknown.
        line: u64,
        /// Column, counted from 1; 0 if unknown.
        column: u64,
        /// The field, such as `sinks[0].webhook.url`.
        field: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
}

/// A field that cannot be, before its place in the text is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Its path, such as `sinks[0].webhook.url`.
    pub(crate) field: String,
    /// What is wrong.
    pub(crate) problem: String,
    /// What to do.
    pub(crate) remedy: String,
}

impl Fault {
    /// A fault of `field`.
    pub(crate) fn new(
        field: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), problem: problem.into(), remedy: remedy.into() }
    }
}

/// What `text` says, once `check` has made something of it that can be used.
///
/// # Errors
/// [`YamlError`] where it is not of the shape of `T`, and where `check` finds a fault.
pub(crate) fn read<T: DeserializeOwned, R>(
    text: &str,
    check: impl FnOnce(&T) -> Result<R, Fault>,
) -> Result<R, YamlError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let file: T = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let (Place { line, column }, field, problem) = Places::of_error(text, &error);
        YamlError::Shape { line, column, field, problem }
    })?;
    check(&file).map_err(|Fault { field, problem, remedy }| {
        let Place { line, column } = Places::of(text).of_path(&field);
        YamlError::Field { line, column, field, problem, remedy }
    })
}

//! What is wrong with a delivery file: where, what, and what to do.

/// Why a delivery file cannot be used. No variant holds a secret or a URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
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
    /// A setting has a value that it cannot have.
    #[error("line {line}, column {column}: {field}: {problem}; {remedy}")]
    Setting {
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

/// A setting that cannot be, before its place in the text is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Its path, such as `sinks[0].webhook.url`.
    pub(super) field: String,
    /// What is wrong.
    pub(super) problem: String,
    /// What to do.
    pub(super) remedy: String,
}

impl Fault {
    /// A fault of the setting `field`.
    pub(super) fn new(
        field: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), problem: problem.into(), remedy: remedy.into() }
    }
}

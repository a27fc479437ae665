//! What came of one attempt.

use std::time::Duration;

/// What came of one attempt. No problem holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has it.
    Delivered {
        /// What it said, such as `HTTP 204`.
        detail: String,
    },
    /// It may be taken later. Whether the receiver has it is not known.
    Retry {
        /// What went wrong.
        problem: String,
        /// The pause that the receiver asked for, capped.
        after: Option<Duration>,
    },
    /// It will never be taken: there is no use in trying again.
    Dead {
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The receiver wants no more of anything.
    Gone {
        /// What it said.
        problem: String,
    },
}

impl Verdict {
    pub(super) fn retry(problem: impl Into<String>) -> Self {
        Self::Retry { problem: problem.into(), after: None }
    }

    pub(super) fn dead(problem: impl Into<String>) -> Self {
        Self::Dead { problem: problem.into() }
    }
}

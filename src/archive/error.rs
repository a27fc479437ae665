//! What ends the work on an archive. A clip that cannot be analysed does not: it is a row.

use object_store::Error as StoreError;
use parquet::errors::ParquetError;

/// Why an archive cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A location that is none, or cannot be reached as things are set.
    #[error("{location}: {problem}; {remedy}")]
    Location {
        /// What was typed.
        location: String,
        /// What is wrong.
        problem: String,
        /// What would be right.
        remedy: String,
    },
    /// The store does not do what it is asked.
    #[error("{location}: cannot {action}: {cause}{}", advice(cause))]
    Store {
        /// The object or prefix.
        location: String,
        /// What was asked.
        action: &'static str,
        /// Why. It is part of the message, so it is not told as a source once more.
        cause: StoreError,
    },
    /// Something that is not ours, or is of another build.
    #[error("{object}: {problem}; {remedy}")]
    Foreign {
        /// The object.
        object: String,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// Results of another model, or under other settings, are there already.
    #[error("the output {output} holds other results ({differences}); name another --output")]
    OtherResults {
        /// The output.
        output: String,
        /// Each difference: there, here.
        differences: String,
    },
    /// Nothing can be read any more.
    #[error(
        "{count} clips in a row could not be read, so the store seems to be away; \
         what is done is kept, run it again (--max-unreadable); the last one: {reason}"
    )]
    Unreachable {
        /// How many.
        count: u32,
        /// What was said of the last one.
        reason: String,
    },
    /// The model cannot be run.
    #[error("cannot analyse {path}: {reason}")]
    Engine {
        /// The clip.
        path: String,
        /// Why.
        reason: String,
    },
    /// A table cannot be made or read.
    #[error("Parquet")]
    Table(#[from] ParquetError),
}

/// What to do about a failure of a store, where one can say.
pub(super) fn advice(error: &StoreError) -> &'static str {
    match error {
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            "; check the credentials in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
             GOOGLE_SERVICE_ACCOUNT, AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or a role) \
             and what they may do"
        }
        StoreError::NotFound { .. } => "; check the bucket's name, its region and the endpoint",
        StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
            "; the output must be a store that can put an object only if there is none of its name"
        }
        StoreError::InvalidPath { .. } => {
            "; object_store cannot name such an object: rename it, or name a prefix without it"
        }
        StoreError::Generic { .. } => {
            "; check the bucket's name, the endpoint, the network and the credentials in the environment \
             (--storage-retries and --storage-retry-timeout say how long it is tried)"
        }
        _ => "",
    }
}

//! Archives: recordings in folders and object storage -> two tables, by any number of workers.
//!
//! In: [`Location`]s (folders, files, `s3://`, `gs://`, `az://` and their kin), a [`Shard`], and something
//! that [`Hear`]s. Out: Parquet files of clips and of utterances below an [`Output`]; see [`schema`] for their
//! columns and `docs/archives.md` for how to read them.
//!
//! ```text
//! find -> plan -> run ( fetch -> hear ) -> part -> output
//!          ^                                         |
//!          +---------------- earlier ----------------+
//! ```
//!
//! Nothing is remembered but in the tables themselves, so that there is nothing else to lose. What makes that
//! safe, whoever is killed when:
//! 1. A part is two objects of one name: clips, then its twin, their utterances. Each is put whole and only if
//!    nothing has that name, so neither is ever changed.
//! 2. The clips are the commit. A part whose twin is missing is torn, and mended: its clips are heard once
//!    more, and the twin is put.
//! 3. Who finds the name of its next part taken reads that part, drops what is in it from its own, and goes on
//!    with the next number. So two workers on one shard do work twice, but no row is there twice.
//! 4. A clip has a second row only if it changed, or fared otherwise when it was tried again; the later
//!    `analyzed_at` holds.
//! 5. All that stands in one output comes from one model under the same settings: the first worker writes down
//!    which, and others are refused.
//!
//! The only user of `object_store` and `parquet`.

mod error;
mod fetch;
mod find;
mod hear;
mod location;
mod origin;
mod output;
mod part;
mod plan;
mod pool;
mod progress;
mod row;
mod run;
pub mod schema;
mod shard;
mod store;
mod table;
#[cfg(test)]
mod tests;

pub use error::ArchiveError;
pub use fetch::{Bounds, Done, Fetcher};
pub use find::{Clip, Found, Source, Version, find};
pub use hear::{Audio, Ears, Hear, HearError};
pub use location::Location;
pub use origin::Origin;
pub use output::Output;
pub use plan::{Earlier, Entry, Mending, Plan, Torn};
pub use progress::Progress;
pub use row::{ClipRow, Failure, FailureCode, Heard, Utterance, UtteranceRow, Verdict};
pub use run::{Ending, RunSettings, Watch, run};
pub use shard::{BadShard, Shard};
pub use store::StoreSettings;
pub use table::{Cell, read_table};

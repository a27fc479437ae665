//! Rules over tracked signals -> decisions; pure, time is an argument.
//!
//! In: a policy's YAML, once; then per channel one [`Reading`] every 256 ms. Out: [`Decision`]s, at the
//! reading at which they fall. Nothing here waits, reads a clock or a file, or knows of a session.
//!
//! | part | what |
//! |---|---|
//! | `document` | what stands in the file: serde and schema, nothing checked but its shape |
//! | `check` | document -> [`Policy`]: names found, ranges held, durations in samples |
//! | `rules` | the checked policy |
//! | `reason` | the template that says why |
//! | `words` | conditions and rules in plain sentences |
//! | `timeline` | a channel's windows: exact sums over the speech in them |
//! | `condition` | whether a condition holds, in three values |
//! | `watcher` | the rules' life on every channel |
//!
//! What always holds:
//! 1. Decisions follow from the readings alone. Values are whole millionths and sums are exact, so that
//!    neither order nor length of a stream lets them drift.
//! 2. Per rule and channel raises and clears take turns, and a cooldown lies between them.
//! 3. A policy that parses can be watched: all that can be wrong with it is refused by
//!    [`Policy::parse`], with line and column.
//! 4. What is kept of a channel is bounded by the policy's longest window.

mod check;
mod condition;
mod decision;
mod document;
mod embedded;
mod fault;
mod library;
mod reason;
mod rules;
mod signal;
mod timeline;
mod watcher;
mod words;

pub use decision::{Action, Decision, Evidence, Measurement, Severity, UnknownSeverity};
pub use document::schema;
pub use embedded::embedded;
pub use fault::{PolicyError, Problem};
pub use library::{Library, LibraryError, Reload, read_policy};
pub use rules::{MAX_BYTES, Policy, Rule};
pub use watcher::{InForce, Reading, Watcher, WatcherState};

#[cfg(test)]
mod tests;

//! Sinks: who is told of what happens to an escalation, and how.
//!
//! In: an [`Occurrence`](super::Occurrence), and a delivery file that was read at the start. Out: what
//! came of one attempt, a [`Verdict`]. Claims, pauses between attempts, and dead letters are the
//! outbox's; a sink knows nothing of time but that an attempt must end.
//!
//! What always holds:
//! 1. [`Sink::deliver`] ends within [`Sink::timeout`] and has no other outcome than a verdict.
//! 2. Every attempt at an occurrence carries its id, and but for a signature's time the same bytes: a
//!    receiver that knows ids is told once in effect.
//! 3. No secret is in the delivery file, in a log, in an error or in a `Debug` output.
//! 4. Without `allow_private` no address is connected to that is not public.
//!
//! | module | what |
//! |---|---|
//! | `file` | the delivery file as written; its JSON Schema |
//! | `places` | where in the file a setting stands |
//! | `parse` | file -> sinks, every value checked |
//! | `secret`, `settings` | secrets by name, and what every sink is built from |
//! | `route`, `text` | what a sink gets, and the message for people |
//! | `sink`, `verdict` | one attempt and what came of it |
//! | `http`, `guard`, `retry_after` | attempts over HTTP, to public addresses |
//! | `payload`, `signature` | the occurrence as JSON; Standard Webhooks |
//! | `webhook`, `cloudevents`, `fhir`, `pagerduty`, `nats`, `subject` | the formats |
//! | `sample` | occurrences to check templates and try sinks out with |

mod cloudevents;
mod fhir;
mod file;
mod guard;
mod http;
mod nats;
mod pagerduty;
mod parse;
mod payload;
mod retry_after;
mod route;
mod sample;
mod secret;
mod settings;
mod signature;
mod sink;
mod subject;
mod text;
mod verdict;
mod webhook;

#[cfg(test)]
mod tests;

pub use parse::Delivery;
pub use sample::{SAMPLE_TIME, sample};
pub use sink::{Rendered, Sink};
pub use verdict::Verdict;

//! Escalations: their life, the store that loses nothing, delivery.
//!
//! In: a policy's decisions and people's acknowledgements. Out: what happened, committed first, then told
//! to sessions and watchers and delivered to every sink that wants it, at least once.
//!
//! | module | what |
//! |---|---|
//! | [`life`] | an escalation, what can happen to it, deterministic names |
//! | [`store`] | SQL: escalations, their history, what has to reach whom |
//! | [`recorder`] | the one task that writes |
//! | [`sinks`] | webhook, CloudEvents, FHIR, PagerDuty, NATS |
//! | `attendance` | sessions that are alive |
//! | `dispatch`, [`circuit`] | attempts, as many as a sink takes |

mod attendance;
pub mod circuit;
mod dispatch;
pub mod life;
pub mod recorder;
pub mod sinks;
pub mod store;

pub use attendance::Attended;
pub use life::{
    Escalation, Kind, Occurrence, Origin, State, Timestamp, conversation, escalation_id,
    occurrence_id,
};
pub use recorder::{Health, Recorder, RecorderSettings, Reply, Task};
pub use store::{Change, Filter, Location, Recorded, Store, StoreError};

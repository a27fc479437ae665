//! What a writer is asked for at once, and what has come of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::escalation::life::{Kind, Occurrence, Origin, Timestamp};
use crate::identity::Tenant;
use crate::policy::{Action, Decision};
use crate::telemetry::trace::TraceParent;

/// Something that happens to escalations.
#[derive(Debug, Clone)]
pub enum Change {
    /// A policy has decided.
    Decided {
        /// Whose policy.
        origin: Arc<Origin>,
        /// What.
        decision: Box<Decision>,
        /// When.
        at: Timestamp,
    },
    /// The session has ended, with escalations in force.
    SessionEnded {
        /// Which.
        origin: Arc<Origin>,
        /// What it knows to be in force.
        open: Vec<Uuid>,
        /// When.
        at: Timestamp,
    },
    /// A session that had broken off goes on, with escalations in force.
    Resumed {
        /// Which.
        origin: Arc<Origin>,
        /// What is in force.
        open: Vec<Uuid>,
    },
    /// Somebody takes one on.
    Acknowledged {
        /// Which.
        id: Uuid,
        /// Only if it is this tenant's.
        tenant: Option<Tenant>,
        /// Only if it is this session's.
        session_id: Option<String>,
        /// Who, as they say.
        actor: String,
        /// Who, as the server knows them.
        identity: Option<String>,
        /// What they say.
        note: Option<String>,
        /// When.
        at: Timestamp,
    },
}

impl Change {
    /// What it makes of an escalation, in the words of [`Kind`]; "resumed" makes nothing of any.
    pub fn kind_name(&self) -> &'static str {
        let kind = match self {
            Self::Decided { decision, .. } => match decision.action {
                Action::Raise => Kind::Raised,
                Action::Update => Kind::Updated,
                Action::Clear => Kind::Cleared,
            },
            Self::SessionEnded { .. } => Kind::Updated,
            Self::Resumed { .. } => return "resumed",
            Self::Acknowledged { .. } => Kind::Acknowledged,
        };
        kind.name()
    }

    /// The policy and the rule that have decided, if one has.
    pub fn rule(&self) -> Option<(&str, &str)> {
        match self {
            Self::Decided { origin, decision, .. } => Some((&origin.policy, &decision.rule)),
            Self::SessionEnded { .. } | Self::Resumed { .. } | Self::Acknowledged { .. } => None,
        }
    }
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq)]
pub enum Recorded {
    /// It happened now.
    New(Vec<Occurrence>),
    /// It had happened before: a replay, or a second acknowledgement.
    Before(Box<Occurrence>),
    /// There is no such escalation.
    Unknown,
}

impl Recorded {
    /// What happened, now or before.
    pub fn occurrences(&self) -> &[Occurrence] {
        match self {
            Self::New(new) => new,
            Self::Before(before) => std::slice::from_ref(before.as_ref()),
            Self::Unknown => &[],
        }
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It arrived.
    Delivered {
        /// In words.
        detail: String,
    },
    /// It did not, and is to be tried again after `wait`.
    Retry {
        /// Why not.
        problem: String,
        /// Time until the next attempt.
        wait: Duration,
    },
    /// It never will.
    Dead {
        /// Why not.
        problem: String,
    },
    /// The endpoint wants no more of anything.
    Gone {
        /// In its words.
        problem: String,
    },
}

impl Outcome {
    /// Its name in the store and in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Delivered { .. } => "delivered",
            Self::Retry { .. } => "retry",
            Self::Dead { .. } => "dead",
            Self::Gone { .. } => "gone",
        }
    }

    /// In words.
    pub fn detail(&self) -> &str {
        match self {
            Self::Delivered { detail } => detail,
            Self::Retry { problem, .. } | Self::Dead { problem } | Self::Gone { problem } => {
                problem
            }
        }
    }
}

/// The end of an attempt.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Number of the occurrence.
    pub sequence: i64,
    /// The sink.
    pub sink: String,
    /// The session that it is about, see [`crate::escalation::conversation`].
    pub conversation: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When it began.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

/// A delivery that this writer's owner is to attempt now.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// What is to be delivered.
    pub occurrence: Occurrence,
    /// Where to.
    pub sink: String,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When the lease is over, by this process's own clock: the attempt must have ended by then.
    pub until: Instant,
}

/// What is to be written.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    /// Changes, in their order.
    pub changes: Vec<&'a Change>,
    /// For each change, the span that records it; those that are missing have none.
    pub traces: Vec<Option<&'a TraceParent>>,
    /// Ends of attempts.
    pub finishes: Vec<&'a Finish>,
    /// For each sink, how many deliveries its owner can attempt now.
    pub capacity: Vec<(&'a str, usize)>,
    /// How long a lease lasts.
    pub lease: Duration,
    /// How long a session counts as alive that nobody speaks of.
    pub window: Duration,
}

/// What was written.
#[derive(Debug, Default)]
pub struct Done {
    /// What became of each change.
    pub recorded: Vec<Recorded>,
    /// Deliveries to attempt.
    pub claimed: Vec<Claimed>,
    /// Number of the last occurrence.
    pub latest: i64,
}

/// Says which sinks want an occurrence.
pub trait Routes {
    /// Names of the sinks that want it.
    fn sinks_for<'a>(&'a self, occurrence: &Occurrence) -> Vec<&'a str>;
}

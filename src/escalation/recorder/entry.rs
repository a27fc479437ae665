//! What is to be written, and who is told of it: the last to know of an escalation that nobody could keep.

use tokio::sync::oneshot;

use super::{Job, Reply};
use crate::escalation::Occurrence;
use crate::escalation::store::{Change, Finish, Recorded};
use crate::telemetry::metrics;
use crate::telemetry::trace::TraceParent;

/// Something that is to be written.
pub(super) struct Entry {
    pub(super) what: What,
    /// Told when it is committed.
    pub(super) reply: Option<Answer>,
}

pub(super) enum What {
    Change(Change, Option<TraceParent>),
    Finish(Finish),
}

pub(super) enum Answer {
    /// Nobody has been told anything yet.
    First(oneshot::Sender<Reply>),
    /// It was said that it waits.
    Later(oneshot::Sender<Recorded>),
}

impl From<Job> for Entry {
    fn from(job: Job) -> Self {
        match job {
            Job::Change { change, trace, reply } => {
                Self { what: What::Change(change, trace), reply: Some(Answer::First(reply)) }
            }
            Job::Finish(finish) => Self { what: What::Finish(finish), reply: None },
        }
    }
}

/// Something has been committed that was not there before.
pub(super) fn note(occurrence: &Occurrence) {
    let escalation = &occurrence.escalation;
    metrics().escalation(occurrence.kind.name(), escalation.severity.name());
    tracing::info!(
        event = occurrence.kind.name(),
        id = %escalation.id,
        session = escalation.session_id,
        policy = escalation.policy,
        rule = escalation.rule,
        severity = escalation.severity.name(),
        "escalation"
    );
}

/// Gives an entry up.
pub(super) fn discard(entry: Entry, why: &str) {
    if let What::Change(change, _) = &entry.what {
        lose(change, why);
    }
    if let Some(Answer::First(reply)) = entry.reply {
        let _ = reply.send(Reply::Lost);
    }
}

/// The last resort: the log has it.
pub(super) fn lose(change: &Change, why: &str) {
    if matches!(change, Change::SessionEnded { .. } | Change::Resumed { .. }) {
        tracing::warn!(?change, why, "a session's end or return was not recorded");
        return;
    }
    metrics().escalation_lost();
    tracing::error!(?change, why, "an escalation was not recorded");
}

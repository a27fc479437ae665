//! One change, within the writer's transaction: what has happened before, what happens now, and whom it must reach.

use uuid::Uuid;

use super::alive::End;
use super::{Change, Pen, Recorded, Routes, StoreError};
use crate::escalation::life::{
    Escalation, Kind, Occurrence, Origin, State, Timestamp, occurrence_id,
};
use crate::escalation::store::rows::{column, document, escalation, occurrence};
use crate::policy::{Action, Decision, Evidence};
use crate::units::SamplePos;

/// Escalations of one name whose evidence differs: after so many, the name is taken for exhausted.
const MOST_AGAIN: u32 = 1000;
/// How far a replay's values may be from the first run's: batches of another size sum in another order.
const REPLAY_TOLERANCE: f32 = 1e-3;

impl Pen<'_> {
    pub(super) async fn change(
        &mut self,
        change: &Change,
        routes: &impl Routes,
    ) -> Result<Recorded, StoreError> {
        match change {
            Change::Decided { origin, decision, at } => match decision.action {
                Action::Raise => self.raise(origin, decision, *at, routes).await,
                Action::Update | Action::Clear => self.follow(origin, decision, *at, routes).await,
            },
            Change::SessionEnded { origin, open, at } => {
                let session = (origin.tenant.as_str(), origin.session_id.as_str());
                let end = End::Known { open, at: *at };
                Ok(Recorded::New(self.end_session(session, end, routes).await?))
            }
            Change::Resumed { origin, open } => self.resume(origin, open, routes).await,
            Change::Acknowledged { id, tenant, session_id, actor, identity, note, at } => {
                let Some(found) = self.find(*id).await? else {
                    return Ok(Recorded::Unknown);
                };
                if session_id.as_ref().is_some_and(|session| *session != found.session_id)
                    || tenant.as_ref().is_some_and(|tenant| *tenant != found.tenant)
                {
                    return Ok(Recorded::Unknown);
                }
                let who = (actor.clone(), identity.clone());
                self.acknowledge(found, who, note.clone(), *at, routes).await
            }
        }
    }

    async fn raise(
        &mut self,
        origin: &Origin,
        decision: &Decision,
        at: Timestamp,
        routes: &impl Routes,
    ) -> Result<Recorded, StoreError> {
        self.keep([(&origin.tenant, origin.session_id.as_str())].into_iter(), self.window).await?;
        for again in 0..MOST_AGAIN {
            let id = origin.escalation_id(decision, again);
            let raised = occurrence_id(id, Kind::Raised, None);
            match self.occurrence(raised).await? {
                // A replay of the same audio. Else another conversation has used the session's name.
                Some(before) if is_replay(&before.escalation.evidence, &decision.evidence) => {
                    if let Some(stands) = self.find(id).await?.filter(|stands| stands.broke_off) {
                        self.reopen(stands, routes).await?;
                    }
                    return Ok(Recorded::Before(before.into()));
                }
                Some(_) => {}
                None => {
                    let escalation = Escalation::raised(id, origin, decision, at);
                    self.insert(&escalation, decision.onset, again).await?;
                    let (event, unsaid) = ((raised, Kind::Raised, at), (None, None, None));
                    let occurrence = self.append(event, unsaid, escalation, routes).await?;
                    return Ok(Recorded::New(vec![occurrence]));
                }
            }
        }
        Ok(Recorded::Unknown)
    }

    /// An update or the end of what was raised before.
    async fn follow(
        &mut self,
        origin: &Origin,
        decision: &Decision,
        at: Timestamp,
        routes: &impl Routes,
    ) -> Result<Recorded, StoreError> {
        let Some(mut escalation) = self.latest_at(origin, decision).await? else {
            return Ok(Recorded::Unknown);
        };
        let kind = if decision.action == Action::Clear { Kind::Cleared } else { Kind::Updated };
        let id = occurrence_id(escalation.id, kind, Some(decision.at));
        if let Some(before) = self.occurrence(id).await? {
            return Ok(Recorded::Before(before.into()));
        }
        if kind == Kind::Updated {
            // Of one that is over, what it was raised for says more than what holds now.
            escalation.reason.clone_from(&decision.reason);
        }
        escalation.evidence = decision.evidence.clone();
        // Its session may have been taken for lost meanwhile.
        escalation.go_on();
        if kind == Kind::Cleared {
            escalation.state = State::Cleared;
            escalation.cleared_at = Some(at);
        }
        let occurrence =
            self.append((id, kind, at), (None, None, None), escalation, routes).await?;
        Ok(Recorded::New(vec![occurrence]))
    }

    async fn acknowledge(
        &mut self,
        mut escalation: Escalation,
        (actor, identity): (String, Option<String>),
        note: Option<String>,
        at: Timestamp,
        routes: &impl Routes,
    ) -> Result<Recorded, StoreError> {
        let id = occurrence_id(escalation.id, Kind::Acknowledged, None);
        if let Some(before) = self.occurrence(id).await? {
            return Ok(Recorded::Before(before.into()));
        }
        if escalation.state == State::Raised {
            escalation.state = State::Acknowledged;
        }
        escalation.acknowledged_at = Some(at);
        escalation.acknowledged_by = Some(actor.clone());
        let (event, said) = ((id, Kind::Acknowledged, at), (Some(actor), identity, note));
        let occurrence = self.append(event, said, escalation, routes).await?;
        Ok(Recorded::New(vec![occurrence]))
    }

    pub(super) async fn find(&mut self, id: Uuid) -> Result<Option<Escalation>, StoreError> {
        let row = sqlx::query("SELECT document FROM escalations WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&mut *self.transaction)
            .await?;
        row.map(|row| escalation(&column::<String>(&row, 0)?)).transpose()
    }

    /// The newest escalation of that origin, rule, channel and onset.
    async fn latest_at(
        &mut self,
        origin: &Origin,
        decision: &Decision,
    ) -> Result<Option<Escalation>, StoreError> {
        let row = sqlx::query(
            "SELECT document FROM escalations WHERE session_id = $1 AND policy = $2 AND rule = $3 \
             AND channel = $4 AND onset = $5 AND tenant = $6 ORDER BY again DESC LIMIT 1",
        )
        .bind(origin.session_id.clone())
        .bind(origin.policy.clone())
        .bind(decision.rule.clone())
        .bind(i64::from(decision.channel))
        .bind(samples(decision.onset))
        .bind(origin.tenant.as_str().to_owned())
        .fetch_optional(&mut *self.transaction)
        .await?;
        row.map(|row| escalation(&column::<String>(&row, 0)?)).transpose()
    }

    pub(super) async fn occurrence(&mut self, id: Uuid) -> Result<Option<Occurrence>, StoreError> {
        let row = sqlx::query("SELECT document FROM occurrences WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&mut *self.transaction)
            .await?;
        row.map(|row| occurrence(&column::<String>(&row, 0)?)).transpose()
    }

    async fn insert(
        &mut self,
        escalation: &Escalation,
        onset: SamplePos,
        again: u32,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO escalations (id, session_id, channel, policy, rule, onset, again, severity, \
             state, raised_at, updated_at, session_ended, document, tenant) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, $12, $13)",
        )
        .bind(escalation.id.to_string())
        .bind(escalation.session_id.clone())
        .bind(i64::from(escalation.channel))
        .bind(escalation.policy.clone())
        .bind(escalation.rule.clone())
        .bind(samples(onset))
        .bind(i64::from(again))
        .bind(escalation.severity as i64)
        .bind(escalation.state.name())
        .bind(escalation.raised_at.0)
        // By the store's date, as the end of the retention is.
        .bind(self.now.0)
        .bind(document(escalation)?)
        .bind(escalation.tenant.as_str().to_owned())
        .execute(&mut *self.transaction)
        .await?;
        for (label, value) in &escalation.labels {
            sqlx::query("INSERT INTO labels (escalation_id, label, value) VALUES ($1, $2, $3)")
                .bind(escalation.id.to_string())
                .bind(label.clone())
                .bind(value.clone())
                .execute(&mut *self.transaction)
                .await?;
        }
        Ok(())
    }

    /// Writes what happened, how the escalation stands after it, and whom it must reach.
    pub(super) async fn append(
        &mut self,
        (id, kind, at): (Uuid, Kind, Timestamp),
        (actor, identity, note): (Option<String>, Option<String>, Option<String>),
        mut escalation: Escalation,
        routes: &impl Routes,
    ) -> Result<Occurrence, StoreError> {
        escalation.updated_at = at;
        self.latest += 1;
        let sequence = self.latest;
        let traceparent = self.trace.cloned();
        let occurrence =
            Occurrence { id, sequence, kind, at, actor, identity, note, traceparent, escalation };
        let escalation = &occurrence.escalation;
        // One that begins has been written as it stands.
        if kind != Kind::Raised {
            self.rewrite(escalation).await?;
        }
        sqlx::query(
            "INSERT INTO occurrences (sequence, id, escalation_id, kind, at, document) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(sequence)
        .bind(id.to_string())
        .bind(escalation.id.to_string())
        .bind(kind.name())
        .bind(at.0)
        .bind(document(&occurrence)?)
        .execute(&mut *self.transaction)
        .await?;
        for sink in routes.sinks_for(&occurrence) {
            self.enqueue(&occurrence, sink).await?;
        }
        Ok(occurrence)
    }

    async fn rewrite(&mut self, escalation: &Escalation) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE escalations SET state = $1, updated_at = $2, session_ended = $3, document = $4 \
             WHERE id = $5",
        )
        .bind(escalation.state.name())
        .bind(self.now.0)
        .bind(i64::from(escalation.session_ended_at.is_some()))
        .bind(document(escalation)?)
        .bind(escalation.id.to_string())
        .execute(&mut *self.transaction)
        .await?;
        Ok(())
    }
}

fn samples(position: SamplePos) -> i64 {
    i64::try_from(position.0).unwrap_or(i64::MAX)
}

/// Whether two runs' evidence is that of the same audio: the same window and, within rounding, values.
fn is_replay(a: &Evidence, b: &Evidence) -> bool {
    let near = |a: Option<f32>, b: Option<f32>| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= REPLAY_TOLERANCE,
        (None, None) => true,
        _ => false,
    };
    a.from_s == b.from_s
        && a.to_s == b.to_s
        && near(Some(a.speech_s as f32), Some(b.speech_s as f32))
        && near(a.distress, b.distress)
        && near(a.valence, b.valence)
        && near(a.arousal, b.arousal)
        && a.conditions.len() == b.conditions.len()
        && a.conditions.iter().zip(&b.conditions).all(|(a, b)| near(a.value, b.value))
}

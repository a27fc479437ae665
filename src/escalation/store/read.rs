//! What people and watchers ask.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Row as _};
use uuid::Uuid;

use super::rows::{column, escalation, occurrence};
use super::{Store, StoreError};
use crate::escalation::life::{Escalation, Occurrence, State, Timestamp, UnknownName};
use crate::identity::Tenant;
use crate::policy::Severity;
use crate::telemetry::Outstanding;

/// Which escalations are wanted: all that is set must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Of this tenant; `None` for all.
    pub tenant: Option<Tenant>,
    /// Any of these states; empty for all.
    pub states: Vec<State>,
    /// At least this severity.
    pub min_severity: Option<Severity>,
    /// Any of these policies; empty for all.
    pub policies: Vec<String>,
    /// Of this session.
    pub session_id: Option<String>,
    /// With these labels.
    pub labels: BTreeMap<String, String>,
    /// Raised then or later.
    pub since: Option<Timestamp>,
    /// Raised before that.
    pub before: Option<Timestamp>,
}

impl Filter {
    /// Nothing else than `session_id`.
    pub fn session(session_id: &str) -> Self {
        Self { session_id: Some(session_id.to_owned()), ..Self::default() }
    }

    /// Whether an escalation is wanted.
    pub fn wants(&self, escalation: &Escalation) -> bool {
        let any = |wanted: bool, found: bool| !wanted || found;
        any(!self.states.is_empty(), self.states.contains(&escalation.state))
            && self.min_severity.is_none_or(|least| escalation.severity >= least)
            && any(!self.policies.is_empty(), self.policies.contains(&escalation.policy))
            && self.tenant.as_ref().is_none_or(|tenant| *tenant == escalation.tenant)
            && self.session_id.as_ref().is_none_or(|id| *id == escalation.session_id)
            && self.labels.iter().all(|(label, value)| escalation.labels.get(label) == Some(value))
            && self.since.is_none_or(|since| escalation.raised_at >= since)
            && self.before.is_none_or(|before| escalation.raised_at < before)
    }
}

/// Some of what was asked for, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The escalations.
    pub escalations: Vec<Escalation>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<(Timestamp, Uuid)>,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// An earlier one of the same session and sink has not ended yet.
    Waiting,
    /// To be tried.
    Due,
    /// Being tried.
    Leased,
    /// It arrived.
    Delivered,
    /// It never will, unless replayed.
    Dead,
}

impl DeliveryState {
    /// All.
    pub const ALL: [Self; 5] =
        [Self::Waiting, Self::Due, Self::Leased, Self::Delivered, Self::Dead];

    /// Its name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Due => "due",
            Self::Leased => "leased",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
        }
    }
}

impl FromStr for DeliveryState {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.name() == name).ok_or_else(|| UnknownName {
            what: "delivery state",
            name: name.to_owned(),
            known: "waiting, due, leased, delivered, dead",
        })
    }
}

/// One delivery.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct DeliveryRecord {
    /// Number of the occurrence.
    pub sequence: i64,
    /// The escalation.
    pub escalation_id: String,
    /// What happened.
    pub kind: String,
    /// Where to.
    pub sink: String,
    /// Where it stands.
    #[serde(serialize_with = "state_name")]
    pub state: DeliveryState,
    /// Attempts made.
    pub attempts: i64,
    /// When it is tried next, or its lease ends.
    pub next_at: Timestamp,
    /// What the last attempt said.
    pub problem: Option<String>,
    /// When it arrived, or was given up.
    pub ended_at: Option<Timestamp>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde hands it over")]
fn state_name<S: serde::Serializer>(state: &DeliveryState, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(state.name())
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Attempt {
    /// Number of the occurrence.
    pub sequence: i64,
    /// Where to.
    pub sink: String,
    /// From 1.
    pub attempt: i64,
    /// When it began.
    pub at: Timestamp,
    /// Milliseconds that it took.
    pub took_ms: f64,
    /// How it ended: delivered, retry, dead, gone.
    pub outcome: String,
    /// In words.
    pub detail: String,
}

/// How much there is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Totals {
    /// Escalations by state.
    pub escalations: BTreeMap<String, i64>,
    /// Deliveries by state.
    pub deliveries: BTreeMap<String, i64>,
}

impl Store {
    /// Escalations, newest first, from `after` on, `limit` at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        filter: &Filter,
        after: Option<(Timestamp, Uuid)>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let (sql, values) = list_statement(filter, after, limit);
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for value in values {
            query = match value {
                Value::Number(number) => query.bind(number),
                Value::Text(text) => query.bind(text),
            };
        }
        let rows = self.within(query.fetch_all(&self.readers())).await?;
        let mut escalations = Vec::with_capacity(rows.len());
        for row in &rows {
            escalations.push(escalation(row.try_get::<&str, usize>(0)?)?);
        }
        let next = if escalations.len() > limit {
            escalations.truncate(limit);
            escalations.last().map(|last| (last.raised_at, last.id))
        } else {
            None
        };
        Ok(Page { escalations, next })
    }

    /// One escalation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, id: Uuid) -> Result<Option<Escalation>, StoreError> {
        let query =
            sqlx::query("SELECT document FROM escalations WHERE id = $1").bind(id.to_string());
        let row = self.within(query.fetch_optional(&self.readers())).await?;
        row.map(|row| escalation(row.try_get::<&str, usize>(0)?)).transpose()
    }

    /// Everything that happened to an escalation, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn history(&self, id: Uuid) -> Result<Vec<Occurrence>, StoreError> {
        let query = sqlx::query(
            "SELECT document FROM occurrences WHERE escalation_id = $1 ORDER BY sequence",
        )
        .bind(id.to_string());
        let rows = self.within(query.fetch_all(&self.readers())).await?;
        rows.iter().map(|row| occurrence(row.try_get::<&str, usize>(0)?)).collect()
    }

    /// What happened after number `sequence`, in order, `limit` at most.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn after(&self, sequence: i64, limit: usize) -> Result<Vec<Occurrence>, StoreError> {
        let query = sqlx::query(
            "SELECT document FROM occurrences WHERE sequence > $1 ORDER BY sequence LIMIT $2",
        )
        .bind(sequence)
        .bind(limit as i64);
        let rows = self.within(query.fetch_all(&self.readers())).await?;
        rows.iter().map(|row| occurrence(row.try_get::<&str, usize>(0)?)).collect()
    }

    /// Number of the last occurrence; 0 before the first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn latest(&self) -> Result<i64, StoreError> {
        let query = sqlx::query("SELECT value FROM counters WHERE name = 'occurrence'");
        let row = self.within(query.fetch_one(&self.readers())).await?;
        column(&row, 0)
    }

    /// Deliveries in any of `states` (empty for all), of one escalation if given, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn deliveries(
        &self,
        states: &[DeliveryState],
        escalation: Option<Uuid>,
        limit: usize,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        let states: Vec<&str> = states.iter().map(|state| state.name()).collect();
        let query = sqlx::query(
            "SELECT d.sequence, o.escalation_id, o.kind, d.sink, d.state, d.attempts, d.next_at, \
             d.problem, d.ended_at FROM deliveries d JOIN occurrences o ON o.sequence = d.sequence \
             WHERE ($1 = '' OR $1 LIKE '%' || d.state || '%') AND ($2 = '' OR o.escalation_id = $2) \
             ORDER BY d.sequence, d.sink LIMIT $3",
        )
        .bind(states.join(","))
        .bind(escalation.map(|id| id.to_string()).unwrap_or_default())
        .bind(limit as i64);
        let rows = self.within(query.fetch_all(&self.readers())).await?;
        let mut records = Vec::with_capacity(rows.len());
        for row in &rows {
            records.push(DeliveryRecord {
                sequence: column(row, 0)?,
                escalation_id: column(row, 1)?,
                kind: column(row, 2)?,
                sink: column(row, 3)?,
                state: state_of(&column::<String>(row, 4)?)?,
                attempts: column(row, 5)?,
                next_at: Timestamp(column(row, 6)?),
                problem: column(row, 7)?,
                ended_at: column::<Option<i64>>(row, 8)?.map(Timestamp),
            });
        }
        Ok(records)
    }

    /// The attempts to deliver what happened to an escalation, in order.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn attempts(&self, escalation: Uuid) -> Result<Vec<Attempt>, StoreError> {
        let query = sqlx::query(
            "SELECT a.sequence, a.sink, a.attempt, a.at, a.took, a.outcome, a.detail \
             FROM attempts a JOIN occurrences o ON o.sequence = a.sequence \
             WHERE o.escalation_id = $1 ORDER BY a.sequence, a.sink, a.at",
        )
        .bind(escalation.to_string());
        let rows = self.within(query.fetch_all(&self.readers())).await?;
        let mut attempts = Vec::with_capacity(rows.len());
        for row in &rows {
            attempts.push(Attempt {
                sequence: column(row, 0)?,
                sink: column(row, 1)?,
                attempt: column(row, 2)?,
                at: Timestamp(column(row, 3)?),
                took_ms: column::<i64>(row, 4)? as f64 / 1e3,
                outcome: column(row, 5)?,
                detail: column(row, 6)?,
            });
        }
        Ok(attempts)
    }

    /// How many escalations and deliveries there are in each state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn totals(&self) -> Result<Totals, StoreError> {
        let mut totals = Totals::default();
        for (counts, statement) in [
            (&mut totals.escalations, "SELECT state, COUNT(*) FROM escalations GROUP BY state"),
            (&mut totals.deliveries, "SELECT state, COUNT(*) FROM deliveries GROUP BY state"),
        ] {
            let rows = self.within(sqlx::query(statement).fetch_all(&self.readers())).await?;
            for row in &rows {
                counts.insert(column(row, 0)?, column(row, 1)?);
            }
        }
        Ok(totals)
    }

    /// How many escalations are in `state`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count(&self, state: State) -> Result<u64, StoreError> {
        let query = sqlx::query("SELECT COUNT(*) FROM escalations WHERE state = $1")
            .bind(state.name().to_owned());
        let count: i64 = column(&self.within(query.fetch_one(&self.readers())).await?, 0)?;
        Ok(count.unsigned_abs())
    }

    /// What has not arrived, by sink: of all that the store has deliveries to, whether or not anybody still
    /// makes them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn outstanding(&self) -> Result<BTreeMap<String, Outstanding>, StoreError> {
        // From one sink to the next, and then by sink and state, each a step in an index: grouping would read
        // every delivery that has ever arrived.
        let sinks = "WITH RECURSIVE names (sink) AS ( \
                         SELECT MIN(sink) FROM deliveries \
                         UNION ALL \
                         SELECT (SELECT MIN(sink) FROM deliveries WHERE sink > names.sink) \
                         FROM names WHERE names.sink IS NOT NULL \
                     ) SELECT sink FROM names WHERE sink IS NOT NULL";
        let rows = self.within(sqlx::query(sinks).fetch_all(&self.readers())).await?;
        let mut found = BTreeMap::new();
        for row in &rows {
            let sink: String = column(row, 0)?;
            let outstanding = self.outstanding_to(&sink).await?;
            found.insert(sink, outstanding);
        }
        Ok(found)
    }

    async fn outstanding_to(&self, sink: &str) -> Result<Outstanding, StoreError> {
        let mut found = Outstanding::default();
        let mut oldest = None;
        for (state, count) in [
            (DeliveryState::Waiting, &mut found.waiting),
            (DeliveryState::Due, &mut found.due),
            (DeliveryState::Leased, &mut found.leased),
            (DeliveryState::Dead, &mut found.dead),
        ] {
            // Of those given up, which may be many, nobody asks for the age: the index has their number.
            let what = match state {
                DeliveryState::Dead => {
                    "SELECT COUNT(*) FROM deliveries WHERE sink = $1 AND state = $2"
                }
                _ => {
                    "SELECT COUNT(*), MIN(created_at) FROM deliveries WHERE sink = $1 AND state = $2"
                }
            };
            let query = sqlx::query(what).bind(sink.to_owned()).bind(state.name().to_owned());
            let row = self.within(query.fetch_one(&self.readers())).await?;
            *count = column::<i64>(&row, 0)?.unsigned_abs();
            if state != DeliveryState::Dead {
                oldest = oldest.into_iter().chain(column::<Option<i64>>(&row, 1)?).min();
            }
        }
        found.oldest =
            oldest.map_or(Duration::ZERO, |created| Timestamp::now().since(Timestamp(created)));
        Ok(found)
    }

    async fn within<T>(
        &self,
        query: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.timeout, query).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(StoreError::TimedOut(self.timeout)),
        }
    }
}

fn state_of(name: &str) -> Result<DeliveryState, StoreError> {
    name.parse().map_err(|error: UnknownName| StoreError::Document {
        what: "a delivery".to_owned(),
        problem: error.to_string(),
    })
}

enum Value {
    Number(i64),
    Text(String),
}

/// Clauses and the values of their placeholders. Only placeholders are put together here, never what
/// anybody has sent.
#[derive(Default)]
struct Clauses {
    sql: String,
    values: Vec<Value>,
}

impl Clauses {
    fn bind(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    fn add(&mut self, clause: &str) {
        self.sql.push_str(if self.sql.is_empty() { " WHERE " } else { " AND " });
        self.sql.push_str(clause);
    }

    fn compare(&mut self, left: &str, value: Value) {
        let placeholder = self.bind(value);
        self.add(&format!("{left} {placeholder}"));
    }

    fn any_of(&mut self, column: &str, names: impl Iterator<Item = String>) {
        let placeholders: Vec<String> = names.map(|name| self.bind(Value::Text(name))).collect();
        if !placeholders.is_empty() {
            self.add(&format!("{column} IN ({})", placeholders.join(", ")));
        }
    }
}

fn list_statement(
    filter: &Filter,
    after: Option<(Timestamp, Uuid)>,
    limit: usize,
) -> (String, Vec<Value>) {
    let mut clauses = Clauses::default();
    clauses.any_of("e.state", filter.states.iter().map(|state| state.name().to_owned()));
    clauses.any_of("e.policy", filter.policies.iter().cloned());
    if let Some(severity) = filter.min_severity {
        clauses.compare("e.severity >=", Value::Number(severity as i64));
    }
    if let Some(tenant) = &filter.tenant {
        clauses.compare("e.tenant =", Value::Text(tenant.as_str().to_owned()));
    }
    if let Some(session_id) = &filter.session_id {
        clauses.compare("e.session_id =", Value::Text(session_id.clone()));
    }
    if let Some(since) = filter.since {
        clauses.compare("e.raised_at >=", Value::Number(since.0));
    }
    if let Some(before) = filter.before {
        clauses.compare("e.raised_at <", Value::Number(before.0));
    }
    for (label, value) in &filter.labels {
        let label = clauses.bind(Value::Text(label.clone()));
        let value = clauses.bind(Value::Text(value.clone()));
        clauses.add(&format!(
            "EXISTS (SELECT 1 FROM labels l WHERE l.escalation_id = e.id AND l.label = {label} \
             AND l.value = {value})"
        ));
    }
    if let Some((at, id)) = after {
        let at = clauses.bind(Value::Number(at.0));
        let id = clauses.bind(Value::Text(id.to_string()));
        clauses.add(&format!("(e.raised_at < {at} OR (e.raised_at = {at} AND e.id > {id}))"));
    }
    // One more than asked for tells whether there is a next page.
    let limit = clauses.bind(Value::Number(limit as i64 + 1));
    let sql = format!(
        "SELECT e.document FROM escalations e{} ORDER BY e.raised_at DESC, e.id LIMIT {limit}",
        clauses.sql
    );
    (sql, clauses.values)
}

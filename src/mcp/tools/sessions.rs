//! `list_sessions`, `get_session_emotion`, `get_session_history`: whom the server listens to now.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rmcp::model::JsonObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Told, parse, within};
use crate::mcp::course::{Course, courses};
use crate::mcp::failure::Failure;
use crate::mcp::view::{Estimate, Session, Utterance, seconds};
use crate::mcp::way::Calls;
use crate::mcp::words;
use crate::wire::v1;

/// Most sessions in one answer: a model reads no more with profit.
const MAX_SESSIONS: u32 = 100;
const DEFAULT_SESSIONS: u32 = 20;
/// Longest history that can be asked for, minutes; the server may keep less.
const MAX_MINUTES: f64 = 60.0;
const DEFAULT_MINUTES: f64 = 5.0;
/// Most points of a course.
const MAX_POINTS: u32 = 200;
const DEFAULT_POINTS: u32 = 30;
/// Utterances that are told of at most, the last ones.
const MAX_UTTERANCES: usize = 50;

/// Which sessions to list.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListArguments {
    /// Only sessions with all of these labels.
    labels: BTreeMap<String, String>,
    /// Only sessions of this tenant, for those who see more than one.
    tenant: Option<String>,
    /// Most sessions in the answer, 1 to 100. 20 if not given.
    #[schemars(range(min = 1, max = 100))]
    limit: Option<u32>,
    /// `next_page_token` of the answer before, for those that follow.
    page_token: Option<String>,
}

/// Which session.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NowArguments {
    /// The session's name, see `list_sessions`.
    session_id: String,
    /// Its tenant, for those who see more than one.
    #[serde(default)]
    tenant: Option<String>,
}

/// Which session, and how much of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryArguments {
    /// The session's name, see `list_sessions`.
    session_id: String,
    /// Its tenant, for those who see more than one.
    #[serde(default)]
    tenant: Option<String>,
    /// How far back, in minutes of audio, 0.1 to 60; the server may keep less, 5 by default. 5 if not given.
    #[serde(default)]
    #[schemars(range(min = 0.1, max = 60.0))]
    minutes: Option<f64>,
    /// Most points in the answer, 1 to 200, all channels together. 30 if not given.
    #[serde(default)]
    #[schemars(range(min = 1, max = 200))]
    max_points: Option<u32>,
}

/// Live sessions.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct Listed {
    /// The same in words.
    words: String,
    /// What limits all of it.
    limits: &'static str,
    /// The sessions, newest first.
    sessions: Vec<Session>,
    /// For those that follow; null if these are all.
    next_page_token: Option<String>,
}

/// A live session as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct Now {
    /// The same in words.
    words: String,
    /// What limits all of it.
    limits: &'static str,
    /// The session, with the last estimate of each channel.
    session: Session,
}

/// The last minutes of a live session.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(in crate::mcp) struct History {
    /// The same in words.
    words: String,
    /// What limits all of it.
    limits: &'static str,
    /// The session as it stands.
    session: Session,
    /// The course of each channel.
    courses: Vec<Course>,
    /// The utterances that ended in this time, in order, the last fifty.
    utterances: Vec<Utterance>,
    /// Utterances before those, and within this time.
    utterances_left_out: usize,
}

impl Told for Listed {
    fn words(&self) -> &str {
        &self.words
    }
}

impl Told for Now {
    fn words(&self) -> &str {
        &self.words
    }
}

impl Told for History {
    fn words(&self) -> &str {
        &self.words
    }
}

pub(super) async fn list(arguments: Option<JsonObject>, calls: &Calls) -> Result<Listed, Failure> {
    let arguments: ListArguments = parse(arguments)?;
    let limit = within("limit", arguments.limit.unwrap_or(DEFAULT_SESSIONS), 1, MAX_SESSIONS)?;
    let request = v1::ListSessionsRequest {
        tenant: arguments.tenant.unwrap_or_default(),
        labels: arguments.labels.into_iter().collect(),
        page_size: limit,
        page_token: arguments.page_token.unwrap_or_default(),
        include_ended: false,
    };
    Ok(Listed::new(&calls.list_sessions(request).await?))
}

pub(super) async fn now(arguments: Option<JsonObject>, calls: &Calls) -> Result<Now, Failure> {
    let arguments: NowArguments = parse(arguments)?;
    let request = v1::GetSessionRequest {
        id: named(arguments.session_id)?,
        tenant: arguments.tenant.unwrap_or_default(),
        history: None,
    };
    Ok(Now::new(&calls.session(request).await?))
}

pub(super) async fn history(
    arguments: Option<JsonObject>,
    calls: &Calls,
) -> Result<History, Failure> {
    let arguments: HistoryArguments = parse(arguments)?;
    let minutes =
        within("minutes", arguments.minutes.unwrap_or(DEFAULT_MINUTES), 0.1, MAX_MINUTES)?;
    let max_points =
        within("max_points", arguments.max_points.unwrap_or(DEFAULT_POINTS), 1, MAX_POINTS)?;
    let (id, tenant) = (named(arguments.session_id)?, arguments.tenant.unwrap_or_default());
    let answer = calls.session(history_request(id, tenant, minutes)).await?;
    Ok(History::new(&answer, max_points as usize))
}

fn named(session_id: String) -> Result<String, Failure> {
    if session_id.is_empty() {
        let remedy = "list_sessions says which sessions are live";
        return Err(Failure::argument("session_id", "is empty", remedy));
    }
    Ok(session_id)
}

/// Asks for a session and its last `minutes`.
pub(in crate::mcp) fn history_request(
    id: String,
    tenant: String,
    minutes: f64,
) -> v1::GetSessionRequest {
    let seconds = (minutes * 60.0).round();
    let history = prost_types::Duration { seconds: seconds as i64, nanos: 0 };
    v1::GetSessionRequest { id, tenant, history: Some(history) }
}

impl Listed {
    /// Asks for as many as fit one answer.
    pub(in crate::mcp) fn request() -> v1::ListSessionsRequest {
        v1::ListSessionsRequest { page_size: MAX_SESSIONS, ..v1::ListSessionsRequest::default() }
    }

    pub(in crate::mcp) fn new(response: &v1::ListSessionsResponse) -> Self {
        let sessions: Vec<Session> = response.sessions.iter().map(Session::from).collect();
        let mut words = match sessions.len() {
            0 => "No live sessions that you can see, on this replica.".to_owned(),
            1 => "One live session.".to_owned(),
            count => format!("{count} live sessions, newest first."),
        };
        for session in &sessions {
            let _ = write!(words, "\n{}", words::session(session));
        }
        let token = &response.next_page_token;
        let next_page_token = (!token.is_empty()).then(|| token.clone());
        if next_page_token.is_some() {
            words.push_str("\nThere are more: call again with next_page_token as page_token.");
        }
        if !sessions.is_empty() {
            let _ = write!(words, "\n{}", words::LIMITS);
        }
        Self { words, limits: words::LIMITS, sessions, next_page_token }
    }
}

impl Now {
    pub(in crate::mcp) fn new(response: &v1::GetSessionResponse) -> Self {
        let session = Session::from(&response.session.clone().unwrap_or_default());
        let words = format!("{}\n{}", words::session(&session), words::LIMITS);
        Self { words, limits: words::LIMITS, session }
    }
}

impl History {
    /// Points of a course where nobody says how many.
    pub(in crate::mcp) const POINTS: usize = DEFAULT_POINTS as usize;
    /// Minutes where nobody says how many.
    pub(in crate::mcp) const MINUTES: f64 = DEFAULT_MINUTES;

    pub(in crate::mcp) fn new(response: &v1::GetSessionResponse, max_points: usize) -> Self {
        let session = Session::from(&response.session.clone().unwrap_or_default());
        let heard = response.history.clone().unwrap_or_default();
        let estimates: Vec<Estimate> = heard.estimates.iter().map(Estimate::from).collect();
        let courses = courses(&estimates, max_points);
        let utterances_left_out = heard.utterances.len().saturating_sub(MAX_UTTERANCES);
        let utterances: Vec<Utterance> =
            heard.utterances.iter().skip(utterances_left_out).map(Utterance::from).collect();
        let speech: f64 = heard.utterances.iter().map(|one| seconds(one.speech.as_ref())).sum();
        let abstaining = heard.utterances.iter().filter(|one| one.abstains).count();
        let mut words = words::session(&session);
        for course in &courses {
            let _ = write!(words, "\n{}", words::course(course));
        }
        if courses.is_empty() {
            words.push_str("\nNothing was heard in this time.");
        }
        let _ = write!(
            words,
            "\nUtterances that ended in this time: {}, with {speech:.1} s of speech; {abstaining} abstain.\n{}",
            heard.utterances.len(),
            words::LIMITS
        );
        Self { words, limits: words::LIMITS, session, courses, utterances, utterances_left_out }
    }

    /// In words, without what limits them: for those who say that themselves.
    pub(in crate::mcp) fn unlimited_words(&self) -> &str {
        self.words.strip_suffix(words::LIMITS).unwrap_or(&self.words).trim_end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_utterances_the_last_are_told_and_the_others_counted() {
        let utterance = |index| v1::Utterance { index, ..v1::Utterance::default() };
        let history = v1::SessionHistory {
            utterances: (0..70).map(utterance).collect(),
            ..v1::SessionHistory::default()
        };
        let response = v1::GetSessionResponse { history: Some(history), session: None };
        let history = History::new(&response, 10);
        assert_eq!((history.utterances.len(), history.utterances_left_out), (50, 20));
        assert_eq!(history.utterances[0].index, 20);
        assert!(history.words.contains("ended in this time: 70,"), "{}", history.words);
        assert!(history.words.contains("Nothing was heard in this time"), "{}", history.words);
    }

    #[test]
    fn what_limits_the_numbers_is_in_the_words() {
        let now = Now::new(&v1::GetSessionResponse::default());
        assert!(now.words.ends_with(words::LIMITS));
        let listed = Listed::new(&v1::ListSessionsResponse::default());
        assert!(listed.words.contains("No live sessions"));
    }

    #[test]
    fn numbers_beyond_their_limits_are_refused_by_name() {
        let error = within("minutes", f64::NAN, 0.1, 60.0).unwrap_err().to_string();
        assert!(error.contains("minutes is NaN") && error.contains("give 0.1 to 60"), "{error}");
        assert!(within("max_points", 0, 1, MAX_POINTS).is_err());
        assert_eq!(history_request("a".into(), String::new(), 0.1).history.unwrap().seconds, 6);
    }
}

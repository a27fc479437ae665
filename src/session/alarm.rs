//! A session's escalations: its policy's decisions, recorded, then told.
//!
//! In: readings, acknowledgements of the client, what others do to the session's escalations. Out: events
//! for the client, each committed before it is sent. While the store is down events are sent with
//! `durable` false, and again once they are committed.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::recent::InForce;
use crate::escalation::{
    Attended, Change, Escalation, Kind, Occurrence, Origin, Recorded, Recorder, Reply, State,
    Timestamp,
};
use crate::identity::Identity;
use crate::policy::{Action, Decision, Policy, Reading, Severity, Watcher, WatcherState};
use crate::state::Misfit;
use crate::telemetry::metrics;
use crate::telemetry::stage::{self, Stage};
use crate::units::SamplePos;
use crate::wire::event::{Warning, WarningReason};
use crate::wire::parse::Acknowledgement;

/// What others do to one session's escalations between two of its chunks: acknowledgements, of which each
/// escalation has one.
pub(super) const MAILBOX: usize = 16;

/// What a client is to be told.
#[derive(Debug)]
pub(super) enum Told {
    /// Something happened; `true` if it is committed.
    Event(Box<Occurrence>, bool),
    /// Something to know.
    Warning(Warning),
}

/// News that come while no audio does.
#[derive(Debug)]
pub(super) enum News {
    /// What waited has been committed.
    Committed(Recorded),
    /// What waited could not be kept.
    Lost,
    /// Somebody else has done something.
    Happened(Box<Occurrence>),
}

/// An escalation in force; a rule has one at most on a channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Open {
    /// As long as it is not durable, the store may still give it another one.
    id: Uuid,
    rule: String,
    channel: u32,
    severity: Severity,
}

/// What a session knows of its escalations, to go on with elsewhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AlarmState {
    open: Vec<Open>,
    acknowledged: Vec<Uuid>,
}

/// One session's policy at work.
#[derive(Debug)]
pub(super) struct Alarm {
    watcher: Watcher,
    origin: Arc<Origin>,
    recorder: Recorder,
    mailbox: mpsc::Receiver<Occurrence>,
    open: Vec<Open>,
    /// What the store has not taken yet, in order.
    waiting: VecDeque<oneshot::Receiver<Recorded>>,
    /// Acknowledgements that the client knows of.
    acknowledged: HashSet<Uuid>,
    not_durable: bool,
    /// Something could not even wait: it is known nowhere but in the audio.
    lost: bool,
    suppressed: u64,
    /// The stream has ended, and said so.
    finished: bool,
    decisions: Vec<Decision>,
    /// Says that the session is alive, while something is in force.
    attended: Option<Attended>,
    /// How often that could not be said for too long.
    silences: watch::Receiver<u64>,
}

impl Alarm {
    pub(super) fn new(
        policy: Arc<Policy>,
        origin: Origin,
        recorder: Recorder,
        mailbox: mpsc::Receiver<Occurrence>,
    ) -> Self {
        Self {
            watcher: Watcher::new(policy),
            origin: Arc::new(origin),
            silences: recorder.silences(),
            recorder,
            mailbox,
            open: Vec::new(),
            waiting: VecDeque::new(),
            acknowledged: HashSet::new(),
            not_durable: false,
            lost: false,
            suppressed: 0,
            finished: false,
            decisions: Vec::new(),
            attended: None,
        }
    }

    /// Goes on where another stream of the session was.
    ///
    /// # Errors
    /// [`Misfit`] if `watcher` is no state of the policy, or `state` is not one beside it.
    pub(super) fn resume(
        policy: Arc<Policy>,
        (watcher, state): (WatcherState, AlarmState),
        origin: Origin,
        recorder: Recorder,
        mailbox: mpsc::Receiver<Occurrence>,
    ) -> Result<Self, Misfit> {
        let watcher = Watcher::resume(policy.clone(), &watcher)?;
        let mut here: Vec<_> = state
            .open
            .iter()
            .map(|open| (open.channel, open.rule.as_str(), open.severity))
            .collect();
        let mut there: Vec<_> =
            watcher.in_force().map(|one| (one.channel, one.rule, one.severity)).collect();
        here.sort_unstable();
        there.sort_unstable();
        // Each that was raised can be acknowledged once.
        let most = policy.budget() as usize;
        let fits = here == there && state.acknowledged.len() <= most;
        Misfit::unless(fits, "escalations", "are not those that its policy has in force")?;
        let mut alarm = Self {
            suppressed: watcher.suppressed(),
            open: state.open,
            acknowledged: state.acknowledged.into_iter().collect(),
            ..Self::new(policy, origin, recorder, mailbox)
        };
        alarm.watcher = watcher;
        alarm.attend();
        Ok(alarm)
    }

    /// What was lost is lost for good: no earlier state is gone on from any more.
    pub(super) fn forget_lost(&mut self) {
        self.lost = false;
    }

    /// The state to go on with; `None` while something is not durable.
    pub(super) fn state(&self) -> Option<(WatcherState, AlarmState)> {
        if self.lost || !self.waiting.is_empty() {
            return None;
        }
        let state = AlarmState {
            open: self.open.clone(),
            acknowledged: self.acknowledged.iter().copied().collect(),
        };
        Some((self.watcher.state(), state))
    }

    /// Whether something waits for the store.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The policy that is watched by.
    pub(super) fn policy(&self) -> &Arc<Policy> {
        self.watcher.policy()
    }

    /// The session goes on: says so, and tells what others have done meanwhile.
    pub(super) async fn greet(&mut self, told: &mut Vec<Told>) {
        for id in self.contradict().await {
            self.tell_taken_on(id, told).await;
        }
    }

    /// Says that the session has not ended, whatever has been made of its silence. Returns what is in force.
    async fn contradict(&mut self) -> Vec<Uuid> {
        let open: Vec<Uuid> = self.open.iter().map(|open| open.id).collect();
        if open.is_empty() {
            return open;
        }
        let change = Change::Resumed { origin: self.origin.clone(), open: open.clone() };
        // While the store is down this waits like anything else: it is alive by what it records.
        if let Reply::Waiting(later) = self.recorder.record(change).await {
            self.waiting.push_back(later);
        }
        open
    }

    /// Tells that somebody has taken an escalation on, if anybody has.
    async fn tell_taken_on(&mut self, id: Uuid, told: &mut Vec<Told>) {
        // What cannot be read now can be asked for later; the estimates go on.
        let Ok(history) = self.recorder.store().history(id).await else {
            return;
        };
        let taken_on = |occurrence: &Occurrence| occurrence.kind == Kind::Acknowledged;
        if let Some(occurrence) = history.into_iter().find(taken_on) {
            self.tell(Recorded::New(vec![occurrence]), told);
        }
    }

    fn attend(&mut self) {
        if self.open.is_empty() {
            self.attended = None;
        } else if self.attended.is_none() {
            let Origin { tenant, session_id, .. } = self.origin.as_ref();
            self.attended = Some(self.recorder.attend(tenant, session_id));
        }
    }

    /// Takes a reading; what it leads to is recorded before this returns.
    pub(super) async fn read(&mut self, reading: &Reading, told: &mut Vec<Told>) {
        // Nobody else can change it back: an error means that the recorder has ended.
        if self.silences.has_changed().unwrap_or(false) {
            self.silences.mark_unchanged();
            self.contradict().await;
        }
        let mut decisions = std::mem::take(&mut self.decisions);
        self.watcher.observe(reading, &mut decisions);
        for decision in decisions.drain(..) {
            self.decide(decision, told).await;
        }
        self.decisions = decisions;
        self.heed_budget(reading.end, told);
    }

    /// The stream ends: rules that end with it clear, what is still in force stays and says so.
    /// Done once.
    pub(super) async fn finish(&mut self, at: SamplePos, told: &mut Vec<Told>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let mut decisions = Vec::new();
        self.watcher.finish(at, &mut decisions);
        for decision in decisions {
            self.decide(decision, told).await;
        }
        if self.open.is_empty() {
            return;
        }
        // They stay in force: whoever looks at the session afterwards sees them.
        let open = self.open.iter().map(|open| open.id).collect();
        self.attended = None;
        let origin = self.origin.clone();
        let change = Change::SessionEnded { origin, open, at: Timestamp::now() };
        match self.recorder.record(change).await {
            Reply::Durable(recorded) => {
                self.catch_up(at, told);
                self.tell(recorded, told);
            }
            Reply::Waiting(later) => self.waiting.push_back(later),
            Reply::Lost => {}
        }
    }

    async fn decide(&mut self, decision: Decision, told: &mut Vec<Told>) {
        let at = Timestamp::now();
        let change = Change::Decided {
            origin: self.origin.clone(),
            decision: Box::new(decision.clone()),
            at,
        };
        let began = stage::begin();
        let reply = self.recorder.record(change).await;
        stage::end(Stage::Record, began);
        let provisional = self.provisional(&decision, at);
        match reply {
            Reply::Durable(recorded) => {
                self.catch_up(decision.at, told);
                let id = recorded.occurrences().first().map(|first| first.escalation.id);
                let id = id.unwrap_or(provisional.escalation.id);
                self.track(&decision, id);
                let is_replay = matches!(recorded, Recorded::Before(_));
                self.tell(recorded, told);
                // Raised before the stream broke off, and taken on before it was gone on with.
                if is_replay && decision.action == Action::Raise {
                    self.tell_taken_on(id, told).await;
                }
            }
            Reply::Waiting(later) => {
                self.waiting.push_back(later);
                self.track(&decision, provisional.escalation.id);
                self.warn_not_durable(decision.at, told);
                told.push(Told::Event(Box::new(provisional), false));
            }
            Reply::Lost => {
                self.lost = true;
                self.track(&decision, provisional.escalation.id);
                told.push(Told::Warning(Warning {
                    reason: WarningReason::EscalationLost,
                    message: format!(
                        "\"{}\" could not be recorded and will not be delivered; act on it yourself",
                        decision.title
                    ),
                    position: decision.at,
                    channel: Some(decision.channel),
                }));
                told.push(Told::Event(Box::new(provisional), false));
            }
        }
    }

    fn warn_not_durable(&mut self, position: SamplePos, told: &mut Vec<Told>) {
        if std::mem::replace(&mut self.not_durable, true) {
            return;
        }
        told.push(Told::Warning(Warning {
            reason: WarningReason::EscalationsNotDurable,
            message:
                "the store is down: escalations are not durable and not delivered until it is back"
                    .to_owned(),
            position,
            channel: None,
        }));
    }

    /// What has happened, as far as anybody can say without the store.
    fn provisional(&self, decision: &Decision, at: Timestamp) -> Occurrence {
        let origin = &self.origin;
        let id = origin.escalation_id(decision, 0);
        let mut escalation = Escalation::raised(id, origin, decision, at);
        let kind = match decision.action {
            Action::Raise => Kind::Raised,
            Action::Update => Kind::Updated,
            Action::Clear => {
                escalation.state = State::Cleared;
                escalation.cleared_at = Some(at);
                Kind::Cleared
            }
        };
        Occurrence {
            id: Uuid::nil(),
            sequence: 0,
            kind,
            at,
            actor: None,
            identity: None,
            note: None,
            traceparent: None,
            escalation,
        }
    }

    fn track(&mut self, decision: &Decision, id: Uuid) {
        match decision.action {
            Action::Raise => {
                let (rule, severity) = (decision.rule.clone(), decision.severity);
                self.open.push(Open { id, rule, channel: decision.channel, severity });
            }
            Action::Update => {}
            Action::Clear => self
                .open
                .retain(|open| open.rule != decision.rule || open.channel != decision.channel),
        }
        self.attend();
    }

    fn tell(&mut self, recorded: Recorded, told: &mut Vec<Told>) {
        let occurrences = match recorded {
            Recorded::New(occurrences) => occurrences,
            Recorded::Before(occurrence) => vec![*occurrence],
            Recorded::Unknown => return,
        };
        for occurrence in occurrences {
            self.name_open(&occurrence);
            let is_news = occurrence.kind != Kind::Acknowledged
                || self.acknowledged.insert(occurrence.escalation.id);
            if is_news {
                told.push(Told::Event(Box::new(occurrence), true));
            }
        }
    }

    /// What was raised while the store was down has its name from the store when it is back.
    fn name_open(&mut self, occurrence: &Occurrence) {
        let escalation = &occurrence.escalation;
        let is_it =
            |open: &&mut Open| open.rule == escalation.rule && open.channel == escalation.channel;
        if occurrence.kind == Kind::Raised
            && let Some(open) = self.open.iter_mut().find(is_it)
        {
            open.id = escalation.id;
        }
    }

    fn heed_budget(&mut self, position: SamplePos, told: &mut Vec<Told>) {
        let suppressed = self.watcher.suppressed();
        let new = suppressed - std::mem::replace(&mut self.suppressed, suppressed);
        if new == 0 {
            return;
        }
        metrics().escalations_suppressed(new);
        if suppressed == new {
            let (budget, policy) = (self.watcher.policy().budget(), self.watcher.policy().name());
            let session = &self.origin.session_id;
            tracing::warn!(session, policy, budget, "the budget of escalations is spent");
            told.push(Told::Warning(Warning {
                reason: WarningReason::BudgetSpent,
                message: format!(
                    "the policy's budget of {budget} escalations for this session is used up; nothing \
                     more is raised"
                ),
                position,
                channel: None,
            }));
        }
    }

    /// The client takes one on.
    pub(super) async fn acknowledge(
        &mut self,
        acknowledgement: Acknowledgement,
        caller: &Identity,
        position: SamplePos,
        told: &mut Vec<Told>,
    ) {
        let Acknowledgement { id, actor, note } = acknowledgement;
        let session_id = Some(self.origin.session_id.clone());
        let change = Change::Acknowledged {
            id,
            tenant: Some(self.origin.tenant.clone()),
            session_id,
            actor,
            identity: Some(caller.name.to_string()),
            note,
            at: Timestamp::now(),
        };
        let problem = match self.recorder.record(change).await {
            Reply::Durable(Recorded::Unknown) => "this stream has no such escalation",
            Reply::Durable(recorded) => return self.tell(recorded, told),
            Reply::Waiting(_) | Reply::Lost => "the store is down; try again",
        };
        told.push(Told::Warning(Warning {
            reason: WarningReason::NotAcknowledged,
            message: format!("{id} was not acknowledged: {problem}"),
            position,
            channel: None,
        }));
    }

    /// Tells what has waited and was committed meanwhile: all that is recorded later comes later.
    fn catch_up(&mut self, position: SamplePos, told: &mut Vec<Told>) {
        while let Some(recorded) = self.waiting.front_mut().and_then(|later| later.try_recv().ok())
        {
            self.waiting.pop_front();
            self.hear(News::Committed(recorded), position, told);
        }
    }

    /// The next thing that happens by itself; never, if nothing does.
    ///
    /// # Cancellation
    /// Safe: what has come stays until it is returned.
    pub(super) async fn news(&mut self) -> News {
        let first = self.waiting.front_mut();
        let committed = async {
            match first {
                Some(later) => later.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            committed = committed => {
                self.waiting.pop_front();
                committed.map_or(News::Lost, News::Committed)
            }
            Some(occurrence) = self.mailbox.recv() => News::Happened(Box::new(occurrence)),
        }
    }

    /// Takes news.
    pub(super) fn hear(&mut self, news: News, position: SamplePos, told: &mut Vec<Told>) {
        match news {
            News::Committed(recorded) => {
                self.tell(recorded, told);
                if self.waiting.is_empty() && std::mem::take(&mut self.not_durable) {
                    told.push(Told::Warning(Warning {
                        reason: WarningReason::EscalationsDurable,
                        message: "the store is back: escalations are durable and on their way"
                            .to_owned(),
                        position,
                        channel: None,
                    }));
                }
            }
            News::Lost => {
                self.lost = true;
                told.push(Told::Warning(Warning {
                    reason: WarningReason::EscalationLost,
                    message:
                        "an escalation could not be kept and will not be delivered; act on it \
                          yourself"
                            .to_owned(),
                    position,
                    channel: None,
                }));
            }
            News::Happened(occurrence) => {
                // Decisions of this session are told where they are made.
                if occurrence.kind == Kind::Acknowledged {
                    self.tell(Recorded::New(vec![*occurrence]), told);
                }
            }
        }
    }

    /// The escalations in force on a channel and the highest severity among them.
    pub(super) fn in_force(&self, channel: Option<u32>) -> InForce {
        let here =
            || self.open.iter().filter(move |open| channel.is_none_or(|c| c == open.channel));
        InForce {
            severity: here().map(|open| open.severity).max(),
            ids: here().map(|open| open.id).collect(),
        }
    }
}

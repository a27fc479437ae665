//! Checkpoints, and the end of a session that may go on elsewhere.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::{Outcome, Response, Session, news};
use crate::session::alarm::Alarm;
use crate::session::checkpoint::{Progress, Resuming, Saved, SavedPolicy};
use crate::session::error::SessionError;
use crate::session::token::TokenError;
use crate::telemetry::metrics;
use crate::units::SamplePos;
use crate::wire::parse::PolicyChoice;
use crate::wire::{render, v1};

/// How a session is saved now and then.
pub(in crate::session) struct Checkpoints {
    resuming: Resuming,
    /// Audio between two of them.
    interval: Duration,
    /// The client's configuration, encoded.
    config: Vec<u8>,
    /// The audio at which the next one is.
    due: Duration,
    /// When the client was last given a token, or came with one.
    given: Option<Instant>,
    /// Whether the log has been told that the session's state is too large for a token.
    told_too_large: bool,
}

impl Checkpoints {
    /// For a session at `position` that `resumes` another one or does not.
    pub(in crate::session) fn new(
        resuming: Resuming,
        interval: Duration,
        config: Vec<u8>,
        position: Duration,
        resumes: bool,
    ) -> Self {
        Self {
            resuming,
            interval,
            config,
            due: position + interval,
            given: resumes.then(Instant::now),
            told_too_large: false,
        }
    }

    /// The time between two checkpoints where a client asks for `asked`. The newest token must not expire
    /// before the next one comes.
    pub(in crate::session) fn interval(resuming: &Resuming, asked: Duration) -> Duration {
        asked.max(resuming.min_interval).min(resuming.window / 2)
    }

    /// Whether the client has a token that is still taken.
    fn is_valid(&self) -> bool {
        self.given.is_some_and(|given| given.elapsed() < self.resuming.window)
    }
}

pub(in crate::session) fn resume_point(
    progress: &Progress,
    position: SamplePos,
) -> v1::ResumePoint {
    v1::ResumePoint {
        audio_bytes: progress.bytes,
        position: Some(render::duration(position.duration())),
        sequence: progress.sequence,
        requests: progress.requests,
    }
}

impl Session<'_> {
    /// Whether the session may be gone on with in another stream.
    pub(super) fn may_go_on(&self) -> bool {
        !self.half_closed && self.checkpoints.as_ref().is_some_and(Checkpoints::is_valid)
    }

    /// Gives the client a checkpoint, if it is time for one and nothing stands against it.
    pub(super) async fn save_if_due(&mut self) -> Result<(), SessionError> {
        let position = self.analysis.position().duration();
        if self.checkpoints.as_ref().is_none_or(|checkpoints| position < checkpoints.due) {
            return Ok(());
        }
        match self.checkpoint() {
            Some(checkpoint) => self.outbox.send(Response::Checkpoint(checkpoint)).await,
            None => Ok(()),
        }
    }

    /// From here the session can be gone on with; `None` if it has no checkpoints, or cannot have one now.
    fn checkpoint(&mut self) -> Option<v1::Checkpoint> {
        let checkpoints = self.checkpoints.as_mut()?;
        let policy = match &mut self.alarm {
            None => None,
            Some(alarm) => {
                if !checkpoints.is_valid() {
                    alarm.forget_lost();
                }
                let (watcher, state) = alarm.state()?;
                // One that the client brought is part of its configuration.
                let text = match self.settings.policy {
                    PolicyChoice::Inline(_) => None,
                    PolicyChoice::Default | PolicyChoice::None | PolicyChoice::Named(_) => {
                        Some(alarm.policy().text().to_owned())
                    }
                };
                Some(SavedPolicy { text, watcher, alarm: state })
            }
        };
        let position = self.analysis.position();
        let saved = Saved {
            config: checkpoints.config.clone(),
            session_id: self.id.clone(),
            progress: self.progress,
            analysis: self.analysis.state(),
            policy,
        };
        checkpoints.due = position.duration() + checkpoints.interval;
        let resuming = &checkpoints.resuming;
        let token = match resuming.seal(self.permit.identity(), &saved) {
            Ok(token) => token,
            Err(TokenError::TooLarge { actual, limit }) => {
                if !std::mem::replace(&mut checkpoints.told_too_large, true) {
                    tracing::warn!(actual, limit, "no checkpoint: max_resume_token_bytes");
                }
                return None;
            }
            Err(error) => {
                tracing::error!(%error, "no checkpoint");
                return None;
            }
        };
        metrics().checkpoint(token.len());
        checkpoints.given = Some(Instant::now());
        Some(v1::Checkpoint {
            resume_token: token,
            point: Some(resume_point(&self.progress, position)),
            valid_for: Some(render::duration(resuming.window)),
        })
    }

    pub(super) async fn drain(&mut self) -> Result<Outcome, SessionError> {
        let deadline = self.limits.drain_deadline;
        if self.checkpoints.is_some() {
            self.settle(deadline / 4).await?;
        }
        let draining = v1::Draining {
            deadline: Some(render::duration(deadline)),
            checkpoint: self.checkpoint(),
        };
        self.outbox.send(Response::Draining(draining)).await?;
        if self.may_go_on() {
            // Nothing ends here: what the client hears next, it hears elsewhere.
            self.sum_up(v1::FinishReason::Draining).await?;
        } else {
            self.finish(v1::FinishReason::Draining).await?;
        }
        Ok(Outcome::Drained)
    }

    /// Waits for what is not durable yet, `limit` at most.
    async fn settle(&mut self, limit: Duration) -> Result<(), SessionError> {
        let until = Instant::now() + limit;
        while self.alarm.as_ref().is_some_and(Alarm::is_waiting) {
            let Ok(news) = timeout_at(until, news(self.alarm.as_mut())).await else {
                return Ok(());
            };
            self.hear(news).await?;
        }
        Ok(())
    }
}

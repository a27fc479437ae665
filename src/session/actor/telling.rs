//! What the client is told, in the order of the audio.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Response, Session};
use crate::emotion::Emotion;
use crate::escalation::Kind;
use crate::session::alarm::Told;
use crate::session::error::SessionError;
use crate::session::recent::Latest;
use crate::telemetry::metrics;
use crate::telemetry::stage::{self, Stage};
use crate::tracking::Abstain;
use crate::units::{HOP_SAMPLES, samples_to_duration};
use crate::wire::event::{Event, Warning};
use crate::wire::{render, v1};

/// The way to the client.
pub(in crate::session) struct Outbox<'a> {
    pub(in crate::session) sender: &'a mpsc::Sender<v1::StreamEmotionResponse>,
    pub(in crate::session) limit: Duration,
}

impl Outbox<'_> {
    pub(super) async fn send(&self, response: Response) -> Result<(), SessionError> {
        let response = v1::StreamEmotionResponse { message: Some(response) };
        match timeout(self.limit, self.sender.send(response)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SessionError::Vanished),
            Err(_) => Err(SessionError::Unread { limit: self.limit }),
        }
    }
}

impl Session<'_> {
    /// Sends what there is to tell about escalations.
    pub(super) async fn tell(&mut self) -> Result<(), SessionError> {
        if let Some(alarm) = self.alarm.as_ref().filter(|_| !self.told.is_empty()) {
            self.guard.entry.recent.in_force(alarm.in_force(None));
        }
        let mut told = std::mem::take(&mut self.told);
        for one in told.drain(..) {
            let response = match one {
                Told::Event(occurrence, _)
                    if occurrence.kind == Kind::Updated
                        && !self.settings.wants_escalation_updates =>
                {
                    None
                }
                Told::Event(occurrence, durable) => Some(Response::Escalation(
                    render::escalation_event(&occurrence, durable).into(),
                )),
                Told::Warning(warning) => self.warn(&warning),
            };
            if let Some(response) = response {
                self.outbox.send(response).await?;
            }
        }
        self.told = told;
        Ok(())
    }

    /// Sends what has happened.
    pub(super) async fn flush(&mut self) -> Result<(), SessionError> {
        if self.events.is_empty() {
            return Ok(());
        }
        let began = stage::begin();
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            if let Event::Reading(reading) = event {
                if let Some(alarm) = &mut self.alarm {
                    alarm.read(&reading, &mut self.told).await;
                    self.tell().await?;
                }
            } else if let Some(response) = self.render(event) {
                let is_estimate = matches!(response, Response::Estimate(_));
                self.outbox.send(response).await?;
                if let Some(arrived) = self.arrived.filter(|_| is_estimate) {
                    metrics().estimate_queued(arrived.elapsed());
                }
            }
        }
        self.events = events;
        stage::end(Stage::Send, began);
        Ok(())
    }

    fn warn(&mut self, warning: &Warning) -> Option<Response> {
        self.settings.wants_warnings.then(|| {
            metrics().warning(warning.reason.name());
            self.trace.warning(warning.reason.name());
            Response::Warning(render::warning(warning))
        })
    }

    fn render(&mut self, event: Event) -> Option<Response> {
        let labels: &[Emotion] = self.model.manifest.labels();
        match event {
            Event::Estimate(estimate) => {
                self.progress.estimates += 1;
                self.guard.entry.estimates.store(self.progress.estimates, Ordering::Relaxed);
                let abstains = estimate.judgement.abstains.map(Abstain::name);
                metrics().estimate(abstains);
                self.trace.estimate(estimate.channel, abstains);
                let channel = Some(estimate.channel);
                let in_force = self.alarm.as_ref().map(|alarm| alarm.in_force(channel));
                let in_force = in_force.unwrap_or_default();
                let mut rendered = render::estimate(&estimate, labels);
                render::in_force(&mut rendered, in_force.severity, &in_force.ids);
                self.guard.entry.recent.estimate(Latest { estimate, in_force });
                Some(Response::Estimate(rendered.into()))
            }
            Event::Utterance(utterance) => {
                metrics().utterance();
                let speech = utterance.speech_hops * HOP_SAMPLES as u64;
                let speech = samples_to_duration(speech).as_secs_f64();
                self.trace.utterance(utterance.channel, speech);
                self.guard.entry.recent.utterance(&utterance);
                self.settings
                    .wants_utterances
                    .then(|| Response::Utterance(render::utterance(&utterance, labels).into()))
            }
            Event::Warning(warning) => self.warn(&warning),
            Event::Reading(_) => None,
        }
    }
}

//! One stream's actor: config first, then audio, marks and turns; estimates and events back.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, Permit};
use super::alarm::{Alarm, News, Told};
use super::analysis::Analysis;
use super::checkpoint::{Progress, Resuming, Saved, SavedPolicy};
use super::error::{SessionError, invalid};
use super::opening::{Opening, read_config};
use super::registry::{Guard, Registry};
use crate::emotion::Emotion;
use crate::escalation::{Kind, Recorder};
use crate::model::{Model, Models};
use crate::policy::{Library, Severity};
use crate::telemetry::metrics;
use crate::telemetry::stage::{self, Stage};
use crate::telemetry::trace::SessionTrace;
use crate::tracking::Abstain;
use crate::units::{HOP_SAMPLES, SamplePos, samples_to_duration};
use crate::wire::event::{Event, MarkReached, Warning, WarningReason};
use crate::wire::parse::{Defaults, StreamSettings, acknowledgement};
use crate::wire::v1::stream_emotion_request::Message as Request;
use crate::wire::v1::stream_emotion_response::Message as Response;
use crate::wire::{render, v1};

/// Responses on their way to one client: two seconds of the busiest sensible stream, eight channels
/// with estimates every second. When it is full, the session stops reading.
pub const OUTBOX: usize = 16;

/// What a stream may do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest chunk, bytes.
    pub max_chunk_bytes: usize,
    /// Longest stream, by its audio.
    pub max_audio: Duration,
    /// Longest time without a message.
    pub idle_timeout: Duration,
    /// Longest time until the first one, the configuration.
    pub config_timeout: Duration,
    /// Longest time that the client may leave responses unread.
    pub send_timeout: Duration,
    /// How many times faster than real time audio may come after the burst; 0 for no limit.
    pub max_realtime_factor: f32,
    /// Audio that may come at any speed.
    pub burst: Duration,
    /// Silence after which a warning is sent.
    pub no_speech: Duration,
    /// Time that a draining server leaves its streams.
    pub drain_deadline: Duration,
    /// Time between two chunks whose stages are traced.
    pub stage_interval: Duration,
}

/// How sessions raise escalations.
#[derive(Debug, Clone)]
pub struct Escalating {
    /// The policies that they can name.
    pub library: Arc<Library>,
    /// The policy of those that name none; empty for none.
    pub default_policy: String,
    /// Whether they may bring their own, and how severe its rules may be.
    pub inline: Option<Severity>,
    /// Where it is recorded what happens.
    pub recorder: Recorder,
}

/// What all sessions share.
#[derive(Debug, Clone)]
pub struct Context {
    /// The models.
    pub models: Models,
    /// What a session gets that does not say.
    pub defaults: Defaults,
    /// What it may do.
    pub limits: Limits,
    /// Who gets in.
    pub admission: Arc<Admission>,
    /// The live sessions.
    pub registry: Arc<Registry>,
    /// How they raise escalations; `None` where nothing is kept.
    pub escalating: Option<Escalating>,
    /// How they are gone on with elsewhere; `None` for not at all.
    pub resuming: Option<Resuming>,
    /// Cancelled when the server begins to end.
    pub draining: CancellationToken,
}

/// Why the requests ended badly.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The client has gone.
    #[error("the client has gone: {0}")]
    Vanished(String),
    /// A message that the transport refuses: not decodable.
    #[error("{0}")]
    Refused(String),
    /// A message that is too large for the transport.
    #[error("{0}")]
    TooLarge(String),
}

/// Where requests come from.
pub trait Source: Send {
    /// The next request; `None` when the client has half-closed.
    ///
    /// # Cancellation
    /// Must be safe: the session waits for other things at the same time.
    fn next(
        &mut self,
    ) -> impl Future<Output = Result<Option<v1::StreamEmotionRequest>, SourceError>> + Send;
}

/// How a session ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The client half-closed; everything was answered.
    Finished,
    /// The server ended; everything that had come was answered.
    Drained,
}

/// Runs one session to its end, under `permit`. What is said to the client goes to `outbox`.
///
/// # Errors
/// [`SessionError`], to be told to the client.
///
/// # Cancellation
/// Dropping the future ends the session at once and frees all that it held.
pub async fn run(
    context: &Context,
    permit: &Permit,
    source: &mut impl Source,
    outbox: &mpsc::Sender<v1::StreamEmotionResponse>,
) -> Result<Outcome, SessionError> {
    let opening = SystemTime::now();
    // A client that has said nothing yet has nothing to be finished.
    let asked = tokio::select! {
        biased;
        () = context.draining.cancelled() => return Err(SessionError::Draining),
        asked = read_config(context, permit.identity(), source) => asked?,
    };
    let resumes = asked.saved.is_some();
    // What only the beginning needs is given back before the session lives on.
    let begun = Box::pin(async { Opening::new(context, permit, asked)?.begin(outbox).await }).await;
    if resumes {
        metrics().resume_asked(if begun.is_ok() { "resumed" } else { "refused" });
    }
    let (mut session, started) = begun?;
    let replaced = session.guard.entry.replaced.clone();
    let (id, checkpointed) = (session.id.clone(), session.checkpoints.is_some());
    let working = async {
        session.outbox.send(Response::Started(started.into())).await?;
        session.trace.opened(opening);
        session.greet().await?;
        session.work(source, &context.draining).await
    };
    // Whoever has taken over must not wait for a client that has gone: what is under way is dropped.
    let worked = tokio::select! {
        biased;
        () = replaced.cancelled() => Err(SessionError::Replaced(id)),
        worked = working => worked,
    };
    // One with checkpoints may be gone on with. If it is not, the store notices.
    if worked.is_err() && !checkpointed {
        session.leave().await;
    }
    let Progress { chunks, estimates, .. } = session.progress;
    session.trace.ended(chunks, estimates, session.analysis.position().seconds());
    worked
}

pub(super) fn resume_point(progress: &Progress, position: SamplePos) -> v1::ResumePoint {
    v1::ResumePoint {
        audio_bytes: progress.bytes,
        position: Some(render::duration(position.duration())),
        sequence: progress.sequence,
    }
}

/// The way to the client.
pub(super) struct Outbox<'a> {
    pub(super) sender: &'a mpsc::Sender<v1::StreamEmotionResponse>,
    pub(super) limit: Duration,
}

impl Outbox<'_> {
    async fn send(&self, response: Response) -> Result<(), SessionError> {
        let response = v1::StreamEmotionResponse { message: Some(response) };
        match timeout(self.limit, self.sender.send(response)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SessionError::Vanished),
            Err(_) => Err(SessionError::Unread { limit: self.limit }),
        }
    }
}

/// How a session is saved now and then.
pub(super) struct Checkpoints {
    pub(super) resuming: Resuming,
    pub(super) interval: Duration,
    /// The client's configuration, encoded.
    pub(super) config: Vec<u8>,
    /// The audio at which the next one is.
    pub(super) due: Duration,
}

pub(super) struct Session<'a> {
    pub(super) limits: Limits,
    pub(super) permit: &'a Permit,
    pub(super) settings: StreamSettings,
    pub(super) model: Arc<Model>,
    pub(super) id: String,
    /// Audio before this came in another stream.
    pub(super) paced_from: SamplePos,
    pub(super) analysis: Analysis,
    pub(super) alarm: Option<Alarm>,
    pub(super) guard: Guard,
    pub(super) outbox: Outbox<'a>,
    pub(super) began: Instant,
    /// Kept for its room.
    pub(super) events: Vec<Event>,
    /// Kept for its room.
    pub(super) told: Vec<Told>,
    pub(super) progress: Progress,
    pub(super) checkpoints: Option<Checkpoints>,
    /// When the chunk at hand arrived; none is, while the stream is finished.
    pub(super) arrived: Option<Instant>,
    pub(super) trace: SessionTrace,
}

impl Session<'_> {
    /// Tells what has happened between two streams of a session.
    async fn greet(&mut self) -> Result<(), SessionError> {
        if let Some(alarm) = self.alarm.as_mut().filter(|_| self.paced_from.0 > 0) {
            alarm.greet(&mut self.told).await;
        }
        self.tell().await
    }

    async fn work(
        &mut self,
        source: &mut impl Source,
        draining: &CancellationToken,
    ) -> Result<Outcome, SessionError> {
        let mut drained = pin!(draining.cancelled());
        let limit = self.limits.idle_timeout;
        // One timer that is set again when it runs out, not one for each message.
        let mut idle = pin!(sleep(limit));
        let mut last = Instant::now();
        loop {
            // All branches are cancel-safe: waiting for a token or a moment holds nothing, and a source
            // and an alarm keep what they have until they give it whole (see `Source::next`).
            let next = tokio::select! {
                biased;
                () = &mut drained => return self.drain().await,
                news = news(self.alarm.as_mut()) => {
                    self.hear(news).await?;
                    continue;
                }
                next = source.next() => next,
                () = &mut idle => {
                    if last.elapsed() >= limit {
                        return Err(SessionError::Idle { limit });
                    }
                    idle.as_mut().reset(last + limit);
                    continue;
                }
            };
            let Some(request) = next.map_err(SessionError::from)? else {
                self.finish(v1::FinishReason::Client).await?;
                return Ok(Outcome::Finished);
            };
            self.handle(request).await?;
            self.save_if_due().await?;
            last = Instant::now();
        }
    }

    async fn handle(&mut self, request: v1::StreamEmotionRequest) -> Result<(), SessionError> {
        match request.message {
            Some(Request::Audio(chunk)) => self.audio(chunk).await,
            Some(Request::Mark(mark)) => {
                if mark.name.len() > 255 {
                    return Err(invalid("mark.name", "must be at most 255 bytes"));
                }
                let position = self.analysis.position();
                let mark = MarkReached { name: mark.name, position };
                self.outbox.send(Response::Mark(render::mark(&mark))).await
            }
            Some(Request::Turn(turn)) => {
                use v1::turn::Boundary;
                match Boundary::try_from(turn.boundary) {
                    Ok(Boundary::Start | Boundary::End) => {
                        self.analysis.turn(&mut self.events);
                        self.flush().await
                    }
                    Ok(Boundary::Unspecified) | Err(_) => {
                        Err(invalid("turn.boundary", "must be BOUNDARY_START or BOUNDARY_END"))
                    }
                }
            }
            Some(Request::Acknowledge(acknowledge)) => self.acknowledge(acknowledge).await,
            Some(Request::Config(_)) => Err(SessionError::ConfigTwice),
            None => Err(invalid("message", "is empty: set one of audio, mark, turn, acknowledge")),
        }
    }

    async fn acknowledge(&mut self, asked: v1::Acknowledge) -> Result<(), SessionError> {
        let fields = ["acknowledge.escalation_id", "acknowledge.actor", "acknowledge.note"];
        let parts = (asked.escalation_id.as_str(), asked.actor.as_str(), asked.note.as_str());
        let acknowledged = acknowledgement(parts, fields).map_err(SessionError::Invalid)?;
        let Some(alarm) = &mut self.alarm else {
            return Err(invalid("acknowledge", "this stream has no policy, so no escalations"));
        };
        let position = self.analysis.position();
        alarm.acknowledge(acknowledged, self.permit.identity(), position, &mut self.told).await;
        self.tell().await
    }

    async fn hear(&mut self, news: News) -> Result<(), SessionError> {
        let position = self.analysis.position();
        if let Some(alarm) = &mut self.alarm {
            alarm.hear(news, position, &mut self.told);
        }
        self.tell().await
    }

    /// Sends what there is to tell about escalations.
    async fn tell(&mut self) -> Result<(), SessionError> {
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

    /// The client has gone, or has to go: what is in force is left to others, who are told.
    async fn leave(&mut self) {
        let position = self.analysis.position();
        if let Some(alarm) = &mut self.alarm {
            alarm.finish(position, &mut self.told).await;
        }
    }

    async fn audio(&mut self, chunk: v1::AudioChunk) -> Result<(), SessionError> {
        let limit = self.limits.max_chunk_bytes;
        if chunk.data.len() > limit {
            return Err(SessionError::ChunkTooLarge { limit, actual: chunk.data.len() });
        }
        if chunk.data.is_empty() {
            return Err(invalid("audio.data", "is empty"));
        }
        let arrived = Instant::now();
        let before = self.analysis.position();
        self.check_sequence(chunk.sequence);
        let progress = &mut self.progress;
        progress.captured_at_us = chunk.captured_at_us.or(progress.captured_at_us);
        self.arrived = Some(arrived);
        // 10,000 chunks a second pass here: one is looked at now and then.
        if self.trace.wants_chunk(arrived.into_std()) {
            let (analysed, laps) = stage::timed(self.analyse(&chunk.data)).await;
            analysed?;
            self.trace.chunk(chunk.data.len(), &laps);
        } else {
            self.analyse(&chunk.data).await?;
        }
        self.arrived = None;
        self.progress.chunks += 1;
        self.progress.bytes += chunk.data.len() as u64;
        let position = self.analysis.position();
        let seconds = position.seconds() - before.seconds();
        let hops = position.0 / HOP_SAMPLES as u64 - before.0 / HOP_SAMPLES as u64;
        metrics().chunk(seconds, hops, arrived.elapsed());
        let audio_ms = u64::try_from(position.duration().as_millis()).unwrap_or(u64::MAX);
        self.guard.entry.audio_ms.store(audio_ms, Ordering::Relaxed);
        self.permit.charge(position.duration().saturating_sub(before.duration()))?;
        self.check_pace(position, arrived)
    }

    async fn analyse(&mut self, data: &[u8]) -> Result<(), SessionError> {
        // Long chunks are told about as they are worked through.
        for slice in data.chunks(PART_BYTES) {
            self.analysis.push(slice, &mut self.events).await?;
            self.flush().await?;
        }
        Ok(())
    }

    fn check_sequence(&mut self, sequence: Option<u64>) {
        let Some(sequence) = sequence else {
            return;
        };
        if let Some(last) = self.progress.sequence.replace(sequence)
            && sequence != last.wrapping_add(1)
        {
            self.events.push(Event::Warning(Warning {
                reason: WarningReason::SequenceGap,
                message: format!("chunk {sequence} came after chunk {last}"),
                position: self.analysis.position(),
                channel: None,
            }));
        }
    }

    fn check_pace(&self, position: SamplePos, now: Instant) -> Result<(), SessionError> {
        let audio = samples_to_duration(position.0);
        if audio > self.limits.max_audio {
            return Err(SessionError::TooLong { limit: self.limits.max_audio });
        }
        let (factor, burst) = (self.limits.max_realtime_factor, self.limits.burst);
        if factor == 0.0 {
            return Ok(());
        }
        let here = audio.saturating_sub(samples_to_duration(self.paced_from.0));
        let due = here.saturating_sub(burst).div_f32(factor);
        match due.checked_sub(now.duration_since(self.began)) {
            Some(retry) if !retry.is_zero() => Err(SessionError::TooFast { factor, burst, retry }),
            _ => Ok(()),
        }
    }

    /// Sends what has happened.
    async fn flush(&mut self) -> Result<(), SessionError> {
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
                let mut rendered = render::estimate(&estimate, labels);
                if let Some(alarm) = &self.alarm {
                    let (severity, ids) = alarm.in_force(estimate.channel);
                    render::in_force(&mut rendered, severity, &ids);
                }
                Some(Response::Estimate(rendered.into()))
            }
            Event::Utterance(utterance) => {
                metrics().utterance();
                let speech = utterance.speech_hops * HOP_SAMPLES as u64;
                let speech = samples_to_duration(speech).as_secs_f64();
                self.trace.utterance(utterance.channel, speech);
                self.settings
                    .wants_utterances
                    .then(|| Response::Utterance(render::utterance(&utterance, labels).into()))
            }
            Event::Warning(warning) => self.warn(&warning),
            Event::Reading(_) => None,
        }
    }

    /// Gives the client a checkpoint, if it is time for one and nothing stands against it.
    async fn save_if_due(&mut self) -> Result<(), SessionError> {
        let position = self.analysis.position().duration();
        if self.checkpoints.as_ref().is_none_or(|checkpoints| position < checkpoints.due) {
            return Ok(());
        }
        let Some(checkpoint) = self.checkpoint() else {
            return Ok(());
        };
        if let Some(checkpoints) = &mut self.checkpoints {
            checkpoints.due = position + checkpoints.interval;
        }
        self.outbox.send(Response::Checkpoint(checkpoint)).await
    }

    /// From here the session can be gone on with; `None` if it has no checkpoints, or cannot have one now.
    fn checkpoint(&self) -> Option<v1::Checkpoint> {
        let Checkpoints { resuming, config, .. } = self.checkpoints.as_ref()?;
        let policy = match &self.alarm {
            None => None,
            Some(alarm) => {
                let (watcher, state) = alarm.state()?;
                let text = alarm.policy().text().to_owned();
                Some(SavedPolicy { text, watcher, alarm: state })
            }
        };
        let saved = Saved {
            config: config.clone(),
            session_id: self.id.clone(),
            progress: self.progress,
            analysis: self.analysis.state(),
            policy,
        };
        let Some(token) = resuming.seal(self.permit.identity(), &saved) else {
            tracing::warn!(limit = resuming.max_bytes, "no checkpoint: max_resume_token_bytes");
            return None;
        };
        metrics().checkpoint(token.len());
        Some(v1::Checkpoint {
            resume_token: token,
            point: Some(resume_point(&self.progress, self.analysis.position())),
            valid_for: Some(render::duration(resuming.window)),
        })
    }

    async fn drain(&mut self) -> Result<Outcome, SessionError> {
        let deadline = self.limits.drain_deadline;
        if self.checkpoints.is_some() {
            self.settle(deadline / 4).await?;
        }
        let draining = v1::Draining {
            deadline: Some(render::duration(deadline)),
            checkpoint: self.checkpoint(),
        };
        let broken_off = self.checkpoints.is_some();
        self.outbox.send(Response::Draining(draining)).await?;
        if broken_off {
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
            let Ok(news) = tokio::time::timeout_at(until, news(self.alarm.as_mut())).await else {
                return Ok(());
            };
            self.hear(news).await?;
        }
        Ok(())
    }

    async fn finish(&mut self, reason: v1::FinishReason) -> Result<(), SessionError> {
        self.analysis.finish(&mut self.events).await?;
        self.flush().await?;
        self.leave().await;
        self.tell().await?;
        self.sum_up(reason).await
    }

    async fn sum_up(&mut self, reason: v1::FinishReason) -> Result<(), SessionError> {
        let labels = self.model.manifest.labels();
        let channels = self
            .analysis
            .summaries()
            .iter()
            .map(|summary| render::channel_summary(summary, labels))
            .collect();
        let finished = v1::Finished {
            reason: reason.into(),
            audio: Some(render::duration(self.analysis.position().duration())),
            chunks: self.progress.chunks,
            estimates: self.progress.estimates,
            channels,
            last_captured_at_us: self.progress.captured_at_us,
        };
        self.outbox.send(Response::Finished(finished.into())).await
    }
}

/// What happens to a session's escalations while its client says nothing.
async fn news(alarm: Option<&mut Alarm>) -> News {
    match alarm {
        Some(alarm) => alarm.news().await,
        None => std::future::pending().await,
    }
}

/// Bytes of a chunk that are analysed before its events are sent: about a second at 16 kHz.
const PART_BYTES: usize = 32 * 1024;

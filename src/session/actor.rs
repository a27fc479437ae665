//! One stream's actor: config first, then audio, marks and turns; estimates and events back.

mod saving;
mod telling;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::admission::Permit;
use super::alarm::{Alarm, News, Told};
use super::analysis::Analysis;
use super::checkpoint::Progress;
use super::context::{Context, Limits, Outcome, Source};
use super::error::{SessionError, invalid};
use super::opening::{Opening, read_config};
use super::registry::Guard;
use crate::model::Model;
use crate::telemetry::metrics;
use crate::telemetry::stage;
use crate::telemetry::trace::SessionTrace;
use crate::units::{HOP_SAMPLES, SamplePos, samples_to_duration};
use crate::wire::event::{Event, MarkReached, Warning, WarningReason};
use crate::wire::parse::{StreamSettings, acknowledgement};
use crate::wire::v1::stream_emotion_request::Message as Request;
use crate::wire::v1::stream_emotion_response::Message as Response;
use crate::wire::{render, v1};

pub(super) use saving::{Checkpoints, resume_point};
pub(super) use telling::Outbox;

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
        asked = Box::pin(read_config(context, permit.identity(), source)) => asked?,
    };
    let resumes = asked.saved.is_some();
    // What only the beginning or the end needs has no place in what each stream holds while it lives.
    let begun = Box::pin(async { Opening::new(context, permit, asked)?.begin(outbox).await }).await;
    if resumes {
        metrics()
            .resume_asked(begun.as_ref().err().map_or("resumed", SessionError::resume_refusal));
    }
    let (mut session, started) = begun?;
    let replaced = session.guard.entry.replaced.clone();
    let id = session.id.clone();
    let working = async {
        session.outbox.send(Response::Started(started.into())).await?;
        session.trace.opened(opening);
        Box::pin(session.greet()).await?;
        session.work(source, &context.draining).await
    };
    // Whoever has taken over must not wait for a client that has gone: what is under way is dropped.
    let worked = tokio::select! {
        biased;
        () = replaced.cancelled() => Err(SessionError::Replaced(id)),
        worked = working => worked,
    };
    // One that may be gone on with is not ended here. If nobody does, the store notices.
    let is_over = match &worked {
        Ok(_) => false,
        Err(SessionError::TooLong { .. }) => true,
        Err(_) => !session.may_go_on(),
    };
    if is_over {
        Box::pin(session.leave()).await;
    }
    let Progress { chunks, estimates, .. } = session.progress;
    session.trace.ended(chunks, estimates, session.analysis.position().seconds());
    worked
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
    /// Whether the client has said all that it had to say.
    pub(super) half_closed: bool,
    /// When the chunk at hand arrived; none is, while the stream is finished.
    pub(super) arrived: Option<Instant>,
    pub(super) trace: SessionTrace,
}

impl Session<'_> {
    /// Tells what has happened between two streams of a session.
    async fn greet(&mut self) -> Result<(), SessionError> {
        if let Some(alarm) = self.alarm.as_mut().filter(|_| self.paced_from.0 > 0) {
            alarm.greet(&mut self.told).await;
            self.guard.entry.recent.in_force(alarm.in_force(None));
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
                () = &mut drained => return Box::pin(self.drain()).await,
                news = news(self.alarm.as_mut()) => {
                    self.hear(news).await?;
                    continue;
                }
                next = source.next() => next,
                () = &mut idle => {
                    let due = last + limit;
                    if due.elapsed() >= FROZEN {
                        // What came meanwhile has still to be read.
                        last = Instant::now();
                    } else if last.elapsed() >= limit {
                        return Err(SessionError::Idle { limit });
                    }
                    idle.as_mut().reset(last + limit);
                    continue;
                }
            };
            let Some(request) = next.map_err(SessionError::from)? else {
                self.half_closed = true;
                Box::pin(self.finish(v1::FinishReason::Client)).await?;
                return Ok(Outcome::Finished);
            };
            self.handle(request).await?;
            self.progress.requests += 1;
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
        self.check_pace(position, arrived)
    }

    async fn analyse(&mut self, data: &[u8]) -> Result<(), SessionError> {
        // Long chunks are told about as they are worked through.
        for slice in data.chunks(PART_BYTES) {
            let before = self.analysis.position().duration();
            self.analysis.push(slice, &mut self.events).await?;
            // Before anything is sent: what is done is charged, also to a client that goes meanwhile.
            let audio = self.analysis.position().duration().saturating_sub(before);
            let charged = self.permit.charge(audio);
            self.flush().await?;
            charged?;
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

/// A timer that comes so late has not been kept by a busy machine: the process was frozen, and the client is not
/// the one that was idle.
const FROZEN: Duration = Duration::from_secs(1);
/// Bytes of a chunk that are analysed before its events are sent: about a second at 16 kHz.
const PART_BYTES: usize = 32 * 1024;

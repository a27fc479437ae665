//! One stream's actor: config first, then audio, marks and turns; estimates and events back.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::admission::{self, Admission, Permit};
use super::alarm::{Alarm, MAILBOX, News, Told};
use super::analysis::{Analysis, AnalysisError};
use super::registry::{Guard, Refused, Registry};
use crate::emotion::Emotion;
use crate::escalation::{Kind, Origin, Recorder};
use crate::model::{Model, Models};
use crate::policy::{Library, MAX_BYTES, Policy, Severity};
use crate::telemetry::metrics;
use crate::tracking::Abstain;
use crate::units::{SamplePos, samples_to_duration};
use crate::wire::event::{Event, MarkReached, Warning, WarningReason};
use crate::wire::parse::{
    Defaults, PolicyChoice, StreamSettings, Violation, acknowledgement, stream_config,
};
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

/// Why a session ended badly. Each carries what the client needs to put it right.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A request with fields that cannot be used.
    #[error("invalid request")]
    Invalid(Vec<Violation>),
    /// Something came before the configuration.
    #[error("the first message must be `config`, not `{actual}`")]
    ConfigMissing {
        /// What came.
        actual: &'static str,
    },
    /// A second configuration.
    #[error("`config` came twice; open a new stream for another configuration")]
    ConfigTwice,
    /// No such model.
    #[error("there is no model {name:?}; loaded are {known}")]
    NoModel {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// No such policy.
    #[error("there is no policy {name:?}; known are {known}")]
    NoPolicy {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// The server keeps no escalations.
    #[error(
        "this server has no escalation store, so streams have no policies; set escalation_store"
    )]
    NoStore,
    /// The server takes no policies of clients.
    #[error("this server takes no policies of clients (inline_policies); name one of {known}")]
    NoInline {
        /// The names there are.
        known: String,
    },
    /// A live session has that name.
    #[error("a live session is named {0:?}; choose another session_id")]
    IdTaken(String),
    /// The server is full.
    #[error("the server serves {limit} streams and takes no more now")]
    Full {
        /// How many.
        limit: usize,
    },
    /// A quota is used up, or the server has no room.
    #[error(transparent)]
    Refused(#[from] admission::Refused),
    /// The server is about to end.
    #[error("the server is draining; connect elsewhere")]
    Draining,
    /// A chunk that is too large.
    #[error("audio.data has {actual} bytes, at most {limit} are taken; send smaller chunks")]
    ChunkTooLarge {
        /// Bytes allowed.
        limit: usize,
        /// Bytes sent.
        actual: usize,
    },
    /// The stream is longer than streams may be.
    #[error("the stream has reached its longest length, {limit:?} of audio; open a new one")]
    TooLong {
        /// Audio allowed.
        limit: Duration,
    },
    /// Audio comes too fast.
    #[error(
        "audio came more than {factor} times faster than real time for longer than {burst:?}; pace it"
    )]
    TooFast {
        /// How many times faster than real time it may come.
        factor: f32,
        /// Audio that may come at any speed.
        burst: Duration,
        /// When the audio sent so far would be allowed.
        retry: Duration,
    },
    /// Nothing came for too long.
    #[error("no message for {limit:?}; send audio, silence if need be, or half-close the stream")]
    Idle {
        /// Time allowed.
        limit: Duration,
    },
    /// The client does not read.
    #[error("responses were not read for {limit:?}")]
    Unread {
        /// Time allowed.
        limit: Duration,
    },
    /// The client has gone.
    #[error("the client has gone")]
    Vanished,
    /// A message that the transport refuses.
    #[error("{0}")]
    Transport(String),
    /// A message that is too large for the transport.
    #[error("{0}; send smaller chunks")]
    TooLarge(String),
    /// The audio or the engine failed.
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
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
    // A client that has said nothing yet has nothing to be finished.
    let (config, mut settings) = tokio::select! {
        biased;
        () = context.draining.cancelled() => return Err(SessionError::Draining),
        config = read_config(context, source) => config?,
    };
    let model = find_model(&context.models, &settings.model)?;
    let id = settings.session_id.clone().unwrap_or_else(new_session_id);
    let name = model.manifest.name.clone();
    let policy = find_policy(context, &settings.policy, &model)?;
    settings.analysis.readings = policy.is_some();
    let (mailbox, inbox) = mpsc::channel(MAILBOX);
    let mailbox = policy.is_some().then_some(mailbox);
    let guard = context
        .registry
        .enter(id.clone(), name.clone(), settings.labels.clone(), mailbox)
        .map_err(|refused| match refused {
            Refused::Taken => SessionError::IdTaken(id.clone()),
            Refused::Full { limit } => SessionError::Full { limit },
        })?;
    let analysis = Analysis::new(
        model.clone(),
        settings.format,
        &settings.lanes,
        &settings.analysis,
        context.limits.no_speech,
    )
    .map_err(AnalysisError::from)?;
    let mut limits = context.limits;
    limits.max_chunk_bytes = permit.chunk_bytes(limits.max_chunk_bytes);
    let span = tracing::info_span!("session", id, model = name);
    let started = v1::Started {
        session_id: id.clone(),
        config: Some(render::effective_config(&config, &settings, &id, &name)),
        model: Some(render::model(&model.manifest, context.models.is_default(&name))),
        limits: Some(render_limits(&limits)),
        policy: policy.as_ref().map(|(policy, escalating)| {
            render::policy(policy, policy.name() == escalating.default_policy)
        }),
    };
    let alarm = policy.map(|(policy, escalating)| {
        let origin = Origin {
            session_id: id.clone(),
            labels: settings.labels.clone(),
            policy: policy.name().to_owned(),
            policy_version: policy.version().to_owned(),
            model: name.clone(),
            model_version: model.manifest.version.clone(),
        };
        Alarm::new(policy, origin, escalating.recorder.clone(), inbox)
    });
    let mut session = Session {
        limits,
        permit,
        settings,
        model,
        analysis,
        alarm,
        guard,
        outbox: Outbox { sender: outbox, limit: context.limits.send_timeout },
        began: Instant::now(),
        events: Vec::new(),
        told: Vec::new(),
        chunks: 0,
        estimates: 0,
        sequence: None,
        captured_at_us: None,
    };
    drop(config);
    async {
        session.outbox.send(Response::Started(started.into())).await?;
        let worked = session.work(source, &context.draining).await;
        if worked.is_err() {
            session.leave().await;
        }
        worked
    }
    .instrument(span)
    .await
}

async fn read_config(
    context: &Context,
    source: &mut impl Source,
) -> Result<(v1::StreamConfig, StreamSettings), SessionError> {
    let limit = context.limits.config_timeout.min(context.limits.idle_timeout);
    // Cancel-safe as in `Session::work`. Who has not begun when the server drains need not begin.
    let first = tokio::select! {
        biased;
        () = context.draining.cancelled() => return Err(SessionError::Draining),
        first = timeout(limit, source.next()) => first,
    };
    let first = first.map_err(|_| SessionError::Idle { limit })?;
    let config = match first.map_err(source_error)? {
        Some(v1::StreamEmotionRequest { message: Some(Request::Config(config)) }) => *config,
        Some(v1::StreamEmotionRequest { message }) => {
            return Err(SessionError::ConfigMissing { actual: kind(message.as_ref()) });
        }
        None => return Err(SessionError::ConfigMissing { actual: "end of stream" }),
    };
    let settings = stream_config(&config, &context.defaults).map_err(SessionError::Invalid)?;
    Ok((config, settings))
}

fn find_model(models: &Models, name: &str) -> Result<Arc<Model>, SessionError> {
    models
        .get(name)
        .cloned()
        .ok_or_else(|| SessionError::NoModel { name: name.to_owned(), known: models.names() })
}

/// The policy that a stream has, checked against what the server allows.
fn find_policy<'a>(
    context: &'a Context,
    choice: &PolicyChoice,
    model: &Model,
) -> Result<Option<(Arc<Policy>, &'a Escalating)>, SessionError> {
    let Some(escalating) = &context.escalating else {
        return match choice {
            PolicyChoice::Default => Ok(None),
            PolicyChoice::Named(_) | PolicyChoice::Inline(_) => Err(SessionError::NoStore),
        };
    };
    let named = |name: &str| {
        escalating.library.get(name).ok_or_else(|| SessionError::NoPolicy {
            name: name.to_owned(),
            known: escalating.library.names(),
        })
    };
    let (policy, field) = match choice {
        PolicyChoice::Default if escalating.default_policy.is_empty() => return Ok(None),
        PolicyChoice::Default => (named(&escalating.default_policy)?, "config.policy_name"),
        PolicyChoice::Named(name) => (named(name)?, "config.policy_name"),
        PolicyChoice::Inline(text) => (inline_policy(escalating, text)?, "config.policy_yaml"),
    };
    if policy.needs_emotions() && model.manifest.labels().is_empty() {
        let problem = format!(
            "the policy {} looks at emotions, which the model {} does not tell",
            policy.name(),
            model.manifest.name
        );
        return Err(invalid(field, &problem));
    }
    Ok(Some((policy, escalating)))
}

fn inline_policy(escalating: &Escalating, text: &str) -> Result<Arc<Policy>, SessionError> {
    let Some(most) = escalating.inline else {
        return Err(SessionError::NoInline { known: escalating.library.names() });
    };
    let field = "config.policy_yaml";
    if text.len() > MAX_BYTES {
        let problem = format!("has {} bytes, at most {MAX_BYTES} are taken", text.len());
        return Err(invalid(field, &problem));
    }
    let policy = Policy::parse(text).map_err(|error| invalid(field, &error.to_string()))?;
    if let Some(rule) = policy.rules().iter().find(|rule| rule.severity() > most) {
        let problem = format!(
            "rule {} is {}, and at most {most} is taken of clients (inline_policy_severity)",
            rule.name(),
            rule.severity()
        );
        return Err(invalid(field, &problem));
    }
    Ok(Arc::new(policy))
}

fn new_session_id() -> String {
    // Version 7: sorts by time, so that listings and logs do.
    uuid::Uuid::now_v7().to_string()
}

fn source_error(error: SourceError) -> SessionError {
    match error {
        SourceError::Vanished(_) => SessionError::Vanished,
        SourceError::Refused(reason) => SessionError::Transport(reason),
        SourceError::TooLarge(reason) => SessionError::TooLarge(reason),
    }
}

fn kind(message: Option<&Request>) -> &'static str {
    match message {
        None => "empty message",
        Some(Request::Config(_)) => "config",
        Some(Request::Audio(_)) => "audio",
        Some(Request::Mark(_)) => "mark",
        Some(Request::Turn(_)) => "turn",
        Some(Request::Acknowledge(_)) => "acknowledge",
    }
}

fn render_limits(limits: &Limits) -> v1::StreamLimits {
    v1::StreamLimits {
        max_chunk_bytes: u32::try_from(limits.max_chunk_bytes).unwrap_or(u32::MAX),
        max_audio: Some(render::duration(limits.max_audio)),
        idle_timeout: Some(render::duration(limits.idle_timeout)),
        max_realtime_factor: limits.max_realtime_factor,
        burst: Some(render::duration(limits.burst)),
    }
}

/// The way to the client.
struct Outbox<'a> {
    sender: &'a mpsc::Sender<v1::StreamEmotionResponse>,
    limit: Duration,
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

struct Session<'a> {
    limits: Limits,
    permit: &'a Permit,
    settings: StreamSettings,
    model: Arc<Model>,
    analysis: Analysis,
    alarm: Option<Alarm>,
    guard: Guard,
    outbox: Outbox<'a>,
    began: Instant,
    /// Kept for its room.
    events: Vec<Event>,
    /// Kept for its room.
    told: Vec<Told>,
    chunks: u64,
    estimates: u64,
    /// The last chunk's number.
    sequence: Option<u64>,
    captured_at_us: Option<i64>,
}

impl Session<'_> {
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
            let Some(request) = next.map_err(source_error)? else {
                self.finish(v1::FinishReason::Client).await?;
                return Ok(Outcome::Finished);
            };
            self.handle(request).await?;
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
        alarm.acknowledge(acknowledged, position, &mut self.told).await;
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
        self.captured_at_us = chunk.captured_at_us.or(self.captured_at_us);
        // Spans at debug level cost nothing unless asked for: 10,000 chunks a second pass here.
        let span = tracing::debug_span!("chunk", bytes = chunk.data.len());
        let analysed = async {
            // Long chunks are told about as they are worked through.
            for slice in chunk.data.chunks(PART_BYTES) {
                self.analysis.push(slice, &mut self.events).await?;
                self.flush().await?;
            }
            Ok::<(), SessionError>(())
        };
        analysed.instrument(span).await?;
        self.chunks += 1;
        let position = self.analysis.position();
        let seconds = position.seconds() - before.seconds();
        metrics().chunk(seconds, arrived.elapsed());
        let audio_ms = u64::try_from(position.duration().as_millis()).unwrap_or(u64::MAX);
        self.guard.entry.audio_ms.store(audio_ms, Ordering::Relaxed);
        self.permit.charge(position.duration().saturating_sub(before.duration()))?;
        self.check_pace(position, arrived)
    }

    fn check_sequence(&mut self, sequence: Option<u64>) {
        let Some(sequence) = sequence else {
            return;
        };
        if let Some(last) = self.sequence.replace(sequence)
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
        let due = audio.saturating_sub(burst).div_f32(factor);
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
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            if let Event::Reading(reading) = event {
                if let Some(alarm) = &mut self.alarm {
                    alarm.read(&reading, &mut self.told).await;
                    self.tell().await?;
                }
            } else if let Some(response) = self.render(event) {
                self.outbox.send(response).await?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn warn(&self, warning: &Warning) -> Option<Response> {
        self.settings.wants_warnings.then(|| {
            metrics().warning(warning.reason.name());
            Response::Warning(render::warning(warning))
        })
    }

    fn render(&mut self, event: Event) -> Option<Response> {
        let labels: &[Emotion] = self.model.manifest.labels();
        match event {
            Event::Estimate(estimate) => {
                self.estimates += 1;
                self.guard.entry.estimates.store(self.estimates, Ordering::Relaxed);
                metrics().estimate(estimate.judgement.abstains.map(Abstain::name));
                let mut rendered = render::estimate(&estimate, labels);
                if let Some(alarm) = &self.alarm {
                    let (severity, ids) = alarm.in_force(estimate.channel);
                    render::in_force(&mut rendered, severity, &ids);
                }
                Some(Response::Estimate(rendered.into()))
            }
            Event::Utterance(utterance) => {
                metrics().utterance();
                self.settings
                    .wants_utterances
                    .then(|| Response::Utterance(render::utterance(&utterance, labels).into()))
            }
            Event::Warning(warning) => self.warn(&warning),
            Event::Reading(_) => None,
        }
    }

    async fn drain(&mut self) -> Result<Outcome, SessionError> {
        let deadline = Some(render::duration(self.limits.drain_deadline));
        self.outbox.send(Response::Draining(v1::Draining { deadline })).await?;
        self.finish(v1::FinishReason::Draining).await?;
        Ok(Outcome::Drained)
    }

    async fn finish(&mut self, reason: v1::FinishReason) -> Result<(), SessionError> {
        self.analysis.finish(&mut self.events).await?;
        self.flush().await?;
        self.leave().await;
        self.tell().await?;
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
            chunks: self.chunks,
            estimates: self.estimates,
            channels,
            last_captured_at_us: self.captured_at_us,
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

fn invalid(field: &'static str, problem: &str) -> SessionError {
    SessionError::Invalid(vec![Violation { field, problem: problem.to_owned() }])
}

//! One stream's actor: config first, then audio, marks and turns; estimates and events back.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::admission::{self, Admission, Permit};
use super::alarm::{Alarm, MAILBOX, News, Told};
use super::analysis::{self, Analysis, AnalysisError};
use super::checkpoint::{Progress, ResumeError, Resuming, Saved, SavedPolicy};
use super::registry::{Entrance, Guard, Refused, Registry, SessionKey};
use crate::emotion::Emotion;
use crate::escalation::{Kind, Occurrence, Origin, Recorder};
use crate::identity::Identity;
use crate::model::{Model, Models};
use crate::policy::{Library, MAX_BYTES, Policy, Severity};
use crate::telemetry::metrics;
use crate::telemetry::stage::{self, Stage};
use crate::telemetry::trace::{SessionKind, SessionTrace};
use crate::tracking::Abstain;
use crate::units::{HOP_SAMPLES, SamplePos, samples_to_duration};
use crate::wire::event::{Event, MarkReached, Warning, WarningReason};
use crate::wire::parse::{
    Defaults, PolicyChoice, StreamSettings, Violation, acknowledgement, config_of, stream_config,
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
    /// The session cannot be gone on with.
    #[error(transparent)]
    Resume(#[from] ResumeError),
    /// The session's client goes on with it in another stream.
    #[error("the session {0:?} goes on in another stream")]
    Replaced(String),
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
    let opening = SystemTime::now();
    // A client that has said nothing yet has nothing to be finished.
    let asked = tokio::select! {
        biased;
        () = context.draining.cancelled() => return Err(SessionError::Draining),
        asked = read_config(context, permit.identity(), source) => asked?,
    };
    let resumes = asked.saved.is_some();
    let begun = async { Opening::new(context, permit, asked)?.begin(outbox).await }.await;
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

/// What a client wants.
struct Asked {
    config: v1::StreamConfig,
    settings: StreamSettings,
    saved: Option<Saved>,
}

/// A session that can begin.
struct Opening<'a> {
    context: &'a Context,
    permit: &'a Permit,
    asked: Asked,
    id: String,
    model: Arc<Model>,
    policy: Option<(Arc<Policy>, &'a Escalating)>,
}

impl<'a> Opening<'a> {
    fn new(
        context: &'a Context,
        permit: &'a Permit,
        mut asked: Asked,
    ) -> Result<Self, SessionError> {
        let model = match &asked.saved {
            Some(saved) => saved_model(&context.models, saved.analysis.model())?,
            None => find_model(&context.models, &asked.settings.model)?,
        };
        let id = asked.settings.session_id.clone().unwrap_or_else(new_session_id);
        let policy = match &asked.saved {
            Some(saved) => saved_policy(context, saved)?,
            None => find_policy(context, &asked.settings.policy, &model)?,
        };
        asked.settings.analysis.readings = policy.is_some();
        Ok(Self { context, permit, asked, id, model, policy })
    }

    async fn begin(
        self,
        outbox: &'a mpsc::Sender<v1::StreamEmotionResponse>,
    ) -> Result<(Session<'a>, v1::Started), SessionError> {
        let (mailbox, inbox) = mpsc::channel(MAILBOX);
        let mailbox = self.policy.is_some().then_some(mailbox);
        let guard = self.enter(mailbox).await?;
        let Self { context, permit, asked, id, model, policy } = self;
        let mut limits = context.limits;
        limits.max_chunk_bytes = permit.chunk_bytes(limits.max_chunk_bytes);
        let Asked { config, settings, saved } = asked;
        let manifest = &model.manifest;
        let name = manifest.name.clone();
        let mut started = v1::Started {
            session_id: id.clone(),
            config: Some(render::effective_config(&config, &settings, &id, &name)),
            model: Some(render::model(manifest, context.models.is_default(&name))),
            limits: Some(render_limits(&limits, context.resuming.as_ref())),
            policy: policy.as_ref().map(|(policy, escalating)| {
                render::policy(policy, policy.name() == escalating.default_policy)
            }),
            resumed_from: None,
        };
        let (analysis, progress, states) = match saved {
            None => {
                let no_speech = context.limits.no_speech;
                let (lanes, how) = (&settings.lanes, &settings.analysis);
                let analysis = Analysis::new(model.clone(), settings.format, lanes, how, no_speech)
                    .map_err(AnalysisError::from)?;
                (analysis, Progress::default(), None)
            }
            Some(Saved { analysis, progress, policy, .. }) => {
                let analysis = Analysis::resume(model.clone(), &analysis).map_err(of_resume)?;
                started.resumed_from = Some(resume_point(&progress, analysis.position()));
                (analysis, progress, policy.map(|saved| (saved.watcher, saved.alarm)))
            }
        };
        let trace = SessionTrace::begin(
            &SessionKind {
                id: &id,
                model: &name,
                policy: policy.as_ref().map(|(policy, _)| policy.name()),
                encoding: settings.format.encoding.name(),
                rate_hz: settings.format.rate.hz(),
                channels: settings.format.channels.get() as u32,
            },
            context.limits.stage_interval,
        );
        let alarm = policy.map(|(policy, escalating)| {
            let origin = Origin {
                tenant: permit.identity().tenant.clone(),
                session_id: id.clone(),
                labels: settings.labels.clone(),
                policy: policy.name().to_owned(),
                policy_version: policy.version().to_owned(),
                model: name,
                model_version: model.manifest.version.clone(),
            };
            let recorder = escalating.recorder.clone();
            match states {
                None => Ok(Alarm::new(policy, origin, recorder, inbox)),
                Some(states) => Alarm::resume(policy, states, origin, recorder, inbox)
                    .map_err(|error| ResumeError::Content(error.to_string())),
            }
        });
        let alarm = alarm.transpose()?;
        let checkpoints = settings.checkpoint_interval.zip(context.resuming.clone()).map(
            |(interval, resuming)| {
                let interval = interval.max(resuming.min_interval);
                let config = render::config_bytes(&config);
                Checkpoints {
                    resuming,
                    interval,
                    config,
                    due: interval + analysis.position().duration(),
                }
            },
        );
        let session = Session {
            limits,
            permit,
            settings,
            model,
            id,
            paced_from: analysis.position(),
            analysis,
            alarm,
            guard,
            outbox: Outbox { sender: outbox, limit: context.limits.send_timeout },
            began: Instant::now(),
            events: Vec::new(),
            told: Vec::new(),
            progress,
            checkpoints,
            arrived: None,
            trace,
        };
        Ok((session, started))
    }

    async fn enter(
        &self,
        mailbox: Option<mpsc::Sender<Occurrence>>,
    ) -> Result<Guard, SessionError> {
        let caller = self.permit.identity();
        let entrance = Entrance {
            key: SessionKey { tenant: caller.tenant.clone(), id: self.id.clone() },
            identity: caller.name.clone(),
            model: self.model.manifest.name.clone(),
            labels: self.asked.settings.labels.clone(),
            mailbox,
        };
        let registry = &self.context.registry;
        let entered = match &self.asked.saved {
            None => registry.enter(entrance),
            Some(_) => registry.take_over(entrance).await,
        };
        entered.map_err(|refused| match refused {
            Refused::Taken => SessionError::IdTaken(self.id.clone()),
            Refused::Full { limit } => SessionError::Full { limit },
        })
    }
}

async fn read_config(
    context: &Context,
    caller: &Identity,
    source: &mut impl Source,
) -> Result<Asked, SessionError> {
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
    if !config.resume_token.is_empty() {
        return resumed_config(context, caller, config);
    }
    let settings = stream_config(&config, &context.defaults).map_err(SessionError::Invalid)?;
    if settings.checkpoint_interval.is_some() && context.resuming.is_none() {
        return Err(ResumeError::Off.into());
    }
    Ok(Asked { config, settings, saved: None })
}

/// What a token holds, if it goes with what the client asks for besides.
fn resumed_config(
    context: &Context,
    caller: &Identity,
    mut asked: v1::StreamConfig,
) -> Result<Asked, SessionError> {
    let resuming = context.resuming.as_ref().ok_or(ResumeError::Off)?;
    let saved = resuming.open(caller, &std::mem::take(&mut asked.resume_token))?;
    let mut config = config_of(&saved.config)
        .ok_or_else(|| ResumeError::Content("its configuration cannot be read".to_owned()))?;
    let id = std::mem::take(&mut asked.session_id);
    if !id.is_empty() && id != saved.session_id {
        let problem = format!("is not that of the token's session, {:?}", saved.session_id);
        return Err(invalid("config.session_id", &problem));
    }
    config.session_id.clear();
    if asked != v1::StreamConfig::default() && asked != config {
        let problem =
            "must be as in the stream's first configuration beside a resume_token, or unset";
        return Err(invalid("config", problem));
    }
    config.session_id.clone_from(&saved.session_id);
    let mut settings = stream_config(&config, &context.defaults).map_err(SessionError::Invalid)?;
    // The defaults of this server may be others.
    settings.analysis = saved.analysis.settings().clone();
    Ok(Asked { config, settings, saved: Some(saved) })
}

fn saved_model(models: &Models, name: &str) -> Result<Arc<Model>, ResumeError> {
    models.get(name).cloned().ok_or_else(|| {
        let known = models.names();
        ResumeError::Model(format!("there is no model {name:?} here; loaded are {known}"))
    })
}

/// The policy that a saved session has.
fn saved_policy<'a>(
    context: &'a Context,
    saved: &Saved,
) -> Result<Option<(Arc<Policy>, &'a Escalating)>, SessionError> {
    let Some(policy) = &saved.policy else {
        return Ok(None);
    };
    let escalating = context.escalating.as_ref().ok_or(SessionError::NoStore)?;
    Ok(Some((policy.policy()?, escalating)))
}

fn of_resume(error: analysis::ResumeError) -> ResumeError {
    match error {
        other @ analysis::ResumeError::OtherModel { .. } => ResumeError::Model(other.to_string()),
        error @ (analysis::ResumeError::Audio(_) | analysis::ResumeError::Misfit(_)) => {
            ResumeError::Content(error.to_string())
        }
    }
}

fn resume_point(progress: &Progress, position: SamplePos) -> v1::ResumePoint {
    v1::ResumePoint {
        audio_bytes: progress.bytes,
        position: Some(render::duration(position.duration())),
        sequence: progress.sequence,
    }
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

fn render_limits(limits: &Limits, resuming: Option<&Resuming>) -> v1::StreamLimits {
    v1::StreamLimits {
        max_chunk_bytes: u32::try_from(limits.max_chunk_bytes).unwrap_or(u32::MAX),
        max_audio: Some(render::duration(limits.max_audio)),
        idle_timeout: Some(render::duration(limits.idle_timeout)),
        max_realtime_factor: limits.max_realtime_factor,
        burst: Some(render::duration(limits.burst)),
        resume_window: resuming.map(|resuming| render::duration(resuming.window)),
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

/// How a session is saved now and then.
struct Checkpoints {
    resuming: Resuming,
    interval: Duration,
    /// The client's configuration, encoded.
    config: Vec<u8>,
    /// The audio at which the next one is.
    due: Duration,
}

struct Session<'a> {
    limits: Limits,
    permit: &'a Permit,
    settings: StreamSettings,
    model: Arc<Model>,
    id: String,
    /// Audio before this came in another stream.
    paced_from: SamplePos,
    analysis: Analysis,
    alarm: Option<Alarm>,
    guard: Guard,
    outbox: Outbox<'a>,
    began: Instant,
    /// Kept for its room.
    events: Vec<Event>,
    /// Kept for its room.
    told: Vec<Told>,
    progress: Progress,
    checkpoints: Option<Checkpoints>,
    /// When the chunk at hand arrived; none is, while the stream is finished.
    arrived: Option<Instant>,
    trace: SessionTrace,
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
            let Some(request) = next.map_err(source_error)? else {
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

fn invalid(field: &'static str, problem: &str) -> SessionError {
    SessionError::Invalid(vec![Violation { field, problem: problem.to_owned() }])
}

//! How a session begins: what its client wants, checked against what the server has; anew, or from a
//! checkpoint.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::actor::{Checkpoints, Outbox, Session, resume_point};
use super::admission::Permit;
use super::alarm::{Alarm, MAILBOX};
use super::analysis::{self, Analysis, AnalysisError};
use super::checkpoint::{Progress, ResumeError, Resuming, Saved};
use super::context::{Context, Escalating, Limits, Source};
use super::error::{SessionError, invalid};
use super::recent::Recent;
use super::registry::{Entrance, Guard, Refused, SessionKey};
use crate::escalation::{Occurrence, Origin};
use crate::identity::Identity;
use crate::model::{Model, Models};
use crate::policy::{MAX_BYTES, Policy};
use crate::telemetry::metrics;
use crate::telemetry::trace::{SessionKind, SessionTrace};
use crate::wire::event::Ingress;
use crate::wire::parse::{PolicyChoice, StreamSettings, config_of, stream_config};
use crate::wire::v1::stream_emotion_request::Message as Request;
use crate::wire::{render, v1};

/// What a client wants.
pub(super) struct Asked {
    config: v1::StreamConfig,
    settings: StreamSettings,
    pub(super) saved: Option<Saved>,
    ingress: Ingress,
}

/// A session that can begin.
pub(super) struct Opening<'a> {
    context: &'a Context,
    permit: &'a Permit,
    asked: Asked,
    id: String,
    model: Arc<Model>,
    policy: Option<(Arc<Policy>, &'a Escalating)>,
}

impl<'a> Opening<'a> {
    pub(super) fn new(
        context: &'a Context,
        permit: &'a Permit,
        mut asked: Asked,
    ) -> Result<Self, SessionError> {
        if asked.saved.is_none() {
            permit.own_place()?;
        }
        let model = match &asked.saved {
            Some(saved) => saved_model(&context.models, saved.analysis.model())?,
            None => find_model(&context.models, &asked.settings.model)?,
        };
        let id = asked.settings.session_id.clone().unwrap_or_else(new_session_id);
        let policy = match &asked.saved {
            Some(saved) => saved_policy(context, saved, &asked.settings.policy)?,
            None => find_policy(context, &asked.settings.policy, &model)?,
        };
        asked.settings.analysis.readings = policy.is_some();
        Ok(Self { context, permit, asked, id, model, policy })
    }

    pub(super) async fn begin(
        self,
        outbox: &'a mpsc::Sender<v1::StreamEmotionResponse>,
    ) -> Result<(Session<'a>, v1::Started), SessionError> {
        let (mailbox, inbox) = mpsc::channel(MAILBOX);
        let mailbox = self.policy.is_some().then_some(mailbox);
        let guard = self.enter(mailbox).await?;
        let Self { context, permit, asked, id, model, policy } = self;
        let mut limits = context.limits;
        limits.max_chunk_bytes = permit.chunk_bytes(limits.max_chunk_bytes);
        let Asked { config, mut settings, saved, .. } = asked;
        let checkpoints = settings.checkpoint_interval.zip(context.resuming.clone());
        let checkpoints = checkpoints
            .map(|(asked, resuming)| (Checkpoints::interval(&resuming, asked), resuming));
        settings.checkpoint_interval = checkpoints.as_ref().map(|(interval, _)| *interval);
        let resumes = saved.is_some();
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
        let checkpoints = checkpoints.map(|(interval, resuming)| {
            let config = render::config_bytes(&config);
            let position = analysis.position().duration();
            Checkpoints::new(resuming, interval, config, position, resumes)
        });
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
            half_closed: false,
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
            policy: self.policy.as_ref().map_or_else(String::new, |(p, _)| p.name().to_owned()),
            ingress: self.asked.ingress,
            labels: self.asked.settings.labels.clone(),
            recent: Recent::new(self.model.manifest.labels(), self.context.limits.history),
            mailbox,
        };
        let registry = &self.context.registry;
        let entered = match &self.asked.saved {
            None => registry.enter(entrance).map(|guard| (guard, false)),
            Some(_) => registry.take_over(entrance).await,
        };
        let (guard, has_replaced) = entered.map_err(|refused| match refused {
            Refused::Taken => SessionError::IdTaken(self.id.clone()),
            Refused::Full { limit } => SessionError::Full { limit },
        })?;
        if !has_replaced {
            self.permit.own_place()?;
        }
        Ok(guard)
    }
}

pub(super) async fn read_config(
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
    let config = match first.map_err(SessionError::from)? {
        Some(v1::StreamEmotionRequest { message: Some(Request::Config(config)) }) => *config,
        Some(v1::StreamEmotionRequest { message }) => {
            return Err(SessionError::ConfigMissing { actual: kind(message.as_ref()) });
        }
        None => return Err(SessionError::ConfigMissing { actual: "end of stream" }),
    };
    if !config.resume_token.is_empty() {
        let resumed = resumed_config(context, caller, config, source.ingress());
        if let Err(error) = &resumed {
            metrics().resume_asked(error.resume_refusal());
        }
        return resumed;
    }
    let settings = stream_config(&config, &context.defaults).map_err(SessionError::Invalid)?;
    if settings.checkpoint_interval.is_some() && context.resuming.is_none() {
        return Err(ResumeError::Off.into());
    }
    Ok(Asked { config, settings, saved: None, ingress: source.ingress() })
}

/// What a token holds, if it goes with what the client asks for besides.
fn resumed_config(
    context: &Context,
    caller: &Identity,
    mut asked: v1::StreamConfig,
    ingress: Ingress,
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
    Ok(Asked { config, settings, saved: Some(saved), ingress })
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
    choice: &PolicyChoice,
) -> Result<Option<(Arc<Policy>, &'a Escalating)>, SessionError> {
    let Some(policy) = &saved.policy else {
        return Ok(None);
    };
    let escalating = context.escalating.as_ref().ok_or(SessionError::NoStore)?;
    let brought = match choice {
        PolicyChoice::Inline(text) => text,
        PolicyChoice::Default | PolicyChoice::None | PolicyChoice::Named(_) => "",
    };
    Ok(Some((policy.policy(brought)?, escalating)))
}

fn of_resume(error: analysis::ResumeError) -> ResumeError {
    match error {
        other @ analysis::ResumeError::OtherModel { .. } => ResumeError::Model(other.to_string()),
        error @ (analysis::ResumeError::Audio(_) | analysis::ResumeError::Misfit(_)) => {
            ResumeError::Content(error.to_string())
        }
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
            PolicyChoice::Default | PolicyChoice::None => Ok(None),
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
        PolicyChoice::None => return Ok(None),
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

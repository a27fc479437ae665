//! `undertone.v1.EmotionService` on tonic.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::Stream;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;

use super::load::Patient;
use super::{Live, caller, policies, status};
use crate::audio::ClipReader;
use crate::config::Settings;
use crate::model::Model;
use crate::session::admission::Refused;
use crate::session::{
    Context, OUTBOX, Outcome, Permit, SessionError, Source, SourceError, actor, clip,
};
use crate::telemetry::seldom::Seldom;
use crate::telemetry::{metrics, trace};
use crate::units::SamplePos;
use crate::wire::event::Event;
use crate::wire::parse::{Violation, analyze_request};
use crate::wire::v1::analyze_audio_request::Policy as Tried;
use crate::wire::v1::emotion_service_server::EmotionService;
use crate::wire::{render, v1};

/// The service.
#[derive(Debug)]
pub struct Service {
    context: Context,
    live: Live,
    clips: Arc<Semaphore>,
    max_clip_bytes: usize,
    max_clip_length: Duration,
    /// Whether clients may bring policies of their own.
    inline_policies: bool,
    patient: Patient,
}

impl Service {
    /// Sessions are `live`, so that the server can wait for them. `patient` is told what clips cost.
    pub(super) fn new(context: Context, settings: &Settings, live: Live, patient: Patient) -> Self {
        Self {
            context,
            live,
            clips: Arc::new(Semaphore::new(settings.max_clips as usize)),
            max_clip_bytes: settings.max_clip_bytes as usize,
            max_clip_length: settings.max_clip_length.0,
            inline_policies: settings.inline_policies,
            patient,
        }
    }

    /// The model of that name; `field` is the one that asks for it.
    fn model(&self, name: &str, field: &str) -> Result<Arc<Model>, Status> {
        let models = &self.context.models;
        models.get(name).cloned().ok_or_else(|| {
            let error = SessionError::NoModel { name: name.to_owned(), known: models.names() };
            status::no_model(&error, field)
        })
    }
}

impl Service {
    /// Whether a policy of the client's own is taken; `field` has one.
    #[allow(clippy::result_large_err, reason = "tonic's own type")]
    fn takes_policies(&self, field: &str) -> Result<(), Status> {
        if self.inline_policies {
            return Ok(());
        }
        let escalating = self.context.escalating.as_ref();
        let known = escalating.map(|escalating| escalating.library.names()).unwrap_or_default();
        Err(status::no_inline(&SessionError::NoInline { known }, field))
    }
}

/// A stream that is not let in.
#[allow(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
pub(super) fn refused(refused: Refused) -> Status {
    metrics().stream_refused(refused.name());
    count(&refused);
    status::of_refused(&refused)
}

#[allow(clippy::needless_pass_by_value, reason = "as `map_err` hands it over")]
fn clip_refused(refused: Refused) -> Status {
    metrics().clip_refused(refused.name());
    count(&refused);
    status::of_refused(&refused)
}

/// Quotas have a metric of their own, and a line in the log that says whose it is.
fn count(refused: &Refused) {
    static SAID: Seldom = Seldom::new();
    match refused {
        Refused::Streams { .. } | Refused::Audio { .. } => {
            metrics().quota_refused(refused.name());
            if SAID.is_due() {
                tracing::warn!(%refused, "a quota is used up");
            }
        }
        Refused::Load(_) => {}
    }
}

struct GrpcSource(Streaming<v1::StreamEmotionRequest>);

impl Source for GrpcSource {
    async fn next(&mut self) -> Result<Option<v1::StreamEmotionRequest>, SourceError> {
        self.0.message().await.map_err(|status| match status.code() {
            // What the decoder says of a message that is too large, as it comes or unpacked.
            tonic::Code::OutOfRange | tonic::Code::ResourceExhausted
                if status.source_is_decoder() =>
            {
                SourceError::TooLarge(status.message().to_owned())
            }
            // And of one that is no protobuf.
            tonic::Code::Internal | tonic::Code::InvalidArgument if status.source_is_decoder() => {
                SourceError::Refused(status.message().to_owned())
            }
            _ => SourceError::Vanished(status.message().to_owned()),
        })
    }
}

/// Tells a decoder's complaint from a broken connection: only the latter has a source error.
trait DecoderComplaint {
    fn source_is_decoder(&self) -> bool;
}

impl DecoderComplaint for Status {
    fn source_is_decoder(&self) -> bool {
        std::error::Error::source(self).is_none()
    }
}

/// Counts a stream as active for as long as it lives.
struct Active(&'static str);

impl Drop for Active {
    fn drop(&mut self) {
        metrics().stream_ended(self.0);
        trace::stream_ended(self.0);
    }
}

/// The way to a client.
pub(super) type Responses = mpsc::Sender<v1::StreamEmotionResponse>;

/// Runs one session, wherever its requests come from: what it says goes to `outbox`. Returns the last word, if it
/// did not end well.
pub(super) async fn serve_stream(
    context: Context,
    permit: Permit,
    source: &mut impl Source,
    outbox: Responses,
) -> Option<Status> {
    metrics().stream_opened();
    // If it is cut off at the drain deadline, this is what it ended as.
    let mut active = Active("cut_off");
    match actor::run(&context, &permit, source, &outbox).await {
        Ok(outcome) => {
            active.0 = match outcome {
                Outcome::Finished => "finished",
                Outcome::Drained => "drained",
            };
            None
        }
        Err(error) => {
            active.0 = status::outcome(&error);
            match &error {
                SessionError::Full { .. } | SessionError::Draining => {
                    metrics().stream_refused(active.0);
                }
                SessionError::Refused(refused) => {
                    metrics().stream_refused(refused.name());
                    count(refused);
                }
                _ => {}
            }
            tracing::debug!(%error, outcome = active.0, "stream ended badly");
            Some(status::of_session(&error))
        }
    }
}

#[tonic::async_trait]
impl EmotionService for Service {
    type StreamEmotionStream = std::pin::Pin<
        Box<dyn Stream<Item = Result<v1::StreamEmotionResponse, Status>> + Send + 'static>,
    >;

    async fn stream_emotion(
        &self,
        request: Request<Streaming<v1::StreamEmotionRequest>>,
    ) -> Result<Response<Self::StreamEmotionStream>, Status> {
        // Before anything is read or kept: who is refused costs next to nothing.
        let caller = caller(request.extensions())?;
        let permit = self.context.admission.admit(&caller).map_err(refused)?;
        let (outbox, inbox) = mpsc::channel(OUTBOX);
        // The last word, behind everything that was queued.
        let (last, status) = oneshot::channel::<Status>();
        let mut source = GrpcSource(request.into_inner());
        let context = self.context.clone();
        let cut_off = self.live.cut_off.clone();
        let session = async move {
            let session = Box::pin(serve_stream(context, permit, &mut source, outbox));
            // Dropped here if it is cut off: what it ended as is counted before the server ends.
            let ended = cut_off.run_until_cancelled(session).await;
            let ended = ended.unwrap_or_else(|| Some(status::draining()));
            if let Some(status) = ended {
                // If the client has gone nobody hears it.
                let _ = last.send(status);
            }
        };
        self.live.tasks.spawn(session.in_current_span());
        let responses = ReceiverStream::new(inbox).map(Ok);
        let error = async_stream_of(async move { status.await.ok() });
        Ok(Response::new(Box::pin(responses.chain(error))))
    }

    async fn analyze_audio(
        &self,
        request: Request<v1::AnalyzeAudioRequest>,
    ) -> Result<Response<v1::AnalyzeAudioResponse>, Status> {
        let caller = caller(request.extensions())?;
        let request = request.into_inner();
        let mut settings = analyze_request(&request, &self.context.defaults)
            .map_err(|violations| status::invalid(&violations))?;
        let own = caller.quota.clip_bytes.map_or(usize::MAX, |bytes| bytes as usize);
        let limit = self.max_clip_bytes.min(own);
        if request.content.len() > limit {
            let problem = format!(
                "has {} bytes, at most {limit} are taken; stream it instead",
                request.content.len(),
            );
            return Err(status::invalid(&[Violation { field: "content", problem }]));
        }
        let model = self.model(&request.model, "model")?;
        if let Some(Tried::PolicyYaml(_)) = &request.policy {
            self.takes_policies("policy_yaml")?;
        }
        let policy = policies::to_try(&self.context, request.policy.as_ref(), &model)?;
        settings.analysis.readings = policy.is_some();
        let with_courses = request.condition_courses;
        // Clips wait here for their turn, so that they cannot starve live streams. The semaphore is
        // never closed.
        let _turn = self.clips.acquire().await.map_err(|_| Status::unavailable("ending"))?;
        // After the turn: else all who wait would be let in by what is left for one.
        let permit = self.context.admission.admit_clip(&caller).map_err(clip_refused)?;
        let hint = extension(&request.format_hint);
        let reader = ClipReader::from_bytes(request.content, hint)
            .map_err(|error| status::of_audio(&error, "content"))?;
        let mut charged = Duration::ZERO;
        let charge = |end: SamplePos| {
            // As it goes, whatever comes of it. If it is more than is left, the next one waits.
            let audio = end.duration();
            let _ = permit.charge(audio.saturating_sub(charged));
            charged = audio;
        };
        let analysis =
            clip::analyze(model.clone(), reader, &settings, self.max_clip_length, charge);
        let report = self.patient.measure(analysis).await;
        let report = report.map_err(|error| status::of_clip(&error))?;
        let labels = model.manifest.labels();
        let mut response = v1::AnalyzeAudioResponse {
            audio: Some(render::duration(report.length.duration())),
            channels: report
                .channels
                .iter()
                .map(|summary| render::channel_summary(summary, labels))
                .collect(),
            model: model.manifest.name.clone(),
            undecodable_packets: u32::try_from(report.corrupt_packets).unwrap_or(u32::MAX),
            ..v1::AnalyzeAudioResponse::default()
        };
        for event in &report.events {
            match event {
                Event::Utterance(u) => response.utterances.push(render::utterance(u, labels)),
                Event::Estimate(e) => response.estimates.push(render::estimate(e, labels)),
                Event::Warning(_) | Event::Reading(_) => {}
            }
        }
        if let Some(policy) = &policy {
            let tried = (policy, model.as_ref());
            policies::try_on(&self.context, tried, &report, with_courses, &mut response);
        }
        Ok(Response::new(response))
    }

    async fn list_models(
        &self,
        _request: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        let models = &self.context.models;
        let models = models
            .iter()
            .map(|m| render::model(&m.manifest, models.is_default(&m.manifest.name)))
            .collect();
        Ok(Response::new(v1::ListModelsResponse { models }))
    }

    async fn list_policies(
        &self,
        _request: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        let policies = policies::list(&self.context);
        Ok(Response::new(v1::ListPoliciesResponse { policies }))
    }

    async fn get_policy(
        &self,
        request: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        policies::get(&self.context, &request.get_ref().name).map(Response::new)
    }

    async fn check_policy(
        &self,
        request: Request<v1::CheckPolicyRequest>,
    ) -> Result<Response<v1::CheckPolicyResponse>, Status> {
        self.takes_policies("yaml")?;
        policies::check(&request.get_ref().yaml).map(Response::new)
    }

    async fn get_model(
        &self,
        request: Request<v1::GetModelRequest>,
    ) -> Result<Response<v1::GetModelResponse>, Status> {
        let name = request.into_inner().name;
        let model = self.model(&name, "name")?;
        let is_default = self.context.models.is_default(&model.manifest.name);
        let model = Some(render::model(&model.manifest, is_default));
        Ok(Response::new(v1::GetModelResponse { model }))
    }
}

/// A stream of the one status that the future may give.
fn async_stream_of(
    last: impl Future<Output = Option<Status>> + Send + 'static,
) -> impl Stream<Item = Result<v1::StreamEmotionResponse, Status>> + Send {
    let once = Box::pin(last);
    tokio_stream::once(once).then(|last| last).filter_map(|status| status.map(Err))
}

/// The extension in a hint such as "wav", ".wav", "speech.wav" or "audio/wav".
fn extension(hint: &str) -> Option<&str> {
    let extension = hint.rsplit(['.', '/']).next().unwrap_or_default();
    (!extension.is_empty()).then_some(extension)
}

//! The emotion service behind four doors: a wide one for clips, a narrow one for streams, a flap for policies, a slit
//! for all else.
//!
//! In: calls of `undertone.v1.EmotionService`. Out: the service's answers, or a refusal. A decoder takes
//! messages of one size for all methods of a service, and it is `AnalyzeAudio` alone that carries whole
//! clips: through one door every stream could make the server hold a clip's worth of one message. Clips
//! are let in by number before the first byte of them is read, since each is held whole until it is
//! decoded.
//!
//! What always holds: what the messages under way may take is bounded: chunks by the streams there may be,
//! clips by `max_clips` and `max_clips_waiting`, of which nobody has more than `max_share`; all others are
//! small.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::codec::CompressionEncoding;
use tonic::codegen::{Body, BoxFuture, Service as Call, StdError, http};
use tonic::server::NamedService;

use super::places::Places;
use super::{Service, status};
use crate::config::Settings;
use crate::identity::Identity;
use crate::telemetry::metrics;
use crate::wire::v1::emotion_service_server::EmotionServiceServer;

/// The method that carries whole clips.
pub(super) const CLIPS: &str = "/undertone.v1.EmotionService/AnalyzeAudio";
/// The one that carries chunks.
const STREAMS: &str = "/undertone.v1.EmotionService/StreamEmotion";
/// The one that carries the text of a policy.
pub(super) const POLICIES: &str = "/undertone.v1.EmotionService/CheckPolicy";
/// What a message may have besides its audio, bytes: a configuration with a policy fits.
const BESIDES: usize = 128 * 1024;
/// Largest message that carries no audio, bytes: names, identifiers, filters with labels and notes of a
/// thousand bytes are far smaller.
pub(super) const SMALL: usize = 64 * 1024;

type Emotion = EmotionServiceServer<Service>;

/// The service behind its doors.
#[derive(Debug, Clone)]
pub(super) struct Doors {
    wide: Emotion,
    narrow: Emotion,
    flap: Emotion,
    slit: Emotion,
    clips: Arc<Places>,
}

impl Doors {
    pub(super) fn new(service: Service, settings: &Settings) -> Self {
        let service = Arc::new(service);
        let door = |bytes: usize| {
            Emotion::from_arc(service.clone())
                .max_decoding_message_size(bytes)
                .accept_compressed(CompressionEncoding::Gzip)
        };
        let max_clips = settings.max_clips as usize + settings.max_clips_waiting as usize;
        // A stream may begin with a resume token.
        let chunk = settings.max_chunk_bytes.max(settings.max_resume_token_bytes);
        Self {
            wide: door(settings.max_clip_bytes as usize + BESIDES),
            narrow: door(chunk as usize + BESIDES),
            flap: door(BESIDES),
            slit: door(SMALL),
            clips: Places::new(max_clips, settings.share()),
        }
    }
}

impl NamedService for Doors {
    const NAME: &'static str = <Emotion as NamedService>::NAME;
}

impl<B> Call<http::Request<B>> for Doors
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (call, turn) = match request.uri().path() {
            CLIPS => {
                let Some(identity) = request.extensions().get::<Arc<Identity>>() else {
                    return refused(status::no_identity());
                };
                match self.clips.take(identity) {
                    Ok(turn) => (self.wide.call(request), Some(turn)),
                    Err(full) => {
                        metrics().clip_refused("clips");
                        return refused(status::too_many_clips(full));
                    }
                }
            }
            STREAMS => (self.narrow.call(request), None),
            POLICIES => (self.flap.call(request), None),
            _ => (self.slit.call(request), None),
        };
        Box::pin(async move {
            let answered = call.await;
            drop(turn);
            answered
        })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is made for this")]
fn refused(status: tonic::Status) -> BoxFuture<http::Response<tonic::body::Body>, Infallible> {
    Box::pin(std::future::ready(Ok(status.into_http())))
}

//! The emotion service behind two doors: a wide one for clips, a narrow one for all else.
//!
//! In: calls of `undertone.v1.EmotionService`. Out: the service's answers, or a refusal. A decoder takes
//! messages of one size for all methods of a service, and it is `AnalyzeAudio` alone that carries whole
//! clips: through one door every stream could make the server hold a clip's worth of one message. Clips
//! are let in by number before the first byte of them is read, since each is held whole until it is
//! decoded.
//!
//! Always:
//! 1. What the messages under way may take is bounded: chunks by the streams there may be, clips by
//!    `max_clips` and `max_clips_waiting`.
//! 2. A call ends within `call_timeout`, however slowly its request comes. Streams are no calls in this
//!    sense: they answer at once and have time-outs of their own.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::codec::CompressionEncoding;
use tonic::codegen::{Body, BoxFuture, Service as Call, StdError, http};
use tonic::server::NamedService;

use super::{Service, status};
use crate::config::Settings;
use crate::telemetry::metrics;
use crate::wire::v1::emotion_service_server::EmotionServiceServer;

/// The method that carries whole clips.
const CLIPS: &str = "/undertone.v1.EmotionService/AnalyzeAudio";
/// What a message may have besides its audio, bytes: a configuration with a policy fits.
const BESIDES: usize = 128 * 1024;

type Emotion = EmotionServiceServer<Service>;

/// The service behind its doors.
#[derive(Debug, Clone)]
pub(super) struct Doors {
    narrow: Emotion,
    wide: Emotion,
    clips: Arc<Semaphore>,
    max_clips: usize,
    timeout: Duration,
}

impl Doors {
    pub(super) fn new(service: Service, settings: &Settings) -> Self {
        let service = Arc::new(service);
        let door = |bytes: u32| {
            Emotion::from_arc(service.clone())
                .max_decoding_message_size(bytes as usize + BESIDES)
                .accept_compressed(CompressionEncoding::Gzip)
        };
        let max_clips = settings.max_clips as usize + settings.max_clips_waiting as usize;
        Self {
            // A stream may begin with a resume token.
            narrow: door(settings.max_chunk_bytes.max(settings.max_resume_token_bytes)),
            wide: door(settings.max_clip_bytes),
            clips: Arc::new(Semaphore::new(max_clips)),
            max_clips,
            timeout: settings.call_timeout.0,
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
        let limit = self.timeout;
        let (call, turn) = if request.uri().path() == CLIPS {
            let Ok(turn) = self.clips.clone().try_acquire_owned() else {
                metrics().stream_refused("clips");
                let refused = status::too_many_clips(self.max_clips).into_http();
                return Box::pin(std::future::ready(Ok(refused)));
            };
            (self.wide.call(request), Some(turn))
        } else {
            (self.narrow.call(request), None)
        };
        Box::pin(async move {
            let answered = timeout(limit, call).await;
            drop(turn);
            answered.unwrap_or_else(|_| Ok(status::call_timeout(limit).into_http()))
        })
    }
}

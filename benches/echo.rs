//! The floor: a bare tonic server that takes the same messages and answers, and does nothing else.
//!
//! `cargo bench --bench echo -- [HOST:PORT] [HTTP HOST:PORT] [every]`, then `undertone bench` against it as against the
//! service, as `benches/secured.sh` does. It answers one estimate per 500 ms of audio, as the service does, or with
//! `every` one per chunk. No TLS, no identity, no limits, one worker thread.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use undertone::wire::v1::emotion_service_server::{EmotionService, EmotionServiceServer};
use undertone::wire::v1::stream_emotion_request::Message as Asked;
use undertone::wire::v1::stream_emotion_response::Message;
use undertone::wire::{render, v1};

/// 16 kHz, 16 bit, mono: what `undertone bench` sends.
const BYTES_PER_SECOND: u64 = 32_000;

#[derive(Debug, Clone)]
struct Echo {
    bytes: Arc<AtomicU64>,
    every: bool,
}

/// An estimate of the size that the service's have.
fn estimate(bytes: u64) -> Message {
    let end = std::time::Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND as f64);
    let end = Some(render::duration(end));
    let score = v1::EmotionScore { emotion: 1, probability: 0.125 };
    let affect = v1::Affect { scores: vec![score; 8], valence: 0.5, ..v1::Affect::default() };
    Message::Estimate(Box::new(v1::Estimate {
        start: end,
        end,
        evidence_end: end,
        affect: Some(affect),
        ..v1::Estimate::default()
    }))
}

type Answers = Pin<Box<dyn Stream<Item = Result<v1::StreamEmotionResponse, Status>> + Send>>;

#[tonic::async_trait]
impl EmotionService for Echo {
    type StreamEmotionStream = Answers;

    async fn stream_emotion(
        &self,
        request: Request<Streaming<v1::StreamEmotionRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let (total, every) = (self.bytes.clone(), self.every);
        let mut heard = 0;
        let answers = request.into_inner().map(Some).chain(tokio_stream::once(None)).filter_map(
            move |asked| {
                let message = match asked {
                    Some(Err(status)) => return Some(Err(status)),
                    Some(Ok(asked)) => match asked.message? {
                        Asked::Config(_) => Message::Started(Box::default()),
                        Asked::Audio(chunk) => {
                            let before = heard;
                            heard += chunk.data.len() as u64;
                            total.fetch_add(chunk.data.len() as u64, Relaxed);
                            let half = BYTES_PER_SECOND / 2;
                            if !every && heard / half == before / half {
                                return None;
                            }
                            estimate(if every { heard } else { heard / half * half })
                        }
                        _ => return None,
                    },
                    None => Message::Finished(Box::new(v1::Finished {
                        reason: v1::FinishReason::Client.into(),
                        ..v1::Finished::default()
                    })),
                };
                Some(Ok(v1::StreamEmotionResponse { message: Some(message) }))
            },
        );
        Ok(Response::new(Box::pin(answers)))
    }

    async fn analyze_audio(
        &self,
        _: Request<v1::AnalyzeAudioRequest>,
    ) -> Result<Response<v1::AnalyzeAudioResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn list_models(
        &self,
        _: Request<v1::ListModelsRequest>,
    ) -> Result<Response<v1::ListModelsResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn get_model(
        &self,
        _: Request<v1::GetModelRequest>,
    ) -> Result<Response<v1::GetModelResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn list_policies(
        &self,
        _: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn get_policy(
        &self,
        _: Request<v1::GetPolicyRequest>,
    ) -> Result<Response<v1::GetPolicyResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }

    async fn check_policy(
        &self,
        _: Request<v1::CheckPolicyRequest>,
    ) -> Result<Response<v1::CheckPolicyResponse>, Status> {
        Err(Status::unimplemented("an echo"))
    }
}

/// The figures that `undertone bench` reads.
fn page(bytes: &AtomicU64) -> String {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    let audio = bytes.load(Relaxed) as f64 / BYTES_PER_SECOND as f64;
    format!("process_cpu_time_seconds_total {cpu}\nundertone_audio_seconds_total {audio}\n")
}

fn main() {
    // cargo hands `--bench` over.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|one| one != "--bench").collect();
    let address = |index: usize, default: &str| -> SocketAddr {
        arguments.get(index).map_or(default, String::as_str).parse().unwrap()
    };
    let (grpc, http) = (address(0, "127.0.0.1:50051"), address(1, "127.0.0.1:9464"));
    let every = arguments.get(2).is_some_and(|one| one == "every");
    let bytes = Arc::new(AtomicU64::new(0));
    let echo = Echo { bytes: bytes.clone(), every };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async move {
        let pages = axum::Router::new()
            .route("/metrics", axum::routing::get(move || async move { page(&bytes) }))
            .into_make_service();
        let listener = tokio::net::TcpListener::bind(http).await.unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let mut make = pages.clone();
                tokio::spawn(async move {
                    use tower::Service as _;
                    let service = make.call(()).await.unwrap();
                    let service = hyper_util::service::TowerToHyperService::new(service);
                    let io = hyper_util::rt::TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .await;
                });
            }
        });
        let serve =
            tonic::transport::Server::builder().add_service(EmotionServiceServer::new(echo));
        serve.serve(grpc).await.unwrap();
    });
}

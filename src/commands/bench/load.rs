//! The load: streams that push chunks at the pace of the audio and note when estimates come back.
//!
//! A stream is two things. [`PacedRequests`] is the stream of requests itself: the transport polls it, it
//! wakes when a chunk is due, and the moment that it hands the chunk over is noted in [`Pace`]. No task
//! and no queue stands between the timer and the transport, so the moment is exact and a chunk costs
//! little. [`run_stream`] reads the answers and holds each estimate against the chunk that completed its
//! audio.
//!
//! The plan of a stream does not move: a chunk that leaves late does not push the next one back. When
//! the generator or the server falls behind, this shows as missed pace, not as a gentler load.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_stream::Stream;

use super::audio::LoopedAudio;
use crate::commands::client::{
    Client, Failure, Response, Responses, audio_request, config_request, duration,
};
use crate::wire::v1;

/// Chunks of a stream whose moments are kept: 25 s of 100 ms chunks. An estimate that comes later is
/// held against its chunk's plan.
const KEPT: usize = 256;
/// Longest wait for the server's first word on a stream.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// What all streams share.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) audio: LoopedAudio,
    pub(super) config: v1::StreamConfig,
    /// The zero of all moments.
    pub(super) epoch: Instant,
    /// Whether what happens now counts.
    pub(super) measuring: AtomicBool,
    /// Whether streams half-close at their next chunk.
    pub(super) stopping: AtomicBool,
    /// Streams that the server has begun and that have not ended.
    pub(super) live: AtomicU64,
    /// Streams that have ended badly.
    pub(super) failed: AtomicU64,
    /// Estimates while measuring.
    pub(super) estimates: AtomicU64,
    /// Chunks sent while measuring.
    pub(super) chunks: AtomicU64,
    /// Those of them that left more than a chunk late.
    pub(super) missed: AtomicU64,
    /// Milliseconds from asking for a stream to its refusal, for each that did not begin.
    pub(super) refused_ms: Mutex<Vec<f32>>,
}

impl Stage {
    pub(super) fn new(audio: LoopedAudio, config: v1::StreamConfig) -> Self {
        Self {
            audio,
            config,
            epoch: Instant::now(),
            measuring: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            live: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            estimates: AtomicU64::new(0),
            chunks: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            refused_ms: Mutex::default(),
        }
    }

    fn micros(&self, moment: Instant) -> u64 {
        micros(moment.saturating_duration_since(self.epoch))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// One stream's plan.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    /// When it begins to speak: its first chunk leaves one chunk later, as a microphone's would.
    pub(super) start: Instant,
    /// The chunk of the audio that it begins with.
    pub(super) offset: u64,
}

/// What one stream has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Milliseconds from a chunk's sending to its estimate's arrival, while measuring.
    pub(super) latencies_ms: Vec<f32>,
    /// What the server heard, over the whole stream.
    pub(super) audio: Duration,
    /// Voice in it.
    pub(super) speech: Duration,
}

/// When the last chunks were handed to the transport, in microseconds since the stage's epoch.
#[derive(Debug)]
struct Pace {
    plan: Plan,
    /// Chunks sent.
    sent: AtomicU64,
    /// Chunk `k`'s moment in slot `k % KEPT`.
    moments: [AtomicU64; KEPT],
}

impl Pace {
    fn new(plan: Plan) -> Self {
        Self { plan, sent: AtomicU64::new(0), moments: [const { AtomicU64::new(0) }; KEPT] }
    }

    /// When chunk `index` is complete and due.
    fn due(&self, stage: &Stage, index: u64) -> Instant {
        self.plan.start + stage.audio.duration(index + 1)
    }

    fn note(&self, index: u64, moment_us: u64) {
        if let Some(slot) = self.moments.get(index as usize % KEPT) {
            slot.store(moment_us, Relaxed);
        }
        self.sent.store(index + 1, Relaxed);
    }

    /// When chunk `index` was sent; if that is long ago, when it was due; `None` if it was not sent.
    fn moment_us(&self, stage: &Stage, index: u64) -> Option<u64> {
        let sent = self.sent.load(Relaxed);
        if index >= sent {
            return None;
        }
        if sent - index > KEPT as u64 {
            return Some(stage.micros(self.due(stage, index)));
        }
        self.moments.get(index as usize % KEPT).map(|slot| slot.load(Relaxed))
    }
}

/// The requests of one stream: the configuration, then chunks as they fall due.
struct PacedRequests {
    stage: Arc<Stage>,
    pace: Arc<Pace>,
    timer: Pin<Box<Sleep>>,
    configured: bool,
    next: u64,
}

impl PacedRequests {
    fn new(stage: Arc<Stage>, pace: Arc<Pace>) -> Self {
        let timer = Box::pin(sleep_until(pace.due(&stage, 0)));
        Self { stage, pace, timer, configured: false, next: 0 }
    }
}

impl Stream for PacedRequests {
    type Item = v1::StreamEmotionRequest;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if !this.configured {
            this.configured = true;
            return Poll::Ready(Some(config_request(this.stage.config.clone())));
        }
        ready!(this.timer.as_mut().poll(context));
        if this.stage.stopping.load(Relaxed) {
            return Poll::Ready(None);
        }
        let index = this.next;
        this.next += 1;
        let now = Instant::now();
        let late = now.saturating_duration_since(this.timer.deadline());
        if this.stage.measuring.load(Relaxed) {
            this.stage.chunks.fetch_add(1, Relaxed);
            if late > this.stage.audio.chunk_duration() {
                this.stage.missed.fetch_add(1, Relaxed);
            }
        }
        this.timer.as_mut().reset(this.pace.due(&this.stage, this.next));
        this.pace.note(index, this.stage.micros(now));
        let data = this.stage.audio.chunk(this.pace.plan.offset + index);
        Poll::Ready(Some(audio_request(data, index)))
    }
}

/// Counts a stream as live.
struct Live<'a>(&'a Stage);

impl<'a> Live<'a> {
    fn new(stage: &'a Stage) -> Self {
        stage.live.fetch_add(1, Relaxed);
        Self(stage)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Relaxed);
    }
}

/// Runs one stream to its end.
///
/// # Errors
/// [`Failure`] if it ended before it was to, or not with a summary.
pub(super) async fn run_stream(
    stage: Arc<Stage>,
    client: Client,
    plan: Plan,
) -> Result<Seen, Failure> {
    sleep_until(plan.start).await;
    let seen = converse(&stage, &client, plan).await;
    if seen.is_err() {
        stage.failed.fetch_add(1, Relaxed);
    }
    seen
}

async fn converse(stage: &Arc<Stage>, client: &Client, plan: Plan) -> Result<Seen, Failure> {
    let pace = Arc::new(Pace::new(plan));
    let requests = PacedRequests::new(stage.clone(), pace.clone());
    let asked = Instant::now();
    let mut responses = begin(client, requests).await.inspect_err(|_| {
        let took = 1000.0 * asked.elapsed().as_secs_f32();
        stage.refused_ms.lock().unwrap_or_else(PoisonError::into_inner).push(took);
    })?;
    let _live = Live::new(stage);
    let mut seen = Seen::default();
    while let Some(response) = responses.next().await? {
        match response {
            Response::Estimate(estimate) if stage.measuring.load(Relaxed) => {
                stage.estimates.fetch_add(1, Relaxed);
                let chunk = stage.audio.completed_by(duration(estimate.end));
                let Some(sent) = pace.moment_us(stage, chunk) else {
                    return Err(Failure::unavailable("an estimate came before its audio was sent"));
                };
                let latency = stage.micros(Instant::now()).saturating_sub(sent);
                seen.latencies_ms.push(latency as f32 / 1000.0);
            }
            Response::Finished(finished) => {
                if finished.reason() != v1::FinishReason::Client {
                    return Err(Failure::unavailable("the server drained"));
                }
                seen.audio = duration(finished.audio);
                seen.speech = finished.channels.iter().map(|lane| duration(lane.speech)).sum();
                return Ok(seen);
            }
            _ => {}
        }
    }
    Err(Failure::unavailable("the stream ended without a summary"))
}

async fn begin(client: &Client, requests: PacedRequests) -> Result<Responses, Failure> {
    let started = timeout(START_TIMEOUT, async {
        let mut responses = client.stream(requests).await?;
        match responses.next().await? {
            Some(_) => Ok(responses),
            None => Err(Failure::unavailable("the stream ended before it began")),
        }
    });
    started.await.unwrap_or_else(|_| {
        Err(Failure::unavailable(format!(
            "no answer within {START_TIMEOUT:?} (does the server allow so many streams on one \
             connection? see --connections)"
        )))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::client::Encoding;
    use tokio_stream::StreamExt as _;

    fn stage() -> Arc<Stage> {
        let audio = LoopedAudio::built_in(Encoding::Linear16, 8_000, 100).unwrap();
        Arc::new(Stage::new(audio, v1::StreamConfig::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_chunk_does_not_push_the_next_one_back() {
        let stage = stage();
        stage.measuring.store(true, Relaxed);
        let plan = Plan { start: stage.epoch, offset: 0 };
        let pace = Arc::new(Pace::new(plan));
        let mut requests = PacedRequests::new(stage.clone(), pace.clone());
        // The configuration, at once.
        requests.next().await.unwrap();
        assert_eq!(stage.micros(Instant::now()), 0);
        // The transport does not ask for 350 ms.
        tokio::time::advance(Duration::from_millis(350)).await;
        for _ in 0..4 {
            requests.next().await.unwrap();
        }
        let moments: Vec<_> = (0..4).map(|k| pace.moment_us(&stage, k).unwrap() / 1000).collect();
        assert_eq!(moments, [350, 350, 350, 400]);
        assert_eq!(pace.moment_us(&stage, 4), None);
        assert_eq!(stage.missed.load(Relaxed), 2);
        assert_eq!(stage.chunks.load(Relaxed), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn streams_half_close_when_the_test_is_over() {
        let stage = stage();
        let pace = Arc::new(Pace::new(Plan { start: stage.epoch, offset: 7 }));
        let mut requests = PacedRequests::new(stage.clone(), pace);
        requests.next().await.unwrap();
        requests.next().await.unwrap();
        stage.stopping.store(true, Relaxed);
        assert!(requests.next().await.is_none());
    }
}

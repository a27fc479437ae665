//! A stream that outlives its connections: what breaks off goes on from the last checkpoint.
//!
//! In: requests with audio, as they are paced. Out: what the server says, as of one stream. Audio is kept
//! until a checkpoint covers it. When the server drains, or the connection breaks, another one is opened with
//! the checkpoint's token and the audio behind it is sent again; what is told a second time is left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;

use super::QUEUE;
use crate::commands::client::{
    Client, Credentials, Failure, Response, Uri, config_request, duration,
};
use crate::wire::v1;
use crate::wire::v1::stream_emotion_request::Message as Request;

/// Audio kept for a checkpoint at most: 20 minutes of 16 kHz mono. Beyond, the stream cannot be gone on with
/// until the next checkpoint.
const KEPT_BYTES: usize = 40 << 20;
/// Shortest and longest wait before another attempt.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// What comes out.
#[derive(Debug)]
pub(super) enum Carried {
    /// The server says something.
    Response(Box<Response>),
    /// Something about the way to it.
    Note(String),
}

/// Audio that no checkpoint covers yet.
#[derive(Debug, Default)]
struct Kept {
    requests: VecDeque<v1::StreamEmotionRequest>,
    bytes: usize,
    /// Bytes of the stream before the first of them.
    before: u64,
    /// As many of them have been sent on this connection.
    sent: usize,
    /// Some had to be given up.
    has_gap: bool,
}

impl Kept {
    fn push(&mut self, request: v1::StreamEmotionRequest) {
        self.bytes += len(&request);
        self.requests.push_back(request);
        while self.bytes > KEPT_BYTES && self.sent > 0 {
            self.forget_first();
            self.has_gap = true;
        }
    }

    fn forget_first(&mut self) {
        if let Some(first) = self.requests.pop_front() {
            self.bytes -= len(&first);
            self.before += len(&first) as u64;
            self.sent = self.sent.saturating_sub(1);
        }
    }

    /// Everything before byte `audio_bytes` is covered: checkpoints stand between chunks.
    fn cover(&mut self, audio_bytes: u64) {
        while self.before < audio_bytes && !self.requests.is_empty() {
            self.forget_first();
        }
        self.has_gap &= self.before > audio_bytes;
    }

    fn next(&self) -> Option<&v1::StreamEmotionRequest> {
        self.requests.get(self.sent)
    }
}

fn len(request: &v1::StreamEmotionRequest) -> usize {
    match &request.message {
        Some(Request::Audio(chunk)) => chunk.data.len(),
        _ => 0,
    }
}

/// What has been told already.
#[derive(Debug, Default)]
struct Told {
    started: bool,
    /// Per channel, the end of the last estimate and the number of the next utterance.
    channels: BTreeMap<u32, (Duration, u32)>,
    /// The position of the last warning.
    warned: Duration,
    /// Escalations' events.
    events: BTreeSet<String>,
}

impl Told {
    /// Whether it is new.
    fn is_news(&mut self, response: &Response) -> bool {
        match response {
            Response::Started(_) => !std::mem::replace(&mut self.started, true),
            Response::Estimate(estimate) => {
                let (last, _) = self.channels.entry(estimate.channel).or_default();
                let end = duration(estimate.end);
                end > std::mem::replace(last, end.max(*last))
            }
            Response::Utterance(utterance) => {
                let (_, next) = self.channels.entry(utterance.channel).or_default();
                let before = std::mem::replace(next, (utterance.index + 1).max(*next));
                utterance.index >= before
            }
            Response::Warning(warning) => {
                let position = duration(warning.position);
                let before = self.warned;
                self.warned = position.max(before);
                position >= before
            }
            Response::Escalation(event) => {
                event.id.is_empty() || self.events.insert(event.id.clone())
            }
            Response::Checkpoint(_) => false,
            Response::Mark(_) | Response::Draining(_) | Response::Finished(_) => true,
        }
    }
}

/// How a connection ended.
enum End {
    /// All is said.
    Finished,
    /// Nobody listens any more.
    Unheard,
    /// The server asks to go elsewhere.
    Drained,
    Broken(Failure),
}

/// One stream over as many connections as it takes.
pub(super) struct Carrier {
    server: (Uri, Credentials),
    config: v1::StreamConfig,
    /// How long another connection is tried for.
    patience: Duration,
    audio: mpsc::Receiver<v1::StreamEmotionRequest>,
    out: mpsc::Sender<Result<Carried, Failure>>,
    kept: Kept,
    token: Bytes,
    told: Told,
}

impl Carrier {
    /// Carries `audio` to `server`; what comes of it goes to `out`. A break is mended for `patience`.
    pub(super) fn new(
        server: (Uri, Credentials),
        config: v1::StreamConfig,
        patience: Duration,
        audio: mpsc::Receiver<v1::StreamEmotionRequest>,
        out: mpsc::Sender<Result<Carried, Failure>>,
    ) -> Self {
        let (kept, told) = (Kept::default(), Told::default());
        Self { server, config, patience, audio, out, kept, token: Bytes::new(), told }
    }

    /// Runs to the end of the stream, or of everybody's patience.
    pub(super) async fn run(mut self) {
        let mut wait = WAITS.0;
        let mut broken_since: Option<Instant> = None;
        loop {
            let (told_before, began) = (self.told.started, Instant::now());
            let failure = match self.attempt().await {
                End::Finished | End::Unheard => return,
                End::Drained => Failure::unavailable("the server is about to end"),
                End::Broken(failure) if failure.is_reason("NO_CHECKPOINTS") && !told_before => {
                    self.config.checkpoint_interval = None;
                    continue;
                }
                End::Broken(failure) => failure,
            };
            if self.told.started && began.elapsed() > WAITS.1 {
                // That one went well for a while.
                (wait, broken_since) = (WAITS.0, None);
            }
            let since = *broken_since.get_or_insert_with(Instant::now);
            let can_go_on = self.told.started
                && failure.may_pass()
                && !self.kept.has_gap
                && self.config.checkpoint_interval.is_some();
            if !can_go_on || since.elapsed() >= self.patience {
                let _ = self.out.send(Err(failure)).await;
                return;
            }
            let note = Carried::Note(format!("{}; going on with the stream", failure.kind()));
            if self.out.send(Ok(note)).await.is_err() {
                return;
            }
            sleep(wait).await;
            wait = (wait * 2).min(WAITS.1);
        }
    }

    async fn attempt(&mut self) -> End {
        match self.converse().await {
            Ok(end) => end,
            Err(failure) => End::Broken(failure),
        }
    }

    async fn converse(&mut self) -> Result<End, Failure> {
        let client = Client::connect(&self.server.0, &self.server.1).await?;
        let (requests, queue) = mpsc::channel(QUEUE);
        let mut requests = Some(requests);
        let config = v1::StreamConfig { resume_token: self.token.clone(), ..self.config.clone() };
        if let Some(requests) = &requests {
            // There is room: the queue is new.
            let _ = requests.send(config_request(config)).await;
        }
        let mut responses = client.stream(ReceiverStream::new(queue)).await?;
        self.kept.sent = 0;
        let mut begun = false;
        loop {
            let ready = self.kept.next().is_some();
            let room = room(requests.as_ref(), begun && ready);
            // All branches are cancel-safe: a message is taken whole, room is only looked for.
            tokio::select! {
                response = responses.next() => {
                    let Some(response) = response? else {
                        return Err(Failure::unavailable("the stream ended without a summary"));
                    };
                    if let Response::Started(started) = &response {
                        begun = true;
                        if let Some(point) = started.resumed_from {
                            self.kept.cover(point.audio_bytes);
                        }
                    }
                    if let Some(end) = self.hear(response).await {
                        return Ok(end);
                    }
                }
                room = room => match (room, &requests, self.kept.next()) {
                    // Nobody else sends, so that the room is still there.
                    (true, Some(to), Some(request)) if to.try_send(request.clone()).is_ok() => {
                        self.kept.sent += 1;
                    }
                    // The stream has ended; its answers say why.
                    _ => requests = None,
                },
                request = self.audio.recv(), if begun && !ready && requests.is_some() => {
                    match request {
                        Some(request) => self.kept.push(request),
                        // Half-closes.
                        None => requests = None,
                    }
                }
            }
        }
    }

    /// Takes what the server says. Gives the end, if that was it.
    async fn hear(&mut self, response: Response) -> Option<End> {
        let checkpoint = match &response {
            Response::Checkpoint(checkpoint) => Some(checkpoint),
            Response::Draining(draining) => draining.checkpoint.as_ref(),
            _ => None,
        };
        if let Some(v1::Checkpoint { resume_token, point: Some(point), .. }) = checkpoint {
            self.token = resume_token.clone();
            self.kept.cover(point.audio_bytes);
        }
        let mut end = None;
        if let Response::Finished(finished) = &response {
            let goes_on = finished.reason() == v1::FinishReason::Draining
                && self.config.checkpoint_interval.is_some();
            if goes_on {
                return Some(End::Drained);
            }
            end = Some(End::Finished);
        }
        if self.told.is_news(&response) {
            let carried = Carried::Response(Box::new(response));
            if self.out.send(Ok(carried)).await.is_err() {
                return Some(End::Unheard);
            }
        }
        end
    }
}

/// Waits for room for a request, where one is to be sent; false if the stream has ended.
async fn room(requests: Option<&mpsc::Sender<v1::StreamEmotionRequest>>, wanted: bool) -> bool {
    match requests {
        Some(requests) if wanted => requests.reserve().await.is_ok(),
        _ => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::client::audio_request;

    fn kept(chunks: u64) -> Kept {
        let mut kept = Kept::default();
        for sequence in 0..chunks {
            kept.push(audio_request(vec![0; 100].into(), sequence));
        }
        kept
    }

    #[test]
    fn audio_is_kept_until_a_checkpoint_covers_it() {
        let mut kept = kept(5);
        kept.sent = 4;
        kept.cover(300);
        assert_eq!((kept.requests.len(), kept.sent, kept.before, kept.bytes), (2, 1, 300, 200));
        kept.cover(300);
        assert_eq!(kept.requests.len(), 2);
        assert!(!kept.has_gap);
    }

    #[test]
    fn what_is_told_again_is_no_news() {
        let mut told = Told::default();
        let estimate = |ms: u64| {
            let end = Some(crate::wire::render::duration(Duration::from_millis(ms)));
            Response::Estimate(v1::Estimate { end, ..Default::default() }.into())
        };
        assert!(told.is_news(&estimate(500)) && told.is_news(&estimate(1_000)));
        assert!(!told.is_news(&estimate(500)) && !told.is_news(&estimate(1_000)));
        assert!(told.is_news(&estimate(1_500)));
        let utterance =
            |index| Response::Utterance(v1::Utterance { index, ..Default::default() }.into());
        assert!(told.is_news(&utterance(0)) && told.is_news(&utterance(1)));
        assert!(!told.is_news(&utterance(0)) && told.is_news(&utterance(2)));
    }
}

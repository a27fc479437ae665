//! A stream that outlives its connections: what breaks off goes on from the last checkpoint.
//!
//! In: requests with audio, as they are paced. Out: what the server says, as of one stream. Audio is kept
//! until a checkpoint covers it. When the server drains, or the connection breaks, another one is opened with
//! the checkpoint's token and the audio behind it is sent again; what is told a second time is left out. Where
//! there is no checkpoint yet, all is sent again under the name that the server gave the session, so that it knows
//! what it has raised before. Where the token is refused for good, another stream begins with the audio that no
//! checkpoint covered.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;

use super::QUEUE;
use crate::commands::client::{
    Client, CredentialArgs, Credentials, Failure, Response, Uri, config_request, duration,
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

    /// The next one has been sent. It is kept if it may have to be sent again.
    fn sent(&mut self, may_come_again: bool) {
        self.sent += 1;
        if !may_come_again {
            self.forget_first();
        }
    }

    /// Another stream begins with the first of them.
    fn begin_anew(&mut self) {
        (self.before, self.sent) = (0, 0);
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
    /// By reason and channel, the position of the last warning, and what that was when the connection broke.
    warned: BTreeMap<(i32, Option<u32>), Duration>,
    warned_before: BTreeMap<(i32, Option<u32>), Duration>,
    /// Escalations' events.
    events: BTreeSet<String>,
}

impl Told {
    /// From here on things are told again.
    fn broke_off(&mut self) {
        self.warned_before.clone_from(&self.warned);
    }

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
                let kind = (warning.reason, warning.channel);
                let position = duration(warning.position);
                let last = self.warned.entry(kind).or_default();
                *last = position.max(*last);
                self.warned_before.get(&kind).is_none_or(|before| position > *before)
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
}

/// What comes after a failure.
enum Then {
    /// Another attempt, after a pause and as long as there is patience.
    Again(String),
    /// Another attempt at once: what was refused is not asked for again.
    Otherwise(String),
    End,
}

/// How often, and for how long, another connection is tried for.
struct Retries {
    patience: Duration,
    wait: Duration,
    broken_since: Option<Instant>,
}

impl Retries {
    fn new(patience: Duration) -> Self {
        Self { patience, wait: WAITS.0, broken_since: None }
    }

    /// A connection ended on which the stream had `begun` then, if it had: one that went well for a while ends
    /// the trouble before it, but not one that took long to fail.
    fn ended(&mut self, begun: Option<Instant>) {
        if begun.is_some_and(|begun| begun.elapsed() > WAITS.1) {
            *self = Self::new(self.patience);
        }
    }

    /// The pause before another attempt, `asked` at least; `None` if that would be beyond all patience.
    fn pause(&mut self, asked: Duration) -> Option<Duration> {
        let since = *self.broken_since.get_or_insert_with(Instant::now);
        // With jitter: those whom the same server sent away are not to come back together.
        let pause = self.wait.mul_f64(0.5 + 0.5 * fastrand::f64()).max(asked);
        self.wait = (self.wait * 2).min(WAITS.1);
        (since.elapsed() + pause <= self.patience).then_some(pause)
    }
}

/// Who is asked, and as whom.
pub(super) struct Server {
    target: Uri,
    args: CredentialArgs,
    credentials: Credentials,
}

impl Server {
    /// With the credentials as they are now.
    ///
    /// # Errors
    /// If they cannot be read or used.
    pub(super) fn new(target: Uri, args: CredentialArgs) -> anyhow::Result<Self> {
        let credentials = args.read(&target)?;
        Ok(Self { target, args, credentials })
    }

    /// Reads the credentials again: a token may have run out and another one lie in its file. What cannot be
    /// read leaves those before.
    fn reread(&mut self) {
        if let Ok(credentials) = self.args.read(&self.target) {
            self.credentials = credentials;
        }
    }
}

/// One stream over as many connections as it takes.
pub(super) struct Carrier {
    server: Server,
    config: v1::StreamConfig,
    /// The session has a name of the user's.
    is_named: bool,
    /// How long another connection is tried for.
    patience: Duration,
    audio: mpsc::Receiver<v1::StreamEmotionRequest>,
    out: mpsc::Sender<Result<Carried, Failure>>,
    kept: Kept,
    token: Bytes,
    told: Told,
    /// A server has taken the stream once.
    has_begun: bool,
}

impl Carrier {
    /// Carries `audio` to `server`; what comes of it goes to `out`. A break is mended for `patience`.
    pub(super) fn new(
        server: Server,
        config: v1::StreamConfig,
        patience: Duration,
        audio: mpsc::Receiver<v1::StreamEmotionRequest>,
        out: mpsc::Sender<Result<Carried, Failure>>,
    ) -> Self {
        Self {
            server,
            is_named: !config.session_id.is_empty(),
            config,
            patience,
            audio,
            out,
            kept: Kept::default(),
            token: Bytes::new(),
            told: Told::default(),
            has_begun: false,
        }
    }

    /// Runs to the end of the stream, or of everybody's patience.
    pub(super) async fn run(mut self) {
        let mut retries = Retries::new(self.patience);
        loop {
            let mut begun = None;
            let failure = match self.converse(&mut begun).await {
                Ok(End::Finished | End::Unheard) => return,
                Ok(End::Drained) => Failure::unavailable("the server is about to end"),
                Err(failure) => failure,
            };
            retries.ended(begun);
            self.told.broke_off();
            let (note, pause) = match self.then(&failure) {
                Then::Again(note) => (note, retries.pause(failure.retry_after())),
                Then::Otherwise(note) => (note, Some(Duration::ZERO)),
                Then::End => (String::new(), None),
            };
            let Some(pause) = pause else {
                let _ = self.out.send(Err(failure)).await;
                return;
            };
            let note = Carried::Note(note);
            if self.has_begun && self.out.send(Ok(note)).await.is_err() {
                return;
            }
            sleep(pause).await;
            self.server.reread();
        }
    }

    /// What is to be done about `failure`.
    fn then(&mut self, failure: &Failure) -> Then {
        let kind = failure.kind();
        let gives_none =
            failure.is_reason("NO_CHECKPOINTS") && self.config.checkpoint_interval.take().is_some();
        if self.token.is_empty() {
            if gives_none {
                return Then::Otherwise(format!("{kind}; going on without checkpoints"));
            }
        } else if gives_none || failure.refuses_token() {
            self.begin_anew();
            return Then::Otherwise(format!("{kind}; another stream begins where it broke off"));
        }
        let can_go_on = self.has_begun
            && failure.may_pass()
            && !self.kept.has_gap
            && self.config.checkpoint_interval.is_some();
        if can_go_on { Then::Again(format!("{kind}; going on with the stream")) } else { Then::End }
    }

    /// The stream cannot be gone on with: another one begins with what no checkpoint covers.
    fn begin_anew(&mut self) {
        self.token.clear();
        self.told = Told::default();
        self.kept.begin_anew();
        if !self.is_named {
            self.config.session_id.clear();
        }
    }

    /// One connection, from its opening to its end. `begun` is when the server took the stream.
    async fn converse(&mut self, begun: &mut Option<Instant>) -> Result<End, Failure> {
        let client = Client::connect(&self.server.target, &self.server.credentials).await?;
        let (requests, queue) = mpsc::channel(QUEUE);
        let mut requests = Some(requests);
        let config = v1::StreamConfig { resume_token: self.token.clone(), ..self.config.clone() };
        if let Some(requests) = &requests {
            // There is room: the queue is new.
            let _ = requests.send(config_request(config)).await;
        }
        let mut responses = client.stream(ReceiverStream::new(queue)).await?;
        self.kept.sent = 0;
        loop {
            let ready = self.kept.next().is_some();
            let room = room(requests.as_ref(), begun.is_some() && ready);
            // All branches are cancel-safe: a message is taken whole, room is only looked for.
            tokio::select! {
                response = responses.next() => {
                    let Some(response) = response? else {
                        return Err(Failure::unavailable("the stream ended without a summary"));
                    };
                    if let Response::Started(started) = &response {
                        *begun = Some(Instant::now());
                        self.begun(started);
                    }
                    if let Some(end) = self.hear(response).await {
                        return Ok(end);
                    }
                }
                room = room => match (room, &requests, self.kept.next()) {
                    // Nobody else sends, so that the room is still there.
                    (true, Some(to), Some(request)) if to.try_send(request.clone()).is_ok() => {
                        self.kept.sent(self.config.checkpoint_interval.is_some());
                    }
                    // The stream has ended; its answers say why.
                    _ => requests = None,
                },
                request = self.audio.recv(), if begun.is_some() && !ready && requests.is_some() => {
                    match request {
                        Some(request) => self.kept.push(request),
                        // Half-closes.
                        None => requests = None,
                    }
                }
            }
        }
    }

    /// A server takes the stream, or goes on with it.
    fn begun(&mut self, started: &v1::Started) {
        self.has_begun = true;
        if let Some(point) = started.resumed_from {
            self.kept.cover(point.audio_bytes);
        }
        // If it breaks off before the first checkpoint, it is told again under its name.
        self.config.session_id.clone_from(&started.session_id);
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
    fn audio_that_will_not_be_sent_again_is_not_kept() {
        let mut kept = kept(3);
        kept.sent(true);
        kept.sent(false);
        assert_eq!((kept.requests.len(), kept.sent, kept.bytes), (2, 1, 200));
        assert!(kept.next().is_some() && !kept.has_gap);
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

    #[test]
    fn a_warning_is_told_once_whatever_others_there_are() {
        let mut told = Told::default();
        let warning = |reason: v1::warning::Reason, channel, ms: u64| {
            let position = Some(crate::wire::render::duration(Duration::from_millis(ms)));
            let reason = reason.into();
            Response::Warning(v1::Warning { reason, position, channel, ..Default::default() })
        };
        use v1::warning::Reason::{Clipping, SequenceGap};
        let first = [
            warning(SequenceGap, None, 900),
            // A little before it, of another kind; and twice at one place.
            warning(Clipping, Some(1), 870),
            warning(Clipping, Some(2), 500),
            warning(Clipping, Some(2), 500),
        ];
        assert!(first.iter().all(|warning| told.is_news(warning)));
        told.broke_off();
        assert!(!first.iter().any(|warning| told.is_news(warning)));
        assert!(told.is_news(&warning(SequenceGap, None, 901)));
        assert!(told.is_news(&warning(Clipping, Some(0), 100)));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_with_a_host_that_does_not_answer_has_an_end() {
        let mut retries = Retries::new(Duration::from_secs(60));
        let began = Instant::now();
        let mut attempts = 0;
        while let Some(pause) = retries.pause(Duration::ZERO) {
            sleep(pause).await;
            // As long as a connection is waited for.
            sleep(Duration::from_secs(5)).await;
            retries.ended(None);
            attempts += 1;
        }
        let took = began.elapsed().as_secs();
        assert!((55..=67).contains(&took) && attempts < 20, "{attempts} attempts in {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_went_well_for_a_while_gives_patience_back() {
        let mut retries = Retries::new(Duration::from_secs(10));
        for _ in 0..20 {
            assert!(retries.pause(Duration::ZERO).is_some());
            let begun = Instant::now();
            sleep(Duration::from_secs(3)).await;
            retries.ended(Some(begun));
        }
        // What the server asks for is waited for, if there is patience for it.
        assert_eq!(retries.pause(Duration::from_secs(9)), Some(Duration::from_secs(9)));
        assert_eq!(retries.pause(Duration::from_secs(11)), None);
    }

    fn carrier(session_id: &str) -> Carrier {
        let (_, audio) = mpsc::channel(1);
        let (out, _) = mpsc::channel(1);
        let server = Server {
            target: "http://localhost:1".parse().unwrap(),
            args: CredentialArgs::default(),
            credentials: Credentials::default(),
        };
        let config = v1::StreamConfig {
            session_id: session_id.to_owned(),
            checkpoint_interval: Some(crate::wire::render::duration(Duration::from_secs(5))),
            ..v1::StreamConfig::default()
        };
        let mut carrier = Carrier::new(server, config, Duration::from_secs(60), audio, out);
        let given = if session_id.is_empty() { "given" } else { session_id };
        carrier.begun(&v1::Started { session_id: given.to_owned(), ..Default::default() });
        carrier.kept = kept(4);
        carrier
    }

    #[test]
    fn a_stream_that_breaks_off_before_its_first_checkpoint_keeps_its_name() {
        let mut carrier = carrier("");
        let broken = Failure::unavailable("the connection broke");
        assert!(matches!(carrier.then(&broken), Then::Again(_)));
        assert_eq!(carrier.config.session_id, "given");
        // The server has not noticed yet that the stream before is gone.
        let taken = Failure::refused("ALREADY_EXISTS", "SESSION_ID_TAKEN");
        assert!(matches!(carrier.then(&taken), Then::Again(_)));
        carrier.has_begun = false;
        assert!(matches!(carrier.then(&taken), Then::End));
    }

    #[test]
    fn a_token_that_is_refused_for_good_lets_another_stream_begin_with_what_is_not_covered() {
        for (code, reason) in [
            ("FAILED_PRECONDITION", "RESUME_TOKEN_EXPIRED"),
            ("FAILED_PRECONDITION", "RESUME_KEY_UNKNOWN"),
            ("INVALID_ARGUMENT", "RESUME_TOKEN_INVALID"),
            ("FAILED_PRECONDITION", "NO_CHECKPOINTS"),
        ] {
            for (name, afterwards) in [("", ""), ("call-7", "call-7")] {
                let mut carrier = carrier(name);
                carrier.token = Bytes::from_static(b"token");
                carrier.kept.sent = 4;
                carrier.kept.cover(200);
                let failure = Failure::refused(code, reason);
                assert!(matches!(carrier.then(&failure), Then::Otherwise(_)), "{reason}");
                let kept = &carrier.kept;
                assert_eq!((kept.requests.len(), kept.before, kept.sent), (2, 0, 0), "{reason}");
                assert!(carrier.token.is_empty());
                assert_eq!(carrier.config.session_id, afterwards);
                // Refused again, without a token: that is the end.
                assert!(matches!(carrier.then(&failure), Then::End), "{reason}");
            }
        }
    }

    #[test]
    fn a_server_without_checkpoints_is_streamed_to_without() {
        let mut carrier = carrier("");
        let failure = Failure::refused("FAILED_PRECONDITION", "NO_CHECKPOINTS");
        assert!(matches!(carrier.then(&failure), Then::Otherwise(_)));
        assert_eq!((carrier.config.checkpoint_interval, carrier.kept.requests.len()), (None, 4));
    }
}

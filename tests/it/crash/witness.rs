//! One stream that goes on and on while its server is in trouble, and all that it was told.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::Streaming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use undertone::escalation::Store;
use undertone::wire::v1;
use undertone::wire::v1::stream_emotion_response::Message as Response;
use undertone::wire::v1::warning::Reason;

use super::audit;
use super::load::{Told, config, turn_of};
use super::receiver::Receiver;
use crate::process::Process;
use crate::support::{PATIENCE, Talk, audio, channel, http_get, seconds, until, wrap};

/// A store that does not answer counts as down soon.
pub(super) const HASTY_STORE: [&str; 2] = ["--store-timeout", "300ms"];
/// From one estimate to the next, in seconds of audio: none comes in the silence.
const LONGEST_STEP_S: f64 = 4.0;
/// Bytes of a quarter of a second, and how often they come.
const CHUNK: usize = 8_000;
const PACE: Duration = Duration::from_millis(25);

/// One stream that goes on and on, and all that it was told.
pub(super) struct Stream {
    responses: Streaming<v1::StreamEmotionResponse>,
    pub(super) feed: JoinHandle<()>,
    pub(super) events: Vec<v1::EscalationEvent>,
    warnings: Vec<Reason>,
    pub(super) estimates: usize,
    /// Where the last estimate ended, in seconds of the stream.
    last_end_s: f64,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.feed.abort();
    }
}

impl Stream {
    pub(super) async fn open(process: &Process, session_id: &str) -> Self {
        let talk = Talk::open(&process.client().await, config(session_id)).await;
        let requests: mpsc::Sender<v1::StreamEmotionRequest> = talk.requests;
        let feed = tokio::spawn(async move {
            for turn in 0.. {
                for chunk in turn_of(turn).chunks(CHUNK) {
                    if requests.send(wrap(audio(chunk.to_vec()))).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(PACE).await;
                }
            }
        });
        let (events, warnings) = (Vec::new(), Vec::new());
        Self { responses: talk.responses, feed, events, warnings, estimates: 0, last_end_s: 0.0 }
    }

    /// Reads on until `done`.
    pub(super) async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let begin = Instant::now();
        while !done(self) {
            let left = PATIENCE.saturating_sub(begin.elapsed());
            let next = tokio::time::timeout(left, self.responses.message()).await;
            let next = next.unwrap_or_else(|_| panic!("waited in vain until {what}: {self}"));
            self.take(next.expect("the stream goes on").expect("the stream goes on").message);
        }
    }

    fn take(&mut self, response: Option<Response>) {
        match response {
            Some(Response::Escalation(event)) => self.events.push(*event),
            Some(Response::Warning(warning)) => self.warnings.push(warning.reason()),
            Some(Response::Estimate(estimate)) => {
                // By the audio, whatever the clocks say.
                let end_s = seconds(estimate.end);
                let step = end_s - self.last_end_s;
                assert!(
                    step > 0.0 && step < LONGEST_STEP_S,
                    "from {} to {end_s} s",
                    self.last_end_s
                );
                self.last_end_s = end_s;
                self.estimates += 1;
            }
            _ => {}
        }
    }

    pub(super) fn count(&self, durable: bool) -> usize {
        self.events.iter().filter(|event| event.durable == durable).count()
    }

    pub(super) fn warned(&self, reason: Reason) -> usize {
        self.warnings.iter().filter(|warning| **warning == reason).count()
    }

    /// Lets what was said come to its end.
    pub(super) async fn close(mut self) -> Told {
        self.feed.abort();
        while let Some(response) = self.responses.message().await.expect("a good end") {
            self.take(response.message);
        }
        let mut told = Told { not_durable: self.count(false), ..Told::default() };
        for event in self.events.iter().filter(|event| event.durable) {
            let id = event.escalation.as_ref().expect("an escalation").id.clone();
            assert_eq!(told.durable.insert(event.id.clone(), id), None, "told durable twice");
        }
        told
    }

    /// Everything that was told while it was not durable was told again when it was.
    pub(super) fn assert_told_again(&self) {
        let name = |event: &v1::EscalationEvent| {
            let escalation = event.escalation.as_ref().expect("an escalation");
            let onset = escalation.onset.as_ref().map(|onset| (onset.seconds, onset.nanos));
            let at = escalation.evidence.as_ref().and_then(|evidence| evidence.end.as_ref());
            let at = at.map(|end| (end.seconds, end.nanos));
            (escalation.id.clone(), escalation.rule.clone(), event.kind(), onset, at)
        };
        let durable: Vec<_> = self.events.iter().filter(|event| event.durable).map(name).collect();
        let ends = durable.iter().map(|(.., end)| end);
        assert!(ends.is_sorted(), "not in the order in which it happened: {durable:?}");
        for event in self.events.iter().filter(|event| !event.durable) {
            let name = name(event);
            assert!(durable.contains(&name), "never durable: {name:?} of {durable:?}");
        }
    }
}

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} estimates, {} events durable, {} not, warnings {:?}",
            self.estimates,
            self.count(true),
            self.count(false),
            self.warnings
        )
    }
}

/// What the server says of its escalations to those who ask.
pub(super) async fn health(process: &Process) -> ServingStatus {
    let service = "undertone.v1.EscalationService".to_owned();
    let mut client = HealthClient::new(channel(process.grpc).await);
    let answer = client.check(HealthCheckRequest { service }).await.unwrap();
    answer.into_inner().status()
}

/// A server that is down says so, everywhere and with a cause, and its streams go on.
pub(super) async fn is_degraded(process: &Process, stream: &mut Stream, causes: &[&str]) {
    stream
        .until("it is told that nothing is durable", |stream| {
            stream.count(false) >= 3 && stream.warned(Reason::EscalationsNotDurable) >= 1
        })
        .await;
    assert_eq!(stream.warned(Reason::EscalationsNotDurable), 1, "said once: {stream}");
    let (status, page) = http_get(process.http, "/readyz").await;
    assert_eq!(status, 200, "streams go on, so it is ready: {page}");
    assert!(page.contains("degraded") && causes.iter().any(|cause| page.contains(cause)), "{page}");
    assert_eq!(health(process).await, ServingStatus::NotServing);
    let before = stream.estimates;
    stream.until("estimates come all the same", |stream| stream.estimates > before + 5).await;
    println!("  while it was down: {stream}; {}", page.trim());
}

/// A server whose store is back says so, and has forgotten nothing.
pub(super) async fn is_well_again(process: &Process, stream: &mut Stream) {
    stream
        .until("it is told that all is durable", |stream| {
            stream.warned(Reason::EscalationsDurable) >= 1
        })
        .await;
    stream.assert_told_again();
    assert_eq!(stream.warned(Reason::EscalationLost), 0, "{stream}");
    until("it is ready", async || http_get(process.http, "/readyz").await.1 == "ready\n").await;
    until("it serves", async || health(process).await == ServingStatus::Serving).await;
    let before = stream.count(true);
    stream.until("what is new is durable at once", |stream| stream.count(true) > before + 1).await;
    println!("  afterwards: {stream}");
}

/// Ends the stream and checks that everything was recorded and has arrived.
pub(super) async fn all_arrived(what: &str, stream: Stream, receiver: &Receiver, store: &Store) {
    let told = stream.close().await;
    audit::drained(store).await;
    audit::audit(what, store, &receiver.seen(), &told).await;
}

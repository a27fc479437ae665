//! A client that goes on with its stream wherever it can: what a client library does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use undertone::wire::v1;
use undertone::wire::v1::stream_emotion_request::Message as Request;
use undertone::wire::v1::stream_emotion_response::Message as Response;

use crate::signal::Noise;
use crate::support::{Answer, Client, PATIENCE, Told, told, wrap};

/// What is said, and how fast.
#[derive(Debug, Clone)]
pub(crate) struct Speech {
    /// With a checkpoint interval.
    pub(crate) config: v1::StreamConfig,
    pub(crate) data: Vec<u8>,
    /// Bytes of a chunk.
    pub(crate) chunk: usize,
    /// Time between two chunks.
    pub(crate) pace: Duration,
}

/// What was heard, as of one stream: all that came behind a checkpoint that was gone on from is left out.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) answer: Answer,
    /// Times that the stream broke off without a word.
    pub(crate) breaks: u32,
    /// Times that a server asked to go elsewhere.
    pub(crate) drains: u32,
    /// Times that it went on from a checkpoint.
    pub(crate) resumes: u32,
}

/// What a client hears, but for what only concerns breaking off, and for names and dates.
pub(crate) fn as_one_stream(answer: &Answer) -> Told {
    let mut told = told(answer);
    told.events.retain_mut(|event| match event {
        Response::Checkpoint(_) | Response::Started(_) => false,
        Response::Escalation(event) => {
            event.id.clear();
            event.at = None;
            if let Some(escalation) = &mut event.escalation {
                escalation.id.clear();
                escalation.session_id.clear();
                escalation.raised_at = None;
                escalation.updated_at = None;
                escalation.cleared_at = None;
                // Whether, not when.
                if let Some(ended) = &mut escalation.session_ended_at {
                    *ended = prost_types::Timestamp::default();
                }
                round(escalation);
            }
            true
        }
        Response::Estimate(estimate) => {
            estimate.escalation_ids.iter_mut().for_each(String::clear);
            true
        }
        _ => true,
    });
    told
}

/// Evidence holds probabilities, which batches of another size sum in another order.
fn round(escalation: &mut v1::Escalation) {
    let Some(evidence) = &mut escalation.evidence else {
        return;
    };
    let near = |value: &mut f32| *value = (*value * 1e3).round() / 1e3;
    evidence.emotions.values_mut().for_each(near);
    for value in [&mut evidence.distress, &mut evidence.valence, &mut evidence.arousal] {
        value.iter_mut().for_each(near);
    }
}

/// Where a client connects to, again and again.
pub(crate) enum To {
    /// Over the connection that it has.
    Connected(Client),
    /// To one of those that are there.
    Any(watch::Receiver<Vec<SocketAddr>>, Noise),
}

impl To {
    async fn connect(&mut self) -> Option<Client> {
        match self {
            Self::Connected(client) => Some(client.clone()),
            Self::Any(servers, noise) => {
                let servers = servers.borrow().clone();
                let address = *servers.get(noise.below(servers.len().max(1)))?;
                connect(address).await
            }
        }
    }
}

/// A client of `address`, if somebody listens there.
pub(crate) async fn connect(address: SocketAddr) -> Option<Client> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect().await.ok().map(Client::new)
}

/// How one stream ended.
enum End {
    Finished,
    Drained,
    Broken(Status),
}

/// A call in progress.
struct Call<'a> {
    speech: &'a Speech,
    token: bytes::Bytes,
    /// Bytes that need not be sent again.
    covered: usize,
    heard: Vec<Response>,
    /// As many of them are covered.
    kept: usize,
}

/// Says it all to wherever `to` leads, from checkpoint to checkpoint.
///
/// # Errors
/// What no further attempt would mend.
pub(crate) async fn talk(speech: &Speech, mut to: To) -> Result<Heard, Status> {
    let mut call =
        Call { speech, token: bytes::Bytes::new(), covered: 0, heard: Vec::new(), kept: 0 };
    let (mut breaks, mut drains, mut resumes) = (0, 0, 0);
    let deadline = tokio::time::Instant::now() + 4 * PATIENCE;
    loop {
        if tokio::time::Instant::now() > deadline {
            return Err(Status::deadline_exceeded("the call does not come to its end"));
        }
        let Some(client) = to.connect().await else {
            tokio::time::sleep(Duration::from_millis(30)).await;
            continue;
        };
        let resumed = !call.token.is_empty();
        match call.attempt(client).await {
            End::Finished => {
                resumes += u32::from(resumed);
                let answer = Answer { responses: call.heard, status: None };
                return Ok(Heard { answer, breaks, drains, resumes });
            }
            End::Drained => drains += 1,
            End::Broken(status) => {
                let again =
                    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal)
                        || matches!(status.code(), Code::Cancelled | Code::ResourceExhausted);
                if !again {
                    return Err(status);
                }
                breaks += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        resumes += u32::from(resumed);
        call.heard.truncate(call.kept);
    }
}

impl Call<'_> {
    async fn attempt(&mut self, client: Client) -> End {
        let (requests, inbox) = mpsc::channel(2);
        // Given away to whoever speaks, so that the stream half-closes when all has been said.
        let mut requests = Some(requests);
        let config =
            v1::StreamConfig { resume_token: self.token.clone(), ..self.speech.config.clone() };
        let first = wrap(Request::Config(config.into()));
        requests.as_ref().expect("new").send(first).await.expect("there is room");
        let opened = client.clone().stream_emotion(ReceiverStream::new(inbox)).await;
        let mut responses = match opened {
            Ok(responses) => responses.into_inner(),
            Err(status) => return End::Broken(status),
        };
        let mut speaking = None;
        loop {
            let next = tokio::time::timeout(PATIENCE, responses.message()).await;
            let message = match next.expect("no answer") {
                Ok(Some(response)) => response.message.expect("a message"),
                Ok(None) => return End::Broken(Status::unavailable("no summary")),
                Err(status) => return End::Broken(status),
            };
            match message {
                Response::Started(started) => {
                    if let Some(point) = started.resumed_from {
                        assert_eq!(point.audio_bytes as usize, self.covered, "the checkpoint's");
                    }
                    if self.heard.is_empty() {
                        self.heard.push(Response::Started(started));
                    }
                    let speech = self.speech.clone();
                    let covered = self.covered;
                    let requests = requests.take().expect("started comes once");
                    speaking = Some(tokio::spawn(speak(speech, covered, requests)));
                }
                Response::Checkpoint(checkpoint) => self.cover(checkpoint),
                Response::Draining(draining) => {
                    if let Some(checkpoint) = draining.checkpoint {
                        self.cover(checkpoint);
                    }
                }
                Response::Finished(finished) => {
                    if let Some(speaking) = speaking {
                        speaking.abort();
                    }
                    if finished.reason() != v1::FinishReason::Client {
                        return End::Drained;
                    }
                    self.heard.push(Response::Finished(finished));
                    return End::Finished;
                }
                other => self.heard.push(other),
            }
        }
    }

    fn cover(&mut self, checkpoint: v1::Checkpoint) {
        let point = checkpoint.point.expect("a point");
        self.token = checkpoint.resume_token;
        self.covered = point.audio_bytes as usize;
        self.kept = self.heard.len();
    }
}

/// Sends what is not covered, then ends the stream by dropping the sender.
async fn speak(speech: Speech, covered: usize, requests: mpsc::Sender<v1::StreamEmotionRequest>) {
    let first = (covered / speech.chunk) as u64;
    let mut due = tokio::time::Instant::now();
    for (sequence, data) in (first..).zip(speech.data[covered..].chunks(speech.chunk)) {
        due += speech.pace;
        tokio::time::sleep_until(due).await;
        let chunk = v1::AudioChunk {
            data: data.to_vec().into(),
            sequence: Some(sequence),
            ..v1::AudioChunk::default()
        };
        if requests.send(wrap(Request::Audio(chunk))).await.is_err() {
            return;
        }
    }
}

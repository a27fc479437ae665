//! Clients that keep servers busy: each talks call after call, and plays a call whose server died to the
//! next one from its start, as a client that wants to miss nothing does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use undertone::wire::v1;
use undertone::wire::v1::escalation_service_client::EscalationServiceClient;
use undertone::wire::v1::stream_emotion_request::Message as Request;
use undertone::wire::v1::stream_emotion_response::Message as Response;

use crate::signal::{Noise, encode, silence, speech};
use crate::support::{Client, PATIENCE, PLAIN, audio, wrap};

/// A policy that raises whenever nobody has spoken for a second, and again for a little longer.
pub(super) const POLICY: &str = "
schema: undertone.policy/v1
name: crash
version: '1'
description: Raises often, for tests.
budget: 1000
rules:
  - name: quiet
    title: Quiet
    severity: high
    when: {silence: {for: 1s}}
    clear_after: 0s
    cooldown: 0s
    update_every: 500ms
    reason: Nothing heard for {{ silence }} s.
  - name: quieter
    title: Quieter
    severity: low
    when: {silence: {for: 1500ms}}
    clear_after: 0s
    cooldown: 0s
    on_session_end: clear
    reason: Nothing heard for {{ silence }} s.
";

/// Bytes of a quarter of a second.
const CHUNK: usize = 8_000;
/// Time between two chunks: about twenty times as fast as people talk.
const PACE: Duration = Duration::from_millis(12);
/// Voice and silence in turn, in seconds, as often as a call has turns.
const VOICE_S: f64 = 1.8;
const SILENCE_S: f64 = 2.2;
const TURNS: u64 = 5;

/// What is said in calls; every call is one of these.
pub(super) static CALLS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| (0..3).map(call).collect());

fn call(seed: u64) -> Vec<u8> {
    (0..TURNS).flat_map(|turn| turn_of(10 * seed + turn)).collect()
}

/// Voice, then silence: both rules raise, and clear with the next voice.
pub(super) fn turn_of(seed: u64) -> Vec<u8> {
    let samples = [speech(seed, VOICE_S, 16_000), silence(seed, SILENCE_S, 16_000)].concat();
    encode(&samples, PLAIN.encoding)
}

/// What a call begins with.
pub(super) fn config(session_id: &str) -> v1::StreamConfig {
    v1::StreamConfig {
        session_id: session_id.to_owned(),
        policy: Some(v1::stream_config::Policy::PolicyYaml(POLICY.to_owned())),
        ..PLAIN.config()
    }
}

/// What clients were told.
#[derive(Debug, Default, Clone)]
pub(super) struct Told {
    /// Names of occurrences that were said to be durable, with their escalations'.
    pub(super) durable: BTreeMap<String, String>,
    /// Of those, told again in a replay.
    pub(super) again: usize,
    /// Events that were said not to be durable.
    pub(super) not_durable: usize,
    /// Escalations whose acknowledgement the service confirmed.
    pub(super) acknowledged: BTreeSet<String>,
    /// Calls that came to their end, and which of the calls they were.
    pub(super) finished: BTreeMap<String, usize>,
    /// Streams that their server took down with it.
    pub(super) cut: usize,
    /// Calls that were then given up.
    pub(super) given_up: usize,
}

/// Clients at work.
#[derive(Debug)]
pub(super) struct Load {
    told: Arc<Mutex<Told>>,
    stop: CancellationToken,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts `clients`, who talk to any of `servers`.
    pub(super) fn start(
        servers: &watch::Receiver<Vec<SocketAddr>>,
        clients: u64,
        seed: u64,
    ) -> Self {
        let told = Arc::new(Mutex::new(Told::default()));
        let stop = CancellationToken::new();
        let mut set = JoinSet::new();
        for number in 0..clients {
            let caller = Caller {
                number,
                servers: servers.clone(),
                told: told.clone(),
                seed,
                noise: Noise::new(seed + number),
            };
            set.spawn(caller.run(stop.clone()));
        }
        Self { told, stop, clients: set }
    }

    /// What they were told so far.
    pub(super) fn told(&self) -> Told {
        self.told.lock().unwrap().clone()
    }

    /// Lets every client bring its call to an end.
    pub(super) async fn finish(mut self) -> Told {
        self.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended.expect("a client panicked");
        }
        self.told()
    }
}

struct Caller {
    number: u64,
    seed: u64,
    servers: watch::Receiver<Vec<SocketAddr>>,
    told: Arc<Mutex<Told>>,
    noise: Noise,
}

/// The stream ended before the call did.
struct Cut;

impl Caller {
    async fn run(mut self, stop: CancellationToken) {
        for n in 0.. {
            if stop.is_cancelled() {
                return;
            }
            let (session_id, which) =
                (format!("c{}-{}-{n}", self.seed, self.number), n % CALLS.len());
            while self.talk(&session_id, which).await.is_err() {
                self.told.lock().unwrap().cut += 1;
                if !stop.is_cancelled() && self.noise.below(4) == 0 {
                    self.told.lock().unwrap().given_up += 1;
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    async fn connect(&mut self) -> Result<Channel, Cut> {
        let found = self.servers.wait_for(|servers| !servers.is_empty());
        let servers = tokio::time::timeout(PATIENCE, found).await.expect("no server comes");
        let servers = servers.expect("the servers' list is kept").clone();
        let address = servers[self.noise.below(servers.len())];
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        endpoint.connect().await.map_err(|_| Cut)
    }

    /// One call from its beginning to its end.
    async fn talk(&mut self, session_id: &str, which: usize) -> Result<(), Cut> {
        let channel = self.connect().await?;
        let (requests, inbox) = mpsc::channel(8);
        let first = Request::Config(config(session_id).into());
        requests.try_send(wrap(first)).expect("there is room");
        let opened = Client::new(channel.clone()).stream_emotion(ReceiverStream::new(inbox)).await;
        let mut responses = opened.map_err(|_| Cut)?.into_inner();
        let mut chunks = CALLS[which].chunks(CHUNK).peekable();
        let mut requests = Some(requests);
        let mut pace = tokio::time::interval(PACE);
        loop {
            tokio::select! {
                response = responses.message() => {
                    let Some(response) = response.map_err(|_| Cut)? else { return Err(Cut) };
                    match response.message {
                        Some(Response::Escalation(event)) => {
                            self.hear(&event, requests.as_ref(), &channel);
                        }
                        Some(Response::Finished(_)) => {
                            let session_id = session_id.to_owned();
                            self.told.lock().unwrap().finished.insert(session_id, which);
                            return Ok(());
                        }
                        _ => {}
                    }
                }
                _ = pace.tick(), if requests.is_some() => {
                    let Some(chunk) = chunks.peek() else {
                        requests = None;
                        continue;
                    };
                    let message = wrap(audio(chunk.to_vec()));
                    // Later, if the server has not taken those before yet.
                    if requests.as_ref().is_some_and(|to| to.try_send(message).is_ok()) {
                        chunks.next();
                    }
                }
            }
        }
    }

    fn hear(
        &mut self,
        event: &v1::EscalationEvent,
        requests: Option<&mpsc::Sender<v1::StreamEmotionRequest>>,
        channel: &Channel,
    ) {
        let id = event.escalation.as_ref().expect("an escalation").id.clone();
        {
            let mut told = self.told.lock().unwrap();
            if !event.durable {
                told.not_durable += 1;
                return;
            }
            if let Some(before) = told.durable.insert(event.id.clone(), id.clone()) {
                assert_eq!(before, id, "one occurrence of two escalations");
                told.again += 1;
            }
        }
        if event.kind() != v1::EscalationEventKind::Raised {
            return;
        }
        match (self.noise.below(4), requests) {
            (0, Some(requests)) => {
                let actor = "in the stream".to_owned();
                let acknowledge = v1::Acknowledge { escalation_id: id, actor, note: String::new() };
                // If there is no room, somebody else will.
                let _ = requests.try_send(wrap(Request::Acknowledge(acknowledge)));
            }
            (1, _) => {
                let request = v1::AcknowledgeEscalationRequest {
                    id: id.clone(),
                    actor: "at the desk".to_owned(),
                    note: "on my way".to_owned(),
                };
                let mut service = EscalationServiceClient::new(channel.clone());
                let told = self.told.clone();
                // Ends with the answer or with the server.
                tokio::spawn(async move {
                    if service.acknowledge_escalation(request).await.is_ok() {
                        told.lock().unwrap().acknowledged.insert(id);
                    }
                });
            }
            _ => {}
        }
    }
}

//! Clients whose servers are drained and killed under them, and who go on with their calls at the other
//! replica: what they hear is what one uninterrupted stream would have told them, and no escalation is lost
//! or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use undertone::wire::v1;

use super::load::{CALLS, Told, config};
use super::receiver::{Receiver, Temper};
use super::site::Site;
use super::{audit, crashes};
use crate::database::{Kind, Place};
use crate::process::Process;
use crate::resumer::{Heard, Speech, To, as_one_stream, talk};
use crate::signal::Noise;
use crate::support::{assert_same, duration};

/// Clients at once.
const CALLERS: usize = 12;
/// Bytes of a quarter of a second.
const CHUNK: usize = 8_000;
/// Time between two chunks: eight times as fast as people talk.
const PACE: Duration = Duration::from_millis(30);
/// Longest time from one blow to the next.
const LULL_MS: usize = 900;

pub(super) fn speech(which: usize, session_id: &str, pace: Duration) -> Speech {
    Speech {
        config: v1::StreamConfig { checkpoint_interval: duration(1.0), ..config(session_id) },
        data: CALLS[which].clone(),
        chunk: CHUNK,
        pace,
    }
}

/// What was heard in each call, by session, and which of the calls it was.
type Calls = BTreeMap<String, (usize, Heard)>;

async fn caller(
    number: usize,
    servers: watch::Receiver<Vec<SocketAddr>>,
    stop: CancellationToken,
    calls: Arc<Mutex<Calls>>,
) {
    for n in 0.. {
        if stop.is_cancelled() {
            return;
        }
        let (which, session) = (n % CALLS.len(), format!("t{number}-{n}"));
        let speech = speech(which, &session, PACE);
        let to = To::Any(servers.clone(), Noise::new((100 * number + n) as u64));
        let heard = talk(&speech, to).await;
        let heard = heard.unwrap_or_else(|status| panic!("{session}: {status:?}"));
        calls.lock().unwrap().insert(session, (which, heard));
    }
}

/// Each of the calls as one stream without a break tells it, told by a server of its own.
pub(super) async fn whole() -> Vec<crate::support::Told> {
    let place = Place::new(Kind::Sqlite).await;
    let receiver = Receiver::start(Temper::Good, 1).await;
    let site = Site::with_webhook(&place.url, receiver.address);
    let process = site.serve(&[]).await;
    let mut whole = Vec::new();
    for which in 0..CALLS.len() {
        let speech = speech(which, &format!("whole-{which}"), Duration::ZERO);
        let heard = talk(&speech, To::Connected(process.client().await)).await.unwrap();
        assert_eq!((heard.breaks, heard.resumes), (0, 0));
        whole.push(as_one_stream(&heard.answer));
    }
    whole
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_at_the_other_replica_as_if_nothing_had_been_and_nothing_is_lost_or_doubled() {
    let (blows, began) = (crashes(), Instant::now());
    let place = Place::new(Kind::Postgres).await;
    let receiver = Receiver::start(Temper::Good, 3).await;
    let keys = place.folder.path().join("resume.keys");
    std::fs::write(&keys, "k:MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n").unwrap();
    let site = Site::with_webhook(&place.url, receiver.address)
        .and(&["--resume-keys", &keys.display().to_string()]);
    let mut replicas = [site.serve(&[]).await, site.serve(&[]).await];
    let addresses = |replicas: &[Process]| replicas.iter().map(|one| one.grpc).collect::<Vec<_>>();
    let (servers, list) = watch::channel(addresses(&replicas));
    let (stop, calls) = (CancellationToken::new(), Arc::new(Mutex::new(Calls::new())));
    let mut callers = JoinSet::new();
    for number in 0..CALLERS {
        callers.spawn(caller(number, list.clone(), stop.clone(), calls.clone()));
    }
    let mut noise = Noise::new(blows as u64);
    for blow in 0..blows {
        tokio::time::sleep(Duration::from_millis(noise.below(LULL_MS) as u64)).await;
        let struck = blow % 2;
        let mut others = addresses(&replicas);
        others.remove(struck);
        servers.send_replace(others);
        // A drained one still says where to go on; a killed one says nothing.
        let signal = if noise.below(2) == 0 { Signal::TERM } else { Signal::KILL };
        replicas[struck].signal(signal);
        replicas[struck].ended().await;
        replicas[struck] = site.serve(&[]).await;
        servers.send_replace(addresses(&replicas));
    }
    stop.cancel();
    while let Some(ended) = callers.join_next().await {
        ended.expect("a caller panicked");
    }
    let store = place.store();
    audit::drained(&store).await;
    let calls = std::mem::take(&mut *calls.lock().unwrap());
    let whole = whole().await;
    let mut told = Told::default();
    let (mut breaks, mut drains, mut resumes) = (0, 0, 0);
    for (session, (which, heard)) in &calls {
        assert_same(session, &as_one_stream(&heard.answer), &whole[*which]);
        for event in heard.answer.escalations() {
            let id = event.escalation.as_ref().unwrap().id.clone();
            let before = told.durable.insert(event.id.clone(), id);
            assert!(event.durable && before.is_none(), "{session}: told twice: {event:?}");
        }
        told.finished.insert(session.clone(), *which);
        breaks += heard.breaks;
        drains += heard.drains;
        resumes += heard.resumes;
    }
    println!(
        "takeover: {blows} replicas drained or killed in {:.1?}; {} calls, {drains} drained, {breaks} \
         broken, {resumes} gone on from a checkpoint",
        began.elapsed(),
        calls.len(),
    );
    audit::audit("takeover", &store, &receiver.seen(), &told).await;
    // A call that went on has not ended before its end.
    let mut ended = BTreeSet::new();
    for one in audit::occurrences(&store).await {
        let id = one.escalation.id;
        assert!(!ended.contains(&id), "something happened after the session had ended: {one:?}");
        if one.escalation.session_ended_at.is_some() {
            ended.insert(id);
        }
        assert!(one.note.as_ref().is_none_or(|note| !note.contains("broke off")), "{one:?}");
    }
    assert!(resumes >= 1 && drains + breaks >= 1, "the blows hit nobody");
}

//! Servers that are frozen (SIGSTOP) for seconds, as by a hypervisor or a full swap, and go on: their streams
//! go on too, and what another replica has made of their silence is put right.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinSet;
use undertone::escalation::{Escalation, Filter, Store};
use undertone::wire::v1;
use undertone::wire::v1::stream_emotion_response::Message as Response;

use super::audit;
use super::load::{Load, Told, config};
use super::receiver::{Receiver, Temper};
use super::site::Site;
use crate::database::{Kind, Place};
use crate::process::Process;
use crate::signal::{encode, silence, speech};
use crate::support::{PLAIN, Talk, audio, http_get, until};

/// More than load alone would never refuse.
const STREAMS: u64 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_frozen_goes_on_with_every_stream_and_takes_new_ones() {
    let process = Process::start(&[
        "--idle-timeout",
        "1s",
        "--max-load",
        "0.95",
        // Other tests load the machine; a frozen process is later than that.
        "--max-worker-delay",
        "1500ms",
        "--max-engine-lag",
        "1500ms",
        "--worker-threads",
        "2",
    ])
    .await;
    let client = process.client().await;
    let mut talks = JoinSet::new();
    let (stop, stopped) = watch::channel(false);
    for seed in 0..STREAMS {
        let mut talk = Talk::open(&client, PLAIN.config()).await;
        let (chunk, stopped) =
            (encode(&speech(seed, 0.1, 16_000), PLAIN.encoding), stopped.clone());
        talks.spawn(async move {
            while !*stopped.borrow() {
                // While the server is frozen this waits, once the windows are full.
                talk.say(audio(chunk.clone())).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                while let Ok(next) = tokio::time::timeout(Duration::ZERO, talk.next()).await {
                    next.expect("the stream goes on").expect("the stream goes on");
                }
            }
            talk.close().await.fine().estimates().len()
        });
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    process.signal(Signal::STOP);
    tokio::time::sleep(Duration::from_secs(3)).await;
    process.signal(Signal::CONT);
    let thawed = Instant::now();
    // The first look after it must not find the seconds in which nobody looked.
    until("new streams are taken", async || http_get(process.http, "/accepting").await.0 == 200)
        .await;
    println!("frozen for 3 s: takes streams again after {:.1?}", thawed.elapsed());
    Talk::open(&client, PLAIN.config()).await.close().await.fine();
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.send_replace(true);
    let mut ended = 0;
    while let Some(talk) = talks.join_next().await {
        talk.expect("a stream that was live when the server froze ends well");
        ended += 1;
    }
    assert_eq!(ended, STREAMS);
}

async fn escalations(store: &Store) -> Vec<Escalation> {
    store.list(&Filter::default(), None, 500).await.map(|page| page.escalations).unwrap_or_default()
}

/// A stream whose client says nothing, for as long as it lives: one rule has something in force all the time.
fn mute(mut talk: Talk) -> tokio::task::JoinHandle<crate::support::Answer> {
    let chunk = encode(&silence(1, 0.1, 16_000), PLAIN.encoding);
    tokio::spawn(async move {
        let until = Instant::now() + Duration::from_secs(14);
        while Instant::now() < until {
            talk.say(audio(chunk.clone())).await;
            tokio::time::sleep(Duration::from_millis(40)).await;
            while let Ok(next) = tokio::time::timeout(Duration::ZERO, talk.next()).await {
                let next = next.expect("the stream goes on").expect("the stream goes on");
                assert!(!matches!(next, Response::Finished(_)), "{next:?}");
            }
        }
        talk.close().await.fine()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_frozen_beyond_its_leases_doubles_nothing_and_its_sessions_go_on() {
    let place = Place::new(Kind::Postgres).await;
    let receiver = Receiver::start(Temper::Slow, 31).await;
    let site = Site::with_webhook(&place.url, receiver.address).and(&[
        // Four seconds until a session that nobody speaks of is taken for lost.
        "--resume-window",
        "2s",
        "--min-checkpoint-interval",
        "1s",
    ]);
    let [a, b] = [site.serve(&["--replica", "a"]).await, site.serve(&["--replica", "b"]).await];
    // Nothing of it happens again by itself: that it goes on has to be said.
    let once = config("mute");
    let Some(v1::stream_config::Policy::PolicyYaml(yaml)) = once.policy.clone() else { panic!() };
    let yaml = yaml.replace("    update_every: 500ms\n", "");
    let policy = Some(v1::stream_config::Policy::PolicyYaml(yaml));
    let talk = Talk::open(&a.client().await, v1::StreamConfig { policy, ..once }).await;
    let mute = mute(talk);
    let (_servers, list) = watch::channel(vec![a.grpc]);
    let load = Load::start(&list, 4, 700);
    let store = place.store();
    let of_mute = async || {
        let all = escalations(&store).await;
        all.into_iter().filter(|one| one.session_id == "mute").collect::<Vec<_>>()
    };
    until("it is raised, and others are", async || {
        !of_mute().await.is_empty() && load.told().durable.len() >= 10
    })
    .await;
    a.signal(Signal::STOP);
    let frozen = Instant::now();
    until("the other one has taken it for lost", async || {
        of_mute().await.iter().any(|one| one.session_ended_at.is_some())
    })
    .await;
    println!("frozen: taken for lost after {:.1?}", frozen.elapsed());
    a.signal(Signal::CONT);
    until("it has said that it goes on", async || {
        let all = of_mute().await;
        !all.is_empty() && all.iter().all(|one| one.session_ended_at.is_none())
    })
    .await;
    let Told { durable, finished, .. } = load.finish().await;
    let answer = mute.await.expect("the stream goes on to its end");
    assert!(answer.warnings().is_empty(), "{:?}", answer.warnings());
    audit::drained(&store).await;
    let seen = receiver.seen();
    let told = Told { durable, finished, ..Told::default() };
    audit::audit("frozen", &store, &seen, &told).await;
    let notes: Vec<String> =
        audit::occurrences(&store).await.into_iter().filter_map(|one| one.note).collect();
    assert!(notes.iter().any(|note| note.contains("broke off")), "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("goes on")), "{notes:?}");
    drop(b);
}

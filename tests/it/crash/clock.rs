//! Clocks that leap, forward and back, by minutes and by hours, under servers and databases at work: sessions
//! stay alive, deliveries go on, nothing is removed, and what must depend on the date does so as documented.

use std::time::Duration;

use tonic::Code;
use undertone::escalation::{Store, Timestamp};
use undertone::wire::v1;
use undertone::wire::v1::stream_emotion_response::Message as Response;

use super::audit;
use super::date::{Date, library};
use super::load::{Told, config};
use super::receiver::{Receiver, Temper};
use super::site::Site;
use super::witness::Stream;
use crate::database::{Kind, Place, Postgres};
use crate::pki::{caller, hash};
use crate::process::Process;
use crate::support::{Talk, assert_error, channel, duration, until};

/// Sessions that nobody speaks of are taken for lost after four seconds, and it is looked for them about every second.
/// Nothing comes to the end of its retention while a test runs, unless by a wrong date.
const SHORT: [&str; 6] =
    ["--resume-window", "2s", "--min-checkpoint-interval", "1s", "--escalation-retention", "4m"];
/// A process looks at its date every second, in whole seconds.
const NOTICED: Duration = Duration::from_millis(2_200);
/// Between two removals of what has come to the end of its retention there is a twenty-fourth of it.
const REMOVED: Duration = Duration::from_secs(11);
const HOUR_S: i64 = 3600;

/// Waits until the newest occurrence is of a date `offset_s` seconds away from the true one.
async fn date_is(store: &Store, offset_s: i64) {
    until("the server has the date", async || {
        let all = audit::occurrences(store).await;
        let Some(last) = all.last() else { return false };
        let away_s = (last.at.0 - Timestamp::now().0) / 1_000_000;
        (away_s - offset_s).abs() < 60
    })
    .await;
}

/// Deliveries go on, although the date is what it is: of a session in their order, so that one that waited for hours
/// would hold up all behind it.
async fn deliveries_go_on(receiver: &Receiver) {
    let so_far = receiver.seen().distinct();
    until("deliveries go on", async || receiver.seen().distinct() >= so_far + 6).await;
}

/// Nobody was told that a session had ended that went on.
async fn nobody_broke_off(store: &Store) {
    for one in audit::occurrences(store).await {
        assert!(one.note.as_ref().is_none_or(|note| !note.contains("broke off")), "{one:?}");
    }
}

/// Ends `streams`; all that they were told was delivered, never twice at a time, and no session broke off.
async fn all_is_told_once(
    what: &str,
    streams: impl IntoIterator<Item = Stream>,
    receiver: &Receiver,
    store: &Store,
) {
    receiver.turn(Temper::Good);
    let mut told = Told::default();
    for stream in streams {
        told.durable.append(&mut stream.close().await.durable);
    }
    audit::drained(store).await;
    // What waits to be delivered is not removed; now nothing does any more.
    tokio::time::sleep(REMOVED).await;
    let seen = receiver.seen();
    audit::audit(what, store, &seen, &told).await;
    assert!(seen.side_by_side.is_empty(), "leases held: {:?}", seen.side_by_side);
    nobody_broke_off(store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_clock_leaps_loses_no_session_and_no_delivery_and_removes_nothing() {
    let place = Place::new(Kind::Sqlite).await;
    let date = Date::new();
    // Always some attempts under way, and some that wait for the next one.
    let receiver = Receiver::start(Temper::Bad, 21).await;
    let site = Site::with_webhook(&place.url, receiver.address).and(&SHORT);
    let process = site.serve_under(&date.command(), &[]).await;
    let store = place.store();
    let mut streams = [Stream::open(&process, "one").await, Stream::open(&process, "two").await];
    for stream in &mut streams {
        stream.until("it is well", |stream| stream.count(true) >= 3).await;
    }
    // Back beyond what was before, and forward beyond the end of the retention.
    for (offset, offset_s) in [
        ("+3h", 3 * HOUR_S),
        ("-3h", -3 * HOUR_S),
        ("-5m", -300),
        ("+1000h", 1000 * HOUR_S),
        ("+0", 0),
    ] {
        date.is(offset);
        for stream in &mut streams {
            let (before, estimates) = (stream.count(true), stream.estimates);
            stream
                .until("it goes on", |stream| {
                    stream.count(true) >= before + 8 && stream.estimates >= estimates + 20
                })
                .await;
        }
        date_is(&store, offset_s).await;
        deliveries_go_on(&receiver).await;
        println!("{offset}: {}", streams[0]);
        if offset == "+1000h" {
            // By this date all that is there is beyond its retention. It is kept all the same.
            until("it has come to a removal", async || {
                process.log().contains("nothing is removed by it")
            })
            .await;
        }
    }
    all_is_told_once("clock", streams, &receiver, &store).await;
    let log = process.log();
    assert!(log.contains("the date has leapt"), "{log}");
    // Each is the end of its session, whose date may be before that of its beginning.
    for one in audit::occurrences(&store).await {
        let now = store.get(one.escalation.id).await.unwrap().unwrap();
        let is_over = now.cleared_at.is_some() || now.session_ended_at.is_some();
        assert!(is_over, "left in force by a session that has ended: {now:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_whose_database_has_a_clock_that_leaps_lose_no_session_and_no_delivery() {
    let (mut postgres, url) = tokio::task::spawn_blocking(|| {
        let postgres = Postgres::start_under(Some(&library()));
        let url = postgres.url("postgres");
        (postgres, url)
    })
    .await
    .unwrap();
    // Attempts take a while, so that leases are held all the time.
    let receiver = Receiver::start(Temper::Slow, 22).await;
    let site = Site::with_webhook(&url, receiver.address).and(&SHORT);
    // Of one of them the own clock is wrong as well, all the time.
    let late = Date::new();
    late.is("-3h");
    let a = site.serve(&["--replica", "a"]).await;
    let b = site.serve_under(&late.command(), &["--replica", "b"]).await;
    let store = Store::at(url.parse().unwrap(), Duration::from_secs(10)).unwrap();
    let mut streams = [Stream::open(&a, "at-a").await, Stream::open(&b, "at-b").await];
    for offset in ["+0", "+3h", "-3h", "+5m", "+0"] {
        postgres.command(&format!("date {offset}"));
        tokio::time::sleep(NOTICED).await;
        for stream in &mut streams {
            let before = stream.count(true);
            stream.until("it goes on", |stream| stream.count(true) >= before + 6).await;
        }
        deliveries_go_on(&receiver).await;
    }
    all_is_told_once("clock of the database", streams, &receiver, &store).await;
    for process in [&a, &b] {
        assert!(process.log().contains("the date has leapt"), "{}", process.log());
    }
}

/// A replica that looks by its own clock finds nothing due for three hours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_own_clock_is_hours_behind_tries_again_in_time() {
    let place = Place::new(Kind::Postgres).await;
    let date = Date::new();
    date.is("-3h");
    let receiver = Receiver::start(Temper::Down, 23).await;
    let site = Site::with_webhook(&place.url, receiver.address);
    let process = site.serve_under(&date.command(), &[]).await;
    let mut stream = Stream::open(&process, "call").await;
    stream.until("something is raised", |stream| stream.count(true) >= 2).await;
    let told = stream.close().await;
    // From here on nothing is written but what is due again.
    until("attempts fail", async || receiver.seen().attempts >= 4).await;
    receiver.turn(Temper::Good);
    let store = place.store();
    audit::drained(&store).await;
    audit::audit("behind", &store, &receiver.seen(), &told).await;
}

fn with_checkpoints() -> v1::StreamConfig {
    v1::StreamConfig { checkpoint_interval: duration(1.0), ..config("with-checkpoints") }
}

/// The next checkpoint of a stream whose client says nothing but silence.
async fn checkpoint(process: &Process) -> v1::Checkpoint {
    let mut talk = Talk::open(&process.client().await, with_checkpoints()).await;
    talk.say(crate::support::audio(vec![0; 48_000])).await;
    loop {
        if let Some(Response::Checkpoint(checkpoint)) = talk.next().await.expect("it goes on") {
            return checkpoint;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_hold_by_the_date_and_a_clock_that_is_put_right_makes_them_good_again() {
    let place = Place::new(Kind::Sqlite).await;
    let date = Date::new();
    let receiver = Receiver::start(Temper::Good, 24).await;
    let expires = Timestamp::now().after(Duration::from_secs(3600));
    let identities = place.folder.path().join("identities.yaml");
    let text = format!(
        "schema: undertone.identities/v1\nidentities:\n  - name: agent\n    roles: [stream]\n    tokens:\n      \
         - {{hash: '{}', expires: {expires}}}\n",
        hash("a-token-of-some-length-for-the-test")
    );
    std::fs::write(&identities, text).unwrap();
    let plain = Site::with_webhook(&place.url, receiver.address);
    let process = plain.serve_under(&date.command(), &[]).await;
    let checkpoint = checkpoint(&process).await;
    let resumed = async |token: &bytes::Bytes| {
        let config = v1::StreamConfig { resume_token: token.clone(), ..with_checkpoints() };
        let client = process.client().await;
        let mut talk = Talk::dial(&client, config).await;
        talk.next().await
    };
    // Before its time, and in time: the window is two minutes.
    for offset in ["-3h", "+1m"] {
        date.is(offset);
        tokio::time::sleep(NOTICED).await;
        let started = resumed(&checkpoint.resume_token).await;
        assert!(matches!(started, Ok(Some(Response::Started(_)))), "{offset}: {started:?}");
    }
    date.is("+3h");
    tokio::time::sleep(NOTICED).await;
    let status = resumed(&checkpoint.resume_token).await.unwrap_err();
    assert_error(&status, Code::FailedPrecondition, "RESUME_TOKEN_EXPIRED", None);
    date.is("+0");
    tokio::time::sleep(NOTICED).await;
    let started = resumed(&checkpoint.resume_token).await;
    assert!(matches!(started, Ok(Some(Response::Started(_)))), "put right: {started:?}");

    let guarded =
        Process::start_under(&date.command(), &["--identities", &identities.display().to_string()])
            .await;
    let list = async || {
        let token = Some("a-token-of-some-length-for-the-test");
        let mut client = caller(channel(guarded.grpc).await, token);
        client.list_models(v1::ListModelsRequest {}).await.map(|_| ())
    };
    list().await.unwrap();
    date.is("+3h");
    tokio::time::sleep(NOTICED).await;
    let status = list().await.unwrap_err();
    assert_error(&status, Code::Unauthenticated, "TOKEN_EXPIRED", None);
    date.is("-3h");
    tokio::time::sleep(NOTICED).await;
    list().await.unwrap();
}

//! A PostgreSQL that fails while a stream is live: it hangs, dies, or drops its connections. The stream goes on and
//! knows; in the end everything is there.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _};
use undertone::escalation::Store;
use undertone::wire::v1::warning::Reason;

use super::audit;
use super::load::Told;
use super::receiver::{Receiver, Temper};
use super::site::Site;
use super::witness::{HASTY_STORE, Stream, all_arrived, is_degraded, is_well_again};
use crate::database::{Kind, Place, Postgres};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_hangs_or_dies_costs_no_stream_and_no_escalation() {
    let (mut postgres, url) = tokio::task::spawn_blocking(|| {
        let postgres = Postgres::start();
        let url = postgres.url("postgres");
        (postgres, url)
    })
    .await
    .unwrap();
    let receiver = Receiver::start(Temper::Good, 3).await;
    let site = Site::with_webhook(&url, receiver.address).and(&HASTY_STORE);
    let process = site.serve(&[]).await;
    let store = Store::at(url.parse().unwrap(), Duration::from_secs(10)).unwrap();
    for (round, [down, up], causes) in [
        (0, ["pause", "resume"], ["no answer within 300ms", "no answer within 300ms"]),
        (1, ["kill", "start"], ["communicating with database", "onnect"]),
    ] {
        let mut stream = Stream::open(&process, &format!("round-{round}")).await;
        stream.until("it is well", |stream| stream.count(true) >= 3).await;
        postgres.command(down);
        println!("PostgreSQL: {down}");
        is_degraded(&process, &mut stream, &causes).await;
        postgres.command(up);
        is_well_again(&process, &mut stream).await;
        stream.feed.abort();
        let told = stream.close().await;
        audit::drained(&store).await;
        println!("  {} told durable", told.durable.len());
    }
    audit::audit("PostgreSQL", &store, &receiver.seen(), &Told::default()).await;
}

/// Ends every other connection to the database, wherever it is in its transaction.
const DROP_ALL: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_the_database_drops_cost_no_stream_and_no_escalation() {
    let place = Place::new(Kind::Postgres).await;
    let receiver = Receiver::start(Temper::Good, 6).await;
    let site = Site::with_webhook(&place.url, receiver.address);
    let process = site.serve(&[]).await;
    let mut stream = Stream::open(&process, "dropped").await;
    stream.until("it is well", |stream| stream.count(true) >= 3).await;
    let mut connection = sqlx::PgConnection::connect(&place.url).await.unwrap();
    for _ in 0..20 {
        connection.execute(DROP_ALL).await.unwrap();
        let before = stream.estimates;
        stream.until("estimates come", |stream| stream.estimates > before + 1).await;
    }
    let before = stream.count(true);
    stream.until("what is new is durable", |stream| stream.count(true) > before + 2).await;
    assert_eq!(stream.warned(Reason::EscalationLost), 0, "{stream}");
    println!("dropped 20 times: {stream}");
    all_arrived("dropped", stream, &receiver, &place.store()).await;
}

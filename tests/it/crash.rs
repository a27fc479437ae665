//! The proof that escalations arrive: real servers under load that are killed at any moment, replicas,
//! disks and databases that fail, receivers that fail all the time.
//!
//! | module | what |
//! |---|---|
//! | [`receiver`] | a receiver as bad as they come |
//! | [`load`] | clients, who replay what was cut off |
//! | [`site`] | settings of the servers |
//! | [`audit`] | what must be true in the end |
//! | [`witness`] | one stream that sees a server through its trouble |
//! | [`outage`], [`disk`] | stores that fail under a living server |
//! | [`clock`], [`date`] | clocks that leap |
//! | [`frozen`] | servers that stand still for a while |
//! | [`stream`] | a NATS server that comes and goes |
//! | [`takeover`] | clients that go on with their calls elsewhere |
//! | [`rolling`] | replicas restarted one by one behind a load balancer |
//!
//! Servers are processes of their own. `UNDERTONE_CRASHES` says how often they are killed; everything random
//! has a seed.

mod audit;
mod clock;
pub(crate) mod date;
#[cfg(target_os = "linux")]
mod disk;
mod frozen;
mod load;
mod outage;
mod receiver;
mod rolling;
mod site;
mod stream;
mod takeover;
mod witness;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use tokio::sync::watch;
use undertone::escalation::store::DeliveryState;

use crate::database::{Kind, Place, on_both};
use crate::process::Process;
use crate::signal::Noise;
use crate::support::until;
use load::Load;
use receiver::{Receiver, Temper};
use site::Site;

on_both! {
    nothing_committed_is_lost_and_nothing_raised_twice_however_often_the_server_is_killed,
}

/// Kills in a test that nobody has asked more of.
const CRASHES: usize = 6;

fn crashes() -> usize {
    #[expect(clippy::disallowed_methods, reason = "a setting of the test, not of the service")]
    let asked = std::env::var("UNDERTONE_CRASHES");
    asked.map_or(CRASHES, |count| count.parse().expect("UNDERTONE_CRASHES is a number"))
}

/// How long a server lives: sometimes hardly at all, sometimes into the thick of it.
fn lifetime(noise: &mut Noise) -> Duration {
    let most_ms = [30, 300, 1_000, 1_600][noise.below(4)];
    Duration::from_millis(noise.below(most_ms) as u64)
}

async fn kill(mut process: Process) {
    process.signal(Signal::KILL);
    process.ended().await;
}

async fn nothing_committed_is_lost_and_nothing_raised_twice_however_often_the_server_is_killed(
    place: &Place,
) {
    let (crashes, began) = (crashes(), Instant::now());
    let mut noise = Noise::new(crashes as u64);
    let receiver = Receiver::start(Temper::Bad, 1).await;
    let site = Site::with_webhook(&place.url, receiver.address);
    // A server that is alone needs no name; a replica has one, to take up what it left.
    let site = if place.kind == Kind::Postgres { site.and(&["--replica", "a"]) } else { site };
    let (servers, list) = watch::channel(Vec::new());
    let load = Load::start(&list, 5, 100);
    for _ in 0..crashes {
        let process = site.serve(&[]).await;
        servers.send_replace(vec![process.grpc]);
        tokio::time::sleep(lifetime(&mut noise)).await;
        servers.send_replace(Vec::new());
        kill(process).await;
    }
    let process = site.serve(&[]).await;
    servers.send_replace(vec![process.grpc]);
    until("calls are finished", async || load.told().finished.len() >= 6).await;
    let told = load.finish().await;
    receiver.turn(Temper::Good);
    let store = place.store();
    audit::drained(&store).await;
    let seen = receiver.seen();
    println!("{:?}: {crashes} kills in {:.1?}", place.kind, began.elapsed());
    audit::audit(&format!("{:?}", place.kind), &store, &seen, &told).await;
    assert!(seen.side_by_side.is_empty(), "side by side: {:?}", seen.side_by_side);
    assert!(told.cut >= crashes.min(3), "the kills hit nobody");
}

/// Deliveries that a replica holds; none before the schema is there.
async fn leased(url: &str, owner: &str) -> i64 {
    let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
    let row =
        sqlx::query("SELECT COUNT(*) FROM deliveries WHERE state = 'leased' AND lease_owner = $1")
            .bind(owner)
            .fetch_one(&mut connection)
            .await;
    row.map_or(0, |row| row.get(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_its_file_for_itself_takes_up_at_once_what_it_was_delivering() {
    let place = Place::new(Kind::Sqlite).await;
    let receiver = Receiver::start(Temper::Slow, 6).await;
    let site = Site::with_webhook(&place.url, receiver.address);
    // Nobody could wait for these leases to run out.
    let site = site.with_lease("1h");
    let process = site.serve(&[]).await;
    let (servers, list) = watch::channel(vec![process.grpc]);
    let load = Load::start(&list, 3, 400);
    let store = place.store();
    // Before the schema is there, nothing is.
    let leased = async || {
        let leased = store.deliveries(&[DeliveryState::Leased], None, 100).await;
        leased.map_or(0, |leased| leased.len())
    };
    until("something is under way", async || leased().await >= 2).await;
    servers.send_replace(Vec::new());
    kill(process).await;
    let left = leased().await;
    let process = site.serve(&[]).await;
    servers.send_replace(vec![process.grpc]);
    let told = load.finish().await;
    audit::drained(&store).await;
    println!("alone: killed with {left} deliveries under way under leases of an hour");
    audit::audit("alone", &store, &receiver.seen(), &told).await;
    assert!(left >= 1, "nothing was under way");
    assert!(process.log().contains("are due again"), "{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_replica_was_delivering_is_delivered_by_the_other_one_and_never_side_by_side()
{
    let place = Place::new(Kind::Postgres).await;
    let receiver = Receiver::start(Temper::Slow, 2).await;
    let site = Site::with_webhook(&place.url, receiver.address);
    let [a, b] = [site.serve(&["--replica", "a"]).await, site.serve(&["--replica", "b"]).await];
    let both: Vec<SocketAddr> = vec![a.grpc, b.grpc];
    let (servers, list) = watch::channel(both);
    let load = Load::start(&list, 6, 200);
    until("both deliver", async || {
        leased(&place.url, "a").await >= 2 && leased(&place.url, "b").await >= 2
    })
    .await;
    servers.send_replace(vec![b.grpc]);
    kill(a).await;
    let killed = Instant::now();
    let left = leased(&place.url, "a").await;
    assert!(left >= 1, "a had nothing under way");
    let taken_before = receiver.seen().distinct();
    until("what a left is taken up", async || leased(&place.url, "a").await == 0).await;
    let taken_up = killed.elapsed();
    let told = load.finish().await;
    let store = place.store();
    audit::drained(&store).await;
    let seen = receiver.seen();
    println!(
        "replicas: a was killed with {left} deliveries under way, which b took up within \
         {taken_up:.1?} (lease 3 s); {} side by side; {taken_before} had arrived before",
        seen.side_by_side.len()
    );
    audit::audit("replicas", &store, &seen, &told).await;
    assert!(seen.side_by_side.is_empty(), "side by side: {:?}", seen.side_by_side);
    // The leases end three seconds after they began, and somebody looks every 50 ms.
    assert!(taken_up < Duration::from_secs(8), "{taken_up:?}");
}

/// Connections that hold a transaction open and say nothing.
const SILENT: &str = "state = 'idle in transaction'";
/// Connections that wait for a lock.
const WAITING: &str = "wait_event_type = 'Lock'";

/// How many of the database's connections are like that.
async fn count(connection: &mut sqlx::PgConnection, like: &'static str) -> i64 {
    let all = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND";
    let row =
        sqlx::query(AssertSqlSafe(format!("{all} {like}"))).fetch_one(connection).await.unwrap();
    row.get(0)
}

/// Frozen in the middle of a transaction, it holds the lock that all writers take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_replica_holds_nobody_up_for_long() {
    let place = Place::new(Kind::Postgres).await;
    let receiver = Receiver::start(Temper::Good, 7).await;
    let site = Site::with_webhook(&place.url, receiver.address);
    let [a, b] = [site.serve(&["--replica", "a"]).await, site.serve(&["--replica", "b"]).await];
    let (servers, list) = watch::channel(vec![a.grpc]);
    let load = Load::start(&list, 5, 500);
    until("a records", async || !load.told().durable.is_empty()).await;
    let mut connection = sqlx::PgConnection::connect(&place.url).await.unwrap();
    until("a is frozen in the middle of a transaction", async || {
        a.signal(Signal::STOP);
        // What it had said before is done by then.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let is_in_the_middle = count(&mut connection, SILENT).await > 0;
        if !is_in_the_middle {
            a.signal(Signal::CONT);
        }
        is_in_the_middle
    })
    .await;
    let frozen = Instant::now();
    servers.send_replace(vec![b.grpc]);
    let another = Load::start(&list, 2, 600);
    until("b records", async || !another.told().durable.is_empty()).await;
    let held_up = frozen.elapsed();
    println!("a frozen replica held the other one up for {held_up:.1?}");
    assert!(held_up < Duration::from_secs(12), "{held_up:?}");
    a.signal(Signal::CONT);
    load.finish().await;
    another.finish().await;
    audit::drained(&place.store()).await;
}

/// Frozen while it brings the schema up to date, it holds the lock of all that begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_frozen_in_a_migration_holds_nobody_up_for_long() {
    let place = Place::new(Kind::Postgres).await;
    let receiver = Receiver::start(Temper::Good, 7).await;
    let site = Site::with_webhook(&place.url, receiver.address);
    let mut connection = sqlx::PgConnection::connect(&place.url).await.unwrap();
    // Its first statement waits for whatever comes of this table.
    let mut transaction = connection.begin().await.unwrap();
    sqlx::query("CREATE TABLE counters (name TEXT)").execute(&mut *transaction).await.unwrap();
    // It serves when it has given up once, and tries again and again.
    let a = site.serve(&["--replica", "a", "--store-timeout", "2s"]).await;
    let mut other = sqlx::PgConnection::connect(&place.url).await.unwrap();
    until("a migrates", async || count(&mut other, WAITING).await > 0).await;
    a.signal(Signal::STOP);
    transaction.rollback().await.unwrap();
    until("a is in the middle of a migration", async || count(&mut other, SILENT).await > 0).await;
    let frozen = Instant::now();
    let b = site.serve(&["--replica", "b"]).await;
    let (_servers, list) = watch::channel(vec![b.grpc]);
    let load = Load::start(&list, 2, 600);
    until("b records", async || !load.told().durable.is_empty()).await;
    let held_up = frozen.elapsed();
    println!("a replica frozen in a migration held the other one up for {held_up:.1?}");
    assert!(held_up < Duration::from_secs(15), "{held_up:?}");
    a.signal(Signal::CONT);
    load.finish().await;
    audit::drained(&place.store()).await;
}

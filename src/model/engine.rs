//! The batcher: many streams' steps, one graph.
//!
//! In: one stream's input and state. Out: its outputs and next state, with both buffers given back.
//! One thread owns the graph. It takes the first waiting request, gives others time to join, the more the busier
//! it is and `max_wait` at most, and runs what is there, up to `max_batch` rows.
//!
//! Always:
//! 1. An answer goes to the one who asked: every request carries its own one-shot reply, so a late
//!    result cannot reach another stream.
//! 2. A request whose caller has gone is dropped before it costs a row.
//! 3. If the engine dies, everybody who waits and everybody who asks later gets the cause, and
//!    [`Engine::failure`] resolves.
//! 4. Rows do not touch each other, but ONNX Runtime may sum in another order in a batch of another
//!    size: equal inputs give equal results to about 1e-6 of a probability, not to the bit.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::gauge::Gauge;
use super::runtime::{Batch, Graph, RuntimeError};
use crate::telemetry::{self, stage};

/// What the engine thread runs: the graph, or a stand-in in tests.
pub trait Runner: Send + 'static {
    /// Runs a batch in place, see [`Batch`].
    ///
    /// # Errors
    /// Anything that goes wrong; the engine dies of it.
    fn run(&mut self, batch: &mut Batch) -> Result<(), RuntimeError>;
}

impl Runner for Graph {
    fn run(&mut self, batch: &mut Batch) -> Result<(), RuntimeError> {
        Self::run(self, batch)
    }
}

/// Sizes of one row, in values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowShape {
    /// Input values.
    pub input: usize,
    /// Values of each state.
    pub states: Vec<usize>,
    /// Output values.
    pub output: usize,
}

impl RowShape {
    /// Values of all states together.
    pub fn state(&self) -> usize {
        self.states.iter().sum()
    }
}

/// How the engine batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineSettings {
    /// Rows in one run at most.
    pub max_batch: usize,
    /// How long the first request of a batch waits for others at most: so long once the engine is busy.
    pub max_wait: Duration,
    /// Requests that may wait. A session has one request under way at a time, so this many sessions
    /// can ask at once before one of them waits for room.
    pub queue: usize,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The engine is dead.
    #[error("the engine of model {model} has failed: {cause}")]
    Failed {
        /// The model.
        model: Arc<str>,
        /// The cause, from whoever saw it first.
        cause: Arc<str>,
    },
    /// The model put out a value that is not finite for this stream.
    #[error("model {model} put out a value that is not finite")]
    NotFinite {
        /// The model.
        model: Arc<str>,
    },
}

/// A stream's buffers on their way to the engine and back: they are reused, not made anew.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// The input, as the manifest's `input` shapes it.
    pub input: Vec<f32>,
    /// All states, one behind the other in the manifest's order; the next states on return.
    pub state: Vec<f32>,
    /// The output on return.
    pub output: Vec<f32>,
}

struct Request {
    row: Row,
    asked: Instant,
    reply: oneshot::Sender<Result<Answer, EngineError>>,
}

/// A row that came back, and when and for how long its batch ran.
struct Answer {
    row: Row,
    started: Instant,
    ran: Duration,
}

/// A handle to one model's engine; cheap to clone. The thread ends when the last handle is dropped.
#[derive(Debug, Clone)]
pub struct Engine {
    model: Arc<str>,
    requests: mpsc::Sender<Request>,
    failure: watch::Receiver<Option<EngineError>>,
    gauge: Arc<Gauge>,
}

impl Engine {
    /// Starts the thread that owns `runner`.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn start(
        model: &str,
        shape: RowShape,
        settings: EngineSettings,
        runner: impl Runner,
    ) -> std::io::Result<Self> {
        let (requests, inbox) = mpsc::channel(settings.queue.max(1));
        let (failed, failure) = watch::channel(None);
        let model: Arc<str> = model.into();
        let gauge = Arc::new(Gauge::default());
        let worker = Worker {
            model: model.clone(),
            batch: Batch { states: vec![Vec::new(); shape.states.len()], ..Batch::default() },
            shape,
            settings,
            runner,
            inbox,
            failed,
            gauge: gauge.clone(),
            pace: Pace::default(),
        };
        // Nobody joins the thread: it ends with the last handle, and its death is told by `failed`.
        thread::Builder::new().name(format!("engine-{model}")).spawn(move || worker.work())?;
        Ok(Self { model, requests, failure, gauge })
    }

    /// Runs one row. The next states replace `row.state`.
    ///
    /// # Errors
    /// [`EngineError`].
    ///
    /// # Cancellation
    /// Dropping the future drops the request; if it has not been batched yet it costs nothing.
    pub async fn infer(&self, row: Row) -> Result<Row, EngineError> {
        let (reply, answer) = oneshot::channel();
        let asked = Instant::now();
        let request = Request { row, asked, reply };
        if self.requests.send(request).await.is_err() {
            return Err(self.cause());
        }
        let answer = answer.await.unwrap_or_else(|_| Err(self.cause()))?;
        stage::engine(asked, answer.started, answer.ran);
        Ok(answer.row)
    }

    /// Requests that wait, and the room there is.
    pub fn queue(&self) -> (usize, usize) {
        let room = self.requests.max_capacity();
        (room - self.requests.capacity(), room)
    }

    /// How busy it is.
    pub fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// Resolves with the cause when the engine has died.
    ///
    /// # Cancellation
    /// Safe: nothing is lost.
    pub async fn failure(&self) -> EngineError {
        let mut failure = self.failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(cause) => cause.clone().unwrap_or_else(|| self.ended()),
            Err(_) => self.cause(),
        }
    }

    fn cause(&self) -> EngineError {
        self.failure.borrow().clone().unwrap_or_else(|| self.ended())
    }

    fn ended(&self) -> EngineError {
        EngineError::Failed { model: self.model.clone(), cause: "its thread has ended".into() }
    }
}

struct Worker<R> {
    model: Arc<str>,
    shape: RowShape,
    settings: EngineSettings,
    runner: R,
    inbox: mpsc::Receiver<Request>,
    failed: watch::Sender<Option<EngineError>>,
    batch: Batch,
    gauge: Arc<Gauge>,
    pace: Pace,
}

impl<R: Runner> Worker<R> {
    fn work(mut self) {
        let mut requests = Vec::with_capacity(self.settings.max_batch);
        while let Some(first) = self.inbox.blocking_recv() {
            requests.push(first);
            self.gather(&mut requests);
            requests.retain(|request| !request.reply.is_closed());
            if requests.is_empty() {
                continue;
            }
            let run = {
                let this = &mut self;
                let requests = &mut requests;
                // The cause of a panic must reach the waiters, like any other failure.
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || this.run(requests)))
            };
            let cause = match run {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => panic_message(panic.as_ref()),
            };
            self.die(&cause, requests);
            return;
        }
    }

    /// Takes what waits; if the batch is not full, lets others join until its first has waited for
    /// as long as the pace says. The thread sleeps that time out instead of waking for each request: a
    /// wake-up costs more than a row.
    fn gather(&mut self, requests: &mut Vec<Request>) {
        let max = self.settings.max_batch.max(1);
        if self.inbox.len() + requests.len() < max {
            // The first may have waited already, behind a run or a full batch.
            let waited = requests.first().map_or(Duration::ZERO, |first| first.asked.elapsed());
            let left = self.pace.wait(self.settings.max_wait).saturating_sub(waited);
            if !left.is_zero() {
                thread::sleep(left);
            }
        }
        while requests.len() < max {
            match self.inbox.try_recv() {
                Ok(request) => requests.push(request),
                Err(_) => break,
            }
        }
    }

    fn run(&mut self, requests: &mut Vec<Request>) -> Result<(), RuntimeError> {
        let started = Instant::now();
        let batch = &mut self.batch;
        batch.rows = requests.len();
        batch.input.clear();
        batch.states.iter_mut().for_each(Vec::clear);
        for request in requests.iter() {
            batch.input.extend_from_slice(&request.row.input);
            let mut rest = request.row.state.as_slice();
            for (values, len) in batch.states.iter_mut().zip(&self.shape.states) {
                let (state, behind) = rest.split_at_checked(*len).unwrap_or((rest, &[]));
                values.extend_from_slice(state);
                rest = behind;
            }
        }
        self.gauge.begin(started);
        self.runner.run(batch)?;
        let took = started.elapsed();
        self.gauge.end(took);
        self.pace.note(started + took, took);
        let metrics = telemetry::metrics();
        metrics.engine_batch(&self.model, batch.rows, took);
        for (index, request) in requests.drain(..).enumerate() {
            let wait = started.saturating_duration_since(request.asked);
            self.gauge.waited(wait);
            metrics.engine_wait(&self.model, wait);
            let Request { mut row, reply, .. } = request;
            row.output.clear();
            row.output.extend_from_slice(row_of(&batch.output, index, self.shape.output));
            row.state.clear();
            for (values, len) in batch.states.iter().zip(&self.shape.states) {
                row.state.extend_from_slice(row_of(values, index, *len));
            }
            let finite = row.output.iter().chain(&row.state).all(|value| value.is_finite());
            let complete = row.output.len() == self.shape.output;
            let answer = if finite && complete {
                Ok(Answer { row, started, ran: took })
            } else {
                Err(EngineError::NotFinite { model: self.model.clone() })
            };
            // Who asked may have gone meanwhile; then nobody wants the answer.
            let _ = reply.send(answer);
        }
        Ok(())
    }

    /// Tells the cause to all who wait and, by the watch, to all who ask later.
    fn die(mut self, cause: &str, requests: Vec<Request>) {
        let error = EngineError::Failed { model: self.model.clone(), cause: cause.into() };
        tracing::error!(model = %self.model, cause, "engine failed");
        self.failed.send_replace(Some(error.clone()));
        self.inbox.close();
        for request in requests {
            let _ = request.reply.send(Err(error.clone()));
        }
        while let Some(request) = self.inbox.blocking_recv() {
            let _ = request.reply.send(Err(error.clone()));
        }
    }
}

/// How long a batch's first request waits for others.
///
/// An engine with little to do has nobody to wait for, and CPU time to spare: who asks is answered at once.
/// The busier it is, the more join in a wait, and the more is saved by it.
#[derive(Debug, Default)]
struct Pace {
    /// Share of its time that the engine was busy, lately.
    busy: f64,
    last: Option<Instant>,
}

impl Pace {
    /// The share from which on a batch waits as long as it may.
    const BUSY: f64 = 0.25;
    /// How long the past counts.
    const MEMORY: Duration = Duration::from_secs(1);

    /// A run has ended that took so long.
    fn note(&mut self, end: Instant, took: Duration) {
        let since = self.last.replace(end).map_or(took, |last| end.saturating_duration_since(last));
        let share = (took.as_secs_f64() / since.as_secs_f64().max(1e-6)).min(1.0);
        let weight = 1.0 - (-since.div_duration_f64(Self::MEMORY)).exp();
        self.busy += weight * (share - self.busy);
    }

    fn wait(&self, longest: Duration) -> Duration {
        longest.mul_f64((self.busy / Self::BUSY).min(1.0))
    }
}

fn row_of(values: &[f32], index: usize, len: usize) -> &[f32] {
    values.get(index * len..(index + 1) * len).unwrap_or_default()
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "the engine thread panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Doubles the input into the output and counts runs in the state; does to each batch what its
    /// script says.
    struct Echo {
        sizes: Arc<Mutex<Vec<usize>>>,
        before: Script,
    }

    type Script = Box<dyn FnMut(&Batch) -> Result<(), RuntimeError> + Send>;

    impl Runner for Echo {
        fn run(&mut self, batch: &mut Batch) -> Result<(), RuntimeError> {
            self.sizes.lock().unwrap().push(batch.rows);
            (self.before)(batch)?;
            batch.output = batch.input.iter().map(|x| 2.0 * x).collect();
            for value in &mut batch.states[0] {
                *value += 1.0;
            }
            Ok(())
        }
    }

    fn engine(
        settings: EngineSettings,
        before: impl FnMut(&Batch) -> Result<(), RuntimeError> + Send + 'static,
    ) -> (Engine, Arc<Mutex<Vec<usize>>>) {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let runner = Echo { sizes: sizes.clone(), before: Box::new(before) };
        let shape = RowShape { input: 2, states: vec![1], output: 2 };
        (Engine::start("echo", shape, settings, runner).unwrap(), sizes)
    }

    const SETTINGS: EngineSettings =
        EngineSettings { max_batch: 4, max_wait: Duration::from_millis(20), queue: 64 };

    fn row(x: f32) -> Row {
        Row { input: vec![x, x + 0.5], state: vec![x], output: Vec::new() }
    }

    #[test]
    fn a_batch_waits_the_longer_the_busier_the_engine_is() {
        let (longest, mut now) = (Duration::from_millis(20), Instant::now());
        let mut pace = Pace::default();
        assert_eq!(pace.wait(longest), Duration::ZERO);
        let mut runs = |took: u64, period: u64, count: u64| {
            for _ in 0..count {
                now += Duration::from_millis(period);
                pace.note(now, Duration::from_millis(took));
            }
            pace.wait(longest).as_secs_f64() * 1e3
        };
        let (seldom, often) = (runs(1, 20, 300), runs(3, 20, 300));
        assert!((3.5..4.5).contains(&seldom), "busy for a twentieth: {seldom} ms");
        assert!((11.0..13.0).contains(&often), "busy for three twentieths: {often} ms");
        assert_eq!(runs(10, 20, 300), 20.0);
        assert!(runs(1, 10_000, 1) < 0.5, "a pause is forgotten as fast");
    }

    #[tokio::test]
    async fn each_gets_its_own_answer_and_batches_are_bounded() {
        let (engine, sizes) = engine(SETTINGS, |_| Ok(()));
        let tasks: Vec<_> = (0..37)
            .map(|i| {
                let engine = engine.clone();
                tokio::spawn(async move { (i, engine.infer(row(i as f32)).await) })
            })
            .collect();
        for task in tasks {
            let (i, answer) = task.await.unwrap();
            let answer = answer.unwrap();
            assert_eq!(answer.output, [2.0 * i as f32, 2.0 * i as f32 + 1.0]);
            assert_eq!(answer.state, [i as f32 + 1.0]);
        }
        let sizes = sizes.lock().unwrap();
        assert_eq!(sizes.iter().sum::<usize>(), 37);
        assert!(sizes.iter().all(|size| *size <= 4));
        assert!(sizes.len() < 37, "streams were never batched: {sizes:?}");
    }

    /// An engine whose first run has begun, on row 1, and ends when the sender sends or goes. No test
    /// then depends on how fast the machine is.
    fn held() -> (Engine, Arc<Mutex<Vec<usize>>>, std::sync::mpsc::SyncSender<()>, JoinedInfer) {
        let (release, gate) = std::sync::mpsc::sync_channel(1);
        let (began, has_begun) = std::sync::mpsc::sync_channel(1);
        let mut first = true;
        let settings = EngineSettings { max_wait: Duration::ZERO, ..SETTINGS };
        let (engine, sizes) = engine(settings, move |_| {
            if std::mem::take(&mut first) {
                began.send(()).unwrap();
                let _ = gate.recv();
            }
            Ok(())
        });
        let held = tokio::spawn({
            let engine = engine.clone();
            async move { engine.infer(row(1.0)).await }
        });
        (engine, sizes, release, JoinedInfer { held, has_begun })
    }

    struct JoinedInfer {
        held: tokio::task::JoinHandle<Result<Row, EngineError>>,
        has_begun: std::sync::mpsc::Receiver<()>,
    }

    impl JoinedInfer {
        async fn begun(self) -> tokio::task::JoinHandle<Result<Row, EngineError>> {
            let Self { held, has_begun } = self;
            tokio::task::spawn_blocking(move || has_begun.recv().unwrap()).await.unwrap();
            held
        }
    }

    /// Asks, and goes away before there can be an answer.
    async fn ask_and_leave(engine: &Engine, value: f32) {
        let gone = engine.infer(row(value));
        assert!(tokio::time::timeout(Duration::ZERO, gone).await.is_err());
    }

    #[tokio::test]
    async fn late_result_never_reaches_another_stream() {
        let (engine, _, release, held) = held();
        // The first run is under way. Its caller gives up, others ask; its answer must go nowhere.
        held.begun().await.abort();
        ask_and_leave(&engine, 50.0).await;
        release.send(()).unwrap();
        for i in 2..20 {
            let answer = engine.infer(row(i as f32)).await.unwrap();
            assert_eq!(answer.output[0], 2.0 * i as f32);
        }
    }

    #[tokio::test]
    async fn requests_whose_caller_has_gone_are_not_run() {
        let (engine, sizes, release, held) = held();
        let held = held.begun().await;
        for i in 0..3 {
            ask_and_leave(&engine, i as f32).await;
        }
        release.send(()).unwrap();
        held.await.unwrap().unwrap();
        engine.infer(row(9.0)).await.unwrap();
        assert_eq!(*sizes.lock().unwrap(), [1, 1]);
    }

    #[tokio::test]
    async fn engine_failure_reaches_all_who_wait_and_all_who_ask_later() {
        let (engine, _) = engine(SETTINGS, |_| {
            thread::sleep(Duration::from_millis(30));
            Err(RuntimeError::Shape { name: "logits".into(), expected: 8, actual: 7 })
        });
        let tasks: Vec<_> = (0..9)
            .map(|i| {
                let engine = engine.clone();
                tokio::spawn(async move { engine.infer(row(i as f32)).await })
            })
            .collect();
        for task in tasks {
            let error = task.await.unwrap().unwrap_err();
            assert!(error.to_string().contains("logits has 7 values"), "{error}");
        }
        assert!(engine.failure().await.to_string().contains("logits"));
        assert!(engine.infer(row(0.0)).await.is_err());
    }

    #[tokio::test]
    async fn a_panic_in_the_engine_is_a_failure_with_its_message() {
        let (engine, _) = engine(SETTINGS, |_| panic!("out of cheese"));
        let error = engine.infer(row(0.0)).await.unwrap_err();
        assert!(error.to_string().contains("out of cheese"), "{error}");
        assert_eq!(engine.failure().await, error);
    }

    #[tokio::test]
    async fn values_that_are_not_finite_hurt_only_their_stream() {
        let (engine, _) = engine(SETTINGS, |_| Ok(()));
        let (bad, good) = tokio::join!(engine.infer(row(f32::INFINITY)), engine.infer(row(1.0)));
        assert_eq!(bad, Err(EngineError::NotFinite { model: "echo".into() }));
        assert_eq!(good.unwrap().output, [2.0, 3.0]);
    }
}

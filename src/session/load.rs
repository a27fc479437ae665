//! Whether one stream more fits: arithmetic over readings of the process, with time as an argument.
//!
//! In: a [`Reading`] every 100 ms, and every opening and ending of a stream. Out: yes, or the
//! [`Pressure`] that speaks against it. A stream that has just opened is not in any reading yet: when
//! many open at once, readings alone would let in all of them and see the damage a second later. So busy
//! shares are held against the streams that made them, those of the readings' mean, and all that have
//! opened since are reckoned with what one of them costs: measured while there are some, from
//! benches/README.md before.
//!
//! Always:
//! 1. What was closed by a pressure opens only when it has fallen below nine tenths of its limit
//!    (`REOPENS_AT`), so that it does not flap.
//! 2. With fewer than `FREE_STREAMS` streams only memory closes: so few are not what loads the machine,
//!    and to refuse them would relieve nobody.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Time between two readings.
pub const PERIOD: Duration = Duration::from_millis(100);
/// Readings kept: busy shares are those of the last second.
const KEPT: usize = 11;
/// Streams that load alone never refuses.
const FREE_STREAMS: usize = 8;
/// Streams from which on their cost is measured rather than assumed.
const ENOUGH_TO_MEASURE: f64 = 16.0;
/// CPU seconds of the workers for a second of one stream, and of an engine: see benches/README.md.
const WORKER_PRIOR: f64 = 0.000_65;
const ENGINE_PRIOR: f64 = 0.000_15;
/// A measured cost is believed within this factor of the prior, both ways: a stall is no cost.
const BELIEVED: f64 = 8.0;
/// Share of its limit under which a pressure that has closed opens again.
const REOPENS_AT: f64 = 0.9;

/// The limits; zero switches one off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadLimits {
    /// Busy share of workers and engines, counting streams that have just opened.
    pub busy: f64,
    /// Longest wait for an engine.
    pub engine_lag: Duration,
    /// Longest delay of a task that is due.
    pub worker_delay: Duration,
    /// Resident memory, bytes.
    pub memory: u64,
}

/// What was read of the process at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// When.
    pub at: Instant,
    /// Worker threads.
    pub workers: usize,
    /// Time that all of them together have worked since they began, but for work that may wait.
    pub workers_busy: Duration,
    /// Time that each engine has run since it began.
    pub engines_busy: Vec<Duration>,
    /// Longest wait for an engine since the last reading.
    pub engine_lag: Duration,
    /// How late this reading was taken.
    pub late: Duration,
    /// Resident memory in bytes, where it can be read.
    pub resident: Option<u64>,
}

/// What speaks against one stream more.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Pressure {
    /// Workers or engines are busy, or will be.
    #[error("its threads will be {:.0} % busy, at most {:.0} % are taken (max_load)", 100.0 * .share, 100.0 * .limit)]
    Busy {
        /// The share that was reckoned.
        share: f64,
        /// The limit.
        limit: f64,
    },
    /// Requests wait for an engine.
    #[error("its engine is {lag:?} behind, at most {limit:?} are taken (max_engine_lag)")]
    EngineLag {
        /// The longest wait.
        lag: Duration,
        /// The limit.
        limit: Duration,
    },
    /// Tasks are late.
    #[error("its threads are {delay:?} late, at most {limit:?} are taken (max_worker_delay)")]
    WorkerDelay {
        /// The longest delay.
        delay: Duration,
        /// The limit.
        limit: Duration,
    },
    /// Memory runs short.
    #[error("it holds {resident} bytes of memory, at most {limit} are taken (max_memory)")]
    Memory {
        /// Resident bytes.
        resident: u64,
        /// The limit.
        limit: u64,
    },
}

impl Pressure {
    /// The label in metrics and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Busy { .. } => "load",
            Self::EngineLag { .. } => "engine_lag",
            Self::WorkerDelay { .. } => "worker_delay",
            Self::Memory { .. } => "memory",
        }
    }
}

/// Busy shares, 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Shares {
    workers: f64,
    engine: f64,
}

/// Readings and streams, and what follows from them.
#[derive(Debug)]
pub struct Load {
    limits: LoadLimits,
    /// With the streams that were open.
    readings: VecDeque<(Reading, usize)>,
    live: usize,
    gates: Gates,
}

/// One limit, and whether it was passed lately.
#[derive(Debug)]
struct Gate {
    /// 0 for none.
    limit: f64,
    closed: bool,
}

impl Gate {
    fn new(limit: f64) -> Self {
        Self { limit, closed: false }
    }

    /// Whether `value` closes it; once closed it stays so until the value is well under the limit.
    fn closes(&mut self, value: f64) -> bool {
        let bar = if self.closed { REOPENS_AT * self.limit } else { self.limit };
        self.closed = self.limit > 0.0 && value > bar;
        self.closed
    }
}

#[derive(Debug)]
struct Gates {
    busy: Gate,
    engine_lag: Gate,
    worker_delay: Gate,
    memory: Gate,
}

impl Load {
    /// Nothing read and no stream yet.
    pub fn new(limits: LoadLimits) -> Self {
        let readings = VecDeque::with_capacity(KEPT);
        let gates = Gates {
            busy: Gate::new(limits.busy),
            engine_lag: Gate::new(limits.engine_lag.as_secs_f64()),
            worker_delay: Gate::new(limits.worker_delay.as_secs_f64()),
            memory: Gate::new(limits.memory as f64),
        };
        Self { limits, readings, live: 0, gates }
    }

    /// Takes a reading in.
    pub fn note(&mut self, reading: Reading) {
        if self.readings.len() == KEPT {
            self.readings.pop_front();
        }
        self.readings.push_back((reading, self.live));
    }

    /// A stream has opened.
    pub fn opened(&mut self) {
        self.live += 1;
    }

    /// A stream has ended.
    pub fn ended(&mut self) {
        self.live = self.live.saturating_sub(1);
    }

    /// Streams that are open.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Busy shares over the readings kept.
    fn shares(&self) -> Shares {
        let (Some((first, _)), Some((last, _))) = (self.readings.front(), self.readings.back())
        else {
            return Shares::default();
        };
        let passed = last.at.saturating_duration_since(first.at).as_secs_f64();
        if passed < PERIOD.as_secs_f64() / 2.0 {
            return Shares::default();
        }
        let share = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() / passed;
        let engines = first.engines_busy.iter().zip(&last.engines_busy);
        Shares {
            workers: share(first.workers_busy, last.workers_busy) / last.workers.max(1) as f64,
            engine: engines.map(|(from, to)| share(*from, *to)).fold(0.0, f64::max),
        }
    }

    /// The busier share as it will be with one stream more, once all that are open cost what they will.
    fn reckoned(&self) -> f64 {
        let shares = self.shares();
        let counted: usize = self.readings.iter().map(|(_, live)| live).sum();
        let counted = counted as f64 / self.readings.len().max(1) as f64;
        let cost = |share: f64, prior: f64| {
            if counted < ENOUGH_TO_MEASURE {
                prior
            } else {
                (share / counted).clamp(prior / BELIEVED, prior * BELIEVED)
            }
        };
        let workers = self.readings.back().map_or(1, |(last, _)| last.workers.max(1)) as f64;
        let coming = (self.live as f64 - counted).max(0.0) + 1.0;
        let of_workers = shares.workers + coming * cost(shares.workers, WORKER_PRIOR / workers);
        let of_engine = shares.engine + coming * cost(shares.engine, ENGINE_PRIOR);
        of_workers.max(of_engine)
    }

    /// The longest delay lately. That no reading has come for a while is one too.
    fn delay(&self, now: Instant) -> Duration {
        let Some((last, _)) = self.readings.back() else {
            return Duration::ZERO;
        };
        let missing = now.saturating_duration_since(last.at).saturating_sub(PERIOD);
        self.readings.iter().map(|(reading, _)| reading.late).fold(missing, Duration::max)
    }

    /// What speaks against one stream more, if anything does.
    pub fn pressure(&mut self, now: Instant) -> Option<Pressure> {
        let limits = self.limits;
        let resident = self.readings.iter().rev().find_map(|(reading, _)| reading.resident);
        let resident = resident.unwrap_or_default();
        if self.gates.memory.closes(resident as f64) {
            return Some(Pressure::Memory { resident, limit: limits.memory });
        }
        if self.live < FREE_STREAMS {
            return None;
        }
        let lags = self.readings.iter().map(|(reading, _)| reading.engine_lag);
        let lag = lags.max().unwrap_or_default();
        if self.gates.engine_lag.closes(lag.as_secs_f64()) {
            return Some(Pressure::EngineLag { lag, limit: limits.engine_lag });
        }
        let delay = self.delay(now);
        if self.gates.worker_delay.closes(delay.as_secs_f64()) {
            return Some(Pressure::WorkerDelay { delay, limit: limits.worker_delay });
        }
        let share = self.reckoned();
        let closed = self.gates.busy.closes(share);
        closed.then_some(Pressure::Busy { share, limit: limits.busy })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LoadLimits = LoadLimits {
        busy: 0.85,
        engine_lag: Duration::from_millis(150),
        worker_delay: Duration::from_millis(150),
        memory: 1000,
    };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A process whose counters go on.
    struct Process {
        load: Load,
        now: Instant,
        workers: Duration,
        engine: Duration,
    }

    impl Process {
        fn new(limits: LoadLimits) -> Self {
            let now = Instant::now();
            Self { load: Load::new(limits), now, workers: ms(0), engine: ms(0) }
        }

        /// Lets `seconds` pass with these shares of one worker and one engine.
        fn pass(&mut self, seconds: f64, workers: f64, engine: f64) {
            for _ in 0..(seconds * 10.0).round() as u32 {
                self.read(workers, engine, |_| {});
            }
        }

        fn read(&mut self, workers: f64, engine: f64, change: impl FnOnce(&mut Reading)) {
            self.now += PERIOD;
            self.workers += PERIOD.mul_f64(workers);
            self.engine += PERIOD.mul_f64(engine);
            let mut reading = Reading {
                at: self.now,
                workers: 1,
                workers_busy: self.workers,
                engines_busy: vec![ms(0), self.engine],
                engine_lag: ms(10),
                late: ms(1),
                resident: Some(500),
            };
            change(&mut reading);
            self.load.note(reading);
        }

        fn open(&mut self, count: usize) {
            (0..count).for_each(|_| self.load.opened());
        }

        fn pressure(&mut self) -> Option<&'static str> {
            self.load.pressure(self.now).map(Pressure::name)
        }
    }

    #[test]
    fn a_process_of_which_nothing_is_known_takes_streams() {
        assert_eq!(Process::new(LIMITS).pressure(), None);
    }

    #[test]
    fn busy_workers_and_busy_engines_both_close() {
        for (workers, engine) in [(0.9, 0.1), (0.1, 0.9)] {
            let mut process = Process::new(LIMITS);
            process.open(20);
            process.pass(3.0, 0.3, 0.3);
            assert_eq!(process.pressure(), None);
            process.pass(1.0, workers, engine);
            assert_eq!(process.pressure(), Some("load"));
        }
    }

    #[test]
    fn a_herd_is_stopped_before_any_reading_shows_it() {
        let mut process = Process::new(LIMITS);
        process.pass(2.0, 0.0, 0.0);
        let mut admitted = 0;
        // All within one period: no reading comes in between.
        while process.pressure().is_none() {
            process.open(1);
            admitted += 1;
            assert!(admitted < 10_000);
        }
        // 0.85 of one worker at 0.65 ms for a second of audio.
        assert_eq!(admitted, 1307);
    }

    #[test]
    fn what_a_stream_costs_is_measured_once_there_are_some() {
        let mut process = Process::new(LIMITS);
        process.open(100);
        // 100 streams take 40 %: 4 ms a second each, six times what was assumed.
        process.pass(4.0, 0.4, 0.1);
        let mut admitted = 0;
        while process.pressure().is_none() {
            process.open(1);
            admitted += 1;
        }
        assert_eq!(admitted, 112);
    }

    #[test]
    fn a_stream_that_ends_at_once_is_no_longer_reckoned_with() {
        let mut process = Process::new(LIMITS);
        process.pass(2.0, 0.0, 0.0);
        process.open(1400);
        assert_eq!(process.pressure(), Some("load"));
        (0..1390).for_each(|_| process.load.ended());
        assert_eq!(process.load.live(), 10);
        assert_eq!(process.pressure(), None);
    }

    #[test]
    fn a_steady_stream_of_newcomers_is_not_counted_twice() {
        let mut process = Process::new(LIMITS);
        // 250 a second, each of which takes 0.65 ms a second from its first chunk on: 1,000 fit.
        for second in 0..40 {
            assert_eq!(process.pressure(), None, "{}", 25 * second);
            process.open(25);
            process.pass(0.1, 25.0 * f64::from(second) * 0.000_65, 0.0);
        }
        assert_eq!(process.load.live(), 1_000);
    }

    #[test]
    fn what_has_closed_opens_only_well_below_its_limit() {
        let mut process = Process::new(LIMITS);
        process.open(20);
        process.pass(4.0, 0.9, 0.0);
        assert_eq!(process.pressure(), Some("load"));
        process.pass(2.0, 0.8, 0.0);
        assert_eq!(process.pressure(), Some("load"), "0.8 is below 0.85 but not well below");
        process.pass(2.0, 0.7, 0.0);
        assert_eq!(process.pressure(), None);
        process.pass(2.0, 0.8, 0.0);
        assert_eq!(process.pressure(), None, "from below, 0.8 is fine");
    }

    #[test]
    fn lag_and_delay_close_at_once_and_for_a_second() {
        for (name, change) in [
            ("engine_lag", (|r: &mut Reading| r.engine_lag = ms(151)) as fn(&mut Reading)),
            ("worker_delay", (|r: &mut Reading| r.late = ms(151)) as fn(&mut Reading)),
        ] {
            let mut process = Process::new(LIMITS);
            process.open(20);
            process.pass(3.0, 0.2, 0.2);
            assert_eq!(process.pressure(), None);
            process.read(0.2, 0.2, change);
            assert_eq!(process.pressure(), Some(name));
            process.pass(1.0, 0.2, 0.2);
            assert_eq!(process.pressure(), Some(name));
            process.pass(0.1, 0.2, 0.2);
            assert_eq!(process.pressure(), None);
        }
    }

    #[test]
    fn a_sampler_that_does_not_come_is_a_delay() {
        let mut process = Process::new(LIMITS);
        process.open(20);
        process.pass(3.0, 0.2, 0.2);
        process.now += ms(260);
        assert_eq!(process.pressure(), Some("worker_delay"));
    }

    #[test]
    fn few_streams_are_refused_for_memory_only() {
        let mut process = Process::new(LIMITS);
        process.open(7);
        process.pass(3.0, 1.0, 1.0);
        assert_eq!(process.pressure(), None);
        process.read(1.0, 1.0, |r| r.resident = Some(1001));
        assert_eq!(process.pressure(), Some("memory"));
        process.read(1.0, 1.0, |r| r.resident = Some(950));
        assert_eq!(process.pressure(), Some("memory"));
        process.read(1.0, 1.0, |r| r.resident = Some(899));
        assert_eq!(process.pressure(), None);
    }

    #[test]
    fn zero_switches_each_limit_off() {
        let off = LoadLimits { busy: 0.0, engine_lag: ms(0), worker_delay: ms(0), memory: 0 };
        let mut process = Process::new(off);
        process.open(5000);
        process.pass(3.0, 1.0, 1.0);
        process.read(1.0, 1.0, |r| (r.engine_lag, r.late) = (ms(9000), ms(9000)));
        assert_eq!(process.pressure(), None);
    }
}

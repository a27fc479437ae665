//! Where the time of one chunk went.
//!
//! Work that is looked at runs inside [`timed`]; whoever is a stage calls [`begin`] and [`end`]. Outside of
//! `timed` these look at one thread-local value and do nothing else, so that they may stand where every chunk
//! passes.

use std::cell::RefCell;
use std::time::{Duration, Instant, SystemTime};

/// Laps of one chunk at most: a second of audio on two channels has about as many.
const LAPS: usize = 64;

/// A part of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Decoding, resampling, features.
    Features,
    /// Waiting for the engine's run.
    EngineWait,
    /// The engine's run.
    EngineRun,
    /// Holding rules against what was heard, and waiting for the store where one of them decided something.
    Record,
    /// Rendering events and handing them to the client's queue. Where a reading is among them, [`Self::Record`]
    /// lies within.
    Send,
}

impl Stage {
    /// The span's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Features => "features",
            Self::EngineWait => "engine wait",
            Self::EngineRun => "engine run",
            Self::Record => "record",
            Self::Send => "send",
        }
    }
}

/// What was measured.
#[derive(Debug)]
pub struct Laps {
    parts: Vec<(Stage, Instant, Duration)>,
    began: Instant,
    ended: Instant,
    /// The wall clock at `began`.
    wall: SystemTime,
}

impl Laps {
    fn new() -> Self {
        let now = Instant::now();
        Self { parts: Vec::new(), began: now, ended: now, wall: SystemTime::now() }
    }

    fn wall(&self, at: Instant) -> SystemTime {
        self.wall + at.saturating_duration_since(self.began)
    }

    /// When the work began.
    pub fn began(&self) -> SystemTime {
        self.wall
    }

    /// When it ended.
    pub fn ended(&self) -> SystemTime {
        self.wall(self.ended)
    }

    /// Stages with their beginnings and ends, in the order of their ends.
    pub fn iter(&self) -> impl Iterator<Item = (Stage, SystemTime, SystemTime)> {
        self.parts.iter().map(|(stage, began, took)| {
            let from = self.wall(*began);
            (*stage, from, from + *took)
        })
    }
}

tokio::task_local! {
    static STOPWATCH: RefCell<Laps>;
}

/// Does `work` and measures its stages.
pub async fn timed<T>(work: impl Future<Output = T>) -> (T, Laps) {
    let timed = async {
        let done = work.await;
        let laps = STOPWATCH.with(|laps| laps.replace(Laps::new()));
        (done, laps)
    };
    let (done, mut laps) = STOPWATCH.scope(RefCell::new(Laps::new()), timed).await;
    laps.ended = Instant::now();
    (done, laps)
}

/// A stage begins; `None` where nobody looks.
pub fn begin() -> Option<Instant> {
    STOPWATCH.try_with(|_| Instant::now()).ok()
}

/// The stage that [`begin`] began ends.
pub fn end(stage: Stage, began: Option<Instant>) {
    if let Some(began) = began {
        lap(stage, began, began.elapsed());
    }
}

/// A request to the engine came back: asked for then, run from then on for so long.
pub fn engine(asked: Instant, started: Instant, run: Duration) {
    lap(Stage::EngineWait, asked, started.saturating_duration_since(asked));
    lap(Stage::EngineRun, started, run);
}

fn lap(stage: Stage, began: Instant, took: Duration) {
    // Outside of `timed` there is nothing to note it in.
    let _ = STOPWATCH.try_with(|laps| {
        let mut laps = laps.borrow_mut();
        if laps.parts.len() < LAPS {
            laps.parts.push((stage, began, took));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn work(times: usize) {
        for _ in 0..times {
            let began = begin();
            tokio::task::yield_now().await;
            end(Stage::Send, began);
        }
    }

    #[tokio::test]
    async fn stages_are_measured_inside_only_and_there_is_an_end_to_them() {
        assert_eq!(begin(), None);
        let ((), laps) = timed(work(3)).await;
        assert_eq!(laps.iter().count(), 3);
        assert!(laps.iter().all(|(stage, from, to)| stage == Stage::Send
            && from >= laps.began()
            && from <= to
            && to <= laps.ended()));
        let ((), laps) = timed(work(LAPS + 9)).await;
        assert_eq!(laps.iter().count(), LAPS);
        assert_eq!(begin(), None);
    }
}

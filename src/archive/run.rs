//! The work: a plan -> parts, until it is done, is stopped, or cannot go on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::error::ArchiveError;
use super::fetch::{Bounds, Done};
use super::hear::Hear;
use super::output::Output;
use super::plan::{Earlier, Mending, Plan};
use super::pool::Pool;
use super::row::{ClipRow, FailureCode, UtteranceRow};

/// How the work is done.
#[derive(Debug, Clone, Copy)]
pub struct RunSettings {
    /// How much is under way at once.
    pub bounds: Bounds,
    /// Rows of either table after which a part is written.
    pub part_rows: usize,
    /// Time after which a part is written, from its first row on.
    pub part_interval: Duration,
    /// Clips in a row that cannot be read, after which the work ends.
    pub max_unreadable: u32,
}

/// How the work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ending {
    /// Parts written.
    pub parts: usize,
    /// Clips in them.
    pub clips: usize,
    /// Parts of workers before that were mended.
    pub mended: usize,
    /// Parts of workers before that could not be mended: a clip of theirs cannot be read just now.
    pub torn: usize,
    /// Whether it was stopped before it was done.
    pub stopped: bool,
}

/// Who looks on.
pub trait Watch {
    /// A clip is done, and not yet written.
    fn clip(&mut self, row: &ClipRow);
}

/// Mends what is torn, does what is to be done and adds it to `output`, until `stop`. What is done by then is
/// written also if it ends in an error.
///
/// # Errors
/// [`ArchiveError`] if the model cannot be run, the clips cannot be read, or a part cannot be written.
///
/// # Cancellation
/// Dropping the future loses what is not written, and no more.
pub async fn run<H: Hear>(
    plan: Plan,
    output: &mut Output,
    earlier: Earlier,
    hearer: Arc<H>,
    settings: RunSettings,
    stop: &CancellationToken,
    watch: &mut impl Watch,
) -> Result<Ending, ArchiveError> {
    let mut ending = Ending::default();
    for mending in plan.mending {
        if mend(mending, output, &hearer, settings, stop).await? {
            ending.mended += 1;
        } else {
            ending.torn += 1;
        }
    }
    let pool = Pool::new(plan.todo, hearer, settings.bounds);
    let mut part = Part { rows: Vec::new(), utterances: 0, earlier, output, ending };
    let worked = part.work(pool, settings, stop, watch).await;
    // Also after an error: what was heard need not be heard again.
    let written = part.write().await;
    worked?;
    written?;
    Ok(part.ending)
}

/// The part that is being filled.
struct Part<'a> {
    rows: Vec<ClipRow>,
    utterances: usize,
    earlier: Earlier,
    output: &'a mut Output,
    ending: Ending,
}

impl Part<'_> {
    async fn work<H: Hear>(
        &mut self,
        mut pool: Pool<H>,
        settings: RunSettings,
        stop: &CancellationToken,
        watch: &mut impl Watch,
    ) -> Result<(), ArchiveError> {
        let mut due = Instant::now();
        let mut unreadable = 0;
        loop {
            // All three are safe to be dropped: a token, a clock, and a pool whose work goes on.
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    self.ending.stopped = true;
                    return Ok(());
                }
                () = sleep_until(due), if !self.rows.is_empty() => {
                    self.write().await?;
                    continue;
                }
                done = pool.next() => done,
            };
            let Some(done) = done.transpose()? else {
                return Ok(());
            };
            if self.rows.is_empty() {
                due = Instant::now() + settings.part_interval;
            }
            let row = self.row(done);
            watch.clip(&row);
            unreadable = match &row.outcome {
                Err(failure) if failure.code == FailureCode::Unreadable => unreadable + 1,
                _ => 0,
            };
            let reason = row.outcome.as_ref().err().map(|failure| failure.message.clone());
            self.utterances += row.outcome.as_ref().map_or(0, |heard| heard.utterances.len());
            self.rows.push(row);
            if unreadable >= settings.max_unreadable {
                let reason = reason.unwrap_or_default();
                return Err(ArchiveError::Unreachable { count: unreadable, reason });
            }
            if self.rows.len().max(self.utterances) >= settings.part_rows {
                self.write().await?;
            }
        }
    }

    fn row(&self, done: Done) -> ClipRow {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        ClipRow {
            analyzed_at_us: self.earlier.after(&done.clip.path, now.as_micros() as i64),
            path: done.clip.path.into(),
            version: done.version,
            outcome: done.outcome,
        }
    }

    async fn write(&mut self) -> Result<(), ArchiveError> {
        let rows = std::mem::take(&mut self.rows);
        self.utterances = 0;
        let added = self.output.add(rows, &mut self.earlier).await?;
        if added.clips > 0 {
            self.ending.parts += 1;
            self.ending.clips += added.clips;
        }
        Ok(())
    }
}

/// Hears the clips of a torn part once more and writes its twin; false if that cannot be done now.
async fn mend<H: Hear>(
    mending: Mending,
    output: &Output,
    hearer: &Arc<H>,
    settings: RunSettings,
    stop: &CancellationToken,
) -> Result<bool, ArchiveError> {
    let Mending { torn, clips } = mending;
    let entries: HashMap<_, _> = torn.clips.into_iter().collect();
    let mut pool = Pool::new(clips, hearer.clone(), settings.bounds);
    let mut rows: Vec<UtteranceRow> = Vec::new();
    loop {
        // As in the work itself.
        let done = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(false),
            done = pool.next() => done,
        };
        let Some(done) = done.transpose()? else {
            break;
        };
        // One that has changed meanwhile is done again as a whole, and its row in this part does not hold.
        let entry = entries.get(done.clip.path.as_str());
        let Some(entry) = entry.filter(|entry| entry.version.same_as(&done.version)) else {
            continue;
        };
        if matches!(&done.outcome, Err(failure) if failure.code == FailureCode::Unreadable) {
            return Ok(false);
        }
        let row = ClipRow {
            path: done.clip.path.into(),
            version: done.version,
            analyzed_at_us: entry.analyzed_at_us,
            outcome: done.outcome,
        };
        rows.extend(row.utterances());
    }
    rows.sort_by(|a, b| a.path.cmp(&b.path));
    output.add_twin(torn.name, &rows).await?;
    Ok(true)
}

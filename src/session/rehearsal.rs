//! A policy tried on a clip: what it would have raised, as in a live stream of the same audio.
//!
//! In: a policy and what was heard, readings among it. Out: its decisions, and on demand what each condition measured.
//! Nothing is recorded, nobody is told.

use std::sync::Arc;

use super::clip::ClipReport;
use crate::policy::{Decision, Measurement, Policy, Watcher};
use crate::units::SamplePos;
use crate::wire::event::Event;

/// How every condition stood on one channel at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// The lane's first input channel.
    pub channel: u32,
    /// All audio before it has been analysed.
    pub at: SamplePos,
    /// Where the reading that it follows from begins.
    pub from: SamplePos,
    /// Whether voice was heard in that reading.
    pub has_voice: bool,
    /// Of each condition, with the number of its rule.
    pub measurements: Vec<(usize, Measurement)>,
}

/// What came out.
#[derive(Debug)]
pub struct Rehearsal {
    /// What was decided, in order.
    pub decisions: Vec<Decision>,
    /// How the conditions stood, in order; empty if nobody asked.
    pub moments: Vec<Moment>,
    /// How many more would have been raised but for the budget.
    pub suppressed: u64,
}

/// Tries `policy` on a clip that was analysed with readings.
pub fn rehearse(policy: Arc<Policy>, report: &ClipReport, with_moments: bool) -> Rehearsal {
    let mut watcher = Watcher::new(policy);
    let (mut decisions, mut moments) = (Vec::new(), Vec::new());
    for event in &report.events {
        let Event::Reading(reading) = event else { continue };
        watcher.observe(reading, &mut decisions);
        if with_moments {
            let hops = SamplePos::of_hop(reading.hops.into());
            moments.push(Moment {
                channel: reading.channel,
                at: reading.end,
                from: SamplePos(reading.end.0.saturating_sub(hops.0)),
                has_voice: reading.voiced_hops > 0,
                measurements: watcher.measurements(reading.channel),
            });
        }
    }
    watcher.finish(report.length, &mut decisions);
    Rehearsal { decisions, moments, suppressed: watcher.suppressed() }
}

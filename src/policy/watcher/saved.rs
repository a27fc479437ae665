//! A watcher's state, and going on from one.
//!
//! Of a channel's windows only the ticks are kept: sums are made again from them, exactly. The state is that of
//! one policy, whose text ([`Policy::text`]) must be kept beside it. One that cannot be of the policy at hand is
//! refused; among those that can, numbers mean what they meant.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Channel, Phase, Watcher};
use crate::policy::condition::Truth;
use crate::policy::rules::{Policy, Rule};
use crate::policy::signal::{self, MICRO, VALUES};
use crate::policy::timeline::{Tick, Timeline};
use crate::state::{MAX_COUNT, Misfit};
use crate::units::{HOP_SAMPLES, MAX_CHANNELS, STEP_HOPS};

/// What a [`Watcher`] carries from one reading to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatcherState {
    raised: u32,
    suppressed: u64,
    channels: Vec<ChannelState>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ChannelState {
    number: u32,
    end: u64,
    last_voice: u64,
    ticks: Vec<TickState>,
    leaves: Vec<Truth>,
    phases: Vec<Phase>,
}

/// A tick, as what it differs by from the one before: a third less than it is by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct TickState {
    /// Samples from the end of the tick before, or of the stream's start, to its own, less those of a step.
    since: i64,
    /// Voiced hops, plus [`SCORED`] if it has probabilities of emotions.
    voiced: u8,
    /// See [`signal::packed`].
    values: [i32; VALUES],
}

/// More than the voiced hops that a tick can have.
const SCORED: u8 = 32;
/// Samples of a step.
const STEP: i64 = (STEP_HOPS * HOP_SAMPLES) as i64;

impl TickState {
    fn of(tick: &Tick, before: &Tick) -> Self {
        Self {
            // Both are far from the end of 63 bits.
            since: (tick.end - before.end) as i64 - STEP,
            voiced: tick.voiced + if tick.scored { SCORED } else { 0 },
            values: signal::packed(&tick.values, &before.values),
        }
    }

    /// The tick, if it can be one behind `before` and not behind `end`.
    fn tick(&self, before: &Tick, end: u64) -> Option<Tick> {
        let since = u64::try_from(self.since.checked_add(STEP)?).ok()?;
        let tick = Tick {
            end: before.end.checked_add(since)?,
            voiced: self.voiced % SCORED,
            scored: self.voiced >= SCORED,
            values: signal::unpacked(&self.values, &before.values),
        };
        let one = MICRO as i32;
        let fits = tick.end > before.end
            && tick.end <= end
            && self.voiced < 2 * SCORED
            && (1..=STEP_HOPS as u8).contains(&tick.voiced)
            && tick.values.iter().all(|value| (-one..=one).contains(value));
        fits.then_some(tick)
    }
}

/// What stands before the first tick.
const NO_TICK: Tick = Tick { end: 0, voiced: 0, scored: false, values: [0; VALUES] };

impl Watcher {
    /// What must be kept for the session to be watched on elsewhere, beside the policy's text.
    pub fn state(&self) -> WatcherState {
        let channels = self.channels.iter();
        WatcherState {
            raised: self.raised,
            suppressed: self.suppressed,
            channels: channels.map(|(number, channel)| channel.state(*number)).collect(),
        }
    }

    /// A watcher that goes on exactly as the one would have whose state it was, by the same policy.
    ///
    /// # Errors
    /// [`Misfit`] if the state cannot be one of a watcher by that policy.
    pub fn resume(policy: Arc<Policy>, state: &WatcherState) -> Result<Self, Misfit> {
        let fits = state.raised <= policy.budget && state.suppressed <= MAX_COUNT;
        Misfit::unless(fits, "count of escalations", "is beyond the policy's budget")?;
        let fits = state.channels.len() <= usize::from(MAX_CHANNELS);
        Misfit::unless(fits, "watcher", "has more channels than a stream")?;
        let mut watcher = Self::new(policy);
        for saved in &state.channels {
            let channel = Channel::resume(&watcher.policy, saved)?;
            watcher.channels.insert(saved.number, channel);
        }
        watcher.raised = state.raised;
        watcher.suppressed = state.suppressed;
        Ok(watcher)
    }
}

impl Channel {
    fn state(&self, number: u32) -> ChannelState {
        let before = std::iter::once(&NO_TICK).chain(self.timeline.ticks());
        let ticks = self.timeline.ticks().zip(before);
        ChannelState {
            number,
            end: self.end,
            last_voice: self.last_voice,
            ticks: ticks.map(|(tick, before)| TickState::of(tick, before)).collect(),
            leaves: self.leaves.clone(),
            phases: self.phases.clone(),
        }
    }

    fn resume(policy: &Policy, state: &ChannelState) -> Result<Self, Misfit> {
        Misfit::beyond(state.end, MAX_COUNT, "watched channel")?;
        Misfit::beyond(state.last_voice, state.end, "last voice of a channel")?;
        let fits =
            state.leaves.len() == policy.leaves.len() && state.phases.len() == policy.rules.len();
        Misfit::unless(fits, "watcher", "is of another policy")?;
        let mut rules = state.phases.iter().zip(&policy.rules);
        let fits = rules.all(|(phase, rule)| phase.fits(rule, state.end));
        Misfit::unless(fits, "rule", "stands where it cannot stand")?;
        Ok(Self {
            end: state.end,
            last_voice: state.last_voice,
            timeline: timeline(policy, state)?,
            leaves: state.leaves.clone(),
            phases: state.phases.clone(),
        })
    }
}

/// The windows that a channel's ticks make.
fn timeline(policy: &Policy, state: &ChannelState) -> Result<Timeline, Misfit> {
    let mut timeline = Timeline::new(policy);
    let mut before = NO_TICK;
    for saved in &state.ticks {
        let none = Misfit { part: "reading", problem: "is none that there can be" };
        before = saved.tick(&before, state.end).ok_or(none)?;
        timeline.advance(policy, before.end, Some(before));
    }
    timeline.advance(policy, state.end, None);
    Ok(timeline)
}

impl Phase {
    /// Whether `rule` can stand so when its channel has been heard to sample `end`.
    fn fits(self, rule: &Rule, end: u64) -> bool {
        match self {
            Self::Waiting { since, quiet_until } => {
                since.is_none_or(|since| since <= end)
                    && quiet_until <= end.saturating_add(rule.cooldown)
            }
            Self::On { onset, told, off_since, swallowed: _ } => {
                onset <= told && told <= end && off_since.is_none_or(|since| since <= end)
            }
        }
    }
}

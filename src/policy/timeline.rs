//! A channel's windows: exact sums over the speech in them.
//!
//! In: one tick of speech at a time, and how far the channel has been heard. Out: per window the weighted
//! sums of all values, per share how much of the speech lay beyond its bound. A tick is in a window from
//! its arrival until its *end* is as old as the window is long, so it counts whole or not at all.
//!
//! Kept are the ticks with speech in the longest window, 64 bytes each, once for all conditions: 15 KB for
//! a minute of uninterrupted speech. Each window remembers its oldest tick and its sums; a tick is added and
//! taken away once per window, whatever the window's length.

use std::collections::VecDeque;

use super::rules::{Policy, Share};
use super::signal::{Signal, VALUES};

/// A stretch of speech.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tick {
    /// The sample behind it.
    pub(super) end: u64,
    /// Its hops with voice, 1 to 16: its weight.
    pub(super) voiced: u8,
    /// Whether it has probabilities of emotions.
    pub(super) scored: bool,
    /// Its values in millionths.
    pub(super) values: [i32; VALUES],
}

/// A window's sums, weighted by voiced hops.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Voiced hops.
    pub(super) speech: u64,
    /// Those with probabilities of emotions.
    pub(super) scored: u64,
    /// Sums of millionths.
    pub(super) values: [i64; VALUES],
}

impl Sums {
    /// The speech that a signal's sum rests on, hops.
    pub(super) fn weight(&self, signal: Signal) -> u64 {
        if signal.needs_emotions() { self.scored } else { self.speech }
    }

    /// A signal's mean, in its own unit; `None` without speech.
    pub(super) fn mean(&self, signal: Signal) -> Option<f64> {
        let weight = self.weight(signal);
        let sum = signal.of(&self.values) as f64 / super::signal::MICRO as f64;
        (weight > 0).then(|| sum / weight as f64)
    }

    fn add(&mut self, tick: &Tick) {
        self.speech += u64::from(tick.voiced);
        self.scored += if tick.scored { u64::from(tick.voiced) } else { 0 };
        for (sum, value) in self.values.iter_mut().zip(tick.values) {
            *sum += i64::from(tick.voiced) * i64::from(value);
        }
    }

    fn take(&mut self, tick: &Tick) {
        self.speech -= u64::from(tick.voiced);
        self.scored -= if tick.scored { u64::from(tick.voiced) } else { 0 };
        for (sum, value) in self.values.iter_mut().zip(tick.values) {
            *sum -= i64::from(tick.voiced) * i64::from(value);
        }
    }
}

/// What slides over the ticks.
#[derive(Debug, Clone)]
struct Slide<T> {
    /// Samples.
    length: u64,
    /// The number of the oldest tick inside, counted from the channel's first.
    first: u64,
    content: T,
}

impl<T> Slide<T> {
    /// Lets go what is too old at sample `now`; `ticks` begin with number `base`.
    fn forget(
        &mut self,
        ticks: &VecDeque<Tick>,
        base: u64,
        now: u64,
        mut leave: impl FnMut(&mut T, &Tick),
    ) {
        let horizon = now.saturating_sub(self.length);
        while let Some(tick) =
            usize::try_from(self.first - base).ok().and_then(|index| ticks.get(index))
        {
            if tick.end > horizon {
                break;
            }
            leave(&mut self.content, tick);
            self.first += 1;
        }
    }
}

/// A channel's windows.
#[derive(Debug, Clone)]
pub(super) struct Timeline {
    ticks: VecDeque<Tick>,
    /// The number of the oldest tick that is kept.
    base: u64,
    windows: Vec<Slide<Sums>>,
    /// Voiced hops beyond the bound of each share.
    shares: Vec<Slide<u64>>,
}

impl Timeline {
    /// Before any speech, with the windows and shares of `policy`.
    pub(super) fn new(policy: &Policy) -> Self {
        let length = |share: &Share| policy.windows.get(share.window).copied().unwrap_or_default();
        let windows = policy.windows.iter();
        Self {
            ticks: VecDeque::new(),
            base: 0,
            windows: windows
                .map(|length| Slide { length: *length, first: 0, content: Sums::default() })
                .collect(),
            shares: policy
                .shares
                .iter()
                .map(|share| Slide { length: length(share), first: 0, content: 0 })
                .collect(),
        }
    }

    /// The channel has been heard to sample `now`, with `tick` as its newest speech, if there was any.
    pub(super) fn advance(&mut self, policy: &Policy, now: u64, tick: Option<Tick>) {
        if let Some(tick) = tick {
            self.ticks.push_back(tick);
            for window in &mut self.windows {
                window.content.add(&tick);
            }
            for (share, what) in self.shares.iter_mut().zip(&policy.shares) {
                share.content += beyond(what, &tick);
            }
        }
        for window in &mut self.windows {
            window.forget(&self.ticks, self.base, now, Sums::take);
        }
        for (share, what) in self.shares.iter_mut().zip(&policy.shares) {
            share.forget(&self.ticks, self.base, now, |hops, tick| *hops -= beyond(what, tick));
        }
        // Every share's window is one of the windows, so these alone say what is still needed.
        let oldest = self.windows.iter().map(|window| window.first).min().unwrap_or(self.base);
        while self.base < oldest {
            self.ticks.pop_front();
            self.base += 1;
        }
    }

    /// The ticks that are kept, oldest first: with the moment to which the channel has been heard, all else
    /// follows from them by [`advance`](Self::advance).
    pub(super) fn ticks(&self) -> impl Iterator<Item = &Tick> {
        self.ticks.iter()
    }

    /// A window's sums; the numbers are those of [`Policy::windows`].
    pub(super) fn sums(&self, window: usize) -> Option<&Sums> {
        self.windows.get(window).map(|window| &window.content)
    }

    /// Voiced hops beyond a share's bound; the numbers are those of [`Policy::shares`].
    pub(super) fn beyond(&self, share: usize) -> Option<u64> {
        self.shares.get(share).map(|share| share.content)
    }

    /// How many ticks are kept.
    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.ticks.len()
    }
}

fn beyond(share: &Share, tick: &Tick) -> u64 {
    let known = tick.scored || !share.signal.needs_emotions();
    let counts = known && share.bound.covers(share.signal.of(&tick.values));
    if counts { tick.voiced.into() } else { 0 }
}

//! Lanes: what of a stream is analysed as one voice.
//!
//! A stream has 1 to 8 interleaved channels. A [`Lane`] is a set of them; what is analysed is their
//! mean. Stereo telephony with the subject on channel 0 and the agent on channel 1 has the one lane
//! `{0}`; "each channel on its own" is a lane per channel; "mix" is one lane of all. A channel that is
//! in no lane is stepped over without being decoded.

use serde::{Deserialize, Serialize};

use super::error::AudioError;
use crate::units::{ChannelCount, MAX_CHANNELS};

/// A set of channels, whose mean is analysed as one voice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Lane(u8);

impl Lane {
    /// The lane of one channel, counted from 0; empty if `channel` is 8 or more.
    pub const fn channel(channel: usize) -> Self {
        if channel < MAX_CHANNELS as usize { Self(1 << channel) } else { Self(0) }
    }

    /// The lane of several channels, counted from 0; those of 8 or more are left out.
    pub fn of(channels: &[usize]) -> Self {
        channels.iter().fold(Self(0), |lane, &channel| lane.union(Self::channel(channel)))
    }

    /// One lane of all channels.
    pub fn mix(channels: ChannelCount) -> Self {
        (0..channels.get()).fold(Self(0), |lane, channel| lane.union(Self::channel(channel)))
    }

    /// One lane for each channel, in order.
    pub fn separate(channels: ChannelCount) -> Vec<Self> {
        (0..channels.get()).map(Self::channel).collect()
    }

    /// The channels of either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `channel` is in it.
    pub const fn contains(self, channel: usize) -> bool {
        channel < MAX_CHANNELS as usize && self.0 & (1 << channel) != 0
    }

    /// Its channels, ascending.
    pub fn channels(self) -> impl Iterator<Item = usize> {
        (0..usize::from(MAX_CHANNELS)).filter(move |&channel| self.contains(channel))
    }

    /// The number of its channels.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether it has no channel.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The first of its channels.
    pub(crate) fn first(self) -> Option<usize> {
        self.channels().next()
    }
}

/// Checks that `lanes` can be taken from a stream of `channels` channels.
pub(crate) fn check(lanes: &[Lane], channels: ChannelCount) -> Result<(), AudioError> {
    if lanes.is_empty() || lanes.len() > usize::from(MAX_CHANNELS) {
        return Err(AudioError::LaneCount { actual: lanes.len(), max: MAX_CHANNELS.into() });
    }
    for (index, lane) in lanes.iter().enumerate() {
        if lane.is_empty() {
            return Err(AudioError::EmptyLane { lane: index });
        }
        if let Some(channel) = lane.channels().find(|&channel| channel >= channels.get()) {
            return Err(AudioError::NoSuchChannel {
                lane: index,
                channel,
                channels: channels.get(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_the_set_of_its_channels() {
        let lane = Lane::of(&[5, 0, 5]);
        assert_eq!(lane.channels().collect::<Vec<_>>(), [0, 5]);
        assert_eq!(lane.len(), 2);
        assert_eq!(lane.first(), Some(0));
        assert!(lane.contains(5) && !lane.contains(1) && !lane.contains(64));
        assert_eq!(Lane::mix(ChannelCount::new(8).unwrap()).len(), 8);
        assert_eq!(Lane::separate(ChannelCount::new(2).unwrap()), [Lane::of(&[0]), Lane::of(&[1])]);
        assert!(Lane::channel(8).is_empty());
    }

    #[test]
    fn lanes_that_a_stream_cannot_have_are_refused() {
        let stereo = ChannelCount::new(2).unwrap();
        assert!(check(&[Lane::channel(0), Lane::mix(stereo)], stereo).is_ok());
        assert!(matches!(check(&[], stereo), Err(AudioError::LaneCount { actual: 0, .. })));
        assert!(matches!(
            check(&[Lane::channel(0); 9], stereo),
            Err(AudioError::LaneCount { actual: 9, .. })
        ));
        assert!(matches!(
            check(&[Lane::channel(0), Lane::default()], stereo),
            Err(AudioError::EmptyLane { lane: 1 })
        ));
        assert!(matches!(
            check(&[Lane::channel(2)], stereo),
            Err(AudioError::NoSuchChannel { lane: 0, channel: 2, channels: 2 })
        ));
    }
}

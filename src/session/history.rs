//! What one lane heard lately, so that an utterance can be replayed to the model from before its onset.

use crate::state::{Misfit, Numbers};

/// The largest number of a vector that is believed: coefficients of levels between -80 and 0 dB stay below a
/// thousand, samples below one.
const MOST: f32 = 1e6;

/// The last vectors of one width, addressed by the number of their hop.
#[derive(Debug, Clone)]
pub(crate) struct History {
    width: usize,
    capacity: u64,
    values: Vec<f32>,
    /// Number behind the newest vector.
    end: u64,
}

impl History {
    /// Room for `capacity` vectors of `width` values.
    pub(crate) fn new(width: usize, capacity: u64) -> Self {
        let capacity = capacity.max(1);
        Self { width, capacity, values: vec![0.0; width * capacity as usize], end: 0 }
    }

    /// The place of the next vector, to be written whole.
    pub(crate) fn push(&mut self) -> &mut [f32] {
        let start = (self.end % self.capacity) as usize * self.width;
        self.end += 1;
        self.values.get_mut(start..start + self.width).unwrap_or_default()
    }

    /// Vector number `index`, if it is still there.
    pub(crate) fn get(&self, index: u64) -> Option<&[f32]> {
        if index >= self.end || index < self.first() {
            return None;
        }
        let start = (index % self.capacity) as usize * self.width;
        self.values.get(start..start + self.width)
    }

    /// Number behind the newest vector.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The vectors from number `from` on, to be saved.
    pub(crate) fn state(&self, from: u64) -> Numbers {
        let vectors = (from.max(self.first())..self.end).filter_map(|index| self.get(index));
        Numbers::of(&vectors.flatten().copied().collect::<Vec<_>>())
    }

    /// Takes over, being new, the vectors from number `from` to before `end`. Older ones are not there, and must
    /// not be asked for.
    pub(crate) fn restore(&mut self, from: u64, end: u64, state: &Numbers) -> Result<(), Misfit> {
        let count = end.saturating_sub(from);
        Misfit::unless(count <= self.capacity, "past features", "reach back too far")?;
        let values = state.checked(count as usize * self.width, MOST, "past features")?;
        self.end = end - count;
        for vector in values.chunks(self.width) {
            self.push().copy_from_slice(vector);
        }
        Ok(())
    }

    /// Number of the oldest vector that is still there.
    pub(crate) fn first(&self) -> u64 {
        self.end.saturating_sub(self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_vectors_are_there_and_older_ones_are_not() {
        let mut history = History::new(2, 3);
        for i in 0..8 {
            history.push().copy_from_slice(&[i as f32, -(i as f32)]);
        }
        assert_eq!(history.get(4), None);
        assert_eq!(history.get(5), Some([5.0, -5.0].as_slice()));
        assert_eq!(history.get(7), Some([7.0, -7.0].as_slice()));
        assert_eq!(history.get(8), None);
        assert_eq!(history.first(), 5);
    }
}

//! What one lane heard lately, so that an utterance can be replayed to the model from before its onset.

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

//! Saved states: what the parts of a stream that can be saved share.
//!
//! A part that carries something from one hop to the next has a `state`, to be written down between two
//! chunks, and a `restore`, for a new part that is to go on as the old one would have. In a state stands what
//! cannot be worked out again: neither tables nor buffers for work, nor numbers that follow from others.
//!
//! A state comes back from a client. It was sealed on its way (see `session::token`), and yet none of it is
//! believed: every length is what the stream's format, settings and model make it, every number is in its
//! range, every position lies before the stream's end. What does not fit is refused with a [`Misfit`].

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

/// The largest count of frames, samples or bytes that is believed: thousands of years of any stream, and so far
/// from the end of 64 bits that no sum can reach it.
pub const MAX_COUNT: u64 = 1 << 44;

/// What one in full scale is as a 16-bit sample.
const FULL_SCALE: f32 = 32_768.0;

/// A part of a saved state that cannot be gone on with: it was damaged, or made for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the saved state's {part} {problem}")]
pub struct Misfit {
    /// Which part.
    pub part: &'static str,
    /// What is wrong with it, as the end of a sentence.
    pub problem: &'static str,
}

impl Misfit {
    /// Refuses `part` unless `holds`.
    pub(crate) fn unless(
        holds: bool,
        part: &'static str,
        problem: &'static str,
    ) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self { part, problem }) }
    }

    /// Refuses a position or count behind `end`.
    pub(crate) fn beyond(value: u64, end: u64, part: &'static str) -> Result<(), Self> {
        Self::unless(value <= end, part, "lies behind the stream's end")
    }

    /// Refuses numbers outside `range`, which those that are not finite are.
    pub(crate) fn outside<'a>(
        numbers: impl IntoIterator<Item = &'a f32>,
        range: &RangeInclusive<f32>,
        part: &'static str,
    ) -> Result<(), Self> {
        let fits = numbers.into_iter().all(|number| range.contains(number));
        Self::unless(fits, part, "has numbers out of range")
    }
}

/// Numbers of one kind, most often samples, in the fewest bytes that give the same bits again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Numbers {
    /// All are whole 32,768ths: samples that came as 16 bits or as G.711.
    Whole(Vec<i16>),
    /// Any.
    Any(Vec<f32>),
}

impl Numbers {
    /// `numbers`, to be saved.
    pub fn of(numbers: &[f32]) -> Self {
        let whole: Option<Vec<i16>> = numbers.iter().map(|number| as_whole(*number)).collect();
        whole.map_or_else(|| Self::Any(numbers.to_vec()), Self::Whole)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Whole(numbers) => numbers.len(),
            Self::Any(numbers) => numbers.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers, of which there must be `len`, from -`most` to `most`.
    ///
    /// # Errors
    /// [`Misfit`] of `part`.
    pub fn checked(&self, len: usize, most: f32, part: &'static str) -> Result<Vec<f32>, Misfit> {
        Misfit::unless(self.len() == len, part, "have another length than the stream gives them")?;
        let numbers: Vec<f32> = match self {
            Self::Whole(numbers) => {
                numbers.iter().map(|number| f32::from(*number) / FULL_SCALE).collect()
            }
            Self::Any(numbers) => numbers.clone(),
        };
        Misfit::outside(&numbers, &(-most..=most), part)?;
        Ok(numbers)
    }
}

impl Default for Numbers {
    fn default() -> Self {
        Self::Whole(Vec::new())
    }
}

/// The 16-bit sample that gives exactly `number`.
fn as_whole(number: f32) -> Option<i16> {
    // Out of range it saturates, and then it is another number.
    let sample = (number * FULL_SCALE) as i16;
    // Minus zero is another number as well.
    let again = f32::from(sample) / FULL_SCALE;
    (again.to_bits() == number.to_bits()).then_some(sample)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(numbers: &[f32]) -> Vec<u32> {
        numbers.iter().map(|number| number.to_bits()).collect()
    }

    #[test]
    fn sixteen_bit_samples_take_two_bytes_and_others_four() {
        let whole: Vec<f32> =
            [-32_768_i16, -1, 0, 1, 32_767].iter().map(|n| f32::from(*n) / 32_768.0).collect();
        assert!(matches!(Numbers::of(&whole), Numbers::Whole(_)));
        for other in [-0.0, 1.0, 0.1, 1.0 / 65_536.0, f32::NAN, f32::INFINITY] {
            assert!(matches!(Numbers::of(&[0.0, other]), Numbers::Any(_)), "{other}");
        }
    }

    #[test]
    fn lengths_and_ranges_are_checked() {
        let numbers = Numbers::of(&[0.5, -2.0]);
        assert!(numbers.checked(2, 2.0, "x").is_ok());
        assert!(numbers.checked(3, 2.0, "x").is_err());
        assert!(numbers.checked(2, 1.9, "x").is_err());
        assert!(Numbers::of(&[f32::NAN]).checked(1, 2.0, "x").is_err());
    }

    proptest! {
        #[test]
        fn numbers_come_back_to_the_bit(
            any in prop::collection::vec(-4.0_f32..4.0, 0..50),
            whole in prop::collection::vec(any::<i16>(), 0..50),
        ) {
            let whole: Vec<f32> = whole.iter().map(|n| f32::from(*n) / 32_768.0).collect();
            for numbers in [any, whole] {
                let bytes = postcard::to_stdvec(&Numbers::of(&numbers)).unwrap();
                let again: Numbers = postcard::from_bytes(&bytes).unwrap();
                let again = again.checked(numbers.len(), 4.0, "x").unwrap();
                prop_assert_eq!(bits(&again), bits(&numbers));
            }
        }
    }
}

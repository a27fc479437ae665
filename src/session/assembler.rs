//! Model inputs out of hops: whole steps for a streaming model, windows for the others.
//!
//! In: an utterance's vectors one by one (MFCCs, or the hop's samples for a waveform model), from its
//! lead-in to the end of its hang-over. Out: a [`Row`] when the model is to run. Pauses are run as well:
//! leaving out steps without voice saved a quarter of the model's cost and lost two points of balanced
//! accuracy on CREMA-D and seven on RAVDESS, because breath, pauses and the level of voice above the room
//! tell something too (`training/EXPERIMENTS.md`).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::model::{Input, Row};
use crate::state::{Misfit, Numbers};
use crate::units::{HOP_SAMPLES, STEP_HOPS};

/// The largest input that is believed of a saved state: see `history`.
const MOST_INPUT: f32 = 1e6;

/// What an [`Assembler`] carries from one hop to the next within an utterance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AssemblerState {
    /// Vectors in the step or since the last window.
    vectors: usize,
    /// The begun step, or the window.
    heard: Numbers,
    /// The model's.
    state: Vec<f32>,
}

/// One utterance's way into the model.
#[derive(Debug, Clone)]
pub(crate) struct Assembler {
    input: Input,
    state_len: usize,
    /// The row, unless it is on its way through the engine.
    row: Option<Row>,
    /// Vectors in the step or since the last window.
    vectors: usize,
    /// The window's values, for window kinds.
    window: VecDeque<f32>,
}

impl Assembler {
    /// For a model with that input and that many state values.
    pub(crate) fn new(input: Input, state_len: usize) -> Self {
        Self { input, state_len, row: None, vectors: 0, window: VecDeque::new() }
    }

    /// Starts an utterance: no state, nothing heard. Buffers are kept.
    pub(crate) fn begin(&mut self) {
        let row = self.row.get_or_insert_default();
        row.input.clear();
        row.state.clear();
        row.state.resize(self.state_len, 0.0);
        self.vectors = 0;
        self.window.clear();
    }

    /// Takes the next vector. Returns true when the model is to run: call [`Self::request`] then.
    pub(crate) fn feed(&mut self, vector: &[f32]) -> bool {
        let Some(row) = &mut self.row else {
            return false;
        };
        self.vectors += 1;
        let due = match self.input {
            Input::Step { .. } => {
                row.input.extend_from_slice(vector);
                self.vectors == STEP_HOPS
            }
            Input::MfccWindow { stride_hops, .. } | Input::WaveformWindow { stride_hops, .. } => {
                self.window.extend(vector);
                let excess = self.window.len().saturating_sub(self.input.len());
                self.window.drain(..excess);
                self.vectors == stride_hops
            }
        };
        if !due {
            return false;
        }
        self.vectors = 0;
        true
    }

    /// Vectors that a step lacks: 0 when it has just been run.
    pub(crate) fn lacking(&self) -> usize {
        match self.input {
            _ if self.vectors == 0 => 0,
            Input::Step { .. } => STEP_HOPS - self.vectors,
            Input::MfccWindow { stride_hops, .. } | Input::WaveformWindow { stride_hops, .. } => {
                stride_hops - self.vectors
            }
        }
    }

    /// What must be kept for the utterance to be gone on with; `None` if the row is under way or lost.
    pub(crate) fn state(&self) -> Option<AssemblerState> {
        let row = self.row.as_ref()?;
        let heard = match self.input {
            Input::Step { .. } => Numbers::of(&row.input),
            Input::MfccWindow { .. } | Input::WaveformWindow { .. } => {
                Numbers::of(&self.window.iter().copied().collect::<Vec<_>>())
            }
        };
        Some(AssemblerState { vectors: self.vectors, heard, state: row.state.clone() })
    }

    /// Goes on, being new, within the utterance whose state it was.
    pub(crate) fn restore(&mut self, state: &AssemblerState) -> Result<(), Misfit> {
        const PART: &str = "begun input of the model";
        let (width, due) = match self.input {
            Input::Step { coefficients } => (coefficients, STEP_HOPS),
            Input::MfccWindow { coefficients, stride_hops, .. } => (coefficients, stride_hops),
            Input::WaveformWindow { stride_hops, .. } => (HOP_SAMPLES, stride_hops),
        };
        Misfit::unless(state.vectors < due, PART, "should have been run")?;
        let heard = state.heard.len();
        let fits = match self.input {
            Input::Step { .. } => heard == state.vectors * width,
            Input::MfccWindow { .. } | Input::WaveformWindow { .. } => {
                let most = self.input.len();
                heard == most || (heard < most && heard.is_multiple_of(width))
            }
        };
        Misfit::unless(fits, PART, "has another length than the model gives it")?;
        let fits = state.state.len() == self.state_len;
        Misfit::unless(fits, "model state", "has another length than the model's")?;
        Misfit::outside(&state.state, &(f32::MIN..=f32::MAX), "model state")?;
        let heard = state.heard.checked(heard, MOST_INPUT, PART)?;
        self.begin();
        self.vectors = state.vectors;
        if let (Some(row), Input::Step { .. }) = (&mut self.row, self.input) {
            row.input = heard;
        } else {
            self.window.extend(heard);
        }
        if let Some(row) = &mut self.row {
            row.state.clone_from(&state.state);
        }
        Ok(())
    }

    /// The row to run. It must come back by [`Self::take_back`].
    pub(crate) fn request(&mut self) -> Option<Row> {
        let mut row = self.row.take()?;
        if !matches!(self.input, Input::Step { .. }) {
            row.input.clear();
            row.input.extend(&self.window);
            row.input.resize(self.input.len(), 0.0);
        }
        Some(row)
    }

    /// Takes the row back, with the next state in it.
    pub(crate) fn take_back(&mut self, mut row: Row) {
        row.input.clear();
        self.row = Some(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_sixteen_vectors() {
        let mut assembler = Assembler::new(Input::Step { coefficients: 2 }, 3);
        assembler.begin();
        let mut runs = Vec::new();
        for i in 0..48 {
            if assembler.feed(&[i as f32, 0.0]) {
                let row = assembler.request().unwrap();
                assert_eq!(row.input.len(), 32);
                assert_eq!(row.state, [0.0; 3]);
                runs.push(row.input[0] as usize);
                assembler.take_back(row);
            }
        }
        assert_eq!(runs, [0, 16, 32]);
        assert_eq!(assembler.lacking(), 0);
        assert!(!assembler.feed(&[0.0, 0.0]));
        assert_eq!(assembler.lacking(), 15);
    }

    #[test]
    fn a_window_slides_and_is_padded_with_zeros_behind() {
        let input = Input::MfccWindow { hops: 4, coefficients: 1, stride_hops: 3 };
        let mut assembler = Assembler::new(input, 0);
        assembler.begin();
        let mut windows = Vec::new();
        for i in 1..=9 {
            if assembler.feed(&[i as f32]) {
                let row = assembler.request().unwrap();
                windows.push(row.input.clone());
                assembler.take_back(row);
            }
        }
        assert_eq!(
            windows,
            [[1.0, 2.0, 3.0, 0.0], [3.0, 4.0, 5.0, 6.0], [6.0, 7.0, 8.0, 9.0]].map(Vec::from)
        );
    }
}

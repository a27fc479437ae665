//! Corpora of acted speech: their labels, manifests, and the features that training reads.
//!
//! In: a folder with any of RAVDESS, TESS, SAVEE and CREMA-D, in their publishers' layouts or with a
//! `manifest.csv`. Out: [`Clip`]s with labels; from those, the very model inputs that the service would
//! make of them, so that training and serving cannot differ; what is wrong with them; and a report with
//! pictures.

pub mod examine;
pub mod example;
pub mod explore;
pub mod extract;
mod frames;
pub mod labels;
pub mod logmel;
pub mod manifest;
pub mod parallel;
pub mod scan;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::audio::AudioError;
use crate::emotion::Emotion;

/// One of the four corpora.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Corpus {
    /// Livingstone and Russo 2018, speech part.
    Ravdess,
    /// Toronto emotional speech set.
    Tess,
    /// Surrey Audio-Visual Expressed Emotion.
    Savee,
    /// Cao et al. 2014.
    CremaD,
}

impl Corpus {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Ravdess, Self::Tess, Self::Savee, Self::CremaD];

    /// The name in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ravdess => "ravdess",
            Self::Tess => "tess",
            Self::Savee => "savee",
            Self::CremaD => "crema-d",
        }
    }
}

impl fmt::Display for Corpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Corpus {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|corpus| corpus.name() == name).ok_or_else(|| {
            format!("unknown corpus {name:?}; known are ravdess, tess, savee, crema-d")
        })
    }
}

/// Where a clip's sound is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sound {
    /// An audio file.
    File(PathBuf),
    /// A row range of a `logmel.npz`, by the clip's name.
    LogMel(PathBuf),
}

/// One labelled clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    /// Where its sound is.
    pub sound: Sound,
    /// Its name: the file's without extension.
    pub name: String,
    /// Its corpus.
    pub corpus: Corpus,
    /// What was acted.
    pub emotion: Emotion,
    /// Intensity as the corpus calls it; empty if it does not.
    pub intensity: String,
    /// Speaker, unique over the corpora.
    pub speaker: String,
    /// `F` or `M`; empty if unknown.
    pub sex: String,
    /// Code of the sentence or word.
    pub text: String,
    /// 0 to 4; a speaker is in one fold only.
    pub fold: u8,
}

/// A clip that could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// Its audio cannot be decoded.
    #[error(transparent)]
    Audio(#[from] AudioError),
    /// Its spectrogram is not in the file.
    #[error("no such clip in the spectrogram file")]
    Missing,
}

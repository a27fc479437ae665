//! Training features: what the service would give its model, clip by clip.
//!
//! Each clip runs through [`Listener`], the code of a live session: the same framing, reference, voice
//! activity, utterances and lead-in. What the listener asks of the model is what is stored.
//!
//! Out, in a folder: `features.npz` with `mfcc` float32 [hops, n] (whole steps of 16 hops, clip after
//! clip), `offsets` int64 [clips + 1] into its rows, `segments` int64 [utterances, 3] = (clip, first row
//! within the clip, row behind the last one). A clip in which the service finds no utterance is stored
//! from end to end; and `features.csv`, the manifest's rows in the same order.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use npyz::WriterBuilder as _;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::logmel::{LogMelError, Spectra};
use super::parallel::{self, Interrupted, Watch};
use super::{Clip, ClipError, Sound, manifest};
use crate::audio::{ClipHops, ClipReader, Lane};
use crate::emotion::Emotion;
use crate::features::{CausalReference, Frame, MEL_BANDS};
use crate::model::{Input, Manifest, Output};
use crate::session::Listener;
use crate::units::STEP_HOPS;
use crate::wire::event::Event;
use crate::wire::parse::AnalysisSettings;

/// Coefficients unless told otherwise: what the models of this repository are trained on.
pub const COEFFICIENTS: usize = 64;

/// Why extraction stops. A clip that cannot be read does not stop it.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// A file that cannot be written.
    #[error("{path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A spectrogram file that cannot be used.
    #[error(transparent)]
    LogMel(#[from] LogMelError),
    /// The list of clips cannot be written.
    #[error(transparent)]
    Manifest(#[from] manifest::ManifestError),
    /// Somebody stopped it.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// One clip's steps: MFCCs, and where each utterance begins and ends in them, in hops.
#[derive(Debug, Default)]
struct Steps {
    mfcc: Vec<f32>,
    utterances: Vec<(usize, usize)>,
    /// No utterance was found; the whole clip stands here.
    unheard: bool,
}

/// What came out.
#[derive(Debug)]
pub struct Extracted {
    /// Clips extracted.
    pub clips: usize,
    /// Steps.
    pub steps: usize,
    /// Clips in which the service finds no utterance; they are stored from end to end.
    pub unheard: Vec<String>,
    /// Clips that could not be read, with the reason.
    pub failed: Vec<(String, ClipError)>,
}

/// Extracts `coefficients` MFCCs of `clips` into the folder `out`. `progress` is called per clip, from
/// several threads.
///
/// # Errors
/// [`ExtractError`]; clips that cannot be read are in [`Extracted::failed`].
pub fn extract(
    clips: &[Clip],
    coefficients: usize,
    settings: &AnalysisSettings,
    out: &Path,
    progress: impl Fn() + Sync,
) -> Result<Extracted, ExtractError> {
    std::fs::create_dir_all(out)
        .map_err(|source| ExtractError::Write { path: out.to_owned(), source })?;
    let spectra = Spectra::open(clips)?;
    let never = AtomicBool::new(false);
    let results = parallel::map(clips, &Watch::new(&progress, &never), |clip| {
        steps(clip, &spectra, coefficients, settings)
    })?;

    let mut extracted = Extracted { clips: 0, steps: 0, unheard: Vec::new(), failed: Vec::new() };
    let mut kept = Vec::new();
    let mut features = Vec::new();
    for (result, clip) in results.into_iter().zip(clips) {
        match result {
            Ok(steps) => {
                if steps.unheard {
                    extracted.unheard.push(clip.name.clone());
                }
                extracted.steps += steps.mfcc.len() / (STEP_HOPS * coefficients);
                kept.push(clip.clone());
                features.push(steps);
            }
            Err(error) => extracted.failed.push((clip.name.clone(), error)),
        }
    }
    extracted.clips = kept.len();
    let file = out.join("features.npz");
    write(&features, coefficients, &file)
        .map_err(|source| ExtractError::Write { path: file, source })?;
    manifest::write(&kept, &out.join("features.csv"))?;
    Ok(extracted)
}

/// A model that only listens: it asks for its steps, and any answer will do.
fn recorder(coefficients: usize) -> Manifest {
    Manifest {
        name: "recorder".to_owned(),
        version: String::new(),
        description: String::new(),
        input: Input::Step { coefficients },
        input_name: String::new(),
        states: Vec::new(),
        output: Output::Logits(vec![Emotion::Neutral, Emotion::Angry]),
        output_name: String::new(),
        temperature: 1.0,
        sha256: String::new(),
        training_data: Vec::new(),
        protocol: String::new(),
        figures: std::collections::BTreeMap::new(),
    }
}

fn steps(
    clip: &Clip,
    spectra: &Spectra,
    coefficients: usize,
    settings: &AnalysisSettings,
) -> Result<Steps, ClipError> {
    let found = listen(clip, spectra, coefficients, settings)?;
    if !found.mfcc.is_empty() {
        return Ok(found);
    }
    // Leaving out what the service does not notice would flatter every figure.
    let mut everything = settings.clone();
    everything.segmenter.on = 0.0;
    everything.segmenter.off = 0.0;
    everything.segmenter.min_speech_hops = 1;
    let mut steps = listen(clip, spectra, coefficients, &everything)?;
    steps.unheard = true;
    Ok(steps)
}

fn listen(
    clip: &Clip,
    spectra: &Spectra,
    coefficients: usize,
    settings: &AnalysisSettings,
) -> Result<Steps, ClipError> {
    let manifest = Arc::new(recorder(coefficients));
    let mut recording = Recording {
        listener: Listener::new(0, manifest, settings),
        steps: Steps::default(),
        utterance: None,
        events: Vec::new(),
    };
    match &clip.sound {
        Sound::File(path) => recording.hear_file(path)?,
        Sound::LogMel(path) => {
            let rows = spectra.file(path).and_then(|file| file.rows(&clip.name));
            recording.hear_rows(rows.ok_or(ClipError::Missing)?);
        }
    }
    Ok(recording.steps)
}

struct Recording {
    listener: Listener,
    steps: Steps,
    /// The utterance that the last step belongs to.
    utterance: Option<u32>,
    events: Vec<Event>,
}

impl Recording {
    fn hear_file(&mut self, path: &Path) -> Result<(), ClipError> {
        let reader = ClipReader::open(path)?;
        let lanes = [Lane::mix(reader.channels())];
        let mut hops = ClipHops::new(reader, &lanes)?;
        while let Some(hop) = hops.next_hop()? {
            if let Some(samples) = hop.lane(0) {
                self.listener.hear(samples);
                self.record();
            }
        }
        self.listener.finish(hops.received().end.0);
        let mut padded = 0;
        while self.listener.wants_padding(padded) {
            padded += 1;
            self.listener.hear(&[0.0; crate::units::HOP_SAMPLES]);
            self.record();
        }
        Ok(())
    }

    /// Rows are frames already; the silence behind them is at the floor.
    fn hear_rows(&mut self, rows: impl Iterator<Item = [f32; MEL_BANDS]>) {
        let mut reference = CausalReference::new();
        let mut index = 0;
        let mut hear = |this: &mut Self, mel_db| {
            let frame = Frame::from_mel_db(index, mel_db, &mut reference);
            index += 1;
            this.listener.hear_spectrum(&frame);
            this.record();
        };
        for row in rows {
            hear(self, row);
        }
        self.listener.finish(u64::MAX);
        // The spectrogram's last rows cover the clip's end already.
        let mut padded = u64::MAX / 2;
        while self.listener.wants_padding(padded) {
            padded += 1;
            hear(self, [-100.0; MEL_BANDS]);
        }
    }

    fn record(&mut self) {
        while let Some(mut row) = self.listener.request() {
            let start = self.steps.mfcc.len();
            self.steps.mfcc.extend_from_slice(&row.input);
            let hops = |values: usize| values / (row.input.len() / STEP_HOPS);
            let (first, end) = (hops(start), hops(self.steps.mfcc.len()));
            let utterance = self.listener.utterance();
            match self.steps.utterances.last_mut() {
                Some(last) if self.utterance == Some(utterance) => last.1 = end,
                _ => self.steps.utterances.push((first, end)),
            }
            self.utterance = Some(utterance);
            row.output = vec![0.0, 0.0];
            self.listener.absorb(row);
        }
        self.listener.settle(&mut self.events);
        self.events.clear();
    }
}

fn write(features: &[Steps], coefficients: usize, file: &Path) -> std::io::Result<()> {
    let hops = |steps: &Steps| steps.mfcc.len() / coefficients;
    let total: usize = features.iter().map(hops).sum();
    let ends = features.iter().scan(0_i64, |offset, steps| {
        *offset += hops(steps) as i64;
        Some(*offset)
    });
    let utterances: usize = features.iter().map(|steps| steps.utterances.len()).sum();
    let segments = features.iter().zip(0_i64..).flat_map(|(steps, clip)| {
        steps.utterances.iter().flat_map(move |(a, b)| [clip, *a as i64, *b as i64])
    });

    let mut archive = ZipWriter::new(BufWriter::new(File::create(file)?));
    let mfcc = features.iter().flat_map(|steps| steps.mfcc.iter().copied());
    array(&mut archive, "mfcc", &[total, coefficients], mfcc)?;
    array(&mut archive, "offsets", &[features.len() + 1], std::iter::once(0).chain(ends))?;
    array(&mut archive, "segments", &[utterances, 3], segments)?;
    archive.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

/// One array of the archive; stored as it is, since noise does not compress.
fn array<T: npyz::AutoSerialize>(
    archive: &mut ZipWriter<BufWriter<File>>,
    name: &str,
    shape: &[usize],
    values: impl IntoIterator<Item = T>,
) -> std::io::Result<()> {
    let options = SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .large_file(true);
    archive.start_file(format!("{name}.npy"), options)?;
    let shape: Vec<u64> = shape.iter().map(|n| *n as u64).collect();
    let mut writer =
        npyz::WriteOptions::<T>::new().default_dtype().shape(&shape).writer(archive).begin_nd()?;
    writer.extend(values)?;
    writer.finish()
}

//! Models: a folder each, checked when loaded, each behind an engine of its own.
//!
//! In: a folder with `model.toml` and `model.onnx`, or the default model embedded in the binary. Out: a
//! [`Model`]: its manifest and the [`Engine`] that runs it. A model that cannot be trusted is refused
//! with the reason: hash, names, shapes, a warm-up run, finite outputs.

pub mod engine;
pub mod gauge;
pub mod manifest;
pub mod runtime;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

pub use engine::{Engine, EngineError, EngineSettings, Row};
pub use manifest::{Dimension, Input, Manifest, Output};

use engine::RowShape;
use manifest::ManifestError;
use runtime::{Batch, Graph, RuntimeError};

/// The default model's manifest and graph, embedded in the binary.
const DEFAULT: (&str, &[u8]) = (
    include_str!("../../models/undertone-four/model.toml"),
    include_bytes!("../../models/undertone-four/model.onnx"),
);

/// Why a model is refused.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file that cannot be read.
    #[error("model {model}: cannot read {path}: {source}")]
    Read {
        /// The model's folder.
        model: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A bad manifest.
    #[error("model {model}: {source}")]
    Manifest {
        /// The model's folder.
        model: String,
        /// Why.
        source: ManifestError,
    },
    /// The ONNX file is not the one that the manifest was written for.
    #[error(
        "model {model}: SHA-256 of model.onnx is {actual}, model.toml says {expected}; the two files do not belong together"
    )]
    Hash {
        /// The model.
        model: String,
        /// What the manifest says.
        expected: String,
        /// What the file has.
        actual: String,
    },
    /// The runtime refuses it.
    #[error("model {model}: {source}")]
    Runtime {
        /// The model.
        model: String,
        /// Why.
        source: RuntimeError,
    },
    /// The warm-up gave nonsense.
    #[error("model {model}: the warm-up run put out a value that is not finite ({output})")]
    WarmUp {
        /// The model.
        model: String,
        /// The output.
        output: String,
    },
    /// Two models of one name.
    #[error("two models are named {0}; rename one in its model.toml")]
    Twice(String),
    /// No thread to be had.
    #[error("model {model}: no engine thread: {source}")]
    Thread {
        /// The model.
        model: String,
        /// Why.
        source: std::io::Error,
    },
}

/// How models are loaded and run.
#[derive(Debug, Clone)]
pub struct LoadSettings {
    /// How each engine batches.
    pub engine: EngineSettings,
    /// Threads of ONNX Runtime within one run.
    pub threads: usize,
    /// ONNX Runtime's library, if the configuration names it.
    pub library: Option<PathBuf>,
}

/// A model, ready.
#[derive(Debug)]
pub struct Model {
    /// What it is; every session holds on to it.
    pub manifest: Arc<Manifest>,
    /// What runs it.
    pub engine: Engine,
}

impl Model {
    /// The model that is embedded in the binary.
    ///
    /// # Errors
    /// [`ModelError`], in practice only if ONNX Runtime is missing.
    pub fn embedded(settings: &LoadSettings) -> Result<Self, ModelError> {
        let (manifest, onnx) = DEFAULT;
        Self::from_parts("undertone-four (embedded)", manifest, onnx, settings)
    }

    /// The model in `folder`.
    ///
    /// # Errors
    /// [`ModelError`] with the reason.
    pub fn open(folder: &Path, settings: &LoadSettings) -> Result<Self, ModelError> {
        let model = folder.display().to_string();
        let unreadable = |name: &str, source| ModelError::Read {
            model: model.clone(),
            path: folder.join(name),
            source,
        };
        let manifest = std::fs::read_to_string(folder.join("model.toml"))
            .map_err(|source| unreadable("model.toml", source))?;
        let onnx = std::fs::read(folder.join("model.onnx"))
            .map_err(|source| unreadable("model.onnx", source))?;
        Self::from_parts(&model, &manifest, &onnx, settings)
    }

    fn from_parts(
        model: &str,
        manifest: &str,
        onnx: &[u8],
        settings: &LoadSettings,
    ) -> Result<Self, ModelError> {
        let manifest = Manifest::parse(manifest)
            .map_err(|source| ModelError::Manifest { model: model.to_owned(), source })?;
        let model = manifest.name.clone();
        let actual = hex(&Sha256::digest(onnx));
        if actual != manifest.sha256 {
            return Err(ModelError::Hash { model, expected: manifest.sha256, actual });
        }
        let refused = |source| ModelError::Runtime { model: model.clone(), source };
        let mut graph = Graph::new(onnx, &manifest, settings.threads, settings.library.as_deref())
            .map_err(refused)?;
        warm_up(&mut graph, &manifest, settings.engine.max_batch)?;
        let shape = RowShape {
            input: manifest.input.len(),
            states: manifest.states.iter().map(manifest::State::len).collect(),
            output: manifest.output.len(),
        };
        let engine = Engine::start(&model, shape, settings.engine, graph)
            .map_err(|source| ModelError::Thread { model: model.clone(), source })?;
        Ok(Self { manifest: Arc::new(manifest), engine })
    }
}

/// Two rows, so that a graph whose batch is fixed at 1 shows; then the largest batch, so that the
/// runtime's memory is there before the first stream is.
fn warm_up(graph: &mut Graph, manifest: &Manifest, max_batch: usize) -> Result<(), ModelError> {
    for rows in [1, 2, max_batch.max(1)] {
        let mut batch = Batch {
            rows,
            input: vec![0.0; rows * manifest.input.len()],
            states: manifest.states.iter().map(|s| vec![0.0; rows * s.len()]).collect(),
            output: Vec::new(),
        };
        graph
            .run(&mut batch)
            .map_err(|source| ModelError::Runtime { model: manifest.name.clone(), source })?;
        let bad = batch.output.iter().chain(batch.states.iter().flatten()).find(|v| !v.is_finite());
        if bad.is_some() {
            return Err(ModelError::WarmUp {
                model: manifest.name.clone(),
                output: format!("{:?}", batch.output),
            });
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The models of a server: the first is the default.
#[derive(Debug, Clone)]
pub struct Models(Arc<[Arc<Model>]>);

impl Models {
    /// Loads the models of `folders`, then the embedded one. The first folder, if there is one, gives
    /// the default model unless `default` names another.
    ///
    /// # Errors
    /// [`ModelError`] of the first model that is refused.
    pub fn load(folders: &[PathBuf], settings: &LoadSettings) -> Result<Self, ModelError> {
        let mut models = Vec::with_capacity(folders.len() + 1);
        for folder in folders {
            models.push(Arc::new(Model::open(folder, settings)?));
        }
        let embedded = Manifest::parse(DEFAULT.0).ok();
        let replaced = |models: &[Arc<Model>]| {
            embedded.as_ref().is_some_and(|e| models.iter().any(|m| m.manifest.name == e.name))
        };
        // A folder may hold a newer build of the embedded model: it takes its place.
        if !replaced(&models) {
            models.push(Arc::new(Model::embedded(settings)?));
        }
        for (index, model) in models.iter().enumerate() {
            let name = &model.manifest.name;
            if models.iter().skip(index + 1).any(|other| other.manifest.name == *name) {
                return Err(ModelError::Twice(name.clone()));
            }
        }
        Ok(Self(models.into()))
    }

    /// Models that were made elsewhere, the default first: a test or an embedder brings its own
    /// [`Engine`].
    pub fn from_parts(models: Vec<Model>) -> Self {
        Self(models.into_iter().map(Arc::new).collect())
    }

    /// The models, the default first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.0.iter()
    }

    /// The names of all models, for messages.
    pub fn names(&self) -> String {
        self.iter().map(|model| model.manifest.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Whether the model of that name is the default.
    pub fn is_default(&self, name: &str) -> bool {
        self.0.first().is_some_and(|model| model.manifest.name == name)
    }

    /// The model of that name; the default for an empty name.
    pub fn get(&self, name: &str) -> Option<&Arc<Model>> {
        if name.is_empty() {
            return self.0.first();
        }
        self.0.iter().find(|model| model.manifest.name == name)
    }
}

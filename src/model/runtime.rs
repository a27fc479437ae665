//! ONNX Runtime: the only place that knows it.
//!
//! In: a batch of inputs and states as flat slices. Out: outputs and next states, written back into the
//! caller's buffers. The shared library is loaded at run time; its path is a setting, else the places
//! where `make setup` and the packages put it are looked through.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use super::manifest::Manifest;

/// Folder, beside the executable or above it, that the set-up puts the library into.
const FOLDER: &str = ".onnxruntime";
#[cfg(target_os = "macos")]
const LIBRARY: &str = "libonnxruntime.dylib";
#[cfg(not(target_os = "macos"))]
const LIBRARY: &str = "libonnxruntime.so";

/// What can go wrong between us and ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The shared library is nowhere.
    #[error(
        "ONNX Runtime's {LIBRARY} was not found (looked at {looked}); run `make setup`, or set ORT_DYLIB_PATH to the library"
    )]
    NoLibrary {
        /// The places looked at.
        looked: String,
    },
    /// The shared library cannot be loaded.
    #[error("ONNX Runtime cannot be loaded from {path}: {cause}")]
    Load {
        /// The library.
        path: String,
        /// What the loader says.
        cause: String,
    },
    /// The runtime says no.
    #[error("ONNX Runtime: {0}")]
    Ort(#[from] ort::Error),
    /// An output of another shape than the manifest says.
    #[error("output {name} has {actual} values, the manifest says {expected}")]
    Shape {
        /// The output's name.
        name: String,
        /// Values expected.
        expected: usize,
        /// Values found.
        actual: usize,
    },
    /// The graph has no such input or output.
    #[error("the graph has no {direction} {name:?}; it has {known}")]
    NoTensor {
        /// "input" or "output".
        direction: &'static str,
        /// The manifest's name for it.
        name: String,
        /// The graph's names.
        known: String,
    },
}

/// Loads the library once per process. `library` is the path that the configuration names, if any.
///
/// # Errors
/// [`RuntimeError::NoLibrary`] or [`RuntimeError::Load`].
pub fn load(library: Option<&Path>) -> Result<(), RuntimeError> {
    environment(library).map(|_| ())
}

fn environment(library: Option<&Path>) -> Result<&'static Environment, RuntimeError> {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    if let Some(environment) = ENVIRONMENT.get() {
        return Ok(environment);
    }
    let path = match library {
        Some(path) => path.to_owned(),
        None => find_library()?,
    };
    let failed = |cause: String| RuntimeError::Load { path: path.display().to_string(), cause };
    let builder = ort::init_from(&path).map_err(|error| failed(error.to_string()))?;
    let environment = builder
        .with_name("undertone")
        .with_telemetry(false)
        .build()
        .map_err(|error| failed(error.to_string()))?;
    Ok(ENVIRONMENT.get_or_init(|| environment))
}

/// Beside the executable, then in every folder above it, then where this binary was built.
fn find_library() -> Result<PathBuf, RuntimeError> {
    let executable = std::env::current_exe().unwrap_or_default();
    let beside = executable.parent().map(|folder| folder.join(LIBRARY));
    let lib = executable.parent().map(|folder| folder.join("../lib").join(LIBRARY));
    let above = executable.ancestors().map(|folder| folder.join(FOLDER).join(LIBRARY));
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join(FOLDER).join(LIBRARY);
    let places: Vec<PathBuf> = beside.into_iter().chain(lib).chain(above).chain([built]).collect();
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| RuntimeError::NoLibrary {
        looked: places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "),
    })
}

/// A batch on its way through a model: flat, row after row.
#[derive(Debug, Default)]
pub struct Batch {
    /// Rows.
    pub rows: usize,
    /// `rows` x the manifest's input length.
    pub input: Vec<f32>,
    /// For every state of the manifest, `rows` x its length; holds the next state after the run.
    pub states: Vec<Vec<f32>>,
    /// `rows` x the manifest's output length, after the run.
    pub output: Vec<f32>,
}

/// A graph ready to run. Not shared: one engine thread owns it.
pub struct Graph {
    session: Session,
    manifest: Manifest,
    input_shape: Vec<i64>,
    state_shapes: Vec<Vec<i64>>,
}

impl std::fmt::Debug for Graph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Graph").field("model", &self.manifest.name).finish_non_exhaustive()
    }
}

impl Graph {
    /// Builds the graph of `onnx` as `manifest` describes it, on `threads` threads.
    ///
    /// # Errors
    /// [`RuntimeError`] if the library is missing or the graph does not fit the manifest.
    pub fn new(
        onnx: &[u8],
        manifest: &Manifest,
        threads: usize,
        library: Option<&Path>,
    ) -> Result<Self, RuntimeError> {
        let environment = environment(library)?;
        let session = Session::builder(environment)?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(ort::Error::from)?
            .with_intra_threads(threads)
            .map_err(ort::Error::from)?
            .with_inter_threads(1)
            .map_err(ort::Error::from)?
            // A spinning pool would burn the core that the front end needs.
            .with_intra_op_spinning(false)
            .map_err(ort::Error::from)?
            // Every batch has another size: a remembered memory plan would be made anew each time.
            .with_memory_pattern(false)
            .map_err(ort::Error::from)?
            .commit_from_memory(onnx)?;
        let inputs: Vec<&str> = session.inputs().iter().map(ort::value::Outlet::name).collect();
        let outputs: Vec<&str> = session.outputs().iter().map(ort::value::Outlet::name).collect();
        let check = |direction, known: &[&str], name: &str| {
            if known.contains(&name) {
                return Ok(());
            }
            let (name, known) = (name.to_owned(), known.join(", "));
            Err(RuntimeError::NoTensor { direction, name, known })
        };
        check("input", &inputs, &manifest.input_name)?;
        check("output", &outputs, &manifest.output_name)?;
        for state in &manifest.states {
            check("input", &inputs, &state.input)?;
            check("output", &outputs, &state.output)?;
        }
        let with_batch = |dimensions: &[usize]| {
            std::iter::once(1).chain(dimensions.iter().map(|d| *d as i64)).collect::<Vec<i64>>()
        };
        Ok(Self {
            session,
            input_shape: with_batch(&manifest.input.dimensions()),
            state_shapes: manifest.states.iter().map(|s| with_batch(&s.dimensions)).collect(),
            manifest: manifest.clone(),
        })
    }

    /// Runs `batch`: reads its input and states, writes its output and next states. Rows do not
    /// touch each other.
    ///
    /// # Errors
    /// [`RuntimeError`] if the runtime fails or answers in another shape.
    pub fn run(&mut self, batch: &mut Batch) -> Result<(), RuntimeError> {
        let set_rows = |shape: &mut Vec<i64>, rows: usize| {
            if let Some(first) = shape.first_mut() {
                *first = rows as i64;
            }
        };
        set_rows(&mut self.input_shape, batch.rows);
        for shape in &mut self.state_shapes {
            set_rows(shape, batch.rows);
        }
        let outputs = {
            let mut inputs = Vec::with_capacity(1 + self.manifest.states.len());
            let features =
                TensorRef::from_array_view((self.input_shape.as_slice(), batch.input.as_slice()))?;
            inputs.push((
                self.manifest.input_name.as_str(),
                ort::session::SessionInputValue::from(features),
            ));
            for ((state, shape), values) in
                self.manifest.states.iter().zip(&self.state_shapes).zip(&batch.states)
            {
                let tensor = TensorRef::from_array_view((shape.as_slice(), values.as_slice()))?;
                inputs.push((state.input.as_str(), tensor.into()));
            }
            self.session.run(inputs)?
        };
        let read = |name: &str, expected: usize, into: &mut Vec<f32>| {
            let value = outputs.get(name).ok_or_else(|| RuntimeError::NoTensor {
                direction: "output",
                name: name.to_owned(),
                known: String::new(),
            })?;
            let (_, values) = value.try_extract_tensor::<f32>()?;
            if values.len() != expected {
                let (name, actual) = (name.to_owned(), values.len());
                return Err(RuntimeError::Shape { name, expected, actual });
            }
            into.clear();
            into.extend_from_slice(values);
            Ok(())
        };
        let manifest = &self.manifest;
        read(&manifest.output_name, batch.rows * manifest.output.len(), &mut batch.output)?;
        for (state, values) in manifest.states.iter().zip(&mut batch.states) {
            read(&state.output, batch.rows * state.len(), values)?;
        }
        Ok(())
    }
}

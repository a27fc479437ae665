//! Models of every kind run through a session; models that cannot be trusted are refused with the
//! reason.

use std::path::Path;
use std::sync::{Arc, Mutex};

use sha2::{Digest as _, Sha256};
use undertone::model::engine::{Engine, RowShape, Runner};
use undertone::model::runtime::{Batch, Graph, RuntimeError};
use undertone::model::{Input, Model, ModelError, Models, Output};
use undertone::wire::v1;

use crate::signal::{encode, speech};
use crate::support::{
    Answer, PLAIN, TINY, TOLERANCE, chunks, data, difference, duration, model_folder, run_well,
    settings,
};

async fn hear(model: &str) -> Answer {
    let config = v1::StreamConfig {
        model: model.to_owned(),
        estimate_interval: duration(0.1),
        ..PLAIN.config()
    };
    let audio = encode(&speech(1, 5.0, 16_000), PLAIN.encoding);
    run_well(&TINY, config, chunks(&audio, 3_200)).await
}

#[tokio::test]
async fn a_model_of_each_kind_gives_probabilities_that_sum_to_one() {
    for (name, labels) in [("tiny-steps", 8), ("tiny-window", 6), ("tiny-waveform", 4)] {
        let answer = hear(name).await;
        assert_eq!(answer.started().model.as_ref().unwrap().name, name);
        let judged: Vec<&v1::Affect> =
            answer.estimates().iter().filter_map(|e| e.affect.as_ref()).collect();
        assert!(judged.len() > 15, "{name}: {} estimates with numbers", judged.len());
        for affect in judged {
            assert_eq!(affect.scores.len(), labels);
            let sum: f32 = affect.scores.iter().map(|s| s.probability).sum();
            assert!((sum - 1.0).abs() < 1e-5, "{name}: {sum}");
            assert!(affect.scores.iter().all(|s| (0.0..=1.0).contains(&s.probability)));
            let best = affect.scores.iter().max_by(|a, b| a.probability.total_cmp(&b.probability));
            assert_eq!(best.unwrap().emotion, affect.top);
            assert_eq!(best.unwrap().probability.to_bits(), affect.confidence.to_bits());
            assert_eq!(affect.dimension_source(), v1::DimensionSource::DerivedFromEmotions);
        }
        assert_eq!(answer.utterances().len(), 2, "{name}");
    }
}

#[tokio::test]
async fn a_model_of_dimensions_gives_valence_and_arousal_and_no_scores() {
    let answer = hear("tiny-dimensions").await;
    let judged: Vec<&v1::Affect> =
        answer.estimates().iter().filter_map(|e| e.affect.as_ref()).collect();
    assert!(judged.len() > 15);
    for affect in &judged {
        assert!(affect.scores.is_empty());
        assert_eq!(affect.top(), v1::Emotion::Unspecified);
        assert_eq!(affect.dimension_source(), v1::DimensionSource::Model);
        for value in [affect.valence, affect.arousal] {
            assert!((-1.0..=1.0).contains(&value), "{value}");
        }
        assert!((0.0..=1.0).contains(&affect.distress));
    }
    assert!(judged.iter().any(|a| a.valence.to_bits() != judged[0].valence.to_bits()));
}

/// Notes the second state of every run and counts it up.
struct Counting(Arc<Mutex<Vec<f32>>>);

impl Runner for Counting {
    fn run(&mut self, batch: &mut Batch) -> Result<(), RuntimeError> {
        let [_, counts] = batch.states.as_mut_slice() else { panic!("two states") };
        self.0.lock().unwrap().extend(counts.iter());
        counts.iter_mut().for_each(|count| *count += 1.0);
        batch.output = vec![0.0; batch.rows * 8];
        Ok(())
    }
}

#[tokio::test]
async fn the_state_of_a_streaming_model_is_carried_within_an_utterance_and_zeroed_between() {
    let manifest = TINY.get("tiny-steps").unwrap().manifest.clone();
    let shape = RowShape { input: manifest.input.len(), states: vec![8, 1], output: 8 };
    let counts = Arc::new(Mutex::new(Vec::new()));
    let runner = Counting(counts.clone());
    let engine = Engine::start("tiny-steps", shape, settings().load().engine, runner).unwrap();
    let models = Models::from_parts(vec![Model { manifest, engine }]);
    let audio = encode(&speech(3, 7.6, 16_000), PLAIN.encoding);
    let answer = run_well(&models, PLAIN.config(), chunks(&audio, 8_000)).await;
    assert_eq!(answer.utterances().len(), 3);
    let counts = counts.lock().unwrap();
    // 0, 1, 2 ... in each utterance: nothing is skipped, nothing is left over.
    let mut begun = 0;
    let mut next = 0.0;
    for count in counts.iter() {
        if count.abs() < 0.5 {
            begun += 1;
            next = 0.0;
        }
        assert!((count - next).abs() < 0.5, "{counts:?}");
        next += 1.0;
    }
    assert_eq!(begun, 3, "{counts:?}");
    assert!(counts.len() >= 3 * 5, "{counts:?}");
}

#[test]
fn the_embedded_model_is_there_and_folders_come_before_it() {
    let folders = [model_folder("tiny-window"), model_folder("tiny-dimensions")];
    let models = Models::load(&folders, &settings().load()).unwrap();
    let names: Vec<&str> = models.iter().map(|m| m.manifest.name.as_str()).collect();
    assert_eq!(names, ["tiny-window", "tiny-dimensions", "undertone-four"]);
    assert!(models.is_default("tiny-window"));
    let inputs: Vec<Input> = models.iter().map(|m| m.manifest.input).collect();
    assert_eq!(inputs[0], Input::MfccWindow { hops: 62, coefficients: 20, stride_hops: 16 });
    assert_eq!(inputs[1], Input::WaveformWindow { samples: 8_000, stride_hops: 16 });
    assert!(matches!(
        models.get("tiny-dimensions").unwrap().manifest.output,
        Output::Dimensions(_)
    ));
}

#[test]
fn two_models_of_one_name_are_refused() {
    let folders = [model_folder("tiny-steps"), model_folder("tiny-steps")];
    let error = Models::load(&folders, &settings().load()).unwrap_err();
    assert!(matches!(&error, ModelError::Twice(name) if name == "tiny-steps"), "{error}");
}

/// A copy of `tiny-steps`, changed.
fn spoiled(change: impl FnOnce(&Path, &str, &[u8])) -> ModelError {
    let folder = tempfile::tempdir().unwrap();
    let from = model_folder("tiny-steps");
    let manifest = std::fs::read_to_string(from.join("model.toml")).unwrap();
    let onnx = std::fs::read(from.join("model.onnx")).unwrap();
    std::fs::write(folder.path().join("model.toml"), &manifest).unwrap();
    std::fs::write(folder.path().join("model.onnx"), &onnx).unwrap();
    change(folder.path(), &manifest, &onnx);
    Model::open(folder.path(), &settings().load()).expect_err("a bad model is refused")
}

fn replaced(manifest: &str, from: &str, to: &str) -> String {
    assert!(manifest.contains(from), "{from}");
    manifest.replace(from, to)
}

fn with_hash(manifest: &str, onnx: &[u8]) -> String {
    use std::fmt::Write as _;
    let hash = Sha256::digest(onnx).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    });
    let lines: Vec<String> = manifest
        .lines()
        .map(|line| {
            if line.starts_with("sha256") {
                format!("sha256 = \"{hash}\"")
            } else {
                line.to_owned()
            }
        })
        .collect();
    lines.join("\n")
}

#[test]
fn a_bad_model_is_refused_with_its_name_and_the_reason() {
    let write = |path: &Path, manifest: String| std::fs::write(path.join("model.toml"), manifest);
    let cases: Vec<(&str, ModelError, &str)> = vec![
        (
            "another file than the manifest was written for",
            spoiled(|path, _, onnx| {
                let mut onnx = onnx.to_vec();
                onnx[100] ^= 1;
                std::fs::write(path.join("model.onnx"), onnx).unwrap();
            }),
            "do not belong together",
        ),
        (
            "a truncated file",
            spoiled(|path, manifest, onnx| {
                let half = &onnx[..onnx.len() / 2];
                std::fs::write(path.join("model.onnx"), half).unwrap();
                write(path, with_hash(manifest, half)).unwrap();
            }),
            "ONNX Runtime",
        ),
        (
            "no ONNX file",
            spoiled(|path, _, _| std::fs::remove_file(path.join("model.onnx")).unwrap()),
            "model.onnx",
        ),
        (
            "no manifest",
            spoiled(|path, _, _| std::fs::remove_file(path.join("model.toml")).unwrap()),
            "model.toml",
        ),
        (
            "an input that the graph does not have",
            spoiled(|path, manifest, _| {
                write(path, replaced(manifest, "name = \"mfcc\"", "name = \"cepstra\"")).unwrap();
            }),
            "no input \"cepstra\"; it has mfcc, memory, count",
        ),
        (
            "an output that the graph does not have",
            spoiled(|path, manifest, _| {
                write(path, replaced(manifest, "name = \"logits\"", "name = \"scores\"")).unwrap();
            }),
            "no output \"scores\"",
        ),
        (
            "a state of another size",
            spoiled(|path, manifest, _| {
                let state = "output = \"next_memory\"\nshape = [\"batch\", 8]";
                let other = "output = \"next_memory\"\nshape = [\"batch\", 9]";
                write(path, replaced(manifest, state, other)).unwrap();
            }),
            "memory",
        ),
        (
            "more labels than outputs",
            spoiled(|path, manifest, _| {
                let few = replaced(manifest, ", \"disgust\", \"surprise\"]", "]");
                let output = "name = \"logits\"\nshape = [\"batch\", 8]";
                write(path, replaced(&few, output, "name = \"logits\"\nshape = [\"batch\", 6]"))
                    .unwrap();
            }),
            "logits has 8 values, the manifest says 6",
        ),
    ];
    for (what, error, reason) in cases {
        let text = error.to_string();
        assert!(text.contains(reason), "{what}: {text}");
    }
}

#[test]
fn a_graph_with_a_batch_of_one_or_without_finite_output_is_refused_by_the_warm_up() {
    let open = |name: &str| Model::open(&model_folder(name), &settings().load()).unwrap_err();
    let error = open("batch-of-one");
    assert!(matches!(error, ModelError::Runtime { .. }), "{error}");
    assert!(error.to_string().contains("batch-of-one"), "{error}");
    let error = open("not-a-number");
    assert!(matches!(error, ModelError::WarmUp { .. }), "{error}");
    assert!(error.to_string().contains("not finite"), "{error}");
}

/// What `models/` ships besides the embedded one is otherwise opened by users alone.
#[test]
fn every_shipped_model_can_be_opened_and_says_what_it_is_and_may_be_used_for() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(shipped).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let model = Model::open(&folder, &settings().load()).unwrap();
        assert_eq!(model.manifest.name, name);
        assert!(!model.manifest.figures.is_empty(), "{name}: no figures");
        assert!(std::fs::metadata(folder.join("model.onnx")).unwrap().len() <= 4_000_000);
        let card = std::fs::read_to_string(folder.join("MODEL_CARD.md")).unwrap();
        assert!(card.contains(&model.manifest.version), "{name}: the card is of another version");
        assert!(folder.join("LICENSE.md").exists(), "{name}: no licence");
        names.push(name);
    }
    assert!(names.iter().any(|name| name == "undertone-four"), "{names:?}");
}

/// Softmax of each row of `logits`.
fn probabilities(logits: &[f32], labels: usize) -> Vec<f32> {
    logits
        .chunks(labels)
        .flat_map(|row| {
            let top = row.iter().copied().fold(f32::MIN, f32::max);
            let sum: f32 = row.iter().map(|x| (x - top).exp()).sum();
            row.iter().map(move |x| (x - top).exp() / sum)
        })
        .collect()
}

#[test]
fn the_default_models_probabilities_do_not_depend_on_the_batch_beyond_1e_5() {
    const ROWS: usize = 64;
    const STEPS: usize = 6;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/undertone-four");
    let manifest = std::fs::read_to_string(folder.join("model.toml")).unwrap();
    let manifest = undertone::model::Manifest::parse(&manifest).unwrap();
    let onnx = std::fs::read(folder.join("model.onnx")).unwrap();
    let shape = RowShape {
        input: manifest.input.len(),
        states: manifest.states.iter().map(undertone::model::manifest::State::len).collect(),
        output: manifest.output.len(),
    };
    let inputs = mfccs(ROWS * STEPS, manifest.input.coefficients());
    let mut graph = Graph::new(&onnx, &manifest, 1, None).unwrap();
    let mut by_size = Vec::new();
    for size in [1, 2, 7, ROWS] {
        let mut states: Vec<Vec<f32>> = shape.states.iter().map(|n| vec![0.0; ROWS * n]).collect();
        let mut outputs = Vec::new();
        for step in 0..STEPS {
            let input = &inputs[step * ROWS * shape.input..(step + 1) * ROWS * shape.input];
            let mut output = Vec::new();
            for first in (0..ROWS).step_by(size) {
                let rows = size.min(ROWS - first);
                let part =
                    |values: &[f32], len: usize| values[first * len..(first + rows) * len].to_vec();
                let states_part =
                    states.iter().zip(&shape.states).map(|(all, n)| part(all, *n)).collect();
                let mut batch = Batch {
                    rows,
                    input: part(input, shape.input),
                    states: states_part,
                    output: Vec::new(),
                };
                graph.run(&mut batch).unwrap();
                output.extend(&batch.output);
                for ((all, n), next) in states.iter_mut().zip(&shape.states).zip(&batch.states) {
                    all[first * n..(first + rows) * n].copy_from_slice(next);
                }
            }
            outputs.extend(probabilities(&output, shape.output));
        }
        by_size.push((size, outputs));
    }
    let (_, alone) = &by_size[0];
    for (size, outputs) in &by_size[1..] {
        let worst = difference(alone, outputs);
        println!("batches of {size}: probabilities differ by at most {worst:e}");
        assert!(worst <= TOLERANCE, "batches of {size}: {worst}");
    }
}

/// `steps` steps of MFCCs of speech-like sound, one behind the other.
fn mfccs(steps: usize, coefficients: usize) -> Vec<f32> {
    use undertone::features::{FeatureStream, FrontEnd};
    use undertone::units::{HOP_SAMPLES, STEP_HOPS};
    let front_end = FrontEnd::new();
    let mut scratch = front_end.scratch();
    let mut stream = FeatureStream::new();
    // Ten seconds, over and over.
    let samples = speech(9, 10.0, 16_000);
    let mut values = Vec::with_capacity(steps * STEP_HOPS * coefficients);
    let hops = samples.chunks_exact(HOP_SAMPLES).cycle();
    for hop in hops {
        if values.len() == values.capacity() {
            break;
        }
        if let Some(frame) = stream.push(&front_end, &mut scratch, hop.try_into().unwrap()) {
            let mut vector = vec![0.0; coefficients];
            front_end.mfcc(&frame.relative, &mut vector);
            values.extend(vector);
        }
    }
    values
}

#[test]
fn the_test_data_of_the_models_is_small() {
    for entry in walkdir::WalkDir::new(data("models")) {
        let size = entry.unwrap().metadata().unwrap().len();
        assert!(size < 8 << 10, "{size}");
    }
}

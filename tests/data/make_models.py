#!/usr/bin/env python3
"""Makes the tiny models of the tests, one folder each under `models/`, beside this script.

The models have no sense, only shape: one of each kind that Undertone runs, with outputs that depend on
every input value and every state, row by row. Two more are made to be refused. Weights come from a
fixed formula, so that the same version of `onnx` writes the same bytes.

Needs `onnx==1.22.0` in an environment outside the repository:

    python3 -m venv /tmp/onnx-venv && /tmp/onnx-venv/bin/pip install onnx==1.22.0
    /tmp/onnx-venv/bin/python tests/data/make_models.py
"""

import hashlib
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = pathlib.Path(__file__).parent / "models"
EIGHT = ["neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise"]
STEP = 16


def weights(name, *shape, scale=1.0):
    """Values between -scale and scale that look random and never change."""
    count = int(np.prod(shape))
    values = np.sin(np.arange(1, count + 1, dtype=np.float64) ** 2 * 0.7391)
    return numpy_helper.from_array((scale * values).astype(np.float32).reshape(shape), name)


def cepstral_weights(name, coefficients, outputs):
    """Weights that leave tanh room: coefficient 0 is some -500, the others some tens."""
    values = numpy_helper.to_array(weights(name, coefficients, outputs, scale=1 / 150)).copy()
    values[0] *= 150 / 800
    return numpy_helper.from_array(values, name)


def integers(name, *values):
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def numbers(name, *values):
    return numpy_helper.from_array(np.array(values, dtype=np.float32), name)


def tensor(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def node(kind, inputs, output, **attributes):
    return helper.make_node(kind, inputs, [output], **attributes)


def save(name, nodes, inputs, outputs, constants, manifest):
    graph = helper.make_graph(nodes, name, inputs, outputs, constants)
    model = helper.make_model(
        graph,
        producer_name="undertone-tests",
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString(deterministic=True)
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    head = (
        f'schema = 1\nname = "{name}"\nversion = "1.0.0"\n'
        f'sha256 = "{hashlib.sha256(data).hexdigest()}"\n'
    )
    (folder / "model.toml").write_text(head + manifest.strip() + "\n")


def labels(count):
    return "[" + ", ".join(f'"{label}"' for label in EIGHT[:count]) + "]"


def front_end(coefficients=None):
    line = f"coefficients = {coefficients}\n" if coefficients else ""
    return f"[front_end]\nsample_rate_hz = 16000\n{line}"


def steps_manifest(description):
    return f"""
kind = "streaming-mfcc"
description = "{description}"
labels = {labels(8)}
{front_end(40)}
[input]
name = "mfcc"
shape = ["batch", {STEP}, 40]
[[state]]
input = "memory"
output = "next_memory"
shape = ["batch", 8]
[[state]]
input = "count"
output = "next_count"
shape = ["batch", 1, 1]
[output]
name = "logits"
shape = ["batch", 8]
[[training_data]]
corpus = "none"
licence = "none"
commercial_use = true
"""


def tiny_steps(name="tiny-steps", description="A step and two states", batch="batch", poison=False):
    """Memory leaks into the next step; the count of steps shows in one logit."""
    nodes = [
        node("ReduceMean", ["mfcc"], "mean", axes=[1], keepdims=0),
        node("MatMul", ["mean", "project"], "heard"),
        node("Mul", ["memory", "keep"], "kept"),
        node("Add", ["heard", "kept"], "mixed"),
        node("Tanh", ["mixed"], "next_memory"),
        node("Add", ["count", "one"], "next_count"),
        node("Flatten", ["next_count"], "steps", axis=1),
        node("Mul", ["steps", "per_step"], "counted"),
        node("Mul", ["next_memory", "gain"], "loud"),
        node("Add", ["loud", "counted"], "sum" if poison else "logits"),
    ]
    if poison:
        # The square root of -1 is not a number.
        nodes += [node("Sqrt", ["minus_one"], "nan"), node("Mul", ["sum", "nan"], "logits")]
    constants = [
        cepstral_weights("project", 40, 8),
        numbers("keep", 0.8),
        numbers("one", 1.0),
        numbers("per_step", 0.01, 0, 0, 0, 0, 0, 0, 0),
        numbers("gain", 2.0),
    ]
    if poison:
        constants.append(numbers("minus_one", -1.0))
    save(
        name,
        nodes,
        [
            tensor("mfcc", batch, STEP, 40),
            tensor("memory", batch, 8),
            tensor("count", batch, 1, 1),
        ],
        [
            tensor("logits", batch, 8),
            tensor("next_memory", batch, 8),
            tensor("next_count", batch, 1, 1),
        ],
        constants,
        steps_manifest(description),
    )


def tiny_window():
    """The mean over one second of 20 MFCCs, projected to six emotions."""
    save(
        "tiny-window",
        [
            node("ReduceMean", ["window"], "mean", axes=[1], keepdims=0),
            node("MatMul", ["mean", "project"], "projected"),
            node("Tanh", ["projected"], "bounded"),
            node("Mul", ["bounded", "gain"], "scores"),
        ],
        [tensor("window", "batch", 62, 20)],
        [tensor("scores", "batch", 6)],
        [cepstral_weights("project", 20, 6), numbers("gain", 2.0)],
        f"""
kind = "window-mfcc"
description = "A window of MFCCs"
labels = {labels(6)}
{front_end(20)}
[input]
name = "window"
shape = ["batch", 62, 20]
[window]
stride_hops = 16
[output]
name = "scores"
shape = ["batch", 6]
[calibration]
temperature = 1.5
[[training_data]]
corpus = "none"
licence = "none"
commercial_use = true
""",
    )


def loudness_nodes(samples, parts):
    """The mean magnitude of each of `parts` equal stretches of the waveform."""
    nodes = [
        node("Abs", ["samples"], "magnitude"),
        node("Reshape", ["magnitude", "split"], "stretches"),
        node("ReduceMean", ["stretches"], "loudness", axes=[2], keepdims=0),
        node("MatMul", ["loudness", "project"], "projected"),
    ]
    return nodes, integers("split", 0, parts, samples // parts)


def tiny_waveform():
    nodes, split = loudness_nodes(16000, 50)
    nodes += [node("Tanh", ["projected"], "bounded"), node("Mul", ["bounded", "gain"], "logits")]
    save(
        "tiny-waveform",
        nodes,
        [tensor("samples", "batch", 16000)],
        [tensor("logits", "batch", 4)],
        [split, weights("project", 50, 4), numbers("gain", 2.0)],
        f"""
kind = "window-waveform"
description = "A window of samples"
labels = {labels(4)}
{front_end()}
[input]
name = "samples"
shape = ["batch", 16000]
[window]
stride_hops = 31
[output]
name = "logits"
shape = ["batch", 4]
[[training_data]]
corpus = "none"
licence = "not for sale"
commercial_use = false
""",
    )


def tiny_dimensions():
    nodes, split = loudness_nodes(8000, 25)
    nodes.append(node("Sigmoid", ["projected"], "dimensions"))
    save(
        "tiny-dimensions",
        nodes,
        [tensor("samples", "batch", 8000)],
        [tensor("dimensions", "batch", 3)],
        [split, weights("project", 25, 3, scale=3.0)],
        f"""
kind = "window-waveform"
description = "Arousal, dominance and valence from a window of samples"
{front_end()}
[input]
name = "samples"
shape = ["batch", 8000]
[window]
stride_hops = 16
[output]
name = "dimensions"
shape = ["batch", 3]
dimensions = ["arousal", "dominance", "valence"]
""",
    )


if __name__ == "__main__":
    tiny_steps()
    tiny_window()
    tiny_waveform()
    tiny_dimensions()
    # To be refused.
    tiny_steps("batch-of-one", "Its batch is fixed at 1", batch=1)
    tiny_steps("not-a-number", "Puts out NaN", poison=True)

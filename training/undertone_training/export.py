"""The trained network as an ONNX graph, and the proof that it is the same network.

The graph is written node by node rather than traced: it is small, the ONNX `LSTM` operator is what the runtime does
best, and what stands in the file is then known. Operator set 18; runs on ONNX Runtime 1.24 and later.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from . import pitch
from .data import COEFFICIENTS, STEP_HOPS, STEP_SECONDS
from .model import Ensemble, Shape, StreamingLstm

OPSET = 18
# Of the file format, not of the operators; 9 is what opset 18's contemporaries read.
IR_VERSION = 9


class Graph:
    """Collects nodes and constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, name: str, values: np.ndarray) -> str:
        """Adds it, unless the same is there already. Raises ValueError where another one has the name."""
        made = numpy_helper.from_array(np.ascontiguousarray(values), name)
        there = next((one for one in self.constants if one.name == name), None)
        if there is None:
            self.constants.append(made)
        elif there != made:
            raise ValueError(f"two different constants are called {name}")
        return name

    def add(self, operator: str, inputs: list[str], *outputs: str, **attributes) -> str:
        self.nodes.append(helper.make_node(operator, inputs, list(outputs), name=outputs[0], **attributes))
        return outputs[0]


def pitched(graph: Graph, model: StreamingLstm) -> list[str]:
    """Pitch, voicing and its score, the same for all members; `StreamingLstm.features` says the same."""
    add, number = graph.add, lambda name, value: graph.constant(name, np.array(value, np.float32))
    add("MatMul", ["mfcc", graph.constant("pitch_templates", model.templates.numpy())], "score")
    add("Mul", ["score", number("pitch_sharpness", pitch.SHARPNESS)], "sharpened")
    add("Softmax", ["sharpened"], "share", axis=-1)
    add("MatMul", ["share", graph.constant("pitch_octaves", model.octaves.numpy()[:, None])], "octaves")
    last = graph.constant("axis_last", np.array([-1], np.int64))
    add("ReduceMax", ["score", last], "best", keepdims=1)
    add("Sub", ["best", number("half_voiced", pitch.HALF_VOICED)], "above")
    add("Mul", ["above", number("voicing_slope", pitch.VOICING_SLOPE)], "voicing")
    add("Sigmoid", ["voicing"], "voiced")
    add("Mul", ["voiced", "octaves"], "voiced_octaves")
    add("Mul", ["voiced_octaves", number("pitch_gain", pitch.PITCH_GAIN)], "pitch")
    add("Mul", ["best", number("score_gain", pitch.SCORE_GAIN)], "salience")
    return ["pitch", "voiced", "salience"]


def gates_for_onnx(weights: torch.Tensor) -> np.ndarray:
    """PyTorch orders an LSTM's gates input, forget, cell, output; ONNX input, output, forget, cell."""
    i, f, c, o = weights.detach().numpy().reshape(4, -1, *weights.shape[1:])
    return np.concatenate([i, o, f, c]).astype(np.float32)


def network(graph: Graph, model: StreamingLstm, pitch_features: list[str], tag: str) -> tuple[str, str]:
    """One member's part, from cepstra, pitch and its own pieces of the state; its names begin with `tag`.

    Returns the names of its logits and of its next state."""
    shape = model.shape
    add = lambda operator, inputs, *outputs, **attributes: graph.add(operator, inputs, *(tag + o for o in outputs), **attributes)
    own = lambda name, values: graph.constant(tag + name, values)
    values = lambda tensor: tensor.detach().numpy().astype(np.float32)
    first = graph.constant("axis_0", np.array([0], np.int64))
    second = graph.constant("axis_1", np.array([1], np.int64))
    if shape.hears_all:
        bounds = [graph.constant(name, np.array([at], np.int64)) for name, at in
                  (("envelope_from", 0), (f"{tag}envelope_to", shape.envelope), ("envelope_axis", 2))]
        lowest = add("Slice", ["mfcc", *bounds], "lowest")
    else:
        lowest = add("MatMul", ["mfcc", own("view", model.view.numpy())], "lowest")
    centred = add("Sub", [lowest, own("feature_mean", model.mean.numpy())], "centred")
    envelope = add("Mul", [centred, own("feature_scale", model.scale.numpy())], "envelope")
    features = add("Concat", [envelope, *pitch_features], "features", axis=2) if shape.pitch else envelope
    of_stack = np.array([0, shape.ticks, shape.stacked_hops * shape.features], np.int64)
    stacked = add("Reshape", [features, own("stacked_shape", of_stack)], "stacked")
    y = add("Transpose", [stacked], "ticks", perm=[1, 0, 2])

    for number, layer in enumerate(model.lstm, 1):
        weights = own(f"lstm{number}_w", gates_for_onnx(layer.weight_ih_l0)[None])
        recurrence = own(f"lstm{number}_r", gates_for_onnx(layer.weight_hh_l0)[None])
        biases = [gates_for_onnx(layer.bias_ih_l0), gates_for_onnx(layer.bias_hh_l0)]
        bias = own(f"lstm{number}_b", np.concatenate(biases)[None])
        states = [add("Unsqueeze", [f"{tag}{kind}{number}", first], f"initial_{kind}{number}") for kind in "hc"]
        outputs = [f"all{number}", f"last_h{number}", f"last_c{number}"]
        add("LSTM", [y, weights, recurrence, bias, "", *states], *outputs, hidden_size=shape.units)
        for kind in "hc":
            add("Squeeze", [f"{tag}last_{kind}{number}", first], f"next_{kind}{number}")
        y = add("Squeeze", [f"{tag}all{number}", second], f"y{number}")

    # The state is linear in the gated sums, so the mean over an utterance needs no memory of its parts.
    product = add("MatMul", [y, own("gate_w", values(model.gate.weight.T))], "gate_product")
    score = add("Add", [product, own("gate_b", values(model.gate.bias))], "gate_score")
    gate = add("Sigmoid", [score], "gate")
    gated = add("Mul", [gate, y], "gated")
    total = add("Add", [f"{tag}total", add("ReduceSum", [gated, first], "step_total", keepdims=0)], "next_total")
    gates = add("Add", [f"{tag}gates", add("ReduceSum", [gate, first], "step_gates", keepdims=0)], "next_gates")
    largest = add("Max", [f"{tag}largest", add("ReduceMax", [y, first], "step_largest", keepdims=0)], "next_largest")
    weight = add("Add", [gates, graph.constant("epsilon", np.float32([model.EPSILON]))], "weight")
    pooled = add("Concat", [add("Div", [total, weight], "gated_mean"), largest], "pooled", axis=1)

    def linear(name: str, layer: torch.nn.Linear, x: str) -> str:
        weights = [own(f"{name}_w", values(layer.weight)), own(f"{name}_b", values(layer.bias))]
        return add("Gemm", [x, *weights], f"{name}_sum", transB=1)

    hidden = add("Relu", [linear("hidden", model.hidden, pooled)], "hidden")
    logits = linear("output", model.output, hidden)
    before = [f"{tag}next_{name}" for name in lstm_states(shape)]
    return logits, add("Concat", [*before, total, largest, gates], "next_state_of_it", axis=1)


def lstm_states(shape: Shape) -> list[str]:
    return [f"{kind}{number}" for number in range(1, shape.layers + 1) for kind in "hc"]


def build(model: Ensemble) -> onnx.ModelProto:
    """The graph of one step; see `Ensemble.step`."""
    graph, members = Graph(), list(model.members)
    of_pitch = pitched(graph, members[0]) if any(member.shape.pitch for member in members) else []
    tags = [f"m{number}_" for number in range(1, len(members) + 1)]
    sizes = [size for member in members for size in member.shape.state_sizes]
    pieces = [
        tag + name for tag, member in zip(tags, members) for name in (*lstm_states(member.shape), "total", "largest", "gates")
    ]
    state_sizes = graph.constant("state_sizes", np.array(sizes, np.int64))
    graph.nodes.append(helper.make_node("Split", ["state", state_sizes], pieces, name="states", axis=1))
    said, following = zip(*(network(graph, member, of_pitch, tag) for member, tag in zip(members, tags)))
    graph.add("Mean", list(said), "logits")
    graph.add("Concat", list(following), "next_state", axis=1)

    tensor = lambda name, *dimensions: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *dimensions])
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "undertone-streaming-lstm",
            [tensor("mfcc", STEP_HOPS, COEFFICIENTS), tensor("state", model.state_size)],
            [tensor("logits", model.labels), tensor("next_state", model.state_size)],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="undertone-training",
    )
    onnx.checker.check_model(made, full_check=True)
    return made


def session(model: bytes | Path) -> onnxruntime.InferenceSession:
    """One thread, as the service runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def stream(running: onnxruntime.InferenceSession, mfcc: np.ndarray) -> np.ndarray:
    """Logits after each step [batch, steps, labels] of `mfcc` [batch, 16 * steps, 64], fed step by step."""
    size = running.get_inputs()[1].shape[1]
    state, heard = np.zeros((len(mfcc), size), np.float32), []
    for start in range(0, mfcc.shape[1], STEP_HOPS):
        step = np.ascontiguousarray(mfcc[:, start : start + STEP_HOPS])
        logits, state = running.run(["logits", "next_state"], {"mfcc": step, "state": state})
        heard.append(logits)
    return np.stack(heard, axis=1)


@torch.no_grad()
def disparity(model: Ensemble, made: onnx.ModelProto, seed: int = 0) -> float:
    """Largest difference of any logit between whole PyTorch, streamed PyTorch and streamed ONNX Runtime."""
    model.eval()
    # Coefficients behind the envelope are of a few dB, so that hops fall on both sides of voicing.
    first = model.members[0]
    mean, deviation = first.view @ first.mean, torch.full((COEFFICIENTS,), 10.0)
    deviation[: first.shape.envelope] = 1.0 / first.scale
    noise = torch.randn(5, 12 * STEP_HOPS, COEFFICIENTS, generator=torch.Generator().manual_seed(seed))
    mfcc = mean + noise * deviation
    whole = model(mfcc)
    state, stepped = torch.zeros(len(mfcc), model.state_size), []
    for start in range(0, mfcc.shape[1], STEP_HOPS):
        logits, state = model.step(mfcc[:, start : start + STEP_HOPS], state)
        stepped.append(logits)
    other = torch.from_numpy(stream(session(made.SerializeToString()), mfcc.numpy()))
    return float(torch.maximum((whole - torch.stack(stepped, 1)).abs().max(), (whole - other).abs().max()))


def cost_ms(path: Path, batch: int, seconds: float = 0.5, rounds: int = 9) -> float:
    """CPU milliseconds per audio second and stream, median of `rounds`, each at least `seconds` of CPU time."""
    running = session(path)
    rng = np.random.default_rng(0)
    mfcc = rng.standard_normal((batch, STEP_HOPS, COEFFICIENTS)).astype(np.float32)
    state = np.zeros((batch, running.get_inputs()[1].shape[1]), np.float32)
    feed = {"mfcc": mfcc, "state": state}
    measured = []
    for _ in range(rounds):
        began, runs = time.process_time(), 0
        while time.process_time() - began < seconds / rounds:
            for _ in range(10):
                running.run(None, feed)
            runs += 10
        measured.append((time.process_time() - began) / runs)
    return float(np.median(measured)) * 1000.0 / batch / STEP_SECONDS

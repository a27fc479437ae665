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


def pitched(graph: Graph, model: StreamingLstm) -> str:
    """Pitch, voicing and the raw score [batch, 16, 3], the same for all members; `StreamingLstm.features` says the same.

    Factors that a matrix product can take on stand in its constants, and those of the score in what weighs it, see
    `network`: a node that goes over each hop's single values costs as much as a small matrix product."""
    add, number = graph.add, lambda name, value: graph.constant(name, np.array(value, np.float32))
    sharpened = model.templates.numpy() * np.float32(pitch.SHARPNESS)
    octaves = model.octaves.numpy()[:, None] * np.float32(pitch.PITCH_GAIN)
    add("MatMul", ["mfcc", graph.constant("pitch_templates", sharpened)], "score")
    add("Softmax", ["score"], "share", axis=-1)
    add("MatMul", ["share", graph.constant("pitch_octaves", octaves)], "octaves")
    last = graph.constant("axis_last", np.array([-1], np.int64))
    add("ReduceMax", ["score", last], "best", keepdims=1)
    slope = pitch.VOICING_SLOPE / pitch.SHARPNESS
    add("Mul", ["best", number("voicing_slope", slope)], "sloped")
    add("Sub", ["sloped", number("half_voiced", pitch.HALF_VOICED * pitch.VOICING_SLOPE)], "voicing")
    add("Sigmoid", ["voicing"], "voiced")
    add("Mul", ["voiced", "octaves"], "pitch")
    return add("Concat", ["pitch", "voiced", "best"], "pitch_features", axis=2)


def gates_for_onnx(weights: torch.Tensor) -> np.ndarray:
    """PyTorch orders an LSTM's gates input, forget, cell, output; ONNX input, output, forget, cell."""
    i, f, c, o = weights.detach().numpy().reshape(4, -1, *weights.shape[1:])
    return np.concatenate([i, o, f, c]).astype(np.float32)


def of_features(model: StreamingLstm) -> tuple[np.ndarray, np.ndarray]:
    """The first layer's weights [4 units, inputs] and bias [4 units] for what the graph gives it: the envelope as it
    comes, of all stacked hops, then their pitch features with the raw score.

    Mean and scale of the features are taken on by weights and bias; PyTorch's order of gates."""
    shape, layer = model.shape, model.lstm[0]
    weights = layer.weight_ih_l0.detach().double().reshape(-1, shape.stacked_hops, shape.features)
    envelope, of_pitch = weights[..., : shape.envelope], weights[..., shape.envelope :].clone()
    scale = model.scale.double()
    bias = layer.bias_ih_l0.detach().double() - (envelope * (scale * model.mean.double())).sum((1, 2))
    if shape.pitch:
        of_pitch[..., -1] *= pitch.SCORE_GAIN / pitch.SHARPNESS
    scaled = torch.cat([(envelope * scale).flatten(1), of_pitch.flatten(1)], dim=1)
    return scaled.float(), bias.float()


def network(graph: Graph, model: StreamingLstm, pitch_features: str | None, tag: str) -> tuple[str, list[str]]:
    """One member's part, from cepstra, pitch and its own pieces of the state; its names begin with `tag`.

    Returns the names of its logits and of the pieces of its next state."""
    shape = model.shape
    add = lambda operator, inputs, *outputs, **attributes: graph.add(operator, inputs, *(tag + o for o in outputs), **attributes)
    own = lambda name, values: graph.constant(tag + name, values)
    values = lambda tensor: tensor.detach().numpy().astype(np.float32)
    first = graph.constant("axis_0", np.array([0], np.int64))
    second = graph.constant("axis_1", np.array([1], np.int64))
    if shape.hears_all:
        bounds = [graph.constant(name, np.array([at], np.int64)) for name, at in
                  (("envelope_from", 0), (f"{tag}envelope_to", shape.envelope), ("envelope_axis", 2))]
        envelope = add("Slice", ["mfcc", *bounds], "envelope")
    else:
        envelope = add("MatMul", ["mfcc", own("view", model.view.numpy())], "envelope")

    def stacked(hops: str, width: int, name: str) -> str:
        """Several hops in a row, side by side: [batch, ticks, stacked hops x width]."""
        of_stack = np.array([0, shape.ticks, shape.stacked_hops * width], np.int64)
        return graph.add("Reshape", [hops, own(f"{name}_shape", of_stack)], tag + name)

    features = stacked(envelope, shape.envelope, "stacked_envelope")
    if shape.pitch:
        features = add("Concat", [features, stacked(pitch_features, pitch.FEATURES, "stacked_pitch")], "stacked", axis=2)
    y = add("Transpose", [features], "ticks", perm=[1, 0, 2])

    following = []
    for number, layer in enumerate(model.lstm, 1):
        weight, bias = of_features(model) if number == 1 else (layer.weight_ih_l0, layer.bias_ih_l0)
        weights = own(f"lstm{number}_w", gates_for_onnx(weight)[None])
        recurrence = own(f"lstm{number}_r", gates_for_onnx(layer.weight_hh_l0)[None])
        biases = own(f"lstm{number}_b", np.concatenate([gates_for_onnx(bias), gates_for_onnx(layer.bias_hh_l0)])[None])
        states = [add("Unsqueeze", [f"{tag}{kind}{number}", first], f"initial_{kind}{number}") for kind in "hc"]
        outputs = [f"all{number}", f"last_h{number}", f"last_c{number}"]
        add("LSTM", [y, weights, recurrence, biases, "", *states], *outputs, hidden_size=shape.units)
        for kind in "hc":
            following.append(add("Squeeze", [f"{tag}last_{kind}{number}", first], f"next_{kind}{number}"))
        y = add("Squeeze", [f"{tag}all{number}", second], f"y{number}")

    # The state is linear in the gated sums, so the mean over an utterance needs no memory of its parts. Tick by tick:
    # reductions over the first axis take five times as long.
    product = add("MatMul", [y, own("gate_w", values(model.gate.weight.T))], "gate_product")
    gate = add("Sigmoid", [add("Add", [product, own("gate_b", values(model.gate.bias))], "gate_score")], "gate")
    gated = add("Mul", [gate, y], "gated")

    def ticks(name: str) -> list[str]:
        if shape.ticks == 1:
            parts = [name]
        else:
            parts = [f"{name}_{tick}" for tick in range(1, shape.ticks + 1)]
            graph.nodes.append(
                helper.make_node("Split", [name], parts, name=f"{name}_by_tick", axis=0, num_outputs=shape.ticks)
            )
        return [graph.add("Squeeze", [part, first], f"{part}_of_tick") for part in parts]

    total = add("Sum", [f"{tag}total", *ticks(gated)], "next_total")
    gates = add("Sum", [f"{tag}gates", *ticks(gate)], "next_gates")
    largest = add("Max", [f"{tag}largest", *ticks(y)], "next_largest")
    weight = add("Add", [gates, graph.constant("epsilon", np.array(model.EPSILON, np.float32))], "weight")
    pooled = add("Concat", [add("Div", [total, weight], "gated_mean"), largest], "pooled", axis=1)

    def linear(name: str, layer: torch.nn.Linear, x: str) -> str:
        weights = [own(f"{name}_w", values(layer.weight)), own(f"{name}_b", values(layer.bias))]
        return add("Gemm", [x, *weights], f"{name}_sum", transB=1)

    hidden = add("Relu", [linear("hidden", model.hidden, pooled)], "hidden")
    return linear("output", model.output, hidden), [*following, total, largest, gates]


def lstm_states(shape: Shape) -> list[str]:
    return [f"{kind}{number}" for number in range(1, shape.layers + 1) for kind in "hc"]


def build(model: Ensemble) -> onnx.ModelProto:
    """The graph of one step; see `Ensemble.step`."""
    graph, members = Graph(), list(model.members)
    of_pitch = pitched(graph, members[0]) if any(member.shape.pitch for member in members) else None
    tags = [f"m{number}_" for number in range(1, len(members) + 1)]
    sizes = [size for member in members for size in member.shape.state_sizes]
    pieces = [
        tag + name for tag, member in zip(tags, members) for name in (*lstm_states(member.shape), "total", "largest", "gates")
    ]
    state_sizes = graph.constant("state_sizes", np.array(sizes, np.int64))
    graph.nodes.append(helper.make_node("Split", ["state", state_sizes], pieces, name="states", axis=1))
    said, following = zip(*(network(graph, member, of_pitch, tag) for member, tag in zip(members, tags)))
    graph.add("Mean", list(said), "logits")
    graph.add("Concat", [piece for pieces in following for piece in pieces], "next_state", axis=1)

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

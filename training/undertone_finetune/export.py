"""The network as one ONNX file, and the proof that it is the same network.

Traced by PyTorch's TorchScript exporter: the graph has no control flow, and its shapes but for the batch are those of
the window. The newer exporter writes an equal graph, with three more packages (onnxscript, onnx_ir, networkx) and twice
the time. Operator set 17, which every ONNX Runtime since 1.12 reads, and the service's.
"""

from __future__ import annotations

import copy
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from .folder import BAD_USAGE, Refused
from .network import Network

OPSET = 17
INPUT = "samples"
# Float32 sums in another order; logits are of the order of 1 to 10, and 1e-3 of a logit is at most 2.5e-4 of a
# probability.
TOLERANCE = 1e-3
# A protobuf file holds 2 GiB at most, and the service reads a model from one file.
LARGEST_BYTES = 1_900_000_000
# Shares of the window that are heard, and batches, on which the proof is made.
HEARD_SHARES = (0.0, 0.02, 0.1, 0.37, 0.5, 0.99, 1.0)
BATCHES = (1, 2, len(HEARD_SHARES))


@dataclass
class Proof:
    """What was measured of the exported file."""

    disparity: float
    ms_per_window: float
    bytes: int


def bare(network: Network) -> Network:
    """A copy on the CPU with nothing left to train."""
    return copy.deepcopy(network).cpu().eval().requires_grad_(False)


def write(network: Network, window: int, output: str, path: Path) -> None:
    """Writes the graph [batch, window] -> [batch, outputs]."""
    example = torch.from_numpy(examples(window, 0)[[2, 6]])
    with warnings.catch_warnings(), torch.no_grad():
        # Shapes are fixed by the window, which is what the tracer warns of; and that it is the older exporter.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            bare(network),
            (example,),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[output],
            dynamic_axes={INPUT: {0: "batch"}, output: {0: "batch"}},
        )


def onto(network: Network, window: int, output: str, path: Path, quantise: bool) -> None:
    """Writes the model's one file, quantised to 8 bits if asked."""
    size = 4 * sum(values.numel() for values in network.parameters())
    if size > LARGEST_BYTES and not quantise:
        raise Refused(
            f"the network takes {size / 1e9:.1f} GB, and one ONNX file holds {LARGEST_BYTES / 1e9:.1f} GB; give --quantise, "
            "or take a smaller encoder",
            BAD_USAGE,
        )
    with tempfile.TemporaryDirectory() as place:
        whole = Path(place) / "whole.onnx"
        write(network, window, output, whole)
        if quantise:
            small = Path(place) / "small.onnx"
            quantised(whole, small)
            path.write_bytes(small.read_bytes())
        else:
            path.write_bytes(whole.read_bytes())
    onnx.checker.check_model(str(path))


def quantised(whole: Path, small: Path) -> None:
    """Matrix products in 8 bits, their inputs scaled as they come (dynamic quantisation); convolutions stay as they
    are, which ONNX Runtime does not compute faster in 8 bits."""
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.getLogger().setLevel(logging.ERROR)
    quantize_dynamic(
        whole, small, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8, per_channel=True
    )


def session(path: Path) -> onnxruntime.InferenceSession:
    """One thread, as the service runs it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def examples(window: int, seed: int) -> np.ndarray:
    """Windows heard to the shares of `HEARD_SHARES`: a voice-like buzz that swells, with noise."""
    rng = np.random.default_rng(seed)
    seconds = np.arange(window) / 16_000
    windows = np.zeros((len(HEARD_SHARES), window), np.float32)
    for row, share in zip(windows, HEARD_SHARES):
        pitch = rng.uniform(90, 300) * (1 + 0.1 * np.sin(2 * np.pi * rng.uniform(0.3, 2) * seconds))
        phase = 2 * np.pi * np.cumsum(pitch) / 16_000
        buzz = sum(np.sin(number * phase) / number for number in range(1, 12))
        swell = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(1, 4) * seconds)
        heard = round(share * window)
        row[:heard] = (0.1 * buzz * swell + 0.003 * rng.standard_normal(window))[:heard]
    return windows


@torch.no_grad()
def outputs(network: Network, windows: np.ndarray) -> np.ndarray:
    return network.eval()(torch.from_numpy(windows)).numpy()


def disparity(network: Network, running: onnxruntime.InferenceSession, window: int) -> float:
    """Largest difference of any output between PyTorch and ONNX Runtime, over lengths heard and batch sizes."""
    windows = examples(window, 1)
    largest = 0.0
    for batch in BATCHES:
        for start in range(0, len(windows) - batch + 1, batch):
            part = windows[start : start + batch]
            theirs = running.run(None, {INPUT: part})[0]
            if not np.isfinite(theirs).all():
                return float("inf")
            largest = max(largest, float(np.abs(theirs - outputs(network, part)).max()))
    return largest


def cost_ms(running: onnxruntime.InferenceSession, window: int, rounds: int = 5) -> float:
    """CPU milliseconds for a full window at batch 1 on one thread, the median."""
    part, times = examples(window, 2)[-1:], []
    running.run(None, {INPUT: part})
    for _ in range(rounds):
        began = time.process_time()
        running.run(None, {INPUT: part})
        times.append(1e3 * (time.process_time() - began))
    return float(np.median(times))


def proven(network: Network, path: Path, window: int, quantise: bool) -> Proof:
    """Runs the file; refuses one that does not compute what the network does. Of a quantised one only finite outputs
    are asked; its disparity is for the reader."""
    running = session(path)
    found = disparity(bare(network), running, window)
    if not np.isfinite(found) or (found > TOLERANCE and not quantise):
        raise Refused(
            f"{path}: differs from PyTorch by {found:.2g}, more than {TOLERANCE:g}; the export is not to be used"
        )
    return Proof(found, cost_ms(running, window), path.stat().st_size)


def logits_of(path: Path, windows: list[np.ndarray], window: int) -> np.ndarray:
    """What the file says of windows, one by one."""
    running, said = session(path), []
    for piece in windows:
        whole = np.zeros((1, window), np.float32)
        whole[0, : len(piece)] = piece
        said.append(running.run(None, {INPUT: whole})[0][0])
    return np.stack(said)

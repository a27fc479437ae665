"""The trained network in numpy, from the weights file, with the arithmetic of `src/features/voice.rs`."""

from pathlib import Path

import numpy as np

import frontend

DENSE = 16
STATE = 16
SHAPES = {
    "dense.weight": (frontend.INPUTS, DENSE),
    "dense.bias": (DENSE,),
    "gru.input": (DENSE, 3 * STATE),
    "gru.state": (STATE, 3 * STATE),
    "gru.input_bias": (3 * STATE,),
    "gru.state_bias": (3 * STATE,),
    "out.weight": (STATE,),
    "out.bias": (1,),
}


def tables(path):
    """The file's tables: little-endian f32, one after the other, inputs outermost."""
    numbers, out, at = np.frombuffer(Path(path).read_bytes(), "<f4"), {}, 0
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))
        out[name] = numbers[at : at + size].reshape(shape)
        at += size
    assert at == len(numbers), f"{path}: {len(numbers)} numbers instead of {at}"
    return out


def _tanh(x):
    x = np.clip(x, -4.97, 4.97)
    y = x * x
    return x * (135135 + y * (17325 + y * (378 + y))) / (135135 + y * (62370 + y * (3150 + y * 28)))


def _sigmoid(x):
    return 0.5 + 0.5 * _tanh(0.5 * x)


def probabilities(weights, mel_db):
    """Probability of speech [lane, hop] of absolute mel dB [lane, hop, 128]."""
    dense = np.maximum(frontend.inputs(mel_db) @ weights["dense.weight"] + weights["dense.bias"], 0)
    from_input = dense @ weights["gru.input"] + weights["gru.input_bias"]
    state = np.zeros((dense.shape[0], STATE), np.float32)
    out = np.empty(dense.shape[:2], np.float32)
    for t in range(dense.shape[1]):
        from_state = state @ weights["gru.state"] + weights["gru.state_bias"]
        gates = _sigmoid(from_input[:, t, : 2 * STATE] + from_state[:, : 2 * STATE])
        new = _tanh(from_input[:, t, 2 * STATE :] + gates[:, :STATE] * from_state[:, 2 * STATE :])
        state = new + gates[:, STATE:] * (state - new)
        out[:, t] = np.clip(_sigmoid(state @ weights["out.weight"] + weights["out.bias"]), 0, 1)
    return out

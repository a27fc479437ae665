"""One network, three ways to run it: whole, step by step, and as ONNX."""

import copy

import numpy as np
import onnx
import pytest
import torch

from undertone_training import cepstra, export
from undertone_training.data import COEFFICIENTS, FLOOR, STEP_HOPS
from undertone_training.model import Ensemble, Shape, StreamingLstm

# Float32 sums in another order; logits here are of the order of 1.
TOLERANCE = 1e-5


def hops(*shape: int) -> torch.Tensor:
    """Cepstra about as they are, [*shape, 64]."""
    noise = torch.randn(*shape, COEFFICIENTS, generator=torch.Generator().manual_seed(1))
    return torch.linspace(-500.0, 5.0, COEFFICIENTS) + noise * torch.linspace(150.0, 4.0, COEFFICIENTS)


@pytest.fixture(scope="module")
def model() -> Ensemble:
    """Two members of different shapes."""
    torch.manual_seed(3)
    members = [StreamingLstm(Shape(units=24, hidden=16)), StreamingLstm(Shape(units=10, layers=1, stacked_hops=4, envelope=16, top_hz=4000.0))]
    for member in members:
        # Weights large enough that gates, cells and maxima move, and features as they are: hundreds, not ones.
        with torch.no_grad():
            for weights in member.parameters():
                weights.mul_(2.0)
        member.normalise_by(hops(5000))
    return Ensemble(members).eval()


@pytest.fixture(scope="module")
def running(model):
    return export.session(export.build(model).SerializeToString())


@pytest.fixture(scope="module")
def mfcc(model) -> torch.Tensor:
    mfcc = hops(6, 10 * STEP_HOPS)
    mfcc[0, 3 * STEP_HOPS :] = torch.from_numpy(FLOOR)
    return mfcc


@torch.no_grad()
def test_streamed_equals_whole(model, mfcc):
    whole, state = model(mfcc), torch.zeros(len(mfcc), model.state_size)
    for step in range(whole.shape[1]):
        logits, state = model.step(mfcc[:, step * STEP_HOPS : (step + 1) * STEP_HOPS], state)
        torch.testing.assert_close(logits, whole[:, step], atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_onnx_equals_pytorch(model, running, mfcc):
    np.testing.assert_allclose(export.stream(running, mfcc.numpy()), model(mfcc).numpy(), atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_states_agree_between_onnx_and_pytorch(model, running, mfcc):
    state = torch.zeros(len(mfcc), model.state_size)
    carried = state.numpy()
    for start in range(0, mfcc.shape[1], STEP_HOPS):
        step = mfcc[:, start : start + STEP_HOPS]
        _, state = model.step(step, state)
        _, carried = running.run(None, {"mfcc": step.numpy(), "state": carried})
    np.testing.assert_allclose(carried, state.numpy(), atol=TOLERANCE, rtol=1e-5)


def test_the_future_does_not_change_the_past(running, mfcc):
    changed = mfcc.clone()
    changed[:, 6 * STEP_HOPS :] += 100.0
    before, after = export.stream(running, mfcc.numpy()), export.stream(running, changed.numpy())
    assert (before[:, :6] == after[:, :6]).all()
    assert (before[:, 6:] != after[:, 6:]).any()


@torch.no_grad()
def test_the_future_does_not_change_the_past_in_training_either(model, mfcc):
    changed = mfcc.clone()
    changed[:, 6 * STEP_HOPS :] += 100.0
    torch.testing.assert_close(model(mfcc)[:, :6], model(changed)[:, :6], atol=1e-6, rtol=0)


def test_rows_of_a_batch_do_not_touch_each_other(running, mfcc):
    alone = np.concatenate([export.stream(running, mfcc[row : row + 1].numpy()) for row in range(len(mfcc))])
    np.testing.assert_allclose(export.stream(running, mfcc.numpy()), alone, atol=TOLERANCE, rtol=0)
    others = mfcc.clone()
    others[1:] = 7.0
    # Same batch size, other neighbours: the same sums in the same order, so the same bits.
    assert (export.stream(running, others.numpy())[0] == export.stream(running, mfcc.numpy())[0]).all()


def test_zero_state_is_a_fresh_utterance(running, mfcc):
    first = export.stream(running, mfcc[:, : 4 * STEP_HOPS].numpy())
    export.stream(running, mfcc.flip(0).numpy())
    assert (export.stream(running, mfcc[:, : 4 * STEP_HOPS].numpy()) == first).all()


def test_an_hour_of_silence_stays_finite(model, running):
    silence = np.tile(FLOOR, (1, STEP_HOPS, 1)).astype(np.float32)
    state = np.zeros((1, model.state_size), np.float32)
    for _ in range(3600 * 16000 // 256 // STEP_HOPS // 10):
        logits, state = running.run(None, {"mfcc": silence, "state": state})
    assert np.isfinite(logits).all() and np.isfinite(state).all()


@pytest.mark.parametrize("shape", [Shape(pitch=False, units=8), Shape(layers=1, units=8), Shape(stacked_hops=4, units=8), Shape(top_hz=4000.0, units=8)])
def test_every_shape_is_exported_as_it_computes(shape):
    torch.manual_seed(0)
    other = Ensemble([StreamingLstm(shape)]).eval()
    assert export.disparity(other, export.build(other)) < TOLERANCE


@torch.no_grad()
def test_outputs_that_are_cut_leave_the_others_alone(model, mfcc):
    cut = copy.deepcopy(model)
    cut.cut_to([0, 5])
    torch.testing.assert_close(cut(mfcc), model(mfcc)[..., [0, 5]])
    ruled = copy.deepcopy(model)
    for member in ruled.members:
        member.rule_out([1])
    assert (ruled(mfcc)[..., 1] < -1e3).all()
    torch.testing.assert_close(ruled(mfcc)[..., 2:], model(mfcc)[..., 2:])


@torch.no_grad()
def test_members_speak_as_one_by_the_mean_of_their_logits(model, mfcc):
    torch.testing.assert_close(model(mfcc), (model.members[0](mfcc) + model.members[1](mfcc)) / 2)


@torch.no_grad()
def test_a_network_of_the_telephone_does_not_hear_above_it():
    deaf = StreamingLstm(Shape(units=8, envelope=16, top_hz=4000.0, pitch=False)).eval()
    bands = torch.randn(1, 3 * STEP_HOPS, cepstra.MEL_BANDS, generator=torch.Generator().manual_seed(2))
    # A step of 20 dB at 4 kHz; 64 cepstra blur its edge a little.
    basis = torch.from_numpy(cepstra.dct(COEFFICIENTS)).float()
    above = torch.from_numpy(cepstra.BAND_CENTRES_HZ >= 4000.0)
    raised = bands + 20.0 * above
    everything = StreamingLstm(Shape(units=8, pitch=False)).envelope
    moved, moved_by_all = (f(raised @ basis.T) - f(bands @ basis.T) for f in (deaf.envelope, everything))
    assert moved.abs().max() < 0.1 * moved_by_all.abs().max()


def test_export_says_what_the_manifest_says(model):
    made = export.build(model)
    shape_of = lambda value: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
    told = {value.name: shape_of(value) for value in [*made.graph.input, *made.graph.output]}
    state = ["batch", model.state_size]
    assert told == {"mfcc": ["batch", 16, 64], "state": state, "logits": ["batch", 8], "next_state": state}
    assert made.opset_import[0].version == export.OPSET


def test_a_constant_is_shared_only_if_it_is_the_same():
    graph = export.Graph()
    assert graph.constant("one", np.ones(2)) == graph.constant("one", np.ones(2)) and len(graph.constants) == 1
    with pytest.raises(ValueError, match="called one"):
        graph.constant("one", np.zeros(2))


def test_export_is_the_same_file_twice(model):
    assert export.build(model).SerializeToString() == export.build(model).SerializeToString()


def test_disparity_sees_a_graph_of_other_weights(model):
    made = export.build(model)
    assert export.disparity(model, made) < TOLERANCE
    bias = next(constant for constant in made.graph.initializer if constant.name == "m1_output_b")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 0.2, "m1_output_b"))
    assert export.disparity(model, made) > 0.05

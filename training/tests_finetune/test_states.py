"""The way through the encoders is theirs where they have one, and what was not heard does not count."""

import numpy as np
import pytest
import torch
from conftest import MODELS, STABLE, WHISPER, tiny
from transformers import Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from undertone_finetune import export, folder, frontend, network
from undertone_finetune.encoder import SpeechStates, WhisperStates

# Float32 sums in another order, on states of the order of 1.
TOLERANCE = 2e-5
WINDOW = 24_000


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    return torch.from_numpy(export.examples(WINDOW, 5))


def padded(samples: torch.Tensor, more: int) -> torch.Tensor:
    return torch.nn.functional.pad(samples, (0, more))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["wavlm", "wav2vec2", "hubert"])
@pytest.mark.parametrize("variant", [{}, STABLE], ids=["group", "stable"])
def test_states_are_those_of_transformers(kind, variant, windows, tmp_path):
    model = folder.encoder(tiny(tmp_path, kind, **variant)).eval()
    samples = windows[-1:]
    theirs = model(samples).last_hidden_state
    every, mask = SpeechStates(model, normalise=False).eval()(samples)
    assert mask.all() and len(every) == 3
    torch.testing.assert_close(every[-1], theirs, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_whisper_states_are_those_of_transformers_when_the_context_is_full(encoders, windows):
    encoder = folder.encoder(encoders["whisper"]).eval()
    extract = WhisperFeatureExtractor(feature_size=80, chunk_length=2)
    samples = windows[4]
    mel = extract(samples.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    every, mask = WhisperStates(encoder, "full").eval()(samples[None])
    torch.testing.assert_close(every[-1], encoder(mel).last_hidden_state, atol=1e-3, rtol=0)
    # Half of 1.5 s was heard: 37.5 states of 20 ms.
    assert mask.sum() == 38 and every[-1].shape[1] == WHISPER["max_source_positions"]


def test_log_mel_is_whispers(windows):
    for bands in (80, 128):
        extract = WhisperFeatureExtractor(feature_size=bands, chunk_length=2)
        full = padded(windows, 32_000 - WINDOW)
        theirs = extract(list(full.numpy()), sampling_rate=16_000, return_tensors="pt").input_features
        # 32 bits, and the logarithm of small sums.
        torch.testing.assert_close(frontend.LogMel(bands)(full), theirs, atol=1e-3, rtol=0)


def test_normalisation_is_wav2vecs_over_what_was_heard(windows):
    extract = Wav2Vec2FeatureExtractor(do_normalize=True)
    lengths = frontend.heard(windows, 1)
    ours = frontend.normalised(windows, lengths)
    for row, length in list(zip(range(len(windows)), lengths))[1:]:
        theirs = extract(windows[row, :length].numpy(), sampling_rate=16_000, return_tensors="pt").input_values[0]
        torch.testing.assert_close(ours[row, :length], theirs, atol=1e-4, rtol=0)
        assert (ours[row, length:] == 0).all()


def all_states(encoders):
    for kind, where in encoders.items():
        for context in ("window", "full") if kind == "whisper" else ("window",):
            yield network.states_of(folder.encoder(where), where, context, "folder").eval()


@torch.no_grad()
def test_padding_changes_nothing(encoders, windows):
    for states in all_states(encoders):
        every, mask = states(windows)
        longer, more = states(padded(windows, 6400))
        assert (mask.sum(1) == more.sum(1)).all()
        for ours, theirs in zip(every, longer):
            heard = mask[..., None]
            torch.testing.assert_close(ours * heard, theirs[:, : ours.shape[1]] * heard, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_a_window_cut_to_what_was_heard_is_the_same_too(windows, tmp_path):
    # Group normalisation over time and attention see nothing of the zeros: as if there were none.
    for kind in ("wavlm", "wav2vec2", "hubert"):
        where = tiny(tmp_path / kind, kind)
        states = network.states_of(folder.encoder(where), where, "window", "folder").eval()
        row = windows[4:5]
        length = int(frontend.heard(row, 1)[0])
        every, mask = states(row)
        alone, whole = states(row[:, :length])
        assert whole.all() and whole.sum() == mask.sum()
        torch.testing.assert_close(every[-1][mask], alone[-1][whole], atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_silence_and_single_samples_are_finite(encoders):
    windows = torch.zeros(4, 16_000)
    windows[1, 0], windows[2, 100], windows[3] = 1.0, -1e-6, 0.3
    for states in all_states(encoders):
        every, mask = states(windows)
        assert all(one.isfinite().all() for one in every) and (mask.sum(1) >= 1).all()


@torch.no_grad()
def test_rows_do_not_touch_each_other(encoders, windows):
    for states in all_states(encoders):
        every, _ = states(windows)
        alone, _ = states(windows[3:4])
        torch.testing.assert_close(every[-1][3], alone[-1][0], atol=TOLERANCE, rtol=0)


def test_whisper_says_which_windows_it_takes(encoders):
    states = network.states_of(folder.encoder(encoders["whisper"]), encoders["whisper"], "window", "folder")
    with pytest.raises(folder.Refused, match="1 to 2 s"):
        network.window_samples(3.0, states)
    with pytest.raises(folder.Refused, match="multiples of 320"):
        states(torch.zeros(1, 16_001))
    assert network.window_samples(1.01, states) % 320 == 0


@pytest.mark.parametrize("kind", MODELS)
def test_training_reaches_every_weight_that_is_not_frozen(kind, encoders, windows):
    from undertone_finetune import learn
    from undertone_finetune.head import Head

    where = encoders[kind]
    for freeze in learn.FREEZES:
        states = network.states_of(folder.encoder(where), where, "window", "folder")
        whole = network.Network(states, Head(states.width, states.layers, 4, 8, "attention", True))
        learn.freeze(whole, freeze)
        np.random.seed(1)
        torch.manual_seed(1)
        every, mask = whole.train().states(windows)
        whole.head(every, mask).square().sum().backward()
        encoder_moves = any(values.grad is not None for values in whole.states.parameters())
        assert encoder_moves == (freeze != "encoder")
        frozen = (
            {id(values) for part in states.features() for values in part.parameters()}
            if freeze == "features"
            else set()
        )
        for name, values in whole.named_parameters():
            if id(values) in frozen:
                assert values.grad is None, name
            elif freeze == "none" and "layers.0.fc1.weight" in name:
                assert values.grad is not None, name


@pytest.mark.parametrize("kind", MODELS)
def test_half_precision_trains_and_stays_near(kind, encoders, windows):
    """As on a GPU, but on the CPU, which has bfloat16 too: three significant digits."""
    from undertone_finetune.head import Head

    where = encoders[kind]
    states = network.states_of(folder.encoder(where), where, "window", "folder")
    torch.manual_seed(2)
    whole = network.Network(states, Head(states.width, states.layers, 4, 8, "attention", True)).eval()
    with torch.no_grad():
        exact = whole(windows)
    with torch.autocast("cpu", torch.bfloat16):
        rough = whole(windows)
    rough.float().square().sum().backward()
    assert all(values.grad.isfinite().all() for values in whole.parameters() if values.grad is not None)
    torch.testing.assert_close(rough.float(), exact, atol=0.1, rtol=0)

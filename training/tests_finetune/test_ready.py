"""Classifiers and regressors that others trained: their outputs, our labels, our window."""

import json
import tomllib

import numpy as np
import pytest
import torch
from conftest import RATE_HZ, STABLE, configuration, save
from safetensors.torch import load_file, save_file
from served import analysed, checked
from transformers import (
    HubertForSequenceClassification,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
    WavLMForSequenceClassification,
    WhisperFeatureExtractor,
    WhisperForAudioClassification,
)

import finetune
from undertone_finetune import export, folder, ready

# As published classifiers name them; the service's are in another order.
THEIRS = ["angry", "disgust", "fearful", "happy", "neutral", "sad", "surprised"]
OURS = ["neutral", "happy", "sad", "angry", "fear", "disgust", "surprise"]
CLASSES = {
    "whisper": WhisperForAudioClassification,
    "wavlm": WavLMForSequenceClassification,
    "wav2vec2": Wav2Vec2ForSequenceClassification,
    "hubert": HubertForSequenceClassification,
}


def classifier(where, kind, names=THEIRS, **more):
    torch.manual_seed(11)
    size = {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
    }
    return save(where, CLASSES[kind](configuration(kind, classifier_proj_size=16, **size, **more)))


def regressor(where):
    """As the published models of arousal, dominance and valence are made: a class of their own."""
    torch.manual_seed(12)
    names = {
        "id2label": {0: "arousal", 1: "dominance", 2: "valence"},
        "label2id": {"arousal": 0, "dominance": 1, "valence": 2},
    }
    save(where, Wav2Vec2Model(configuration("wav2vec2", **STABLE, num_labels=3, **names)))
    weights = {f"wav2vec2.{name}": values for name, values in load_file(where / "model.safetensors").items()}
    weights |= {"classifier.dense.weight": torch.randn(24, 24), "classifier.dense.bias": torch.randn(24)}
    weights |= {
        "classifier.out_proj.weight": 0.1 * torch.randn(3, 24),
        "classifier.out_proj.bias": torch.full((3,), 0.5),
    }
    save_file(weights, where / "model.safetensors", {"format": "pt"})
    config = json.loads((where / "config.json").read_text()) | {"architectures": ["Wav2Vec2ForSpeechClassification"]}
    (where / "config.json").write_text(json.dumps(config))
    return where


def theirs(where, kind, samples):
    """Logits as `transformers` computes them for one clip, in our labels' order."""
    model = CLASSES[kind].from_pretrained(where, local_files_only=True).eval()
    if kind == "whisper":
        extract = WhisperFeatureExtractor(feature_size=80, chunk_length=2)
        given = extract(samples, sampling_rate=RATE_HZ, return_tensors="pt").input_features
    else:
        given = Wav2Vec2FeatureExtractor(do_normalize=True)(
            samples, sampling_rate=RATE_HZ, return_tensors="pt"
        ).input_values
    with torch.no_grad():
        logits = model(given).logits
        if getattr(model.config, "do_stable_layer_norm", False) and model.config.use_weighted_layer_sum:
            # Up to version 4, when such classifiers were published, the last state of the sum was normalised.
            base = model.base_model(given, output_hidden_states=True)
            states = torch.stack([*base.hidden_states[:-1], base.last_hidden_state], 1)
            mixed = (states * model.layer_weights.softmax(0).view(-1, 1, 1)).sum(1)
            logits = model.classifier(model.projector(mixed).mean(1))
    return logits.numpy()[:, [4, 3, 5, 0, 2, 1, 6]]


def imported(where, out, *more):
    return finetune.main(["import", "--from", str(where), "--out", str(out), "--window", "1.5", *more])


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("mixed", [False, True], ids=["last", "mixed"])
def test_outputs_are_those_of_transformers(kind, mixed, tmp_path):
    for variant in ({}, STABLE) if kind != "whisper" else ({},):
        where = classifier(tmp_path / f"{kind}{len(variant)}", kind, use_weighted_layer_sum=mixed, **variant)
        if mixed:
            # Not the plain mean: each layer must find its own weight.
            weights = load_file(where / "model.safetensors")
            weights["layer_weights"] = torch.tensor([0.3, -0.5, 1.0])
            save_file(weights, where / "model.safetensors", {"format": "pt"})
        taken = ready.ready(where)
        assert taken.labels == OURS
        window = export.examples(24_000, 3)[4:5]
        heard = window[0, :12_000]
        np.testing.assert_allclose(export.outputs(taken.network, window), theirs(where, kind, heard), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", CLASSES)
def test_a_classifier_is_packaged_and_served(kind, tmp_path):
    where = classifier(tmp_path / kind, kind)
    out = tmp_path / f"ready-{kind}"
    assert (
        imported(where, out, "--model-licence", "Apache-2.0", "--trained-on", "ravdess,mine", "--licences", "mine=MIT")
        == 0
    )
    manifest = tomllib.loads((out / "model.toml").read_text())
    assert manifest["labels"] == OURS and manifest["calibration"]["temperature"] == 1.0
    said = [(row["corpus"], row["licence"], row["commercial_use"]) for row in manifest["training_data"]]
    assert said == [(f"model {kind}", "Apache-2.0", True), ("RAVDESS", "CC BY-NC-SA 4.0", False), ("mine", "MIT", True)]
    checked(out)
    assert set(analysed(out)["probabilities"]) == set(OURS)
    window = export.examples(24_000, 3)[4:5]
    by_file = export.session(out / "model.onnx").run(None, {"samples": window})[0]
    np.testing.assert_allclose(by_file, theirs(where, kind, window[0, :12_000]), atol=1e-3, rtol=0)


def test_a_regressor_is_packaged_as_dimensions_and_served(tmp_path):
    where, out = regressor(tmp_path / "regressor"), tmp_path / "dimensions"
    assert imported(where, out) == 0
    manifest = tomllib.loads((out / "model.toml").read_text())
    assert manifest["output"]["dimensions"] == ["arousal", "dominance", "valence"] and "labels" not in manifest
    checked(out)
    said = analysed(out)
    assert said["arousal"] is not None and not said["probabilities"]
    samples = torch.from_numpy(export.examples(24_000, 3)[-1:])
    model = Wav2Vec2Model.from_pretrained(where, local_files_only=True).eval()
    weights = load_file(where / "model.safetensors")
    with torch.no_grad():
        mean = model((samples - samples.mean()) / torch.sqrt(samples.var(correction=0) + 1e-7)).last_hidden_state.mean(
            1
        )
        hidden = torch.tanh(mean @ weights["classifier.dense.weight"].T + weights["classifier.dense.bias"])
        wanted = hidden @ weights["classifier.out_proj.weight"].T + weights["classifier.out_proj.bias"]
    np.testing.assert_allclose(export.outputs(ready.ready(where).network, samples.numpy()), wanted.numpy(), atol=1e-4)


def test_unknown_labels_are_named_with_the_remedy(tmp_path, capsys):
    where = classifier(tmp_path / "c", "wavlm", ["LABEL_0", "angry", "other"])
    assert imported(where, tmp_path / "m") == 64
    told = capsys.readouterr().err
    assert "0 (LABEL_0), 2 (other)" in told and '--labels "0=angry,...' in told
    assert imported(where, tmp_path / "m", "--labels", "0=joy,other=-") == 0
    assert tomllib.loads((tmp_path / "m" / "model.toml").read_text())["labels"] == ["happy", "angry"]


def test_outputs_that_mean_the_same_add_up(tmp_path):
    where = classifier(tmp_path / "c", "hubert", ["happy", "joy", "sad", "other"])
    taken = ready.ready(where, "other=-")
    assert taken.labels == ["happy", "sad"]
    window = export.examples(24_000, 3)[4:5]
    model = HubertForSequenceClassification.from_pretrained(where, local_files_only=True).eval()
    extract = Wav2Vec2FeatureExtractor(do_normalize=True)
    with torch.no_grad():
        raw = model(extract(window[0, :12_000], sampling_rate=RATE_HZ, return_tensors="pt").input_values).logits[0, :3]
    wanted = raw.softmax(0)
    ours = torch.softmax(torch.from_numpy(export.outputs(taken.network, window)[0]), 0)
    torch.testing.assert_close(ours, torch.stack([wanted[:2].sum(), wanted[2]]), atol=1e-4, rtol=0)


def test_a_whisper_classifier_can_be_cut_to_its_window(tmp_path):
    where = classifier(tmp_path / "c", "whisper")
    assert imported(where, tmp_path / "m", "--context", "window") == 0
    windows = export.examples(24_000, 3)
    cut = export.session(tmp_path / "m" / "model.onnx").run(None, {"samples": windows})[0]
    assert np.isfinite(cut).all()
    assert np.abs(cut - export.outputs(ready.ready(where).network, windows)).max() > 1e-3


def test_an_encoder_without_a_head_is_refused(encoders, capsys, tmp_path):
    assert imported(encoders["wavlm"], tmp_path / "m", "--labels", "0=angry,1=sad") == 65
    assert "finetune.py train --encoder" in capsys.readouterr().err


def test_older_weights_files_are_read(tmp_path):
    where = classifier(tmp_path / "c", "wav2vec2")
    window = export.examples(24_000, 3)[4:5]
    wanted = export.outputs(ready.ready(where).network, window)
    torch.save(load_file(where / "model.safetensors"), where / "pytorch_model.bin")
    (where / "model.safetensors").unlink()
    np.testing.assert_array_equal(export.outputs(ready.ready(where).network, window), wanted)
    (where / "preprocessor_config.json").unlink()
    with pytest.raises(folder.Refused, match="--normalise yes"):
        ready.ready(where)
    np.testing.assert_array_equal(export.outputs(ready.ready(where, normalise="yes").network, window), wanted)

"""The whole command: a folder and corpora in, a model that the service serves out."""

import csv
import hashlib
import shutil
import tomllib

import numpy as np
import pytest
import soundfile
import torch
from served import HELLO, analysed, checked

import finetune
from undertone_finetune import clips, export, folder, learn, network, scores
from undertone_finetune.head import Head

KINDS = ("whisper", "wavlm", "wav2vec2", "hubert")
# Each architecture with other settings, so that all are walked through.
SETTINGS = {
    "whisper": ["--freeze", "none", "--pooling", "mean", "--context", "window"],
    "wavlm": ["--freeze", "encoder"],
    "wav2vec2": ["--freeze", "features", "--accumulate", "2", "--mix-layers"],
    "hubert": ["--freeze", "none", "--pooling", "attention", "--quantise"],
}


def typed(encoder, corpora, out, *more):
    return [
        "train",
        "--encoder",
        str(encoder),
        "--corpora",
        str(corpora),
        "--out",
        str(out),
        "--run-folder",
        str(out) + "-run",
        "--window",
        "1.5",
        "--epochs",
        "2",
        "--batch",
        "6",
        "--hidden",
        "16",
        "--threads",
        "1",
        "--device",
        "cpu",
        "--encoder-licence",
        "MIT",
        "--licences",
        "other=CC BY 4.0",
        *more,
    ]


@pytest.fixture(scope="module")
def made(encoders, corpora, tmp_path_factory):
    place = tmp_path_factory.mktemp("tuned")
    for kind in KINDS:
        assert finetune.main(typed(encoders[kind], corpora, place / f"{kind}-four", *SETTINGS[kind])) == 0
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_describes_the_file_beside_it(made, kind):
    place = made / f"{kind}-four"
    manifest = tomllib.loads((place / "model.toml").read_text())
    running = export.session(place / "model.onnx")
    assert manifest["sha256"] == hashlib.sha256((place / "model.onnx").read_bytes()).hexdigest()
    assert manifest["kind"] == "window-waveform" and manifest["labels"] == ["neutral", "happy", "sad", "angry"]
    (given,), (answered,) = running.get_inputs(), running.get_outputs()
    assert (
        [given.name, given.shape]
        == [manifest["input"]["name"], manifest["input"]["shape"]]
        == ["samples", ["batch", 24_000]]
    )
    assert [answered.name, answered.shape] == [manifest["output"]["name"], manifest["output"]["shape"]]
    assert manifest["window"]["stride_hops"] == 32
    said = {row["corpus"]: row["commercial_use"] for row in manifest["training_data"]}
    assert said == {f"encoder {kind}": True, "invented": False, "other": True}
    assert 0 <= manifest["figures"]["ua_invented"] <= 1
    assert ("before they were quantised" in manifest["figures"]["protocol"]) == ("--quantise" in SETTINGS[kind])
    card = (place / "MODEL_CARD.md").read_text()
    assert "Held-out speakers" in card and "$" not in card


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_logits_of_the_file(encoders, kind, tmp_path):
    """The same audio in a longer window: exported anew with one, from the same weights."""
    torch.manual_seed(5)
    states = network.states_of(folder.encoder(encoders[kind]), encoders[kind], "window", "folder")
    whole = network.Network(states, Head(states.width, states.layers, 4, 16, "attention", True)).eval()
    windows = export.examples(19_200, 9)
    said = []
    for window in (19_200, 25_600):
        export.onto(whole, window, "logits", tmp_path / "model.onnx", quantise=False)
        longer = np.pad(windows, ((0, 0), (0, window - 19_200)))
        said.append(export.session(tmp_path / "model.onnx").run(None, {"samples": longer})[0])
    assert np.isfinite(said[0]).all() and said[0].std(0).min() > 1e-3
    np.testing.assert_allclose(said[0], said[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_silence_and_short_windows_give_finite_logits(made, kind):
    running = export.session(made / f"{kind}-four" / "model.onnx")
    windows = np.zeros((4, 24_000), np.float32)
    windows[1, :1], windows[2, :500], windows[3, :4096] = 1.0, 0.1, 1e-4
    for batch in (windows, windows[:1]):
        logits = running.run(None, {"samples": batch})[0]
        assert logits.shape == (len(batch), 4) and np.isfinite(logits).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_service_checks_and_serves_it(made, kind):
    place = made / f"{kind}-four"
    assert str(place) in checked(place)
    said = analysed(place)
    assert set(said["probabilities"]) == {"neutral", "happy", "sad", "angry"}
    assert abs(sum(said["probabilities"].values()) - 1) < 1e-4 and said["utterances"]


@pytest.mark.parametrize("kind", ["whisper", "wavlm"])
def test_the_service_says_what_onnx_runtime_says(made, kind):
    """The sentence is one utterance from its start on, so the last window that the service looked at is known but for
    when it stopped: one of the windows at multiples of the stride gives its answer."""
    place = made / f"{kind}-four"
    said, manifest = analysed(place), tomllib.loads((place / "model.toml").read_text())
    (utterance,) = said["utterances"]
    samples, _ = soundfile.read(HELLO, dtype="float32")
    wanted = np.array([said["probabilities"][label] for label in manifest["labels"]])
    stride = manifest["window"]["stride_hops"] * 256
    near = []
    for end in range(stride, len(samples) + 1, stride):
        logits = export.logits_of(place / "model.onnx", [samples[max(0, end - 24_000) : end]], 24_000)
        scores_of = np.exp(scores.log_softmax(logits / manifest["calibration"]["temperature"]))
        if np.abs(scores_of - wanted).max() < 1e-5:
            near.append(end / 16_000)
    assert near and abs(near[-1] - utterance["end"]) <= stride / 16_000


def test_figures_and_what_was_left_out_are_printed(encoders, corpora, tmp_path, capsys):
    assert finetune.main(typed(encoders["wavlm"], corpora, tmp_path / "m", "--freeze", "encoder", "--quantise")) == 0
    out = capsys.readouterr().out
    assert "left out: 1 clips of crema-d without audio" in out
    assert "Held-out speakers" in out and "UA, %" in out and "epoch 2" in out.replace("epoch  2", "epoch 2")
    assert "ms of CPU per window" in out and "top label agrees" in out


def test_an_interrupted_run_goes_on_and_ends_where_a_whole_one_does(encoders, corpora, tmp_path, monkeypatch, capsys):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    command = lambda out: typed(encoders["whisper"], corpora, out, "--freeze", "none")
    assert finetune.main(command(whole)) == 0
    epochs = learn.one_epoch

    def interrupted(network, train, labels, recipe, window, epoch, *rest):
        if epoch == 1:
            raise KeyboardInterrupt
        return epochs(network, train, labels, recipe, window, epoch, *rest)

    monkeypatch.setattr(learn, "one_epoch", interrupted)
    assert finetune.main(command(parted)) == 130
    assert "interrupted" in capsys.readouterr().err and not (parted / "model.onnx").exists()
    monkeypatch.setattr(learn, "one_epoch", epochs)
    assert finetune.main(command(parted)) == 0
    assert "goes on behind epoch 1" in capsys.readouterr().out
    kept = [torch.load(f"{out}-run/last.pt", weights_only=True)["weights"] for out in (whole, parted)]
    for name, values in kept[0].items():
        torch.testing.assert_close(values, kept[1][name], atol=1e-6, rtol=0)
    # Given once more it trains nothing; with other settings it refuses.
    assert finetune.main(command(parted)) == 0
    assert finetune.main([*command(parted), "--batch", "5"]) == 64
    assert "other settings (batch)" in capsys.readouterr().err


def test_speakers_stay_apart(corpora):
    found, silent = clips.read(corpora)
    assert len(found) == 24 and silent == {"crema-d": 1}
    for fold in range(3):
        split = clips.split(found, fold, seed=1)
        parts = [{clip.speaker for clip in part} for part in (split.train, split.validation, split.test)]
        assert all(parts) and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        assert {clip.fold for clip in split.test} == {fold}


def test_a_run_learns_what_can_be_learnt(encoders, corpora, tmp_path):
    """Pitch and pace tell the invented emotions apart: a tuned encoder finds it on the clips that it trains on."""
    split = clips.split(clips.read(corpora)[0], 0, seed=1)
    split.validation = split.train
    where = encoders["whisper"]
    states = network.states_of(folder.encoder(where), where, "window", "folder")
    torch.manual_seed(0)
    whole = network.Network(states, Head(states.width, states.layers, 4, 32, "mean", True, dropout=0.0))
    recipe = learn.Recipe(
        "none", True, epochs=16, batch=4, encoder_rate=2e-3, head_rate=1e-2, partial=0.0, smoothing=0.0
    )
    labels = ["neutral", "happy", "sad", "angry"]
    rows = learn.train(whole, split, labels, recipe, 24_000, tmp_path, {}, report=lambda line: None).history
    assert rows[-1]["loss"] < 0.75 * rows[0]["loss"]
    assert max(row["val_ua"] for row in rows) >= 0.5


def test_corpora_without_what_is_needed_are_refused_with_the_remedy(encoders, corpora, tmp_path, capsys):
    refused = lambda *more, where=corpora: (
        finetune.main(typed(encoders["wavlm"], where, tmp_path / "m", *more)),
        capsys.readouterr().err,
    )
    assert refused(where=tmp_path / "none")[0] == 66
    code, told = refused("--only", "crema-d")
    assert code == 66 and "no clip with audio of crema-d" in told
    code, told = refused("--window", "90")
    assert code == 64 and "1 to 60 s" in told
    code, told = refused("--stride", "11")
    assert code == 64 and "--stride" in told
    other = tmp_path / "corpora"
    shutil.copytree(corpora, other)
    rows = list(csv.reader((other / "manifest.csv").open()))
    rows[1][3] = "bored"
    csv.writer((other / "manifest.csv").open("w")).writerows(rows)
    code, told = refused(where=other)
    assert code == 65 and "'bored'" in told


def test_a_network_too_large_for_one_file_is_refused_unless_quantised(encoders, corpora, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "LARGEST_BYTES", 1000)
    command = typed(encoders["wavlm"], corpora, tmp_path / "m", "--freeze", "encoder")
    assert finetune.main(command) == 64
    assert "give --quantise" in capsys.readouterr().err
    assert finetune.main([*command, "--quantise"]) == 0


def test_a_file_that_computes_something_else_is_refused(made, encoders, tmp_path):
    where = encoders["wavlm"]
    states = network.states_of(folder.encoder(where), where, "window", "folder")
    other = network.Network(states, Head(states.width, states.layers, 4, 16, "mean", False)).eval()
    with pytest.raises(folder.Refused, match="differs from PyTorch"):
        export.proven(other, made / "wavlm-four" / "model.onnx", 24_000, False)

"""The whole command: a folder and corpora in, a model that the service serves out."""

import csv
import hashlib
import shutil
import tomllib

import numpy as np
import pytest
import torch
from served import analysed, checked

import finetune
from undertone_finetune import clips, export, learn

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
        "train", "--encoder", str(encoder), "--corpora", str(corpora), "--out", str(out), "--run-folder", str(out) + "-run",
        "--window", "1.5", "--epochs", "2", "--batch", "6", "--hidden", "16", "--threads", "1", "--device", "cpu",
        "--encoder-licence", "MIT", "--licences", "other=CC BY 4.0", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(encoders, corpora, tmp_path_factory):
    place = tmp_path_factory.mktemp("tuned")
    for kind in KINDS:
        assert finetune.main(typed(encoders[kind], corpora, place / f"{kind}-four", *SETTINGS[kind])) == 0
    return place


@pytest.mark.parametrize("kind", KINDS)
def test_the_manifest_describes_the_file_beside_it(made, kind):
    folder = made / f"{kind}-four"
    manifest = tomllib.loads((folder / "model.toml").read_text())
    running = export.session(folder / "model.onnx")
    assert manifest["sha256"] == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert manifest["kind"] == "window-waveform" and manifest["labels"] == ["neutral", "happy", "sad", "angry"]
    (given,), (answered,) = running.get_inputs(), running.get_outputs()
    assert [given.name, given.shape] == [manifest["input"]["name"], manifest["input"]["shape"]] == ["samples", ["batch", 24_000]]
    assert [answered.name, answered.shape] == [manifest["output"]["name"], manifest["output"]["shape"]]
    assert manifest["window"]["stride_hops"] == 32
    said = {row["corpus"]: row["commercial_use"] for row in manifest["training_data"]}
    assert said == {f"encoder {kind}": True, "invented": False, "other": True}
    assert 0 <= manifest["figures"]["ua_invented"] <= 1
    card = (folder / "MODEL_CARD.md").read_text()
    assert "Held-out speakers" in card and "$" not in card


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_no_logits_of_the_file(made, encoders, kind):
    """Heard to a third: what ONNX Runtime says is what it says of the same audio cut off by PyTorch's hand."""
    running = export.session(made / f"{kind}-four" / "model.onnx")
    windows = export.examples(24_000, 9)
    whole = running.run(None, {"samples": windows})[0]
    assert np.isfinite(whole).all() and whole.shape == (len(windows), 4)
    quieter = np.concatenate([windows[3:4], np.zeros_like(windows[:1])])
    again = running.run(None, {"samples": quieter})[0]
    # Dynamic quantisation scales a batch as a whole, so there rows do touch, a little.
    np.testing.assert_allclose(again[0], whole[3], atol=0.2 if kind == "hubert" else 1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_service_checks_and_serves_it(made, kind):
    folder = made / f"{kind}-four"
    assert str(folder) in checked(folder)
    said = analysed(folder)
    assert set(said["probabilities"]) == {"neutral", "happy", "sad", "angry"}
    assert abs(sum(said["probabilities"].values()) - 1) < 1e-4 and said["utterances"]


def test_the_service_says_what_onnx_runtime_says(made):
    """One utterance, one model, two ways: the window's last samples through the service, and by hand."""
    folder = made / "wavlm-four"
    said = analysed(folder)
    manifest = tomllib.loads((folder / "model.toml").read_text())
    names = manifest["labels"]
    assert max(said["probabilities"], key=said["probabilities"].get) in names


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
    """Pitch tells the invented emotions apart: on clips it was trained on, the head of a frozen encoder finds it."""
    from undertone_finetune import folder, network
    from undertone_finetune.head import Head

    found, _ = clips.read(corpora)
    split = clips.split(found, 0, seed=1)
    where = encoders["wav2vec2"]
    states = network.states_of(folder.encoder(where), where, "window", "folder")
    torch.manual_seed(0)
    whole = network.Network(states, Head(states.width, states.layers, 4, 32, "mean", True, dropout=0.0))
    recipe = learn.Recipe(freeze="encoder", mix=True, epochs=25, batch=8, head_rate=1e-2, partial=0.0)
    split.validation = split.train
    course = learn.train(whole, split, ["neutral", "happy", "sad", "angry"], recipe, 24_000, tmp_path, {}, report=lambda line: None)
    rows = course.history
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert max(row["val_ua"] for row in rows) > 0.6


def test_corpora_without_what_is_needed_are_refused_with_the_remedy(encoders, corpora, tmp_path, capsys):
    refused = lambda *more, where=corpora: (finetune.main(typed(encoders["wavlm"], where, tmp_path / "m", *more)), capsys.readouterr().err)
    assert refused(where=tmp_path / "none") [0] == 66
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
    from undertone_finetune import folder, network
    from undertone_finetune.head import Head

    where = encoders["wavlm"]
    states = network.states_of(folder.encoder(where), where, "window", "folder")
    other = network.Network(states, Head(states.width, states.layers, 4, 16, "mean", False)).eval()
    with pytest.raises(folder.Refused, match="differs from PyTorch"):
        export.proven(other, made / "wavlm-four" / "model.onnx", 24_000, False)

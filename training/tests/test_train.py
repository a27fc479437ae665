"""The whole command, on invented corpora: runs, export, manifest, card; and again without training anew."""

import hashlib
import json
import tomllib

import numpy as np
import pytest

import train
from undertone_training import data, export, learn, protocol, splits


@pytest.fixture(scope="module")
def made(features, tmp_path_factory):
    place = tmp_path_factory.mktemp("made")
    out = place / "invented-four"
    typed = ["--features", str(features), "--out", str(out), "--runs-folder", str(place / "runs")]
    typed += ["--results", str(place / "results.json"), "--folds", "0", "--epochs", "1", "--clips-per-epoch", "64"]
    # In this process: starting PyTorch anew for each run would take most of the test's time.
    typed += ["--workers", "1", "--device", "cpu"]
    assert train.main(typed) == 0
    return out, json.loads((place / "results.json").read_text()), typed


def test_the_manifest_describes_the_file_beside_it(made):
    out, results, _ = made
    manifest = tomllib.loads((out / "model.toml").read_text())
    content = (out / "model.onnx").read_bytes()
    assert manifest["sha256"] == hashlib.sha256(content).hexdigest()
    assert manifest["name"] == "invented-four" and manifest["kind"] == "streaming-mfcc"
    running = export.session(content)
    shapes = {tensor.name: list(tensor.shape) for tensor in [*running.get_inputs(), *running.get_outputs()]}
    (state,) = manifest["state"]
    assert shapes == {
        manifest["input"]["name"]: manifest["input"]["shape"],
        manifest["output"]["name"]: manifest["output"]["shape"],
        state["input"]: state["shape"],
        state["output"]: state["shape"],
    }
    assert manifest["calibration"]["temperature"] == pytest.approx(results["temperature"], abs=1e-4)
    measured = results["unseen_speakers"]["crema-d"]["open"]["ua"]["mean"]
    assert manifest["figures"]["ua_crema_d"] == pytest.approx(measured, abs=1e-4)
    closed = {row["corpus"] for row in manifest["training_data"] if not row["commercial_use"]}
    assert closed == {"RAVDESS", "TESS", "SAVEE"}


def test_the_shipped_graph_runs_and_is_finite(made):
    out, _, _ = made
    logits = export.stream(export.session(out / "model.onnx"), np.zeros((3, 64, 40), np.float32))
    assert logits.shape == (3, 4, 8) and np.isfinite(logits).all()


def test_the_card_has_its_figures_from_the_results(made):
    out, results, _ = made
    card = (out / "MODEL_CARD.md").read_text()
    assert "fold 0 alone" in card
    assert f"{100 * results['unseen_speakers']['crema-d']['open']['ua']['mean']:.1f}" in card
    assert f"{100 * results['random_split']['pooled']['open']['wa']:.1f}" in card


def test_a_fold_is_calibrated_on_the_others_alone(features, tmp_path):
    jobs = []
    for split in ("fold:0", "fold:1", "fold:2", "all"):
        recipe = learn.Recipe(epochs=1, clips_per_epoch=64)
        jobs.append(protocol.Job(split, recipe, 1, 1, "cpu", features, "", tmp_path))
    protocol.run_all(jobs, workers=1)
    done = protocol.outcomes(jobs)
    corpora = data.load(features)
    telling = splits.has_many_speakers(corpora)
    heard = {fold: protocol.kept(tmp_path / f"fold-{fold}" / "heard.npz") for fold in range(3)}
    others = [one for fold in (1, 2) for one in heard[fold] if telling[one.clip]]
    assert {corpora.fold[one.clip] for one in others} == {1, 2}
    assert done["fold:0"]["temperature"] == protocol.fitted(corpora, others)
    # What is kept is what was heard.
    assert len(heard[0]) == (corpora.fold == 0).sum() == done["fold:0"]["clips"]["test"]
    np.testing.assert_allclose(heard[0][0].course[-1].shape, (8,))
    assert set(done["all"]) >= {"temperature"} and "tested" not in done["all"]


def test_developing_a_recipe_packages_nothing(features, tmp_path, capsys):
    typed = ["--features", str(features), "--out", str(tmp_path / "none"), "--runs-folder", str(tmp_path / "runs")]
    typed += ["--develop", "1", "--epochs", "1", "--clips-per-epoch", "64", "--workers", "1", "--device", "cpu"]
    assert train.main(typed) == 0
    assert "val_crema-d" in capsys.readouterr().out and not (tmp_path / "none").exists()


def test_finished_runs_are_not_repeated(made, capsys):
    out, _, typed = made
    before = (out / "model.onnx").read_bytes()
    assert train.main(typed) == 0
    assert capsys.readouterr().out.count("already done") == 3
    assert (out / "model.onnx").read_bytes() == before


def test_missing_features_are_named(tmp_path, capsys):
    assert train.main(["--features", str(tmp_path / "none.npz")]) == 66
    assert "none.npz is missing" in capsys.readouterr().err


def test_a_failed_run_ends_the_protocol_with_its_name(tmp_path):
    job = protocol.Job("fold:0", learn.Recipe(), 1, 1, "cpu", tmp_path / "none.npz", "", tmp_path)
    with pytest.raises(RuntimeError, match="fold:0"):
        protocol.run_all([job], workers=2)

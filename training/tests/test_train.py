"""The whole command, on invented corpora: runs, packages, protocol; again without training anew; and the card."""

import copy
import dataclasses
import hashlib
import json
import tomllib

import numpy as np
import pytest

import card
import original
import train
from undertone_training import data, export, learn, protocol, splits
from undertone_training.labels import CORPORA

from test_card import invented

QUICK = ["--set", "epochs=1", "--set", "clips_per_epoch=64", "--set", "shape.units=16", "--device", "cpu"]
# In this process: starting PyTorch anew for each run would take most of the test's time.
QUICK += ["--workers", "1"]


@pytest.fixture(scope="module")
def made(features, tmp_path_factory):
    place = tmp_path_factory.mktemp("made")
    out = place / "invented-four"
    typed = ["--features", str(features), "--out", str(out), "--runs-folder", str(place / "runs"), *QUICK]
    typed += ["--folds", "0,1", "--seeds", "1,2"]
    assert train.main(typed) == 0
    return out, json.loads((place / "runs" / "training.json").read_text()), typed, place / "runs"


def test_the_manifest_describes_the_file_beside_it(made):
    out, facts, _, runs = made
    for folder in (out, runs / "fold-1-seed-2", runs / "random-seed-1"):
        manifest = tomllib.loads((folder / "model.toml").read_text())
        content = (folder / "model.onnx").read_bytes()
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
    manifest = tomllib.loads((out / "model.toml").read_text())
    assert manifest["calibration"]["temperature"] == pytest.approx(facts["temperature"], abs=1e-4)
    closed = {row["corpus"] for row in manifest["training_data"] if not row["commercial_use"]}
    assert closed == {"RAVDESS", "TESS", "SAVEE"}


def test_the_shipped_graph_runs_and_is_finite(made):
    out, *_ = made
    logits = export.stream(export.session(out / "model.onnx"), np.zeros((3, 64, 64), np.float32))
    assert logits.shape == (3, 4, 8) and np.isfinite(logits).all()


def test_the_protocol_names_every_run_and_what_it_has_not_heard(made, corpora):
    _, _, _, runs = made
    told = json.loads((runs / "protocol.json").read_text())
    kinds = sorted((run["kind"], run.get("fold"), run["seed"]) for run in told["runs"] if run["kind"] == "fold")
    assert kinds == [("fold", 0, 1), ("fold", 0, 2), ("fold", 1, 1), ("fold", 1, 2)]
    assert told["speakers"] == {speaker: fold for speaker, fold in zip(corpora.speaker, corpora.fold.tolist())}
    for run in told["runs"]:
        assert (runs / run["model"] / "model.onnx").exists()
        if run["kind"] == "random":
            left_out = set((runs / run["clips"]).read_text().split())
            parts = splits.split(corpora, "random", run["seed"])
            assert left_out == set(corpora.clip_names[parts.test])
            assert not left_out & set(corpora.clip_names[parts.train])


def test_a_model_of_one_free_corpus_has_its_labels_alone(features, tmp_path):
    out = tmp_path / "invented-open"
    typed = ["--features", str(features), "--out", str(out), "--runs-folder", str(tmp_path / "runs"), *QUICK]
    assert train.main([*typed, "--corpora", "crema-d", "--folds", "0", "--seeds", "1"]) == 0
    manifest = tomllib.loads((out / "model.toml").read_text())
    assert manifest["labels"] == ["neutral", "happy", "sad", "angry", "fear", "disgust"]
    assert [row["corpus"] for row in manifest["training_data"]] == ["CREMA-D"]
    assert export.session(out / "model.onnx").get_outputs()[0].shape == ["batch", 6]


def test_the_original_design_is_packaged_for_the_same_judge(features, tmp_path, capsys):
    out, runs = tmp_path / "original", tmp_path / "runs"
    typed = ["--features", str(features), "--out", str(out), "--runs-folder", str(runs)]
    assert original.main([*typed, "--folds", "0", "--epochs", "1", "--workers", "2"]) == 0
    assert "random  accuracy" in capsys.readouterr().out
    manifest = tomllib.loads((out / "model.toml").read_text())
    assert manifest["kind"] == "window-mfcc" and manifest["input"]["shape"] == ["batch", 188, 40]
    running = export.session(out / "model.onnx")
    assert np.isfinite(running.run(None, {"mfcc": np.zeros((2, 188, 40), np.float32)})[0]).all()
    told = json.loads((runs / "protocol.json").read_text())
    assert [run["kind"] for run in told["runs"]] == ["fold", "random"]
    (runs / "evaluation.json").write_text(json.dumps(invented()))
    assert card.main(["--model", str(out), "--training", str(runs / "training.json")]) == 0
    text = (out / "MODEL_CARD.md").read_text()
    assert "2 LSTM layers of 128 units" in text and "61.0 ± 10.0" in text


def test_variants_of_the_original_are_compared_on_known_and_on_unseen_speakers(features):
    small = original.Recipe(units=4, coefficients=13, dense=4, layers=1, epochs=1)
    table = original.study(features, {"a": small, "b": dataclasses.replace(small, layers=2)}, 1, workers=2).splitlines()
    assert len(table) == 4 and table[2].startswith("| a | ") and "crema-d: UA" in table[0]
    assert len({line.count("|") for line in table}) == 1


def test_a_fold_is_calibrated_on_the_others_alone(features, tmp_path):
    recipe = learn.changed(learn.Recipe(), ["epochs=1", "clips_per_epoch=64", "shape.units=16"])
    of = lambda split: protocol.Run((protocol.Job(split, recipe, 1, 1, "cpu", features, "", tmp_path),))
    runs = [of(split) for split in ("fold:0", "fold:1", "fold:2", "all")]
    protocol.run_all([job for run in runs for job in run.members], workers=1)
    corpora = data.load(features)
    found = {run.split: value for run, value in protocol.temperatures(runs, corpora).items()}
    heard = [learn.hear(run.model(), corpora, np.flatnonzero(corpora.fold == fold)) for fold, run in enumerate(runs[:3])]
    assert found["fold:0"] == protocol.fitted(corpora, heard[1] + heard[2])
    assert found["all"] == protocol.fitted(corpora, heard[0] + heard[1] + heard[2])


def test_every_member_leaves_out_what_its_run_leaves_out(features, tmp_path):
    typed = ["--features", str(features), "--runs-folder", str(tmp_path), "--folds", "0,3", "--seeds", "4,5"]
    runs = train.runs(train.arguments(typed))
    assert [(run.split, run.seed) for run in runs] == [
        ("fold:0", 4),
        ("fold:3", 4),
        ("random", 4),
        ("all", 4),
        ("fold:0", 5),
        ("fold:3", 5),
    ]
    for run in runs:
        assert [job.member for job in run.members] == list(range(1, 1 + len(learn.MEMBERS)))
        assert {(job.split, job.seed) for job in run.members} == {(run.split, run.seed)}
        assert len({job.key for job in run.members}) == len({job.place for job in run.members}) == len(run.members)


def test_more_members_than_there_are_recipes_for_are_refused(features):
    with pytest.raises(SystemExit, match="--members 9: from 1 to"):
        train.runs(train.arguments(["--features", str(features), "--members", "9"]))


def test_developing_a_recipe_packages_nothing(features, tmp_path, capsys):
    typed = ["--features", str(features), "--out", str(tmp_path / "none"), "--runs-folder", str(tmp_path / "runs"), *QUICK]
    assert train.main([*typed, "--develop", "1", "--seeds", "1"]) == 0
    assert "crema-d_ua" in capsys.readouterr().out.splitlines()[-1] and not (tmp_path / "none").exists()


def test_a_setting_that_is_not_there_is_refused_with_those_that_are(features):
    with pytest.raises(SystemExit, match="--set units=3: there is no 'units'.*shape"):
        train.main(["--features", str(features), "--set", "units=3"])
    changed = learn.changed(learn.Recipe(), ["shape.units=3", "mixup=0.5"])
    assert changed.shape.units == 3 and changed.mixup == 0.5


def test_finished_runs_are_not_repeated(made, capsys):
    out, _, typed, _ = made
    before = (out / "model.onnx").read_bytes()
    assert train.main(typed) == 0
    assert capsys.readouterr().out.count("already done") == 12
    assert (out / "model.onnx").read_bytes() == before


def test_missing_features_are_named(tmp_path, capsys):
    assert train.main(["--features", str(tmp_path / "none.npz")]) == 66
    assert "none.npz is missing" in capsys.readouterr().err


def test_a_failed_run_ends_the_protocol_with_its_name(tmp_path):
    job = protocol.Job("fold:0", learn.Recipe(), 1, 1, "cpu", tmp_path / "none.npz", "", tmp_path)
    with pytest.raises(RuntimeError, match="fold:0"):
        protocol.run_all([job], workers=2)

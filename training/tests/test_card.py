"""The card and the manifest's figures, from an evaluation and a training that are made up."""

import json
import tomllib

import pytest

import card as command
from undertone_training import card, labels, package
from undertone_training.learn import MEMBERS, Recipe, changed


def summary(value: float) -> dict:
    by_fold = {"0": value - 0.1, "2": value, "3": value + 0.1}
    return {
        "mean": value,
        "spread_over_folds": 0.1,
        "spread_over_seeds": 0.01,
        "worst_fold": {"fold": 0, "value": value - 0.1},
        "by_fold": by_fold,
        "by_seed": {"1": value},
    }


def invented() -> dict:
    """As docs/evaluation.md describes `evaluation.json`, with what the card reads."""
    figures = {"ua": 0.61, "wa": 0.62, "macro_f1": 0.60, "nll": 1.05, "ece": 0.04, "ece_together": 0.03}
    told = {name: summary(value) for name, value in figures.items()} | {"ua_interval": {"low": 0.58, "high": 0.64}}
    area = {"negatives": 70, "auc": summary(0.83), "roc": []}
    row = {
        "corpus": "crema-d",
        "training": "foreign",
        "clips": 100,
        "speakers": 20,
        "labels": ["neutral", "happy"],
        "open": told,
        "own_labels": told,
        "recall": {"neutral": summary(0.7), "happy": summary(0.5)},
        "course": [{"seconds": 1.0, "ua": summary(0.55), "share_of_final": 0.9}],
        "abstention": {"service_coverage": 0.9, "service_accuracy": 0.66, "area": summary(0.74), "curve": []},
        "distress": {"positives": 30, "against_rest": area, "against_other_emotions": area},
        "conditions": [
            {"condition": "clean", "approximated": False, "own_labels_ua": summary(0.61)},
            {"condition": "telephone", "approximated": True, "own_labels_ua": summary(0.52)},
            {"condition": "quiet", "approximated": True, "own_labels_ua": None},
        ],
    }
    split = {"clips": 40, "accuracy": summary(0.72), "ua": summary(0.73), "nll": summary(0.76)}
    return {
        "protocol": {"folds": [0, 2, 3], "seeds": [1]},
        "corpora": [row],
        "pooled": {"open": told},
        "random": {"all": split, "corpora": {"crema-d": split}},
    }


FACTS = {
    "name": "invented-open",
    "version": "1.2.3",
    "corpora": ["crema-d"],
    "members": [changed(Recipe(corpora=("crema-d",), epochs=16), MEMBERS[0]).as_dict()],
    "seeds": [1],
    "parameters": 12345,
    "state_size": 77,
    "onnx_bytes": 1_500_000,
    "temperature": 0.9,
    "minutes": {"all": 3.0},
    "cost_ms_per_audio_second": {"64": 0.1},
    "software": {"onnxruntime": "1.0"},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "training.json").write_text(json.dumps(FACTS))
    (tmp_path / "evaluation.json").write_text(json.dumps(invented()))
    (tmp_path / "model.toml").write_text('schema = 1\nname = "invented-open"\n\n[figures]\nua_old = 0.1\n')
    return tmp_path


def test_card_and_manifest_have_the_figures_that_were_measured(folder):
    assert command.main(["--model", str(folder), "--training", str(folder / "training.json")]) == 0
    text = (folder / "MODEL_CARD.md").read_text()
    for told in ("invented-open 1.2.3", "61.0 ± 10.0", "58.0 to 64.0", "52.0*", "0.830", "CREMA-D, new to it", "ECE 0.030; the mean of each fold's ECE over all corpora: 0.040", "--corpora crema-d --members 1 --set epochs=16", "It is one network.", "12,345", "72.0"):
        assert told in text, told
    assert "ODbL" in text and "do not use them commercially" not in text
    licence = (folder / "LICENSE.md").read_text()
    assert "also commercially" in licence and "TAFFC" in licence and "RAVDESS" not in licence
    manifest = tomllib.loads((folder / "model.toml").read_text())
    assert manifest["figures"]["ua_crema_d"] == 0.61 and manifest["figures"]["ua_telephone_crema_d"] == 0.52
    assert "ua_old" not in manifest["figures"] and "ua_quiet_crema_d" not in manifest["figures"]


def test_a_card_begins_with_where_the_model_is_lost():
    measured = invented()
    assert card.warning(measured) and "**On recordings of another kind" not in card.text(FACTS, measured | {"corpora": []})
    (row,) = measured["corpora"]
    row["own_labels"] = row["own_labels"] | {"ua": summary(0.17)}
    row["labels"] = list(labels.LABELS)
    assert "(UA: CREMA-D 17.0 %;" in card.text(FACTS, measured)[:400]
    row["own_labels"] = row["own_labels"] | {"ua": summary(0.30)}
    assert not card.warning(measured)


def test_the_folds_that_a_recipe_was_chosen_on_are_not_blind():
    assert card.blind({"0": 0.9, "1": 0.9, "2": 0.5, "4": 0.7}) == pytest.approx(0.6)
    assert card.blind({"0": 0.9}) is None


def test_weights_from_corpora_that_forbid_it_are_not_for_commerce():
    members = [changed(Recipe(), differences).as_dict() for differences in MEMBERS]
    facts = FACTS | {"corpora": list(labels.CORPORA), "members": members}
    assert "do not use them commercially" in card.text(facts, invented())
    assert "`make model`" in card.text(facts, invented()) and "; epochs 20, mixup 0.2," in card.text(facts, invented())
    licence = card.licence(facts)
    assert "non-commercial purposes alone" in licence and "| TESS | CC BY-NC-ND 4.0 | **no** |" in licence


def test_figures_are_replaced_not_added_to(folder):
    for _ in range(2):
        package.append_figures(folder / "model.toml", "how", {"ua": 0.5})
    assert (folder / "model.toml").read_text().count("[figures]") == 1


def test_what_is_missing_is_named(tmp_path, capsys):
    assert command.main(["--model", str(tmp_path), "--training", str(tmp_path / "none.json")]) == 66
    assert "none.json is missing" in capsys.readouterr().err

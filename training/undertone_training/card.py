"""The text of a model's card, and the figures of its manifest, out of `evaluation.json` and `training.json`.

The layout of the first is documented in docs/evaluation.md; a *summary* there has `mean`, `spread_over_folds`,
`spread_over_seeds` and `worst_fold`.
"""

from __future__ import annotations

import json
from pathlib import Path
from string import Template

from . import labels
from .learn import MEMBERS, Recipe, changed
from .package import TRAINING_DATA, description, listed
from .splits import DEVELOPED

FIGURES = ("ua", "wa", "macro_f1", "nll", "ece")
EMOTIONS = labels.LABELS
# Whom to cite for each corpus.
SOURCES = {
    "ravdess": "Livingstone and Russo 2018, <https://doi.org/10.1371/journal.pone.0196391>",
    "tess": "Pichora-Fuller and Dupuis 2020, <https://doi.org/10.5683/SP2/E8H2MF>",
    "savee": "Haq and Jackson 2010, in *Machine Audition: Principles, Algorithms and Systems*, IGI Global",
    "crema-d": "Cao et al. 2014, <https://doi.org/10.1109/TAFFC.2014.2336244>",
}
RARE_LABELS_OF_ONE = (
    "The corpus has 1.2 clips of any other emotion to one neutral clip. Labels are drawn half-way balanced (in proportion to "
    "the root of their number)."
)


def title(corpus: str) -> str:
    return TRAINING_DATA[corpus][0] if corpus in TRAINING_DATA else corpus


def markdown(heads: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def spread(summary: dict, scale: float = 100.0, digits: int = 1) -> str:
    """Mean and standard deviation over folds; the mean alone where there is nothing to deviate from."""
    mean = f"{scale * summary['mean']:.{digits}f}"
    over = summary.get("spread_over_folds")
    return mean if over is None else f"{mean} ± {scale * over:.{digits}f}"


def interval(row: dict) -> str:
    found = row.get("ua_interval")
    return f"{percent(found['low'])} to {percent(found['high'])}" if found else ""


def protocol(measured: dict) -> str:
    """How the figures were come by, in one sentence."""
    folds, seeds = measured["protocol"]["folds"], measured["protocol"]["seeds"]
    which = f"mean over folds {listed([str(fold) for fold in folds])} of 5, speakers apart" if folds else "no folds"
    runs = "one seed" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return (
        f"unseen speakers, {which}, {runs}, streamed through the service; models trained by the same recipe without "
        "the fold they are judged on; the shipped weights are trained on all folds and are themselves not judged"
    )


def blind(by_fold: dict[str, float]) -> float | None:
    """The mean over the folds that no recipe was chosen on."""
    values = [value for fold, value in by_fold.items() if int(fold) not in DEVELOPED]
    return sum(values) / len(values) if values else None


def figures(facts: dict, measured: dict) -> dict[str, float]:
    """For the manifest."""
    found = {}
    for row in measured["corpora"]:
        key = row["corpus"].replace("-", "_")
        for figure in FIGURES:
            found[f"{figure}_{key}"] = row["own_labels"][figure]["mean"]
        found[f"ua_of_all_labels_{key}"] = row["open"]["ua"]["mean"]
        for condition in row.get("conditions", []):
            if condition["own_labels_ua"] is not None and condition["condition"] != "clean":
                found[f"ua_{condition['condition'].replace('-', '_')}_{key}"] = condition["own_labels_ua"]["mean"]
    if measured.get("pooled"):
        found["ece_pooled"] = measured["pooled"]["open"]["ece_together"]["mean"]
    if measured.get("random"):
        found["random_split_accuracy"] = measured["random"]["all"]["accuracy"]["mean"]
        found["random_split_loss"] = measured["random"]["all"]["nll"]["mean"]
    for batch, cost in facts.get("cost_ms_per_audio_second", {}).items():
        found[f"cpu_ms_per_audio_second_batch_{batch}"] = cost
    return found


def unseen_table(measured: dict) -> str:
    rows = []
    for row in measured["corpora"]:
        own = row["own_labels"]
        foreign = ", new to it" if row.get("training") == "foreign" else ""
        between_seeds = own["ua"].get("spread_over_seeds")
        rows.append(
            [
                title(row["corpus"]) + foreign,
                f"{row['clips']} / {row['speakers']}",
                str(len(row["labels"])),
                *(spread(own[figure]) for figure in ("ua", "wa", "macro_f1")),
                percent(between_seeds),
                spread(own["nll"], 1.0, 2),
                spread(own["ece"], 1.0, 3),
                interval(own),
                percent(own["ua"]["worst_fold"]["value"] if own["ua"].get("worst_fold") else None),
                percent(blind(own["ua"]["by_fold"])),
                spread(row["open"]["ua"]),
            ]
        )
    heads = ["corpus", "clips / speakers", "classes", "UA", "WA", "macro-F1", "UA between seeds, ±"]
    heads += ["NLL", "ECE", "UA, 95 % interval"]
    return markdown([*heads, "worst fold's UA", "UA, blind folds", "UA among all labels"], rows)


def pooled(measured: dict) -> str:
    """Figures over the clips of all corpora, in a sentence; never in place of those per corpus."""
    told = measured.get("pooled")
    if not told:
        return ""
    ua, ece, of_folds = (told["open"][figure]["mean"] for figure in ("ua", "ece_together", "ece"))
    return (
        f"Over the clips of all corpora and folds together, among all labels: UA {percent(ua)}, ECE {ece:.3f}; "
        f"the mean of each fold's ECE over all corpora: {of_folds:.3f}."
    )


def warning(measured: dict) -> str:
    """What must be known first: corpora that are new to the model and on which it is hardly better than chance."""
    lost = [
        f"{title(row['corpus'])} {percent(row['own_labels']['ua']['mean'])} %"
        for row in measured["corpora"]
        if row.get("training") == "foreign" and row["own_labels"]["ua"]["mean"] < 2.0 / len(row["labels"])
    ]
    if not lost:
        return ""
    return (
        f"\n**On recordings of another kind than its own it is little better than chance** (UA: {listed(lost)}; chance is 12.5 to "
        "16.7 %). It is somewhere to start from with recordings of your own, not a model to deploy as it is.\n"
    )


def recall_table(measured: dict) -> str:
    rows = []
    for row in measured["corpora"]:
        recall = row["recall"]
        rows.append([title(row["corpus"]), *(percent(recall[e]["mean"]) if recall.get(e) else "" for e in EMOTIONS)])
    return markdown(["corpus", *EMOTIONS], rows)


def course_table(measured: dict) -> str:
    rows, seconds = [], []
    for row in measured["corpora"]:
        seconds = [point["seconds"] for point in row["course"]]
        early = [percent(point["ua"]["mean"]) for point in row["course"]]
        rows.append([title(row["corpus"]), *early, percent(row["open"]["ua"]["mean"])])
    return markdown(["corpus", *(f"{at:g} s" for at in seconds), "whole clip"], rows)


def conditions_table(measured: dict) -> str:
    names = [condition["condition"] for row in measured["corpora"] for condition in row["conditions"]]
    names = [name for name in dict.fromkeys(names) if name != "clean"]
    rows = []
    for row in measured["corpora"]:
        found = {condition["condition"]: condition for condition in row["conditions"]}
        cells = [percent(row["own_labels"]["ua"]["mean"])]
        for name in names:
            condition = found.get(name)
            value = condition["own_labels_ua"] if condition else None
            cells.append(f"{percent(value['mean'])}{'*' if condition['approximated'] else ''}" if value else "")
        rows.append([title(row["corpus"]), *cells])
    return markdown(["corpus", "clean", *names], rows)


def distress_table(measured: dict) -> str:
    rows = []
    for row in measured["corpora"]:
        told = row.get("distress")
        if told:
            areas = [told[against]["auc"] for against in ("against_rest", "against_other_emotions")]
            rows.append([title(row["corpus"]), str(told["positives"]), *(f"{area['mean']:.3f}" if area else "" for area in areas)])
    return markdown(["corpus", "clips in distress", "AUC against all others", "AUC against other emotions"], rows)


def abstention_table(measured: dict) -> str:
    rows = []
    for row in measured["corpora"]:
        told = row["abstention"]
        rows.append([title(row["corpus"]), percent(told["service_coverage"]), percent(told["service_accuracy"]), f"{told['area']['mean']:.3f}"])
    return markdown(["corpus", "answered, %", "right among those, %", "area under accuracy against coverage"], rows)


def random_table(measured: dict) -> str:
    told = measured.get("random")
    if not told:
        return "Not measured."
    rows = [["**all**", told["all"]]] + [[title(corpus), row] for corpus, row in told["corpora"].items()]
    return markdown(
        ["corpus", "clips", "accuracy", "UA", "loss (NLL)"],
        [[name, str(row["clips"]), percent(row["accuracy"]["mean"]), percent(row["ua"]["mean"]), f"{row['nll']['mean']:.2f}"] for name, row in rows],
    )


def licences(corpora: list[str]) -> str:
    rows = [
        [published, licence, "yes" if commercial else "**no**"]
        for corpus, (published, licence, commercial) in TRAINING_DATA.items()
        if corpus in corpora
    ]
    return markdown(["corpus", "licence", "commercial use"], rows)


def licence(facts: dict) -> str:
    """The text of `LICENSE.md`: what may be done with the weights, and whom to cite."""
    corpora = facts["corpora"]
    template = Template(beside("licence_open.md" if corpora == ["crema-d"] else "licence_research.md"))
    cited = "\n".join(f"- {TRAINING_DATA[corpus][0]}: {SOURCES[corpus]}" for corpus in corpora)
    return template.substitute(name=facts["name"], licences=licences(corpora), sources=f"Cite:\n\n{cited}")


def again(facts: dict) -> str:
    """The command that makes the model anew."""
    told = {}
    for member, differences in zip(facts["members"], MEMBERS):
        usual = flat(changed(Recipe(), differences).as_dict())
        told |= {key: value for key, value in flat(member).items() if value != usual[key]}
    flags = [f"--set {key}={json.dumps(value)}" for key, value in told.items()]
    if len(facts["members"]) != len(MEMBERS):
        flags.insert(0, f"--members {len(facts['members'])}")
    if facts["corpora"] != list(labels.CORPORA):
        flags.insert(0, f"--corpora {','.join(facts['corpora'])}")
    if not flags:
        return "make model"
    return f'make model MODEL={facts["name"]} MODEL_FLAGS="{" ".join(flags)}"'


def flat(recipe: dict, before: str = "") -> dict:
    """`recipe` with the names of its parts' values as `--set` takes them, but for the corpora."""
    found = {}
    for key, value in recipe.items():
        if isinstance(value, dict):
            found |= flat(value, f"{before}{key}.")
        elif key != "corpora":
            found[before + key] = list(value) if isinstance(value, tuple) else value
    return found


def common(members: list[dict]) -> dict:
    """The values that all members share."""
    first, *others = map(flat, members)
    return {key: value for key, value in first.items() if all(other[key] == value for other in others)}


def composition(members: list[dict]) -> str:
    """What the model is made of, in a sentence."""
    if len(members) == 1:
        return "It is one network."
    shared, told = common(members), []
    for member in map(flat, members):
        told.append(", ".join(f"{key} {value}" for key, value in member.items() if key not in shared))
    return (
        f"It is {len(members)} such networks, whose logits are averaged. They were trained apart and held "
        f"back in different degrees ({'; '.join(told)}), and so are right about different people."
    )


def beside(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def baseline_text(facts: dict, measured: dict) -> str:
    """`original.md` with its figures filled in."""
    recipe = dict(facts["recipe"])
    return Template(beside("original.md")).substitute(
        recipe,
        name=facts["name"],
        version=facts["version"],
        parameters=f"{facts['parameters']:,}",
        megabytes=f"{facts['onnx_bytes'] / 1e6:.2f}",
        licences=licences(facts["corpora"]),
        protocol=protocol(measured),
        unseen=unseen_table(measured),
        pooled=pooled(measured),
        random=random_table(measured),
        conditions=conditions_table(measured),
    )


def text(facts: dict, measured: dict) -> str:
    """`card.md` with its figures filled in; the baseline has a card of its own."""
    if facts["name"] == "original":
        return baseline_text(facts, measured)
    recipe, corpora = facts["members"][0], facts["corpora"]
    free = all(TRAINING_DATA[corpus][2] for corpus in corpora)
    template = Template(beside("card.md"))
    return template.substitute(
        name=facts["name"],
        version=facts["version"],
        description=description(tuple(corpora)),
        labels=", ".join(labels.of(corpora)),
        licences=licences(corpora),
        commercial=(
            "CREMA-D's licence (ODbL) allows commercial use; say where the data came from."
            if free
            else "**The weights are derived from corpora that forbid commercial use: do not use them commercially.**"
        ),
        shape_units=recipe["shape"]["units"],
        shape_layers=recipe["shape"]["layers"],
        shape_hidden=recipe["shape"]["hidden"],
        shape_stacked_hops=recipe["shape"]["stacked_hops"],
        shape_envelope=recipe["shape"]["envelope"],
        parameters=f"{facts['parameters']:,}",
        megabytes=f"{facts['onnx_bytes'] / 1e6:.2f}",
        state_size=facts["state_size"],
        protocol=protocol(measured),
        unseen=unseen_table(measured),
        warning=warning(measured),
        pooled=pooled(measured),
        rare_labels=beside("rare_labels.md").strip() if len(corpora) > 1 else RARE_LABELS_OF_ONE,
        again=again(facts),
        composition=composition(facts["members"]),
        developed=listed([str(fold) for fold in DEVELOPED]),
        recall=recall_table(measured),
        course=course_table(measured),
        conditions=conditions_table(measured),
        distress=distress_table(measured),
        abstention=abstention_table(measured),
        random=random_table(measured),
        temperature=f"{facts['temperature']:.3f}",
        onnxruntime=facts["software"]["onnxruntime"],
        costs=markdown(
            ["streams in a batch", "CPU ms per audio second and stream"],
            [[batch, f"{cost:.3f}"] for batch, cost in facts["cost_ms_per_audio_second"].items()],
        ),
        epochs=recipe["epochs"],
        clips_per_epoch=recipe["clips_per_epoch"],
        batch=recipe["batch"],
        learning_rate=recipe["learning_rate"],
        average=recipe["average"],
        label_smoothing=recipe["label_smoothing"],
        votes=recipe["votes"],
        seeds=listed([str(seed) for seed in facts["seeds"]]),
        minutes=f"{sum(facts['minutes'].values()):.0f}",
    )

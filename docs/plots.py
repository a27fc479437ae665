"""Draws docs/plots/*.svg, the pictures of the evaluation report, from figures that stand in the repository.

    python3 -m venv .venv-docs && .venv-docs/bin/pip install -r docs/requirements.txt
    .venv-docs/bin/python docs/plots.py

It reads `models/*/MODEL_CARD.md` and `model.toml`, which `training/card.py` writes from what `undertone evaluate`
measured, and the tables of `docs/policies.md`, which are `undertone policy rehearse`'s. Nothing is typed here. Each picture
says in a comment which figures it shows, as a hash; `--check` tells whether they are still the same, and needs no matplotlib.
"""

import argparse
import hashlib
import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs/plots"
CORPORA = ["CREMA-D", "RAVDESS", "TESS", "SAVEE"]
EMOTIONS = ["neutral", "calm", "happy", "sad", "angry", "fear", "disgust", "surprise"]
# Okabe and Ito's colours, which people with any colour vision tell apart, and markers besides.
BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"
STYLES = {"CREMA-D": (BLUE, "o"), "RAVDESS": (VERMILION, "s"), "TESS": (GREEN, "^"), "SAVEE": (PURPLE, "D")}
MODELS = {"undertone-four": (BLUE, "o"), "undertone-open": (GREEN, "^"), "original": (ORANGE, "s")}
INK, FAINT = "#222222", "#8a8a8a"
# Conditions as `undertone evaluate` names them, and as people read them.
CONDITIONS = {
    "clean": "as recorded", "pink-20": "noise 20 dB below", "pink-10": "noise 10 dB below", "pink-5": "noise 5 dB below",
    "telephone": "telephone", "reverberation": "room", "quiet": "20 dB quieter", "loud": "20 dB louder",
}  # fmt: skip


# --- figures ----------------------------------------------------------------------------------


def table(text, heading, first):
    """The rows of the first table below `heading` whose first column is called `first`, as dicts."""
    at = text.index(heading)
    found = re.search(rf"^\| {re.escape(first)} \|.*\n\|[-|]+\|\n((?:\|.*\n?)+)", text[at:], re.MULTILINE)
    head = cells(text[at:][found.start() :].split("\n", 1)[0])
    return [dict(zip(head, cells(line), strict=True)) for line in found[1].strip().splitlines()]


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def number(text):
    """The first number of a cell; None where there is none."""
    found = re.search(r"-?\d+(?:\.\d+)?", text)
    return float(found[0]) if found else None


def name(cell):
    """A corpus, without the note that it is new to the model."""
    return cell.split(",")[0].strip("*")


def card(model):
    """All that is drawn of one model."""
    text = (ROOT / "models" / model / "MODEL_CARD.md").read_text(encoding="utf-8")
    manifest = tomllib.loads((ROOT / "models" / model / "model.toml").read_text(encoding="utf-8"))
    unseen = "## Figures: speakers it never heard"
    figures = {
        "version": manifest["version"],
        "unseen": {
            name(row["corpus"]): {
                "ua": number(row["UA"]), "spread": number(row["UA"].split("±")[1]), "worst": number(row["worst fold's UA"]),
                "interval": [float(bound) for bound in re.findall(r"[\d.]+", row["UA, 95 % interval"])],
                "ece": number(row["ECE"]), "classes": number(row["classes"]), "new": "new to it" in row["corpus"],
            }
            for row in table(text, unseen, "corpus")
        },
        "random": {name(row["corpus"]): number(row["UA"]) for row in table(text, "## Figures: random split", "corpus")},
        "conditions": {
            row["corpus"]: {key: number(row[key]) for key in CONDITIONS}
            for row in table(text, "## Figures: bad conditions", "corpus")
        },
    }  # fmt: skip
    for corpus, row in figures["unseen"].items():
        key = corpus.lower().replace("-", "_")
        # Card and manifest come from one file: they agree, or one of them is old.
        assert abs(row["ua"] - 100 * manifest["figures"][f"ua_{key}"]) < 0.06, f"{model}: UA on {corpus}"
    if "Recall per label" in text:
        rows = table(text, "Recall per label", "corpus")
        figures["recall"] = {row["corpus"]: {emotion: number(row[emotion]) for emotion in EMOTIONS} for row in rows}
        rows = table(text, "after so many seconds of speech", "corpus")
        figures["course"] = {row["corpus"]: {key: number(row[key]) for key in row if key != "corpus"} for row in rows}
    if "## Confidence" in text:
        rows = table(text, "## Confidence", "corpus")
        figures["answered"] = {
            row["corpus"]: [number(row["answered, %"]), number(row["right among those, %"])] for row in rows
        }
    return figures


def rehearsed():
    """What the built-in policies found and raised for nothing, on blind speakers."""
    text = (ROOT / "docs/policies.md").read_text(encoding="utf-8")
    policies = {}
    for policy in re.findall(r"^### `([a-z-]+)`, version", text, re.MULTILINE):
        heading = f"### `{policy}`, version"
        found = [
            [
                f"{row['acted']}, {row['stretch']}",
                *[float(n) for n in re.match(r"(\d+) % \((\d+) to (\d+)\)", row["found, blind (95 %)"]).groups()],
            ]
            for row in table(text, heading, "acted")
        ]
        alarms = [
            [
                row["false alarms per hour of talk"],
                *[float(n) for n in re.match(r"([\d.]+) \(([\d.]+) to ([\d.]+)\)", row["blind (95 %)"]).groups()],
            ]
            for row in table(text, heading, "false alarms per hour of talk")
        ]
        policies[policy] = {"found": found, "alarms": alarms}
    return policies


def figures():
    """What each picture shows: name -> data."""
    cards = {model: card(model) for model in MODELS}
    four, original = cards["undertone-four"], cards["original"]
    return {
        "unseen": {model: {"version": found["version"], "unseen": found["unseen"]} for model, found in cards.items()},
        "random": {
            model: {
                corpus: [cards[model]["random"][corpus], cards[model]["unseen"][corpus]["ua"]] for corpus in CORPORA
            }
            for model in ("undertone-four", "original")
        },
        "course": four["course"],
        "recall": four["recall"],
        "conditions": {"undertone-four": four["conditions"], "original": original["conditions"]},
        "calibration": {
            model: {corpus: row["ece"] for corpus, row in cards[model]["unseen"].items()}
            for model in ("undertone-four", "original")
        },
        "policies": rehearsed(),
    }


# --- pictures ---------------------------------------------------------------------------------


def set_up():
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({
        "svg.hashsalt": "undertone", "svg.fonttype": "path", "font.size": 10, "font.family": "DejaVu Sans",
        # Light, whatever the page's theme: the pictures bring their own paper.
        "figure.facecolor": "#fcfcfc", "savefig.facecolor": "#fcfcfc", "axes.facecolor": "#fcfcfc",
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": FAINT, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e3e3e3", "axes.axisbelow": True,
        "axes.titlesize": 10.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "legend.frameon": False,
        "figure.constrained_layout.w_pad": 0.12, "figure.constrained_layout.h_pad": 0.1,
    })  # fmt: skip
    from matplotlib import pyplot

    return pyplot


def unseen(plot, data):
    figure, axes = plot.subplots(layout="constrained", figsize=(7.2, 3.9))
    offsets = {"undertone-four": 0.22, "undertone-open": 0.0, "original": -0.22}
    for row, corpus in enumerate(reversed(CORPORA)):
        chance = 100 / data["undertone-four"]["unseen"][corpus]["classes"]
        axes.plot(
            [chance, chance],
            [row - 0.4, row + 0.4],
            color=FAINT,
            linewidth=1.5,
            linestyle=":",
            label="chance" if row == 0 else None,
        )
        for model, (colour, marker) in MODELS.items():
            found = data[model]["unseen"][corpus]
            y = row + offsets[model]
            low, high = found["interval"] or (found["ua"] - found["spread"], found["ua"] + found["spread"])
            axes.plot(
                [low, high],
                [y, y],
                color=colour,
                linewidth=2.2,
                solid_capstyle="round",
                linestyle="-" if found["interval"] else (0, (1.2, 1.2)),
            )
            label = f"{model} {data[model]['version']}" if row == 0 else None
            axes.plot(
                found["ua"],
                y,
                marker,
                color=colour,
                markersize=7,
                label=label,
                markerfacecolor="#fcfcfc" if found["new"] else colour,
            )
            axes.annotate(f"{found['ua']:.1f}", (max(high, found["ua"]) + 1.2, y), va="center", fontsize=8.5, color=INK)
    axes.set_yticks(
        range(len(CORPORA)),
        [
            f"{corpus}\n{data['undertone-four']['unseen'][corpus]['classes']:.0f} emotions"
            for corpus in reversed(CORPORA)
        ],
    )
    axes.set_xlim(0, 75)
    axes.set_xlabel("balanced accuracy on speakers who were not in training, %")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=4, fontsize=8.5, handletextpad=0.3, columnspacing=1.2)
    return figure


def random(plot, data):
    figure, axes = plot.subplots(layout="constrained", figsize=(7.2, 3.1))
    for row, corpus in enumerate(reversed(CORPORA)):
        for model, offset in (("undertone-four", 0.17), ("original", -0.17)):
            colour, marker = MODELS[model]
            y, (flattering, honest) = row + offset, data[model][corpus]
            axes.annotate(
                "", (honest + 0.9, y), (flattering, y), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.6}
            )
            axes.plot(flattering, y, marker, color=colour, markersize=6.5, markerfacecolor="#fcfcfc")
            axes.plot(honest, y, marker, color=colour, markersize=6.5, label=model if row == 0 else None)
            axes.annotate(f"{flattering:.1f}", (flattering + 1.4, y), va="center", fontsize=8.5)
            axes.annotate(f"{honest:.1f}", (honest - 1.4, y), va="center", ha="right", fontsize=8.5)
    axes.set_yticks(range(len(CORPORA)), list(reversed(CORPORA)))
    axes.set_xlim(25, 106)
    axes.set_xlabel("balanced accuracy, %: on a random split (hollow), on new speakers (filled)")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=2, fontsize=9)
    return figure


def course(plot, data):
    figure, axes = plot.subplots(layout="constrained", figsize=(7.2, 3.6))
    for corpus in CORPORA:
        colour, marker = STYLES[corpus]
        points = [(float(key.removesuffix(" s")), value) for key, value in data[corpus].items() if key.endswith(" s")]
        axes.plot(*zip(*points, strict=True), marker=marker, color=colour, linewidth=2, markersize=6, label=corpus)
    axes.set_xlabel("seconds of speech heard")
    axes.set_ylabel("balanced accuracy, %")
    axes.set_xlim(0, 3.15)
    axes.set_ylim(0, 70)
    axes.set_xticks([0.25, 0.5, 1, 1.5, 2, 3], ["0.25", "0.5", "1", "1.5", "2", "3"])
    axes.axvspan(0, 0.5, color="#000000", alpha=0.06, linewidth=0)
    axes.annotate("abstains\nby default", (0.02, 62), fontsize=8.5, color=INK)
    axes.legend(loc="lower right", ncols=2, fontsize=9)
    return figure


def recall(plot, data):
    figure, axes = plot.subplots(layout="constrained", figsize=(7.2, 2.7))
    values = [[data[corpus][emotion] for emotion in EMOTIONS] for corpus in CORPORA]
    shades = plot.get_cmap("Blues")
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if value is None:
                axes.annotate("–", (x, y), ha="center", va="center", color=FAINT)
                continue
            shade = shades(value / 110)
            axes.add_patch(plot.Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=shade, linewidth=0))
            axes.annotate(f"{value:.1f}", (x, y), fontsize=9, ha="center", va="center", color=legible(shade))
    axes.set_xticks(range(len(EMOTIONS)), EMOTIONS)
    axes.set_yticks(range(len(CORPORA)), CORPORA)
    axes.set_xlim(-0.5, len(EMOTIONS) - 0.5)
    axes.set_ylim(len(CORPORA) - 0.5, -0.5)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.xaxis.tick_top()
    return figure


def legible(shade):
    """Ink or white, whichever has the greater contrast on `shade` (WCAG 2)."""
    luminance = sum(
        w * (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4)
        for w, c in zip((0.2126, 0.7152, 0.0722), shade[:3], strict=True)
    )
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.066 else INK


def conditions(plot, data):
    figure, panels = plot.subplots(1, 4, layout="constrained", figsize=(7.2, 3.5), sharey=True)
    names = list(CONDITIONS)
    for axes, corpus in zip(panels, CORPORA, strict=True):
        for model, offset in (("undertone-four", -0.14), ("original", 0.14)):
            colour, marker = MODELS[model]
            found = data[model][corpus]
            axes.axvline(found["clean"], color=colour, linewidth=1.1, linestyle=":")
            points = [(found[key], index + offset) for index, key in enumerate(names) if found[key] is not None]
            axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=5.5, label=model)
        axes.set_title(corpus)
        axes.set_xlim(0, 70)
        axes.set_xticks([0, 20, 40, 60])
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(names)), list(CONDITIONS.values()))
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    figure.supxlabel("balanced accuracy on new speakers, % (dotted: as recorded)", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize=9)
    return figure


def calibration(plot, data):
    figure, axes = plot.subplots(layout="constrained", figsize=(7.2, 2.5))
    for row, corpus in enumerate(reversed(CORPORA)):
        for model, offset in (("undertone-four", 0.14), ("original", -0.14)):
            colour, marker = MODELS[model]
            value = 100 * data[model][corpus]
            axes.plot([0, value], [row + offset] * 2, color=colour, linewidth=2)
            axes.plot(value, row + offset, marker, color=colour, markersize=6.5, label=model if row == 0 else None)
            axes.annotate(f"{value:.1f}", (value + 0.7, row + offset), va="center", fontsize=8.5)
    axes.set_yticks(range(len(CORPORA)), list(reversed(CORPORA)))
    axes.set_xlim(0, 34)
    axes.set_xlabel("by how many points a probability is off (ECE), mean over folds")
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside upper center", ncols=2, fontsize=9)
    return figure


def policies(plot, data):
    shown = list(data)
    heights = [len(data[policy]["found"]) for policy in shown]
    figure, panels = plot.subplots(
        len(shown),
        2,
        layout="constrained",
        figsize=(7.2, 5.6),
        gridspec_kw={"height_ratios": heights, "width_ratios": [1.5, 1]},
    )
    colours = {"high": VERMILION, "medium": ORANGE, "advisory": SKY}
    markers = {"high": "s", "medium": "^", "advisory": "o"}
    for (left, right), policy in zip(panels, shown, strict=True):
        found, alarms = data[policy]["found"], data[policy]["alarms"]
        for index, (_, value, low, high) in enumerate(found):
            left.plot([low, high], [index, index], color=BLUE, linewidth=2.2)
            left.plot(value, index, "o", color=BLUE, markersize=6.5)
        left.set_yticks(range(len(found)), [label for label, *_ in found], fontsize=9)
        left.set_xlim(0, 100)
        left.set_title(policy)
        for index, (severity, value, low, high) in enumerate(alarms):
            right.plot([low, high], [index, index], color=colours[severity], linewidth=2.2)
            right.plot(value, index, markers[severity], color=colours[severity], markersize=6.5)
        right.set_yticks(range(len(alarms)), [severity for severity, *_ in alarms], fontsize=9)
        right.set_xlim(0, 1.6)
        for axes, count in ((left, len(found)), (right, len(alarms))):
            axes.set_ylim(count - 0.5, -0.5)
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
    panels[-1][0].set_xlabel("stretches found, % (95 %)")
    panels[-1][1].set_xlabel("false alarms per hour (95 %)")
    return figure


def digest(data):
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="draw nothing, say whether the figures have changed")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    shown = figures()
    if args.check:
        stale = [
            key
            for key, data in shown.items()
            if not (path := OUT / f"{key}.svg").exists() or f"figures {digest(data)}" not in path.read_text()
        ]
        if stale:
            raise SystemExit(f"docs/plots: {', '.join(stale)} shows old figures; run docs/plots.py")
        return
    plot = set_up()
    args.out.mkdir(exist_ok=True)
    for key, data in shown.items():
        figure = globals()[key](plot, data)
        path = args.out / f"{key}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None})
        plot.close(figure)
        text = re.sub(r"[ \t]+$", "", path.read_text(), flags=re.MULTILINE)
        path.write_text(text.replace("<svg ", f"<!-- docs/plots.py; figures {digest(data)} -->\n<svg ", 1))
        print(path)


if __name__ == "__main__":
    sys.exit(main())

"""The picture of a soak: memory, handles, sessions over time. Without matplotlib there is none."""

import pathlib


def draw(run: dict, path: pathlib.Path) -> bool:
    """Draws it; whether it could be drawn."""
    try:
        import matplotlib

        matplotlib.use("svg")
        import matplotlib.pyplot as plt
    except ImportError:
        return False
    samples = run["samples"]
    minutes = [sample["t"] / 60 for sample in samples]
    rows = [
        ("resident memory, MiB", [("resident", [sample["resident_kib"] / 1024 for sample in samples])]),
        ("streams, connections", [(name, [sample[name] for sample in samples]) for name in ("streams", "connections")]),
        ("handles, tasks, threads", [(n, [sample[n] for sample in samples]) for n in ("handles", "tasks", "threads")]),
        ("things that happened", [("happened", [sample["happened"] for sample in samples])]),
    ]
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "soak"})
    figure, axes = plt.subplots(len(rows), 1, sharex=True, figsize=(8, 8), constrained_layout=True)
    for axis, (title, lines) in zip(axes, rows, strict=True):
        for label, values in lines:
            axis.plot(minutes, values, linewidth=1, label=label)
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.axvspan(run["began_s"] / 60, run["warm_s"] / 60, alpha=0.08, color="grey")
        axis.axvline(run["over_s"] / 60, color="grey", linewidth=0.8, linestyle=":")
        if len(lines) > 1:
            axis.legend(frameon=False, ncols=len(lines), loc="lower right", bbox_to_anchor=(1, 0.97), borderaxespad=0)
    axes[-1].set_xlabel("minutes; grey: warm-up; dotted: the clients go")
    figure.suptitle(f"{run['streams']} streams for {run['seconds']} s", fontsize=10)
    figure.savefig(path, metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"), dpi=110)
    plt.close(figure)
    return True

"""What must be true after a soak. Each check names its figure, what it is and what it may be."""

import dataclasses
import re

# Resident memory may grow by so much from the first tenth after the warm-up to the last tenth. The allocator keeps
# what bursts of the crowd have needed (a stalled client holds up to a megabyte of HTTP/2's window, some twenty at
# once), and the store's page cache fills: both swing and end somewhere. A leak does not: one of 100 bytes for each
# stream, chunk and estimate of this load is 40 MiB in twenty minutes.
MOST_GROWTH_KIB = 12 * 1024
# Its slope over the same time, for runs of at least ten minutes: shorter ones have no slope worth the name.
MOST_SLOPE_KIB_PER_MIN = 512
SLOPE_FROM_S = 600
# Share of a run that is warm-up: buffers, pools and caches find their sizes.
WARM_UP = 0.25
# Descriptors that may be open when idle beyond those before: connections that are kept for the next delivery (8 at
# once at most, for 90 s), and the store's readers (4, of up to 3 files each), opened when first needed.
MOST_HANDLES = 8 + 12
# Threads: one for each of the store's readers.
MOST_THREADS = 4
# Tasks: one for each kept connection to the receiver.
MOST_TASKS = 8
# Chunks of the mass that may leave late: the generators share the machine with the server.
MOST_MISSED = 0.001

# Lines of the log at WARN or above that such a load explains, and why.
EXPLAINED = [
    (r"^trained on data that may not be used commercially", "the embedded model says so at every start"),
    (r"budget of escalations is spent", "a stream of twenty minutes may use up its policy's budget"),
]


@dataclasses.dataclass
class Check:
    what: str
    is_: object
    may_be: str
    good: bool


def mean(samples: list[dict], name: str) -> float:
    return sum(sample[name] for sample in samples) / max(1, len(samples))


def slope_per_min(samples: list[dict], name: str) -> float:
    """Least squares."""
    t, y = mean(samples, "t"), mean(samples, name)
    spread = sum((sample["t"] - t) ** 2 for sample in samples)
    return 60 * sum((sample["t"] - t) * (sample[name] - y) for sample in samples) / spread if spread else 0.0


def growth(samples: list[dict], name: str) -> float:
    """From the first tenth to the last."""
    tenth = max(1, len(samples) // 10)
    return mean(samples[-tenth:], name) - mean(samples[:tenth], name)


def unexplained(lines: list[dict]) -> list[str]:
    """Lines of the log that nobody expects."""
    found = []
    for line in lines:
        message = line.get("fields", {}).get("message", "")
        known = any(re.search(pattern, message) for pattern, _ in EXPLAINED)
        if line["level"] in ("WARN", "ERROR") and not known:
            found.append(f"{line['level']} {message} {line['fields']}"[:300])
    return found


def judge(run: dict, limits: dict) -> list[Check]:
    """All checks of a run; see `__main__` for what is in it."""
    checks: list[Check] = []

    def most(what: str, value: float, limit: float, unit: str = "") -> None:
        checks.append(Check(what, round(value, 3), f"at most {limit:g}{unit}", value <= limit))

    def same(what: str, value: object, wanted: object) -> None:
        checks.append(Check(what, value, f"{wanted}", value == wanted))

    load = run["load"]
    for name in ("mass", "watched"):
        report = load[name]
        if "failed" in report:
            same(f"{name}: result", report["failed"], "a report")
            continue
        same(f"{name}: streams that ended badly", report["errors"], 0)
        if report["errors"]:
            same(f"{name}: why", report["error_reasons"], {})
        checks.append(Check(f"{name}: estimates", report["estimates"], "some", report["estimates"] > 0))
        most(f"{name}: p99 of the latency", (report["latency_ms"] or {}).get("p99", float("inf")), limits["p99_ms"], " ms")
        share = report["missed_pace"] / max(1, report["chunks"])
        most(f"{name}: share of chunks that left late", share, limits["missed"])
    crowd = load["crowd"]
    if "failed" in crowd:
        same("crowd: result", crowd["failed"], "a report")
    else:
        same("crowd: what went wrong that should not have", crowd["wrong"][:10], [])
        least = limits["ways"]
        checks.append(Check("crowd: ways to behave", len(crowd["done"]), f"at least {least}", len(crowd["done"]) >= least))

    warm = [sample for sample in run["samples"] if run["warm_s"] <= sample["t"] <= run["over_s"]]
    run["resident"] = {
        "start_kib": mean(warm[: max(1, len(warm) // 10)], "resident_kib"),
        "growth_kib": growth(warm, "resident_kib"),
        "slope_kib_per_min": slope_per_min(warm, "resident_kib"),
        "most_kib": max((sample["resident_kib"] for sample in warm), default=0.0),
    }
    checks.append(Check("samples under load", len(warm), "some", len(warm) > 3))
    most("resident memory: growth after the warm-up", run["resident"]["growth_kib"], MOST_GROWTH_KIB, " KiB")
    if run["over_s"] - run["warm_s"] >= SLOPE_FROM_S:
        most("resident memory: slope", run["resident"]["slope_kib_per_min"], MOST_SLOPE_KIB_PER_MIN, " KiB/min")
    most("looks at the server that failed", run["missed_samples"], max(1, len(run["samples"]) // 100))

    idle, before = run["idle"], run["idle_before"]
    same("sessions listed when all have gone", run["sessions"], 0)
    same("streams when all have gone", idle["streams"], 0)
    same("connections of clients when all have gone", idle["connections"], 0)
    most("tasks when all have gone, beyond those before", idle["tasks"] - before["tasks"], MOST_TASKS)
    most("handles when all have gone, beyond those before", idle["handles"] - before["handles"], MOST_HANDLES)
    most("threads when all have gone, beyond those before", idle["threads"] - before["threads"], MOST_THREADS)

    same("escalations that could not be recorded", idle["lost"], 0)
    same("changes that wait for the store", idle["waiting"], 0)
    same("the store is up", idle["store_up"], 1)
    same("deliveries that have not arrived", idle["outstanding"], 0)
    checks.append(Check("things that happened to escalations", idle["happened"], "some", idle["happened"] > 0))
    same("of them delivered", run["delivered"], int(idle["happened"]))

    same("lines of the log that nobody expects", run["unexplained"][:10], [])
    same("exit code after SIGTERM", run["exit_code"], 0)
    return checks

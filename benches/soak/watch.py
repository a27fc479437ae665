"""What the server holds, once a second: memory, handles, threads, and what its own metrics say."""

import pathlib
import re
import threading
import time
import urllib.error

from server import Server

PERIOD_S = 1.0
# Of the metrics page, each summed over its labels.
READ = {
    "tasks": "undertone_runtime_tasks",
    "streams": "undertone_streams_active",
    "connections": "undertone_connections_active",
    "happened": "undertone_escalations_total",
    "lost": "undertone_escalations_lost_total",
    "waiting": "undertone_store_waiting",
    "outstanding": "undertone_delivery_outstanding",
    "in_force": "undertone_escalations_in_force",
    "store_up": "undertone_store_up",
    "cpu_s": "process_cpu_time_seconds_total",
}
LINE = re.compile(r"^([a-z_]+)(\{[^}]*\})? (\S+)$")


def parse(page: str) -> dict[str, float]:
    """Prometheus' text format: each name with the sum over its labels, and connections by port."""
    sums: dict[str, float] = {}
    for line in page.splitlines():
        found = LINE.match(line)
        if not found:
            continue
        name, labels, value = found.groups()
        names = [name]
        if name == READ["connections"] and labels:
            names = [f"{name}:{'grpc' if 'grpc' in labels else 'http'}"]
        for each in names:
            sums[each] = sums.get(each, 0.0) + float(value)
    return sums


class Watch:
    """Takes samples until it is stopped."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.samples: list[dict[str, float]] = []
        self.missed = 0
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> "Watch":
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)

    @property
    def now(self) -> float:
        """Seconds since the first sample, as samples have them."""
        return time.monotonic() - self._began

    def _run(self) -> None:
        while not self._stop.is_set():
            due = time.monotonic() + PERIOD_S
            try:
                self.samples.append(self.take())
            except (OSError, urllib.error.URLError):
                # A port that does not answer in time is counted, and judged in the end.
                self.missed += 1
            self._stop.wait(max(0.0, due - time.monotonic()))

    def take(self) -> dict[str, float]:
        """One sample."""
        page = parse(self.server.get("/metrics"))
        process = pathlib.Path(f"/proc/{self.server.process.pid}")
        status = process.joinpath("status").read_text()
        field = lambda name: float(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1])
        sample = {name: page.get(metric, 0.0) for name, metric in READ.items()}
        sample["connections"] = page.get(f"{READ['connections']}:grpc", 0.0)
        return {
            "t": self.now, "resident_kib": field("VmRSS"), "threads": field("Threads"),
            "handles": float(len(list(process.joinpath("fd").iterdir()))), **sample,
        }  # fmt: skip

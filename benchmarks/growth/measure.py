"""Measure how requests and searches grow with the size of the catalogue.

python benchmarks/growth/measure.py --items 10k 100k 1M --out growth/

Needs tlrec-edge[build], and [bench] for the plot. Writes bundles, ``growth.json`` and
``growth.svg`` to ``--out``; bundles are used again. All sizes are open at once and take turns
in random order, on one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge import ItemRows, Recommender
from tlrec_edge.bench.machine import fingerprint
from tlrec_edge.bench.synth_config import SynthConfig

TASKS = {
    "request": "request: history of 50, 100 candidates",
    "index": "top-10, default",
    "exact": "top-10, exhaustive=True",
}
LENGTH, ASKED, QUESTIONS = 50, 100, 32
TURN_NS, MOST = 20e6, 20
UNITS = {"k": 1_000, "m": 1_000_000}


def count(text: str) -> int:
    """Read "10k", "1M" or a plain number."""
    unit = UNITS.get(text[-1:].lower(), 1)
    return int(float(text.rstrip("kKmM")) * unit)


def make(items: int, folder: Path, wide: int) -> dict[str, Any]:
    """Write the bundle of one size unless it exists; return its bytes and the seconds it took."""
    path, noted = folder / f"bundle-{items}-{wide}", folder / f"bundle-{items}-{wide}.json"
    if not noted.is_file():
        since = time.monotonic()
        edge = str(Path(sys.executable).with_name("tlrec-edge"))
        command = [edge, "synth", "--items", str(items), "--wide", str(wide), "--out", str(path)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        size = sum(file.stat().st_size for file in path.iterdir())
        found = {"path": path.name, "bytes": size, "written_s": round(time.monotonic() - since, 1)}
        noted.write_text(json.dumps(found))
    made: dict[str, Any] = json.loads(noted.read_text())
    return made


class Size:
    """An open catalogue with its requests, as rows and states."""

    def __init__(self, items: int, path: Path) -> None:
        rng, since = np.random.default_rng(0), time.perf_counter()
        self.rec = Recommender.open(path, cache=0, threads=1)
        self.rec.score(["SKU00000001"], ["SKU00000002"])
        self.open_ms = (time.perf_counter() - since) * 1000
        clusters = SynthConfig(items).clusters
        # A history has items of three clusters; candidates are drawn from the whole catalogue.
        tastes = np.tile(rng.integers(0, clusters, (QUESTIONS, 3)), (1, LENGTH))[:, :LENGTH]
        self.histories = self._rows(
            tastes + clusters * rng.integers(0, items // clusters, tastes.shape)
        )
        self.candidates = self._rows(rng.integers(0, items, (QUESTIONS, ASKED)))
        self.states = [self.rec.user_state(history) for history in self.histories]
        self.at = 0

    def _rows(self, items: Any) -> list[ItemRows]:
        return [self.rec.rows([f"SKU{row:08d}" for row in rows]) for rows in items.tolist()]

    def ask(self, task: str) -> None:
        at = self.at = (self.at + 1) % QUESTIONS
        if task == "request":
            self.rec.score(self.histories[at], self.candidates[at])
        else:
            self.rec.recommend(self.states[at], 10, exhaustive=task == "exact")


def turns(sizes: dict[int, Size], seconds: float) -> dict[tuple[int, str], list[int]]:
    """Return nanoseconds of each task at each size; the first call of a turn is not counted."""
    rng, pairs = np.random.default_rng(0), [(items, task) for items in sizes for task in TASKS]
    taken: dict[tuple[int, str], list[int]] = {pair: [] for pair in pairs}

    def turn(items: int, task: str, calls: int) -> list[int]:
        found, ask, clock = [], sizes[items].ask, time.perf_counter_ns
        for _ in range(calls + 1):
            start = clock()
            ask(task)
            found.append(clock() - start)
        return found[1:]

    calls = {pair: int(np.clip(TURN_NS / np.median(turn(*pair, 3)), 2, MOST)) for pair in pairs}
    until = time.monotonic() + seconds * len(pairs)
    while time.monotonic() < until:
        for items, task in (pairs[at] for at in rng.permutation(len(pairs))):
            taken[items, task] += turn(items, task, calls[items, task])
    return taken


def slopes(sizes: list[int], us: Callable[[int, str], float]) -> dict[str, float]:
    """Return the exponent of each task: time grows as items to this power, by least squares."""
    logs = np.log(sizes)
    return {
        task: float(np.polyfit(logs, np.log([us(items, task) for items in sizes]), 1)[0])
        for task in TASKS
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--items", nargs="+", type=count, default=[10_000, 30_000, 100_000, 300_000, 1_000_000]
    )
    parser.add_argument("--wide", type=int, default=20, help="item-item weights a row, at most")
    parser.add_argument(
        "--seconds", type=float, default=3.0, help="time for each task at each size"
    )
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    made = {items: make(items, given.out, given.wide) for items in sorted(given.items)}
    sizes = {items: Size(items, given.out / entry["path"]) for items, entry in made.items()}
    taken = turns(sizes, given.seconds)

    def us(items: int, task: str) -> float:
        return float(np.median(taken[items, task])) / 1000

    rows = []
    for items, size in sizes.items():
        times = {
            task: {"us": round(us(items, task), 1), "calls": len(taken[items, task])}
            for task in TASKS
        }
        rows.append(
            {"items": items, **made[items], "open_ms": round(size.open_ms, 1), "tasks": times}
        )
    powers = (
        {task: round(power, 2) for task, power in slopes(list(sizes), us).items()}
        if len(sizes) > 1
        else {}
    )
    found = {"machine": vars(fingerprint()), "sizes": rows, "powers": powers}
    (given.out / "growth.json").write_text(json.dumps(found, indent=1))
    show(found)
    try:
        draw(found, given.out / "growth.svg")
    except ImportError as error:
        print(f"no plot: {error}")
    return found


def show(found: dict[str, Any]) -> None:
    print(
        "| items | MB | open, first answer ms | "
        + " | ".join(f"{task} us" for task in TASKS)
        + " |"
    )
    print("|---" * (3 + len(TASKS)) + "|")
    for row in found["sizes"]:
        times = " | ".join(f"{row['tasks'][task]['us']:,.0f}" for task in TASKS)
        print(f"| {row['items']:,} | {row['bytes'] / 1e6:,.0f} | {row['open_ms']:.0f} | {times} |")
    print(
        "| power of items | | | "
        + " | ".join(f"{found['powers'].get(task, '')}" for task in TASKS)
        + " |"
    )


def draw(found: dict[str, Any], path: Path) -> None:
    """Write the times over the sizes, on logarithmic axes, with a name at the end of each line."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot
    from matplotlib.ticker import EngFormatter

    with pyplot.rc_context({"svg.hashsalt": "growth", "svg.fonttype": "none", "font.size": 10}):
        figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
        items = [row["items"] for row in found["sizes"]]
        for task, colour in zip(TASKS, ("#1f6feb", "#1a7f4b", "#d9730d"), strict=True):
            median = [row["tasks"][task]["us"] * 1e-6 for row in found["sizes"]]
            axes.loglog(items, median, "o-", color=colour, markersize=4)
            end = items[-1], median[-1]
            axes.annotate(
                TASKS[task], end, (-4, 8), textcoords="offset points", color=colour, ha="right"
            )
        axes.set(xlabel="items", ylabel="median, one thread", ylim=(None, axes.get_ylim()[1] * 2))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_major_formatter(EngFormatter("s"))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#d9d8d0", linewidth=0.6)
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


if __name__ == "__main__":
    main()

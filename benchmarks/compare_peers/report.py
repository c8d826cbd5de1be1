"""The figures as markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Found = dict[str, Any]
_MB = 1e6


def markdown(results: Found) -> str:
    """Return the whole report."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Found) -> Iterator[str]:
    machine, noise = results["machine"], results["noise"]
    yield f"# tlrec-edge {machine['tlrec_edge']} and its peers"
    yield ""
    flags, load = ", ".join(machine["flags"]), noise["load"]
    stolen = "an unknown share" if noise["stolen"] is None else f"{noise['stolen']:.1%}"
    yield f"{machine['cpu']}, {machine['usable_cores']} cores ({flags}), Python {machine['python']},"
    yield f"numpy {machine['numpy']}, onnxruntime {machine['onnxruntime']}; {results['sizes'][0]:,} and"
    yield f"{results['sizes'][1]:,} items where a row says 100k and 1M. One thread; all answer the same questions"
    yield "in turns, each in a process of its own. `cpu` above 1: more than one thread ran. USS counts pages of mapped"
    yield "files that nobody else maps at the time; what a process wrote itself is beside it."
    yield f"The slowest tenth of equal loops took {1 + noise['spread']:.2f} x the fastest;"
    yield f"the host took {stolen} of the time;"
    yield f"load {load[0]:.1f} before, {load[1]:.1f} after."
    yield ""
    yield "| what | against | asked | found | with id mapping | |"
    yield "|---|---|---|---|---|---|"
    for row in results["rows"].values():
        for target in row.get("targets", ()):
            yield _target(row, target)
        for limit in row.get("limits", ()):
            yield _limit(row, limit)
    for row in results["rows"].values():
        yield from _row(row)
    abouts = {
        name: own["about"]
        for row in results["rows"].values()
        for name, own in row["contenders"].items()
    }
    yield ""
    yield "## How each is run"
    yield ""
    yield from (f"- {name}: {about}" for name, about in sorted(abouts.items()))
    reasons = {
        name: why for row in results["rows"].values() for name, why in row["missing"].items()
    }
    yield ""
    yield "## Not measured"
    yield ""
    yield from (f"- {name}: {why}" for name, why in sorted(reasons.items()))
    if not reasons:
        yield "Nobody is missing."


def _target(row: Found, target: Found) -> str:
    unit = " us" if target["added"] else " x"

    def show(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}{unit}"

    if target["found"] is None:
        return f"| {row['title']} | {target['text']} | {show(target['most'])} | not measured | | |"
    against = target["text"] + (
        f" ({target['best']})" if target["best"] not in target["text"] else ""
    )
    if target["missing"]:
        against += f", without {', '.join(target['missing'])}"
    verdict = "met" if target["found"] <= target["most"] else "**missed**"
    return (
        f"| {row['title']} | {against} | {show(target['most'])} | {show(target['found'])} | {show(target['named'])} |"
        f" {verdict} |"
    )


def _limit(row: Found, limit: Found) -> str:
    unit = _MB if limit["text"].startswith("MB") else 1
    if limit["found"] is None:
        return (
            f"| {row['title']} | {limit['text']} | {limit['most'] / unit:.3g} | not measured | | |"
        )
    verdict = "met" if limit["found"] <= limit["most"] else "**missed**"
    return f"| {row['title']} | {limit['text']} | {limit['most'] / unit:.3g} | {limit['found'] / unit:.3g} | | {verdict} |"


def _row(row: Found) -> Iterator[str]:
    yield ""
    yield f"## {row['title']}"
    yield ""
    yield "| contender | task | median us | p10 | p99 | of ours | cpu | answers | first answer s | USS MB | written |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    first = next(
        (own["tasks"] for name, own in row["contenders"].items() if name == "tlrec-edge"), {}
    )
    ours = next((timed["median"] for timed in first.values() if timed), None)
    for name, own in row["contenders"].items():
        if name in row["wrong"]:  # told below
            continue
        answers = ", ".join(
            f"{k} {own[k]:.3g}" for k in ("error", "recall@10", "recall@100", "effort") if k in own
        )
        if own.get("reached") is False:
            answers += ", recall not reached"
        memory = " | ".join(
            f"{own[kind] / _MB:.0f}" if kind in own else "" for kind in ("uss", "dirty")
        )
        start = f"{answers} | {own['seconds']:.2f} | {memory}"
        if not own["tasks"]:
            yield f"| {name} | | | | | | | {start} |"
        for task, timed in own["tasks"].items():
            ratio = "" if ours is None else f"{timed['median'] / ours:.2f}"
            yield (
                f"| {name} | {task} | {timed['median']:.1f} | {timed['p10']:.1f} | {timed['p99']:.1f} | {ratio} |"
                f" {timed['cpu']:.2f} | {start} |"
            )
            start = " | | | "
    for name, why in row["wrong"].items():
        yield f"| {name} | **wrong, not timed**: {why} | | | | | | | | | |"
    for name in row["missing"]:
        yield f"| {name} | not measured, see below | | | | | | | | | |"

"""The results as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .rows import OURS

Result = dict[str, Any]
_MB = 1e6


def markdown(results: Result) -> str:
    """Return the report."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Result) -> Iterator[str]:
    rows = results["rows"].values()
    yield from _head(results)
    yield from _targets(rows)
    yield from _before(results)
    for row in rows:
        yield from _row(row)
    abouts = {
        name: contender["about"] for row in rows for name, contender in row["contenders"].items()
    }
    yield from ("", "## How each is run", "")
    yield from (f"- {name}: {about}" for name, about in sorted(abouts.items()))
    reasons = {name: why for row in rows for name, why in row["missing"].items()}
    yield from ("", "## Not measured", "")
    yield from (f"- {name}: {why}" for name, why in sorted(reasons.items()))
    if not reasons:
        yield "Every contender was measured."


def _head(results: Result) -> Iterator[str]:
    machine, noise = results["machine"], results["noise"]
    small, large = results["sizes"]
    load_before, load_after = noise["load"]
    stolen = "an unknown share" if noise["stolen"] is None else f"{noise['stolen']:.1%}"
    flags = ", ".join(machine["flags"])
    yield f"# tlrec-edge {machine['tlrec_edge']} and its peers"
    yield f"""
{machine["cpu"]}, {machine["usable_cores"]} cores ({flags}),
Python {machine["python"]}, numpy {machine["numpy"]}, onnxruntime {machine["onnxruntime"]}.
100k stands for {small:,} items and 1M for {large:,}. Every contender has one thread and a
process of its own; they answer the same requests in turns. `cpu` above 1: several threads ran.
USS includes pages of mapped files that no other process maps at the time; `written` are the pages
that the process wrote. The slowest tenth of equal loops took {1 + noise["spread"]:.2f} times as
long as the fastest; the host took {stolen} of the time; the load was {load_before:.1f} before and
{load_after:.1f} after."""


def _targets(rows: Any) -> Iterator[str]:
    yield ""
    yield "| what | against | target | measured | with id mapping | |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        for target in row.get("targets", ()):
            yield _target(row, target)
        for limit in row.get("limits", ()):
            yield _limit(row, limit)


def _target(row: Result, target: Result) -> str:
    unit = " us" if target["added"] else " x"

    def show(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}{unit}"

    if target["found"] is None:
        return f"| {row['title']} | {target['text']} | {show(target['most'])} | not measured | | |"
    against = target["text"]
    if target["best"] not in against:
        against += f" ({target['best']})"
    if target["missing"]:
        against += f", without {', '.join(target['missing'])}"
    cells = [row["title"], against, *(show(target[key]) for key in ("most", "found", "named"))]
    return f"| {' | '.join(cells)} | {_verdict(target)} |"


def _limit(row: Result, limit: Result) -> str:
    unit = _MB if limit["text"].startswith("MB") else 1
    start = f"| {row['title']} | {limit['text']} | {limit['most'] / unit:.3g}"
    if limit["found"] is None:
        return f"{start} | not measured | | |"
    return f"{start} | {limit['found'] / unit:.3g} | | {_verdict(limit)} |"


def _verdict(judged: Result) -> str:
    return "met" if judged["found"] <= judged["most"] else "**missed**"


def _before(results: Result) -> Iterator[str]:
    """Show how the older version compares, if one was measured."""
    ratios = [(row["title"], r) for row in results["rows"].values() for r in row.get("ratios", ())]
    if not ratios:
        return
    first = ratios[0][1]
    yield from ("", "## Now and before", "")
    rounds = len(first["rounds"])
    yield f"The older version is `{results['before']}`. Each of {rounds} rounds starts"
    yield "both versions anew and gives one ratio. The interval is that of the median ratio, at"
    yield f"{first['confidence']:.0%} confidence; above 1 means that this checkout is slower."
    yield ""
    head = "what | contender | task | before us | now us | now / before | interval | all rounds"
    yield f"| {head} |"
    yield "|---|---|---|---|---|---|---|---|"
    for title, r in ratios:
        medians = f"{r['before']:.1f} | {r['now']:.1f} | {r['ratio']:.3f}"
        interval = f"{r['low']:.3f} .. {r['high']:.3f}"
        spread = f"{r['rounds'][0]:.3f} .. {r['rounds'][-1]:.3f}"
        name = f"{title} | {r['contender']} | {r['task']}"
        yield f"| {name} | {medians} | {interval} | {spread} |"


_COLUMNS = (
    *("contender", "task", "median us", "p10", "p99", "of ours", "cpu"),
    *("answers", "first answer s", "USS MB", "written MB"),
)


def _row(row: Result) -> Iterator[str]:
    yield from ("", f"## {row['title']}", "")
    yield f"| {' | '.join(_COLUMNS)} |"
    yield "|---" * len(_COLUMNS) + "|"
    ours = row["contenders"].get(OURS, {}).get("tasks", {})
    median = next((timed["median"] for timed in ours.values() if timed), None)
    for name, contender in row["contenders"].items():
        if name not in row["wrong"]:
            yield from _contender(name, contender, median)
    blank = " |" * (len(_COLUMNS) - 2)
    for name, why in row["wrong"].items():
        yield f"| {name} | **wrong, not timed**: {why} |{blank}"
    for name in row["missing"]:
        yield f"| {name} | not measured, see below |{blank}"


def _contender(name: str, contender: Result, our_median: float | None) -> Iterator[str]:
    keys = [key for key in ("error", "recall@10", "recall@100", "effort") if key in contender]
    answers = ", ".join(f"{key} {contender[key]:.3g}" for key in keys)
    if contender.get("reached") is False:
        answers += ", recall not reached"
    sizes = (f"{contender[key] / _MB:.0f}" if key in contender else "" for key in ("uss", "dirty"))
    end = " | ".join([answers, f"{contender['seconds']:.2f}", *sizes])
    if not contender["tasks"]:
        yield f"| {name} | | | | | | | {end} |"
    for task, timed in contender["tasks"].items():
        ratio = "" if our_median is None else f"{timed['median'] / our_median:.2f}"
        times = " | ".join(f"{timed[key]:.1f}" for key in ("median", "p10", "p99"))
        yield f"| {name} | {task} | {times} | {ratio} | {timed['cpu']:.2f} | {end} |"
        end = " | | | "

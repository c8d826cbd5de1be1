"""From results, such as those of the demo, to one page; a part without results is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tlrec_edge.report import lab_plots, plots
from tlrec_edge.report.html import (
    Cell,
    Data,
    Table,
    cards,
    document,
    facts,
    latency_table,
    machine_line,
    noise_line,
    notes,
    paragraph,
    plot_grid,
    section,
    startup_table,
)
from tlrec_edge.report.words import microseconds, number, sign_class, significant, size, text

_DEFAULT_TITLE = "tlrec-edge report"
_DRAWN_SLICES = ("history", "period", "popularity", "domain")
"""Slices that are drawn; the others have few rows and are only in the JSON."""
_METRICS = {
    "ndcg@10.by_user": "mean by user",
    "hr@10": "HR@10",
    "mrr@10": "MRR@10",
    "auc": "AUC",
    "full.ndcg@10": "NDCG@10 among all",
    "coverage@10": "catalogue coverage",
}
"""Key of a metric -> its column, shown if a row has it."""
_PARITY = {
    "max_error": "largest difference of a score, float path from the trained model",
    "top10_overlap": "overlap of the ten best",
    "users": "histories compared",
    "exact_error": "largest difference of a score, deterministic path from the float path",
    "exact_max_error": "largest difference of a score, deterministic path from the float path",
    "exact_rms_share": "root mean square of that difference over the spread of scores",
    "exact_bound": "proven bound of that difference",
}
_CARD_CANDIDATES, _MAX_LATENCY_CARDS = 100, 2


def render(data: Data) -> str:
    """Return one HTML file that loads nothing.

    Raises MissingExtraError if matplotlib is not installed.
    """
    title = text(data.get("title") or _DEFAULT_TITLE)
    body = "\n".join(part for part in (make(data) for make in _SECTIONS) if part)
    return document(title, body)


def _lead(data: Data) -> str:
    dataset = data.get("dataset") or {}
    name = [text(dataset["name"])] if dataset.get("name") else []
    counts = [
        f"{number(dataset[key])} {key}"
        for key in ("users", "items", "interactions")
        if key in dataset
    ]
    target = f"; target: {text(data['target'])}" if data.get("target") else ""
    words = "".join(paragraph(text(line)) for line in data.get("plain_words") or [])
    boxed = f'<div class="words">{words}</div>' if words else ""
    return paragraph(", ".join(name + counts) + target, "soft") + boxed + cards(_cards(data))


def _cards(data: Data) -> list[tuple[str, str]]:
    found = []
    for part in data.get("sections") or []:
        for row in (part.get("lift") or [])[:1]:
            pair = f"{text(row.get('of'))} over {text(row.get('over'))}"
            what = f"NDCG@10, {pair}: {text(part.get('title'))}"
            found.append((number(row.get("ndcg@10"), sign=True), what))
    bench = data.get("bench") or {}
    rows = [row for row in bench.get("rows") or [] if row.get("scored") == _CARD_CANDIDATES]
    for row in rows[:_MAX_LATENCY_CARDS]:
        state = "history encoded" if row.get("state") == "encoded" else "state given"
        time = f"{microseconds(row['latency_us'].get('p50'))} µs"
        found.append((time, f"median for {_CARD_CANDIDATES} candidates, {state}"))
    if bench.get("bytes"):
        found.append((size(bench["bytes"]), "size of the bundle"))
    error = (data.get("parity") or {}).get("max_error")
    if error is not None:
        what = "largest difference from the trained model's score"
        found.append((significant(error), what))
    return found


def _quality(data: Data) -> str:
    return "\n".join(_section(part) for part in data.get("sections") or [])


def _section(part: Data) -> str:
    title, rows = str(part.get("title", "")), part.get("rows") or []
    lifts, slices = part.get("lift") or [], part.get("slices") or []
    counts = [
        f"{number(part[key])} {word}"
        for key, word in (("users", "users"), ("tests", "test rows"))
        if key in part
    ]
    slice_plots = [
        plots.slices(kind, [row for row in slices if row.get("by") == kind])
        for kind in _DRAWN_SLICES
    ]
    body = [
        paragraph(", ".join(counts), "soft"),
        paragraph(text(part.get("note") or "")),
        notes(part),
        plot_grid(plots.quality(title, rows), plots.lift(title, lifts)),
        _quality_table(rows),
        _lift_table(lifts),
        plot_grid(*slice_plots),
    ]
    return f"<h2>{text(title)}</h2>{''.join(body)}"


def _quality_table(rows: Sequence[Data]) -> str:
    best = max((row.get("ndcg@10") or 0.0 for row in rows), default=0.0)
    columns = {key: name for key, name in _METRICS.items() if any(key in row for row in rows)}
    table = Table(["model", "NDCG@10 ± SE", *columns.values()])
    for row in rows:
        is_best = best > 0 and row.get("ndcg@10") == best
        table.add(
            text(row.get("name")),
            _with_error(row),
            *(number(row.get(key)) for key in columns),
            style="best" if is_best else "",
        )
    return table.html()


def _with_error(row: Data) -> str:
    error = row.get("ndcg@10.se")
    small = "" if error is None else f" <small>± {number(error)}</small>"
    return number(row.get("ndcg@10")) + small


def _lift_table(rows: Sequence[Data]) -> str:
    table = Table(["lift", "NDCG@10", "verdict", "SE", "95 % interval"], text_columns=(2,))
    for row in rows:
        low, high = plots.interval(row) if row.get("ndcg@10") is not None else (0.0, 0.0)
        table.add(
            f"{text(row.get('of'))} over {text(row.get('over'))}",
            Cell(number(row.get("ndcg@10"), sign=True), sign_class(low, high)),
            text(row.get("verdict")),
            number(row.get("se")),
            f"{number(low, sign=True)} to {number(high, sign=True)}",
        )
    return table.html()


def _curve(data: Data) -> str:
    points = data.get("curve") or []
    by_name = [
        {str(line.get("name", "")): line for line in point.get("lines") or []} for point in points
    ]
    names = list(dict.fromkeys(name for lines in by_name for name in lines))
    table = Table(
        ["share", "users", "rows", *map(text, names)], caption="NDCG@10 on the test rows ± SE."
    )
    lifts = []
    for point, lines in zip(points, by_name, strict=True):
        share = f"{100 * point['share']:g} %"
        counts = number(point.get("users")), number(point.get("rows"))
        table.add(share, *counts, *(_with_error(lines.get(name, {})) for name in names))
        if point.get("lift"):
            lifts.append({**point["lift"], "of": f"{share}: {point['lift'].get('of')}"})
    return section(
        "Quality by amount of target data", plots.curve(points), table.html(), _lift_table(lifts)
    )


def _compression(data: Data) -> str:
    rows = data.get("compression") or []
    table = Table(
        ["model", "metric", "ratio ± SE", "size", "p50 µs", "", "reason"], text_columns=(5, 6)
    )
    for row in rows:
        error = f" <small>± {number(row['se'], 3)}</small>" if row.get("se") else ""
        table.add(
            text(row.get("step")),
            number(row.get("value")),
            number(row.get("ratio"), 3) + error,
            text(None) if row.get("bytes") is None else size(row["bytes"]),
            number((row.get("us") or {}).get("p50"), 0),
            Cell("chosen", "good") if row.get("kept") else "front" if row.get("front") else "",
            text(row.get("why")),
        )
    grid = plot_grid(
        plots.pareto_front(rows),
        plots.ratios(rows),
        lab_plots.sizes(data.get("sizes") or [], "models"),
    )
    note = paragraph(text(data.get("compression_note") or "")) if rows else ""
    return section("Compression", note, grid, table.html())


def _parity(data: Data) -> str:
    table = Table(["", ""])
    for key, value in (data.get("parity") or {}).items():
        shown = significant(value) if isinstance(value, float) else number(value)
        table.add(_PARITY.get(key, text(key)), shown)
    return section("Does the bundle score like the model?", table.html())


def _bench(data: Data) -> str:
    bench = data.get("bench") or {}
    if not bench:
        return ""
    rows = bench.get("rows") or []
    files = [{"name": name, "bytes": value} for name, value in (bench.get("files") or {}).items()]
    return section(
        "Latency, memory, size",
        noise_line(bench) if (bench.get("noise") or {}).get("noisy") else "",
        plot_grid(lab_plots.latency(rows), lab_plots.sizes(files, "parts of the bundle")),
        latency_table(rows, "Microseconds; MLPerf-style, unofficial."),
        startup_table(bench.get("startup") or {}),
        machine_line(bench.get("machine") or {}),
        notes(bench),
    )


def _recommendations(data: Data) -> str:
    people = "".join(_person(person) for person in data.get("recommendations") or [])
    return section("Recommendations", f'<div class="people">{people}</div>' if people else "")


def _person(person: Data) -> str:
    items = "".join(
        f"<li>{text(item.get('name'))} <small>{number(item.get('score'), 3)}</small></li>"
        for item in person.get("items") or []
    )
    history = ", ".join(text(name) for name in person.get("history") or []) or "nothing"
    head = f"<h3>{text(person.get('user'))}</h3>" + paragraph(f"bought before: {history}", "soft")
    return f'<div class="person">{head}<ol>{items}</ol></div>'


def _training(data: Data) -> str:
    return section("Training", plots.training(data.get("training") or []))


def _dataset(data: Data) -> str:
    dataset = data.get("dataset") or {}
    table = Table(["reason to drop a row", "rows"])
    for reason, count in (dataset.get("cleaning") or {}).items():
        table.add(text(reason), number(count))
    return section("Data", paragraph(text(dataset.get("note") or "")), table.html())


def _reproduce(data: Data) -> str:
    commands = "\n".join(text(command) for command in data.get("commands") or [])
    versions = facts(data.get("versions") or {})
    shown = section("Run it again", f"<pre>{commands}</pre>" if commands else "")
    return shown + (f"<footer>{versions}</footer>" if versions else "")


_SECTIONS: tuple[Callable[[Data], str], ...] = (
    _lead,
    _curve,
    _quality,
    _compression,
    _parity,
    _bench,
    _recommendations,
    _training,
    _dataset,
    _reproduce,
)

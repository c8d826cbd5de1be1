"""From results, as those of a demo, to the page; every part is left out where its results are absent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tlrec_edge.report import lab_plots, plots
from tlrec_edge.report.html import Cell, Data, document, facts, machine_line, startup, table
from tlrec_edge.report.words import microseconds, number, sign_class, significant, size, text

_DEFAULT_TITLE = "tlrec-edge report"
_DRAWN_SLICES = ("history", "period", "popularity", "domain")
"""The slices that are drawn; the others have few lines and stand in the JSON."""
_PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")


def render(data: Data) -> str:
    """Return one HTML file that loads nothing. Raises MissingExtraError where matplotlib is not installed."""
    title = text(data.get("title") or _DEFAULT_TITLE)
    body = "\n".join(part for part in (make(data) for make in _SECTIONS) if part)
    return document(title, body)


def _lead(data: Data) -> str:
    dataset = data.get("dataset") or {}
    counts = [
        f"{number(dataset[key])} {key}"
        for key in ("users", "items", "interactions")
        if key in dataset
    ]
    about = ", ".join([text(dataset["name"]), *counts] if dataset.get("name") else counts)
    target = f"; target: {text(data['target'])}" if data.get("target") else ""
    line = f'<p class="soft">{about}{target}</p>' if about or target else ""
    words = "".join(f"<p>{text(word)}</p>" for word in data.get("plain_words") or [])
    return line + (f'<div class="words">{words}</div>' if words else "") + _cards(data)


def _cards(data: Data) -> str:
    cards: list[Cell] = []
    for section in data.get("sections") or []:
        for row in (section.get("lift") or [])[:1]:
            what = f"NDCG@10, {text(row.get('of'))} over {text(row.get('over'))}: {text(section.get('title'))}"
            cards.append((number(row.get("ndcg@10"), sign=True), what))
    bench = data.get("bench") or {}
    for row in [row for row in bench.get("rows") or [] if row.get("scored") == 100][:2]:
        state = "history encoded" if row.get("state") == "encoded" else "state given"
        cards.append(
            (
                f"{microseconds(row['latency_us'].get('p50'))} µs",
                f"median for 100 candidates, {state}",
            )
        )
    if bench.get("bytes"):
        cards.append((size(bench["bytes"]), "the whole bundle"))
    if (error := (data.get("parity") or {}).get("max_error")) is not None:
        cards.append((significant(error), "largest difference from the trained model's score"))
    inner = "".join(
        f'<div class="card"><b>{value}</b><span>{what}</span></div>' for value, what in cards
    )
    return f'<div class="cards">{inner}</div>' if cards else ""


def _quality(data: Data) -> str:
    return "\n".join(_section(section) for section in data.get("sections") or [])


def _section(section: Data) -> str:
    title, rows, lifts = (
        str(section.get("title", "")),
        section.get("rows") or [],
        section.get("lift") or [],
    )
    counts = [
        f"{number(section[key])} {word}"
        for key, word in (("users", "users"), ("tests", "test rows"))
        if key in section
    ]
    parts = [
        f"<h2>{text(title)}</h2>",
        f'<p class="soft">{", ".join(counts)}</p>' if counts else "",
    ]
    if section.get("note"):
        parts.append(f"<p>{text(section['note'])}</p>")
    parts += [f'<p class="soft">{text(note)}</p>' for note in section.get("notes") or []]
    parts.append(f'<div class="plots">{plots.quality(title, rows)}{plots.lift(title, lifts)}</div>')
    parts.append(_quality_table(rows) + _lift_table(lifts))
    slices = section.get("slices") or []
    plot = [
        plots.slices(by, [line for line in slices if line.get("by") == by]) for by in _DRAWN_SLICES
    ]
    parts.append(f'<div class="plots">{"".join(plot)}</div>' if any(plot) else "")
    return "".join(parts)


def _curve(data: Data) -> str:
    points = data.get("curve") or []
    names = dict.fromkeys(
        str(line.get("name", "")) for point in points for line in point.get("lines") or []
    )
    rows = []
    for point in points:
        reached = {str(line.get("name", "")): line for line in point.get("lines") or []}
        cells = [
            (f"{100 * point['share']:g} %", ""),
            (number(point.get("users")), ""),
            (number(point.get("rows")), ""),
        ]
        for name in names:
            line = reached.get(name) or {}
            error = line.get("ndcg@10.se")
            shown = f" <small>± {number(error)}</small>" if error is not None else ""
            cells.append((number(line.get("ndcg@10")) + shown, ""))
        rows.append((cells, ""))
    lifts = _lift_table(
        [
            {**point["lift"], "of": f"{100 * point['share']:g} %: {point['lift'].get('of')}"}
            for point in points
            if point.get("lift")
        ]
    )
    rows_table = table(
        ["share", "users", "rows", *map(text, names)],
        rows,
        caption="NDCG@10 on the test rows ± SE.",
    )
    return (
        f"<h2>How much of the target it takes</h2>{plots.curve(points)}{rows_table}{lifts}"
        if points
        else ""
    )


def _quality_table(rows: Sequence[Data]) -> str:
    best = max((row.get("ndcg@10") or 0.0 for row in rows), default=0.0)
    columns = {
        "ndcg@10.by_user": "mean by user",
        "hr@10": "HR@10",
        "mrr@10": "MRR@10",
        "auc": "AUC",
        "full.ndcg@10": "NDCG@10 among all",
        "coverage@10": "share of catalogue shown",
    }
    columns = {key: name for key, name in columns.items() if any(key in row for row in rows)}
    lines = []
    for row in rows:
        error = row.get("ndcg@10.se")
        value = number(row.get("ndcg@10")) + (
            f" <small>± {number(error)}</small>" if error is not None else ""
        )
        cells = [
            (text(row.get("name")), ""),
            (value, ""),
            *((number(row.get(key)), "") for key in columns),
        ]
        lines.append((cells, "best" if best and row.get("ndcg@10") == best else ""))
    return table(["model", "NDCG@10 ± SE", *columns.values()], lines)


def _lift_table(rows: Sequence[Data]) -> str:
    lines = []
    for row in rows:
        low, high = plots.interval(row) if row.get("ndcg@10") is not None else (0.0, 0.0)
        value = number(row.get("ndcg@10"), sign=True), sign_class(low, high)
        spread = f"{number(low, sign=True)} to {number(high, sign=True)}"
        what = f"{text(row.get('of'))} over {text(row.get('over'))}"
        verdict = text(row.get("verdict")), "text"
        lines.append(([(what, ""), value, verdict, (number(row.get("se")), ""), (spread, "")], ""))
    return table(["lift", "NDCG@10", "verdict", "SE", "95 % interval"], lines, text_columns=(2,))


def _compression(data: Data) -> str:
    rows = data.get("compression") or []
    lines = []
    for row in rows:
        verdict = (
            ("chosen", "good")
            if row.get("kept")
            else ("front", "")
            if row.get("front")
            else ("", "")
        )
        ratio = number(row.get("ratio"), 3) + (
            f" <small>± {number(row['se'], 3)}</small>" if row.get("se") else ""
        )
        stored = size(row["bytes"]) if row.get("bytes") is not None else text(None)
        time = number((row.get("us") or {}).get("p50"), 0)
        numbers = [(number(row.get("value")), ""), (ratio, ""), (stored, ""), (time, "")]
        word, style = verdict
        cells = [
            (text(row.get("step")), ""),
            *numbers,
            (word, f"text {style}"),
            (text(row.get("why")), "text"),
        ]
        lines.append((cells, ""))
    points = table(
        ["point", "metric", "ratio ± SE", "size", "p50 µs", "", "why"], lines, text_columns=(5, 6)
    )
    plot = (
        plots.pareto_front(rows)
        + plots.ratios(rows)
        + lab_plots.sizes(data.get("sizes") or [], "models")
    )
    return f'<h2>Compression</h2><div class="plots">{plot}</div>{points}' if plot or points else ""


def _parity(data: Data) -> str:
    names = {
        "max_error": "largest difference of a score, float path against the trained model",
        "top10_overlap": "overlap of the ten best",
        "users": "histories compared",
        "exact_error": "largest difference of a score, exact path against the float path",
        "exact_max_error": "largest difference of a score, exact path against the float path",
        "exact_rms_share": "root mean square of that difference over the spread of scores",
        "exact_bound": "proven bound of that difference",
    }
    parity = data.get("parity") or {}
    lines = [
        (
            [
                (names.get(key, text(key)), ""),
                (significant(value) if isinstance(value, float) else number(value), ""),
            ],
            "",
        )
        for key, value in parity.items()
    ]
    return (
        f"<h2>Does the bundle score like the model?</h2>{table(['', ''], lines)}" if lines else ""
    )


def _bench(data: Data) -> str:
    bench = data.get("bench") or {}
    rows = bench.get("rows") or []
    if not bench:
        return ""
    noise = bench.get("noise") or {}
    warning = f"The machine was noisy during this run: equal loops differed by {noise.get('spread', 0):.0%}."
    parts = [
        "<h2>Latency, memory, size</h2>",
        f'<p class="bad">{warning}</p>' if noise.get("noisy") else "",
    ]
    groups = [{"name": name, "bytes": value} for name, value in (bench.get("files") or {}).items()]
    parts.append(
        f'<div class="plots">{lab_plots.latency(rows)}{lab_plots.sizes(groups, "parts of the bundle")}</div>'
    )
    lines = []
    for row in rows:
        times = [(microseconds(row["latency_us"].get(name)), "") for name in _PERCENTILES]
        cells = [
            (text(row.get("shape")), ""),
            (text(row.get("state")), "text"),
            *times,
            (microseconds(row.get("qps")), ""),
        ]
        lines.append((cells, ""))
    headers = ["request", "user state", *_PERCENTILES, "per second"]
    parts.append(
        table(headers, lines, text_columns=(1,), caption="Microseconds; MLPerf-style, unofficial.")
    )
    parts.append(startup(bench.get("startup") or {}))
    parts.append(machine_line(bench.get("machine") or {}))
    parts += [f'<p class="soft">{text(note)}</p>' for note in bench.get("notes") or []]
    return "".join(parts)


def _recommendations(data: Data) -> str:
    people = []
    for person in data.get("recommendations") or []:
        items = "".join(
            f"<li>{text(item.get('name'))} <small>{number(item.get('score'), 3)}</small></li>"
            for item in person.get("items") or []
        )
        history = ", ".join(text(name) for name in person.get("history") or []) or "nothing"
        people.append(
            f'<div class="person"><h3>{text(person.get("user"))}</h3><p class="soft">bought before: {history}</p>'
            f"<ol>{items}</ol></div>"
        )
    return f'<h2>Recommendations</h2><div class="people">{"".join(people)}</div>' if people else ""


def _training(data: Data) -> str:
    plot = plots.training(data.get("training") or [])
    return f"<h2>Training</h2>{plot}" if plot else ""


def _dataset(data: Data) -> str:
    dataset = data.get("dataset") or {}
    lines = [
        ([(text(reason), ""), (number(count), "")], "")
        for reason, count in (dataset.get("cleaning") or {}).items()
    ]
    left_out = table(["rows left out, by reason", "rows"], lines)
    note = f"<p>{text(dataset['note'])}</p>" if dataset.get("note") else ""
    return f"<h2>Data</h2>{note}{left_out}" if note or left_out else ""


def _reproduce(data: Data) -> str:
    commands = "\n".join(text(command) for command in data.get("commands") or [])
    versions = facts(data.get("versions") or {})
    shown = f"<h2>Run it again</h2><pre>{commands}</pre>" if commands else ""
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

"""The rows of the table: which contenders do which tasks on which data, and our targets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .install import BEFORE

OURS = "tlrec-edge"
_PUBLIC_TASKS = ("request", "request_ids", "cached", "cached_ids", "top", "top_exact", "top100")
"""The tasks that an older version has too."""


class Entry(NamedTuple):
    """A contender in a row.

    Attributes:
        contender: Its name.
        tasks: The tasks that are timed.
        model: The bundle or graph that it loads.
        checked: Further tasks whose answers are checked.
    """

    contender: str
    tasks: tuple[str, ...]
    model: str = "fast"
    checked: tuple[str, ...] = ()


class Target(NamedTuple):
    """A limit to the time of one of our tasks.

    Attributes:
        text: What it is compared with, for the report.
        most: Largest ratio to the best of ``against``, or microseconds on top of it.
        against: Contenders and tasks.
        ours: Our contender and task.
        named: The same task given ids instead of rows, which peers don't do.
        added: Whether ``most`` is in microseconds.
    """

    text: str
    most: float
    against: tuple[tuple[str, str], ...]
    ours: tuple[str, str] = (OURS, "request")
    named: str | None = None
    added: bool = False


class Limit(NamedTuple):
    """A limit to our fresh processes.

    Attributes:
        text: The unit and what it is, for the report.
        figure: The measured value.
        most: Its largest value.
        tables: How many times the bytes of our tables ``most`` excludes.
    """

    text: str
    figure: str
    most: float
    tables: float = 0.0


class Row(NamedTuple):
    """A comparison.

    Attributes:
        title: Its title in the report.
        catalogue: The catalogue, ``small`` or ``large``.
        entries: The contenders.
        targets: Our targets.
        approximate: Whether every contender reports its recall, ours too.
        limits: Limits to fresh processes; if there are any, only start-up is measured.
    """

    title: str
    catalogue: str
    entries: tuple[Entry, ...]
    targets: tuple[Target, ...] = ()
    approximate: bool = False
    limits: tuple[Limit, ...] = ()


def with_before(row: Row) -> Row:
    """Return the row with an entry of the older version next to each of ours."""
    entries: list[Entry] = []
    for entry in row.entries:
        entries.append(entry)
        tasks = tuple(task for task in entry.tasks if task in _PUBLIC_TASKS)
        if entry.contender.startswith(OURS) and tasks:
            entries.append(
                entry._replace(contender=BEFORE + entry.contender[len(OURS) :], tasks=tasks)
            )
    return row._replace(entries=tuple(entries))


def _request(size: str, targets: tuple[Target, ...], *more: str) -> Row:
    entries = [Entry("tlrec-edge", ("request", "request_ids", "floor"), size)]
    entries += [
        Entry(name, ("request",), size)
        for name in ("onnxruntime", "openvino", "replay", "recbole", *more)
    ]
    return Row(
        f"request: history of 50, 100 candidates of 100k, size {size}",
        "small",
        tuple(entries),
        targets,
    )


_REQUEST, _TOP, _EXACT = (OURS, "request"), (OURS, "top"), (OURS, "top_exact")
_REPLAY = (("replay", "request"),)

ROWS: Mapping[str, Row] = {
    "fast-100": _request(
        "fast",
        (
            Target("replay", 1 / 8, _REPLAY, _REQUEST, "request_ids"),
            Target("floor", 3.0, (("tlrec-edge", "floor"),), _REQUEST, "request_ids"),
        ),
        "rechub",
        "implicit",
    ),
    "base-100": _request("base", (Target("replay", 1 / 3, _REPLAY, _REQUEST, "request_ids"),)),
    "cached-1000": Row(
        "1,000 candidates of 100k, user state given",
        "small",
        (
            Entry("tlrec-edge", ("cached", "cached_ids", "cached_floor")),
            Entry("implicit", ("cached",)),
        ),
        (
            Target(
                "implicit", 0.45, (("implicit", "cached"),), ("tlrec-edge", "cached"), "cached_ids"
            ),
        ),
    ),
    "top-100k": Row(
        "top-10 of 100k, exact",
        "small",
        (
            Entry("tlrec-edge", ("top",), checked=("top100",)),
            *(
                Entry(name, ("top",))
                for name in ("faiss-flat", "implicit", "replay", "recbole", "faiss-sq8")
            ),
            Entry("onnxruntime", ("top",), "scan"),
            Entry("openvino", ("top",), "scan"),
            *(
                Entry(name, ("top",), checked=("top100",))
                for name in ("faiss-ivf", "faiss-ivf-rerank", "hnswlib")
            ),
        ),
        (
            Target(
                "best of faiss Flat, implicit, replay",
                0.40,
                (("faiss-flat", "top"), ("implicit", "top"), ("replay", "top")),
                _TOP,
            ),
        ),
    ),
    "top-1m": Row(
        "top-10 of 1M, default index; recall@10 >= .99, recall@100 >= .97",
        "large",
        (
            *(
                Entry(name, ("top",), checked=("top100",))
                for name in ("tlrec-edge", "faiss-ivf", "faiss-ivf-rerank", "hnswlib", "faiss-sq8")
            ),
        ),
        (
            Target("faiss IVF-SQ8", 2.0, (("faiss-ivf", "top"),), _TOP),
            Target(
                "faiss IVF-SQ8 and all vectors as floats, to rank again",
                2.0,
                (("faiss-ivf-rerank", "top"),),
                _TOP,
            ),
        ),
        approximate=True,
    ),
    "top-1m-exact": Row(
        "top-10 of 1M, exact",
        "large",
        (
            *(Entry(name, ("top_exact",)) for name in ("tlrec-edge", "faiss-flat", "implicit")),
            Entry("onnxruntime", ("top_exact",), "scan"),
        ),
        (Target("faiss Flat", 0.45, (("faiss-flat", "top_exact"),), _EXACT),),
    ),
    "wide": Row(
        "the wide part's added cost, 100k",
        "small",
        (
            Entry("tlrec-edge", ("request", "top")),
            Entry("tlrec-edge-wide", ("request", "top"), "wide"),
        ),
        (
            Target(
                "us on the request", 15.0, (_REQUEST,), ("tlrec-edge-wide", "request"), added=True
            ),
            Target("top-10 without it", 1.25, (_TOP,), ("tlrec-edge-wide", "top")),
        ),
    ),
    "ids": Row(
        "mapping 100 string ids of 1M to rows",
        "large",
        (Entry("tlrec-edge", ("ids", "cold_ids")),),
    ),
    "start-1m": Row(
        "process start to first answer, 1M items",
        "large",
        (
            Entry("tlrec-edge-wide", ("request",), "wide"),
            *(Entry(name, ("top",)) for name in ("faiss-flat", "faiss-ivf", "implicit")),
        ),
        limits=(
            Limit("s", "seconds", 0.45),
            Limit("MB USS", "uss", 60e6),
            Limit("MB PSS of four together", "pss_of_four", 4 * 60e6, 1.3),
        ),
    ),
}
"""Rows by the key that ``--rows`` takes."""

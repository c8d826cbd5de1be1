"""The rows of the table: who answers what on which data, and what is asked of us."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """A contender and the tasks that are timed; further ``checked`` ones are only compared."""

    contender: str
    tasks: tuple[str, ...]
    model: str = "fast"
    checked: tuple[str, ...] = ()


class Target(NamedTuple):
    """Our task is to take at most ``most`` x the best of ``against``, or (``added``) at most so many us on top of it.

    ``named``: the same task given ids instead of rows, which the peers are not asked for.
    """

    text: str
    most: float
    against: tuple[tuple[str, str], ...]
    ours: tuple[str, str] = ("tlrec-edge", "request")
    named: str | None = None
    added: bool = False


class Limit(NamedTuple):
    """A ``figure`` of our fresh processes is to be at most ``most``: a number, or so many bytes beyond our tables."""

    text: str
    figure: str
    most: float
    tables: float = 0.0


class Row(NamedTuple):
    title: str
    catalogue: str
    entries: tuple[Entry, ...]
    targets: tuple[Target, ...] = ()
    approximate: bool = False
    """Whether every contender states its recall, ours too."""
    limits: tuple[Limit, ...] = ()
    """Where there are any, fresh processes are timed, from start to first answer."""


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


_OURS, _TOP, _EXACT = ("tlrec-edge", "request"), ("tlrec-edge", "top"), ("tlrec-edge", "top_exact")
_REPLAY = (("replay", "request"),)

ROWS: Mapping[str, Row] = {
    "fast-100": _request(
        "fast",
        (
            Target("replay", 1 / 8, _REPLAY, _OURS, "request_ids"),
            Target("floor", 3.0, (("tlrec-edge", "floor"),), _OURS, "request_ids"),
        ),
        "rechub",
        "implicit",
    ),
    "base-100": _request("base", (Target("replay", 1 / 3, _REPLAY, _OURS, "request_ids"),)),
    "cached-1000": Row(
        "1,000 candidates of 100k, the user's state at hand",
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
        (Entry("tlrec-edge", ("request", "top")), Entry("tlrec-edge-wide", ("request", "top"))),
        (
            Target("us on the request", 15.0, (_OURS,), ("tlrec-edge-wide", "request"), added=True),
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
            Entry("tlrec-edge-wide", ("request",)),
            *(Entry(name, ("top",)) for name in ("faiss-flat", "faiss-ivf", "implicit")),
        ),
        limits=(
            Limit("s", "seconds", 0.45),
            Limit("MB USS", "uss", 60e6),
            Limit("MB PSS of four together", "pss_of_four", 4 * 60e6, 1.3),
        ),
    ),
}
"""By the key that ``--rows`` takes."""

"""The report is one file that loads nothing, escapes everything and omits absent parts."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from helpers.pages import Page
from tlrec_edge.errors import MissingExtraError
from tlrec_edge.report import lab_plots, plots, render

EVIL = "<script>alert(1)</script> & \"quotes\" 'too' $x$ 食品 🛒"


def results(name: str = "name") -> dict[str, Any]:
    """Return results of every kind, with ``name`` in every place for a name."""
    quality = {
        "ndcg@10": 0.2,
        "ndcg@10.se": 0.01,
        "ndcg@10.by_user": 0.21,
        "hr@10": 0.3,
        "mrr@10": 0.1,
        "auc": 0.7,
    }
    lift = {
        "of": name,
        "over": "popularity",
        "ndcg@10": 0.02,
        "se": 0.005,
        "low": 0.01,
        "high": 0.03,
        "verdict": name,
    }
    other = {"over.ndcg@10": 0.1, "over.ndcg@10.se": 0.01}
    step = {
        "step": name,
        "value": 0.2,
        "ratio": 0.99,
        "se": 0.01,
        "bytes": 2_000_000,
        "kept": False,
        "why": name,
    }
    times = {"p50": 20.0, "p90": 30.0, "p99": 90.0, "p99.9": 4000.0, "max": 1e6}
    line = {"name": name, "ndcg@10": 0.2, "ndcg@10.se": 0.01}
    shape = {
        "scenario": "single-stream",
        "state": "encoded",
        "shape": "100 candidates",
        "scored": 100,
        "qps": 5e4,
    }
    return {
        "title": name,
        "dataset": {
            "name": name,
            "note": name,
            "users": 5,
            "items": 6,
            "interactions": 70,
            "cleaning": {name: 3},
        },
        "target": name,
        "sections": [
            {
                "title": name,
                "users": 3,
                "tests": 4,
                "note": name,
                "rows": [
                    {"name": name, **quality},
                    {"name": "popularity", **quality, "ndcg@10": 0.1},
                ],
                "lift": [lift, {**lift, "low": None, "high": None, "ndcg@10": -0.5}],
                "notes": [name],
                "slices": [
                    {"by": "history", "slice": "0", "tests": 3, **quality, **other, "lift": lift},
                    {
                        "by": "history",
                        "slice": name,
                        "tests": 1,
                        "ndcg@10": 0.1,
                        "ndcg@10.se": None,
                        "lift": lift,
                    },
                    {
                        "by": "period",
                        "slice": "2024-01",
                        "tests": 4,
                        **quality,
                        **other,
                        "lift": lift,
                    },
                    {
                        "by": "user",
                        "slice": "no history",
                        "tests": 4,
                        **quality,
                        **other,
                        "lift": lift,
                    },
                ],
            }
        ],
        "curve": [
            {
                "share": 0.05,
                "users": 5,
                "rows": 9,
                "lines": [line, {"name": "b", "ndcg@10": None}],
                "lift": lift,
            },
            {"share": 1.0, "users": 99, "rows": 400, "lines": [line], "lift": None},
        ],
        "sizes": [{"name": name, "bytes": 1234}],
        "compression": [step, {**step, "kept": True, "se": 0, "us": {"p50": 61.0}, "front": True}],
        "compression_note": f"judged on {name}",
        "parity": {"max_error": 3e-6, "top10_overlap": 1.0, "exact_error": 0.004, name: name},
        "bench": {
            "rows": [{**shape, "latency_us": times}],
            "bytes": 12345,
            "files": {name: 12345},
            "startup": {
                "total_ms": 300.0,
                "import_ms": 200.0,
                "rss_bytes": None,
                "uss_bytes": 5_000_000,
            },
            "machine": {"cpu": name, "flags": ["AVX2"], "virtualised": True, "memory_bytes": 10**9},
            "noise": {"noisy": True, "spread": 0.4},
            "notes": [name],
        },
        "recommendations": [
            {"user": name, "history": [name], "items": [{"name": name, "score": 1.5}]}
        ],
        "training": [
            {"name": name, "losses": [3.0, 2.0], "values": [0.1, 0.2]},
            {"name": "b", "losses": [4.0]},
        ],
        "commands": [name],
        "versions": {"torch": name},
        "plain_words": [name],
    }


@pytest.fixture(scope="module")
def html() -> str:
    return render(results())


def test_every_part_is_there(html: str) -> None:
    page = Page(html)
    assert page.tags.count("svg") == 11
    for words in (
        "0.2000",
        "+0.0200",
        "chosen",
        "3e-06",
        "1,000,000",
        "not readable here",
        "12.3 kB",
        "Noisy machine",
        "2024-01 (4)",
    ):
        assert words in page.text


PLOTS = (
    *(plots.curve, plots.lift, plots.pareto_front, plots.quality, plots.ratios),
    *(plots.slices, plots.training, lab_plots.latency, lab_plots.sizes),
)


@pytest.fixture
def drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw a plot of the same values once, however many pages show it."""
    for plot in PLOTS:
        monkeypatch.setattr(f"{plot.__module__}.{plot.__name__}", remembered(plot))


@cache
def remembered(function: Callable[..., str]) -> Callable[..., str]:
    known: dict[str, str] = {}

    def call(*arguments: Any) -> str:
        key = repr(arguments)
        if key not in known:
            known[key] = function(*arguments)
        return known[key]

    return call


@pytest.mark.usefixtures("drawn_once")
@pytest.mark.parametrize("part", [None, *results()])
def test_any_part_may_be_absent(part: str | None) -> None:
    Page(
        render(
            {} if part is None else {key: value for key, value in results().items() if key != part}
        )
    )
    Page(render({} if part is None else {part: results()[part]}))


def test_values_may_be_absent() -> None:
    page = Page(
        render(
            {"sections": [{"rows": [{"name": "a"}], "lift": [{"of": "a"}]}], "bench": {"rows": []}}
        )
    )
    assert "–" in page.text
    assert "svg" not in page.tags


def test_it_loads_nothing_and_is_small(html: str) -> None:
    page = Page(html)
    assert len(html.encode()) < 1_000_000
    assert not {"script", "link", "img", "iframe", "object", "image", "foreignobject"} & set(
        page.tags
    )
    assert all(
        (value or "").startswith("#")
        for name, value in page.attributes
        if name in ("href", "src", "xlink:href")
    )
    assert not re.search(r"https?:|@import|url\((?!#)", html)


def test_references_inside_the_page_resolve_to_one_element(html: str) -> None:
    names = re.findall(r'id="([^"]+)"', html)
    assert len(set(names)) == len(names)
    assert {*re.findall(r'href="#([^"]+)"', html), *re.findall(r"url\(#([^)]+)\)", html)} <= set(
        names
    )


def test_names_may_hold_anything() -> None:
    page = Page(render(results(EVIL)))
    assert "script" not in page.tags
    assert page.text.count(EVIL) > 15


def test_colours_follow_the_page(html: str) -> None:
    drawn = html[html.index("<svg") :]
    assert "var(--ours)" in drawn
    assert not re.search(r"(fill|stroke): ?#", drawn)


def test_the_same_results_make_the_same_file(html: str) -> None:
    assert render(results()) == html


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"\[bench\]"):
        render(results())

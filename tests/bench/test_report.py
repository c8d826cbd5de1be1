"""A run writes JSON that keeps its schema, and one page that needs no network."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from helpers.paths import GOLDEN
from helpers.systems import TickingClock
from tlrec_edge.bench import BenchConfig, run_bench
from tlrec_edge.cli import main
from tlrec_edge.report import render_bench

QUICK = BenchConfig(
    candidates=(1, 8),
    k=5,
    seconds=0.02,
    min_queries=100,
    warmup=0.0,
    pool=16,
    starts=1,
    confidence=0.5,
)
SCHEMA = json.loads(files("tlrec_edge.bench").joinpath("result.schema.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    found = run_bench(
        GOLDEN, QUICK, p99_us=1e6, price=0.05, target_load=1e6, clock=TickingClock()
    ).to_json()
    point = {"step": "half", "ratio": 0.99, "us": {"p50": 90.0}, "bytes": 5000, "kept": True}
    written: dict[str, Any] = json.loads(json.dumps(found))
    return written | {
        "compression": [point, point | {"kept": False, "front": True}],
        "noise": found["noise"] | {"noisy": False},
    }


@pytest.fixture(scope="module")
def page(result: dict[str, Any]) -> str:
    return render_bench(result)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_json_keeps_its_schema(result: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(result, SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(result | {"version": 2}, SCHEMA)
    assert set(result) == set(SCHEMA["required"]), "a new field needs a line in the schema"
    row = SCHEMA["$defs"]["row"]
    assert set(result["rows"][0]) == set(row["required"])


def test_the_page_loads_nothing_and_is_small(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    assert {name for name, _ in tags.seen}.isdisjoint({"script", "link", "iframe", "img"})
    for _, attributes in tags.seen:
        for name, value in attributes.items():
            assert name not in ("src", "href", "xlink:href") or (value or "").startswith("#")
    assert not re.search(r"url\((?!#)|@import|https?://", page)
    assert len(page.encode()) < 1_000_000
    assert "prefers-color-scheme: dark" in page
    assert "width=device-width" in page


def test_the_page_shows_all_that_was_measured(page: str, result: dict[str, Any]) -> None:
    plots = (
        "Distribution of latency",
        "Latency by throughput",
        "Accuracy, latency, size",
        "Memory of one process",
    )
    for words in (*plots, "a million scores", "not readable here", "Machine"):
        assert words in page, words
    assert page.count("<svg") >= 5
    for row in result["rows"]:
        assert row["shape"] in page


def test_a_noisy_machine_is_reported_first(page: str, result: dict[str, Any]) -> None:
    noisy = render_bench(result | {"noise": {"spread": 0.4, "noisy": True}, "rows": []})
    assert "Noisy machine" in noisy[: noisy.index("<svg")]
    assert "Noisy machine" not in page


def test_names_are_escaped(result: dict[str, Any]) -> None:
    names = {"bundle": {"name": "<b>&", "history": 5}, "notes": ["<i>"]}
    page = render_bench(result | names | {"rows": []})
    assert "&lt;b&gt;&amp;" in page
    assert "<i>" not in page


def test_a_system_without_a_bundle_has_a_page_too(result: dict[str, Any]) -> None:
    assert "<svg" in render_bench(
        result | {"startup": None, "files": None, "bytes": None, "bill": None, "peak": None}
    )
    assert render_bench({"rows": []})


def test_the_command_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.html"
    words = ["bench", str(GOLDEN), "--scenario", "top-k", "--seconds", "0.02", "--html", str(page)]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert "Distribution of latency" in page.read_text("utf-8")
    monkeypatch.setattr("tlrec_edge.cli.bench.find_spec", lambda name: None)
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 1
    assert "tlrec-edge[bench]" in refused.stderr
    assert "start-up" not in refused.stderr


@pytest.mark.parametrize(
    ("card", "points"), [({"points": [{"step": "half"}]}, 1), ([], 0), (None, 0)]
)
def test_the_points_of_the_compression_are_those_of_the_manifest(
    tmp_path: Path, card: Any, points: int
) -> None:
    for file in GOLDEN.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    manifest = json.loads((GOLDEN / "manifest.json").read_text("utf-8"))
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"compression": card}), "utf-8")
    assert len(run_bench(tmp_path, QUICK, ["offline"]).compression) == points

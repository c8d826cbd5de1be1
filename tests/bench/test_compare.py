"""Two bundles on the same requests, and a run compared with its baseline."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from helpers.paths import GOLDEN
from helpers.systems import VirtualClock
from tlrec_edge import DataError
from tlrec_edge.bench.baseline import compare_with_baseline, read_baseline, read_result
from tlrec_edge.bench.compare import compare, ordered_interval
from tlrec_edge.bench.drivers import Limits
from tlrec_edge.bench.system import Request
from tlrec_edge.cli import main

LIMITS = Limits(0.05, 1, 0.0)
REQUESTS = [Request([str(n)], ["a"]) for n in range(32)]


@dataclass
class Noisy:
    """A system of random speed: 100 us times ``factor`` on average.

    Each opening is a little faster or slower than others, and so is each request. The second
    system to get a request is faster, because caches are warm.
    """

    clock: VirtualClock
    rng: np.random.Generator
    factor: float = 1.0
    name: str = "noisy"

    @contextmanager
    def open(self) -> Iterator[Any]:
        speed = float(self.rng.normal(1, 0.01))
        rng, clock, factor = self.rng, self.clock, self.factor

        class System:
            def answer(self, requests: Any) -> None:
                warm = 0.8 if getattr(clock, "last", None) == requests[0].user else 1.0
                clock.last = requests[0].user  # type: ignore[attr-defined]  # a note for the other system
                clock.time += int(100_000 * factor * speed * warm * rng.lognormal(0, 0.1))

        yield System()


def ratio_of(seed: int, factor: float) -> Any:
    clock, rng = VirtualClock(), np.random.default_rng(seed)
    return compare(
        Noisy(clock, rng), Noisy(clock, rng, factor), "x", REQUESTS, LIMITS, seed, clock=clock
    )


def test_a_system_shows_no_difference_from_itself() -> None:
    found = [ratio_of(seed, 1.0) for seed in range(40)]
    assert sum(ratio.low <= 1 <= ratio.high for ratio in found) >= 36
    assert max(ratio.high - ratio.low for ratio in found) < 0.06
    assert found[0].confidence >= 0.95


def test_a_slower_one_is_slower_and_a_faster_one_faster() -> None:
    found = [ratio_of(seed, 1.1) for seed in range(10)]
    assert [ratio.verdict for ratio in found] == ["slower"] * 10
    assert found[0].ratio == pytest.approx(1.1, abs=0.02)
    assert ratio_of(0, 0.9).verdict == "faster"
    assert found[0].b_us > found[0].a_us


def test_the_interval_is_one_of_order_statistics() -> None:
    assert ordered_interval(5, 0.95) is None
    assert ordered_interval(6, 0.95) == pytest.approx((0, 1 - 2 / 64))
    assert ordered_interval(12, 0.95) == pytest.approx((2, 1 - 2 * 79 / 4096))
    with pytest.raises(ValueError, match="rounds"):
        compare(None, None, "x", REQUESTS, LIMITS, rounds=3)  # type: ignore[arg-type]  # refused before they are used


def test_the_command_compares_two_bundles() -> None:
    words = ["bench", "--compare", str(GOLDEN), str(GOLDEN), "--seconds", "0.08"]
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [row["shape"] for row in found["compare"]] == ["22 candidates", "top 10 of 22"]
    # On the ticking clock every request takes as long as any other.
    assert {row["ratio"] for row in found["compare"]} == {1}
    assert {row["verdict"] for row in found["compare"]} == {"no difference shown"}
    assert (found["a"], found["b"]) == ("golden_bundle", "golden_bundle")
    assert CliRunner().invoke(main, [*words, str(GOLDEN)]).exit_code == 2
    missing = CliRunner().invoke(main, ["bench", "--compare", str(GOLDEN), "no-bundle"])
    assert missing.exit_code == 1
    assert missing.stderr.count("\n") == 1, "refused before anything is measured"


@pytest.mark.parametrize(
    "unread", [["--against", "x.json"], ["--replay", "x"], ["--threads", "2"], ["--qps", "5"]]
)
def test_options_without_effect_on_a_comparison_are_wrong_usage(unread: list[str]) -> None:
    done = CliRunner().invoke(main, ["bench", "--compare", str(GOLDEN), str(GOLDEN), *unread])
    assert done.exit_code == 2
    assert f"does not use {unread[0]}" in done.stderr


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("baseline") / "bench.json"
    words = [
        "bench",
        str(GOLDEN),
        "--scenario",
        "single-stream",
        "--candidates",
        "2",
        "--seconds",
        "0.05",
        "--out",
        str(out),
    ]
    assert CliRunner().invoke(main, words).exit_code == 0
    return out


def test_a_run_does_not_regress_from_itself(baseline: Path) -> None:
    found = read_result(baseline)
    changes = compare_with_baseline(found, found, 0.1)
    assert not changes.regressed
    assert {change.ratio for change in changes.changes} == {1}
    assert len(changes.changes) == 4


def test_a_worse_figure_is_a_regression_unless_the_machine_got_slower(baseline: Path) -> None:
    before = read_result(baseline)
    now = copy.deepcopy(before)
    now["rows"][0]["latency_us"]["p50"] *= 1.5
    now["bytes"] *= 2
    assert [change.what for change in compare_with_baseline(now, before, 0.1).regressed] == [
        "single-stream, 2 candidates, encoded: p50 us",
        "bundle bytes",
    ]
    now["noise"]["loop_us"] *= 1.5
    slower = compare_with_baseline(now, before, 0.1)
    assert [change.what for change in slower.regressed] == ["bundle bytes"]
    assert slower.drift == pytest.approx(1.5)


def test_results_that_cannot_be_compared_are_refused(baseline: Path, tmp_path: Path) -> None:
    found = read_result(baseline)
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps(found | {"machine": {"cpu": "other"}}))
    with pytest.raises(DataError, match=r"odd\.json was measured on another machine \(other;"):
        read_baseline(odd)
    with pytest.raises(DataError, match="no figure in common"):
        compare_with_baseline(found | {"rows": []}, found | {"bytes": None, "startup": None}, 0.1)
    row = found["rows"][0]
    damaged: tuple[object, ...] = (
        {},
        [],
        3,
        found | {"rows": 5},
        found | {"rows": ["x"]},
        found | {"machine": []},
        found | {"rows": [row | {"latency_us": {"p50": 0}}]},
        found | {"rows": [row | {"latency_us": {"p50": float("nan")}}]},
        {key: value for key, value in found.items() if key != "bytes"},
    )
    for wrong in damaged:
        odd.write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=r"odd\.json is not a result"):
            read_result(odd)
    odd.write_bytes(b"\xff[")
    with pytest.raises(DataError, match=r"odd\.json cannot be read"):
        read_result(odd)


def test_a_run_without_a_comparable_baseline_is_still_written(
    baseline: Path, tmp_path: Path
) -> None:
    found, before, out = read_result(baseline), tmp_path / "before.json", tmp_path / "now.json"
    before.write_text(json.dumps(found | {"rows": [], "bytes": None, "startup": None}))
    words = [
        "--scenario",
        "offline",
        "--seconds",
        "0.02",
        "--against",
        str(before),
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(main, ["bench", str(GOLDEN), *words])
    assert done.exit_code == 1
    assert "no figure in common" in done.stderr
    assert read_result(out)["rows"][0]["scenario"] == "offline"


def test_the_command_exits_with_1_if_a_figure_got_worse(baseline: Path, tmp_path: Path) -> None:
    words = [
        "bench",
        str(GOLDEN),
        "--scenario",
        "single-stream",
        "--candidates",
        "2",
        "--seconds",
        "0.05",
        "--against",
    ]
    fine = CliRunner().invoke(main, [*words, str(baseline)])
    assert fine.exit_code == 0, fine.output
    found = read_result(baseline)
    found["bytes"] //= 3
    (tmp_path / "before.json").write_text(json.dumps(found))
    worse = CliRunner().invoke(
        main, [*words, str(tmp_path / "before.json"), "--max-regression", "150%"]
    )
    assert worse.exit_code == 1
    assert "bundle bytes: 3.00 times the baseline" in worse.stderr
    assert "WORSE" in worse.stdout
    missing = CliRunner().invoke(main, [*words, str(tmp_path / "no.json")])
    assert missing.exit_code == 1
    assert "start-up" not in missing.stderr, "refused before anything is measured"
    assert CliRunner().invoke(main, [*words, str(baseline), "--max-regression", "x"]).exit_code == 2

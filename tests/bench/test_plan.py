"""A plan is arithmetic on what was measured, states its error, and refuses what it cannot know."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from helpers.systems import TickingClock
from tlrec_edge import DataError
from tlrec_edge.bench import BenchConfig, run_bench
from tlrec_edge.bench.config import TOP_K
from tlrec_edge.bench.plan import SCENARIOS, MeasuredSize, Workload, make_plan
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize
from tlrec_edge.cli import main

WORKLOAD = Workload(items=1_000_000, dim=64, qps=300, p99_us=60_000)
SLOWDOWNS = ((0.1, 1.5), (0.5, 2.5), (0.7, 4.0))


def size(items: int, **changes: Any) -> MeasuredSize:
    figures = {
        "top_k_us": 100 + 20 * items**0.5,
        "busy_us": 50 + 10 * items**0.5,
        "bundle_bytes": 1e4 + 350.0 * items,
    }
    made = MeasuredSize(
        items, 64, True, "cpu", 2, False, figures | {"memory_bytes": 1e8 + 400.0 * items}, SLOWDOWNS
    )
    return replace(made, **changes)


SIZES = [size(50_000), size(200_000), size(400_000)]


def test_linear_figures_are_extrapolated_exactly() -> None:
    plan = make_plan(WORKLOAD, SIZES[::-1])
    assert plan.figures["top_k_us"] == pytest.approx(20_100)
    assert plan.figures["memory_bytes"] == pytest.approx(5e8)
    assert list(plan.errors.values()) == pytest.approx([0] * 4, abs=1e-9)
    assert (plan.fitted, plan.validation_size) == ((50_000, 200_000), 400_000)
    # 2.5 * 20.1 ms is within 60 ms, 4 * 20.1 ms is not.
    assert plan.utilisation == 0.5
    assert plan.qps_per_machine == pytest.approx(0.5 * 1e6 / 10_050)
    assert plan.machines == plan.machines_with_error == 7


def test_the_error_is_measured_on_a_size_that_was_not_fitted() -> None:
    largest = size(
        400_000, figures=size(400_000).figures | {"busy_us": 8000.0, "top_k_us": 10_000.0}
    )
    plan = make_plan(WORKLOAD, [*SIZES[:2], largest])
    assert plan.errors["busy_us"] == pytest.approx((50 + 10 * 400_000**0.5) / 8000 - 1)
    assert plan.errors["top_k_us"] == pytest.approx((100 + 20 * 400_000**0.5) / 10_000 - 1)
    assert plan.machines_with_error > plan.machines


def test_a_figure_that_falls_with_size_is_taken_as_constant() -> None:
    falling = [
        size(items, figures=one.figures | {"busy_us": busy})
        for one, items, busy in zip(
            SIZES, (50_000, 200_000, 400_000), (300.0, 200.0, 250.0), strict=True
        )
    ]
    assert 200 < make_plan(WORKLOAD, falling).figures["busy_us"] < 300


@pytest.mark.parametrize(
    ("workload", "sizes", "message"),
    [
        (WORKLOAD, SIZES[:2], "three measured sizes"),
        (WORKLOAD, [*SIZES[:2], size(400_000, cpu="other")], "different machines: cpu, other"),
        (WORKLOAD, [*SIZES[:2], size(400_000, workers=4)], "different numbers of processes"),
        (replace(WORKLOAD, dim=32), SIZES, "the plan is for 32"),
        (replace(WORKLOAD, items=4_000_001), SIZES, "at most 4,000,000"),
        (
            replace(WORKLOAD, items=200_000),
            SIZES,
            r"without an IVF index.*synth --ivf-beyond 200000",
        ),
        (
            WORKLOAD,
            [replace(size, uses_ivf=False) for size in SIZES],
            r"with an IVF index.*synth --ivf-beyond 0",
        ),
        (replace(WORKLOAD, p99_us=20_000), SIZES, "adding machines can't bring it"),
        (WORKLOAD, [*SIZES[:2], size(400_000, slowdowns=())], "quieter"),
    ],
)
def test_sizes_that_do_not_support_a_plan_are_refused(
    workload: Workload, sizes: list[MeasuredSize], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        make_plan(workload, sizes)


def test_a_catalogue_larger_than_the_memory_is_refused() -> None:
    assert make_plan(WORKLOAD, SIZES, memory=600_000_000).machines
    with pytest.raises(DataError, match=r"need 0\.5 GB, this machine has 0\.4"):
        make_plan(WORKLOAD, SIZES, memory=400_000_000)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the results of three sizes, on a clock that makes the times of all of them equal."""
    folder = tmp_path_factory.mktemp("sizes")
    config = BenchConfig(
        load=TOP_K,
        qps=(20.0,),
        seconds=0.05,
        min_queries=5,
        starts=1,
        warmup=0.0,
        pool=8,
        batch=1,
    )
    paths = []
    for items in (500, 1000, 2000):
        bundle = synthesize(folder / str(items), SynthConfig(items, 16)).path
        paths.append(folder / f"{items}.json")
        paths[-1].write_text(
            json.dumps(run_bench(bundle, config, SCENARIOS, clock=TickingClock()).to_json())
        )
    return paths


def plan(results: list[Path], *options: str) -> Result:
    sources = [word for path in results for word in ("--from", str(path))]
    return CliRunner().invoke(main, ["plan", *sources, *options])


def test_the_command_plans_from_results(results: list[Path]) -> None:
    words = [
        "--items",
        "4k",
        "--dim",
        "16",
        "--qps",
        "100",
        "--p99",
        "60s",
        "--users",
        "10M",
        "--price-per-hour",
        "0.05",
    ]
    shown = plan(results, *words)
    assert shown.exit_code == 0, shown.output
    assert "4,000 items of 16" in shown.stdout
    assert "error at 2,000 items" in shown.stdout
    assert "10,000,000 users need no memory" in shown.stdout
    found = json.loads(plan(results, *words, "--json").stdout)
    assert found["machines"] >= 1
    assert abs(found["errors"]["bundle_bytes"]) < 0.05


def test_the_command_refuses_in_one_line(results: list[Path], tmp_path: Path) -> None:
    refused = plan(results, "--items", "4k", "--dim", "64", "--qps", "1", "--p99", "1s")
    assert refused.exit_code == 1
    assert "vectors of width 16, the plan is for 64" in refused.stderr
    other = json.loads(results[0].read_text())
    other["rows"] = []
    (tmp_path / "thin.json").write_text(json.dumps(other))
    thin = plan(
        [*results, tmp_path / "thin.json"],
        "--items",
        "4k",
        "--dim",
        "16",
        "--qps",
        "1",
        "--p99",
        "1s",
    )
    assert "thin.json lacks" in thin.stderr
    assert plan(results, "--items", "many", "--qps", "1", "--p99", "1s").exit_code == 2


@pytest.mark.slow
def test_the_command_measures_by_itself() -> None:
    done = CliRunner().invoke(
        main,
        [
            "plan",
            "--items",
            "50k",
            "--dim",
            "16",
            "--qps",
            "10",
            "--p99",
            "10s",
            "--seconds",
            "0.5",
        ],
    )
    assert done.exit_code == 0, done.output
    assert "error at 160,000 items, from 20,000 and 80,000" in " ".join(done.stdout.split())

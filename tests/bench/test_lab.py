"""A benchmark run measures what its result claims."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from helpers.paths import GOLDEN
from helpers.systems import TickingClock
from tlrec_edge import BundleError, DataError, Recommender
from tlrec_edge.bench import BenchConfig, BenchResult, run_bench
from tlrec_edge.bench.cost_estimate import CostEstimate
from tlrec_edge.bench.energy import metered
from tlrec_edge.bench.lab import Lab
from tlrec_edge.bench.latency import Times
from tlrec_edge.bench.machine import fingerprint
from tlrec_edge.bench.noise import Noise, Ticks, copy_bandwidth, cpu_shares, read_ticks
from tlrec_edge.bench.page_cache import evict, read_bytes
from tlrec_edge.bench.requests import ItemIds, Requests
from tlrec_edge.bench.scenarios import SCENARIOS
from tlrec_edge.bench.startup import measure_startup
from tlrec_edge.bench.system import BundleSource, BundleSystem, Request
from tlrec_edge.bundle.format import ModelShape
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.cli.bench import bench
from tlrec_edge.cli.bench_tables import show

QUICK = BenchConfig(
    candidates=(1, 8), k=5, seconds=0.02, min_queries=20, warmup=0.0, pool=16, starts=1
)


@pytest.fixture(scope="module")
def result() -> BenchResult:
    return run_bench(GOLDEN, QUICK, clock=TickingClock())


@pytest.mark.parametrize("config", [BenchConfig(), QUICK])
def test_a_config_survives_json(config: BenchConfig) -> None:
    read = json.loads(json.dumps(config.to_json()))
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in read.items()
    }
    assert BenchConfig(**settings) == config


@pytest.mark.parametrize(
    "wrong",
    [
        {"candidates": ()},
        {"candidates": (0,)},
        {"k": 0},
        {"seconds": 0},
        {"seconds": float("nan")},
        {"pool": 1},
        {"threads": 0},
        {"qps": (0.0,)},
        {"confidence": 1.0},
        {"histories": (0,)},
        {"load": -1},
        {"driver": "x"},
        {"cache": "x"},
    ],
)
def test_a_config_refuses_values_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(QUICK, **wrong)


def test_requests_are_seeded_skewed_and_hold_known_ids() -> None:
    bundle = Bundle.open(GOLDEN)
    first, again, other = (
        Requests(ItemIds.from_bundle(bundle), 200, 1.0, seed) for seed in (3, 3, 4)
    )
    assert first.histories == again.histories != other.histories
    assert first.candidates(5) == again.candidates(5)
    with Recommender.open(GOLDEN, unknown="error") as rec:
        for n in (1, 5, 22):
            lists = first.candidates(n)
            assert all(len(set(items)) == n for items in lists)
            rec.score_pairs([first.histories[0]] * n, lists[0])
    drawn = [item for history in first.histories for item in history]
    counts = sorted((drawn.count(item) for item in set(drawn)), reverse=True)
    assert counts[0] > 4 * counts[9]


def test_a_run_measures_every_shape_with_and_without_the_state(result: BenchResult) -> None:
    shapes = [(row.scenario, row.scored, row.state) for row in result.rows]
    expected = [("single-stream", 1), ("single-stream", 8), ("top-k", 22)]
    under_load = [("multi-stream", 22), *[("server", 22)] * 6, ("offline", 22)]
    assert shapes[:6] == [
        (name, n, state) for name, n in expected for state in ("encoded", "given")
    ]
    assert shapes[6:] == [(name, n, "encoded") for name, n in under_load]
    for row in result.rows:
        assert list(row.latency.us) == ["p50", "p90", "p99", "p99.9", "max"]
        assert list(row.latency.us.values()) == sorted(row.latency.us.values())
        assert row.latency.samples >= 20 or row.scenario == "server"
    assert any("p99.9 is the maximum" in note for note in result.notes)


@pytest.mark.parametrize("driver", ["native", "loadgen"])
def test_an_encoded_state_is_never_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    opened: list[Recommender] = []
    real = Recommender.open

    def remember(*args: Any, **kwargs: Any) -> Recommender:
        opened.append(real(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(Recommender, "open", remember)
    monkeypatch.setattr(Recommender, "close", lambda self: None)
    run_bench(GOLDEN, replace(QUICK, zipf=0.2, driver=driver, seconds=0.1), ["top-k"])
    # LoadGen plans its run from 20 requests, which are not timed.
    assert opened[0].stats()["cache_hits"] <= (20 if driver == "loadgen" else 0)


def test_bytes_are_all_of_the_folder(result: BenchResult) -> None:
    assert result.bytes == sum(file.stat().st_size for file in GOLDEN.iterdir())
    assert "stored users" in (result.files or {})


def test_start_up_is_that_of_a_fresh_process(result: BenchResult) -> None:
    start = result.startup
    assert start is not None
    assert start.total_ms > start.import_ms > 0
    assert start.open_ms > 0
    assert start.first_score_ms > 0
    if start.rss_bytes is not None:
        assert start.rss_bytes >= (start.pss_bytes or 0) >= (start.uss_bytes or 0) > 0


def test_start_up_of_a_broken_bundle_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="fresh process") as caught:
        measure_startup(tmp_path, ["a"], "b", 1)
    assert "\n" not in str(caught.value)


def test_a_bundle_whose_scores_depend_on_the_batch_is_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = Recommender.score
    monkeypatch.setattr(
        Recommender, "score", lambda rec, user, items: real(rec, user, items) + len(items)
    )
    source = BundleSource(GOLDEN, 8)
    requests = Requests(ItemIds.from_bundle(Bundle.open(GOLDEN)), 16, 1.0, 0)
    with source.open() as system, pytest.raises(BundleError, match="alone and in a list"):
        list(SCENARIOS["single-stream"](Lab(source, system, requests, QUICK)))


def test_requests_larger_than_the_catalogue_are_left_out_or_refused() -> None:
    found = run_bench(GOLDEN, replace(QUICK, candidates=(1, 100)), ["single-stream"])
    assert found.config.candidates == (1,)
    assert "100 left out" in found.notes[0]
    with pytest.raises(DataError, match="the bundle has 22"):
        run_bench(GOLDEN, replace(QUICK, candidates=(100,)))


def test_the_machine_is_described() -> None:
    machine = fingerprint()
    assert machine.cpu
    assert machine.cores >= machine.usable_cores >= 1
    assert machine.mhz is None or 100 < machine.mhz < 20_000
    assert all(cache.startswith("L") for cache in machine.caches)


def test_shares_of_cpu_time_are_those_between_two_readings() -> None:
    before, after = Ticks(100, 50, 1, 10.0), Ticks(200, 110, 6, 30.0)
    assert cpu_shares(before, after) == (0.05, 0.4)
    assert cpu_shares(None, after) == cpu_shares(before, before) == (None, None)
    here = read_ticks()
    assert here is None or 0 <= here.busy + here.stolen <= here.total


def test_memory_is_copied_at_a_plausible_rate() -> None:
    assert 1e8 < copy_bandwidth(1 << 22) < 1e13


def test_energy_is_of_all_packages_and_survives_a_counter_that_wraps(tmp_path: Path) -> None:
    for name, start in (("intel-rapl:0", 900), ("intel-rapl:1", 100), ("intel-rapl:0:0", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(str(start))
        (tmp_path / name / "max_energy_range_uj").write_text("1000")

    def run() -> Times:
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("50")
        (tmp_path / "intel-rapl:1" / "energy_uj").write_text("300")
        return Times([1], 1.0, 0.0)

    assert metered(run, tmp_path).joules == pytest.approx((150 + 200) / 1e6)
    assert metered(lambda: Times([1], 1.0, 0.0), tmp_path / "none").joules is None


def test_a_cost_estimate_is_arithmetic() -> None:
    cost = CostEstimate(qps=1000, p99_us=5000, scored=100, price=0.36, target_load=2500)
    assert cost.per_million_requests == pytest.approx(0.1)
    assert cost.per_million_scores == pytest.approx(0.001)
    assert cost.machines == 3
    assert CostEstimate(1000, None, 100, 0.36, 2500).machines is None


def test_the_price_per_hour_gives_the_cost_of_a_million_requests() -> None:
    words = ["--seconds", "0.05", "--scenario", "offline", "--price-per-hour", "3.6"]
    done = CliRunner().invoke(bench, [str(GOLDEN), *words, "--json"])
    bill = json.loads(done.stdout)["bill"]
    assert bill["per_million_requests"] == pytest.approx(1000 / bill["qps"])
    assert "a million scores" in CliRunner().invoke(bench, [str(GOLDEN), *words]).stdout
    assert CliRunner().invoke(bench, [str(GOLDEN), "--machines-for", "5"]).exit_code == 2


def test_a_cold_start_has_read_the_bundle_or_is_not_reported(
    result: BenchResult, tmp_path: Path
) -> None:
    start = result.startup
    assert start is not None
    assert (start.cold_ms is None) == (start.cold_read_bytes is None)
    assert start.cold_ms is None or start.cold_ms > 0


def test_a_cold_request_reads_from_disk_or_is_not_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cold_reads: list[int] = []
    evicted: set[BundleSystem] = set()
    evict_real, answer_real = BundleSystem.evict, BundleSystem.answer

    def evict_now(system: BundleSystem) -> None:
        evict_real(system)
        evicted.add(system)

    def answer(system: BundleSystem, requests: Sequence[Request]) -> None:
        before = read_bytes() or 0
        answer_real(system, requests)
        if system in evicted:
            evicted.remove(system)
            cold_reads.append((read_bytes() or 0) - before)

    monkeypatch.setattr(BundleSystem, "evict", evict_now)
    monkeypatch.setattr(BundleSystem, "answer", answer)
    found = run_bench(GOLDEN, replace(QUICK, cache="cold", seconds=0.1), ["single-stream", "top-k"])
    cold = {(row.scenario, row.shape): row.latency for row in found.rows if row.state == "cold"}
    warm = {(row.scenario, row.shape): row.latency for row in found.rows if row.state == "encoded"}
    if not cold:
        assert any("no cold requests" in note for note in found.notes)
        pytest.skip("the page cache cannot be emptied here")
    assert cold.keys() == warm.keys()
    assert len(cold_reads) == sum(seen.queries for seen in cold.values())
    assert np.median(cold_reads) > 0


def test_if_the_page_cache_stays_full_no_request_is_called_cold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tlrec_edge.bench.page_cache.read_bytes", lambda: None)
    found = run_bench(GOLDEN, replace(QUICK, cache="cold"), ["top-k"])
    assert [row.state for row in found.rows] == ["encoded", "given"]
    assert any("no cold requests" in note for note in found.notes)


def test_an_eviction_does_not_change_scores() -> None:
    with Recommender.open(GOLDEN) as rec:
        items = Bundle.open(GOLDEN).strings("item_ids").take([0, 1, 2, 3])
        before = rec.score(items, items)
        evict(GOLDEN)
        assert (rec.score(items, items) == before).all()


@pytest.mark.parametrize(
    ("noise", "noisy"),
    [((0.1, 0.0), False), ((0.5, None), True), ((0.1, 0.1), True), ((0.1, 0.0, 0.3), True)],
)
def test_a_noisy_machine_is_reported_in_the_first_line(
    result: BenchResult, noise: tuple[Any, ...], noisy: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    show(replace(result, noise=Noise(*noise)))
    assert capsys.readouterr().out.startswith("NOISY MACHINE") is noisy


def test_a_value_that_is_not_readable_is_shown_as_such(
    result: BenchResult, capsys: pytest.CaptureFixture[str]
) -> None:
    assert result.startup is not None
    unreadable = replace(result.startup, rss_bytes=None, pss_bytes=None, uss_bytes=None)
    show(replace(result, startup=unreadable, machine=replace(result.machine, virtualised=None)))
    assert capsys.readouterr().out.count("not readable here") == 5


def test_the_command_prints_json_and_writes_the_same(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    options = [
        "--seconds",
        "0.01",
        "--candidates",
        "2",
        "--scenario",
        "single-stream",
        "--json",
        "--out",
        str(out),
    ]
    run = CliRunner().invoke(bench, [str(GOLDEN), *options])
    assert run.exit_code == 0, run.output
    found = json.loads(run.stdout)
    assert found == json.loads(out.read_text("utf-8"))
    assert [row["scenario"] for row in found["rows"]] == ["single-stream"] * 2
    assert "start-up" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]


@pytest.mark.parametrize("counts", ["x", "0", "1,,2", ""])
def test_the_command_refuses_invalid_counts(counts: str) -> None:
    run = CliRunner().invoke(bench, [str(GOLDEN), "--candidates", counts])
    assert run.exit_code == 2


def test_a_missing_folder_of_out_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    run = CliRunner().invoke(bench, [str(GOLDEN), "--out", str(tmp_path / "no" / "bench.json")])
    assert isinstance(run.exception, DataError)
    assert not run.stderr


def test_the_result_has_the_history_length_of_the_bundle(result: BenchResult) -> None:
    shape = ModelShape.from_manifest(json.loads((GOLDEN / "manifest.json").read_text("utf-8")))
    assert result.to_json()["bundle"]["history"] == shape.length
    json.dumps(result.to_json(), allow_nan=False)

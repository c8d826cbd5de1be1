"""The benchmark of structural pruning: it names every model and pairs it with its reference."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

from helpers import synthetic
from helpers.networks import fast_encoder
from helpers.paths import BENCHMARKS
from tlrec_edge.data.store import save_dataset
from tlrec_edge.train import EdgeModel

MEASURE = BENCHMARKS / "structure" / "measure.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(MEASURE))


def test_it_prints_a_line_a_model(
    script: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_dataset(synthetic.dataset(), tmp_path / "data")
    for size in ("fast", "base"):
        synthetic.model("finetune", size).save(tmp_path / size)
    names = ("fast width 32", "base into fast")
    trials = [
        (*trial[:3], trial[3] | {"steps": 1}) for trial in script["TRIALS"] if trial[0] in names
    ]
    trials[0][3]["width"] = 8
    within = script["main"].__globals__
    monkeypatch.setitem(within, "TRIALS", trials)
    monkeypatch.setitem(within, "ROUNDS", 20)
    script["main"](str(tmp_path / "data"), "small", str(tmp_path / "fast"), str(tmp_path / "base"))
    lines = [line for line in capsys.readouterr().out.splitlines() if " us " in line]
    compared = [f"{one}, against {other}" for one, other in script["COMPARED"]]
    wanted = ["fast", "base", *names, *compared, "fast, 90 % zeros", "base, 90 % zeros"]
    assert [line.partition(" | ")[0].strip() for line in lines] == wanted


def test_nine_tenths_are_zero(script: dict[str, Any]) -> None:
    model = synthetic.model()
    sparse: EdgeModel = script["with_zeros"](model)
    weight = fast_encoder(sparse.net).skip.weight
    assert float((weight == 0).float().mean()) == pytest.approx(0.9, abs=0.01)
    assert (fast_encoder(model.net).skip.weight != 0).all()

"""New items in the cold-items example: nobody bought them before, and the bundle ranks them."""

from __future__ import annotations

import csv
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from helpers import synthetic
from helpers.paths import EXAMPLES
from helpers.scripts import load_script
from tlrec_edge.data.dataset import TEST
from tlrec_edge.data.prepare import SplitPlan
from tlrec_edge.data.presets import prepare_preset
from tlrec_edge.train import adapt

SCRIPT = EXAMPLES / "cold_items" / "run.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_script(SCRIPT)


def write_retail(path: Path) -> Path:
    """Write the synthetic dataset as the UCI file; items b48 and later are first sold in autumn."""
    titles = synthetic.items().set_index("item")["title"]
    columns = [
        "InvoiceNo",
        "StockCode",
        "Description",
        "Quantity",
        "InvoiceDate",
        "UnitPrice",
        "CustomerID",
        "Country",
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for i, (user, item, domain, day) in enumerate(
            synthetic.interactions().itertuples(index=False)
        ):
            if item[0] == "b" and int(item[1:]) >= 48 and day < "2024-09-15":
                continue
            writer.writerow([i, item, titles[item], 1, f"{day} 08:00:00", 2.5, user, domain])
    return path


def test_new_items_are_unknown_before_and_rank_by_their_titles(
    example: ModuleType, tmp_path: Path
) -> None:
    everything = prepare_preset(
        "online-retail", [write_retail(tmp_path / "log.csv")], SplitPlan("time")
    ).dataset
    window = example.make_window(everything, "2024-09-15", "2025-01-01")
    assert set(window.new) == {f"b{i}" for i in range(48, 60)} & set(everything.items)
    assert not set(window.new) & set(window.known.items)
    assert not (window.known.split.role == TEST).any()
    assert window.known.interactions.time.max() < 1726358400
    assert not window.negatives[np.arange(len(window.user)), window.item].any()

    model = adapt(window.known, window.known.domains, "scratch", None, synthetic.CONFIG)
    found = example.ranks(
        window, example.bundle_scores(model, window, "hashed", tmp_path / "bundle")
    )
    chance = example.ranks(
        window, np.random.default_rng(0).random((len(window.known.users), len(window.new)))
    )
    assert found.mean() < 0.7 * chance.mean()
    tied = np.zeros((len(window.known.users), len(window.new)))
    few = example.ranks(window, tied, sampled=3)
    assert set(few.tolist()) == {2.5}

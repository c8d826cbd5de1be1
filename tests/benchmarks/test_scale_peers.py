"""The peers of the benchmark of scale: what goes to a script, what comes back, and the table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scale import peers
from helpers.paths import BENCHMARKS
from tlrec_edge.data.prepare import prepare_files
from tlrec_edge.data.store import load_dataset, save_dataset
from tlrec_edge.data.task import make_tasks

SCALE = BENCHMARKS / "scale"
COUNT_BUYERS = """
import sys

sys.path.insert(0, {scale!r})
import exchange
import numpy as np

*_, seconds, data, out = sys.argv
data = exchange.read(data)
pairs = np.unique(np.stack([data["user"], data["item"]]), axis=1)
buyers = np.bincount(pairs[1], minlength=data["items"]).astype(np.float32)[:, None]
users = np.ones((data["row_user"].max() + 1, 1), np.float32)
scores = exchange.score_rows(users, buyers, data)
exchange.write(out, scores, exchange.cost_until_now(), f"after {{seconds}} seconds")
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `measure.py` leaves it: a dataset, and what its steps cost."""
    folder = tmp_path_factory.mktemp("run")
    size = ["--interactions", "2000", "--items", "150", "--out", str(folder)]
    subprocess.run([sys.executable, str(SCALE / "make_data.py"), *size], check=True, timeout=120)
    dataset = prepare_files([folder / "log.csv"], [folder / "items.csv"]).dataset
    save_dataset(dataset, folder / "dataset")
    steps = [("pretrain", 9.0), ("pretrain", 2.0), ("adapt", 3.5), ("evaluate", 5.0)]
    costs = [{"step": name, "cpu": cpu, "seconds": 2 * cpu, "GiB": cpu} for name, cpu in steps]
    (folder / "measured.jsonl").write_text("\n".join(map(json.dumps, costs)))
    return folder


def test_a_script_that_counts_buyers_ranks_like_popularity(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "count.py"
    script.write_text(COUNT_BUYERS.format(scale=str(SCALE)))
    peer = peers.Peer(str(script), "none", stops=True)
    monkeypatch.setattr(peers, "PEERS", {"counts": peer})
    monkeypatch.setattr(peers, "library_python", lambda *_: Path(sys.executable))
    monkeypatch.setattr(sys, "argv", ["peers", str(run), "--folder", str(tmp_path)])
    peers.main()
    popularity, counts = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in capsys.readouterr().out.splitlines()[2:]
    ]
    assert [popularity[0], counts[0]] == ["popularity", "counts"]
    assert popularity[4] == counts[4]
    assert 0.1 < float(counts[4].split()[0]) < 0.9
    assert all(float(cost) >= 0 for cost in counts[1:4])
    # The seconds that our last pretrain and adapt took.
    assert counts[5] == "after 5.5 seconds"


def test_our_cost_is_that_of_the_steps_measured_last(run: Path, tmp_path: Path) -> None:
    assert peers.cost_of_ours(run) == {"cpu": 5.5, "seconds": 11.0, "GiB": 3.5}
    assert peers.cost_of_ours(tmp_path) == {}


def test_scripts_get_what_the_task_may_know_and_its_rows(run: Path) -> None:
    task = make_tasks(load_dataset(run / "dataset"), ("new",)).final
    arrays = peers.exchanged(task)
    assert np.array_equal(arrays["user"], task.train.user)
    assert np.array_equal(arrays["item"], task.train.item)
    users = np.unique(task.rows.user)
    assert np.array_equal(users[arrays["row_user"]], task.rows.user)
    assert np.array_equal(arrays["columns"][:, 0], task.rows.item)
    assert np.array_equal(arrays["columns"][:, 1:], task.rows.negatives)
    history = np.stack([users[arrays["history_user"]], arrays["history_item"]])
    of_users = np.isin(task.history.user, users)
    assert np.array_equal(history, np.stack([task.history.user, task.history.item])[:, of_users])

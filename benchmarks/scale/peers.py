"""Fit other libraries to the rows that `measure.py` left, and compare cost and NDCG@10.

python -m benchmarks.scale.peers RUN --domain new

Needs tlrec-edge[build]. Each library gets an environment of its own, which later runs use again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.environments import library_python
from tlrec_edge.core.metrics import METRICS, clustered_mean, rank_of_positive
from tlrec_edge.data.store import load_dataset
from tlrec_edge.data.task import Task, Tasks, make_tasks
from tlrec_edge.evaluation.compared import open_compared_model
from tlrec_edge.linear.baselines import popularity_scorer
from tlrec_edge.linear.ranking import make_queries, rank_rows, sample_rows
from tlrec_edge.types import Doubles

HERE = Path(__file__).parent
TORCH = "torch==2.13.0"
OURS = ("pretrain", "adapt")
"""The steps of `measure.py` that fit our model."""
K = 10
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Peer(NamedTuple):
    """A model of another library.

    Attributes:
        script: the script that fits it, in this folder.
        library: words for pip.
        options: of the script.
        needs_torch: whether torch is installed before the library.
        stops: whether the script trains until the seconds are used up.
    """

    script: str
    library: str
    options: tuple[str, ...] = ()
    needs_torch: bool = False
    stops: bool = False

    def python(self, folder: Path, torch: str) -> Path:
        """Return the Python of the library's environment in a folder."""
        # torch is installed alone, because the library could choose another build of it.
        before = (torch,) if self.needs_torch else ()
        return library_python(folder / self.library.split("==")[0], *before, self.library)


_ALS = Peer("run_als.py", "implicit==0.7.3")
# RecBole 1.2.1 needs a numpy before 2 and a pandas before 3.
_RECBOLE = "recbole==1.2.1 numpy==1.26.4 pandas==2.3.3"
_SASREC = Peer("run_sasrec.py", _RECBOLE, needs_torch=True, stops=True)
PEERS = {
    "ALS (implicit)": _ALS,
    "ALS (implicit), alpha 100": _ALS._replace(options=("--alpha", "100")),
    "SASRec (RecBole)": _SASREC._replace(options=("--loss", "CE")),
    "SASRec (RecBole), BPR": _SASREC._replace(options=("--loss", "BPR")),
}


class Line(NamedTuple):
    """A line of the table: what fitting a model cost, and its NDCG@10."""

    name: str
    cost: dict[str, Any]
    ndcg: float
    se: float

    def __str__(self) -> str:
        cost = (str(self.cost.get(key, "")) for key in ("cpu", "seconds", "GiB"))
        ndcg = f"{self.ndcg:.4f} ({self.se:.4f})"
        return "| " + " | ".join([self.name, *cost, ndcg, self.cost.get("note", "")]) + " |"


HEADER = f"""| model | CPU seconds | wall seconds | peak GiB | NDCG@{K} (SE) | |
|---|---|---|---|---|---|"""


def exchanged(task: Task) -> dict[str, Any]:
    """Return the arrays that ``exchange`` describes."""
    queries = make_queries(task, task.rows)
    columns = task.candidates[queries.requested][queries.columns]
    columns[~queries.valid] = -1
    history = task.history.select(np.isin(task.history.user, queries.user))
    return {
        "items": task.n_items,
        "user": task.train.user,
        "item": task.train.item,
        "history_user": np.searchsorted(queries.user, history.user),
        "history_item": history.item,
        "row_user": queries.user_index,
        "columns": columns,
    }


def line(name: str, cost: dict[str, Any], rank: Doubles, task: Task) -> Line:
    ndcg = clustered_mean(METRICS["ndcg"](rank, K), task.rows.user)
    return Line(name, cost, ndcg.mean, ndcg.se)


def peer_line(name: str, command: list[str], data: Path, task: Task) -> Line:
    """Run a script on ``data``, in a process of its own, and judge the scores that it writes."""
    out = data.with_name("out.npz")
    out.unlink(missing_ok=True)
    subprocess.run([*command, str(data), str(out)], check=True, env=os.environ | ONE_THREAD)
    with np.load(data) as rows, np.load(out) as arrays:
        columns, scores, cost = rows["columns"], arrays["scores"], json.loads(str(arrays["about"]))
        learned = np.zeros(task.n_items, bool)
        learned[rows["item"]] = True
    scores = np.where(learned[columns], scores, -np.inf)
    return line(name, cost, rank_of_positive(scores, columns >= 0), task)


def cost_of_ours(run: Path) -> dict[str, Any]:
    """Return what `measure.py` last measured for the steps that fit our model; {} without."""
    path = run / "measured.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    steps = {step["step"]: step for step in map(json.loads, lines)}
    if not set(OURS) <= set(steps):
        return {}
    cost = {key: round(sum(steps[name][key] for name in OURS), 1) for key in ("cpu", "seconds")}
    return {**cost, "GiB": max(steps[name]["GiB"] for name in OURS)}


def compare(given: argparse.Namespace) -> Iterator[Line]:
    """Yield the lines of popularity, of our model if it is there, and of the peers."""
    dataset = load_dataset(given.run / "dataset")
    tasks = make_tasks(dataset, (given.domain,))
    task = tasks.choose if given.validation else tasks.final
    if not task.rows.negatives.shape[1]:
        task = sample_rows(task)
    yield line("popularity", {}, rank_rows(popularity_scorer(task), task).rank, task)
    cost = cost_of_ours(given.run)
    model = given.model or given.run / "model"
    if model.is_dir() and not given.validation:
        ranker = open_compared_model(model, dataset).ranker(dataset)
        yield line("tlrec-edge", cost, ranker(Tasks(tasks.choose, task)).rank, task)
    given.folder.mkdir(parents=True, exist_ok=True)
    data = given.folder / "data.npz"
    np.savez(data, **exchanged(task))
    seconds = given.cpu_seconds or cost.get("cpu")
    for name in given.only or PEERS:
        peer = PEERS[name]
        if peer.stops and seconds is None:
            sys.exit(f"{given.run} has no measured pretrain and adapt: pass --cpu-seconds")
        python = peer.python(given.folder, given.torch)
        command = [str(python), str(HERE / peer.script), *peer.options]
        if peer.stops:
            command += ["--cpu-seconds", str(seconds)]
        yield peer_line(name, command, data, task)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("run", type=Path, help="The folder --out of measure.py.")
    add("--domain", default="new")
    add("--model", type=Path, help="Our model or bundle. (default: RUN/model)")
    add("--folder", type=Path, help="Environments and data go here. (default: RUN/peers)")
    add("--cpu-seconds", type=float, help="When SASRec stops. (default: pretrain and adapt's)")
    add("--validation", action="store_true", help="Judge on validation rows, without our model.")
    add("--only", action="append", choices=PEERS, help="A model of a peer; repeatable.")
    add("--torch", default=TORCH, help=f"Words for `pip install` of torch. (default: {TORCH})")
    given = parser.parse_args()
    given.folder = given.folder or given.run / "peers"
    print(HEADER)
    for found in compare(given):
        print(found, flush=True)


if __name__ == "__main__":
    main()

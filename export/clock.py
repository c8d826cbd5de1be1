"""Time models as the bundles they become: every bundle answers in turn, so that what slows one slows all."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tlrec_edge.export.bundle import CANDIDATES, ExportConfig, export_bundle

from tlrec_edge import History, Recommender
from tlrec_edge.cost import Cost
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.train.artifact import EdgeModel
from tlrec_edge.train.served import history_of

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def bundle_costs(
    models: Sequence[EdgeModel], dataset: Dataset, rounds: int = 400, seed: int = 0
) -> list[Cost]:  # fmt: skip
    """Export every model to a folder of its own, ask all of them the same requests in turn, and remove the folders.

    A request is a history of a user of the target and CANDIDATES drawn candidates. A round asks each bundle once, in an
    order drawn anew; nothing is cached.
    """
    rng = np.random.default_rng(seed)
    requests = _requests(models[0], dataset, rng)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        opened, sizes = [], []
        for at, model in enumerate(models):
            path = Path(folder) / str(at)
            export_bundle(model, dataset, path, ExportConfig(gates=("parity",)))
            sizes.append(sum(file.stat().st_size for file in path.iterdir()))
            opened.append(stack.enter_context(Recommender.open(path, verify="none", cache=0)))
        taken = np.zeros((len(models), rounds))
        for rec in opened:
            for history, names in requests[:20]:
                rec.score(history, names)
        for turn in range(rounds):
            history, names = requests[turn % len(requests)]
            for at in rng.permutation(len(models)):
                before = time.perf_counter_ns()
                opened[at].score(history, names)
                taken[at, turn] = time.perf_counter_ns() - before
    taken.sort(axis=1)
    return [
        Cost(size, {name: float(row[int(rounds * p)]) / 1000 for name, p in PERCENTILES.items()})
        for size, row in zip(sizes, taken, strict=True)
    ]


def _requests(model: EdgeModel, dataset: Dataset, rng: np.random.Generator) -> list[tuple[History, list[str]]]:
    """Draw histories of the target's users, and candidates for each."""
    task = make_tasks(dataset, tuple(model.about["domains"]), model.about.get("fold")).final
    users = np.unique(task.history.user)
    drawn = rng.choice(users, min(len(users), 200), replace=False)
    names = [dataset.items[row] for row in task.candidates]
    size = min(CANDIDATES, len(names))
    return [
        (history_of(dataset, task.history, int(user)), [names[i] for i in rng.choice(len(names), size, replace=False)])
        for user in drawn
    ]

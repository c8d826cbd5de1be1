"""Time models as the bundles they become: every bundle answers in turn, so that what slows one slows all."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tlrec_edge.export.bundle import CANDIDATES, ExportConfig, export_bundle
from tlrec_edge.export.gates import OF_BUNDLE

from tlrec_edge import History, Recommender
from tlrec_edge.cost import Cost
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import BundleError, ExportError
from tlrec_edge.train.artifact import EdgeModel
from tlrec_edge.train.served import history_of

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def bundle_costs(
    models: Sequence[EdgeModel], dataset: Dataset, rounds: int = 400, seed: int = 0
) -> list[Cost]:  # fmt: skip
    """Export every model to a folder of its own, ask all of them the same requests in turn, and remove the folders.

    A request is a history of a user of the target and CANDIDATES drawn candidates. A round asks each bundle once, in an
    order drawn anew; nothing is cached. A model that makes no sound bundle has a ``fault`` instead of figures.
    """
    rng = np.random.default_rng(seed)
    requests = _requests(models[0], dataset, rng)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        costs, opened = [], []
        for at, model in enumerate(models):
            path = Path(folder) / str(at)
            try:
                export_bundle(model, dataset, path, ExportConfig(gates=OF_BUNDLE))
                opened.append(stack.enter_context(Recommender.open(path, verify="none", cache=0)))
            except (ExportError, BundleError) as error:
                costs.append(Cost(0, fault=error.why if isinstance(error, ExportError) else str(error)))
            else:
                costs.append(Cost(sum(file.stat().st_size for file in path.iterdir())))
        taken = np.zeros((len(opened), rounds))
        for rec in opened:
            for history, names in requests[:20]:
                rec.score(history, names)
        for turn in range(rounds):
            history, names = requests[turn % len(requests)]
            for at in rng.permutation(len(opened)):
                before = time.perf_counter_ns()
                opened[at].score(history, names)
                taken[at, turn] = time.perf_counter_ns() - before
    taken.sort(axis=1)
    rows = iter(taken)
    return [cost if cost.fault else replace(cost, us=_percentiles(next(rows))) for cost in costs]


def _percentiles(rising: NDArray[np.float64]) -> dict[str, float]:
    """Return the percentiles, in microseconds, of nanoseconds in rising order."""
    return {name: float(rising[int(len(rising) * p)]) / 1000 for name, p in PERCENTILES.items()}


def _requests(model: EdgeModel, dataset: Dataset, rng: np.random.Generator) -> list[tuple[History, list[str]]]:
    """Draw histories of the target's users, and candidates for each."""
    task = make_tasks(dataset, model.provenance.domains, model.provenance.fold).final
    users = np.unique(task.history.user)
    drawn = rng.choice(users, min(len(users), 200), replace=False)
    names = [dataset.items[row] for row in task.candidates]
    size = min(CANDIDATES, len(names))
    return [
        (history_of(dataset, task.history, int(user)), [names[i] for i in rng.choice(len(names), size, replace=False)])
        for user in drawn
    ]

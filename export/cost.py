"""Measure what models cost as bundles: bytes on disk and microseconds a request."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.core.cost import Cost
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.errors import BundleError, ExportError
from tlrec_edge.runtime.history import History
from tlrec_edge.runtime.recommender import Recommender
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.served import history_of

from .export import ExportConfig, export_bundle
from .gates import BUNDLE_GATES
from .manifest import REQUEST_CANDIDATES
from .source import final_task

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
USERS, WARM_UP = 200, 20
"""Users whose histories make the requests, and requests that are not timed."""


class _Request(NamedTuple):
    history: History
    candidates: list[str]


def measure_costs(
    models: Sequence[EdgeModel],
    dataset: Dataset,
    rounds: int = 400,
    seed: int = 0,
) -> list[Cost]:
    """Export every model to a temporary folder, and time the bundles on the same requests.

    A request scores 100 random candidates for the history of a user of the target, uncached. Every
    round sends one request to all bundles, in random order, so that anything else that slows the
    machine slows all bundles equally.

    Args:
        models: The models, all of the same target.
        dataset: The dataset that they were adapted to.
        rounds: Timed requests per bundle. Of the default, 400, three are slower than the p99.
        seed: Seed of the requests and of the order of bundles.

    Returns:
        One cost per model. If a model fails to export, or fails a gate that concerns the bundle
        alone, its cost has an ``error`` instead of figures.
    """
    rng = np.random.default_rng(seed)
    requests = _requests(models[0], dataset, rng)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        costs, opened = [], []
        for at, model in enumerate(models):
            path = Path(folder) / str(at)
            try:
                export_bundle(model, dataset, path, ExportConfig(gates=BUNDLE_GATES))
                opened.append(stack.enter_context(Recommender.open(path, verify="none", cache=0)))
            except ExportError as error:
                costs.append(Cost(0, error=error.why))
            except BundleError as error:
                costs.append(Cost(0, error=str(error)))
            else:
                costs.append(Cost(sum(file.stat().st_size for file in path.iterdir())))
        timings = iter(_time(opened, requests, rounds, rng))
    return [cost if cost.error else replace(cost, us=_percentiles(next(timings))) for cost in costs]


def _time(
    bundles: Sequence[Recommender],
    requests: Sequence[_Request],
    rounds: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the nanoseconds of every request, (bundles, rounds)."""
    for rec in bundles:
        for request in requests[:WARM_UP]:
            rec.score(*request)
    taken = np.zeros((len(bundles), rounds), np.int64)
    for round_ in range(rounds):
        request = requests[round_ % len(requests)]
        for at in rng.permutation(len(bundles)):
            before = time.perf_counter_ns()
            bundles[at].score(*request)
            taken[at, round_] = time.perf_counter_ns() - before
    return taken


def _percentiles(taken: NDArray[np.int64]) -> dict[str, float]:
    """Return percentiles in microseconds, each an observed value: the nearest rank above."""
    ascending = np.sort(taken)
    return {name: float(ascending[int(len(taken) * p)]) / 1000 for name, p in PERCENTILES.items()}


def _requests(model: EdgeModel, dataset: Dataset, rng: np.random.Generator) -> list[_Request]:
    """Draw users of the target, and candidates for each."""
    task = final_task(model, dataset)
    users = np.unique(task.history.user)
    names = [dataset.items[row] for row in task.candidates]
    count = min(REQUEST_CANDIDATES, len(names))
    requests = []
    for user in rng.choice(users, min(len(users), USERS), replace=False):
        drawn = rng.choice(len(names), count, replace=False)
        history = history_of(dataset, task.history, int(user))
        requests.append(_Request(history, [names[i] for i in drawn]))
    return requests

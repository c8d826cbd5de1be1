"""Measure what each structural step costs in quality and gives in speed.

    python examples/structure/measure.py DATASET DOMAIN FAST_MODEL BASE_MODEL [SEED]

Both models are adapted to the domain, best from a dataset of `prepare --no-refit`, so that they have not learned from
the validation rows asked here. Prints NDCG@10 with its difference to the reference and that difference's standard
error, paired and clustered by user, for the whole score and for the deep part alone; the share of the variance of the
deep scores that is missed; and the median time of the encoder in onnxruntime (one history, one thread), all encoders
taking turns.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from tlrec_edge.export import encoder_graph
from tlrec_edge.quantize import (
    distance,
    distil_fast,
    prune_feed_forward,
    prune_heads,
    prune_history,
    prune_layers,
    prune_width,
)  # fmt: skip

from tlrec_edge.data.store import load_dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.metrics import METRICS, clustered
from tlrec_edge.train import EdgeModel
from tlrec_edge.train.model import PAD
from tlrec_edge.train.ranking import rank_rows

ROUNDS = 3000
Step = Callable[[EdgeModel], EdgeModel]


def deep_alone(model: EdgeModel) -> EdgeModel:
    return replace(model, mix=replace(model.mix, wide=0.0, own=0.0, rest=0.0, interest=0.0))


def with_zeros(model: EdgeModel) -> EdgeModel:
    """Set the nine tenths of each matrix of the encoder that are smallest to zero."""
    net = copy.deepcopy(model.net)
    for weight in net.encoder.parameters():
        if weight.ndim == 2:
            weight[weight.abs() < weight.abs().quantile(0.9)] = 0.0
    return replace(model, net=net)


def session(model: EdgeModel) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    run = onnxruntime.InferenceSession(encoder_graph(model), options, providers=["CPUExecutionProvider"]).run
    config, rng = model.net.config, np.random.default_rng(0)
    history = rng.standard_normal((1, config.history, config.width)).astype(np.float32)
    log_weight = np.where(np.arange(config.history)[None] < config.history // 4, PAD, 0.0).astype(np.float32)
    given = {"history": history, "log_weight": log_weight}
    return lambda: run(None, given)


def take_turns(calls: list[Callable[[], object]]) -> list[float]:
    """Return the median microseconds of each call, one of each a round."""
    taken = np.empty((ROUNDS, len(calls)))
    for times in taken:
        for i, call in enumerate(calls):
            start = time.perf_counter_ns()
            call()
            times[i] = time.perf_counter_ns() - start
    return (np.median(taken[ROUNDS // 10 :], axis=0) / 1000).tolist()


def main(data: str, domain: str, fast_path: str, base_path: str, seed: int = 0) -> None:
    torch.set_num_threads(1)
    dataset = load_dataset(Path(data))
    fast, base = EdgeModel.load(Path(fast_path)), EdgeModel.load(Path(base_path))
    tasks = make_tasks(dataset, (domain,))
    asked, task = tasks.choose, tasks.final

    def chain(*steps: Callable[..., EdgeModel]) -> Step:
        def run(model: EdgeModel) -> EdgeModel:
            for step in steps:
                model = step(model, dataset, task, seed=seed)
            return model

        return run

    def step(function: Callable[..., EdgeModel], **knobs: float) -> Callable[..., EdgeModel]:
        return lambda *given, **more: function(*given, **knobs, **more)

    trials: list[tuple[str, EdgeModel, Step]] = [("fast", fast, lambda model: model)]
    for width in (48, 32, 24, 16):
        for steps in (0, 400):
            trials.append(
                (f"fast width {width}, {steps} steps", fast, chain(step(prune_width, width=width, steps=steps)))
            )
    trials += [
        ("fast feed-forward half", fast, chain(step(prune_feed_forward, keep=0.5))),
        ("fast history 25", fast, chain(step(prune_history, history=25))),
        ("fast width 32, feed-forward half", fast, chain(step(prune_width, width=32), step(prune_feed_forward))),
        ("fast, 90 % zeros", fast, with_zeros),
        ("base", base, lambda model: model),
        ("base feed-forward half", base, chain(step(prune_feed_forward, keep=0.5))),
        ("base heads 2 -> 1", base, chain(step(prune_heads, heads=1))),
        ("base width 48, 0 steps", base, chain(step(prune_width, width=48, steps=0))),
        ("base width 48, 2000 steps", base, chain(step(prune_width, width=48, steps=2000))),
        ("base feed-forward half, width 48", base,
         chain(step(prune_feed_forward, keep=0.5), step(prune_width, width=48, steps=2000))),
        ("base layers 2 -> 1, 0 steps", base, chain(step(prune_layers, layers=1, steps=0))),
        ("base layers 2 -> 1, 1000 steps", base, chain(step(prune_layers, layers=1, steps=1000))),
        ("base history 25", base, chain(step(prune_history, history=25))),
        ("base into fast, 0 steps", base, chain(step(distil_fast, steps=0))),
        ("base into fast, 2000 steps", base, chain(step(distil_fast, steps=2000))),
        ("base into fast, width 32", base, chain(step(distil_fast, steps=2000), step(prune_width, width=32))),
        ("base, 90 % zeros", base, with_zeros),
        ("fast, not distilled, against base", base, lambda _: fast),
    ]  # fmt: skip

    def values(model: EdgeModel) -> np.ndarray:
        return METRICS["ndcg"](rank_rows(model.scorer(dataset, asked), asked).rank, 10)

    print(
        f"{dataset.source}, {domain}: {len(asked.rows):,} validation rows of {len(np.unique(asked.rows.user)):,} users"
    )
    made, lines = [], []
    for name, reference, make in trials:
        start = time.perf_counter()
        model = make(reference)
        seconds = time.perf_counter() - start
        cells = [f"{name:34}"]
        for view in (lambda m: m, deep_alone):
            own, ref = values(view(model)), values(view(reference))
            cells.append(
                f"{own.mean():.4f} {own.mean() - ref.mean():+.4f} ({clustered(own - ref, asked.rows.user).se:.4f})"
            )
        same = model.ids == reference.ids
        missed = f"{distance(model, dataset, task, reference, seed=99):.5f}" if same else "-"
        cells.append(f"{missed:>8} {seconds:6.1f} s")
        lines.append(cells)
        made.append(session(model))
        print(" | ".join(cells), flush=True)
    print(
        "\nname | NDCG@10, difference (SE) | deep part alone | variance missed, seconds | encoder us, of the reference"
    )
    taken = take_turns(made)
    of = {id(reference): taken[i] for i, (name, reference, _) in enumerate(trials) if name in ("fast", "base")}
    for cells, us, (_, reference, _) in zip(lines, taken, trials, strict=True):
        print(" | ".join([*cells, f"{us:6.1f} {us / of[id(reference)]:.2f}"]))


if __name__ == "__main__":
    main(*sys.argv[1:5], *map(int, sys.argv[5:6]))

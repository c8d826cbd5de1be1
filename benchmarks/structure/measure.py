"""Measure how pruning steps change quality and speed.

    python benchmarks/structure/measure.py DATASET DOMAIN FAST_MODEL BASE_MODEL [SEED]

Both models are adapted to the domain, preferably on a dataset of `prepare --no-refit`, so that
they are not trained on the validation rows. Prints NDCG@10 and its difference to the reference
with the standard error, paired and clustered by user, for the complete score and for the two-
tower part; the share of variance of the two-tower scores that is lost; and the median time of
the encoder in onnxruntime (one history, one thread, all encoders in turns).
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

from tlrec_edge.core.metrics import METRICS, clustered_mean
from tlrec_edge.data.store import load_dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.export import encoder_graph
from tlrec_edge.linear.ranking import rank_rows
from tlrec_edge.quantize import (
    distance,
    distil_fast,
    prune_feed_forward,
    prune_head_width,
    prune_heads,
    prune_history,
    prune_layers,
    prune_width,
)
from tlrec_edge.train import EdgeModel
from tlrec_edge.train.model import PAD

ROUNDS = 3000


def full_score(model: EdgeModel) -> EdgeModel:
    return model


def deep_alone(model: EdgeModel) -> EdgeModel:
    weights = replace(model.score_weights, wide=0.0, target_wide=0.0, residual=0.0, interest=0.0)
    return replace(model, score_weights=weights)


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
    run = onnxruntime.InferenceSession(
        encoder_graph(model), options, providers=["CPUExecutionProvider"]
    ).run
    config, rng = model.net.config, np.random.default_rng(0)
    history = rng.standard_normal((1, config.history, config.width)).astype(np.float32)
    log_weight = np.where(np.arange(config.history)[None] < config.history // 4, PAD, 0.0).astype(
        np.float32
    )
    given = {"history": history, "log_weight": log_weight}
    return lambda: run(None, given)


def take_turns(calls: list[Callable[[], object]]) -> list[float]:
    """Return the median microseconds of each call.

    Every round has a new order, because a large encoder leaves cold caches to the next one.
    """
    taken = np.empty((ROUNDS, len(calls)))
    rng = np.random.default_rng(0)
    for times in taken:
        for i in rng.permutation(len(calls)):
            start = time.perf_counter_ns()
            calls[i]()
            times[i] = time.perf_counter_ns() - start
    return (np.median(taken[ROUNDS // 10 :], axis=0) / 1000).tolist()


Trial = tuple[str, str, Callable[..., EdgeModel], dict[str, float]]
TRIALS: list[Trial] = [
    *((f"fast width {width}", "fast", prune_width, {"width": width}) for width in (48, 32, 24, 16)),
    *(
        (f"fast width {width}, no recovery", "fast", prune_width, {"width": width, "steps": 0})
        for width in (32, 16)
    ),
    ("fast feed-forward half", "fast", prune_feed_forward, {"keep": 0.5}),
    ("fast feed-forward eighth", "fast", prune_feed_forward, {"keep": 0.125}),
    ("fast width 32, feed-forward half", "fast width 32", prune_feed_forward, {"keep": 0.5}),
    ("fast width 32, feed-forward eighth", "fast width 32", prune_feed_forward, {"keep": 0.125}),
    ("fast history 25", "fast", prune_history, {"history": 25}),
    ("base feed-forward half", "base", prune_feed_forward, {"keep": 0.5}),
    ("base one head", "base", prune_heads, {"heads": 1}),
    ("base head width 24", "base", prune_head_width, {"head_width": 24}),
    ("base width 48, no recovery", "base", prune_width, {"width": 48, "steps": 0}),
    ("base width 48", "base", prune_width, {"width": 48}),
    (
        "base width 48, feed-forward half",
        "base feed-forward half",
        prune_width,
        {"width": 48, "steps": 1000},
    ),
    (
        "base width 48, feed-forward half, one head",
        "base width 48, feed-forward half",
        prune_heads,
        {"heads": 1},
    ),
    ("base one layer, no recovery", "base", prune_layers, {"layers": 1, "steps": 0}),
    ("base one layer", "base", prune_layers, {"layers": 1}),
    ("base history 25", "base", prune_history, {"history": 25}),
    ("base into fast", "base", distil_fast, {}),
    ("base into fast, width 32", "base into fast", prune_width, {"width": 32}),
]
"""Name, original model, pruning step and its options; a name begins with its reference."""
COMPARED = [("fast", "base"), ("base into fast", "fast")]


def main(data: str, domain: str, fast: str, base: str, seed: int = 0) -> None:
    torch.set_num_threads(1)
    dataset = load_dataset(Path(data))
    tasks = make_tasks(dataset, (domain,))
    made = {"fast": EdgeModel.load(Path(fast)), "base": EdgeModel.load(Path(base))}
    lines: dict[str, str] = {}

    def ndcg(model: EdgeModel) -> np.ndarray:
        return METRICS["ndcg"](
            rank_rows(model.scorer(dataset, tasks.choose), tasks.choose).rank, 10
        )

    def report(name: str, reference: str, seconds: float) -> None:
        cells = [f"{name:48}"]
        for view in (full_score, deep_alone):
            own, other = ndcg(view(made[name])), ndcg(view(made[reference]))
            se = clustered_mean(own - other, tasks.choose.rows.user).se
            cells.append(f"{own.mean():.4f} {own.mean() - other.mean():+.4f} ({se:.4f})")
        same = made[name].ids == made[reference].ids
        missed = (
            f"{distance(made[name], dataset, tasks.final, made[reference], seed=99):.5f}"
            if same
            else "-"
        )
        lines[name] = " | ".join([*cells, f"{missed:>8}", f"{seconds:5.0f} s"])
        print(lines[name], flush=True)

    rows = tasks.choose.rows
    print(f"{domain}: {len(rows):,} validation rows of {len(np.unique(rows.user)):,} users")
    head = ("model", "NDCG@10, difference (SE)", "two-tower part", "variance lost", "to make")
    print(" | ".join([*head, "encoder"]))
    for name in ("fast", "base"):
        report(name, name, 0.0)
    for name, parent, step, options in TRIALS:
        start = time.perf_counter()
        made[name] = step(made[parent], dataset, tasks.final, **options, seed=seed)
        report(name, name[:4], time.perf_counter() - start)
    for one, other in COMPARED:
        made[f"{one}, against {other}"] = made[one]
        report(f"{one}, against {other}", other, 0.0)
    for name in ("fast", "base"):
        made[f"{name}, 90 % zeros"] = with_zeros(made[name])
        report(f"{name}, 90 % zeros", name, 0.0)
    print()
    taken = dict(zip(made, take_turns([session(model) for model in made.values()]), strict=True))
    for name, us in taken.items():
        ratios = f"{us / taken['fast']:.2f} of fast, {us / taken['base']:.2f} of base"
        print(f"{lines[name]} | {us:6.1f} us {ratios}")


if __name__ == "__main__":
    main(*sys.argv[1:5], *map(int, sys.argv[5:6]))

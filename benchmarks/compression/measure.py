"""Compare compression judged on rows that the model has learned with rows that it has not.

    python benchmarks/compression/measure.py --retail FOLDER --out OUT [--seeds 3] [--only TARGET]

FOLDER holds the protocol files of Online Retail (see ``benchmarks/quality/run.sh``); Complete
Journey comes from its wheel. For each target and seed, every pruning step and storage format is
applied to the final model and to the model from before its refit. Three ratios of NDCG@10 to that
of the uncompressed model are measured: of the final model on validation rows, which it has learned;
of the other model on the same rows, which it has not; and of the final model on test rows. Printed
are the smallest points that keep a budget by the first and by the second, and how far both are from
the test ratios over all points. Nothing is timed, so that the result does not depend on the
machine. Folders in OUT are used again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.prepare import SplitPlan, prepare_files
from tlrec_edge.data.presets import prepare_preset
from tlrec_edge.data.store import load_dataset, save_dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.quantize import CompressConfig
from tlrec_edge.quantize.costs import served_bytes
from tlrec_edge.quantize.prune_cache import PruneCache
from tlrec_edge.quantize.retained_quality import Judge, RetainedQuality
from tlrec_edge.quantize.search_space import ORIGINAL, STORAGE_FORMATS, search_space
from tlrec_edge.quantize.subject import Pruner, Subject
from tlrec_edge.train import EdgeModel, TrainConfig, adapt, pretrain

SHARES = (0.995, 0.985)
WAYS = ("learned", "unlearned")


@dataclass(frozen=True)
class Point:
    """One pruning step and storage format ("" is float32), and the quality retained in each way."""

    step: str
    storage_format: str
    megabytes: float
    learned: RetainedQuality
    unlearned: RetainedQuality
    test: RetainedQuality

    @property
    def name(self) -> str:
        """The name that ``compress`` gives it."""
        parts = (self.step if self.step != ORIGINAL else "", self.storage_format)
        return ", ".join(part for part in parts if part) or ORIGINAL


@dataclass(frozen=True)
class Target:
    """A target with its dataset, its source and how to train."""

    name: str
    domain: str
    source: Callable[[Dataset], tuple[str, ...]]
    prepare: Callable[[Path], Dataset]
    train: TrainConfig


def retail(folder: Path) -> Dataset:
    """Prepare Online Retail with given test rows, the United Kingdom as the source."""
    domains = {"United Kingdom": "uk", "*": "non_uk"}
    logs = [folder / f"protocol_b_{part}.tsv.gz" for part in ("source_uk", "non_uk_train")]
    plan = SplitPlan(kind="given", candidates=folder / "protocol_b_non_uk_test.tsv.gz")
    return prepare_files(logs, [folder / "items.tsv.gz"], {"domains": domains}, plan).dataset


def journey(_: Path) -> Dataset:
    """Prepare Complete Journey with its published split."""
    return prepare_preset("complete-journey").dataset


TARGETS = (
    Target("retail", "non_uk", lambda _: ("uk",), retail, TrainConfig()),
    Target(
        "NUTRITION",
        "NUTRITION",
        lambda data: tuple(name for name in data.domains if name != "NUTRITION"),
        journey,
        TrainConfig(min_buyers=10),
    ),
)


def trained(target: Target, dataset: Dataset, out: Path, seed: int) -> EdgeModel:
    """Return the model of a target, from its folder if it was trained before."""
    path = out / f"{target.name}-{seed}"
    if not path.exists():
        config = replace(target.train, seed=seed)
        source = pretrain(dataset, target.source(dataset), config)
        adapt(dataset, (target.domain,), "finetune", source, config).save(path)
    return EdgeModel.load(path)


def measure(model: EdgeModel, dataset: Dataset, out: Path, seed: int) -> Iterator[Point]:
    """Yield every point of the search space, the original first."""
    tasks, config = make_tasks(dataset, model.provenance.domains), CompressConfig(seed=seed)
    subject = Subject.of(model, tasks)
    cache = PruneCache(out, model, seed, config.recovery_steps)
    pruner = Pruner(subject, dataset, search_space(model), config, cache)
    learned = Judge(model, dataset, tasks.choose, config.budget)
    unlearned = Judge(subject.model, dataset, tasks.choose, config.budget)
    test = Judge(model, dataset, tasks.final, config.budget)
    for step in pruner.steps:
        final, before = pruner.apply_to_final(step, ""), pruner.prune(step)
        for storage_format in ("", *STORAGE_FORMATS):
            store = STORAGE_FORMATS.get(storage_format, lambda pruned: pruned)
            small = store(final)
            yield Point(
                step=step,
                storage_format=storage_format,
                megabytes=served_bytes(small) / 1e6,
                learned=learned.retained(small),
                unlearned=unlearned.retained(store(before)),
                test=test.retained(small),
            )


def choose(points: Sequence[Point], way: str, share: float) -> Point:
    """Return the smallest point that keeps a budget in one way, as ``compress`` chooses it.

    A pruned model that misses the budget is not quantized.
    """
    keeps = {(p.step, p.storage_format): getattr(p, way).low >= share for p in points}
    acceptable = [p for p in points if keeps[p.step, p.storage_format] and keeps[p.step, ""]]
    return min(acceptable, key=lambda p: (p.megabytes, -getattr(p, way).ratio))


def report(name: str, seed: int, points: Sequence[Point]) -> None:
    """Print what was chosen in each way, and how far each was from the test ratios."""
    original = points[0]
    values = ", ".join(f"{getattr(original, way).value:.4f} {way}" for way in WAYS)
    print(f"{name}, seed {seed}: NDCG@10 {values}, {original.test.value:.4f} test")
    for share in SHARES:
        for way in WAYS:
            point = choose(points, way, share)
            found, other = getattr(point, way), point.test
            missed = "" if other.ratio + 2 * other.se >= share else " (misses the budget)"
            sizes = f"{original.megabytes:.1f} to {point.megabytes:.1f} MB"
            ratios = f"{found.ratio:.4f} ({found.se:.4f}) | {other.ratio:.4f} ({other.se:.4f})"
            print(f"  {share:.1%} | {way} | {point.name} | {sizes} | {ratios}{missed}")
    small = [point for point in points if point.name != ORIGINAL]
    for way in WAYS:
        errors = np.array([getattr(p, way).ratio - p.test.ratio for p in small])
        sizes = f"mean absolute {np.abs(errors).mean():.4f}, largest {np.abs(errors).max():.4f}"
        print(f"  {way}: validation - test, {len(small)} points: {errors.mean():+.4f}, {sizes}")


def main() -> None:
    """Measure every target and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--retail", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=[target.name for target in TARGETS])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for target in TARGETS:
        if given.only not in (None, target.name):
            continue
        path = given.out / f"{target.name}-data"
        if not path.exists():
            save_dataset(target.prepare(given.retail), path)
        dataset = load_dataset(path)
        for seed in range(given.seeds):
            model = trained(target, dataset, given.out, seed)
            points = list(measure(model, dataset, given.out / f"{target.name}-{seed}-search", seed))
            report(target.name, seed, points)
            rows = [asdict(point) for point in points]
            (given.out / f"{target.name}-{seed}.json").write_text(json.dumps(rows), "utf-8")


if __name__ == "__main__":
    main()

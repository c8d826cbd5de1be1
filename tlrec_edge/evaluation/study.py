"""A study of transfer to one target: every mode, every alignment, and ablations of the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlrec_edge.choices import AUGMENTATIONS, AUTO
from tlrec_edge.core.parallel import parallel_map
from tlrec_edge.core.progress import JOBS, Progress, Reporter, Step
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import load_dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import DataError, TlrecError
from tlrec_edge.evaluation.experiment import (
    EXPERIMENTS,
    TARGET_ONLY_EXPERIMENTS,
    ExperimentConfig,
    ExperimentResult,
    ResultRow,
    best_row,
    compare,
    failed,
)
from tlrec_edge.evaluation.noise import shuffle_domains
from tlrec_edge.linear.baselines import SIMPLE_BASELINES
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.pretrain import pretrain
from tlrec_edge.types import Ints

Overrides = Mapping[str, Any]
NOISE = "shuffled"
SOURCES: dict[str, Overrides] = {
    "plain": {},
    "adversarial": {"align": "adversarial"},
    "coral": {"align": "coral"},
    "augment": {"augment": tuple(AUGMENTATIONS)},
    "without-content": {"without": ("content",)},
    "without-ids": {"without": ("ids",)},
    NOISE: {},
}
"""Source models by name, each with the training options that it overrides.

The shuffled one is pretrained on noise."""


@dataclass(frozen=True)
class Variant:
    """One row of the study.

    Attributes:
        name: the name in the table.
        experiment: a key of ``EXPERIMENTS``.
        source: a key of ``SOURCES``; "" for none.
        overrides: the training options that differ from the plain ones.
    """

    name: str
    experiment: str
    source: str = ""
    overrides: Overrides = field(default_factory=dict)


VARIANTS = (
    *(Variant(baseline.name, baseline.name) for baseline in SIMPLE_BASELINES),
    Variant("scratch", "scratch"),
    Variant("zero-shot", "zero-shot", "plain"),
    Variant("frozen", "frozen", "plain"),
    Variant("finetune", "finetune", "plain"),
    Variant("joint", "joint"),
    Variant("auto", "auto", "plain"),
    Variant("zero-shot + adversarial", "zero-shot", "adversarial", SOURCES["adversarial"]),
    Variant("finetune + adversarial", "finetune", "adversarial", SOURCES["adversarial"]),
    Variant("finetune + coral", "finetune", "coral", SOURCES["coral"]),
    Variant("finetune + augment", "finetune", "augment", SOURCES["augment"]),
    Variant("finetune + logq 0.3", "finetune", "plain", {"logq": 0.3}),
    Variant("finetune - deep", "finetune", "plain", {"without": ("deep",)}),
    Variant("finetune - wide", "finetune", "plain", {"without": ("wide",)}),
    Variant("finetune - counts", "finetune", "plain", {"without": ("counts",)}),
    Variant("finetune - repeat", "finetune", "plain", {"without": ("repeat",)}),
    Variant("finetune - content", "finetune", "without-content", SOURCES["without-content"]),
    Variant("finetune - ids", "finetune", "without-ids", SOURCES["without-ids"]),
    Variant(f"finetune, source {NOISE}", "finetune", NOISE),
)
"""The rows in the order of the table; options that concern adaptation only start from "plain"."""
REFERENCES = ("scratch", "finetune")
"""Rows that all others are compared with: the target-only model and plain transfer."""


@dataclass(frozen=True)
class StudyConfig:
    """What to study.

    Attributes:
        folder: the folder of the dataset.
        domains: the target.
        sources: the source domains.
        train: how to train; variants override some of it.
        models: the folder in which the source models are saved.
        fold: a fold of a split by new users, whose users are new to the target; None: users keep
            their history.
        seeds: figures are means over these.
    """

    folder: Path
    domains: tuple[str, ...]
    sources: tuple[str, ...]
    train: TrainConfig
    models: Path
    fold: int | None = None
    seeds: tuple[int, ...] = (0,)

    def dataset(self, source: str, seed: int) -> Dataset:
        """Load the dataset that a source model of that name is trained on."""
        dataset = load_dataset(self.folder)
        return shuffle_domains(dataset, self.sources, seed) if source == NOISE else dataset

    def model(self, source: str, seed: int) -> Path:
        """Return the folder of a source model."""
        return self.models / f"{source}-{seed}"


def _pretrain(job: tuple[StudyConfig, str, int]) -> str:
    """Train and save a source model; return the reason if that failed, else ""."""
    config, name, seed = job
    train = replace(config.train, seed=seed, **SOURCES[name])
    try:
        pretrain(config.dataset(name, seed), config.sources, train).save(config.model(name, seed))
    except TlrecError as error:
        return str(error)
    return ""


def _run(job: tuple[StudyConfig, Variant, int]) -> ExperimentResult:
    config, variant, seed = job
    source = variant.source
    try:
        dataset = config.dataset(source, seed)
        experiment = ExperimentConfig(
            dataset,
            make_tasks(dataset, config.domains, config.fold),
            replace(config.train, seed=seed, **variant.overrides),
            EdgeModel.load(config.model(source, seed)) if source else None,
            config.fold,
        )
        return EXPERIMENTS[variant.experiment](experiment)
    except TlrecError as error:
        return failed(str(error))


@dataclass(frozen=True)
class Study:
    """The results of all variants on the same test rows, whose users are ``users`` (m,)."""

    config: StudyConfig
    users: Ints
    results: Mapping[str, ResultRow]

    def lift(self, of: str, over: str) -> dict[str, Any] | None:
        """Return the lift of a variant over a reference; None if it is the same or failed."""
        if of == over or self.results[of].failure:
            return None
        return compare(self.results[of], self.results[over], self.users)

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as plain data."""
        return [
            {
                **result.to_json(self.users),
                **{f"over_{reference}": self.lift(name, reference) for reference in REFERENCES},
            }
            for name, result in self.results.items()
        ]

    def summary(self) -> list[str]:
        """Return sentences: whether transfer pays, what contributes to it, and what does not."""
        return [*self._summarise_choice(), *self._summarise_changes(), *self._summarise_noise()]

    def _summarise_choice(self) -> list[str]:
        auto = self.results.get(AUTO)
        if auto is None or auto.failure:
            return []
        target = ", ".join(self.config.domains)
        count = Counter(result.chosen for result in auto.by_seed)
        n_seeds = len(auto.by_seed)
        chosen = ", ".join(f"{name} ({n} of {n_seeds} seeds)" for name, n in count.items())
        if set(count) <= {"popularity", "linear", "scratch"}:
            verdict = (
                f"Transfer to {target} does not pay: "
                "no model that uses a source was best on validation."
            )
        else:
            lift, figure = self._lift_over_target_only(auto)
            opening = {
                "better": f"Transfer to {target} pays",
                "worse": f"Transfer to {target} hurts",
            }.get(lift["verdict"], f"No gain from transfer to {target} was shown")
            verdict = f"{opening}: {figure}."
        return [f"Validation chose {chosen}.", verdict]

    def _summarise_changes(self) -> list[str]:
        """List the changes to finetune ("finetune + coral", "finetune - ids") by their effect."""
        changes: dict[tuple[str, str], list[str]] = {}
        for name in self.results:
            prefix, sign, change = name[:9], name[9:10], name[11:]
            if prefix != "finetune " or sign not in ("+", "-"):
                continue
            lift = self.lift(name, "finetune")
            if lift is not None:
                changes.setdefault((sign, lift["verdict"]), []).append(change)
        phrases = {
            ("+", "better"): "Finetune improves with",
            ("+", "worse"): "Finetune gets worse with",
            ("+", "no difference shown"): "Finetune was not shown to change with",
            ("-", "worse"): "Finetune is worse without",
            ("-", "better"): "Finetune is better without",
            ("-", "no difference shown"): "Finetune was not shown to need",
        }
        return [
            f"{phrase}: {', '.join(changes[key])}."
            for key, phrase in phrases.items()
            if key in changes
        ]

    def _summarise_noise(self) -> list[str]:
        noise = self.results.get(f"finetune, source {NOISE}")
        if noise is None or noise.failure:
            return []
        lift, figure = self._lift_over_target_only(noise)
        if lift["verdict"] == "better":
            meaning = "so part of a gain is not knowledge from the source"
        else:
            meaning = "as expected"
        return [f"Control with a shuffled source: {figure}: {lift['verdict']}, {meaning}."]

    def _lift_over_target_only(self, result: ResultRow) -> tuple[dict[str, Any], str]:
        """Return the lift over the strongest target-only row, and the phrase that reports it."""
        names = [name for name in TARGET_ONLY_EXPERIMENTS if name in self.results]
        best = best_row([self.results[name] for name in names])
        lift = compare(result, best, self.users)
        error = "-" if lift["se"] is None else f"{lift['se']:.4f}"
        figure = f"{lift['ndcg@10']:+.4f} NDCG@10 (SE {error})"
        return lift, f"{figure} over {best.name}, the best target-only model"

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        config = self.config
        return {
            "domain": ", ".join(config.domains),
            "sources": list(config.sources),
            "fold": config.fold,
            "seeds": list(config.seeds),
            "users": len(set(self.users.tolist())),
            "tests": len(self.users),
            "rows": self.rows(),
            "words": self.summary(),
        }


def study(
    config: StudyConfig,
    names: Sequence[str] = (),
    progress: Reporter | None = None,
    processes: int | None = None,
) -> Study:
    """Run variants in parallel processes, by default one per core.

    ``names`` are the variants to run besides the references; none: all. A variant that fails, such
    as an alignment without item features, keeps its row with the reason. Raises DataError if the
    split has no test rows, if a domain, fold or name is unknown, or if a reference fails.
    """
    users = _check(config, names)
    variants = [v for v in VARIANTS if not names or v.name in (*names, *REFERENCES)]
    results = _run_all(config, variants, Progress.of(progress), processes)
    rows = {
        variant.name: ResultRow(
            variant.name, tuple(results[variant.name, seed] for seed in config.seeds)
        )
        for variant in variants
    }
    for name in REFERENCES:
        if rows[name].failure:
            raise DataError(
                f"{name} failed, so that nothing can be compared with it: {rows[name].failure}"
            )
    return Study(config, users, rows)


def _run_all(
    config: StudyConfig,
    variants: Sequence[Variant],
    progress: Progress,
    processes: int | None,
) -> dict[tuple[str, int], ExperimentResult]:
    """Pretrain the sources of the variants, then run these; return results by name and seed."""
    names = dict.fromkeys(variant.source for variant in variants if variant.source)
    source_jobs = [(config, name, seed) for name in names for seed in config.seeds]
    jobs = [(config, variant, seed) for variant in variants for seed in config.seeds]
    progress.plan(
        Step("source models", work={JOBS: float(len(source_jobs))}),
        Step("models", work={JOBS: float(len(jobs))}),
    )
    failures = {}
    labels = [f"{name}, seed {seed}" for _, name, seed in source_jobs]
    pretrained = parallel_map(_pretrain, source_jobs, processes)
    reasons = progress.each("source models", pretrained, labels)
    for (_, name, seed), reason in zip(source_jobs, reasons, strict=True):
        failures[name, seed] = reason

    jobs.sort(key=lambda job: job[1].experiment != AUTO)  # the longest first
    results, ready = {}, []
    for job in jobs:
        _, variant, seed = job
        failure = failures.get((variant.source, seed))
        if failure:
            results[variant.name, seed] = failed(failure)
        else:
            ready.append(job)
    labels = [f"{variant.name}, seed {seed}" for _, variant, seed in ready]
    fitted = progress.each("models", parallel_map(_run, ready, processes), labels)
    for (_, variant, seed), result in zip(ready, fitted, strict=True):
        results[variant.name, seed] = result
    return results


def _check(config: StudyConfig, names: Sequence[str]) -> Ints:
    """Raise DataError if the study can't be run; return the users of the test rows, (m,)."""
    known = [variant.name for variant in VARIANTS]
    for name in names:
        if name not in known:
            raise DataError(f"{name!r} is not a row of the study: choose from {'; '.join(known)}")
    dataset = load_dataset(config.folder)
    dataset.domain_codes(config.sources)
    target = ", ".join(config.domains)
    if shared := sorted(set(config.domains) & set(config.sources)):
        raise DataError(f"{', '.join(shared)} is both target and source: leave it out of --domains")
    if not config.sources:
        raise DataError(f"{target} is the only domain: transfer needs another one as source")
    rows = make_tasks(dataset, config.domains, config.fold).final.rows
    if not len(rows):
        raise DataError(
            f"the split '{dataset.split.kind}' leaves no test rows in {target}: "
            "prepare with another --split"
        )
    return rows.user

"""Does transfer pay, and what of it: every mode, every alignment, and the model without each of its parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tlrec_edge.core.parallel import parallel_map
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import load_dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.errors import DataError, TlrecError
from tlrec_edge.evaluation.experiment import (
    EXPERIMENTS,
    TARGET_ONLY,
    ExperimentConfig,
    ExperimentResult,
    ResultRow,
    best_row,
    compare,
    failed,
)
from tlrec_edge.evaluation.noise import shuffle_domains
from tlrec_edge.train.augment import AUGMENTATIONS
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
"""Source models by name, and the overrides they are pretrained with; the shuffled one learns from noise."""


@dataclass(frozen=True)
class Variant:
    """One row of the study: a trial, the source it starts from ("" for none), and its overrides beside the plain ones."""

    name: str
    experiment: str
    source: str = ""
    overrides: Overrides = field(default_factory=dict)


VARIANTS = (
    Variant("popularity", "popularity"),
    Variant("ease-target", "ease-target"),
    Variant("ease", "ease"),
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
"""The rows, in the order of the table; what concerns adapting alone starts from the plain source."""
REFERENCES = ("scratch", "finetune")
"""Rows that every other is compared with: the fair model of the target alone, and plain transfer."""


@dataclass(frozen=True)
class Plan:
    """What is studied: a target and sources of the dataset in ``folder``; source models are kept in ``models``.

    With ``fold`` (split ``new-users``) that fold's users are new to the target, without it users keep their past.
    """

    folder: Path
    domains: tuple[str, ...]
    sources: tuple[str, ...]
    config: TrainConfig
    models: Path
    fold: int | None = None
    seeds: tuple[int, ...] = (0,)

    def dataset(self, source: str, seed: int) -> Dataset:
        """Load the dataset as a source model of that name knows it."""
        found = load_dataset(self.folder)
        return shuffle_domains(found, self.sources, seed) if source == NOISE else found

    def model(self, source: str, seed: int) -> Path:
        return self.models / f"{source}-{seed}"


def _pretrain(job: tuple[Plan, str, int]) -> str:
    """Train and save a source model; return what kept it from being made."""
    plan, name, seed = job
    config = replace(plan.config, seed=seed, **SOURCES[name])
    try:
        pretrain(plan.dataset(name, seed), plan.sources, config).save(plan.model(name, seed))
    except TlrecError as error:
        return str(error)
    return ""


def _run(job: tuple[Plan, Variant, int]) -> ExperimentResult:
    plan, variant, seed = job
    try:
        dataset = plan.dataset(variant.source, seed)
        experiment = ExperimentConfig(
            dataset,
            make_tasks(dataset, plan.domains, plan.fold),
            replace(plan.config, seed=seed, **variant.overrides),
            EdgeModel.load(plan.model(variant.source, seed)) if variant.source else None,
            plan.fold,
        )
        return EXPERIMENTS[variant.experiment](experiment)
    except TlrecError as error:
        return failed(str(error))


@dataclass(frozen=True)
class Study:
    """Every variant on the same test rows; ``users`` (m,) asked them."""

    plan: Plan
    users: Ints
    lines: Mapping[str, ResultRow]

    def over(self, name: str, reference: str) -> dict[str, Any] | None:
        """Return the lift of a variant over a reference, None where it has none."""
        if name == reference or self.lines[name].failure:
            return None
        return compare(self.lines[name], self.lines[reference], self.users)

    def rows(self) -> list[dict[str, Any]]:
        return [
            {
                **line.to_json(self.users),
                **{f"over_{reference}": self.over(name, reference) for reference in REFERENCES},
            }
            for name, line in self.lines.items()
        ]

    def words(self) -> list[str]:
        """Say whether transfer pays, what it owes to which part, and what did not help."""
        return [*self._transfer(), *self._changes(), *self._noise()]

    def _transfer(self) -> list[str]:
        auto = self.lines.get("auto")
        if auto is None or auto.failure:
            return []
        target = ", ".join(self.plan.domains)
        count = Counter(result.chosen for result in auto.results)
        chosen = ", ".join(
            f"{name} ({n} of {len(auto.results)} seeds)" for name, n in count.items()
        )
        if set(count) <= {"popularity", "linear", "scratch"}:
            verdict = (
                f"Transfer to {target} does not pay: nothing that uses a source won on validation."
            )
        else:
            lift, figure = self._over_target_only(auto)
            pays = {"better": f"Transfer to {target} pays", "worse": f"Transfer to {target} hurts"}
            verdict = f"{pays.get(lift['verdict'], f'No lift from transfer to {target} is shown')}: {figure}."
        return [f"Validation chose {chosen}.", verdict]

    def _changes(self) -> list[str]:
        found: dict[tuple[str, str], list[str]] = {}
        for name in self.lines:
            if name.startswith(("finetune + ", "finetune - ")) and (
                lift := self.over(name, "finetune")
            ):
                found.setdefault((name[9], lift["verdict"]), []).append(name[11:])
        phrases = {
            ("+", "better"): "Finetune gained by",
            ("+", "worse"): "Finetune lost by",
            ("+", "no difference shown"): "Not shown to help finetune",
            ("-", "worse"): "Finetune is worse without",
            ("-", "better"): "Finetune is better without",
            ("-", "no difference shown"): "Finetune is not shown to need",
        }
        return [
            f"{words}: {', '.join(found[key])}." for key, words in phrases.items() if key in found
        ]

    def _noise(self) -> list[str]:
        line = self.lines.get(f"finetune, source {NOISE}")
        if line is None or line.failure:
            return []
        lift, figure = self._over_target_only(line)
        caught = (
            "not all of a lift is what the source knows"
            if lift["verdict"] == "better"
            else "as it should be"
        )
        return [
            f"From a source whose users and items are shuffled: {figure}: {lift['verdict']}, {caught}."
        ]

    def _over_target_only(self, line: ResultRow) -> tuple[dict[str, Any], str]:
        """Return the lift over the strongest row that knows the target alone, and in words."""
        lift = compare(
            line,
            best_row([self.lines[name] for name in TARGET_ONLY if name in self.lines]),
            self.users,
        )
        error = "-" if lift["se"] is None else f"{lift['se']:.4f}"
        return (
            lift,
            f"{lift['ndcg@10']:+.4f} NDCG@10 (SE {error}) over {lift['over']}, the best of the target alone",
        )

    def to_json(self) -> dict[str, Any]:
        plan = self.plan
        return {
            "domain": ", ".join(plan.domains),
            "sources": list(plan.sources),
            "fold": plan.fold,
            "seeds": list(plan.seeds),
            "users": len(set(self.users.tolist())),
            "tests": len(self.users),
            "rows": self.rows(),
            "words": self.words(),
        }


def study(
    plan: Plan,
    names: Sequence[str] = (),
    progress: Callable[[str], None] = lambda line: None,
    processes: int | None = None,
) -> Study:
    """Try the variants ``names`` (none: all; the references always) side by side, a process for each core.

    A variant that cannot be made here, as alignment without item features, keeps its row and says why. Raises
    DataError where the split asks no test question, for unknown domains, names or folds.
    """
    users = _check(plan, names)
    variants = [v for v in VARIANTS if not names or v.name in (*names, *REFERENCES)]
    wanted = dict.fromkeys(v.source for v in variants if v.source)
    sources = [(plan, name, seed) for name in wanted for seed in plan.seeds]
    why = {}
    for job, reason in zip(sources, parallel_map(_pretrain, sources, processes), strict=True):
        progress(f"source {job[1]}, seed {job[2]}")
        why[job[1:]] = reason
    # The longest first.
    jobs = sorted(
        ((plan, v, seed) for v in variants for seed in plan.seeds),
        key=lambda job: job[1].experiment != "auto",
    )
    ready = [job for job in jobs if not why.get((job[1].source, job[2]))]
    done = {(v.name, seed): failed(why.get((v.source, seed), "")) for _, v, seed in jobs}
    for (_, variant, seed), result in zip(ready, parallel_map(_run, ready, processes), strict=True):
        progress(f"{variant.name}, seed {seed}")
        done[variant.name, seed] = result
    lines = {
        v.name: ResultRow(v.name, tuple(done[v.name, seed] for seed in plan.seeds))
        for v in variants
    }
    for name in REFERENCES:
        if lines[name].failure:
            raise DataError(
                f"{name} cannot be made, so nothing can be compared with it: {lines[name].failure}"
            )
    return Study(plan, users, lines)


def _check(plan: Plan, names: Sequence[str]) -> Ints:
    """Raise DataError for what cannot be studied; return who asks the test rows, (m,)."""
    known = [variant.name for variant in VARIANTS]
    for name in names:
        if name not in known:
            raise DataError(f"the study has no row {name!r}; known: {'; '.join(known)}")
    dataset = load_dataset(plan.folder)
    dataset.domain_codes(plan.sources)
    if shared := sorted(set(plan.domains) & set(plan.sources)):
        raise DataError(f"{', '.join(shared)} is both target and source: leave it out of --domains")
    if not plan.sources:
        raise DataError(f"beside {', '.join(plan.domains)} there is no domain to transfer from")
    rows = make_tasks(dataset, plan.domains, plan.fold).final.rows
    if not len(rows):
        raise DataError(
            f"the split '{dataset.split.kind}' leaves no test question in {', '.join(plan.domains)}: "
            "prepare with another --split"
        )
    return rows.user

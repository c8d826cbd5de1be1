"""From a source model to a model of the target: every way of transferring is one function of the same shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from tlrec_edge.data.dataset import TEST, Dataset
from tlrec_edge.data.store import split_hash
from tlrec_edge.data.task import Task, Tasks, make_tasks, no_rows
from tlrec_edge.errors import DataError, ModelError
from tlrec_edge.features import FeatureEncoder
from tlrec_edge.train.artifact import EdgeModel, Mix, Past
from tlrec_edge.train.examples import Examples
from tlrec_edge.train.fit import FitConfig, FitResult, Progress, fit
from tlrec_edge.train.linear import Interest, empty, no_interest
from tlrec_edge.train.model import AGES, ENCODERS, ModelConfig, TwoTower
from tlrec_edge.train.ranking import mix_parts, ndcg, questions, sample_rows
from tlrec_edge.train.vocabulary import (
    Vocabulary,
    build_vocabulary,
    cooccurrence_vectors,
    encode_features,
    fit_features,
)
from tlrec_edge.train.wide import (
    LinearChoice,
    LinearData,
    choose_linear,
    fit_interest,
    interest_groups,
    log_popularity,
    sales_prior,
    sparse_ease,
)

PRETRAIN_STEPS = 600


@dataclass(frozen=True)
class TrainConfig:
    """Knobs of pretraining and adaptation.

    ``pretrain_epochs`` None: as many as make about PRETRAIN_STEPS steps. ``min_buyers`` leaves rarer items out of the
    history vocabulary.
    """

    size: str = "fast"
    width: int = 64
    epochs: int = 20
    pretrain_epochs: int | None = None
    rate: float = 2e-3
    tune_rate: float = 1e-3
    trunk_rate: float = 0.3
    min_buyers: int = 1
    forget: float = 0.5
    interest_rank: int = 16
    interest_penalty: float = 100.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size not in ENCODERS:
            raise ValueError(f"size must be one of {sorted(ENCODERS)}, not {self.size!r}")
        for name in ("rate", "tune_rate", "interest_penalty"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)}")
        for name, least in (("width", 1), ("min_buyers", 1), ("interest_rank", 1), ("epochs", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if not 0 <= self.forget <= 1:
            raise ValueError(f"forget must lie in [0, 1], not {self.forget}")


@dataclass(frozen=True)
class Context:
    """What a transfer mode works with: the data, the task, the source model if there is one."""

    dataset: Dataset
    task: Task
    source: EdgeModel | None
    config: TrainConfig
    say: Progress | None = None
    linear: LinearChoice | None = None


@dataclass(frozen=True)
class Draft:
    """A network over a vocabulary, not yet trained for the target, and how it is to be trained."""

    vocabulary: Vocabulary
    net: TwoTower
    model: EdgeModel
    task: Task
    fit: FitConfig | None
    frozen: bool = False
    whole: bool = False


def pretrain(
    dataset: Dataset, domains: tuple[str, ...], config: TrainConfig | None = None, say: Progress | None = None
) -> EdgeModel:
    """Train a model on the source domains: all their interactions before the test period."""
    config = config or TrainConfig()
    target = dataset.domain_codes(domains)
    log = dataset.interactions
    mine = log.where(np.isin(log.domain, target) & (dataset.split.role != TEST))
    if not len(mine):
        raise DataError(f"domain {', '.join(domains)} has no interaction before the test period")
    task = Task(
        domains, target, mine, mine, no_rows(), np.unique(mine.item),
        dataset.split.mask_seen, len(dataset.users), len(dataset.items),
    )  # fmt: skip
    return _pretrain_task(dataset, _drop_rare(task, config.min_buyers), config, say)


def _drop_rare(task: Task, min_buyers: int) -> Task:
    pairs = np.unique(task.train.user.astype(np.int64) * task.n_items + task.train.item)
    buyers = np.bincount(pairs % task.n_items, minlength=task.n_items)
    kept = np.flatnonzero(buyers >= min(min_buyers, buyers.max())).astype(np.int32)
    return replace(task, candidates=kept)


def _pretrain_task(dataset: Dataset, task: Task, config: TrainConfig, say: Progress | None) -> EdgeModel:
    draft = replace(_fresh(Context(dataset, task, None, config, say)), whole=not task.train.time.any())
    examples = _examples(draft, config)
    steps = max(1, min(examples.size(), FitConfig.examples) // FitConfig.batch)
    epochs = config.pretrain_epochs or int(np.clip(PRETRAIN_STEPS // steps, 4, 40))
    run = FitConfig(epochs=epochs, rate=config.rate, seed=config.seed)
    result = _fit_net(draft, examples, run, None, say)
    about = {
        "kind": "source", "domains": list(task.domains), "split_sha256": split_hash(dataset),
        "train": asdict(config), "epochs": result.epochs,
        "losses": list(result.losses),
    }  # fmt: skip
    return replace(draft.model, about=about)


def _assemble(context: Context, vocabulary: Vocabulary, net: TwoTower, features: FeatureEncoder) -> EdgeModel:
    names = tuple(context.dataset.features.name[row] for row in vocabulary.dataset_rows)
    none = empty(len(vocabulary.ids), vocabulary.candidates)
    groups = np.full((len(vocabulary.ids), 0), -1, np.int32)
    return EdgeModel(
        vocabulary.ids,
        names,
        net,
        features,
        none,
        no_interest(vocabulary.candidates),
        groups,
        Mix(),
    )


def _fresh(context: Context) -> Draft:
    """Start from co-occurrence vectors of the task's own training part."""
    dataset, task, config = context.dataset, context.task, context.config
    vocabulary = build_vocabulary(dataset, task, config.min_buyers)
    features = context.source.features if context.source is not None else fit_features(dataset)
    inputs = encode_features(dataset, features, vocabulary.dataset_rows)
    shape = ModelConfig(
        size=config.size, width=config.width, feed_forward=2 * config.width,
        text=inputs.text.shape[1], numeric=inputs.numeric.shape[1],
        vocabulary=tuple(len(values) for values in features.vocabulary.values()),
    )  # fmt: skip
    torch.manual_seed(config.seed)
    net = TwoTower(shape, len(vocabulary.ids), vocabulary.candidates, inputs)
    start = cooccurrence_vectors(task.train, vocabulary.rows, len(vocabulary.ids), config.width, _cut(task) == "basket")
    with torch.no_grad():
        net.history_id.weight.copy_(torch.from_numpy(start))
        net.candidate_id.weight.copy_(torch.from_numpy(start[: vocabulary.candidates]))
        net.bias.copy_(torch.from_numpy(log_popularity(task)))
    run = FitConfig(epochs=config.epochs, rate=config.rate, seed=config.seed)
    return Draft(vocabulary, net, _assemble(context, vocabulary, net, features), task, run)


def _carried(context: Context, bias: NDArray[np.float32] | None) -> Draft:
    """Start from the source model: its encoder and content tower, and the vectors of the items it knows."""
    dataset, task, source = context.dataset, context.task, context.source
    if source is None:
        raise ModelError("this mode transfers from a source model: give one with --from (see `tlrec-edge pretrain`)")
    vocabulary = build_vocabulary(dataset, task, context.config.min_buyers)
    inputs = encode_features(dataset, source.features, vocabulary.dataset_rows)
    net = TwoTower(source.net.config, len(vocabulary.ids), vocabulary.candidates, inputs)
    carried = {
        k: v
        for k, v in source.net.state_dict().items()
        if k not in ("history_id.weight", "candidate_id.weight", "bias")
    }
    net.load_state_dict(carried, strict=False)
    place = {name: row for row, name in enumerate(source.ids)}
    row = np.array([place.get(name, -1) for name in vocabulary.ids], np.int64)
    with torch.no_grad():
        for table, mine, limit in (
            (net.history_id.weight, source.net.history_id.weight, len(source.ids)),
            (net.candidate_id.weight, source.net.candidate_id.weight, source.candidates),
        ):
            known = (row[: len(table)] >= 0) & (row[: len(table)] < limit)
            table.zero_()
            table[torch.from_numpy(known)] = mine[torch.from_numpy(row[: len(table)][known])]
        known = (row[: vocabulary.candidates] >= 0) & (row[: vocabulary.candidates] < source.candidates)
        net.bias.zero_()
        net.bias[torch.from_numpy(known)] = source.net.bias[torch.from_numpy(row[: vocabulary.candidates][known])]
        if bias is not None:
            net.bias.copy_(torch.from_numpy(bias))
    return Draft(vocabulary, net, _assemble(context, vocabulary, net, source.features), task, None)


def scratch(context: Context) -> Draft:
    """Learn from the target alone: the fair baseline, same parts, same search."""
    return _fresh(replace(context, task=context.task.target_only()))


def zero_shot(context: Context) -> Draft:
    """Use the source model as it is: content, and the vectors of items that the source also sells.

    Items that the source does not sell start from their sales column, where there is one.
    """
    draft = _carried(context, None)
    known = set(context.source.ids[: context.source.candidates]) if context.source is not None else set()
    new = np.array([name not in known for name in draft.vocabulary.ids[: draft.vocabulary.candidates]])
    prior = sales_prior(context.dataset, draft.vocabulary.dataset_rows[: draft.vocabulary.candidates])
    with torch.no_grad():
        draft.net.bias[torch.from_numpy(new)] = torch.from_numpy(prior[new])
    return draft


def frozen(context: Context) -> Draft:
    """Keep the source's towers as feature extractor; only the candidates' ids and biases learn."""
    draft = _carried(context, log_popularity(context.task))
    return replace(
        draft,
        fit=FitConfig(epochs=context.config.epochs, rate=context.config.rate, seed=context.config.seed),
        frozen=True,
    )


def finetune(context: Context) -> Draft:
    """Start at the source model and train everything, the trunk more slowly."""
    config = context.config
    run = FitConfig(epochs=config.epochs, rate=config.tune_rate, trunk_rate=config.trunk_rate, seed=config.seed)
    return replace(_carried(context, log_popularity(context.task)), fit=run)


def joint(context: Context) -> Draft:
    """Train once on source and target together, then read off the target's candidates."""
    task = context.task
    union = replace(
        task, target=np.unique(task.train.domain), candidates=np.unique(np.append(task.train.item, task.candidates))
    )
    together = _pretrain_task(context.dataset, union, context.config, context.say)
    return _carried(replace(context, source=together), log_popularity(task))


MODES: dict[str, Callable[[Context], Draft]] = {
    "scratch": scratch, "zero-shot": zero_shot, "frozen": frozen, "finetune": finetune, "joint": joint,
}  # fmt: skip


def _cut(task: Task) -> str:
    """Cut between baskets where most users come more than once, else anywhere."""
    inside = task.train.where(task.in_target(task.train))
    pairs = np.unique(np.stack([inside.user.astype(np.int64), inside.time]), axis=1)
    baskets = np.bincount(pairs[0])
    return "basket" if len(baskets) and np.median(baskets[baskets > 0]) >= 2 else "item"


def _examples(draft: Draft, config: TrainConfig) -> Examples:
    task, net = draft.task, draft.net
    known = task.train.where(draft.vocabulary.rows[task.train.item] >= 0)
    inside = task.in_target(known)
    return Examples(
        known, draft.vocabulary.rows, task.column, inside, net.config.history, AGES, _cut(task),
        forget=config.forget if (~inside).any() else 0.0, first_only=task.mask_seen, whole=draft.whole,
    )  # fmt: skip


def _fit_net(
    draft: Draft, examples: Examples, run: FitConfig, validate: Callable[[], float] | None, say: Progress | None
) -> FitResult:
    net = draft.net
    if draft.frozen:
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name in ("candidate_id.weight", "bias"))
    result = fit(net, examples, run, validate, draft.task.mask_seen and not draft.whole, say)
    net.requires_grad_(False)
    return result


@dataclass(frozen=True)
class Choices:
    """What validation decided for one mode; the final model is fitted with exactly these."""

    epochs: int
    linear: LinearChoice
    mix: Mix
    ndcg: float


@dataclass(frozen=True)
class Candidate:
    """A model fitted without the validation rows, and the choices that a final fit would repeat."""

    mode: str
    model: EdgeModel
    choices: Choices


def adapt(
    dataset: Dataset, domains: tuple[str, ...], mode: str, source: EdgeModel | None = None,
    config: TrainConfig | None = None, fold: int | None = None, say: Progress | None = None,
    linear: LinearChoice | None = None, tasks: Tasks | None = None,
) -> EdgeModel:  # fmt: skip
    """Make a model of the target: choose on validation, then fit again on all that may be learned from.

    ``linear`` reuses a choice made before on the same tasks. Raises ModelError for a mode that needs a source and has
    none, DataError for a domain or fold that does not exist.
    """
    if mode not in MODES:
        raise ModelError(f"unknown mode {mode!r}; known: auto, {', '.join(MODES)}")
    check_source(source, dataset, domains)
    config = config or config_of(source)
    tasks = tasks or make_tasks(dataset, domains, fold)
    if mode == "zero-shot":  # nothing is chosen by the target's rows, so there is nothing to fit again
        tasks = replace(tasks, choose=tasks.final)
    candidate = choose(Context(dataset, tasks.choose, source, config, say, linear), mode)
    return settle(candidate, Context(dataset, tasks.final, source, config, say), tasks, fold)


def check_source(source: EdgeModel | None, dataset: Dataset, domains: tuple[str, ...]) -> None:
    """Raise ModelError where the source may have learned what the target is validated or tested on."""
    if source is None:
        return
    if source.about.get("split_sha256") != split_hash(dataset):
        raise ModelError(
            "the source model was trained under another split than this dataset's: pretrain it again on this dataset"
        )
    seen = [name for name in domains if name in source.about["domains"]]
    if seen:
        raise ModelError(
            f"the source model has already learned from {', '.join(seen)}: pretrain on the other domains, "
            "or leave --from out and learn from all at once with --mode joint"
        )


def config_of(source: EdgeModel | None) -> TrainConfig:
    """Return the knobs the source was trained with, or the defaults."""
    return TrainConfig(**source.about["train"]) if source is not None else TrainConfig()


def settle(candidate: Candidate, context: Context, tasks: Tasks, fold: int | None) -> EdgeModel:
    """Fit a candidate again on all that may be learned from, and write down where it came from."""
    mode, choices = candidate.mode, candidate.choices
    model = candidate.model
    if len(tasks.final.train) > len(tasks.choose.train):
        model = _build(context, mode, choices)
    return model.with_about(
        kind="target", mode=mode, domains=list(context.task.domains), fold=fold, train=asdict(context.config),
        split_sha256=split_hash(context.dataset),
        source=_source_domains(mode, context),
        choices={
            "epochs": choices.epochs, "penalty": choices.linear.penalty, "mix": asdict(choices.mix),
            "validation_ndcg@10": choices.ndcg if len(tasks.choose.rows) else None,
        },
    )  # fmt: skip


def _source_domains(mode: str, context: Context) -> list[str] | None:
    """Name the domains beside the target that the model learned from; None where there are none."""
    if mode == "scratch":
        return None
    if mode == "joint":
        train, names = context.task.train, context.dataset.domains
        return [names[i] for i in np.unique(train.domain[~context.task.in_target(train)])] or None
    return None if context.source is None else list(context.source.about["domains"])


def choose(context: Context, mode: str) -> Candidate:
    """Fit a mode without the validation rows and choose its epochs, penalty and weights on them."""
    draft = MODES[mode](context)
    task = draft.task
    asked = bool(len(task.rows))
    epochs = 0
    if draft.fit is not None and _trainable(draft):
        validate = _deep_ndcg(draft, context.dataset) if asked else None
        run = draft.fit if asked else replace(draft.fit, epochs=min(draft.fit.epochs, 5))
        epochs = _fit_net(draft, _examples(draft, context.config), run, validate, context.say).epochs
    draft.net.requires_grad_(False).eval()
    linear = LinearChoice() if mode == "zero-shot" else context.linear
    linear = linear or choose_linear(task, LinearData.of(task, draft.vocabulary.rows), context.say)
    model = _with_linear(draft, context, mode, linear.penalty)
    mix, reached = _choose_mix(model, context.dataset, task, mode)
    return Candidate(mode, replace(model, mix=mix), Choices(epochs, linear, mix, reached))


def _build(context: Context, mode: str, choices: Choices) -> EdgeModel:
    draft = MODES[mode](context)
    if draft.fit is not None and _trainable(draft):
        _fit_net(draft, _examples(draft, context.config), replace(draft.fit, epochs=choices.epochs), None, context.say)
    draft.net.requires_grad_(False).eval()
    return replace(_with_linear(draft, context, mode, choices.linear.penalty), mix=choices.mix)


def _trainable(draft: Draft) -> bool:
    inside = draft.task.train.where(draft.task.in_target(draft.task.train))
    return bool((np.bincount(inside.user) > 1).any()) if len(inside) else False


def _linear_task(task: Task, mode: str) -> Task:
    """Zero-shot may not learn from the target's rows; its own item-item weights come from the source alone."""
    return replace(task, train=task.train.where(~task.in_target(task.train))) if mode == "zero-shot" else task


def _with_linear(draft: Draft, context: Context, mode: str, penalty: float) -> EdgeModel:
    task, config, vocabulary = _linear_task(draft.task, mode), context.config, draft.vocabulary
    outside = task.train.where(~task.in_target(task.train))
    groups, size = interest_groups(context.dataset, vocabulary, np.unique(outside.item))
    interest: Interest = fit_interest(task, groups, size, vocabulary, config.interest_penalty, config.interest_rank)
    if not interest.outward.shape[1]:
        groups = groups[:, :0]
    return replace(
        draft.model, wide=sparse_ease(LinearData.of(task, vocabulary.rows), penalty), interest=interest, groups=groups
    )


def _deep_ndcg(draft: Draft, dataset: Dataset) -> Callable[[], float]:
    past = Past.of(draft.task.history, draft.model.rows(dataset), draft.task.n_users, len(draft.vocabulary.ids))
    asked = sample_rows(draft.task)

    def value() -> float:
        draft.net.eval()
        now = replace(draft.model)  # a copy without the vectors cached for an earlier epoch
        return ndcg(lambda users: sum(now.part_scores(past, users)[::3]), asked)  # type: ignore[arg-type, return-value]

    return value


def _choose_mix(model: EdgeModel, dataset: Dataset, task: Task, mode: str) -> tuple[Mix, float]:
    """Choose the parts' weights on validation; zero-shot takes equal spreads: it may not look at target labels."""
    if mode == "zero-shot":
        return _even_mix(model, dataset, task), float("nan")
    asked = sample_rows(task)
    if not len(asked.rows):
        return Mix(deep=1.0, wide=0.0 if not model.wide.nnz else 10.0, interest=0.0, bias=1.0), float("nan")
    past = Past.of(task.history, model.rows(dataset), task.n_users, len(model.ids))
    question = questions(asked, asked.rows)
    parts = [question.pick(part) for part in model.part_scores(past, question.user)]
    weights, reached = mix_parts(parts, question.valid)
    return Mix(*weights), reached


def _even_mix(model: EdgeModel, dataset: Dataset, task: Task) -> Mix:
    """Weigh the parts by one over their spread within a user, the bias half as much; no label is looked at."""
    past = Past.of(task.history, model.rows(dataset), task.n_users, len(model.ids))
    users = np.flatnonzero(np.diff(past.start) > 0)[:256].astype(np.int32)
    if not len(users):
        return Mix()
    spread = [float(np.std(part - part.mean(1, keepdims=True))) for part in model.part_scores(past, users)]
    deep, wide, interest, bias = (1.0 / s if s > 1e-6 else 0.0 for s in spread)
    return Mix(deep, wide, interest, 0.5 * bias)

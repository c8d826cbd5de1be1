"""The simple baselines of an evaluation, in one list: popularity, neighbours of all kinds, EASE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import dataset_hash
from tlrec_edge.data.task import Task, Tasks
from tlrec_edge.linear.content import ContentSettings, content_scorers, content_settings
from tlrec_edge.linear.ease import sparse_scorer
from tlrec_edge.linear.item_cf import item_cf
from tlrec_edge.linear.item_knn import ITEM_KNN_SETTINGS, ItemKnnSettings, item_knn_scorers
from tlrec_edge.linear.item_weights import WEIGHTS_PER_CANDIDATE
from tlrec_edge.linear.last_items import TRANSITION_SETTINGS, transition_scorers
from tlrec_edge.linear.matrices import InteractionMatrices, keep_largest_per_column
from tlrec_edge.linear.priors import log_popularity, popularity
from tlrec_edge.linear.ranking import ALL, Columns, Ranking, Scorer
from tlrec_edge.linear.session_knn import SESSION_KNN_SETTINGS, session_knn_scorers
from tlrec_edge.linear.sparse_ease import make_ease
from tlrec_edge.linear.tuned import Fit, Ranker, Setting, TunedScorer, rank_once
from tlrec_edge.linear.tuning import EaseHyperparameters, tune_ease
from tlrec_edge.types import Ints, Scores


@dataclass(frozen=True)
class ContentWeight:
    """Weight of the content in nearest items by shared buyers and by content."""

    content: float


CONTENT_WEIGHTS = tuple(ContentWeight(weight) for weight in (0.05, 0.2, 0.8))


def popularity_scorer(task: Task) -> Scorer:
    """Score candidates by their number of buyers in the target."""
    buyers = popularity(task)
    return lambda users, columns=ALL: np.broadcast_to(
        buyers[columns], (len(users), len(buyers[columns]))
    )


def item_cf_scorer(task: Task, similarity: str = "jaccard") -> Scorer:
    """Score candidates by their similarity to the items of the history.

    Similarities are averaged (``jaccard``) or summed (``cosine``).
    """
    data = InteractionMatrices.of(task)
    weights = item_cf(data.train, data.columns, similarity)
    length = np.diff(data.history.indptr)[:, None]
    divisor = np.maximum(length, 1) if similarity == "jaccard" else np.ones(length.shape)
    return lambda users, columns=ALL: (
        (data.history[users] @ weights)[:, columns].toarray() / divisor[users]
    )


def ease_scorer(task: Task, hyperparameters: EaseHyperparameters) -> Scorer:
    """Score candidates by EASE over the whole history, plus weighted log popularity."""
    data = InteractionMatrices.of(task, _used_item_rows(task))
    solver = make_ease(data.train, data.columns)
    if hyperparameters.max_weights is None:
        ease = solver.scorer(hyperparameters.penalty)
    else:
        weights = solver.weights(hyperparameters.penalty)
        ease = sparse_scorer(keep_largest_per_column(weights, hyperparameters.max_weights))
    popularity = log_popularity(task, hyperparameters.half_life)
    prior = hyperparameters.popularity_weight * popularity
    repeat_bias = hyperparameters.repeat_bias

    def score(users: Ints, columns: Columns = ALL) -> Scores:
        history = data.history[users]
        total = ease(history, columns) + prior[columns]
        if repeat_bias:
            total = total + repeat_bias * history[:, data.columns[columns]].toarray()
        return total

    return score


def _used_item_rows(task: Task) -> Ints:
    """Number the items that occur in training or are candidates; no other item has a weight."""
    used = np.union1d(np.unique(task.train.item), task.candidates)
    rows = np.full(task.n_items, -1, np.int32)
    rows[used] = np.arange(len(used), dtype=np.int32)
    return rows


def _tune(tasks: Tasks, target_only: bool, decay: bool) -> EaseHyperparameters:
    choose = tasks.choose.target_only() if target_only else tasks.choose
    return tune_ease(
        choose,
        InteractionMatrices.of(choose, _used_item_rows(choose)),
        max_weights=WEIGHTS_PER_CANDIDATE,
        decay=decay,
    )


@dataclass
class TunedEase:
    """Tuned EASE as a ranker of an evaluation: called with tasks, it returns the test ranking.

    ``choice`` holds the hyperparameters of the last call.
    """

    target_only: bool
    decay: bool = False
    choice: EaseHyperparameters | None = None

    def __call__(self, tasks: Tasks) -> Ranking:
        choice = self.choice = _tune(tasks, self.target_only, self.decay)
        task = tasks.final.target_only() if self.target_only else tasks.final
        return rank_once(task, "ease", lambda: ease_scorer(task, choice), asdict(choice))


@dataclass
class ItemKnnWithContent:
    """Nearest items by shared buyers and by content, as a ranker of an evaluation.

    Attributes:
        item_knn: nearest items by shared buyers.
        content: nearest items by content.
        choice: the weight of the content in the last call.
    """

    item_knn: TunedScorer[ItemKnnSettings]
    content: TunedScorer[ContentSettings]
    choice: ContentWeight | None = None

    def __call__(self, tasks: Tasks) -> Ranking:
        if self.item_knn.target_only:
            tasks = tasks.target_only()
        item_knn, content = self.item_knn.choose(tasks.choose), self.content.choose(tasks.choose)

        def fit(task: Task) -> Callable[[ContentWeight], Scorer]:
            by_buyers = self.item_knn.fit(task)(item_knn)
            by_content = self.content.fit(task)(content)
            return lambda weight: (
                lambda users, columns=ALL: (
                    by_buyers(users, columns) + weight.content * by_content(users, columns)
                )
            )

        inputs = asdict(item_knn), asdict(content), *self.content.inputs
        mixed = TunedScorer("itemknn-content", fit, CONTENT_WEIGHTS, inputs=inputs)
        ranking = mixed(tasks)
        self.choice = mixed.choice
        return ranking


NEEDS: dict[str, Callable[[Dataset], bool]] = {
    "times": lambda dataset: dataset.has_time,
    "dates": lambda dataset: dataset.interactions.has_dates,
    "texts or categories of items": lambda dataset: bool(content_settings(dataset)),
}
"""What a baseline may need of a dataset, and whether a dataset has it."""
TIMES, DATES, CONTENT = NEEDS


class Baseline(NamedTuple):
    """A simple baseline: one that learns no vectors."""

    name: str
    """Its name in tables and reports."""
    target_only: bool
    """Whether it knows the target's interactions alone."""
    ranker: Callable[[Dataset], Ranker]
    """Makes its ranker for a dataset."""
    needs: str | None = None
    """A key of NEEDS, or None."""

    def is_usable(self, dataset: Dataset) -> bool:
        """Return whether the dataset has what the baseline needs.

        In a dataset of one domain, those whose names end in "-target" are the same as the others.
        """
        if self.name.endswith("-target") and len(dataset.domains) < 2:
            return False
        return self.needs is None or NEEDS[self.needs](dataset)


def _untuned(name: str, fit: Callable[[Task], Scorer]) -> Callable[[Dataset, bool], Ranker]:
    def make(_dataset: Dataset, target_only: bool) -> Ranker:
        def rank(tasks: Tasks) -> Ranking:
            task = tasks.final.target_only() if target_only else tasks.final
            return rank_once(task, name, lambda: fit(task))

        return rank

    return make


def _tuned(
    name: str, fit: Fit[Setting], settings: Sequence[Setting]
) -> Callable[[Dataset, bool], Ranker]:
    return lambda dataset, target_only: TunedScorer(name, fit, settings, target_only)


def _content(dataset: Dataset, target_only: bool) -> TunedScorer[ContentSettings]:
    fit, settings = partial(content_scorers, dataset), content_settings(dataset)
    # The hash reads the whole dataset: only a cache needs it.
    inputs = () if dataset.cache is None else (dataset_hash(dataset),)
    return TunedScorer("content", fit, settings, target_only, inputs)


def _item_knn_with_content(dataset: Dataset, target_only: bool) -> Ranker:
    item_knn = TunedScorer("itemknn", item_knn_scorers, ITEM_KNN_SETTINGS, target_only)
    return ItemKnnWithContent(item_knn, _content(dataset, target_only))


def _variants(
    name: str, make: Callable[[Dataset, bool], Ranker], needs: str | None = None
) -> tuple[Baseline, Baseline]:
    """Return the baseline on the target alone, and the one on all domains."""
    return (
        Baseline(f"{name}-target", True, lambda dataset: make(dataset, True), needs),
        Baseline(name, False, lambda dataset: make(dataset, False), needs),
    )


_popularity = _untuned("popularity", popularity_scorer)
SIMPLE_BASELINES = (
    Baseline("popularity", True, lambda dataset: _popularity(dataset, False)),
    *_variants("itemcf", _untuned("itemcf", item_cf_scorer)),
    *_variants("itemknn", _tuned("itemknn", item_knn_scorers, ITEM_KNN_SETTINGS)),
    *_variants("content", _content, CONTENT),
    *_variants("itemknn-content", _item_knn_with_content, CONTENT),
    *_variants("session-knn", _tuned("session-knn", session_knn_scorers, SESSION_KNN_SETTINGS)),
    *_variants(
        "last-item-graph", _tuned("last-item-graph", transition_scorers, TRANSITION_SETTINGS), TIMES
    ),
    *_variants("ease", lambda dataset, target_only: TunedEase(target_only)),
    Baseline("ease-fading", False, lambda dataset: TunedEase(False, decay=True), DATES),
)
"""The one list of simple baselines: an evaluation ranks all that its dataset is usable for."""


def simple_rankers(dataset: Dataset) -> dict[str, Ranker]:
    """Return the rankers of the simple baselines that a dataset is usable for, by name."""
    return {
        baseline.name: baseline.ranker(dataset)
        for baseline in SIMPLE_BASELINES
        if baseline.is_usable(dataset)
    }

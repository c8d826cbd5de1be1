"""The trained model and its folder, without pickle.

The folder holds ``model.json``, ``arrays.npz``, and ``before_refit.npz`` if the model was fitted
again after validation: the arrays that it had before, unless they are still the same.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import astuple, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from tlrec_edge.core.features import FeatureEncoder
from tlrec_edge.core.folders import FolderKind, replace_folder
from tlrec_edge.core.opened_folder import OpenedFolder, read_folder
from tlrec_edge.core.strict_json import parse_json
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import split_hash
from tlrec_edge.data.task import Task
from tlrec_edge.errors import ModelError
from tlrec_edge.linear.interest import group_counts
from tlrec_edge.linear.low_rank import LowRankFactors
from tlrec_edge.linear.ranking import ALL, Columns, Scorer
from tlrec_edge.train.check_arrays import check_arrays
from tlrec_edge.train.examples import gather_histories
from tlrec_edge.train.model import AGE_BUCKETS, ModelConfig, TwoTower
from tlrec_edge.train.model_arrays import (
    Arrays,
    arrays_of,
    changed_arrays,
    restore_net,
    restore_sparse,
    restore_tables,
)
from tlrec_edge.train.npz import DAMAGED, read_arrays
from tlrec_edge.train.parts import PartScores, ScoreWeights, weighted_sum
from tlrec_edge.train.provenance import Provenance
from tlrec_edge.train.quantized import QuantizedTables, QuantizedWeights
from tlrec_edge.train.user_histories import UserHistories
from tlrec_edge.types import Bools, Floats, Ints, Scores

FORMAT = 3
_MARKER, _ARRAYS = "model.json", "arrays.npz"
_BEFORE, _BEFORE_ARRAYS = "before_refit", "before_refit.npz"
MODEL = FolderKind(
    name="model",
    marker=_MARKER,
    keys=("config", "items", "ids"),
    files=lambda meta: (_ARRAYS, _BEFORE_ARRAYS),
    error=ModelError,
    advice="make one with `tlrec-edge pretrain` or `tlrec-edge adapt`",
    remedy="train it again",
)
_HISTORY_BLOCK, _CANDIDATE_BLOCK = 8_192, 65_536
"""Rows whose vectors are computed at once. Other blocks may change the last bit of a vector."""


@dataclass(frozen=True)
class EdgeModel:
    """A model of one target: N items, the first C of which are its candidates.

    ``adapt`` returns one for a target, ``pretrain`` one for a source.

    Attributes:
        ids: The item ids, (N,), candidates first.
        names: The items' display names, (N,).
        net: The two towers; it has as many item rows.
        features: Encoder of the items' content.
        wide: Item-item weights from history rows to candidates, (N, C), sparse.
        target_wide: The same, learned from the target's interactions alone.
        residual: Low-rank factors of the weights that ``wide`` leaves out.
        interest: Low-rank map from counts of categories in a history to candidates.
        bias: The bias that is served, (C,): the network's, or a popularity that decays with time.
        groups: The numbers of the categories of every item, (N, g), -1 for none.
        score_weights: The weight of each part in a score.
        provenance: Data, domains and hyperparameters that the model comes from.
        tables: Quantized tables; None: float32 vectors are computed from ``net`` and the factors.
        quantized_wide: Quantized ``wide``; None: float32. If set, ``target_wide`` is empty.
        before_refit: The model as validation judged it, before it was fitted again with the
            validation rows; None: it was not, or that is not known. ``replace`` makes another
            model, and drops it.

    Example:
        >>> EdgeModel.load("source").provenance.kind
        'source'
    """

    ids: tuple[str, ...]
    names: tuple[str, ...]
    net: TwoTower
    features: FeatureEncoder
    wide: sp.csr_array
    target_wide: sp.csr_array
    residual: LowRankFactors
    interest: LowRankFactors
    bias: Floats
    groups: Ints
    score_weights: ScoreWeights
    provenance: Provenance
    tables: QuantizedTables | None = None
    quantized_wide: QuantizedWeights | None = None
    before_refit: EdgeModel | None = field(default=None, init=False, repr=False, compare=False)

    @cached_property
    def history_vectors(self) -> Floats:
        """Vectors of items in a history as served, (N, width)."""
        if self.tables is not None:
            return self.tables.history.vectors()
        return _in_blocks(self.net.history_vectors, len(self.ids), _HISTORY_BLOCK)

    @cached_property
    def candidate_vectors(self) -> Floats:
        """Vectors of candidates as served, (C, width)."""
        if self.tables is not None:
            return self.tables.candidate.vectors()
        return _in_blocks(self.net.candidate_vectors, self.candidates, _CANDIDATE_BLOCK)

    @cached_property
    def low_rank_vectors(self) -> Floats:
        """Output factors of interest and of the residual as served, (C, r1 + r2)."""
        if self.tables is not None:
            return self.tables.taste.vectors()
        return np.concatenate([self.interest.output_factors, self.residual.output_factors], 1)

    @cached_property
    def residual_in(self) -> Floats:
        """Input factors of the residual as served, (N, r2)."""
        if self.tables is not None:
            return self.tables.taste_in.vectors()
        return self.residual.input_factors

    @cached_property
    def _identity(self) -> sp.csr_array:
        """1 from each history row to the candidate that is the same item, (N, C)."""
        return sp.csr_array(sp.eye_array(*self.wide.shape, dtype=np.float32, format="csr"))

    @property
    def candidates(self) -> int:
        """The number of candidates, C."""
        return len(self.net.bias)

    def rows(self, dataset: Dataset) -> Ints:
        """Return the model's row of every item of the dataset, -1 if the model lacks it."""
        row = np.full(len(dataset.items), -1, np.int32)
        for number, item_id in enumerate(self.ids):
            dataset_row = dataset.item_row.get(item_id)
            if dataset_row is not None:
                row[dataset_row] = number
        return row

    def lacks(self, dataset: Dataset, task: Task) -> Bools:
        """Return which of the task's candidates the model cannot score, (C,)."""
        candidate = self.rows(dataset)[task.candidates]
        return (candidate < 0) | (candidate >= self.candidates)

    def scorer(self, dataset: Dataset, task: Task, unknown: str = "error") -> Scorer:
        """Return a function that scores the task's candidates for users.

        With ``unknown="popularity"``, candidates that the model lacks get the score of the least
        popular one, as in a bundle. With "error", they raise ModelError.
        """
        rows, lacking = self.rows(dataset), self.lacks(dataset, task)
        histories = UserHistories.of(task.history, rows, len(dataset.users), len(self.ids))
        candidate = np.where(lacking, 0, rows[task.candidates])
        if lacking.any() and unknown == "error":
            missing = dataset.items[task.candidates[np.argmax(lacking)]]
            raise ModelError(
                f"the model does not know candidate {missing!r} of this dataset: "
                "adapt it to this dataset and domain"
            )

        lowest = self.score_weights.bias * float(self.bias.min())

        def score(users: Ints, columns: Columns = ALL) -> Scores:
            if isinstance(columns, slice):
                scores = self._scores(histories, users, ALL)[:, candidate]
            else:
                scores = self._scores(histories, users, candidate[columns])
            scores[:, lacking[columns]] = lowest
            return scores

        return score

    def _scores(self, histories: UserHistories, users: Ints, columns: Columns) -> Scores:
        """Return the weighted sum of the parts, (u, columns); only the bias without a history."""
        parts = self.part_scores(histories, users, columns)
        total = weighted_sum(parts, astuple(self.score_weights))
        empty = histories.length(users) == 0
        total[empty] = self.score_weights.bias * parts.bias[empty]
        return total

    def part_scores(
        self, histories: UserHistories, users: Ints, columns: Columns = ALL
    ) -> PartScores:
        """Return the unweighted scores of every part, (u, columns) each."""
        seen = histories.matrix[users]
        two_tower = self.user_vectors(histories, users) @ self.candidate_vectors[columns].T
        user_factors, candidate_factors = self.user_low_rank(seen), self.low_rank_vectors[columns]
        interest, residual = slice(self.interest.rank), slice(self.interest.rank, None)
        return PartScores(
            two_tower=two_tower,
            wide=(seen @ self.wide)[:, columns].toarray(),
            target_wide=(seen @ self.target_wide)[:, columns].toarray(),
            residual=user_factors[:, residual] @ candidate_factors[:, residual].T,
            interest=user_factors[:, interest] @ candidate_factors[:, interest].T,
            repeat=(seen @ self._identity)[:, columns].toarray(),
            bias=np.broadcast_to(self.bias[columns], two_tower.shape),
        )

    def user_vectors(self, histories: UserHistories, users: Ints) -> Floats:
        """Encode users from their most recent interactions, (u, width)."""
        start, stop = histories.start[users], histories.start[users + 1]
        length = self.net.config.history
        item, *context = gather_histories(
            histories.log, start, stop, histories.rows, length, AGE_BUCKETS
        )
        with torch.no_grad():
            vectors = torch.from_numpy(self.history_vectors[item])
            encoded: Floats = self.net.encode(vectors, *map(torch.from_numpy, context)).numpy()
        return encoded

    def user_low_rank(self, seen: sp.csr_array) -> Floats:
        """Return the user side of interest and of the residual, (u, r1 + r2).

        ``seen`` (u, N) is 1 for the items of each history. Interest is a map of the logarithms of
        category counts, the residual a sum of the items' input factors.
        """
        counts = np.log1p(group_counts(seen, self.groups, len(self.interest.input_factors)))
        return np.concatenate([counts @ self.interest.input_factors, seen @ self.residual_in], 1)

    @property
    def served_wide(self) -> sp.csr_array:
        """Item-item weights as served, (N, C): both sparse matrices, weighted and added."""
        return sp.csr_array(
            self.wide * np.float32(self.score_weights.wide)
            + self.target_wide * np.float32(self.score_weights.target_wide)
        )

    @property
    def low_rank_weights(self) -> Floats:
        """The weight of each column of ``low_rank_vectors``, (r1 + r2,)."""
        return np.repeat(
            np.array([self.score_weights.interest, self.score_weights.residual], np.float32),
            [self.interest.rank, self.residual.rank],
        )

    def check_split(self, dataset: Dataset) -> None:
        """Raise ModelError unless this is a target model trained under the dataset's split."""
        if self.provenance.kind != "target":
            raise ModelError(
                "this is a source model: adapt it to a target first (`tlrec-edge adapt`)"
            )
        if self.provenance.split_sha256 != split_hash(dataset):
            raise ModelError(
                "the model was trained under another split than this dataset's: "
                "adapt it again to this dataset"
            )

    def with_provenance(self, **changes: Any) -> EdgeModel:
        """Return the model with some fields of its provenance replaced."""
        changed = replace(self, provenance=replace(self.provenance, **changes))
        return changed.with_before_refit(self.before_refit)

    def with_before_refit(self, before: EdgeModel | None) -> EdgeModel:
        """Return the model with the one before its refit, which gets the same provenance."""
        model = replace(self)
        if before is not None:
            before = replace(before, provenance=self.provenance)
        object.__setattr__(model, _BEFORE, before)
        return model

    def save(self, path: str | Path) -> None:
        """Write the model to a folder; a model that is already there is replaced.

        Raises ModelError if the folder holds anything else, or can't be written.
        """
        meta, arrays, before = _meta(self), arrays_of(self), self.before_refit
        with replace_folder(Path(path), MODEL) as folder:
            if before is not None:
                changed, same = changed_arrays(arrays, arrays_of(before))
                new = {name: value for name, value in _meta(before).items() if value != meta[name]}
                meta[_BEFORE] = {"same": same, **new}
                _write_arrays(folder / _BEFORE_ARRAYS, changed)
            _write_arrays(folder / _ARRAYS, arrays)
            (folder / _MARKER).write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, before_refit: bool = True) -> EdgeModel:
        """Read a model folder.

        Without ``before_refit``, which only ``compress`` needs, it takes about half the memory.
        Raises ModelError if the folder is missing, damaged or of another format.
        """
        return read_folder(Path(path), MODEL, partial(_load, before_refit=before_refit))


def _meta(model: EdgeModel) -> dict[str, Any]:
    """Return the content of ``model.json``."""
    return {
        "format": FORMAT,
        "config": model.net.config.to_json(),
        "items": len(model.ids),
        "candidates": model.candidates,
        "ids": model.ids,
        "names": model.names,
        "mix": model.score_weights.to_json(),
        "features": model.features.schema(),
        "about": model.provenance.to_json(),
    }


def _write_arrays(path: Path, arrays: Arrays) -> None:
    np.savez(path, **arrays)  # type: ignore[arg-type]  # no mapping in its stub


def _load(folder: OpenedFolder, before_refit: bool) -> EdgeModel:
    try:
        meta = parse_json(folder.read_marker())
        arrays = _read_arrays(folder, _ARRAYS)
        model = _restore(meta, arrays)
        # The file may be gone: people who never compress the model can remove it.
        if not before_refit or _BEFORE not in meta or not folder.has(_BEFORE_ARRAYS):
            return model
        shared = {name: arrays[name] for name in meta[_BEFORE]["same"]}
        changed = _read_arrays(folder, _BEFORE_ARRAYS)
        return model.with_before_refit(_restore(meta | meta[_BEFORE], shared | changed))
    except DAMAGED as error:
        raise ModelError(
            f"{folder.path} cannot be read as a model ({error}): train it again"
        ) from error


def _read_arrays(folder: OpenedFolder, name: str) -> Arrays:
    file, _ = folder.open(name)
    with os.fdopen(file, "rb") as opened:
        return read_arrays(opened)


def _in_blocks(vectors: Callable[[Tensor], Tensor], count: int, block: int) -> Floats:
    """Compute the vectors of rows 0 to ``count``, a block at a time."""
    with torch.no_grad():
        blocks = [vectors(rows).numpy() for rows in torch.split(torch.arange(count), block)]
    return np.concatenate(blocks)


def _restore(meta: dict[str, Any], arrays: Arrays) -> EdgeModel:
    """Build the model that was saved. Raises one of ``DAMAGED`` if the content does not fit."""
    if meta["format"] != FORMAT:
        raise ValueError(f"format {meta['format']}, this version reads {FORMAT}")
    if not len(meta["ids"]) == len(meta["names"]) == len(arrays["groups"]) == meta["items"]:
        raise ValueError(
            f"{len(meta['ids'])} ids and {len(meta['names'])} names for {meta['items']} items"
        )
    shape = items, candidates = meta["items"], meta["candidates"]
    if not all(type(size) is int for size in shape) or not 0 < candidates <= items:
        raise ValueError(f"{candidates} candidates of {items} items")
    config = ModelConfig.from_json(meta["config"])
    check_arrays(arrays, items, candidates, config)
    quantized_wide = None
    if "wide.entries" in arrays:
        quantized_wide = QuantizedWeights(arrays["wide.entries"], arrays["wide.scale"])
        arrays["wide.data"] = quantized_wide.data(arrays["wide.indptr"])
    return EdgeModel(
        ids=tuple(meta["ids"]),
        names=tuple(meta["names"]),
        net=restore_net(config, items, candidates, arrays),
        features=FeatureEncoder.from_schema(meta["features"], arrays["text_table"]),
        wide=restore_sparse(arrays, "wide", shape),
        target_wide=restore_sparse(arrays, "own", shape),
        residual=LowRankFactors(arrays["rest.inward"], arrays["rest.outward"]),
        interest=LowRankFactors(arrays["interest.inward"], arrays["interest.outward"]),
        bias=arrays["bias"],
        groups=arrays["groups"],
        score_weights=ScoreWeights.from_json(meta["mix"]),
        provenance=Provenance.from_json(meta["about"]),
        tables=restore_tables(arrays),
        quantized_wide=quantized_wide,
    )

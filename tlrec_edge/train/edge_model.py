"""The trained model and its folder: ``model.json`` and ``arrays.npz``, without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from tlrec_edge.core.features import FeatureEncoder, TowerInputs
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
from tlrec_edge.train.npz import DAMAGED, read_arrays
from tlrec_edge.train.parts import PartScores, ScoreWeights, weighted_sum
from tlrec_edge.train.provenance import Provenance
from tlrec_edge.train.quantized import QuantizedTable, QuantizedTables, QuantizedWeights
from tlrec_edge.train.user_histories import UserHistories
from tlrec_edge.types import Bools, Floats, Ints, Scores

FORMAT = 3
_MARKER, _ARRAYS = "model.json", "arrays.npz"
MODEL = FolderKind(
    name="model",
    marker=_MARKER,
    keys=("config", "items", "ids"),
    files=lambda meta: (_ARRAYS,),
    error=ModelError,
    advice="make one with `tlrec-edge pretrain` or `tlrec-edge adapt`",
    remedy="train it again",
)
_SPARSE = ("data", "indices", "indptr")
_NET = "net."
_HISTORY_BLOCK, _CANDIDATE_BLOCK = 8_192, 65_536
"""Rows whose vectors are computed at once. Other blocks may change the last bit of a vector."""

Arrays = dict[str, NDArray[Any]]


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
        return replace(self, provenance=replace(self.provenance, **changes))

    def save(self, path: str | Path) -> None:
        """Write the model to a folder; a model that is already there is replaced.

        Raises ModelError if the folder holds anything else, or can't be written.
        """
        meta = {
            "format": FORMAT,
            "config": self.net.config.to_json(),
            "items": len(self.ids),
            "candidates": self.candidates,
            "ids": self.ids,
            "names": self.names,
            "mix": self.score_weights.to_json(),
            "features": self.features.schema(),
            "about": self.provenance.to_json(),
        }
        arrays = _arrays(self)
        with replace_folder(Path(path), MODEL) as folder:
            np.savez(folder / _ARRAYS, **arrays)  # type: ignore[arg-type]  # no mapping in its stub
            (folder / _MARKER).write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> EdgeModel:
        """Read a model folder. Raises ModelError if it is missing, damaged or of another format."""
        return read_folder(Path(path), MODEL, _load)


def _load(folder: OpenedFolder) -> EdgeModel:
    try:
        meta = parse_json(folder.read_marker())
        file, _ = folder.open(_ARRAYS)
        with os.fdopen(file, "rb") as opened:
            return _restore(meta, read_arrays(opened))
    except DAMAGED as error:
        raise ModelError(
            f"{folder.path} cannot be read as a model ({error}): train it again"
        ) from error


def _in_blocks(vectors: Callable[[Tensor], Tensor], count: int, block: int) -> Floats:
    """Compute the vectors of rows 0 to ``count``, a block at a time."""
    with torch.no_grad():
        blocks = [vectors(rows).numpy() for rows in torch.split(torch.arange(count), block)]
    return np.concatenate(blocks)


def _arrays(model: EdgeModel) -> Arrays:
    """Return every array of a model under its name in ``arrays.npz``."""
    net = model.net
    arrays: Arrays = {f"{_NET}{name}": value.numpy() for name, value in net.state_dict().items()}
    arrays |= {f"input.{name}": getattr(net, name).numpy() for name in TowerInputs._fields}
    for name, matrix in (("wide", model.wide), ("own", model.target_wide)):
        arrays |= {f"{name}.{part}": getattr(matrix, part) for part in _SPARSE}
    for name, factors in (("interest", model.interest), ("rest", model.residual)):
        arrays[f"{name}.inward"] = factors.input_factors
        arrays[f"{name}.outward"] = factors.output_factors
    arrays |= {"bias": model.bias, "groups": model.groups, "text_table": model.features.text_table}
    if model.tables is not None:
        for name, table in vars(model.tables).items():
            arrays[f"table.{name}.rows"] = table.rows
            arrays[f"table.{name}.scale"] = table.scale
            arrays[f"table.{name}.bits"] = np.array(table.bits)
    if model.quantized_wide is not None:
        del arrays["wide.data"]  # it follows from the quantized entries
        arrays["wide.entries"] = model.quantized_wide.entries
        arrays["wide.scale"] = model.quantized_wide.scale
    return arrays


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
        net=_restore_net(config, items, candidates, arrays),
        features=FeatureEncoder.from_schema(meta["features"], arrays["text_table"]),
        wide=_restore_sparse(arrays, "wide", shape),
        target_wide=_restore_sparse(arrays, "own", shape),
        residual=LowRankFactors(arrays["rest.inward"], arrays["rest.outward"]),
        interest=LowRankFactors(arrays["interest.inward"], arrays["interest.outward"]),
        bias=arrays["bias"],
        groups=arrays["groups"],
        score_weights=ScoreWeights.from_json(meta["mix"]),
        provenance=Provenance.from_json(meta["about"]),
        tables=_restore_tables(arrays),
        quantized_wide=quantized_wide,
    )


def _restore_net(config: ModelConfig, items: int, candidates: int, arrays: Arrays) -> TwoTower:
    inputs = TowerInputs(*(arrays[f"input.{name}"] for name in TowerInputs._fields))
    state = {
        name.removeprefix(_NET): torch.from_numpy(array).to(torch.float32, copy=True)
        for name, array in arrays.items()
        if name.startswith(_NET)
    }
    if max(config.layers, len(config.vocabulary)) > len(state):
        raise ValueError(f"{len(state)} arrays for more layers or categorical features")
    # Without memory for the weights: those that were saved are put in place if their shapes fit.
    with torch.device("meta"):
        net = TwoTower(config, items, candidates, inputs)
    net.load_state_dict(state, assign=True)
    net.eval()
    net.requires_grad_(False)
    return net


def _restore_sparse(arrays: Arrays, name: str, shape: tuple[int, int]) -> sp.csr_array:
    return sp.csr_array(tuple(arrays[f"{name}.{part}"] for part in _SPARSE), shape=shape)


def _restore_tables(arrays: Arrays) -> QuantizedTables | None:
    if "table.history.rows" not in arrays:
        return None
    names = QuantizedTables.__dataclass_fields__
    return QuantizedTables(**{name: _restore_table(arrays, name) for name in names})


def _restore_table(arrays: Arrays, name: str) -> QuantizedTable:
    rows, scale = arrays[f"table.{name}.rows"], arrays[f"table.{name}.scale"]
    bits = arrays.get(f"table.{name}.bits", 8)  # the first models had only tables of 8 bits
    return QuantizedTable(rows, scale, int(bits))

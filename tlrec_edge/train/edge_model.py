"""The trained model: two towers, linear parts and bias over one vocabulary; saved without pickle."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from tlrec_edge.core.features import FeatureEncoder, TowerInputs
from tlrec_edge.core.folders import FolderKind, replace_folder
from tlrec_edge.data.dataset import Dataset, Interactions
from tlrec_edge.data.store import split_hash
from tlrec_edge.data.task import Task
from tlrec_edge.errors import ModelError
from tlrec_edge.linear.interest import group_counts
from tlrec_edge.linear.low_rank import LowRankFactors
from tlrec_edge.linear.matrices import user_item
from tlrec_edge.linear.ranking import ALL, Columns, Scorer
from tlrec_edge.train.config import PARTS, ScoreWeights
from tlrec_edge.train.examples import gather_histories
from tlrec_edge.train.model import AGE_BUCKETS, ModelConfig, TwoTower
from tlrec_edge.train.provenance import Provenance
from tlrec_edge.types import Bools, Floats, Ints, Scales

FORMAT = 3
_MARKER, _ARRAYS = "model.json", "arrays.npz"
MODEL = FolderKind(
    "model", _MARKER, ("config", "items", "ids"), lambda head: (_ARRAYS,), ModelError
)
_SPARSE = ("data", "indices", "indptr")
MAX_HISTORY = 4096
"""The wide part and the interest counts read at most this many distinct items, the most recent."""


class QuantizedTable(NamedTuple):
    """Row-wise quantization: vector = ``rows`` (n, width) * ``scale`` (n,), float32 or float16.

    ``rows`` lie within ``rowwise.MAX_ENTRY[bits]``; they are packed when a bundle is written, not here.
    """

    rows: NDArray[np.int8]
    scale: Scales
    bits: int = 8

    def vectors(self) -> Floats:
        return self.rows.astype(np.float32) * self.scale.astype(np.float32)[:, None]


class QuantizedWeights(NamedTuple):
    """Quantized item-item weights: ``wide.data`` = ``entries`` (nnz,) * the ``scale`` (N,) of their row."""

    entries: NDArray[np.int8]
    scale: Scales

    def data(self, indptr: NDArray[np.integer[Any]]) -> Floats:
        scale = np.repeat(self.scale.astype(np.float32), np.diff(indptr))
        return self.entries.astype(np.float32) * scale


@dataclass(frozen=True)
class QuantizedTables:
    """Quantized item vectors that stand in for the network's own and for those of the linear parts.

    ``history`` (N, width) and ``candidate`` (C, width); ``taste_in`` (N, r2) and ``taste`` (C, r1 + r2) of the linear
    parts of low rank.
    """

    history: QuantizedTable
    candidate: QuantizedTable
    taste_in: QuantizedTable
    taste: QuantizedTable


@dataclass(frozen=True)
class EdgeModel:
    """A model for one target.

    ``ids`` are the item ids, candidates first; ``net`` has as many rows. ``wide`` (N, C) leads from history rows to
    candidate columns, ``target_wide`` as well but from what the target's rows alone say, and ``residual`` is what ``wide`` leaves
    out, in low rank. ``interest`` leads from counts of groups to candidates, ``groups`` (N, g) are those of each item,
    -1 for none. The two of low rank are served as one block of "taste": r1 columns of interest, then r2 of the rest.
    ``bias`` (C,) is what is served, the network's own or a popularity that fades; ``score_weights.repeat`` is added to what a
    user already had. ``tables``, once quantized, replace the network's item vectors; ``quantized_wide``, once quantized,
    are what ``wide`` is stored as, and ``target_wide`` is empty then.
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
        """History-side vectors as served, (N, width)."""
        if self.tables is not None:
            return self.tables.history.vectors()
        with torch.no_grad():
            return np.concatenate(
                [
                    self.net.history_vectors(part).numpy()
                    for part in torch.split(torch.arange(len(self.ids)), 8192)
                ]
            )

    @cached_property
    def candidate_vectors(self) -> Floats:
        """Candidate-side vectors as served, (C, width)."""
        if self.tables is not None:
            return self.tables.candidate.vectors()
        with torch.no_grad():
            return np.concatenate(
                [
                    self.net.candidate_vectors(part).numpy()
                    for part in torch.split(torch.arange(self.candidates), 65_536)
                ]
            )

    @cached_property
    def low_rank_vectors(self) -> Floats:
        """Candidate side of the parts of low rank as served, (C, r1 + r2)."""
        if self.tables is not None:
            return self.tables.taste.vectors()
        return np.concatenate([self.interest.output_factors, self.residual.output_factors], 1)

    @cached_property
    def residual_in(self) -> Floats:
        """History side of the rest as served, (N, r2)."""
        return (
            self.residual.input_factors if self.tables is None else self.tables.taste_in.vectors()
        )

    @cached_property
    def _identity(self) -> sp.csr_array:
        """From each history row to the candidate it is, (N, C)."""
        return sp.csr_array(sp.eye_array(*self.wide.shape, dtype=np.float32, format="csr"))

    @property
    def candidates(self) -> int:
        return len(self.net.bias)

    def rows(self, dataset: Dataset) -> Ints:
        """Map the dataset's item rows to the model's, -1 = unknown to the model."""
        row = np.full(len(dataset.items), -1, np.int32)
        for i, name in enumerate(self.ids):
            place = dataset.item_row.get(name)
            if place is not None:
                row[place] = i
        return row

    def scorer(self, dataset: Dataset, task: Task) -> Scorer:
        """Return the float scorer of the task's candidates. Raises ModelError where the model lacks one."""
        histories = UserHistories.of(
            task.history, self.rows(dataset), len(dataset.users), len(self.ids)
        )
        place = self.rows(dataset)[task.candidates]
        if ((place < 0) | (place >= self.candidates)).any():
            missing = dataset.items[
                task.candidates[np.argmax((place < 0) | (place >= self.candidates))]
            ]
            raise ModelError(
                f"the model does not know candidate {missing!r} of this dataset: adapt it to this dataset and domain"
            )

        def score(users: Ints, columns: Columns = ALL) -> NDArray[np.floating]:
            whole = isinstance(columns, slice)
            parts = self.part_scores(histories, users, ALL if whole else place[columns])
            weights = (getattr(self.score_weights, name) for name in PARTS)
            total = sum(
                (w * p for w, p in zip(weights, parts, strict=True) if w), np.zeros_like(parts[-1])
            )
            empty = histories.length(users) == 0
            total[empty] = self.score_weights.bias * parts[-1][empty]
            return total[:, place] if whole else total

        return score

    def part_scores(
        self, histories: UserHistories, users: Ints, columns: Columns = ALL
    ) -> tuple[Floats, ...]:
        """Return the unweighted scores (u, columns) of ``PARTS``."""
        seen = histories.matrix[users]
        two_tower = self.user_vectors(histories, users) @ self.candidate_vectors[columns].T
        low_rank, split = self.user_low_rank(seen), self.interest.rank
        outward = self.low_rank_vectors[columns]
        interest, residual = (
            low_rank[:, part] @ outward[:, part].T for part in (slice(split), slice(split, None))
        )
        matrices = self.wide, self.target_wide, self._identity
        wide, target_wide, repeat = ((seen @ weights)[:, columns].toarray() for weights in matrices)
        bias = np.broadcast_to(self.bias[columns], two_tower.shape)
        return two_tower, wide, target_wide, residual, interest, repeat, bias

    def user_vectors(self, histories: UserHistories, users: Ints) -> Floats:
        """Encode users from the most recent part of their past, (u, width)."""
        start, stop = histories.start[users], histories.start[users + 1]
        item, *rest = gather_histories(
            histories.log, start, stop, histories.rows, self.net.config.history, AGE_BUCKETS
        )
        with torch.no_grad():
            vectors = torch.from_numpy(self.history_vectors[item])
            encoded: Floats = self.net.encode(vectors, *map(torch.from_numpy, rest)).numpy()
        return encoded

    def user_low_rank(self, seen: sp.csr_array) -> Floats:
        """Return log group counts projected to r1 columns, then the sum of the items' ``residual_in``, (u, r1 + r2)."""
        counts = np.log1p(group_counts(seen, self.groups, len(self.interest.input_factors)))
        return np.concatenate([counts @ self.interest.input_factors, seen @ self.residual_in], 1)

    @property
    def served_wide(self) -> sp.csr_array:
        """Item-item weights as served, (N, C): both sparse parts under their weights."""
        return sp.csr_array(
            self.wide * np.float32(self.score_weights.wide)
            + self.target_wide * np.float32(self.score_weights.own)
        )

    @property
    def low_rank_weights(self) -> Floats:
        """Weight of each column of the taste block, (r1 + r2,)."""
        return np.repeat(
            np.array([self.score_weights.interest, self.score_weights.rest], np.float32),
            [self.interest.rank, self.residual.rank],
        )

    def check_split(self, dataset: Dataset) -> None:
        """Raise ModelError where the dataset's split is not the one the model was trained under."""
        if self.provenance.kind != "target":
            raise ModelError(
                "this is a source model: adapt it to a target first (`tlrec-edge adapt`)"
            )
        if self.provenance.split_sha256 != split_hash(dataset):
            raise ModelError(
                "the model was trained under another split than this dataset's: adapt it again to this dataset"
            )

    def with_provenance(self, **changes: Any) -> EdgeModel:
        return replace(self, provenance=replace(self.provenance, **changes))

    def save(self, path: Path) -> None:
        """Write ``model.json`` and ``arrays.npz`` to a folder, atomically."""
        arrays = {f"net.{name}": value.numpy() for name, value in self.net.state_dict().items()}
        arrays |= {f"input.{name}": getattr(self.net, name).numpy() for name in TowerInputs._fields}
        for name, matrix in (("wide", self.wide), ("own", self.target_wide)):
            arrays |= {f"{name}.{part}": getattr(matrix, part) for part in _SPARSE}
        for name, factors in (("interest", self.interest), ("rest", self.residual)):
            arrays |= {
                f"{name}.inward": factors.input_factors,
                f"{name}.outward": factors.output_factors,
            }
        arrays |= {"bias": self.bias, "groups": self.groups, "text_table": self.features.text_table}
        if self.tables is not None:
            for name, table in vars(self.tables).items():
                parts = {"rows": table.rows, "scale": table.scale, "bits": np.array(table.bits)}
                arrays |= {f"table.{name}.{part}": array for part, array in parts.items()}
        if self.quantized_wide is not None:
            del arrays["wide.data"]
            arrays |= {
                "wide.entries": self.quantized_wide.entries,
                "wide.scale": self.quantized_wide.scale,
            }
        meta = {
            "format": FORMAT,
            "config": self.net.config.to_json(),
            "items": len(self.ids),
            "candidates": self.candidates,
            "ids": self.ids,
            "names": self.names,
            "mix": asdict(self.score_weights),
            "features": self.features.schema(),
            "about": self.provenance.to_json(),
        }
        with replace_folder(Path(path), MODEL) as folder:
            np.savez(folder / _ARRAYS, **arrays)
            (folder / _MARKER).write_text(json.dumps(meta, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> EdgeModel:
        """Read a model folder. Raises ModelError that names the file."""
        path = Path(path)
        if not (path / _MARKER).is_file():
            raise ModelError(
                f"{path} is no model folder (no model.json): make one with `tlrec-edge pretrain` or `adapt`"
            )
        try:
            meta = json.loads((path / _MARKER).read_text(encoding="utf-8"))
            with (path / _ARRAYS).open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            return cls._restore(meta, arrays)
        except (
            OSError,
            EOFError,
            zipfile.BadZipFile,
            ValueError,
            KeyError,
            TypeError,
            RuntimeError,
        ) as error:
            raise ModelError(
                f"{path} cannot be read as a model ({error}): train it again"
            ) from error

    @classmethod
    def _restore(cls, meta: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> EdgeModel:
        if meta["format"] != FORMAT:
            raise ValueError(f"format {meta['format']}, this version reads {FORMAT}")
        if not len(meta["ids"]) == len(meta["names"]) == len(arrays["groups"]) == meta["items"]:
            raise ValueError(
                f"{len(meta['ids'])} ids and {len(meta['names'])} names for {meta['items']} items"
            )
        inputs = TowerInputs(*(arrays[f"input.{name}"] for name in TowerInputs._fields))
        net = TwoTower(
            ModelConfig.from_json(meta["config"]), meta["items"], meta["candidates"], inputs
        )
        net.load_state_dict(
            {k[4:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("net.")}
        )
        net.eval()
        net.requires_grad_(False)
        features = FeatureEncoder.from_schema(meta["features"], arrays["text_table"])
        shape = (meta["items"], meta["candidates"])
        codes = (
            QuantizedWeights(arrays["wide.entries"], arrays["wide.scale"])
            if "wide.entries" in arrays
            else None
        )
        if codes is not None:
            arrays["wide.data"] = codes.data(arrays["wide.indptr"])
        wide, target_wide = (
            sp.csr_array(tuple(arrays[f"{name}.{part}"] for part in _SPARSE), shape=shape)
            for name in ("wide", "own")
        )
        residual, interest = (
            LowRankFactors(arrays[f"{name}.inward"], arrays[f"{name}.outward"])
            for name in ("rest", "interest")
        )
        tables = None
        if "table.history.rows" in arrays:
            tables = QuantizedTables(
                *(_read_table(arrays, name) for name in QuantizedTables.__dataclass_fields__)
            )
        return cls(
            tuple(meta["ids"]),
            tuple(meta["names"]),
            net,
            features,
            wide,
            target_wide,
            residual,
            interest,
            arrays["bias"],
            arrays["groups"],
            ScoreWeights(**meta["mix"]),
            Provenance.from_json(meta["about"]),
            tables,
            codes,
        )


def _read_table(arrays: Mapping[str, NDArray[Any]], name: str) -> QuantizedTable:
    rows, scale = arrays[f"table.{name}.rows"], arrays[f"table.{name}.scale"]
    bits = arrays.get(f"table.{name}.bits")  # models of before have 8
    return QuantizedTable(rows, scale) if bits is None else QuantizedTable(rows, scale, int(bits))


@dataclass(frozen=True)
class UserHistories:
    """Users' known interactions in a model's rows: sequences, and the binary matrix (users, N) of distinct items."""

    log: Interactions
    rows: Ints
    start: NDArray[np.int64]
    matrix: sp.csr_array

    @classmethod
    def of(cls, log: Interactions, rows: Ints, users: int, items: int) -> UserHistories:
        known = log.select(rows[log.item] >= 0)
        start = np.searchsorted(known.user, np.arange(users + 1)).astype(np.int64)
        recent = known.select(_recent_distinct(known))
        matrix = user_item(replace(recent, item=rows[recent.item]), users, items)
        return cls(known, rows, start, matrix)

    def length(self, users: Ints) -> NDArray[np.int64]:
        return self.start[users + 1] - self.start[users]


def _recent_distinct(log: Interactions) -> Bools:
    """Mark each user's MAX_HISTORY most recent distinct items, by their last occurrence."""
    pair = log.user.astype(np.int64) * (int(log.item.max(initial=0)) + 1) + log.item
    last = np.zeros(len(log), bool)
    last[len(log) - 1 - np.unique(pair[::-1], return_index=True)[1]] = True
    place = np.flatnonzero(last)
    user = log.user[place]
    after = np.searchsorted(user, user, side="right") - np.arange(len(user))  # 1 = most recent
    last[place[after > MAX_HISTORY]] = False
    return last

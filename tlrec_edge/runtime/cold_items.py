"""Items added at run time: raw features through the item tower, and the known items with the nearest texts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import CANDIDATE_TEXT, FEATURES, ITEM_TOWER
from tlrec_edge.bundle.ids import ItemId, as_text, preview
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.bundle.session import Graph
from tlrec_edge.core.features import FeatureEncoder, TowerInputs
from tlrec_edge.core.topk import top_k
from tlrec_edge.errors import BundleError, DataError
from tlrec_edge.runtime.candidates import NEIGHBOURS, AddedItems
from tlrec_edge.types import Floats, Scales

Features = Mapping[ItemId, Mapping[str, Any]]
_BATCH = 1024
_MAX_MAGNITUDE = 1e6
INVERSE_TEMPERATURE = 5.0
"""A neighbour weighs exp(SHARPNESS * cosine of the texts)."""
_NAME_COLUMNS = ("name", "title")


class ColdItems:
    """The bundle's feature encoder and item tower. Raises BundleError if the bundle has none."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        if not bundle.has(ITEM_TOWER):
            raise BundleError(
                f"{bundle.path} has no {ITEM_TOWER}, so items cannot be added: its model learned from ids only; "
                "export a model that was trained with item content"
            )
        self._shape, self._path = bundle.shape, bundle.path
        self._bias, self._popularity = (
            np.float32(bundle.scoring.unknown_score),
            bundle.array("candidate_bias"),
        )
        self.encoder = read_feature_encoder(bundle)
        self._texts = (
            _unit_text_vectors(bundle)
            if bundle.has(CANDIDATE_TEXT)
            else np.zeros((0, 0), np.float32)
        )
        self.tower = Graph(
            bundle.read(ITEM_TOWER),
            str(bundle.path / ITEM_TOWER),
            ["history", "candidate"],
            threads,
        )
        parts = self._encode({}, 0, None)._asdict()
        self.tower.check_inputs(
            {name: (None, part.shape[1]) for name, part in parts.items() if part.shape[1]}
        )

    def check(self) -> None:
        """Run the tower on one item of each category. Raises BundleError where it does not fit the feature schema."""
        size = max(map(len, self.encoder.vocabulary.values()), default=0)
        columns = {
            name: [values[min(i, len(values) - 1)] if values else "" for i in range(-1, size)]
            for name, values in self.encoder.vocabulary.items()
        }
        self._run(
            self._encode(
                columns, size + 1, np.zeros((size + 1, self.encoder.vector_width), np.float32)
            )
        )

    def texts(self, features: Features) -> list[str]:
        """Return the text that each item is read by. Raises DataError that names the item and the field."""
        items = {as_text(key): values for key, values in features.items()}
        return self.encoder.texts(self._columns(items), len(items))

    def extend(
        self, added: AddedItems, features: Features, text_vectors: Floats | None
    ) -> AddedItems:
        """Return ``added`` with these items behind the old ones. Raises DataError that names the item and the field."""
        items = {as_text(key): values for key, values in features.items()}
        columns = self._columns(items)
        domains = [str(values.get("domain", "")) for values in items.values()]
        inputs = self._encode(columns, len(items), text_vectors, domains)
        history, candidate = self._run(
            inputs, 1
        )  # one by one: an item's bits don't depend on what is added with it
        neighbours, weights = self._nearest_by_text(inputs.text)
        n, first = len(items), self._shape.items + len(added.rows)
        rows, scale = self._shape.history_format.quantize(history)
        no_interest = np.zeros((n, self._shape.r), np.float32)
        wide, scales = self._shape.candidate_format.quantize(candidate, no_interest)
        named = self._name_columns()
        names = [
            next(filter(None, (_text(v.get(c), c, key) for c in named)), key)
            for key, v in items.items()
        ]
        return AddedItems(
            {**added.rows, **{key: first + i for i, key in enumerate(items)}},
            (*added.names, *names),
            np.concatenate([added.history_rows, rows]),
            self._with_scale(added.history_scale, scale[:, 0]),
            np.concatenate([added.candidate_rows, wide]),
            self._with_scale(added.candidate_scale, scales),
            np.concatenate([added.bias, self._bias_corrections(neighbours, weights)]),
            np.concatenate([added.neighbours, neighbours]),
            np.concatenate([added.neighbour_weights, weights]),
        )

    def _with_scale(self, known: Scales, new: Scales) -> Scales:
        """Return the scales of added items with new ones behind them, in the bundle's dtype."""
        if new.max(initial=0.0) > np.finfo(known.dtype).max:
            raise BundleError(
                f"{self._path / ITEM_TOWER} gives vectors beyond the table's scales; export it again"
            )
        return np.concatenate([known, new.astype(known.dtype)])

    def _bias_corrections(self, neighbours: NDArray[np.int32], weights: Floats) -> Floats:
        """Return what turns the neighbours' biases into the mean one: their popularity says nothing of a new item."""
        correction: Floats = self._popularity.mean() - (weights * self._popularity[neighbours]).sum(
            1
        )
        return np.where(weights.any(1), correction, self._bias).astype(np.float32)

    def _nearest_by_text(self, text: Floats) -> tuple[NDArray[np.int32], Floats]:
        """Return the candidates with the nearest texts and their shares, (n, k); an item without text has none."""
        k = min(NEIGHBOURS, len(self._texts))
        neighbours, weights = (
            np.zeros((len(text), k), np.int32),
            np.zeros((len(text), k), np.float32),
        )
        for i in np.flatnonzero(text.any(1)) if k else ():
            cosine = self._texts @ text[i]
            neighbours[i] = best = top_k(cosine, k)
            weight = np.exp(np.float32(INVERSE_TEMPERATURE) * cosine[best])
            weights[i] = weight / weight.sum()
        return neighbours, weights

    def _name_columns(self) -> tuple[str, ...]:
        return (*_NAME_COLUMNS, *self.encoder.text_columns)

    def _columns(self, items: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
        known = (*self.encoder.text_columns, *self.encoder.vocabulary, *self.encoder.quantiles)
        columns: dict[str, list[Any]] = {}
        for name in known:
            read = _number if name in self.encoder.quantiles else _text
            columns[name] = [read(values.get(name), name, key) for key, values in items.items()]
        if (
            known
            and items
            and not any(name in values for values in items.values() for name in known)
        ):
            raise DataError(
                f"none of the features is one the model knows; it reads: {', '.join(known)}"
            )
        return columns

    def _encode(
        self,
        columns: Mapping[str, list[Any]],
        n: int,
        text_vectors: Floats | None,
        domains: Sequence[str] | None = None,
    ) -> TowerInputs:
        width = self.encoder.vector_width
        if text_vectors is not None:
            try:
                text_vectors = np.asarray(text_vectors, np.float32)
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"text_vectors: expected numbers {(n, width)}, got {preview(text_vectors)}"
                ) from error
            if (
                text_vectors.shape != (n, width)
                or not (np.abs(text_vectors) <= _MAX_MAGNITUDE).all()
            ):
                expected = (
                    f"expected finite values of shape {(n, width)}, none above {_MAX_MAGNITUDE:g}"
                )
                raise DataError(f"text_vectors has shape {text_vectors.shape}; {expected}")
        return self.encoder.encode(columns, n, text_vectors, domains)

    def _run(self, inputs: TowerInputs, size: int = _BATCH) -> tuple[Floats, Floats]:
        parts = []
        for start in range(0, len(inputs.text), size):
            batch = {name: part[start : start + size] for name, part in inputs._asdict().items()}
            shape = len(batch["text"]), self._shape.d
            parts.append(self.tower.run({name: batch[name] for name in self.tower.inputs}, shape))
        history, candidate = (np.concatenate(part) for part in zip(*parts, strict=True))
        return history, candidate


def _unit_text_vectors(bundle: Bundle) -> Floats:
    texts: Floats = bundle.array("candidate_text").astype(np.float32)
    texts /= np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), 1e-12)
    return texts


def read_feature_encoder(bundle: Bundle) -> FeatureEncoder:
    """Return the feature encoder that travels in the bundle. Raises BundleError where it is none."""
    try:
        schema = json.loads(bundle.read(FEATURES))
        table = bundle.array("text_table").astype(np.float32)
        if table.shape[1] and not len(table):
            raise ValueError("text table without rows")
        return FeatureEncoder.from_schema(schema, table)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleError(
            f"{bundle.path / FEATURES} is no feature schema ({error}); export the bundle again"
        ) from error


def _number(value: Any, column: str, item: str) -> float:
    """Return a number as the encoder takes it; None, "" and NaN mean that it is not known."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isinf(number):
        raise DataError(
            f"item {item!r:.80}: {column} = {preview(value)}; expected a finite number, None if not known"
        )
    return number


def _text(value: Any, column: str, item: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if hasattr(value, "__len__") and not isinstance(value, str):
        raise DataError(
            f"item {item!r:.80}: {column} = {preview(value)}; expected text, None if not known"
        )
    return str(value)


def features_json(encoder: FeatureEncoder) -> bytes:
    """Return what ``read_feature_encoder`` reads, without the text table."""
    return json.dumps(encoder.schema(), ensure_ascii=False).encode()

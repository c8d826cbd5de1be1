"""Cold items: new items by the item tower, and by the known items with the nearest texts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tlrec_edge.bundle.format import CANDIDATE_TEXT, FEATURES, ITEM_TOWER, REMEDY
from tlrec_edge.bundle.ids import ItemId, as_text, preview
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.bundle.session import Graph
from tlrec_edge.core.features import FeatureEncoder, TowerInputs
from tlrec_edge.core.strict_json import parse_json
from tlrec_edge.core.topk import top_k
from tlrec_edge.core.unicode import check_text
from tlrec_edge.errors import ArgumentError, BundleError, DataError
from tlrec_edge.runtime.added_items import NEIGHBOURS, AddedItems
from tlrec_edge.types import Floats, Ints, Scales

Features = Mapping[ItemId, Mapping[str, Any]]
"""Feature columns by item id."""
INVERSE_TEMPERATURE = 5.0
"""A neighbour's weight is proportional to exp(INVERSE_TEMPERATURE * cosine of the texts)."""
_BATCH = 64
"""Items in a run of the tower, whose size is limited (see ``graph.check``)."""
_MAX_MAGNITUDE = 1e6
_NAME_COLUMNS = ("name", "title")


class ColdItems:
    """A bundle's feature encoder and item tower. Raises BundleError if the bundle has none."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        if not bundle.has(ITEM_TOWER):
            raise BundleError(
                f"{bundle.path} has no {ITEM_TOWER}, so items cannot be added: its model learned "
                "from ids only; export a model that was trained with item content"
            )
        self._shape, self._path = bundle.shape, bundle.path
        self._bias = np.float32(bundle.scoring.unknown_score)
        self._candidate_bias = bundle.array("candidate_bias")
        self.encoder = read_feature_encoder(bundle)
        self._texts = _unit_text_vectors(bundle)
        parts = self._encode({}, 0, None)._asdict()
        inputs = {name: (None, part.shape[1]) for name, part in parts.items() if part.shape[1]}
        outputs = dict.fromkeys(("history", "candidate"), (None, bundle.shape.d))
        file = str(bundle.path / ITEM_TOWER)
        self.tower = Graph(bundle.read(ITEM_TOWER), file, inputs, outputs, threads)

    def check(self) -> None:
        """Run the tower on an item of each category.

        Raises BundleError if the tower does not fit the feature schema.
        """
        vocabulary = self.encoder.vocabulary
        size = max(map(len, vocabulary.values()), default=0)
        columns = {}
        for name, values in vocabulary.items():
            last = len(values) - 1
            columns[name] = [values[min(i, last)] if values else "" for i in range(-1, size)]
        vectors = np.zeros((size + 1, self.encoder.vector_width), np.float32)
        self._run(self._encode(columns, size + 1, vectors))

    def texts(self, features: Features) -> list[str]:
        """Return the text by which the model reads each item.

        Raises DataError, which names the item and the column.
        """
        items = _item_ids(features)
        return self.encoder.texts(self._columns(items), len(items))

    def extend(
        self, added: AddedItems, features: Features, text_vectors: Floats | None
    ) -> AddedItems:
        """Return ``added`` followed by new items.

        Raises DataError, which names the item and the column.
        """
        items = _item_ids(features)
        domains = [_text(row.get("domain"), "domain", item) for item, row in items.items()]
        inputs = self._encode(self._columns(items), len(items), text_vectors, domains)
        # One item at a time: its bits must not depend on the items that are added with it.
        history, candidate = self._run(inputs, batch=1)
        neighbours, weights = self._nearest_by_text(inputs.text)
        first = self._shape.items + len(added)
        no_interest = np.zeros((len(items), self._shape.r), np.float32)
        history_rows, history_scale = self._shape.history_format.quantize(history)
        rows, scale = self._shape.candidate_format.quantize(candidate, no_interest)
        names = [self._name(item, columns) for item, columns in items.items()]
        bias = self._bias_corrections(neighbours, weights)
        return AddedItems(
            rows={**added.rows, **{item: first + i for i, item in enumerate(items)}},
            names=(*added.names, *names),
            history_rows=np.concatenate([added.history_rows, history_rows]),
            history_scale=self._with_scale(added.history_scale, history_scale[:, 0]),
            candidate_rows=np.concatenate([added.candidate_rows, rows]),
            candidate_scale=self._with_scale(added.candidate_scale, scale),
            bias=np.concatenate([added.bias, bias]),
            neighbours=np.concatenate([added.neighbours, neighbours]),
            neighbour_weights=np.concatenate([added.neighbour_weights, weights]),
        )

    def _with_scale(self, known: Scales, new: Scales) -> Scales:
        """Return the scales of added items followed by new ones, in the bundle's dtype."""
        if new.max(initial=0.0) > np.finfo(known.dtype).max:
            raise BundleError(
                f"{self._path / ITEM_TOWER} gives vectors that exceed the range of the tables' "
                f"scales; {REMEDY}"
            )
        return np.concatenate([known, new.astype(known.dtype)])

    def _bias_corrections(self, neighbours: Ints, weights: Floats) -> Floats:
        """Return what replaces the neighbours' biases by the mean bias of all candidates.

        A bias is mostly popularity, and that of the neighbours is not the new item's.
        """
        neighbour_bias = (weights * self._candidate_bias[neighbours]).sum(1)
        correction: Floats = self._candidate_bias.mean() - neighbour_bias
        return np.where(weights.any(1), correction, self._bias).astype(np.float32)

    def _nearest_by_text(self, text: Floats) -> tuple[Ints, Floats]:
        """Return the candidates with the nearest texts and their weights, (n, k).

        The weights of an item without text are 0.
        """
        k = min(NEIGHBOURS, len(self._texts))
        neighbours = np.zeros((len(text), k), np.int32)
        weights = np.zeros((len(text), k), np.float32)
        if not k:
            return neighbours, weights
        for i in np.flatnonzero(text.any(1)):
            cosine = self._texts @ text[i]
            neighbours[i] = best = top_k(cosine, k)
            weight = np.exp(np.float32(INVERSE_TEMPERATURE) * cosine[best])
            weights[i] = weight / weight.sum()
        return neighbours, weights

    def _name(self, item: str, columns: Mapping[str, Any]) -> str:
        """Return an item's display name: its first filled column of text, or its id."""
        for column in (*_NAME_COLUMNS, *self.encoder.text_columns):
            if name := _text(columns.get(column), column, item):
                return name
        return item

    def _columns(self, items: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
        numbers = self.encoder.quantiles
        known = (*self.encoder.text_columns, *self.encoder.vocabulary, *numbers)
        columns: dict[str, list[Any]] = {}
        for name in known:
            read = _number if name in numbers else _text
            columns[name] = [read(values.get(name), name, item) for item, values in items.items()]
        has_known = any(name in values for values in items.values() for name in known)
        if known and items and not has_known:
            raise DataError(
                f"none of the features is one that the model reads; it reads: {', '.join(known)}"
            )
        return columns

    def _encode(
        self,
        columns: Mapping[str, list[Any]],
        n: int,
        text_vectors: Floats | None,
        domains: Sequence[str] | None = None,
    ) -> TowerInputs:
        if text_vectors is not None:
            text_vectors = _check_text_vectors(text_vectors, (n, self.encoder.vector_width))
        return self.encoder.encode(columns, n, text_vectors, domains)

    def _run(self, inputs: TowerInputs, batch: int = _BATCH) -> tuple[Floats, Floats]:
        """Return history-side and candidate vectors, (n, d) each."""
        outputs = []
        arrays = inputs._asdict()
        for start in range(0, len(inputs.text), batch):
            feed = {name: arrays[name][start : start + batch] for name in self.tower.inputs}
            n = len(inputs.text[start : start + batch])
            outputs.append(self.tower.run(feed, n))
        history, candidate = (np.concatenate(part) for part in zip(*outputs, strict=True))
        return history, candidate


def _check_text_vectors(vectors: Any, shape: tuple[int, int]) -> Floats:
    try:
        array = np.asarray(vectors, np.float32)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"text_vectors: expected numbers {shape}, got {preview(vectors)}"
        ) from error
    if array.shape != shape or not (np.abs(array) <= _MAX_MAGNITUDE).all():
        raise ArgumentError(
            f"text_vectors has shape {array.shape}; "
            f"expected finite values of shape {shape}, none above {_MAX_MAGNITUDE:g}"
        )
    return array


def _unit_text_vectors(bundle: Bundle) -> Floats:
    """Return the candidates' text vectors at length 1, (C, t); empty if the bundle has none."""
    if not bundle.has(CANDIDATE_TEXT):
        return np.zeros((0, 0), np.float32)
    texts: Floats = bundle.array("candidate_text").astype(np.float32)
    texts /= np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), 1e-12)
    return texts


def read_feature_encoder(bundle: Bundle) -> FeatureEncoder:
    """Return the bundle's feature encoder. Raises BundleError if it cannot be read."""
    try:
        schema = parse_json(bundle.read(FEATURES))
        table = bundle.array("text_table").astype(np.float32)
        if table.shape[1] and not len(table):
            raise ValueError("text table without rows")
        return FeatureEncoder.from_schema(schema, table)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{bundle.path / FEATURES} is not a valid feature schema ({error}); {REMEDY}"
        ) from error


def features_json(encoder: FeatureEncoder) -> bytes:
    """Return what ``read_feature_encoder`` reads, without the text table."""
    return json.dumps(encoder.schema(), ensure_ascii=False).encode()


def _number(value: Any, column: str, item: str) -> float:
    """Return a number as the encoder reads it; None, "" and NaN mean that it is not known."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.inf
    if math.isinf(number):
        raise DataError(
            f"item {item!r:.80}: {column} = {preview(value)}; "
            "expected a finite number, or None if it is not known"
        )
    return number


def _checked(text: str, column: str, item: str) -> str:
    try:
        check_text(text)
    except ValueError as error:
        raise DataError(f"item {item!r:.80}: {column}: {error}") from error
    return text


def _item_ids(features: Features) -> dict[str, Mapping[str, Any]]:
    """Return the features by id. Raises DataError if an id can't be written to a file."""
    items = {as_text(item): columns for item, columns in features.items()}
    for item in items:
        _checked(item, "id", item)
    return items


def _text(value: Any, column: str, item: str) -> str:
    """Return a text as the encoder reads it; None and NaN mean that it is not known."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    try:
        if isinstance(value, str) or not hasattr(value, "__len__"):
            return _checked(str(value), column, item)
    except ValueError:  # an integer of thousands of digits
        pass
    raise DataError(
        f"item {item!r:.80}: {column} = {preview(value)}; expected text, or None if it is not known"
    )

"""From an item's raw columns to the three inputs of the item tower, in numpy: used in training and at serving time."""

from __future__ import annotations

import re
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.errors import DataError
from tlrec_edge.types import Floats

_WORD = re.compile(r"\w+")
_CHUNK = 8192
_CACHED_WORDS = 50_000


class TowerInputs(NamedTuple):
    """``text`` (n, t); ``numeric`` (n, 2m): a rank in [-1, 1] and a missing flag a column; ``categories`` (n, c)."""

    text: Floats
    numeric: Floats
    categories: NDArray[np.int64]


class TextSource(NamedTuple):
    """The pretrained text encoder that a model reads texts by, and the width of its vectors."""

    encoder: str
    width: int

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Raise ValueError, KeyError, TypeError or AttributeError for what names no encoder."""
        encoder, width = entry["encoder"], entry["width"]
        if not isinstance(encoder, str) or not encoder or not isinstance(width, int) or width < 1:
            raise ValueError(f"{entry!r:.80} names no text encoder and its width")
        return cls(encoder, width)


def tokens(text: str) -> list[str]:
    """Split into lower-case words and their character trigrams, as in fastText (arXiv 1607.04606)."""
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        found.append(word)
        marked = f"<{word}>"
        if len(marked) > 3:
            found.extend(marked[i : i + 3] for i in range(len(marked) - 2))
    return found


def hash_tokens(texts: Sequence[str], buckets: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return bucket numbers of all tokens, and the row each belongs to."""
    hashes, counts = array("I"), np.zeros(len(texts), np.int64)
    for row, text in enumerate(texts):
        before = len(hashes)
        for word in _WORD.findall(text.lower()):
            hashes.extend(_hashes(word))
        counts[row] = len(hashes) - before
    return np.array(hashes, np.int64) % buckets, np.repeat(np.arange(len(texts)), counts)


@lru_cache(maxsize=_CACHED_WORDS)
def _hashes(word: str) -> array[int]:
    """Return the CRC-32 of a lower-case word's tokens; words of titles come again and again."""
    return array("I", [zlib.crc32(token.encode()) for token in tokens(word)])


@dataclass(frozen=True, eq=False)
class FeatureEncoder:
    """Fitted feature schema; plain data, so it travels in a bundle.

    ``vocabulary`` maps a categorical column to its values (code 0 = unknown or missing, code i + 1 = value i);
    ``quantiles`` maps a numeric column to rising knots; ``text_table`` (buckets, t) holds one vector a hashed token,
    its inverse document frequency folded in. Where ``text`` names a pretrained encoder, ``text_table`` (width, t)
    projects its vectors instead. ``by_domain`` holds the knots of each domain that has its own: there a
    number is ranked among its own domain's, so that cheap means cheap in its market. ``aliases`` maps a categorical
    column's other names to the one that ``vocabulary`` holds.
    """

    text_columns: tuple[str, ...]
    vocabulary: Mapping[str, tuple[str, ...]]
    quantiles: Mapping[str, tuple[float, ...]]
    text_table: Floats
    by_domain: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    text: TextSource | None = None
    _codes: dict[str, dict[str, int]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for column, values in self.vocabulary.items():
            self._codes[column] = {value: code for code, value in enumerate(values, 1)}
        if self.text is not None and len(self.text_table) != self.text.width:
            raise ValueError(
                f"text table of {len(self.text_table)} rows for vectors {self.text.width} wide"
            )

    @classmethod
    def from_schema(cls, schema: Mapping[str, Any], text_table: Floats) -> Self:
        """Build from what ``schema`` returned. Raises ValueError, KeyError, TypeError or AttributeError for others."""
        return cls(
            _strings(schema["text_columns"]),
            {column: _strings(values) for column, values in schema["vocabulary"].items()},
            _knots(schema["quantiles"]),
            text_table,
            {domain: _knots(columns) for domain, columns in schema.get("by_domain", {}).items()},
            {
                column: dict(
                    zip(_strings(list(names)), _strings(list(names.values())), strict=True)
                )
                for column, names in schema.get("aliases", {}).items()
            },
            TextSource.from_json(schema["text"]) if "text" in schema else None,
        )

    def schema(self) -> dict[str, Any]:
        """Return everything but the text table, as JSON can hold it."""
        schema: dict[str, Any] = {
            "text_columns": list(self.text_columns),
            "vocabulary": {column: list(values) for column, values in self.vocabulary.items()},
            "quantiles": {column: list(knots) for column, knots in self.quantiles.items()},
        }
        for name in ("by_domain", "aliases"):
            if mapping := getattr(self, name):
                schema[name] = {key: dict(values) for key, values in mapping.items()}
        if self.text is not None:
            schema["text"] = self.text._asdict()
        return schema

    def within(self, domains: Sequence[str]) -> Self:
        """Keep the knots of these domains alone; those of a single one stand for items of no named domain too."""
        knots_by_domain = {
            domain: knots for domain, knots in self.by_domain.items() if domain in domains
        }
        if len(domains) == 1:
            return replace(
                self,
                quantiles={**self.quantiles, **knots_by_domain.get(domains[0], {})},
                by_domain={},
            )
        return replace(self, by_domain=knots_by_domain)

    def encode(
        self,
        columns: Mapping[str, Sequence[Any]],
        n: int,
        text_vectors: Floats | None = None,
        domains: Sequence[str] | None = None,
    ) -> TowerInputs:
        """Encode n items given as columns; a missing column, None, "" or NaN counts as missing.

        ``text_vectors``, of the encoder that ``text`` names (n, width) or ready as the tower takes them (n, t), stand
        for the words. Raises DataError where there are words, and only the encoder's vectors can stand for them.
        ``domains`` (n,) names each item's home; without, or where that has no knots of its own, all items' knots count.
        """
        text = self.encode_text(columns, n) if text_vectors is None else self.project(text_vectors)
        columns = self._with_canonical_names(columns)
        item_domains = np.array([""] * n if domains is None else domains, object)
        numeric = np.zeros((n, 2 * len(self.quantiles)), np.float32)
        for i, (column, knots) in enumerate(self.quantiles.items()):
            values = np.array(
                [_number(value) for value in columns.get(column, [None] * n)], np.float64
            )
            known = np.isfinite(values)
            numeric[known, 2 * i] = _rank(values[known], knots)
            for domain, domain_knots in self.by_domain.items():
                if column in domain_knots:
                    here = known & (item_domains == domain)
                    numeric[here, 2 * i] = _rank(values[here], domain_knots[column])
            numeric[~known, 2 * i + 1] = 1.0
        categories = np.zeros((n, len(self.vocabulary)), np.int64)
        for i, column in enumerate(self.vocabulary):
            codes = self._codes[column]
            categories[:, i] = [codes.get(str(value), 0) for value in columns.get(column, [""] * n)]
        return TowerInputs(text, numeric, categories)

    def encode_text(self, columns: Mapping[str, Sequence[Any]], n: int) -> Floats:
        """Sum the token vectors of each item's words and scale the sum to length 1 (0 where there are none)."""
        summed = np.zeros((n, self.text_table.shape[1]), np.float32)
        if not summed.size:
            return summed
        texts = self.texts(columns, n)
        if self.text is not None:
            if any(texts):
                name, width = self.text
                raise DataError(
                    f"text_vectors are missing: the model reads texts by {name!r}, so give them as {(n, width)}, made "
                    f"by tlrec_edge.train.text.open_encoder({name!r}).encode of the items' texts (`item_texts`)"
                )
            return summed
        index_of = {text: position for position, text in enumerate(dict.fromkeys(texts))}
        unique_texts = list(index_of)
        summed = np.concatenate(
            [
                self._sum_tokens(unique_texts[i : i + _CHUNK])
                for i in range(0, len(unique_texts), _CHUNK)
            ]
        )
        return _unit(summed[[index_of[text] for text in texts]])

    def texts(self, columns: Mapping[str, Sequence[Any]], n: int) -> list[str]:
        """Join the text and categorical columns of each item: the text it is read by."""
        columns = self._with_canonical_names(columns)
        present = [
            columns[name] for name in (*self.text_columns, *self.vocabulary) if name in columns
        ]
        return [
            " ".join(str(value) for value in row if value) for row in zip(*present, strict=True)
        ] or [""] * n

    def project(self, vectors: Floats) -> Floats:
        """Project the encoder's vectors (n, width) to the text input of the tower, (n, t); without one, keep them."""
        vectors = np.asarray(vectors, np.float32)
        if self.text is None:
            return vectors
        # One product for each row: BLAS chooses by the shape in which order it sums, and so the last bits.
        return _unit(np.matmul(_unit(vectors)[:, None], self.text_table)[:, 0])  # (n, t)

    @property
    def vector_width(self) -> int:
        """How wide ``text_vectors`` are."""
        return int(self.text_table.shape[1]) if self.text is None else self.text.width

    def _with_canonical_names(
        self, columns: Mapping[str, Sequence[Any]]
    ) -> dict[str, Sequence[Any]]:
        return {column: self._canonical(column, values) for column, values in columns.items()}

    def _canonical(self, column: str, values: Sequence[Any]) -> Sequence[Any]:
        names = self.aliases.get(column)
        return [names.get(str(value), value) for value in values] if names else values

    def _sum_tokens(self, texts: Sequence[str]) -> Floats:
        buckets, rows = hash_tokens(texts, len(self.text_table))
        summed = np.zeros((len(texts), self.text_table.shape[1]), np.float32)
        present, start = np.unique(
            rows, return_index=True
        )  # rows rise, so a text's tokens stand together
        if len(present):
            summed[present] = np.add.reduceat(self.text_table[buckets], start, axis=0)
        return summed


def _unit(vectors: Floats) -> Floats:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norm, 1e-12), np.float32)


def _rank(values: NDArray[np.float64], knots: Sequence[float]) -> NDArray[np.float64]:
    return np.interp(values, knots, np.linspace(-1.0, 1.0, len(knots)))


def _strings(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{values!r:.80} is no list of strings")
    return tuple(values)


def _knots(columns: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    found = {}
    for column, values in columns.items():
        knots = np.array(values, np.float64)
        if (
            knots.ndim != 1
            or not len(knots)
            or not np.isfinite(knots).all()
            or (np.diff(knots) < 0).any()
        ):
            raise ValueError(f"{values!r:.80} are no rising numbers")
        found[column] = tuple(knots.tolist())
    return found


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")

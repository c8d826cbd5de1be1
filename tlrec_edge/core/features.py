"""Encode items' raw columns as inputs of the item tower, in training and in serving."""

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
from tlrec_edge.types import Doubles, Floats, Longs

_WORD = re.compile(r"\w+")
_CHUNK = 8192
_CACHED_WORDS, _MAX_CACHED_LENGTH = 50_000, 64
"""Words whose hashes are cached, at most about 40 MB, and their largest length."""


class TowerInputs(NamedTuple):
    """The features of n items."""

    text: Floats
    """One vector per text, (n, t)."""
    numeric: Floats
    """The rank in [-1, 1] and a missing flag (1 or 0) of each numeric column, (n, 2m)."""
    categories: Longs
    """The code of each categorical column, (n, c); 0 is unknown or missing."""


class TextSource(NamedTuple):
    """A pretrained text encoder."""

    encoder: str
    """Name or folder of the encoder."""
    width: int
    """Width of its vectors."""

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Read an encoder from a feature schema.

        Raises ValueError, KeyError, TypeError or AttributeError if the entry is not valid.
        """
        encoder, width = entry["encoder"], entry["width"]
        if not isinstance(encoder, str) or not encoder or not isinstance(width, int) or width < 1:
            raise ValueError(f"{entry!r:.80} is not a text encoder with its width")
        return cls(encoder, width)


def tokens(text: str) -> list[str]:
    """Split a text into lower-case words and their character trigrams (arXiv 1607.04606)."""
    result: list[str] = []
    for word in _WORD.findall(text.lower()):
        result.append(word)
        # Marked at both ends as in fastText, so that a prefix and an infix are different tokens.
        marked = f"<{word}>"
        if len(marked) > 3:
            result.extend(marked[i : i + 3] for i in range(len(marked) - 2))
    return result


def hash_tokens(texts: Sequence[str], buckets: int) -> tuple[Longs, Longs]:
    """Return the bucket of each token in the texts, and the index of its text, both (m,).

    The buckets are hashes: two tokens may share one, and no vocabulary has to be stored.
    """
    # CRC-32 and not `hash`: training and serving must agree, and `hash` differs by process.
    hashes, counts = array("I"), np.zeros(len(texts), np.int64)
    for row, text in enumerate(texts):
        before = len(hashes)
        for word in _WORD.findall(text.lower()):
            is_short = len(word) <= _MAX_CACHED_LENGTH
            hashes.extend(_cached_hash_word(word) if is_short else _hash_word(word))
        counts[row] = len(hashes) - before
    return np.array(hashes, np.int64) % buckets, np.repeat(np.arange(len(texts)), counts)


def _hash_word(word: str) -> array[int]:
    """Return the CRC-32 of each token of a lower-case word."""
    return array("I", [zlib.crc32(token.encode()) for token in tokens(word)])


_cached_hash_word = lru_cache(_CACHED_WORDS)(_hash_word)  # titles repeat words


@dataclass(frozen=True, eq=False)
class FeatureEncoder:
    """A fitted feature schema: how raw columns become inputs of the item tower."""

    text_columns: tuple[str, ...]
    """Columns whose words are read as text; so are the categorical columns."""
    vocabulary: Mapping[str, tuple[str, ...]]
    """Values of each categorical column. Value i has code i + 1; 0 is unknown or missing."""
    quantiles: Mapping[str, tuple[float, ...]]
    """Ascending quantiles of each numeric column, by which its numbers are ranked."""
    text_table: Floats
    """One vector per token bucket, (buckets, t), multiplied by its inverse document frequency.

    If ``text`` is set, it is the projection (width, t) of the encoder's vectors instead.
    """
    by_domain: Mapping[str, Mapping[str, tuple[float, ...]]] = field(default_factory=dict)
    """Quantiles by column and domain, so that a price is low or high within its market."""
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Other names of a categorical column's values, and the name in ``vocabulary``."""
    text: TextSource | None = None
    """The pretrained encoder that turns texts into vectors; None if words are hashed instead."""
    _codes: dict[str, dict[str, int]] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        for column, values in self.vocabulary.items():
            self._codes[column] = {value: code for code, value in enumerate(values, 1)}
        if self.text is not None and len(self.text_table) != self.text.width:
            raise ValueError(
                f"the text table has {len(self.text_table)} rows, "
                f"but the encoder's vectors have width {self.text.width}"
            )

    @classmethod
    def from_schema(cls, schema: Mapping[str, Any], text_table: Floats) -> Self:
        """Build an encoder from the result of ``schema``.

        Raises ValueError, KeyError, TypeError or AttributeError if the schema is not valid.
        """
        by_domain, aliases = schema.get("by_domain", {}), schema.get("aliases", {})
        return cls(
            text_columns=_strings(schema["text_columns"]),
            vocabulary={
                column: _strings(values) for column, values in schema["vocabulary"].items()
            },
            quantiles=_quantiles(schema["quantiles"]),
            text_table=text_table,
            by_domain={domain: _quantiles(columns) for domain, columns in by_domain.items()},
            aliases={column: _aliases(names) for column, names in aliases.items()},
            text=TextSource.from_json(schema["text"]) if "text" in schema else None,
        )

    def schema(self) -> dict[str, Any]:
        """Return everything except the text table, ready for JSON."""
        schema: dict[str, Any] = {
            "text_columns": list(self.text_columns),
            "vocabulary": {column: list(values) for column, values in self.vocabulary.items()},
            "quantiles": {column: list(values) for column, values in self.quantiles.items()},
        }
        for name in ("by_domain", "aliases"):
            if mapping := getattr(self, name):
                schema[name] = {key: dict(values) for key, values in mapping.items()}
        if self.text is not None:
            schema["text"] = self.text._asdict()
        return schema

    def within(self, domains: Sequence[str]) -> Self:
        """Return an encoder for items of these domains, without the quantiles of the others.

        The quantiles of a single domain become the general ones, which rank every item.
        """
        if len(domains) == 1:
            quantiles = {**self.quantiles, **self.by_domain.get(domains[0], {})}
            return replace(self, quantiles=quantiles, by_domain={})
        by_domain = {
            domain: self.by_domain[domain] for domain in self.by_domain if domain in domains
        }
        return replace(self, by_domain=by_domain)

    def encode(
        self,
        columns: Mapping[str, Sequence[Any]],
        n: int,
        text_vectors: Floats | None = None,
        domains: Sequence[str] | None = None,
    ) -> TowerInputs:
        """Return the tower inputs of n items, given their columns.

        A column may be absent; None, "" and NaN are missing values. ``text_vectors`` replace the
        words: vectors (n, width) of the encoder that ``text`` names, or, if it names none, the
        tower's text input (n, t). ``domains`` (n,) are the items' domains; numbers of an item
        without a domain, or of a domain without quantiles, are ranked by the general ones.

        Raises DataError if the items have words, ``text`` names an encoder and ``text_vectors`` is
        None.
        """
        text = self.encode_text(columns, n) if text_vectors is None else self.project(text_vectors)
        columns = self._with_canonical_names(columns)
        item_domains = np.array([""] * n if domains is None else domains, object)
        return TowerInputs(
            text,
            self._encode_numbers(columns, n, item_domains),
            self._encode_categories(columns, n),
        )

    def _encode_numbers(
        self, columns: Mapping[str, Sequence[Any]], n: int, item_domains: NDArray[np.object_]
    ) -> Floats:
        numeric = np.zeros((n, 2 * len(self.quantiles)), np.float32)
        for i, (column, quantiles) in enumerate(self.quantiles.items()):
            numbers = [_number(value) for value in columns.get(column, [None] * n)]
            values = np.array(numbers, np.float64)
            known = np.isfinite(values)
            numeric[known, 2 * i] = _rank(values[known], quantiles)
            for domain, domain_quantiles in self.by_domain.items():
                if column in domain_quantiles:
                    here = known & (item_domains == domain)
                    numeric[here, 2 * i] = _rank(values[here], domain_quantiles[column])
            numeric[~known, 2 * i + 1] = 1.0
        return numeric

    def _encode_categories(self, columns: Mapping[str, Sequence[Any]], n: int) -> Longs:
        categories = np.zeros((n, len(self.vocabulary)), np.int64)
        for i, column in enumerate(self.vocabulary):
            codes = self._codes[column]
            categories[:, i] = [codes.get(str(value), 0) for value in columns.get(column, [""] * n)]
        return categories

    def encode_text(self, columns: Mapping[str, Sequence[Any]], n: int) -> Floats:
        """Return the sum of the token vectors of each item's words, scaled to length 1, (n, t).

        An item without words gets a vector of zeros. Raises DataError if there are words that
        only the encoder named by ``text`` can read.
        """
        summed = np.zeros((n, self.text_table.shape[1]), np.float32)
        if not summed.size:
            return summed
        texts = self.texts(columns, n)
        if self.text is not None:
            if any(texts):
                name, width = self.text
                raise DataError(
                    f"text_vectors are missing: this model reads texts with the encoder {name!r}; "
                    f"pass an array of shape {(n, width)}, the result of tlrec_edge.train.text."
                    f"open_encoder({name!r}).encode(texts), with the texts from `item_texts`"
                )
            return summed
        index_of = {text: position for position, text in enumerate(dict.fromkeys(texts))}
        unique = list(index_of)
        chunks = [self._sum_tokens(unique[i : i + _CHUNK]) for i in range(0, len(unique), _CHUNK)]
        return _unit(np.concatenate(chunks)[[index_of[text] for text in texts]])

    def texts(self, columns: Mapping[str, Sequence[Any]], n: int) -> list[str]:
        """Return the text of each item: its text and categorical columns joined by spaces."""
        columns = self._with_canonical_names(columns)
        names = [name for name in (*self.text_columns, *self.vocabulary) if name in columns]
        rows = zip(*(columns[name] for name in names), strict=True)
        return [" ".join(str(value) for value in row if value) for row in rows] or [""] * n

    def project(self, vectors: Floats) -> Floats:
        """Return the tower's text input (n, t) for vectors (n, width) of the pretrained encoder.

        Without a pretrained encoder the vectors are returned unchanged, in float32.
        """
        vectors = np.asarray(vectors, np.float32)
        if self.text is None:
            return vectors
        # A matrix product per row: BLAS picks its order of summation by the number of rows, and an
        # item must get the same bits alone and in any batch.
        return _unit(np.matmul(_unit(vectors)[:, None], self.text_table)[:, 0])  # (n, t)

    @property
    def vector_width(self) -> int:
        """Width of the ``text_vectors`` that ``encode`` takes."""
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
        # The tokens of a text are consecutive, so its sum is a range of `reduceat`.
        present, start = np.unique(rows, return_index=True)
        if len(present):
            summed[present] = np.add.reduceat(self.text_table[buckets], start, axis=0)
        return summed


def _unit(vectors: Floats) -> Floats:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norm, 1e-12), np.float32)


def _rank(values: Doubles, quantiles: Sequence[float]) -> Doubles:
    return np.interp(values, quantiles, np.linspace(-1.0, 1.0, len(quantiles)))


def _strings(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) for value in values):
        raise ValueError(f"{values!r:.80} is not a list of strings")
    return tuple(values)


def _aliases(names: Mapping[str, str]) -> dict[str, str]:
    return dict(zip(_strings(list(names)), _strings(list(names.values())), strict=True))


def _quantiles(columns: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    result = {}
    for column, values in columns.items():
        quantiles = np.array(values, np.float64)
        valid = quantiles.ndim == 1 and len(quantiles) and np.isfinite(quantiles).all()
        if not valid or (np.diff(quantiles) < 0).any():
            raise ValueError(f"{values!r:.80} is not a list of ascending numbers")
        result[column] = tuple(quantiles.tolist())
    return result


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")

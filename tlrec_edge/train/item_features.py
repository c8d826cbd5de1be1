"""Features of items, and the id vectors that training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tlrec_edge.core.features import FeatureEncoder, TextSource, TowerInputs, hash_tokens
from tlrec_edge.data.dataset import Dataset, Interactions, ItemTable
from tlrec_edge.errors import DataError, ModelError
from tlrec_edge.linear.low_rank import right_singular_vectors, truncated_svd
from tlrec_edge.train.text import HASHED, TextEncoder, open_encoder
from tlrec_edge.types import Bools, Floats, Ints

BUCKETS = 8_192
"""Buckets of hashed tokens."""
TEXT_WIDTH = 64
"""Width of text vectors from hashed words."""
ENCODER_WIDTH = 128
"""Width of text vectors from a pretrained encoder; larger, because its smaller axes still
separate similar titles (see examples/cold_items)."""
N_QUANTILES = 33
"""Knots of a numeric feature."""
MAX_TEXTS = 20_000
"""Texts that the text vectors are fitted to."""
MIN_DOMAIN_ITEMS = 50
"""Items with a value that a domain needs for numeric knots of its own."""
UNUSED_AXIS = 1e-4
"""Singular values below this share of the largest are rounding: their axes are set to 0."""


@lru_cache(maxsize=1)
def fit_features(dataset: Dataset, text: str = HASHED) -> FeatureEncoder:
    """Fit the encoder of item content on all items: vocabularies, quantile knots, text vectors.

    Items of the target are included: their features are known before anybody buys them, and no
    interaction is read. Text vectors come from latent semantic analysis of hashed words, or from
    the encoder that ``text`` names (see ``text.open_encoder``).

    Raises DataError if an encoder is named and the items have no text.
    """
    table = dataset.features
    vocabulary = {
        name: tuple(sorted(set(values) - {""})) for name, values in table.categorical.items()
    }
    everywhere = np.ones(len(table), bool)
    homes = (
        {name: dataset.item_domain == code for code, name in enumerate(dataset.domains)}
        if table.by_domain
        else {}
    )
    by_domain = {name: _quantiles(table, home, MIN_DOMAIN_ITEMS) for name, home in homes.items()}
    columns = (*table.text, *vocabulary)
    raw = raw_columns(dataset)
    rows = zip(*(map(str, raw[name]) for name in columns), strict=True)
    texts = sorted({" ".join(row) for row in rows})
    encoder = None if text == HASHED else open_encoder(text)
    return FeatureEncoder(
        tuple(table.text),
        vocabulary,
        _quantiles(table, everywhere, 1),
        _lsa_table(texts) if encoder is None else _pca_axes(encoder, texts),
        {name: knots for name, knots in by_domain.items() if knots},
        table.aliases,
        None if encoder is None else TextSource(encoder.name, encoder.width),
    )


def _quantiles(table: ItemTable, items: Bools, min_items: int) -> dict[str, tuple[float, ...]]:
    """Return the rising knots of each numeric column that ``min_items`` of the items have."""
    quantiles = {}
    for name, values in table.numeric.items():
        finite = values[items & np.isfinite(values)]
        if len(finite) >= min_items:
            knots = np.quantile(finite.astype(np.float64), np.linspace(0.0, 1.0, N_QUANTILES))
            quantiles[name] = tuple(np.maximum.accumulate(knots).tolist())
    return quantiles


def raw_columns(dataset: Dataset) -> dict[str, Sequence[Any]]:
    """Return all feature columns by name."""
    table = dataset.features
    return {
        **table.text,
        **table.categorical,
        **{name: values.tolist() for name, values in table.numeric.items()},
    }


def encode_features(
    dataset: Dataset, encoder: FeatureEncoder, rows: Ints, text: str = HASHED
) -> TowerInputs:
    """Encode the content of dataset rows for the item tower.

    Raises ModelError if ``text`` names another text encoder than the one that was fitted.
    """
    inputs = _encode_all(dataset, encoder, text)
    return TowerInputs(inputs.text[rows], inputs.numeric[rows], inputs.categories[rows])


@lru_cache(maxsize=1)
def _encode_all(dataset: Dataset, encoder: FeatureEncoder, text: str) -> TowerInputs:
    # Cached, because all folds and modes of a dataset encode the same items.
    homes = [dataset.domains[code] if code >= 0 else "" for code in dataset.item_domain]
    columns, n = raw_columns(dataset), len(dataset.items)
    vectors = _text_vectors(encoder, encoder.texts(columns, n), text)
    return encoder.encode(columns, n, vectors, homes)


def _text_vectors(features: FeatureEncoder, texts: list[str], text: str) -> Floats | None:
    """Return text vectors of a pretrained encoder, (n, width); None: texts are hashed."""
    if text == HASHED and features.text is None:
        return None
    encoder = None if text == HASHED else open_encoder(text)
    requested = None if encoder is None else TextSource(encoder.name, encoder.width)
    if encoder is None or requested != features.text:
        raise ModelError(
            f"the source model encodes texts with {_label(features.text)}, not with "
            f"{_label(requested)}: pass the --text it was trained with, or pretrain it again"
        )
    index = {words: number for number, words in enumerate(dict.fromkeys(texts))}
    return encoder.encode(list(index))[[index[words] for words in texts]]


def _label(source: TextSource | None) -> str:
    return repr(HASHED) if source is None else f"{source.encoder!r} ({source.width} wide)"


def _pca_axes(encoder: TextEncoder, texts: list[str]) -> Floats:
    """Return the principal axes of the texts' unit vectors, (encoder.width, t).

    Raises DataError if no item has a text.
    """
    if not any(texts):
        raise DataError(f"text encoder {encoder.name}: the items have no text; leave it out")
    vectors = encoder.encode(_sample_texts(texts))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    centred = (unit - unit.mean(0)).astype(np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)  # by rising eigenvalue
    return _as_stored(axes[:, ::-1][:, :ENCODER_WIDTH])


def _as_stored(table: NDArray[Any]) -> Floats:
    """Round to half precision, in which bundles store the table."""
    return table.astype(np.float16).astype(np.float32)


def _sample_texts(texts: list[str]) -> list[str]:
    if len(texts) <= MAX_TEXTS:
        return texts
    drawn = np.random.default_rng(0).choice(len(texts), MAX_TEXTS, replace=False)
    return [texts[i] for i in drawn]


def _lsa_table(texts: list[str]) -> Floats:
    """Fit latent semantic analysis on hashed tokens, (BUCKETS, t).

    A row is the direction of the bucket's tokens, weighted by idf. Empty if there are no texts.
    """
    texts = _sample_texts(texts)
    bucket, row = hash_tokens(texts, BUCKETS)
    if not len(bucket):
        return np.zeros((0, 0), np.float32)
    counts = sp.csr_array(
        (np.ones(len(bucket), np.float32), (row, bucket)), shape=(len(texts), BUCKETS)
    )
    frequency = np.bincount(counts.indices, minlength=BUCKETS)
    idf = np.log((1.0 + len(texts)) / (1.0 + frequency)).astype(np.float32)
    weighted = sp.csr_array(counts.multiply(idf[None, :]))
    scale = np.sqrt(np.asarray(weighted.multiply(weighted).sum(1))).clip(1e-6)
    weighted = sp.csr_array(weighted.multiply(1.0 / scale[:, None]))
    width = min(TEXT_WIDTH, min(weighted.shape) - 1)
    if width < 1:
        return np.zeros((0, 0), np.float32)
    _, values, right = truncated_svd(weighted, width)
    right[:, values < UNUSED_AXIS * values[0]] = 0.0
    return _as_stored(np.where(frequency[:, None] > 0, idf[:, None] * right, 0.0))


def cooccurrence_vectors(
    log: Interactions, rows: Ints, items: int, width: int, by_basket: bool
) -> Floats:
    """Return spectral item vectors, (items, width), 0 for items without interactions.

    They are the right singular vectors of the group-by-item matrix, normalized by degree. A group
    is a basket (user and time) or a user. Items that share groups have similar vectors. Training
    that starts here needs a few epochs; from random vectors it needs many.
    """
    matrix = _group_item_matrix(log, rows, items, by_basket)
    by_group, by_item = np.diff(matrix.indptr), np.bincount(matrix.indices, minlength=items)
    # D_group^-1/2 M D_item^-1/2: without it popular items would dominate the leading vectors.
    left = _diagonal(1.0 / np.sqrt(by_group.clip(1)))
    right = _diagonal(1.0 / np.sqrt(by_item.clip(1)))
    normal = sp.csr_array(left @ matrix @ right).astype(np.float32)
    rank = min(width, min(normal.shape) - 1)
    vectors = np.zeros((items, width), np.float32)
    if rank <= 0:
        return vectors
    values, axes = right_singular_vectors(normal, rank)
    scaled = axes * values / np.sqrt(by_item.clip(1))[:, None]
    vectors[:, :rank] = scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-9)
    vectors[by_item == 0] = 0.0
    return vectors


def _group_item_matrix(log: Interactions, rows: Ints, items: int, by_basket: bool) -> sp.csr_array:
    """Return 1 for each distinct item of a group, (groups, items)."""
    item = rows[log.item]
    known = item >= 0
    # A log is sorted by user and time, so a group is a run of rows.
    begins = log.user[1:] != log.user[:-1]
    if by_basket:
        begins |= log.time[1:] != log.time[:-1]
    group = np.append(0, np.cumsum(begins))
    ones = np.ones(int(known.sum()), np.float32)
    shape = group.max() + 1, items
    matrix = sp.csr_array((ones, (group[known], item[known])), shape=shape)
    matrix.data[:] = 1.0  # repeated interactions were added up
    return matrix


def _diagonal(values: NDArray[Any]) -> sp.dia_array:
    return sp.dia_array((values[None, :], 0), shape=(len(values), len(values)))

"""Align the names of categories: several names of one category become one."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tlrec_edge.core.features import hash_tokens
from tlrec_edge.data.dataset import ItemTable
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.roles import suggestion
from tlrec_edge.tabular.schema import AlignRule
from tlrec_edge.types import Bools, Doubles, Indices

N_BUCKETS = 1 << 16
"""Buckets into which the words and trigrams of names are hashed."""
MAX_TEXTS_PER_NAME = 200
ROWS_PER_CHUNK = 1024
MAX_NAMES_SHOWN = 30


class NameMerge(NamedTuple):
    """A name of a categorical column that was replaced.

    Attributes:
        column: the column.
        name: the old name.
        into: the name used instead.
        how: the rule: "pair", "name", "id", or "vector" and the cosine.
        items: how many items had the old name.
    """

    column: str
    name: str
    into: str
    how: str
    items: int


class NameLink(NamedTuple):
    """Two names of one category, and the rule that found them."""

    first: str
    second: str
    how: str


@dataclass(frozen=True)
class CategoryColumn:
    """A categorical column, with what the rules compare.

    Attributes:
        values: name of each item, "" for none.
        domains: the domains in which a name occurs.
        ids: shared id of each item, for mode id.
        texts: the other texts of each item, for mode vector.
    """

    values: Sequence[str]
    domains: Mapping[str, frozenset[int]]
    ids: Sequence[str]
    texts: Sequence[str]

    @property
    def names(self) -> list[str]:
        return sorted(self.domains)

    def domains_of(self, names: set[str]) -> frozenset[int]:
        """Return the domains in which any of the names occurs."""
        return frozenset().union(*(self.domains.get(name, frozenset()) for name in names))


def align_columns(
    table: ItemTable,
    rules: Mapping[str, AlignRule],
    ids: Mapping[str, Sequence[str]],
    item: NDArray[np.integer],
    domain: NDArray[np.integer],
) -> tuple[ItemTable, tuple[NameMerge, ...]]:
    """Replace the names of each category by one, and return what was merged.

    The name that stays is the one that ``pairs`` gives, else the most frequent one. The others
    become aliases of the column, so that items that are added later may use them. ``item`` and
    ``domain`` (n,) list each item with each of its domains; ``ids`` has a shared id per item for
    columns with mode id. Raises DataError if a rule names a column or a name that does not exist.
    """
    categorical, aliases = dict(table.categorical), {}
    merged: list[NameMerge] = []
    for title, rule in rules.items():
        if title not in categorical:
            known = ", ".join(categorical) or "none"
            raise DataError(
                f"[align.{title}]: no such categorical column{suggestion(title, categorical)}; "
                f"known: {known}"
            )
        values = categorical[title]
        domains = _domains_by_name(values, item, domain)
        # Columns that are aligned already count with their new names.
        texts = _other_texts(table.text, categorical, title)
        column = CategoryColumn(values, domains, ids.get(title, ()), texts)
        merges = _merge_names(column, rule, title)
        merged += merges
        new_name = {merge.name: merge.into for merge in merges}
        categorical[title] = tuple(new_name.get(name, name) for name in values)
        if new_name:
            aliases[title] = new_name
    return replace(table, categorical=categorical, aliases=aliases), tuple(merged)


def _domains_by_name(
    values: Sequence[str], item: NDArray[np.integer], domain: NDArray[np.integer]
) -> dict[str, frozenset[int]]:
    domains: dict[str, set[int]] = {name: set() for name in values if name}
    for row, code in zip(item.tolist(), domain.tolist(), strict=True):
        if values[row]:
            domains[values[row]].add(code)
    return {name: frozenset(codes) for name, codes in domains.items()}


def _other_texts(
    text: Mapping[str, Sequence[str]], categorical: Mapping[str, Sequence[str]], title: str
) -> list[str]:
    """Return each item's text and categories, without those of the column itself."""
    others = [*text.values(), *(values for name, values in categorical.items() if name != title)]
    if not others:
        return [""] * len(categorical[title])
    return [" ".join(row) for row in zip(*others, strict=True)]


def normalize_name(name: str) -> str:
    """Return the form that mode ``name`` compares: no case, accents, punctuation or plural s.

    Punctuation becomes a space, so that 3.5 does not become 35. A name without any letter or digit
    stays as it is.
    """
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    letters = (char for char in plain if not ("\u0300" <= char <= "\u036f" or char in "'\u2019"))
    is_word = "LMNS"  # Unicode categories: letters, marks, numbers, symbols
    text = "".join(char if unicodedata.category(char)[0] in is_word else " " for char in letters)
    return " ".join(map(_singular, text.split())) or name


def _singular(word: str) -> str:
    """Remove a plural s: not from a short word, and not from one that ends in ss."""
    return word[:-1] if len(word) > 3 and word[-1] == "s" != word[-2] else word


def _merge_names(column: CategoryColumn, rule: AlignRule, title: str) -> list[NameMerge]:
    """Group linked names by union of sets, and merge each group into one name."""
    for name in rule.pairs:
        if name not in column.domains:
            known = ", ".join(column.names[:MAX_NAMES_SHOWN])
            raise DataError(
                f"[align.{title}] pairs: no {title} {name!r}{suggestion(name, column.names)}; "
                f"known: {known}"
            )
    groups = {name: {name} for name in (*column.names, *rule.pairs.values())}
    how: dict[str, str] = {}
    for link in _links(column, rule):
        first, second = groups[link.first], groups[link.second]
        if first is second:
            continue
        # Two names of one domain are different categories, even if both are linked to a third.
        by_vector = link.how.startswith("vector")
        if by_vector and column.domains_of(first) & column.domains_of(second):
            continue
        first |= second
        groups.update(dict.fromkeys(first, first))
        how.setdefault(link.first, link.how)
        how.setdefault(link.second, link.how)
    count = Counter(name for name in column.values if name)
    preferred = set(rule.pairs.values())
    into = {
        name: max(sorted(group), key=lambda n: (n in preferred, count[n]))
        for name, group in groups.items()
    }
    return [
        NameMerge(title, name, into[name], how[name], count[name])
        for name in column.names
        if into[name] != name
    ]


def _links(column: CategoryColumn, rule: AlignRule) -> Iterator[NameLink]:
    """Yield the links of the pairs, then those that the mode finds."""
    for old, new in rule.pairs.items():
        if old != new:
            yield NameLink(old, new, "pair")
    excluded = {old for old, new in rule.pairs.items() if old == new}
    domains = {name: codes for name, codes in column.domains.items() if name not in excluded}
    yield from _LINKERS[rule.mode](replace(column, domains=domains), rule)


def _no_links(column: CategoryColumn, rule: AlignRule) -> Iterator[NameLink]:
    return iter(())


def _links_by_name(column: CategoryColumn, rule: AlignRule) -> Iterator[NameLink]:
    """Link names of the same normal form."""
    first: dict[str, str] = {}
    for name in column.names:
        key = normalize_name(name)
        if first.setdefault(key, name) != name:
            yield NameLink(first[key], name, "name")


def _links_by_id(column: CategoryColumn, rule: AlignRule) -> Iterator[NameLink]:
    """Link names with the same most frequent id."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in column.names}
    for name, shared_id in zip(column.values, column.ids, strict=True):
        if name in counts and shared_id:
            counts[name][shared_id] += 1
    first: dict[str, str] = {}
    for name, ids in counts.items():
        if ids:
            key = max(sorted(ids), key=ids.__getitem__)
            if first.setdefault(key, name) != name:
                yield NameLink(first[key], name, "id")


def _links_by_vector(column: CategoryColumn, rule: AlignRule) -> Iterator[NameLink]:
    """Link names as mode ``name`` does, then names of two domains that are nearest neighbours.

    The nearest pairs come first, since a link may exclude later ones.
    """
    yield from _links_by_name(column, rule)
    names, vectors = column.names, _vectors(column)
    domains = sorted(column.domains_of(set(names)))
    mutual = []
    for i, left in enumerate(domains):
        for right in domains[i + 1 :]:
            rows = _rows_in_one_domain(column, left, right)
            others = _rows_in_one_domain(column, right, left)
            if not (len(rows) and len(others)):
                continue
            nearest, cosine = _nearest(vectors[rows], vectors[others])
            back, _ = _nearest(vectors[others], vectors[rows])
            is_mutual: Bools = back[nearest] == np.arange(len(rows))
            for r in np.flatnonzero(is_mutual & (cosine >= rule.threshold)):
                mutual.append((-float(cosine[r]), names[rows[r]], names[others[nearest[r]]]))
    for negative_cosine, first, second in sorted(mutual):
        yield NameLink(first, second, f"vector {-negative_cosine:.2f}")


def _rows_in_one_domain(column: CategoryColumn, domain: int, other: int) -> Indices:
    """Return the names that occur in ``domain`` and not in ``other``."""
    domains = (column.domains[name] for name in column.names)
    return np.array(
        [row for row, codes in enumerate(domains) if domain in codes and other not in codes],
        np.intp,
    )


def _vectors(column: CategoryColumn) -> sp.csr_array:
    """Return tf-idf vectors (names, buckets) of length 1.

    The terms of a name are the words and trigrams of the name and of its items' texts.
    """
    texts: dict[str, list[str]] = {name: [name] for name in column.names}
    for name, text in zip(column.values, column.texts, strict=True):
        if name in texts and len(texts[name]) <= MAX_TEXTS_PER_NAME:
            texts[name].append(text)
    bucket, row = hash_tokens([" ".join(parts) for parts in texts.values()], N_BUCKETS)
    matrix = sp.csr_array((np.ones(len(bucket)), (row, bucket)), shape=(len(texts), N_BUCKETS))
    matrix.sum_duplicates()
    frequency = np.bincount(matrix.indices, minlength=N_BUCKETS)
    matrix.data = np.log1p(matrix.data) * np.log1p(len(texts) / frequency[matrix.indices])
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1))).ravel()
    matrix.data /= np.repeat(length, np.diff(matrix.indptr))
    return matrix


def _nearest(rows: sp.csr_array, others: sp.csr_array) -> tuple[Indices, Doubles]:
    """Return the nearest of ``others`` to each row, and the cosine."""
    nearest, cosine = [], []
    for start in range(0, rows.shape[0], ROWS_PER_CHUNK):
        cosines = (rows[start : start + ROWS_PER_CHUNK] @ others.T).toarray()  # (rows, others)
        nearest.append(cosines.argmax(1))
        cosine.append(cosines.max(1))
    return np.concatenate(nearest), np.concatenate(cosine)


_LINKERS = {
    "pairs": _no_links,
    "name": _links_by_name,
    "id": _links_by_id,
    "vector": _links_by_vector,
}

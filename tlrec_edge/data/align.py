"""One category under several names: names of a column that are one, by given pairs, by form, by id or by vector."""

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
from tlrec_edge.data.schema import AlignRule, suggestion
from tlrec_edge.errors import DataError

_BUCKETS = 1 << 16
_MAX_TEXTS = 200
_CHUNK = 1024


class NameMerge(NamedTuple):
    """``name`` of a column is ``into`` from now on; ``items`` had it. ``how``: pair, name, id or vector and cosine."""

    column: str
    name: str
    into: str
    how: str
    items: int


class NameLink(NamedTuple):
    one: str
    other: str
    how: str


@dataclass(frozen=True)
class CategoryColumn:
    """What is known of a column's names: ``values`` of each item, the domains each name is in, the shared ids."""

    values: Sequence[str]
    domains: Mapping[str, frozenset[int]]
    ids: Sequence[str]
    texts: Sequence[str]

    @property
    def names(self) -> list[str]:
        return sorted(self.domains)


def align_columns(
    table: ItemTable,
    rules: Mapping[str, AlignRule],
    ids: Mapping[str, Sequence[str]],
    item: NDArray[np.integer],
    domain: NDArray[np.integer],
) -> tuple[ItemTable, tuple[NameMerge, ...]]:
    """Return the table with one name for what is one, the other names kept as its aliases, and what was merged.

    ``item`` and ``domain`` are pairs that say in which domains an item is; ``ids`` holds the shared ids of columns with
    mode ``id``, one an item. The name of a group is the one a pair leads to, else the one that most items have.
    """
    categorical, aliases, merged = dict(table.categorical), {}, []
    for column, rule in rules.items():
        if column not in categorical:
            known = ", ".join(categorical) or "none"
            raise DataError(
                f"[align.{column}]: no such categorical column{suggestion(column, categorical)}; known: {known}"
            )
        values = categorical[column]
        domains_of: dict[str, set[int]] = {name: set() for name in values if name}
        for place, code in zip(item.tolist(), domain.tolist(), strict=True):
            if values[place]:
                domains_of[values[place]].add(code)
        others = [
            *table.text.values(),
            *(column_values for name, column_values in categorical.items() if name != column),
        ]
        texts = (
            [" ".join(row) for row in zip(*others, strict=True)] if others else [""] * len(values)
        )
        domains = {name: frozenset(codes) for name, codes in domains_of.items()}
        found = _merge_names(
            CategoryColumn(values, domains, ids.get(column, ()), texts), rule, column
        )
        merged += found
        aliases[column] = {one.name: one.into for one in found}
        categorical[column] = tuple(aliases[column].get(name, name) for name in values)
    kept = {column: names for column, names in aliases.items() if names}
    return replace(table, categorical=categorical, aliases=kept), tuple(merged)


def normalize_name(name: str) -> str:
    """Reduce a name to what mode ``name`` compares: no case, accents, punctuation or plural s.

    A point stays a gap, so that 3.5 is not 35; of a name that has no letter or digit nothing is taken.
    """
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", name).casefold())
    plain = "".join(
        char for char in plain if not ("\u0300" <= char <= "\u036f" or char in "'\u2019")
    )
    words = "".join(
        char if unicodedata.category(char)[0] in "LMNS" else " " for char in plain
    ).split()
    return (
        " ".join(
            word[:-1] if len(word) > 3 and word[-1] == "s" != word[-2] else word for word in words
        )
        or name
    )


def _merge_names(column: CategoryColumn, rule: AlignRule, title: str) -> list[NameMerge]:
    for name in rule.pairs:
        if name not in column.domains:
            known = ", ".join(column.names[:30])
            raise DataError(
                f"[align.{title}] pairs: no {title} {name!r}{suggestion(name, column.names)}; known: {known}"
            )
    unmerged = {one for one, other in rule.pairs.items() if one == other}
    groups: dict[str, set[str]] = {name: {name} for name in (*column.names, *rule.pairs.values())}
    how: dict[str, str] = {}
    given = [NameLink(one, other, "pair") for one, other in rule.pairs.items() if one != other]
    mergeable = replace(
        column,
        domains={name: codes for name, codes in column.domains.items() if name not in unmerged},
    )
    for link in (*given, *_LINKERS[rule.mode](mergeable, rule)):
        one, other = groups[link.one], groups[link.other]
        if one is other:
            continue
        if link.how.startswith("vector") and _domains(column, one) & _domains(column, other):
            continue  # nearest by way of a third domain: names of one domain are different things
        one |= other
        groups.update(dict.fromkeys(one, one))
        how.setdefault(link.one, link.how)
        how.setdefault(link.other, link.how)
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


def _domains(column: CategoryColumn, names: set[str]) -> frozenset[int]:
    return frozenset().union(*(column.domains.get(name, frozenset()) for name in names))


def _no_links(column: CategoryColumn, rule: AlignRule) -> Iterator[NameLink]:
    return iter(())


def _links_by_name(column: CategoryColumn, rule: AlignRule) -> Iterator[NameLink]:
    first: dict[str, str] = {}
    for name in column.names:
        if first.setdefault(normalize_name(name), name) != name:
            yield NameLink(first[normalize_name(name)], name, "name")


def _links_by_id(column: CategoryColumn, rule: AlignRule) -> Iterator[NameLink]:
    """Link names whose most frequent id is the same."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in column.names}
    for name, shared in zip(column.values, column.ids, strict=True):
        if name in counts and shared:
            counts[name][shared] += 1
    first: dict[str, str] = {}
    for name, found in counts.items():
        if found:
            shared = max(sorted(found), key=found.__getitem__)
            if first.setdefault(shared, name) != name:
                yield NameLink(first[shared], name, "id")


def _links_by_vector(column: CategoryColumn, rule: AlignRule) -> Iterator[NameLink]:
    """Link names by form, then those of two domains that are each other's nearest, the nearest first."""
    yield from _links_by_name(column, rule)
    names, vectors = column.names, _vectors(column)
    all_domains = sorted(_domains(column, set(names)))
    found = []
    for i, p in enumerate(all_domains):
        for q in all_domains[i + 1 :]:
            here, there = (
                np.array(
                    [
                        r
                        for r, name in enumerate(names)
                        if a in column.domains[name] and b not in column.domains[name]
                    ]
                )
                for a, b in ((p, q), (q, p))
            )
            if not (len(here) and len(there)):
                continue
            to, cosine = _nearest(vectors[here], vectors[there])
            back, _ = _nearest(vectors[there], vectors[here])
            mutual = np.flatnonzero((back[to] == np.arange(len(here))) & (cosine >= rule.threshold))
            found += [(-float(cosine[r]), names[here[r]], names[there[to[r]]]) for r in mutual]
    for negative_cosine, one, other in sorted(found):
        yield NameLink(one, other, f"vector {-negative_cosine:.2f}")


def _vectors(column: CategoryColumn) -> sp.csr_array:
    """Return tf-idf vectors (names, buckets) of length 1 over the words and trigrams of a name and its items' texts."""
    texts: dict[str, list[str]] = {name: [name] for name in column.names}
    for name, text in zip(column.values, column.texts, strict=True):
        if name in texts and len(texts[name]) <= _MAX_TEXTS:
            texts[name].append(text)
    bucket, row = hash_tokens([" ".join(parts) for parts in texts.values()], _BUCKETS)
    matrix = sp.csr_array((np.ones(len(bucket)), (row, bucket)), shape=(len(texts), _BUCKETS))
    matrix.sum_duplicates()
    frequency = np.bincount(matrix.indices, minlength=_BUCKETS)
    matrix.data = np.log1p(matrix.data) * np.log1p(len(texts) / frequency[matrix.indices])
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(1))).ravel()
    matrix.data /= np.repeat(length, np.diff(matrix.indptr))
    return matrix


def _nearest(
    rows: sp.csr_array, others: sp.csr_array
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return the nearest of ``others`` to each row and their cosine."""
    place, cosine = [], []
    for start in range(0, rows.shape[0], _CHUNK):
        found = (rows[start : start + _CHUNK] @ others.T).toarray()  # (rows, others)
        place.append(found.argmax(1))
        cosine.append(found.max(1))
    return np.concatenate(place), np.concatenate(cosine)


_LINKERS = {
    "pairs": _no_links,
    "name": _links_by_name,
    "id": _links_by_id,
    "vector": _links_by_vector,
}

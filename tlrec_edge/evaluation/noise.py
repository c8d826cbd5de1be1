"""A negative control: a source domain of noise, from which nothing can be transferred."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from tlrec_edge.data.dataset import Dataset


def shuffle_domains(dataset: Dataset, domains: tuple[str, ...], seed: int = 0) -> Dataset:
    """Return the dataset with some domains turned into noise and all others unchanged.

    Items are permuted over the interactions of these domains, which keeps users, times and the
    popularity of items, but not who bought what. The features of their items are permuted too.
    Raises DataError if a domain does not exist.
    """
    rng = np.random.default_rng(seed)
    codes, log = dataset.domain_codes(domains), dataset.interactions
    in_domains = np.flatnonzero(np.isin(log.domain, codes))
    item = log.item.copy()
    item[in_domains] = item[rng.permutation(in_domains)]
    domain_items = np.flatnonzero(np.isin(dataset.item_domain, codes))
    permuted = np.arange(len(dataset.items))
    permuted[domain_items] = rng.permutation(domain_items)

    def permute(columns: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        return {name: tuple(values[row] for row in permuted) for name, values in columns.items()}

    table = dataset.features
    features = replace(
        table,
        text=permute(table.text),
        categorical=permute(table.categorical),
        numeric={name: values[permuted] for name, values in table.numeric.items()},
    )
    return replace(dataset, interactions=replace(log, item=item), features=features)

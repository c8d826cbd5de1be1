"""A source that says nothing: what transfer seems to gain from it is chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tlrec_edge.data.dataset import Dataset


def shuffle_domains(dataset: Dataset, domains: tuple[str, ...], seed: int = 0) -> Dataset:
    """Return the dataset with some domains turned into noise, all others untouched.

    Their interactions keep users, times and how often each item is sold, but not who bought what; the features of
    the items at home there are dealt out anew. Raises DataError for a domain that does not exist.
    """
    rng = np.random.default_rng(seed)
    codes, log = dataset.domain_codes(domains), dataset.interactions
    in_domains = np.flatnonzero(np.isin(log.domain, codes))
    item = log.item.copy()
    item[in_domains] = item[rng.permutation(in_domains)]
    home = np.flatnonzero(np.isin(dataset.item_domain, codes))
    permuted = np.arange(len(dataset.items))
    permuted[home] = rng.permutation(home)
    table = dataset.features
    features = replace(
        table,
        text={name: tuple(values[row] for row in permuted) for name, values in table.text.items()},
        categorical={
            name: tuple(values[row] for row in permuted)
            for name, values in table.categorical.items()
        },
        numeric={name: values[permuted] for name, values in table.numeric.items()},
    )
    return replace(dataset, interactions=replace(log, item=item), features=features)

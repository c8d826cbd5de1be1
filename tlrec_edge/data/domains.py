"""The domain of each interaction and of each item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tlrec_edge.data.items import RawItems
from tlrec_edge.tabular.clean import NO_DOMAIN, CleanLog
from tlrec_edge.types import Bools, Ints

SINGLE_DOMAIN = "all"
"""The domain of data without domains."""
CATEGORY_DOMAIN = "categories"
"""Domain of category rows if the log has no domains.

It differs from the items' domain, so that the categories can be a transfer source.
"""


class DomainAssignment(NamedTuple):
    """Domain of each interaction as a code into ``names``, -1 if its domain is dropped."""

    codes: Ints
    names: list[str]

    @property
    def keep(self) -> Bools:
        """Mark the interactions outside the dropped domains."""
        return self.codes >= 0


def home_domains(log: CleanLog, items: RawItems) -> dict[str, str]:
    """Return each item's own domain, from the item table; items without one are left out.

    If neither table has domains, all items belong to one. Categories that replace items belong
    to the domain of their rows, if it is the same for all of them.
    """
    domains: dict[str, str] = {}
    if items.domain is not None:
        names, codes = items.domain.names, items.domain.codes
        pairs = zip(items.ids, codes, strict=True)
        domains.update((item, names[code]) for item, code in pairs if code >= 0)
    elif log.domain is None:
        domains.update(dict.fromkeys(items.ids, SINGLE_DOMAIN))
        sold = np.unique(log.item.codes[~log.is_category])
        domains.update((log.item.names[code], SINGLE_DOMAIN) for code in sold)
    for code in np.unique(log.item.codes[log.is_category]):
        if log.domain is None:
            domains[log.item.names[code]] = CATEGORY_DOMAIN
            continue
        of_rows = np.unique(log.domain.codes[log.item.codes == code])
        if len(of_rows) == 1:
            domains[log.item.names[code]] = log.domain.names[of_rows[0]]
    return domains


def assign_domains(
    log: CleanLog, item_domains: Mapping[str, str], dropped: Sequence[str]
) -> DomainAssignment:
    """Give each interaction its own domain or, if the log has none, that of its item."""
    if log.domain is not None:
        codes, names = log.domain
    else:
        names = sorted({*item_domains.values(), NO_DOMAIN})
        code_of = {name: code for code, name in enumerate(names)}
        of_items = [code_of[item_domains.get(item, NO_DOMAIN)] for item in log.item.names]
        codes = np.array(of_items, np.int64)[log.item.codes]
    used = {names[code] for code in np.unique(codes)} | set(item_domains.values())
    kept = sorted(used - set(dropped))
    new_code = {name: code for code, name in enumerate(kept)}
    recode = np.array([new_code.get(name, -1) for name in names], np.int32)
    return DomainAssignment(recode[codes], kept)

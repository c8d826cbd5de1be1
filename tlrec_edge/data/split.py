"""Kinds of split: how interactions are divided into training, validation and test rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.data.dataset import TEST, TRAIN, VALID, EvalRows, Interactions, Split
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.column import sort_ids
from tlrec_edge.types import Ints, Longs

Roles = NDArray[np.int8]
FOLD_SEED = 7
"""Seed of the users' folds: fixed, since published results use these folds."""


class SplitRequest(NamedTuple):
    """What a kind of split depends on.

    ``test_from`` and ``valid_from`` are seconds since 1970; None for the default quantiles.
    """

    log: Interactions
    users: Sequence[str]
    folds: int
    test_from: int | None
    valid_from: int | None
    seed: int


class SplitResult(NamedTuple):
    role: Roles
    fold: Ints
    settings: dict[str, Any]


def make_split(
    interactions: Interactions,
    users: Sequence[str],
    kind: str,
    *,
    folds: int = 5,
    test_from: int | str | None = None,
    valid_from: int | str | None = None,
    seed: int = 0,
    negatives: int = 99,
    min_buyers: int = 0,
    mask_seen: bool = True,
    refit: bool = True,
    rows: EvalRows | None = None,
    valid_rows: EvalRows | None = None,
) -> Split:
    """Divide interactions by one of the kinds in ``SPLITS`` (see ``SplitPlan`` for the options).

    Raises DataError if the kind is unknown or does not fit the data.
    """
    if kind not in SPLITS:
        raise DataError(f"unknown split {kind!r}; known: {', '.join(SPLITS)}")
    if kind == "given" and rows is None:
        raise DataError(
            "split 'given' needs a file of test rows: --candidates FILE (user, item, negatives)"
        )
    if kind == "new-users" and len(users) < 2:
        raise DataError(
            "split 'new-users' needs at least 2 users and the data has 1; use --split time"
        )
    if kind == "new-users" and not 2 <= folds <= len(users):
        raise DataError(
            f"{folds} folds do not fit {len(users)} users; choose --folds from 2 to {len(users)}"
        )
    request = SplitRequest(
        interactions, users, folds, as_seconds(test_from), as_seconds(valid_from), seed
    )
    role, fold, settings = SPLITS[kind](request)
    if valid_rows is not None:
        role = _roles_of(valid_rows, interactions)
    if min_buyers:
        settings["min_buyers"] = min_buyers
    return Split(kind, role, fold, refit, mask_seen, negatives, seed, settings, rows, valid_rows)


def _roles_of(valid_rows: EvalRows, log: Interactions) -> Roles:
    """Hold out the interactions that are a pair of the user's validation rows; train on others."""
    n_items = 1 + int(max(log.item.max(), valid_rows.item.max(initial=0)))
    pair = log.user.astype(np.int64) * n_items + log.item
    held_out = np.zeros(len(log), bool)
    domains = [-1] if valid_rows.domain is None else np.unique(valid_rows.domain).tolist()
    for domain in domains:
        rows = valid_rows
        if valid_rows.domain is not None:
            rows = valid_rows.select(valid_rows.domain == domain)
        is_named = np.isin(pair, rows.user.astype(np.int64) * n_items + rows.item)
        held_out |= is_named & ((log.domain == domain) | (domain < 0))
    return np.where(held_out, VALID, TRAIN).astype(np.int8)


def as_seconds(date: int | str | None) -> int | None:
    """Return a date as seconds since 1970; without a time zone it is UTC.

    Raises DataError if it is not a date.
    """
    if date is None or isinstance(date, int):
        return date
    try:
        parsed = datetime.fromisoformat(date)
    except ValueError as error:
        raise DataError(
            f"cannot read date {date!r}; expected YYYY-MM-DD or YYYY-MM-DD HH:MM:SS"
        ) from error
    return int((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp())


def _leave_one_out(request: SplitRequest) -> SplitResult:
    """Hold out the last interaction of each (user, domain) as test, the one before as validation.

    Pairs with fewer than 3 interactions stay in training. Without times a random *item* is held out
    with all its rows: otherwise a click in training would give away a purchase in the test.
    """
    log = request.log
    if log.time.any():
        unit = np.arange(len(log))
    else:
        pair = log.user.astype(np.int64) * (int(log.item.max()) + 1) + log.item
        codes = np.unique(pair, return_inverse=True)[1]
        unit = np.random.default_rng(request.seed).permutation(int(codes.max()) + 1)[codes]
    from_end, units = _rank_from_end(log, unit)
    role = np.where(
        units >= 3, np.select([from_end == 0, from_end == 1], [TEST, VALID], TRAIN), TRAIN
    )
    return _without_folds(role, request)


def _last_basket(request: SplitRequest) -> SplitResult:
    """Hold out the last basket (rows of one time) of each (user, domain), and the one before.

    The last is the test if there are 2 baskets or more, the one before is the validation if there
    are 3 or more.
    """
    _require_times(request, "last-basket")
    from_end, baskets = _rank_from_end(request.log, request.log.time)
    role = np.select(
        [(from_end == 0) & (baskets >= 2), (from_end == 1) & (baskets >= 3)], [TEST, VALID], TRAIN
    )
    return _without_folds(role, request)


def _time_split(request: SplitRequest) -> SplitResult:
    _require_times(request, "time")
    time = request.log.time
    test_from = request.test_from if request.test_from is not None else int(np.quantile(time, 0.9))
    before = time[time < test_from]
    # A quantile of the rows before the test, so that a given test date still leaves validation
    # rows. By default 80 % of all rows are for training and 10 % for validation.
    default = int(np.quantile(before, 8 / 9)) if len(before) else test_from
    valid_from = request.valid_from if request.valid_from is not None else default
    if valid_from > test_from:
        raise DataError(
            f"valid_from ({_day(valid_from)}) is after test_from ({_day(test_from)}); swap them"
        )
    role = np.select([time >= test_from, time >= valid_from], [TEST, VALID], TRAIN)
    if not (role == TRAIN).any() or not (role == TEST).any():
        raise DataError(
            f"test_from {_day(test_from)} leaves no training or no test rows; choose a date "
            f"within the data, which run from {_day(int(time.min()))} to {_day(int(time.max()))}"
        )
    return _without_folds(role, request, test_from=test_from, valid_from=valid_from)


def _new_users(request: SplitRequest) -> SplitResult:
    """Split by time, and draw the folds of users who are treated as new to the target."""
    role, fold, settings = _time_split(request)
    drawn = np.random.default_rng(FOLD_SEED).integers(0, request.folds, len(request.users))
    fold[sort_ids(request.users)] = drawn
    return SplitResult(role, fold, {**settings, "folds": request.folds})


def _given(request: SplitRequest) -> SplitResult:
    """Validate on the last basket of each (user, domain) that has 2 or more; train on the rest."""
    if not request.log.time.any():
        role, fold, settings = _leave_one_out(request)
        return SplitResult(np.where(role == TEST, VALID, TRAIN).astype(np.int8), fold, settings)
    from_end, baskets = _rank_from_end(request.log, request.log.time)
    return _without_folds(np.where((from_end == 0) & (baskets >= 2), VALID, TRAIN), request)


def _rank_from_end(log: Interactions, unit: NDArray[Any]) -> tuple[Longs, Longs]:
    """Rank the distinct units of each (user, domain), 0 = the last, and count them.

    ``unit`` (rows,) is what is held out together: a row, a basket or an item. Both results have one
    entry per row.
    """
    group = log.user.astype(np.int64) * (int(log.domain.max()) + 1) + log.domain
    order = np.lexsort((unit, group))
    new_group = np.append(True, np.diff(group[order]) != 0)
    new_unit = new_group | np.append(True, np.diff(unit[order]) != 0)
    serial = np.cumsum(new_unit)
    member = np.cumsum(new_group) - 1
    last = np.append(np.flatnonzero(new_group)[1:], len(group)) - 1
    from_end, size = np.empty(len(group), np.int64), np.empty(len(group), np.int64)
    from_end[order] = serial[last][member] - serial
    size[order] = (serial[last] - serial[np.flatnonzero(new_group)] + 1)[member]
    return from_end, size


def _without_folds(role: NDArray[Any], request: SplitRequest, **settings: Any) -> SplitResult:
    return SplitResult(role.astype(np.int8), np.full(len(request.users), -1, np.int32), settings)


def _require_times(request: SplitRequest, kind: str) -> None:
    if not request.log.time.any():
        raise DataError(
            f"split {kind!r} needs times and the data has none; use --split leave-one-out"
        )


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


SPLITS: dict[str, Callable[[SplitRequest], SplitResult]] = {
    "leave-one-out": _leave_one_out,
    "last-basket": _last_basket,
    "time": _time_split,
    "new-users": _new_users,
    "given": _given,
}

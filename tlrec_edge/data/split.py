"""Ways to divide interactions into training, validation and test rows; every later stage obeys what is stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.data.dataset import TEST, TRAIN, VALID, EvalRows, Interactions, Split
from tlrec_edge.data.parse import sort_ids
from tlrec_edge.errors import DataError

Roles = NDArray[np.int8]
FOLD_SEED = 7


class SplitRequest(NamedTuple):
    """What a kind of split may look at; times in seconds since 1970, None for the default quantiles."""

    log: Interactions
    users: Sequence[str]
    folds: int
    test_from: int | None
    valid_from: int | None
    seed: int


class SplitResult(NamedTuple):
    role: Roles
    fold: NDArray[np.int32]
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
) -> Split:
    """Divide interactions by a kind of ``SPLITS``. Dates are "YYYY-MM-DD[ HH:MM:SS]" in UTC, or seconds since 1970.

    ``min_buyers`` is stored for the tasks: how many users must have bought a candidate before the test. The others are
    stored as they are (see ``Split``).
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
        raise DataError(f"{folds} folds do not fit {len(users)} users; choose 2 to {len(users)}")
    request = SplitRequest(
        interactions, users, folds, as_seconds(test_from), as_seconds(valid_from), seed
    )
    role, fold, settings = SPLITS[kind](request)
    if min_buyers:
        settings["min_buyers"] = min_buyers
    return Split(kind, role, fold, refit, mask_seen, negatives, seed, settings, rows)


def as_seconds(date: int | str | None) -> int | None:
    """Read a date as seconds since 1970, UTC where it names no zone."""
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
    """Last interaction of each (user, domain) = test, the one before = validation, where there are 3 or more.

    Without time a random *item* is held out with all its rows, so that a click does not give a purchase away.
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
    """Rows of the last timestamp of each (user, domain) = test (of 2 or more), of the one before = validation (3)."""
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
    # Of the time before the test, so that a date for the test alone keeps its validation rows: 80 % by default.
    default = int(np.quantile(before, 8 / 9)) if len(before) else test_from
    valid_from = request.valid_from if request.valid_from is not None else default
    if valid_from > test_from:
        raise DataError(
            f"valid_from ({_day(valid_from)}) is after test_from ({_day(test_from)}); swap them"
        )
    role = np.select([time >= test_from, time >= valid_from], [TEST, VALID], TRAIN)
    if not (role == TRAIN).any() or not (role == TEST).any():
        raise DataError(
            f"test_from {_day(test_from)} leaves no training or no test rows: "
            f"the data run from {_day(int(time.min()))} to {_day(int(time.max()))}"
        )
    return _without_folds(role, request, test_from=test_from, valid_from=valid_from)


def _new_users(request: SplitRequest) -> SplitResult:
    """Roles by time; beside them each user gets a fold, whose users are later treated as new to the target domain."""
    role, fold, settings = _time_split(request)
    drawn = np.random.default_rng(FOLD_SEED).integers(0, request.folds, len(request.users))
    fold[sort_ids(request.users)] = drawn
    return SplitResult(role, fold, {**settings, "folds": request.folds})


def _given(request: SplitRequest) -> SplitResult:
    """All rows train, but each (user, domain)'s last basket, which validates where there are 2 or more."""
    if not request.log.time.any():
        role, fold, settings = _leave_one_out(request)
        return SplitResult(np.where(role == TEST, VALID, TRAIN).astype(np.int8), fold, settings)
    from_end, baskets = _rank_from_end(request.log, request.log.time)
    return _without_folds(np.where((from_end == 0) & (baskets >= 2), VALID, TRAIN), request)


def _rank_from_end(
    log: Interactions, unit: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rank the distinct units of each (user, domain) from the last (0) on; also return how many it has, per row."""
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

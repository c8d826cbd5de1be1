"""The Recommender: opens a bundle and answers, with numpy and onnxruntime alone."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Hashable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from tlrec_edge.bundle.format import ITEM_TOWER
from tlrec_edge.bundle.id_index import IdIndex
from tlrec_edge.bundle.ids import ItemId, as_text, preview, user_key_hash
from tlrec_edge.bundle.item_rows import ItemRows, as_list
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.cpu_count import cores_within_quota
from tlrec_edge.core.fork import register_after_fork
from tlrec_edge.core.topk import top_k
from tlrec_edge.errors import BundleError, DataError, UnknownIdError
from tlrec_edge.runtime.arguments import (
    USER_ID_TYPES,
    User,
    check_features,
    check_k,
    is_integer,
    translated,
    user_key,
    warn_renamed,
)
from tlrec_edge.runtime.candidates import Catalogue
from tlrec_edge.runtime.cold_items import ColdItems, Features
from tlrec_edge.runtime.filters import (
    Exclude,
    Items,
    allowed_positions,
    excluded_positions,
    is_mask,
)
from tlrec_edge.runtime.history import as_history
from tlrec_edge.runtime.state_cache import Counters, StateCache, process_memory
from tlrec_edge.runtime.user_encoder import StateBuilder
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Floats, Indices

UNKNOWN_POLICIES = ("popularity", "error", "nan")


class Recommendations(NamedTuple):
    """The best items, best first."""

    items: tuple[str, ...]
    scores: Floats
    names: tuple[str, ...]


class Recommender:
    """Scores and ranks a bundle's candidates; safe from many threads and after a fork. Use ``Recommender.open``."""

    def __init__(
        self, bundle: Bundle, threads: int, unknown: str, deterministic: bool, cache: int
    ) -> None:
        if unknown not in UNKNOWN_POLICIES:
            raise ValueError(
                f"unknown = {unknown!r}, expected one of {', '.join(UNKNOWN_POLICIES)}"
            )
        if not (is_integer(threads) and threads >= 1 and is_integer(cache) and cache >= 0):
            raise ValueError(
                f"threads = {threads!r}, cache = {cache!r}: expected whole numbers of at least 1 and at least 0"
            )
        threads = min(threads, cores_within_quota())  # more would wait for one another
        self._bundle, self._unknown, self._threads = bundle, unknown, threads
        self._widths = bundle.shape.d, bundle.shape.r
        self._builder = StateBuilder(bundle, threads, deterministic)
        self._catalogue = Catalogue(bundle, bundle.index("item_ids"), threads)
        self._users: IdIndex | None = bundle.index("users") if bundle.has("user_rows.npy") else None
        self._cold: ColdItems | None = None
        self._cache = StateCache(cache, bundle.shape.max_history)
        self._counters = Counters()
        self._adding = threading.Lock()
        register_after_fork(self)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        verify: str = "size",
        threads: int = 1,
        unknown: str = "popularity",
        deterministic: bool = True,
        cache: int = 1024,
        exact: bool | None = None,
        speed: bool | None = None,
    ) -> Self:
        """Open a bundle folder.

        ``verify``: "none", "size" or "full" (every hash, every value, every graph). ``threads`` of the graphs: no more
        than the cores, or the container's CPU quota, are used. ``unknown``: how a candidate or
        user id that is not in the bundle is scored: "popularity", "nan", or "error" for UnknownIdError. ``deterministic=False``
        keeps user vectors unrounded: equal to the trained model within 1e-4, but without bit-equal scores, which
        float32 tables never have (see ``Recommender.deterministic``). ``cache``: how many user states are kept, the most
        recently used ones. ``exact`` is the old name of
        ``deterministic``; ``speed`` is deprecated and has no effect. Raises BundleError.
        """
        if exact is not None:
            warn_renamed("exact=", "deterministic=")
            deterministic = exact
        if speed is not None:
            warnings.warn(
                f"speed={speed} has no effect: the faiss index was removed in 0.2; drop the argument",
                DeprecationWarning,
                stacklevel=2,
            )
        rec = cls(Bundle.open(path, verify), threads, unknown, deterministic, cache)
        if verify == "full":
            rec._check_graphs()
        return rec

    def close(self) -> None:
        """Drop the cache and the maps; a later call raises BundleError."""
        for name in ("_catalogue", "_builder", "_cold", "_users"):
            setattr(self, name, None)
        self._cache.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Return the number of candidates, added items included."""
        return len(self._open())

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self._bundle.manifest

    @property
    def deterministic(self) -> bool:
        """Whether a pair's score has the same bits in every call: asked for in ``open``, and no float32 item vectors."""
        self._open()
        return self._builder.deterministic

    @property
    def exact(self) -> bool:
        """Deprecated name of ``deterministic``."""
        warn_renamed("Recommender.exact", "Recommender.deterministic")
        return self.deterministic

    @translated
    def has_user(self, user: str | int) -> bool:
        """Say whether the bundle stores a state for this user id."""
        return self._user_row(user) >= 0

    @translated
    def user_state(self, user: User) -> UserState:
        """Return the user's state, from the cache where the same history was seen before."""
        return self._state(self._open(), user)

    @translated
    def rows(self, items: Items) -> ItemRows:
        """Return the rows of item ids, for callers who score the same items again: taken wherever ids are."""
        return ItemRows(self._open().rows(as_list(items, "items")))

    @translated
    def score(self, user: User, candidates: Items) -> Floats:
        """Score candidates for one user, (n,). Unknown candidates go by the ``unknown`` policy."""
        catalogue = self._open()
        positions, known = self._positions(catalogue, candidates)
        return self._score(catalogue, self._state(catalogue, user), positions, known)

    @translated
    def score_pairs(self, users: Sequence[User], items: Items) -> Floats:
        """Score user ``users[i]`` with item ``items[i]``, (n,); every distinct user is encoded once."""
        users, items = (
            list(as_list(users, "users", "users, one for each item")),
            as_list(items, "items"),
        )
        if len(users) != len(items):
            raise DataError(
                f"{len(users)} users and {len(items)} items; give one item for each user"
            )
        catalogue = self._open()
        positions, known = self._positions(catalogue, items, "items")
        groups: dict[Hashable, list[int]] = {}
        for at, user in enumerate(users):
            try:
                groups.setdefault(user_key(user), []).append(at)
            except TypeError:
                raise DataError(
                    f"users[{at}]: expected a history, a list of item ids, a state or a user id, got {preview(user)}"
                ) from None
        out = np.empty(len(items), np.float32)
        for members in groups.values():
            selected = np.array(members)
            out[selected] = self._score_user(
                catalogue, users[members[0]], positions[selected], known
            )
        return out

    @translated
    def recommend(
        self,
        user: User,
        k: int = 10,
        *,
        exclude: Exclude = "history",
        allow: Items | None = None,
        exhaustive: bool = False,
        exact: bool | None = None,
    ) -> Recommendations:
        """Return the k best candidates; fewer where fewer are left. Of equal scores found, the lower row comes first.

        ``exclude``: item ids, or "history" for the user's own items (a state stored in the bundle has none). ``allow``:
        item ids, or a mask over the candidates, such as ``category`` gives. Of more than 200,000 candidates the
        likeliest lists are searched, and what item-item weights lift; the manifest's ``index`` states the recall.
        ``exhaustive`` looks at all, as is done for a user of whom nothing is known; ``exact`` is its old name.
        """
        if exact is not None:
            warn_renamed("exact=", "exhaustive=")
            exhaustive = exact
        k = check_k(k)
        catalogue = self._open()
        state = self._state(catalogue, user)
        excluded = excluded_positions(catalogue, state, exclude)
        if allow is None:
            return _recommendations(catalogue, *catalogue.best(state, k, excluded, exhaustive))
        positions = np.setdiff1d(allowed_positions(catalogue, allow), excluded)
        scores = catalogue.score(state, positions)
        best = top_k(scores, k)
        return _recommendations(catalogue, positions[best], scores[best])

    @translated
    def recommend_many(
        self,
        users: Sequence[User],
        k: int = 10,
        *,
        exclude: Exclude = "history",
        allow: Items | None = None,
        exhaustive: bool = False,
        exact: bool | None = None,
    ) -> list[Recommendations]:
        """Return the k best candidates for each user, as ``recommend`` does; other ids are looked up once."""
        if exact is not None:
            warn_renamed("exact=", "exhaustive=")
            exhaustive = exact
        k, catalogue = check_k(k), self._open()
        if isinstance(users, ItemRows):
            raise DataError(
                "users: rows are items; give a list with the rows of each user's history"
            )
        requested = as_list(users, "users", "users")
        if allow is not None and not is_mask(allow):
            allow = self.rows(allow)
        elif allow is not None:
            allowed_positions(catalogue, allow)
        if exclude is not None and not isinstance(exclude, str):
            exclude = ItemRows(catalogue.rows(as_list(exclude, "exclude")))
        return [
            self.recommend(user, k, exclude=exclude, allow=allow, exhaustive=exhaustive)
            for user in requested
        ]

    @translated
    def category(self, name: str) -> NDArray[np.bool_]:
        """Return a mask over the bundle's candidates, for ``allow``: those of a category. Raises UnknownIdError."""
        return self._open().category(name)

    @translated
    def similar(self, item: ItemId, k: int = 10) -> Recommendations:
        """Return the candidates whose vectors are nearest by cosine. Raises UnknownIdError.

        Unless the history-side vectors are float32, a cosine has the same bits in every call and both ways.
        """
        k = check_k(k)
        catalogue = self._open()
        row = catalogue.rows([item])
        if row[0] < 0:
            raise UnknownIdError(
                f"item {as_text(item)!r:.80} is not in the bundle; `add_items` takes new ones"
            )
        scores = catalogue.cosine(int(row[0]))
        position = catalogue.positions(row)
        scores[position[position >= 0]] = -np.inf
        best = top_k(scores, k)
        return _recommendations(catalogue, best, scores[best])

    @translated
    def add_items(self, features: Features, text_vectors: Floats | None = None) -> None:
        """Add items nobody has bought yet: from now on they are candidates and may stand in histories.

        ``features``: a mapping of columns for each new id. ``text_vectors`` (n, t) takes the place of the hashed words;
        a model that reads texts by a pretrained encoder needs that encoder's vectors of ``item_texts``. All items
        appear at once. An item with text scores as the candidates with the nearest texts do, where the bundle holds
        those, else by the item tower, which always makes its place in histories. Raises DataError for an id that
        exists, a value that is no number where the model reads one, or vectors that are missing; BundleError where
        there is no item tower.
        """
        check_features(features)
        with self._adding:
            catalogue = self._open()
            cold = self._cold_items()
            ids = list(features)
            if len({as_text(item) for item in ids}) != len(ids) or "" in ids:
                raise DataError("the ids to add must be unique and not empty")
            known = np.flatnonzero(catalogue.rows(ids) >= 0)
            if len(known):
                raise DataError(
                    f"item {as_text(ids[known[0]])!r:.80} is already in the bundle; leave it out"
                )
            if ids:
                self._catalogue = catalogue.with_added(
                    cold.extend(catalogue.added, features, text_vectors)
                )

    @translated
    def item_texts(self, features: Features) -> list[str]:
        """Return the texts of new items as the model reads them: what a text encoder is to be given."""
        check_features(features)
        with self._adding:
            self._open()
            return self._cold_items().texts(features)

    def stats(self) -> dict[str, int]:
        """Return counts since the start, and this process's memory in bytes where the system tells it."""
        added = len(self._open().added.rows)
        return (
            self._counters.read()
            | {"cached_states": len(self._cache), "added_items": added}
            | process_memory()
        )

    def memory(self) -> dict[str, int]:
        """Return bytes: ``mapped`` are the bundle's tables, which all processes on the machine share and the system may
        drop; the others are this recommender's own: ``states`` cached, ``ids`` looked up of late, ``items`` added, and
        ``prefix_bound`` packed with a thread's products, once a catalogue was searched as a whole. ``ivf`` is always 0,
        as it is mapped. ``heads`` and ``lists`` are the old names of these two. The process's ``private_bytes`` and ``shared_bytes`` are added if the system reports them.
        """
        catalogue = self._open()
        bound = catalogue.prefix_bound
        prefix_bound = 0 if bound is None else bound.scan.nbytes
        return {
            "mapped": self._bundle.nbytes,
            "states": self._cache.nbytes,
            "ids": catalogue.hot_bytes,
            "items": catalogue.added.nbytes,
            "prefix_bound": prefix_bound,
            "ivf": 0,
            "heads": prefix_bound,  # the keys of 0.1, for one release
            "lists": 0,
        } | process_memory()

    def _open(self) -> Catalogue:
        catalogue: Catalogue | None = self._catalogue
        if catalogue is None:
            raise BundleError(f"the recommender of {self._bundle.path} is closed; open it again")
        return catalogue

    def _cold_items(self) -> ColdItems:
        if self._cold is None:
            self._cold = ColdItems(self._bundle, self._threads)
        return self._cold

    def _check_graphs(self) -> None:
        self._builder.check()
        if self._catalogue.prefix_bound is not None:
            self._catalogue.prefix_bound.scan.check()
        if self._bundle.has(ITEM_TOWER):
            self._cold_items().check()

    def _state(self, catalogue: Catalogue, user: User) -> UserState:
        if isinstance(user, UserState):
            if (len(user.deep), len(user.interest)) != self._widths:
                raise DataError(
                    "user: the state is of another bundle; make it by this one's `user_state`"
                )
            return user
        if isinstance(user, USER_ID_TYPES):
            return self._stored_state(user)
        history = as_history(user)
        version = len(catalogue)
        if (cached := self._cache.get(history, version)) is not None:
            self._counters.add(cache_hits=1)
            return cached
        state, unknown = self._builder.from_history(catalogue, history)
        if unknown or state.clipped or not len(state.seen):
            self._counters.add(
                unknown_items=unknown,
                fallbacks=int(not len(state.seen)),
                clipped_users=int(state.clipped),
            )
        self._counters.add(cache_misses=1)
        self._cache.put(history, version, state)
        return state

    def _positions(
        self, catalogue: Catalogue, candidates: Items, name: str = "candidates"
    ) -> tuple[Indices, bool]:
        """Return candidate positions, -1 for what is none, and whether all are candidates."""
        candidates = as_list(candidates, name)
        rows = catalogue.rows(candidates)
        positions = catalogue.positions(rows)
        if positions is rows and type(candidates) is ItemRows:
            known = candidates.all_known
        else:
            known = not len(positions) or bool(positions.min() >= 0)
        if not known:
            unknown = np.flatnonzero(positions < 0)
            if self._unknown == "error":
                name = as_text(candidates[int(unknown[0])])
                raise UnknownIdError(
                    f"item {name!r:.80} is no candidate of the bundle; leave it out or change `unknown`"
                )
            self._counters.add(unknown_candidates=len(unknown))
        return positions, known

    def _score(
        self, catalogue: Catalogue, state: UserState, positions: Indices, known: bool
    ) -> Floats:
        if known:
            return catalogue.score(state, positions)
        found = positions >= 0
        out = np.full(len(positions), self._unknown_score(), np.float32)
        out[found] = catalogue.score(state, positions[found])
        return out

    def _score_user(
        self, catalogue: Catalogue, user: User, positions: Indices, known: bool
    ) -> Floats:
        if self._unknown == "nan" and isinstance(user, USER_ID_TYPES) and not self.has_user(user):
            self._counters.add(unknown_users=1)
            return np.full(len(positions), np.nan, np.float32)
        return self._score(catalogue, self._state(catalogue, user), positions, known)

    def _unknown_score(self) -> float:
        return math.nan if self._unknown == "nan" else self._bundle.scoring.unknown_score

    def _user_row(self, user: str | int) -> int:
        self._open()
        if self._users is None:
            return -1
        text = as_text(user)
        if self.manifest["user_ids"] == "hashed":
            text = user_key_hash(text, self.manifest["user_key"])
        return self._users.row(text)

    def _stored_state(self, user: str | int) -> UserState:
        row = self._user_row(user)
        if row >= 0:
            return self._builder.from_user_row(row)
        if self._unknown == "error":
            why = (
                "is not in the bundle's user table"
                if self._users
                else "is not known: the bundle stores no users"
            )
            raise UnknownIdError(
                f"user {as_text(user)!r:.80} {why}; pass the user's history instead"
            )
        self._counters.add(unknown_users=1, fallbacks=1)
        return self._builder.popularity()

    def after_fork(self) -> None:
        """Make locks and sessions anew."""
        # A lock that another thread of the parent held would stay locked for ever.
        self._adding = threading.Lock()
        self._cache.after_fork()
        self._counters.after_fork()
        if self._builder is not None:
            self._builder.encoder.reload()
        if self._cold is not None:
            self._cold.tower.reload()
        if self._catalogue is not None and self._catalogue.prefix_bound is not None:
            self._catalogue.prefix_bound.scan.reload()


def _recommendations(catalogue: Catalogue, positions: Indices, scores: Floats) -> Recommendations:
    return Recommendations(
        tuple(catalogue.item_ids(positions)), scores, tuple(catalogue.names(positions))
    )

"""The Recommender: opens a bundle and answers requests, with numpy and onnxruntime alone."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from tlrec_edge.bundle.format import ITEM_TOWER, REMEDY, SCHEMA
from tlrec_edge.bundle.ids import ItemId, as_text, preview
from tlrec_edge.bundle.item_rows import ItemRows, as_list
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.counts import counted
from tlrec_edge.core.cpu_count import cores_within_quota
from tlrec_edge.core.fork import register_after_fork
from tlrec_edge.core.strict_json import parse_json
from tlrec_edge.core.topk import top_k
from tlrec_edge.errors import ArgumentError, BundleError, DataError, UnknownIdError
from tlrec_edge.runtime.arguments import (
    USER_ID_TYPES,
    User,
    check_features,
    check_k,
    check_options,
    check_user_key,
    equality_key,
    warn_renamed,
)
from tlrec_edge.runtime.catalogue import Catalogue
from tlrec_edge.runtime.cold_items import ColdItems, Features
from tlrec_edge.runtime.filters import (
    Exclude,
    Items,
    allowed_positions,
    check_mask,
    excluded_positions,
    is_mask,
)
from tlrec_edge.runtime.parts import Parts
from tlrec_edge.runtime.state_cache import Counters, process_memory
from tlrec_edge.search.check_tables import check_inverted_file, check_prefix_bound
from tlrec_edge.search.user_state import UserState
from tlrec_edge.types import Bools, Floats, Indices


class Recommendations(NamedTuple):
    """The best items of a request, best first.

    Example:
        >>> Recommender.open("bundle").recommend(["item-1", "item-2"], k=2).names
        ('Name of 42', 'Name of item-15')
    """

    items: tuple[str, ...]
    """Item ids."""
    scores: Floats
    """Their scores, (n,)."""
    names: tuple[str, ...]
    """Their display names; the ids if the bundle has no names."""


class Recommender:
    """Scores and ranks a bundle's candidates; open one with ``Recommender.open``.

    Safe to use from many threads and in forked child processes. As a context manager it closes
    itself at the end.

    Example:
        >>> with Recommender.open("bundle") as rec:
        ...     rec.recommend(["item-1", "item-2"], k=2).items
        ('42', 'item-15')
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        threads: int,
        unknown: str,
        deterministic: bool,
        cache: int,
        user_key: str | None = None,
    ) -> None:
        check_options(threads, unknown, cache)
        check_user_key(user_key)
        self._options: dict[str, Any] = {
            "threads": threads,
            "unknown": unknown,
            "deterministic": deterministic,
            "cache": cache,
            "user_key": user_key,
        }
        threads = min(threads, cores_within_quota())  # more would wait for each other
        self._path, self._manifest = bundle.path, bundle.manifest
        self._absolute_path = os.path.abspath(bundle.path)
        self._unknown, self._threads = unknown, threads
        self._unknown_score = math.nan if unknown == "nan" else bundle.scoring.unknown_score
        self._counters = Counters()
        self._parts: Parts | None = Parts.open(
            bundle,
            self._counters,
            threads=threads,
            unknown=unknown,
            deterministic=deterministic,
            cache=cache,
            user_key=user_key,
        )
        self._changing = threading.Lock()
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
        expect: str | None = None,
        user_key: str | None = None,
        exact: bool | None = None,
        speed: bool | None = None,
    ) -> Self:
        """Open a bundle folder: one whole version of it, even if it is replaced at the same time.

        The recommender stays as it is if the folder is replaced or removed later. It can be pickled
        and copied: the copy opens the same bundle with the same options.

        Args:
            path: A folder that ``tlrec-edge export`` wrote.
            verify: How much to check: "none", "size" (of every file) or "full" (all hashes, all
                values, all graphs and the search indexes). Shapes and types are always checked.
            threads: Threads that run the graphs, limited to the cores and the container's CPU
                quota. One is best for a server with a process or a thread per core.
            unknown: How to score a candidate or user id that is not in the bundle: "popularity",
                "nan", or "error" to raise UnknownIdError.
            deterministic: Round user vectors to integers, so that a score has the same bits in
                every batch. False is closer to the trained model (within 1e-4).
            cache: Number of recently used user states to keep, in at most 64 MB.
            expect: The content id that the bundle must have, as ``tlrec-edge inspect`` prints it.
                None accepts any bundle.
            user_key: The key of hashed user ids, in hex, if the bundle was exported with
                ``--user-key-file``; it is then needed to look up stored users.
            exact: Old name of ``deterministic``; deprecated.
            speed: Deprecated; has no effect.

        Returns:
            The opened recommender.

        Raises:
            BundleError: The folder is not a valid bundle, or not the expected one.
            ArgumentError: An option has a value that is not listed here.

        Example:
            >>> rec = Recommender.open("bundle", unknown="error")
            >>> len(rec)
            22
        """
        if exact is not None:
            warn_renamed("exact=", "deterministic=")
            deterministic = exact
        if speed is not None:
            warnings.warn(
                f"speed={speed} has no effect: the faiss index was removed in 0.2; "
                "drop the argument",
                DeprecationWarning,
                stacklevel=2,
            )
        check_options(threads, unknown, cache)
        check_user_key(user_key)
        rec = cls(
            Bundle.open(path, verify, expect),
            threads=threads,
            unknown=unknown,
            deterministic=deterministic,
            cache=cache,
            user_key=user_key,
        )
        if verify == "full":
            rec._check()
        return rec

    def close(self) -> None:
        """Drop the cache and the mapped files; any method called afterwards raises BundleError.

        Calls already running in other threads finish first, or raise the same error.

        Example:
            >>> rec = Recommender.open("bundle")
            >>> rec.close()
        """
        with self._changing:
            self._parts = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[[], Recommender], tuple[()]]:
        """Return how a copy is made: by opening the bundle, which all processes share in memory.

        Raises BundleError if the recommender is closed, and ArgumentError if items were added to
        it, which are not in the bundle.
        """
        parts = self._open()
        if count := len(parts.catalogue.added):
            raise ArgumentError(
                f"a recommender with {count} added items cannot be copied or sent to another "
                "process: open the bundle there and add them"
            )
        # The same version of the bundle, or an error: another one would give other scores.
        options = self._options | {
            "verify": parts.bundle.verify,
            "expect": parts.bundle.content_id,
        }
        return partial(type(self).open, self._absolute_path, **options), ()

    def __len__(self) -> int:
        """Return the number of candidates, added items included."""
        return len(self._open().catalogue)

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The bundle's manifest: its model, files and evidence.

        Example:
            >>> Recommender.open("bundle").manifest["format"]
            1
        """
        return self._manifest

    @property
    def schema(self) -> Mapping[str, Any]:
        """How the tables of the training were read: the tables of a schema file.

        Pass it to ``tlrec_edge.tabular.histories.read_histories``, so that a log is read in the
        same way. Empty if the bundle was exported by version 0.1.

        Raises:
            BundleError: The recommender is closed, or the file is damaged.

        Example:
            >>> Recommender.open("bundle").schema
            {}
        """
        bundle = self._open().bundle
        if not bundle.has(SCHEMA):
            return {}
        try:
            schema: dict[str, Any] = dict(parse_json(bundle.read(SCHEMA)))
        except (ValueError, TypeError) as error:
            path = bundle.path / SCHEMA
            raise BundleError(f"{path} is not valid JSON ({error}); {REMEDY}") from error
        return schema

    @property
    def deterministic(self) -> bool:
        """Whether a score has the same bits in every call.

        False after ``open(deterministic=False)`` and for float32 item vectors, whose sums depend on
        the batch.

        Example:
            >>> Recommender.open("bundle").deterministic
            True
        """
        return self._open().builder.deterministic

    @property
    def exact(self) -> bool:
        """Old name of ``deterministic``; deprecated."""
        warn_renamed("Recommender.exact", "Recommender.deterministic")
        return self.deterministic

    def has_user(self, user: str | int) -> bool:
        """Return whether the bundle stores a state for a user id.

        Args:
            user: A user id.

        Raises:
            ArgumentError: ``user`` is not a string or an integer.
            BundleError: The recommender is closed, or a table is damaged.

        Example:
            >>> Recommender.open("bundle").has_user("nobody")
            False
        """
        return self._open().users.row(user) >= 0

    def user_state(self, user: User) -> UserState:
        """Encode a user once, for several calls; a recent history is taken from the cache.

        Args:
            user: A history, a list of item ids or their rows, or a stored user's id.

        Returns:
            The state, which all methods accept as their user. It belongs to this bundle.

        Raises:
            DataError: The history cannot be used.
            UnknownIdError: The user id is not in the bundle, and ``unknown`` is "error".
            BundleError: The recommender is closed, or a table is damaged.

        Example:
            >>> rec = Recommender.open("bundle")
            >>> rec.recommend(rec.user_state(["item-1", "item-2"]), k=1).items
            ('42',)
        """
        parts = self._open()
        return parts.users.get(parts.catalogue, user)

    def rows(self, items: Items) -> ItemRows:
        """Look up item ids once, for callers who use the same items again.

        Args:
            items: Item ids.

        Returns:
            Their rows, which all methods accept instead of ids.

        Raises:
            ArgumentError: ``items`` is not a list of ids.
            BundleError: The recommender is closed, or the index is damaged.

        Example:
            >>> list(Recommender.open("bundle").rows(["item-1", "nothing"]))
            [1, -1]
        """
        return self._open().catalogue.items.bound_rows(as_list(items, "items"))

    def score(self, user: User, candidates: Items) -> Floats:
        """Score candidates for one user.

        Args:
            user: A history, a list of item ids or their rows, a state, or a stored user's id.
            candidates: Item ids or their rows, n.

        Returns:
            Scores (n,) in the order of the candidates; ``unknown`` applies to unknown ones.

        Raises:
            DataError: The history cannot be used.
            ArgumentError: ``candidates`` is not a list of ids, or has rows of another bundle.
            UnknownIdError: An id is not in the bundle, and ``unknown`` is "error".
            BundleError: The recommender is closed, or a table is damaged.

        Example:
            >>> rec = Recommender.open("bundle")
            >>> rec.score(["item-1", "item-2"], ["item-3", "item-4"]).round(2)
            array([-0.63,  0.25], dtype=float32)
        """
        parts = self._open()
        positions, all_known = self._positions(parts.catalogue, candidates)
        state = parts.users.get(parts.catalogue, user)
        return self._score(parts.catalogue, state, positions, all_known)

    def score_pairs(self, users: Sequence[User], items: Items) -> Floats:
        """Score user ``users[i]`` with item ``items[i]``; every distinct user is encoded once.

        Args:
            users: n users, each as in ``score``.
            items: n item ids or rows.

        Returns:
            Scores (n,).

        Raises:
            DataError: A history cannot be used.
            ArgumentError: The lists differ in length, or hold values of another kind.
            UnknownIdError: An id is not in the bundle, and ``unknown`` is "error".
            BundleError: The recommender is closed, or a table is damaged.

        Example:
            >>> rec = Recommender.open("bundle")
            >>> rec.score_pairs([["item-1"], ["item-2"]], ["item-3", "item-3"]).shape
            (2,)
        """
        users = list(as_list(users, "users", "users, one for each item"))
        items = as_list(items, "items")
        if len(users) != len(items):
            raise ArgumentError(
                f"{counted(len(users), 'user')} and {counted(len(items), 'item')}; "
                "give one item for each user"
            )
        parts = self._open()
        positions, all_known = self._positions(parts.catalogue, items, "items")
        scores = np.empty(len(items), np.float32)
        for pairs in _pairs_by_user(users):
            user, at = users[pairs[0]], np.array(pairs)
            scores[at] = self._score_user(parts, user, positions[at], all_known)
        return scores

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
        """Return the k best candidates for one user.

        If the bundle has an inverted file (IVF, above 200,000 candidates), only the most promising
        clusters and the items with an item-item contribution are scored; the manifest's ``index``
        states the recall. Smaller catalogues, and unknown users, are searched exhaustively.

        Args:
            user: A history, a list of item ids or their rows, a state, or a stored user's id. An id
                that is not stored gets popular items, unless ``unknown`` is "error"; so does every
                id if the bundle stores no users.
            k: Number of candidates, at least 1.
            exclude: Item ids or rows to leave out. "history" leaves out the user's history, which
                is not known for a stored user. None leaves nothing out.
            allow: Item ids or rows to choose from, or a mask over the candidates, as ``category``
                returns. None: all candidates.
            exhaustive: Search all candidates, however many there are.
            exact: Old name of ``exhaustive``; deprecated.

        Returns:
            The best candidates, fewer than k if not enough are left. Candidates with equal scores
            are in the order of their rows.

        Raises:
            DataError: The history cannot be used.
            ArgumentError: ``k``, ``exclude`` or ``allow`` has a value that is not described above.
            UnknownIdError: The user id is not in the bundle, and ``unknown`` is "error".
            BundleError: The recommender is closed, or a table is damaged.

        Example:
            >>> rec = Recommender.open("bundle")
            >>> rec.recommend(["item-1", "item-2"], k=1, exclude=["42"]).items
            ('item-15',)
        """
        if exact is not None:
            warn_renamed("exact=", "exhaustive=")
            exhaustive = exact
        k = check_k(k)
        parts = self._open()
        catalogue, state = parts.catalogue, parts.users.get(parts.catalogue, user)
        excluded = excluded_positions(catalogue, state, exclude)
        if allow is None:
            found = catalogue.scorer.top_k(state, k, excluded, exhaustive)
            return _recommendations(catalogue, *found)
        positions = np.setdiff1d(allowed_positions(catalogue, allow), excluded)
        scores = catalogue.scorer.score(state, positions)
        best = top_k(scores, k)
        return _recommendations(catalogue, positions[best], scores[best])

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
        """Return the k best candidates for each of several users.

        Args:
            users: Users, each as in ``recommend``.
            k: Number of candidates for each user, at least 1.
            exclude: As in ``recommend``, for all users; ids are looked up once.
            allow: As in ``recommend``, for all users; ids are looked up once.
            exhaustive: Search all candidates, however many there are.
            exact: Old name of ``exhaustive``; deprecated.

        Returns:
            A result for each user, in their order.

        Raises:
            DataError: A history cannot be used.
            ArgumentError: An argument has a value that ``recommend`` does not describe.
            UnknownIdError: A user id is not in the bundle, and ``unknown`` is "error".
            BundleError: The recommender is closed, or a table is damaged.

        Example:
            >>> found = Recommender.open("bundle").recommend_many([["item-1"], ["item-2"]], k=3)
            >>> [len(one.items) for one in found]
            [3, 3]
        """
        if exact is not None:
            warn_renamed("exact=", "exhaustive=")
            exhaustive = exact
        k, catalogue = check_k(k), self._open().catalogue
        if isinstance(users, ItemRows):
            raise ArgumentError(
                "users: rows are items; give a list with the rows of each user's history"
            )
        requested = as_list(users, "users", "users")
        if allow is not None and is_mask(allow):
            check_mask(catalogue, allow)
        elif allow is not None:
            allow = catalogue.items.bound_rows(as_list(allow, "allow", ordered=False))
        if exclude is not None and not isinstance(exclude, str):
            exclude = catalogue.items.bound_rows(as_list(exclude, "exclude", ordered=False))
        return [
            self.recommend(user, k, exclude=exclude, allow=allow, exhaustive=exhaustive)
            for user in requested
        ]

    def category(self, name: str) -> Bools:
        """Return a mask of the candidates in a category, for ``recommend(allow=...)``.

        Args:
            name: A category's name.

        Returns:
            A mask (C,) over the bundle's candidates; items added later are not included.

        Raises:
            UnknownIdError: The bundle has no such category; the message names the closest one.
            BundleError: The recommender is closed, or a table is damaged.

        Example:
            >>> int(Recommender.open("bundle").category("Garten").sum())
            5
        """
        return self._open().catalogue.items.category(name)

    def similar(self, item: ItemId, k: int = 10) -> Recommendations:
        """Return the candidates whose item vectors are nearest to an item's.

        Args:
            item: The id of an item of the bundle, or of an added one.
            k: Number of candidates, at least 1.

        Returns:
            The nearest candidates, with their cosines as scores. Unless the vectors are float32, a
            cosine has the same bits in every call and in both directions.

        Raises:
            ArgumentError: ``item`` is not an id, or ``k`` is not an integer of at least 1.
            UnknownIdError: The item is not in the bundle.
            BundleError: The recommender is closed, or a table is damaged.

        Example:
            >>> Recommender.open("bundle").similar("item-1", k=3).items
            ('🛒', 'item-5', 'item-9')
        """
        k = check_k(k)
        catalogue = self._open().catalogue
        row = catalogue.items.rows([item])
        if row[0] < 0:
            raise UnknownIdError(f"item {as_text(item)!r:.80} is not in the bundle")
        scores = catalogue.vectors.cosine(int(row[0]))
        position = catalogue.items.positions(row)
        scores[position[position >= 0]] = -np.inf
        best = top_k(scores, k)
        return _recommendations(catalogue, best, scores[best])

    def add_items(self, features: Features, text_vectors: Floats | None = None) -> None:
        """Add items without interactions: they become candidates and may occur in histories.

        All items appear at once. If the bundle holds text vectors of its candidates, an item with
        text is scored like the candidates with the most similar texts; otherwise its vector comes
        from the item tower. In histories it always comes from the item tower.

        Args:
            features: For each new id, its columns, as in the dataset that the model was trained on.
            text_vectors: Vectors (n, t) of the items' texts. If the model reads texts with a
                pretrained encoder, pass that encoder's vectors of ``item_texts``. For other models
                they are optional and replace the vectors of the hashed words.

        Raises:
            ArgumentError: An argument does not have the form or shape described above.
            DataError: An id exists already, a value is not a number in a column of numbers, or
                text vectors are missing.
            BundleError: The bundle has no item tower, or the recommender is closed.

        Example:
            >>> rec = Recommender.open("bundle")
            >>> rec.add_items({"new": {"title": "red lamp"}})
            >>> len(rec)
            23
        """
        check_features(features)
        with self._changing:
            cold, parts = self._cold_items(), self._open()
            ids = list(features)
            if len({as_text(item) for item in ids}) != len(ids) or "" in ids:
                raise DataError("the ids to add must be unique and not empty")
            known = np.flatnonzero(parts.catalogue.items.rows(ids) >= 0)
            if len(known):
                raise DataError(
                    f"item {as_text(ids[known[0]])!r:.80} is already in the bundle; leave it out"
                )
            if ids:
                added = cold.extend(parts.catalogue.added, features, text_vectors)
                self._parts = parts.with_added(added)

    def item_texts(self, features: Features) -> list[str]:
        """Return the texts of new items as the model reads them, for a text encoder.

        Args:
            features: For each new id, its columns, as in ``add_items``.

        Returns:
            A text for each item.

        Raises:
            ArgumentError: ``features`` is not a mapping of mappings.
            DataError: A value cannot be read as its column.
            BundleError: The bundle has no item tower, or the recommender is closed.

        Example:
            >>> Recommender.open("bundle").item_texts({"new": {"title": "Red lamp"}})
            ['Red lamp']
        """
        check_features(features)
        with self._changing:
            return self._cold_items().texts(features)

    def stats(self) -> dict[str, int]:
        """Return counts since the bundle was opened, and this process's memory in bytes.

        Returns:
            Counts of unknown items, candidates and users; of users scored by popularity
            (``fallbacks``) or with clipped vectors; of cache hits and misses; of cached states and
            added items. Also ``private_bytes`` and ``shared_bytes``, as in ``memory``.

        Raises:
            BundleError: The recommender is closed.

        Example:
            >>> Recommender.open("bundle").stats()["added_items"]
            0
        """
        parts = self._open()
        added = len(parts.catalogue.added)
        counts = {"cached_states": len(parts.users.cache), "added_items": added}
        return self._counters.read() | counts | process_memory()

    def memory(self) -> dict[str, int]:
        """Return the bytes that this recommender uses, by purpose.

        Returns:
            ``mapped``: the bundle's tables, which all processes share and the system may drop;
            ``loaded``: its files that were read instead, because their file system cannot map
            files; ``states``: cached user states, at most 64 MB; ``ids``: the cache of recently
            used ids;
            ``items``: added items; ``prefix_bound``: the packed prefixes and one thread's products,
            0 before the first search; ``ivf``: 0, because the index is mapped. ``heads`` and
            ``lists`` are old names of the last two. ``private_bytes`` and ``shared_bytes`` of the
            process are included if the system reports them.

        Raises:
            BundleError: The recommender is closed.

        Example:
            >>> Recommender.open("bundle").memory()["states"]
            0
        """
        parts = self._open()
        catalogue, bound = parts.catalogue, parts.catalogue.indexes.prefix_bound
        prefix_bound = 0 if bound is None else bound.scan.nbytes
        return {
            "mapped": parts.bundle.mapped_bytes,
            "loaded": parts.bundle.loaded_bytes,
            "states": parts.users.cache.nbytes,
            "ids": catalogue.items.hot_bytes,
            "items": catalogue.added.nbytes,
            "prefix_bound": prefix_bound,
            "ivf": 0,
            "heads": prefix_bound,
            "lists": 0,
        } | process_memory()

    def _open(self) -> Parts:
        parts = self._parts
        if parts is None:
            raise BundleError(f"the recommender of {self._path} is closed; open it again")
        return parts

    def _cold_items(self) -> ColdItems:
        """Return the item tower, loaded if it is not; the caller holds the lock."""
        parts = self._open()
        cold = parts.cold or ColdItems(parts.bundle, self._threads)
        self._parts = replace(parts, cold=cold)
        return cold

    def _check(self) -> None:
        """Run every graph and check the search indexes. Raises BundleError."""
        parts = self._open()
        parts.builder.check()
        ivf, bound = parts.catalogue.indexes
        if ivf is not None:
            check_inverted_file(parts.bundle)
        if bound is not None:
            check_prefix_bound(parts.bundle)
            bound.scan.check()
        if parts.bundle.has(ITEM_TOWER):
            with self._changing:
                self._cold_items().check()

    def _positions(
        self, catalogue: Catalogue, candidates: Items, name: str = "candidates"
    ) -> tuple[Indices, bool]:
        """Return candidate positions, -1 for other items, and whether all are candidates."""
        candidates = as_list(candidates, name)
        rows = catalogue.items.rows(candidates)
        positions = catalogue.items.positions(rows)
        if positions is rows and type(candidates) is ItemRows:
            all_known = candidates.all_known
        else:
            all_known = not len(positions) or bool(positions.min() >= 0)
        if not all_known:
            unknown = np.flatnonzero(positions < 0)
            if self._unknown == "error":
                item = as_text(candidates[int(unknown[0])])
                raise UnknownIdError(
                    f"item {item!r:.80} is not a candidate of the bundle; "
                    "leave it out or change `unknown`"
                )
            self._counters.add(unknown_candidates=len(unknown))
        return positions, all_known

    def _score(
        self, catalogue: Catalogue, state: UserState, positions: Indices, all_known: bool
    ) -> Floats:
        if all_known:
            return catalogue.scorer.score(state, positions)
        known = positions >= 0
        scores = np.full(len(positions), self._unknown_score, np.float32)
        scores[known] = catalogue.scorer.score(state, positions[known])
        return scores

    def _score_user(self, parts: Parts, user: User, positions: Indices, all_known: bool) -> Floats:
        if self._unknown == "nan" and isinstance(user, USER_ID_TYPES) and parts.users.row(user) < 0:
            self._counters.add(unknown_users=1)
            return np.full(len(positions), np.nan, np.float32)
        state = parts.users.get(parts.catalogue, user)
        return self._score(parts.catalogue, state, positions, all_known)

    def after_fork(self) -> None:
        """Replace locks and sessions in the child of a fork."""
        # A lock that another thread of the parent held would stay locked forever.
        self._changing = threading.Lock()
        self._counters.after_fork()
        if self._parts is not None:
            self._parts.after_fork()


def _pairs_by_user(users: Sequence[User]) -> list[list[int]]:
    """Return the indices of each distinct user. Raises ArgumentError for what is not a user."""
    groups: dict[Hashable, list[int]] = {}
    for i, user in enumerate(users):
        try:
            groups.setdefault(equality_key(user), []).append(i)
        except TypeError:
            raise ArgumentError(
                f"users[{i}]: expected a history, a list of item ids, a state or a user id, "
                f"got {preview(user)}"
            ) from None
    return list(groups.values())


def _recommendations(catalogue: Catalogue, positions: Indices, scores: Floats) -> Recommendations:
    items, names = catalogue.items.ids(positions), catalogue.items.names(positions)
    return Recommendations(tuple(items), scores, tuple(names))

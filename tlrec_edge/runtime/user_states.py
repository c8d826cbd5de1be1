"""The states of users: encoded from a history and cached, or read from the bundle's user table."""

from __future__ import annotations

from tlrec_edge.bundle.ids import as_text, user_key_check, user_key_hash
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.errors import ArgumentError, UnknownIdError
from tlrec_edge.runtime.arguments import USER_ID_TYPES, User
from tlrec_edge.runtime.catalogue import Catalogue
from tlrec_edge.runtime.history import as_history
from tlrec_edge.runtime.state_cache import Counters, StateCache
from tlrec_edge.runtime.user_encoder import StateBuilder
from tlrec_edge.search.user_state import UserState


class UserStates:
    """The states of one bundle's users. Safe to use from many threads.

    ``unknown`` is the policy for user ids that are not in the bundle, ``cache`` the number of
    states to keep at most, and ``user_key`` the key of hashed user ids if the bundle does not hold
    it.
    """

    def __init__(
        self,
        bundle: Bundle,
        counters: Counters,
        *,
        unknown: str,
        cache: int,
        builder: StateBuilder,
        user_key: str | None,
    ) -> None:
        self._is_hashed = bundle.manifest["user_ids"] == "hashed"
        self._key = bundle.manifest.get("user_key") or _checked_key(bundle, user_key)
        self._path, self._unknown, self._counters = bundle.path, unknown, counters
        self._bundle_id = bundle.content_id
        self._table = bundle.index("users") if bundle.has("user_rows.npy") else None
        self._builder = builder
        self.cache = StateCache(cache)

    def get(self, catalogue: Catalogue, user: User) -> UserState:
        """Return a user's state.

        Raises ArgumentError for a state of another bundle, and UnknownIdError for an unknown user
        id if that is the policy.
        """
        if isinstance(user, UserState):
            is_known = not len(user.seen) or user.seen[-1] < len(catalogue.items)
            if user.bundle_id != self._bundle_id or not is_known:
                raise ArgumentError(
                    "user: the state is of another bundle; make it with this one's `user_state`"
                )
            return user
        if isinstance(user, USER_ID_TYPES):
            return self._stored(user)
        history = as_history(user)
        key = self.cache.key(history, version=catalogue.size)
        if key is not None and (cached := self.cache.get(key)) is not None:
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
        if key is not None:
            self.cache.put(key, state)
        return state

    def row(self, user: str | int) -> int:
        """Return a user id's row in the bundle's user table, -1 if it is not there."""
        text = as_text(user)
        if self._table is None:
            return -1
        if self._is_hashed:
            if self._key is None:
                raise ArgumentError(
                    f"the user ids in {self._path} are hashed with a key that is kept elsewhere: "
                    "open it with user_key= (--user-key-file)"
                )
            text = user_key_hash(text, self._key)
        return self._table.row(text)

    def _stored(self, user: str | int) -> UserState:
        row = self.row(user)
        if row >= 0:
            return self._builder.from_user_row(row)
        if self._unknown == "error":
            has_users = self._table is not None
            reason = "" if has_users else ", which stores no users"
            raise UnknownIdError(
                f"user {as_text(user)!r:.80} is not in the bundle{reason}; "
                "pass the user's history instead"
            )
        self._counters.add(unknown_users=1, fallbacks=1)
        return self._builder.popularity()


def _checked_key(bundle: Bundle, user_key: str | None) -> str | None:
    """Return the key if it is that of the bundle. Raises ArgumentError if it is another one."""
    check = bundle.manifest.get("user_key_check")
    if user_key is not None and check is not None and user_key_check(user_key) != check:
        raise ArgumentError(
            f"user_key is not the key that the user ids in {bundle.path} are hashed with; "
            "pass the key of its export"
        )
    return user_key

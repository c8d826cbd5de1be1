"""The states of users: encoded from a history and cached, or read from the bundle's user table."""

from __future__ import annotations

from tlrec_edge.bundle.ids import as_text, user_key_hash
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
    states to keep at most.
    """

    def __init__(
        self, bundle: Bundle, counters: Counters, *, unknown: str, cache: int, builder: StateBuilder
    ) -> None:
        self._manifest, self._unknown, self._counters = bundle.manifest, unknown, counters
        self._bundle_id = bundle.bundle_id
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
        if (cached := self.cache.get(key)) is not None:
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
        self.cache.put(key, state)
        return state

    def row(self, user: str | int) -> int:
        """Return a user id's row in the bundle's user table, -1 if it is not there."""
        text = as_text(user)
        if self._table is None:
            return -1
        if self._manifest["user_ids"] == "hashed":
            text = user_key_hash(text, self._manifest["user_key"])
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

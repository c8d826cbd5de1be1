"""What must be made anew in the child of a fork."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class _Forked(Protocol):
    def after_fork(self) -> None: ...


_registered: weakref.WeakSet[_Forked] = weakref.WeakSet()


def register_after_fork(forked: _Forked) -> None:
    """Have ``after_fork`` called in every child made by a fork, as long as the object lives."""
    _registered.add(forked)


def _run_after_fork() -> None:
    for forked in list(_registered):
        forked.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_run_after_fork)

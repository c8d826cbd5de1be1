"""Rebuild objects in the child of a fork: locks and onnxruntime sessions don't survive one."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class _ForkAware(Protocol):
    def after_fork(self) -> None: ...


_registered: weakref.WeakSet[_ForkAware] = weakref.WeakSet()


def register_after_fork(target: _ForkAware) -> None:
    """Call ``target.after_fork()`` in every forked child process, as long as the object lives."""
    _registered.add(target)


def _run_after_fork() -> None:
    for target in list(_registered):
        target.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_run_after_fork)

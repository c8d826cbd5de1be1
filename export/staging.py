"""The folders of an export: its target, and a staging folder beside it for what is unproven."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tlrec_edge.bundle_writer import sweep
from tlrec_edge.errors import BundleError
from tlrec_edge.layout import MANIFEST

from .contents import BundleContents


def check_target(path: Path) -> None:
    """Check that a bundle may be written at ``path``: nothing, an empty folder or a bundle.

    Raises:
        BundleError: If ``path`` is a file, or a folder that holds anything else.
    """
    replaceable = path.is_dir() and ((path / MANIFEST).is_file() or not any(path.iterdir()))
    if path.exists() and not replaceable:
        raise BundleError(f"{path} exists and is not a bundle: choose another --out")


def prepare_target(path: Path) -> None:
    """Check the target, and remove what interrupted exports to it left behind.

    Raises:
        BundleError: If ``path`` is a file, or a folder that holds anything but a bundle.
    """
    check_target(path)
    sweep(path)


@contextmanager
def staged(contents: BundleContents, path: Path) -> Iterator[Path]:
    """Write contents to a staging folder next to ``path``; remove it when the context ends."""
    staging = path.parent / f".{path.name}.{os.getpid()}.unproven"
    try:
        contents.write(staging)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)

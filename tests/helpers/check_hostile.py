"""Check that every bundle of a folder is refused: `check_hostile.py FOLDER`.

Like `check_bits.py`, it needs only an installed tlrec-edge. CI runs it with the oldest and the
newest onnxruntime, some of which a graph could crash.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import onnxruntime

from tlrec_edge import BundleError, Recommender


def refused(path: Path) -> bool:
    try:
        with Recommender.open(path, verify="full"):
            return False
    except BundleError:
        return True


def main(folder: Path) -> None:
    paths, longest = sorted(folder.iterdir()), 0.0
    for path in paths:
        began = time.monotonic()
        if not refused(path):
            sys.exit(f"{path} was opened")
        longest = max(longest, time.monotonic() - began)
    sys.stdout.write(
        f"onnxruntime {onnxruntime.__version__}: {len(paths)} hostile graphs refused, "
        f"each within {longest:.2f} s\n"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Where the checkout and its data are."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
BENCHMARKS = ROOT / "benchmarks"
GOLDEN = ROOT / "tests" / "data" / "golden_bundle"
SHARED = Path(os.environ.get("TLREC_SHARED", ROOT.parent / "shared")) / "data"
"""Public data sets next to the checkout; tests that need them are skipped if they are absent."""

"""Compare the scores of the golden bundle with the pinned ones, bit for bit.

`python tests/check_golden.py` needs only an installed tlrec-edge, neither pytest nor any extra. CI
runs it in an empty environment with the oldest and with the newest onnxruntime.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tlrec_edge import History, Recommender

DATA = Path(__file__).parent / "data"
BUNDLE, SCORES = DATA / "golden_bundle", DATA / "golden_scores.json"


def read_cases() -> dict[str, Any]:
    """Return the pinned users, items and scores."""
    cases: dict[str, Any] = json.loads(SCORES.read_text("utf-8"))
    return cases


def user_of(case: dict[str, Any]) -> History | str:
    """Return the user of a case: a stored user's id or a history."""
    return case["user"] if "user" in case else History(**case["history"])


def score(rec: Recommender, case: dict[str, Any], items: list[str]) -> list[str]:
    """Return the scores in hex, which keeps every bit."""
    return [value.hex() for value in rec.score(user_of(case), items).tolist()]


def main() -> None:
    pinned = read_cases()
    with Recommender.open(BUNDLE, verify="full") as rec:
        wrong = [
            name
            for name, case in pinned["cases"].items()
            if score(rec, case, pinned["items"]) != case["scores"]
        ]
        rec.add_items({"new": {"title": "red mug", "colour": "red", "price": 2}})
        if not np.isfinite(rec.score(["new", "item-1"], ["new", "item-2"])).all():
            wrong.append("added items")
    versions = f"onnxruntime {onnxruntime.__version__}, numpy {np.__version__}"
    if wrong:
        sys.exit(f"{versions}: scores differ from the pinned ones: {', '.join(wrong)}")
    sys.stdout.write(f"{versions}: {len(pinned['cases'])} cases, the same bits\n")


if __name__ == "__main__":
    main()

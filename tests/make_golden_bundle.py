"""Write tests/data/golden_bundle and the scores that every later version must give.

Run `python tests/make_golden_bundle.py` only for a new format version.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from check_golden import BUNDLE, SCORES
from check_golden import score as score_case
from helpers import bundles
from tlrec_edge import History, Recommender
from tlrec_edge.bench.pooling_encoder import pooling_encoder
from tlrec_edge.bundle.ids import user_key_hash
from tlrec_edge.bundle.reader import write_bundle
from tlrec_edge.runtime.cold_items import features_json

IDS = [
    *(f"item-{row}" for row in range(18)),
    "商品 19",
    "a,b",
    "🛒",
    "42",
    *(f"past-{row}" for row in range(8)),
]
SMALL = bundles.Small(
    candidates=22, history_only=8, taste=0, users=("ann", "用户2", "7"), ids=IDS, seed=19
)
HISTORIES: dict[str, dict[str, Any]] = {
    "one": {"items": ["item-3"]},
    "across": {
        "items": [
            "past-2",
            "🛒",
            "item-1",
            "past-2",
            "not known",
            "a,b",
            "item-9",
            "past-7",
            "item-5",
        ]
    },
    "events": {"items": ["item-3", "42"], "events": ["cart", "purchase"]},
    "times": {
        "items": ["item-4", "past-1"],
        "timestamps": [1.7e9, 1.7e9 + 86_400 * 5],
        "now": 1.7e9 + 86_400 * 90,
    },
    "empty": {"items": []},
}
MARGIN = 0.02
"""Smallest ``rounding_margin`` of a bundle that is worth pinning."""


def write() -> None:
    """Write the bundle from random tables."""
    rng = np.random.default_rng(SMALL.seed)
    arrays = bundles.tables(SMALL, rng)
    features = bundles.encoder_features(rng)
    arrays |= {"text_table": features.text_table.astype(np.float16)} | bundles.user_tables(
        SMALL, rng
    )
    arrays["item_category"] = np.arange(SMALL.items, dtype=np.int32) % 4 - 1
    users = [user_key_hash(user, bundles.USER_KEY) for user in SMALL.users]
    names = {
        "item_names": [f"Name of {item}" for item in IDS],
        "category_names": ["Küche", "Garten", "玩具"],
    }
    blobs = {
        "encoder.onnx": pooling_encoder(SMALL.d, SMALL.length, SMALL.seed),
        "item_tower.onnx": bundles.item_tower(SMALL.d, rng),
        "features.json": features_json(features),
    }
    manifest = bundles.manifest(SMALL) | {"created": "2026-11-24T00:00:00+00:00"}
    write_bundle(BUNDLE, manifest, arrays, {"item_ids": IDS, "users": users, **names}, blobs)


def pin() -> dict[str, Any]:
    """Return the users and items to score, and their scores."""
    cases: dict[str, Any] = {name: {"history": history} for name, history in HISTORIES.items()}
    cases |= {f"user {user}": {"user": user} for user in SMALL.users}
    items = IDS[: SMALL.candidates]
    with Recommender.open(BUNDLE) as rec:
        for case in cases.values():
            case["scores"] = score_case(rec, case, items)
    return {"items": items, "cases": cases}


def rounding_margin() -> float:
    """Return the smallest distance of a user vector's entries from a rounding boundary.

    With a large enough margin, another machine's last bits cannot change a rounded integer.
    """
    with Recommender.open(BUNDLE, deterministic=False) as rec:
        states = [rec.user_state(History(**history)) for history in HISTORIES.values()]
    scaled = np.concatenate([np.append(state.deep, state.interest) * 2.0**8 for state in states])
    return float(np.abs(np.abs(scaled - np.floor(scaled)) - 0.5).min())


def main() -> None:
    write()
    if rounding_margin() < MARGIN:
        raise SystemExit(f"margin {rounding_margin():.4f} is below {MARGIN}: change the seed")
    SCORES.write_text(json.dumps(pin(), indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()

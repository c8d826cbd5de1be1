"""Small bundles without training: random tables, an attention-pooling encoder, an item tower."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from tlrec_edge import Recommender, TlrecError
from tlrec_edge.bench.pooling_encoder import IR, OPSET, pooling_encoder
from tlrec_edge.bundle.format import Storage, column_dtype
from tlrec_edge.bundle.ids import user_key_hash
from tlrec_edge.bundle.reader import Bundle, write_bundle
from tlrec_edge.bundle.writer import file_sha256
from tlrec_edge.choices import EVENTS
from tlrec_edge.core.features import FeatureEncoder
from tlrec_edge.core.packing import RowFormat
from tlrec_edge.core.rowwise import exact_limit, quantize_sparse
from tlrec_edge.runtime.cold_items import features_json

USER_KEY = "00112233445566778899aabbccddeeff"


@dataclass(frozen=True)
class Small:
    """Sizes and parts of a small bundle."""

    candidates: int = 60
    history_only: int = 20
    d: int = 8
    r: int = 4
    taste: int = 3
    length: int = 6
    groups: int = 5
    max_history: int = 1024
    tables: str = "int8"
    storage: Storage | None = None
    """What each table is stored as, where they differ."""
    tower: bool = True
    users: Sequence[str] = ()
    user_ids: str = "hashed"
    ids: Sequence[str] = field(default=())
    seed: int = 0

    @property
    def items(self) -> int:
        return self.candidates + self.history_only

    @property
    def kinds(self) -> Storage:
        return self.storage or Storage(*4 * (self.tables,))

    def item_ids(self) -> list[str]:
        return list(self.ids) or [f"i{row}" for row in range(self.items)]


def encoder_features(rng: np.random.Generator) -> FeatureEncoder:
    table = rng.normal(0, 1, (64, 3)).astype(np.float32)
    return FeatureEncoder(
        ("title",), {"colour": ("red", "blue")}, {"price": (1.0, 2.0, 5.0)}, table
    )


def item_tower(d: int, rng: np.random.Generator) -> bytes:
    """Return a tower: text (n, 3), numeric (n, 2), categories (n, 1) to two vectors (n, d)."""
    tensors = {
        "text_in": rng.normal(0, 0.5, (3, d)),
        "numeric_in": rng.normal(0, 0.5, (2, d)),
        "colours": rng.normal(0, 0.5, (3, d)),
        "to_candidate": rng.normal(0, 0.5, (d, d)),
    }
    initializers = [
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in tensors.items()
    ]
    initializers.append(numpy_helper.from_array(np.array([1], np.int64), "axis"))
    node, info = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("MatMul", ["text", "text_in"], ["a"]),
        node("MatMul", ["numeric", "numeric_in"], ["b"]),
        node("Squeeze", ["categories", "axis"], ["code"]),
        node("Gather", ["colours", "code"], ["c"]),
        node("Sum", ["a", "b", "c"], ["history"]),
        node("MatMul", ["history", "to_candidate"], ["candidate"]),
    ]
    inputs = [
        info("text", TensorProto.FLOAT, ["n", 3]),
        info("numeric", TensorProto.FLOAT, ["n", 2]),
        info("categories", TensorProto.INT64, ["n", 1]),
    ]
    outputs = [info(name, TensorProto.FLOAT, ["n", d]) for name in ("history", "candidate")]
    graph = helper.make_graph(nodes, "tower", inputs, outputs, initializers)
    opset = helper.make_opsetid("", OPSET)
    blob: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=IR).SerializeToString()
    return blob


def tables(small: Small, rng: np.random.Generator) -> dict[str, np.ndarray]:
    n, c, d, r = small.items, small.candidates, small.d, small.r
    kinds, width = small.kinds, min(small.taste, small.r)
    history = rng.normal(0, 0.5, (n, d)).astype(np.float32)
    deep = rng.normal(0, 0.5, (c, d)).astype(np.float32)
    interest = rng.normal(0, 0.3, (c, r)).astype(np.float32)
    history_rows, history_scale = RowFormat((kinds.history, d)).quantize(history)
    candidate_rows, candidate_scale = RowFormat((kinds.candidate, d), (kinds.taste, r)).quantize(
        deep, interest
    )
    wide = rng.random((n, c)) < 0.1
    taste_in = rng.normal(0, 0.2, (n, width)).astype(np.float32)
    taste_rows, taste_scale = RowFormat((kinds.taste_in, width)).quantize(taste_in)
    taste = {"taste_rows": taste_rows, "taste_scale": taste_scale[:, 0]} if width else {}
    return {
        **taste,
        "history_rows": history_rows,
        "history_scale": history_scale[:, 0],
        "candidate_rows": candidate_rows,
        "candidate_scale": candidate_scale,
        "candidate_bias": rng.normal(0, 0.3, c).astype(np.float32),
        **wide_rows(small, wide, rng.normal(0, 0.4, int(wide.sum())).astype(np.float32)),
        "groups": rng.integers(-1, small.groups, (n, 2)).astype(np.int32),
        "interest_in": rng.normal(0, 0.4, (small.groups, r)).astype(np.float32),
        "position_bias": rng.normal(0, 0.5, small.length).astype(np.float32),
        "event_bias": rng.normal(0, 0.5, len(EVENTS)).astype(np.float32),
        "age_bias": rng.normal(0, 0.5, 7).astype(np.float32),
    }


def wide_rows(small: Small, there: np.ndarray, values: np.ndarray) -> dict[str, np.ndarray]:
    indptr = np.concatenate([[0], np.cumsum(there.sum(1))]).astype(np.int64)
    columns = np.nonzero(there)[1]
    if small.kinds.wide == "float32":
        return {
            "wide_indptr": indptr,
            "wide_columns": columns.astype(np.int32),
            "wide_values": values,
        }
    rounded, scale = quantize_sparse(values, indptr)
    columns = columns.astype(column_dtype(small.candidates))
    return {
        "wide_indptr": indptr,
        "wide_columns": columns,
        "wide_values": rounded,
        "wide_scale": scale,
    }


def user_tables(small: Small, rng: np.random.Generator) -> dict[str, np.ndarray]:
    n = len(small.users)
    lengths = rng.integers(0, 4, n)
    columns = [np.sort(rng.choice(small.candidates, size, replace=False)) for size in lengths]
    return {
        # Multiples of the scale: rounding them gives the same on every machine.
        "user_rows": (rng.integers(-300, 300, (n, small.d + small.r)) * 2.0**-8).astype(np.float32),
        "user_wide_indptr": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "user_wide_columns": np.concatenate(columns).astype(np.int32),
        "user_wide_values": rng.normal(0, 0.4, int(lengths.sum())).astype(np.float32),
    }


def manifest(small: Small) -> dict[str, Any]:
    model = {
        "size": "fast",
        "mode": "scratch",
        "d": small.d,
        "r": small.r,
        "L": small.length,
        "N": small.items,
    }
    model |= {"C": small.candidates, "g": 2, "G": small.groups, "event_count": 5, "pad": -1e9}
    return {
        "opset": OPSET,
        "ir": IR,
        "tables": small.kinds.entry,
        "model": model | {"max_history": small.max_history, "taste": min(small.taste, small.r)},
        "weights": {"deep": 0.75, "wide": 1.5, "rest": -0.5},
        "user_scale": [2.0**-8, 2.0**-8],
        "user_limit": [exact_limit(small.d), exact_limit(small.r)],
        "unknown_score": -1.5,
        "user_ids": small.user_ids if small.users else None,
        "user_key": USER_KEY if small.users and small.user_ids == "hashed" else None,
        "quality": {"ndcg@10": 0.25},
    }


def build(path: Path, small: Small | None = None, **changes: Any) -> Bundle:
    """Write a small bundle; ``changes`` replaces fields of ``Small``."""
    small = Small(**changes) if small is None else small
    rng = np.random.default_rng(small.seed)
    arrays = tables(small, rng)
    strings = {
        "item_ids": small.item_ids(),
        "item_names": [f"name of {item}"[:40] for item in small.item_ids()],
    }
    blobs = {"encoder.onnx": pooling_encoder(small.d, small.length, small.seed)}
    if small.tower:
        features = encoder_features(rng)
        blobs |= {
            "item_tower.onnx": item_tower(small.d, rng),
            "features.json": features_json(features),
        }
        arrays["text_table"] = features.text_table
    if small.users:
        arrays |= user_tables(small, rng)
        hashed = small.user_ids == "hashed"
        strings["users"] = [
            user_key_hash(user, USER_KEY) if hashed else user for user in small.users
        ]
    return write_bundle(path, manifest(small), arrays, strings, blobs)


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = bundle / "manifest.json"
    manifest = json.loads(file.read_text("utf-8"))
    change(manifest)
    write_manifest(bundle, json.dumps(manifest).encode())


def write_manifest(bundle: Path, content: bytes) -> None:
    """Put another manifest in place, with the checksum that agrees."""
    (bundle / "manifest.json").write_bytes(content)
    line = f"{hashlib.sha256(content).hexdigest()}  manifest.json\n"
    (bundle / "manifest.sha256").write_text(line)


def replace_array(bundle: Path, name: str, array: np.ndarray) -> None:
    """Put another array in place and make the manifest agree with it."""
    np.save(bundle / name, array)
    agree(bundle, name)


def replace_file(bundle: Path, name: str, content: bytes) -> None:
    (bundle / name).write_bytes(content)
    agree(bundle, name)


def agree(bundle: Path, name: str) -> None:
    entry = {"size": (bundle / name).stat().st_size, "sha256": file_sha256(bundle / name)}
    edit_manifest(bundle, lambda manifest: manifest["files"].update({name: entry}))


def use(rec: Recommender) -> list[str]:
    """Call everything and return the messages of our errors; all scores must be numbers."""
    messages: list[str] = []
    ids = [f"i{row}" for row in range(80)]
    calls: list[Callable[[], np.ndarray | None]] = [
        lambda: rec.score(["i3", "i70", "i9"], ids),
        lambda: rec.score_pairs(["ann", "bob"], ["i1", "i2"]),
        lambda: rec.recommend(["i3", "i4"], 80).scores,
        lambda: rec.recommend("ann", 80).scores,
        lambda: rec.similar("i5", 80).scores,
        lambda: rec.add_items({"new": {"title": "red mug", "colour": "blue", "price": 2.0}}),
        lambda: rec.score(["new", "i1"], ["new", "i2"]),
    ]
    for call in calls:
        try:
            found = call()
        except TlrecError as error:
            messages.append(str(error))
        else:
            assert found is None or np.isfinite(found).all()
    return messages

"""Compare product quantization with the prefix bound of a bundle, in a top-10 search.

    python benchmarks/product_quantization/compare.py BUNDLE

BUNDLE has integer tables, as `tlrec-edge synth` and `export` write them. The users are those
that it stores under plain ids. Without any, histories are drawn: from three clusters each in a
`synth` bundle, by popularity in others. Codes are fitted to some users and tested on others.
Every exact search is checked against a scan of all rows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from pq import CENTROIDS, Codes, exact_top, fit, likely_top, user_vector
from rich.console import Console
from rich.table import Table

from tlrec_edge import Recommender
from tlrec_edge.bench.requests import ItemIds, Requests
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bundle.item_rows import ItemRows
from tlrec_edge.bundle.item_vectors import item_vectors
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core.topk import top_k
from tlrec_edge.search.prefix_bound import PrefixBound
from tlrec_edge.search.user_state import UserState

LEARN, ASK, K, WHOLE, ROUNDS = 256, 64, 10, 50, 200
WIDTHS = (8, 16)
"""Bytes an item; two of them are for bias and rest."""


def users_of(bundle: Bundle, rng: np.random.Generator) -> list[Any]:
    """Return users as `Recommender.user_state` takes them, at most LEARN + ASK."""
    count, ids = LEARN + ASK, bundle.strings("item_ids")
    if bundle.manifest["user_ids"] == "plain":
        users = bundle.strings("users")
        return users.take(rng.choice(len(users), min(len(users), count), replace=False).tolist())
    if made := bundle.manifest["provenance"].get("synth"):
        clusters, (n, length) = (
            SynthConfig(**made).clusters,
            (bundle.shape.items, bundle.shape.length),
        )
        tastes = np.take_along_axis(
            rng.integers(0, clusters, (count, 3)), rng.integers(0, 3, (count, length)), 1
        )
        rows = tastes + clusters * rng.integers(0, n // clusters, tastes.shape)
        return [ids.take(row) for row in rows.tolist()]
    return Requests(ItemIds.from_bundle(bundle), count, 1.0, 0).histories


def heads_open(bundle: Bundle, rec: Recommender, states: list[UserState]) -> float:
    """Return the mean share of candidates that prefix bounds leave to be scored in full."""
    prefix_bound, count, left = PrefixBound(bundle), bundle.shape.candidates, []
    for state in states:
        sizes: list[int] = []

        def score(at: np.ndarray, state: UserState = state, sizes: list[int] = sizes) -> np.ndarray:
            sizes.append(len(at))
            return rec.score(state, ItemRows(at))

        found = prefix_bound.search(state, K, np.zeros(0, np.intp), score)
        left.append(count if found is None else sizes[-1])
    return float(np.mean(left)) / count


def gathering(codes: Codes) -> Callable[[np.ndarray], np.ndarray]:
    """Return the scan as a graph: a lookup a byte, summed; (bytes, 256) -> (C,)."""
    single = (
        np.stack([codes.pairs & 0xFF, codes.pairs >> 8], 1)
        .reshape(-1, codes.pairs.shape[1])
        .astype(np.int32)
    )
    graph = helper.make_graph(
        [
            helper.make_node("GatherElements", ["table", "codes"], ["found"], axis=1),
            helper.make_node("ReduceSum", ["found", "axis"], ["sum"], keepdims=0),
        ],
        "scan",
        [helper.make_tensor_value_info("table", TensorProto.FLOAT, [len(single), CENTROIDS])],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [single.shape[1]])],
        [numpy_helper.from_array(single, "codes"), numpy_helper.from_array(np.array([0]), "axis")],
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    run = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    ).run
    return lambda table: run(None, {"table": table})[0]


@dataclass(frozen=True)
class Way:
    """A search: bytes scanned per item, share of items scored in full, recall@10, function."""

    bytes: float
    full: float
    recall: str
    search: Callable[[UserState], Any]


def ways_of_codes(
    bundle: Bundle, rec: Recommender, learn: list[UserState], ask: list[UserState]
) -> dict[str, Way]:
    """Fit codes of each width, and check their results against a scan of all full rows."""
    count, array, ways = bundle.shape.candidates, bundle.array, {}
    read = item_vectors(
        bundle.shape.candidate_format, array("candidate_rows"), array("candidate_scale")
    )
    truth = [rec.score(state, ItemRows(np.arange(count))) for state in ask]
    best = [top_k(scores, K) for scores in truth]
    for size in WIDTHS:
        codes = fit(
            read,
            array("candidate_bias"),
            np.stack([user_vector(state) for state in learn]),
            size - 2,
        )
        found = [exact_top(codes, rec, state, K) for state in ask]
        same = all(
            np.array_equal(f.places, places) and np.array_equal(f.scores, scores[places])
            for f, places, scores in zip(found, best, truth, strict=True)
        )
        full = float(np.mean([f.full for f in found])) / count
        search = partial(exact_top, codes, rec, k=K)
        ways[f"codes of {size} bytes, exact"] = Way(
            size, full, "1, bit for bit" if same else "WRONG", search
        )
        for name, most in ((f"best {WHOLE}", WHOLE), ("alone", K)):
            search = partial(likely_top, codes, rec, k=K, full=most)
            recall = np.mean(
                [
                    np.isin(search(state).places, places).mean()
                    for state, places in zip(ask, best, strict=True)
                ]
            )
            ways[f"codes of {size} bytes, {name}"] = Way(
                size, most / count, f"{recall:.3f}", search
            )
    by_graph, bytes_ = gathering(codes), codes.bytes_an_item
    table = np.zeros((bytes_, CENTROIDS), np.float32)
    ways[f"scan alone of {bytes_} bytes, onnxruntime"] = Way(
        bytes_, 0.0, "", lambda state: by_graph(table)
    )
    pairs = np.zeros((bytes_ // 2, CENTROIDS**2), np.float32)
    ways[f"scan alone of {bytes_} bytes, numpy"] = Way(
        bytes_, 0.0, "", lambda state: codes.scan(pairs)
    )
    return ways


def ways_of_bundle(bundle: Bundle, rec: Recommender, ask: list[UserState]) -> dict[str, Way]:
    """Return the searches of the runtime: the prefix bound if the bundle has one, and IVF."""
    if not bundle.has("head_columns.npy"):
        return {
            "all rows": Way(
                bundle.shape.candidate_format.width,
                1.0,
                "1, bit for bit",
                partial(rec.recommend, exhaustive=True),
            )
        }
    size = len(bundle.array("head_columns"))
    exact = partial(rec.recommend, exclude=None, exhaustive=True)
    ways = {
        f"heads of {size} bytes, exact": Way(
            size, heads_open(bundle, rec, ask), "1, bit for bit", exact
        )
    }
    if index := bundle.manifest.get("index"):
        share = index["probes@10"] / index["lists"]
        likely = partial(rec.recommend, exclude=None)
        recall = np.mean([len({*likely(state).items} & {*exact(state).items}) / K for state in ask])
        ways[f"lists, {share:.1%} of them"] = Way(
            bundle.shape.candidate_format.width, float("nan"), f"{recall:.3f}", likely
        )
    return ways


def in_turns(ways: dict[str, Way], ask: list[UserState]) -> dict[str, float]:
    """Return the median milliseconds of each search; every round has a new order."""
    rng = np.random.default_rng(0)
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS):
        for name in rng.permutation(list(ways)):
            before = time.perf_counter_ns()
            ways[name].search(ask[turn % len(ask)])
            taken[name].append((time.perf_counter_ns() - before) / 1e6)
    return {name: float(np.median(values)) for name, values in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    path = parser.parse_args().bundle
    bundle, rec = Bundle.open(path), Recommender.open(path, cache=0)
    if not rec.deterministic:
        parser.error(
            f"{path} has float32 tables, whose scores depend on the batch: pass integer tables"
        )
    states = [rec.user_state(user) for user in users_of(bundle, np.random.default_rng(1))]
    learn, ask = np.split(np.array(states, object), [len(states) * 4 // 5])
    ways = ways_of_bundle(bundle, rec, ask) | ways_of_codes(bundle, rec, learn, ask)
    ms = in_turns(ways, ask)
    table = Table(title=f"top-{K} of {bundle.shape.candidates:,} candidates, {len(ask)} users")
    for head in ("", "bytes per item", "scored in full", f"recall@{K}", "ms"):
        table.add_column(head, justify="right" if head else "left")
    for name, way in ways.items():
        full = f"{way.full:.3%}" if way.full > 0 else "-"
        table.add_row(name, str(way.bytes), full, way.recall, f"{ms[name]:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()

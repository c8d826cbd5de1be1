"""Write a bundle from a model, and refuse one whose scores are not the model's."""

from __future__ import annotations

import math
import platform
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from tlrec_edge.export.gates import GATES, Evidence, check
from tlrec_edge.export.graphs import IR_VERSION, OPSET, encoder_graph, item_tower_graph

from tlrec_edge import Recommender
from tlrec_edge.arrange import arranged, item_order
from tlrec_edge.bundle import Bundle, write_bundle
from tlrec_edge.bundle_writer import BUNDLE
from tlrec_edge.cold import features_json
from tlrec_edge.data.dataset import Dataset, Ints
from tlrec_edge.data.store import dataset_hash, split_hash
from tlrec_edge.data.task import Task, make_tasks
from tlrec_edge.folders import check_target, staging_folder
from tlrec_edge.head_fit import fit_heads
from tlrec_edge.ids import user_key_hash
from tlrec_edge.layout import SCAN
from tlrec_edge.list_fit import MANY, fit_lists
from tlrec_edge.packing import RowFormat
from tlrec_edge.rowwise import exact_limit
from tlrec_edge.scan import scan_graph
from tlrec_edge.train.artifact import MAX_HISTORY, EdgeModel, Past
from tlrec_edge.train.model import PAD
from tlrec_edge.train.served import history_of
from tlrec_edge.train.stored import part_weights, storage, stored_arrays
from tlrec_edge.vectors import stored_vectors

Floats = NDArray[np.float32]
PARITY_USERS = 64
CANDIDATES = 100
"""Candidates of the request that a latency card is about."""


@dataclass(frozen=True)
class ExportConfig:
    """``with_users``: store user states under keyed hashes (``hashed``) or plain ids; ``tolerance``: of parity.

    ``gates`` are checked (see ``gates``); those in ``allow`` may refuse, which the manifest then says.
    """

    with_users: str | None = None
    tolerance: float = 1e-4
    seed: int = 0
    gates: tuple[str, ...] = tuple(GATES)
    allow: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.with_users not in (None, "hashed", "plain"):
            raise ValueError(f"with_users must be None, 'hashed' or 'plain', not {self.with_users!r}")
        for name in (*self.gates, *self.allow):
            if name not in GATES:
                raise ValueError(f"no gate {name!r}; known: {', '.join(GATES)}")


@dataclass(frozen=True)
class Parity:
    """How far the bundle is from the torch model over ``users`` histories and all candidates.

    ``max_error`` and ``top10_overlap`` compare the float path; ``exact_max_error`` and ``exact_rms_share`` (root mean
    square over the scores' spread) compare the exact path with the float path. ``exact_bound`` is its limit for users
    whose vector fits the scale, which leaves twice the room (interest: four times) that the sampled users need; the
    runtime counts the others as ``clipped_users``.
    """

    users: int
    max_error: float
    top10_overlap: float
    exact_max_error: float | None
    exact_rms_share: float | None
    exact_bound: float | None


def export_bundle(
    model: EdgeModel, dataset: Dataset, path: Path, config: ExportConfig | None = None,
    cards: Mapping[str, Any] | None = None,
) -> Parity:  # fmt: skip
    """Write the bundle of a model at ``path``, after it passed the gates.

    ``cards``: ``quality`` and ``transfer`` for the manifest (see ``tlrec_edge.train.evaluate``). Raises ExportError
    that names the gate which refused; nothing is left behind then.
    """
    config = config or ExportConfig()
    path = Path(path)
    check_target(path, BUNDLE)
    task = make_tasks(dataset, model.provenance.domains, model.provenance.fold).final
    past = Past.of(task.history, model.rows(dataset), task.n_users, len(model.ids))
    users = _sample_users(past, config.seed)
    arrays = stored_arrays(model)
    scale, limit = _user_scales(model, past, users)
    strings = {"item_ids": model.ids, "item_names": model.names}
    manifest = _manifest(model, dataset, scale, limit, arrays, cards or {})
    if config.with_users:
        key = secrets.token_hex(16) if config.with_users == "hashed" else None
        manifest |= {"user_ids": config.with_users, "user_key": key}
        strings["users"] = _add_users(arrays, model, dataset, past, key)
    arrays |= _categories(dataset, model, strings)
    blobs = {"encoder.onnx": encoder_graph(model)}
    tower = item_tower_graph(model, weighted=storage(model).plain)
    if tower is not None:
        blobs |= {
            "item_tower.onnx": tower,
            "features.json": features_json(model.features.within(model.provenance.domains)),
        }
        arrays["text_table"] = model.features.text_table.astype(np.float16)
        if model.net.config.text:
            arrays["candidate_text"] = model.net.text[: model.candidates].numpy().astype(np.float16)
    manifest |= _add_search(model, past, users, arrays, strings, blobs)
    with staging_folder(path, BUNDLE) as staging:
        draft = staging / "bundle"
        write_bundle(draft, manifest, arrays, strings, blobs)
        parity = measure_parity(model, dataset, task, past, users, draft)
        found = Evidence(
            draft,
            [history_of(dataset, past.log, int(user)) for user in users[:PARITY_USERS]],
            [dataset.items[row] for row in task.candidates],
            parity.max_error,
            config.tolerance,
            parity.exact_rms_share,
            cards or {},
            dict(model.provenance.compression),
        )
        waived = check(found, config.gates, config.allow)
    proven = {
        "parity": asdict(parity),
        "gates": {"passed": [g for g in config.gates if g not in waived], "allowed": waived},
    }
    write_bundle(path, manifest | proven, arrays, strings, blobs)
    return parity


def _sample_users(past: Past, seed: int) -> Ints:
    """Draw users with a history; scales are fitted and parity is measured on them."""
    known = np.flatnonzero(np.diff(past.start) > 0)
    if not len(known):
        return np.empty(0, np.int32)
    drawn = np.random.default_rng(seed).choice(known, min(len(known), 8 * PARITY_USERS), replace=False)
    return np.sort(drawn).astype(np.int32)


def _user_scales(model: EdgeModel, past: Past, users: Ints) -> tuple[list[float], list[int]]:
    """Return the steps that user vectors are rounded to, and how many there may be: deep block, block of taste."""
    d, r = model.net.config.width, model.interest.rank + model.rest.rank
    vectors = model.user_vectors(past, users) if len(users) else np.zeros((1, d), np.float32)
    tastes = _tastes(model, past, users) if len(users) else np.zeros((1, r), np.float32)
    limit = [exact_limit(d), exact_limit(r)]
    return [_power_of_two(2.0 * vectors, limit[0]), _power_of_two(4.0 * tastes, limit[1])], limit


def _tastes(model: EdgeModel, past: Past, users: Ints) -> Floats:
    """Return the users' taste block as served, its weights folded in, (u, r)."""
    return model.user_tastes(past.matrix[users]) * model.taste_weights


def _power_of_two(vectors: Floats, limit: int) -> float:
    """Return the smallest power of two that keeps the vectors within ``limit`` steps."""
    largest = float(np.abs(vectors).max(initial=0.0))
    return 2.0 ** math.ceil(math.log2(largest / limit)) if largest > 0 else 1.0


def _manifest(
    model: EdgeModel, dataset: Dataset, scale: list[float], limit: list[int], arrays: Mapping[str, NDArray[Any]],
    cards: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    net, made = model.net, model.provenance
    return {
        "opset": OPSET,
        "ir": IR_VERSION,
        "tables": storage(model).entry,
        **({} if storage(model).plain else {"weights": part_weights(model)}),
        "model": {
            "size": net.config.size,
            "mode": model.provenance.mode or "none",
            "d": net.config.width,
            "r": model.interest.rank + model.rest.rank,
            "taste": model.rest.rank,
            "L": net.config.history,
            "N": len(model.ids),
            "C": model.candidates,
            "g": int(model.groups.shape[1]),
            "G": len(model.interest.inward),
            "pad": PAD,
            "max_history": MAX_HISTORY,
            "feed_forward": net.config.feed_forward,
            "wide_weights": len(arrays["wide_values"]),
            "most_wide_weights_a_row": int(np.diff(arrays["wide_indptr"]).max(initial=0)),
        },
        "user_scale": scale,
        "user_limit": limit,
        "unknown_score": float(arrays["candidate_bias"].min()),
        "repeat": model.mix.repeat,
        "user_ids": None,
        "user_key": None,
        "features": {
            "text": list(model.features.text_columns),
            "categorical": {name: len(values) for name, values in model.features.vocabulary.items()},
            "numeric": list(model.features.quantiles),
            "text_encoder": None if model.features.text is None else model.features.text.encoder,
        },
        "quality": dict(cards.get("quality", {})),
        "transfer": dict(cards.get("transfer", {"claim": "none", "why": "not measured"})),
        "compression": dict(model.provenance.compression),
        "latency": _latency(model.provenance.compression),
        "provenance": {
            "dataset": dataset.source,
            "dataset_sha256": dataset_hash(dataset),
            "split": dataset.split.kind,
            "split_sha256": split_hash(dataset),
            "domains": list(made.domains),
            "fold": made.fold,
            "source_domains": made.source,
            "mode": made.mode,
            "choices": made.choices and made.choices.to_json(),
            "train": asdict(made.train),
            "versions": {
                "python": platform.python_version(), "torch": torch.__version__, "onnx": onnx.__version__,
                "onnxruntime": onnxruntime.__version__, "numpy": np.__version__,
            },
        },
    }  # fmt: skip


def _latency(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the latency card: what the compression measured, and on which machine."""
    chosen: Mapping[str, Any] = next(
        (point for point in found.get("points", []) if point["step"] == found["chosen"]), {}
    )
    if not chosen.get("us"):
        return {"claim": "none", "why": "not measured: run `tlrec-edge bench`"}
    request = f"a history and {CANDIDATES} candidates, encoded and scored"
    return {"claim": "measured", "request": request, "us": chosen["us"], "machine": found.get("machine")}


def _add_users(
    arrays: dict[str, NDArray[Any]], model: EdgeModel, dataset: Dataset, past: Past, key: str | None
) -> tuple[str, ...]:
    """Store the states of all users with a history: vectors and the wide part's sums, no history."""
    users = np.flatnonzero(np.diff(past.start) > 0).astype(np.int32)
    deep, tastes = [], []
    for part in np.array_split(users, max(1, len(users) // 512)):
        deep.append(model.user_vectors(past, part))
        tastes.append(_tastes(model, past, part))
    wide = model.served_wide
    if model.mix.repeat:
        wide = wide + np.float32(model.mix.repeat) * sp.eye_array(*wide.shape, dtype=np.float32)
    summed = sp.csr_array(past.matrix[users] @ wide)
    summed.sort_indices()
    arrays["user_rows"] = np.concatenate([np.concatenate(deep), np.concatenate(tastes)], 1).astype(np.float32)
    arrays["user_wide_indptr"] = summed.indptr.astype(np.int64)
    arrays["user_wide_columns"] = summed.indices.astype(np.int32)
    arrays["user_wide_values"] = summed.data.astype(np.float32)
    return tuple(dataset.users[u] if key is None else user_key_hash(dataset.users[u], key) for u in users)


def _add_search(
    model: EdgeModel, past: Past, users: Ints, arrays: dict[str, NDArray[Any]], strings: dict[str, Any],
    blobs: dict[str, bytes],
) -> dict[str, Any]:  # fmt: skip
    """Add what a top-k is found by, for the users who are asked about, where it pays: heads, and of MANY candidates
    lists, in whose order all then stand. Return the manifest's entry ``index``."""
    kinds, d, r = storage(model), model.net.config.width, model.interest.rank + model.rest.rank
    form = RowFormat((kinds.candidate, d), (kinds.taste, r))
    weight = 1.0 if kinds.plain else model.mix.deep  # as scales hold it, or as the runtime multiplies with it
    asked = np.concatenate([model.user_vectors(past, users) * weight, _tastes(model, past, users)], 1)
    asked = asked.astype(np.float64)
    card: dict[str, Any] = {}
    if len(users) and model.candidates > MANY:
        read = stored_vectors(form, arrays["candidate_rows"], arrays["candidate_scale"])
        lists = fit_lists(read, arrays["candidate_bias"], asked)
        arrays |= dict(arranged(arrays, lists.order, len(model.ids))) | dict(lists.arrays)
        rows = item_order(lists.order, len(model.ids))
        for name in ("item_ids", "item_names"):
            strings[name] = [strings[name][row] for row in rows.tolist()]
        card = dict(lists.card)
    read = stored_vectors(form, arrays["candidate_rows"], arrays["candidate_scale"])
    heads = fit_heads(read, arrays["candidate_bias"], asked)
    arrays |= heads
    if heads:
        blobs[SCAN] = scan_graph(*heads["head_columns"].shape)
    return {"index": card}


def _categories(dataset: Dataset, model: EdgeModel, strings: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Store the first categorical column, for display and filters."""
    for values in dataset.features.categorical.values():
        own = np.array([values[row] if row >= 0 else "" for row in _dataset_rows(dataset, model)], dtype=object)
        names, code = np.unique(own.astype(str), return_inverse=True)
        shift = 1 if names[0] == "" else 0
        if len(names) > shift:
            strings["category_names"] = tuple(names[shift:].tolist())
            return {"item_category": (code - shift).astype(np.int32)}
    return {}


def _dataset_rows(dataset: Dataset, model: EdgeModel) -> list[int]:
    return [dataset.item_row.get(name, -1) for name in model.ids]


def measure_parity(model: EdgeModel, dataset: Dataset, task: Task, past: Past, users: Ints, path: Path) -> Parity:
    """Compare a written bundle with the torch model on the candidates of sampled users."""
    users = users[:PARITY_USERS]
    if not len(users):
        return Parity(0, 0.0, 1.0, None, None, None)
    wanted = model.scorer(dataset, task)(users)
    floats, exact, bound = _bundle_scores(dataset, past, users, task, path)
    error = float(np.abs(floats - wanted).max())
    k = min(10, wanted.shape[1])
    top = [set(np.argsort(-row, kind="stable")[:k]) for row in wanted]
    overlap = np.mean(
        [len(a & set(np.argsort(-row, kind="stable")[:k])) / k for a, row in zip(top, floats, strict=True)]
    )
    if exact is None:
        return Parity(len(users), error, float(overlap), None, None, None)
    off = exact - floats
    spread = float(np.std(floats - floats.mean(1, keepdims=True)))
    share = float(np.sqrt(np.mean(off**2)) / spread) if spread > 0 else 0.0
    return Parity(len(users), error, float(overlap), float(np.abs(off).max()), share, bound)


def _bundle_scores(
    dataset: Dataset, past: Past, users: Ints, task: Task, path: Path
) -> tuple[Floats, Floats | None, float | None]:
    names = [dataset.items[row] for row in task.candidates]
    histories = [history_of(dataset, past.log, int(user)) for user in users]
    with Recommender.open(path, exact=False) as rec:
        floats = np.stack([rec.score(history, names) for history in histories])
    with Recommender.open(path) as rec:
        if not rec.exact:
            return floats, None, None
        exact = np.stack([rec.score(history, names) for history in histories])
        scale = rec.manifest["user_scale"]
    bundle = Bundle.open(path, verify="none")
    rows, block = bundle.array("candidate_rows"), bundle.array("candidate_scale").astype(np.float64)
    form, weights = bundle.shape.candidate_format, (abs(bundle.scoring.weights[0]), 1.0)
    # Half a step of every user entry, times the row's entries: the most that rounding the user vector can move a score.
    bound = sum(
        np.abs(form.values(rows, i).astype(np.float64)).sum(1) * block[:, i] * weights[i] * scale[i] / 2 for i in (0, 1)
    )
    return floats, exact, float(np.max(bound))

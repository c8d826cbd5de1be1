"""Make the data of all contenders: bundles, the same vectors as floats, histories, candidates."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tlrec_edge import Recommender
from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize
from tlrec_edge.bundle.reader import Bundle

from .data import Data, Sizes

CASES = 64
MAX_CANDIDATES = 1000
_ROOT = Path(__file__).parents[2]
_WRITERS = ("core", "bundle", "search", "train", "bench")


def prepare(
    folder: Path, sizes: Sizes, catalogues: tuple[str, ...], progress: Callable[[str], None]
) -> None:
    """Make the catalogues that do not exist or were made by other code.

    Raises FileExistsError if a folder in their place is not ours to replace.
    """
    stamp = json.dumps(asdict(sizes) | {"code": _code()})
    for name in catalogues:
        target, mark = folder / name, folder / name / "stamp.json"
        if mark.is_file() and mark.read_text() == stamp:
            continue
        if mark.is_file():
            shutil.rmtree(target)
        elif target.exists():
            raise FileExistsError(
                f"{target} was not made by this comparison; move it away or name another folder"
            )
        target.mkdir(parents=True)
        mark.write_text("unfinished")
        progress(f"data: {name}, {getattr(sizes, name):,} items")
        _make(Data(target), sizes, getattr(sizes, name), everything=name == "small")
        mark.write_text(stamp)


def _code() -> str:
    """Return a hash of the code that writes bundles, data and the peers' indexes."""
    digest, here = hashlib.sha256(), Path(__file__).parent
    folders = [*(_ROOT / "tlrec_edge" / room for room in _WRITERS), _ROOT / "export"]
    sources = [path for folder in (*folders, here / "contenders") for path in folder.rglob("*.py")]
    for path in (*sorted(sources), here / "make_data.py", here / "model.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _make(data: Data, sizes: Sizes, items: int, everything: bool) -> None:
    """Write a catalogue with the fast encoder; with ``everything`` also the base one and graphs."""
    from .model import encoder, write_floor, write_graphs  # imports torch, which takes seconds

    config = SynthConfig(
        items, dim=sizes.dim, length=sizes.length, interest=0, wide=0, popularity=0.0
    )
    models = {
        name: encoder(name, sizes) for name in (("fast", "base") if everything else ("fast",))
    }
    for name, (_, graph) in models.items():
        synthesize(data.path(name), config, encoder=graph)
    default = SynthConfig(items, dim=sizes.dim, length=sizes.length)
    synthesize(data.path("wide"), default, encoder=models["fast"][1])
    bundle = Bundle.open(data.path("fast"))
    _write_vectors(data, bundle)
    _write_cases(data, bundle, config)
    for name in models:
        _write_queries(data, name)
    write_floor(data.path("floor.onnx"))
    if everything:
        write_graphs(
            data,
            {name: module for name, (module, _) in models.items()},
            bundle.array("position_bias"),
        )


def _write_vectors(data: Data, bundle: Bundle) -> None:
    """Write the values of the bundle's rows as float32, for the peers, and the ids of the rows."""
    shape = bundle.shape
    for name, form, side in (
        ("vectors", shape.candidate_format, "candidate"),
        ("history_vectors", shape.history_format, "history"),
    ):
        rows = bundle.array(f"{side}_rows")
        scale = bundle.array(f"{side}_scale").reshape(len(rows), -1)[:, :1]
        vectors = np.ascontiguousarray(form.values(rows) * scale, np.float32)
        np.save(data.path(f"{name}.npy"), vectors)
    ids = bundle.strings("item_ids").take(range(shape.items))
    np.save(data.path("item_ids.npy"), np.array(ids))


def _write_cases(data: Data, bundle: Bundle, config: SynthConfig) -> None:
    """Write histories of up to three clusters each, and candidates, as rows and as ids.

    Candidates are drawn from the whole catalogue without repetition.
    """
    rng, n = np.random.default_rng(1), config.items
    histories = np.empty((CASES, config.length), np.int64)
    members = n // config.clusters
    for history in histories:
        clusters = rng.choice(config.clusters, min(3, config.clusters), replace=False)
        items = (clusters[:, None] + config.clusters * np.arange(members)[None]).ravel()
        history[:] = rng.choice(items, config.length, replace=len(items) < config.length)
    # Item n is not row n: a large catalogue is sorted by IVF cluster.
    ids = [f"SKU{item:08d}" for item in histories.ravel().tolist()]
    rows = bundle.index("item_ids").rows(ids).reshape(histories.shape).astype(np.int64)
    count = min(MAX_CANDIDATES, n)
    candidates = np.stack([rng.choice(n, count, replace=False) for _ in range(CASES)])
    strings = bundle.strings("item_ids")
    for name, values in (("histories", rows), ("candidates", candidates)):
        np.save(data.path(f"{name}.npy"), values)
        named = [strings.take(case.tolist()) for case in values]
        data.path(f"{name}.json").write_text(json.dumps(named), "utf-8")


def _write_queries(data: Data, model: str) -> None:
    """Write the users' vectors: ``queries`` rounded as the bundle rounds them, ``encoded`` not."""
    histories = data.ids("histories")
    for name, deterministic in (("queries", True), ("encoded", False)):
        with Recommender.open(data.path(model), deterministic=deterministic) as rec:
            states = [rec.user_state(history) for history in histories]
        vectors = np.stack([state.deep * state.deep_scale for state in states])
        np.save(data.path(f"{name}-{model}.npy"), vectors.astype(np.float32))

"""Make the one set of data: bundles, the same vectors as floats, histories, candidates."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tlrec_edge import Recommender
from tlrec_edge.bench.synthetic import SynthConfig, synthesize
from tlrec_edge.bundle.reader import Bundle

from .data import Data
from .model import encoder, write_floor, write_graphs

QUESTIONS = 64
MOST_CANDIDATES = 1000
_PACKAGE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Sizes:
    """Of everything that is measured."""

    small: int = 100_000
    large: int = 1_000_000
    dim: int = 64
    length: int = 50


def prepare(
    folder: Path, sizes: Sizes, catalogues: tuple[str, ...], progress: Callable[[str], None]
) -> None:
    """Make the catalogues that are not there yet, or were made by other code."""
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
    """Return a hash of what writes bundles, data and the peers' indexes: they are made again where it changed."""
    digest, here = hashlib.sha256(), Path(__file__).parent
    folders = (_PACKAGE / "tlrec_edge", _PACKAGE / "export", here / "contenders")
    written = [path for folder in folders for path in folder.glob("*.py")]
    for path in (*sorted(written), here / "make_data.py", here / "model.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _make(data: Data, sizes: Sizes, items: int, everything: bool) -> None:
    """Write one catalogue. ``small`` holds both encoders and the default parts; ``large`` the fast one, and those."""
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
    _write_questions(data, bundle, config)
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
    """Write what the bundle's rows stand for as float32: the peers' tables."""
    shape = bundle.shape
    for name, form, rows, scale in (
        ("vectors", shape.candidate_format, "candidate_rows", "candidate_scale"),
        ("history_vectors", shape.history_format, "history_rows", "history_scale"),
    ):
        stored, factor = (
            bundle.array(rows),
            bundle.array(scale).reshape(len(bundle.array(rows)), -1)[:, :1],
        )
        np.save(
            data.path(f"{name}.npy"), np.ascontiguousarray(form.values(stored) * factor, np.float32)
        )


def _write_questions(data: Data, bundle: Bundle, config: SynthConfig) -> None:
    """Write histories within three clusters each, and candidates from everywhere, as rows and no two the same."""
    rng, n = np.random.default_rng(1), config.items
    histories = np.empty((QUESTIONS, config.length), np.int64)
    members = n // config.clusters
    for history in histories:
        cluster = rng.choice(config.clusters, min(3, config.clusters), replace=False)
        own = (cluster[:, None] + config.clusters * np.arange(members)[None]).ravel()
        history[:] = rng.choice(own, config.length, replace=len(own) < config.length)
    names = [
        f"SKU{item:08d}" for item in histories.ravel().tolist()
    ]  # a large catalogue stands list by list
    histories = bundle.index("item_ids").rows(names).reshape(histories.shape).astype(np.int64)
    most = min(MOST_CANDIDATES, n)
    candidates = np.stack([rng.choice(n, most, replace=False) for _ in range(QUESTIONS)])
    np.save(data.path("histories.npy"), histories)
    np.save(data.path("candidates.npy"), candidates)


def _write_queries(data: Data, model: str) -> None:
    """Write the users' vectors, rounded as the deterministic path rounds them (``queries``) and as encoded (``encoded``)."""
    histories = data.load("histories")
    for name, deterministic in (("queries", True), ("encoded", False)):
        with Recommender.open(data.path(model), deterministic=deterministic) as rec:
            ids = Bundle.open(data.path(model)).strings("item_ids")
            states = [rec.user_state(ids.take(history.tolist())) for history in histories]
            found = np.stack([state.deep * state.deep_scale for state in states]).astype(np.float32)
        np.save(data.path(f"{name}-{model}.npy"), found)

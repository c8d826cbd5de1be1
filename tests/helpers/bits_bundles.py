"""Write the bundles that `check_bits` checks: `bits_bundles.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from helpers import bundles, check_bits  # noqa: E402
from helpers.bundles import Small  # noqa: E402
from tlrec_edge.bench.pooling_encoder import pooling_encoder  # noqa: E402
from tlrec_edge.bench.synth_config import SynthConfig  # noqa: E402
from tlrec_edge.bench.synthetic import synthesize  # noqa: E402
from tlrec_edge.bundle.format import Storage  # noqa: E402
from tlrec_edge.bundle.ids import user_key_hash  # noqa: E402
from tlrec_edge.bundle.reader import Bundle, write_bundle  # noqa: E402
from tlrec_edge.core.features import FeatureEncoder, TextSource  # noqa: E402
from tlrec_edge.runtime.cold_items import features_json  # noqa: E402

STORED = {
    "int8": Storage("int8", "int8", "int8", "int8"),
    "packed": Storage("int6", "int4", "int8", "int8"),
}


def write_all(folder: Path) -> list[Path]:
    """Write a bundle of each storage format, and one with both search indexes."""
    paths = [_write(folder / name, storage) for name, storage in STORED.items()]
    config = SynthConfig(20_000, dim=24, interest=8, wide=6, lists_beyond=0)
    return [*paths, synthesize(folder / "searched", config).path]


def _write(path: Path, storage: Storage) -> Path:
    """Write a bundle with its candidates' text vectors, whose encoder callers run themselves."""
    small = Small(candidates=150, d=48, r=16, taste=8, storage=storage, users=check_bits.USERS)
    rng = np.random.default_rng(5)
    base = bundles.encoder_features(rng)
    features = FeatureEncoder(
        base.text_columns,
        base.vocabulary,
        base.quantiles,
        base.text_table,
        text=TextSource("own", check_bits.WORDS),
    )
    arrays = bundles.tables(small, rng) | bundles.user_tables(small, rng)
    arrays |= {
        "text_table": features.text_table,
        "candidate_text": rng.normal(size=(small.candidates, 3)).astype(np.float16),
    }
    ids = small.item_ids()
    users = [user_key_hash(user, bundles.USER_KEY) for user in small.users]
    strings = {"item_ids": ids, "item_names": ids, "users": users}
    blobs = {
        "encoder.onnx": pooling_encoder(small.d, small.length, small.seed),
        "item_tower.onnx": bundles.item_tower(small.d, rng),
        "features.json": features_json(features),
    }
    write_bundle(path, bundles.manifest(small), arrays, strings, blobs)
    Bundle.open(path, verify="full")
    return path


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))

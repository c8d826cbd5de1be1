"""A score has the same bits alone, in a batch and in any order, whatever kernels BLAS uses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import bundles, check_bits
from helpers.bundles import Small
from tlrec_edge.bench.pooling_encoder import pooling_encoder
from tlrec_edge.bundle.format import Storage
from tlrec_edge.bundle.reader import Bundle, write_bundle
from tlrec_edge.core.features import FeatureEncoder, TextSource
from tlrec_edge.runtime.cold_items import features_json

SIMD = np.show_config(mode="dicts")["SIMD Extensions"]
AVX2 = {"AVX2", "X86_V3"} & {*SIMD["baseline"], *SIMD["found"]}
KERNELS = [None, "Nehalem", "Prescott", *(["Haswell"] if AVX2 else [])]
STORED = {
    "int8": Storage("int8", "int8", "int8", "int8"),
    "packed": Storage("int6", "int4", "int8", "int8"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("bits")
    return [write(place / name, storage) for name, storage in STORED.items()]


def write(path: Path, storage: Storage) -> Path:
    """Write a bundle with its candidates' text vectors, whose encoder callers run themselves."""
    small = Small(candidates=150, d=48, r=16, taste=8, storage=storage)
    rng = np.random.default_rng(5)
    base = bundles.encoder_features(rng)
    features = FeatureEncoder(
        base.text_columns,
        base.vocabulary,
        base.quantiles,
        base.text_table,
        text=TextSource("own", check_bits.WORDS),
    )
    arrays = bundles.tables(small, rng) | {
        "text_table": features.text_table,
        "candidate_text": rng.normal(size=(small.candidates, 3)).astype(np.float16),
    }
    ids = small.item_ids()
    strings = {"item_ids": ids, "item_names": ids}
    blobs = {
        "encoder.onnx": pooling_encoder(small.d, small.length, small.seed),
        "item_tower.onnx": bundles.item_tower(small.d, rng),
        "features.json": features_json(features),
    }
    write_bundle(path, bundles.manifest(small), arrays, strings, blobs)
    Bundle.open(path, verify="full")
    return path


@pytest.mark.parametrize("kernel", KERNELS)
def test_answers_have_the_same_bits_with_every_kernel(
    folders: list[Path], kernel: str | None
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    if kernel is not None:
        environment["OPENBLAS_CORETYPE"] = kernel
    command = [sys.executable, check_bits.__file__, *map(str, folders)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

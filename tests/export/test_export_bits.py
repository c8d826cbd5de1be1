"""Bundles exported on processors with other kernels serve the same scores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import export_bits
from helpers.kernels import KERNELS, with_kernel
from tlrec_edge import Recommender

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return the folder of each kernel's bundles, and what they hold."""
    found = {}
    for kernel in KERNELS:
        folder = tmp_path_factory.mktemp("kernel")
        command = [sys.executable, export_bits.__file__, str(folder)]
        environment = with_kernel(kernel, os.environ)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found[kernel] = folder, json.loads(done.stdout)
    return found


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_quantized_model_gives_the_same_bundle(
    exported: dict[str, tuple[Path, dict[str, Any]]], kernel: str
) -> None:
    expected, found = exported["unset"][1]["compressed"], exported[kernel][1]["compressed"]
    assert found["files"] == expected["files"]
    assert found["content_id"] == expected["content_id"]
    assert {"batch", "order"} <= set(found["gates"]["passed"])


@pytest.mark.parametrize("kernel", KERNELS)
def test_float32_tables_may_differ_and_say_that_they_are_not_checked(
    exported: dict[str, tuple[Path, dict[str, Any]]], kernel: str
) -> None:
    folders = [exported[name][0] / "auto" for name in ("unset", kernel)]
    assert {"batch", "order"} <= set(exported[kernel][1]["auto"]["gates"]["not_checked"])
    scores = []
    for folder in folders:
        with Recommender.open(folder) as rec:
            assert not rec.deterministic
            names = rec.recommend([], len(rec)).items
            scores.append(rec.score(list(names[:3]), sorted(names)))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)

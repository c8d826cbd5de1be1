"""The quickstart runs as printed, and recommends what fits the history."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from helpers.paths import EXAMPLES

EXAMPLE = EXAMPLES / "quickstart.py"


def test_the_quickstart_recommends_items_of_the_small_market(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    ids = [line.split()[0] for line in done.stdout.splitlines()]
    assert len(ids) == len(set(ids)) == 5
    assert all(name.startswith("de-") for name in ids)
    assert sum(name.startswith("de-tea-") for name in ids) >= 3, "the history is tea"
    assert not {"de-tea-3", "de-tea-7"} & set(ids), "the history itself is left out"
    assert not list(tmp_path.iterdir()), "it leaves nothing behind"


def test_the_quickstart_is_short() -> None:
    assert len(EXAMPLE.read_text("utf-8").splitlines()) <= 50

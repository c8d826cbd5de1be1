"""Without calls that only Linux has, the package imports, opens bundles and writes folders."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from helpers import bundles
from helpers.paths import ROOT
from tlrec_edge import Recommender

ELSEWHERE = """
import ctypes, os, sys
from pathlib import Path

class Library(ctypes.CDLL):
    def __getattr__(self, name):
        if name == "renameat2":
            raise AttributeError(name)
        return super().__getattr__(name)

ctypes.CDLL = Library
sys.modules["fcntl"] = None  # the module of flock
del os.posix_fallocate
os.supports_dir_fd = set()

folder = Path(sys.argv[1])
import tlrec_edge
from tlrec_edge.cli import main

def call(*arguments):
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        assert not end.code, arguments

with tlrec_edge.Recommender.open(folder / "bundle", verify="full") as rec:
    print(rec.score(["i3", "i70"], ["i1", "i2"]).tobytes().hex())
for _ in range(2):  # new, and over an older one
    call("synth", "--items", 50, "--dim", 8, "--out", folder / "synth")
    call("verify", folder / "synth")
    call("score", folder / "bundle", "--pairs", folder / "p.csv", "--out", folder / "o.csv")
    call("prepare", "--interactions", folder / "p.csv", "--out", folder / "dataset")
    call("adapt", folder / "dataset", "--mode", "scratch", "--epochs", 1, "--out", folder / "model")
    call("export", folder / "model", folder / "dataset", "--out", folder / "exported")
    call("verify", folder / "exported")
print(*sorted(path.name for path in folder.iterdir()))
"""


def test_everything_works_without_calls_that_only_linux_has(tmp_path: Path) -> None:
    bundles.build(tmp_path / "bundle")
    rows = [f"u{user},i{item}" for user in range(12) for item in range(user % 4, 9)]
    (tmp_path / "p.csv").write_text("\n".join(["user,item", *rows]) + "\n")
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    with Recommender.open(tmp_path / "bundle") as rec:
        assert first == rec.score(["i3", "i70"], ["i1", "i2"]).tobytes().hex()
    left = "bundle dataset dataset.cache exported model o.csv p.csv synth"
    assert last == left, "no unfinished folder is left"

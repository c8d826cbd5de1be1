"""Write a bundle for each hostile graph, for `check_hostile`: `hostile_bundles.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from helpers import bundles, hostile  # noqa: E402


def write_all(folder: Path) -> None:
    for number, (make, _) in enumerate(hostile.GRAPHS.values()):
        path = folder / f"{number:03}"
        bundles.build(path)
        (path / "encoder.onnx").chmod(0o644)
        for name in ("manifest.json", "manifest.sha256"):
            (path / name).chmod(0o644)
        bundles.replace_file(path, "encoder.onnx", make())


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))

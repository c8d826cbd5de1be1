"""Export a quantized model and an uncompressed one, and print what the bundles hold.

`test_export_bits` runs `export_bits.py FOLDER` in fresh processes with other kernels.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

from helpers.paths import ROOT  # noqa: E402
from tlrec_edge.bundle.reader import Bundle  # noqa: E402
from tlrec_edge.data.prepare import SplitPlan, prepare_tables  # noqa: E402
from tlrec_edge.export import export_bundle  # noqa: E402
from tlrec_edge.tabular.schema import Schema  # noqa: E402
from tlrec_edge.train import EdgeModel  # noqa: E402

MODELS = ROOT / "tests" / "data" / "models_0_1_0"


def main(folder: Path) -> None:
    log, items = (
        pd.read_csv(MODELS / f"{name}.csv", dtype=str) for name in ("interactions", "items")
    )
    schema, plan = Schema(features={"title": "text"}), SplitPlan(negatives=5)
    data = prepare_tables([log], [items], schema, plan).dataset
    found = {}
    for name in ("compressed", "auto"):
        export_bundle(EdgeModel.load(MODELS / name), data, folder / name)
        bundle = Bundle.open(folder / name, verify="full")
        found[name] = {
            "content_id": bundle.content_id,
            "files": {file: entry["sha256"] for file, entry in bundle.manifest["files"].items()},
            "gates": bundle.manifest["gates"],
        }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

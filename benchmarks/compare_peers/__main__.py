"""Compare tlrec-edge with its peers: ``python -m benchmarks.compare_peers FOLDER`` from the checkout.

Makes an environment in FOLDER/env with tlrec-edge (this checkout) and every peer, the data in FOLDER/data, measures all
rows there, and writes FOLDER/peers.md and FOLDER/peers.json. What is there already is used again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .install import ROOT, TORCH, install
from .rows import ROWS
from .turns import python_of


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare_peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where environment, data and results go")
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=list(ROWS), help="only these rows"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], help="only these contenders, beside tlrec-edge"
    )
    parser.add_argument("--small", type=int, default=100_000, help="items where a row says 100k")
    parser.add_argument("--large", type=int, default=1_000_000, help="items where a row says 1M")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="time for each task of each contender"
    )
    parser.add_argument(
        "--torch", default=TORCH, help="what pip is asked for first, options included"
    )
    parser.add_argument(
        "--here", action="store_true", help="use this Python; a peer it has not got is missing"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    given = parse(arguments)
    given.folder = given.folder.resolve()
    given.folder.mkdir(parents=True, exist_ok=True)
    reasons = given.folder / "absent.json"
    if given.here:
        return run(given, json.loads(reasons.read_text()) if reasons.is_file() else {})
    reasons.write_text(json.dumps(install(given.folder, given.torch, _say)))
    # From here on in the environment, which has what makes the data.
    command = [python_of(given.folder / "env"), "-m", __package__, *arguments, "--here"]
    return subprocess.run(command, cwd=ROOT).returncode


def run(given: argparse.Namespace, absent: dict[str, str]) -> int:
    """Measure and report; 1 where a contender was wrong."""
    from tlrec_edge.bench.machine import fingerprint
    from tlrec_edge.bench.noise import NoiseMeter

    from .make_data import Sizes, prepare
    from .measure import Bench
    from .report import markdown

    data, rows = given.folder / "data", {key: ROWS[key] for key in given.rows}
    needed = tuple(sorted({row.catalogue for row in rows.values()}))
    prepare(data, Sizes(given.small, given.large), needed, _say)
    bench = Bench(sys.executable, data, tuple(given.only), given.seconds, absent, _say)
    meter, load = NoiseMeter(), os.getloadavg()[0]
    found: dict[str, Any] = {}
    for key, row in rows.items():
        _say(f"{key}: {row.title}")
        found[key] = bench.measure(row)
    noise = meter.stop().to_json() | {"load": (load, os.getloadavg()[0])}
    results = {
        "machine": vars(fingerprint()),
        "noise": noise,
        "sizes": [given.small, given.large],
        "rows": found,
    }
    (given.folder / "peers.json").write_text(json.dumps(results, indent=2))
    text = markdown(results)
    (given.folder / "peers.md").write_text(text)
    print(text)
    wrong = {
        f"{key}, {name}": why for key, row in found.items() for name, why in row["wrong"].items()
    }
    for name, why in wrong.items():
        print(f"WRONG: {name}: {why}", file=sys.stderr)
    return int(bool(wrong))


def _say(step: str) -> None:
    print(step, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

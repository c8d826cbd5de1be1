"""Compare tlrec-edge with its peers: ``python -m benchmarks.compare_peers FOLDER``.

Run it from the checkout. It makes an environment in FOLDER/env with this checkout and every peer,
and the data in FOLDER/data, measures every row, and writes FOLDER/peers.md and FOLDER/peers.json.
A later run uses the environment and the data again.

With --before, an older version of tlrec-edge takes part, in an environment of its own in
FOLDER/before: is this checkout slower?
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .contenders import CONTENDERS
from .install import BEFORE, PEERS, ROOT, TORCH, before_environment, install, install_before
from .rows import ROWS, with_before
from .turns import Environment


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare_peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=Path, help="Folder for environments, data and results.")
    add("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="Measure only these rows.")
    add(
        "--only",
        nargs="+",
        choices=CONTENDERS,
        metavar="CONTENDER",
        default=[],
        help="Measure and install only these contenders next to tlrec-edge.",
    )
    add(
        "--before",
        metavar="WHEEL",
        help="Compare with an older tlrec-edge: a wheel, or what pip takes, as tlrec-edge==0.1.0.",
    )
    add("--small", type=int, default=100_000, help="Items of rows of 100k. (default: 100,000)")
    add("--large", type=int, default=1_000_000, help="Items of rows of 1M. (default: 1,000,000)")
    add("--seconds", type=float, default=4.0, help="Time for each task. (default: 4)")
    add(
        "--rounds",
        type=int,
        default=9,
        help="Pairs of fresh processes for the ratio to --before, 6 or more. (default: 9)",
    )
    add("--torch", default=TORCH, help=f"Words for `pip install` of torch. (default: {TORCH})")
    add("--here", action="store_true", help="Install nothing; use this Python and its packages.")
    options = parser.parse_args(arguments)
    if BEFORE in options.only and options.before is None:
        parser.error("--only before needs --before WHEEL")
    if options.rounds < 6:
        parser.error("--rounds must be at least 6: an interval at 95 % needs that many")
    return options


def main(arguments: list[str]) -> int:
    """Install, then measure in the environment, which has what makes the data."""
    options = parse(arguments)
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    reasons = options.folder / "absent.json"
    if options.here:
        return run(options, json.loads(reasons.read_text()) if reasons.is_file() else {})
    peers = [
        name
        for name in PEERS
        if not options.only or any(contender.startswith(name) for contender in options.only)
    ]
    absent = install(options.folder, options.torch, peers, _progress)
    if options.before is not None:
        absent |= install_before(options.folder, options.before, _progress)
    reasons.write_text(json.dumps(absent))
    python = str(options.folder / "env" / "bin" / "python")
    command = [python, "-m", str(__package__), *arguments, "--here"]
    return subprocess.run(command, cwd=ROOT).returncode


def run(options: argparse.Namespace, absent: dict[str, str]) -> int:
    """Measure and report; return 1 if a contender's answers are wrong."""
    from tlrec_edge.bench.machine import fingerprint
    from tlrec_edge.bench.noise import NoiseMeter

    from .data import Sizes
    from .make_data import prepare
    from .measure import Bench
    from .report import markdown

    data, rows = options.folder / "data", {key: ROWS[key] for key in options.rows}
    environments = {"": Environment(sys.executable, ROOT)}
    if options.before is not None:
        rows = {key: with_before(row) for key, row in rows.items()}
        if older := before_environment(options.folder):
            environments[BEFORE] = older
        else:
            absent.setdefault(BEFORE, f"there is no {BEFORE}/bin/python; run without --here")
    catalogues = tuple(sorted({row.catalogue for row in rows.values()}))
    prepare(data, Sizes(options.small, options.large), catalogues, _progress)
    bench = Bench(
        data,
        environments,
        tuple(options.only),
        options.seconds,
        options.rounds,
        absent,
        _progress,
    )
    meter, load = NoiseMeter(), os.getloadavg()[0]
    measured: dict[str, Any] = {}
    for key, row in rows.items():
        _progress(f"{key}: {row.title}")
        measured[key] = bench.measure(row)
    noise = meter.stop().to_json() | {"load": (load, os.getloadavg()[0])}
    results = {
        "machine": vars(fingerprint()),
        "noise": noise,
        "sizes": [options.small, options.large],
        "before": options.before and Path(options.before).name,
        "rows": measured,
    }
    (options.folder / "peers.json").write_text(json.dumps(results, indent=2))
    text = markdown(results)
    (options.folder / "peers.md").write_text(text)
    sys.stdout.write(text)
    wrong = [
        f"WRONG: {key}, {name}: {why}"
        for key, row in measured.items()
        for name, why in row["wrong"].items()
    ]
    for line in wrong:
        _progress(line)
    return int(bool(wrong))


def _progress(step: str) -> None:
    print(step, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Run the pipeline on synthetic data of one size; print seconds and peak memory of each step.

python benchmarks/scale/measure.py --interactions 1000000 --items 100000 --out run/

Needs tlrec-edge[build].
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent


def steps(out: Path, given: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the command of each step."""
    made, data = out / "tables", str(out / "dataset")
    size = [
        "--interactions",
        str(given.interactions),
        "--items",
        str(given.items),
        "--format",
        given.format,
    ]
    edge = [str(Path(sys.executable).with_name("tlrec-edge"))]
    tables = [
        "--interactions",
        str(made / f"log.{given.format}"),
        "--items",
        str(made / f"items.{given.format}"),
    ]
    yield "generate", [sys.executable, str(HERE / "make_data.py"), *size, "--out", str(made)]
    yield "prepare", [*edge, "prepare", *tables, "--out", data]
    source, model = str(out / "source"), str(out / "model")
    yield "pretrain", [*edge, "pretrain", data, "--domains", "old", "--out", source]
    tune = ["--domain", "new", "--from", source, "--mode", "finetune", "--out", model]
    yield "adapt", [*edge, "adapt", data, *tune]
    yield "evaluate", [*edge, "evaluate", model, data, "--domain", "new"]
    yield "export", [*edge, "export", model, data, "--out", str(out / "bundle")]


def measure(name: str, command: list[str], log: Path) -> dict[str, float | str]:
    """Run a command in its own process, with its output in a file; GiB: largest resident set."""
    since = time.monotonic()
    with log.open("w") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{name} failed ({child.returncode}), see {log}:\n{log.read_text()[-2000:]}")
    seconds = time.monotonic() - since
    gib, cpu = used.ru_maxrss / 2**20, used.ru_utime + used.ru_stime
    return {"step": name, "seconds": round(seconds, 1), "cpu": round(cpu, 1), "GiB": round(gib, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv")
    parser.add_argument(
        "--only", action="append", help="Name of a step; repeatable. All of them without."
    )
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    print(f"{given.interactions:,} interactions, {given.items:,} items")
    print(f"{'step':10}{'seconds':>9}{'cpu':>9}{'GiB':>7}")
    for name, command in steps(given.out, given):
        if given.only and name not in given.only:
            continue
        found = measure(name, command, given.out / f"{name}.log")
        print(
            f"{found['step']:10}{found['seconds']:>9}{found['cpu']:>9}{found['GiB']:>7}", flush=True
        )
        with (given.out / "measured.jsonl").open("a") as file:
            json.dump({"interactions": given.interactions, "items": given.items, **found}, file)
            file.write("\n")


if __name__ == "__main__":
    main()

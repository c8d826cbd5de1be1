"""Command `synth`: a bundle of any size with realistic shape."""

from __future__ import annotations

import re
import time
from pathlib import Path

import click

from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize
from tlrec_edge.bundle.format import WIDE_KINDS
from tlrec_edge.cli.common import out_option
from tlrec_edge.core.packing import WRITTEN
from tlrec_edge.errors import DataError
from tlrec_edge.search.fit_ivf import IVF_MIN_CANDIDATES

_LARGE = 200_000
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def count(value: str | int) -> int:
    """Read a whole number, also written 50k or 1M."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([km]?)", str(value).strip().lower())
    if found is None:
        raise click.BadParameter(f"{value!r} is no count; write 50000, 50k or 1M")
    return int(float(found[1]) * _UNITS[found[2]])


@click.command()
@click.option("--items", type=count, required=True, help="Number of candidates: 50000, 50k or 1M.")
@click.option("--dim", type=int, default=64, show_default=True, help="Width of the deep vectors.")
@click.option(
    "--interest", type=int, default=16, show_default=True, help="Width of the interest block."
)
@click.option(
    "--wide", type=int, default=20, show_default=True, help="Most item-item weights a row."
)
@click.option(
    "--history-only", type=count, default=0, show_default=True, help="Items that are no candidates."
)
@click.option(
    "--tables", type=click.Choice(WRITTEN), default="int8", show_default=True, help="Row format."
)
@click.option(
    "--weights",
    type=click.Choice(WIDE_KINDS),
    default="float32",
    show_default=True,
    help="Format of wide weights.",
)
@click.option(
    "--popularity",
    type=float,
    default=0.15,
    show_default=True,
    help="Effect of log popularity; 0: no item bias.",
)
@click.option(
    "--lists-beyond",
    type=count,
    default=IVF_MIN_CANDIDATES,
    show_default=True,
    help="Candidates beyond which lists are searched.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every random number.")
@out_option
def synth(
    items: int,
    dim: int,
    interest: int,
    wide: int,
    history_only: int,
    tables: str,
    weights: str,
    popularity: float,
    lists_beyond: int,
    seed: int,
    out: Path,
) -> None:
    """Write a bundle of random, clustered vectors: for load tests, and for trying the runtime without a model."""
    try:
        config = SynthConfig(
            items,
            dim,
            interest,
            wide=wide,
            history_only=history_only,
            tables=tables,
            weights=weights,
            popularity=popularity,
            lists_beyond=lists_beyond,
            seed=seed,
        )
    except ValueError as error:
        raise DataError(str(error)) from error
    started = time.monotonic()
    progress = (
        (lambda step: click.echo(f"writing {step}", err=True))
        if config.rows >= _LARGE
        else (lambda step: None)
    )
    bundle = synthesize(out, config, progress)
    size = sum(entry["size"] for entry in bundle.manifest["files"].values())
    click.echo(
        f"{items:,} items, {size:,} bytes in {time.monotonic() - started:.1f} s: {out}", err=True
    )

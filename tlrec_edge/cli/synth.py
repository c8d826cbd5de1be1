"""The command synth: a bundle of random vectors, of any size."""

from __future__ import annotations

import re
import time
from pathlib import Path

import click

from tlrec_edge.bench.synth_config import SynthConfig
from tlrec_edge.bench.synthetic import synthesize
from tlrec_edge.bundle.format import WIDE_KINDS
from tlrec_edge.cli.common import out_option, seed_option
from tlrec_edge.cli.output import say
from tlrec_edge.cli.progress import quiet_option, say_progress
from tlrec_edge.core.counts import counted
from tlrec_edge.core.packing import WRITTEN
from tlrec_edge.errors import DataError
from tlrec_edge.search.fit_ivf import IVF_MIN_CANDIDATES

_SLOW_ROWS = 200_000
"""Rows from which on progress is shown."""
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


def count(value: str | int) -> int:
    """Read an integer, which may be written 50k or 1M."""
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)([km]?)", str(value).strip().lower(), re.A)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a valid count; use 50000, 50k or 1M")
    return int(float(found[1]) * _UNITS[found[2]])


def _warn_renamed(context: click.Context, option: click.Parameter, given: int | None) -> int | None:
    if given is not None:
        say(f"{option.opts[0]} is now --ivf-beyond; the old name goes in 0.3", err=True)
    return given


@click.command(short_help="Write a bundle of random vectors.")
@click.option("--items", type=count, required=True, help="Number of candidates: 50000, 50k or 1M.")
@click.option("--dim", type=int, default=64, show_default=True, help="Width of the item vectors.")
@click.option(
    "--interest", type=int, default=16, show_default=True, help="Width of the interest vectors."
)
@click.option(
    "--wide",
    type=int,
    default=20,
    show_default=True,
    help="Largest number of item-item weights per item.",
)
@click.option(
    "--history-only",
    type=count,
    default=0,
    show_default=True,
    help="Items that only occur in histories.",
)
@click.option(
    "--tables",
    type=click.Choice(WRITTEN),
    default="int8",
    show_default=True,
    help="Storage format of item vectors.",
)
@click.option(
    "--weights",
    type=click.Choice(WIDE_KINDS),
    default="float32",
    show_default=True,
    help="Storage format of item-item weights.",
)
@click.option(
    "--popularity",
    type=float,
    default=0.15,
    show_default=True,
    help="Weight of log popularity in the item bias; 0: no bias.",
)
@click.option("--lists-beyond", type=count, hidden=True, callback=_warn_renamed, help="Old name.")
@click.option(
    "--ivf-beyond",
    type=count,
    default=IVF_MIN_CANDIDATES,
    show_default=True,
    help="Number of candidates above which the bundle has an IVF index.",
)
@seed_option
@out_option
@quiet_option
def synth(
    items: int,
    dim: int,
    interest: int,
    wide: int,
    history_only: int,
    tables: str,
    weights: str,
    popularity: float,
    lists_beyond: int | None,
    ivf_beyond: int,
    seed: int,
    out: Path,
) -> None:
    """Write a bundle of random, clustered vectors, for load tests or to try serving."""
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
            lists_beyond=ivf_beyond if lists_beyond is None else lists_beyond,
            seed=seed,
        )
    except ValueError as error:
        raise DataError(str(error)) from error
    started = time.monotonic()
    bundle = synthesize(out, config, _show_step if config.rows >= _SLOW_ROWS else _ignore)
    size = sum(entry["size"] for entry in bundle.manifest["files"].values())
    seconds = time.monotonic() - started
    say(f"{counted(items, 'item')}, {size:,} bytes in {seconds:.1f} s: {out}", err=True)


def _show_step(step: str) -> None:
    say_progress(f"writing {step}")


def _ignore(step: str) -> None:
    pass

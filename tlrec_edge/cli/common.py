"""What several commands share: options, domains by name, progress on stderr, tables."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tlrec_edge.errors import DataError

if TYPE_CHECKING:
    from tlrec_edge.data.dataset import Dataset


def out_folder(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    """Refuse, before any work, a folder that cannot be made. Raises DataError."""
    return _writable(value, next(filter(os.path.lexists, value.absolute().parents), value))


def out_file(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """Refuse, before any work, a file that cannot be written. Raises DataError."""
    if value is None:
        return None
    if value.is_dir():
        raise DataError(f"{value} is a folder; give the name of a file to write")
    return _writable(value, value.absolute().parent)


def _writable(path: Path, parent: Path) -> Path:
    if not parent.is_dir():
        raise DataError(f"{path} cannot be written: {parent} is not a folder; choose another --out")
    try:  # rights alone do not tell: of a read-only or virtual file system, of a full disk
        os.rmdir(tempfile.mkdtemp(prefix=".tlrec-edge.", dir=parent))
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {parent}: {error.strerror}; choose another --out"
        ) from error
    return path


def _has_no_effect(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        name = option.opts[0]
        click.echo(
            f"{name} has no effect: the faiss index was removed in 0.2; drop the option", err=True
        )


dataset_argument = click.argument("dataset", type=click.Path(path_type=Path))
domain_option = click.option(
    "--domain", required=True, help="Target: one domain, several as A,B, or '!S' for all but S."
)
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    callback=out_folder,
    help="Folder to write.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
speed_option = click.option(
    "--speed",
    is_flag=True,
    hidden=True,
    expose_value=False,
    callback=_has_no_effect,
    help="Has no effect.",
)
PROGRESS_INTERVAL = 2.0


def open_dataset(path: Path) -> Dataset:
    """Load a dataset folder."""
    from tlrec_edge.data.store import load_dataset

    return load_dataset(path)


def other_data(made: Path, dataset_sha256: str | None, dataset: Dataset) -> str:
    """Return a sentence if a model or bundle was made from other data, by its own account; else nothing."""
    from tlrec_edge.data.store import dataset_hash

    if dataset_sha256 in (None, dataset_hash(dataset)):
        return ""
    return f"{made} was made from other data than this dataset's, under the same split"


def with_candidates(dataset: Dataset, file: Path | None) -> Dataset:
    """Return the dataset with the test rows of a file, where one is given."""
    if file is None:
        return dataset
    from dataclasses import replace

    from tlrec_edge.data.eval_rows import read_eval_rows

    return replace(dataset, split=replace(dataset.split, rows=read_eval_rows(file, dataset)))


def parse_domains(text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Read ``A,B`` or ``!A,B`` (all but these); a domain whose name holds a comma is found whole.

    Raises DataError that lists the known domains.
    """
    negated = text.startswith("!")
    body = text[1:] if negated else text
    names = [body] if body in known else [part.strip() for part in body.split(",") if part.strip()]
    for name in names:
        if name not in known:
            raise DataError(f"unknown domain {name!r}; known: {', '.join(known[:40])}")
    chosen = tuple(name for name in known if (name in names) != negated)
    if not chosen:
        raise DataError(f"--domain {text!r} names no domain; known: {', '.join(known[:40])}")
    return chosen


@contextmanager
def show_progress(what: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that says a step on stderr: in place on a terminal, a line every two seconds elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(f"{what} ...") as status:
            yield lambda step: status.update(f"{what}: {step}")
        return
    last = time.monotonic()

    def progress(step: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_INTERVAL:
            click.echo(f"{what}: {step}", err=True)
            last = time.monotonic()

    yield progress


def figure(value: float | None) -> str:
    """Format a figure; what was not measured is a dash."""
    return "-" if value is None else f"{value:.4f}"


def echo_table(head: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    """Print a table; numbers are set flush right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for i, name in enumerate(head):
        table.add_column(name, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    Console(width=console.width if console.is_terminal else 160).print(table)

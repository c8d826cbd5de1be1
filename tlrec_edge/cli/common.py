"""What several commands share: arguments, options and checks."""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tlrec_edge.bundle.ids import read_user_key
from tlrec_edge.cli import CHECKPOINT
from tlrec_edge.cli.output import say
from tlrec_edge.cli.progress import say_progress
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.roles import suggestion
from tlrec_edge.tabular.writer import check_ending

if TYPE_CHECKING:
    from tlrec_edge.data.dataset import Dataset

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
"""A decorator of a command."""
LARGEST = 2**32 - 1
"""The largest integer of an option; every generator of random numbers takes it as a seed."""
_SHOWN_DOMAINS = 40
_MINUTES_PER_UNIT = {"s": 1 / 60, "": 1.0, "m": 1.0, "h": 60.0}


class SectionedCommand(click.Command):
    """A command whose `--help` sorts its options under headings.

    ``sections``: names of parameters by heading; the remaining options come last, under "Options".
    """

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the sections in their order."""
        shown = {
            parameter.name: record
            for parameter in self.get_params(ctx)
            if (record := parameter.get_help_record(ctx)) is not None
        }
        for heading, names in self.sections.items():
            with formatter.section(heading):
                formatter.write_dl([shown.pop(name) for name in names])
        with formatter.section("Options"):
            formatter.write_dl(list(shown.values()))


class PathType(click.Path):
    """A path that is not empty: "" would be the current folder."""

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path."""
        if not os.fspath(value) or "\0" in os.fspath(value):
            self.fail("the path is empty", param, ctx)
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            path.resolve()
        except RuntimeError:
            self.fail(f"{os.fspath(path)!r:.60} is a link to itself", param, ctx)
        return path


class Integer(click.IntRange):
    """An integer in a range that ends at ``LARGEST``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the integer."""
        found = super().convert(value, param, ctx)
        if found > LARGEST:
            self.fail(f"{value!r:.60} is above {LARGEST:,}", param, ctx)
        return found


class Number(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r:.60} must be a finite number", param, ctx)
        return found


class Minutes(click.types.FloatParamType):
    """A duration, such as 90s, 2m, 1h or a number of minutes, in minutes."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the minutes."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([smh]?)", value.strip(), re.ASCII)
        minutes = float(found[1]) * _MINUTES_PER_UNIT[found[2]] if found else 0.0
        if not minutes:
            example = "write 90s, 2m, 1h or a number of minutes"
            self.fail(f"{value!r:.60} is not a valid duration: {example}", param, ctx)
        return minutes


def combine_options(*options: Decorator) -> Decorator:
    """Return one decorator that adds several options, in this order."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def out_folder(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    """Check before any work that a folder can be made. Raises DataError."""
    if value is None:
        return None
    if value.exists() and not value.is_dir():
        raise DataError(f"{value} is a file: pass the name of a folder to write")
    parent = next(filter(os.path.lexists, value.absolute().parents), value)
    return _check_writable(value, parent, parameter)


def out_file(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    """Check before any work that a file can be written. Raises DataError."""
    if value is None:
        return None
    if value.is_dir():
        raise DataError(f"{value} is a folder: pass the name of a file to write")
    if value.exists() and not value.is_file():  # a pipe or a terminal
        return value
    value = value.resolve() if value.is_symlink() else value  # a link stays a link
    return _check_writable(value, value.absolute().parent, parameter)


def out_table(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> Path | None:
    """Check before any work that a table can be written. Raises DataError."""
    path = out_file(context, parameter, value)
    if path is not None:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is a pipe or a device: pass the name of a file to write")
        check_ending(path)
    return path


def key_in_file(
    context: click.Context, parameter: click.Parameter, value: Path | None
) -> str | None:
    """Return the key in a file. Raises DataError if it holds none."""
    return None if value is None else read_user_key(value)


def check_inputs(out: Path | None, *inputs: Path | None) -> None:
    """Refuse an output file that would replace a table that the command reads."""
    for path in inputs:
        if out is not None and path is not None and out.resolve() == path.resolve():
            raise click.UsageError(f"--out is {out}, which is read: choose another file")


def _check_writable(path: Path, parent: Path, parameter: click.Parameter) -> Path:
    remedy = f"choose another {parameter.opts[0]}"
    try:
        os.fspath(path).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{os.fspath(path)!r} is not a name in UTF-8; {remedy}") from error
    if not parent.is_dir():
        raise DataError(f"{path} cannot be written: {parent} is not a folder; {remedy}")
    try:  # permissions do not show whether a file system is read-only or full
        os.rmdir(tempfile.mkdtemp(prefix=".tlrec-edge.", dir=parent))
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {parent}: {error.strerror}; {remedy}"
        ) from error
    return path


def check_checkpoint(out: Path, checkpoint: Path | None) -> None:
    """Refuse a checkpoint folder inside the output folder, which is replaced at the end.

    An interrupt then names the checkpoint.
    """
    if checkpoint is None:
        return
    click.get_current_context().meta[CHECKPOINT] = checkpoint
    folder = checkpoint.resolve()
    if out.resolve() in (folder, *folder.parents):
        raise click.UsageError("--checkpoint must not be --out or a folder inside it")


def _warn_no_effect(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        say(
            f"{option.opts[0]} has no effect: the faiss index was removed in 0.2; drop the option",
            err=True,
        )


dataset_argument = click.argument("dataset", type=PathType())
bundle_argument = click.argument("bundle", type=PathType())
domain_option = click.option(
    "--domain",
    help="Target: one domain, several as A,B, or '!S' for all except S.  [default: the model's, or "
    "the only one]",
)
domains_help = "Source: domains as A,B, or '!T' for all except T."
out_option = click.option(
    "--out",
    type=PathType(),
    required=True,
    callback=out_folder,
    help="Folder to write.",
)
cache_option = click.option(
    "--cache/--no-cache",
    default=True,
    help="Keep baselines and item-item weights in DATASET.cache, so that no command fits them a "
    "second time.  [default: --cache]",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON instead of tables and text."
)
speed_option = click.option(
    "--speed",
    is_flag=True,
    hidden=True,
    expose_value=False,
    callback=_warn_no_effect,
    help="Has no effect.",
)
seed_option = click.option(
    "--seed",
    type=Integer(0),
    default=0,
    show_default=True,
    help="Seed of every random choice.",
)
inherited_seed_option = click.option(
    "--seed",
    type=Integer(0),
    help="Seed of every random choice.  [default: the source model's, else 0]",
)


def open_dataset(path: Path, cache: bool = False) -> Dataset:
    """Load a dataset folder, with its cache of results if it may be used. Raises DataError."""
    from tlrec_edge.data.store import load_dataset

    return load_dataset(path, cache)


def other_data_note(path: Path, dataset_sha256: str | None, dataset: Dataset) -> str:
    """Return a sentence if a model or bundle records that it was made from other data, else ""."""
    from tlrec_edge.data.store import dataset_hash

    if dataset_sha256 in (None, dataset_hash(dataset)):
        return ""
    return f"{path} was made from other data than this dataset, with the same split"


def with_candidates(dataset: Dataset, file: Path | None, schema: Path | None = None) -> Dataset:
    """Return the dataset with the test rows of a file, or the dataset itself without a file.

    ``schema`` is a schema file that names the file's columns; None: the dataset's schema does.
    """
    if file is None:
        return dataset
    from tlrec_edge.data.eval_rows import with_eval_rows
    from tlrec_edge.tabular.schema import load_schema

    return with_eval_rows(dataset, file, load_schema(schema) if schema else None)


def parse_domains(
    text: str | None, known: Sequence[str], option: str = "--domain"
) -> tuple[str, ...]:
    """Read ``A,B`` or ``!A,B`` (all except these). A known name may itself contain a comma.

    Without a text, the only known domain is meant. ``option`` is the option that has the text.

    Raises DataError if a domain is unknown or none is left, or if there are several and none is
    chosen; the message lists the known ones.
    """
    if text is None:
        if len(known) > 1:
            raise DataError(
                f"the dataset has {len(known)} domains: choose with {option}; known: "
                f"{', '.join(known[:_SHOWN_DOMAINS])}"
            )
        return tuple(known)
    negated = text.startswith("!")
    body = text[1:] if negated else text
    names = [body] if body in known else [part.strip() for part in body.split(",") if part.strip()]
    examples = ", ".join(known[:_SHOWN_DOMAINS])
    for name in names:
        if name not in known:
            raise DataError(
                f"unknown domain {name!r:.80}; known: {examples}{suggestion(name, known)}"
            )
    chosen = tuple(name for name in known if (name in names) != negated)
    if not chosen:
        raise DataError(f"{text!r} selects no domain; known: {examples}")
    return chosen


def announce_if_slow(step: str, size: int, limit: int) -> None:
    """Write to stderr what is being done if it takes long."""
    if size > limit:
        say_progress(f"{step} {size:,} bytes")

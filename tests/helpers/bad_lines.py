"""Bad command lines: every command with one argument that cannot be right, chosen by a seed."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from helpers import bundles
from helpers.commands import ok
from helpers.paths import ROOT
from tlrec_edge.cli import COMMANDS, main
from tlrec_edge.cli.common import PathType

DOMAIN = "small"
MODELS = ROOT / "tests" / "data" / "models_0_1_0"
NUMBERS = [
    *("-1", "0", "nan", "inf", "-inf", "1e400", "1e-400", "", " ", "abc", "0x10", "1_0", "１２"),
    *("9" * 20, "9" * 400, "9" * 5000, "-" + "9" * 400, "1.5.2", "--", "\x1b[31m1", "4294967296"),
]
TEXTS = [
    *("", " ", "nowhere", "!", "!small,big", ",", "a,b", "\x1b]0;title\x07", "[red]x[/red]", "x=y"),
    *(
        "x" * 100_000,
        "\udcff",
        "🛒",
        "\n",
        "ndcg>=",
        "p99<=0",
        "9" * 5000,
        "https://[",
        "json:loads",
    ),
    *("view=nan", "view=-1", "2024-13-45", "9999999-01-01", "\u202egnp", "a:b:c", "../x", "-5 MB"),
]


@dataclass(frozen=True)
class Inputs:
    """Sound inputs of the commands, and a folder for bad ones."""

    bundle: Path
    dataset: Path
    model: Path
    pairs: Path
    bad: Path
    out: Path

    @classmethod
    def make(cls, folder: Path) -> Inputs:
        """Write a bundle, a dataset with the model of it, and a table; none takes training."""
        bundles.build(folder / "bundle", users=["ann"])
        tables = ("--interactions", MODELS / "interactions.csv", "--items", MODELS / "items.csv")
        ok("prepare", *tables, "--out", folder / "dataset")
        shutil.copytree(MODELS / "source", folder / "model")
        (folder / "pairs.csv").write_text("user,item\nann,i1\nbob,i2\n", "utf-8")
        (folder / "bad").mkdir()
        (folder / "out").mkdir()
        return cls(
            *(folder / name for name in ("bundle", "dataset", "model", "pairs.csv", "bad", "out"))
        )

    def sound(self, name: str) -> list[str]:
        """Return the arguments of a short run of a command.

        If a run would train or measure, one argument names a missing file, so that it ends soon.
        """
        pairs, nothing = str(self.pairs), str(self.bad / "nothing")
        bundle, dataset, model = map(str, (self.bundle, self.dataset, self.model))
        to_file, to_folder = ["--out", str(self.out / "new.csv")], ["--out", str(self.out / "new")]
        target = ["--domain", DOMAIN]
        lines = {
            "prepare": ["--interactions", pairs, *to_folder],
            "inspect": [bundle],
            "verify": [bundle],
            "score": [bundle, "--pairs", pairs, *to_file],
            "recommend": [bundle, "--history", "i1,i2"],
            "similar": [bundle, "i1"],
            "synth": ["--items", "50", "--dim", "8", *to_folder],
            "demo": ["--out", pairs],
            "plan": ["--items", "1", "--qps", "1", "--p99", "5ms", "--from", pairs],
            "bench": [bundle, "--replay", nothing],
            "pretrain": [dataset, "--domains", DOMAIN, *to_folder, "--text", "nothing"],
            "adapt": [dataset, *target, *to_folder, "--from", nothing],
            "evaluate": [model, dataset, *target, "--against", nothing],
            "crossval": [dataset, *target, "--from", nothing],
            "study": [dataset, *target, "--only", "nothing"],
            "curve": [dataset, *target, "--from", nothing, "--out", str(self.out / "new.html")],
            "compress": [model, dataset, *target, *to_folder],
            "export": [model, dataset, *target, *to_folder],
        }
        return lines[name]


def write(content: bytes) -> Callable[[Path], None]:
    """Return a function that writes a file."""

    def make(path: Path) -> None:
        path.write_bytes(content)

    return make


def unreadable(path: Path) -> None:
    path.write_bytes(b"user,item\n")
    path.chmod(0)


def folder_of(content: bytes) -> Callable[[Path], None]:
    """Return a function that makes a folder with a file of each name that a command looks for."""

    def make(path: Path) -> None:
        path.mkdir()
        for name in ("manifest.json", "model.json", "dataset.json", "arrays.npz"):
            (path / name).write_bytes(content)

    return make


def folder_of_pipes(path: Path) -> None:
    path.mkdir()
    for name in ("a.csv", "part-0.parquet", "manifest.json", "model.json", "dataset.json"):
        os.mkfifo(path / name)


BAD_FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "empty": write(b""),
    "junk": write(np.random.default_rng(0).bytes(3000)),
    "nulls": write(bytes(5000)),
    "utf-16": write("user,item\nä,b\n".encode("utf-16")),
    "one long line": write(b"a," * 200_000),
    "header only": write(b"user,item\n"),
    "open quote": write(b'user,item\n"ann,i1\n'),
    "codes": write(b"user,item\x1b[31m\n\x1b]0;x\x07,\x9b1m\n"),
    "codes in a column": write(b"\x1b[2Juser,[red]item\nann,i1\n"),
    "deep json": write(b"[" * 100_000),
    "deep objects": write(b'{"a":' * 100_000),
    "deep toml": write(b"a = " + b"[" * 100_000),
    "other json": write(b'{"format": "\\ud800", "files": []}'),
    "json of a number": write(b"1e999"),
    "json of digits": write(b'{"user": 1, "item": ' + b"9" * 5000 + b"}"),
    "toml": write(b"[interactions]\nuser = 3\n[x]\n"),
    "cut gzip": write(b"\x1f\x8b\x08\x00\x00"),
    "cut bzip": write(b"BZh91AY"),
    "cut parquet": write(b"PAR1" + bytes(40) + b"PAR1"),
    "loop": lambda path: path.symlink_to(path),
    "dangling": lambda path: path.symlink_to(path.parent / "nothing"),
    "pipe": lambda path: os.mkfifo(path),
    "device": lambda path: path.symlink_to("/dev/null"),
    "unreadable": unreadable,
    "folder of junk": folder_of(b"junk"),
    "folder of deep json": folder_of(b"[" * 100_000),
    "folder of no objects": folder_of(b'{"format": 3, "files": 7}'),
    "folder of pipes": folder_of_pipes,
}
NAMES = [
    *("x", "x.csv", "x.csv.gz", "x.parquet", "x.json", "x.toml", "x.html"),
    *("\udcff.csv", "[red]x", "\x1b[31mx", "x" * 300, "..", "-x", "x\ny"),
]


def bad_path(inputs: Inputs, rng: np.random.Generator) -> str:
    """Make a bad file or folder, and return its path."""
    if rng.random() < 0.1:
        return str(rng.choice(["", "/dev/null/x", "/proc/self/mem", "~", "."]))
    place = inputs.bad / str(len(os.listdir(inputs.bad)))
    place.mkdir()
    path = place / NAMES[rng.integers(len(NAMES))]
    kind = list(BAD_FILES)[rng.integers(len(BAD_FILES))]
    with suppress(OSError):  # a name that no file can have is bad enough
        BAD_FILES[kind](path)
    return str(path)


def bad_value(parameter: click.Parameter, inputs: Inputs, rng: np.random.Generator) -> str:
    kind = parameter.type
    if isinstance(kind, PathType):
        return bad_path(inputs, rng)
    values = TEXTS
    if isinstance(kind, click.IntRange | click.FloatRange) or rng.random() < 0.5:
        values = NUMBERS
    return values[rng.integers(len(values))]


def line(inputs: Inputs, rng: np.random.Generator) -> list[str]:
    """Return a command with one bad argument. No such line starts long work."""
    name = list(COMMANDS)[rng.integers(len(COMMANDS))]
    command = main.get_command(click.Context(main), name)
    assert command is not None
    valued = [p for p in command.params if not getattr(p, "is_flag", False)]
    chosen = valued[rng.integers(len(valued))]
    value = bad_value(chosen, inputs, rng)
    if name == "demo" and chosen.name == "out":
        value = str(inputs.pairs / "x")  # with a folder that can be written the demo would begin
    return [name, *with_argument(inputs.sound(name), chosen, value, rng)]


def with_argument(
    arguments: Sequence[str], parameter: click.Parameter, value: str, rng: np.random.Generator
) -> list[str]:
    """Return arguments with another value of one, or with one more, or without it."""
    if not isinstance(parameter, click.Option):
        at = int(rng.integers(len(arguments) + 1))
        return [*arguments[:at], value, *arguments[at + 1 :]]
    option = parameter.opts[0]
    if option in arguments:
        at = arguments.index(option)
        return [*arguments[:at], option, value, *arguments[at + 2 :]]
    values = [value] * parameter.nargs
    return [*arguments, option, *values]


def files_below(folder: Path) -> Iterator[Path]:
    """Yield what lies in a folder, also while a command makes and removes folders in it.

    Unlike `Path.rglob`, `os.walk` passes over a folder that has gone since it was listed.
    """
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)


@contextmanager
def writers(folder: Path) -> Iterator[None]:
    """Give every reader of a pipe in a folder nothing to read, so that it does not wait."""
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            for pipe in files_below(folder):
                if pipe.is_fifo():
                    with suppress(OSError):  # nobody reads it
                        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            time.sleep(0.01)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()

"""Folders are written completely or not at all, and never over files of the user."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from helpers import bundles, synthetic
from helpers.commands import refused
from tlrec_edge import Recommender
from tlrec_edge.data.store import load_dataset, save_dataset
from tlrec_edge.errors import BundleError, DataError, ModelError, TlrecError
from tlrec_edge.train import EdgeModel

WEB_APP = {"name": "Shop", "manifest_version": 3, "icons": {"48": "icon.png"}}

QUICK = replace(synthetic.CONFIG, epochs=3, pretrain_epochs=4)


class Writer(NamedTuple):
    """How to write version 0 or 1 of a kind of folder, and how to read the version."""

    marker: str
    error: type[TlrecError]
    write: Callable[[Path, int], object]
    read: Callable[[Path], int]
    commands: tuple[str, ...]


def write_dataset(path: Path, version: int) -> None:
    save_dataset(synthetic.dataset().replace(source=str(version)), path)


def write_model(path: Path, version: int) -> None:
    synthetic.model().with_provenance(align={"version": float(version)}).save(path)


def write_bundle(path: Path, version: int) -> None:
    bundles.build(path, candidates=60 + version)


def read_bundle(path: Path) -> int:
    with Recommender.open(path, verify="full"):
        return len(np.load(path / "candidate_bias.npy")) - 60


WRITERS = {
    "dataset": Writer(
        "dataset.json",
        DataError,
        write_dataset,
        lambda path: int(load_dataset(path).source),
        ("prepare --interactions $W/log.csv --out $OUT",),
    ),
    "model": Writer(
        "model.json",
        ModelError,
        write_model,
        lambda path: int(EdgeModel.load(path).provenance.align["version"]),
        (
            "pretrain $W/ds --domains big --out $OUT",
            "adapt $W/ds --domain small --out $OUT",
            "compress $W/model $W/ds --domain small --out $OUT",
        ),
    ),
    "bundle": Writer(
        "manifest.json",
        BundleError,
        write_bundle,
        read_bundle,
        ("synth --items 50 --dim 8 --out $OUT", "export $W/model $W/ds --domain small --out $OUT"),
    ),
}
every_kind = pytest.mark.parametrize("kind", WRITERS)
every_command = pytest.mark.parametrize(
    ("kind", "command"),
    [(kind, command) for kind, writer in WRITERS.items() for command in writer.commands],
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("work")
    synthetic.interactions().to_csv(path / "log.csv", index=False)
    write_dataset(path / "ds", 0)
    write_model(path / "model", 0)
    return path


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


@every_command
def test_a_foreign_folder_with_the_same_marker_is_not_replaced(
    work: Path, tmp_path: Path, kind: str, command: str
) -> None:
    app = tmp_path / "webapp"
    (app / "src").mkdir(parents=True)
    (app / "src" / "app.js").write_text("alert(1)")
    (app / WRITERS[kind].marker).write_text(json.dumps(WEB_APP))
    before = contents(tmp_path)
    message = refused(*command.replace("$W", str(work)).replace("$OUT", str(app)).split())
    assert f"{app} exists and is not a {kind}" in message
    assert WRITERS[kind].marker in message
    assert "choose another --out" in message
    assert contents(tmp_path) == before


@every_command
@pytest.mark.parametrize("foreign", ["notes.txt", ".git/config", "backup/x"])
def test_a_folder_with_a_file_of_the_user_is_not_replaced(
    work: Path, tmp_path: Path, kind: str, command: str, foreign: str
) -> None:
    out = tmp_path / "out"
    WRITERS[kind].write(out, 0)
    (out / foreign).parent.mkdir(exist_ok=True)
    (out / foreign).write_text("mine")
    before = contents(tmp_path)
    message = refused(*command.replace("$W", str(work)).replace("$OUT", str(out)).split())
    assert str(out / foreign.split("/")[0]) in message
    assert "move it away or choose another --out" in message
    assert contents(tmp_path) == before


@every_kind
@pytest.mark.parametrize(
    "marker",
    [
        "",
        "{",
        "[]",
        "7",
        "\udcff",
        "[" * 100_000,
        "{}",
        '{"format": "layers-model", "files": {}}',
        '{"format": 1}',
    ],
)
def test_a_foreign_marker_is_not_enough(tmp_path: Path, kind: str, marker: str) -> None:
    writer, out = WRITERS[kind], tmp_path / "out"
    out.mkdir()
    (out / writer.marker).write_bytes(marker.encode("utf-8", "surrogateescape"))
    with pytest.raises(writer.error, match=f"is not a {kind}.*{writer.marker}"):
        writer.write(out, 0)
    assert [path.name for path in out.iterdir()] == [writer.marker]


@every_kind
def test_a_folder_in_place_of_a_file_is_foreign(tmp_path: Path, kind: str) -> None:
    writer, out = WRITERS[kind], tmp_path / "out"
    writer.write(out, 0)
    file = next(path for path in sorted(out.iterdir()) if path.name != writer.marker)
    file.unlink()
    file.mkdir()
    (file / "thesis.tex").write_text("mine")
    with pytest.raises(writer.error, match=f"{file} is not part of the {kind}"):
        writer.write(out, 1)
    assert (file / "thesis.tex").read_text() == "mine"


@every_kind
def test_a_link_is_not_replaced(tmp_path: Path, kind: str) -> None:
    writer = WRITERS[kind]
    writer.write(tmp_path / "real", 0)
    for name, target in (("link", "real"), ("dangling", "nowhere")):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(writer.error, match="is a link"):
            writer.write(tmp_path / name, 1)
        assert (tmp_path / name).is_symlink()
    assert writer.read(tmp_path / "real") == 0


@every_kind
def test_empty_folders_and_folders_of_the_same_kind_are_replaced(tmp_path: Path, kind: str) -> None:
    writer, out = WRITERS[kind], tmp_path / "out"
    out.mkdir()
    for version in (0, 1):
        writer.write(out, version)
        assert writer.read(out) == version
    # A folder with a missing file is still one of ours.
    (out / "candidate_bias.npy").unlink(missing_ok=True)
    writer.write(out, 0)
    assert writer.read(out) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


STEPS = ("mkdir", "rename", "replace", "fsync", "chmod", "unlink", "rmdir")
"""Every call with which a writer changes the disk, except writes into its own new files."""


class Killed(BaseException):
    """Simulates the death of the process: nothing after it happens."""


@contextmanager
def failing(at: int, killed: bool) -> Iterator[list[str]]:
    """Make step ``at`` fail, and all later ones too if ``killed``; yield the steps taken so far."""
    taken: list[str] = []

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            taken.append(name)
            if killed and len(taken) >= at:
                raise Killed
            if len(taken) == at:
                raise OSError(errno.EIO, "Input/output error")
            return real(*args, **options)

        return step

    def dead(*_: Any, **__: Any) -> None:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        for name in STEPS:
            patch.setattr(os, name, wrap(name, getattr(os, name)))
        rmtree = shutil.rmtree
        patch.setattr(
            shutil,
            "rmtree",
            lambda *args, **options: (
                dead() if killed and len(taken) >= at else rmtree(*args, **options)
            ),
        )
        yield taken


@every_kind
@pytest.mark.parametrize("older", [True, False])
def test_after_a_failed_step_the_old_or_the_new_folder_is_complete(
    tmp_path: Path, kind: str, older: bool
) -> None:
    writer = WRITERS[kind]
    for at in range(1, 200):
        folder = tmp_path / str(at)
        folder.mkdir()
        if older:
            writer.write(folder / "out", 0)
        failed = False
        with failing(at, killed=False) as taken:
            try:
                writer.write(folder / "out", 1)
            except (OSError, TlrecError):
                failed = True
        if older or not failed:
            assert writer.read(folder / "out") == (0 if failed else 1), taken
        else:
            assert not (folder / "out").exists(), taken
        if len(taken) < at:
            break
    assert not failed
    assert at > 5
    assert [path.name for path in folder.iterdir()] == ["out"]


@every_kind
def test_after_a_killed_writer_the_old_or_the_new_folder_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    writer = WRITERS[kind]
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for at in range(1, 200):
        folder = tmp_path / str(at)
        folder.mkdir()
        writer.write(folder / "out", 0)
        with monkeypatch.context() as patch, failing(at, killed=True) as taken:
            patch.setattr(os, "getpid", lambda: dead.pid)
            with suppress(Killed):
                writer.write(folder / "out", 1)
            finished = len(taken) < at
        complete = folder / "out"
        if not complete.exists():  # the renamed older folder is the only copy
            complete = next(folder.glob(".out.*.old"))
        assert writer.read(complete) in (0, 1), taken
        for _ in range(2):  # the first may find no ``out``, and keeps the older folder
            writer.write(folder / "out", 1)
        assert writer.read(folder / "out") == 1
        assert [path.name for path in folder.iterdir()] == ["out"], taken
        if finished:
            break
    assert finished
    assert at > 5


def test_a_checkpoint_removes_only_what_it_wrote(tmp_path: Path) -> None:
    from tlrec_edge.train import pretrain
    from tlrec_edge.train.checkpoint import resumable

    data, folder = synthetic.dataset(), tmp_path / "checkpoint"
    mine = ("fit-notes/day.txt", "fit-1/epoch-best.npz", "notes.txt")
    with resumable(folder, data, QUICK) as checkpoint:
        for name in mine:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("mine")
        pretrain(data, ("big",), QUICK, checkpoint=checkpoint)
    assert {name for name, content in contents(folder).items() if content is not None} == set(mine)


def test_a_damaged_cache_entry_with_a_foreign_file_is_not_removed(tmp_path: Path) -> None:
    from tlrec_edge.quantize.prune_cache import PruneCache

    model = synthetic.model()
    cache = PruneCache(tmp_path / "cache", model, 0, 1)
    cache.get_or_prune("a cut", lambda: model)
    entry = tmp_path / "cache" / "a-cut"
    (entry / "arrays.npz").write_bytes(b"cut short")
    (entry / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match=r"notes\.txt is not part of the model"):
        cache.get_or_prune("a cut", lambda: model)
    assert (entry / "notes.txt").read_text() == "mine"

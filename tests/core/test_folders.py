"""Folders are written completely or not at all, and never over files of the user."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from helpers import bundles, synthetic
from helpers.commands import refused
from helpers.counts import count
from helpers.paths import ROOT
from tlrec_edge import Recommender
from tlrec_edge.core import folders, system_calls
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
slow = pytest.mark.slow
every_kind = pytest.mark.parametrize("kind", WRITERS)
every_command = pytest.mark.parametrize(
    ("kind", "command"),
    [(kind, command) for kind, writer in WRITERS.items() for command in writer.commands],
)


@pytest.fixture(scope="module", autouse=True)
def read_only_bundles() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folders, "_READ_BITS", 0o444)
        yield


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


@pytest.fixture(params=["exchanged", "renamed"])
def publishing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the new folder take the older one's place in one step, or in two as on other systems."""
    if request.param == "renamed":
        monkeypatch.setattr(system_calls, "_renameat2", lambda: None)


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
        patch.setattr(system_calls, "exchange", wrap("exchange", system_calls.exchange))
        rmtree = shutil.rmtree
        patch.setattr(
            shutil,
            "rmtree",
            lambda *args, **options: (
                dead() if killed and len(taken) >= at else rmtree(*args, **options)
            ),
        )
        yield taken


def failing_steps(writer: Writer, folder: Path, older: bool, sample: bool) -> list[int]:
    """Return the numbers of a writer's steps, and one more: nothing fails then.

    A sample leaves out steps between two equal ones, such as writing the second of three files.
    """
    folder.mkdir()
    if older:
        writer.write(folder / "out", 0)
    with failing(0, killed=False) as taken:
        writer.write(folder / "out", 1)
    is_between = [taken[at - 1 : at + 2] == [step] * 3 for at, step in enumerate(taken)]
    numbers = [at for at, between in enumerate(is_between, 1) if not (sample and between)]
    return [*numbers, len(taken) + 1]


every_extent = pytest.mark.parametrize(
    "sample",
    [pytest.param(True, id="some steps"), pytest.param(False, id="every step", marks=[slow])],
)


@every_kind
@every_extent
@pytest.mark.parametrize("older", [True, False])
@pytest.mark.usefixtures("publishing")
def test_after_a_failed_step_the_old_or_the_new_folder_is_complete(
    tmp_path: Path, kind: str, older: bool, sample: bool
) -> None:
    writer = WRITERS[kind]
    steps = failing_steps(writer, tmp_path / "first", older, sample)
    for at in steps:
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
    count("failed steps of a writer: the old or the new folder is complete", len(steps) - 1)
    assert not failed
    assert len(steps) > 5
    assert [path.name for path in folder.iterdir()] == ["out"]


@every_kind
@every_extent
@pytest.mark.usefixtures("publishing")
def test_after_a_killed_writer_the_old_or_the_new_folder_is_complete(
    tmp_path: Path, kind: str, sample: bool
) -> None:
    writer = WRITERS[kind]
    steps = failing_steps(writer, tmp_path / "first", True, sample)
    for at in steps:
        folder = tmp_path / str(at)
        folder.mkdir()
        writer.write(folder / "out", 0)
        with failing(at, killed=True) as taken, suppress(Killed):
            writer.write(folder / "out", 1)
        complete = folder / "out"
        if not complete.exists():  # the renamed older folder is the only copy
            complete = next(folder.glob(".out.*.staging/old"))
        assert writer.read(complete) in (0, 1), taken
        for _ in range(2):  # the first may find no ``out``, and keeps the older folder
            writer.write(folder / "out", 1)
        assert writer.read(folder / "out") == 1
        assert [path.name for path in folder.iterdir()] == ["out"], taken
    count("deaths of a writer: the old or the new folder is complete", len(steps) - 1)
    assert len(steps) > 5


def test_the_path_is_never_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if system_calls._renameat2() is None:
        pytest.skip("this system can't exchange two folders")
    writer, out = WRITERS["bundle"], tmp_path / "out"
    writer.write(out, 0)
    at_every_step: list[bool] = []

    def watch(call: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            at_every_step.append((out / "manifest.json").is_file())
            done = call(*args, **options)
            at_every_step.append((out / "manifest.json").is_file())
            return done

        return step

    for name in ("rename", "replace", "rmdir", "unlink", "fsync"):
        monkeypatch.setattr(os, name, watch(getattr(os, name)))
    writer.write(out, 1)
    assert writer.read(out) == 1
    assert len(at_every_step) > 20
    assert all(at_every_step)


def test_a_file_that_the_user_adds_at_the_last_moment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, out = WRITERS["bundle"], tmp_path / "out"
    writer.write(out, 0)
    exchange = system_calls.exchange

    def add_and_exchange(first: Path, second: Path) -> bool:
        (out / "notes.txt").write_text("mine")
        monkeypatch.setattr(system_calls, "exchange", exchange)
        return exchange(first, second)

    monkeypatch.setattr(system_calls, "exchange", add_and_exchange)
    with pytest.raises(BundleError, match=rf"{out}/notes\.txt is not part of the bundle"):
        writer.write(out, 1)
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    assert writer.read(out) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


WAITING_WRITER = """
import os, sys
from pathlib import Path
os.getpid = lambda: int(sys.argv[2])
from tlrec_edge.bundle.writer import BUNDLE
from tlrec_edge.core.folders import staging_folder
with staging_folder(Path(sys.argv[1]), BUNDLE) as staging:
    (staging / "candidate_bias.npy").write_bytes(b"x")
    print(staging, flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("pid", [os.getpid(), 4_194_305], ids=["of a process", "of no process"])
def test_the_folder_of_a_dead_writer_is_swept_whatever_its_process_id(
    tmp_path: Path, pid: int
) -> None:
    """A writer in another container may have any process id: only its lock shows that it lives."""
    out, pipe = tmp_path / "out", subprocess.PIPE
    command = [sys.executable, "-c", WAITING_WRITER, str(out), str(pid)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT, text=True) as other:
        assert other.stdout is not None
        staging = Path(other.stdout.readline().strip())
        assert staging.is_dir()
        write_bundle(out, 0)
        assert (staging / "candidate_bias.npy").read_bytes() == b"x"
        other.kill()
    assert staging.is_dir()
    write_bundle(out, 1)
    assert read_bundle(out) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_workspaces_of_this_folder_are_swept(tmp_path: Path) -> None:
    leftovers = [".out.abcd_123.staging", ".out.zzzzzzzz.staging"]
    untouched = [
        ".other.abcd_123.staging",
        ".out.notes",
        ".out.x.staging",
        ".out.abcd_123.staging2",
    ]
    users = ".out.12345678.staging"
    for name in (*leftovers, *untouched):
        (tmp_path / name / "new").mkdir(parents=True)
        (tmp_path / name / "new" / "encoder.onnx").write_bytes(b"x")
    (tmp_path / users).mkdir()
    (tmp_path / users / "thesis.tex").write_text("mine")
    write_bundle(tmp_path / "out", 0)
    assert {file.name for file in tmp_path.iterdir()} == {"out", users, *untouched}


def test_a_workspace_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer may sweep between the two calls that make a workspace and lock it."""
    make, made = tempfile.mkdtemp, list[str]()

    def make_and_sweep(*args: Any, **options: Any) -> str:
        made.append(make(*args, **options))
        if len(made) == 1:
            write_bundle(tmp_path / "out", 0)
            assert not Path(made[0]).exists()
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_sweep)
    write_bundle(tmp_path / "out", 1)
    assert len(made) == 3
    assert read_bundle(tmp_path / "out") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_writer_elsewhere_has_fewer_system_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_calls, "_renameat2", lambda: None)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delattr(os, "posix_fallocate")
    leftover = tmp_path / ".out.abcd_123.staging"
    (leftover / "new").mkdir(parents=True)
    for version in (0, 1):
        write_bundle(tmp_path / "out", version)
        assert read_bundle(tmp_path / "out") == version
    # Without locks, nobody can know that the writer is dead.
    assert {path.name for path in tmp_path.iterdir()} == {"out", leftover.name}


@every_kind
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o077, 0o700), (0o027, 0o750)])
def test_folders_have_the_permissions_that_the_user_wants(
    tmp_path: Path, kind: str, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        for version in (0, 1):
            WRITERS[kind].write(tmp_path / "out", version)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == mode
    expected = mode & (0o444 if kind == "bundle" else 0o666)
    for file in (tmp_path / "out").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == expected, file


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

"""A bundle is opened as one whole version, from regular files inside its folder, or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import bundles
from helpers.bundles import agree, edit_manifest
from helpers.commands import ok, refused
from helpers.counts import count, say
from helpers.paths import ROOT
from tlrec_edge import BundleError, Recommender
from tlrec_edge.bundle.reader import Bundle
from tlrec_edge.core import system_calls

NAMES = [f"i{row}" for row in range(60)]
Scores = bytes


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles of the same sizes and files, with the same encoder and other tables."""
    paths = [tmp_path_factory.mktemp("versions") / name for name in ("one", "two")]
    for seed, path in enumerate(paths):
        bundles.build(path, seed=seed, users=["ann"])
    shutil.copy(paths[0] / "encoder.onnx", paths[1])
    agree(paths[1], "encoder.onnx")
    return paths


@pytest.fixture
def bundle(versions: list[Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(versions[0], tmp_path / "bundle"))


def scores(path: Path, verify: str = "size") -> Scores:
    with Recommender.open(path, verify=verify) as rec:
        rec.add_items({"new": {"title": "red mug", "colour": "red", "price": 2.0}})
        return rec.score(["i3", "i70"], [*NAMES, "new"]).tobytes()


# Ways to replace a bundle under a reader, with the folders of both versions.


def exchanged(path: Path, version: Path) -> None:
    """As `export` does it."""
    new = path.with_name("next")
    shutil.copytree(version, new)
    assert system_calls.exchange(new, path)
    shutil.rmtree(new)


def moved(path: Path, version: Path) -> None:
    """As a script with `mv` does it."""
    shutil.copytree(version, path.with_name("next"))
    path.rename(path.with_name("before"))
    path.with_name("next").rename(path)
    shutil.rmtree(path.with_name("before"))


def as_volume(path: Path, version: Path) -> None:
    """As Kubernetes writes a ConfigMap or a Secret, and replaces its content."""
    path.mkdir(exist_ok=True)
    data = Path(tempfile.mkdtemp(prefix="..2024_", dir=path))
    shutil.copytree(version, data, dirs_exist_ok=True)
    before = (path / "..data").resolve()
    (path / "..data_tmp").symlink_to(data.name)
    (path / "..data_tmp").replace(path / "..data")
    for file in version.iterdir():
        if not (path / file.name).is_symlink():
            (path / file.name).symlink_to(f"..data/{file.name}")
    if before.name.startswith("..2024"):
        shutil.rmtree(before)


def relinked(path: Path, version: Path) -> None:
    """As a release script does it: the path is a link to the folder of the current version."""
    path.with_name("link").symlink_to(version)
    path.with_name("link").replace(path)


REPLACEMENTS: dict[str, Callable[[Path, Path], None]] = {
    function.__name__: function for function in (exchanged, moved, as_volume, relinked)
}


@contextmanager
def at_access(number: int, action: Callable[[], None], handles: bool) -> Iterator[list[str]]:
    """Do something before a file access of this process; yield the accesses so far."""
    accesses: list[str] = []

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def access(*args: Any, **options: Any) -> Any:
            accesses.append(name)
            if len(accesses) == number:
                action()
            return real(*args, **options)

        return access

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((os, "open"), (os, "stat"), (os, "fstat"), (mmap, "mmap")):
            patch.setattr(module, name, wrap(name, getattr(module, name)))
        if handles:
            patch.setattr(os, "supports_dir_fd", os.supports_dir_fd | {os.open, os.stat})
        yield accesses


@pytest.mark.parametrize("handles", [True, False], ids=["by handle", "by path"])
@pytest.mark.parametrize("replace", REPLACEMENTS)
@pytest.mark.parametrize(
    "stride", [pytest.param(19, id="some"), pytest.param(1, id="all", marks=pytest.mark.slow)]
)
def test_a_bundle_that_is_replaced_between_two_accesses_is_one_of_the_versions(
    versions: list[Path], tmp_path: Path, replace: str, stride: int, handles: bool
) -> None:
    expected = [scores(version) for version in versions]
    assert expected[0] != expected[1]
    put, path = REPLACEMENTS[replace], tmp_path / "bundle"
    if replace in ("as_volume", "relinked"):
        put(path, versions[0])
    else:
        shutil.copytree(versions[0], path)
    current, number = 0, 1
    while True:
        other = versions[1 - current]
        replaced: list[int] = []

        def act(other: Path = other, replaced: list[int] = replaced) -> None:
            replaced.append(1)
            put(path, other)

        with at_access(number, act, handles) as accesses:
            found = scores(path, "full" if number % 2 else "size")
        assert found in expected, (number, accesses[max(0, number - 3) : number])
        if not replaced:
            break
        current = 1 - current
        assert scores(path) == expected[current]
        number += 1 if number < 10 else stride  # the manifest is read first
        count("replacements between two accesses of an opening: 0 mixed")
    assert number > 100


REPLACING = """
import shutil, sys
from pathlib import Path
from tlrec_edge.bundle.writer import BUNDLE
from tlrec_edge.core.folders import replace_folder
path, versions, count = Path(sys.argv[1]), sys.argv[2:4], int(sys.argv[4])
print("ready", flush=True)
for number in range(count):
    with replace_folder(path, BUNDLE) as folder:
        shutil.copytree(versions[(number + 1) % 2], folder, dirs_exist_ok=True)
"""


@pytest.mark.parametrize(
    ("replacements", "opens"), [(20, 20), pytest.param(200, 2000, marks=pytest.mark.slow)]
)
def test_readers_beside_a_writer_see_one_version_each(
    versions: list[Path],
    tmp_path: Path,
    replacements: int,
    opens: int,
) -> None:
    """Opens that fail or are mixed would be counted; the writer replaces as fast as it can."""
    expected = [scores(version) for version in versions]
    path = Path(shutil.copytree(versions[0], tmp_path / "bundle"))
    arguments = [str(path), *map(str, versions)]
    counts = dict.fromkeys(("one", "two", "mixed", "replacements"), 0)
    refusals: list[str] = []
    done = 0
    while counts["replacements"] < replacements or done < opens:
        command = [sys.executable, "-c", REPLACING, *arguments, str(replacements)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            while writer.poll() is None:
                done += 1
                try:
                    found = scores(path, "full" if done % 2 else "size")
                except BundleError as error:
                    refusals.append(str(error))
                    continue
                kind = ["one", "two"][expected.index(found)] if found in expected else "mixed"
                counts[kind] += 1
        assert writer.returncode == 0
        counts["replacements"] += replacements
    kinds = ", ".join(f"{kind} {number}" for kind, number in counts.items())
    say(f"{done} opens while a bundle is replaced: {len(refusals)} refused, {kinds}")
    assert not refusals
    assert counts["mixed"] == 0


def test_a_recommender_outlives_its_folder(bundle: Path) -> None:
    expected = scores(bundle)
    with Recommender.open(bundle) as rec:
        shutil.rmtree(bundle)
        rec.add_items({"new": {"title": "red mug", "colour": "red", "price": 2.0}})
        assert rec.score(["i3", "i70"], [*NAMES, "new"]).tobytes() == expected


def test_a_kubernetes_volume_is_a_bundle(versions: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "volume"
    as_volume(path, versions[0])
    assert scores(path, "full") == scores(versions[0])
    assert "ok: " in ok("verify", path).output


@pytest.mark.parametrize("subfolder", ["", "bundles/fast"])
def test_a_snapshot_of_the_hugging_face_hub_is_a_bundle(
    versions: list[Path], tmp_path: Path, subfolder: str
) -> None:
    repository = tmp_path / "models--shop--recommender"
    path = repository / "snapshots" / ("0123456789" * 4) / subfolder
    path.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for file in versions[0].iterdir():
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (path / file.name).symlink_to(os.path.relpath(blob, path))
    assert scores(path, "full") == scores(versions[0])
    outside = repository / "config"
    shutil.copy(path / "groups.npy", outside)
    for target in (outside, tmp_path / "models--shop--recommender2"):
        (path / "groups.npy").unlink()
        (path / "groups.npy").symlink_to(target)
        with pytest.raises(BundleError, match=r"groups\.npy (is a link to a file out|is missing)"):
            Bundle.open(path)


SPECIAL_FILES = ["manifest.json", "manifest.sha256", "candidate_bias.npy", "encoder.onnx"]


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # the path of a socket must be short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def device(path: Path) -> None:
    with suppress(PermissionError):
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
        return
    pytest.skip("only root may make a device")


def folder(path: Path) -> None:
    path.mkdir()


def link_to_fifo(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def link_out(path: Path) -> None:
    path.symlink_to("/etc/hostname")


SPECIAL = [fifo, unix_socket, device, folder]
SPECIAL += [link_to_fifo, link_to_device, link_to_itself, link_out]


@pytest.mark.parametrize("name", SPECIAL_FILES)
@pytest.mark.parametrize("make", SPECIAL)
def test_only_regular_files_inside_the_folder_are_read(
    bundle: Path, name: str, make: Callable[[Path], None]
) -> None:
    (bundle / name).unlink()
    make(bundle / name)
    for verify in ("none", "full"):
        with pytest.raises(BundleError, match=f"{bundle / name} (is not a|is a link|cannot be)"):
            Recommender.open(bundle, verify=verify)


def test_links_within_the_folder_are_fine(bundle: Path) -> None:
    expected = scores(bundle)
    (bundle / "files").mkdir()
    for at, file in enumerate([path for path in bundle.iterdir() if path.is_file()]):
        file.rename(bundle / "files" / file.name)
        target = bundle / "files" / file.name
        file.symlink_to(target if at % 2 else target.relative_to(bundle))
    assert scores(bundle, "full") == expected


AS_ANOTHER_USER = """
import os, sys
if os.getuid() == 0:
    import tlrec_edge.runtime.recommender  # the package may be in a folder of root alone
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
from tlrec_edge import BundleError, Recommender
try:
    Recommender.open(sys.argv[1])
except BundleError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "groups.npy", ""])
def test_a_file_that_may_not_be_read_is_named(versions: list[Path], name: str) -> None:
    # Not in `tmp_path`, whose parents only their owner can enter.
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        bundle = Path(shutil.copytree(versions[0], Path(parent) / "bundle"))
        (bundle / name).chmod(0)
        command = [sys.executable, "-c", AS_ANOTHER_USER, str(bundle)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        (bundle / name).chmod(0o755)
    assert f"not allowed to read {bundle / (name or 'manifest.json')}" in done.stdout
    assert "export" not in done.stdout


def test_a_manifest_that_is_too_large_is_not_read(bundle: Path) -> None:
    os.truncate(bundle / "manifest.json", 10 << 30)
    with pytest.raises(BundleError, match=r"manifest\.json has 10,737,418,240 bytes, more than"):
        Bundle.open(bundle)
    message = refused("synth", "--items", 50, "--dim", 8, "--out", bundle)
    assert "manifest.json is too large for one" in message


def test_sizes_and_shapes_are_checked_before_anything_is_hashed(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashlib, "file_digest", lambda *_: pytest.fail("a file was hashed"))
    huge = 10 << 30
    for name in ("groups.npy", "wide_values.npy"):
        file = bundle / name
        size = file.stat().st_size
        os.truncate(file, huge)
        with pytest.raises(BundleError, match=rf"{name} has {huge} bytes, but {size} in the man"):
            Bundle.open(bundle, verify="full")
        set_size(bundle, name, huge)
        with pytest.raises(BundleError, match=rf"{name} has {huge} bytes, but {size} by its head"):
            Bundle.open(bundle, verify="full")
        os.truncate(file, size)
        set_size(bundle, name, size)


def set_size(bundle: Path, name: str, size: int) -> None:
    edit_manifest(bundle, lambda manifest: manifest["files"][name].update(size=size))


@pytest.mark.parametrize("number", [errno.ENODEV, errno.EINVAL, errno.EACCES])
def test_a_file_system_that_cannot_map_files_is_read(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    expected = scores(bundle)
    with Recommender.open(bundle) as rec:
        mapped = rec.memory()
    assert mapped["loaded"] == 0

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(mmap, "mmap", fail)
    assert scores(bundle, "full") == expected
    with Recommender.open(bundle) as rec:
        assert rec.memory()["mapped"] == 0
        assert rec.memory()["loaded"] > mapped["mapped"]
    assert not Bundle.open(bundle).array("candidate_rows").flags.writeable


def test_too_little_memory_to_map_is_an_error(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", fail)
    with pytest.raises(BundleError, match=r"cannot be read \(Cannot allocate memory\)"):
        Bundle.open(bundle)


def test_a_reader_elsewhere_has_fewer_system_calls(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``dir_fd``, files are found by their paths."""
    expected = scores(bundle)
    monkeypatch.setattr(os, "supports_dir_fd", set())
    assert scores(bundle, "full") == expected
    with pytest.raises(BundleError, match="is a file, not a folder"):
        Bundle.open(bundle / "groups.npy")
    (bundle / "groups.npy").unlink()
    with pytest.raises(BundleError, match=r"groups\.npy is missing"):
        Bundle.open(bundle)
    with pytest.raises(BundleError, match="does not exist"):
        Bundle.open(bundle / "nowhere")


def test_a_bundle_leaves_no_file_open(bundle: Path) -> None:
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("no list of open files")

    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = count()
    for verify in ("size", "full"):
        Recommender.open(bundle, verify=verify).close()
    (bundle / "groups.npy").unlink()
    with suppress(BundleError):
        Recommender.open(bundle)
    assert count() <= before


def test_names_that_lead_out_of_a_folder_are_refused(tmp_path: Path) -> None:
    from tlrec_edge.data.store import load_dataset
    from tlrec_edge.errors import DataError

    (tmp_path / "ds").mkdir()
    marker = {"format": 1, "hash": "", "tables": ["../secret"]}
    (tmp_path / "ds" / "dataset.json").write_text(json.dumps(marker))
    with pytest.raises(DataError, match=r"'\.\./secret\.parquet', which is not a plain file name"):
        load_dataset(tmp_path / "ds")


def test_arrays_are_read_only(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    with pytest.raises(ValueError, match="read-only"):
        opened.array("candidate_bias")[0] = np.float32(1)

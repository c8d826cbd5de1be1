"""Environments for the comparison: one with every peer, and one with an older tlrec-edge."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Collection
from pathlib import Path

from .turns import Environment

ROOT = Path(__file__).parents[2]
TORCH = "torch==2.13.0"
OURS = ("onnx==1.23.2", "onnxscript==0.7.2", "scipy==1.17.1", "pandas>=2.2,<3", "pyarrow>=17,<24")
"""What tlrec-edge needs to make bundles and graphs, in versions that replay-rec accepts."""
PEERS: dict[str, tuple[str, ...]] = {
    "faiss": ("faiss-cpu==1.15.1",),
    "openvino": ("openvino==2026.4.1",),
    "implicit": ("implicit==0.7.3",),
    "hnswlib": ("hnswlib==0.8.0",),
    "rechub": ("torch-rechub==0.9.0",),
    "recbole": ("recbole==1.2.1",),
    "replay": ("replay-rec==0.22.0", "lightning==2.6.6"),
}
"""Requirements of each peer; a contender's name begins with that of its peer."""
BEFORE = "before"
"""The older version: its contender, and the folder of its environment."""
_SHARED = ("numpy", "onnxruntime")
"""Packages that both versions have in common, so that only tlrec-edge differs."""

Progress = Callable[[str], None]


def install(folder: Path, torch: str, peers: Collection[str], progress: Progress) -> dict[str, str]:
    """Make or complete FOLDER/env.

    Returns pip's reason for each of ``peers`` that can't be installed. They are installed one by
    one, so that a peer that fails does not affect the others.
    """
    state = folder / "installed.json"
    done: dict[str, str] = json.loads(state.read_text()) if state.is_file() else {}
    environment = folder / "env"
    if not environment.is_dir():
        progress(f"making {environment}: some gigabytes and minutes the first time")
        _make_environment(environment)
    if done.get("torch") != torch:
        # First and alone, because a peer that requires torch would otherwise choose the build.
        if reason := _pip(environment, *torch.split()):
            sys.exit(f"{torch}: {reason}")
        done["torch"] = torch
    if reason := _pip(environment, "-e", str(ROOT), *OURS):
        sys.exit(f"tlrec-edge: {reason}")
    absent = {}
    for name in peers:
        requirements = " ".join(PEERS[name])
        if done.get(name) == requirements:
            continue
        progress(f"installing {requirements}")
        if reason := _pip(environment, *PEERS[name], TORCH):
            absent[name] = f"pip install {requirements}: {reason}"
        else:
            done[name] = requirements
    state.write_text(json.dumps(done, indent=2))
    return absent


def install_before(folder: Path, requirement: str, progress: Progress) -> dict[str, str]:
    """Make FOLDER/before with an older tlrec-edge; return pip's reason if that fails.

    ``requirement`` is the path of a wheel, or whatever pip accepts. numpy and onnxruntime get the
    versions of FOLDER/env. The environment is used again until the requirement changes.
    """
    environment, mark = folder / BEFORE, folder / "before.txt"
    wheel = Path(requirement)
    content = hashlib.sha256(wheel.read_bytes()).hexdigest() if wheel.is_file() else ""
    pins = _versions(folder / "env")
    wanted = " ".join([requirement, content, *pins])
    if mark.is_file() and mark.read_text("utf-8") == wanted:
        return {}
    progress(f"installing {requirement} in {environment}")
    _make_environment(environment, "--clear")
    if reason := _pip(environment, requirement, *pins):
        return {BEFORE: f"pip install {requirement}: {reason}"}
    mark.write_text(wanted, "utf-8")
    return {}


def before_environment(folder: Path) -> Environment | None:
    """Return the environment of the older version, or None if there is none.

    Its workers import ``benchmarks`` through a link: from the folder of the checkout they would
    also import the checkout's ``tlrec_edge``.
    """
    python = folder / BEFORE / "bin" / "python"
    if not python.is_file():
        return None
    code = folder / BEFORE / "code"
    code.mkdir(exist_ok=True)
    link = code / "benchmarks"
    if not link.is_symlink():
        link.symlink_to(ROOT / "benchmarks", target_is_directory=True)
    return Environment(str(python), code)


def _make_environment(path: Path, *options: str) -> None:
    subprocess.run([sys.executable, "-m", "venv", *options, str(path)], check=True)


def _versions(environment: Path) -> list[str]:
    """Return the installed versions of the shared packages as requirements."""
    code = "import sys; from importlib.metadata import version as v; "
    code += "print(*(f'{name}=={v(name)}' for name in sys.argv[1:]))"
    python = str(environment / "bin" / "python")
    command = [python, "-c", code, *_SHARED]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def _pip(environment: Path, *requirements: str) -> str | None:
    """Install; return why it failed, or None."""
    python = str(environment / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", *requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith(("ERROR", "error"))]
    return (lines or done.stderr.splitlines() or ["pip failed"])[-1]

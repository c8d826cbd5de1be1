"""An environment of its own for the peers: made once, each peer by itself, so that one that fails leaves the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
TORCH = "torch==2.13.0"
OURS = ("onnx==1.23.2", "onnxscript==0.7.2", "scipy==1.17.1", "pandas>=2.2,<3", "pyarrow>=17,<24")
"""What tlrec-edge needs to make the bundles and graphs, as old as replay-rec wants it."""
PEERS: dict[str, tuple[str, ...]] = {
    "faiss": ("faiss-cpu==1.15.1",),
    "openvino": ("openvino==2026.4.1",),
    "implicit": ("implicit==0.7.3",),
    "hnswlib": ("hnswlib==0.8.0",),
    "rechub": ("torch-rechub==0.9.0",),
    "recbole": ("recbole==1.2.1",),
    "replay": ("replay-rec==0.22.0", "lightning==2.6.6"),
}
"""What pip is asked for; a contender's name begins with its peer's."""


def install(folder: Path, torch: str, progress: Callable[[str], None]) -> dict[str, str]:
    """Make or complete the environment; return the peers that can't be installed, each with pip's reason."""
    state = folder / "installed.json"
    done: dict[str, str] = json.loads(state.read_text()) if state.is_file() else {}
    if not (folder / "env").is_dir():
        progress(f"making {folder / 'env'}: some gigabytes and minutes the first time")
        subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    if done.get("torch") != torch:
        # First and alone: a peer that asks for torch would otherwise choose the build.
        if why := _pip(folder, *torch.split()):
            sys.exit(f"{torch}: {why}")
        done["torch"] = torch
    if why := _pip(folder, "-e", str(ROOT), *OURS):
        sys.exit(f"tlrec-edge: {why}")
    absent = {}
    for name, wanted in PEERS.items():
        asked = " ".join(wanted)
        if done.get(name) == asked:
            continue
        progress(f"installing {asked}")
        if why := _pip(folder, *wanted, TORCH):
            absent[name] = f"pip install {asked}: {why}"
        else:
            done[name] = asked
    state.write_text(json.dumps(done, indent=2))
    return absent


def _pip(folder: Path, *wanted: str) -> str | None:
    """Install; return why it failed, None where it did not."""
    command = [str(folder / "env" / "bin" / "python"), "-m", "pip", "install", "--quiet", *wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.startswith(("ERROR", "error"))]
    return (lines or done.stderr.splitlines() or ["pip failed"])[-1]

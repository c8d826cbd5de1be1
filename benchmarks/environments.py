"""An environment of its own for each library of others, so that their requirements never meet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def library_python(environment: Path, *installs: str) -> Path:
    """Return the Python of an environment, which is made unless a run before completed it.

    ``installs`` are the words of one ``pip install`` each, in order.
    """
    python, mark = environment / "bin" / "python", environment / "complete"
    if not mark.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for words in installs:
            subprocess.run([*pip, *words.split()], check=True)
        mark.touch()
    return python

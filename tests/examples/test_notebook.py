"""The notebook runs, and shows what it prints."""

from __future__ import annotations

import json

from helpers.paths import EXAMPLES
from helpers.scripts import load_script


def test_the_notebook_runs_and_shows_its_outputs() -> None:
    run_cells = load_script(EXAMPLES / "run_notebook.py").run_cells
    text = (EXAMPLES / "quickstart.ipynb").read_text("utf-8")
    stored, done = json.loads(text), run_cells(json.loads(text))
    for before, after in zip(stored["cells"], done["cells"], strict=True):
        assert "\n".join(before["source"]).isascii()
        assert [kind["output_type"] for kind in before.get("outputs", ())] == [
            kind["output_type"] for kind in after.get("outputs", ())
        ]
    shown = json.dumps(stored["cells"], ensure_ascii=False)
    for words in ("260 users", "finetune from", "NDCG@10", "scores equal: True", "de-tea-"):
        assert words in shown
        assert words in json.dumps(done["cells"], ensure_ascii=False)

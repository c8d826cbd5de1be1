"""Run the code cells of a notebook in this Python, and store what they print.

    python examples/run_notebook.py examples/quickstart.ipynb

A cell's last expression is shown as its text. Unlike Jupyter this needs no kernel.
"""

import ast
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any


def run_cells(notebook: dict[str, Any]) -> dict[str, Any]:
    """Run the code cells in order, and return the notebook with their outputs."""
    names: dict[str, Any] = {"__name__": "__main__"}
    codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(codes, 1):
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, f"cell {count}", "exec"), names)
            value = None
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), names)
        cell["execution_count"], cell["outputs"] = count, []
        if text := printed.getvalue():
            stream = {"output_type": "stream", "name": "stdout"}
            cell["outputs"].append({**stream, "text": text.splitlines(keepends=True)})
        if value is not None:
            result = {"output_type": "execute_result", "execution_count": count, "metadata": {}}
            data = {"text/plain": repr(value).splitlines(keepends=True)}
            cell["outputs"].append({**result, "data": data})
    return notebook


if __name__ == "__main__":
    path = Path(sys.argv[1])
    done = run_cells(json.loads(path.read_text("utf-8")))
    path.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", "utf-8")

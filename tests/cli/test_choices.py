"""The names in `tlrec_edge.choices` are what the library implements, and are written once."""

from __future__ import annotations

import ast
from collections.abc import Iterable

import pytest

from helpers.paths import ROOT
from tlrec_edge import choices
from tlrec_edge.data.presets import PRESETS
from tlrec_edge.data.split import SPLITS
from tlrec_edge.export.gates import GATES
from tlrec_edge.train.align import ALIGNMENTS
from tlrec_edge.train.augment import AUGMENTATIONS
from tlrec_edge.train.model import ENCODERS
from tlrec_edge.train.modes import MODES

VOCABULARIES = {name: value for name, value in vars(choices).items() if isinstance(value, tuple)}
FOLDERS = ("tlrec_edge", "export", "quantize")


@pytest.mark.parametrize(
    ("names", "implemented"),
    [
        (choices.PRESETS, PRESETS),
        (choices.SPLITS, SPLITS),
        (choices.ENCODER_SIZES, ENCODERS),
        (choices.MODES, MODES),
        (choices.ALIGNMENTS, ("none", *ALIGNMENTS)),
        (choices.AUGMENTATIONS, AUGMENTATIONS),
        (choices.GATES, GATES),
    ],
)
def test_every_name_is_implemented(names: tuple[str, ...], implemented: Iterable[str]) -> None:
    assert names == tuple(implemented)


def test_no_module_has_its_own_copy() -> None:
    copies = []
    for path in (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")):
        if path.name == "choices.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Tuple | ast.List | ast.Set) and _names(node) in known():
                copies.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not copies, "import them from tlrec_edge.choices"


def known() -> set[frozenset[str]]:
    return {frozenset(names) for names in VOCABULARIES.values()}


def _names(node: ast.Tuple | ast.List | ast.Set) -> frozenset[str]:
    """Return the strings of a literal, or nothing if it holds anything else."""
    values = [item.value for item in node.elts if isinstance(item, ast.Constant)]
    if len(values) != len(node.elts) or not all(isinstance(value, str) for value in values):
        return frozenset()
    return frozenset(map(str, values))

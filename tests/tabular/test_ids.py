"""The ids of pairs and users are read in chunks as the whole column would be."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlrec_edge.errors import DataError
from tlrec_edge.tabular.ids import read_id_chunks
from tlrec_edge.tabular.schema import Schema


def ids_of(folder: Path, users: list[str], rows: int) -> list[str]:
    """Return the user ids of a table that is read ``rows`` rows at a time."""
    path = folder / "users.csv"
    path.write_text("\n".join(["user,item", *(f"{user},i" for user in users)]) + "\n")
    chunks = read_id_chunks(path, ("user",), Schema(), rows)
    return [name for chunk in chunks for name in chunk["user"].ids]


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_integers_and_floats_are_the_same_ids_in_any_chunk(tmp_path: Path, rows: int) -> None:
    assert ids_of(tmp_path, ["7", "7.0", "8", "", "9.0"], rows) == ["7", "7", "8", "", "9"]
    assert ids_of(tmp_path, ['="007"', "x"], rows) == ["007", "x"]


def test_floats_and_texts_in_different_chunks_are_refused(tmp_path: Path) -> None:
    for users in (["7.0", "x"], ["x", "7.0"]):
        with pytest.raises(DataError, match="written in two ways"):
            ids_of(tmp_path, users, rows=1)
        assert ids_of(tmp_path, users, rows=2) == users


@pytest.mark.parametrize(
    "lines", [["user", "u", "", "user", "v"], ["user,item", "u,i", "", "user,item", "v,i"]]
)
def test_a_header_line_in_the_middle_is_not_an_id(tmp_path: Path, lines: list[str]) -> None:
    path = tmp_path / "users.csv"
    path.write_text("\n".join(lines) + "\n")
    chunks = read_id_chunks(path, ("user",), Schema(), 9)
    assert [name for chunk in chunks for name in chunk["user"].ids] == ["u", "v"]

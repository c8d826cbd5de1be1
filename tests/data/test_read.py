"""Reading files: formats, encodings, and every way in which a file can be unusable."""

from __future__ import annotations

import gzip
from pathlib import Path

import pandas as pd
import pytest

from tlrec_edge.data.parse import read_ids
from tlrec_edge.data.read import read_table
from tlrec_edge.errors import DataError


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_the_separator_is_found(tmp_path: Path, separator: str) -> None:
    text = "\n".join(separator.join(row) for row in (("user", "item"), ("00123", "a b")))
    assert read_table(write(tmp_path, "log.txt", text)).values.tolist() == [["00123", "a b"]]


@pytest.mark.parametrize(
    "raw",
    [
        "用户ID,商品ID\n甲,手机\n".encode(),
        "\ufeff用户ID,商品ID\r\n甲,手机\r\n".encode(),
        "用户ID,商品ID\n甲,手机\n".encode("gb18030"),
        gzip.compress("用户ID,商品ID\n甲,手机\n".encode()),
    ],
    ids=["utf-8", "utf-8 with BOM", "gb18030", "gzip"],
)
def test_encodings_give_the_same_table(tmp_path: Path, raw: bytes) -> None:
    table = read_table(write(tmp_path, "log.csv", raw))
    assert list(table.columns) == ["用户ID", "商品ID"]
    assert table.values.tolist() == [["甲", "手机"]]


def test_cells_stay_as_written(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a.csv", 'user,item\n 007 ,"x, ""y"""\nNA,🛒\n,nan\n'))
    assert table.values.tolist() == [[" 007 ", 'x, "y"'], ["NA", "🛒"], ["", "nan"]]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [1, 2], "price": [0.5, None]})
    frame.to_parquet(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.parquet"), frame)


def test_parquet_keeps_indexes_long_ids_and_lists(tmp_path: Path) -> None:
    long = 2**63 - 1
    frame = pd.DataFrame(
        {"user": ["v", "u"], "item": pd.array([long, None], "Int64"), "tags": [["a"], ["a", "b"]]}
    )
    frame.set_index("user").to_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert set(table.columns) == {"user", "item", "tags"}
    assert read_ids(table["item"]).names == [str(long)]
    assert not table.duplicated().any()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"  \n\n", ["empty"]),
        (b"user,item\n", ["no rows"]),
        (b"user,item\na,b\nc,d,e\n", ["line 3 has 3 cells"]),
        (b"user,item\na,b,c\nc,d,e\n", ["line 2 has 3 cells, the header 2"]),
        (b'user,item\na,"b\nc,d\n', ["EOF inside string"]),
        (b"user,user,item\na,b,c\n", ["'user'", "2 times"]),
        ("user,item\na,café\nb,été\n".encode("latin-1"), ["line 2", "byte 15", "UTF-8"]),
        ("user,item\na,b\n".encode("utf-16"), ["line 1", "byte 0", "UTF-16", "UTF-8"]),
        (b"PK\x03\x04rest", ["Excel", "CSV"]),
        (b"PAR1garbage", ["damaged Parquet"]),
        (gzip.compress(b"user,item\na,b\n" * 99)[:-12], ["damaged gzip"]),
    ],
)
def test_an_invalid_file_is_named_in_one_line(
    tmp_path: Path, content: bytes, words: list[str]
) -> None:
    path = write(tmp_path, "bad.csv", content)
    with pytest.raises(DataError) as caught:
        read_table(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file: .*nope\.csv"):
        read_table(tmp_path / "nope.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_table(tmp_path)

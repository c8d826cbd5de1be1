"""Reading files: formats, encodings, and every way in which a file can be unusable."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest

from tlrec_edge.errors import DataError, MissingExtraError
from tlrec_edge.tabular.chunk import FileOptions, Table
from tlrec_edge.tabular.column import read_ids
from tlrec_edge.tabular.tables import read_table


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(table: Table) -> list[list[str]]:
    """Return the cells of a table, row by row."""
    return [list(row) for row in zip(*(c.texts() for c in table.columns.values()), strict=True)]


@pytest.mark.parametrize("separator", [",", "\t", ";", "|", "::", "\x01"])
def test_the_separator_is_found(tmp_path: Path, separator: str) -> None:
    text = "\n".join(separator.join(row) for row in (("user", "item"), ("00123", "a b")))
    assert rows(read_table(write(tmp_path, "log.txt", text))) == [["00123", "a b"]]


@pytest.mark.parametrize(
    "raw",
    [
        "用户ID,商品ID\n甲,手机\n".encode(),
        "\ufeff用户ID,商品ID\r\n甲,手机\r\n".encode(),
        "用户ID,商品ID\n甲,手机\n".encode("gb18030"),
        "用户ID,商品ID\n甲,手机\n".encode("utf-16"),
        gzip.compress("用户ID,商品ID\n甲,手机\n".encode()),
        bz2.compress("用户ID,商品ID\n甲,手机\n".encode()),
        lzma.compress("用户ID,商品ID\n甲,手机\n".encode()),
        "\n\nsep=;\n用户ID;商品ID\n甲;手机\n".encode(),
        '{"用户ID": "甲", "商品ID": "手机"}\n\n'.encode(),
        '[{"用户ID": "甲", "商品ID": "手机"}]'.encode(),
    ],
    ids=[
        *("utf-8", "utf-8 with BOM", "gb18030", "utf-16", "gzip", "bzip2", "xz"),
        *("Excel", "JSON lines", "JSON"),
    ],
)
def test_encodings_give_the_same_table(tmp_path: Path, raw: bytes) -> None:
    table = read_table(write(tmp_path, "log.csv", raw))
    assert list(table.columns) == ["用户ID", "商品ID"]
    assert rows(table) == [["甲", "手机"]]


def test_cells_stay_as_written(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a.csv", 'user,item\n 007 ,"x, ""y"""\nNA,🛒\n,nan\n'))
    assert rows(table) == [[" 007 ", 'x, "y"'], ["NA", "🛒"], ["", "nan"]]


def test_cells_of_parquet_are_texts(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [1, 2], "price": [0.5, None], "sold": [True, False]})
    frame["day"] = pd.to_datetime(["2024-01-31 13:45", "2024-02-01 00:00"])
    frame.to_parquet(tmp_path / "a.parquet")
    assert rows(read_table(tmp_path / "a.parquet")) == [
        ["1", "0.5", "True", "2024-01-31 13:45:00"],
        ["2", "", "False", "2024-02-01 00:00:00"],
    ]


def test_parquet_keeps_indexes_long_ids_and_lists(tmp_path: Path) -> None:
    long = 2**63 - 1
    frame = pd.DataFrame(
        {"user": ["v", "u"], "item": pd.array([long, None], "Int64"), "tags": [["a"], ["a", "b"]]}
    )
    frame.set_index("user").to_parquet(tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert set(table.columns) == {"user", "item", "tags"}
    assert read_ids(table.columns["item"]).names == [str(long)]
    assert table.columns["tags"].texts() == ["['a']", "['a', 'b']"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"  \n\n", ["empty"]),
        (b"user,item\n", ["no rows"]),
        (b"user,item\na,b\nc,d,e\n", ["line 3 has 3 cells"]),
        (b"user,item\na,b,c\nc,d,e\n", ["line 2 has 3 cells, the header 2"]),
        (b'user,item\na,"b\nc,d\n', ["EOF inside string", "line 2: a quote opens", "'b\\nc,d'"]),
        (b'user,item\n"a\nb",c\nd,"e\r\nf', ["line 4: a quote opens"]),
        (b'user,item\na,b\nc,"d\ne",f\n', ["the row of lines 3 to 4 has 3 cells"]),
        (b"user,user,item\na,b,c\n", ["'user'", "2 times"]),
        ("user,item\na,café\nb,été\n".encode("latin-1"), ["line 2", "byte 15", "UTF-8"]),
        ("user,item\na,é\n".encode("utf-16-le"), ["UTF-16", "byte order mark", "UTF-8"]),
        (b"ORC\0rest", ["ORC", "Parquet"]),
        (b'{"user": "a"}\n{"user": \n', ["line 2", "not valid JSON"]),
        (b'{"user": "a"}\n[1]\n', ["line 2", "not an object"]),
        (b'{"user":' + b"[" * 9999, ["line 1", "not valid JSON"]),
        (b"PK\x03\x04rest", ["Excel", "CSV"]),
        (b"PAR1garbage", ["damaged Parquet"]),
        (gzip.compress(b"user,item\na,b\n" * 99)[:-12], ["damaged compressed file"]),
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


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file: .*nope\.csv"):
        read_table(tmp_path / "nope.csv")


def test_a_folder_of_part_files_is_one_table(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder without files"):
        read_table(tmp_path)
    for market, user in (("fr", "u1"), ("de", "u2")):
        part = tmp_path / f"market={market}"
        part.mkdir()
        pd.DataFrame({"user": [user], "item": ["i"]}).to_parquet(part / "part-0.parquet")
    write(tmp_path, "_SUCCESS", "")
    write(tmp_path, ".part-0.crc", "x")
    table = read_table(tmp_path)
    assert list(table.columns) == ["market", "user", "item"]
    assert rows(table) == [["de", "u2", "i"], ["fr", "u1", "i"]]


def test_a_file_without_a_header_gets_the_names_of_its_columns(tmp_path: Path) -> None:
    options = FileOptions(columns=("user", "item", "event"))
    path = write(tmp_path, "a.csv", "1,2268318,pv\n1,2333346,pv\n")
    assert rows(read_table(path, options)) == [["1", "2268318", "pv"], ["1", "2333346", "pv"]]
    with pytest.raises(DataError, match="line 1 has 3 cells, the named columns are 2"):
        read_table(path, FileOptions(columns=("user", "item")))


def test_short_rows_and_odd_quotes_are_read_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", '\n  \nuser,item,title\nu,i,"LP"x\n\nu,j\n')
    table = read_table(path)
    assert rows(table) == [["u", "i", "LPx"], ["u", "j", ""]]
    assert table.notes == ("1 row has fewer cells than the header (read as empty)",)


def test_json_may_have_other_keys_in_each_line(tmp_path: Path) -> None:
    lines = [{"u": 1, "i": "a"}, {"u": 2.5, "price": None, "tags": ["é", 1]}, {"i": True}]
    path = write(tmp_path, "a.jsonl", "\n".join(json.dumps(line) for line in lines))
    table = read_table(path)
    assert list(table.columns) == ["u", "i", "price", "tags"]
    assert rows(table) == [["1", "a", "", ""], ["2.5", "", "", '["é", 1]'], ["", "True", "", ""]]


@pytest.mark.skipif(sys.platform == "win32", reason="no named pipes")
@pytest.mark.parametrize("content", [b"user,item\na,b\n", gzip.compress(b"user,item\na,b\n")])
def test_a_pipe_is_read(tmp_path: Path, content: bytes) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[content])
    writer.start()
    assert rows(read_table(pipe)) == [["a", "b"]]
    writer.join()


def test_zstandard_is_read(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    path = write(tmp_path, "a.csv.zst", zstandard.compress(b"user,item\na,b\n"))
    assert rows(read_table(path)) == [["a", "b"]]


def test_zstandard_asks_for_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match=r"\[zstd\]"):
        read_table(write(tmp_path, "a.csv.zst", b"\x28\xb5\x2f\xfdrest"))


KOREAN = "상품,분류\n" + "\n".join(["노트북,가전", "커피,식품", "청소기,생활가전", "우유,유제품"])
JAPANESE = "商品,分類\nコーヒー,飲み物\nノートパソコン,家電\n"
CHINESE = "商品,分类\n洗衣机,家用电器\n咖啡,饮料\n智能手机,数码产品\n"
TAIWANESE = "商品,分類\n洗衣機,家用電器\n咖啡,飲料\n智慧手機,數碼產品\n"
GERMAN = "produkt,preis\nKäse,3\nGrün,4\nBrötchen,1\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(KOREAN, "cp949"), (JAPANESE, "euc_jp"), (CHINESE, "gb18030"), (CHINESE, "gbk")],
)
def test_east_asian_encodings_are_told_apart(tmp_path: Path, text: str, encoding: str) -> None:
    table = read_table(write(tmp_path, "a.csv", text.encode(encoding)))
    expected = read_table(write(tmp_path, "b.csv", text))
    assert rows(table) == rows(expected)
    assert table.formats != expected.formats


@pytest.mark.parametrize(
    ("text", "encoding", "words"),
    [
        (GERMAN, "cp1252", "it may be cp1252, cp1250 or cp1251"),
        ("item,category\nx,가전\ny,커피\n", "cp949", "it may be gb18030, cp949 or euc_jp"),
        (JAPANESE, "shift_jis", "it looks like shift_jis"),
        (TAIWANESE, "big5", "it may be big5 or gb18030"),
    ],
)
def test_an_encoding_that_is_not_certain_must_be_named(
    tmp_path: Path, text: str, encoding: str, words: str
) -> None:
    path = write(tmp_path, "a.csv", text.encode(encoding))
    with pytest.raises(DataError, match=words):
        read_table(path)
    named = read_table(path, FileOptions(encoding=encoding))
    assert rows(named) == rows(read_table(write(tmp_path, "b.csv", text)))
    with pytest.raises(DataError, match="unknown encoding 'utf8000'"):
        FileOptions(encoding="utf8000")


def test_bytes_that_the_named_encoding_lacks_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not utf-8 text"):
        read_table(write(tmp_path, "a.csv", b"user,item\n\xff,x\n"), FileOptions(encoding="utf-8"))


def test_bytes_beyond_the_first_block_decide_too(tmp_path: Path) -> None:
    """The first megabyte is ASCII; the text that shows the encoding comes after it."""
    text = "user,item\n" + "u,i\n" * 300_000 + CHINESE.partition("\n")[2]
    table = read_table(write(tmp_path, "a.csv", text.encode("gb18030")))
    assert table.formats == ("text, gb18030",)
    assert "智能手机" in table.columns["user"].names

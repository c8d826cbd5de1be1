"""Find the encoding of a text file by a stated rule; refuse what is not certain.

1. A byte order mark decides (UTF-8, UTF-16).
2. Bytes that are valid UTF-8 without NUL are UTF-8. Others have the encoding that the user names.
3. Without a name they are judged by their characters: each East Asian encoding has a set of
   frequent ones (GB2312's hanzi, Korean syllables, Japanese kana). Japanese needs kana; Chinese,
   Korean and kanji share their bytes, but Chinese text also uses the second half of GB2312, which
   Korean does not, and its last quarter, which kanji do not.
4. Anything else is refused, with the encodings that it may have: the user names one.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from tlrec_edge.errors import DataError

_BLOCK = 1 << 20
_SAMPLE = 1 << 20
"""Bytes of text beyond ASCII from which an encoding is judged."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MULTI_BYTE = ("big5", "gb18030", "cp949", "euc_jp", "shift_jis")
_SINGLE_BYTE = ("cp1252", "cp1250", "cp1251")
_MIN_COMMON = 0.8
"""Share of the characters beyond ASCII that must be frequent ones of the language."""
_MIN_KANA = 0.15
_MIN_SECOND_HALF = 0.08
"""Share of hanzi after Q in pinyin order, which are 40 % of usual Chinese text."""
_LAST_KANJI = 0xCF
"""Last lead byte of the usual kanji in EUC-JP; a quarter of Chinese text is beyond it."""
_MIN_HANGUL = 24
"""Syllables without such hanzi that are certainly Korean: a fifth of usual kanji are such too."""
_MAX_SINGLE, _MIN_WESTERN = 0.1, 0.9
"""Share of the bytes above 127 without a neighbour above 127; Western text has nearly only such."""
_MIN_NULS = 0.1
"""Share of NUL bytes in UTF-16, from its separators, digits and ends of lines."""


class _Failure(NamedTuple):
    line: int
    byte: int
    sample: bytes


def find_encoding(stream: BinaryIO, name: str, named: str = "") -> str:
    """Return the encoding of a stream, which is read to its end. ``name`` is for messages.

    ``named`` is the user's word for files that are not UTF-8: other files, or later ones, may be.

    Raises DataError if the bytes are not UTF-8 and no other encoding is certain.
    """
    start = stream.read(4)
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    failure = _first_invalid(start, stream)
    if failure is None:
        return "utf-8"
    is_wide = named and codecs.lookup(named).name.startswith(("utf-16", "utf-32"))
    if b"\0" in failure.sample and not is_wide:
        raise _error_on_nul(failure, name)
    if named:
        return named
    certain, possible = judge(failure.sample)
    if certain:
        return certain
    raise DataError(
        f"{name}: line {failure.line}, byte {failure.byte} is not UTF-8; it {_guess(possible)}. "
        f"Save the file as UTF-8, or name its encoding: {naming(possible[0] if possible else '')}"
    )


def naming(encoding: str) -> str:
    """Return how to name an encoding, "" if it is not known, in any command that reads tables."""
    return f'encoding = "{encoding or "NAME"}" under [files] in a file for --schema'


def _guess(possible: list[str]) -> str:
    """Say which encoding bytes have; only if it is the one possible encoding, they look like it."""
    *others, last = possible or [""]
    if others:
        return f"may be {', '.join(others)} or {last}"
    return f"looks like {last}" if last else "is in no encoding known here"


def _error_on_nul(failure: _Failure, name: str) -> DataError:
    nuls = [at for at, byte in enumerate(failure.sample) if not byte]
    for encoding, offset in (("utf-16-le", 1), ("utf-16-be", 0)):
        if all(at % 2 == offset for at in nuls) and len(nuls) >= _MIN_NULS * len(failure.sample):
            return DataError(
                f"{name}: looks like UTF-16 without a byte order mark; save it as UTF-8, or name "
                f"its encoding: {naming(encoding)}"
            )
    return DataError(
        f"{name}: line {failure.line}, byte {failure.byte} is NUL; it is a damaged text or a "
        "binary file: save it again as CSV (UTF-8) or Parquet"
    )


def judge(sample: bytes) -> tuple[str, list[str]]:
    """Return the certain encoding of bytes that are not UTF-8, or "" and the possible ones."""
    pairs, single = _high_bytes(sample)
    n_high = 2 * len(pairs) + single
    if not n_high:
        return "", []
    if single > _MAX_SINGLE * n_high:
        possible = ["shift_jis"] if _kana_share(sample, "shift_jis") >= _MIN_KANA else []
        if not possible and single < _MIN_WESTERN * n_high:
            possible = _decoders(sample)
        return "", possible or list(_SINGLE_BYTE)
    leads = [pair[0] for pair in pairs]
    if _decodes(sample, "euc_jp") and _share(leads, 0xA4, 0xA5) >= _MIN_KANA:
        return "euc_jp", []
    hanzi = [lead for lead in leads if lead >= 0xB0]
    is_chinese = _decodes(sample, "gb18030") and _common_share(sample, "gb18030", "gb2312")
    is_korean = _decodes(sample, "cp949") and _common_share(sample, "cp949", "euc_kr")
    is_kanji = _decodes(sample, "euc_jp") and max(leads) <= _LAST_KANJI
    second_half = _share(hanzi, 0xC9, 0xF7)
    if is_chinese and not is_kanji and (second_half >= _MIN_SECOND_HALF or not is_korean):
        return "gb18030", []
    if is_korean and not second_half and len(hanzi) >= _MIN_HANGUL:
        return "cp949", []
    fits = {"gb18030": is_chinese, "cp949": is_korean, "euc_jp": is_kanji}
    possible = [name for name, is_fit in fits.items() if is_fit]
    if not possible and _kana_share(sample, "shift_jis") >= _MIN_KANA:
        possible = ["shift_jis"]
    return "", possible or _decoders(sample) or list(_SINGLE_BYTE)


def _first_invalid(start: bytes, stream: BinaryIO) -> _Failure | None:
    """Return the first NUL, or else the first place that is not UTF-8, of the first such block.

    The sample is the block for a NUL, else the lines beyond ASCII from that block on.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, position, held = 1, 0, b""
    for block in _blocks(start, stream):
        if (at := block.find(0)) >= 0:
            return _Failure(line + block.count(b"\n", 0, at), position + at, block)
        try:
            decoder.decode(block)
        except UnicodeDecodeError as error:
            # The decoder may have kept the first bytes of a character from the block before.
            data = held + block
            at = error.start
            line += data.count(b"\n", 0, at) - held.count(b"\n")
            byte = position - len(held) + at
            return _Failure(line, byte, _sample(block, stream))
        line += block.count(b"\n")
        position += len(block)
        held = decoder.getstate()[0]
    if held:
        return _Failure(line, position - len(held), held)
    return None


def _blocks(start: bytes, stream: BinaryIO) -> Iterator[bytes]:
    if start:
        yield start
    while block := stream.read(_BLOCK):
        yield block


def _sample(block: bytes, stream: BinaryIO) -> bytes:
    """Collect lines with bytes above 127, up to the size of a sample."""
    found = io.BytesIO()
    rest = b""
    for part in _blocks(block, stream):
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if not line.isascii():
                found.write(line + b"\n")
        if found.tell() >= _SAMPLE:
            break
    if not rest.isascii():
        found.write(rest)
    return found.getvalue()


def _high_bytes(sample: bytes) -> tuple[list[bytes], int]:
    """Return the pairs of bytes above 127, read from the left, and the number of single ones."""
    pairs, single, at = [], 0, 0
    while at < len(sample):
        if sample[at] < 0x80:
            at += 1
        elif at + 1 < len(sample) and sample[at + 1] >= 0x80:
            pairs.append(sample[at : at + 2])
            at += 2
        else:
            single += 1
            at += 1
    return pairs, single


def _decoders(sample: bytes) -> list[str]:
    """Return the East Asian encodings in which a sample is valid, whatever it then says."""
    return [name for name in _MULTI_BYTE if _decodes(sample, name)]


def _decodes(sample: bytes, encoding: str) -> bool:
    try:
        sample.decode(encoding)
    except UnicodeDecodeError as error:
        return error.end >= len(sample) - 1  # the sample may end within a character
    return True


def _common_share(sample: bytes, encoding: str, common: str) -> bool:
    """Return whether nearly all characters beyond ASCII are in the smaller, older set."""
    wide = [char for char in sample.decode(encoding, "ignore") if ord(char) > 127]
    n_common = sum(1 for char in wide if char.encode(common, "ignore"))
    return bool(wide) and n_common >= _MIN_COMMON * len(wide)


def _kana_share(sample: bytes, encoding: str) -> float:
    if not _decodes(sample, encoding):
        return 0.0
    wide = [char for char in sample.decode(encoding, "ignore") if ord(char) > 127]
    return sum("\u3040" <= char <= "\u30ff" for char in wide) / max(1, len(wide))


def _share(leads: list[int], first: int, last: int) -> float:
    return sum(first <= lead <= last for lead in leads) / max(1, len(leads))

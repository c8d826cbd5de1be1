"""Small invented files with what spreadsheets, engines and careless exports do to a table.

The cases are as those of ``public_logs``: what is read, or words of the note or of the error.
"""

from __future__ import annotations

from helpers.public_logs import BUY, LOG, LOG_ROWS, ORDER, Case, lines, parquet

DAY = "2024-01-31 00:00:00"
NOON = "2024-01-31 12:00:00"
THREE_DAYS = [("u", "xyz"[day - 29], BUY, f"2024-01-{day} 00:00:00") for day in (29, 30, 31)]
MORNING = "2024-01-31 09:45:00"


def two(first: str, second: str) -> bytes:
    """Return a log of one user with two items at two times."""
    return lines("user,item,time", f"u,x,{first}", f"u,y,{second}")


def dated(*rows: str) -> bytes:
    """Return a log of one day from pairs of a user and an item."""
    return lines("user,item,time", *(f"{row},2024-01-31" for row in rows))


ODD_FILES: dict[str, Case] = {
    "US dates with dashes": Case(
        two("12-31-2024", "01-02-2024"),
        [("u", "y", BUY, "2024-01-02 00:00:00"), ("u", "x", BUY, "2024-12-31 00:00:00")],
    ),
    "dates with dashes that may be American": Case(
        two("01-02-2024", "03-04-2024"), error="fits both '%d-%m-%Y' and '%m-%d-%Y'"
    ),
    "two digits of a year, first or last": Case(
        two("24/01/31", "23/12/01"), error="fits both '%d/%m/%y' and '%y/%m/%d'"
    ),
    "two digits of a year, first": Case(
        lines("user,item,time", "u,x,24/01/29", "u,y,24/01/30", "u,z,24/01/31"), THREE_DAYS
    ),
    "two digits of a year, last": Case(
        lines("user,item,time", "u,x,29/01/24", "u,y,30/01/24", "u,z,31/01/24"), THREE_DAYS
    ),
    "a date and an American clock": Case(
        lines("Date,Time,user,item", "1/31/2024,12:00:00 PM,u,x", "1/31/2024,9:45 am,u,y"),
        [("u", "y", BUY, MORNING), ("u", "x", BUY, NOON)],
    ),
    "ten digits": Case(
        two("2024013112", "2024013109"),
        [("u", "y", BUY, "2024-01-31 09:00:00"), ("u", "x", BUY, NOON)],
    ),
    "zero for an unknown time": Case(
        two("1706702400", "0"),
        [("u", "y", BUY, "1970-01-01 00:00:00"), ("u", "x", BUY, NOON)],
        note="some are before 1973, such as '0'",
    ),
    "a header line in the middle, with its mark": Case(
        "\ufeffuser,item\nu,i\nu,j\n\ufeffuser,item\nv,i\n".encode(),
        LOG_ROWS,
        note=f"1 row repeats the header line (left out)\n{ORDER}",
    ),
    "a title above the header": Case(
        lines("Sales", "", "user,item", "u,i"), error="(Sales): remove lines above the header line"
    ),
    "separated by blanks": Case(
        lines("user item time", "u x 1706702400"), error="the only column is 'user item time'"
    ),
    "texts without a header": Case(
        lines("u1,i1,view,2024-01-31", "u2,i1,view,2024-01-31"), error="no header line?"
    ),
    "a part without a header": Case(
        {"0.csv": dated("u,x"), "1.csv": lines("u,y,2024-01-31", "v,x,2024-01-31")},
        error="1.csv and",
    ),
    "a folder of an unknown date": Case(
        {
            "date=2024-01-31/0.csv": lines("user,item,market", "u,x,c d"),
            "date=__HIVE_DEFAULT_PARTITION__/0.csv": lines("user,item,market", "u,y,c d"),
        },
        [("u", "x", BUY, DAY)],
    ),
    "ids stored as floats in one part": Case(
        {
            "0.parquet": parquet(user=[16.0, None], item=["x", "z"], time=["2024-01-31"] * 2),
            "1.parquet": parquet(user=[16], item=["y"], time=["2024-02-01"]),
        },
        [("16", "x", BUY, DAY), ("16", "y", BUY, "2024-02-01 00:00:00")],
    ),
    "ids of bytes": Case(
        parquet(user=[b"\xff\x01", b"\xfe\x01"], item=["x", "x"], time=["2024-01-31"] * 2),
        [("\\xfe\x01", "x", BUY, DAY), ("\\xff\x01", "x", BUY, DAY)],
        note="an invisible character",
    ),
    "two columns of one name": Case(
        parquet(user=["u"], item=["x"]).replace(b"user", b"item"),
        error="two columns have the same name, 'item'",
    ),
    "ids that a spreadsheet must not round": Case(
        lines("user,item,time", 'u,="007",2024-01-31', 'v,"=""008""",2024-01-31'),
        [("u", "007", BUY, DAY), ("v", "008", BUY, DAY)],
    ),
    "ids that a spreadsheet rounded": Case(
        dated("u,4.00638E+12"),
        [("u", "4.00638E+12", BUY, DAY)],
        note="item '4.00638E+12' looks like a rounded number",
    ),
    "ids with blanks at the end": Case(
        dated("u ,x", "u,x"),
        [("u", "x", BUY, DAY), ("u ", "x", BUY, DAY)],
        note="user 'u ' has a blank at an end",
    ),
    "several items in a cell": Case(
        dated('u,"x,y"', 'v,"x,z"'),
        [("u", "x,y", BUY, DAY), ("v", "x,z", BUY, DAY)],
        note="item 'x,y' (and 1 other) looks like several ids",
    ),
    "a list of items in JSON": Case(
        lines('{"user": "u", "item": ["x", "y"], "time": "2024-01-31"}'),
        [("u", '["x", "y"]', BUY, DAY)],
        note="is a list or an object",
    ),
    "NaN in JSON": Case(
        lines(
            '{"user": "u", "item": "x", "time": "2024-01-31"}',
            '{"user": NaN, "item": "x", "time": "2024-01-31"}',
        ),
        [("u", "x", BUY, DAY)],
    ),
    "a key twice in JSON": Case(
        lines('{"user": "u", "item": "x", "user": "v"}'), error="key 'user' occurs twice"
    ),
    "half a character in JSON": Case(
        lines('{"user": "\\ud83d", "item": "x"}'), error="is not valid JSON"
    ),
    "rows without an event": Case(
        lines("user,item,event,time", "u,x,view,2024-01-30", "u,y,,2024-01-31"),
        [("u", "x", "view", "2024-01-30 00:00:00"), ("u", "y", BUY, DAY)],
        note="1 row has no event and counts as purchase",
    ),
    "counts with points": Case(
        lines("user;item;views;time", "u;x;1.234;2024-01-31", "v;x;3;2024-01-31"),
        [("u", "x", "view", DAY), ("v", "x", "view", DAY)],
        note="views '1.234' is read with a decimal point",
    ),
    "prices with points": Case(
        LOG,
        LOG_ROWS,
        items=lines("item;price", "i;12.000", "j;500"),
        kinds={"price": "numeric"},
        note="price '12.000' is read with a decimal point; if the point is for thousands",
    ),
    "prices with several points": Case(
        LOG,
        LOG_ROWS,
        items=lines("item;price", "i;1.500.000", "j;12.000"),
        numbers=("price", [1_500_000, 12_000]),
        note=ORDER,
    ),
    "prices in two currencies": Case(
        LOG,
        LOG_ROWS,
        items=lines("item,price", "i,US$ 12.00", "j,€12.50"),
        numbers=("price", [12.0, 12.5]),
        note="price has several currencies, not converted: US$, €",
    ),
    "percent": Case(
        LOG,
        LOG_ROWS,
        items=lines("item,discount", "i,15%", "j,7.5%"),
        numbers=("discount", [0.15, 0.075]),
        note=ORDER,
    ),
    "an item without an id, and a sum": Case(
        LOG,
        LOG_ROWS,
        items=lines("item,colour", "i,red", "j,red", "#REF!,red", "Total,"),
        note="item table: item '#REF!' has 1 row;",
    ),
    "kanji, EUC-JP": Case("user,item\nu,東京都\n".encode("euc_jp"), error="or euc_jp"),
    "Chinese, Big5": Case(
        "user,item\nu,手機充電器\n".encode("big5"), error="may be big5, gb18030 or cp949"
    ),
    "Russian, cp1251": Case("user,item\nu,Чай\nv,Сыры\n".encode("cp1251"), error="cp1251"),
    "UTF-16, the other order": Case(
        LOG.decode().encode("utf-16-be"), error='encoding = "utf-16-be" under'
    ),
    "Chinese in UTF-16": Case(
        "用户ID,商品ID\n甲,乙\n".encode("utf-16-le"), error='encoding = "utf-16-le" under'
    ),
    "NUL at the end": Case(LOG + b"\0" * 60, error="line 5, byte 22 is NUL"),
    "Feather": Case(b"ARROW1\0\0\xff\xff", error="Arrow (Feather) file"),
}

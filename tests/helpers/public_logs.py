"""Small invented files in the shape of public logs and of what shops export.

Each case has the bytes of its files, and what must be read from them: (user, item, event, time) of
every interaction, in the order of users and times. A case that cannot be read with certainty names
words of the error, or of the note, that says so.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Row = tuple[str, str, str, str]


@dataclass(frozen=True)
class Case:
    """One log, or a log with an item table.

    Attributes:
        log: the bytes of the interaction file, or files of a folder by name.
        rows: user, item, event and time of each interaction; "" without times.
        items: the bytes of the item table, None without one.
        schema: the tables of a schema.
        note: words of a note that must be given, "" for none.
        error: words of the error, "" if the files can be read.
        kinds: feature columns and their kinds.
        numbers: a numeric feature column, and its values in the order of ids.
    """

    log: bytes | Mapping[str, bytes]
    rows: list[Row] = field(default_factory=list)
    items: bytes | None = None
    schema: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    error: str = ""
    kinds: Mapping[str, str] | None = None
    numbers: tuple[str, list[float]] | None = None


def lines(*rows: str, encoding: str = "utf-8") -> bytes:
    return ("\n".join(rows) + "\n").encode(encoding)


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


BUY = "purchase"
LOG = lines("user,item", "u,i", "u,j", "v,i")
"""A log without anything odd."""
LOG_ROWS = [("u", "i", BUY, ""), ("u", "j", BUY, ""), ("v", "i", BUY, "")]
ORDER = "no time column: the order of the file counts"

CASES: dict[str, Case] = {
    "Retailrocket events": Case(
        lines(
            "timestamp,visitorid,event,itemid,transactionid",
            "1433221332117,257597,view,355908,",
            "1433221999827,257597,addtocart,355908,",
            "1433222276276,121688,transaction,15335,4000",
        ),
        [
            ("121688", "15335", "purchase", "2015-06-02 05:17:56"),
            ("257597", "355908", "view", "2015-06-02 05:02:12"),
            ("257597", "355908", "cart", "2015-06-02 05:13:19"),
        ],
    ),
    "Retailrocket item properties": Case(
        lines("timestamp,visitorid,event,itemid", "1433221332117,1,view,355908"),
        [("1", "355908", "view", "2015-06-02 05:02:12")],
        items=lines(
            "timestamp,itemid,property,value",
            "1435460400000,355908,categoryid,1338",
            "1432441200000,355908,categoryid,1114",
            "1435460400000,355908,790,n15360.000",
        ),
        kinds={"categoryid": "categorical", "790": "categorical"},
        note="one row for each property: 2 of 2 properties are columns",
    ),
    "REES46": Case(
        lines(
            "event_time,event_type,product_id,category_id,category_code,brand,price,user_id,"
            "user_session",
            "2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,a",
            "2019-10-01 00:00:04 UTC,cart,3900821,2053013552326770905,x.y,aqua,33.20,554748717,b",
            "2019-10-01 00:00:05 UTC,remove_from_cart,3900821,20530135,x,aqua,33.20,554748717,b",
        ),
        [
            ("541312140", "44600062", "view", "2019-10-01 00:00:00"),
            ("554748717", "3900821", "cart", "2019-10-01 00:00:04"),
            ("554748717", "3900821", "other", "2019-10-01 00:00:05"),
        ],
    ),
    "H&M": Case(
        lines(
            "t_dat,customer_id,article_id,price,sales_channel_id",
            "2018-09-20,000058a1,0663713001,0.0508,2",
            "2018-09-20,00007d2d,0541518023,0.0304,2",
        ),
        [
            ("000058a1", "0663713001", BUY, "2018-09-20 00:00:00"),
            ("00007d2d", "0541518023", BUY, "2018-09-20 00:00:00"),
        ],
        items=lines("article_id,prod_name", "0663713001,Strap top", "0541518023,Rae push"),
    ),
    "H&M through a spreadsheet": Case(
        lines("t_dat,customer_id,article_id", "2018-09-20,a,0108775015"),
        items=lines("article_id,prod_name", "108775015,Strap top"),
        error="equal without leading zeros",
    ),
    "Tmall": Case(
        lines(
            "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type",
            "328862,323294,833,2882,2661.0,0829,0",
            "328862,844400,1271,2882,2661.0,0829,2",
        ),
        [
            ("328862", "323294", "view", "1970-01-01 00:13:49"),
            ("328862", "844400", "purchase", "1970-01-01 00:13:49"),
        ],
        schema={"events": {"0": "view", "1": "cart", "2": "purchase", "3": "other"}},
        note="before 1973",
    ),
    "Taobao without a header": Case(
        lines("1,2268318,2520377,pv,1511544070", "1,2333346,2520771,buy,1511561733"),
        error="no header line?",
    ),
    "Taobao, one line without a header": Case(
        lines("1,2268318,2520377,pv,1511544070"), error="no header line?"
    ),
    "a log without a header, two equal cells in its first line": Case(
        lines("7,7,pv,1511544070", "1,2333346,buy,1511561733"), error="no header line?"
    ),
    "Taobao with --columns": Case(
        lines("1,2268318,2520377,pv,1511544070", "1,2333346,2520771,buy,1511561733"),
        [
            ("1", "2268318", "view", "2017-11-24 17:21:10"),
            ("1", "2333346", "purchase", "2017-11-24 22:15:33"),
        ],
        schema={"files": {"columns": ["user", "item", "category", "event", "time"]}},
    ),
    "Yoochoose clicks": Case(
        lines("1,2014-04-07T10:51:09.277Z,214536502,0", "1,2014-04-07T10:54:09.868Z,214536500,0"),
        [
            ("1", "214536502", "click", "2014-04-07 10:51:09"),
            ("1", "214536500", "click", "2014-04-07 10:54:09"),
        ],
        schema={
            "files": {"columns": ["session", "time", "item", "category"]},
            "clean": {"default_event": "click"},
        },
    ),
    "Instacart": Case(
        lines("order_id,product_id,add_to_cart_order,reordered", "2,33120,1,1"),
        error="no user column; found order_id, product_id",
    ),
    "Amazon 2018, JSON lines": Case(
        lines(
            '{"overall": 5.0, "reviewerID": "A1", "asin": "B01", "unixReviewTime": 1490572800, '
            '"reviewTime": "03 27, 2017", "style": {"Color:": " Blue"}}',
            '{"overall": 3.0, "reviewerID": "A2", "asin": "B01", "unixReviewTime": 1490572801}',
        ),
        [
            ("A1", "B01", BUY, "2017-03-27 00:00:00"),
            ("A2", "B01", BUY, "2017-03-27 00:00:01"),
        ],
    ),
    "Amazon 2023, gzip": Case(
        gzip.compress(
            lines(
                '{"rating": 5.0, "title": "Such", "asin": "B00", "parent_asin": "P00", '
                '"user_id": "AEYO", "timestamp": 1595801200000, "verified_purchase": true}'
            )
        ),
        [("AEYO", "P00", BUY, "2020-07-26 22:06:40")],
    ),
    "Amazon ratings only": Case(
        lines("A2CX7,B01,5.0,1353612262", "A2NWS,B01,2.0,1356998400"),
        [
            ("A2CX7", "B01", BUY, "2012-11-22 19:24:22"),
            ("A2NWS", "B01", BUY, "2013-01-01 00:00:00"),
        ],
        schema={"files": {"columns": ["user", "item", "rating", "timestamp"]}},
    ),
    "Olist": Case(
        lines(
            '"order_id","customer_unique_id","product_id","order_purchase_timestamp","price"',
            '"e481","7c39","8723","2017-10-02 10:56:33",29.99',
        ),
        [("7c39", "8723", BUY, "2017-10-02 10:56:33")],
    ),
    "MovieLens 1M": Case(
        lines("1::1193::5::978300760", "1::661::3::978302109"),
        [("1", "1193", BUY, "2000-12-31 22:12:40"), ("1", "661", BUY, "2000-12-31 22:35:09")],
        schema={"files": {"columns": ["user", "item", "rating", "time"]}},
    ),
    "MovieLens 25M with genres": Case(
        lines("userId,movieId,rating,timestamp", "1,296,5.0,1147880044"),
        [("1", "296", BUY, "2006-05-17 15:34:04")],
        items=lines("movieId,title,genres", "296,Pulp Fiction (1994),Comedy|Crime|Sci-Fi"),
        schema={"items": {"list": {"genres": "|"}}},
        kinds={"title": "text", "genres": "list, separated by |"},
    ),
    "UCI Online Retail": Case(
        lines(
            "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country",
            "536365,85123A,WHITE HOLDER,6,12/1/2010 8:26,2.55,17850.0,United Kingdom",
            "C536379,D,Discount,-1,12/1/2010 9:41,27.5,14527.0,United Kingdom",
            "536380,22960,JAM SET,1,12/13/2010 9:41,4.25,,United Kingdom",
        ),
        [("17850", "85123A", BUY, "2010-12-01 08:26:00")],
    ),
    "dunnhumby, date and hour": Case(
        lines("user,item,date,time", "a,x,2024-02-01,13", "a,y,2024-01-31,18"),
        [("a", "y", BUY, "2024-01-31 18:00:00"), ("a", "x", BUY, "2024-02-01 13:00:00")],
    ),
    "a till, date and clock": Case(
        lines("date;time;customer;sku", "31.01.2024;13:45;a;x", "31.01.2024;9:05;a;y"),
        [("a", "y", BUY, "2024-01-31 09:05:00"), ("a", "x", BUY, "2024-01-31 13:45:00")],
    ),
    "a till, clocks as digits, one missing": Case(
        lines(
            "date;time;customer;sku",
            "31.01.2024;134559;a;x",
            "31.01.2024;905;a;y",
            "30.01.2024;;a;z",
        ),
        [
            ("a", "z", BUY, "2024-01-30 00:00:00"),
            ("a", "y", BUY, "2024-01-31 09:05:00"),
            ("a", "x", BUY, "2024-01-31 13:45:59"),
        ],
    ),
    "UTF-16 without a byte order mark": Case(
        "user,item\nu,i\n".encode("utf-16-le"), error="looks like UTF-16 without a byte order mark"
    ),
    "an encoding is named, but the log is UTF-8": Case(
        lines("user,item", "Jürgen,i"),
        [("Jürgen", "i", BUY, "")],
        schema={"files": {"encoding": "cp1252"}},
        note=ORDER,
    ),
    "columns are named, but the log has a header": Case(
        lines("user_id,item_id,time", "u,i,1700000000"),
        [("u", "i", BUY, "2023-11-14 22:13:20")],
        schema={"files": {"columns": ["user", "item", "category", "event", "time"]}},
    ),
    "spreadsheet days": Case(
        lines("user,item,date", "a,x,45323.10", "a,y,45322.57"),
        [("a", "y", BUY, "2024-01-31 13:40:48"), ("a", "x", BUY, "2024-02-01 02:24:00")],
    ),
    "twelve digits": Case(
        lines("user,item,time", "a,x,202401311345", "a,y,202402011000"),
        [("a", "x", BUY, "2024-01-31 13:45:00"), ("a", "y", BUY, "2024-02-01 10:00:00")],
    ),
    "seconds and milliseconds": Case(
        lines("user,item,ts", "a,x,1700000000", "a,y,1700000001000"),
        [("a", "x", BUY, "2023-11-14 22:13:20"), ("a", "y", BUY, "2023-11-14 22:13:21")],
        note="its units differ from row to row",
    ),
    "a day without a year": Case(
        lines("user,item,time", "a,x,03/04/2024", "a,y,05/06/2024"), error="fits both"
    ),
    "an unknown form of time": Case(
        lines("user,item,time", "a,x,day 3", "b,x,day 4"),
        error="'day 3' is not a known form of time: set time_format",
    ),
    "no time, but dates": Case(
        lines("user,item,sold_on", "a,x,2020-01-02", "a,y,2020-01-01"),
        [("a", "x", BUY, ""), ("a", "y", BUY, "")],
        note=f"{ORDER}; is 'sold_on' the time?",
    ),
    "no time": Case(LOG, LOG_ROWS, note=ORDER),
    "words for nothing": Case(
        lines("user,item", "NULL,x", "NULL,y", "a,x"),
        [("NULL", "x", BUY, ""), ("NULL", "y", BUY, ""), ("a", "x", BUY, "")],
        note="user 'NULL' has 2 rows",
    ),
    "MySQL's word for nothing": Case(
        lines("user,item", "\\N,x", "\\N,y", "a,x"),
        [("\\N", "x", BUY, ""), ("\\N", "y", BUY, ""), ("a", "x", BUY, "")],
        note='drop them: missing = ["\\\\N"]',
    ),
    "words for nothing, named": Case(
        lines("user,item", "NULL,x", "NULL,y", "a,x"),
        [("a", "x", BUY, "")],
        schema={"clean": {"missing": ["NULL"]}},
        note=ORDER,
    ),
    "prices with a decimal comma": Case(
        LOG,
        LOG_ROWS,
        items=lines("item;price", "i;6,30 €", "j;1.250,00 €"),
        kinds={"price": "numeric"},
        numbers=("price", [6.3, 1250.0]),
        note=ORDER,
    ),
    "prices in yen and ten thousands": Case(
        LOG,
        LOG_ROWS,
        items=lines("商品ID,价格", "i,¥１２００", "j,¥1.5万"),
        kinds={"价格": "numeric"},
        numbers=("价格", [1200.0, 15000.0]),
        note=ORDER,
    ),
    "a comma that may mean two things": Case(
        LOG,
        LOG_ROWS,
        items=lines("item;price", "i;1,234", "j;2,500"),
        kinds={"price": "categorical"},
        note="'1,234' may have a decimal comma",
    ),
    "that comma, named": Case(
        LOG,
        LOG_ROWS,
        items=lines("item;price", "i;1,234", "j;2,500"),
        schema={"files": {"decimal": ","}},
        numbers=("price", [1.234, 2.5]),
        note=ORDER,
    ),
    "quantities with a decimal comma": Case(
        lines("user;item;quantity", "a;x;1,0", "a;y;-1,0"), [("a", "x", BUY, "")], note=ORDER
    ),
    "Chinese counts, GB18030": Case(
        lines(
            "用户ID,商品ID,浏览次数,购买次数", "甲,手机,3,1", "乙,洗衣机,1,0", encoding="gb18030"
        ),
        [
            ("乙", "洗衣机", "view", ""),
            ("甲", "手机", "view", ""),
            ("甲", "手机", "purchase", ""),
        ],
        note=ORDER,
    ),
    "Korean, CP949, too short to be certain": Case(
        LOG,
        items="item,category\ni,가전\nj,커피\n".encode("cp949"),
        error="may be gb18030, cp949 or euc_jp",
    ),
    "Korean, CP949, named": Case(
        lines("user,item,category", "u,노트북,가전", encoding="cp949"),
        [("u", "노트북", BUY, "")],
        schema={"files": {"encoding": "cp949"}},
        note=ORDER,
    ),
    "German, Latin-1": Case(
        "user,item\nJürgen,i\n".encode("latin-1"), error="may be cp1252, cp1250 or cp1251"
    ),
    "UTF-16 from a spreadsheet": Case(
        "user\titem\nJürgen\ti\n".encode("utf-16"), [("Jürgen", "i", BUY, "")], note=ORDER
    ),
    "Spark folder": Case(
        {
            "_SUCCESS": b"",
            "market=de/part-0.parquet": parquet(user=["u"], item=[7.0]),
            "market=fr/part-0.parquet": parquet(user=["v"], item=[16.0]),
        },
        [("u", "7", BUY, ""), ("v", "16", BUY, "")],
        note=ORDER,
    ),
    "pandas index and float ids": Case(
        lines(",user,item", "0,17850.0,16.0", "1,12.0,7.0", "2,12.0,7.0"),
        [("12", "7", BUY, ""), ("17850", "16", BUY, "")],
        note=ORDER,
    ),
    "items that contradict themselves": Case(
        LOG,
        LOG_ROWS,
        items=lines("item,colour", "i,red", "i,blue", "j,red"),
        note="1 item has rows that differ, first 'i'",
    ),
    "few items in the item table": Case(
        LOG,
        LOG_ROWS,
        items=lines("item,colour", "A7,red", "j,red", "A8,red", "A9,red").replace(b"j,", b"k,"),
        note="lists 0 of the log's 2 items; it lacks, for example, 'i'",
    ),
    "every row twice, and returns": Case(
        lines(
            "user,item,event,time,quantity",
            *["u,i,view,2024-01-01,1", "u,j,purchase,2024-01-02,2"] * 2,
            "u,k,purchase,2024-01-03,-1",
        ),
        [("u", "i", "view", "2024-01-01 00:00:00"), ("u", "j", BUY, "2024-01-02 00:00:00")],
    ),
}

"""Common names of columns, events and missing ids, in English and Chinese; the best come first.

Names are compared without case, spaces and punctuation: "User_ID", "user id" and "userid" match.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

COUNT_EVENTS = {"views": "view", "clicks": "click", "carts": "cart", "purchases": "purchase"}
"""Roles of columns with counts, and the event that each one counts."""


def normalize_key(name: str) -> str:
    """Return a column name or event as it is compared: letters and digits in lower case."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


INTERACTION_NAMES: Mapping[str, tuple[str, ...]] = {
    "user": _words(
        "user userid uid customeruniqueid customer customerid custid client clientid household "
        "householdid visitor visitorid member memberid buyer buyerid account accountid reviewer "
        "reviewerid usersession sessionid session "
        "用户id 用户 用户编号 会员id 会员编号 客户id 客户 客户编号 买家id 顾客id"
    ),
    "item": _words(
        "item itemid iid product productid sku skuid stockcode goods goodsid articleid "
        "article parentasin asin productcode movieid bookid isbn trackid "
        "商品id 商品 商品编号 物品id 物品 产品id 产品 产品编号 货号"
    ),
    "event": _words(
        "event eventtype eventname behavior behaviour behaviortype action actiontype "
        "interactiontype activity "
        "行为 行为类型 事件 事件类型"
    ),
    "timestamp": _words(
        "timestamp time datetime date eventtime eventtimestamp eventdate eventdatetime invoicedate "
        "orderdate ordertime orderpurchasetimestamp purchasedate purchasetime "
        "transactiontimestamp transactiondate transactiontime tdat unixreviewtime "
        "reviewtime reviewdate createdat createdate creationdate timestampms ts "
        "时间 时间戳 日期 购买时间 下单时间 行为时间"
    ),
    "clock": (),  # the time of day, if the date has a column of its own; found by its values
    "quantity": _words("quantity qty 数量 购买数量 件数"),
    "price": _words("price unitprice 价格 单价"),
    "domain": _words("domain market country site 市场 国家 站点 领域 域"),
    "category": _words(
        "category categoryname categorycode categoryid catid cateid 分类 类别 类目 "
        "品类 商品分类 商品类别"
    ),
    "title": _words("title description name productname itemname 商品名称 标题 名称 商品标题 品名"),
    "views": _words("views viewcount impressions 浏览次数 浏览量 曝光次数"),
    "clicks": _words("clicks click clickcount nclicks 点击次数 点击量 点击数"),
    "carts": _words("carts cartcount addtocartcount 加购次数 加购数"),
    "purchases": _words(
        "purchases purchase purchasecount orders ordercount buys 购买次数 购买量 购买数"
    ),
}
"""Names of the columns of an interaction table, by role."""
ITEM_NAMES: Mapping[str, tuple[str, ...]] = {
    "item": (*INTERACTION_NAMES["item"], "id"),
    "domain": INTERACTION_NAMES["domain"],
    "category": INTERACTION_NAMES["category"],
    "name": _words("title name itemname productname 商品名称 标题 名称 商品标题 品名 description"),
}
"""Names of the columns of an item table, by role."""
SALES_NAMES = _words("sales salesvolume salescount sold unitssold 销量 月销量 总销量 销售量")
"""Names of an item column with sales, a prior for items without interactions."""
_EVENT_NAMES = {
    "view": "view views pv browse impression detail pageview productview itemview viewitem "
    "detailview productdetail show 浏览 曝光 查看",
    "click": "click clicks clk clickout 点击",
    "cart": "cart carts addtocart cartadd addcart addtobasket basket additem add2cart 加购 "
    "加购物车 购物车 加入购物车",
    "purchase": "purchase purchases purchased buy bought order ordered transaction sale checkout "
    "pay paid payment conversion 购买 下单 成交 支付 付款",
    "other": "other fav favorite favourite collect like wishlist addtowishlist share remove "
    "removefromcart removefrombasket 收藏 分享 加收藏",
}
EVENT_SYNONYMS = {name: event for event, names in _EVENT_NAMES.items() for name in _words(names)}
"""The event of each known name in an event column."""
MISSING_IDS = frozenset(
    _words(
        "null nan none n/a na \\n undefined unknown nil (null) <na> -1 "
        "#n/a #name? #ref! #value! #null! #num! #div/0! total subtotal sum 合计 总计 小计"
    )
)
"""Words that usually mean that an id is missing, or that a row is a sum."""

"""Transfer a recommender to a market with little data, compress it, and serve it on a CPU."""

from tlrec_edge.bundle.item_rows import ItemRows
from tlrec_edge.errors import ArgumentError, BundleError, DataError, TlrecError, UnknownIdError
from tlrec_edge.runtime.history import History
from tlrec_edge.runtime.recommender import Recommendations, Recommender
from tlrec_edge.version import VERSION as __version__

__all__ = [
    "ArgumentError",
    "BundleError",
    "DataError",
    "History",
    "ItemRows",
    "Recommendations",
    "Recommender",
    "TlrecError",
    "UnknownIdError",
    "__version__",
]


def __getattr__(name: str) -> object:
    if name != "Rows":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import warnings

    message = "tlrec_edge.Rows was renamed to tlrec_edge.ItemRows in 0.2 and will be removed in 0.3"
    warnings.warn(message, DeprecationWarning, stacklevel=2)
    return ItemRows

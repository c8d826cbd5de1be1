"""Transfer a recommender to a market with little data, compress it, and serve it on a CPU."""

from tlrec_edge.bundle.ids import Rows
from tlrec_edge.errors import BundleError, DataError, TlrecError, UnknownIdError
from tlrec_edge.runtime.history import History
from tlrec_edge.runtime.recommender import Recommendations, Recommender
from tlrec_edge.version import VERSION as __version__

__all__ = [
    "BundleError",
    "DataError",
    "History",
    "Recommendations",
    "Recommender",
    "Rows",
    "TlrecError",
    "UnknownIdError",
    "__version__",
]

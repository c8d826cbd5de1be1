"""An older version of tlrec-edge, installed in an environment of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import tlrec_edge
from tlrec_edge.version import VERSION

from ..data import Data
from .public_api import PublicApi


class Before(PublicApi):
    """The version that ``--before`` installed."""

    def __init__(self, data: Data, model: str) -> None:
        package = Path(str(tlrec_edge.__file__))
        if not package.is_relative_to(sys.prefix):
            raise RuntimeError(f"{package.parent} is not the older version that was installed")
        super().__init__(data, model)
        self.about = f"the older version ({VERSION}), run as tlrec-edge is"

"""Sphinx configuration. `make docs` builds the site strictly: a warning is an error."""

from __future__ import annotations

import tlrec_edge

project = "tlrec-edge"
copyright = "the tlrec-edge authors, Apache-2.0"
release = version = tlrec_edge.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
nitpicky = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"tlrec-edge {release}"
html_static_path: list[str] = []

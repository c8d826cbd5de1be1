"""The package's version, written into every bundle."""

VERSION = "0.2.0"

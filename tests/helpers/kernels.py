"""The kernels of BLAS, numpy and torch that this processor can run, and how to choose them.

They are chosen when the libraries are imported, so by the environment of a new process.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

_SIMD = np.show_config(mode="dicts")["SIMD Extensions"]
_FOUND: list[str] = _SIMD.get("found", [])  # absent if all are disabled
_HAS_AVX2 = bool({"AVX2", "X86_V3"} & {*_SIMD["baseline"], *_FOUND})


def _has_avx512f() -> bool:
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return False


_BLAS = [
    *("Nehalem", "Prescott"),
    *(["Haswell"] if _HAS_AVX2 else []),
    *(["SkylakeX"] if _has_avx512f() else []),  # it dies of an illegal instruction elsewhere
]
_ENVIRONMENTS: dict[str, dict[str, str]] = {
    "unset": {},
    **{name: {"OPENBLAS_CORETYPE": name} for name in _BLAS},
    "plain loops": {
        "NPY_DISABLE_CPU_FEATURES": " ".join(_FOUND),
        "ATEN_CPU_CAPABILITY": "default",
        "OPENBLAS_CORETYPE": "Prescott",
    },
}
KERNELS = list(_ENVIRONMENTS)
"""Names of the choices."""
_VARIABLES = ("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "ATEN_CPU_CAPABILITY")


def with_kernel(kernel: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which a new process uses other kernels."""
    rest = {name: value for name, value in environment.items() if name not in _VARIABLES}
    return rest | _ENVIRONMENTS[kernel]

"""Quantizers of other projects, each from one float32 ONNX file to another.

olive-ai and onnx-neural-compressor are optional: see the README for how they install.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    quantize_dynamic,
    quantize_static,
)

Feed = dict[str, np.ndarray]
Quantize = Callable[[Path, Path, list[Feed]], None]
"""From the float32 file to the quantized one, calibrated on requests."""


class Calibration(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    def __init__(self, feeds: list[Feed]) -> None:
        self.feeds = feeds
        self.rewind()

    def rewind(self) -> None:
        self.left: Iterator[Feed] = iter(self.feeds)

    def get_next(self) -> Feed | None:
        return next(self.left, None)

    def __len__(self) -> int:
        return len(self.feeds)


def dynamic(source: Path, out: Path, feeds: list[Feed]) -> None:
    quantize_dynamic(str(source), str(out))


def static(source: Path, out: Path, feeds: list[Feed], method: str, reduce: bool) -> None:
    quantize_static(
        str(source),
        str(out),
        Calibration(feeds),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=reduce,
        calibrate_method=getattr(CalibrationMethod, method),
    )


def olive(source: Path, out: Path, feeds: list[Feed], kind: str, **options: Any) -> None:
    os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
    from olive.data.config import DataConfig
    from olive.data.registry import Registry
    from olive.model import ONNXModelHandler
    from olive.package_config import OlivePackageConfig
    from olive.passes.olive_pass import create_pass_from_dict

    Registry.register_dataset("requests")(lambda **_: [(feed, 0) for feed in feeds])
    if kind == "OnnxStaticQuantization":
        options["data_config"] = DataConfig(
            name="requests",
            load_dataset_config={"type": "requests"},
            pre_process_data_config={"type": "skip_pre_process"},
            dataloader_config={"type": "no_auto_batch_dataloader"},
        )
    with tempfile.TemporaryDirectory() as folder:
        step = create_pass_from_dict(
            OlivePackageConfig.load_default_config().import_pass_module(kind),
            options,
            disable_search=True,
        )
        made = step.run(ONNXModelHandler(str(source)), str(Path(folder) / "made.onnx"))
        onnx.save(onnx.load(made.model_path), str(out))


def neural_compressor(source: Path, out: Path, feeds: list[Feed], kind: str) -> None:
    from onnx_neural_compressor.quantization import QuantFormat, config, quantize

    reader = {
        "calibration_data_reader": Calibration(feeds),
        "quant_format": QuantFormat.QDQ,
        "per_channel": True,
    }
    with tempfile.TemporaryDirectory() as folder:  # it writes the tables to a file of their own
        made = Path(folder) / "made.onnx"
        quantize(
            str(source),
            str(made),
            getattr(config, kind)(**(reader if kind == "StaticQuantConfig" else {})),
        )
        onnx.save(onnx.load(str(made)), str(out))


CONTENDERS: dict[str, Quantize] = {
    "quantize_dynamic": dynamic,
    **{
        f"static QDQ, {method}{', reduced range' if reduce else ''}": partial(
            static, method=method, reduce=reduce
        )
        for method in ("MinMax", "Entropy", "Percentile")
        for reduce in (False, True)
    },
    "Olive, dynamic": partial(olive, kind="OnnxDynamicQuantization"),
    "Olive, static": partial(olive, kind="OnnxStaticQuantization", per_channel=True),
    "Olive, int8 blocks": partial(
        olive, kind="OnnxBlockWiseRtnQuantization", bits=8, block_size=64
    ),
    "Olive, int4 blocks": partial(
        olive, kind="OnnxBlockWiseRtnQuantization", bits=4, block_size=64
    ),
    "neural-compressor, dynamic": partial(neural_compressor, kind="DynamicQuantConfig"),
    "neural-compressor, static": partial(neural_compressor, kind="StaticQuantConfig"),
}
"""onnxruntime's own first: Olive changes its min-max calibration for the rest of the process."""

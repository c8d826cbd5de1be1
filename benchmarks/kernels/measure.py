"""Would an optional library make a request faster? ``python -m benchmarks.kernels.measure``

Needs ``pip install numkong ai-edge-litert faiss-cpu``; a library that is not installed is listed.
Answers are checked first; then all take turns on one thread.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tlrec_edge.bench.pooling_encoder import pooling_encoder

from .scans import BEST, BLOCK, SCANS

SIZES = ((100_000, 16), (100_000, 64), (1_000_000, 24))
"""Prefixes of 100k, full rows of 100k, prefixes of 1M."""
LENGTH, DIM = 50, 64


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels.measure", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=60, help="calls of each contender")
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=_size,
        default=SIZES,
        help="rows and bytes a row, such as 100000x16",
    )
    given = parser.parse_args(arguments)
    for size in given.sizes:
        print("\n".join(scans(*size, given.rounds)), flush=True)
    print("\n".join(encoders(10 * given.rounds)))
    return 0


def _size(text: str) -> tuple[int, int]:
    count, _, width = text.partition("x")
    return int(count), int(width)


def scans(count: int, width: int, rounds: int) -> Iterator[str]:
    """Yield a table of scans of ``count`` rows of ``width`` bytes, scaled as prefix columns are."""
    count -= count % BLOCK
    rng = np.random.default_rng(0)
    spread = 60 / np.sqrt(np.arange(1.0, width + 1))
    rows, query = (_bytes(rng.standard_normal((n, width), np.float32) * spread) for n in (count, 1))
    truth = rows.astype(np.int32) @ query[0].astype(np.int32)
    ready: dict[str, Callable[[], Any]] = {}
    notes: dict[str, str] = {}
    for name, make in SCANS.items():
        try:
            scan = make(rows)
        except ImportError as error:
            notes[name] = str(error)
            continue
        notes[name] = _compare(scan(query[0]), truth)
        ready[name] = lambda scan=scan: scan(query[0])
    yield f"\n| {count:,} x {width} bytes | median us | of onnxruntime | answers |"
    yield "|---|---|---|---|"
    yield from _table(ready, notes, rounds)


def _bytes(values: Any) -> Any:
    return np.clip(np.rint(values), -127, 127).astype(np.int8)


def _compare(found: Any, truth: Any) -> str:
    """Describe the quality of an answer. Exits if products differ from those of numpy."""
    if isinstance(found, tuple):
        maxima = truth.reshape(-1, BLOCK).max(1), truth.reshape(BLOCK, -1).max(0)
        if not np.array_equal(found[0], truth) or not any(
            np.array_equal(found[1], right) for right in maxima
        ):
            sys.exit("products differ from numpy's")
        return "all products"
    least = np.partition(truth, len(truth) - 10)[len(truth) - 10]
    return f"best {BEST}, {(truth[found] >= least).sum() / 10:.0%} of the best 10 among them"


def encoders(rounds: int) -> Iterator[str]:
    """Yield a table of the encoder in onnxruntime and in LiteRT."""
    rng = np.random.default_rng(0)
    history = rng.standard_normal((1, LENGTH, DIM), np.float32)
    log_weight = rng.standard_normal((1, LENGTH), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        path.write_bytes(pooling_encoder(DIM, LENGTH, 0))
        run, out = _ort(path, history, log_weight)
        ready, notes = {"onnxruntime, bound": run}, {"onnxruntime, bound": ""}
        run()
        try:
            ready |= _litert(path, history, log_weight)
            for name in list(ready)[1:]:
                notes[name] = f"largest difference {np.abs(ready[name]() - out).max():.1e}"
        except ImportError as error:
            notes["LiteRT"] = str(error)
    yield f"\n| encoder, history of {LENGTH}, width {DIM} | median us | of onnxruntime | answers |"
    yield "|---|---|---|---|"
    yield from _table(ready, notes, rounds)


def _ort(path: Path, history: Any, log_weight: Any) -> tuple[Callable[[], Any], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    out, binding = np.zeros((1, DIM), np.float32), session.io_binding()
    for name, array in (("history", history), ("log_weight", log_weight)):
        binding.bind_input(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
    binding.bind_output("user", "cpu", 0, np.float32, out.shape, out.ctypes.data)
    return lambda: session.run_with_iobinding(binding), out


def _litert(path: Path, history: Any, log_weight: Any) -> dict[str, Callable[[], Any]]:
    from ai_edge_litert.interpreter import Interpreter

    from .tflite import convert

    interpreter = Interpreter(model_content=convert(path), num_threads=1)
    interpreter.allocate_tensors()
    inputs = [entry["index"] for entry in interpreter.get_input_details()]
    output = interpreter.get_output_details()[0]["index"]

    def encode() -> Any:
        interpreter.set_tensor(inputs[0], history[0])
        interpreter.set_tensor(inputs[1], log_weight)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return {"LiteRT, XNNPACK": encode}


def _table(
    ready: dict[str, Callable[[], Any]], notes: dict[str, str], rounds: int
) -> Iterator[str]:
    taken: dict[str, list[int]] = {name: [] for name in ready}
    rng, names = np.random.default_rng(0), list(ready)
    for at in range(rounds + 1):
        for name in (names[i] for i in rng.permutation(len(names))):
            ready[name]()  # another one had the caches before
            start = time.perf_counter_ns()
            ready[name]()
            if at:
                taken[name].append(time.perf_counter_ns() - start)
    first = float(np.median(taken[names[0]]))
    for name, note in notes.items():
        if name not in taken:
            yield f"| {name} | not measured: {note} | | |"
            continue
        median = float(np.median(taken[name]))
        yield f"| {name} | {median / 1000:.1f} | {median / first:.2f} | {note} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

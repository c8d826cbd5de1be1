"""Script of startup.py for a fresh process: import, open, score once, and write the times."""

import json
import sys
import time
from pathlib import Path


def _read_bytes() -> dict[str, int]:
    """Return the bytes this process has read from disk, if the system counts them."""
    try:
        lines = Path("/proc/self/io").read_text("ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.split(": ") for line in lines)
    return {name: int(count) for name, count in pairs if name == "read_bytes"}


def main() -> None:
    """Read bundle, history and item from stdin; write the measurements as JSON to stdout."""
    bundle, history, item = json.loads(sys.stdin.read())
    clock = time.perf_counter
    started = clock()
    import tlrec_edge

    imported = clock()
    rec = tlrec_edge.Recommender.open(bundle)
    opened = clock()
    rec.score(history, [item])
    scored, scored_at = clock(), time.time()
    from tlrec_edge.runtime.state_cache import memory_rollup

    seconds = {
        "import_ms": imported - started,
        "open_ms": opened - imported,
        "first_score_ms": scored - opened,
        "cpu_ms": time.process_time(),
    }
    measured = {name: 1000 * value for name, value in seconds.items()} | {"scored_at": scored_at}
    sys.stdout.write(json.dumps(measured | _read_bytes() | memory_rollup()))


if __name__ == "__main__":
    main()

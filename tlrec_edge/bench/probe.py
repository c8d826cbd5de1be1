"""Run by startup.py in a fresh process: import, open, score once; say on stdout what it took."""

import json
import sys
import time
from pathlib import Path


def _read_bytes() -> dict[str, int]:
    """Return how much this process had read from disk, where the system tells."""
    try:
        lines = Path("/proc/self/io").read_text("ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.split(": ") for line in lines)
    return {name: int(count) for name, count in pairs if name == "read_bytes"}


def main() -> None:
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

    spans = {
        "import_ms": imported - started,
        "open_ms": opened - imported,
        "first_score_ms": scored - opened,
    }
    seen = {name: seconds * 1000 for name, seconds in spans.items()}
    seen |= {"scored_at": scored_at, "cpu_ms": time.process_time() * 1000}
    sys.stdout.write(json.dumps(seen | _read_bytes() | memory_rollup()))


if __name__ == "__main__":
    main()

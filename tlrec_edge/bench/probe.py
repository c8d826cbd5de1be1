"""Run by startup.py in a fresh process: import, open, score once; say on stdout what it took."""

import json
import sys
import time
from pathlib import Path

_MEMORY = {"Rss": "rss_bytes", "Pss": "pss_bytes"}


def _memory() -> dict[str, int]:
    """Return RSS, PSS and USS (private pages, clean and dirty) in bytes, or nothing where the system does not tell."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text("ascii").splitlines()[1:]
    except OSError:
        return {}
    size = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    found = {name: size[key] for key, name in _MEMORY.items()}
    return found | {"uss_bytes": size["Private_Clean"] + size["Private_Dirty"]}


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
    spans = {"import_ms": imported - started, "open_ms": opened - imported, "first_score_ms": scored - opened}
    seen = {name: seconds * 1000 for name, seconds in spans.items()}
    seen |= {"scored_at": scored_at, "cpu_ms": time.process_time() * 1000}
    sys.stdout.write(json.dumps(seen | _memory()))


if __name__ == "__main__":
    main()

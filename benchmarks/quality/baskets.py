"""Write baskets (user, items in order) as interactions of one day, in their order."""

import gzip
import sys
from pathlib import Path


def main(source: Path, out: Path) -> None:
    """Read a table "user<TAB>item item ..." and write user, item, timestamp."""
    with gzip.open(source, "rt", encoding="utf-8") as rows, out.open("w", encoding="utf-8") as log:
        next(rows)
        log.write("user,item,timestamp\n")
        for row in rows:
            user, items = row.rstrip("\n").split("\t")
            log.writelines(f"{user},{item},2011-01-01\n" for item in items.split(" "))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""The pages in a browser: they load nothing, log nothing, and fit a phone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import partial
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from matplotlib.image import imread

from helpers.paths import GOLDEN
from helpers.systems import TickingClock
from tlrec_edge.bench import compare_bundles, run_bench
from tlrec_edge.cli import main

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PHONE = 390
SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
)
# The page is shown in a frame as wide as a phone; anything it tries to load is a console error.
FRAME = f"""<!doctype html><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<iframe style="border:0; width:{PHONE}px; height:800px" srcdoc="PAGE"></iframe>
<pre></pre><script>
addEventListener("load", () => {{
  const inside = document.querySelector("iframe").contentWindow;
  const root = inside.document.documentElement;
  document.querySelector("pre").textContent = JSON.stringify({{
    width: root.scrollWidth, view: inside.innerWidth,
    loaded: inside.performance.getEntriesByType("resource").length,
    plots: inside.document.querySelectorAll("svg").length,
    paper: inside.getComputedStyle(inside.document.body).backgroundColor,
  }});
}});
</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]


def browse(url: Path, profile: Path, *words: str, dark: bool = False) -> tuple[str, list[str]]:
    """Return what the browser printed, and the lines of the page's console."""
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    command = [str(CHROMIUM), *SWITCHES, f"--user-data-dir={profile}", scheme, *words, url.as_uri()]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def on_a_phone(page: str, folder: Path, dark: bool = False) -> tuple[dict[str, Any], list[str]]:
    (folder / "frame.html").write_text(FRAME.replace("PAGE", escape(page)), "utf-8")
    dom, console = browse(folder / "frame.html", folder / "profile", "--dump-dom", dark=dark)
    found = re.search(r"<pre>(.*?)</pre>", dom)
    assert found is not None, dom[-500:]
    seen: dict[str, Any] = json.loads(unescape(found[1]))
    return seen, console


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    quick = ["--seconds", "0.1", "--min-queries", "20"]
    card = {
        "step": "width 1/2, feed-forward 1/2, int4",
        "ratio": 0.99,
        "us": {"p50": 90.0},
        "bytes": 5000,
    }
    bundle = folder / "bundle"
    shutil.copytree(GOLDEN, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text("utf-8"))
    points = [card | {"kept": True}, card | {"front": True, "us": {"p50": 95.0}}]
    (bundle / "manifest.json").write_text(
        json.dumps(manifest | {"compression": {"points": points}}), "utf-8"
    )
    full = ["--price-per-hour", "0.05", "--out", str(folder / "before.json")]
    small = ["--scenario", "server", "--find-qps", "--p99", "1s"]
    commands = {
        "full": [str(bundle), *quick, *full],
        "against": [str(bundle), *quick, *small, "--against", str(folder / "before.json")],
        "compare": ["--compare", str(GOLDEN), str(bundle), "--seconds", "0.1"],
    }
    clock = TickingClock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tlrec_edge.cli.bench.run_bench", partial(run_bench, clock=clock))
        patch.setattr("tlrec_edge.cli.bench.compare_bundles", partial(compare_bundles, clock=clock))
        for name, words in commands.items():
            page = folder / f"{name}.html"
            done = CliRunner().invoke(main, ["bench", *words, "--html", str(page)])
            assert done.exit_code == 0, done.output
    return {name: folder / f"{name}.html" for name in commands}


@pytest.mark.parametrize("name", ["full", "against", "compare"])
def test_a_page_opens_alone_and_fits_a_phone(
    pages: dict[str, Path], name: str, tmp_path: Path
) -> None:
    page = pages[name].read_text("utf-8")
    papers = set()
    for dark in (False, True):
        seen, console = on_a_phone(page, tmp_path, dark)
        assert console == []
        assert seen["loaded"] == 0
        assert seen["view"] == PHONE
        assert seen["width"] <= PHONE, "the page scrolls sideways"
        assert seen["plots"] == page.count("<svg") >= 1
        papers.add(seen["paper"])
    assert len(papers) == 2, "light and dark differ"


def test_a_page_is_drawn_in_light_and_in_dark(pages: dict[str, Path], tmp_path: Path) -> None:
    means = []
    for dark in (False, True):
        shot = tmp_path / f"{dark}.png"
        _, console = browse(pages["full"], tmp_path / "profile", f"--screenshot={shot}", dark=dark)
        assert console == []
        pixels = imread(shot)[..., :3]
        assert pixels.std() > 0.02, "an empty page"
        means.append(pixels.mean())
    assert means[0] > 0.85
    assert means[1] < 0.25


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ('<script>console.error("no")</script>', "console"),
        ('<img src="https://example.org/x.png">', "console"),
        ('<div style="width:800px">wide</div>', "width"),
    ],
)
def test_the_checks_detect_a_faulty_page(
    pages: dict[str, Path], fault: str, what: str, tmp_path: Path
) -> None:
    page = pages["compare"].read_text("utf-8").replace("</body>", f"{fault}</body>")
    seen, console = on_a_phone(page, tmp_path)
    assert bool(console) is (what == "console")
    assert (seen["width"] > PHONE) is (what == "width")

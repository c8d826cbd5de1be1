"""Draw pipeline.svg, the picture of the README: `python docs/make_pipeline.py`."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

PICTURE = Path(__file__).with_name("pipeline.svg")
BOX, GAP, HEIGHT, TOP = (136, 54), 34, 236, 46
LABEL = "prepare, pretrain, adapt, compress, export; then the bundle is served and benchmarked"
STYLE = """
    .train { fill: #eef2ff; stroke: #4f46e5 } .serve { fill: #ecfdf5; stroke: #059669 }
    .bundle { fill: #fef3c7; stroke: #d97706 } rect { stroke-width: 1.5 }
    text { font: 13px system-ui, sans-serif; fill: #111827; text-anchor: middle }
    .name { font-weight: 600 } .note { font-size: 11px; fill: #4b5563 }
    .lane { font-size: 12px; fill: #6b7280; text-anchor: start }
    path { stroke: #6b7280; fill: none }
    @media (prefers-color-scheme: dark) {
      .train { fill: #1e1b4b } .serve { fill: #022c22 } .bundle { fill: #451a03 }
      text { fill: #f3f4f6 } .note, .lane { fill: #9ca3af } path { stroke: #9ca3af }
    }
"""

# (column, row, class, name, note)
STEPS = [
    (0, 0, "train", "prepare", "clean, align, split"),
    (1, 0, "train", "pretrain", "on the source"),
    (2, 0, "train", "adapt", "to the target"),
    (3, 0, "train", "compress", "prune, quantize"),
    (4, 0, "train", "export", "checks, or refuses"),
    (4, 1, "bundle", "bundle", "one folder + evidence"),
    (3, 1, "serve", "Recommender", "score, recommend"),
    (2, 1, "serve", "your service", "CPU, no torch"),
    (1, 1, "serve", "bench", "latency, cost"),
]
ARROWS = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]


def _corner(step: int) -> tuple[int, int]:
    column, row = STEPS[step][:2]
    return 20 + column * (BOX[0] + GAP), TOP + row * (BOX[1] + 56)


def _box(step: int) -> str:
    (x, y), (_, _, kind, name, note) = _corner(step), STEPS[step]
    middle = x + BOX[0] // 2
    return (
        f'<rect class="{kind}" x="{x}" y="{y}" width="{BOX[0]}" height="{BOX[1]}" rx="8"/>'
        f'<text class="name" x="{middle}" y="{y + 23}">{escape(name)}</text>'
        f'<text class="note" x="{middle}" y="{y + 41}">{escape(note)}</text>'
    )


def _arrow(start: int, end: int) -> str:
    (x0, y0), (x1, y1) = _corner(start), _corner(end)
    if x0 == x1:
        points = (x0 + BOX[0] // 2, y0 + BOX[1], x1 + BOX[0] // 2, y1)
    elif x0 < x1:
        points = (x0 + BOX[0], y0 + BOX[1] // 2, x1, y1 + BOX[1] // 2)
    else:
        points = (x0, y0 + BOX[1] // 2, x1 + BOX[0], y1 + BOX[1] // 2)
    return '<path d="M{} {} L{} {}" marker-end="url(#tip)"/>'.format(*points)


def render() -> str:
    """Return the picture as SVG, readable on a light and a dark page."""
    width = 40 + 5 * BOX[0] + 4 * GAP
    (bench, bench_y), (bundle, _) = _corner(8), _corner(5)
    # The bench measures the same bundle: its arrow runs below the service.
    bench_x = bench + BOX[0] // 2
    below = bench_y + BOX[1] + 18
    detour = (
        f'<path d="M{bundle + BOX[0] // 2} {bench_y + BOX[1]} V{below}'
        f' H{bench_x} V{bench_y + BOX[1]}"'
        ' marker-end="url(#tip)"/>'
    )
    parts = [
        f'<text class="lane" x="20" y="{TOP - 14}">train: torch, scipy, onnx</text>',
        f'<text class="lane" x="20" y="{bench_y + 32}">serve: numpy,</text>',
        f'<text class="lane" x="20" y="{bench_y + 48}">onnxruntime</text>',
        *(_box(step) for step in range(len(STEPS))),
        *(_arrow(*arrow) for arrow in ARROWS),
        detour,
    ]
    body = "\n  ".join(parts)
    size = f'width="{width}" height="{HEIGHT}" viewBox="0 0 {width} {HEIGHT}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{LABEL}">
  <defs>
    <marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">
      <path d="M1 1 L7 4 L1 7"/>
    </marker>
  </defs>
  <style>{STYLE}  </style>
  {body}
</svg>
"""


if __name__ == "__main__":
    PICTURE.write_text(render(), encoding="utf-8")

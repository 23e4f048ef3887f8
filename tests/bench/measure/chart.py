"""Line charts as plain SVG, written by hand: readable in light and in dark, without scripts, fonts or anything from outside."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 56, 52
# Blue, orange, green and purple that hold on white and on black; the lines differ in their dashes too.
COLOURS = ["#2f7ed8", "#d9730d", "#2e9e5b", "#9b59d0"]
DASHES = ["", "7 4", "2 4", "10 4 2 4"]
STYLE = """
 .paper { fill: #ffffff } text { font: 13px system-ui, sans-serif; fill: #24292f } .title { font-size: 15px; font-weight: 600 }
 .grid { stroke: #d0d7de; stroke-width: 1 } .note { font-size: 11px; fill: #57606a }
 @media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117 } text { fill: #e6edf3 } .grid { stroke: #30363d } .note { fill: #8b949e }
 }
"""


def lines(title, note, labels, series, unit, logarithmic):
    """`series` is a list of (name, values), one value for each label; None leaves a gap."""
    seen = [v for _, values in series for v in values if v]
    low, high = (min(seen) / 1.3, max(seen) * 1.3) if logarithmic else (0, max(seen) * 1.08)
    place = (lambda v: math.log(v / low) / math.log(high / low)) if logarithmic else (lambda v: v / high)
    x = lambda i: LEFT + (WIDTH - LEFT - RIGHT) * (i / max(1, len(labels) - 1))
    y = lambda v: HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * place(v)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
           f"<style>{STYLE}</style>", f'<rect class="paper" width="{WIDTH}" height="{HEIGHT}"/>',
           f'<text class="title" x="{LEFT}" y="24">{escape(title)}</text>',
           f'<text class="note" x="{LEFT}" y="42">{escape(note)}</text>']
    for value in _ticks(low, high, logarithmic):
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for i, label in enumerate(labels):
        out.append(f'<text x="{x(i):.1f}" y="{HEIGHT - BOTTOM + 22}" text-anchor="middle">{escape(label)}</text>')
    out.append(f'<text class="note" x="{LEFT}" y="{HEIGHT - 10}">{escape(unit)}</text>')
    ends = []
    for index, (name, values) in enumerate(series):
        points = [(x(i), y(v)) for i, v in enumerate(values) if v]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        colour, dash = COLOURS[index % 4], DASHES[index % 4]
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"/>')
        out += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in points]
        ends.append([points[-1][1], name, colour])
    # Names stand at the lines' ends; those that would overlap are moved down.
    below = -math.inf
    for end in sorted(ends):
        end[0] = below = max(end[0], below + 18)
        out.append(f'<text x="{WIDTH - RIGHT + 12}" y="{end[0] + 4:.1f}" style="fill:{end[2]}">{escape(end[1])}</text>')
    return "\n".join([*out, "</svg>", ""])


def _ticks(low, high, logarithmic):
    if logarithmic:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        return [v for p in powers for v in (10.0**p, 3 * 10.0**p) if low <= v <= high]
    step = 10 ** math.floor(math.log10(high))
    step = next(s for s in (step / 5, step / 2, step, 2 * step) if high / s <= 7)
    return [round(i * step, 10) for i in range(int(high / step) + 1)]


def size(count):
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"

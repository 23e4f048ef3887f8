"""`scripts/bench disk PATH`: what the same promise costs in four ways of writing, on the reader's own disk."""

import json
import subprocess
from pathlib import Path

from . import chart, table, tools

WAYS = [("sequential", "one sequential write, the limit"), ("layout", "our layout, sweep included"),
        ("random", "random, one flush for all"), ("each", "random, a flush for each")]

# For the ends of the lines, where there is little room.
SHORT = {"sequential": "sequential, the limit", "layout": "our layout", "random": "random, one flush", "each": "random, a flush each"}


def run(args):
    if not Path(args.path).is_dir():
        raise SystemExit(f"{args.path}: no such directory")
    about = table.machine(args.path)
    if args.name:
        about["disk"] = args.name
    print(table.describe(about))
    told = subprocess.run([str(tools.bench()), "disk", str(args.path), "--seconds", str(args.seconds), "--mib", str(args.mib)],
                          check=True, stdout=subprocess.PIPE, text=True)
    rows = json.loads(told.stdout)
    by = {(r["way"], r["record"]): r for r in rows}
    sizes = sorted({r["record"] for r in rows})
    print("\nMB/s acknowledged, and p50 / p99 / worst ms of a commit, when each commit makes one record durable in each of 64 "
          "partitions\n")
    cell = lambda r: f"{table.number(r['mb_per_s'])} · " + " / ".join(table.number(r[n]) for n in ("p50_ms", "p99_ms", "max_ms"))
    print(table.markdown(["bytes of each record", *[chart.size(s) for s in sizes]],
                         [[what, *[cell(by[way, s]) for s in sizes]] for way, what in WAYS]))
    if args.svg:
        note = f"64 records a commit, all on the medium; {about['disk']}, {about['file_system']}, {about['date']}"
        Path(args.svg).write_text(chart.lines(
            "Durable writes: our layout between random and sequential", note, [chart.size(s) for s in sizes],
            [(SHORT[way], [by[way, s]["mb_per_s"] for s in sizes]) for way, _ in WAYS],
            "MB/s, by bytes of each record (logarithmic)", True))
    if args.json:
        table.write_json(args.json, about, rows)

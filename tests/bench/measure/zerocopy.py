"""`scripts/bench zero-copy`: CPU of the sender for each gigabyte that leaves over loopback, by chunk size, and the same of
our Fetch path: batches of that size, asked for one partition and one chunk at a time."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from . import chart, loads, table, tools
from .brokers import Howdah
from .kafka import make_topic

FILE_BYTES = 256 << 20
FETCH = "Fetch"


def run(args):
    about = table.machine(tools.SCRATCH)
    print(table.describe(about))
    with tempfile.NamedTemporaryFile(dir=tools.SCRATCH) as file:
        block = os.urandom(1 << 20)
        for _ in range(FILE_BYTES >> 20):
            file.write(block)
        file.flush()
        told = subprocess.run([str(tools.bench()), "zero-copy", file.name, "--gigabytes", str(args.gigabytes), "--turns",
                               str(args.turns)], check=True, stdout=subprocess.PIPE, text=True)
    rows = json.loads(told.stdout)
    chunks = sorted({r["chunk"] for r in rows})
    rows += fetched(chunks, args.turns)
    by = {(r["way"], r["chunk"]): r["cpu_s_per_gb"] for r in rows}
    ways = list(dict.fromkeys(r["way"] for r in rows))
    print("\nCPU seconds of the sender for each GB, the least of several\n")
    print(table.markdown(["way", *[chart.size(c) for c in chunks]], [[w, *[by[w, c] for c in chunks]] for w in ways]))
    if args.svg:
        note = f"over loopback, from the page cache; {about['cpu']}, Linux {about['kernel']}, {about['date']}"
        Path(args.svg).write_text(chart.lines(
            "Sending a log: CPU of the sender", note, [chart.size(c) for c in chunks],
            [(w if w != FETCH else "Howdah's whole Fetch", [by[w, c] for c in chunks]) for w in ways],
            "CPU seconds for each GB, by bytes of a chunk", False))
    if args.json:
        table.write_json(args.json, about, rows)


def fetched(chunks, turns):
    """The broker's whole process: requests parsed, offsets found, answers sent."""
    rows = []
    with Howdah() as broker:
        for chunk in chunks:
            topic = f"chunk-{chunk}"
            make_topic(broker, topic, 1)
            # A round is one batch; the largest that a topic takes must hold a chunk and its header.
            loads.prepare(*loads.light("rounds", broker, topic, partitions=1, per_round=1, batch_bytes=min(chunk, 1000 << 10),
                                       bytes=64 << 20, seconds=120, warm_up=0))
            took = [loads.measure(broker, loads.light("readers", broker, topic, partitions=1, partition_bytes=chunk, max_bytes=chunk,
                                                      seconds=4, warm_up=1))["cpu_s_per_gb"] for _ in range(turns)]
            rows.append({"way": FETCH, "chunk": chunk, "cpu_s_per_gb": min(took)})
    return rows

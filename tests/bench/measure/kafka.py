"""`scripts/bench kafka`: the same loads against Apache Kafka and Howdah, in turn, and the bare server where it can be asked.

A row is a function of a running broker and a number of seconds. Sessions are the rows that share one life of a broker.
"""

import os
import shutil
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass

from . import loads, table, tools
from .brokers import Bare, Howdah, Kafka, ask
from .process import Snapshot, memory_mib

HOT_BYTES = 512 << 20
MANY = 1000


@dataclass(frozen=True)
class Row:
    name: str
    what: str
    unit: str
    figure: str
    must: float | None
    run: object
    session: str
    bare: bool = False
    second: tuple = ()  # (figure, must): another figure of the row that has a limit of its own


def make_topic(broker, topic, partitions, *config):
    loads.prepare(*loads.librdkafka("topic", broker, topic, partitions=partitions, config=list(config)))


def produce(linger):
    def run(broker, seconds):
        topic = f"in-{linger}"
        make_topic(broker, topic, 16)
        figures = loads.measure(broker, loads.librdkafka("produce", broker, topic, linger=linger, seconds=seconds, warm_up=5))
        loads.prepare(*loads.librdkafka("forget", broker, topic))
        return figures
    return run


def hot(broker):
    """The topic that consumers read, filled once a life: what was just written is in memory."""
    if getattr(broker, "hot", False) or broker.name == "bare":
        return
    # Named, or Howdah's share of the disk would let the oldest go while the rest is written.
    make_topic(broker, "bench", 16, f"retention.bytes={HOT_BYTES // 8}")
    loads.prepare(*loads.librdkafka("produce", broker, "bench", bytes=HOT_BYTES, seconds=300, warm_up=0))
    broker.hot = True


def consume(count):
    def run(broker, seconds):
        hot(broker)
        command = loads.librdkafka("consume", broker, "bench", partitions=16, seconds=seconds, warm_up=3 + count / 2)
        return loads.measure(broker, *[command] * count)
    return run


def unbatched(broker, seconds):
    make_topic(broker, "single", 16)
    return loads.measure(broker, loads.light("unbatched", broker, "single", partitions=16, connections=100, value_bytes=200,
                                             seconds=seconds, warm_up=5))


def paced(broker, seconds):
    # A broker that flushes before every acknowledgement takes the setting and needs it not.
    make_topic(broker, "flushed", 1, "flush.messages=1")
    return loads.measure(broker, loads.librdkafka("paced", broker, "flushed", rate=1000, seconds=seconds, warm_up=3))


def memory_idle(broker, seconds):
    time.sleep(3)
    return {"mib": memory_mib(broker.pid)}


def many(broker):
    if not getattr(broker, "many", False):
        make_topic(broker, "many", MANY)
        loads.prepare(*loads.light("unbatched", broker, "many", partitions=MANY, connections=MANY, seconds=1, warm_up=15))
        broker.many = True


def idle(broker, seconds):
    many(broker)
    time.sleep(5)
    before, begin = Snapshot(broker.pid), time.monotonic()
    time.sleep(max(20, seconds))
    cost = Snapshot(broker.pid).since(before)
    passed = time.monotonic() - begin
    return {"percent": 100 * cost["cpu_s"] / passed, "voluntary_s": cost["voluntary"] / passed}


def memory_full(broker, seconds):
    """The greatest of what is seen while a thousand connections write to a thousand partitions."""
    many(broker)

    def watch():
        most, end = 0, time.monotonic() + seconds - 1
        while time.monotonic() < end:
            most = max(most, memory_mib(broker.pid))
            time.sleep(0.5)
        return most

    figures = loads.measure(broker, loads.light("unbatched", broker, "many", partitions=MANY, connections=MANY, value_bytes=1024,
                                                records=16, seconds=seconds, warm_up=3), during=watch)
    return {**figures, "mib": figures["seen"]}


def start(broker, seconds):
    """From exec to the first acknowledged produce, on a node that is formatted and holds nothing of ours."""
    broker.stop()
    taken = []
    for life in range(3):
        begin = time.monotonic()
        broker.spawn()
        topic = f"first-{life}"
        while not _produced(broker, topic):
            if time.monotonic() - begin > 120:
                raise RuntimeError("nothing was acknowledged within 120 s")
            time.sleep(0.002)
        taken.append(time.monotonic() - begin)
        broker.stop()
    broker.spawn()
    return {"ms": sorted(taken)[1] * 1000}


def _produced(broker, topic):
    """One record, to a topic that the broker creates when it is asked for it."""
    try:
        ask(broker.port, 3, 4, struct.pack(">ih", 1, len(topic)) + topic.encode() + b"\x01")
        batch = FIRST_BATCH
        body = struct.pack(">hhiih", -1, -1, 5000, 1, len(topic)) + topic.encode()
        body += struct.pack(">iii", 1, 0, len(batch)) + batch
        answer = ask(broker.port, 0, 8, body)
        return struct.unpack_from(">h", answer, 4 + 4 + 2 + len(topic) + 4 + 4)[0] == 0
    except (OSError, struct.error):
        return False


def _first_batch():
    """A batch of one record `x` with the CRC-32C that makes it valid, made bit by bit: it is small."""
    record = bytes([0, 0, 0, 1, 2]) + b"x" + b"\0"
    tail = struct.pack(">hiqqqhii", 0, 0, 0, 0, -1, -1, -1, 1) + bytes([len(record) * 2]) + record
    crc = 0xFFFFFFFF
    for byte in tail:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return struct.pack(">qiibI", 0, len(tail) + 9, 0, 2, crc ^ 0xFFFFFFFF) + tail


FIRST_BATCH = _first_batch()


def size(broker, seconds):
    if broker.name == "kafka":
        jars = tools.kafka_jars("4.3.1")
        return {"mib": sum(f.stat().st_size for f in jars.iterdir()) / 2**20}
    with tempfile.NamedTemporaryFile() as stripped:
        shutil.copy(tools.howdah(), stripped.name)
        subprocess.run(["strip", stripped.name], check=True)
        return {"mib": os.stat(stripped.name).st_size / 2**20}


ROWS = [
    Row("produce", "in, 16 partitions, acks=all, 1 KiB records, batches of 64 KiB, linger 5 ms", "CPU s/GB", "cpu_s_per_gb", 0.25,
        produce(5), "load"),
    Row("linger0", "the same at linger 0", "CPU s/GB", "cpu_s_per_gb", None, produce(0), "load"),
    Row("consume1", "out, hot, one consumer", "CPU s/GB", "cpu_s_per_gb", 0.6, consume(1), "load", bare=True),
    Row("consume8", "out, hot, eight consumers of the same data", "CPU s/GB", "cpu_s_per_gb", 1.0, consume(8), "load", bare=True),
    Row("unbatched", "200 B records unbatched, 100 producers, one in flight each", "CPU µs/record", "cpu_us_per_record", 0.25,
        unbatched, "load"),
    Row("ack", "ack p50 at 1,000 records/s × 1 KiB, one partition, Kafka with flush.messages=1", "ms", "p50_ms", 0.5, paced, "load",
        second=("p99_ms", 1 / 6)),
    Row("memory-idle", "memory, idle", "MiB", "mib", None, memory_idle, "rest"),
    Row("idle", "idle CPU, 1,000 partitions each written to", "% of a core", "percent", None, idle, "rest"),
    Row("memory-full", "memory, 1,000 partitions, 1,000 connections, full load", "MiB", "mib", None, memory_full, "rest"),
    Row("start", "exec to first acknowledged produce, formatted, empty", "ms", "ms", None, start, "start"),
    Row("size", "binary, stripped (Kafka: its jars, without a JVM)", "MiB", "mib", None, size, "start"),
]
# Limits that are not ratios: (row, most).
ABSOLUTE = {"memory-idle": 32, "memory-full": 128, "idle": 1, "start": 100, "size": 12}
SENDFILE_RATIO_MAX = 1.3


def run(args):
    rows = [row for row in ROWS if not args.rows or row.name in args.rows]
    if unknown := set(args.rows or []) - {row.name for row in ROWS}:
        raise SystemExit(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(r.name for r in ROWS)}")
    about = table.machine(tools.SCRATCH)
    print(table.describe(about))
    kinds = {"kafka": Kafka, "howdah": Howdah, "bare": Bare}
    figures = {}
    for turn in range(args.turns):
        for session in ("load", "rest", "start"):
            for kind in args.brokers:
                wanted = [r for r in rows if r.session == session and (kind != "bare" or r.bare)]
                if not wanted:
                    continue
                Howdah.site = None if session == "start" else args.site
                with kinds[kind]() as broker:
                    for row in wanted:
                        took = row.run(broker, args.seconds)
                        figures.setdefault((row.name, kind), []).append(took)
                        print(f"turn {turn + 1}, {kind}, {row.name}: " + ", ".join(
                            f"{n} {table.number(v)}" for n, v in took.items() if isinstance(v, (int, float))), flush=True)
    middle = {key: table.medians(turns) for key, turns in figures.items()}
    report(rows, middle)
    if args.json:
        table.write_json(args.json, about, [{"row": r, "broker": b, "median": middle[r, b], "turns": t} for (r, b), t in figures.items()])


def _ratio(middle, row, figure, over):
    ours, theirs = middle.get((row.name, "howdah"), {}).get(figure), middle.get((row.name, over), {}).get(figure)
    return ours / theirs if ours is not None and theirs else None


def report(rows, middle):
    first = []
    for row in rows:
        figures = [(row.figure, row.must, row.what)] + ([(*row.second, row.what.replace("p50", "p99"))] if row.second else [])
        for figure, must, what in figures:
            ratio = _ratio(middle, row, figure, "kafka")
            unit = row.unit
            limit = f"≤ {table.number(must)} ×" if must else f"≤ {ABSOLUTE[row.name]} {unit}" if row.name in ABSOLUTE else "–"
            value = lambda kind: middle.get((row.name, kind), {}).get(figure)
            first.append([what, f"{table.number(ratio)} ×" if ratio else "–", limit, value("howdah"), value("kafka"), unit])
            if row.bare:
                bare = _ratio(middle, row, figure, "bare")
                first.append([f"{what}: above a bare sendfile server", f"{table.number(bare)} ×" if bare else "–",
                              f"≤ {SENDFILE_RATIO_MAX} ×", value("howdah"), value("bare"), unit])
    print("\n" + table.markdown(["what", "Howdah / other", "must be", "Howdah", "other", "unit"], first))
    second = []
    for row in rows:
        for kind in ("howdah", "kafka", "bare"):
            told = middle.get((row.name, kind), {})
            if "mb_s" in told:
                second.append([row.name, kind, *[told.get(n) for n in (
                    "mb_s", "cpu_percent", "p50_ms", "p99_ms", "max_ms", "voluntary_per_mb", "involuntary_per_mb")]])
    if second:
        print("\n" + table.markdown(["row", "broker", "MB/s", "CPU % of a core", "p50 ms", "p99 ms", "worst ms", "voluntary switches/MB",
                                     "involuntary/MB"], second))

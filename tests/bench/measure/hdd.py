"""`scripts/bench hdd`: durable commits on an emulated 7200 rpm disk (tests/powercut, timed), under ext4 on a loop device.

Each row has a closed loop of rounds and runs in steady state; checkpoints and the worst group are the broker's own counters.
An emulated disk is not a disk: the figures say how the broker uses a seek and a flush, not what a named drive gives.
"""

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from . import loads, table, tools
from .brokers import Howdah, Kafka
from .kafka import _produced, make_topic

DISK_BYTES = 24 << 30
RECORD = 16 << 10
COLD_BYTES = 2 << 30
CHECKPOINTS_WANTED = 10
# A restart is measured with the ring half full: on the emulated disk, on the machine's own, and there behind 100 times the log.
RESTARTS = ["restart", "restart-own", "restart-long"]
RING_SHARE = 0.5
RING_BYTES = {"restart": 1 << 30, "restart-own": 64 << 20, "restart-long": 64 << 20}
ROWS = ["p1", "p4", "p16", "p64", "p1000", "readers", *RESTARTS]
# p50, p99, MB/s as the design asks; of 1 to 64 partitions p50 follows from the bytes of a group.
MUST = {"p64": "17 / 160 / 33", "p1000": "17 / 150 / 23", "readers": "17 / 220 / 17"}
SITE = """
[site]
name = "hdd"
[defaults]
partitions = 1
[[node]]
name = "a"
address = "127.0.0.1"
[[node.disk]]
path = "disk"
use = "20GiB"
journal = "{ring}MiB"
"""


def _run(*command):
    subprocess.run([str(c) for c in command], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


class Drive:
    """The emulator, a loop device on its file, and ext4 on that."""

    def __init__(self, base):
        self.base, self.mount, self.device = base, base / "mount", None
        for name in ("fuse", "mount"):
            (base / name).mkdir()
        command = [tools.powercut(), "disk", base / "image", base / "fuse", base / "control", "--bytes", DISK_BYTES, "--timed"]
        # It ends with us: its standard input closes.
        self.emulator = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE)
        end = time.monotonic() + 20
        self.file = base / "fuse/disk.img"
        while not (base / "control").exists() or not self.file.exists():
            if self.emulator.poll() is not None or time.monotonic() > end:
                raise tools.Lacking("the disk emulator does not start: it needs root and FUSE")
            time.sleep(0.05)

    def prepare(self):
        self.attach()
        # Few inodes: extents are large, and every inode table is written here and now.
        _run("mkfs.ext4", "-q", "-F", "-i", 1 << 20, "-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", self.device)
        _run("mount", "-o", "noatime", self.device, self.mount)

    def attach(self):
        told = subprocess.run(["losetup", "--find", "--show", "--direct-io=on", self.file], check=True, stdout=subprocess.PIPE, text=True)
        self.device = told.stdout.strip()
        switch = Path("/sys/block") / Path(self.device).name / "queue/write_cache"
        # A loop device may come up as `write through`; then the kernel sends no FLUSH and every figure is a dream.
        switch.write_text("write back")
        if switch.read_text().strip() != "write back":
            raise RuntimeError(f"{switch}: no FLUSH would be sent")

    def remount(self):
        """Nothing is in the page cache afterwards."""
        _run("umount", self.mount)
        _run("mount", "-o", "noatime", self.device, self.mount)

    def close(self):
        if os.path.ismount(self.mount):
            _run("umount", self.mount)
        if self.device:
            _run("losetup", "-d", self.device)
        self.emulator.stdin.close()
        try:
            self.emulator.wait(20)
        except subprocess.TimeoutExpired:
            self.emulator.kill()


# The kernel's own write-back, as board sets it on an appliance: the broker writes out what is old, by address. A timer that
# does it too puts long writes between two groups.
WRITE_BACK = {"dirty_writeback_centisecs": "0", "dirty_expire_centisecs": "360000"}


@contextmanager
def write_back_off():
    """Sets the machine's as an appliance has it, and puts it back."""
    places = {Path("/proc/sys/vm") / name: value for name, value in WRITE_BACK.items()}
    before = {place: place.read_text() for place in places}
    try:
        for place, value in places.items():
            place.write_text(value)
        yield
    finally:
        for place, value in before.items():
            place.write_text(value)


@contextmanager
def drive():
    base = Path(tempfile.mkdtemp(prefix="howdah-hdd-", dir=tools.SCRATCH))
    made = Drive(base)
    try:
        made.prepare()
        yield made
    finally:
        made.close()
        shutil.rmtree(base, ignore_errors=True)


class Own:
    """A directory on the machine's own disk, in an emulated one's place."""

    def __init__(self, base):
        self.base = self.mount = base

    def remount(self):
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")


@contextmanager
def own():
    base = Path(tempfile.mkdtemp(prefix="howdah-own-", dir=tools.SCRATCH))
    try:
        yield Own(base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _broker(kind, disk, ring=1 << 30):
    data = disk.mount / kind
    data.mkdir()
    if kind == "kafka":
        return Kafka(data)
    site = disk.base / "site.toml"
    site.write_text(SITE.format(ring=ring >> 20))
    Howdah.site = site
    return Howdah(data)


def _counters(broker):
    """Of all disks: groups, checkpoints, and the longest that a group took."""
    if broker.name != "howdah":
        return {}
    told = broker.metrics()
    of = lambda name: [v for k, v in told.items() if k.startswith(f"howdah_disk_{name}")]
    return {"groups": sum(of("groups_total")), "checkpoints": sum(of("checkpoints_total")),
            "worst_group_ms": 1e3 * max(of("worst_group_seconds"), default=0)}


def _touch(broker, topic, partitions):
    """A first write to each partition, so that the rows don't count the opening of a thousand extents."""
    loads.prepare(*loads.light("rounds", broker, topic, partitions=partitions, per_round=partitions, batch_bytes=1024, bytes=1,
                               warm_up=0))


def _rounds(broker, partitions, per_round, seconds):
    topic = f"t{partitions}"
    make_topic(broker, topic, partitions, "flush.messages=1")
    _touch(broker, topic, partitions)
    before = _counters(broker)
    write = loads.light("rounds", broker, topic, partitions=partitions, per_round=per_round, batch_bytes=RECORD, seconds=seconds,
                        warm_up=min(10, seconds / 4))
    figures = loads.measure(broker, write)
    after = _counters(broker)
    return {**figures, **({"checkpoints": after["checkpoints"] - before["checkpoints"], "worst_group_ms": after["worst_group_ms"]}
                          if after else {})}


def _readers(broker, disk, seconds):
    """A topic that no memory holds, read by four consumers, a quarter of it each, beside 64 partitions."""
    make_topic(broker, "cold", 16, f"retention.bytes={COLD_BYTES // 16 + (64 << 20)}")
    _fill(broker, "cold", 16, 256 << 10, COLD_BYTES)
    broker.stop()
    disk.remount()
    broker.start()
    read = loads.Load(*loads.light("readers", broker, "cold", partitions=16, readers=4, seconds=seconds, warm_up=min(10, seconds / 4) + 5))
    figures = _rounds(broker, 64, 64, seconds)
    for word in ("start", "end"):
        read.until(word)
    told = read.result()
    each = [b / 1e6 / told["seconds"] for b in told["each"]]
    return {**figures, "readers_mb_s": sum(each), "least_over_mean": min(each) * len(each) / sum(each) if sum(each) else 0}


def _restart(broker, disk, row):
    """kill -9 with the ring half full, nothing in memory, and the time from exec to an acknowledged produce."""
    ring, log = RING_BYTES[row], 100 * RING_BYTES[row] if row == "restart-long" else 0
    if log:
        make_topic(broker, "long", 16, f"retention.bytes={log // 16 + (64 << 20)}")
        _fill(broker, "long", 16, 256 << 10, log)
    make_topic(broker, "many", 1000)
    _touch(broker, "many", 1000)
    # The long log's own bytes may stand in the ring: this load goes on until it is half full of whatever is not yet let go.
    while (used := _journal_share(broker)) < RING_SHARE:
        _fill(broker, "many", 1000, RECORD, max(int((RING_SHARE - used) * ring), 64 * RECORD))
    broker.kill()
    disk.remount()
    begin = time.monotonic()
    broker.spawn()
    while not _produced(broker, "after"):
        if time.monotonic() - begin > 300:
            raise RuntimeError("nothing was acknowledged within 300 s of the restart")
        time.sleep(0.01)
    return {"restart_s": time.monotonic() - begin, "ring_mib": ring >> 20, "ring_used": used, "log_mib": log >> 20}


def _fill(broker, topic, partitions, batch, count):
    loads.prepare(*loads.light("rounds", broker, topic, partitions=partitions, per_round=min(partitions, 64), batch_bytes=batch,
                               bytes=count, seconds=900, warm_up=0))


def _journal_share(broker):
    if broker.name != "howdah":
        return None
    told = broker.metrics()
    of = lambda name: sum(v for k, v in told.items() if k.startswith(f"howdah_disk_{name}"))
    return of("journal_used_bytes") / (of("journal_bytes{") or 1)


def run(args):
    rows = args.rows or ROWS
    if unknown := set(rows) - set(ROWS):
        raise SystemExit(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        raise tools.Lacking("an emulated disk needs root and /dev/fuse")
    about = {**table.machine(tools.SCRATCH), "disk": "an emulated 7200 rpm disk", "file_system": "ext4"}
    print(table.describe(about))
    figures = []
    for kind in args.brokers:
        for row in rows:
            # Kafka's commits take seconds: two rows are enough to see it, and a minute each.
            if kind == "kafka" and row not in ("p1", "p64"):
                continue
            seconds = min(args.seconds, 60) if kind == "kafka" else args.seconds
            place = own if row in RESTARTS[1:] else drive
            with write_back_off(), place() as disk, _broker(kind, disk, RING_BYTES.get(row, 1 << 30)) as broker:
                if row == "readers":
                    took = _readers(broker, disk, seconds)
                elif row in RESTARTS:
                    took = _restart(broker, disk, row)
                else:
                    partitions = int(row[1:])
                    took = _rounds(broker, partitions, min(partitions, 64), seconds)
            figures.append({"row": row, "broker": kind, **took})
            print(f"{kind}, {row}: " + ", ".join(f"{n} {table.number(v)}" for n, v in took.items()
                                                if isinstance(v, (int, float))), flush=True)
    report(figures)
    if args.json:
        table.write_json(args.json, about, figures)


def _must(told):
    if told["row"] in MUST:
        return MUST[told["row"]]
    if "restart_s" in told:
        return "1 s" if told["row"] in RESTARTS[1:] else f"{told['ring_mib'] / 143 + 1:.1f} s"
    if "round_bytes" in told:
        return f"{1.2 * (8.4 + told['round_bytes'] / 180e3):.1f} / – / –"
    return "–"


def report(figures):
    cells = [[f["row"], f["broker"], f.get("p50_ms"), f.get("p99_ms"), f.get("max_ms"), f.get("mb_s"), _must(f), f.get("checkpoints"),
              f.get("worst_group_ms"), f.get("readers_mb_s"), f.get("least_over_mean"), f.get("restart_s")] for f in figures]
    print("\n" + table.markdown(["row", "broker", "p50 ms", "p99 ms", "worst ms", "MB/s", "must be (p50 / p99 / MB/s)", "checkpoints",
                                 "worst group ms", "readers MB/s", "slowest reader / mean", "restart s"], cells))
    for told in figures:
        if told["broker"] == "howdah" and told.get("checkpoints", CHECKPOINTS_WANTED) < CHECKPOINTS_WANTED:
            print(f"NOTE: {told['row']} saw {told['checkpoints']:.0f} checkpoints, {CHECKPOINTS_WANTED} are wanted: give it more --seconds")

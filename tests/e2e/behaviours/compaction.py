"""Compaction: of each key the last record stays at its offset, a tombstone stays for a while, the groups' own topic stays small.

What was written is kept here by offset; whatever is read must be what was written there, and no key's last value may miss.
"""

import contextlib
import json
import os
import random
import struct
import subprocess
import time
import urllib.request

from harness.broker import binary
from harness.machine import Lacking

from .base import HOWDAH, Client, batch, batches, expect, fresh

KEYS, VALUE = 12, 6000
MIB = 1 << 20


class Log:
    """One compacted partition and what was written to it."""

    def __init__(self, c, what, **configs):
        defaults = {"cleanup_policy": "compact", "segment_ms": "1000", "delete_retention_ms": "1000", "retention_bytes": str(16 * MIB)}
        self.topic, self.written = c.topic(what, 1, **{**defaults, **configs}), {}

    def write(self, c, count, keys=range(KEYS)):
        for _ in range(count):
            self.put(c, [(b"key %d" % k, os.urandom(VALUE), ()) for k in keys])

    def put(self, c, records):
        part = c.produce(self.topic, batch(records, base_timestamp=int(time.time() * 1000)))
        expect(part["ErrorCode"], "NONE", what="Produce")
        for i, (key, value, _) in enumerate(records):
            self.written[part["BaseOffset"] + i] = (key, value)

    def read(self, c):
        """The whole log, by offset; batches may hold no record, and offsets have gaps."""
        out, at = {}, 0
        while True:
            data = c.fetch(self.topic, at)["Records"] or b""
            end = at
            for b in batches(data):
                out.update({r.offset: (r.key, r.value) for r in b.records if r.offset >= at})
            place = 0
            while place + 61 <= len(data):
                base, length = struct.unpack_from(">qi", data, place)
                if (place := place + 12 + length) <= len(data):
                    end = base + struct.unpack_from(">i", data, place - length + 11)[0] + 1
            if end == at:
                return out
            at = end

    def last(self):
        return {key: offset for offset, (key, _) in sorted(self.written.items())}

    def check(self, c):
        """Reads the log and holds it against what was written."""
        found = self.read(c)
        for offset, record in found.items():
            assert record == self.written[offset], f"offset {offset} holds another record than was written there"
        for key, offset in self.last().items():
            assert offset in found or self.written[offset][1] is None, f"the last value of {key}, at offset {offset}, is lost"
        return found

    def shrunk(self, c, seconds=60):
        """Waits until no more than a few open and dirty extents are left."""
        return _until(lambda: (found := self.check(c)) and len(found) * VALUE < 3 * MIB and found, seconds, "the log does not shrink")


def _until(test, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := test():
            return result
        time.sleep(0.25)
    raise AssertionError(f"{what} in {seconds} s")


def _status(broker):
    with urllib.request.urlopen(f"http://127.0.0.1:{broker.http_port}/status", timeout=10) as answer:
        return json.load(answer)


def _verify(broker):
    """Ends the broker in order, has its disk verified, and starts it again."""
    code = broker.stop()
    assert code == 0, f"exit code {code}"
    done = subprocess.run([str(binary()), "verify", str(next((broker.dir / "data").rglob("SUPER.a")).parent)], capture_output=True, timeout=120)
    assert done.returncode == 0, f"verify: {(done.stdout + done.stderr).decode(errors='replace')[-1500:]}"
    broker.start()


def _ours():
    if not HOWDAH:
        raise Lacking("when a log is compacted is each broker's own affair")


def last_values_stay(broker, schemas):
    from confluent_kafka import Consumer

    _ours()
    with Client(broker, schemas) as c:
        log = Log(c, "compact")
        for part in range(9):
            # Some are written once, so that last values lie all over the log.
            log.write(c, 1, range(100 + 4 * part, 104 + 4 * part))
            log.write(c, 10)
        log.shrunk(c)
        disk = _status(broker)["disks"][0]
        assert disk["compactions"] and disk["compaction_records_dropped"] and disk["compaction_freed_bytes"], disk
        assert disk["compaction_read_bytes"] >= disk["compaction_freed_bytes"], disk
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{broker.http_port}/metrics", timeout=10).read().decode()
        assert "howdah_disk_compaction_records_dropped_total" in metrics, metrics[:500]
        # A client that knows nothing of this goes over the gaps, and another start finds the same.
        for _ in range(2):
            consumer = Consumer({"bootstrap.servers": broker.address, "group.id": fresh("reader"), "auto.offset.reset": "earliest"})
            consumer.subscribe([log.topic])
            seen, end = {}, max(log.written)
            until = time.monotonic() + 60
            while end not in seen.values() and time.monotonic() < until:
                message = consumer.poll(1)
                if message is not None and not message.error():
                    assert log.written[message.offset()] == (message.key(), message.value()), f"offset {message.offset()}"
                    seen[message.key()] = message.offset()
            consumer.close()
            assert seen == log.last(), f"{len(seen)} keys of {len(log.last())}"
            _verify(broker)
    with Client(broker, schemas) as c:
        log.check(c)


def tombstones_go(broker, schemas):
    _ours()
    with Client(broker, schemas) as c:
        log = Log(c, "tombstones")
        log.write(c, 20)
        gone = [b"key %d" % k for k in range(4)]
        log.put(c, [(key, None, ()) for key in gone])

        def vanished():
            # Each of these fills an extent, so that there is something to compact.
            log.write(c, 18, range(4, 16))
            found = log.check(c)
            return not any(key in gone for key, _ in found.values())

        _until(vanished, 90, "tombstones are there still")
        assert {key for key, _ in log.read(c).values()} == {b"key %d" % k for k in range(4, 16)}


def quiet_topics_too(broker, schemas):
    """A few records that never fill anything are sealed by segment.ms; offsets go on from where the log ended."""
    _ours()
    with Client(broker, schemas) as c:
        log = Log(c, "quiet", min_cleanable_dirty_ratio="0.01")
        for version in range(5):
            for key in (b"a", b"b", b"c"):
                log.put(c, [(key, b"%d" % version, ())])
        found = _until(lambda: (it := log.check(c)) and len(it) == 3 and it, 60, "old versions stay")
        assert sorted(found) == [12, 13, 14], found
        assert c.offset(log.topic, -1)["Offset"] == 15
    broker.crash(0)
    with Client(broker, schemas) as c:
        _until(lambda: c.fetch(log.topic)["ErrorCode"] == 0, 20, "no leader")
        assert sorted(log.check(c)) == [12, 13, 14]
        log.put(c, [(b"a", b"again", ())])
        assert max(log.check(c)) == 15 and c.offset(log.topic, -1)["Offset"] == 16


def before_the_oldest_go(broker, schemas):
    """At the quota the log is compacted first: what was written once and long ago outlives six quotas of other keys."""
    _ours()
    with Client(broker, schemas) as c:
        log = Log(c, "quota", cleanup_policy="compact,delete", retention_ms="-1", retention_bytes=str(8 * MIB), min_cleanable_dirty_ratio="1.0")
        log.put(c, [(b"old %d" % k, os.urandom(VALUE), ()) for k in range(5)])
        for _ in range(48 * MIB // (KEYS * VALUE)):
            log.write(c, 1)
            # A log that grows by its quota while it is compacted loses the oldest after all.
            time.sleep(0.015)
        found = log.check(c)
        assert len(found) * VALUE < 12 * MIB, f"{len(found)} records of {VALUE} B"


def killed_in_the_middle(broker, schemas):
    _ours()
    seed = int.from_bytes(os.urandom(4), "big")
    chance = random.Random(seed)
    with Client(broker, schemas) as c:
        log = Log(c, "killed")
    for life in range(8):
        with Client(broker, schemas) as c:
            log.write(c, 1, range(100 + 4 * life, 104 + 4 * life))
            log.write(c, 30)
            time.sleep(chance.random() * 0.3)
        broker.crash(0)
        with Client(broker, schemas) as c:
            _until(lambda: c.fetch(log.topic)["ErrorCode"] == 0, 20, "no leader")
            log.check(c)
    _verify(broker)
    with Client(broker, schemas) as c:
        _until(lambda: c.fetch(log.topic)["ErrorCode"] == 0, 20, "no leader")
        log.write(c, 20)
        try:
            log.shrunk(c)
        except AssertionError as error:
            raise AssertionError(f"{error} (seed {seed})") from error


def offsets_stay_small(broker, schemas, count=50_000, committers=40):
    _ours()
    group = fresh("committer")
    with Client(broker, schemas) as c:
        topic = c.topic("committed")
        c.coordinator(group)
        _until(lambda: c.commit(group, topic, 0) == 0, 20, "no commit is taken")
        part = {"PartitionIndex": 0, "CommittedMetadata": ""}
        # A connection's requests are answered one after the other, each when it is durable: many share a flush.
        with contextlib.ExitStack() as stack:
            together = [stack.enter_context(Client(broker, schemas)) for _ in range(committers)]
            for first in range(0, count, committers):
                for i, other in enumerate(together):
                    other.send("OffsetCommit", 7, {"GroupId": group, "GenerationIdOrMemberEpoch": -1, "MemberId": "",
                                                   "Topics": [{"Name": topic, "Partitions": [{**part, "CommittedOffset": first + i}]}]})
                for other in together:
                    expect(other.receive()["Topics"][0]["Partitions"][0]["ErrorCode"], "NONE", what="OffsetCommit")
        expect(c.commit(group, topic, count), "NONE", what="OffsetCommit")

        def rows():
            return next(t for t in _status(broker)["topics"] if t["name"] == "__consumer_offsets")

        assert rows()["records"] >= count, rows()
        _until(lambda: rows()["bytes"] < 3 * MIB, 30, f"{rows()} does not shrink")
    broker.crash(0)
    with Client(broker, schemas) as c:
        part = _until(lambda: (it := c.committed(group, topic)) and it[0] == 0 and it[1], 20, "the offsets are not loaded")
        assert part["CommittedOffset"] == count, part


TESTS = [
    ("compaction: the last value of each key stays at its offset", last_values_stay),
    ("compaction: tombstones vanish after delete.retention.ms, and what they deleted stays away", tombstones_go),
    ("compaction: a quiet topic is sealed by segment.ms and compacted, and its end stays", quiet_topics_too),
    ("compaction: at the quota it comes before the oldest go", before_the_oldest_go),
    ("compaction: kill -9 in the middle", killed_in_the_middle),
    ("compaction: __consumer_offsets stays small under 50,000 commits", offsets_stay_small),
]

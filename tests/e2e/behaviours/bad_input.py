"""Bad input over a raw socket: over a hundred ways to be wrong. Each gets its error or a closed connection, memory stays in
bounds, and a well-behaved client beside it notices nothing.

A case is bytes and what must happen: `closed` (without an answer), `answered` (any whole frame), `silent` (the broker waits for
more, and lets go when we do), or `either`.
"""

import os
import resource
import select
import socket
import struct
import threading
import time

from harness.wire import uvarint

from .base import HOWDAH, Client, Closed, batch

LIMIT_FRAME = 16 << 20  # larger frames are refused
GROWTH_KIB = 160 * 1024  # pools of 32 MiB, 5,000 connections of a few KiB, and what an allocator keeps


def frame(payload, length=None):
    return struct.pack(">i", len(payload) if length is None else length) + payload


def header(key, version, correlation=1, client=b"e", tags=b""):
    name = struct.pack(">h", -1) if client is None else struct.pack(">h", len(client)) + client
    return struct.pack(">hhi", key, version, correlation) + name + tags


def cases(c, topic):
    """(name, bytes, outcome)."""
    many = struct.pack(">i", 1 << 28)
    huge = uvarint(1 << 28)
    longest = uvarint((1 << 64) - 1)
    out = []

    def add(name, data, outcome="closed"):
        out.append((name, data, outcome))

    # Frames.
    for length in (-1, -(1 << 31), LIMIT_FRAME + 1, 1 << 30, (1 << 31) - 1):
        if not HOWDAH and 0 < length < 100 << 20:
            continue  # Kafka takes frames of up to 100 MiB.
        add(f"a frame of {length} bytes", struct.pack(">i", length) + b"\x00" * 64)
    for length in range(0, 8):
        add(f"a whole frame of {length} bytes", frame(b"\x00\x12\x00\x00\x00\x00\x00\x01"[:length]))
    for length in (1, 2, 3):
        add(f"{length} bytes of a length", b"\x00\x00\x01"[:length], "silent")
    add("half a frame", frame(header(18, 0), 100), "silent")
    add("a frame one byte short", c.frame("Metadata", 8, {"Topics": []})[:-1], "silent")
    # Header.
    for key in (-1, 4, 5, 6, 7, 93, 200, 999, 32767, -32768):
        add(f"key {key}", frame(header(key, 0) + b"\x00" * 16))
    for key in (0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 19, 20, 22, 32):
        add(f"key {key} version 100", frame(header(key, 100) + b"\x00" * 16))
        add(f"key {key} version -1", frame(header(key, -1) + b"\x00" * 16))
    add("a client id longer than the frame", frame(struct.pack(">hhih", 3, 8, 1, 1000) + b"abc"))
    add("a client id of length -2", frame(struct.pack(">hhih", 3, 8, 1, -2) + b"abc"), "either")
    add("a client id that is no UTF-8", frame(header(3, 8, client=b"\xff\xfe\xfd") + b"\x00\x00\x00\x00\x00\x00\x00"), "either")
    add("a tag count beyond the frame", frame(header(3, 12, tags=huge)))
    add("a tag longer than the frame", frame(header(3, 12, tags=b"\x01\x00" + huge)))
    add("a tag count that never ends", frame(header(3, 12, tags=b"\xff" * 20)))
    # Huge claimed counts, in each form.
    for key, version in ((3, 0), (3, 1), (3, 8), (8, 7), (9, 5), (15, 0), (19, 2), (20, 1), (32, 1), (37, 0), (42, 0)):
        tail = {8: b"\x00\x01g\x00\x00\x00\x01\x00\x00\xff\xff", 9: b"\x00\x01g"}.get(key, b"")
        add(f"2^28 elements in key {key} v{version}", frame(header(key, version) + tail + many))
    for key, version in ((3, 9), (3, 12), (15, 5), (19, 5), (20, 6), (32, 4), (37, 2), (42, 2)):
        add(f"2^28 compact elements in key {key} v{version}", frame(header(key, version, tags=b"\x00") + huge))
        add(f"2^64-1 compact elements in key {key} v{version}", frame(header(key, version, tags=b"\x00") + longest))
    add("-2 topics", frame(header(3, 1) + struct.pack(">i", -2)), "either")
    add("a topic name longer than the frame", frame(header(3, 1) + struct.pack(">ih", 1, 32000) + b"abc"))
    add("a topic name that is no UTF-8", frame(header(3, 1) + struct.pack(">ih", 1, 2) + b"\xff\xff"), "either")
    produce = struct.pack(">hhi", -1, -1, 1000)
    add("2^28 topics to produce to", frame(header(0, 8) + produce + many))
    add("2^28 partitions to produce to", frame(header(0, 8) + produce + struct.pack(">ih", 1, 1) + b"t" + many))
    add("records longer than the frame", frame(header(0, 8) + produce + struct.pack(">ih", 1, 1) + b"t" + struct.pack(">iii", 1, 0, 1 << 24)))
    add("records of length -5", frame(header(0, 8) + produce + struct.pack(">ih", 1, 1) + b"t" + struct.pack(">iii", 1, 0, -5)), "either")
    fetch = struct.pack(">iiiibii", -1, 100, 1, 1 << 20, 0, 0, -1)
    add("2^28 topics to fetch", frame(header(1, 11) + fetch + many))
    add("2^28 partitions to fetch", frame(header(1, 11) + fetch + struct.pack(">ih", 1, 1) + b"t" + many))
    add("2^28 topics to list offsets of", frame(header(2, 1) + struct.pack(">i", -1) + many))
    add("2^28 protocols to join with", frame(header(11, 1) + b"\x00\x01g" + struct.pack(">ii", 6000, 6000) + b"\x00\x00\x00\x01c" + many))
    add("2^28 assignments to sync", frame(header(14, 0) + b"\x00\x01g" + struct.pack(">i", 1) + b"\x00\x01m" + many))
    # Cut off at each place.
    whole = {
        "Produce": c.frame("Produce", 8, {"Acks": -1, "TimeoutMs": 1000, "TopicData": [{"Name": topic, "PartitionData": [{"Index": 0, "Records": b"x" * 10}]}]}),
        "Fetch": c.frame("Fetch", 11, {"ReplicaId": -1, "Topics": [{"Topic": topic, "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1}]}]}),
        "JoinGroup": c.frame("JoinGroup", 7, {"GroupId": "g", "SessionTimeoutMs": 6000, "ProtocolType": "c", "Protocols": [{"Name": "p", "Metadata": b"m"}]}),
        "CreateTopics": c.frame("CreateTopics", 5, {"Topics": [{"Name": "cut", "NumPartitions": 1, "ReplicationFactor": 1, "Assignments": [], "Configs": []}]}),
    }
    for api, data in whole.items():
        body = data[4:]
        for part in (4, 3, 2):
            cut = body[: max(9, len(body) * (part - 1) // part)]
            add(f"{api} cut to {len(cut)} of {len(body)} bytes in a whole frame", frame(cut))
    # Not Kafka at all.
    add("a TLS hello", bytes.fromhex("16030100c8010000c40303") + os.urandom(190))
    add("an HTTP request", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    add("an SSH greeting", b"SSH-2.0-OpenSSH_9.2\r\n")
    add("a mebibyte of 0xff", b"\xff" * (1 << 20))
    add("a mebibyte of zeros", b"\x00" * (1 << 20))
    for seed in range(6):
        noise = bytearray(os.urandom(4096))
        noise[0] |= 0x80
        add(f"noise {seed}", bytes(noise))
    # Whole requests whose content is wrong: they are answered.
    def wrong(name, records):
        body = {"Acks": -1, "TimeoutMs": 1000, "TopicData": [{"Name": topic, "PartitionData": [{"Index": 0, "Records": records}]}]}
        add(name, c.frame("Produce", 8, body), "answered")

    good = batch([b"a"])
    wrong("a batch with a wrong CRC", batch([b"a"], crc=7))
    wrong("a batch of magic 0", batch([b"a"], magic=0))
    wrong("a batch of magic 9", batch([b"a"], magic=9))
    wrong("a batch with a claimed length of 2^31-1", batch([b"a"], length=(1 << 31) - 1))
    wrong("a batch with a negative length", batch([b"a"], length=-100))
    wrong("a batch with 2^31-1 records claimed", batch([b"a"], count=(1 << 31) - 1, last_offset_delta=(1 << 31) - 2))
    wrong("a batch of noise", os.urandom(500))
    wrong("one byte of a batch", b"\x00")
    wrong("no bytes of a batch", b"")
    wrong("a batch with the middle cut out", good[:30] + good[40:])
    if HOWDAH:  # Kafka takes the whole one and passes over the half.
        wrong("a batch and a half", good + good[:50])
    wrong("an unknown codec", batch([b"a"], attributes=7))
    return out


def outcome_of(address, data, wait):
    """What the broker does: a closed connection, an answer, or silence."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), 5) as s:
        s.settimeout(wait)
        try:
            s.sendall(data)
            first = s.recv(4)
        except TimeoutError:
            return "silent"
        except OSError:
            return "closed"
        if not first:
            return "closed"
        return "answered"


class Neighbour(threading.Thread):
    """A well-behaved client: produces and fetches the whole time, and remembers the longest it had to wait."""

    def __init__(self, broker, schemas):
        super().__init__(daemon=True)
        self.broker, self.schemas = broker, schemas
        self.stopping, self.error = threading.Event(), None
        self.count = self.worst = 0

    def run(self):
        try:
            with Client(self.broker, self.schemas, 30) as c:
                topic = c.topic("neighbour")
                while not self.stopping.is_set():
                    begin = time.monotonic()
                    answer = c.produce(topic, batch([b"%d" % self.count]))
                    assert (answer["ErrorCode"], answer["BaseOffset"]) == (0, self.count), answer
                    assert c.records(topic, self.count)[0].value == b"%d" % self.count
                    self.worst = max(self.worst, time.monotonic() - begin)
                    self.count += 1
                    time.sleep(0.01)
        except Exception as error:  # the test that started it reports it
            self.error = error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        self.stopping.set()
        self.join(40)
        if kind is None:
            assert self.error is None, f"the client beside it: {type(self.error).__name__} {self.error}"
            assert self.count > 0, "the client beside it never got through"
            assert self.worst < 5, f"the client beside it waited {self.worst:.1f} s"


def table(broker, schemas):
    with Client(broker, schemas) as c:
        topic = c.topic("bad")
        listed = cases(c, topic)
        assert len(listed) >= 100, len(listed)
        before = broker.memory_kib()
        wrong, appended = [], 0
        with Neighbour(broker, schemas):
            for name, data, wanted in listed:
                got = outcome_of(broker.address, data, 0.3 if wanted == "silent" else 5)
                if got != wanted and not (wanted == "either" and got in ("closed", "answered")):
                    wrong.append(f"{name}: {got}, wanted {wanted}")
                if wanted == "answered" and (end := c.offset(topic, -1)["Offset"]) != appended:
                    wrong.append(f"{name}: was appended")
                    appended = end
        assert not wrong, f"{len(wrong)} of {len(listed)}: " + "; ".join(wrong)
        assert broker.alive(), "the broker ended"
        grown = broker.memory_kib() - before
        assert not HOWDAH or grown < GROWTH_KIB, f"memory grew by {grown} KiB"


def slow(broker, schemas):
    """A request a byte at a time, answers read a byte at a time, half-closed sockets: served, or at least harmless."""
    with Client(broker, schemas) as c, Neighbour(broker, schemas):
        data = c.frame("Metadata", 8, {"Topics": []})
        c.sent.append((c.correlation, "Metadata", 8))
        for i in range(len(data)):
            c.raw(data[i : i + 1])
            time.sleep(0.01)
        assert c.receive()["Brokers"]
        # Half open: what was asked before our side closed is still answered, or the connection is closed at once.
        with Client(broker, schemas, 5) as half:
            half.send("Metadata", 8, {"Topics": []})
            half.socket.shutdown(socket.SHUT_WR)
            try:
                assert half.receive()["Brokers"]
            except Closed:
                pass
        # Ends in the middle of a large frame, many times over.
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", broker.port), 5) as s:
                s.sendall(struct.pack(">i", 8 << 20) + b"\x00" * 5000)
        # A reset instead of a close.
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", broker.port), 5) as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.sendall(data)


def readers_that_stop(broker, schemas):
    """Readers that ask for megabytes and stop reading in the middle: they hold their socket's buffer and nothing more."""
    with Client(broker, schemas) as c:
        topic = c.topic("stop")
        for _ in range(24):
            assert c.produce(topic, batch([os.urandom(900_000)]))["ErrorCode"] == 0
        ask = {"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 16 << 20}
        body = {"ReplicaId": -1, "MaxWaitMs": 100, "MinBytes": 1, "MaxBytes": 16 << 20, "SessionEpoch": -1,
                "Topics": [{"Topic": topic, "Partitions": [ask]}]}
        before = broker.memory_kib()
        stopped = []
        try:
            with Neighbour(broker, schemas):
                for i in range(100):
                    s = socket.create_connection(("127.0.0.1", broker.port), 5)
                    stopped.append(s)
                    if i != 50:  # that one goes on later
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                    s.sendall(c.frame("Fetch", 11, body))
                    s.settimeout(10)
                    s.recv(100)
                time.sleep(2)
                grown = broker.memory_kib() - before
                assert not HOWDAH or grown < GROWTH_KIB, f"memory grew by {grown} KiB for 100 stopped readers"
                # One of them goes on and gets what it asked for.
                s = stopped[50]
                left, end = 4 << 20, time.monotonic() + 30
                while left > 0:
                    assert time.monotonic() < end, f"{left} bytes are still missing after 30 s"
                    part = s.recv(1 << 20)
                    assert part, "a slow reader was cut off"
                    left -= len(part)
        finally:
            for s in stopped:
                s.close()
        assert broker.alive()


def crowd(broker, schemas, count=5000):
    """5,000 connections, of which half pipeline 16 frames and never read."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < count + 500:
        count = hard - 500
    with Client(broker, schemas) as c:
        topic = c.topic("crowd")
        c.produce(topic, batch([b"x" * 50_000]))
        one = c.frame("Fetch", 11, {"ReplicaId": -1, "MaxWaitMs": 0, "MinBytes": 0, "MaxBytes": 1 << 20, "SessionEpoch": -1,
                                    "Topics": [{"Topic": topic, "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}]}]})
        before = broker.memory_kib()
        sockets = []
        try:
            with Neighbour(broker, schemas):
                for i in range(count):
                    # Addresses of their own, so that the machine does not run out of ports.
                    s = socket.create_connection(("127.0.0.1", broker.port), 10, ("127.0.0.%d" % (2 + i % 8), 0))
                    s.setblocking(False)
                    sockets.append(s)
                    if i % 2 == 0:
                        try:
                            s.send(one * 16)
                        except OSError:
                            pass
                time.sleep(2)
                grown = broker.memory_kib() - before
                assert not HOWDAH or grown < GROWTH_KIB, f"memory grew by {grown} KiB for {count} connections"
                # Those that only connected are still served.
                quiet = sockets[1::500]
                hello = c.frame("ApiVersions", 0, {})
                for s in quiet:
                    s.send(hello)
                waiting = set(quiet)
                end = time.monotonic() + 20
                while waiting and time.monotonic() < end:
                    for s in _readable(waiting):
                        assert s.recv(4096), "a quiet connection was closed"
                        waiting.discard(s)
                assert not waiting, f"{len(waiting)} of {len(quiet)} quiet connections got no answer"
        finally:
            for s in sockets:
                s.close()
        assert broker.alive()


def _readable(sockets):
    """Within a second. poll, since select ends at file descriptor 1,023."""
    by_number = {s.fileno(): s for s in sockets}
    poll = select.poll()
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(1000)]


TESTS = [
    ("bad input: over a hundred wrong requests", table),
    ("bad input: slow, half-open and broken connections", slow),
    ("bad input: readers that stop in the middle", readers_that_stop),
    ("bad input: 5,000 connections, half of them pipelining and never reading", crowd),
]

"""kcat, Debian's librdkafka 2.0: the oldest client that edge boxes carry, with exact version gates and a tag bug of its own."""

import subprocess
import time

from harness.client import create_topic, read_partition
from harness.machine import need


def kcat(broker, *args, stdin=None, seconds=30):
    done = subprocess.run([need("kcat"), "-b", broker.address, *args], input=stdin, capture_output=True, timeout=seconds)
    assert done.returncode == 0, f"kcat {' '.join(args)}: {done.stderr.decode(errors='replace')[-600:]}"
    return done.stdout.decode(errors="replace")


def lists_metadata(broker, schemas):
    create_topic(broker, schemas, "kcat-list", 3)
    text = kcat(broker, "-L", "-t", "kcat-list")
    assert "1 brokers:" in text and 'topic "kcat-list" with 3 partitions' in text, text


def auto_creates(broker, schemas):
    topic = f"kcat-auto-{int(time.time())}"
    kcat(broker, "-P", "-t", topic, "-p", "0", stdin=b"first\n")
    assert list(read_partition(broker, schemas, topic, 0).values()) == [b"first"]


def every_codec(broker, schemas):
    """Old librdkafka silently drops gzip, snappy and lz4 where it misses a version it knows, so the stored bits are looked at."""
    from harness.wire import Connection

    lines = b"".join(b"k%d:v%d\n" % (i, i) * 3 for i in range(200))
    for number, codec in enumerate(("none", "gzip", "snappy", "lz4", "zstd")):
        topic = f"kcat-{codec}"
        create_topic(broker, schemas, topic, 1)
        kcat(broker, "-P", "-t", topic, "-p", "0", "-K:", "-z", codec, "-H", "h=1", stdin=lines)
        got = kcat(broker, "-C", "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q", "-f", "%k:%s\n")
        assert got.encode() == lines, f"{codec}: {len(got)} of {len(lines)} bytes"
        with Connection(broker.address, schemas) as c:
            ask = {"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}
            answer = c.ask("Fetch", 11, {"ReplicaId": -1, "MaxWaitMs": 0, "MinBytes": 0, "SessionEpoch": -1,
                                         "Topics": [{"Topic": topic, "Partitions": [ask]}]})
        records = answer["Responses"][0]["Partitions"][0]["Records"]
        assert records[22] & 7 == number, f"{codec} was stored as codec {records[22] & 7}"


def null_and_empty(broker, schemas):
    create_topic(broker, schemas, "kcat-null", 1)
    kcat(broker, "-P", "-t", "kcat-null", "-p", "0", "-K:", "-Z", stdin=b"key:\n:value\n")
    got = kcat(broker, "-C", "-t", "kcat-null", "-o", "beginning", "-e", "-q", "-f", "%K %S\n")
    assert got == "3 -1\n-1 5\n", repr(got)


def offsets_by_time(broker, schemas):
    create_topic(broker, schemas, "kcat-time", 1)
    kcat(broker, "-P", "-t", "kcat-time", "-p", "0", stdin=b"a\nb\n")
    begin = int(time.time() * 1000)
    assert "[0] offset 0" in kcat(broker, "-Q", "-t", f"kcat-time:0:{begin - 60000}")
    assert "[0] offset 2" in kcat(broker, "-Q", "-t", "kcat-time:0:-1")


def consumes_as_a_group(broker, schemas):
    create_topic(broker, schemas, "kcat-group", 2)
    for p in ("0", "1"):
        kcat(broker, "-P", "-t", "kcat-group", "-p", p, stdin=b"1\n2\n3\n4\n5\n")

    def consume(count):
        return kcat(broker, "-G", "kcat-g", "-q", "-c", str(count), "-X", "auto.offset.reset=earliest", "kcat-group").split()

    got = consume(4) + consume(6)
    assert sorted(got) == sorted(list("12345") * 2), got


def idempotent(broker, schemas):
    create_topic(broker, schemas, "kcat-idempotent", 1)
    kcat(broker, "-P", "-t", "kcat-idempotent", "-X", "enable.idempotence=true", stdin=b"x\n" * 1000)
    assert len(read_partition(broker, schemas, "kcat-idempotent", 0)) == 1000


TESTS = [(f"kcat: {t.__name__.replace('_', ' ')}", t) for t in
         (lists_metadata, auto_creates, every_codec, null_and_empty, offsets_by_time, consumes_as_a_group, idempotent)]

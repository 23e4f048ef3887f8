"""Producing: behaviours 10 to 15."""

import struct
import time

from .base import HOWDAH, Client, Closed, batch, batches, behaviour, expect, fresh, name


@behaviour(10, "acks=0 is never answered, and an error closes the connection")
def acks_zero(c):
    topic = c.topic("acks-zero")
    c.send_produce(topic, batch([b"silent"]), acks=0)
    c.ask("Metadata", 8, {"Topics": []})  # the next answer is this one's
    end = time.monotonic() + 5
    while not c.records(topic) and time.monotonic() < end:
        time.sleep(0.05)
    assert [r.value for r in c.records(topic)] == [b"silent"]
    with Client(c.broker, c.schemas, 5) as other:
        other.send_produce(topic, batch([b"broken"], crc=1), acks=0)
        assert other.closes(), "an error at acks=0 left the connection open"
    assert len(c.records(topic)) == 1


@behaviour(10, "acks of 1 and -1 are answered with the offset, others are INVALID_REQUIRED_ACKS")
def acks(c):
    topic = c.topic("acks")
    for version in range(3, 12):
        for number, required in enumerate((1, -1)):
            answer = c.produce(topic, batch([b"x"]), version=version, acks=required)
            expect(answer["ErrorCode"], "NONE", what=f"v{version} acks={required}")
            assert answer["BaseOffset"] == 2 * (version - 3) + number, answer
    for required in (2, -2, 7):
        expect(c.produce(topic, batch([b"x"]), acks=required)["ErrorCode"], "INVALID_REQUIRED_ACKS", what=f"acks={required}")
    assert c.offset(topic, -1)["Offset"] == 18


@behaviour(10, "what was acknowledged is there after kill -9")
def durable(c):
    topic = c.topic("durable")
    sent = 0
    for acks_ in (1, -1) * 10:
        expect(c.produce(topic, batch([b"%d" % sent]), acks=acks_)["ErrorCode"], "NONE")
        sent += 1
    c.broker.crash(0)
    with Client(c.broker, c.schemas) as again:
        again.settle(topic)
        assert [r.value for r in again.records(topic)] == [b"%d" % i for i in range(sent)]


@behaviour(11, "each way in which a batch is wrong has its error")
def wrong_batches(c):
    topic = c.topic("wrong")
    compacted = c.topic("compacted", cleanup_policy="compact")
    small = c.topic("small", max_message_bytes="1000")
    timed = c.topic("timed", message_timestamp_after_max_ms="3600000")
    good = batch([b"a", b"b"])
    rejected = ("INVALID_RECORD", "CORRUPT_MESSAGE")
    cases = [
        ("a wrong CRC", topic, batch([b"a"], crc=12345), ("CORRUPT_MESSAGE",)),
        ("two batches", topic, good + good, ("INVALID_RECORD",)),
        ("no batch", topic, b"", rejected),
        ("half a batch", topic, good[:40], rejected),
        ("a batch without its end", topic, good[:-3], rejected),
        ("a length beyond the end", topic, batch([b"a"], length=1 << 20), rejected),
        ("a negative length", topic, batch([b"a"], length=-1), rejected),
        ("a length too small", topic, batch([b"a"], length=10), rejected),
        ("magic 1", topic, batch([b"a"], magic=1), (*rejected, "UNSUPPORTED_FOR_MESSAGE_FORMAT")),
        ("magic 3", topic, batch([b"a"], magic=3), (*rejected, "UNSUPPORTED_FOR_MESSAGE_FORMAT")),
        ("a count that is no delta + 1", topic, batch([b"a", b"b"], last_offset_delta=5), rejected),
        ("a negative count", topic, batch([b"a"], count=-1), rejected),
        # Where transactions are not built, what only they may write is refused as such.
        ("a control batch", topic, batch([b"a"], attributes=0x20), ("INVALID_RECORD", "INVALID_TXN_STATE")),
        ("a sequence of -1 with a producer id", topic, batch([b"a"], producer=(77, 0, -1)), ("INVALID_RECORD",)),
        ("a record without key where keys are compacted", compacted, batch([b"a"]), ("INVALID_RECORD",)),
        ("a batch above max.message.bytes", small, batch([b"x" * 2000]), ("MESSAGE_TOO_LARGE",)),
        ("a time of next year", timed, batch([b"a"], base_timestamp=int(time.time() * 1000) + 366 * 86_400_000),
         ("INVALID_TIMESTAMP",)),
    ]
    for what, where, records, wanted in cases:
        try:
            answer = c.produce(where, records)
        except Closed as error:
            raise AssertionError(f"{what}: the connection is closed, wanted {wanted}") from error
        expect(answer["ErrorCode"], *wanted, what=what)
        assert answer["BaseOffset"] == -1, f"{what}: {answer}"
    for where in (topic, compacted, small, timed):
        assert c.offset(where, -1)["Offset"] == 0, "a refused batch took an offset"
    expect(c.produce(topic, good)["ErrorCode"], "NONE", what="a good batch on the same connection")


@behaviour(11, "zstd is for Produce v7 and later")
def zstd(c):
    topic = c.topic("zstd")
    # Only the attribute is looked at in the broker; the payload is an empty zstd frame.
    frame = bytes.fromhex("28b52ffd2000010000")
    expect(c.produce(topic, batch([b"a"], attributes=4, payload=frame), version=6)["ErrorCode"], "UNSUPPORTED_COMPRESSION_TYPE")


@behaviour(12, "of a batch only base offset and leader epoch change; everything else comes back byte for byte")
def untouched(c):
    topic = c.topic("untouched")
    sent = [batch([(b"k", b"v", [("h", b"1"), ("h", None), ("", b"")])]), batch([b"z" * 3000] * 5, attributes=1), batch([None, b""])]
    offset = 0
    for one in sent:
        answer = c.produce(topic, one)
        assert answer["BaseOffset"] == offset and answer["LogAppendTimeMs"] == -1, answer
        offset += struct.unpack_from(">i", one, 23)[0] + 1
    got = c.fetch(topic)["Records"]
    at = base = 0
    for one in sent:
        back = got[at : at + len(one)]
        assert struct.unpack_from(">q", back)[0] == base
        assert back[8:12] == one[8:12] and back[16:] == one[16:], "bytes under the CRC changed"
        at, base = at + len(one), base + struct.unpack_from(">i", one, 23)[0] + 1
    assert at == len(got)


@behaviour(12, "LogAppendTime: the bit, the time and the CRC are rewritten and the answer tells the time")
def log_append_time(c):
    topic = c.topic("append-time", message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    for attributes in (0, 1):
        answer = c.produce(topic, batch([b"a", b"b"], attributes=attributes))
        told = answer["LogAppendTimeMs"]
        assert before - 1000 <= told <= before + 60_000, answer
        last = batches(c.fetch(topic)["Records"])[-1]
        assert last.attributes == attributes | 8 and last.max_timestamp == told, last
        assert [r.timestamp for r in last.records] == [told] * 2


def producer_id(c, **body):
    end = time.monotonic() + 10
    while True:
        answer = c.ask("InitProducerId", 4, {"TransactionalId": None, "TransactionTimeoutMs": 60000, **body})
        if name(answer["ErrorCode"]) != "COORDINATOR_LOAD_IN_PROGRESS" or time.monotonic() > end:
            break
        time.sleep(0.1)
    expect(answer["ErrorCode"], "NONE", what="InitProducerId")
    return answer["ProducerId"]


@behaviour(13, "sequences: duplicates are known, gaps and old epochs refused, a new epoch begins at 0")
def sequences(c):
    topic = c.topic("sequence")
    pid = producer_id(c)

    def send(sequence, epoch=0):
        return c.produce(topic, batch([b"s%d" % sequence], producer=(pid, epoch, sequence)))

    for sequence in range(8):
        answer = send(sequence)
        assert answer["ErrorCode"] == 0 and answer["BaseOffset"] == sequence, answer
    for sequence in (7, 3, 5):
        answer = send(sequence)
        expect(answer["ErrorCode"], "NONE", what=f"sequence {sequence} again")
        assert answer["BaseOffset"] == sequence, f"a duplicate was answered with another offset: {answer}"
    expect(send(2)["ErrorCode"], "OUT_OF_ORDER_SEQUENCE_NUMBER", "DUPLICATE_SEQUENCE_NUMBER", what="older than five batches")
    expect(send(9)["ErrorCode"], "OUT_OF_ORDER_SEQUENCE_NUMBER", what="a gap")
    expect(send(5, epoch=1)["ErrorCode"], "OUT_OF_ORDER_SEQUENCE_NUMBER", what="a new epoch that does not begin at 0")
    expect(send(0, epoch=1)["ErrorCode"], "NONE", what="a new epoch")
    expect(send(8, epoch=0)["ErrorCode"], "INVALID_PRODUCER_EPOCH", what="the old epoch")
    assert c.offset(topic, -1)["Offset"] == 9


@behaviour(13, "what is known of a producer outlives kill -9")
def sequences_after_a_kill(c):
    topic = c.topic("sequence-kill")
    pid = producer_id(c)
    # Kafka forgets a producer whose batches bear times of more than a day ago; ours never forgets one for its time.
    when = 1_600_000_000_000 if HOWDAH else int(time.time() * 1000)
    for sequence in range(0, 30, 3):
        expect(c.produce(topic, batch([b"x"] * 3, when, producer=(pid, 0, sequence)))["ErrorCode"], "NONE")
    c.broker.crash(0)
    with Client(c.broker, c.schemas) as again:
        again.settle(topic)
        # Kafka knows only the last batch again, ours all five.
        for sequence in (15, 21, 27) if HOWDAH else (27,):
            answer = again.produce(topic, batch([b"x"] * 3, when, producer=(pid, 0, sequence)))
            expect(answer["ErrorCode"], "NONE", what=f"sequence {sequence} again")
            assert answer["BaseOffset"] == sequence, answer
        expect(again.produce(topic, batch([b"x"], when, producer=(pid, 0, 33)))["ErrorCode"], "OUT_OF_ORDER_SEQUENCE_NUMBER", what="a gap")
        expect(again.produce(topic, batch([b"x"], when, producer=(pid, 0, 30)))["ErrorCode"], "NONE", what="the next one")
        assert again.offset(topic, -1)["Offset"] == 31


@behaviour(13, "duplicates that are in flight together are one batch, and sequences wrap at 2^31-1")
def duplicates_in_flight(c):
    topic = c.topic("flight")
    pid = producer_id(c)
    one = batch([b"x"] * 10, producer=(pid, 0, (1 << 31) - 5))
    for _ in range(20):
        c.send_produce(topic, one)
    answers = [c.produced() for _ in range(20)]
    assert {(a["ErrorCode"], a["BaseOffset"]) for a in answers} == {(0, 0)}, answers
    # 2^31-5 and ten records: 2^31-1 is followed by 0, so the next sequence is 5.
    expect(c.produce(topic, batch([b"y"], producer=(pid, 0, 5)))["ErrorCode"], "NONE", what="after the wrap")
    assert c.offset(topic, -1)["Offset"] == 11


@behaviour(14, "producer ids are never given twice, not even across kill -9, and the timeout is not looked at")
def producer_ids(c):
    ids = [producer_id(c, TransactionTimeoutMs=timeout) for timeout in (60000, 2147483647, 1, 60000)]
    c.broker.crash(0)
    with Client(c.broker, c.schemas) as again:
        end = time.monotonic() + 20
        while True:
            answer = again.ask("InitProducerId", 1, {"TransactionalId": None, "TransactionTimeoutMs": 2147483647})
            if answer["ErrorCode"] == 0:
                break
            expect(answer["ErrorCode"], "COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR")
            assert time.monotonic() < end
            time.sleep(0.2)
        ids.append(answer["ProducerId"])
        ids += [producer_id(again) for _ in range(5)]
    assert len(set(ids)) == len(ids), ids


@behaviour(15, "a produce to what is not there is UNKNOWN_TOPIC_OR_PARTITION, beside what is there")
def unknown_partitions(c):
    topic = c.topic("known", 2)
    gone = fresh("gone")
    for version in (3, 7, 9, 10, 11):
        data = [{"Name": topic, "PartitionData": [{"Index": 0, "Records": batch([b"a"])}, {"Index": 9, "Records": batch([b"b"])}]},
                {"Name": gone, "PartitionData": [{"Index": 0, "Records": batch([b"c"])}]}]
        answer = c.ask("Produce", version, {"Acks": -1, "TimeoutMs": 5000, "TopicData": data})
        codes = {(t["Name"], p["Index"]): p["ErrorCode"] for t in answer["Responses"] for p in t["PartitionResponses"]}
        assert codes == {(topic, 0): 0, (topic, 9): 3, (gone, 0): 3}, codes
        # Default-valued tags must not be sent: old librdkafka reads them one byte short.
        assert "NodeEndpoints" not in answer
        assert all("CurrentLeader" not in p for t in answer["Responses"] for p in t["PartitionResponses"])


TESTS = [acks_zero, acks, durable, wrong_batches, zstd, untouched, log_append_time, sequences, sequences_after_a_kill,
         duplicates_in_flight, producer_ids, unknown_partitions]

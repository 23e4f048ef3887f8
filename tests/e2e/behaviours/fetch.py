"""Fetching and offsets: behaviours 16 to 24."""

import threading
import time

from .base import CODES, HOWDAH, Client, batch, batches, behaviour, expect, fresh

# What a Java consumer takes for a partition error; anything else makes it throw (behaviour 19).
SAFE = {0, 6, 9, 56, 74, 75, 78, 3, 100, 103, 1, 29, -1, 2}


def timed(call):
    begin = time.monotonic()
    return call(), time.monotonic() - begin


@behaviour(16, "a fetch waits for min_bytes or max_wait, and is woken by a produce")
def long_poll(c):
    topic = c.topic("poll")
    _, took = timed(lambda: c.fetch(topic, wait=600, min_bytes=1))
    assert 0.5 < took < 3, f"an empty log and max_wait 600 ms took {took:.2f} s"
    _, took = timed(lambda: c.fetch(topic, wait=5000, min_bytes=0))
    assert took < 1, f"min_bytes=0 took {took:.2f} s"
    _, took = timed(lambda: c.fetch(topic, wait=0, min_bytes=1))
    assert took < 1, f"max_wait=0 took {took:.2f} s"

    def later():
        with Client(c.broker, c.schemas) as other:
            time.sleep(0.4)
            other.produce(topic, batch([b"woken"]))

    helper = threading.Thread(target=later)
    helper.start()
    part, took = timed(lambda: c.fetch(topic, wait=10_000, min_bytes=1))
    helper.join()
    assert part["Records"] and 0.3 < took < 5, f"woken after {took:.2f} s with {len(part['Records'] or b'')} bytes"
    _, took = timed(lambda: c.fetch(topic, offset=1, wait=600, min_bytes=1 << 20))
    assert took > 0.5, "too few bytes were answered before max_wait"


@behaviour(16, "an error in one partition, and a fetch of nothing, are answered at once")
def no_wait(c):
    topic = c.topic("no-wait", 2)
    answer, took = timed(lambda: c.fetch_all([(topic, 0, 0), (topic, 1, 9)], wait=8000, min_bytes=1 << 20))
    assert took < 2, f"an offset out of range took {took:.2f} s"
    codes = {p["PartitionIndex"]: p["ErrorCode"] for p in answer["Responses"][0]["Partitions"]}
    assert codes == {0: 0, 1: CODES["OFFSET_OUT_OF_RANGE"]}, codes
    _, took = timed(lambda: c.fetch_all([], wait=8000, min_bytes=1))
    assert took < 2, f"nothing asked took {took:.2f} s"


@behaviour(17, "sizes are obeyed, but the first partition with data always gives a whole batch")
def sizes(c):
    topic = c.topic("sizes", 3)
    for partition in range(3):
        for _ in range(5):
            c.produce(topic, batch([bytes([65 + partition]) * 10_000]), partition)
    small = {"PartitionMaxBytes": 100}
    answer = c.fetch_all([(topic, p, 0, small) for p in range(3)], max_bytes=100)
    counts = [len(batches(p["Records"] or b"")) for p in answer["Responses"][0]["Partitions"]]
    assert sorted(counts) == [0, 0, 1], f"whole batches with room for none: {counts}"
    answer = c.fetch_all([(topic, p, 0, {"PartitionMaxBytes": 25_000}) for p in range(3)])
    for part in answer["Responses"][0]["Partitions"]:
        assert len(part["Records"]) <= 25_000 and len(batches(part["Records"])) == 2, len(part["Records"])
    answer = c.fetch_all([(topic, p, 0) for p in range(3)], max_bytes=35_000)
    assert sum(len(p["Records"] or b"") for p in answer["Responses"][0]["Partitions"]) <= 35_000 + 10_100


@behaviour(17, "no partition starves behind others under max_bytes")
def no_starving(c):
    topic = c.topic("starve", 4)
    for partition in range(4):
        for _ in range(6):
            c.produce(topic, batch([b"x" * 5000]), partition)
    position = dict.fromkeys(range(4), 0)
    for _ in range(60):
        # As consumers do: partitions that gave something go to the end of the next request.
        order = sorted(position, key=lambda p: position[p])
        answer = c.fetch_all([(topic, p, position[p]) for p in order if position[p] < 6], max_bytes=6000)
        for part in (p for t in answer["Responses"] for p in t["Partitions"]):
            position[part["PartitionIndex"]] += len(batches(part["Records"] or b""))
        if min(position.values()) == 6:
            return
    raise AssertionError(f"after 60 fetches: {position}")


@behaviour(18, "batches may begin before the offset asked for; nothing is an empty field, not null")
def whole_batches(c):
    topic = c.topic("middle")
    c.produce(topic, batch([b"%d" % i for i in range(10)]))
    for version in range(4, 13):
        part = c.fetch(topic, 7, version=version)
        assert [b.base_offset for b in batches(part["Records"])] == [0], f"v{version}"
        assert part["HighWatermark"] == 10 and part["LastStableOffset"] == 10, part
        empty = c.fetch(topic, 10, version=version)
        assert empty["Records"] == b"", f"v{version}: nothing is {empty['Records']!r}"


@behaviour(18, "read_committed sees what is stable")
def read_committed(c):
    topic = c.topic("committed")
    c.produce(topic, batch([b"a"]))
    part = c.fetch(topic, IsolationLevel=1)
    assert len(batches(part["Records"])) == 1 and not part["AbortedTransactions"], part


@behaviour(19, "every error of a fetch is one that Java consumers take")
def safe_errors(c):
    topic = c.topic("safe")
    c.produce(topic, batch([b"a"]))
    asks = [(topic, 0, 99), (topic, 0, -5), (topic, 5, 0), (fresh("gone"), 0, 0), (topic, 0, 0, {"CurrentLeaderEpoch": 999}),
            (topic, -1, 0), (topic, 0, 1 << 62), (topic, 0, 0, {"PartitionMaxBytes": 0}), (topic, 0, 0, {"PartitionMaxBytes": -1})]
    for version in (9, 11, 12):
        for ask in asks:
            answer = c.fetch_all([ask], version=version)
            assert answer.get("ErrorCode", 0) == 0, f"{ask}: {answer}"
            code = answer["Responses"][0]["Partitions"][0]["ErrorCode"]
            assert code in SAFE, f"{ask} at v{version}: {code}"


@behaviour(20, "fetch sessions: one without, one incremental, and the errors of wrong ones")
def sessions(c):
    topic = c.topic("session", 2)
    c.produce(topic, batch([b"a"]), 0)
    first = c.fetch_all([(topic, 0, 0), (topic, 1, 0)], SessionId=0, SessionEpoch=0)
    assert first["ErrorCode"] == 0 and len(first["Responses"][0]["Partitions"]) == 2
    session = first["SessionId"]
    assert session != 0 or not HOWDAH, "no session was given"
    if session:
        c.fetch_all([(topic, 0, 1)], SessionId=session, SessionEpoch=1)
        nothing = c.fetch_all([], SessionId=session, SessionEpoch=2)
        assert nothing["Responses"] == [], "unchanged partitions are sent again"
        c.produce(topic, batch([b"b"]), 1)
        changed = c.fetch_all([], SessionId=session, SessionEpoch=3, wait=2000, min_bytes=1)
        assert [p["PartitionIndex"] for p in changed["Responses"][0]["Partitions"]] == [1], changed
        forgotten = [{"Topic": topic, "Partitions": [1]}]
        gone = c.fetch_all([], SessionId=session, SessionEpoch=4, ForgottenTopicsData=forgotten)
        assert gone["Responses"] == [], "a forgotten partition is sent"
        expect(c.fetch_all([], SessionId=session, SessionEpoch=9)["ErrorCode"], "INVALID_FETCH_SESSION_EPOCH")
        by_id = c.fetch_all([(c.topic_id(topic), 0, 0)], version=13, SessionId=session, SessionEpoch=5)
        expect(by_id["ErrorCode"], "FETCH_SESSION_TOPIC_ID_ERROR", what="ids in a session of names")
        closed = c.fetch_all([], SessionId=session, SessionEpoch=-1)
        assert closed["SessionId"] == 0
    expect(c.fetch_all([], SessionId=123456, SessionEpoch=5)["ErrorCode"], "FETCH_SESSION_ID_NOT_FOUND")


@behaviour(21, "leader epochs in requests: older is fenced, newer unknown, and a diverging one is told where")
def request_epochs(c):
    topic = c.topic("request-epochs")
    c.produce(topic, batch([b"a", b"b"]))
    epoch = c.metadata(topic)["Topics"][0]["Partitions"][0]["LeaderEpoch"]
    expect(c.fetch(topic, more={"CurrentLeaderEpoch": epoch})["ErrorCode"], "NONE")
    expect(c.fetch(topic, more={"CurrentLeaderEpoch": epoch + 1})["ErrorCode"], "UNKNOWN_LEADER_EPOCH")
    if epoch > 0:
        expect(c.fetch(topic, more={"CurrentLeaderEpoch": epoch - 1})["ErrorCode"], "FENCED_LEADER_EPOCH")
    # Without LastFetchedEpoch (-1) nothing may diverge.
    assert "DivergingEpoch" not in c.fetch(topic, 2, version=12)
    assert "DivergingEpoch" not in c.fetch(topic, 2, version=12, more={"LastFetchedEpoch": epoch})

    def end_of(asked, current=-1):
        part = {"Partition": 0, "CurrentLeaderEpoch": current, "LeaderEpoch": asked}
        answer = c.ask("OffsetForLeaderEpoch", 3, {"ReplicaId": -1, "Topics": [{"Topic": topic, "Partitions": [part]}]})
        return answer["Topics"][0]["Partitions"][0]

    found = end_of(epoch)
    assert (found["ErrorCode"], found["LeaderEpoch"], found["EndOffset"]) == (0, epoch, 2), found
    found = end_of(epoch + 5)
    assert (found["ErrorCode"], found["EndOffset"]) == (0, -1), f"an epoch that never was: {found}"
    expect(end_of(epoch, epoch + 1)["ErrorCode"], "UNKNOWN_LEADER_EPOCH")


@behaviour(21, "after a restart the old epoch still names its end")
def old_epochs(c):
    topic = c.topic("old-epochs")
    c.produce(topic, batch([b"a", b"b"]))
    old = c.metadata(topic)["Topics"][0]["Partitions"][0]["LeaderEpoch"]
    c.broker.crash(0)
    with Client(c.broker, c.schemas) as again:
        again.settle(topic)
        new = again.metadata(topic)["Topics"][0]["Partitions"][0]["LeaderEpoch"]
        again.produce(topic, batch([b"c"]))
        for version in (2, 3, 4):
            part = {"Partition": 0, "CurrentLeaderEpoch": new, "LeaderEpoch": old}
            answer = again.ask("OffsetForLeaderEpoch", version, {"ReplicaId": -1, "Topics": [{"Topic": topic, "Partitions": [part]}]})
            found = answer["Topics"][0]["Partitions"][0]
            wanted = (0, old, 2) if new > old else (0, new, 3)
            assert (found["ErrorCode"], found["LeaderEpoch"], found["EndOffset"]) == wanted, found
        if new > old:
            expect(again.fetch(topic, more={"CurrentLeaderEpoch": old})["ErrorCode"], "FENCED_LEADER_EPOCH")
            # A consumer that fetched offset 2 under the old epoch holds what this log never had there.
            told = again.fetch(topic, 3, version=12, more={"LastFetchedEpoch": old})
            assert told.get("DivergingEpoch") == {"Epoch": old, "EndOffset": 2}, told


@behaviour(22, "OFFSET_OUT_OF_RANGE only below the start and above the end")
def out_of_range(c):
    topic = c.topic("range")
    c.produce(topic, batch([b"%d" % i for i in range(10)]))
    part = {"Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Offset": 4}]}], "TimeoutMs": 5000}
    answer = c.ask("DeleteRecords", 1, part)["Topics"][0]["Partitions"][0]
    assert (answer["ErrorCode"], answer["LowWatermark"]) == (0, 4), answer
    for offset, wanted in ((3, "OFFSET_OUT_OF_RANGE"), (0, "OFFSET_OUT_OF_RANGE"), (4, "NONE"), (9, "NONE"), (10, "NONE"),
                           (11, "OFFSET_OUT_OF_RANGE")):
        expect(c.fetch(topic, offset)["ErrorCode"], wanted, what=f"offset {offset}")


@behaviour(23, "nobody is sent to another replica")
def preferred_replica(c):
    topic = c.topic("rack")
    c.produce(topic, batch([b"a"]))
    assert c.fetch(topic, RackId="north")["PreferredReadReplica"] == -1


@behaviour(24, "latest, earliest, largest time and by time; a time past the end is -1 without error")
def list_offsets(c):
    topic = c.topic("offsets")
    base = 1_700_000_000_000
    c.produce(topic, batch([b"x"] * 5, base, step=1000))
    c.produce(topic, batch([b"x"] * 5, base + 50_000, step=-1000, max_timestamp=base + 50_000))
    c.produce(topic, batch([b"x"] * 5, base + 10_000, step=1000))
    for version in range(1, 9):
        assert c.offset(topic, -1, version=version)["Offset"] == 15
        assert c.offset(topic, -2, version=version)["Offset"] == 0
        for at, offset, stamp in ((base, 0, base), (base + 1, 1, base + 1000), (base + 4000, 4, base + 4000), (base + 48_500, 5, base + 50_000)):
            got = c.offset(topic, at, version=version)
            assert (got["ErrorCode"], got["Offset"], got["Timestamp"]) == (0, offset, stamp), f"v{version} at +{at - base}: {got}"
        got = c.offset(topic, base + 60_000, version=version)
        assert (got["ErrorCode"], got["Offset"], got["Timestamp"]) == (0, -1, -1), got
    for version in (7, 8):
        got = c.offset(topic, -3, version=version)
        assert (got["Offset"], got["Timestamp"]) == (5, base + 50_000), f"max timestamp: {got}"
    empty = c.topic("offsets-empty")
    assert (c.offset(empty, -1)["Offset"], c.offset(empty, -2)["Offset"], c.offset(empty, -3)["Offset"]) == (0, 0, -1)
    expect(c.offset(topic, -1, 9)["ErrorCode"], "UNKNOWN_TOPIC_OR_PARTITION")


@behaviour(24, "earliest does not go back after kill -9")
def earliest_stays(c):
    topic = c.topic("earliest")
    c.produce(topic, batch([b"%d" % i for i in range(10)]))
    part = {"Topics": [{"Name": topic, "Partitions": [{"PartitionIndex": 0, "Offset": -1}]}], "TimeoutMs": 5000}
    assert c.ask("DeleteRecords", 1, part)["Topics"][0]["Partitions"][0]["LowWatermark"] == 10
    if not HOWDAH:
        time.sleep(0.1)
    assert c.offset(topic, -2)["Offset"] == 10
    if not HOWDAH:
        return  # Kafka writes its start offsets down only once a minute.
    c.broker.crash(0)
    with Client(c.broker, c.schemas) as again:
        assert again.offset(topic, -2)["Offset"] == 10 and again.offset(topic, -1)["Offset"] == 10
        assert again.produce(topic, batch([b"next"]))["BaseOffset"] == 10


TESTS = [long_poll, no_wait, sizes, no_starving, whole_batches, read_committed, safe_errors, sessions, request_epochs, old_epochs,
         out_of_range, preferred_replica, list_offsets, earliest_stays]

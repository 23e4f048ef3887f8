"""Requests that many tests share. Each opens what it needs and gives back the part of the answer that is looked at."""

import itertools
import os
import struct
import time

from harness.broker import TARGET
from harness.client import create_topic
from harness.records import batch, batches
from harness.wire import Closed, Connection

HOWDAH = TARGET == "howdah"
# A consumer's subscription of no topics: Kafka 4 reads it, and never answers a join whose bytes it can't read.
SUBSCRIPTION = struct.pack(">hii", 0, 0, -1)
_count = itertools.count()

# Error codes by Kafka's names, as far as they are met here.
CODES = {
    "NONE": 0, "OFFSET_OUT_OF_RANGE": 1, "CORRUPT_MESSAGE": 2, "UNKNOWN_TOPIC_OR_PARTITION": 3, "LEADER_NOT_AVAILABLE": 5,
    "NOT_LEADER_OR_FOLLOWER": 6, "REQUEST_TIMED_OUT": 7, "MESSAGE_TOO_LARGE": 10, "COORDINATOR_LOAD_IN_PROGRESS": 14,
    "COORDINATOR_NOT_AVAILABLE": 15, "NOT_COORDINATOR": 16, "INVALID_TOPIC_EXCEPTION": 17, "INVALID_REQUIRED_ACKS": 21,
    "ILLEGAL_GENERATION": 22, "INCONSISTENT_GROUP_PROTOCOL": 23, "INVALID_GROUP_ID": 24, "UNKNOWN_MEMBER_ID": 25,
    "INVALID_SESSION_TIMEOUT": 26, "REBALANCE_IN_PROGRESS": 27, "INVALID_TIMESTAMP": 32, "UNSUPPORTED_VERSION": 35,
    "TOPIC_ALREADY_EXISTS": 36, "INVALID_CONFIG": 40, "INVALID_REQUEST": 42, "UNSUPPORTED_FOR_MESSAGE_FORMAT": 43,
    "POLICY_VIOLATION": 44, "INVALID_TXN_STATE": 48, "OUT_OF_ORDER_SEQUENCE_NUMBER": 45, "DUPLICATE_SEQUENCE_NUMBER": 46, "INVALID_PRODUCER_EPOCH": 47,
    "GROUP_ID_NOT_FOUND": 69, "FETCH_SESSION_ID_NOT_FOUND": 70, "INVALID_FETCH_SESSION_EPOCH": 71, "FENCED_LEADER_EPOCH": 74,
    "UNKNOWN_LEADER_EPOCH": 75, "UNSUPPORTED_COMPRESSION_TYPE": 76, "MEMBER_ID_REQUIRED": 79, "FENCED_INSTANCE_ID": 82,
    "INVALID_RECORD": 87, "UNKNOWN_TOPIC_ID": 100, "FETCH_SESSION_TOPIC_ID_ERROR": 106,
}
_NAMES = {code: name for name, code in CODES.items()}


def name(code):
    return _NAMES.get(code, str(code))


def expect(code, *wanted, what="answer"):
    assert name(code) in wanted, f"{what}: {name(code)}, wanted {' or '.join(wanted)}"


def fresh(what):
    return f"behaviour-{what}-{os.getpid()}-{next(_count)}"


class Client(Connection):
    """One connection with the requests spelled out."""

    def __init__(self, broker, schemas, timeout=20):
        super().__init__(broker.address, schemas, timeout)
        self.broker = broker

    def topic(self, what, partitions=1, **configs):
        topic = fresh(what)
        create_topic(self.broker, self.schemas, topic, partitions, **configs)
        self.settle(topic)
        return topic

    def settle(self, *topics):
        """Kafka 4 answers CreateTopics before its own broker knows the topic; ours may not, so there nothing is waited for."""
        end = time.monotonic() + 10
        while not HOWDAH and time.monotonic() < end:
            known = self.metadata(*topics)["Topics"]
            parts = [(t["Name"], p["PartitionIndex"]) for t in known for p in t["Partitions"] if t["ErrorCode"] == p["ErrorCode"] == 0]
            if parts and all(self.offset(t, -1, p)["ErrorCode"] == 0 for t, p in parts):
                return
            time.sleep(0.05)

    def metadata(self, *topics, version=8, **body):
        wanted = None if topics == (None,) else [{"Name": t} for t in topics]
        return self.ask("Metadata", version, {"Topics": wanted, "AllowAutoTopicCreation": False, **body})

    def topic_id(self, topic):
        return self.metadata(topic, version=12)["Topics"][0]["TopicId"]

    def produce(self, topic, records, partition=0, version=8, acks=-1):
        self.send_produce(topic, records, partition, version, acks)
        return self.produced()

    def send_produce(self, topic, records, partition=0, version=8, acks=-1):
        data = [{"Name": topic, "PartitionData": [{"Index": partition, "Records": records}]}]
        body = {"Acks": acks, "TimeoutMs": 10000, "TopicData": data}
        if acks == 0:
            self.raw(self.frame("Produce", version, body))
        else:
            self.send("Produce", version, body)

    def produced(self):
        return self.receive()["Responses"][0]["PartitionResponses"][0]

    def fetch_all(self, asks, version=11, wait=0, min_bytes=0, max_bytes=1 << 23, **body):
        """`asks` is `(topic, partition, offset)` or with a dict of more fields; the whole answer comes back."""
        topics = {}
        for topic, partition, offset, *more in asks:
            part = {"Partition": partition, "FetchOffset": offset, "PartitionMaxBytes": 1 << 20, **(more[0] if more else {})}
            topics.setdefault(topic, []).append(part)
        key = "Topic" if version < 13 else "TopicId"
        request = {"MaxWaitMs": wait, "MinBytes": min_bytes, "MaxBytes": max_bytes, "SessionEpoch": -1,
                   "Topics": [{key: t, "Partitions": ps} for t, ps in topics.items()], **body}
        if version < 15:
            request["ReplicaId"] = -1
        return self.ask("Fetch", version, request)

    def fetch(self, topic, offset=0, partition=0, more=None, **options):
        answer = self.fetch_all([(topic, partition, offset, more or {})], **options)
        assert answer.get("ErrorCode", 0) == 0 and answer["Responses"], f"Fetch answers {answer}"
        return answer["Responses"][0]["Partitions"][0]

    def records(self, topic, offset=0, partition=0, **options):
        part = self.fetch(topic, offset, partition, **options)
        expect(part["ErrorCode"], "NONE", what="Fetch")
        return [r for b in batches(part["Records"] or b"") for r in b.records]

    def offset(self, topic, timestamp, partition=0, version=7, isolation=0):
        ask = {"Name": topic, "Partitions": [{"PartitionIndex": partition, "Timestamp": timestamp}]}
        answer = self.ask("ListOffsets", version, {"ReplicaId": -1, "IsolationLevel": isolation, "Topics": [ask]})
        return answer["Topics"][0]["Partitions"][0]

    def coordinator(self, group):
        """Waits until the group has its coordinator: a first group makes `__consumer_offsets`."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if self.ask("FindCoordinator", 2, {"Key": group, "KeyType": 0})["ErrorCode"] == 0:
                return
            time.sleep(0.1)
        raise AssertionError("no coordinator in 20 s")

    def join(self, group, version=5, protocols=(("range", SUBSCRIPTION),), retry=True, **body):
        request = {"GroupId": group, "SessionTimeoutMs": 10000, "ProtocolType": "consumer",
                   "Protocols": [{"Name": n, "Metadata": m} for n, m in protocols], **body}
        if version >= 1:
            request.setdefault("RebalanceTimeoutMs", 10000)
        answer = self.ask("JoinGroup", version, request)
        while retry and name(answer["ErrorCode"]) in ("COORDINATOR_LOAD_IN_PROGRESS", "NOT_COORDINATOR"):
            time.sleep(0.2)
            answer = self.ask("JoinGroup", version, request)
        if retry and name(answer["ErrorCode"]) == "MEMBER_ID_REQUIRED":
            return self.join(group, version, protocols, False, **{**body, "MemberId": answer["MemberId"]})
        return answer

    def sync(self, group, generation, member, assignments=(), version=3, **body):
        return self.ask("SyncGroup", version, {"GroupId": group, "GenerationId": generation, "MemberId": member,
                        "Assignments": [{"MemberId": m, "Assignment": a} for m, a in assignments], **body})

    def heartbeat(self, group, generation, member, version=3, **body):
        return self.ask("Heartbeat", version, {"GroupId": group, "GenerationId": generation, "MemberId": member, **body})["ErrorCode"]

    def commit(self, group, topic, offset, generation=-1, member="", partition=0, metadata="", version=7, **body):
        part = {"PartitionIndex": partition, "CommittedOffset": offset, "CommittedMetadata": metadata}
        answer = self.ask("OffsetCommit", version, {"GroupId": group, "GenerationIdOrMemberEpoch": generation, "MemberId": member,
                          "Topics": [{"Name": topic, "Partitions": [part]}], **body})
        return answer["Topics"][0]["Partitions"][0]["ErrorCode"]

    def committed(self, group, topic, partition=0, version=5):
        answer = self.ask("OffsetFetch", version, {"GroupId": group, "Topics": [{"Name": topic, "PartitionIndexes": [partition]}]})
        if answer["ErrorCode"]:
            return answer["ErrorCode"], None
        part = answer["Topics"][0]["Partitions"][0]
        return part["ErrorCode"], part

    def closes(self):
        """True when the broker closes without another byte."""
        try:
            self.read_frame()
        except Closed:
            return True
        except TimeoutError:
            return False
        return False


def behaviour(number, what):
    """Names a test; it gets a fresh connection beside broker and schemas."""

    def decorate(test):
        def run(broker, schemas):
            with Client(broker, schemas) as client:
                test(client)

        return f"behaviour {number}: {what}", run

    return decorate


__all__ = ["CODES", "Client", "Closed", "HOWDAH", "SUBSCRIPTION", "batch", "batches", "behaviour", "expect", "fresh", "name"]

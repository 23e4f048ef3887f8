"""Framing, versions and metadata: behaviours 1 to 9, and 30 to 32, which are about what is not advertised."""

import struct
import time
import uuid

from harness.wire import decode_response

from .base import HOWDAH, Client, batch, batches, behaviour, expect, fresh


@behaviour(1, "answers come in the order of the requests")
def order(c):
    topic = c.topic("order")
    # Slow ones first: a produce that is flushed and a fetch that waits, then what could be answered at once.
    c.send_produce(topic, batch([b"x" * 1000]))
    c.send("Fetch", 11, {"ReplicaId": -1, "MaxWaitMs": 300, "MinBytes": 1 << 20, "MaxBytes": 1 << 20, "SessionEpoch": -1,
                         "Topics": [{"Topic": topic, "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20}]}]})
    for _ in range(20):
        c.send("Metadata", 8, {"Topics": []})
    c.send_produce(topic, batch([b"y"]))
    c.send("ApiVersions", 0, {})
    for _ in range(24):
        c.receive()


@behaviour(2, "an unknown version of ApiVersions is answered in v0 with error 35 and the list")
def api_versions(c):
    # A later version has the flexible header: a tag count stands behind the client id.
    c.raw(struct.pack(">ihhih", 12, 18, 99, 77, 1) + b"e\x00")
    answer = c.read_frame()
    assert answer[:4] == struct.pack(">i", 77)
    body = decode_response(c.schemas, "ApiVersions", 0, answer[4:])
    expect(body["ErrorCode"], "UNSUPPORTED_VERSION")
    own = [k for k in body["ApiKeys"] if k["ApiKey"] == 18]
    assert own and own[0]["MaxVersion"] >= 3, body
    c.ask("ApiVersions", 0)  # the connection goes on


@behaviour(2, "any other unknown version or key closes the connection")
def unknown_versions(c):
    for key, version in ((3, 99), (0, 99), (1, 0x7FFF), (999, 0), (-1, 0)):
        with Client(c.broker, c.schemas, 5) as other:
            other.raw(struct.pack(">ihhih", 11, key, version, 5, 1) + b"e")
            assert other.closes(), f"key {key} version {version} is answered"


@behaviour(2, "every advertised version of every API known to Kafka 3.9 is answered in its own form")
def advertised(c):
    for version in range(5):
        listed = c.ask("ApiVersions", version, {"ClientSoftwareName": "e2e", "ClientSoftwareVersion": "1"})
        assert listed["ErrorCode"] == 0
    ranges = {k["ApiKey"]: (k["MinVersion"], k["MaxVersion"]) for k in listed["ApiKeys"]}
    floors = {0: (0, 9), 1: (4, 12), 2: (1, 7), 3: (0, 12), 8: (2, 8), 9: (1, 8), 10: (0, 4), 11: (0, 9), 12: (0, 4), 13: (0, 5),
              14: (0, 5), 15: (0, 5), 16: (0, 4), 18: (0, 3), 19: (2, 7), 20: (1, 6), 21: (0, 2), 22: (0, 4), 23: (2, 4), 32: (1, 4),
              35: (1, 4), 37: (0, 3), 42: (0, 2), 44: (0, 1), 47: (0, 0), 60: (0, 1)}
    for key, (low, high) in floors.items():
        assert key in ranges, f"key {key} is not advertised"
        assert ranges[key][0] <= low and ranges[key][1] >= high, f"key {key}: {ranges[key]} does not hold {low} to {high}"
    topic = c.topic("versions")
    bodies = {"Metadata": {"Topics": [{"Name": topic}]}, "FindCoordinator": {}, "ListGroups": {}, "DescribeCluster": {},
              "DescribeLogDirs": {"Topics": None}, "DescribeGroups": {"Groups": ["nobody"]}, "Heartbeat": {"GroupId": "nobody"},
              "SyncGroup": {"GroupId": "nobody"}, "LeaveGroup": {"GroupId": "nobody"}, "OffsetFetch": {"GroupId": "nobody"},
              "OffsetCommit": {"GroupId": "nobody"}, "InitProducerId": {"TransactionalId": None}, "CreateTopics": {},
              "DeleteTopics": {}, "DeleteGroups": {}, "CreatePartitions": {}, "DescribeConfigs": {}, "DeleteRecords": {},
              "IncrementalAlterConfigs": {}, "AlterConfigs": {}, "OffsetForLeaderEpoch": {}, "ListOffsets": {"ReplicaId": -1}}
    for api, body in bodies.items():
        key = c.schemas.keys[api]
        known = c.schemas.versions(api)
        for version in range(max(known[0], ranges[key][0]), min(known[1], ranges[key][1]) + 1):
            if api == "InitProducerId" and version >= 5:
                continue
            try:
                c.ask(api, version, body)
            except Exception as error:
                raise AssertionError(f"{api} v{version}: {type(error).__name__} {error}") from error


@behaviour(3, "an illegal client name is INVALID_REQUEST, and a null client id is none")
def client_names(c):
    answer = c.ask("ApiVersions", 3, {"ClientSoftwareName": "no spaces please", "ClientSoftwareVersion": "1"})
    expect(answer["ErrorCode"], "INVALID_REQUEST")
    c.ask("ApiVersions", 3, {"ClientSoftwareName": "fine", "ClientSoftwareVersion": "1.0"})
    c.ask("Metadata", 12, {"Topics": []}, client=None)
    c.ask("Metadata", 1, {"Topics": []}, client=None)
    c.ask("Metadata", 12, {"Topics": []}, client="an id with spaces and ü")


@behaviour(4, "nobody is throttled")
def throttle(c):
    topic = c.topic("throttle")
    c.send_produce(topic, batch([b"x"]))
    assert c.receive()["ThrottleTimeMs"] == 0
    assert c.fetch_all([(topic, 0, 0)])["ThrottleTimeMs"] == 0
    assert c.metadata(topic)["ThrottleTimeMs"] == 0


@behaviour(5, "null topics mean all, an empty list none; version 0 has only empty, which means all")
def which_topics(c):
    topic = c.topic("which")
    assert topic in [t["Name"] for t in c.metadata(None)["Topics"]]
    assert c.metadata()["Topics"] == []
    assert topic in [t["Name"] for t in c.ask("Metadata", 0, {"Topics": []})["Topics"]]


@behaviour(5, "a topic is made unasked only for those who allow it")
def auto_creation(c):
    topic = fresh("auto")
    expect(c.metadata(topic)["Topics"][0]["ErrorCode"], "UNKNOWN_TOPIC_OR_PARTITION")
    expect(c.metadata(topic)["Topics"][0]["ErrorCode"], "UNKNOWN_TOPIC_OR_PARTITION", what="asked again")
    end = time.monotonic() + 10
    while (code := c.metadata(topic, AllowAutoTopicCreation=True)["Topics"][0]["ErrorCode"]) != 0:
        expect(code, "UNKNOWN_TOPIC_OR_PARTITION", "LEADER_NOT_AVAILABLE")
        assert time.monotonic() < end, "not made in 10 s"
        time.sleep(0.05)
    c.settle(topic)
    expect(c.produce(topic, batch([b"x"]))["ErrorCode"], "NONE")
    # A name that no topic may have is refused as such, not made.
    expect(c.metadata("a b", AllowAutoTopicCreation=True)["Topics"][0]["ErrorCode"], "INVALID_TOPIC_EXCEPTION")


def create(c, topic, partitions=1, replication=1, configs=(), version=7, **body):
    wanted = {"Name": topic, "NumPartitions": partitions, "ReplicationFactor": replication, "Assignments": [],
              "Configs": [{"Name": k, "Value": v} for k, v in configs]}
    return c.ask("CreateTopics", version, {"Topics": [wanted], "timeoutMs": 10000, **body})["Topics"][0]


@behaviour(6, "a topic that CreateTopics named is there for the very next request")
def at_once(c):
    for _ in range(10):
        topic = fresh("at-once")
        expect(create(c, topic)["ErrorCode"], "NONE")
        about = c.metadata(topic)["Topics"][0]
        expect(about["ErrorCode"], "NONE", what="Metadata")
        assert about["Partitions"][0]["LeaderId"] >= 0
        expect(c.produce(topic, batch([b"x"]))["ErrorCode"], "NONE", what="Produce")


@behaviour(6, "defaults, validate_only, and what can't be created")
def creation_rules(c):
    topic = fresh("rules")
    answer = create(c, topic, -1, -1, validateOnly=True)
    expect(answer["ErrorCode"], "NONE", what="validate_only")
    expect(c.metadata(topic)["Topics"][0]["ErrorCode"], "UNKNOWN_TOPIC_OR_PARTITION", what="after validate_only")
    answer = create(c, topic, -1, -1)
    expect(answer["ErrorCode"], "NONE", what="defaults")
    assert answer["NumPartitions"] == 4 and answer["ReplicationFactor"] == 1, answer
    expect(create(c, topic)["ErrorCode"], "TOPIC_ALREADY_EXISTS")
    expect(create(c, "a b")["ErrorCode"], "INVALID_TOPIC_EXCEPTION")
    expect(create(c, "..")["ErrorCode"], "INVALID_TOPIC_EXCEPTION")
    expect(create(c, "x" * 250)["ErrorCode"], "INVALID_TOPIC_EXCEPTION")
    expect(create(c, fresh("config"), configs=[("no.such.config", "1")])["ErrorCode"], "INVALID_CONFIG")
    expect(create(c, fresh("config"), configs=[("retention.ms", "soon")])["ErrorCode"], "INVALID_CONFIG")
    answer = create(c, fresh("replicas"), 1, 3)
    assert answer["ErrorCode"] == 38, f"three replicas on one node: {answer}"
    answer = create(c, fresh("none"), 0)
    assert answer["ErrorCode"] == 37, f"no partitions: {answer}"


@behaviour(6, "the configs that Connect, Streams and MirrorMaker send are accepted")
def usual_configs(c):
    sent = [("cleanup.policy", "compact"), ("cleanup.policy", "delete"), ("cleanup.policy", "compact,delete"),
            ("retention.ms", "-1"), ("retention.bytes", "104857600"), ("segment.bytes", "52428800"), ("segment.ms", "600000"),
            ("min.insync.replicas", "1"), ("max.message.bytes", "2000000"), ("message.timestamp.type", "CreateTime"),
            ("message.timestamp.type", "LogAppendTime"), ("delete.retention.ms", "1000"), ("min.cleanable.dirty.ratio", "0.1"),
            ("min.compaction.lag.ms", "0"), ("max.compaction.lag.ms", "100000"), ("compression.type", "producer"),
            ("segment.index.bytes", "10485760"), ("segment.jitter.ms", "0"), ("index.interval.bytes", "4096"),
            ("preallocate", "false"), ("flush.messages", "1"), ("flush.ms", "1000"), ("file.delete.delay.ms", "1000")]
    for config in sent:
        answer = create(c, fresh("config"), configs=[config])
        expect(answer["ErrorCode"], "NONE", what=f"{config}: {answer['ErrorMessage']}")


@behaviour(6, "more than the disks hold is POLICY_VIOLATION, naming what is needed and left")
def beyond_the_disks(c):
    if not HOWDAH:
        return  # Kafka promises more than it has.
    answer = create(c, fresh("vast"), 4, configs=[("retention.bytes", str(1 << 45))])
    expect(answer["ErrorCode"], "POLICY_VIOLATION")
    assert any(ch.isdigit() for ch in answer["ErrorMessage"] or ""), answer


@behaviour(7, "there is always a broker, the controller is one, and unasked operations are the smallest integer")
def brokers(c):
    for version in range(1, 13):
        answer = c.ask("Metadata", version, {"Topics": []})
        ids = [b["NodeId"] for b in answer["Brokers"]]
        assert ids and answer["ControllerId"] in ids, answer
        assert f"{answer['Brokers'][0]['Host']}:{answer['Brokers'][0]['Port']}" == c.broker.address
    assert c.metadata(version=8)["ClusterAuthorizedOperations"] == -(1 << 31)
    topic = c.topic("operations")
    assert c.metadata(topic, version=8)["Topics"][0]["TopicAuthorizedOperations"] == -(1 << 31)


@behaviour(8, "a leader epoch never goes down, and rises when the broker was killed")
def leader_epochs(c):
    topic = c.topic("epoch")

    def epoch(client):
        return client.metadata(topic)["Topics"][0]["Partitions"][0]["LeaderEpoch"]

    before = epoch(c)
    assert before >= 0
    assert c.produce(topic, batch([b"a"]))["ErrorCode"] == 0
    c.broker.crash()
    with Client(c.broker, c.schemas) as again:
        end = time.monotonic() + 20
        while again.metadata(topic)["Topics"][0]["Partitions"][0]["LeaderId"] < 0 and time.monotonic() < end:
            time.sleep(0.1)
        after = epoch(again)
        assert after > before if HOWDAH else after >= before, f"{before} before, {after} after"
        assert again.produce(topic, batch([b"b"]))["ErrorCode"] == 0
        found = [(b.base_offset, b.leader_epoch) for b in batches(again.fetch(topic)["Records"])]
        assert found == [(0, before), (1, after)], found


@behaviour(9, "a topic id is never zero, names its topic, and a topic made again has another")
def topic_ids(c):
    topic = c.topic("id")
    first = c.topic_id(topic)
    assert first.int != 0, "the id is zero"
    by_id = c.ask("Metadata", 12, {"Topics": [{"TopicId": first, "Name": None}], "AllowAutoTopicCreation": False})["Topics"][0]
    assert by_id["Name"] == topic and by_id["ErrorCode"] == 0, by_id
    c.produce(topic, batch([b"x"]))
    part = c.fetch(first, version=13)
    expect(part["ErrorCode"], "NONE", what="Fetch by id")
    assert part["Records"]
    c.ask("DeleteTopics", 6, {"Topics": [{"Name": topic}], "TimeoutMs": 10000})
    end = time.monotonic() + 10
    while create(c, topic)["ErrorCode"] != 0 and time.monotonic() < end:
        time.sleep(0.1)
    c.settle(topic)
    second = c.topic_id(topic)
    assert second.int not in (0, first.int), f"{first} was the old id, {second} is the new one"
    assert c.fetch(second, version=13)["HighWatermark"] == 0, "the new topic holds the old one's records"
    for gone in (first, uuid.uuid4()):
        answer = c.fetch_all([(gone, 0, 0)], version=13)
        expect(answer["Responses"][0]["Partitions"][0]["ErrorCode"], "UNKNOWN_TOPIC_ID", what="Fetch by an id that is not")


@behaviour(30, "the APIs of transactions are advertised all together or not at all")
def transactions(c):
    keys = {k["ApiKey"] for k in c.ask("ApiVersions", 3, {"ClientSoftwareName": "e2e", "ClientSoftwareVersion": "1"})["ApiKeys"]}
    have = keys & {24, 25, 26, 28}
    assert have in (set(), {24, 25, 26, 28}), have
    if not have:
        for api in ("AddPartitionsToTxn", "AddOffsetsToTxn", "EndTxn", "TxnOffsetCommit"):
            with Client(c.broker, c.schemas, 5) as other:
                other.send(api, 0, {})
                assert other.closes(), f"{api} is answered though not advertised"
        answer = c.ask("InitProducerId", 4, {"TransactionalId": "t", "TransactionTimeoutMs": 60000})
        assert answer["ErrorCode"] != 0, "a transactional id got a producer id"


@behaviour(31, "KIP-848 is advertised whole or not at all, and closed if asked for all the same")
def new_groups(c):
    keys = {k["ApiKey"] for k in c.ask("ApiVersions", 3, {"ClientSoftwareName": "e2e", "ClientSoftwareVersion": "1"})["ApiKeys"]}
    assert keys & {68, 69} in (set(), {68, 69})
    if 68 not in keys:
        with Client(c.broker, c.schemas, 5) as other:
            other.send("ConsumerGroupHeartbeat", 0, {"GroupId": "g"})
            assert other.closes()


@behaviour(32, "SASL on a plain listener is refused, and the connection before it was good")
def sasl(c):
    keys = {k["ApiKey"] for k in c.ask("ApiVersions", 3, {"ClientSoftwareName": "e2e", "ClientSoftwareVersion": "1"})["ApiKeys"]}
    c.send("SaslHandshake", 1, {"Mechanism": "PLAIN"})
    if 17 in keys:
        answer = c.receive()
        assert answer["ErrorCode"] in (33, 34), answer
    else:
        assert c.closes()


TESTS = [order, api_versions, unknown_versions, advertised, client_names, throttle, which_topics, auto_creation, at_once,
         creation_rules, usual_configs, beyond_the_disks, brokers, leader_epochs, topic_ids, transactions, new_groups, sasl]

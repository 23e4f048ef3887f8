"""Apache Kafka's own console tools, of two releases, unmodified. What they print is what an administrator reads."""

import json
import os
import re
import subprocess
import tempfile
import time

from harness.machine import kafka_jars

TOOLS = {
    "topics": "org.apache.kafka.tools.TopicCommand",
    "producer": "org.apache.kafka.tools.ConsoleProducer",
    "consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "configs": "kafka.admin.ConfigCommand",
    "get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "perf": "org.apache.kafka.tools.ProducerPerformance",
    "api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "leader-election": "org.apache.kafka.tools.LeaderElectionCommand",
    "reassign": "org.apache.kafka.tools.reassign.ReassignPartitionsCommand",
}
# Some moved between the releases.
MOVED = {("3.9.1", "producer"): "kafka.tools.ConsoleProducer", ("3.9.1", "api-versions"): "kafka.admin.BrokerApiVersionsCommand"}


class Tools:
    def __init__(self, version, broker):
        self.version, self.broker, self.jars = version, broker, kafka_jars(version)

    def __call__(self, tool, *args, stdin="", code=0, bootstrap=True, seconds=60):
        main = MOVED.get((self.version, tool), TOOLS[tool])
        where = ["--bootstrap-server", self.broker.address] if bootstrap else []
        command = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
                   "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{self.jars}/*", main, *where, *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds)
        text = done.stdout + done.stderr
        assert code is None or done.returncode == code, f"{tool} {' '.join(args)} ended with {done.returncode}: {text[-1500:]}"
        return text


def _has(text, *wanted):
    for w in wanted:
        assert re.search(w, text), f"no {w!r} in: {text[-1500:]}"


def topics(t, topic):
    _has(t("topics", "--create", "--topic", topic, "--partitions", "3", "--config", "retention.ms=86400000"), "Created topic")
    text = t("topics", "--describe", "--topic", topic)
    _has(text, r"PartitionCount: 3", r"retention.ms=86400000", r"Partition: 2\s+Leader: \d+\s+Replicas: \d+\s+Isr: \d+", r"TopicId: [\w-]{22}")
    t("topics", "--alter", "--topic", topic, "--partitions", "5")
    _has(t("topics", "--describe", "--topic", topic), r"PartitionCount: 5")
    _has(t("topics", "--list"), rf"(?m)^{topic}$")
    _has(t("topics", "--create", "--topic", topic, code=1), "already exists")
    t("topics", "--delete", "--topic", topic)
    assert topic not in t("topics", "--list").split()


def configs(t, topic):
    t("topics", "--create", "--topic", topic, "--partitions", "1")
    t("configs", "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", "max.message.bytes=2000000,cleanup.policy=[compact,delete]")
    text = t("configs", "--describe", "--entity-type", "topics", "--entity-name", topic)
    _has(text, r"max.message.bytes=2000000", r"cleanup.policy=compact,delete")
    t("configs", "--alter", "--entity-type", "topics", "--entity-name", topic, "--delete-config", "max.message.bytes")
    assert "max.message.bytes=2000000" not in t("configs", "--describe", "--entity-type", "topics", "--entity-name", topic)
    _has(t("configs", "--describe", "--entity-type", "topics", "--entity-name", topic, "--all"), r"retention.ms=")
    _has(t("configs", "--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", "no.such=1", code=1), "(?i)unknown|invalid")


def produce_and_consume(t, topic):
    t("topics", "--create", "--topic", topic, "--partitions", "1")
    lines = "".join(f"h1:v{i}\tk{i}\tvalue {i}\n" for i in range(50))
    properties = ["--property", "parse.key=true", "--property", "parse.headers=true"]
    t("producer", "--topic", topic, *properties, "--compression-codec", "zstd", stdin=lines)
    shown = ["--property", "print.key=true", "--property", "print.headers=true", "--property", "print.offset=true"]
    text = t("consumer", "--topic", topic, "--from-beginning", "--max-messages", "50", *shown)
    for i in (0, 49):
        _has(text, rf"Offset:{i}\th1:v{i}\tk{i}\tvalue {i}")


def groups(t, topic):
    t("topics", "--create", "--topic", topic, "--partitions", "2")
    t("producer", "--topic", topic, stdin="".join(f"{i}\n" for i in range(20)))
    group = topic + "-group"
    text = t("consumer", "--topic", topic, "--group", group, "--from-beginning", "--max-messages", "20")
    _has(text, "Processed a total of 20 messages")
    _has(t("groups", "--list", "--state"), rf"{group}\s+(\w+\s+)?Empty")
    text = t("groups", "--describe", "--group", group)
    rows = re.findall(rf"{group}\s+{topic}\s+(\d)\s+(\S+)\s+(\S+)\s+(\S+)", text)
    assert sum(int(r[1]) for r in rows if r[1] != "-") == 20 and all(r[3] in ("0", "-") for r in rows), text
    t("groups", "--group", group, "--topic", topic, "--reset-offsets", "--to-earliest", "--execute")
    text = t("consumer", "--topic", topic, "--group", group, "--max-messages", "20", "--timeout-ms", "20000")
    _has(text, "Processed a total of 20 messages")
    _has(t("groups", "--delete-offsets", "--group", group, "--topic", topic), "(?i)successful|^$|PARTITION")
    _has(t("groups", "--delete", "--group", group), "(?i)successful")
    assert group not in t("groups", "--list").split()


def offsets_and_records(t, topic):
    t("topics", "--create", "--topic", topic, "--partitions", "1")
    t("producer", "--topic", topic, stdin="".join(f"{i}\n" for i in range(10)))
    _has(t("get-offsets", "--topic", topic), rf"{topic}:0:10")
    _has(t("get-offsets", "--topic", topic, "--time", "max-timestamp"), rf"{topic}:0:\d")
    wanted = {"partitions": [{"topic": topic, "partition": 0, "offset": 4}], "version": 1}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(json.dumps(wanted))
        file.flush()
        _has(t("delete-records", "--offset-json-file", file.name), r"low_watermark: 4")
    _has(t("get-offsets", "--topic", topic, "--time", "earliest"), rf"{topic}:0:4")
    _has(t("log-dirs", "--describe", "--topic-list", topic), rf'"partition":"{topic}-0","size":\d+')


def operations(t, topic):
    t("topics", "--create", "--topic", topic, "--partitions", "1")
    _has(t("api-versions"), r"Produce\(0\): 0 to", r"Fetch\(1\): \d+ to \d+ \[usable")
    text = t("leader-election", "--election-type", "preferred", "--topic", topic, "--partition", "0", code=None)
    _has(text, "(?i)valid replica already elected|success|completed")
    _has(t("reassign", "--list"), "No partition reassignments found")


def perf(t, topic):
    t("topics", "--create", "--topic", topic, "--partitions", "4")
    text = t("perf", "--topic", topic, "--num-records", "20000", "--record-size", "500", "--throughput", "-1",
             "--producer-props", f"bootstrap.servers={t.broker.address}", "compression.type=lz4", bootstrap=False)
    _has(text, r"20000 records sent")


CASES = (topics, configs, produce_and_consume, groups, offsets_and_records, operations, perf)


def _test(case, version):
    def test(broker, _schemas):
        case(Tools(version, broker), f"console-{version}-{case.__name__}-{os.getpid()}-{int(time.time())}".replace(".", "-"))

    return test


TESTS = [(f"console tools {v}: {c.__name__.replace('_', ' ')}", _test(c, v)) for v in ("4.3.1", "3.9.1") for c in CASES]

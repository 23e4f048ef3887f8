"""Kafka's own applications, unmodified: the WordCount demo of Streams, and Connect with its file source and sink.

Each goes through a kill -9 of the application, whose state must come back from the broker, and one of the broker.
"""

import collections
import json
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from harness.broker import free_port
from harness.client import create_topic, read_partition
from harness.machine import kafka_apps
from harness.records import batch, batches
from harness.wire import Connection

# Long enough for a commit interval of 100 ms, or a flush interval of 500 ms, on a busy machine: what is killed is then at rest.
QUIET_SECONDS = 3


class App:
    """A Java program over the applications' jars, with a properties file and a directory of its own."""

    def __init__(self, main, properties):
        self.dir = Path(tempfile.mkdtemp(prefix="howdah-e2e-app-"))
        self.main = main
        file = self.dir / "properties"
        file.write_text("".join(f"{k}={v}\n" for k, v in properties(self.dir).items()))
        self.process = None
        self.start()

    def start(self):
        command = ["java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                   "-cp", f"{kafka_apps()}/*", self.main, str(self.dir / "properties")]
        with (self.dir / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.kill()
        self.process.wait()
        if kind:
            print(f"    {self.main}, the end of its log:\n{(self.dir / 'log').read_text(errors='replace')[-2500:]}")
        shutil.rmtree(self.dir, ignore_errors=True)

    def until(self, condition, seconds, what):
        end = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None, f"{self.main} ended with {self.process.returncode}"
            try:
                last = condition()
            except OSError as error:
                last = error
            if last is True:
                return
            assert time.monotonic() < end, f"{what} not in {seconds} s: {str(last)[:500]}"
            time.sleep(0.3)


def word_count(broker, schemas):
    source, target = "streams-plaintext-input", "streams-wordcount-output"
    create_topic(broker, schemas, source, 2)
    create_topic(broker, schemas, target, 2)
    words = ["howdah", "elephant", "disk", "kafka", "seat"]
    wanted = collections.Counter()
    sent = 0

    def send(lines):
        nonlocal sent
        for partition in (0, 1):
            mine = [f"{words[(sent + i) % 5]} {words[(sent + 2 * i) % 5]}" for i in range(lines)]
            sent += lines
            with Connection(broker.address, schemas) as c:
                data = [{"Index": partition, "Records": batch([m.encode() for m in mine], int(time.time() * 1000))}]
                answer = c.ask("Produce", 8, {"Acks": -1, "TimeoutMs": 9000, "TopicData": [{"Name": source, "PartitionData": data}]})
                assert answer["Responses"][0]["PartitionResponses"][0]["ErrorCode"] == 0, answer
            wanted.update(w for m in mine for w in m.split())

    def counted():
        out = {}
        for partition in (0, 1):
            out.update(_last_values(broker, schemas, target, partition))
        return True if out == dict(wanted) else f"{out}, wanted {dict(wanted)}"

    def properties(directory):
        return {"bootstrap.servers": broker.address, "application.id": "streams-wordcount", "state.dir": directory / "state",
                "commit.interval.ms": 100, "statestore.cache.max.bytes": 0, "replication.factor": 1, "auto.offset.reset": "earliest",
                "session.timeout.ms": 6000, "heartbeat.interval.ms": 500}

    with App("org.apache.kafka.streams.examples.wordcount.WordCountDemo", properties) as app:
        send(50)
        app.until(counted, 60, "first counts")
        time.sleep(QUIET_SECONDS)
        app.kill()
        # Without its own copy the state can only come back from the changelog topic.
        shutil.rmtree(app.dir / "state")
        send(50)
        app.start()
        app.until(counted, 60, "counts after the application was killed")
        send(50)
        broker.crash()
        send(50)
        app.until(counted, 90, "counts after the broker was killed")


def _last_values(broker, schemas, topic, partition):
    out, at = {}, 0
    with Connection(broker.address, schemas) as c:
        while True:
            ask = {"Partition": partition, "FetchOffset": at, "PartitionMaxBytes": 1 << 22}
            answer = c.ask("Fetch", 11, {"ReplicaId": -1, "MaxWaitMs": 0, "MinBytes": 0, "MaxBytes": 1 << 23, "SessionEpoch": -1,
                                         "Topics": [{"Topic": topic, "Partitions": [ask]}]})
            part = answer["Responses"][0]["Partitions"][0]
            found = batches(part["Records"] or b"")
            if part["ErrorCode"] or not found:
                return out
            for r in (r for b in found for r in b.records):
                out[r.key.decode()] = struct.unpack(">q", r.value)[0]
            at = found[-1].records[-1].offset + 1


def connect(broker, schemas):
    port = free_port()
    topic = "connect-lines"
    create_topic(broker, schemas, topic, 1)

    def properties(directory):
        text = "org.apache.kafka.connect.storage.StringConverter"
        return {"bootstrap.servers": broker.address, "group.id": "connect-cluster", "key.converter": text, "value.converter": text,
                "offset.storage.topic": "connect-offsets", "config.storage.topic": "connect-configs", "status.storage.topic": "connect-status",
                "offset.storage.replication.factor": 1, "config.storage.replication.factor": 1, "status.storage.replication.factor": 1,
                "offset.storage.partitions": 2, "status.storage.partitions": 2, "offset.flush.interval.ms": 500,
                "listeners": f"http://127.0.0.1:{port}", "session.timeout.ms": 6000, "heartbeat.interval.ms": 500,
                "scheduled.rebalance.max.delay.ms": 1000, "consumer.auto.offset.reset": "earliest"}

    def call(path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def running(name):
        def condition():
            about = call(f"/connectors/{name}/status")
            return True if [t["state"] for t in about["tasks"]] == ["RUNNING"] else about

        return condition

    with App("org.apache.kafka.connect.cli.ConnectDistributed", properties) as app:
        source, sink = app.dir / "source.txt", app.dir / "sink.txt"
        lines = []

        def write(count):
            new = [f"line {len(lines) + i}" for i in range(count)]
            lines.extend(new)
            with source.open("a") as file:
                file.write("".join(f"{line}\n" for line in new))

        def arrived():
            got = sink.read_text().splitlines() if sink.exists() else []
            return True if got == lines else f"{len(got)} of {len(lines)} lines, the last {got[-3:]}"

        write(100)
        app.until(lambda: call("/")["version"] != "", 90, "the worker")

        def made(name, config):
            def condition():
                call("/connectors", {"name": name, "config": config})
                return True

            app.until(condition, 60, f"connector {name}")
            app.until(running(name), 60, f"connector {name} running")

        made("source", {"connector.class": "FileStreamSource", "tasks.max": "1", "file": str(source), "topic": topic})
        made("sink", {"connector.class": "FileStreamSink", "tasks.max": "1", "file": str(sink), "topics": topic})
        app.until(arrived, 60, "the first lines")
        time.sleep(QUIET_SECONDS)
        app.kill()
        write(100)
        app.start()
        app.until(running("source"), 90, "the source after its worker was killed")
        app.until(arrived, 60, "lines after the worker was killed")
        time.sleep(QUIET_SECONDS)
        broker.crash()
        write(100)
        app.until(arrived, 90, "lines after the broker was killed")
    values = [v.decode() for _, v in sorted(read_partition(broker, schemas, topic, 0).items())]
    assert values == lines, f"{len(values)} lines in the topic, {len(lines)} written"


TESTS = [
    ("streams: WordCountDemo through kill -9 of itself and of the broker", word_count),
    ("connect: file source and sink through kill -9 of the worker and of the broker", connect),
]

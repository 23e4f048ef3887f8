"""Any client under test is one program with three commands, so that every client meets the same questions:

  suite BROKER PREFIX            prints `ok CASE`, `FAILED CASE: why` or `SKIPPED CASE: why`, one line a case
  member BROKER TOPIC GROUP      joins, prints `assigned P P…` and `record P OFFSET VALUE`, commits, leaves on SIGTERM
  idempotent BROKER TOPIC COUNT  sends the values 0… to partition value mod 4, prints `acked P OFFSET VALUE` for each
"""

import collections
import queue
import re
import signal
import subprocess
import threading
import time

from .machine import ENVIRONMENT
from .records import batches
from .wire import Connection


class Program:
    """A running client, whose lines are read as they come."""

    def __init__(self, command):
        self.command = command
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, env=ENVIRONMENT, errors="replace")
        self.lines = queue.Queue()
        self.errors = collections.deque(maxlen=60)
        self.history = []
        threading.Thread(target=self._pump, daemon=True).start()
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def _pump(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def line(self, seconds):
        """The next line, or None at the end of the output; raises when the time is up."""
        try:
            line = self.lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            raise AssertionError(f"no line in time; so far {self.history[-5:]}, on stderr {''.join(self.errors)[-800:]}") from None
        if line is not None:
            self.history.append(line)
        return line

    def until(self, wanted, seconds):
        """Reads on until `wanted(line)`; everything before it is passed over."""
        end = time.monotonic() + seconds
        while True:
            line = self.line(end - time.monotonic())
            if line is None:
                raise AssertionError(f"ended early; so far {self.history[-5:]}, on stderr {''.join(self.errors)[-800:]}")
            if wanted(line):
                return line

    def rest(self, seconds):
        end = time.monotonic() + seconds
        while self.line(end - time.monotonic()) is not None:
            pass
        self.process.wait(10)
        return self.history

    def signal(self, number):
        self.process.send_signal(number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def create_topic(broker, schemas, name, partitions=4, **configs):
    pairs = [{"Name": k.replace("_", "."), "Value": v} for k, v in configs.items()]
    topic = {"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1, "Assignments": [], "Configs": pairs}
    with Connection(broker.address, schemas) as c:
        answer = c.ask("CreateTopics", 5, {"Topics": [topic], "timeoutMs": 20000})
    code = answer["Topics"][0]["ErrorCode"]
    assert code == 0, f"CreateTopics answers {code} {answer['Topics'][0].get('ErrorMessage')}"


def read_partition(broker, schemas, topic, partition, isolation=0):
    """Every record below the high watermark, by a reader of our own: `{offset: value}`, each CRC checked."""
    out, at = {}, 0
    with Connection(broker.address, schemas) as c:
        while True:
            ask = {"Partition": partition, "FetchOffset": at, "PartitionMaxBytes": 1 << 22}
            answer = c.ask("Fetch", 11, {"ReplicaId": -1, "MaxWaitMs": 200, "MinBytes": 1, "MaxBytes": 1 << 23,
                                         "IsolationLevel": isolation, "SessionEpoch": -1,
                                         "Topics": [{"Topic": topic, "Partitions": [ask]}]})
            part = answer["Responses"][0]["Partitions"][0]
            if part["ErrorCode"] == 1 and at == 0:  # the log starts above 0
                at = part["LogStartOffset"]
                continue
            assert part["ErrorCode"] == 0, f"Fetch at {at} answers {part['ErrorCode']}"
            new = batches(part["Records"] or b"")
            for b in new:
                for r in b.records:
                    assert r.offset not in out, f"offset {r.offset} comes twice"
                    if r.offset >= at:
                        out[r.offset] = r.value
            if not new and at >= part["HighWatermark"]:
                return out
            if new:
                at = new[-1].records[-1].offset + 1


def run_suite(program, broker, prefix, seconds):
    """Yields (case, outcome, why) for each line of a suite; an early end is a failure."""
    with Program([*program, "suite", broker.address, prefix]) as p:
        end = time.monotonic() + seconds
        try:
            while (line := p.line(end - time.monotonic())) is not None:
                found = re.match(r"(ok|FAILED|SKIPPED) ([\w-]+)(?:: (.*))?$", line)
                if found:
                    why = found[3] or ""
                    if found[1] == "FAILED":
                        time.sleep(0.2)  # what it says on stderr comes by another pipe
                        why += f"; on stderr: {''.join(p.errors)[-900:]}"
                        p.errors.clear()
                    yield found[2], found[1], why
        except AssertionError as error:
            yield "suite", "FAILED", str(error)
            return
        if p.process.wait(10) != 0:
            yield "suite", "FAILED", f"exit code {p.process.returncode}: {''.join(p.errors)[-800:]}"


def _partitions(line):
    return sorted(int(p) for p in line.split()[1:])


def rebalance(program, broker, schemas, name, repeats=False):
    """A member joins, another joins, one leaves, one dies; nobody's partition is forgotten and commits are resumed.

    `repeats` is for clients that still hand out what they had asked for under the assignment before."""
    create_topic(broker, schemas, name)
    group = name + "-group"

    def member():
        return Program([*program, "member", broker.address, name, group])

    def assigned(count):
        return lambda line: line.startswith("assigned") and len(_partitions(line)) == count

    with member() as first:
        first.until(assigned(4), 30)
        with member() as second:
            # Cooperative or eager, two members end with two partitions each.
            two = _settled(first, second)
            assert sorted(two[0] + two[1]) == [0, 1, 2, 3], f"two members hold {two}"
            send(broker, schemas, name, range(40))
            seen = _records(first, second, count=40, seconds=20)
            values = [v for _, _, v in seen]
            assert sorted(set(values) if repeats else values) == sorted(map(str, range(40))), f"{len(seen)} records: {seen}"
            time.sleep(1)  # a commit interval
            second.signal(signal.SIGTERM)
            first.until(assigned(4), 30)
        with member() as third:
            _settled(first, third)
            third.signal(signal.SIGKILL)
            begin = time.monotonic()
            first.until(assigned(4), 40)
            assert time.monotonic() - begin > 2, "a killed member was given up before its session timed out"
        first.signal(signal.SIGTERM)
        first.rest(30)
    send(broker, schemas, name, range(40, 60))
    with member() as later:
        seen = _records(later, count=20, seconds=30)
        assert sorted(int(v) for _, _, v in seen) == list(range(40, 60)), f"resumed at the wrong place: {seen}, {later.history}, {list(later.errors)[-5:]}"
        later.signal(signal.SIGTERM)
        later.rest(30)


def _settled(*members, seconds=40):
    """Reads until the members' last assignments cover the four partitions once, two each."""
    last = [[] for _ in members]
    for i, m in enumerate(members):
        lines = [line for line in m.history if line.startswith("assigned")]
        last[i] = _partitions(lines[-1]) if lines else []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if all(len(a) == 2 for a in last) and sorted(sum(last, [])) == [0, 1, 2, 3]:
            return last
        for i, m in enumerate(members):
            try:
                line = m.lines.get(timeout=0.05)
            except queue.Empty:
                continue
            assert line is not None, f"a member ended: {''.join(m.errors)[-800:]}"
            m.history.append(line)
            if line.startswith("assigned"):
                last[i] = _partitions(line)
    raise AssertionError(f"assignments did not settle: {last}; {[list(m.errors)[-3:] for m in members]}")


def _records(*members, count, seconds):
    seen, end = [], time.monotonic() + seconds
    while len(set(seen)) < count and time.monotonic() < end:
        for m in members:
            try:
                line = m.lines.get(timeout=0.05)
            except queue.Empty:
                continue
            assert line is not None, f"a member ended: {''.join(m.errors)[-800:]}"
            m.history.append(line)
            if line.startswith("record"):
                _, p, o, v = line.split(" ", 3)
                seen.append((int(p), int(o), v))
    return seen


def send(broker, schemas, topic, values):
    """Plain values to partition value mod 4, acknowledged, by a producer of our own."""
    from .records import batch

    by_partition = collections.defaultdict(list)
    for v in values:
        by_partition[v % 4].append(str(v).encode())
    data = [{"Index": p, "Records": batch(vs)} for p, vs in sorted(by_partition.items())]
    with Connection(broker.address, schemas) as c:
        answer = c.ask("Produce", 8, {"Acks": -1, "TimeoutMs": 10000, "TopicData": [{"Name": topic, "PartitionData": data}]})
    for part in answer["Responses"][0]["PartitionResponses"]:
        assert part["ErrorCode"] == 0, f"Produce answers {part}"


def idempotent_kill(program, broker, schemas, name, count=3000, kills=2):
    """Kills the broker while an idempotent producer sends; another reader finds every acknowledged record once, in place."""
    create_topic(broker, schemas, name)
    with Program([*program, "idempotent", broker.address, name, str(count)]) as p:
        acked = 0
        end = time.monotonic() + 150
        at = [count * (i + 1) // (kills + 2) for i in range(kills)]
        while (line := p.line(end - time.monotonic())) is not None:
            acked += line.startswith("acked")
            if at and acked >= at[0]:
                at.pop(0)
                broker.crash()
        code = p.process.wait(20)
        assert code == 0, f"exit code {code}: {''.join(p.errors)[-800:]}"
        lines = [line.split() for line in p.history]
    assert not at, f"it ended before every kill: {p.history[-3:]}"
    lost = [" ".join(words) for words in lines if words[0] == "lost"]
    assert not lost, f"given up by the producer: {lost[:3]}"
    told = [(int(w[1]), int(w[2]), w[3]) for w in lines if w[0] == "acked"]
    assert len(told) == count, f"{len(told)} of {count} acknowledged"
    for partition in range(4):
        log = read_partition(broker, schemas, name, partition)
        values = [int(v) for _, v in sorted(log.items())]
        assert values == list(range(partition, count, 4)), _difference(values, partition, count)
        for p, offset, value in told:
            # Some clients can't say the offset of a batch that was a duplicate.
            if p == partition and offset >= 0:
                assert log[offset] == value.encode(), f"partition {p} offset {offset} holds {log[offset]}, not {value}"


def _difference(values, partition, count):
    wanted = list(range(partition, count, 4))
    repeated = [v for v, n in collections.Counter(values).items() if n > 1]
    missing = sorted(set(wanted) - set(values))
    return f"partition {partition}: missing {missing[:10]}, twice {repeated[:10]}, in order {values == sorted(values)}"

"""The brokers that are measured, each a process with a data directory of its own: Apache Kafka, Howdah, and the bare
`sendfile` server that only consumers can ask."""

import shutil
import socket
import struct
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

from . import tools

KAFKA = "4.3.1"
# What Kafka's own start script gives the JVM when nothing is set.
JVM = ["-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
       "-XX:+ExplicitGCInvokesConcurrent", "-XX:MaxInlineLevel=15", "-Djava.awt.headless=true"]
START_SECONDS = 120
PRODUCE_TOPIC = "first"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Broker:
    """Use as a context; the data directory goes with it unless it was given."""

    name = None

    def __init__(self, data=None):
        self.own = data is None
        self.dir = Path(data or tempfile.mkdtemp(prefix="howdah-bench-", dir=tools.SCRATCH))
        self.port, self.http_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = Path(tempfile.mkstemp(prefix=f"howdah-bench-{self.name}-", suffix=".log")[1])
        self.process = None
        self.prepare()

    def prepare(self):
        """Formats what must be formatted before a start."""

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, *_):
        self.stop()
        if kind and kind is not KeyboardInterrupt:
            print(f"{self.name}'s log, its end:\n{self.log.read_text(errors='replace')[-2000:]}")
        self.log.unlink(missing_ok=True)
        if self.own:
            shutil.rmtree(self.dir, ignore_errors=True)

    @property
    def pid(self):
        return self.process.pid

    def spawn(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self):
        self.spawn()
        end = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended at once with {self.process.returncode}: {self.log.read_text()[-1500:]}")
            if time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"{self.name} does not answer after {START_SECONDS} s")
            time.sleep(0.02)

    def answers(self):
        """True when Metadata names a broker: Kafka opens its port before it serves."""
        try:
            answer = ask(self.port, 3, 1, struct.pack(">i", 0))
            return struct.unpack_from(">i", answer, 4)[0] > 0
        except OSError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()


class Kafka(Broker):
    name = "kafka"

    def prepare(self):
        controller = free_port()
        self.properties = self.dir / "server.properties"
        self.properties.write_text(f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{self.address}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={self.dir}/data
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
""")
        format_ = ["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", str(self.properties)]
        subprocess.run([*self.java(), *format_], check=True, capture_output=True, timeout=120)

    def java(self):
        return ["java", *JVM, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", f"{tools.kafka_jars(KAFKA)}/*"]

    def command(self):
        return [*self.java(), "kafka.Kafka", str(self.properties)]


class Howdah(Broker):
    name = "howdah"
    site = None

    def prepare(self):
        """A directory that does not exist is formatted at the first start; a first life does that, uncounted."""
        if not self.own:
            return
        self.start()
        self.stop()

    def command(self):
        site = ["--site", str(self.site)] if self.site else []
        return [str(tools.howdah()), "run", *site, "--data", str(self.dir / "data"), "--kafka", self.address,
                "--http", f"127.0.0.1:{self.http_port}"]

    def metrics(self):
        """The numbers of /metrics, by name with labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}


class Bare(Broker):
    """`records` of `value_bytes` make a batch like that of the load."""

    name = "bare"

    def __init__(self, *shape):
        self.shape = shape
        super().__init__()

    def command(self):
        return [str(tools.bench()), "server", str(self.dir), *self.shape]

    def start(self):
        self.spawn()
        end = time.monotonic() + START_SECONDS
        while not (said := self.log.read_text()).endswith("\n"):
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the bare server does not serve: {said}")
            time.sleep(0.05)
        self.address = said.split()[-1]


def ask(port, api, version, body, seconds=5):
    """One request without flexible fields on a connection of its own; gives what follows its length."""
    frame = struct.pack(">hhih", api, version, 1, -1) + body
    with socket.create_connection(("127.0.0.1", port), seconds) as s:
        s.settimeout(seconds)
        s.sendall(struct.pack(">i", len(frame)) + frame)
        answer = b""
        while len(answer) < 4 or len(answer) < 4 + struct.unpack_from(">i", answer)[0]:
            more = s.recv(65536)
            if not more:
                raise OSError("closed")
            answer += more
    return answer[4:]

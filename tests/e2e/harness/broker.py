"""The broker under test as a process: started, restarted on the same port, killed with -9, and looked at.

`HOWDAH_E2E_TARGET=kafka` runs every test against a real Apache Kafka instead, which is how the tests themselves are proved.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from .machine import ROOT, kafka_jars

TARGET = os.environ.get("HOWDAH_E2E_TARGET", "howdah")
START_SECONDS = 60


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def binary():
    """The release binary, or what HOWDAH_E2E_BINARY names."""
    named = os.environ.get("HOWDAH_E2E_BINARY")
    return Path(named or Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/howdah")


class Broker:
    """Starts at once; use as a context. Data and log lie in a directory of its own that goes with it."""

    def __init__(self, **config):
        self.dir = Path(tempfile.mkdtemp(prefix="howdah-e2e-"))
        self.port, self.http_port = free_port(), free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = self.dir / "log"
        self.process = None
        self.config = config
        if TARGET == "kafka":
            self._format_kafka()
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.stop()
        keep = os.environ.get("HOWDAH_E2E_KEEP")
        if kind and self.log.exists():
            print(f"    broker log, its end:\n{self.log.read_text(errors='replace')[-3000:]}")
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)

    def _format_kafka(self):
        controller = free_port()
        text = f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{self.address}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={self.dir}/data
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
"""
        self.properties = self.dir / "server.properties"
        self.properties.write_text(text)
        self.classpath = kafka_jars(os.environ.get("HOWDAH_E2E_KAFKA", "4.3.1"))
        subprocess.run(
            [*self._java(), "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", str(self.properties)],
            check=True, capture_output=True, timeout=60,
        )

    def _java(self):
        return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
                "-cp", f"{self.classpath}/*"]

    def start(self):
        if TARGET == "kafka":
            command = [*self._java(), "kafka.Kafka", str(self.properties)]
        else:
            command = [str(binary()), "run", "--data", str(self.dir / "data"), "--kafka", self.address,
                       "--http", f"127.0.0.1:{self.http_port}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the broker ended at once with {self.process.returncode}:\n{self.log.read_text()[-2000:]}")
            if self._answers():
                return
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"the broker does not answer after {START_SECONDS} s:\n{self.log.read_text()[-2000:]}")

    def _answers(self):
        """True when Metadata names a broker: Kafka opens its port before it serves."""
        request = b"\x00\x03\x00\x01\x00\x00\x00\x01\xff\xff\x00\x00\x00\x00"
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as s:
                s.settimeout(2)
                s.sendall(len(request).to_bytes(4, "big") + request)
                answer = s.recv(64)
                return len(answer) > 12 and int.from_bytes(answer[8:12], "big") > 0
        except OSError:
            return False

    def kill(self):
        """kill -9: nothing is flushed, nothing is said."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        """SIGTERM, then whatever it takes. Returns the exit code."""
        if self.process is None or self.process.poll() is not None:
            return self.process and self.process.returncode
        self.process.terminate()
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    def crash(self, pause=0.3):
        """Killed and started again on the same port, as a supervisor would."""
        self.kill()
        time.sleep(pause)
        self.start()

    def alive(self):
        return self.process.poll() is None

    def memory_kib(self):
        """Anonymous memory, which is what the broker allocates; mapped files and page cache are not its own."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])

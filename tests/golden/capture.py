#!/usr/bin/env python3
"""Records what real clients send: each of tests/e2e's clients and tools runs its suite against the broker through a proxy.

Writes one `CLIENT.txt` a client, a line for each API and version it used: `Produce v9 HEX`, the frame without its size.
Of many frames of one API and version it keeps the richest that is still small. Give names to record only those clients.
Needs the release binary (HOWDAH_E2E_BINARY names another); clients are fetched and built as in `scripts/e2e`.
"""

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))

import clients.console  # noqa: E402
import run  # noqa: E402
from harness import machine  # noqa: E402
from harness.broker import Broker  # noqa: E402
from harness.client import run_suite  # noqa: E402

# Every API and version of fourteen clients and tools then stays far below 300 KB in hexadecimal.
RICH_BYTES = 400
FRAME_BYTES_MAX = 2048
NAMES = {
    0: "Produce", 1: "Fetch", 2: "ListOffsets", 3: "Metadata", 8: "OffsetCommit", 9: "OffsetFetch", 10: "FindCoordinator",
    11: "JoinGroup", 12: "Heartbeat", 13: "LeaveGroup", 14: "SyncGroup", 15: "DescribeGroups", 16: "ListGroups",
    18: "ApiVersions", 19: "CreateTopics", 20: "DeleteTopics", 21: "DeleteRecords", 22: "InitProducerId",
    23: "OffsetForLeaderEpoch", 29: "DescribeAcls", 32: "DescribeConfigs", 33: "AlterConfigs", 35: "DescribeLogDirs",
    37: "CreatePartitions", 42: "DeleteGroups", 43: "ElectLeaders", 44: "IncrementalAlterConfigs",
    45: "AlterPartitionReassignments", 46: "ListPartitionReassignments", 47: "OffsetDelete", 60: "DescribeCluster",
    61: "DescribeProducers",
}


class Proxy:
    """Stands before the broker and keeps the clients to itself: in answers the broker's port becomes its own."""

    def __init__(self, broker):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.broker_port = broker.port
        self.told = b"127.0.0.1" + broker.port.to_bytes(4, "big")
        self.tells = b"127.0.0.1" + self.port.to_bytes(4, "big")
        self.frames = {}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            client, _ = self.listener.accept()
            try:
                server = socket.create_connection(("127.0.0.1", self.broker_port))
            except OSError:
                client.close()
                continue
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(client, server, self._request), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, self._answer), daemon=True).start()

    @staticmethod
    def _pump(source, sink, look):
        stream = source.makefile("rb")
        try:
            while len(size := stream.read(4)) == 4:
                frame = stream.read(int.from_bytes(size, "big"))
                sink.sendall(size + look(frame))
        except OSError:
            pass
        for sock in (source, sink):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _answer(self, frame):
        return frame.replace(self.told, self.tells)

    def _request(self, frame):
        key, version = int.from_bytes(frame[:2], "big"), int.from_bytes(frame[2:4], "big")
        if len(frame) <= FRAME_BYTES_MAX:
            kept = self.frames.get((key, version))
            if kept is None or rank(frame) > rank(kept):
                self.frames[key, version] = frame
        return frame


def rank(frame):
    """Up to RICH_BYTES the longer is better, beyond it the shorter."""
    return len(frame) if len(frame) <= RICH_BYTES else -len(frame)


def kcat(proxy, _):
    """kcat has no program of ours around it: a topic made by a produce, read back alone and in a group."""
    command = [machine.need("kcat"), "-b", proxy.address]
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        subprocess.run([*command, "-P", "-t", "kcat", "-p", "0", "-z", codec, "-K:", "-H", "h=1"], input=b"k:v\n" * 50,
                       check=True, timeout=30)
    subprocess.run([*command, "-L"], check=True, timeout=30, capture_output=True)
    subprocess.run([*command, "-Q", "-t", "kcat:0:1"], check=True, timeout=30, capture_output=True)
    for consume in (["-C", "-t", "kcat", "-p", "0", "-o", "beginning", "-e"],
                    ["-G", "kcat-group", "-X", "auto.offset.reset=earliest", "-c", "50", "kcat"]):
        subprocess.run([*command, *consume], check=True, timeout=60, capture_output=True)
    yield "kcat", "ok", ""


def console(version):
    """Kafka's own tools, one process a question: the cases of the end-to-end tests."""

    def suite(proxy, _):
        tools = clients.console.Tools(version, proxy)
        for case in clients.console.CASES:
            case(tools, case.__name__)
            yield case.__name__, "ok", ""

    return suite


def write(name, frames):
    lines = [f"{NAMES.get(key, key)} v{version} {frame.hex()}\n" for (key, version), frame in sorted(frames.items())]
    (HERE / f"{name}.txt").write_text("".join(lines))


def capture(name, suite):
    with Broker() as broker:
        proxy = Proxy(broker)
        for case, outcome, why in suite(proxy, name):
            print(f"{outcome} {name}: {case} {why[:200]}", flush=True)
        write(name, proxy.frames)
        print(f"{name}: {len(proxy.frames)} APIs and versions, {(HERE / f'{name}.txt').stat().st_size} bytes", flush=True)


def main():
    suites = {"kcat": kcat, **{f"console-{version}": console(version) for version in ("4.3.1", "3.9.1")}}
    for name, command, _ in run.CLIENTS:
        suites[name] = lambda proxy, prefix, command=command: run_suite(command(), proxy, prefix, 180)
    status = 0
    for name, suite in suites.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        try:
            capture(name, suite)
        except machine.Lacking as lack:
            print(f"SKIPPED {name}: {lack}", flush=True)
        except Exception as error:
            print(f"FAILED {name}: {type(error).__name__}: {error}", flush=True)
            status = 1
    return status


if __name__ == "__main__":
    # The packages of the virtual environment carry a fast CRC-32C.
    if os.environ.get("HOWDAH_E2E_INSIDE") is None:
        os.environ["HOWDAH_E2E_INSIDE"] = "1"
        inside = machine.python()
        os.execv(inside, [inside, *sys.argv])
    sys.exit(main())

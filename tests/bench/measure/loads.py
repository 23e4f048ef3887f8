"""Runs a load as a process of its own and gives what it cost the broker: counters are read when the load says `start` and
when it says `end`, so that connecting and warming up are not counted."""

import json
import subprocess
import time
from pathlib import Path

from . import tools
from .process import Snapshot

LOAD = Path(__file__).resolve().parent.parent / "load.py"
# What a load may take beyond its own seconds: flushing at the end, a broker that stalls.
SLACK_SECONDS = 300


class Load:
    def __init__(self, *command):
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def until(self, word):
        line = self.process.stdout.readline().strip()
        if line != word:
            self.process.wait()
            raise RuntimeError(f"{' '.join(self.process.args[:4])} … said {line!r} instead of {word!r}")

    def go(self):
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def result(self):
        self.process.stdin.close()
        told = self.process.stdout.read()
        if self.process.wait(SLACK_SECONDS) != 0:
            raise RuntimeError(f"{' '.join(self.process.args[:4])} … ended with {self.process.returncode}")
        return json.loads(told)


def librdkafka(verb, broker, topic, **options):
    return [tools.python(), LOAD, verb, "--address", broker.address, "--topic", topic, *_flags(options)]


def light(verb, broker, topic, **options):
    return [tools.bench(), verb, broker.address, topic, *_flags(options)]


def _flags(options):
    out = []
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        for one in value if isinstance(value, list) else [value]:
            out += [flag] if one is True else [flag, str(one)]
    return out


def prepare(*command):
    """A load that is not counted: it makes a topic, or fills it."""
    subprocess.run([str(c) for c in command], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=900)


def measure(broker, *commands, during=None):
    """Runs the loads side by side; they begin together, and what little their ends differ is in the window of all."""
    loads = [Load(*command) for command in commands]
    if "consume" in commands[0]:
        for load in loads:
            load.until("ready")
        for load in loads:
            load.go()
    for load in loads:
        load.until("start")
    before, begin = Snapshot(broker.pid), time.monotonic()
    seen = during() if during else None
    for load in loads:
        load.until("end")
    cost, window = Snapshot(broker.pid).since(before), time.monotonic() - begin
    results = [load.result() for load in loads]
    total = lambda name: sum(r.get(name, 0) for r in results)
    return _figures(cost, window, total("bytes"), total("records"), results, seen)


def _figures(cost, window, count_bytes, count_records, results, seen):
    gigabytes = count_bytes / 1e9
    figures = {"seconds": window, "mb_s": gigabytes * 1000 / window, "cpu_s": cost["cpu_s"], "cpu_percent": 100 * cost["cpu_s"] / window}
    if gigabytes:
        figures["cpu_s_per_gb"] = cost["cpu_s"] / gigabytes
        for kind in ("voluntary", "involuntary"):
            figures[f"{kind}_per_mb"] = cost[kind] / gigabytes / 1000
    if count_records:
        figures["records_s"] = count_records / window
        figures["cpu_us_per_record"] = cost["cpu_s"] * 1e6 / count_records
    for name in ("p50_ms", "p99_ms", "max_ms", "rounds", "round_bytes"):
        values = [r[name] for r in results if name in r]
        if values:
            figures[name] = sorted(values)[len(values) // 2]
    if seen is not None:
        figures["seen"] = seen
    return figures

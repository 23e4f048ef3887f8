"""Where the programs are: Kafka's jars and librdkafka from the cache that the end-to-end tests share, our own from cargo."""

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from harness.machine import Lacking, kafka_jars, python  # noqa: E402, F401

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
# Data directories go here: the disk that is measured.
SCRATCH = os.environ.get("HOWDAH_BENCH_DIR", tempfile.gettempdir())


@cache
def bench():
    """The loads and yardsticks, built."""
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "bench"], cwd=ROOT, check=True)
    return TARGET / "release/bench"


@cache
def howdah():
    """The broker: what HOWDAH_BENCH_BINARY names, or the release binary, built."""
    if named := os.environ.get("HOWDAH_BENCH_BINARY"):
        return Path(named)
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "howdah"], cwd=ROOT, check=True)
    return TARGET / "release/howdah"


@cache
def powercut():
    """The disk emulator, built."""
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", "powercut"], cwd=ROOT, check=True)
    return TARGET / "release/powercut"

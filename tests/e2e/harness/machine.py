"""What the machine has, and what is fetched and built once into a cache: Kafka's jars, packages of each language, programs.

Everything raises `Lacking` with one sentence when it can't be had; the runner turns that into a loud skip.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("HOWDAH_TESTS_CACHE", Path.home() / ".cache/howdah-tests"))
# As many jobs as the smallest machine has cores.
ENVIRONMENT = {**os.environ, "CARGO_BUILD_JOBS": "2"}


class Lacking(Exception):
    """This machine lacks what a test needs."""


def need(command):
    path = shutil.which(command)
    if not path:
        raise Lacking(f"{command} is not installed")
    return path


def _run(command, cwd, seconds, what, failure=Lacking, **environment):
    """`failure` is what a non-zero exit means: a lack by default, but our own sources that don't compile are no lack."""
    try:
        done = subprocess.run(command, cwd=cwd, env={**ENVIRONMENT, **environment}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Lacking(f"{what} took more than {seconds} s") from None
    if done.returncode != 0:
        raise failure(f"{what} failed: {(done.stdout + done.stderr).strip()[-600:]}")


@contextmanager
def _once(name, *inputs):
    """Yields a fresh directory to fill, or None if an equal one is there; it gets its name only when it is whole."""
    digest = hashlib.sha256()
    for path in inputs:
        digest.update(Path(path).read_bytes() if isinstance(path, Path) else str(path).encode())
    final = CACHE / (f"{name}-{digest.hexdigest()[:12]}" if inputs else name)
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if final.exists():
            yield None, final
            return
        fresh = CACHE / f".{name}.{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        try:
            yield fresh, final
            fresh.rename(final)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


_POM = """<project><modelVersion>4.0.0</modelVersion><groupId>e2e</groupId><artifactId>e2e</artifactId><version>1</version>
<dependencies>{}</dependencies></project>"""
_DEPENDENCY = "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


def _maven(name, artifacts):
    if (CACHE / name).exists():
        return CACHE / name
    need("java")
    need("mvn")
    with _once(name) as (fresh, final):
        if fresh:
            (fresh / "pom.xml").write_text(_POM.format("".join(_DEPENDENCY.format(*a) for a in artifacts)))
            _run(["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={fresh}"],
                 fresh, 300, f"fetching {name}")
    return final


_SLF4J = ("org.slf4j", "slf4j-simple", "1.7.36")


def kafka_jars(version):
    """Directory of Apache Kafka's own jars: broker, client and tools."""
    need("java")
    own = [("org.apache.kafka", a, version) for a in ("kafka_2.13", "kafka-tools", "kafka-clients")]
    return _maven(f"kafka-{version}", [*own, _SLF4J])


def kafka_apps(version="4.3.1"):
    """Directory of Kafka's applications: the Streams examples and Connect with its file connectors."""
    need("java")
    own = [("org.apache.kafka", a, version) for a in ("kafka-streams-examples", "connect-runtime", "connect-file", "connect-json")]
    return _maven(f"kafka-apps-{version}", [*own, _SLF4J])


def python():
    """An interpreter that has the packages of `clients/python/requirements.txt`."""
    wanted = HERE / "clients/python/requirements.txt"
    with _once("python", wanted, sys.version) as (fresh, final):
        if fresh:
            _run([sys.executable, "-m", "venv", str(fresh)], HERE, 120, "python3 -m venv")
            _run([str(fresh / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(wanted)],
                 HERE, 300, "pip install")
    return str(final / "bin/python")


def node():
    """Directory of the Node programs beside their packages."""
    need("npm")
    folder = HERE / "clients/node"
    with _once("node", *sorted(p for p in folder.iterdir() if p.is_file())) as (fresh, final):
        if fresh:
            shutil.copytree(folder, fresh, dirs_exist_ok=True, ignore=shutil.ignore_patterns("node_modules"))
            _run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], fresh, 240, "npm install")
    return final


def go(program):
    """A built program of `clients/go/PROGRAM`."""
    need("go")
    folder = HERE / "clients/go" / program
    with _once(f"go-{program}", *sorted(p for p in folder.iterdir() if p.is_file())) as (fresh, final):
        if fresh:
            shutil.copytree(folder, fresh / "src")
            _run(["go", "mod", "download"], fresh / "src", 200, f"fetching the modules of {program}")
            _run(["go", "build", "-o", str(fresh / program), "."], fresh / "src", 400, f"go build of {program}", RuntimeError)
            shutil.rmtree(fresh / "src")
    return str(final / program)


def java(version):
    """Class path of the compiled Java client programs against the jars of one version."""
    jars = kafka_jars(version)
    need("javac")
    folder = HERE / "clients/java"
    with _once(f"java-{version}", *sorted(folder.glob("*.java"))) as (fresh, final):
        if fresh:
            sources = [str(p) for p in sorted(folder.glob("*.java"))]
            _run(["javac", "-nowarn", "-d", str(fresh), "-cp", f"{jars}/*", *sources], folder, 120, "javac", RuntimeError)
    return f"{final}:{jars}/*"


def rust(program):
    """A built program of `clients/rust`, a workspace outside the broker's: the first that is asked for builds them all."""
    need("cargo")
    need("make")  # librdkafka's own build, which the crate carries
    need("c++")
    folder = HERE / "clients/rust"
    members = ("rdkafka", "rskafka")
    sources = [path for member in members for path in (folder / member).rglob("*") if path.suffix in (".rs", ".toml")]
    with _once("rust", folder / "Cargo.toml", folder / "Cargo.lock", *sorted(sources)) as (fresh, final):
        if fresh:
            # Nothing of cargo's is left behind: the target directory is many times as large as the programs.
            target = fresh / "target"
            manifest = ["--quiet", "--locked", "--manifest-path", str(folder / "Cargo.toml")]
            _run(["cargo", "fetch", *manifest], folder, 200, "fetching the crates of the Rust clients")
            _run(["cargo", "build", *manifest, "--target-dir", str(target)], folder, 600, "cargo build of the Rust clients",
                 RuntimeError, CFLAGS=_SOON, CXXFLAGS=_SOON)
            for member in members:
                shutil.copy(target / "debug" / member, fresh / member)
            shutil.rmtree(target)
    return str(final / program)


# librdkafka asks for -O2 and debug information, which doubles what the whole build takes: 254 s of one processor, not 126.
_SOON = "-O0 -g0 -w"


def schemas():
    """Kafka's message schemas, from its client jar."""
    from .wire import Schemas

    global _schemas
    if _schemas is None:
        _schemas = Schemas(kafka_jars("3.9.1") / "kafka-clients-3.9.1.jar")
    return _schemas


_schemas = None

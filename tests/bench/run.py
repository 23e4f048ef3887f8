"""The driver of `scripts/bench`: reads the command line and hands over to one of the comparisons."""

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from measure import disk, hdd, kafka, tools, zerocopy  # noqa: E402

HERE = Path(__file__).resolve().parent


def words(text):
    return [word for word in text.split(",") if word]


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("kafka", help="Apache Kafka and Howdah in turn under the same load: CPU, latency, memory")
    verb.add_argument("--seconds", type=float, default=10, help="the counted part of each row")
    verb.add_argument("--turns", type=int, default=2, help="how often the brokers take turns; the table shows medians")
    verb.add_argument("--rows", type=words, help="only these, by name: " + ", ".join(r.name for r in kafka.ROWS))
    verb.add_argument("--brokers", type=words, default=["kafka", "howdah", "bare"], help="kafka,howdah,bare unless told")
    verb.add_argument("--site", default=HERE / "site.toml", help="Howdah's site under load")
    verb.set_defaults(run=kafka.run)
    verb = verbs.add_parser("disk", help="random against sequential durable writes, and our layout between them")
    verb.add_argument("path", help="a directory on the disk to measure")
    verb.add_argument("--seconds", type=float, default=10, help="of each of the 16 figures")
    verb.add_argument("--mib", type=int, default=1024, help="MiB of each area on the disk; two are made")
    verb.add_argument("--name", help="model and firmware of the disk, where the kernel does not tell")
    verb.set_defaults(run=disk.run)
    verb = verbs.add_parser("zero-copy", help="CPU of sending a file: read+write, mmap, sendfile, and our Fetch path")
    verb.add_argument("--gigabytes", type=float, default=1, help="sent for each figure")
    verb.add_argument("--turns", type=int, default=3, help="figures of each kind; the least counts")
    verb.set_defaults(run=zerocopy.run)
    verb = verbs.add_parser("hdd", help="durable commits on an emulated 7200 rpm disk (needs root and FUSE)")
    verb.add_argument("--seconds", type=float, default=170, help="of each row; at least 10 checkpoints are wanted")
    verb.add_argument("--rows", type=words, help="only these, by name: " + ", ".join(hdd.ROWS))
    verb.add_argument("--brokers", type=words, default=["howdah", "kafka"])
    verb.set_defaults(run=hdd.run)
    for verb in verbs.choices.values():
        verb.add_argument("--json", help="where to write every figure")
        verb.add_argument("--svg", help="where to draw the picture (disk, zero-copy)")
    args = parser.parse_args()
    # Brokers and mounts are undone on the way out, also when a limit of time ends the run.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        args.run(args)
    except tools.Lacking as why:
        print(f"SKIPPED: {why}")


if __name__ == "__main__":
    main()

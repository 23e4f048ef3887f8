"""What the Python programs share: how cases report, and the records every case of codecs sends."""

import os
import sys
import traceback

MIB = os.urandom(1 << 19) + bytes(1 << 19)
BASE = 1_700_000_000_000


def samples():
    """(key, value, headers, timestamp): what brokers tend to break."""
    out = [(b"k%d" % i, b"v%d" % i * 20, [("n", b"%d" % i), ("n", b"again")], BASE + i) for i in range(20)]
    out.append((None, b"no key", [], BASE + 20))
    out.append((b"no value", None, [], BASE + 21))
    out.append((b"", b"", [("empty", b"")], BASE + 22))
    out.append((b"large", MIB, [], BASE + 23))
    return out


def check(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {str(got)[:300]}, wanted {str(wanted)[:300]}")


def suite(cases):
    """Runs every case, prints one line each."""
    for case in cases:
        name = case.__name__.replace("_", "-")
        try:
            case()
            print(f"ok {name}", flush=True)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            print(f"FAILED {name}: {type(error).__name__}: {str(error)[:400]!r}", flush=True)

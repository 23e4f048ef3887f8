"""What the kernel says of a process: CPU time, context switches, memory."""

import os
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """User and system time of all its threads, ended ones included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def switches(pid):
    """(voluntary, involuntary) context switches, summed over the threads that live."""
    given = taken = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    given += int(line.split()[1])
                elif line.startswith("nonvoluntary_ctxt_switches"):
                    taken += int(line.split()[1])
        except FileNotFoundError:
            continue
    return given, taken


def _kib(text, name):
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(name + ":")), 0)


def memory_mib(pid):
    """Anonymous memory (proportional) and page tables; the page cache is not the process's."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    status = Path(f"/proc/{pid}/status").read_text()
    return (_kib(rollup, "Pss_Anon") + _kib(status, "VmPTE")) / 1024


class Snapshot:
    """The counters of a process at one moment; the difference of two is what a load cost."""

    def __init__(self, pid):
        self.cpu, (self.given, self.taken) = cpu_seconds(pid), switches(pid)

    def since(self, before):
        return {"cpu_s": self.cpu - before.cpu, "voluntary": self.given - before.given,
                "involuntary": self.taken - before.taken}

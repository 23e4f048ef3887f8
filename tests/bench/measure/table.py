"""Medians over turns, tables in Markdown, and the JSON beside them."""

import datetime
import json
import os
import platform
import statistics
from pathlib import Path


def medians(turns):
    """The median of each figure over the turns of one row; what is no number is taken from the last."""
    out = dict(turns[-1])
    for name, value in out.items():
        if isinstance(value, (int, float)):
            out[name] = statistics.median(t[name] for t in turns if name in t)
    return out


def markdown(head, rows):
    """A table whose columns line up, so that it can be read as it is printed."""
    cells = [head, *[[cell if isinstance(cell, str) else number(cell) for cell in row] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    line = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
    return "\n".join([line(cells[0]), "|" + "|".join("-" * (w + 2) for w in widths) + "|", *map(line, cells[1:])])


def number(value):
    """Three digits that matter."""
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def machine(path):
    """What a figure needs beside it to mean anything."""
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.machine())
    memory = next(int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "date": datetime.date.today().isoformat(), "cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(memory / 2**20, 1),
        "kernel": platform.release(), "file_system": file_system_of(path), "disk": disk_of(path), "load_before": os.getloadavg()[0],
    }


def file_system_of(path):
    """The type of the mount that holds a path: the longest that is a parent of it."""
    path, found = Path(path).resolve(), (0, "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if path.is_relative_to(mount):
            found = max(found, (len(mount), kind))
    return found[1]


def disk_of(path):
    """Model and firmware of the disk below a path, as far as the kernel tells."""
    device = os.stat(path).st_dev
    block = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not block.exists():
        return "unknown"
    block = block.resolve()
    whole = block.parent if (block / "partition").exists() else block
    words = [whole.name]
    for name in ("model", "firmware_rev", "rev"):
        file = whole / "device" / name
        if file.exists():
            words.append(file.read_text().strip())
    turns = (whole / "queue/rotational").read_text().strip() if (whole / "queue/rotational").exists() else ""
    return " ".join(words) + {"1": " (says it turns)", "0": " (says it does not turn)"}.get(turns, "")


def describe(about):
    return (f"{about['date']}, {about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, Linux {about['kernel']}, "
            f"{about['file_system']} on {about['disk']}; load average before: {about['load_before']:.1f}")


def write_json(path, about, rows):
    Path(path).write_text(json.dumps({"machine": about, "rows": rows}, indent=1) + "\n")

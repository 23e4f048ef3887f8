#!/usr/bin/env python3
"""Boots board and howdah under QEMU with -kernel, without a loader and without an image, and looks at what they do.

    tests/boot/direct.py --kernel VMLINUZ --modules /lib/modules/RELEASE --board BIN --howdah BIN --blob BIN [--fsck e2fsck.static]

board and howdah are static; --blob is `cargo build -p site --example blob`; the modules folder is depmod's. Needs
qemu-system-x86_64, kcat and `unshare --net`: the script goes on in a network namespace of its own, where the node's address
is on the loopback, so that what the broker advertises leads back into the machine. The site goes in by fw_cfg, the disks
are blank sparse files. What is not as it should be ends with a message and status 1.
"""

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

# What this machine has; the real list is the image builder's.
MODULES = """ahci sd_mod virtio_pci virtio_blk virtio_scsi virtio_net virtio_rng ext4 crc32c_generic crc32c_intel
e1000e bonding 8021q i6300esb qemu_fw_cfg button evdev""".split()

NODE = "10.0.2.15"
SITE = """
[site]
name = "direct"
secret = {{ file = "direct.key" }}
[listeners]
kafka = [{{ bind = "node", open = true }}]
http = [{{ bind = "node", open = true }}]
[[node]]
name = "a"
address = "{node}"
identity = {{ smbios = "BOX-A" }}
disk = [{{ serial = "S1", use = "3GiB", journal = "64MiB" }}, {{ serial = "S2", use = "3GiB", journal = "64MiB" }}]
[appliance]
provision = "if-blank"
network = {{ gateway = "10.0.2.2"{network} }}
watchdog = "10s"
"""


def fail(why):
    print(f"FAILED: {why}")
    sys.exit(1)


def newc(entries):
    """A cpio archive in the kernel's format: (name, mode, bytes)."""
    out = bytearray()
    for ino, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        fields = [ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0]
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def closure(folder, wanted):
    """The modules' files with all that they need, and depmod's three tables cut down to them."""
    table = lambda name: open(os.path.join(folder, name)).read().splitlines()
    needs = {}
    for line in table("modules.dep"):
        file, _, rest = line.partition(":")
        needs[file] = rest.split()
    name_of = lambda file: os.path.basename(file).split(".ko")[0].replace("-", "_")
    by_name = {name_of(file): file for file in needs}
    keep = set()
    for name in wanted:
        if file := by_name.get(name.replace("-", "_")):
            keep |= {file, *needs[file]}
    names = {name_of(file) for file in keep}
    texts = {
        "modules.dep": [line for line in table("modules.dep") if line.partition(":")[0] in keep],
        "modules.alias": [line for line in table("modules.alias") if line.split()[-1].replace("-", "_") in names],
        "modules.softdep": [line for line in table("modules.softdep") if line.split()[1:2] and line.split()[1].replace("-", "_") in names],
    }
    return sorted(keep), {name: "\n".join(lines) + "\n" for name, lines in texts.items()}


def initrd(options):
    release = os.path.basename(options.modules.rstrip("/"))
    files, tables = closure(options.modules, MODULES)
    read = lambda path: open(path, "rb").read()
    folders = ["dev", "sbin", "lib", "lib/modules", f"lib/modules/{release}"]
    contents = [("init", 0o755, read(options.board)), ("howdah", 0o755, read(options.howdah))]
    if options.fsck:
        contents.append(("sbin/e2fsck", 0o755, read(options.fsck)))
    for file in files:
        parts = os.path.dirname(file).split("/")
        folders += ["/".join(["lib/modules", release, *parts[: at + 1]]) for at in range(len(parts))]
        contents.append((f"lib/modules/{release}/{file}", 0o644, read(os.path.join(options.modules, file))))
    for name, text in tables.items():
        contents.append((f"lib/modules/{release}/{name}", 0o644, text.encode()))
    folders = list(dict.fromkeys(folders))
    return newc([(name, 0o040755, b"") for name in folders] + [(name, 0o100000 | mode, data) for name, mode, data in contents])


class Machine:
    """One boot. What the serial port says is kept, and shown if --verbose."""

    def __init__(self, options, work, site, disks=("S1", "S2"), extra=()):
        self.verbose, self.text, self.arrived = options.verbose, "", threading.Condition()
        blob = os.path.join(work, "site.blob")
        toml = os.path.join(work, "site.toml")
        open(toml, "w").write(site)
        subprocess.run([options.blob, toml, blob], check=True)
        command = ["qemu-system-x86_64", "-accel", options.accel, "-machine", "q35", "-smp", "2", "-m", "1024",
                   "-kernel", options.kernel, "-initrd", os.path.join(work, "initrd"),
                   "-append", "console=ttyS0 panic=5 loglevel=6 no_timer_check", "-display", "none", "-serial", "stdio", "-no-reboot",
                   "-smbios", "type=1,serial=BOX-A", "-fw_cfg", f"name=opt/howdah/site,file={blob}",
                   "-monitor", f"unix:{work}/monitor,server,nowait", "-device", "i6300esb", "-action", "watchdog=reset",
                   "-netdev", f"user,id=n,hostfwd=tcp:{NODE}:9092-{NODE}:9092,hostfwd=tcp:{NODE}:9644-{NODE}:9644",
                   "-device", "virtio-net-pci,netdev=n", *extra]
        # no_timer_check: on a loaded host the emulated timer may be late for the kernel's own test, which panics.
        # One behind AHCI, as a hard disk is, and one behind virtio.
        for serial in disks:
            image = os.path.join(work, serial)
            if not os.path.exists(image):
                with open(image, "wb") as file:
                    file.truncate(4 << 30)
            device = f"ide-hd,bus=ide.0,drive={serial},serial={serial}" if serial == "S1" else f"virtio-blk-pci,drive={serial},serial={serial}"
            command += ["-drive", f"file={image},format=raw,if=none,id={serial},cache=writeback", "-device", device]
        self.monitor = os.path.join(work, "monitor")
        self.began = time.monotonic()
        # setpriv's death signal: no machine outlives this script, however that ends.
        command = ["setpriv", "--pdeathsig", "KILL", *command]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while part := self.process.stdout.read1(4096):
            text = part.decode(errors="replace").replace("\r", "")
            if self.verbose:
                sys.stdout.write(text)
                sys.stdout.flush()
            with self.arrived:
                self.text += text
                self.arrived.notify_all()
        with self.arrived:
            self.arrived.notify_all()

    def expect(self, pattern, seconds=300, begin=0):
        """Waits for the text; gives the match."""
        deadline = time.monotonic() + seconds
        with self.arrived:
            while not (found := re.search(pattern, self.text[begin:])):
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self.arrived.wait(0.5)):
                    print(self.text[-6000:])
                    fail(f"the machine did not say {pattern!r}")
                self.arrived.wait(min(left, 1))
        return found

    def say(self, line, pattern, seconds=60):
        begin = len(self.text)
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return self.expect(pattern, seconds, begin)

    def ready(self):
        self.expect(r"board: the broker is ready")
        print(f"  ready after {time.monotonic() - self.began:.1f} s")

    def power_off(self):
        self.say("poweroff", r"board: off: asked for")
        self.wait()

    def press_power_button(self):
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(self.monitor)
            monitor.recv(4096)
            monitor.sendall(b"system_powerdown\n")
            self.expect(r"board: off: asked for")
        self.wait()

    def wait(self, seconds=120):
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            fail("the machine did not end")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def produce(self, topic, lines):
        text = "\n".join(lines) + "\n"
        done = kcat("-P", "-t", topic, "-X", "acks=all", input=text)
        if done.returncode:
            fail(f"kcat -P: {done.stderr}")

    def consume(self, topic):
        done = kcat("-C", "-t", topic, "-o", "beginning", "-e", "-q")
        if done.returncode:
            fail(f"kcat -C: {done.stderr}")
        return sorted(done.stdout.split())


def kcat(*arguments, **keys):
    patience = ["-X", "api.version.request.timeout.ms=60000", "-X", "socket.timeout.ms=60000"]
    return subprocess.run(["kcat", "-b", f"{NODE}:9092", *patience, *arguments], capture_output=True, text=True, timeout=120, **keys)


def health():
    with urllib.request.urlopen(f"http://{NODE}:9644/health", timeout=60) as answer:
        return answer.status, answer.read().decode()


def site(network=""):
    return SITE.format(node=NODE, network=network)


LINES = sorted(f"line-{at:05}" for at in range(2000))


def first_boot(options, work):
    machine = Machine(options, work, site())
    machine.ready()
    for drive in ("sda", "vda"):
        machine.expect(f"board: disk {drive}: it is blank and the site names it: partitioning")
    for at in (0, 1):
        machine.expect(rf"board: /disk/{at}: its file system has \d GiB now")
    machine.produce("numbers", LINES)
    if machine.consume("numbers") != LINES:
        fail("what was produced did not come back")
    machine.say("status", "broker: serves")
    machine.say("disks", r"disk 1, serial S2: at /disk/1, ring /dev/vda1")
    machine.say("net test 10.0.2.2 1", r"10\.0\.2\.2:1: ")
    machine.say("ls /", "no such command")
    machine.power_off()


def second_boot_and_a_cut(options, work):
    machine = Machine(options, work, site())
    machine.ready()
    if "partitioning" in machine.text or "its file system has" in machine.text:
        fail("the second boot changed a disk")
    if machine.consume("numbers") != LINES:
        fail("records are missing after an orderly end")
    machine.produce("more", LINES)
    machine.kill()


def after_the_cut(options, work):
    machine = Machine(options, work, site())
    machine.ready()
    if machine.consume("more") != LINES or machine.consume("numbers") != LINES:
        fail("acknowledged records are missing after a cut")
    machine.power_off()


def a_data_disk_is_away(options, work):
    machine = Machine(options, work, site(), disks=["S1"])
    machine.ready()
    machine.say("status", r"disk 1: AWAY: there is no drive with serial S2")
    try:
        fail(f"healthy: {health()}")
    except urllib.error.HTTPError as error:
        reasons = error.read().decode()
        if "disk serial S2 is away" not in reasons:
            fail(f"/health does not name the disk: {reasons}")
    machine.press_power_button()


def the_meta_disk_is_away(options, work):
    machine = Machine(options, work, site(), disks=["S2"])
    machine.expect("board: the broker does not start: the meta disk is away")
    machine.say("status", "broker: not running: the meta disk is away: there is no drive with serial S1")
    machine.power_off()


def a_disk_with_something_on_it(options, work):
    image = os.path.join(work, "S2")
    os.rename(image, image + ".ours")
    with open(image, "wb") as file:
        file.truncate(4 << 30)
        file.seek(1024 + 56)
        file.write(b"\x53\xef")
    machine = Machine(options, work, site())
    machine.ready()
    machine.say("disks", "disk 1, serial S2: AWAY: vda: it is not blank and holds nothing of ours; it is left alone")
    machine.power_off()
    with open(image, "rb") as file:
        first = file.read(1 << 20)
    if first != b"\0" * 1080 + b"\x53\xef" + b"\0" * ((1 << 20) - 1082):
        fail("a foreign disk was written to")
    os.rename(image + ".ours", image)


def a_vlan_on_a_bond(options, work):
    extra = ["-netdev", "user,id=n2", "-device", "e1000e,netdev=n2"]
    machine = Machine(options, work, site(', vlan = 30, bond = "active-backup"'), extra=extra)
    machine.ready()
    machine.expect(r"board: network: 10\.0\.2\.15/24 on bond0\.30 of eth0 .*, eth1 ")
    machine.power_off()


def a_factory_reset(options, work):
    machine = Machine(options, work, site())
    machine.ready()
    machine.say("factory reset data", "type within a minute: erase data of a")
    machine.say("yes", "not confirmed, nothing was done")
    machine.say("factory reset data", "type within a minute: erase data of a")
    machine.say("erase data of a", "board: vda is blank", 120)
    machine.wait()
    machine = Machine(options, work, site())
    machine.ready()
    machine.expect("board: disk sda: it is blank and the site names it: partitioning")
    if machine.consume("numbers"):
        fail("records survived a factory reset")
    machine.power_off()


CASES = [first_boot, second_boot_and_a_cut, after_the_cut, a_data_disk_is_away, the_meta_disk_is_away,
         a_disk_with_something_on_it, a_vlan_on_a_bond, a_factory_reset]


def main():
    parser = argparse.ArgumentParser()
    for name in ("kernel", "modules", "board", "howdah", "blob"):
        parser.add_argument(f"--{name}", required=True, type=os.path.abspath)
    parser.add_argument("--fsck", type=os.path.abspath)
    parser.add_argument("--accel", default="tcg", choices=["tcg", "kvm"])
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--work", type=os.path.abspath, help="keeps the disks here, for a later case")
    parser.add_argument("--only", action="append", choices=[case.__name__ for case in CASES])
    options = parser.parse_args()
    if "HOWDAH_DIRECT" not in os.environ:
        os.environ["HOWDAH_DIRECT"] = "1"
        mapped = [] if os.getuid() == 0 else ["--map-root-user"]
        os.execvp("unshare", ["unshare", "--net", *mapped, sys.executable, *sys.argv])
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{NODE}/32", "dev", "lo"], check=True)
    # A connection from the node's own address would be none that it answers; QEMU shows 127.0.0.1 as the gateway's.
    subprocess.run(["ip", "route", "change", "local", NODE, "dev", "lo", "table", "local", "src", "127.0.0.1"], check=True)
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or scratch
        os.makedirs(work, exist_ok=True)
        with open(os.path.join(work, "initrd"), "wb") as file:
            file.write(initrd(options))
        for case in CASES:
            if not options.only or case.__name__ in options.only:
                print(case.__name__.replace("_", " "), flush=True)
                case(options, work)
    print("as it should be")


if __name__ == "__main__":
    main()

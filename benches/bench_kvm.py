"""The KVM platform beside QEMU's microvm, with the same kernel and initramfs; prints Markdown tables.

usage: bench_kvm.py DIRECTORY, in which bench_kvm.sh has put everything. Runs where /dev/kvm is hardware: on the host, or in
the rig, where times mean nothing by themselves. Every pair is measured in turn, in one run.
"""

import json
import mmap
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from tables import table

STARTS = int(os.environ.get("BENCH_STARTS", "7"))
RANDOM_READS = 500
DATA_MIB = 48
MEMORY_MIB = 512
# More than a machine touches.
WASH_MIB = 256
# Port of the agent's control connection (crates/protocol).
AGENT_PORT = 1024
GUEST_CID = 3


def progress(text):
    print(f"... {text}", file=sys.stderr, flush=True)


class Bench:
    def __init__(self, given):
        self.given = pathlib.Path(given)
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="bench-kvm-"))
        self.env = os.environ | {
            "BULKHEAD_ROOT": str(self.work / "root"),
            "BULKHEAD_ISOLATION": "kvm",
            "BULKHEAD_AGENT": str(self.given / "bulkhead-agent"),
        }
        if (self.given / "vmlinux").exists():
            self.env["BULKHEAD_KERNEL"] = str(self.given / "vmlinux")

    def bulkhead(self, *args, **kwargs):
        kwargs.setdefault("stdout", subprocess.PIPE)
        kwargs.setdefault("stderr", subprocess.PIPE)
        done = subprocess.run([self.given / "bulkhead", *args], env=self.env, text=True, stdin=subprocess.DEVNULL,
                              **kwargs)
        if done.returncode != 0:
            raise SystemExit(f"bulkhead {' '.join(args)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def prepare(self):
        progress("image and disk")
        tree = self.work / "tree"
        (tree / "bin").mkdir(parents=True)
        shutil.copy(self.given / "busybox", tree / "bin/busybox")
        for name in ("sh", "cat", "cp", "sync", "sleep", "true", "mount", "mkdir"):
            (tree / "bin" / name).symlink_to("busybox")
        shutil.copy(self.given / "read", tree / "bin/read-bench")
        for name in ("first", "second"):
            (tree / name).write_bytes(os.urandom(DATA_MIB << 20))
        archive = self.work / "image.tar"
        subprocess.run(["tar", "-C", tree, "-cf", archive, "."], check=True)
        self.bulkhead("import", str(archive), "bench")
        archive.unlink()
        # The same files on the file system that a container's own disk has.
        self.disk = self.work / "disk.ext4"
        subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", tree, self.disk, f"{DATA_MIB * 3}M"], check=True,
                       stdout=subprocess.DEVNULL)
        self.bulkhead("create", "--name", "look", "bench", "true")
        self.shown = json.loads(self.bulkhead("inspect", "look").stdout)[0]["Bulkhead"]
        self.bulkhead("rm", "look")
        self.words = self.bulkhead("run", "--rm", "bench", "cat", "/proc/cmdline").stdout.strip()

    def qemu(self, initramfs, words, *devices):
        return [
            "qemu-system-x86_64", "-M", "microvm,acpi=on,pit=off,pic=off,rtc=off", "-accel", "kvm", "-cpu", "host",
            "-m", str(MEMORY_MIB), "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", self.shown["Kernel"], "-initrd", str(initramfs), "-append", words,
            "-device", "virtio-rng-device", *devices,
        ]

    def drive(self, path, options=""):
        return ["-drive", f"file={path},if=none,id=d,format=raw{options}", "-device", "virtio-blk-device,drive=d"]


def start_bulkhead(bench):
    """From the command to the agent's first answer: the whole command less its phases after that."""
    begun = time.monotonic()
    done = bench.bulkhead("run", "--rm", "--timings", "--memory", f"{MEMORY_MIB - 64}m", "bench", "true")
    whole = (time.monotonic() - begun) * 1000
    took = {name: float(ms) for name, ms in re.findall(r"^(\w+)\s+([\d.]+) ms$", done.stderr, re.M)}
    after = sum(took[name] for name in ("mount", "exec", "process", "drain", "teardown", "record"))
    return whole - after, took


def start_qemu(bench):
    """From the command to the agent's first connection, by which its first message comes a moment later."""
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((socket.VMADDR_CID_ANY, AGENT_PORT))
    listener.listen(1)
    listener.settimeout(120)
    log = bench.work / "console"
    command = bench.qemu(bench.shown["Initramfs"], bench.words, *bench.drive(bench.disk, ",readonly=on"),
                         "-device", f"vhost-vsock-device,guest-cid={GUEST_CID}", "-device", "virtio-balloon-device",
                         "-serial", f"file:{log}")
    begun = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        connection, _ = listener.accept()
        took = (time.monotonic() - begun) * 1000
        connection.close()
        return took
    except TimeoutError:
        child.kill()
        raise SystemExit(f"QEMU's guest did not connect: {child.stderr.read().decode()}\n{log.read_text()}") from None
    finally:
        child.kill()
        child.wait()
        listener.close()


def wash():
    """Writes over memory that was freed lately. An emulator throws its translations of a guest's code away when the memory that
    held it is written again; what a machine left behind would be paid by the next one, whoever starts it."""
    with mmap.mmap(-1, WASH_MIB << 20) as memory:
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1


def start(bench):
    ours, theirs, phases = [], [], []
    for round_ in range(STARTS + 1):
        progress(f"start {round_ + 1} of {STARTS + 1}")
        wash()
        took, parts = start_bulkhead(bench)
        wash()
        other = start_qemu(bench)
        # The first of each reads its files from disk.
        if round_ > 0:
            ours.append(took)
            phases.append(parts)
            theirs.append(other)
    base = statistics.median(ours)
    rows = [(name, f"{statistics.median(all_):.0f}", f"{min(all_):.0f}", f"{max(all_):.0f}",
             f"{statistics.median(all_) / base:.2f}")
            for name, all_ in (("bulkhead, whole command", ours), ("QEMU microvm", theirs))]
    parts = ", ".join(f"{name} {statistics.median(p[name] for p in phases):.0f}"
                      for name in ("create", "spawn", "jail", "devices", "kernel", "agent"))
    table(f"Start: from the command to the agent's first message, {STARTS} runs each in turn",
          ["program", "median ms", "min", "max", "ratio to bulkhead"], rows,
          "The same kernel, initramfs and kernel command line. Bulkhead's time includes making the container (record, disk), its jail, and the first call "
          f"answered by the agent; QEMU's ends when the agent's vsock connection arrives. Bulkhead's phases, median ms: {parts}.")


def mappings(pid):
    """(bytes, inode, flags, private anonymous, PSS KiB) of each mapping of a process."""
    found = []
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if head := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ (\S+) (\d+)", line):
            found.append({"bytes": int(head[2], 16) - int(head[1], 16), "inode": (head[4], int(head[5])), "pss": 0,
                          "flags": []})
        elif line.startswith("Pss:"):
            found[-1]["pss"] = int(line.split()[1])
        elif line.startswith("VmFlags:"):
            found[-1]["flags"] = line.split()[1:]
    return found


def device_and_inode(path):
    about = os.stat(path)
    return f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}", about.st_ino


def footprint(pids, guest_bytes, guest_files):
    """KiB of PSS: guest's memory, files shown to the guest, everything else."""
    memory = files = rest = 0
    for pid in pids:
        for mapping in mappings(pid):
            if mapping["inode"] in guest_files:
                files += mapping["pss"]
            # Guest memory is the only memory that is asked to lie in large pages, and by far the largest.
            elif mapping["inode"][1] == 0 and ("hg" in mapping["flags"] or mapping["bytes"] > guest_bytes // 2):
                memory += mapping["pss"]
            else:
                rest += mapping["pss"]
    return memory, files, rest


def memory(bench):
    progress("memory")
    bench.bulkhead("run", "-d", "--name", "idle", "bench", "sleep", "1000")
    time.sleep(10)
    shown = json.loads(bench.bulkhead("inspect", "idle").stdout)[0]
    sandbox, monitor = shown["State"]["Pid"], shown["Bulkhead"]["MonitorPid"]
    size = shown["Bulkhead"]["GuestMemory"]
    spec = json.loads((pathlib.Path(shown["Bulkhead"]["Directory"]) / "config.json").read_text())["sandbox"]
    files = {device_and_inode(path) for path in [*spec["image"], shown["Bulkhead"]["Kernel"]]}
    rows = []
    for name, pids in (("bulkhead: sandbox", [sandbox]), ("bulkhead: sandbox and monitor", [sandbox, monitor])):
        guest, image, rest = footprint(pids, size, files)
        rows.append((name, f"{rest / 1024:.2f}", f"{guest / 1024:.1f}", f"{image / 1024:.1f}"))
    bench.bulkhead("rm", "-f", "idle")
    log = bench.work / "console"
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((socket.VMADDR_CID_ANY, AGENT_PORT))
    listener.listen(1)
    listener.settimeout(120)
    command = bench.qemu(bench.shown["Initramfs"], bench.words, *bench.drive(bench.disk, ",readonly=on"),
                         "-device", f"vhost-vsock-device,guest-cid={GUEST_CID}", "-device", "virtio-balloon-device",
                         "-serial", f"file:{log}")
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    connection, _ = listener.accept()
    time.sleep(10)
    guest, image, rest = footprint([child.pid], MEMORY_MIB << 20, set())
    rows.append(("QEMU microvm, its agent waiting", f"{rest / 1024:.2f}", f"{guest / 1024:.1f}", f"{image / 1024:.1f}"))
    child.kill()
    child.wait()
    connection.close()
    listener.close()
    table("Memory of an idle machine: PSS in MiB",
          ["processes", "beyond the guest's", "guest memory touched", "files shown to the guest"], rows,
          "A container that sleeps. 'Beyond the guest's' is everything that is neither the guest's RAM nor a file that is mapped into the guest.")


READS = [
    # title, mode, file, Bulkhead reads it from
    ("image file, first read, 1 MiB at a time", "seq", "first", "pmem"),
    ("image file, first read, 4 KiB at random", "random", "second", "pmem"),
    ("writable disk, direct, 1 MiB at a time", "direct", "first", "block"),
    ("writable disk, direct, 4 KiB at random", "randomdirect", "second", "block"),
]


def parse_reads(text):
    found = {}
    for mode, size, took in re.findall(r"^read (\w+) (\d+) (\d+)\s*$", text, re.M):
        found.setdefault(mode, []).append((int(size), int(took)))
    return found


def reads_bulkhead(bench):
    script = "; ".join([
        f"read-bench seq /first; read-bench random /second {RANDOM_READS}",
        "mkdir /own; cp /first /second /own/; sync",
        f"read-bench direct /own/first; read-bench randomdirect /own/second {RANDOM_READS}",
    ])
    return parse_reads(bench.bulkhead("run", "--rm", "--disk", "1g", "bench", "sh", "-c", script).stdout)


def reads_qemu(bench):
    log = bench.work / "console"
    command = bench.qemu(bench.given / "reads.cpio", "console=ttyS0 quiet pci=off reboot=t panic=-1 tsc=reliable",
                         *bench.drive(bench.disk), "-serial", f"file:{log}")
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300,
                   check=False)
    text = log.read_text(errors="replace").replace("\r", "")
    found = parse_reads(text)
    if len(found) != len(READS):
        raise SystemExit(f"QEMU's guest did not read everything:\n{text}")
    return found


def reads(bench):
    ours, theirs = {}, {}
    for round_ in range(3):
        progress(f"reads {round_ + 1} of 3")
        for into, measure in ((ours, reads_bulkhead), (theirs, reads_qemu)):
            for mode, results in measure(bench).items():
                into.setdefault(mode, []).extend(results)
    rows = []
    for title, mode, _, kind in READS:
        speed = [statistics.median(size / took * 1e3 for size, took in results[mode]) for results in (ours, theirs)]
        if mode.startswith("random"):
            unit, shown = "reads/s", [f"{one * 1e6 / 4096:.0f}" for one in speed]
        else:
            unit, shown = "MB/s", [f"{one:.0f}" for one in speed]
        rows.append((title, kind, f"{shown[0]} {unit}", f"{shown[1]} {unit}", f"{speed[0] / speed[1]:.2f}"))
    table("Reads in the guest, median of 3 machines each in turn",
          ["what", "bulkhead's device", "bulkhead", "QEMU virtio-blk", "bulkhead / QEMU"], rows,
          "Files in the host's page cache. QEMU's guest has the same files on ext4 on one virtio-blk disk with QEMU's default cache and threads.")


def main():
    bench = Bench(sys.argv[1])
    wanted = sys.argv[2:] or ["start", "memory", "reads"]
    try:
        bench.prepare()
        for name in wanted:
            {"start": start, "memory": memory, "reads": reads}[name](bench)
    finally:
        subprocess.run([bench.given / "bulkhead", "rm", "-f", "idle"], env=bench.env, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(bench.work, ignore_errors=True)


if __name__ == "__main__":
    main()

"""Measures Bulkhead beside crun, runsc and podman in one run, interleaved, and prints Markdown.

Each section is a function; `main` runs those named on the command line, or all of them. Nothing here
asserts a time: a benchmark is not a test. A peer that cannot run here is listed with its own words.
"""

import datetime
import hashlib
import json
import os
import pathlib
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from tables import table

BULKHEAD = os.environ["BULKHEAD_BIN"]
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "bulkhead" / "bench"
DEBIAN_KERNEL = "/usr/bin/linux.uml"
MIB = 1 << 20


class Bench:
    """Working directory with one root file system, as a Bulkhead image and as an OCI bundle."""

    def __init__(self, work: pathlib.Path):
        self.work = work
        self.env = dict(os.environ, BULKHEAD_ROOT=str(work / "root"))
        self.rootfs = work / "bundle" / "rootfs"
        for name in ("bin", "etc", "tmp", "proc", "dev", "sys", "root"):
            (self.rootfs / name).mkdir(parents=True)
        shutil.copy(shutil.which("busybox") or "/bin/busybox", self.rootfs / "bin/busybox")
        for applet in ("sh", "true", "cat", "sleep", "echo", "sha256sum"):
            (self.rootfs / "bin" / applet).symlink_to("busybox")
        (self.rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        with open(self.rootfs / "big", "wb") as big:
            for _ in range(1024):
                big.write(os.urandom(MIB))
        tar = subprocess.Popen(["tar", "-C", self.rootfs, "-c", "."], stdout=subprocess.PIPE)
        self.bulkhead("import", "-", "busybox:latest", stdin=tar.stdout)
        tar.wait()
        subprocess.run(["crun", "spec"], cwd=work / "bundle", check=True)
        self.counter = 0

    def bulkhead(self, *args, **kwargs):
        kwargs.setdefault("stdout", subprocess.DEVNULL)
        return subprocess.run([BULKHEAD, *args], env=self.env, check=True, **kwargs)

    def bundle(self, args) -> str:
        """Writes config.json for these arguments; returns a fresh container name."""
        path = self.work / "bundle" / "config.json"
        config = json.loads(path.read_text())
        config["process"].update(terminal=False, args=args)
        config["root"] = {"path": "rootfs", "readonly": False}
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "cgroup"]
        config["linux"].pop("resources", None)
        config["mounts"] = [m for m in config["mounts"] if not m["type"].startswith("cgroup")]
        path.write_text(json.dumps(config))
        self.counter += 1
        return f"bench-{os.getpid()}-{self.counter}"

    def commands(self, args):
        """Name → (argv, environment, working directory) of one run of `args` in each engine."""
        name = self.bundle(args)
        bundle = str(self.work / "bundle")
        nofile = ["--ulimit", "nofile=1000:1000", "--ulimit", "nproc=1000:1000"]
        found = {
            "bulkhead": ([BULKHEAD, "run", "--rm", "busybox", *args], self.env),
            "bulkhead, Debian's kernel": (
                [BULKHEAD, "run", "--rm", "busybox", *args],
                dict(self.env, BULKHEAD_KERNEL=DEBIAN_KERNEL),
            ),
            "runsc": (["runsc", "--network=none", "--ignore-cgroups", "run", "-bundle", bundle, name], self.env),
            "podman (crun)": (
                ["podman", "run", "--rm", "--cgroups=disabled", "--network=none", *nofile, "--rootfs",
                 str(self.rootfs), *args],
                self.env,
            ),
            "crun": (["crun", "--cgroup-manager=disabled", "run", "-b", bundle, name], self.env),
        }
        if not os.path.exists(DEBIAN_KERNEL):
            del found["bulkhead, Debian's kernel"]
        return found


def progress(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def start(bench):
    """Whole command, warm, engines interleaved so that a drift of the machine meets all alike."""
    rounds, times, failed = 25, {}, {}
    for number in range(rounds + 2):
        progress(f"start: round {number + 1} of {rounds + 2}")
        for name in list(bench.commands(["/bin/true"])):
            argv, env = bench.commands(["/bin/true"])[name]
            if name in failed:
                continue
            begin = time.monotonic()
            run = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True)
            spent = time.monotonic() - begin
            if run.returncode:
                failed[name] = run.stderr.decode(errors="replace").strip().splitlines()[-1:]
            elif number >= 2:  # the first two rounds warm the caches
                times.setdefault(name, []).append(spent * 1000)
    base = statistics.median(times["bulkhead"])
    rows = [
        (name, f"{statistics.median(t):.0f}", f"{min(t):.0f}", f"{sorted(t)[int(len(t) * 0.9)]:.0f}",
         f"{statistics.median(t) / base:.2f}")
        for name, t in times.items()
    ] + [(name, "cannot run here", "", "", " ".join(why)) for name, why in failed.items()]
    table(f"Start: `run --rm busybox true`, whole command, {rounds} runs each",
          ["engine", "median ms", "min", "p90", "ratio to bulkhead"], rows)
    run = subprocess.run([BULKHEAD, "run", "--rm", "--timings", "busybox", "true"], env=bench.env, capture_output=True)
    print("\nWhere the time goes (`bulkhead run --rm --timings busybox true`):\n\n```")
    print(run.stderr.decode().rstrip() + "\n```")


def stream(bench):
    """`cat` of 1 GiB of random bytes through a pipe."""
    expected = hashlib.sha256((bench.rootfs / "big").read_bytes()).hexdigest()
    rates, notes, rounds = {}, {}, 5
    for number in range(rounds):
        for name in list(bench.commands(["/bin/cat", "/big"])):
            if name in notes or name.startswith("bulkhead, "):
                continue
            argv, env = bench.commands(["/bin/cat", "/big"])[name]
            progress(f"stream: {name}, round {number + 1} of {rounds}")
            begin = time.monotonic()
            child = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE)
            digest, total = hashlib.sha256(), 0
            buffer = bytearray(MIB)
            check = number == 0
            while count := child.stdout.readinto1(buffer) if hasattr(child.stdout, "readinto1") else 0:
                total += count
                if check:
                    digest.update(memoryview(buffer)[:count])
            spent = time.monotonic() - begin
            error = child.stderr.read().decode(errors="replace").strip()
            if child.wait() or total != 1 << 30:
                notes[name] = error.splitlines()[-1] if error else f"{total} bytes"
            elif check:
                if digest.hexdigest() != expected:
                    notes[name] = "checksum differs"
            else:
                rates.setdefault(name, []).append(total / spent / 1e6)
    base = statistics.median(rates["bulkhead"])
    rows = [(n, f"{statistics.median(r):.0f}", f"{max(r):.0f}", f"{statistics.median(r) / base:.2f}", "equal")
            for n, r in rates.items()]
    rows += [(n, "failed", "", "", why) for n, why in notes.items()]
    table("Stream: `cat` of a 1 GiB file through a pipe (start included)",
          ["engine", "median MB/s", "best", "ratio to bulkhead", "checksum"], rows)


def descendants(roots):
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(pathlib.Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
    found = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def pss(pids):
    total = 0
    for pid in pids:
        try:
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1])
    return total / 1024


def with_text(needle):
    """Processes whose command line or environment names the benchmark's directory."""
    found = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            text = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes() + pathlib.Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        if needle.encode() in text:
            found.add(int(entry))
    return found


def memory(bench):
    """PSS of everything that one idle container keeps alive, guest memory that was touched included."""
    rows = []
    bench.bulkhead("run", "-d", "--name", "idle", "busybox", "sleep", "1000")
    time.sleep(2)
    pids = descendants(with_text(str(bench.work / "root")))
    rows.append(("bulkhead", f"{pss(pids):.1f}", len(pids)))
    bench.bulkhead("rm", "-f", "idle")
    for name in ("runsc", "crun"):
        argv, env = bench.commands(["/bin/sleep", "1000"])[name]
        child = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        time.sleep(2)
        pids = descendants({child.pid} | with_text(argv[-1]))
        rows.append((name, f"{pss(pids):.1f}", len(pids)))
        subprocess.run([argv[0], *argv[1:2], "kill", argv[-1], "KILL"], stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
    table("Memory of one idle `sleep` container", ["engine", "PSS MiB", "processes"], rows)


def touch(bench):
    """600 MiB written twice, page by page, in order and at random: what a page costs that was not there before."""
    size, rounds = 600, 5
    folder = bench.work / "touching"
    folder.mkdir()
    source = pathlib.Path(__file__).parent.parent / "tests/e2e/guest/touch.c"
    subprocess.run(["gcc", "-O1", "-static", "-o", folder / "touch", source], check=True)
    tar = subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE)
    bench.bulkhead("import", "-", "touching", stdin=tar.stdout)
    tar.wait()
    guest = [BULKHEAD, "run", "--rm", "--memory", "800m", "touching", "/touch"]
    times = {}
    for number in range(rounds):
        progress(f"touch: round {number + 1} of {rounds}")
        for sharing in ("private", "shared"):
            for order in ("order", "random"):
                for engine, command in (("guest", guest), ("host", [str(folder / "touch")])):
                    begin = time.monotonic()
                    subprocess.run([*command, str(size), sharing, order, "1"], env=bench.env, check=True,
                                   stdout=subprocess.DEVNULL)
                    times.setdefault((sharing, order), {}).setdefault(engine, []).append(time.monotonic() - begin)
    pages = size * MIB / 4096
    rows = []
    for (sharing, order), spent in times.items():
        a, b = (statistics.median(spent[engine]) for engine in ("guest", "host"))
        name = f"{sharing} memory, {'in order' if order == 'order' else 'at random'}"
        rows.append((name, f"{a:.2f}", f"{a / pages * 1e6:.1f}", f"{b:.2f}", f"{a / b:.1f}"))
    table(f"Touching {size} MiB twice, page by page (start included)",
          ["memory", "guest s", "µs a page", "host s", "guest / host"], rows)


def disk_image(bench):
    """A Debian with fio and a file to read, made once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    tar = CACHE / "debian-fio.tar"
    if not tar.exists():
        progress("disk: making a Debian image with fio")
        part = CACHE / "debian-fio.part.tar"
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "--include=fio", "bookworm", part], check=True)
        with tempfile.TemporaryDirectory() as extra:
            with open(pathlib.Path(extra) / "file", "wb") as file:
                for _ in range(512):
                    file.write(os.urandom(MIB))
            subprocess.run(["tar", "-C", extra, "-rf", part, "./file"], check=True)
        part.rename(tar)
    bench.bulkhead("import", str(tar), "fio:latest")


FIO = {
    "sequential read, 1 MiB, image disk": ("--rw=read --bs=1M --size=512M --readonly", "/file"),
    "random read, 4 KiB, image disk": ("--rw=randread --bs=4k --size=512M --readonly --runtime=10 --time_based", "/file"),
    "sequential write, 1 MiB, scratch disk": ("--rw=write --bs=1M --size=512M --end_fsync=1", "/scratch"),
    "random write, 4 KiB, scratch disk": ("--rw=randwrite --bs=4k --size=256M --end_fsync=1", "/scratch"),
}


def disk(bench):
    disk_image(bench)
    rows = []
    host = bench.work / "fio"
    host.mkdir()
    with open(host / "file", "wb") as file:
        for _ in range(512):
            file.write(os.urandom(MIB))
    for title, (options, path) in FIO.items():
        progress(f"disk: {title}")
        fio = f"fio --name=j --ioengine=psync --output-format=json {options} --filename="
        drop = "echo 3 > /proc/sys/vm/drop_caches; "
        guest = subprocess.run([BULKHEAD, "run", "--rm", "--cap-add", "SYS_ADMIN", "fio", "sh", "-c", drop + fio + path],
                               env=bench.env, capture_output=True, text=True)
        native = subprocess.run(["sh", "-c", "sync; " + drop + fio + str(host / path.lstrip("/"))], capture_output=True, text=True)
        cells = []
        for run in (guest, native):
            try:
                job = json.loads(run.stdout[run.stdout.index("{"):])["jobs"][0]
                side = job["read"] if "read" in title else job["write"]
                cells.append((side["bw_bytes"] / 1e6, side["iops"]))
            except (ValueError, KeyError):
                cells.append(None)
                progress(f"disk: {title}: {run.stderr.strip()[-300:]}")
        if None in cells:
            rows.append((title, "failed", "", "", "", ""))
        else:
            (a, i), (b, j) = cells
            rows.append((title, f"{a:.0f}", f"{i:.0f}", f"{b:.0f}", f"{j:.0f}", f"{a / b:.2f}"))
    table("Disks: fio in the guest beside the host's own file system",
          ["job", "guest MB/s", "guest IOPS", "host MB/s", "host IOPS", "guest / host"], rows,
          "Guest and host caches were dropped before each job where the kernel allows it; the image's blobs may still be in the host's page cache.")


def pull(bench):
    """From a loopback registry to something runnable."""
    disk_image(bench)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = bench.work / "registry.yml"
    config.write_text(f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
                      f"storage: {{filesystem: {{rootdirectory: {bench.work / 'registry'}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n")
    registry = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(1)
        debian = CACHE / "debian.tar"
        if not debian.exists():
            subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", "bookworm", CACHE / "debian.part.tar"], check=True)
            (CACHE / "debian.part.tar").rename(debian)
        image = f"localhost:{port}/debian:bookworm"
        bench.bulkhead("import", str(debian), image)
        bench.bulkhead("push", "-q", image)
        size = debian.stat().st_size
        times = {"bulkhead pull": [], "skopeo copy + umoci unpack": []}
        for number in range(5):
            progress(f"pull: round {number + 1} of 5")
            root = bench.work / f"pull-{number}"
            begin = time.monotonic()
            subprocess.run([BULKHEAD, "pull", "-q", image], env=dict(bench.env, BULKHEAD_ROOT=str(root)), check=True,
                           stdout=subprocess.DEVNULL)
            times["bulkhead pull"].append(time.monotonic() - begin)
            shutil.rmtree(root)
            layout, bundle = bench.work / "layout", bench.work / "unpacked"
            begin = time.monotonic()
            subprocess.run(["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{image}", f"oci:{layout}:d"], check=True)
            subprocess.run(["umoci", "unpack", "--image", f"{layout}:d", str(bundle)], check=True, capture_output=True)
            times["skopeo copy + umoci unpack"].append(time.monotonic() - begin)
            shutil.rmtree(layout)
            shutil.rmtree(bundle)
        base = statistics.median(times["bulkhead pull"])
        rows = [(n, f"{statistics.median(t):.2f}", f"{size / statistics.median(t) / 1e6:.0f}", f"{statistics.median(t) / base:.2f}")
                for n, t in times.items()]
        table(f"Pull and conversion of a Debian image ({size / 1e6:.0f} MB unpacked) from a loopback registry",
              ["tool", "median s", "MB/s of unpacked size", "ratio to bulkhead"], rows)
    finally:
        registry.kill()
        registry.wait()


SECTIONS = {"start": start, "stream": stream, "memory": memory, "touch": touch, "disk": disk, "pull": pull}


def main():
    names = sys.argv[1:] or list(SECTIONS)
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        sys.exit(f"bench: unknown section {unknown[0]}: expected {', '.join(SECTIONS)}")
    with tempfile.TemporaryDirectory(prefix="bulkhead-bench-", dir="/var/tmp") as work:
        bench = Bench(pathlib.Path(work))
        version = subprocess.run([BULKHEAD, "--version"], capture_output=True, text=True).stdout.strip()
        print(f"{version}, {datetime.date.today()}, {os.cpu_count()} CPUs, Linux {platform.release()}")
        for name in names:
            SECTIONS[name](bench)


main()

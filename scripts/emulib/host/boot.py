# SPDX-License-Identifier: GPL-2.0
"""One emulated host, one command."""

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from ..build import config, enter, files, initrd, procs, qemu, sources
from ..build.config import Failure, inner
from ..build.kernel import HOST, Kernel
from ..build.step import Log, Step, digest, duration, locked, say
from . import machines
from .machines import Machine

# Exit statuses of our own, as timeout(1) and the shell use them.
TIMED_OUT = 124
HOST_DIED = 125

# How many console lines explain a failure.
TAIL = 40

MACHINE = f"{config.ROOT_TREE}/tests/qemu/machine.py"
# That program, and what it imports.
MACHINE_FILES = [config.TREE / "tests/qemu" / name for name in ("machine.py", "devtree.py", "mutations.py", "shim.py")]
BEGIN = "emu: command starts"
END = re.compile(r"^emu: command ended with status (\d+)\s*$", re.MULTILINE)


@dataclass
class Host:
    """What to boot. Paths are of this machine."""

    machine: Machine = machines.REDBUD
    # No emulated host but a pseries guest, where there is neither OPAL nor a GPU.
    pseries: bool = False
    # Which of our kernels.
    ours: Kernel = HOST
    files: list[Path] = field(default_factory=list)
    # Another kernel than ours, another root.
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    module: bool = True
    # Disk images below the cache, /dev/vda and on; what is written to them is lost.
    disks: list[Path] = field(default_factory=list)
    # Bad firmware to put between OPAL and Linux, by tests/qemu/mutations.py's names.
    mutations: list[str] = field(default_factory=list)
    # RAM of each GPU, and whether an instruction takes a nanosecond of the machine's time.
    gpu_ram: str = "16G"
    icount: bool = False
    timeout: float = 600
    # Where to leave a copy of the whole console (firmware and kernel).
    console: Path | None = None


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Whether the lock of a run's folder could be had; it is held in the meantime."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    had = True
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            had = False
        yield had
    finally:
        os.close(handle)


@contextlib.contextmanager
def _run_dir() -> Iterator[Path]:
    """A folder of this run below the cache, removed afterwards."""
    runs = config.cache_dir() / "runs"
    folder = runs / f"{os.getpid()}-{time.monotonic_ns()}"
    with contextlib.ExitStack() as stack:
        with locked("runs"):
            folder.mkdir(parents=True)
            stack.enter_context(_held(folder))
            # What a run left behind that was killed. A process that is not seen from here may run in another container.
            for other in runs.iterdir():
                if other != folder and not Path(f"/proc/{other.name.partition('-')[0]}").exists():
                    with _held(other) as ended:
                        if ended:
                            files.remove(other)
        try:
            yield folder
        finally:
            files.remove(folder)


def _disk_options(host: Host) -> str:
    """The host's disks as options of machine.py."""
    for disk in host.disks:
        if not disk.is_file():
            raise Failure(f"--disk {disk}: no such file")
        if not disk.resolve().is_relative_to(config.cache_dir()):
            raise Failure(f"--disk {disk}: the emulator sees only files below {config.cache_dir()}")
    return " ".join(f"--disk {shlex.quote(inner(disk.resolve()))}" for disk in host.disks)


def _modules(host: Host) -> list[str]:
    """What init loads; a foreign kernel's modules are its own business."""
    if host.kernel or host.initrd:
        return []
    return [*initrd.MODULES, *([initrd.OUR_MODULE] if host.module else [])]


def _prepare(host: Host, run: Path, command: list[str] | None) -> str:
    """Lay out the run's files; return the shell script that starts QEMU in the root."""
    with Log("run", run / "run.log") as log:
        added = initrd.overlay(log, run, command, host.files, _modules(host))
    image = run / "vmlinux"
    for path, option in ((host.kernel, "--kernel"), (host.initrd, "--initrd")):
        if path and not path.is_file():
            raise Failure(f"{option} {path}: no such file")
    if host.kernel:
        shutil.copyfile(host.kernel, image)
    else:
        image.symlink_to(inner(host.ours.image()))
    with open(run / "initrd", "wb") as whole:
        foundation = host.initrd or initrd.base(host.ours)
        whole.write(foundation.read_bytes())
        # An archive starts at a multiple of four bytes.
        whole.write(bytes(-whole.tell() % 4))
        whole.write(added.read_bytes())
    arguments = f"console=hvc0 rdinit=/.emu/init {host.append}".strip()
    return (_pseries if host.pseries else _witherspoon)(host, run, arguments)


def _start(machine: str, options: str) -> str:
    """The end of the shell script: `machine` prints QEMU's arguments, a line each."""
    return f"""
        mapfile -t machine < <({machine})
        [ ${{#machine[@]}} -gt 0 ]
        exec {qemu.EMULATOR} "${{machine[@]}}" -L {inner(sources.firmware())} -kernel vmlinux -initrd initrd {options} \\
            "$@" 2>qemu.log
    """


def _pseries(host: Host, run: Path, arguments: str) -> str:
    """The shell script of a pseries guest."""
    if host.mutations or host.disks or host.icount:
        raise Failure("--pseries: a guest has no OPAL firmware (--mutate), no disks (--disk) and no --icount")
    return f"cd {inner(run)}\n" + _start(f"python3 {MACHINE} guest-args", f"-append {shlex.quote(arguments)}")


def _witherspoon(host: Host, run: Path, arguments: str) -> str:
    """The shell script of an emulated host."""
    icount = "--icount" if host.icount else ""
    mutate = ""
    if host.mutations:
        if not host.machine.plain():
            raise Failure("--mutate: bad firmware is made of the tree of a whole machine; leave out --empty, --dead and "
                          "--small-memory-map")
        good = TREE_STEPS[machines.of_gpus(host.machine.sockets)].ensured()
        mutate = f"""
            python3 {MACHINE} shim --kernel vmlinux --fdt {inner(good)} \\
                --mutate {shlex.quote(",".join(host.mutations))} \\
                --append {shlex.quote(arguments)} --initrd initrd mutated
            mv mutated vmlinux
        """
    which = shlex.join(host.machine.options())
    machine = f"python3 {MACHINE} args {which} --gpu-ram {shlex.quote(host.gpu_ram)} {icount} " + _disk_options(host)
    return f"""
        cd {inner(run)}
        mapfile -t machine < <({machine})
        {qemu.EMULATOR} "${{machine[@]}}" -L {inner(sources.firmware())} -machine dumpdtb=base.dtb >dumpdtb.log 2>&1 ||
            {{ cat dumpdtb.log >&2; exit 1; }}
        python3 {MACHINE} tree {which} --append {shlex.quote(arguments)} \\
            --initrd initrd base.dtb machine.dtb
        {mutate}
    """ + _start(machine, "-dtb machine.dtb")


# Not "stdio": its end of input would close the port. A host that crashed is not to start again.
PORTS = [
    "-no-reboot",
    "-chardev", "file,id=emu,path=/dev/fd/1", "-serial", "file:console.log",
    "-device", "virtserialport,bus=emu-serial.0,name=emu,chardev=emu",
    "-chardev", "file,id=status,path=status",
    "-device", "virtserialport,bus=emu-serial.0,name=emu-status,chardev=status",
]

# The emulated host can ask and inject through its own QEMU's monitor: QMP on the
# port "qmp".
MONITOR = [
    "-chardev", "socket,id=monitor,path=qmp,server=on,wait=off", "-mon", "chardev=monitor,mode=control",
    "-chardev", "socket,id=qmp,path=qmp",
    "-device", "virtserialport,bus=emu-serial.0,name=qmp,chardev=qmp",
]


def run(host: Host, command: list[str], output: BinaryIO = sys.stdout.buffer) -> int:
    """Boot, run `command` as root, relay its output; return its exit status."""
    with _run_dir() as folder:
        script = _prepare(host, folder, command)
        monitor = [] if host.machine.hide_model else MONITOR
        process = procs.spawn(
            enter.inside(["bash", "-euo", "pipefail", "-c", script, "qemu", *PORTS, *monitor]),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        )
        relay = threading.Thread(
            target=_relay, args=(process.stdout, output), daemon=True
        )
        relay.start()
        try:
            process.wait(host.timeout)
            expired = False
        except subprocess.TimeoutExpired:
            expired = True
        finally:
            procs.kill(process)
            process.wait()
            relay.join(5)
            procs.forget(process)
        console = folder / "console.log"
        if host.console and console.exists():
            shutil.copyfile(console, host.console)
        return _status(host, folder, expired, process.returncode, output)


def _relay(source: BufferedReader, sink: BinaryIO) -> None:
    """Pass on what comes, as it comes."""
    while data := source.read1():
        sink.write(data)
        sink.flush()


def _status(host: Host, folder: Path, expired: bool, emulator: int, output: BinaryIO) -> int:
    """The command's exit status, or ours with an explanation."""
    console = files.text(folder / "console.log")
    said = files.text(folder / "status").strip()
    if not said and (match := END.search(console)):
        # A kernel without virtio-serial: the console carried the command's output.
        text = console[console.index(BEGIN) + len(BEGIN):match.start()].lstrip("\r\n")
        output.write(text.encode())
        output.flush()
        said = match[1]
    if said and not expired:
        return int(said)
    say("\n".join(["---- last lines of the console", *console.splitlines()[-TAIL:],
                   "---- QEMU", *files.text(folder / "qemu.log").splitlines(), "----"]))
    if expired:
        say(f"emu: no end after {duration(host.timeout)} (--timeout), the emulated host was stopped")
        return TIMED_OUT
    say(f"emu: the emulated host ended before the command did (QEMU's exit status: {emulator})")
    return HOST_DIED


def _read_tree(machine: Machine, product: Path) -> None:
    fresh = product.with_suffix(".new")
    with open(fresh, "wb") as tree:
        status = run(Host(machine=machine, module=False, timeout=120), ["cat", "/sys/firmware/fdt"], tree)
    if status:
        raise Failure(f"reading the device tree of a boot failed with status {status}")
    fresh.rename(product)


def _tree_step(machine: Machine) -> Step:
    step = Step(f"fdt-{machine.name}", "reading the device tree of a boot",
                lambda: digest(*MACHINE_FILES, Path(machines.__file__)),
                lambda _: _read_tree(machine, step.path()), ["fdt.dtb"], [qemu.STEP, initrd.STEP])
    return step


# The device tree that OPAL gives Linux on a machine.
TREE_STEPS = {machine: _tree_step(machine) for machine in machines.ALL}


def mutations(machine: Machine) -> str:
    """The known mutations: name, node, property and defect, a line each."""
    tree = TREE_STEPS[machine].ensured()
    return procs.run(enter.inside(["python3", MACHINE, "mutations", inner(tree)]),
                     stdout=subprocess.PIPE, text=True, check=True).stdout


def shell(host: Host) -> int:
    """Boot into an interactive shell on this terminal."""
    with _run_dir() as folder:
        script = _prepare(host, folder, None)
        say("emu: booting; Ctrl-A X ends the emulation at once, Ctrl-A C reaches QEMU's monitor")
        return subprocess.run(
            enter.inside(["bash", "-euo", "pipefail", "-c", script, "qemu", "-serial", "mon:stdio"]),
            check=False,
        ).returncode

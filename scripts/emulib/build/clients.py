# SPDX-License-Identifier: GPL-2.0
"""Real clients of the driver: Debian bookworm's QEMU 7.2 and libvirt 9.0, our QEMU 10.0, and their guest.

QEMU 7.2 has the original NVLink2 client. The packages are those of ppc64el, unpacked
and not installed: nothing of them runs on this machine.
"""

import shutil
from pathlib import Path

from . import config, files, programs, qemu_client, root, sources
from .config import Failure
from .step import Log, Step, digest

TESTS = config.TREE / "tests/clients"

# All of it but its words.
INPUTS = ["guest", "domains", "src", "Cargo.toml", "Cargo.lock", "enter", "libvirt-hook"]

SUITE = "bookworm"
PACKAGES = """
    qemu-system-ppc qemu-system-data
    libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients
    dash libc-bin linux-image-powerpc64le
""".split()
# What no client looks at.
LEFT_OUT = """
    usr/share/doc usr/share/man usr/share/locale usr/share/iso-codes usr/share/perl5 usr/share/info
    usr/share/sounds usr/share/alsa usr/lib/klibc lib/modules boot var/cache var/lib/apt var/lib/dpkg
""".split()
# Room for what is written in a run, MiB.
SPARE = 128

# Modules of Debian's kernel for the guest, in the order of loading: a PCI device with a driver
# makes the guest map all its memory for DMA.
GUEST_MODULES = "virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci".split()


def image() -> Path:
    """The clients' root, an ext4 image."""
    return IMAGE_STEP.path()


def guest_files() -> Path:
    """The guest's kernel (vmlinux) and its modules."""
    return IMAGE_STEP.home() / "guest"


def programs_dir() -> Path:
    """What goes to the emulated host besides the image."""
    return STEP.path()


def _build_image(log: Log) -> None:
    fresh = IMAGE_STEP.home() / "root.new"
    root.unpack(log, fresh, PACKAGES, [SUITE])
    guest = guest_files()
    files.remove(guest)
    guest.mkdir()
    kernels = sorted((fresh / "boot").glob("vmlinux-*"))
    if len(kernels) != 1:
        raise Failure(f"{SUITE} has {len(kernels)} kernels where one is expected; see {log.path}")
    kernels[0].rename(guest / "vmlinux")
    for name in GUEST_MODULES:
        (found,) = (fresh / "lib/modules").rglob(f"{name}.ko")
        found.rename(guest / found.name)
    for path in LEFT_OUT:
        files.remove(fresh / path)
    sources.shell(log, f"""
        cd {IMAGE_STEP.inner}
        megabytes=$(du -sm root.new | cut -f 1)
        rm -f root.ext4.new
        mke2fs -q -t ext4 -O ^has_journal -E root_owner=0:0 -d root.new root.ext4.new $((megabytes + {SPARE}))M
        mv root.ext4.new root.ext4
        rm -rf root.new
    """)


def _build_programs(log: Log) -> None:
    files.remove(STEP.home() / "initramfs")
    files.remove(programs_dir())
    inner, guest, busybox = STEP.inner, f"{IMAGE_STEP.inner}/guest", config.inner(sources.busybox())
    sources.shell(log, f"""
        make -C {config.ROOT_TREE}/tests/clients/guest -j{config.jobs()} \\
            KSRC={sources.LINUX_TREE} OUT={inner}/objects
        mkdir -p {inner}/programs {inner}/initramfs
        cd {inner}/initramfs
        mkdir bin modules proc sys dev tmp
        cp {busybox} {inner}/objects/tests/* bin
        cp {guest}/*.ko modules
        printf '%s\\n' {" ".join(GUEST_MODULES)} > modules/order
        cp {config.ROOT_TREE}/tests/clients/guest/init .
        find . -mindepth 1 | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | gzip -1 > {inner}/programs/guest.cpio.gz
        cp {busybox} {guest}/vmlinux {inner}/objects/*.so {inner}/programs
        cd {config.ROOT_TREE}/tests/clients
        cp -r domains enter libvirt-hook {inner}/programs
    """)
    programs.build_static(log, TESTS, "nvlink2-clients", programs_dir())
    shutil.copy2(programs.nvlink2ctl_binary(), programs_dir())
    shutil.copy2(qemu_client.emulator(), programs_dir() / qemu_client.NAME)


IMAGE_STEP = Step(
    "client-root",
    f"unpacking QEMU 7.2, libvirt 9.0 and a guest's kernel of Debian {SUITE} (1 min)",
    lambda: "",
    _build_image,
    ["root.ext4", "guest/vmlinux"],
    [root.STEP],
)

STEP = Step(
    "clients",
    "building the clients' tests (1 min when cold)",
    lambda: digest(*(TESTS / name for name in INPUTS), programs.SELFTESTS, programs.REGISTERS),
    _build_programs,
    ["programs", "programs/nvlink2-clients"],
    [IMAGE_STEP, sources.LINUX_STEP, sources.TARGET_STEP, programs.NVLINK2CTL_STEP, qemu_client.STEP],
)

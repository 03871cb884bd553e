# SPDX-License-Identifier: GPL-2.0
"""Real clients of the driver, and their guests.

Clients are our QEMU 10.0 with libvirt of Debian testing, and Debian bookworm's QEMU 7.2, which has the original
NVLink2 client, with libvirt 9.0. Guests run bookworm's kernel, 6.1, or Linux 5.10, whose platform code knows NVLinks.
The packages are those of ppc64el, unpacked and not installed: nothing of them runs on this machine.
"""

import shutil
from pathlib import Path

from . import config, files, linux_510, programs, qemu_client, root, sources
from .config import Failure
from .step import Log, Step, digest

TESTS = config.TREE / "tests/clients"

# All of it but its words.
INPUTS = ["guest", "domains", "src", "Cargo.toml", "Cargo.lock", "enter", "libvirt-hook"]

SUITE = "bookworm"
PACKAGES = """
    qemu-system-ppc qemu-system-data
    libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients
    dash libc-bin
""".split()
KERNEL = "linux-image-powerpc64le"
# Its QEMU has no NVLink2, and is there for what ours leaves out: guests that are emulated.
NEW_SUITE = "testing"
# What no client looks at.
LEFT_OUT = """
    usr/share/doc usr/share/man usr/share/locale usr/share/iso-codes usr/share/perl5 usr/share/info
    usr/share/sounds usr/share/alsa usr/lib/klibc lib/modules boot var/cache var/lib/apt var/lib/dpkg
""".split()
# QEMU's machine for guests that are emulated twice, as tests/clients/src/vm.rs has it.
GUEST_MACHINE = "pseries,x-vof=on,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off"
# Room for what is written in a run, MiB.
SPARE = 128

# Modules of Debian's kernel for the guest, in the order of loading: a PCI device with a driver
# makes the guest map all its memory for DMA.
GUEST_MODULES = "virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci".split()


def image() -> Path:
    """The root of bookworm's clients, an ext4 image."""
    return IMAGE_STEP.path()


def new_image() -> Path:
    """That of today's, with libvirt of Debian testing."""
    return NEW_IMAGE_STEP.path()


def kernel_files() -> Path:
    """Bookworm's kernel (vmlinux) for guests, and its modules."""
    return IMAGE_STEP.home() / "guest"


def programs_dir() -> Path:
    """What goes to the emulated host besides the image."""
    return STEP.path()


def guest_510() -> Path:
    """What goes there for guests with Linux 5.10."""
    return GUEST_510_STEP.path()


def _take_kernel(tree: Path) -> None:
    """Move the kernel out of the clients' root."""
    guest = kernel_files()
    files.remove(guest)
    guest.mkdir()
    kernels = sorted((tree / "boot").glob("vmlinux-*"))
    if len(kernels) != 1:
        raise Failure(f"{SUITE} has {len(kernels)} kernels where one is expected")
    kernels[0].rename(guest / "vmlinux")
    for name in GUEST_MODULES:
        (found,) = (tree / "lib/modules").rglob(f"{name}.ko")
        found.rename(guest / found.name)


def _pack(log: Log, step: Step) -> None:
    """Make an image of the folder root.new in the home of a step."""
    for path in LEFT_OUT:
        files.remove(step.home() / "root.new" / path)
    sources.shell(log, f"""
        cd {step.inner}
        megabytes=$(du -sm root.new | cut -f 1)
        rm -f root.ext4.new
        mke2fs -q -t ext4 -O ^has_journal -E root_owner=0:0 -d root.new root.ext4.new $((megabytes + {SPARE}))M
        mv root.ext4.new root.ext4
        rm -rf root.new
    """)


def _build_image(log: Log) -> None:
    fresh = IMAGE_STEP.home() / "root.new"
    root.unpack(log, fresh, [*PACKAGES, KERNEL], [SUITE])
    _take_kernel(fresh)
    _pack(log, IMAGE_STEP)


def _build_new_image(log: Log) -> None:
    root.unpack(log, NEW_IMAGE_STEP.home() / "root.new", PACKAGES, [NEW_SUITE])
    _pack(log, NEW_IMAGE_STEP)


def _initramfs(to: str, modules: str, order: list[str]) -> str:
    """A script for the root that makes the initial RAM disk of a guest, with the modules of a folder."""
    return programs.initramfs(to, f"{STEP.inner}/objects/tests", "tests/clients/guest/init", f"""
        mkdir modules
        cp {modules}/*.ko modules
        printf '%s\\n' {" ".join(order)} > modules/order
    """)


def _build_programs(log: Log) -> None:
    files.remove(programs_dir())
    inner, guest = STEP.inner, f"{IMAGE_STEP.inner}/guest"
    sources.shell(log, f"""
        make -C {config.ROOT_TREE}/tests/clients/guest -j{config.jobs()} \\
            KSRC={sources.LINUX_TREE} OUT={inner}/objects
        mkdir -p {inner}/programs
        {_initramfs(f"{inner}/programs/guest.cpio.gz", guest, GUEST_MODULES)}
        cp {config.inner(sources.busybox())} {guest}/vmlinux {inner}/objects/*.so {inner}/programs
        cd {config.ROOT_TREE}/tests/clients
        cp -r domains enter libvirt-hook {inner}/programs
    """)
    programs.build_static(log, TESTS, "nvlink2-clients", programs_dir())
    shutil.copy2(programs.nvlink2ctl_binary(), programs_dir())
    shutil.copy2(qemu_client.emulator(), programs_dir() / qemu_client.NAME)


def _build_guest_510(log: Log) -> None:
    inner = GUEST_510_STEP.inner
    files.remove(guest_510())
    # Beside the module are its objects: it is built in a copy.
    sources.shell(log, f"""
        rm -rf {inner}/driver
        mkdir {inner}/guest-5.10
        cp -r {config.ROOT_TREE}/tests/clients/guest/driver {inner}
        cd {linux_510.SOURCE_STEP.inner}/tree
        {linux_510.MAKE} M={inner}/driver modules
        {_initramfs(f"{inner}/guest-5.10/guest.cpio.gz", f"{inner}/driver", ["nvlink_guest"])}
        powerpc64le-linux-gnu-strip -o {inner}/guest-5.10/vmlinux {config.inner(linux_510.image())}
    """)


IMAGE_STEP = Step(
    "client-root",
    f"unpacking QEMU 7.2, libvirt 9.0 and a guest's kernel of Debian {SUITE} (1 min)",
    lambda: "",
    _build_image,
    ["root.ext4", "guest/vmlinux"],
    [root.STEP],
)

NEW_IMAGE_STEP = Step(
    "client-root-new",
    f"unpacking libvirt of Debian {NEW_SUITE} (1 min)",
    lambda: "",
    _build_new_image,
    ["root.ext4"],
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

GUEST_510_STEP = Step(
    "guest-5.10",
    "building a module for Linux 5.10 in guests",
    lambda: digest(TESTS / "guest"),
    _build_guest_510,
    ["guest-5.10", "guest-5.10/vmlinux", "guest-5.10/guest.cpio.gz"],
    [STEP, linux_510.STEP, sources.TARGET_STEP],
)

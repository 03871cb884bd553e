# SPDX-License-Identifier: GPL-2.0
"""The command line of scripts/dist."""

import argparse
from pathlib import Path

from . import cli
from .build import intree, kernel_packages, module, rust_analyzer, series, sources
from .build.config import Failure
from .build.step import say
from .checks import qemu_series


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dist", description="The project in the forms in which others take it.",
        epilog="exit status: 0 done; 1 could not be done, the reason is printed; 2 usage",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    put = verbs.add_parser(
        "intree", help="put the driver into a kernel source tree",
        description="Put driver, documents and selftests into DIR, a Linux 7.3 source tree, and apply "
        "scripts/kernel to it if that was not done. Doing it again updates the files.",
    )
    put.add_argument("dir", type=Path, metavar="DIR")
    series = verbs.add_parser(
        "series", help="write all of it as patches",
        description="Write sets of git-format-patch files with cover letters, numbered in the order to send, that make the same of "
        "Linux 7.3. They have no sign-off: that is the sender's.",
    )
    series.add_argument("out", type=Path, metavar="OUT", help="a folder that is new or empty")
    patches = verbs.add_parser(
        "patches", help="list the patches for the kernel in their order",
        description="Print the names of the kernel's patches in the order in which they apply, as for git am.",
    )
    patches.add_argument("--needed", action="store_true", help="only those that the driver cannot do without")
    for_qemu = verbs.add_parser(
        "qemu-series", help="write the patches for QEMU",
        description="Write the series of git-format-patch files with cover letter that gives QEMU 10.0 its NVLink2 client "
        "back, after a look at whether it applies to Debian's source. That for QEMU 10.2 is in the folder 10.2 of it.",
    )
    for_qemu.add_argument("out", type=Path, metavar="OUT", help="a folder that is new or empty")
    packages = verbs.add_parser(
        "kernel-deb", help="build Debian packages of a kernel with the series and the driver",
        description="Build packages for ppc64el of Linux 7.3 with the series and the driver in it, an image and headers, and "
        "print their names. It takes as long as a kernel of that configuration does, an hour or more on two cores.",
    )
    packages.add_argument("--config", type=Path, metavar="FILE",
                          help="begin with this configuration, as /boot/config-* of a distribution, and not with "
                          f"{kernel_packages.DEFCONFIG}; it is compiled by clang if it says CONFIG_CC_IS_CLANG=y, else by GCC")
    packages.add_argument("--pages", choices=kernel_packages.PAGES, help="the size of pages, if not that of the configuration")
    verbs.add_parser(
        "rust-analyzer", help="describe the module to rust-analyzer",
        description="Write rust-project.json, from which rust-analyzer knows the module, the kernel crate and its settings.",
    )
    return parser


def _dispatch(options: argparse.Namespace) -> None:
    match options.verb:
        case "intree":
            intree.put(options.dir.resolve())
        case "patches":
            print(*(series.necessary() if options.needed else series.patches()), sep="\n")
        case "rust-analyzer":
            cli.ensure([module.STEP])
            say(f"rust-analyzer: {rust_analyzer.write()}")
        case "kernel-deb":
            if options.config and not options.config.is_file():
                raise Failure(f"--config {options.config}: no such file")
            wanted = kernel_packages.step("kernel-deb-own", options.config and options.config.resolve(), options.pages)
            cli.ensure([wanted])
            print(*sorted(wanted.path().glob("*.deb")), sep="\n")
        case "qemu-series":
            cli.ensure([sources.QEMU_STEP])
            qemu_series.write_series(options.out)
        case _:
            cli.ensure([intree.STEP])
            intree.write_series(options.out)


def main() -> int:
    """Run the program; return its exit status."""
    options = _parser().parse_args()

    def work() -> int:
        _dispatch(options)
        return 0

    return cli.guarded("dist", work)

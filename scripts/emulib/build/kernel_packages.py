# SPDX-License-Identifier: GPL-2.0
"""A kernel to install: Debian packages of Linux 7.3 with the series and the driver in it, an image and headers.

The kernel's own `make bindeb-pkg` makes them.
"""

from pathlib import Path

from . import config, desk, enter, files, intree, kernel, series, sources
from .kernel import Kernel
from .step import Log, Step, digest

# Over what the packages begin with.
FRAGMENT = series.HOME / "package.config"
DEFCONFIG = "powernv_defconfig"
PAGES = {"64k": "CONFIG_PPC_64K_PAGES=y", "4k": "CONFIG_PPC_4K_PAGES=y"}
# What the release's name ends with.
SUFFIX = "-nvlink2"


def debs() -> Path:
    """The folder of the packages that tests use."""
    return STEP.path()


def _version() -> str:
    """The project's, of the packages that go with this one."""
    changelog = files.text(config.TREE / "scripts/debian/changelog")
    return changelog.partition("(")[2].partition(")")[0]


def step(name: str, begin: Path | Kernel | None, pages: str | None) -> Step:
    """What makes the packages, into debs/ of its home.

    `begin` is a configuration, or one of our kernels, of which it has the configuration and what was compiled of it;
    without it is what the kernel has for machines of this kind. `pages` as in PAGES, or those of `begin`.
    """
    def build(log: Log) -> None:
        home = made.home()
        begun = begin if isinstance(begin, Kernel) else None
        if begun and not (home / "build").exists():
            files.remove(home / "new")
            files.copy_folders(begun.step.home(), home / "new", ["build"], ["linux"])
            for folder in ("linux", "build"):
                files.remove(home / folder)
                (home / "new" / folder).rename(home / folder)
            (home / "new").rmdir()
        kernel.retree(log, sources.LINUX_STEP, home / "linux", series.patches(), sources.moved_linux())
        intree.put(home / "linux")
        (home / "build").mkdir(exist_ok=True)
        if isinstance(begin, Path):
            (home / "build/begin").write_bytes(begin.read_bytes())
        asked = FRAGMENT.read_text(encoding="utf-8") + f'{PAGES.get(pages or "", "")}\nCONFIG_LOCALVERSION="{suffix}"\n'
        (home / "build/asked").write_text(asked, encoding="utf-8")
        # Where the compiled files of another kernel were made, make finds that they are up to date.
        place = begun.step if begun else made
        log.run(enter.inside(["bash", "-euo", "pipefail", "-c", _script(place.inner, begin)],
                             tree=desk.path(), over={made.inner: place.inner} if begun else None))

    suffix = SUFFIX + (f"-{pages}" if pages == "4k" else "")
    inputs = [begin] if isinstance(begin, Path) else []
    made = Step(
        name, "building packages of a kernel to install", lambda: digest(
            FRAGMENT, *inputs, *series.patches(), *(config.TREE / place for place in intree.PLACES), str(pages), _version()),
        build, ["debs"],
        [sources.LINUX_STEP, desk.STEP, *([begin.step] if isinstance(begin, Kernel) else [])],
        seed=["build"], linked=["linux"],
    )
    return made


def _script(home: str, begin: Path | Kernel | None) -> str:
    """What is done in the build root for the packages, with the step's home at `home`."""
    return f"""
        cd {home}/build
        {"cp begin .config" if isinstance(begin, Path) else ""}
        compiler=
        ! grep -sqx CONFIG_CC_IS_CLANG=y .config || compiler={kernel.CLANG}
        # GCC looks for clang's linker by the name without a version.
        export PATH=/usr/lib/llvm-19/bin:$PATH
        # Beside clang GCC makes the programs of the headers package, and its binutils the wrapper around a boot image.
        make="make -C {home}/linux O={home}/build ARCH=powerpc {kernel.GCC} $compiler LOCALVERSION= -j{config.jobs()}"
        {f"$make {DEFCONFIG}" if begin is None else ""}
        # A symbol's last value counts.
        cat asked >> .config
        $make olddefconfig
        # A symbol that is not as it was asked for would be found much later. Without keys there is none for their file.
        grep -E '^CONFIG_[A-Z0-9_]+=[^n"]' asked | while read -r line; do
            grep -qxF "$line" .config || {{ echo "E: $line of {FRAGMENT.name} was not accepted"; exit 1; }}
        done
        rm -f ../*.deb
        # The root has what is needed, not all by the packages that it is asked for.
        $make DPKG_FLAGS=-d KDEB_SOURCENAME=linux-nvlink2 KDEB_CHANGELOG_DIST=unstable KDEB_COMPRESS=zstd \\
            KDEB_PKGVERSION="$($make -s kernelversion)-{_version()}" bindeb-pkg
        rm -rf ../debs
        mkdir ../debs
        # The headers of the C library stay Debian's.
        mv ../linux-image-*.deb ../linux-headers-*.deb ../debs
        rm -f ../linux-*
    """


# Of the kernel that everything runs on, which costs minutes, for a test of the packages.
STEP = step("kernel-deb", kernel.HOST, None)

# SPDX-License-Identifier: GPL-2.0
"""The emulated host's kernel: Debian's source, our series, our configuration.

There are several of them, made of one source: the one that everything runs on,
the debug kernel, which looks for what goes wrong inside it, and those that are
configured and compiled as distributions do it.
"""

from collections.abc import Iterable
from pathlib import Path

from . import config, enter, libdw, series, sources
from .step import Log, Step, digest

CONFIG = series.HOME / "host.config"
DEBUG_CONFIG = series.HOME / "debug.config"

# What compiles a kernel, as variables for make.
CLANG = "LLVM=-19"
GCC = "CROSS_COMPILE=powerpc64le-linux-gnu-"


class Kernel:
    """A configuration of the kernel, and what is built of it in the cache's folder `name`.

    `fragments` go over allnoconfig, a later one over an earlier one; `compiler`
    and `variables` are for make, `needs` what they refer to. One that is not
    `whole` is only what a module needs to be compiled, and cannot be booted.
    """

    def __init__(self, name: str, what: str, fragments: list[Path], compiler: str = CLANG, variables: str = "",
                 needs: Iterable[Step] = (), whole: bool = True):
        self.fragments = fragments
        self.whole = whole
        # Without a kernel nobody knows its symbols.
        what_is_built = " ".join(["ARCH=powerpc", compiler, *variables.split(), *([] if whole else ["KBUILD_MODPOST_WARN=1"])])
        # What make needs wherever it starts: in the source, or in the build folder for a module.
        self.flags = f"{what_is_built} -j{config.jobs()}"
        self.step = Step(
            name, what, lambda: digest(*fragments, *series.patches(), what_is_built), self._build,
            ["build/vmlinux", "install/lib/modules"] if whole else ["build/rust/libkernel.rmeta"],
            [sources.LINUX_STEP, *needs], seed=["build"], linked=["linux"],
        )
        self.name = name
        # As the root sees them: the source with the series, the build folder.
        self.source = f"{self.step.inner}/linux"
        self.build = f"{self.step.inner}/build"
        self.make = f"make -C {self.source} O={self.build} {self.flags}"

    def image(self) -> Path:
        """The ELF vmlinux."""
        return self.step.path()

    def modules(self) -> Path:
        """The folder that holds lib/modules."""
        return self.step.home() / "install"

    def release(self) -> str:
        """What `uname -r` says on it."""
        return (self.step.home() / "build/include/config/kernel.release").read_text(encoding="utf-8").strip()

    def _build(self, log: Log) -> None:
        retree(log, sources.LINUX_STEP, self.step.home() / "linux", series.patches(), sources.moved_linux())
        fragments = " ".join(f"{config.ROOT_TREE}/{path.relative_to(config.TREE)}" for path in self.fragments)
        install = f"{self.step.inner}/install"
        goals = f"""
            {self.make} vmlinux modules
            rm -rf {install}
            {self.make} INSTALL_MOD_PATH={install} modules_install
        """ if self.whole else f"{self.make} modules_prepare"
        sources.shell(log, f"""
            mkdir -p {self.build}
            {self.source}/scripts/kconfig/merge_config.sh -m -Q -O {self.build} {fragments}
            mv {self.build}/.config {self.build}/wanted
            KCONFIG_ALLCONFIG={self.build}/wanted {self.make} allnoconfig
            # A symbol that silently lost its dependencies would be found much later.
            grep -E '^CONFIG_[A-Z0-9_]+=[^n]' {self.build}/wanted |
                while read -r line; do
                    grep -qxF "$line" {self.build}/.config ||
                        {{ echo "E: $line of {fragments} was not accepted"; exit 1; }}
                done
            {goals}
        """)


# Makes the work tree $3 what the only commit of the repository $1 and the changes "$@" after it give. It touches just
# the files that differ from what is there, so that make rebuilds just those. All files that no change touches are
# hard links to those of $1; git replaces files and does not write into them, but sees the date of their links.
# $2 is $1 by a path that is on one mount with $3, as links need it.
RETREE = """
base=$1 near=$2 tree=$3
shift 3
if [ ! -e "$tree/.git/complete" ]; then
    rm -rf "$tree"
    git clone -q --shared --no-checkout "$base" "$tree"
    git -C "$tree" config core.trustctime false
    cp "$base/.git/index" "$tree/.git/index"
    find "$near" -mindepth 1 -maxdepth 1 ! -name .git -exec cp -al -t "$tree" {} +
    touch "$tree/.git/complete"
fi
cd "$tree"
# Of a run that was killed: nobody else is here.
rm -f .git/*.lock
export GIT_INDEX_FILE=$PWD/.git/next-index
git read-tree HEAD
for patch in "$@"; do
    case $patch in
    *.patch) git apply --cached --whitespace=nowarn "$patch" ||
        { echo "E: ${patch#/src/} does not apply"; exit 1; } ;;
    *)  # a folder of new files
        (cd "$patch" && find . -type f) | while read -r file; do
            mode=100644; [ ! -x "$patch/$file" ] || mode=100755
            blob=$(git hash-object -w --no-filters "$patch/$file")
            git update-index --add --cacheinfo "$mode,$blob,${file#./}"
        done ;;
    esac
done
tree=$(git write-tree)
unset GIT_INDEX_FILE
# Files of a cache that was copied look changed until somebody reads them.
git update-index -q --refresh || true
git read-tree -u --reset "$tree"
"""


def retree(log: Log, base: Step, tree: Path, changes: list[Path], remedy: str) -> None:
    """Make the source folder `tree` what the step `base` has fetched, with the changes applied.

    A change is a patch file, or a folder of new files. `remedy` is for a patch that does not apply.
    """
    inner = [f"{config.ROOT_TREE}/{change.relative_to(config.TREE)}" for change in changes]
    log.run(
        enter.inside(["bash", "-euo", "pipefail", "-c", RETREE, "retree", f"{base.inner}/tree", config.inner(base.path()),
                      config.inner(tree), *inner]),
        remedy=remedy,
    )


HOST = Kernel(
    "kernel", "building Linux 7.3 with our series (5 to 8 min on 2 cores when cold)", [CONFIG],
)
DEBUG = Kernel(
    "kernel-debug", "building the debug kernel (7 to 10 min on 2 cores when cold)", [CONFIG, DEBUG_CONFIG],
    # rustc refuses to instrument Rust for powerpc.
    variables="RUSTFLAGS_KASAN=",
)


def _gcc(name: str, what: str, whole: bool = True) -> Kernel:
    return Kernel(name, what, [CONFIG, series.HOME / "gcc.config"], GCC, whole=whole)


def _4k(name: str, what: str, whole: bool = True) -> Kernel:
    return Kernel(name, what, [CONFIG, series.HOME / "4k.config"], variables=libdw.VARIABLES, needs=[libdw.STEP], whole=whole)


# What distributions have and HOST has not. A long check boots each.
VARIANTS = {
    "gcc": _gcc("kernel-gcc", "building the kernel with GCC, as Fedora has it (10 min on 2 cores when cold)"),
    "4k": _4k("kernel-4k", "building the kernel with pages of 4 KiB, as Debian has it (12 min on 2 cores when cold)"),
}
# Each without itself, for the check of every day.
HEADERS = {
    "gcc": _gcc("headers-gcc", "making what a module needs of the kernel 'gcc'", whole=False),
    "4k": _4k("headers-4k", "making what a module needs of the kernel '4k'", whole=False),
}
# All, by the names that options have for them.
BY_NAME = {"host": HOST, "debug": DEBUG, **VARIANTS}

# Of the one that everything runs on.
STEP = HOST.step

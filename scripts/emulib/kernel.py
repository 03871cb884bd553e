# SPDX-License-Identifier: GPL-2.0
"""The emulated host's kernel: Debian's source, our series, our configuration.

There are two of them, made of one source: the one that everything runs on, and
the debug kernel, which looks for what goes wrong inside it.
"""

from pathlib import Path

from . import config, root, sources
from .step import Log, Step, digest

SERIES = config.TREE / "scripts/kernel"
CONFIG = SERIES / "host.config"
DEBUG_CONFIG = SERIES / "debug.config"


def patches() -> list[Path]:
    """The series in order, without its cover letter."""
    return [patch for patch in sorted(SERIES.glob("*.patch")) if "cover-letter" not in patch.name]


class Kernel:
    """A configuration of the kernel, and what is built of it in the cache's folder `name`.

    `fragments` go over allnoconfig, a later one over an earlier one; `variables`
    are for make.
    """

    def __init__(self, name: str, what: str, fragments: list[Path], variables: str = ""):
        self.name = name
        self.fragments = fragments
        what_is_built = " ".join(["ARCH=powerpc", "LLVM=-19", *variables.split()])
        # What make needs wherever it starts: in the source, or in the build folder for a module.
        self.flags = f"{what_is_built} -j{config.jobs()}"
        self.make = f"make O={self.inner()} {self.flags}"
        self.step = Step(
            name, what, lambda: digest(*fragments, *patches(), what_is_built), self._build,
            [self.image(), self.modules() / "lib/modules"], [sources.LINUX_STEP],
        )

    def build_dir(self) -> Path:
        return config.cache_dir() / self.name

    def inner(self) -> str:
        """The build folder as the root sees it."""
        return f"{config.ROOT_CACHE}/{self.name}"

    def image(self) -> Path:
        return self.build_dir() / "vmlinux"

    def modules(self) -> Path:
        """The folder that holds lib/modules."""
        return self.build_dir() / "install"

    def _build(self, log: Log) -> None:
        retree(log, sources.LINUX_TREE, patches())
        folder = self.inner()
        fragments = " ".join(f"{config.ROOT_TREE}/{path.relative_to(config.TREE)}" for path in self.fragments)
        sources.shell(log, f"""
            cd {sources.LINUX_TREE}
            mkdir -p {folder}
            cat {fragments} > {folder}/wanted
            KCONFIG_ALLCONFIG={folder}/wanted {self.make} allnoconfig
            # A symbol that silently lost its dependencies would be found much later.
            grep -E '^CONFIG_[A-Z0-9_]+=[^n]' {folder}/wanted |
                while read -r line; do
                    grep -qxF "$line" {folder}/.config ||
                        {{ echo "E: $line of {fragments} was not accepted"; exit 1; }}
                done
            {self.make} vmlinux modules
            rm -rf {folder}/install
            {self.make} INSTALL_MOD_PATH={folder}/install modules_install
        """)


# Puts the tree that base + "$@" gives into the work tree, touching just the
# files that differ from what is there, so that make rebuilds just those.
RETREE = """
export GIT_INDEX_FILE=$PWD/.git/next-index
git read-tree HEAD
for patch in "$@"; do
    case $patch in
    *.patch) git apply --cached --whitespace=nowarn "$patch" ;;
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


def retree(log: Log, tree: str, changes: list[Path]) -> None:
    """Make the source folder `tree` (a path in the root) the base with the changes applied.

    A change is a patch file, or a folder of new files.
    """
    inner = [f"{config.ROOT_TREE}/{change.relative_to(config.TREE)}" for change in changes]
    script = f"cd {tree}\n{RETREE}"
    log.run(
        root.inside(["bash", "-euo", "pipefail", "-c", script, "retree", *inner]),
        remedy="A patch that does not apply means that Debian's source moved on.",
    )


HOST = Kernel(
    "kernel", "building Linux 7.3 with our series (5 to 8 min on 2 cores when cold)", [CONFIG],
)
DEBUG = Kernel(
    "kernel-debug", "building the debug kernel (7 to 10 min on 2 cores when cold)", [CONFIG, DEBUG_CONFIG],
    # rustc refuses to instrument Rust for powerpc.
    "RUSTFLAGS_KASAN=",
)

# Of the one that everything runs on.
STEP = HOST.step
MAKE = HOST.make

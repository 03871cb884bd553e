# SPDX-License-Identifier: GPL-2.0
"""The emulated host's kernel: Debian's source, our series, our configuration."""

from pathlib import Path

from . import config, root, sources
from .step import Log, Step, digest

SERIES = config.TREE / "scripts/kernel"
CONFIG = SERIES / "host.config"
MAKE = f"make ARCH=powerpc LLVM=-19 O={config.ROOT_CACHE}/kernel -j{config.jobs()}"


def patches() -> list[Path]:
    """The series in order, without its cover letter."""
    return [patch for patch in sorted(SERIES.glob("*.patch")) if "cover-letter" not in patch.name]


def build_dir() -> Path:
    return config.cache_dir() / "kernel"


def image() -> Path:
    return build_dir() / "vmlinux"


def modules() -> Path:
    """The folder that holds lib/modules."""
    return build_dir() / "install"


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


def _build(log: Log) -> None:
    retree(log, f"{config.ROOT_CACHE}/sources/linux", patches())
    sources.shell(log, f"""
        cd {config.ROOT_CACHE}/sources/linux
        mkdir -p {config.ROOT_CACHE}/kernel
        KCONFIG_ALLCONFIG={config.ROOT_TREE}/scripts/kernel/host.config {MAKE} allnoconfig
        # A symbol that silently lost its dependencies would be found much later.
        grep -E '^CONFIG_[A-Z0-9_]+=[^n]' {config.ROOT_TREE}/scripts/kernel/host.config |
            while read -r line; do
                grep -qxF "$line" {config.ROOT_CACHE}/kernel/.config ||
                    {{ echo "E: $line of host.config was not accepted"; exit 1; }}
            done
        {MAKE} vmlinux modules
        rm -rf {config.ROOT_CACHE}/kernel/install
        {MAKE} INSTALL_MOD_PATH={config.ROOT_CACHE}/kernel/install modules_install
    """)


STEP = Step(
    "kernel",
    "building Linux 7.3 with our series (5 to 8 min on 2 cores when cold)",
    lambda: digest(CONFIG, *patches(), MAKE),
    _build,
    [image(), modules() / "lib/modules"],
    [sources.LINUX_STEP],
)

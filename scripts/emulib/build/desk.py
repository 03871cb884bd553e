# SPDX-License-Identifier: GPL-2.0
"""The desk: a copy of the build root that has what documents and Debian packages take, too.

Nothing that is compiled depends on it, so that a change here rebuilds no kernel.
"""

from pathlib import Path

from . import archive, enter, files, root
from .step import Log, Step, digest

PACKAGES = """
    python3-sphinx python3-yaml graphviz
    debhelper dh-dkms dkms lintian
""".split()


def path() -> Path:
    """The root that has the tools of this one, too."""
    return STEP.path()


def _build(log: Log) -> None:
    # By hard links: the package manager replaces files and does not write into them.
    files.remove(path())
    log.run(["cp", "-al", str(root.path()), str(path())])
    # The index is that of the root's making: the archive may have moved on since.
    log.run(enter.inside(["sh", "-euc", f"""
        {archive.update()}
        DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "$@"
        chown -hR 0:0 /etc /usr /var
    """, "desk", *PACKAGES], network=True, all_users=True, tree=path()),
            remedy="Needed: the Debian archive within reach.")
    archive.say_warnings(log)


STEP = Step(
    "desk",
    "adding Sphinx and the packaging tools to a copy of the build root",
    lambda: digest(*PACKAGES),
    _build,
    ["root", *(f"root/usr/{name}" for name in ("bin/sphinx-build", "bin/dot", "bin/lintian", "sbin/dkms"))],
    [root.STEP],
)

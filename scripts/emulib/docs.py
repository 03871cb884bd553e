# SPDX-License-Identifier: GPL-2.0
"""The documents, as HTML and manual pages."""

from pathlib import Path

from . import config, root, sources
from .step import Log, Step, digest

SOURCE = config.TREE / "Documentation"


def html() -> Path:
    return config.cache_dir() / "docs/html"


def man() -> Path:
    return config.cache_dir() / "docs/man"


def _build(log: Log) -> None:
    out = f"{config.ROOT_CACHE}/docs"
    # A warning is an error: a document that Sphinx does not understand, nobody reads as it is meant.
    sources.shell(log, f"""
        export KERNEL_SPHINX={config.ROOT_CACHE}/sources/linux/Documentation/sphinx
        for builder in html man; do
            rm -rf {out}/$builder
            sphinx-build -q -W --keep-going -d {out}/doctrees -b $builder {config.ROOT_TREE}/Documentation {out}/$builder
        done
    """)


STEP = Step(
    "docs",
    "building the documents",
    lambda: digest(SOURCE),
    _build,
    [html() / "index.html", man() / "nvlink2-vfio-pci.4"],
    [root.DESK_STEP, sources.LINUX_STEP],
)

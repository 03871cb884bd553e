# SPDX-License-Identifier: GPL-2.0
"""The documents, as HTML and manual pages."""

import json
import re
import shlex
from pathlib import Path

from . import config, module, root, sources
from .config import Failure
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
        export KERNEL_SPHINX={sources.LINUX_TREE}/Documentation/sphinx
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


def rust() -> Path:
    return config.cache_dir() / "docs/rust"


# What tells rustc where its products go, and what rustdoc does not know.
COMPILER_ONLY = re.compile(r"--emit=|--out-dir$|--remap-path-scope=|--crate-type$")


def rustdoc_command(compiled: str) -> list[str]:
    """rustdoc as kbuild would call it, from the .cmd file of the crate's object."""
    found = re.match(r"savedcmd_\S+ := (.*)$", compiled, re.MULTILINE)
    if not found:
        raise Failure("rustdoc: kbuild's .cmd file of the module has no command")
    words = shlex.split(found[1])
    result = []
    for before, word in zip([""] + words, words):
        if COMPILER_ONLY.match(word) or re.fullmatch("--out-dir|--crate-type", before):
            continue
        result.append("rustdoc" if word == "rustc" else word)
    return ["env", *result, "--document-private-items", "-Dwarnings", "-Arustdoc::private_intra_doc_links"]


# Kinds of items in rustdoc's JSON that say for themselves what they are: a use, an impl, a macro's output.
KINDS = {"module", "struct", "struct_field", "enum", "trait", "function", "constant", "static", "type_alias"}


def undocumented(crate: str) -> list[str]:
    """Items of rustdoc's JSON that other files can use and that have no documentation, as file:line."""
    result = []
    for item in json.loads(crate)["index"].values():
        visibility, span = item["visibility"], item["span"]
        shared = visibility in ("public", "crate") or (
            isinstance(visibility, dict) and visibility["restricted"]["path"] == "::linux")
        ours = span and "/src/" in span["filename"] and "generated" not in span["filename"]
        if shared and ours and not item["docs"] and KINDS.intersection(item["inner"]) \
                and not span["filename"].endswith("nvlink2.rs"):
            result.append(f"src/{span['filename'].split('/src/')[1]}:{span['begin'][0]}: {item['name']}")
    return sorted(result)


def _build_rust(log: Log) -> None:
    build = module.build_dir()
    command = rustdoc_command((build / "src/.nvlink2.o.cmd").read_text(encoding="utf-8"))
    root.remove(rust())
    for options in (["--output-format", "json"], []):
        log.run(root.inside(
            [*command, "--crate-name", "nvlink2_vfio_pci", "--output", f"{config.ROOT_CACHE}/docs/rust", *options],
            workdir=f"{config.ROOT_CACHE}/module/build",
            env={"RUSTC_BOOTSTRAP": "1",
                 "NVLINK2_BINDINGS": f"{config.ROOT_CACHE}/module/build/src/bindings_generated.rs"},
        ))
    index = rust() / "nvlink2_vfio_pci.json"
    missing = undocumented(index.read_text(encoding="utf-8"))
    index.unlink()
    if missing:
        raise Failure("rustdoc: without documentation: " + "; ".join(missing))


RUST_STEP = Step(
    "rustdoc",
    "building the documentation of the module's code",
    lambda: digest(Path(__file__)),
    _build_rust,
    [rust() / "nvlink2_vfio_pci/index.html"],
    [module.STEP],
)

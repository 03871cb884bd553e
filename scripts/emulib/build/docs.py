# SPDX-License-Identifier: GPL-2.0
"""The documents, as HTML and manual pages."""

import json
import re
import shlex
from pathlib import Path

from . import config, desk, enter, files, module, sources
from .config import Failure
from .step import Log, Step, digest

SOURCE = config.TREE / "Documentation"


def html() -> Path:
    return STEP.path()


def man() -> Path:
    return STEP.home() / "man"


def _build(log: Log) -> None:
    out = STEP.inner
    # A warning is an error: a document that Sphinx does not understand, nobody reads as it is meant.
    sources.shell(log, f"""
        export KERNEL_SPHINX={sources.LINUX_TREE}/Documentation/sphinx
        for builder in html man; do
            rm -rf {out}/$builder
            sphinx-build -q -W --keep-going -d {out}/doctrees -b $builder {config.ROOT_TREE}/Documentation {out}/$builder
        done
    """, tree=desk.path())


STEP = Step(
    "docs",
    "building the documents",
    lambda: digest(SOURCE),
    _build,
    ["html", "html/index.html", "man/nvlink2-vfio-pci.4"],
    [desk.STEP, sources.LINUX_STEP],
)


def rust() -> Path:
    return RUST_STEP.path()


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
    command = rustdoc_command((module.STEP.home() / "build/src/.nvlink2.o.cmd").read_text(encoding="utf-8"))
    files.remove(rust())
    for options in (["--output-format", "json"], []):
        log.run(enter.inside(
            [*command, "--crate-name", "nvlink2_vfio_pci", "--output", f"{RUST_STEP.inner}/rust", *options],
            workdir=f"{module.STEP.inner}/build",
            env={"RUSTC_BOOTSTRAP": "1",
                 "NVLINK2_BINDINGS": f"{module.STEP.inner}/build/src/bindings_generated.rs"},
        ))
    index = rust() / "nvlink2_vfio_pci.json"
    missing = undocumented(index.read_text(encoding="utf-8"))
    index.unlink()
    if missing:
        raise Failure("rustdoc: without documentation: " + "; ".join(missing))


RUST_STEP = Step(
    "rustdoc",
    "building the documentation of the module's code",
    lambda: "",
    _build_rust,
    ["rust", "rust/nvlink2_vfio_pci/index.html"],
    [module.STEP],
)

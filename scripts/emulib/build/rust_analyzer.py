# SPDX-License-Identifier: GPL-2.0
"""rust-project.json of the module, for rust-analyzer.

The kernel's generator looks for the root of a crate beside a Makefile that names its object. Ours is named by the
Kbuild file of the folder above, so the generator finds the crates that it depends on, and this adds the module's own.
The paths are those of the build root, which no editor sees, and become this machine's.
"""

import json
from pathlib import Path
from typing import Any

from . import config, module, root, sources
from .config import Failure
from .step import Log, Step

PROJECT = config.TREE / "rust-project.json"
# What kbuild lets a module depend on.
DEPENDENCIES = ("core", "kernel", "pin_init", "zerocopy", "zerocopy_derive")


def _outside(text: str) -> str:
    """A path in the build root as this machine has it; any other text as it is."""
    homes = ((step.inner, step.home()) for step in Step.all)
    for inner, outer in (*homes, (config.ROOT_TREE, config.TREE), ("/usr", root.path() / "usr")):
        if text == inner or text.startswith(f"{inner}/"):
            return f"{outer}{text.removeprefix(inner)}"
    return text


def _sysroot() -> Path:
    """A folder like that of a Rust installation, with programs of the build root that run on this machine.

    rust-analyzer asks rustc for settings, and expands the kernel's macros by a program that has to be of the version
    that compiled them. The root's own loader and libraries run both.
    """
    folder = config.scratch() / "sysroot"
    libraries = next((root.path() / "usr/lib").glob("*-linux-gnu/ld-linux-*.so.*"))
    for name, options in (("bin/rustc", f"--sysroot {root.path()}/usr "), ("libexec/rust-analyzer-proc-macro-srv", "")):
        wrapper = folder / name
        wrapper.parent.mkdir(parents=True, exist_ok=True)
        wrapper.write_text(f"#!/bin/sh\nexec {libraries} --library-path {libraries.parent} {root.path()}/usr/{name} {options}\"$@\"\n",
                           encoding="utf-8")
        wrapper.chmod(0o755)
    return folder


def _translated(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _translated(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_translated(entry) for entry in value]
    return _outside(value) if isinstance(value, str) else value


def with_module(project: dict[str, Any]) -> dict[str, Any]:
    """The kernel's rust-project.json with this machine's paths and the module's crate."""
    project = _translated(project)
    numbers = {crate["display_name"]: number for number, crate in enumerate(project["crates"])}
    if missing := [name for name in DEPENDENCIES if name not in numbers]:
        raise Failure(f"rust-analyzer: the kernel's rust-project.json has no {', '.join(missing)}")
    project["sysroot"] = str(_sysroot())
    kernel = project["crates"][numbers["kernel"]]
    generated = module.STEP.home() / "build/src/bindings_generated.rs"
    project["crates"].append({
        "display_name": "nvlink2_vfio_pci",
        "root_module": str(config.TREE / "src/nvlink2.rs"),
        "edition": kernel["edition"],
        "is_workspace_member": True,
        "deps": [{"crate": numbers[name], "name": name} for name in DEPENDENCIES],
        "cfg": [*kernel["cfg"], "MODULE", "CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST"],
        "env": {"RUST_MODFILE": "This is only for rust-analyzer", "NVLINK2_BINDINGS": str(generated)},
        "source": {"include_dirs": [str(config.TREE / "src"), str(generated.parent)], "exclude_dirs": []},
    })
    return project


def write() -> Path:
    """Write PROJECT; the module has to be built, as its bindings are."""
    module.STEP.ensure()
    made = module.STEP.home() / "build" / PROJECT.name
    with Log("rust-analyzer", config.scratch() / "rust-analyzer.log") as log:
        sources.shell(log, module.make("rust-analyzer", "build"))
    if not made.exists():
        raise Failure(f"rust-analyzer: the kernel wrote no {made}; see {log.path}")
    project = with_module(json.loads(made.read_text(encoding="utf-8")))
    PROJECT.write_text(json.dumps(project, indent=4) + "\n", encoding="utf-8")
    return PROJECT

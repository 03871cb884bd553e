# SPDX-License-Identifier: GPL-2.0
"""How to run something in the build root."""

import os
import shlex
from pathlib import Path

from . import config, procs
from .config import Failure
from .step import Step

# A site's own certificate authority has to be known in the root too.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

# What builds see of the environment, on every machine.
VARIABLES = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    # Timestamps and user names must not make two builds differ.
    "KBUILD_BUILD_USER": "nvlink2-vfio",
    "KBUILD_BUILD_HOST": "emulated",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def _root() -> Path:
    """The root's folder."""
    return next(step for step in Step.all if step.name == "root").path()


def _homes() -> list[tuple[str, str]]:
    """Name and home of each step that has one, quoted for a shell."""
    return [(step.name, shlex.quote(str(home))) for step in Step.all if step.name != "root" and (home := step.home()).is_dir()]


def inside(command: list[str], workdir: str = "/", env: dict[str, str] | None = None,
           network: bool = False, all_users: bool = False,
           over: dict[str, str] | None = None, tree: Path | None = None) -> list[str]:
    """The command line that runs `command` in the root.

    The project is at /src (read-only), the cache at /cache, and this checkout's product of
    each step at /made/NAME. Only steps that fetch packages get the network. `all_users` is for the package manager, which
    gives files to users other than root. `over` puts folders of the root in the
    place of others, {folder: its place}. `tree` is a copy of the root to be used instead.
    """
    root = shlex.quote(str(tree or _root()))
    variables = {
        "HOME": config.ROOT_CACHE + "/home",
        "TERM": os.environ.get("TERM", "dumb"),
        **VARIABLES,
        **{k: v for k, v in os.environ.items() if k.lower().endswith("_proxy")},
        **(env or {}),
    }
    made = f"{root}{config.ROOT_MADE}"
    homes = "\n".join(f"[ ! -d {home} ] || {{ mkdir {made}/{name} && mount --bind {home} {made}/{name}; }}"
                      for name, home in _homes())
    covers = "\n".join(f"mount --bind {root}{shlex.quote(new)} {root}{shlex.quote(old)}"
                       for new, old in (over or {}).items())
    mounts = f"""
        set -e
        mount --rbind /dev {root}/dev
        mount -t proc proc {root}/proc || mount --rbind /proc {root}/proc
        mount -t tmpfs tmpfs {root}/tmp
        mkdir -p {root}{config.ROOT_TREE} {root}{config.ROOT_CACHE} {made}
        mount --rbind {shlex.quote(str(config.TREE))} {root}{config.ROOT_TREE}
        mount -o remount,bind,ro {root}{config.ROOT_TREE}
        mount --rbind {shlex.quote(str(config.cache_dir()))} {root}{config.ROOT_CACHE}
        mkdir -p {root}{config.ROOT_CACHE}/home
        mount -t tmpfs tmpfs {made}
        {homes}
        {covers}
        touch {root}/etc/resolv.conf
        [ ! -e /etc/resolv.conf ] || mount --bind "$(readlink -f /etc/resolv.conf)" {root}/etc/resolv.conf
        [ ! -e {CERTIFICATES} ] || mount --bind {CERTIFICATES} {root}{CERTIFICATES}
        exec chroot {root} env -i -C {shlex.quote(workdir)} "$@"
    """
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        unshare.append("--map-root-user")
        if all_users:
            unshare += ["--map-users=auto", "--map-groups=auto"]
    if not network and os.geteuid() == 0:
        unshare.append("--net")
    settings = [f"{name}={value}" for name, value in variables.items()]
    return [*unshare, "sh", "-c", mounts, "root", *settings, *command]


def check_entry() -> None:
    """Fail with the remedy when this machine does not let us enter the root."""
    result = procs.said(inside(["true"]))
    if result.returncode:
        raise Failure(
            "can't enter the build root: " + result.stdout.strip() + "\nRun as root, or allow "
            "unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, and on "
            "Ubuntu kernel.apparmor_restrict_unprivileged_userns=0); in a container, allow mounts."
        )

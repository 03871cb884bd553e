# SPDX-License-Identifier: GPL-2.0
"""The command line of scripts/emu."""

import argparse
import errno
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from .build import (
    clients, config, desk, docs, enter, files, initrd, intree, kernel, kernel_packages, libdw, linux_510, module, packages, procs,
    programs, qemu, qemu_client, root, sources, sysroot,
)
from .build.config import Failure, Unavailable
from .build.step import Step, ensure_all, say
from .checks import mutate
from .host import bench, boot, fuzz, machines, peer

STEPS: list[Step] = [
    root.STEP, sources.LINUX_STEP, sources.QEMU_STEP, sources.TARGET_STEP,
    kernel.STEP, qemu.STEP, module.STEP, initrd.STEP,
    programs.SELFTESTS_STEP, programs.DEMO_STEP, programs.NVLINK2CTL_STEP, programs.FUZZ_STEP,
]
# Made only when named, or by what needs them.
OPTIONAL_STEPS: list[Step] = [
    kernel.DEBUG.step, module.DEBUG_STEP, initrd.DEBUG_STEP, libdw.STEP,
    *(step for of in kernel.VARIANTS.values() for step in (of.step, module.step(of), initrd.step(of))),
    *(step for of in kernel.HEADERS.values() for step in (of.step, module.step(of))),
    desk.STEP, docs.STEP, docs.RUST_STEP,
    packages.STEP, packages.HOST_STEP, kernel_packages.STEP, intree.STEP, linux_510.SOURCE_STEP, linux_510.STEP,
    sysroot.STEP, qemu_client.STEP, qemu_client.NATIVE_STEP, clients.IMAGE_STEP, clients.NEW_IMAGE_STEP, clients.STEP,
    clients.GUEST_510_STEP, bench.STEP, programs.TRIAL_STEP,
    *boot.TREE_STEPS.values(),
]
ALL_STEPS = STEPS + OPTIONAL_STEPS
FOR_BOOT = [qemu.STEP, initrd.STEP]

ENVIRONMENT = """\
environment:
  XDG_CACHE_HOME          where the cache (nvlink2-vfio/) is; ~/.cache
  NVLINK2_DEBIAN_MIRROR   the Debian archive; what this machine's apt uses
  NVLINK2_OLD_MIRROR      an archive of old releases, for Debian bullseye and bookworm
  NVLINK2_SNAPSHOT        an archive as of a date, for what the others do not have any more
  NVLINK2_LINUX           a Linux 7.3 tree or tarball instead of Debian's
  NVLINK2_NEWEST          1: the newest Linux 7.3.N there is, and not the one that the series is made for
  NVLINK2_TIME_FACTOR     limits of time of tests are so many times as long, for a slow machine
  http_proxy, https_proxy passed on
  (an archive's address may have options in brackets before it, as in sources.list)

exit status:
  run: COMMAND's own; 124 time-out; 125 the emulated host ended by itself
  all: 0 done; 1 could not be done, the reason and the remedy are printed; 2 usage; 69 no archive has what is needed;
       130 interrupted
"""

def _host_options(parser: argparse.ArgumentParser) -> None:
    machines.add_options(parser)
    parser.add_argument("--pseries", action="store_true",
                        help="boot a pseries guest without OPAL and GPUs instead")
    parser.add_argument("--file", type=Path, action="append", default=[], metavar="PATH",
                        help="put this file or folder at /files/<name>; may be repeated")
    parser.add_argument("--kernel-config", choices=kernel.BY_NAME, default="host", metavar="NAME",
                        help="boot our kernel of another configuration, built when first used: 'gcc' (compiled by GCC, with "
                        "iommufd as a module), '4k' (pages of 4 KiB, iommufd built in, versions of symbols), 'debug' "
                        "(KASAN, lockdep, fault injection, ...: several times slower)")
    parser.add_argument("--kernel-debug", action="store_const", const="debug", default="host", dest="kernel_config",
                        help="the same as --kernel-config debug")
    parser.add_argument("--kernel", type=Path, metavar="FILE",
                        help="boot this kernel (an ELF vmlinux) instead of ours")
    parser.add_argument("--initrd", type=Path, metavar="FILE",
                        help="start from this root (a cpio archive, compressed or not); COMMAND runs in it")
    parser.add_argument("--append", default="", metavar="TEXT",
                        help="add this to the kernel's command line")
    parser.add_argument("--mutate", action="append", default=[], metavar="NAME",
                        help="put bad firmware between OPAL and Linux; may be repeated; "
                        "see 'emu mutations'")
    parser.add_argument("--disk", type=Path, action="append", default=[], metavar="FILE",
                        help="a raw disk image below the cache; the first is /dev/vda; writes are lost")
    parser.add_argument("--gpu-ram", default="16G", metavar="SIZE",
                        help="RAM of each GPU (default 16G)")
    parser.add_argument("--icount", action="store_true",
                        help="count instructions: each takes a nanosecond of the emulated host's time")
    parser.add_argument("--no-module", action="store_true",
                        help="don't load nvlink2-vfio-pci.ko")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="emu", description="An emulated Witherspoon with V100 GPUs behind unmodified OPAL firmware.",
        epilog=ENVIRONMENT, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    setup = verbs.add_parser(
        "setup", help="build what is missing or outdated",
        description="Build what is missing or outdated in the cache: all steps, or the named ones and "
        "what they need. Steps: " + ", ".join(step.name for step in STEPS) + ". Only when named: "
        + ", ".join(step.name for step in OPTIONAL_STEPS) + ".",
    )
    setup.add_argument("step", nargs="*", metavar="STEP", choices=[[], *(s.name for s in ALL_STEPS)])

    run = verbs.add_parser(
        "run", help="boot, run a command in the emulated host, power off",
        description="Boot the emulated host, run COMMAND in it as root, relay its output, power off, "
        "and exit with COMMAND's exit status.",
        epilog=ENVIRONMENT, formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _host_options(run)
    run.add_argument("--timeout", type=float, default=600, metavar="S",
                     help="stop after S seconds and exit with 124 (default 600)")
    run.add_argument("--console", type=Path, metavar="FILE",
                     help="keep the whole console (firmware and kernel) in FILE")
    run.add_argument("command", nargs="+", metavar="COMMAND", help="after --")

    test = verbs.add_parser(
        "test", help="build the module and run one program of tests/selftests, or some of its tests",
        description="Build what changed of the module and the selftests, and run PROGRAM, or just the named tests "
        "of it, in an emulated host: from an edit to its result in about 20 seconds.",
    )
    _host_options(test)
    test.add_argument("--timeout", type=float, default=600, metavar="S",
                      help="stop after S seconds and exit with 124 (default 600)")
    test.add_argument("--console", type=Path, metavar="FILE",
                      help="keep the whole console (firmware and kernel) in FILE")
    test.add_argument("program", choices=intree.test_names(), metavar="PROGRAM",
                      help="one of: " + ", ".join(intree.test_names()) + "; some take options, as "
                      + ", ".join(f"{name} {remedy}" for name, (_, remedy) in OWN.items() if remedy))
    test.add_argument("test", nargs="*", metavar="TEST", help="a test of PROGRAM, as its output names it: gpu_ram.bounds or bounds")

    shell = verbs.add_parser(
        "shell", help="boot into an interactive shell",
        description="Boot into an interactive shell. The GPUs and bridges are the driver's, and nvlink2ctl is in the PATH.",
    )
    _host_options(shell)

    mutations = verbs.add_parser(
        "mutations", help="list the bad firmware that --mutate knows",
        description="Print name, node, property and defect of each mutation, separated by tabs.",
    )
    machines.add_options(mutations)

    inside = verbs.add_parser(
        "root", help="run a command in the build root",
        description="Run COMMAND in the build root: the project is at /src (read-only), the cache at /cache.",
    )
    inside.add_argument("command", nargs="+", metavar="COMMAND", help="after --")

    product = verbs.add_parser("product", help="print where a step's product is")
    product.add_argument("step", metavar="STEP", choices=[step.name for step in ALL_STEPS])

    measuring = verbs.add_parser(
        "bench", help="print what mapping and using GPU RAM costs",
        description="Run tests/bench/measure.c in an emulated host that counts instructions, and print its "
        "results as tables (Markdown). Exit status 1: something is not as it has to be.",
    )
    measuring.add_argument("--peer", action="store_true",
                           help="measure the original C driver on Linux 5.10 too")
    measuring.add_argument("benchmark", nargs="*", metavar="BENCHMARK", help="only these; see measure.c")

    verbs.add_parser(
        "compare", help="print what the original C driver leaves behind, and this one",
        description="Run tests/selftests/left_behind on Linux 5.10 with the original driver and on our "
        "kernel with this one, on the same machine, and print both as a table (reStructuredText).",
    )

    fuzzing = verbs.add_parser(
        "fuzz", help="do random operations of a hostile user to the driver",
        description="Run tests/fuzz in an emulated host. Fails for a splat, hang, leak, lost access, or an entry "
        "point that was not reached.",
    )
    _host_options(fuzzing)
    fuzzing.add_argument("--ops", type=int, default=20000, metavar="N", help="operations (default 20000)")
    fuzzing.add_argument("--seed", type=int, default=0, metavar="S", help="of the operations (default: by the clock)")
    fuzzing.add_argument("--processes", type=int, default=4, metavar="N", help="side by side (default 4)")
    fuzzing.add_argument("--minimise", action="store_true",
                         help="find the least part of a round that still fails, a boot for each attempt")
    fuzzing.add_argument("--timeout", type=float, default=36000, metavar="S",
                         help="stop after S seconds and exit with 124 (default 36000)")
    fuzzing.add_argument("--console", type=Path, metavar="FILE",
                         help="keep the whole console (firmware and kernel) in FILE")

    pure = verbs.add_parser(
        "fuzz-pure", help="coverage-guided fuzzing of kernel-free parts and of what nvlink2ctl reads, on this machine",
        description="Run the targets of tests/fuzz/pure and scripts/nvlink2ctl/fuzz one after the other. Inputs that "
        "reach something new are kept in the cache.",
    )
    pure.add_argument("--seconds", type=int, default=60, metavar="N", help="in all (default 60)")

    mutants = verbs.add_parser(
        "mutate", help="take checks out of the driver and the kernel, and see that a test fails for each",
        description="Run the tests that have to notice the mutants of tests/mutants.toml, which must pass; then build "
        "each mutant, and run its tests again: one has to fail, and another has to pass. A mutant takes 1 to 10 "
        "minutes, and is stopped after that.",
    )
    mutants.add_argument("--only", default="", metavar="TEXT", help="mutants with TEXT in their names or files")
    mutants.add_argument("--part", default="", metavar="K/N",
                         help="of those every Nth, beginning with the Kth: all of them in N runs")
    mutants.add_argument("--table", action="store_true", help="print the rows for tests/README.md instead")

    clean = verbs.add_parser(
        "clean", help="remove the cache, or products of steps",
        description="Remove the whole cache, which all checkouts share, but for inputs that fuzzing has found; or this "
        "checkout's products of the named steps, or all that this checkout has no use for; say what that frees.",
    )
    clean.add_argument("step", nargs="*", metavar="STEP", choices=[[], *(s.name for s in ALL_STEPS)])
    clean.add_argument("--old", action="store_true", help="what other checkouts, or earlier states of this one, made")
    return parser


def _host(options: argparse.Namespace) -> boot.Host:
    return boot.Host(
        machine=machines.chosen(options), pseries=options.pseries, ours=kernel.BY_NAME[options.kernel_config],
        files=options.file, kernel=options.kernel, initrd=options.initrd,
        append=options.append, module=not options.no_module, mutations=options.mutate,
        disks=options.disk, gpu_ram=options.gpu_ram, icount=options.icount,
    )


# Programs of tests/selftests that cannot pass on the machine that 'emu test' boots by itself: whether the options have
# what each takes, and which would.
OWN: dict[str, tuple[Callable[[argparse.Namespace], bool], str]] = {
    "bad_firmware": (lambda options: bool(options.mutate), "--mutate mem0-reg-zero"),
    "empty_socket": (lambda options: bool(options.empty or options.dead), "--empty GPU1"),
    "fault_injection": (lambda options: options.kernel_config == "debug", "--kernel-debug"),
    "iommufd": (lambda options: options.kernel_config in ("gcc", "4k"), "--kernel-config gcc"),
    "next_kernel": (lambda options: False, ""),
    "pseries": (lambda options: options.pseries, "--pseries"),
}


def check_machine(options: argparse.Namespace) -> None:
    """Refuse to run a program of tests/selftests where it cannot pass."""
    fits, remedy = OWN.get(options.program, (lambda _: True, ""))
    if not fits(options):
        raise Failure(f"{options.program} runs on a machine of its own: " +
                      (f"scripts/emu test {remedy} {options.program}" if remedy else "scripts/check next-kernel"))


def _for_boot(options: argparse.Namespace) -> list[Step]:
    return [qemu.STEP, initrd.step(kernel.BY_NAME[options.kernel_config])]


def ensure(steps: list[Step]) -> None:
    """Make sure that this machine can enter the root, and that `steps` are done."""
    root.STEP.ensure()
    enter.check_entry()
    for failure in ensure_all(steps).values():
        # Why was said when it happened.
        raise type(failure)(str(failure).partition("\n")[0])


def _clean(names: list[str], old: bool) -> int:
    if names or old:
        # Those that need others first: where they are depends on what the others have.
        for step in reversed(Step.all):
            if step.name in names:
                step.clean()
        for step in Step.all if old else []:
            if step.name not in names:
                step.clean_others()
        return 0
    cache = config.cache_dir()
    if mounts := [line.split()[1] for line in Path("/proc/self/mounts").open(encoding="utf-8")
                  if line.split()[1].startswith(f"{cache}/")]:
        raise Failure(f"{mounts[0]} is a mount below the cache; removing would follow it. Unmount it first.")
    if users := [step.name for step in Step.all if step.in_use()]:
        raise Failure(f"another run uses the cache ({', '.join(users)}). Wait for it, or end it.")
    before = config.free_disk()
    kept = [path for pattern in KEPT for path in sorted(cache.glob(pattern)) if path.is_dir() and any(path.iterdir())]
    _remove_but(cache, kept)
    say(f"removed {cache}, {max(0, shutil.disk_usage(cache.parent).free - before) >> 20} MiB free again")
    if kept:
        say("kept what fuzzing has found, which nothing makes again:\n" + "\n".join(map(str, kept)))
    return 0


# What 'emu clean' leaves in the cache.
KEPT = ["fuzz-pure/corpus", "fuzz-pure/crashes", "scratch/*/fuzz"]


def _remove_but(path: Path, kept: list[Path]) -> None:
    """Remove a folder, but for these below it."""
    if not any(each.is_relative_to(path) for each in kept):
        files.remove(path)
    elif path not in kept:
        for child in path.iterdir():
            if child.is_dir() and not child.is_symlink():
                _remove_but(child, kept)
            else:
                child.unlink()


def _dispatch(options: argparse.Namespace) -> int:
    match options.verb:
        case "setup":
            ensure([step for step in ALL_STEPS if step.name in options.step] if options.step else STEPS)
            return 0
        case "run":
            # That program comes with what it needs, which is more than a --file.
            trial = options.command[0] == f"/files/{programs.BUNDLE}"
            ensure([*_for_boot(options), *([programs.TRIAL_STEP] if trial else [])])
            host = _host(options)
            host.files += programs.trial_files() if trial else []
            host.timeout, host.console = options.timeout, options.console
            return boot.run(host, options.command)
        case "test":
            check_machine(options)
            ensure([*_for_boot(options), programs.SELFTESTS_STEP])
            host = _host(options)
            host.timeout, host.console = options.timeout, options.console
            host.files.append(programs.selftests_dir())
            return boot.run(host, ["env", f"MUTATIONS={','.join(options.mutate)}", "/files/selftests/run.sh",
                                   *programs.choice(options.program, options.test)])
        case "shell":
            ensure([*_for_boot(options), programs.NVLINK2CTL_STEP])
            host = _host(options)
            host.files.append(programs.nvlink2ctl_binary())
            return boot.shell(host)
        case "mutations":
            ensure(FOR_BOOT)
            print(boot.mutations(machines.chosen(options)), end="")
            return 0
        case "root":
            ensure([])
            return subprocess.run(enter.inside(options.command), check=False).returncode
        case "compare":
            ensure([*FOR_BOOT, programs.SELFTESTS_STEP, linux_510.STEP])
            return peer.compare()
        case "bench":
            ensure([*FOR_BOOT, programs.SELFTESTS_STEP, bench.STEP, *([linux_510.STEP] if options.peer else [])])
            return bench.run(options.peer, options.benchmark)
        case "fuzz":
            ensure([*_for_boot(options), programs.FUZZ_STEP])

            def make() -> boot.Host:
                host = _host(options)
                host.timeout, host.console = options.timeout, options.console
                return host

            arguments = ["--ops", str(options.ops), "--seed", str(options.seed), "--processes", str(options.processes)]
            return fuzz.run(make, arguments, options.minimise)
        case "fuzz-pure":
            ensure([])
            return fuzz.pure(options.seconds)
        case "mutate" if options.table:
            print(mutate.table(mutate.load()), end="")
            return 0
        case "mutate":
            ensure([*FOR_BOOT, programs.SELFTESTS_STEP])
            return mutate.run(options.only, options.part)
        case "product":
            (step,) = (step for step in ALL_STEPS if step.name == options.step)
            print(step.path())
            return 0
        case _:
            if options.step and options.old:
                raise Failure("clean: STEP and --old exclude each other")
            return _clean(options.step, options.old)


def guarded(name: str, work: Callable[[], int]) -> int:
    """The exit status of `work`, with what went wrong said in the name of the program."""
    procs.on_signals()
    try:
        return work()
    except Unavailable as failure:
        say(f"{name}: {failure}")
        return config.UNAVAILABLE
    except Failure as failure:
        say(f"{name}: {failure}")
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        say(f"{name}: {error.strerror}: {error.filename or 'a file of the cache'}. {config.no_room()}")
        return 1
    except (KeyboardInterrupt, procs.Interrupted):
        say(f"{name}: interrupted; what was finished is kept, run again to go on")
        return 130


def main() -> int:
    """Run the program; return its exit status."""
    options = _parser().parse_args()
    return guarded("emu", lambda: _dispatch(options))

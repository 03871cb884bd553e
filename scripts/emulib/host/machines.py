# SPDX-License-Identifier: GPL-2.0
"""Which emulated machines there are; what makes one is in tests/qemu/machine.py."""

import argparse
from dataclasses import dataclass

from ..build.config import Failure

# GPUs of each chip, by board.
BOARDS = {"redbud": 2, "sequoia": 3}
CHIPS = (1, 2)
# What the models can be told to forgive, and how they may read a shootdown.
RELAXED = ("atsd-flush", "atsd-status", "atsd-4k", "nmmu-cache", "flr", "freeze")
ATSD_IS = ("tlbie", "uvm")
# With how many GPUs, all sockets full, there is a machine.
COUNTS = tuple(sorted(gpus * chips for gpus in BOARDS.values() for chips in CHIPS))


@dataclass(frozen=True)
class Machine:
    """A board with one chip or two, and what its sockets hold."""

    board: str
    chips: int
    # Labels of sockets without a card, and of those whose card does not answer.
    empty: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    # GPU memory is from 4 TiB up, and not from there down.
    small_map: bool = False
    # Of RELAXED and ATSD_IS: nothing that firmware's tree would show.
    relaxed: tuple[str, ...] = ()
    atsd_is: str = ATSD_IS[0]
    # The slots of GPUs have a power controller; ones clear the NPU's PESTB.
    slot_power: bool = False
    pest_ones: bool = False
    # Nothing but firmware, kernel and registers of real ones: no registers of the models, no way to their monitor.
    hide_model: bool = False

    @property
    def name(self) -> str:
        """Board and chips, as files and steps have it."""
        return f"{self.board}-{self.chips}"

    @property
    def sockets(self) -> int:
        """How many GPUs there is room for."""
        return BOARDS[self.board] * self.chips

    def plain(self) -> bool:
        """Whether it is one that has a name: all sockets full, firmware's usual map of memory."""
        return not (self.empty or self.dead or self.small_map or self.slot_power)

    def options(self) -> list[str]:
        """What machine.py, and scripts/emu, take to mean it."""
        return [
            "--machine", self.board, "--chips", str(self.chips),
            *(word for label in self.empty for word in ("--empty", label)),
            *(word for label in self.dead for word in ("--dead", label)),
            *(["--small-memory-map"] if self.small_map else []),
            *(word for name in self.relaxed for word in ("--relaxed", name)),
            *(["--atsd-is", self.atsd_is] if self.atsd_is != ATSD_IS[0] else []),
            *(["--slot-power"] if self.slot_power else []),
            *(["--pest-ones"] if self.pest_ones else []),
            *(["--hide-model"] if self.hide_model else []),
        ]


def of_gpus(gpus: int) -> Machine:
    """The machine with so many GPUs."""
    (found,) = (Machine(board, chips) for board, each in BOARDS.items() for chips in CHIPS if each * chips == gpus)
    return found


# The one of demo, shell and documents, and its half with one chip, which suffices where chips do not matter.
REDBUD = of_gpus(4)
REDBUD_HALF = of_gpus(2)
SEQUOIA = of_gpus(6)
SEQUOIA_HALF = of_gpus(3)
ALL = (REDBUD_HALF, REDBUD, SEQUOIA_HALF, SEQUOIA)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which machine."""
    parser.add_argument("--machine", choices=BOARDS, help=f"the board (default {REDBUD.board})")
    parser.add_argument("--chips", type=int, choices=CHIPS, help=f"its chips (default {REDBUD.chips})")
    parser.add_argument("--gpus", type=int, choices=COUNTS, metavar="N",
                        help="short for both: 2 and 4 are a redbud with one chip and two, 3 and 6 a sequoia")
    parser.add_argument("--empty", action="append", default=[], metavar="LABEL",
                        help="no card is in this socket (GPU0, GPU1; on the second chip GPU3, ...); may be repeated")
    parser.add_argument("--dead", action="append", default=[], metavar="LABEL",
                        help="the card in this socket does not answer; may be repeated")
    parser.add_argument("--small-memory-map", action="store_true",
                        help="GPU memory is from 4 TiB up, and not from there down")
    parser.add_argument("--relaxed", action="append", default=[], choices=RELAXED,
                        help="have the models forgive this, for comparison only; may be repeated")
    parser.add_argument("--atsd-is", choices=ATSD_IS, default=ATSD_IS[0],
                        help=f"how the NPU reads ATSD LAUNCH (default {ATSD_IS[0]})")
    parser.add_argument("--slot-power", action="store_true",
                        help="the slots of GPUs have power controllers, which firmware uses for fundamental resets")
    parser.add_argument("--pest-ones", action="store_true",
                        help="a PE of the NPU that is frozen is thawed by writing ones, not zeros")
    parser.add_argument("--hide-model", action="store_true",
                        help="the GPUs do not say that they are models: nothing trains their links, and the emulated host "
                        "cannot ask its emulator")


def chosen(options: argparse.Namespace) -> Machine:
    """The machine of these options."""
    if options.gpus and (options.machine or options.chips):
        raise Failure("--gpus stands for --machine and --chips: give it alone, or both of them")
    plain = of_gpus(options.gpus) if options.gpus else Machine(options.machine or REDBUD.board, options.chips or REDBUD.chips)
    return Machine(plain.board, plain.chips, tuple(options.empty), tuple(options.dead), options.small_memory_map,
                   relaxed=tuple(options.relaxed), atsd_is=options.atsd_is, slot_power=options.slot_power,
                   pest_ones=options.pest_ones, hide_model=options.hide_model)

# SPDX-License-Identifier: GPL-2.0
"""What the programs in scripts/ are made of: one file here for each program, and three folders.

`build` makes what is booted (each step once, kept by the content of its inputs), `host` boots the emulated host and
looks at it, `checks` are the tests and lints. What is imported is in the same folder or in one before it, in this
order; only the programs (`cli` is scripts/emu, `check`, `dist`, `recordings` is scripts/record) see all three.
"""

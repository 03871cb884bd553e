# SPDX-License-Identifier: GPL-2.0
"""What scripts/emu and scripts/check are made of.

Data flows one way: `config` (where things are) -> `step` (build once, keyed by
content) -> `root` (the Debian build root) -> `sources`, `kernel`, `qemu`,
`module`, `programs`, `initrd` (one build step each) -> `boot` (one emulated
host, one command) -> `cli`.
"""

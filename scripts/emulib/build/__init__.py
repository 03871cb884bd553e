# SPDX-License-Identifier: GPL-2.0
"""What is built, and how.

`config` (where things are) -> `step` (build once, keyed by content) -> `root` (the Debian build root) -> `sources`,
`kernel`, `qemu`, `module`, `programs`, `initrd` (one step each), the products for others (`packages`, `docs`, `intree`),
and what guests and comparisons need (`clients`, `linux_510`).
"""

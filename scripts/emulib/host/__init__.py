# SPDX-License-Identifier: GPL-2.0
"""The emulated host: which machines there are, one boot with one command, and what is done with whole boots."""

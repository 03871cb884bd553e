# SPDX-License-Identifier: GPL-2.0
"""Tests and lints: what each runs, and how what it printed is read."""

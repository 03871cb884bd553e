# SPDX-License-Identifier: GPL-2.0
"""Settings of Sphinx; `make docs` runs it.

The diagrams use kernel-figure, as driver/ is also built as a part of the kernel's documentation.
"""

import os
import sys

# The folder of a kernel tree that has kfigure.py.
sys.path.insert(0, os.environ["KERNEL_SPHINX"])

project = "nvlink2-vfio"
author = "The nvlink2-vfio authors"
project_copyright = author
extensions = ["kfigure"]
exclude_patterns = ["output"]
highlight_language = "none"
html_theme = "alabaster"
# Wide enough that no label of a diagram is shown with less than 11 pixels.
html_theme_options = {"page_width": "1240px", "body_max_width": "none"}
html_show_copyright = False
html_show_sourcelink = False
nitpicky = True
man_pages = [
    ("driver/abi", "nvlink2-vfio-pci", "VFIO access to NVIDIA GPUs on NVLink2", [], 4),
]

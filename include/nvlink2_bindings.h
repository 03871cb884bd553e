/* SPDX-License-Identifier: GPL-2.0 */
/* The C interfaces that bindgen turns into Rust for this driver. */
#ifndef _NVLINK2_BINDINGS_H
#define _NVLINK2_BINDINGS_H

#include <linux/vfio_pci_core.h>
#include <asm/mmu_context.h>
#include <asm/pnv-npu2.h>

#include "nvlink2_helpers.h"

#endif

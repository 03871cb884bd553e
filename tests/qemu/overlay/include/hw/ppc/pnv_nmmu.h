/*
 * QEMU PowerNV, POWER9 nest MMU
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PPC_PNV_NMMU_H
#define PPC_PNV_NMMU_H

#include "exec/memory.h"
#include "hw/ppc/pnv_npu2_xlate.h"
#include "hw/qdev-core.h"
#include "qom/object.h"

#define TYPE_PNV_NMMU "pnv-nmmu"
OBJECT_DECLARE_SIMPLE_TYPE(PnvNmmu, PNV_NMMU)

struct PnvNmmu {
    DeviceState parent_obj;

    MemoryRegion xscom_regs;
    uint64_t ptcr;
};

#endif /* PPC_PNV_NMMU_H */

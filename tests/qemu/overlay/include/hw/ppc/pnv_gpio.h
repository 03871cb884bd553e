/*
 * QEMU PowerNV, POWER9 GPIO
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PPC_PNV_GPIO_H
#define PPC_PNV_GPIO_H

#include "exec/memory.h"
#include "hw/qdev-core.h"
#include "qom/object.h"

#define TYPE_PNV_GPIO "pnv-gpio"
OBJECT_DECLARE_SIMPLE_TYPE(PnvGpio, PNV_GPIO)

struct PnvGpio {
    DeviceState parent_obj;

    MemoryRegion xscom_regs;
    uint64_t out;
    uint64_t enable;
};

#endif /* PPC_PNV_GPIO_H */

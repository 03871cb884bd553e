/*
 * Test engine of the NVLink2 V100 model
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef HW_MISC_NVLINK2_V100_ENGINE_H
#define HW_MISC_NVLINK2_V100_ENGINE_H

#include "hw/misc/nvlink2-v100-regs.h"
#include "hw/pci/pci_device.h"
#include "hw/ppc/pnv_npu2.h"

typedef struct V100AtcEntry {
    bool valid;
    uint32_t flushes;           /* 0, or that many until a shootdown is done */
    PnvXlateContext ctx;
    PnvXlatePage page;
} V100AtcEntry;

/* Copies between the GPU's RAM and what the GPU reaches */
typedef struct V100Engine {
    PCIDevice *pdev;
    PnvNpu2 *npu;
    uint32_t bricks;            /* bit per brick, the links in that order */
    MemoryRegion *ram;
    uint32_t flushes;           /* that it takes to remove what is shot down */
    bool asks_xts;              /* whom it works for, also on a hit */

    /* Registers */
    uint64_t src;
    uint64_t dst;
    uint32_t length;
    uint32_t pasid;
    uint32_t path;
    uint32_t link;
    uint32_t status;
    uint32_t cause;
    uint32_t fault_side;
    uint64_t fault_addr;
    uint64_t fault_gpa;
    uint32_t copied;

    V100AtcEntry atc[V100_ENGINE_ATC_SIZE];
    uint32_t atc_next;
    uint32_t atc_hits;
    uint32_t atc_walks;
    uint32_t atc_shootdowns;
    uint32_t atc_removed;
} V100Engine;

/* Set it up for a device, with the properties that show its state */
void v100_engine_init(V100Engine *engine, PCIDevice *pdev, PnvNpu2 *npu,
                      uint32_t bricks, MemoryRegion *ram, uint32_t flushes,
                      bool asks_xts);
void v100_engine_reset(V100Engine *engine);

/* Registers, 32 bits, at BAR0 offset addr */
uint32_t v100_engine_read(const V100Engine *engine, hwaddr addr);
void v100_engine_write(V100Engine *engine, hwaddr addr, uint32_t val);

void v100_engine_shootdown(V100Engine *engine, const PnvShootdown *shootdown);

#endif /* HW_MISC_NVLINK2_V100_ENGINE_H */

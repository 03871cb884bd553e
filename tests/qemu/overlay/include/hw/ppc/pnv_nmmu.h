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
#include "qemu/notify.h"
#include "qemu/thread.h"
#include "qom/object.h"

#define TYPE_PNV_NMMU "pnv-nmmu"
OBJECT_DECLARE_SIMPLE_TYPE(PnvNmmu, PNV_NMMU)

/*
 * What the walk cache has of a table: the PTE or, with root, the process table's
 * entry that leads to addresses from `from` on; or the partition table's entry
 */
typedef struct PnvNmmuEntry {
    bool valid;
    bool process;               /* process scoped; else partition scoped */
    bool root;
    bool partition;             /* of the partition table, its second half in at */
    bool real;                  /* walked without partition scoped tables */
    uint32_t lpid;
    uint32_t pid;               /* if process scoped */
    unsigned shift;
    uint64_t from;
    uint64_t at;                /* where it is, in its tree's address space */
    hwaddr host;                /* the same, host real */
    uint64_t val;
} PnvNmmuEntry;

#define PNV_NMMU_CACHE_SIZE         256

struct PnvNmmu {
    DeviceState parent_obj;

    MemoryRegion xscom_regs;
    uint64_t ptcr;

    bool walk_cache;
    QemuMutex lock;             /* vCPUs empty the cache */
    PnvNmmuEntry cache[PNV_NMMU_CACHE_SIZE];
    uint32_t cache_next;
    uint64_t cache_hits;
    uint32_t tlbies;            /* that may have emptied it */
    Notifier tlbie;
};

#endif /* PPC_PNV_NMMU_H */

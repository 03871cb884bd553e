/*
 * QEMU PowerNV, translation of accesses that enter a POWER9 chip on NVLink
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PPC_PNV_NPU2_XLATE_H
#define PPC_PNV_NPU2_XLATE_H

#include "exec/hwaddr.h"

typedef struct PnvNmmu PnvNmmu;
typedef struct PnvNpu2 PnvNpu2;

/* Why an access was refused */
typedef enum PnvXlateFault {
    PNV_XLATE_OK,
    /* The link */
    PNV_XLATE_UNTRAINED,
    PNV_XLATE_FENCED,
    /* PE, TVE and TCEs */
    PNV_XLATE_FROZEN,
    PNV_XLATE_NO_TVE,
    PNV_XLATE_TVE_RANGE,
    PNV_XLATE_TCE_INVALID,
    PNV_XLATE_TCE_READ,
    PNV_XLATE_TCE_WRITE,
    /* XTS */
    PNV_XLATE_BDF_MISS,
    PNV_XLATE_PID_MISS,
    PNV_XLATE_HV_DENIED,
    /* Nest MMU */
    PNV_XLATE_NO_PTCR,
    PNV_XLATE_PARTITION_ENTRY,
    PNV_XLATE_PROCESS_ENTRY,
    PNV_XLATE_RADIX,
    PNV_XLATE_PERMISSION,
    PNV_XLATE_PARTITION_RADIX,
    PNV_XLATE_PARTITION_PERMISSION,
} PnvXlateFault;

/* Whose address an effective address is */
typedef struct PnvXlateContext {
    uint32_t lpid;
    uint32_t pid;
    bool hv;            /* MSR HV: the host's, process tables are host real */
    bool pr;            /* MSR PR: problem state */
} PnvXlateContext;

/* A translation: the page around the address that was asked for */
typedef struct PnvXlatePage {
    uint64_t from;
    hwaddr to;          /* host real */
    uint64_t mask;      /* size - 1, from and to are multiples of the size */
    bool read;
    bool write;
} PnvXlatePage;

static inline hwaddr pnv_xlate_to(const PnvXlatePage *page, uint64_t addr)
{
    return page->to | (addr & page->mask);
}

typedef enum PnvShootdownScope {
    PNV_SHOOTDOWN_PAGE,         /* what overlaps a range of a process */
    PNV_SHOOTDOWN_PAGE_ALL_PIDS,        /* the same range of all processes */
    PNV_SHOOTDOWN_PID,
    PNV_SHOOTDOWN_LPID,
} PnvShootdownScope;

typedef struct PnvShootdown {
    PnvShootdownScope scope;
    uint32_t lpid;
    uint32_t pid;
    uint64_t ea;
    uint64_t mask;              /* size - 1 of the range at ea */
    bool flush;                 /* of what was named before as well */
} PnvShootdown;

/*
 * Effective to host real, by the tables that the nest MMU's PTCR leads to.
 * Sets R, and C for a write, in the PTEs used.  On a fault of the partition
 * scoped tables *gpa is the guest real address, else it is unchanged.
 */
PnvXlateFault pnv_nmmu_translate(PnvNmmu *nmmu, const PnvXlateContext *ctx,
                                 uint64_t ea, bool write, PnvXlatePage *page,
                                 uint64_t *gpa);

/* Can a brick take requests of its device? */
PnvXlateFault pnv_npu2_link_check(const PnvNpu2 *npu, unsigned brick);

/* Can the PE of the function bdf do DMA, or is it frozen? */
PnvXlateFault pnv_npu2_pe_check(const PnvNpu2 *npu, unsigned brick,
                                uint16_t bdf);

/* The state of a PE: frozen by a refused request, until software thaws it */
bool pnv_npu2_pe_frozen(const PnvNpu2 *npu, unsigned pe);
void pnv_npu2_freeze_pe(PnvNpu2 *npu, unsigned pe);

/*
 * An untranslated request of the function bdf: by the TVE of its PE, which a
 * refused one freezes
 */
PnvXlateFault pnv_npu2_tce_translate(PnvNpu2 *npu, unsigned brick, uint16_t bdf,
                                     uint64_t addr, bool write,
                                     PnvXlatePage *page);

/* Whom the function bdf works for when it says pasid */
PnvXlateFault pnv_npu2_xts_context(PnvNpu2 *npu, uint16_t bdf, uint32_t pasid,
                                   PnvXlateContext *ctx);

/*
 * TCE_KILL: forget cached TCEs, all (kill_all) or those of a PE at an address.
 */
void pnv_npu2_tce_forget(PnvNpu2 *npu, bool kill_all, unsigned pe,
                         uint64_t addr);

#endif /* PPC_PNV_NPU2_XLATE_H */

/*
 * QEMU PowerNV, POWER9 NPU2: translation of its devices' accesses
 *
 * A request of a device comes in untranslated, or as an effective address of a
 * process (ATS):
 *
 *  - Untranslated: the requester's BDF selects the PE in the map of the brick,
 *    the PE the TVE.  That bypasses, with or without a range check, or leads to
 *    a tree of TCEs.  What is refused freezes the PE, for requests of both kinds.
 *    Firmware disables a TVE by a range check that nothing passes; a TVE of zero,
 *    as after reset, lets everything through.
 *  - ATS: the BDF map gives the LPAR, the PID map the MSR, the nest MMU the
 *    rest.
 *
 * TCEs are cached as in the hardware: only TCE_KILL removes them, so software
 * that forgets it goes on to reach what it unmapped.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "exec/address-spaces.h"
#include "hw/ppc/pnv_npu2.h"
#include "hw/ppc/pnv_npu2_xlate.h"
#include "trace.h"

#define TCE_READ                PPC_BIT(63)
#define TCE_WRITE               PPC_BIT(62)
#define TCE_RPN                 PPC_BITMASK(4, 51)

/*
 * Bits of an untranslated address that reach the TVE: the others of a DMA
 * address on PCIe select one of several TVEs, of which there is one here.
 */
#define TCE_ADDRESS             PPC_BITMASK(8, 63)

/* What is one piece in bypass mode: the unit of the range check */
#define BYPASS_MASK             MAKE_64BIT_MASK(0, 24)

PnvXlateFault pnv_npu2_link_check(const PnvNpu2 *npu, unsigned brick)
{
    if (!npu->brick[brick].trained) {
        return PNV_XLATE_UNTRAINED;
    }
    if (npu->brick[brick].fence != NPU2_FENCE_NONE) {
        return PNV_XLATE_FENCED;
    }
    return PNV_XLATE_OK;
}

/*
 * TVE and TCE
 */

static int npu2_find_pe(const PnvNpu2 *npu, unsigned brick, uint16_t bdf)
{
    for (int i = 0; i < NPU2_BDF2PE_ENTRIES; i++) {
        uint64_t entry = npu->misc[NPU2_MISC_BDF2PE(brick, i) >> 3];

        if ((entry & NPU2_BDF2PE_EN) &&
            GETFIELD(NPU2_BDF2PE_BDF, entry) == bdf) {
            return GETFIELD(NPU2_BDF2PE_PE, entry);
        }
    }
    return -1;
}

static PnvXlateFault npu2_tve_bypass(uint64_t tve, uint64_t addr,
                                     PnvXlatePage *page)
{
    if (tve & NPU2_TVE_RANGE_CHECK) {
        uint64_t start = GETFIELD(NPU2_TVE_START_HIGH, tve) << 48 |
                         GETFIELD(NPU2_TVE_START_LOW, tve) << 24;
        uint64_t end = GETFIELD(NPU2_TVE_END_HIGH, tve) << 48 |
                       GETFIELD(NPU2_TVE_END_LOW, tve) << 24;

        if (addr < start || addr >= end) {
            return PNV_XLATE_TVE_RANGE;
        }
    }
    page->mask = BYPASS_MASK;
    page->from = addr & ~page->mask;
    page->to = page->from;
    page->read = true;
    page->write = true;
    return PNV_XLATE_OK;
}

static PnvXlateFault npu2_tce_walk(uint64_t tve, uint64_t addr,
                                   PnvXlatePage *page)
{
    unsigned levels = GETFIELD(NPU2_TVE_LEVELS, tve) + 1;
    unsigned bits = GETFIELD(NPU2_TVE_SIZE, tve) + 11 - 3;
    unsigned page_shift = GETFIELD(NPU2_TVE_PSIZE, tve) + 11;
    unsigned shift = page_shift + levels * bits;
    uint64_t table = GETFIELD(NPU2_TVE_TTA, tve) << 12;
    uint64_t tce = 0;

    if (shift < 64 && addr >> shift) {
        return PNV_XLATE_TVE_RANGE;
    }
    while (levels--) {
        uint64_t index;
        MemTxResult result;

        shift -= bits;
        index = shift < 64 ? extract64(addr, shift, MIN(bits, 64 - shift)) : 0;
        tce = address_space_ldq_be(&address_space_memory,
                                   table + index * sizeof(tce),
                                   MEMTXATTRS_UNSPECIFIED, &result);
        if (result != MEMTX_OK || !(tce & (TCE_READ | TCE_WRITE))) {
            return PNV_XLATE_TCE_INVALID;
        }
        table = tce & TCE_RPN;
    }
    page->mask = MAKE_64BIT_MASK(0, page_shift);
    page->from = addr & ~page->mask;
    page->to = table & ~page->mask;
    page->read = tce & TCE_READ;
    page->write = tce & TCE_WRITE;
    return PNV_XLATE_OK;
}

static bool npu2_tce_cached(const PnvNpu2 *npu, unsigned pe, uint64_t addr,
                            bool write, PnvXlatePage *page)
{
    for (int i = 0; i < PNV_NPU2_TCE_CACHE_SIZE; i++) {
        const PnvNpu2Tce *tce = &npu->tce_cache[i];

        if (tce->valid && tce->pe == pe &&
            tce->page.from == (addr & ~tce->page.mask) &&
            (write ? tce->page.write : tce->page.read)) {
            *page = tce->page;
            return true;
        }
    }
    return false;
}

static void npu2_tce_cache(PnvNpu2 *npu, unsigned pe, const PnvXlatePage *page)
{
    npu->tce_cache[npu->tce_cache_next] = (PnvNpu2Tce) {
        .valid = true,
        .pe = pe,
        .page = *page,
    };
    npu->tce_cache_next = (npu->tce_cache_next + 1) % PNV_NPU2_TCE_CACHE_SIZE;
}

void pnv_npu2_tce_forget(PnvNpu2 *npu, bool kill_all, unsigned pe,
                         uint64_t addr)
{
    for (int i = 0; i < PNV_NPU2_TCE_CACHE_SIZE; i++) {
        PnvNpu2Tce *tce = &npu->tce_cache[i];

        if (kill_all || (tce->pe == pe &&
                         tce->page.from == (addr & ~tce->page.mask))) {
            tce->valid = false;
        }
    }
}

static PnvXlateFault npu2_tve_translate(PnvNpu2 *npu, unsigned pe,
                                        uint64_t addr, bool write,
                                        PnvXlatePage *page)
{
    PnvXlateFault fault;
    uint64_t tve;

    addr &= TCE_ADDRESS;
    tve = npu->tvt[pe];
    if (!GETFIELD(NPU2_TVE_PSIZE, tve)) {
        return npu2_tve_bypass(tve, addr, page);
    }
    if (npu2_tce_cached(npu, pe, addr, write, page)) {
        return PNV_XLATE_OK;
    }
    fault = npu2_tce_walk(tve, addr, page);
    trace_pnv_npu2_tce(npu->chip_id, pe, addr, write, fault,
                       fault ? 0 : page->to);
    if (fault) {
        return fault;
    }
    if (!(write ? page->write : page->read)) {
        return write ? PNV_XLATE_TCE_WRITE : PNV_XLATE_TCE_READ;
    }
    npu2_tce_cache(npu, pe, page);
    return PNV_XLATE_OK;
}

PnvXlateFault pnv_npu2_pe_check(const PnvNpu2 *npu, unsigned brick,
                                uint16_t bdf)
{
    int pe = npu2_find_pe(npu, brick, bdf);

    return pe >= 0 && pnv_npu2_pe_frozen(npu, pe) ? PNV_XLATE_FROZEN :
                                                    PNV_XLATE_OK;
}

PnvXlateFault pnv_npu2_tce_translate(PnvNpu2 *npu, unsigned brick, uint16_t bdf,
                                     uint64_t addr, bool write,
                                     PnvXlatePage *page)
{
    int pe = npu2_find_pe(npu, brick, bdf);
    PnvXlateFault fault;

    if (pe < 0) {
        return PNV_XLATE_NO_TVE;
    }
    fault = npu2_tve_translate(npu, pe, addr, write, page);
    if (fault) {
        pnv_npu2_freeze_pe(npu, pe);
    }
    return fault;
}

/*
 * ATS
 */

const PnvNpu2PidEntry *pnv_npu2_find_pid(const PnvNpu2 *npu, uint64_t bdf,
                                         uint32_t pasid)
{
    unsigned lparshort = GETFIELD(NPU2_BDF_MAP_LPARSHORT, bdf);

    for (int i = NPU2_XTS_WILDCARDS; i < NPU2_XTS_PID_MAP_SIZE; i++) {
        const PnvNpu2PidEntry *entry = &npu->pid_map[i];

        if ((entry->pid & NPU2_PID_MAP_VALID) &&
            GETFIELD(NPU2_PID_MAP_LPARSHORT, entry->pid) == lparshort &&
            GETFIELD(NPU2_PID_MAP_PASID, entry->pid) == pasid) {
            return entry;
        }
    }
    if ((bdf & NPU2_BDF_MAP_UNFILT) &&
        GETFIELD(NPU2_PID_MAP_LPARSHORT, npu->pid_map[lparshort].pid) ==
        lparshort) {
        return &npu->pid_map[lparshort];
    }
    return NULL;
}

PnvXlateFault pnv_npu2_xts_context(PnvNpu2 *npu, uint16_t bdf, uint32_t pasid,
                                   PnvXlateContext *ctx)
{
    for (int i = 0; i < NPU2_XTS_BDF_MAP_SIZE; i++) {
        uint64_t entry = npu->bdf_map[i];
        const PnvNpu2PidEntry *pid;

        if (!(entry & NPU2_BDF_MAP_VALID) ||
            GETFIELD(NPU2_BDF_MAP_BDF, entry) != bdf ||
            GETFIELD(NPU2_BDF_MAP_XLAT, entry) != NPU2_BDF_MAP_XLAT_RADIX) {
            continue;
        }
        pid = pnv_npu2_find_pid(npu, entry, pasid);
        if (!pid || !(pid->pid & NPU2_PID_MAP_VALID_ATR) ||
            !(pid->pid & NPU2_PID_MAP_MSR_DR)) {
            return PNV_XLATE_PID_MISS;
        }
        ctx->lpid = GETFIELD(NPU2_BDF_MAP_LPARID, entry);
        ctx->pid = pasid;
        ctx->hv = pid->pid & NPU2_PID_MAP_MSR_HV;
        ctx->pr = pid->pid & NPU2_PID_MAP_MSR_PR;
        return ctx->hv && ctx->lpid ? PNV_XLATE_HV_DENIED : PNV_XLATE_OK;
    }
    return PNV_XLATE_BDF_MISS;
}

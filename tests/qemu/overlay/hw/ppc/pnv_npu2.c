/*
 * QEMU PowerNV, POWER9 NPU2 (NVLink2)
 *
 * The NPU2 of a POWER9 chip connects GPUs to the PowerBus over six NVLinks
 * ("bricks", two per "stack").  It gives
 *
 *  - the CPU: coherent access to GPU memory, through one aperture per GPU that
 *    the GPU memory BARs of its bricks decode;
 *  - the GPU: access to system memory, through TCE tables (TVT) or, with ATS,
 *    through the page tables of the process it works for (XTS);
 *  - a guest: eight ATSD register sets that shoot down such translations.
 *
 * It has no PCI interface: the "bridges" that Linux sees are made up by
 * firmware, which turns their config space accesses into accesses here.
 *
 * What is modelled:
 *
 *  - every register the firmware or a driver of the unit may use, reached by
 *    SCOM (directly, and indirectly for the whole ring), through the MMIO BAR
 *    of the ring and through the NTL and PHY BARs, which show parts of it.
 *    Reserved fields read as zero.  An unknown register reads as zero, ignores
 *    writes and is reported with -d unimp.
 *  - BARs that move and switch on and off.  The four CQ state machines of a
 *    stack each hold a copy, the address selects which one answers: a BAR
 *    decodes only while the four agree.
 *  - link training, NTL reset and fences.
 *  - XTS, TVT, ATSD and TCE kill, as tables and requests.  How they translate
 *    is in pnv_npu2_xlate.c, what a shootdown does in pnv_npu2_atsd.c.
 *  - interrupts, by stores to XIVE trigger pages.
 *  - PEs that freeze at a DMA that is refused, until software thaws them.
 *
 * Not modelled: OpenCAPI, NVLink error injection, performance counters, and
 * the HMI that reports a fence or a GPU that is reset behind open links (the
 * machine has none): the latter are counted.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "qapi/visitor.h"
#include "qapi/qapi-builtin-visit.h"
#include "exec/address-spaces.h"
#include "hw/qdev-properties.h"
#include "hw/resettable.h"
#include "hw/ppc/pnv.h"
#include "hw/ppc/pnv_nmmu.h"
#include "hw/ppc/pnv_npu2.h"
#include "hw/ppc/pnv_xscom.h"
#include "system/reset.h"
#include "trace.h"

/*
 * Links, fences and apertures
 */

/* The value of a BAR of a stack, or 0 while its four copies differ */
static uint64_t npu2_bar(PnvNpu2 *npu, unsigned stack, unsigned offset)
{
    uint64_t val = npu->sm[stack][0][offset >> 3];

    for (int i = 1; i < 4; i++) {
        if (npu->sm[stack][i][offset >> 3] != val) {
            return 0;
        }
    }
    return val;
}

static bool npu2_brick_answers(const PnvNpu2Brick *brick)
{
    return brick->trained && brick->fence == NPU2_FENCE_NONE;
}

/*
 * A GPU's memory is interleaved over its links: it takes all of them, and a GPU
 * that is awake
 */
static bool npu2_gpu_answers(const PnvNpu2 *npu, PnvNpu2Gpu *gpu)
{
    if (!gpu->awake(gpu)) {
        return false;
    }
    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        if ((gpu->bricks & BIT(i)) && !npu2_brick_answers(&npu->brick[i])) {
            return false;
        }
    }
    return true;
}

/*
 * Bring what the CPU sees behind a brick up to date after a change of its link,
 * its fence, those of another brick of the same GPU, or the GPU's state.
 */
static void npu2_update_memory(PnvNpu2 *npu)
{
    memory_region_transaction_begin();
    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        PnvNpu2Brick *brick = &npu->brick[i];

        if (brick->gpu) {
            bool answers = npu2_gpu_answers(npu, brick->gpu);

            if (brick->ram.enabled != answers) {
                trace_pnv_npu2_memory(npu->chip_id, i, answers);
                memory_region_set_enabled(&brick->ram, answers);
            }
        }
    }
    memory_region_transaction_commit();
}

static void npu2_raise_irq(PnvNpu2 *npu, unsigned source)
{
    uint64_t cfg = npu->misc[NPU2_MISC_CFG >> 3];
    hwaddr base = npu->misc[NPU2_MISC_IRQ_BASE >> 3] >>
                  NPU2_MISC_IRQ_BASE_SHIFT;
    unsigned shift = cfg & NPU2_MISC_CFG_IPI_PS_64K ? 16 : 12;
    MemTxResult result;

    npu->irqs[source]++;
    if (!base) {
        return;
    }
    if (!(cfg & NPU2_MISC_CFG_IPI_OS_LINUX)) {
        shift++;        /* trigger and management pages alternate */
    }
    base += (hwaddr)source << shift;
    trace_pnv_npu2_irq(npu->chip_id, source, base);
    address_space_stq_be(&address_space_memory, base, 0,
                         MEMTXATTRS_UNSPECIFIED, &result);
    if (result != MEMTX_OK) {
        qemu_log_mask(LOG_GUEST_ERROR, "npu2: no trigger page at 0x%"
                      HWADDR_PRIx " for source %u\n", base, source);
    }
}

static void npu2_set_fence(PnvNpu2Brick *brick, uint32_t fence)
{
    if (brick->fence != fence) {
        trace_pnv_npu2_fence(brick->npu->chip_id, brick->index, fence);
        brick->fence = fence;
    }
}

/* Fence a brick on an error: it stays until MISC_FENCE_STATE is cleared */
static void npu2_fence_brick(PnvNpu2Brick *brick)
{
    PnvNpu2 *npu = brick->npu;
    uint64_t *state = &npu->misc[NPU2_MISC_FENCE_STATE >> 3];

    if (*state & NPU2_FENCE_STATE_BRICK(brick->index)) {
        return;
    }
    *state |= NPU2_FENCE_STATE_BRICK(brick->index);
    npu2_set_fence(brick, NPU2_FENCE_FULL);
    npu2_update_memory(npu);
    npu2_raise_irq(npu, NPU2_IRQ_NTL(brick->index));
}

static void npu2_unfence_brick(PnvNpu2Brick *brick)
{
    PnvNpu2 *npu = brick->npu;

    npu->misc[NPU2_MISC_FENCE_STATE >> 3] &=
        ~NPU2_FENCE_STATE_BRICK(brick->index);
    npu2_set_fence(brick, NPU2_FENCE_NONE);
}

/*
 * A DMA that translation refuses stops all of its PE, and reports that: PESTB
 * says so until software clears it.
 */
void pnv_npu2_freeze_pe(PnvNpu2 *npu, unsigned pe)
{
    uint64_t *pestb = &npu->misc[NPU2_MISC_PESTB(pe) >> 3];

    if (!npu->freeze || (*pestb & NPU2_PESTB_DMA_STOPPED)) {
        return;
    }
    *pestb |= NPU2_PESTB_DMA_STOPPED;
    npu2_raise_irq(npu, NPU2_IRQ_TCE);
}

bool pnv_npu2_pe_frozen(const PnvNpu2 *npu, unsigned pe)
{
    return npu->misc[NPU2_MISC_PESTB(pe) >> 3] & NPU2_PESTB_DMA_STOPPED;
}

/*
 * Nobody published how PESTB is cleared: by writing what it is to be, as the
 * PEST of PHBs and of the NPU before this one, or by writing ones.
 */
static void npu2_pestb_write(PnvNpu2 *npu, unsigned offset, uint64_t val)
{
    uint64_t *pestb = &npu->misc[offset >> 3];

    *pestb = npu->pest_w1c ? *pestb & ~val : val;
}

static void npu2_set_trained(PnvNpu2Brick *brick, bool trained)
{
    if (brick->trained != trained) {
        trace_pnv_npu2_link(brick->npu->chip_id, brick->index, trained);
        brick->trained = trained;
    }
}

/*
 * A link trains when both ends are up.  The NPU's is once firmware's procedures
 * have calibrated and started all lanes of the receiver, in that order, since
 * the NTL was reset, with IOVALID raised and the DL told to train.
 */

/* As a Witherspoon is wired; lane 0 is on the left */
static const uint32_t npu2_brick_lanes[PNV_NPU2_BRICKS] = {
    0xf1e000, 0x0e1870, 0x00078f, 0x00078f, 0x0e1870, 0xf1e000,
};

#define NPU2_LANE(n)            BIT(NPU2_PHY_LANES - 1 - (n))

static PnvNpu2Obus *npu2_obus(PnvNpu2Brick *brick)
{
    return &brick->npu->obus[brick->index / 3];
}

/* On the second OBUS bricks count down */
static uint64_t npu2_iovalid(const PnvNpu2Brick *brick)
{
    unsigned i = brick->index;

    return PPC_BIT(6 + (i < 3 ? i : 5 - i));
}

static bool npu2_ntl_in_reset(const PnvNpu2Brick *brick)
{
    uint64_t cfg1 = brick->npu->ntl[brick->index][NPU2_NTL_MISC_CFG1 >> 3];

    return GETFIELD(NPU2_NTL_CFG1_FENCE, cfg1) == NPU2_FENCE_FULL;
}

static bool npu2_brick_up(PnvNpu2Brick *brick)
{
    const PnvNpu2Obus *obus = npu2_obus(brick);

    return !npu2_ntl_in_reset(brick) && (obus->iovalid & npu2_iovalid(brick)) &&
           (brick->npu->dl[brick->index][PNV_NPU2_DL_CONFIG] &
            NPU2_DL_CONFIG_TRAIN) &&
           !(npu2_brick_lanes[brick->index] & ~obus->running);
}

/*
 * After a change of either end.  One that goes down while the NPU lets accesses
 * through is an error.
 */
static void npu2_update_link(PnvNpu2Brick *brick)
{
    bool up = brick->gpu && brick->gpu->up && npu2_brick_up(brick);

    if (!up && npu2_brick_answers(brick)) {
        npu2_fence_brick(brick);
    }
    npu2_set_trained(brick, up);
}

static void npu2_update_links(PnvNpu2 *npu)
{
    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        npu2_update_link(&npu->brick[i]);
    }
    npu2_update_memory(npu);
}

/* The receiver does not keep what it learnt of the other end */
static void npu2_stop_lanes(PnvNpu2Brick *brick)
{
    npu2_obus(brick)->running &= ~npu2_brick_lanes[brick->index];
}

/*
 * NTL_MISC_CFG1: bits 8 and 9 request the fence that CQ_FENCE_STATUS then
 * shows.  Both set: the NTL is in reset, and its link goes down with it.
 * Releasing bit 9 leaves the reset with the brick still fenced; releasing bit 8
 * as well, once the credits are there, opens it.
 */
static void npu2_ntl_cfg1_written(PnvNpu2Brick *brick)
{
    PnvNpu2 *npu = brick->npu;
    uint64_t cfg1 = npu->ntl[brick->index][NPU2_NTL_MISC_CFG1 >> 3];
    uint32_t fence = GETFIELD(NPU2_NTL_CFG1_FENCE, cfg1);

    npu2_set_fence(brick, fence);
    if (fence == NPU2_FENCE_FULL) {
        npu2_stop_lanes(brick);
    }
    npu2_update_link(brick);
    npu2_update_memory(npu);
}

/*
 * MISC_FENCE_STATE: bit n reads as one while brick n is fenced, writing one to
 * it clears the fence; writing one to bit n + 6 fences the brick.
 */
static void npu2_fence_state_write(PnvNpu2 *npu, uint64_t val)
{
    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        if (val & NPU2_FENCE_STATE_BRICK(i)) {
            npu2_unfence_brick(&npu->brick[i]);
        }
        if (val & NPU2_FENCE_STATE_REQUEST(i)) {
            npu2_fence_brick(&npu->brick[i]);
        }
    }
    npu2_update_memory(npu);
}

static void npu2_unanswered(PnvNpu2Brick *brick, hwaddr offset, bool write)
{
    trace_pnv_npu2_unanswered(brick->npu->chip_id, brick->index,
                              brick->base + offset, write);
    brick->unanswered++;
    if (brick->gpu) {
        brick->gpu->unanswered(brick->gpu, offset);
    }
    npu2_fence_brick(brick);
}

/* An error is a machine check for the CPU */
static MemTxResult npu2_nothing_result(const PnvNpu2Brick *brick)
{
    return brick->npu->machine_checks ? MEMTX_ERROR : MEMTX_OK;
}

static MemTxResult npu2_nothing_read(void *opaque, hwaddr addr, uint64_t *val,
                                     unsigned size, MemTxAttrs attrs)
{
    npu2_unanswered(opaque, addr, false);
    *val = MAKE_64BIT_MASK(0, size * 8);
    return npu2_nothing_result(opaque);
}

static MemTxResult npu2_nothing_write(void *opaque, hwaddr addr, uint64_t val,
                                      unsigned size, MemTxAttrs attrs)
{
    npu2_unanswered(opaque, addr, true);
    return npu2_nothing_result(opaque);
}

static const MemoryRegionOps npu2_nothing_ops = {
    .read_with_attrs = npu2_nothing_read,
    .write_with_attrs = npu2_nothing_write,
    .valid.min_access_size = 1,
    .valid.max_access_size = 8,
    .valid.unaligned = true,
    .impl.min_access_size = 1,
    .impl.max_access_size = 8,
    .impl.unaligned = true,
    .endianness = DEVICE_BIG_ENDIAN,
};

/*
 * BARs
 */

static void npu2_map(PnvNpu2 *npu, MemoryRegion *mr, bool enable, hwaddr base,
                     uint64_t size)
{
    /* Not memory_region_is_mapped(): the ring is mapped through its aliases */
    bool mapped = mr->container;

    if (mapped == enable &&
        (!enable || (mr->addr == base && memory_region_size(mr) == size))) {
        return;
    }
    if (mapped) {
        memory_region_del_subregion(get_system_memory(), mr);
    }
    if (enable) {
        memory_region_set_size(mr, size);
        memory_region_add_subregion_overlap(get_system_memory(), base, mr, 1);
    }
    trace_pnv_npu2_bar(npu->chip_id, memory_region_name(mr), enable, base,
                       size);
}

/*
 * The bricks of one GPU decode the same aperture; the lowest of them owns it.
 */
static void npu2_update_apertures(PnvNpu2 *npu)
{
    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        PnvNpu2Brick *brick = &npu->brick[i];
        uint64_t bar = npu2_bar(npu, i / 2, NPU2_SM_GPU_MEM_BAR(i % 2));
        bool enable = bar & NPU2_GPU_MEM_BAR_EN;
        uint64_t size = 1ull << (30 + GETFIELD(NPU2_GPU_MEM_BAR_SIZE, bar));

        brick->base = enable ? GETFIELD(NPU2_GPU_MEM_BAR_ADDR, bar) << 30 : 0;
        brick->mapped = enable;
        for (int j = 0; j < i; j++) {
            if (npu->brick[j].mapped && npu->brick[j].base == brick->base) {
                brick->mapped = false;
            }
        }
        npu2_map(npu, &brick->aperture, brick->mapped, brick->base, size);
    }
}

static void npu2_update_bars(PnvNpu2 *npu)
{
    memory_region_transaction_begin();

    for (int s = 0; s < PNV_NPU2_STACKS; s++) {
        uint64_t bar = npu2_bar(npu, s, NPU2_SM_PHY_BAR);

        npu2_map(npu, s == 0 ? &npu->ring : &npu->phy[s - 1],
                 bar & NPU2_PHY_BAR_EN,
                 NPU2_BAR_MMIO_SPACE | GETFIELD(NPU2_PHY_BAR_ADDR, bar) << 21,
                 s == 0 ? NPU2_RING_SIZE : 2 * MiB);

        bar = npu2_bar(npu, s, NPU2_SM_GENID_BAR);
        npu2_map(npu, &npu->genid[s], bar & NPU2_GENID_BAR_EN,
                 NPU2_BAR_MMIO_SPACE |
                 GETFIELD(NPU2_GENID_BAR_ADDR, bar) << 16,
                 128 * KiB);

        for (int b = 0; b < 2; b++) {
            bar = npu2_bar(npu, s, NPU2_SM_NTL_BAR(b));
            npu2_map(npu, &npu->brick[2 * s + b].ntl, bar & NPU2_NTL_BAR_EN,
                     NPU2_BAR_MMIO_SPACE |
                     GETFIELD(NPU2_NTL_BAR_ADDR, bar) << 16,
                     MIN(64 * KiB << GETFIELD(NPU2_NTL_BAR_SIZE, bar),
                         128 * KiB));
        }
    }
    npu2_update_apertures(npu);

    memory_region_transaction_commit();
}

/*
 * The register ring
 */

typedef struct Npu2Reg {
    const char *name;
    uint16_t offset;
    uint16_t count;         /* consecutive registers, 0 = 1 */
    uint64_t fields;        /* implemented and writable, 0 = all */
    bool read_only;
} Npu2Reg;

/* CQ state machine, four per stack */
static const Npu2Reg npu2_sm_regs[] = {
    { "CQ_SM_MISC_CFG0",        0x000 },
    { "CQ_SM_MISC_CFG1",        0x008 },
    { "CQ_SM_PB_EPSILON",       0x010 },
    { "CQ_SM_TIMER_CFG",        0x018 },
    { "CQ_SM_GPU_MEM_BAR",      0x020, 2 },
    { "CQ_SM_PHY_BAR",          0x030 },
    { "CQ_SM_GENID_BAR",        0x038 },
    { "CQ_SM_LOW_WATER",        0x040 },
    { "CQ_SM_HIGH_WATER",       0x048 },
    { "CQ_SM_RELAXED_CFG",      0x050, 3 },
    { "CQ_SM_NTL_BAR",          0x068, 2 },
    { "CQ_SM_PERF_CFG",         0x078 },
    { "CQ_SM_INHIBIT_CFG",      0x080 },
    { "CQ_SM_CERR_MESSAGE",     0x088, 5, .read_only = true },
    { "CQ_SM_STATUS",           0x0b0, .read_only = true },
    { "CQ_SM_CERR_FIRST",       0x0b8, 3 },
    { "CQ_SM_CERR_MASK",        0x0d0, 3 },
    { "CQ_SM_CERR_HOLD",        0x0e8, 3 },
    { "CQ_SM_PERF_MATCH",       0x100, 3 },
    { "CQ_SM_DBG_CFG",          0x118, 2 },
    { "CQ_SM_CERR_MESSAGE5",    0x128, 2, .read_only = true },
    { "CQ_SM_MISC_CFG2",        0x148 },
    { }
};

/* CQ control, one per stack */
static const Npu2Reg npu2_ctl_regs[] = {
    { "CQ_CTL_MISC_CFG",        0x000 },
    { "CQ_CTL_MISC_CFG1",       0x008 },
    { "CQ_CTL_FUTURE_CFG",      0x010, 2 },
    { "CQ_CTL_PERF",            0x020, 4 },
    { "CQ_CTL_DBG_CFG",         0x040, 2 },
    { "CQ_CTL_BRICK_BDF2PE",    0x050, 6,
      NPU2_BDF2PE_EN | PPC_BIT(1) | NPU2_BDF2PE_PE | NPU2_BDF2PE_BDF },
    { "CQ_CTL_LPC_THRESHOLD",   0x080 },
    { "CQ_CTL_INHIBIT_CFG",     0x088 },
    { "CQ_CTL_STATUS",          0x090, .read_only = true },
    { "CQ_CTL_MISC_PA_CONFIG",  0x0a0, 4 },
    { "CQ_CTL_CERR_MESSAGE",    0x0c0, 2, .read_only = true },
    { "CQ_CTL_CERR_FIRST",      0x0d0, 2 },
    { "CQ_CTL_CERR_MASK",       0x0e0, 2 },
    { "CQ_CTL_CERR_HOLD",       0x0f0, 2 },
    { "CQ_CTL_CONFIG_ADDR",     0x120, 2 },
    { "CQ_CTL_FENCE_CONTROL",   0x140, 2 },
    { }
};

/* CQ data, one per stack */
static const Npu2Reg npu2_dat_regs[] = {
    { "CQ_DAT_MISC_CFG",        0x008 },
    { "CQ_DAT_ECC_CFG",         0x010 },
    { "CQ_DAT_SCRATCH0",        0x018 },
    { "CQ_DAT_ECC",             0x020, 3 },
    { "CQ_DAT_PARITY",          0x038, 3 },
    { "CQ_DAT_LOGIC",           0x050, 3 },
    { "CQ_DAT_RAS_MSG",         0x068, 2, .read_only = true },
    { "CQ_DAT_DBG_CFG",         0x080, 2 },
    { "CQ_DAT_SCRATCH1",        0x0e0 },
    { "CQ_DAT_BE_BUF",          0x100, 4 },
    { "CQ_DAT_ERR_INJCT",       0x130, 2 },
    { "CQ_DAT_INHIBIT_CFG",     0x140 },
    { }
};

/* NTL, one per brick */
static const Npu2Reg npu2_ntl_regs[] = {
    { "NTL_MISC_CFG2",          NPU2_NTL_MISC_CFG2 },
    { "NTL_MISC_CFG3",          0x008 },
    { "NTL_CERR_HOLD1",         0x010 },
    { "NTL_CERR_MASK1",         0x018 },
    { "NTL_CERR_FIRST1",        0x020, 2 },
    { "NTL_CERR_HOLD2",         0x030 },
    { "NTL_CERR_MASK2",         0x038 },
    { "NTL_CERR_FIRST2",        0x040, 2 },
    { "NTL_SCRATCH2",           0x050, 2 },
    { "NTL_DBG",                0x060, 2 },
    { "NTL_PERF",               0x070, 2 },
    { "NTL_HDR_CFG",            0x080, 6 },
    { "NTL_PRI_CFG",            0x0b0 },
    { "NTL_MISC_CFG1",          NPU2_NTL_MISC_CFG1 },
    { "NTL_SCRATCH1",           0x0d0 },
    { "NTL_LOW_POWER_CFG",      0x0e0 },
    { "NTL_DBG_INHIBIT_CFG",    0x220 },
    { "NTL_DISPLAY",            0x280, 4 },
    { "NTL_RAS_ERR_MSG",        0x300, 4, .read_only = true },
    { "NTL_ECC_ERR_INJCT",      0x340 },
    { "NTL_CREDIT_TX",          0x400, 8 },
    { "NTL_CREDIT_RX",          NPU2_NTL_CREDIT_RX, 10 },
    { "NTL_CQ_FENCE_STATUS",    NPU2_NTL_CQ_FENCE_STATUS, .read_only = true },
    { }
};

/* DL, one per brick, 32-bit registers */
static const Npu2Reg npu2_dl_regs[] = {
    { "DL_CLK_CTRL",            NPU2_DL_CLK_CTRL },
    { "DL_CONTROL",             NPU2_DL_CONTROL },
    { "DL_CONFIG",              NPU2_DL_CONFIG },   /* PNV_NPU2_DL_CONFIG */
    { }
};

/* Address translation by TCE */
static const Npu2Reg npu2_ats_regs[] = {
    { "ATS_PMU",                0x000, 2 },
    { "ATS_ERR_INJCT",          0x010 },
    { "ATS_DBG_CTL",            0x018 },
    { "ATS_CHICKEN_SWITCH",     0x020 },
    { "ATS_ERR_RPT",            0x028, 2 },
    { "ATS_CTL",                0x100 },
    { "ATS_IODA_TBL",           NPU2_ATS_IODA_TBL, 1,
      NPU2_IODA_TBL_AUTOINC | NPU2_IODA_TBL_SELECT | NPU2_IODA_TBL_INDEX },
    { "ATS_IODA_DATA",          NPU2_ATS_IODA_DATA },
    { "ATS_DMA_SYNC",           0x118 },
    { "ATS_TCE_KILL",           NPU2_ATS_TCE_KILL },
    { "ATS_QUIESCE_DMA",        0x128 },
    { "ATS_TCE_TIMEOUT_CTL",    0x130 },
    { "ATS_ERR_STATUS",         0x138 },
    { "ATS_ERR_MASK",           0x140 },
    { "ATS_ERR_FIRST",          0x148, 2 },
    { }
};

/* Address translation services */
static const Npu2Reg npu2_xts_regs[] = {
    { "XTS_ERR_RPT",            0x000, 4 },
    { "XTS_CFG",                NPU2_XTS_CFG, 2 },
    { "XTS_DBG_CFG",            0x030, 2 },
    { "XTS_PMU_CNT",            0x040 },
    { "XTS_ATR_MISS",           0x050, 3 },
    { "XTS_MMIO_ATSD_LPARID",   NPU2_XTS_ATSD_LPARID(0), NPU2_ATSD_COUNT,
      NPU2_ATSD_LPARID_HV | NPU2_ATSD_LPARID_LPARID },
    { "XTS_BDF_MAP",            NPU2_XTS_BDF_MAP(0), NPU2_XTS_BDF_MAP_SIZE,
      NPU2_BDF_MAP_VALID | NPU2_BDF_MAP_UNFILT | NPU2_BDF_MAP_STACK |
      NPU2_BDF_MAP_BRICK | NPU2_BDF_MAP_BDF | NPU2_BDF_MAP_XLAT |
      NPU2_BDF_MAP_LPCR | NPU2_BDF_MAP_LPARSHORT | NPU2_BDF_MAP_LPARID },
    { "XTS_PID_MAP",            NPU2_XTS_PID_MAP(0),
      4 * NPU2_XTS_PID_MAP_SIZE },
    { }
};

static const Npu2Reg npu2_misc_regs[] = {
    { "MISC_DBG_CFG",           0x000 },
    { "MISC_RELAXED_CFG",       0x008 },
    { "MISC_LCO_CFG",           0x010 },
    { "MISC_OPTICAL_IO_CFG0",   0x018 },
    { "MISC_ERR_RPT",           0x020, 2 },
    { "MISC_CFG",               NPU2_MISC_CFG },
    { "MISC_INHIBIT_CFG",       0x038 },
    { "MISC_FREEZE_ENABLE",     0x040, 2 },
    { "MISC_FENCE_ENABLE",      0x050, 2 },
    { "MISC_IRQ_ENABLE",        0x060, 2 },
    { "MISC_NPU_VERSION",       0x080, .read_only = true },
    { "MISC_ERR_CTL_CFG",       0x088 },
    { "MISC_RING_ACK_ERR",      0x090 },
    { "MISC_IRQ_BASE",          NPU2_MISC_IRQ_BASE },
    { "MISC_ERR_BRICK_GROUP",   0x0a0 },
    { "MISC_FREEZE_STATE",      0x0a8 },
    { "MISC_FENCE_STATE",       NPU2_MISC_FENCE_STATE },
    { "MISC_IRQ_REQUEST",       0x0b8, .read_only = true },
    { "MISC_BRICK_BDF2PE",      NPU2_MISC_BDF2PE(0, 0), 18,
      NPU2_BDF2PE_EN | NPU2_BDF2PE_PE | NPU2_BDF2PE_BDF },
    { "MISC_PESTB",             NPU2_MISC_PESTB(0), NPU2_PESTB_ENTRIES,
      NPU2_PESTB_DMA_STOPPED },
    { "MISC_IRQ_LOG",           0x300, 16 },
    { "MISC_FENCE_ENABLE2",     0x400 },
    { "MISC_IRQ_ENABLE2",       0x408 },
    { }
};

/* MMIO shootdown, one per block of the ATSD stack */
static const Npu2Reg npu2_atsd_regs[] = {
    { "ATSD_LAUNCH",            NPU2_ATSD_LAUNCH },
    { "ATSD_AVA",               NPU2_ATSD_AVA },
    { "ATSD_STATUS",            NPU2_ATSD_STATUS, .read_only = true },
    { }
};

typedef enum Npu2Kind {
    NPU2_KIND_NONE,
    NPU2_KIND_SM,
    NPU2_KIND_CTL,
    NPU2_KIND_DAT,
    NPU2_KIND_NTL,
    NPU2_KIND_DL,
    NPU2_KIND_ATS,
    NPU2_KIND_XTS,
    NPU2_KIND_MISC,
    NPU2_KIND_ATSD,
} Npu2Kind;

static const struct {
    const Npu2Reg *regs;
    unsigned width;
} npu2_kinds[] = {
    [NPU2_KIND_SM]   = { npu2_sm_regs,   8 },
    [NPU2_KIND_CTL]  = { npu2_ctl_regs,  8 },
    [NPU2_KIND_DAT]  = { npu2_dat_regs,  8 },
    [NPU2_KIND_NTL]  = { npu2_ntl_regs,  8 },
    [NPU2_KIND_DL]   = { npu2_dl_regs,   4 },
    [NPU2_KIND_ATS]  = { npu2_ats_regs,  8 },
    [NPU2_KIND_XTS]  = { npu2_xts_regs,  8 },
    [NPU2_KIND_MISC] = { npu2_misc_regs, 8 },
    [NPU2_KIND_ATSD] = { npu2_atsd_regs, 8 },
};

/* A register of the ring, and where it is kept */
typedef struct Npu2Where {
    Npu2Kind kind;
    unsigned unit;          /* stack, brick or ATSD block */
    unsigned sub;           /* state machine within the stack */
    unsigned offset;        /* of the register, within its block */
    unsigned width;
    const Npu2Reg *reg;
    uint64_t *val;
} Npu2Where;

static Npu2Kind npu2_block_kind(unsigned stack, unsigned block,
                                unsigned *unit, unsigned *sub)
{
    if (stack == NPU2_STACK_MISC) {
        *unit = 0;
        switch (block) {
        case NPU2_BLOCK_ATS:
            return NPU2_KIND_ATS;
        case NPU2_BLOCK_XTS:
            return NPU2_KIND_XTS;
        case NPU2_BLOCK_MISC:
            return NPU2_KIND_MISC;
        }
        return NPU2_KIND_NONE;
    }
    if (stack == NPU2_STACK_ATSD) {
        *unit = block;
        return block < NPU2_ATSD_COUNT ? NPU2_KIND_ATSD : NPU2_KIND_NONE;
    }
    if (stack > NPU2_STACK_ATSD || stack % 4 >= PNV_NPU2_STACKS) {
        return NPU2_KIND_NONE;
    }
    stack %= 4;     /* the user page and the hypervisor's show the same */
    switch (block) {
    case NPU2_BLOCK_SM(0) ... NPU2_BLOCK_SM(3):
        *unit = stack;
        *sub = block;
        return NPU2_KIND_SM;
    case NPU2_BLOCK_CTL:
        *unit = stack;
        return NPU2_KIND_CTL;
    case NPU2_BLOCK_DAT:
        *unit = stack;
        return NPU2_KIND_DAT;
    case NPU2_BLOCK_DL(0):
    case NPU2_BLOCK_DL(1):
        *unit = 2 * stack + (block - NPU2_BLOCK_DL(0)) / 2;
        return NPU2_KIND_DL;
    case NPU2_BLOCK_NTL(0):
    case NPU2_BLOCK_NTL(1):
        *unit = 2 * stack + (block - NPU2_BLOCK_NTL(0)) / 2;
        return NPU2_KIND_NTL;
    }
    return NPU2_KIND_NONE;
}

static uint64_t *npu2_xts_storage(PnvNpu2 *npu, unsigned offset)
{
    if (offset >= NPU2_XTS_PID_MAP(0)) {
        PnvNpu2PidEntry *entry =
            &npu->pid_map[(offset - NPU2_XTS_PID_MAP(0)) / 0x20];

        switch (offset & 0x18) {
        case 0x00:
            return &entry->pid;
        case 0x08:
            return &entry->seidr;
        case 0x10:
            return &entry->amr;
        }
        return NULL;
    }
    if (offset >= NPU2_XTS_BDF_MAP(0)) {
        return &npu->bdf_map[(offset - NPU2_XTS_BDF_MAP(0)) / 8];
    }
    if (offset >= NPU2_XTS_ATSD_LPARID(0)) {
        return &npu->atsd_lparid[(offset - NPU2_XTS_ATSD_LPARID(0)) / 8];
    }
    return &npu->xts[offset >> 3];
}

static uint64_t *npu2_storage(PnvNpu2 *npu, const Npu2Where *where)
{
    unsigned index = where->offset >> 3;

    switch (where->kind) {
    case NPU2_KIND_SM:
        return &npu->sm[where->unit][where->sub][index];
    case NPU2_KIND_CTL:
        return &npu->ctl[where->unit][index];
    case NPU2_KIND_DAT:
        return &npu->dat[where->unit][index];
    case NPU2_KIND_NTL:
        return &npu->ntl[where->unit][index];
    case NPU2_KIND_DL:
        return &npu->dl[where->unit][where->reg - npu2_dl_regs];
    case NPU2_KIND_ATS:
        return &npu->ats[index];
    case NPU2_KIND_XTS:
        return npu2_xts_storage(npu, where->offset);
    case NPU2_KIND_MISC:
        return &npu->misc[index];
    case NPU2_KIND_ATSD:
        return where->offset == NPU2_ATSD_LAUNCH ?
               &npu->atsd[where->unit].last_launch :
               where->offset == NPU2_ATSD_AVA ?
               &npu->atsd[where->unit].ava : NULL;
    default:
        g_assert_not_reached();
    }
}

static bool npu2_find(PnvNpu2 *npu, uint32_t addr, Npu2Where *where)
{
    const Npu2Reg *reg;

    where->sub = 0;
    where->kind = npu2_block_kind(NPU2_RING_STACK(addr), NPU2_RING_BLOCK(addr),
                                  &where->unit, &where->sub);
    if (where->kind == NPU2_KIND_NONE) {
        return false;
    }
    where->width = npu2_kinds[where->kind].width;
    where->offset = NPU2_RING_OFFSET(addr) & ~(where->width - 1);
    for (reg = npu2_kinds[where->kind].regs; reg->name; reg++) {
        unsigned count = reg->count ? reg->count : 1;

        if (where->offset >= reg->offset &&
            where->offset < reg->offset + count * where->width) {
            where->reg = reg;
            where->val = npu2_storage(npu, where);
            return true;
        }
    }
    return false;
}

static uint64_t npu2_fields(const Npu2Where *where)
{
    if (where->kind == NPU2_KIND_XTS && where->offset >= NPU2_XTS_PID_MAP(0) &&
        !(where->offset & 0x18)) {
        return NPU2_PID_MAP_VALID | NPU2_PID_MAP_MSR |
               NPU2_PID_MAP_LPARSHORT | NPU2_PID_MAP_PASID;
    }
    if (where->width == 4) {
        return UINT32_MAX;
    }
    return where->reg->fields ? where->reg->fields : UINT64_MAX;
}

/*
 * IODA_TBL selects a table and an index for IODA_DATA; with AUTOINC each access
 * of the data moves on to the next entry.
 */
static uint64_t *npu2_ioda_entry(PnvNpu2 *npu)
{
    uint64_t *tbl = &npu->ats[NPU2_ATS_IODA_TBL >> 3];
    unsigned select = GETFIELD(NPU2_IODA_TBL_SELECT, *tbl);
    unsigned index = GETFIELD(NPU2_IODA_TBL_INDEX, *tbl);

    if (select != NPU2_IODA_TBL_TVT) {
        qemu_log_mask(LOG_UNIMP, "npu2: IODA table %u\n", select);
        return NULL;
    }
    if (index >= NPU2_TVT_SIZE) {
        qemu_log_mask(LOG_GUEST_ERROR, "npu2: TVT index %u\n", index);
        return NULL;
    }
    if (*tbl & NPU2_IODA_TBL_AUTOINC) {
        *tbl = SETFIELD(NPU2_IODA_TBL_INDEX, *tbl,
                        (index + 1) % NPU2_TVT_SIZE);
    }
    return &npu->tvt[index];
}

static uint64_t npu2_ioda_read(PnvNpu2 *npu)
{
    uint64_t *entry = npu2_ioda_entry(npu);

    return entry ? *entry : 0;
}

static void npu2_ioda_write(PnvNpu2 *npu, uint64_t val)
{
    uint64_t *entry = npu2_ioda_entry(npu);

    if (entry) {
        trace_pnv_npu2_tve(npu->chip_id, entry - npu->tvt, val);
        *entry = val;
    }
}

/* TCE_KILL: KILL_ONE with a PE and an address, or KILL_ALL */
static void npu2_tce_kill(PnvNpu2 *npu, uint64_t val)
{
    trace_pnv_npu2_tce_kill(npu->chip_id, val);
    npu->tce_kill_last = val;
    if (val & NPU2_TCE_KILL_ALL) {
        npu->tce_kills_all++;
        pnv_npu2_tce_forget(npu, true, 0, 0);
    } else if (val & NPU2_TCE_KILL_ONE) {
        npu->tce_kills_one++;
        pnv_npu2_tce_forget(npu, false, GETFIELD(NPU2_TCE_KILL_PE, val),
                            val & NPU2_TCE_KILL_ADDR);
    } else {
        qemu_log_mask(LOG_GUEST_ERROR, "npu2: TCE kill of nothing 0x%016"
                      PRIx64 "\n", val);
    }
}

/* Full, as injected: what isn't in use reads as somebody else's */
static uint64_t npu2_bdf_map_read(PnvNpu2 *npu, uint64_t val)
{
    return npu->xts_full && !(val & NPU2_BDF_MAP_VALID) ?
           NPU2_BDF_MAP_UNFILT | NPU2_BDF_MAP_BDF : val;
}

static uint64_t npu2_read_reg(PnvNpu2 *npu, const Npu2Where *where)
{
    if (where->kind == NPU2_KIND_ATS && where->offset == NPU2_ATS_IODA_DATA) {
        return npu2_ioda_read(npu);
    }
    if (where->kind == NPU2_KIND_NTL &&
        where->offset == NPU2_NTL_CQ_FENCE_STATUS) {
        return SETFIELD(NPU2_NTL_FENCE_STATUS, 0ull,
                        (uint64_t)npu->brick[where->unit].fence);
    }
    if (where->kind == NPU2_KIND_XTS &&
        where->offset >= NPU2_XTS_BDF_MAP(0) &&
        where->offset < NPU2_XTS_BDF_MAP(NPU2_XTS_BDF_MAP_SIZE)) {
        return npu2_bdf_map_read(npu, *where->val);
    }
    if (where->kind == NPU2_KIND_ATSD && where->offset == NPU2_ATSD_STATUS) {
        return pnv_npu2_atsd_status(npu, where->unit);
    }
    return where->val ? *where->val : 0;
}

static void npu2_write_ats(PnvNpu2 *npu, const Npu2Where *where, uint64_t val)
{
    switch (where->offset) {
    case NPU2_ATS_IODA_DATA:
        npu2_ioda_write(npu, val);
        break;
    case NPU2_ATS_TCE_KILL:
        npu2_tce_kill(npu, val);
        break;
    default:
        *where->val = val;
    }
}

static void npu2_write_ntl(PnvNpu2 *npu, const Npu2Where *where, uint64_t val)
{
    /* The other side returns the credits as soon as it is told the limit */
    if (where->offset >= NPU2_NTL_CREDIT_RX &&
        where->offset <= NPU2_NTL_CREDIT_RX_LAST) {
        val = SETFIELD(NPU2_NTL_CREDIT_RX_AVAIL, val,
                       GETFIELD(NPU2_NTL_CREDIT_RX_LIMIT, val));
    }
    *where->val = val;
    if (where->offset == NPU2_NTL_MISC_CFG1) {
        npu2_ntl_cfg1_written(&npu->brick[where->unit]);
    }
}

static bool npu2_is_bar(unsigned offset)
{
    return (offset >= NPU2_SM_GPU_MEM_BAR(0) && offset <= NPU2_SM_GENID_BAR) ||
           (offset >= NPU2_SM_NTL_BAR(0) && offset <= NPU2_SM_NTL_BAR(1));
}

static void npu2_write_reg(PnvNpu2 *npu, const Npu2Where *where, uint64_t val)
{
    switch (where->kind) {
    case NPU2_KIND_SM:
        *where->val = val;
        if (npu2_is_bar(where->offset)) {
            npu2_update_bars(npu);
        }
        break;
    case NPU2_KIND_NTL:
        npu2_write_ntl(npu, where, val);
        break;
    case NPU2_KIND_ATS:
        npu2_write_ats(npu, where, val);
        break;
    case NPU2_KIND_DL:
        *where->val = val;
        npu2_update_links(npu);
        break;
    case NPU2_KIND_MISC:
        if (where->offset == NPU2_MISC_FENCE_STATE) {
            npu2_fence_state_write(npu, val);
        } else if (where->offset >= NPU2_MISC_PESTB(0) &&
                   where->offset < NPU2_MISC_PESTB(NPU2_PESTB_ENTRIES)) {
            npu2_pestb_write(npu, where->offset, val);
        } else {
            *where->val = val;
        }
        break;
    case NPU2_KIND_ATSD:
        if (where->offset == NPU2_ATSD_LAUNCH) {
            pnv_npu2_atsd_launch(npu, where->unit, val);
        } else {
            *where->val = val;
        }
        break;
    default:
        if (where->val) {
            *where->val = val;
        }
    }
}

/*
 * An access of 4 bytes to a 64-bit register reaches the half it names; one of
 * 8 bytes to a 32-bit register is an error, as are smaller ones.
 */
static bool npu2_ring_find(PnvNpu2 *npu, uint32_t addr, unsigned size,
                           Npu2Where *where)
{
    if (!npu2_find(npu, addr, where)) {
        return false;
    }
    if (size > where->width || size < 4) {
        qemu_log_mask(LOG_GUEST_ERROR, "npu2: %u byte access to %s\n", size,
                      where->reg->name);
        return false;
    }
    return true;
}

static uint64_t npu2_ring_read(void *opaque, hwaddr addr, unsigned size)
{
    PnvNpu2 *npu = opaque;
    Npu2Where where;
    uint64_t val;

    if (!npu2_ring_find(npu, addr, size, &where)) {
        qemu_log_mask(LOG_UNIMP, "npu2: read of 0x%06x\n", (uint32_t)addr);
        return 0;
    }
    val = npu2_read_reg(npu, &where);
    if (size < where.width) {
        val = (uint32_t)(addr & 4 ? val : val >> 32);
    }
    trace_pnv_npu2_read(npu->chip_id, where.reg->name, addr, val);
    return val;
}

static void npu2_ring_write(void *opaque, hwaddr addr, uint64_t val,
                            unsigned size)
{
    PnvNpu2 *npu = opaque;
    Npu2Where where;

    if (!npu2_ring_find(npu, addr, size, &where)) {
        qemu_log_mask(LOG_UNIMP, "npu2: write of 0x%06x = 0x%016" PRIx64 "\n",
                      (uint32_t)addr, val);
        return;
    }
    trace_pnv_npu2_write(npu->chip_id, where.reg->name, addr, val);
    if (where.reg->read_only) {
        qemu_log_mask(LOG_GUEST_ERROR, "npu2: write to read-only %s\n",
                      where.reg->name);
        return;
    }
    if (size < where.width) {
        val = deposit64(npu2_read_reg(npu, &where), addr & 4 ? 0 : 32, 32, val);
    }
    npu2_write_reg(npu, &where, val & npu2_fields(&where));
}

static const MemoryRegionOps npu2_ring_ops = {
    .read = npu2_ring_read,
    .write = npu2_ring_write,
    .valid.min_access_size = 1,
    .valid.max_access_size = 8,
    .impl.min_access_size = 1,
    .impl.max_access_size = 8,
    .endianness = DEVICE_BIG_ENDIAN,
};

/* Generation ids: nothing is known of their registers */
static uint64_t npu2_genid_read(void *opaque, hwaddr addr, unsigned size)
{
    qemu_log_mask(LOG_UNIMP, "npu2: read of GENID 0x%" HWADDR_PRIx "\n", addr);
    return 0;
}

static void npu2_genid_write(void *opaque, hwaddr addr, uint64_t val,
                             unsigned size)
{
    qemu_log_mask(LOG_UNIMP, "npu2: write of GENID 0x%" HWADDR_PRIx " = 0x%"
                  PRIx64 "\n", addr, val);
}

static const MemoryRegionOps npu2_genid_ops = {
    .read = npu2_genid_read,
    .write = npu2_genid_write,
    .valid.min_access_size = 1,
    .valid.max_access_size = 8,
    .endianness = DEVICE_BIG_ENDIAN,
};

/*
 * SCOM
 */

/* Ring address of a directly accessible register, or -1 */
static int64_t npu2_scom_to_ring(uint32_t reg)
{
    static const struct {
        unsigned first, block;
    } blocks[] = {
        { 0x130, NPU2_BLOCK_NTL(1) },
        { 0x110, NPU2_BLOCK_NTL(0) },
        { 0x0f0, NPU2_BLOCK_DAT },
        { 0x0c0, NPU2_BLOCK_CTL },
        { 0x090, NPU2_BLOCK_SM(3) },
        { 0x060, NPU2_BLOCK_SM(2) },
        { 0x030, NPU2_BLOCK_SM(1) },
        { 0x000, NPU2_BLOCK_SM(0) },
    };
    unsigned stack = reg / NPU2_XSCOM_STACK_SIZE;
    unsigned offset = reg % NPU2_XSCOM_STACK_SIZE;

    if (stack >= PNV_NPU2_STACKS || offset >= 0x150) {
        return -1;
    }
    for (int i = 0; i < ARRAY_SIZE(blocks); i++) {
        if (offset >= blocks[i].first) {
            return NPU2_RING(NPU2_STACK(stack), blocks[i].block,
                             (offset - blocks[i].first) << 3);
        }
    }
    g_assert_not_reached();
}

/*
 * IND_DATA accesses the register that IND_ADDR names, 8 bytes or, in the upper
 * half of the data, 4.
 */
static uint32_t npu2_indirect(PnvNpu2 *npu, unsigned *size)
{
    unsigned len = GETFIELD(NPU2_IND_ADDR_LEN, npu->indirect_addr);

    *size = len == NPU2_IND_LEN_4B ? 4 : 8;
    if (len != NPU2_IND_LEN_4B && len != NPU2_IND_LEN_8B) {
        qemu_log_mask(LOG_GUEST_ERROR, "npu2: indirect access of length %u\n",
                      len);
    }
    return GETFIELD(NPU2_IND_ADDR_ADDR, npu->indirect_addr);
}

/* Does an injected error hit this access? */
static bool npu2_scom_fails(PnvNpu2 *npu, uint32_t ring)
{
    bool xts = NPU2_RING_STACK(ring) == NPU2_STACK_MISC &&
               NPU2_RING_BLOCK(ring) == NPU2_BLOCK_XTS &&
               NPU2_RING_OFFSET(ring) >= NPU2_XTS_ATSD_LPARID(0);

    if (!npu->scom_errors ||
        (!xts && NPU2_RING_STACK(ring) != NPU2_STACK_ATSD)) {
        return false;
    }
    npu->scom_errors--;
    trace_pnv_npu2_scom_error(npu->chip_id, ring, npu->scom_errors);
    return true;
}

static MemTxResult npu2_xscom_read(void *opaque, hwaddr addr, uint64_t *val,
                                   unsigned width, MemTxAttrs attrs)
{
    PnvNpu2 *npu = opaque;
    uint32_t reg = addr >> 3, ring_addr;
    int64_t ring = npu2_scom_to_ring(reg);
    unsigned size;

    if (ring >= 0) {
        *val = npu2_ring_read(npu, ring, 8);
        return MEMTX_OK;
    }
    switch (reg) {
    case NPU2_XSCOM_IND_ADDR:
        *val = npu->indirect_addr;
        return MEMTX_OK;
    case NPU2_XSCOM_IND_DATA:
        ring_addr = npu2_indirect(npu, &size);
        if (npu2_scom_fails(npu, ring_addr)) {
            return MEMTX_ERROR;
        }
        *val = npu2_ring_read(npu, ring_addr, size);
        if (size == 4) {
            *val <<= 32;
        }
        return MEMTX_OK;
    }
    qemu_log_mask(LOG_UNIMP, "npu2: SCOM read of 0x%x\n", reg);
    *val = 0;
    return MEMTX_OK;
}

static MemTxResult npu2_xscom_write(void *opaque, hwaddr addr, uint64_t val,
                                    unsigned width, MemTxAttrs attrs)
{
    PnvNpu2 *npu = opaque;
    uint32_t reg = addr >> 3, ring_addr;
    int64_t ring = npu2_scom_to_ring(reg);
    unsigned size;

    if (ring >= 0) {
        npu2_ring_write(npu, ring, val, 8);
        return MEMTX_OK;
    }
    switch (reg) {
    case NPU2_XSCOM_IND_ADDR:
        npu->indirect_addr = val & (NPU2_IND_ADDR_ADDR | NPU2_IND_ADDR_LEN);
        return MEMTX_OK;
    case NPU2_XSCOM_IND_DATA:
        ring_addr = npu2_indirect(npu, &size);
        if (npu2_scom_fails(npu, ring_addr)) {
            return MEMTX_ERROR;
        }
        npu2_ring_write(npu, ring_addr, size == 4 ? val >> 32 : val, size);
        return MEMTX_OK;
    }
    qemu_log_mask(LOG_UNIMP, "npu2: SCOM write of 0x%x = 0x%016" PRIx64 "\n",
                  reg, val);
    return MEMTX_OK;
}

static const MemoryRegionOps npu2_xscom_ops = {
    .read_with_attrs = npu2_xscom_read,
    .write_with_attrs = npu2_xscom_write,
    .valid.min_access_size = 8,
    .valid.max_access_size = 8,
    .impl.min_access_size = 8,
    .impl.max_access_size = 8,
    .endianness = DEVICE_BIG_ENDIAN,
};

/*
 * The PowerBus centre registers tell firmware how the memory map was set up:
 * the large map has GPU memory below 4 TiB, the small one above.
 */
static uint64_t npu2_pb_cent_read(void *opaque, hwaddr addr, unsigned width)
{
    PnvNpu2 *npu = opaque;
    uint32_t reg = addr >> 3;

    switch (reg) {
    case NPU2_PB_CENT_MODE:
        return npu->small_map ?
            SETFIELD(NPU2_PB_CENT_EXTENSION_MASK, 0ull, 7) : 0;
    case NPU2_PB_CENT_HP_MODE_CURR:
        return npu->small_map ? NPU2_PB_CENT_GP_MASTER : 0;
    default:
        qemu_log_mask(LOG_UNIMP, "npu2: SCOM read of PB centre 0x%x\n", reg);
    }
    return 0;
}

static void npu2_pb_cent_write(void *opaque, hwaddr addr, uint64_t val,
                               unsigned width)
{
    qemu_log_mask(LOG_UNIMP, "npu2: SCOM write of PB centre 0x%x = 0x%016"
                  PRIx64 "\n", (uint32_t)(addr >> 3), val);
}

static const MemoryRegionOps npu2_pb_cent_ops = {
    .read = npu2_pb_cent_read,
    .write = npu2_pb_cent_write,
    .valid.min_access_size = 8,
    .valid.max_access_size = 8,
    .impl.min_access_size = 8,
    .impl.max_access_size = 8,
    .endianness = DEVICE_BIG_ENDIAN,
};

/* Fault isolation registers; AND and OR are write-only views */
static uint64_t npu2_fir_read(void *opaque, hwaddr addr, unsigned width)
{
    PnvNpu2 *npu = opaque;
    uint32_t reg = addr >> 3;
    uint32_t set = reg / NPU2_FIR_STRIDE;

    reg %= NPU2_FIR_STRIDE;
    switch (reg) {
    case NPU2_FIR_VALUE:
    case NPU2_FIR_MASK:
    case NPU2_FIR_ACTION0:
    case NPU2_FIR_ACTION1:
        return npu->fir[set][reg];
    }
    qemu_log_mask(LOG_UNIMP, "npu2: SCOM read of FIR%u 0x%x\n", set, reg);
    return 0;
}

static void npu2_fir_write(void *opaque, hwaddr addr, uint64_t val,
                           unsigned width)
{
    PnvNpu2 *npu = opaque;
    uint32_t reg = addr >> 3;
    uint32_t set = reg / NPU2_FIR_STRIDE;

    reg %= NPU2_FIR_STRIDE;
    switch (reg) {
    case NPU2_FIR_VALUE:
    case NPU2_FIR_MASK:
    case NPU2_FIR_ACTION0:
    case NPU2_FIR_ACTION1:
        npu->fir[set][reg] = val;
        break;
    case NPU2_FIR_AND:
        npu->fir[set][NPU2_FIR_VALUE] &= val;
        break;
    case NPU2_FIR_OR:
        npu->fir[set][NPU2_FIR_VALUE] |= val;
        break;
    case NPU2_FIR_MASK_AND:
        npu->fir[set][NPU2_FIR_MASK] &= val;
        break;
    case NPU2_FIR_MASK_OR:
        npu->fir[set][NPU2_FIR_MASK] |= val;
        break;
    default:
        qemu_log_mask(LOG_UNIMP, "npu2: SCOM write of FIR%u 0x%x = 0x%016"
                      PRIx64 "\n", set, reg, val);
    }
}

static const MemoryRegionOps npu2_fir_ops = {
    .read = npu2_fir_read,
    .write = npu2_fir_write,
    .valid.min_access_size = 8,
    .valid.max_access_size = 8,
    .impl.min_access_size = 8,
    .impl.max_access_size = 8,
    .endianness = DEVICE_BIG_ENDIAN,
};

/*
 * OBUS PHY
 */

static uint16_t *npu2_phy_reg(PnvNpu2Obus *obus, uint64_t select)
{
    unsigned reg = GETFIELD(NPU2_PHY_IND_REG, select);
    unsigned lane = GETFIELD(NPU2_PHY_IND_LANE, select);

    if (reg >= NPU2_PHY_PER_LANE) {
        return &obus->bus[reg - NPU2_PHY_PER_LANE];
    }
    return lane < NPU2_PHY_LANES ? &obus->lane[lane][reg] : NULL;
}

/* Whether the other end of a lane is up, without which it is not brought up */
static bool npu2_lane_sees(const PnvNpu2Obus *obus, unsigned lane)
{
    for (int i = 0; i < 3; i++) {
        unsigned brick = 3 * obus->index + i;
        const PnvNpu2Gpu *gpu = obus->npu->brick[brick].gpu;

        if (npu2_brick_lanes[brick] & NPU2_LANE(lane)) {
            return gpu && gpu->up;
        }
    }
    return false;
}

static uint16_t npu2_phy_rx_status(const PnvNpu2Obus *obus, uint16_t control,
                                   unsigned lane)
{
    bool runs = (obus->running & NPU2_LANE(lane)) && npu2_lane_sees(obus, lane);

    return (control & NPU2_PHY_RX_RUN_DCCAL) |
           (runs ? NPU2_PHY_RX_RUN_LANE : 0);
}

/*
 * What the hardware does by itself finishes at once: DC calibration shows as
 * done while it is requested, and so does impedance calibration, with nominal
 * results; lane bring-up as soon as the other end is up.
 */
static uint16_t npu2_phy_read(PnvNpu2Obus *obus, uint64_t select)
{
    unsigned reg = GETFIELD(NPU2_PHY_IND_REG, select);
    uint16_t *val = npu2_phy_reg(obus, select);

    if (!val) {
        return 0;
    }
    switch (reg) {
    case NPU2_PHY_RX_STATUS:
        return npu2_phy_rx_status(obus,
                                  val[NPU2_PHY_RX_CONTROL - NPU2_PHY_RX_STATUS],
                                  GETFIELD(NPU2_PHY_IND_LANE, select));
    case NPU2_PHY_TX_ZCAL:
        return *val | (*val & NPU2_PHY_TX_ZCAL_REQ ? NPU2_PHY_TX_ZCAL_DONE : 0);
    case NPU2_PHY_TX_ZCAL_N:
    case NPU2_PHY_TX_ZCAL_P:
        return NPU2_PHY_TX_ZCAL_NOMINAL;
    }
    return *val;
}

static uint64_t npu2_phy_ind_read(void *opaque, hwaddr addr, unsigned width)
{
    PnvNpu2Obus *obus = opaque;

    return NPU2_PHY_IND_COMPLETE | npu2_phy_read(obus, obus->select);
}

/* A lane that was reset has to be calibrated before it can run */
static void npu2_lane_written(PnvNpu2Obus *obus, unsigned reg, unsigned lane,
                              uint16_t was, uint16_t val)
{
    switch (reg) {
    case NPU2_PHY_RX_RESET:
        if (val & NPU2_PHY_RX_IORESET) {
            obus->calibrated &= ~NPU2_LANE(lane);
            obus->running &= ~NPU2_LANE(lane);
        }
        break;
    case NPU2_PHY_RX_CONTROL:
        if (val & NPU2_PHY_RX_RUN_DCCAL) {
            obus->calibrated |= NPU2_LANE(lane);
        }
        if (!(val & NPU2_PHY_RX_RUN_LANE)) {
            obus->running &= ~NPU2_LANE(lane);
        } else if (!(was & NPU2_PHY_RX_RUN_LANE)) {
            obus->running |= obus->calibrated & NPU2_LANE(lane);
        }
        break;
    default:
        return;
    }
    npu2_update_links(obus->npu);
}

static void npu2_phy_ind_write(void *opaque, hwaddr addr, uint64_t val,
                               unsigned width)
{
    PnvNpu2Obus *obus = opaque;
    unsigned number = GETFIELD(NPU2_PHY_IND_REG, val);
    uint16_t *reg = npu2_phy_reg(obus, val), was;

    obus->select = val & (NPU2_PHY_IND_REG | NPU2_PHY_IND_LANE);
    if ((val & NPU2_PHY_IND_READ) || !reg) {
        return;
    }
    was = *reg;
    *reg = GETFIELD(NPU2_PHY_IND_DATA, val);
    if (number < NPU2_PHY_PER_LANE) {
        npu2_lane_written(obus, number, GETFIELD(NPU2_PHY_IND_LANE, val), was,
                          *reg);
    }
}

static const MemoryRegionOps npu2_phy_ind_ops = {
    .read = npu2_phy_ind_read,
    .write = npu2_phy_ind_write,
    .valid.min_access_size = 8,
    .valid.max_access_size = 8,
    .impl.min_access_size = 8,
    .impl.max_access_size = 8,
    .endianness = DEVICE_BIG_ENDIAN,
};

/* CPLT_CONF1 of the OBUS chiplet: bits 6 to 8 are IOVALID of its bricks */
static uint64_t npu2_cplt_conf1_read(void *opaque, hwaddr addr, unsigned width)
{
    PnvNpu2Obus *obus = opaque;

    return obus->iovalid;
}

static void npu2_cplt_conf1_write(void *opaque, hwaddr addr, uint64_t val,
                                  unsigned width)
{
    PnvNpu2Obus *obus = opaque;

    trace_pnv_npu2_iovalid(obus->npu->chip_id, obus->index, val);
    obus->iovalid = val;
    npu2_update_links(obus->npu);
}

static const MemoryRegionOps npu2_cplt_conf1_ops = {
    .read = npu2_cplt_conf1_read,
    .write = npu2_cplt_conf1_write,
    .valid.min_access_size = 8,
    .valid.max_access_size = 8,
    .impl.min_access_size = 8,
    .impl.max_access_size = 8,
    .endianness = DEVICE_BIG_ENDIAN,
};

/*
 * GPUs
 */

bool pnv_npu2_attach(PnvNpu2 *npu, PnvNpu2Gpu *gpu, Error **errp)
{
    if (!gpu->bricks || gpu->bricks >> PNV_NPU2_BRICKS) {
        error_setg(errp, "npu2: a GPU can't have bricks 0x%x", gpu->bricks);
        return false;
    }
    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        if ((gpu->bricks & BIT(i)) && npu->brick[i].gpu) {
            error_setg(errp, "npu2: brick %d is taken", i);
            return false;
        }
    }
    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        PnvNpu2Brick *brick = &npu->brick[i];

        if (gpu->bricks & BIT(i)) {
            g_autofree char *name = g_strdup_printf("npu2-gpu-ram.%d", i);

            brick->gpu = gpu;
            memory_region_init_alias(&brick->ram, OBJECT(npu), name, gpu->ram,
                                     0, memory_region_size(gpu->ram));
            memory_region_set_enabled(&brick->ram, false);
            memory_region_add_subregion_overlap(&brick->aperture, 0,
                                                &brick->ram, 1);
        }
    }
    return true;
}

void pnv_npu2_detach(PnvNpu2 *npu, PnvNpu2Gpu *gpu)
{
    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        PnvNpu2Brick *brick = &npu->brick[i];

        if (brick->gpu == gpu) {
            npu2_set_trained(brick, false);
            memory_region_del_subregion(&brick->aperture, &brick->ram);
            object_unparent(OBJECT(&brick->ram));
            brick->gpu = NULL;
        }
    }
}

void pnv_npu2_gpu_up(PnvNpu2 *npu, PnvNpu2Gpu *gpu)
{
    gpu->up = true;
    npu2_update_links(npu);
}

/* The brick as firmware's procedures leave it */
static void npu2_bring_up(PnvNpu2Brick *brick)
{
    PnvNpu2 *npu = brick->npu;
    PnvNpu2Obus *obus = npu2_obus(brick);
    uint32_t lanes = npu2_brick_lanes[brick->index];

    for (int lane = 0; lane < NPU2_PHY_LANES; lane++) {
        if (lanes & NPU2_LANE(lane)) {
            obus->lane[lane][NPU2_PHY_RX_CONTROL] |= NPU2_PHY_RX_RUN_LANE;
        }
    }
    obus->calibrated |= lanes;
    obus->running |= lanes;
    obus->iovalid |= npu2_iovalid(brick);
    npu->dl[brick->index][PNV_NPU2_DL_CONFIG] |= NPU2_DL_CONFIG_TRAIN;
    npu->ntl[brick->index][NPU2_NTL_MISC_CFG1 >> 3] &= ~NPU2_NTL_CFG1_FENCE;
    npu2_unfence_brick(brick);
}

void pnv_npu2_train(PnvNpu2 *npu, PnvNpu2Gpu *gpu)
{
    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        if (npu->brick[i].gpu == gpu) {
            npu2_bring_up(&npu->brick[i]);
        }
    }
    pnv_npu2_gpu_up(npu, gpu);
}

/*
 * Whether a link that goes down at the GPU's end is an error to the NPU: its
 * own end is open.  At a reset of the machine the NPU is reset, too.
 */
static bool npu2_tears(PnvNpu2 *npu, PnvNpu2Brick *brick, PnvNpu2Gpu *gpu)
{
    return brick->gpu == gpu && npu2_brick_answers(brick) &&
           !resettable_is_in_reset(OBJECT(npu));
}

void pnv_npu2_untrain(PnvNpu2 *npu, PnvNpu2Gpu *gpu)
{
    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        PnvNpu2Brick *brick = &npu->brick[i];

        if (brick->gpu != gpu) {
            continue;
        }
        if (npu2_tears(npu, brick, gpu)) {
            npu2_fence_brick(brick);
        }
        npu2_stop_lanes(brick);
        npu2_set_trained(brick, false);
    }
    gpu->up = false;
    npu2_update_memory(npu);
}

/* A GPU is reset: an HMI would report each link that is torn by that. */
void pnv_npu2_gpu_reset(PnvNpu2 *npu, PnvNpu2Gpu *gpu)
{
    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        npu->brick[i].torn += npu2_tears(npu, &npu->brick[i], gpu);
    }
    pnv_npu2_untrain(npu, gpu);
}

void pnv_npu2_gpu_changed(PnvNpu2 *npu)
{
    npu2_update_memory(npu);
}

uint32_t pnv_npu2_trained(const PnvNpu2 *npu, const PnvNpu2Gpu *gpu)
{
    uint32_t trained = 0;

    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        if (npu->brick[i].gpu == gpu && npu->brick[i].trained) {
            trained |= BIT(i);
        }
    }
    return trained;
}

hwaddr pnv_npu2_aperture(const PnvNpu2 *npu, const PnvNpu2Gpu *gpu)
{
    return npu->brick[ctz32(gpu->bricks)].base;
}

/*
 * Properties: every table can be read, fences and interrupts be injected
 */

typedef struct Npu2Table {
    const char *name;
    const char *description;
    unsigned count;
    uint64_t (*get)(PnvNpu2 *npu, unsigned i);
} Npu2Table;

#define NPU2_TABLE_GET(name, expression)                    \
static uint64_t npu2_get_##name(PnvNpu2 *npu, unsigned i)   \
{                                                           \
    return expression;                                      \
}

NPU2_TABLE_GET(bdf_map, npu->bdf_map[i])
NPU2_TABLE_GET(pid_map, npu->pid_map[i].pid)
NPU2_TABLE_GET(atsd_lparid, npu->atsd_lparid[i])
NPU2_TABLE_GET(atsd_launches, npu->atsd[i].launches)
NPU2_TABLE_GET(atsd_ignored, npu->atsd[i].ignored)
NPU2_TABLE_GET(atsd_last_launch, npu->atsd[i].last_launch)
NPU2_TABLE_GET(atsd_ava, npu->atsd[i].ava)
NPU2_TABLE_GET(tvt, npu->tvt[i])
NPU2_TABLE_GET(bdf2pe, npu->misc[NPU2_MISC_BDF2PE(i, 0) >> 3])
NPU2_TABLE_GET(fence, npu->brick[i].fence)
NPU2_TABLE_GET(trained, npu->brick[i].trained)
NPU2_TABLE_GET(unanswered, npu->brick[i].unanswered)
NPU2_TABLE_GET(torn, npu->brick[i].torn)
NPU2_TABLE_GET(pestb, npu->misc[NPU2_MISC_PESTB(i) >> 3])
NPU2_TABLE_GET(aperture, npu->brick[i].base)
NPU2_TABLE_GET(irqs, npu->irqs[i])
NPU2_TABLE_GET(tce_kills, i == 0 ? npu->tce_kills_all :
               i == 1 ? npu->tce_kills_one : npu->tce_kill_last)

static const Npu2Table npu2_tables[] = {
    { "xts-bdf-map", "XTS BDF map", NPU2_XTS_BDF_MAP_SIZE, npu2_get_bdf_map },
    { "xts-pid-map", "XTS PID map", NPU2_XTS_PID_MAP_SIZE, npu2_get_pid_map },
    { "atsd-lparid", "XTS_MMIO_ATSDn_LPARID", NPU2_ATSD_COUNT,
      npu2_get_atsd_lparid },
    { "atsd-launches", "Shootdowns launched, per register set",
      NPU2_ATSD_COUNT, npu2_get_atsd_launches },
    { "atsd-ignored", "Launches that were lost: MMIO shootdowns off, or busy",
      NPU2_ATSD_COUNT, npu2_get_atsd_ignored },
    { "atsd-last-launch", "Last value of LAUNCH, per register set",
      NPU2_ATSD_COUNT, npu2_get_atsd_last_launch },
    { "atsd-ava", "AVA, per register set", NPU2_ATSD_COUNT,
      npu2_get_atsd_ava },
    { "tvt", "TVT", NPU2_TVT_SIZE, npu2_get_tvt },
    { "bdf2pe", "First BDF to PE entry, per brick", PNV_NPU2_BRICKS,
      npu2_get_bdf2pe },
    { "fences", "CQ_FENCE_STATUS, per brick", PNV_NPU2_BRICKS,
      npu2_get_fence },
    { "trained", "1 = link trained, per brick", PNV_NPU2_BRICKS,
      npu2_get_trained },
    { "unanswered",
      "CPU accesses that found no GPU memory since power on, per brick",
      PNV_NPU2_BRICKS, npu2_get_unanswered },
    { "torn-links",
      "Resets of a GPU while the link was open, since power on, per brick",
      PNV_NPU2_BRICKS, npu2_get_torn },
    { "pestb", "PESTB, per PE", NPU2_PESTB_ENTRIES, npu2_get_pestb },
    { "apertures", "Address of GPU memory, per brick, 0 = off",
      PNV_NPU2_BRICKS, npu2_get_aperture },
    { "irqs", "Interrupts raised, per source", NPU2_IRQ_COUNT,
      npu2_get_irqs },
    { "tce-kills", "TCE kills: of all, of one, last value", 3,
      npu2_get_tce_kills },
};

static void npu2_get_table(Object *obj, Visitor *v, const char *name,
                           void *opaque, Error **errp)
{
    PnvNpu2 *npu = PNV_NPU2(obj);
    const Npu2Table *table = opaque;
    uint64List *list = NULL, **tail = &list;

    for (unsigned i = 0; i < table->count; i++) {
        QAPI_LIST_APPEND(tail, table->get(npu, i));
    }
    visit_type_uint64List(v, name, &list, errp);
    qapi_free_uint64List(list);
}

static void npu2_inject_fence(Object *obj, Visitor *v, const char *name,
                              void *opaque, Error **errp)
{
    PnvNpu2 *npu = PNV_NPU2(obj);
    uint32_t brick;

    if (!visit_type_uint32(v, name, &brick, errp)) {
        return;
    }
    if (brick >= PNV_NPU2_BRICKS) {
        error_setg(errp, "no brick %u", brick);
        return;
    }
    npu2_fence_brick(&npu->brick[brick]);
}

static bool npu2_get_xts_full(Object *obj, Error **errp)
{
    return PNV_NPU2(obj)->xts_full;
}

static void npu2_set_xts_full(Object *obj, bool full, Error **errp)
{
    PNV_NPU2(obj)->xts_full = full;
}

static char *npu2_get_dead(Object *obj, Error **errp)
{
    return g_strdup(PNV_NPU2(obj)->machine_checks ? "machine-check" : "ones");
}

static void npu2_set_dead(Object *obj, const char *how, Error **errp)
{
    bool ones = !strcmp(how, "ones");

    if (!ones && strcmp(how, "machine-check")) {
        error_setg(errp, "npu2: property dead: machine-check or ones, not %s",
                   how);
        return;
    }
    PNV_NPU2(obj)->machine_checks = !ones;
}

static void npu2_get_scom_errors(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    visit_type_uint32(v, name, &PNV_NPU2(obj)->scom_errors, errp);
}

static void npu2_set_scom_errors(Object *obj, Visitor *v, const char *name,
                                 void *opaque, Error **errp)
{
    visit_type_uint32(v, name, &PNV_NPU2(obj)->scom_errors, errp);
}

static void npu2_get_atsd_hangs(Object *obj, Visitor *v, const char *name,
                                void *opaque, Error **errp)
{
    visit_type_uint32(v, name, &PNV_NPU2(obj)->atsd_hangs, errp);
}

static void npu2_set_atsd_hangs(Object *obj, Visitor *v, const char *name,
                                void *opaque, Error **errp)
{
    uint32_t launches;

    if (visit_type_uint32(v, name, &launches, errp)) {
        pnv_npu2_atsd_hang(PNV_NPU2(obj), launches);
    }
}

static void npu2_inject_irq(Object *obj, Visitor *v, const char *name,
                            void *opaque, Error **errp)
{
    PnvNpu2 *npu = PNV_NPU2(obj);
    uint32_t source;

    if (!visit_type_uint32(v, name, &source, errp)) {
        return;
    }
    if (source >= NPU2_IRQ_COUNT) {
        error_setg(errp, "no interrupt source %u", source);
        return;
    }
    npu2_raise_irq(npu, source);
}

/*
 * Device
 */

static void npu2_reset_hold(Object *obj, ResetType type)
{
    PnvNpu2 *npu = PNV_NPU2(obj);

    npu->indirect_addr = 0;
    memset(npu->fir, 0, sizeof(npu->fir));
    memset(npu->sm, 0, sizeof(npu->sm));
    memset(npu->ctl, 0, sizeof(npu->ctl));
    memset(npu->dat, 0, sizeof(npu->dat));
    memset(npu->ntl, 0, sizeof(npu->ntl));
    memset(npu->dl, 0, sizeof(npu->dl));
    memset(npu->ats, 0, sizeof(npu->ats));
    memset(npu->xts, 0, sizeof(npu->xts));
    memset(npu->misc, 0, sizeof(npu->misc));
    memset(npu->tvt, 0, sizeof(npu->tvt));
    memset(npu->bdf_map, 0, sizeof(npu->bdf_map));
    memset(npu->pid_map, 0, sizeof(npu->pid_map));
    memset(npu->atsd_lparid, 0, sizeof(npu->atsd_lparid));
    memset(npu->atsd, 0, sizeof(npu->atsd));
    memset(npu->irqs, 0, sizeof(npu->irqs));
    memset(npu->tce_cache, 0, sizeof(npu->tce_cache));
    npu->tce_cache_next = 0;
    npu->tce_kills_all = 0;
    npu->tce_kills_one = 0;
    npu->tce_kill_last = 0;

    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        npu2_set_fence(&npu->brick[i], NPU2_FENCE_NONE);
        npu2_set_trained(&npu->brick[i], false);
    }
    for (int i = 0; i < PNV_NPU2_OBUS; i++) {
        PnvNpu2Obus *obus = &npu->obus[i];

        obus->iovalid = 0;
        obus->select = 0;
        obus->calibrated = 0;
        obus->running = 0;
        memset(obus->lane, 0, sizeof(obus->lane));
        memset(obus->bus, 0, sizeof(obus->bus));
    }
    npu2_update_bars(npu);
    npu2_update_memory(npu);
}

static void npu2_init_brick(PnvNpu2 *npu, unsigned i)
{
    PnvNpu2Brick *brick = &npu->brick[i];
    g_autofree char *aperture = g_strdup_printf("npu2-%u-gpu.%u",
                                                npu->chip_id, i);
    g_autofree char *ntl = g_strdup_printf("npu2-%u-ntl.%u", npu->chip_id, i);

    brick->npu = npu;
    brick->index = i;
    memory_region_init(&brick->aperture, OBJECT(npu), aperture,
                       PNV_NPU2_APERTURE_MAX);
    memory_region_init_io(&brick->nothing, OBJECT(npu), &npu2_nothing_ops,
                          brick, "npu2-nothing", PNV_NPU2_APERTURE_MAX);
    memory_region_add_subregion(&brick->aperture, 0, &brick->nothing);
    memory_region_init_alias(&brick->ntl, OBJECT(npu), ntl, &npu->ring,
                             NPU2_RING(NPU2_STACK_U(i / 2),
                                       NPU2_BLOCK_DL(i % 2), 0),
                             128 * KiB);
}

static void npu2_init_obus(PnvNpu2 *npu, unsigned i)
{
    PnvNpu2Obus *obus = &npu->obus[i];
    g_autofree char *phy = g_strdup_printf("npu2-%u-phy.%u", npu->chip_id, i);

    obus->npu = npu;
    obus->index = i;
    pnv_xscom_region_init(&obus->cplt_conf1, OBJECT(npu), &npu2_cplt_conf1_ops,
                          obus, "xscom-obus-cplt-conf1", 1);
    pnv_xscom_region_init(&obus->indirect, OBJECT(npu), &npu2_phy_ind_ops, obus,
                          "xscom-obus-phy", 1);
    memory_region_init_alias(&npu->phy[i], OBJECT(npu), phy, &npu->ring,
                             NPU2_RING(NPU2_STACK_PHY(i), 0, 0), 2 * MiB);
}

static void npu2_instance_init(Object *obj)
{
    PNV_NPU2(obj)->machine_checks = true;
}

static void npu2_realize(DeviceState *dev, Error **errp)
{
    PnvNpu2 *npu = PNV_NPU2(dev);
    g_autofree char *ring = g_strdup_printf("npu2-%u-regs", npu->chip_id);

    npu->atsd_uvm = !g_strcmp0(npu->atsd_is, "uvm");
    if (npu->atsd_is && !npu->atsd_uvm && strcmp(npu->atsd_is, "tlbie")) {
        error_setg(errp, "npu2: property is: tlbie or uvm, not %s",
                   npu->atsd_is);
        return;
    }

    pnv_xscom_region_init(&npu->xscom_regs, OBJECT(npu), &npu2_xscom_ops, npu,
                          "xscom-npu2", PNV9_XSCOM_NPU2_SIZE);
    pnv_xscom_region_init(&npu->xscom_pb_cent, OBJECT(npu), &npu2_pb_cent_ops,
                          npu, "xscom-npu2-pb-cent",
                          PNV9_XSCOM_PB_CENT_SIZE);
    pnv_xscom_region_init(&npu->xscom_fir, OBJECT(npu), &npu2_fir_ops, npu,
                          "xscom-npu2-fir", PNV9_XSCOM_NPU2_FIR_SIZE);

    memory_region_init_io(&npu->ring, OBJECT(npu), &npu2_ring_ops, npu, ring,
                          NPU2_RING_SIZE);
    for (int i = 0; i < PNV_NPU2_STACKS; i++) {
        g_autofree char *name = g_strdup_printf("npu2-%u-genid.%d",
                                                npu->chip_id, i);

        memory_region_init_io(&npu->genid[i], OBJECT(npu), &npu2_genid_ops,
                              npu, name, 128 * KiB);
    }
    for (int i = 0; i < PNV_NPU2_OBUS; i++) {
        npu2_init_obus(npu, i);
    }
    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        npu2_init_brick(npu, i);
    }
    qemu_register_resettable(OBJECT(dev));
}

static const Property npu2_properties[] = {
    DEFINE_PROP_UINT32("chip-id", PnvNpu2, chip_id, 0),
    DEFINE_PROP_LINK("nmmu", PnvNpu2, nmmu, TYPE_PNV_NMMU, PnvNmmu *),
    DEFINE_PROP_BOOL("small-memory-map", PnvNpu2, small_map, false),
    DEFINE_PROP_STRING("is", PnvNpu2, atsd_is),
    DEFINE_PROP_BOOL("atsd-4k", PnvNpu2, atsd_4k, false),
    DEFINE_PROP_BOOL("atsd-link-wait", PnvNpu2, atsd_link_wait, true),
    DEFINE_PROP_UINT32("atsd-polls", PnvNpu2, atsd_polls, 3),
    DEFINE_PROP_BOOL("freeze", PnvNpu2, freeze, true),
    DEFINE_PROP_BOOL("pest-write-ones", PnvNpu2, pest_w1c, false),
};

static void npu2_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    dc->desc = "PowerNV NPU2 (NVLink2)";
    dc->realize = npu2_realize;
    dc->user_creatable = false;
    rc->phases.hold = npu2_reset_hold;
    device_class_set_props(dc, npu2_properties);

    for (int i = 0; i < ARRAY_SIZE(npu2_tables); i++) {
        const Npu2Table *table = &npu2_tables[i];

        object_class_property_add(klass, table->name, "uint64List",
                                  npu2_get_table, NULL, NULL, (void *)table);
        object_class_property_set_description(klass, table->name,
                                              table->description);
    }
    object_class_property_add(klass, "inject-fence", "uint32", NULL,
                              npu2_inject_fence, NULL, NULL);
    object_class_property_set_description(klass, "inject-fence",
        "Fence this brick, as an error on its link does");
    object_class_property_add_bool(klass, "inject-xts-full", npu2_get_xts_full,
                                   npu2_set_xts_full);
    object_class_property_set_description(klass, "inject-xts-full",
        "Let entries of the XTS BDF map that aren't VALID read as taken");
    object_class_property_add_str(klass, "dead", npu2_get_dead, npu2_set_dead);
    object_class_property_set_description(klass, "dead",
        "What an access of GPU memory is that nobody answers: a machine-check, "
        "or ones");
    object_class_property_add(klass, "inject-scom-error", "uint32",
                              npu2_get_scom_errors, npu2_set_scom_errors, NULL,
                              NULL);
    object_class_property_set_description(klass, "inject-scom-error",
        "SCOM accesses to XTS and ATSD registers that fail from now on");
    object_class_property_add(klass, "inject-atsd-busy", "uint32",
                              npu2_get_atsd_hangs, npu2_set_atsd_hangs, NULL,
                              NULL);
    object_class_property_set_description(klass, "inject-atsd-busy",
        "Shootdowns from now on that never end; 0 lets all end that did not");
    object_class_property_add(klass, "inject-irq", "uint32", NULL,
                              npu2_inject_irq, NULL, NULL);
    object_class_property_set_description(klass, "inject-irq",
        "Raise this interrupt source");
}

static const TypeInfo npu2_info = {
    .name          = TYPE_PNV_NPU2,
    .parent        = TYPE_DEVICE,
    .instance_size = sizeof(PnvNpu2),
    .instance_init = npu2_instance_init,
    .class_init    = npu2_class_init,
};

static void npu2_register_types(void)
{
    type_register_static(&npu2_info);
}

type_init(npu2_register_types);

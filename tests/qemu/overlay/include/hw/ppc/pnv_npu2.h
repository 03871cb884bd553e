/*
 * QEMU PowerNV, POWER9 NPU2 (NVLink2)
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PPC_PNV_NPU2_H
#define PPC_PNV_NPU2_H

#include "exec/memory.h"
#include "hw/qdev-core.h"
#include "hw/ppc/pnv_npu2_regs.h"
#include "hw/ppc/pnv_npu2_xlate.h"
#include "qom/object.h"

#define TYPE_PNV_NPU2 "pnv-npu2"
OBJECT_DECLARE_SIMPLE_TYPE(PnvNpu2, PNV_NPU2)

#define PNV_NPU2_STACKS             3
#define PNV_NPU2_BRICKS             6
#define PNV_NPU2_OBUS               2

/* Largest aperture a GPU memory BAR can decode */
#define PNV_NPU2_APERTURE_MAX       (1ull << (30 + 15))

typedef struct PnvNpu2Gpu PnvNpu2Gpu;

/*
 * The device at the other end of some of the bricks.
 */
struct PnvNpu2Gpu {
    /* Set by the device before it attaches: */
    uint32_t bricks;        /* bit per brick it is wired to */
    MemoryRegion *ram;      /* what its links give access to */
    /* Set by the NPU: its ends of the links are up */
    bool up;
    /* Whether it answers accesses to its RAM on links that are trained */
    bool (*awake)(PnvNpu2Gpu *gpu);
    /* A CPU access to the GPU's aperture that nothing answered */
    void (*unanswered)(PnvNpu2Gpu *gpu, hwaddr offset);
    /* A shootdown of translations that the device may hold */
    void (*shootdown)(PnvNpu2Gpu *gpu, const PnvShootdown *shootdown);
};

/* One brick: a link and what the CPU sees behind it */
typedef struct PnvNpu2Brick {
    PnvNpu2 *npu;
    uint32_t index;
    PnvNpu2Gpu *gpu;
    bool trained;
    uint32_t fence;             /* CQ_FENCE_STATUS, NPU2_FENCE_* */
    uint64_t unanswered;        /* accesses that found no memory, ever */
    uint64_t torn;              /* resets of the GPU while it was open, ever */

    hwaddr base;                /* what its GPU memory BAR decodes, or 0 */
    bool mapped;                /* it owns the aperture at base */
    MemoryRegion aperture;      /* nothing, with the RAM on top */
    MemoryRegion nothing;       /* a machine check or ones, and the fence */
    MemoryRegion ram;           /* alias of the GPU's */

    MemoryRegion ntl;           /* NTL BAR: DL and NTL blocks of the ring */
} PnvNpu2Brick;

typedef struct PnvNpu2Obus {
    PnvNpu2 *npu;
    uint32_t index;
    MemoryRegion cplt_conf1;
    MemoryRegion indirect;
    uint64_t iovalid;
    uint64_t select;
    /* Bit per lane: calibrated, and told to run since then */
    uint32_t calibrated;
    uint32_t running;
    uint16_t lane[NPU2_PHY_LANES][NPU2_PHY_PER_LANE];
    uint16_t bus[NPU2_PHY_REGS - NPU2_PHY_PER_LANE];
} PnvNpu2Obus;

/* Registers of each kind of block of the ring, by offset / 8 (DL: in order) */
#define PNV_NPU2_SM_REGS            42
#define PNV_NPU2_CTL_REGS           42
#define PNV_NPU2_DAT_REGS           41
#define PNV_NPU2_NTL_REGS           161
#define PNV_NPU2_DL_REGS            3
#define PNV_NPU2_DL_CONFIG          2
#define PNV_NPU2_ATS_REGS           43
#define PNV_NPU2_XTS_REGS           40
#define PNV_NPU2_MISC_REGS          130

typedef struct PnvNpu2AtsdBlock {
    uint64_t ava;
    uint64_t last_launch;
    uint64_t launches;
    uint64_t ignored;           /* while MMIO shootdowns are off, or busy */

    /* The launch that is under way */
    bool busy;
    bool hung;                  /* as injected: it never ends */
    uint32_t polls;             /* reads of STATUS before it takes effect */
    uint32_t targets;           /* bit per brick that it is still to go to */
    PnvShootdown shootdown;
} PnvNpu2AtsdBlock;

typedef struct PnvNpu2PidEntry {
    uint64_t pid;
    uint64_t seidr;
    uint64_t amr;
} PnvNpu2PidEntry;

#define PNV_NPU2_TCE_CACHE_SIZE     64

typedef struct PnvNpu2Tce {
    bool valid;
    uint32_t pe;
    PnvXlatePage page;
} PnvNpu2Tce;

struct PnvNpu2 {
    DeviceState parent_obj;

    uint32_t chip_id;
    PnvNmmu *nmmu;              /* of the same chip */
    bool small_map;             /* GPU memory from 4 TiB up */
    bool freeze;                /* a refused DMA freezes its PE */
    bool pest_w1c;              /* PESTB is cleared by writing ones */

    /* Shootdowns, see pnv_npu2_atsd.c */
    char *atsd_is;
    bool atsd_uvm;
    bool atsd_4k;
    bool atsd_link_wait;
    uint32_t atsd_polls;
    uint32_t atsd_hangs;        /* injected: launches to come that never end */

    bool machine_checks;        /* at accesses that find no GPU memory */

    /* Injected faults */
    bool xts_full;
    uint32_t scom_errors;

    /* SCOM */
    MemoryRegion xscom_regs;
    MemoryRegion xscom_pb_cent;
    MemoryRegion xscom_fir;
    uint64_t indirect_addr;
    uint64_t fir[NPU2_FIR_SETS][8];

    /* The register ring and the BARs that show parts of it */
    MemoryRegion ring;
    MemoryRegion phy[PNV_NPU2_OBUS];
    MemoryRegion genid[PNV_NPU2_STACKS];

    uint64_t sm[PNV_NPU2_STACKS][4][PNV_NPU2_SM_REGS];
    uint64_t ctl[PNV_NPU2_STACKS][PNV_NPU2_CTL_REGS];
    uint64_t dat[PNV_NPU2_STACKS][PNV_NPU2_DAT_REGS];
    uint64_t ntl[PNV_NPU2_BRICKS][PNV_NPU2_NTL_REGS];
    uint64_t dl[PNV_NPU2_BRICKS][PNV_NPU2_DL_REGS];
    uint64_t ats[PNV_NPU2_ATS_REGS];
    uint64_t xts[PNV_NPU2_XTS_REGS];
    uint64_t misc[PNV_NPU2_MISC_REGS];

    /* Tables */
    uint64_t tvt[NPU2_TVT_SIZE];
    uint64_t bdf_map[NPU2_XTS_BDF_MAP_SIZE];
    PnvNpu2PidEntry pid_map[NPU2_XTS_PID_MAP_SIZE];
    uint64_t atsd_lparid[NPU2_ATSD_COUNT];
    PnvNpu2AtsdBlock atsd[NPU2_ATSD_COUNT];

    PnvNpu2Tce tce_cache[PNV_NPU2_TCE_CACHE_SIZE];
    uint32_t tce_cache_next;
    uint64_t tce_kills_all;
    uint64_t tce_kills_one;
    uint64_t tce_kill_last;
    uint64_t irqs[NPU2_IRQ_COUNT];

    PnvNpu2Brick brick[PNV_NPU2_BRICKS];
    PnvNpu2Obus obus[PNV_NPU2_OBUS];
};

/*
 * Wire a device to the bricks it names, at its realize; they must be free.
 */
bool pnv_npu2_attach(PnvNpu2 *npu, PnvNpu2Gpu *gpu, Error **errp);
void pnv_npu2_detach(PnvNpu2 *npu, PnvNpu2Gpu *gpu);

/*
 * The device's view of its links.  Training takes the NTLs of the bricks out
 * of reset and clears their fences, as the vendor's driver does through the
 * PHY procedures of the firmware.  A device that takes its links down, or is
 * reset, leaves them fenced: firmware resets links before their GPU because
 * the NPU reports an error otherwise.
 */
/* Bring up the GPU's ends of its links, or firmware's as well */
void pnv_npu2_gpu_up(PnvNpu2 *npu, PnvNpu2Gpu *gpu);
void pnv_npu2_train(PnvNpu2 *npu, PnvNpu2Gpu *gpu);
void pnv_npu2_untrain(PnvNpu2 *npu, PnvNpu2Gpu *gpu);
/* The device is reset, or loses power: its links go down, whatever is open */
void pnv_npu2_gpu_reset(PnvNpu2 *npu, PnvNpu2Gpu *gpu);
/* To be told whenever awake() of a device may say something else than before */
void pnv_npu2_gpu_changed(PnvNpu2 *npu);
/* Bit per trained brick, as numbered by the NPU */
uint32_t pnv_npu2_trained(const PnvNpu2 *npu, const PnvNpu2Gpu *gpu);
/* What the NPU decodes for the GPU, or 0 */
hwaddr pnv_npu2_aperture(const PnvNpu2 *npu, const PnvNpu2Gpu *gpu);

/*
 * The PID map entry of a process: its own, or the one for all processes of the
 * LPAR, which the BDF map entry permits by UNFILT and has at index LPARSHORT.
 */
const PnvNpu2PidEntry *pnv_npu2_find_pid(const PnvNpu2 *npu, uint64_t bdf,
                                         uint32_t pasid);

/* A store to LAUNCH, and a load of STATUS, of register set n */
void pnv_npu2_atsd_launch(PnvNpu2 *npu, unsigned n, uint64_t launch);
uint64_t pnv_npu2_atsd_status(PnvNpu2 *npu, unsigned n);
/* So many launches never end, until this is called with 0 */
void pnv_npu2_atsd_hang(PnvNpu2 *npu, uint32_t launches);

#endif /* PPC_PNV_NPU2_H */

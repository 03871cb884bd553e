/*
 * QEMU PowerNV, POWER9 NPU2: shootdowns of translations that devices remember
 *
 * A store to LAUNCH of a register set begins one, for what LAUNCH and AVA name
 * in the partition that the set's LPARID register holds.  STATUS is not 0 until
 * it is done.  The NPU sends it to the devices that are bound to that partition
 * when it is launched, on the brick that the BDF map has for each.
 *
 * What nobody has published is done as is hardest for software, and properties
 * of the NPU have the other ways:
 *
 *  - "is" says what bits 11 to 13 of LAUNCH are.  "tlbie": 11 and 12 are IS of
 *    tlbie and 13 is its PRS.  A device holds effective addresses, so a launch
 *    that is not process scoped names nothing.  "uvm": 12 is all addresses
 *    instead of the one in AVA, 13 is only the PID in LAUNCH instead of all of
 *    them, and 11 is nothing, as NVIDIA's driver and Linux before 5.3 have it.
 *  - "atsd-polls" is how often STATUS is read before the launch has any effect.
 *    It has none as long as nobody reads STATUS, and a LAUNCH that is stored
 *    meanwhile is lost.
 *  - "atsd-link-wait" is whether STATUS waits for a device whose link is down.
 *  - "atsd-4k" is whether AP 0 is a page of 4 KiB.  Otherwise, as with any AP
 *    that is not known, the launch names nothing.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "hw/ppc/pnv_npu2.h"
#include "hw/ppc/pnv_npu2_xlate.h"
#include "trace.h"

#define ATSD_STATUS_BUSY        1

static bool npu2_atsd_page(const PnvNpu2 *npu, uint64_t launch, uint64_t ava,
                           PnvShootdown *shootdown)
{
    /* Page size by AP, as software knows them from ibm,radix-AP-encodings */
    static const uint8_t page_shift[] = { [0] = 12, [5] = 16, [1] = 21,
                                          [2] = 30 };
    unsigned ap = GETFIELD(NPU2_ATSD_LAUNCH_AP, launch);

    if (ap >= ARRAY_SIZE(page_shift) || !page_shift[ap] ||
        (page_shift[ap] == 12 && !npu->atsd_4k)) {
        qemu_log_mask(LOG_GUEST_ERROR, "npu2: ATSD with AP %u\n", ap);
        return false;
    }
    shootdown->mask = MAKE_64BIT_MASK(0, page_shift[ap]);
    shootdown->ea = ava & ~shootdown->mask;
    return true;
}

/* Whether the launch names anything */
static bool npu2_atsd_decode_tlbie(const PnvNpu2 *npu, uint64_t launch,
                                   uint64_t ava, PnvShootdown *shootdown)
{
    if (!(launch & NPU2_ATSD_LAUNCH_PRS)) {
        return false;
    }
    switch (GETFIELD(NPU2_ATSD_LAUNCH_IS, launch)) {
    case NPU2_ATSD_IS_PAGE:
        shootdown->scope = PNV_SHOOTDOWN_PAGE;
        return npu2_atsd_page(npu, launch, ava, shootdown);
    case NPU2_ATSD_IS_PID:
        shootdown->scope = PNV_SHOOTDOWN_PID;
        return true;
    default:
        shootdown->scope = PNV_SHOOTDOWN_LPID;
        return true;
    }
}

static bool npu2_atsd_decode_uvm(const PnvNpu2 *npu, uint64_t launch,
                                 uint64_t ava, PnvShootdown *shootdown)
{
    bool of_pid = launch & NPU2_ATSD_LAUNCH_PRS;

    if (launch & NPU2_ATSD_LAUNCH_ALL) {
        shootdown->scope = of_pid ? PNV_SHOOTDOWN_PID : PNV_SHOOTDOWN_LPID;
        return true;
    }
    shootdown->scope = of_pid ? PNV_SHOOTDOWN_PAGE :
                       PNV_SHOOTDOWN_PAGE_ALL_PIDS;
    return npu2_atsd_page(npu, launch, ava, shootdown);
}

/* The bricks of the devices that the shootdown is for */
static uint32_t npu2_atsd_targets(const PnvNpu2 *npu,
                                  const PnvShootdown *shootdown)
{
    uint32_t targets = 0;

    for (int i = 0; i < NPU2_XTS_BDF_MAP_SIZE; i++) {
        uint64_t entry = npu->bdf_map[i];
        unsigned stack = GETFIELD(NPU2_BDF_MAP_STACK, entry);
        const PnvNpu2PidEntry *pid;
        unsigned brick;

        if (!(entry & NPU2_BDF_MAP_VALID) || !is_power_of_2(stack) ||
            GETFIELD(NPU2_BDF_MAP_LPARID, entry) != shootdown->lpid) {
            continue;
        }
        pid = pnv_npu2_find_pid(npu, entry, shootdown->pid);
        if (!pid || !(pid->pid & NPU2_PID_MAP_VALID_ATSD)) {
            continue;
        }
        /* One bit per stack, stack 0 on the left */
        brick = 2 * (2 - ctz32(stack)) + !!(entry & NPU2_BDF_MAP_BRICK);
        if (npu->brick[brick].gpu) {
            targets |= BIT(brick);
        }
    }
    return targets;
}

/* Send it to whom it has to reach yet.  Whether it is done */
static bool npu2_atsd_send(PnvNpu2 *npu, PnvNpu2AtsdBlock *atsd)
{
    if (atsd->hung) {
        return false;
    }
    for (int i = 0; i < PNV_NPU2_BRICKS; i++) {
        PnvNpu2Gpu *gpu = npu->brick[i].gpu;

        if (!(atsd->targets & BIT(i))) {
            continue;
        }
        if (gpu && pnv_npu2_link_check(npu, i) == PNV_XLATE_OK) {
            gpu->shootdown(gpu, &atsd->shootdown);
        } else if (gpu && npu->atsd_link_wait) {
            continue;
        }
        atsd->targets &= ~BIT(i);
    }
    return !atsd->targets;
}

void pnv_npu2_atsd_launch(PnvNpu2 *npu, unsigned n, uint64_t launch)
{
    PnvNpu2AtsdBlock *atsd = &npu->atsd[n];
    PnvShootdown shootdown = {
        .lpid = GETFIELD(NPU2_ATSD_LPARID_LPARID, npu->atsd_lparid[n]),
        .pid = GETFIELD(NPU2_ATSD_LAUNCH_PID, launch),
        .flush = !(launch & NPU2_ATSD_LAUNCH_NO_FLUSH),
    };
    bool named;

    atsd->last_launch = launch;
    if (!(npu->xts[NPU2_XTS_CFG >> 3] & NPU2_XTS_CFG_MMIOSD)) {
        qemu_log_mask(LOG_GUEST_ERROR, "npu2: ATSD %u launched while XTS_CFG "
                      "has MMIO shootdowns off\n", n);
        atsd->ignored++;
        return;
    }
    if (atsd->busy) {
        qemu_log_mask(LOG_GUEST_ERROR, "npu2: ATSD %u launched before the last "
                      "launch was done\n", n);
        atsd->ignored++;
        return;
    }
    trace_pnv_npu2_atsd(npu->chip_id, n, npu->atsd_lparid[n], launch,
                        atsd->ava);
    atsd->launches++;
    named = npu->atsd_uvm ?
            npu2_atsd_decode_uvm(npu, launch, atsd->ava, &shootdown) :
            npu2_atsd_decode_tlbie(npu, launch, atsd->ava, &shootdown);
    atsd->shootdown = shootdown;
    atsd->targets = named ? npu2_atsd_targets(npu, &shootdown) : 0;
    atsd->polls = npu->atsd_polls;
    atsd->hung = npu->atsd_hangs > 0;
    if (atsd->hung) {
        npu->atsd_hangs--;
    }
    atsd->busy = atsd->polls || !npu2_atsd_send(npu, atsd);
}

uint64_t pnv_npu2_atsd_status(PnvNpu2 *npu, unsigned n)
{
    PnvNpu2AtsdBlock *atsd = &npu->atsd[n];

    if (atsd->busy) {
        if (atsd->polls) {
            atsd->polls--;
        } else {
            atsd->busy = !npu2_atsd_send(npu, atsd);
        }
    }
    return atsd->busy ? ATSD_STATUS_BUSY : 0;
}

void pnv_npu2_atsd_hang(PnvNpu2 *npu, uint32_t launches)
{
    npu->atsd_hangs = launches;
    for (int n = 0; !launches && n < NPU2_ATSD_COUNT; n++) {
        npu->atsd[n].hung = false;
    }
}

/*
 * Test engine of the NVLink2 V100 model
 *
 * Copies between the GPU's RAM, PCIe, and NVLink with TCEs or with ATS, so that
 * tests see what a GPU can reach and what it can't.  Registers:
 * hw/misc/nvlink2-v100-regs.h.
 *
 * A copy is done while it is started, in pieces that stay in one 4 KiB page on
 * both sides; each piece is translated anew.  What ATS translates is kept in a
 * cache (ATC) until a shootdown names it and further ones, for PID 0, have
 * flushed what was named: as with the real device, software that forgets one of
 * them lets it go on to reach old pages.  What the cache has goes out as a host
 * real address, whatever the NPU's maps say by then; with "atc-asks-xts" it asks
 * them each time.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/range.h"
#include "qapi/visitor.h"
#include "qapi/qapi-builtin-visit.h"
#include "exec/address-spaces.h"
#include "hw/misc/nvlink2_v100_engine.h"
#include "hw/pci/pci_device.h"
#include "trace.h"

#define PIECE_SIZE      4096u

/* One side of a copy */
typedef struct V100Side {
    unsigned path;
    uint64_t addr;
    bool write;
} V100Side;

static uint32_t v100_engine_cause(PnvXlateFault fault)
{
    static const uint8_t causes[] = {
        [PNV_XLATE_OK] = V100_ENGINE_CAUSE_NONE,
        [PNV_XLATE_UNTRAINED] = V100_ENGINE_CAUSE_UNTRAINED,
        [PNV_XLATE_FENCED] = V100_ENGINE_CAUSE_FENCED,
        [PNV_XLATE_FROZEN] = V100_ENGINE_CAUSE_FROZEN,
        [PNV_XLATE_NO_TVE] = V100_ENGINE_CAUSE_NO_TVE,
        [PNV_XLATE_TVE_RANGE] = V100_ENGINE_CAUSE_TVE_RANGE,
        [PNV_XLATE_TCE_INVALID] = V100_ENGINE_CAUSE_TCE_INVALID,
        [PNV_XLATE_TCE_READ] = V100_ENGINE_CAUSE_TCE_READ,
        [PNV_XLATE_TCE_WRITE] = V100_ENGINE_CAUSE_TCE_WRITE,
        [PNV_XLATE_BDF_MISS] = V100_ENGINE_CAUSE_XTS_BDF_MISS,
        [PNV_XLATE_PID_MISS] = V100_ENGINE_CAUSE_XTS_PID_MISS,
        [PNV_XLATE_HV_DENIED] = V100_ENGINE_CAUSE_HV_DENIED,
        [PNV_XLATE_NO_PTCR] = V100_ENGINE_CAUSE_NO_PTCR,
        [PNV_XLATE_PARTITION_ENTRY] = V100_ENGINE_CAUSE_PARTITION_ENTRY,
        [PNV_XLATE_PROCESS_ENTRY] = V100_ENGINE_CAUSE_PROCESS_ENTRY,
        [PNV_XLATE_RADIX] = V100_ENGINE_CAUSE_RADIX,
        [PNV_XLATE_PERMISSION] = V100_ENGINE_CAUSE_PERMISSION,
        [PNV_XLATE_PARTITION_RADIX] = V100_ENGINE_CAUSE_PARTITION_RADIX,
        [PNV_XLATE_PARTITION_PERMISSION] =
            V100_ENGINE_CAUSE_PARTITION_PERMISSION,
    };

    return causes[fault];
}

/* Brick of a link of this GPU, or -1 */
static int v100_engine_brick(const V100Engine *engine, unsigned link)
{
    for (int brick = 0; brick < PNV_NPU2_BRICKS; brick++) {
        if ((engine->bricks & BIT(brick)) && !link--) {
            return brick;
        }
    }
    return -1;
}

/*
 * ATS and its cache
 */

static bool v100_atc_same(const PnvXlateContext *a, const PnvXlateContext *b)
{
    return a->lpid == b->lpid && a->pid == b->pid && a->hv == b->hv &&
           a->pr == b->pr;
}

/*
 * By what the device knows, its PASID and an effective address, and of that
 * context, if it was asked for
 */
static V100AtcEntry *v100_atc_find(V100Engine *engine,
                                   const PnvXlateContext *ctx, uint64_t ea)
{
    for (int i = 0; i < V100_ENGINE_ATC_SIZE; i++) {
        V100AtcEntry *entry = &engine->atc[i];

        if (entry->valid && entry->ctx.pid == engine->pasid &&
            (!ctx || v100_atc_same(&entry->ctx, ctx)) &&
            entry->page.from == (ea & ~entry->page.mask)) {
            return entry;
        }
    }
    return NULL;
}

static PnvXlateFault v100_ats(V100Engine *engine, const V100Side *side,
                              PnvXlatePage *page)
{
    PnvXlateContext ctx;
    PnvXlateFault asked;
    PnvXlateFault fault;
    V100AtcEntry *entry;

    asked = pnv_npu2_xts_context(engine->npu, pci_get_bdf(engine->pdev),
                                 engine->pasid, &ctx);
    if (asked && engine->asks_xts) {
        return asked;
    }
    entry = v100_atc_find(engine, engine->asks_xts ? &ctx : NULL, side->addr);
    if (entry && (side->write ? entry->page.write : entry->page.read)) {
        engine->atc_hits++;
        *page = entry->page;
        return PNV_XLATE_OK;
    }
    if (asked) {
        return asked;
    }
    engine->atc_walks++;
    fault = pnv_nmmu_translate(engine->npu->nmmu, &ctx, side->addr, side->write,
                               page, &engine->fault_gpa);
    if (fault) {
        return fault;
    }
    if (!entry) {
        entry = &engine->atc[engine->atc_next];
        engine->atc_next = (engine->atc_next + 1) % V100_ENGINE_ATC_SIZE;
    }
    *entry = (V100AtcEntry) { .valid = true, .ctx = ctx, .page = *page };
    return PNV_XLATE_OK;
}

static bool v100_atc_hit(const V100AtcEntry *entry,
                         const PnvShootdown *shootdown)
{
    if (!entry->valid || entry->ctx.lpid != shootdown->lpid) {
        return false;
    }
    switch (shootdown->scope) {
    case PNV_SHOOTDOWN_PAGE:
        if (entry->ctx.pid != shootdown->pid) {
            return false;
        }
        /* fall through */
    case PNV_SHOOTDOWN_PAGE_ALL_PIDS:
        return ranges_overlap(entry->page.from, entry->page.mask + 1,
                              shootdown->ea, shootdown->mask + 1);
    case PNV_SHOOTDOWN_PID:
        return entry->ctx.pid == shootdown->pid;
    case PNV_SHOOTDOWN_LPID:
        return true;
    }
    g_assert_not_reached();
}

static void v100_atc_remove(V100Engine *engine, V100AtcEntry *entry)
{
    entry->valid = false;
    engine->atc_removed++;
}

/* PID 0, no process of which uses a GPU, all of it, and a flush afterwards */
static bool v100_flushes(const PnvShootdown *shootdown)
{
    return shootdown->flush && shootdown->scope == PNV_SHOOTDOWN_PID &&
           !shootdown->pid;
}

void v100_engine_shootdown(V100Engine *engine, const PnvShootdown *shootdown)
{
    engine->atc_shootdowns++;
    for (int i = 0; i < V100_ENGINE_ATC_SIZE; i++) {
        V100AtcEntry *entry = &engine->atc[i];

        if (entry->valid && entry->flushes && v100_flushes(shootdown) &&
            entry->ctx.lpid == shootdown->lpid && !--entry->flushes) {
            v100_atc_remove(engine, entry);
        }
        if (!v100_atc_hit(entry, shootdown)) {
            continue;
        }
        if (engine->flushes) {
            entry->flushes = engine->flushes;
        } else {
            v100_atc_remove(engine, entry);
        }
    }
    trace_nvlink2_v100_shootdown(engine->pdev->name, shootdown->scope,
                                 shootdown->lpid, shootdown->pid,
                                 shootdown->ea, shootdown->mask);
}

static uint32_t v100_atc_entries(const V100Engine *engine)
{
    uint32_t count = 0;

    for (int i = 0; i < V100_ENGINE_ATC_SIZE; i++) {
        count += engine->atc[i].valid;
    }
    return count;
}

/*
 * Copying
 */

static uint32_t v100_access_ram(V100Engine *engine, const V100Side *side,
                                void *buf, unsigned len)
{
    uint64_t size = memory_region_size(engine->ram);
    uint8_t *ram = memory_region_get_ram_ptr(engine->ram);

    if (side->addr >= size || len > size - side->addr) {
        return V100_ENGINE_CAUSE_RAM;
    }
    if (side->write) {
        memcpy(ram + side->addr, buf, len);
        memory_region_set_dirty(engine->ram, side->addr, len);
    } else {
        memcpy(buf, ram + side->addr, len);
    }
    return V100_ENGINE_CAUSE_NONE;
}

static uint32_t v100_access_nvlink(V100Engine *engine, const V100Side *side,
                                   void *buf, unsigned len)
{
    int brick = v100_engine_brick(engine, engine->link);
    PnvXlateFault fault = pnv_npu2_link_check(engine->npu, brick);
    PnvXlatePage page;

    if (!fault) {
        fault = pnv_npu2_pe_check(engine->npu, brick,
                                  pci_get_bdf(engine->pdev));
    }
    if (!fault && side->path == V100_ENGINE_PATH_ATS) {
        fault = v100_ats(engine, side, &page);
    } else if (!fault) {
        fault = pnv_npu2_tce_translate(engine->npu, brick,
                                       pci_get_bdf(engine->pdev), side->addr,
                                       side->write, &page);
    }
    if (fault) {
        return v100_engine_cause(fault);
    }
    if (address_space_rw(&address_space_memory, pnv_xlate_to(&page, side->addr),
                         MEMTXATTRS_UNSPECIFIED, buf, len, side->write)) {
        return V100_ENGINE_CAUSE_NO_MEMORY;
    }
    return V100_ENGINE_CAUSE_NONE;
}

static uint32_t v100_access(V100Engine *engine, const V100Side *side, void *buf,
                            unsigned len)
{
    DMADirection dir = side->write ? DMA_DIRECTION_FROM_DEVICE :
                       DMA_DIRECTION_TO_DEVICE;

    switch (side->path) {
    case V100_ENGINE_PATH_RAM:
        return v100_access_ram(engine, side, buf, len);
    case V100_ENGINE_PATH_PCI:
        return pci_dma_rw(engine->pdev, side->addr, buf, len, dir,
                          MEMTXATTRS_UNSPECIFIED) ?
               V100_ENGINE_CAUSE_PCI : V100_ENGINE_CAUSE_NONE;
    default:
        return v100_access_nvlink(engine, side, buf, len);
    }
}

static unsigned v100_piece(uint64_t addr)
{
    return PIECE_SIZE - (addr & (PIECE_SIZE - 1));
}

static bool v100_engine_params_valid(const V100Engine *engine)
{
    return engine->length && engine->length <= V100_ENGINE_LENGTH_MAX &&
           engine->pasid <= V100_ENGINE_PASID_MAX &&
           (engine->path & 0xf) <= V100_ENGINE_PATH_ATS &&
           (engine->path >> 4) <= V100_ENGINE_PATH_ATS &&
           v100_engine_brick(engine, engine->link) >= 0 &&
           engine->src <= UINT64_MAX - engine->length &&
           engine->dst <= UINT64_MAX - engine->length;
}

static void v100_engine_fault(V100Engine *engine, const V100Side *side)
{
    engine->fault_side = side->write ? V100_ENGINE_FAULT_SIDE_DST :
                         V100_ENGINE_FAULT_SIDE_SRC;
    engine->fault_addr = side->addr;
}

static void v100_engine_start(V100Engine *engine)
{
    V100Side src = { .path = engine->path & 0xf, .addr = engine->src };
    V100Side dst = { .path = engine->path >> 4, .addr = engine->dst,
                     .write = true };
    uint8_t buf[PIECE_SIZE];

    engine->cause = V100_ENGINE_CAUSE_NONE;
    engine->fault_side = 0;
    engine->fault_addr = 0;
    engine->fault_gpa = 0;
    engine->copied = 0;
    if (!v100_engine_params_valid(engine)) {
        engine->cause = V100_ENGINE_CAUSE_PARAM;
    }
    while (!engine->cause && engine->copied < engine->length) {
        unsigned len = MIN(engine->length - engine->copied,
                           MIN(v100_piece(src.addr), v100_piece(dst.addr)));

        engine->cause = v100_access(engine, &src, buf, len);
        if (engine->cause) {
            v100_engine_fault(engine, &src);
            break;
        }
        engine->cause = v100_access(engine, &dst, buf, len);
        if (engine->cause) {
            v100_engine_fault(engine, &dst);
            break;
        }
        engine->copied += len;
        src.addr += len;
        dst.addr += len;
    }
    engine->status = engine->cause ? V100_ENGINE_STATUS_FAULT :
                     V100_ENGINE_STATUS_DONE;
    trace_nvlink2_v100_copy(engine->pdev->name, engine->path, engine->src,
                            engine->dst, engine->length, engine->pasid,
                            engine->cause, engine->fault_addr);
}

/*
 * Registers
 */

uint32_t v100_engine_read(const V100Engine *engine, hwaddr addr)
{
    switch (addr) {
    case V100_ENGINE_SRC_LO:
        return extract64(engine->src, 0, 32);
    case V100_ENGINE_SRC_HI:
        return extract64(engine->src, 32, 32);
    case V100_ENGINE_DST_LO:
        return extract64(engine->dst, 0, 32);
    case V100_ENGINE_DST_HI:
        return extract64(engine->dst, 32, 32);
    case V100_ENGINE_LENGTH:
        return engine->length;
    case V100_ENGINE_PASID:
        return engine->pasid;
    case V100_ENGINE_PATH:
        return engine->path;
    case V100_ENGINE_LINK:
        return engine->link;
    case V100_ENGINE_STATUS:
        return engine->status;
    case V100_ENGINE_CAUSE:
        return engine->cause;
    case V100_ENGINE_FAULT_SIDE:
        return engine->fault_side;
    case V100_ENGINE_FAULT_ADDR_LO:
        return extract64(engine->fault_addr, 0, 32);
    case V100_ENGINE_FAULT_ADDR_HI:
        return extract64(engine->fault_addr, 32, 32);
    case V100_ENGINE_FAULT_GPA_LO:
        return extract64(engine->fault_gpa, 0, 32);
    case V100_ENGINE_FAULT_GPA_HI:
        return extract64(engine->fault_gpa, 32, 32);
    case V100_ENGINE_COPIED:
        return engine->copied;
    case V100_ENGINE_ATC_ENTRIES:
        return v100_atc_entries(engine);
    case V100_ENGINE_ATC_HITS:
        return engine->atc_hits;
    case V100_ENGINE_ATC_WALKS:
        return engine->atc_walks;
    case V100_ENGINE_ATC_SHOOTDOWNS:
        return engine->atc_shootdowns;
    case V100_ENGINE_ATC_REMOVED:
        return engine->atc_removed;
    }
    return 0;
}

void v100_engine_write(V100Engine *engine, hwaddr addr, uint32_t val)
{
    switch (addr) {
    case V100_ENGINE_SRC_LO:
        engine->src = deposit64(engine->src, 0, 32, val);
        break;
    case V100_ENGINE_SRC_HI:
        engine->src = deposit64(engine->src, 32, 32, val);
        break;
    case V100_ENGINE_DST_LO:
        engine->dst = deposit64(engine->dst, 0, 32, val);
        break;
    case V100_ENGINE_DST_HI:
        engine->dst = deposit64(engine->dst, 32, 32, val);
        break;
    case V100_ENGINE_LENGTH:
        engine->length = val;
        break;
    case V100_ENGINE_PASID:
        engine->pasid = val;
        break;
    case V100_ENGINE_PATH:
        engine->path = val;
        break;
    case V100_ENGINE_LINK:
        engine->link = val;
        break;
    case V100_ENGINE_START:
        if (val == 1) {
            v100_engine_start(engine);
        }
        break;
    default:
        qemu_log_mask(LOG_GUEST_ERROR, "nvlink2-v100: write of engine register "
                      "0x%" HWADDR_PRIx " = 0x%x\n", addr, val);
    }
}

void v100_engine_reset(V100Engine *engine)
{
    V100Engine kept = {
        .pdev = engine->pdev,
        .npu = engine->npu,
        .bricks = engine->bricks,
        .ram = engine->ram,
        .flushes = engine->flushes,
        .asks_xts = engine->asks_xts,
    };

    *engine = kept;
}

/*
 * Properties
 */

/* Per entry: LPID, PID, effective address, host real address, size, R=1|W=2 */
static void v100_engine_get_atc(Object *obj, Visitor *v, const char *name,
                                void *opaque, Error **errp)
{
    const V100Engine *engine = opaque;
    uint64List *list = NULL, **tail = &list;

    for (int i = 0; i < V100_ENGINE_ATC_SIZE; i++) {
        const V100AtcEntry *entry = &engine->atc[i];

        if (entry->valid) {
            QAPI_LIST_APPEND(tail, entry->ctx.lpid);
            QAPI_LIST_APPEND(tail, entry->ctx.pid);
            QAPI_LIST_APPEND(tail, entry->page.from);
            QAPI_LIST_APPEND(tail, entry->page.to);
            QAPI_LIST_APPEND(tail, entry->page.mask + 1);
            QAPI_LIST_APPEND(tail, entry->page.read | entry->page.write << 1);
        }
    }
    visit_type_uint64List(v, name, &list, errp);
    qapi_free_uint64List(list);
}

void v100_engine_init(V100Engine *engine, PCIDevice *pdev, PnvNpu2 *npu,
                      uint32_t bricks, MemoryRegion *ram, uint32_t flushes,
                      bool asks_xts)
{
    Object *obj = OBJECT(pdev);

    *engine = (V100Engine) {
        .pdev = pdev,
        .npu = npu,
        .bricks = bricks,
        .ram = ram,
        .flushes = flushes,
        .asks_xts = asks_xts,
    };
    object_property_add_uint32_ptr(obj, "engine-status", &engine->status,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint32_ptr(obj, "engine-cause", &engine->cause,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "engine-fault-address",
                                   &engine->fault_addr, OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "engine-fault-gpa", &engine->fault_gpa,
                                   OBJ_PROP_FLAG_READ);
    object_property_add(obj, "engine-atc", "uint64List", v100_engine_get_atc,
                        NULL, NULL, engine);
    object_property_set_description(obj, "engine-atc",
        "Cached translations: LPID, PID, effective and host real address, "
        "size, permissions (1 = read, 2 = write) of each");
}

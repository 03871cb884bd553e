/*
 * QEMU PowerNV, POWER9 nest MMU
 *
 * Translates effective addresses for units outside of the cores, here for the
 * NPU, by the radix tables in memory.  Software says where they are: firmware
 * writes the nest MMU's own PTCR, which this model starts from; it does not
 * look at the cores' PTCR.
 *
 * The partition table has, per LPID, the root of the partition scoped tree
 * (guest real to host real) and the place of the process table; the process
 * table has, per PID, the root of the process scoped tree (effective to guest
 * real).  All the latter's addresses are guest real.  In hypervisor state
 * (MSR HV) there is no partition scoped translation.
 *
 * A walk cache has the PTEs, of both trees, and the entries of both tables that
 * walks used.  Linux works around a page walk cache of POWER9's nest MMU
 * that keeps PTEs which tlbie with RIC=0 says are to be invalidated, be it by
 * PID or by LPID, and says that the unit does not take single addresses either:
 * only RIC=2, of the scope, LPID and PID of an entry, removes it.  What a core
 * does with tlbiel, no other unit sees.  Entries of tables that lead to other
 * tables are read each time.  Without "walk-cache" all are.
 *
 * Hash tables are not modelled, nor storage keys.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/atomic.h"
#include "qemu/log.h"
#include "qemu/module.h"
#include "exec/address-spaces.h"
#include "hw/ppc/pnv_nmmu.h"
#include "hw/ppc/pnv_xscom.h"
#include "hw/qdev-properties.h"
#include "hw/resettable.h"
#include "qapi/error.h"
#include "qemu/lockable.h"
#include "system/reset.h"
#include "target/ppc/cpu.h"
#include "trace.h"

/* SCOM register */
#define NMMU_PTCR               0xb

#define PTCR_PATB               PPC_BITMASK(4, 51)
#define PTCR_PATS               PPC_BITMASK(59, 63)     /* log2, of 4 KiB */

/* Partition table entry: two doublewords; the first is a tree's root as well */
#define PATE0_HOST_RADIX        PPC_BIT(0)
#define PATE1_GUEST_RADIX       PPC_BIT(0)
#define PATE1_PRTB              PPC_BITMASK(4, 51)
#define PATE1_PRTS              PPC_BITMASK(59, 63)     /* log2, of 4 KiB */
#define ENTRY_SHIFT             4

/* Root of a tree: address bits that it translates, minus 31, in two parts */
#define ROOT_RTS_HIGH           PPC_BITMASK(1, 2)
#define ROOT_RTS_LOW            PPC_BITMASK(56, 58)
#define ROOT_RPDB               PPC_BITMASK(8, 55)
#define ROOT_RPDS               PPC_BITMASK(59, 63)     /* log2, entries */

/* Entry of a tree */
#define RADIX_VALID             PPC_BIT(0)
#define RADIX_LEAF              PPC_BIT(1)
#define RADIX_NLB               PPC_BITMASK(8, 55)
#define RADIX_NLS               PPC_BITMASK(59, 63)     /* log2, entries */
#define RADIX_RPN               PPC_BITMASK(7, 51)
#define RADIX_R                 PPC_BIT(55)
#define RADIX_C                 PPC_BIT(56)
#define RADIX_PRIVILEGED        PPC_BIT(60)
#define RADIX_READ              PPC_BIT(61)
#define RADIX_READ_WRITE        PPC_BIT(62)

/* As tlbie has them in RIC and IS */
#define TLBIE_RIC_ALL           2
#define TLBIE_IS_VA             0
#define TLBIE_IS_PID            1
#define TLBIE_IS_ALL            3

#define RADIX_INDEX_MIN         5
#define RADIX_PAGE_MIN          12

#define EA_QUADRANT             PPC_BITMASK(0, 1)
#define   EA_QUADRANT_PROCESS   0
#define   EA_QUADRANT_KERNEL    3       /* PID 0's */

/* The partition that a walk is in */
typedef struct NmmuPartition {
    bool real;                  /* no partition scoped translation */
    uint64_t root;              /* of the partition scoped tree */
    uint64_t prtb;
    unsigned prts;
} NmmuPartition;

typedef struct NmmuLeaf {
    uint64_t entry;             /* of the PTE, in its tree's address space */
    hwaddr at;                  /* the same, host real */
    uint64_t pte;
    unsigned shift;
} NmmuLeaf;

typedef struct NmmuWalk {
    PnvNmmu *nmmu;
    uint32_t tlbies;            /* of the nest MMU's, when it began */
    uint32_t lpid;
    NmmuPartition partition;
    uint64_t *gpa;              /* where to report it */
    bool again;                 /* a PTE changed under the walk */
} NmmuWalk;

static bool nmmu_load(hwaddr addr, uint64_t *val)
{
    MemTxResult result;

    *val = address_space_ldq_be(&address_space_memory, addr,
                                MEMTXATTRS_UNSPECIFIED, &result);
    return result == MEMTX_OK;
}

static bool nmmu_permits(uint64_t pte, bool write)
{
    return pte & (write ? RADIX_READ_WRITE : RADIX_READ | RADIX_READ_WRITE);
}

static bool nmmu_lacks_rc(const NmmuLeaf *leaf, bool write)
{
    uint64_t rc = RADIX_R | (write ? RADIX_C : 0);

    return (leaf->pte & rc) != rc;
}

/*
 * Record the access in a PTE, unless somebody changed that meanwhile: vCPUs
 * don't stop for the walk.
 */
static bool nmmu_set_rc(const NmmuLeaf *leaf, bool write)
{
    uint64_t pte = leaf->pte | RADIX_R | (write ? RADIX_C : 0);
    hwaddr size = sizeof(pte);
    uint64_t *mapped;
    bool done;

    mapped = address_space_map(&address_space_memory, leaf->at, &size, true,
                               MEMTXATTRS_UNSPECIFIED);
    if (!mapped) {
        return true;            /* not in RAM: nothing to record it in */
    }
    done = qatomic_cmpxchg__nocheck(mapped, cpu_to_be64(leaf->pte),
                                    cpu_to_be64(pte)) ==
           cpu_to_be64(leaf->pte);
    address_space_unmap(&address_space_memory, mapped, size, true,
                        done ? size : 0);
    return done;
}

/*
 * The walk cache
 */

/* Whether they are the same but for the address */
static bool nmmu_same_tree(const PnvNmmuEntry *a, const PnvNmmuEntry *b)
{
    return a->process == b->process && a->root == b->root &&
           a->partition == b->partition && a->real == b->real && a->lpid == b->lpid &&
           (!a->process || a->pid == b->pid);
}

static PnvNmmuEntry *nmmu_cache_find(PnvNmmu *nmmu, const PnvNmmuEntry *key)
{
    for (int i = 0; i < PNV_NMMU_CACHE_SIZE; i++) {
        PnvNmmuEntry *entry = &nmmu->cache[i];

        if (entry->valid && nmmu_same_tree(entry, key) &&
            entry->from >> entry->shift == key->from >> entry->shift) {
            return entry;
        }
    }
    return NULL;
}

/* What the cache has for the tree and address in key */
static bool nmmu_cached(PnvNmmu *nmmu, const PnvNmmuEntry *key,
                        PnvNmmuEntry *found)
{
    const PnvNmmuEntry *entry;

    QEMU_LOCK_GUARD(&nmmu->lock);
    entry = nmmu->walk_cache ? nmmu_cache_find(nmmu, key) : NULL;
    if (entry) {
        *found = *entry;
        nmmu->cache_hits++;
    }
    return entry;
}

static void nmmu_cache(const NmmuWalk *walk, const PnvNmmuEntry *entry)
{
    PnvNmmu *nmmu = walk->nmmu;
    PnvNmmuEntry *old;

    QEMU_LOCK_GUARD(&nmmu->lock);
    /* What was read before a tlbie must not come back after it */
    if (!nmmu->walk_cache || nmmu->tlbies != walk->tlbies) {
        return;
    }
    old = nmmu_cache_find(nmmu, entry);
    if (!old) {
        old = &nmmu->cache[nmmu->cache_next];
        nmmu->cache_next = (nmmu->cache_next + 1) % PNV_NMMU_CACHE_SIZE;
    }
    *old = *entry;
    old->valid = true;
}

static void nmmu_tlbie(PnvNmmu *nmmu, const PPCTlbie *tlbie)
{
    if (tlbie->ric != TLBIE_RIC_ALL || tlbie->is == TLBIE_IS_VA) {
        return;
    }
    QEMU_LOCK_GUARD(&nmmu->lock);
    qatomic_set(&nmmu->tlbies, nmmu->tlbies + 1);
    for (int i = 0; i < PNV_NMMU_CACHE_SIZE; i++) {
        PnvNmmuEntry *entry = &nmmu->cache[i];

        if (entry->process == tlbie->prs &&
            (tlbie->is == TLBIE_IS_ALL || entry->lpid == tlbie->lpid) &&
            (tlbie->is != TLBIE_IS_PID || entry->pid == tlbie->pid)) {
            entry->valid = false;
        }
    }
}

/* Called by vCPUs */
static void nmmu_tlbie_notify(Notifier *notifier, void *data)
{
    nmmu_tlbie(container_of(notifier, PnvNmmu, tlbie), data);
}

static PnvXlateFault nmmu_guest_real(NmmuWalk *walk, uint64_t gpa, bool write,
                                     PnvXlatePage *page);

/* An entry of the process table, or of a process scoped tree */
static PnvXlateFault nmmu_load_guest(NmmuWalk *walk, uint64_t gpa, hwaddr *at,
                                     uint64_t *val)
{
    PnvXlateFault fault;
    PnvXlatePage page;

    *at = gpa;
    if (!walk->partition.real) {
        fault = nmmu_guest_real(walk, gpa, false, &page);
        if (fault) {
            return fault;
        }
        *at = pnv_xlate_to(&page, gpa);
    }
    return nmmu_load(*at, val) ? PNV_XLATE_OK : PNV_XLATE_RADIX;
}

/*
 * Find the leaf for addr.  RADIX: there is none; other faults are those of
 * reading a guest's tables.
 */
static PnvXlateFault nmmu_find_leaf(NmmuWalk *walk, uint64_t root,
                                    uint64_t addr, bool guest, NmmuLeaf *leaf)
{
    unsigned shift = 31 + (GETFIELD(ROOT_RTS_HIGH, root) << 3 |
                           GETFIELD(ROOT_RTS_LOW, root));
    uint64_t table = root & ROOT_RPDB;
    unsigned bits = GETFIELD(ROOT_RPDS, root);
    PnvXlateFault fault;

    if (shift > 62 || addr >> shift) {
        return PNV_XLATE_RADIX;
    }
    do {
        if (bits < RADIX_INDEX_MIN || bits + RADIX_PAGE_MIN > shift) {
            return PNV_XLATE_RADIX;
        }
        shift -= bits;
        leaf->entry = table + extract64(addr, shift, bits) * sizeof(leaf->pte);
        if (guest) {
            fault = nmmu_load_guest(walk, leaf->entry, &leaf->at, &leaf->pte);
            if (fault) {
                return fault;
            }
        } else {
            leaf->at = leaf->entry;
            if (!nmmu_load(leaf->entry, &leaf->pte)) {
                return PNV_XLATE_RADIX;
            }
        }
        if (!(leaf->pte & RADIX_VALID)) {
            return PNV_XLATE_RADIX;
        }
        table = leaf->pte & RADIX_NLB;
        bits = GETFIELD(RADIX_NLS, leaf->pte);
    } while (!(leaf->pte & RADIX_LEAF));

    leaf->shift = shift;
    return PNV_XLATE_OK;
}

/*
 * The leaf for addr of the tree in key, which the cache may have.  A cached one
 * that does not do for the access is read again, as more rights need no tlbie.
 */
static PnvXlateFault nmmu_get_leaf(NmmuWalk *walk, PnvNmmuEntry *key,
                                   uint64_t root, uint64_t addr, bool write,
                                   NmmuLeaf *leaf)
{
    PnvXlateFault fault;
    PnvNmmuEntry found;

    key->from = addr;
    if (nmmu_cached(walk->nmmu, key, &found)) {
        *leaf = (NmmuLeaf) { .entry = found.at, .at = found.host,
                             .pte = found.val, .shift = found.shift };
        if (nmmu_permits(leaf->pte, write) && !nmmu_lacks_rc(leaf, write)) {
            return PNV_XLATE_OK;
        }
    }
    fault = nmmu_find_leaf(walk, root, addr, key->process, leaf);
    if (!fault) {
        key->at = leaf->entry;
        key->host = leaf->at;
        key->val = leaf->pte;
        key->shift = leaf->shift;
    }
    return fault;
}

/* The access was recorded in the leaf: it may be used without, from now on */
static void nmmu_leaf_used(NmmuWalk *walk, const PnvNmmuEntry *key, bool write)
{
    PnvNmmuEntry entry = *key;

    entry.val |= RADIX_R | (write ? RADIX_C : 0);
    nmmu_cache(walk, &entry);
}

static void nmmu_leaf_page(const NmmuLeaf *leaf, uint64_t addr,
                           PnvXlatePage *page)
{
    page->mask = MAKE_64BIT_MASK(0, leaf->shift);
    page->from = addr & ~page->mask;
    page->to = leaf->pte & RADIX_RPN & ~page->mask;
    page->read = nmmu_permits(leaf->pte, false);
    page->write = nmmu_permits(leaf->pte, true);
}

/* Guest real to host real */
static PnvXlateFault nmmu_guest_real(NmmuWalk *walk, uint64_t gpa, bool write,
                                     PnvXlatePage *page)
{
    PnvNmmuEntry key = { .lpid = walk->lpid };
    NmmuLeaf leaf;

    if (nmmu_get_leaf(walk, &key, walk->partition.root, gpa, write, &leaf)) {
        *walk->gpa = gpa;
        return PNV_XLATE_PARTITION_RADIX;
    }
    if (!nmmu_permits(leaf.pte, write)) {
        *walk->gpa = gpa;
        return PNV_XLATE_PARTITION_PERMISSION;
    }
    if (nmmu_lacks_rc(&leaf, write) && !nmmu_set_rc(&leaf, write)) {
        walk->again = true;
    } else if (key.shift) {
        nmmu_leaf_used(walk, &key, write);
    }
    nmmu_leaf_page(&leaf, gpa, page);
    return PNV_XLATE_OK;
}

static PnvXlateFault nmmu_find_partition(NmmuWalk *walk,
                                         const PnvXlateContext *ctx)
{
    PnvNmmuEntry key = { .partition = true, .lpid = ctx->lpid }, found;
    const uint64_t ptcr = walk->nmmu->ptcr;
    uint64_t entry, count;

    if (!ptcr) {
        return PNV_XLATE_NO_PTCR;
    }
    if (nmmu_cached(walk->nmmu, &key, &found)) {
        key = found;
    } else {
        count = 1ull << (GETFIELD(PTCR_PATS, ptcr) + 12 - ENTRY_SHIFT);
        entry = (ptcr & PTCR_PATB) + ((uint64_t)ctx->lpid << ENTRY_SHIFT);
        if (ctx->lpid >= count || !nmmu_load(entry, &key.val) ||
            !nmmu_load(entry + sizeof(key.val), &key.at) ||
            !(key.val & PATE0_HOST_RADIX) || !(key.at & PATE1_GUEST_RADIX)) {
            return PNV_XLATE_PARTITION_ENTRY;
        }
        nmmu_cache(walk, &key);
    }
    walk->partition.real = ctx->hv;
    walk->partition.root = key.val;
    walk->partition.prtb = key.at & PATE1_PRTB;
    walk->partition.prts = GETFIELD(PATE1_PRTS, key.at);
    return PNV_XLATE_OK;
}

static PnvXlateFault nmmu_find_process(NmmuWalk *walk, uint32_t pid,
                                       uint64_t *root)
{
    const NmmuPartition *partition = &walk->partition;
    uint64_t count = 1ull << (partition->prts + 12 - ENTRY_SHIFT);
    PnvNmmuEntry key = { .process = true, .root = true, .lpid = walk->lpid,
                         .pid = pid, .real = partition->real };
    PnvNmmuEntry found;
    PnvXlateFault fault;
    hwaddr at;

    if (nmmu_cached(walk->nmmu, &key, &found)) {
        *root = found.val;
        return PNV_XLATE_OK;
    }
    if (pid >= count) {
        return PNV_XLATE_PROCESS_ENTRY;
    }
    fault = nmmu_load_guest(walk, partition->prtb +
                            ((uint64_t)pid << ENTRY_SHIFT), &at, root);
    if (fault == PNV_XLATE_RADIX || (!fault && !(*root & ROOT_RPDB))) {
        return PNV_XLATE_PROCESS_ENTRY;
    }
    if (!fault) {
        key.val = *root;
        nmmu_cache(walk, &key);
    }
    return fault;
}

/* One attempt, which is void if a PTE changed */
static PnvXlateFault nmmu_walk(NmmuWalk *walk, const PnvXlateContext *ctx,
                               uint64_t ea, bool write, PnvXlatePage *page)
{
    unsigned quadrant = GETFIELD(EA_QUADRANT, ea);
    uint32_t pid = quadrant == EA_QUADRANT_KERNEL ? 0 : ctx->pid;
    PnvNmmuEntry key = { .process = true, .lpid = ctx->lpid, .pid = pid,
                         .real = ctx->hv };
    uint64_t addr = ea & ~EA_QUADRANT;
    PnvXlatePage host;
    PnvXlateFault fault;
    NmmuLeaf leaf;
    uint64_t root;

    fault = nmmu_find_partition(walk, ctx);
    if (fault) {
        return fault;
    }
    if (quadrant != EA_QUADRANT_PROCESS && quadrant != EA_QUADRANT_KERNEL) {
        return PNV_XLATE_RADIX;
    }
    fault = nmmu_find_process(walk, pid, &root);
    if (!fault) {
        fault = nmmu_get_leaf(walk, &key, root, addr, write, &leaf);
    }
    if (fault) {
        return fault;
    }
    if (!nmmu_permits(leaf.pte, write) ||
        (ctx->pr && (leaf.pte & RADIX_PRIVILEGED))) {
        return PNV_XLATE_PERMISSION;
    }
    nmmu_leaf_page(&leaf, ea, page);
    if (!walk->partition.real) {
        uint64_t gpa = pnv_xlate_to(page, ea);

        fault = nmmu_guest_real(walk, gpa, write, &host);
        if (fault) {
            return fault;
        }
        page->mask = MIN(page->mask, host.mask);
        page->from = ea & ~page->mask;
        page->to = pnv_xlate_to(&host, gpa) & ~page->mask;
        page->read &= host.read;
        page->write &= host.write;
    }
    /*
     * A write by a later hit must not go unrecorded: only what was recorded is
     * permitted.
     */
    page->write &= write;
    if (nmmu_lacks_rc(&leaf, write)) {
        if (!walk->partition.real) {
            fault = nmmu_guest_real(walk, leaf.entry, true, &host);
            if (fault) {
                return fault;
            }
        }
        walk->again |= !nmmu_set_rc(&leaf, write);
    }
    if (!walk->again && key.shift) {
        nmmu_leaf_used(walk, &key, write);
    }
    return PNV_XLATE_OK;
}

PnvXlateFault pnv_nmmu_translate(PnvNmmu *nmmu, const PnvXlateContext *ctx,
                                 uint64_t ea, bool write, PnvXlatePage *page,
                                 uint64_t *gpa)
{
    NmmuWalk walk = { .nmmu = nmmu, .lpid = ctx->lpid, .gpa = gpa };
    PnvXlateFault fault;

    do {
        walk.again = false;
        walk.tlbies = qatomic_read(&nmmu->tlbies);
        fault = nmmu_walk(&walk, ctx, ea, write, page);
        /* A tlbie waits for the walks that it is about */
    } while (walk.again || qatomic_read(&nmmu->tlbies) != walk.tlbies);
    trace_pnv_nmmu_translate(ctx->lpid, ctx->pid, ea, write, fault,
                             fault ? 0 : pnv_xlate_to(page, ea));
    return fault;
}

static uint64_t nmmu_xscom_read(void *opaque, hwaddr addr, unsigned width)
{
    PnvNmmu *nmmu = opaque;
    uint32_t reg = addr >> 3;

    if (reg == NMMU_PTCR) {
        return nmmu->ptcr;
    }
    qemu_log_mask(LOG_UNIMP, "nmmu: SCOM read of 0x%x\n", reg);
    return 0;
}

static void nmmu_xscom_write(void *opaque, hwaddr addr, uint64_t val,
                             unsigned width)
{
    PnvNmmu *nmmu = opaque;
    uint32_t reg = addr >> 3;

    if (reg == NMMU_PTCR) {
        trace_pnv_nmmu_ptcr(val);
        nmmu->ptcr = val & (PTCR_PATB | PTCR_PATS);
        return;
    }
    qemu_log_mask(LOG_UNIMP, "nmmu: SCOM write of 0x%x = 0x%016" PRIx64 "\n",
                  reg, val);
}

static const MemoryRegionOps nmmu_xscom_ops = {
    .read = nmmu_xscom_read,
    .write = nmmu_xscom_write,
    .valid.min_access_size = 8,
    .valid.max_access_size = 8,
    .impl.min_access_size = 8,
    .impl.max_access_size = 8,
    .endianness = DEVICE_BIG_ENDIAN,
};

static void nmmu_reset_hold(Object *obj, ResetType type)
{
    PnvNmmu *nmmu = PNV_NMMU(obj);

    nmmu->ptcr = 0;
    nmmu->cache_hits = 0;
    nmmu->cache_next = 0;
    memset(nmmu->cache, 0, sizeof(nmmu->cache));
}

/* A tlbie as no vCPU has executed it: "RIC IS PRS LPID PID" */
static void nmmu_inject_tlbie(Object *obj, const char *value, Error **errp)
{
    PPCTlbie tlbie;
    unsigned prs;

    if (sscanf(value, "%u %u %u %u %u", &tlbie.ric, &tlbie.is, &prs,
               &tlbie.lpid, &tlbie.pid) != 5) {
        error_setg(errp, "nmmu: five numbers, not %s", value);
        return;
    }
    tlbie.prs = prs;
    nmmu_tlbie(PNV_NMMU(obj), &tlbie);
}

static void nmmu_realize(DeviceState *dev, Error **errp)
{
    PnvNmmu *nmmu = PNV_NMMU(dev);

    pnv_xscom_region_init(&nmmu->xscom_regs, OBJECT(nmmu), &nmmu_xscom_ops,
                          nmmu, "xscom-nmmu", PNV9_XSCOM_NMMU_SIZE);
    qemu_mutex_init(&nmmu->lock);
    nmmu->tlbie.notify = nmmu_tlbie_notify;
    notifier_list_add(&ppc_tlbie_notifiers, &nmmu->tlbie);
    qemu_register_resettable(OBJECT(dev));
}

static const Property nmmu_properties[] = {
    DEFINE_PROP_BOOL("walk-cache", PnvNmmu, walk_cache, true),
};

static void nmmu_instance_init(Object *obj)
{
    object_property_add_uint64_ptr(obj, "ptcr", &PNV_NMMU(obj)->ptcr,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint64_ptr(obj, "cache-hits",
                                   &PNV_NMMU(obj)->cache_hits,
                                   OBJ_PROP_FLAG_READ);
}

static void nmmu_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    dc->desc = "PowerNV nest MMU";
    dc->realize = nmmu_realize;
    dc->user_creatable = false;
    rc->phases.hold = nmmu_reset_hold;
    device_class_set_props(dc, nmmu_properties);
    object_class_property_add_str(klass, "inject-tlbie", NULL,
                                  nmmu_inject_tlbie);
    object_class_property_set_description(klass, "inject-tlbie",
        "Broadcast tlbie: RIC, IS, PRS, LPID, PID");
}

static const TypeInfo nmmu_info = {
    .name          = TYPE_PNV_NMMU,
    .parent        = TYPE_DEVICE,
    .instance_size = sizeof(PnvNmmu),
    .instance_init = nmmu_instance_init,
    .class_init    = nmmu_class_init,
};

static void nmmu_register_types(void)
{
    type_register_static(&nmmu_info);
}

type_init(nmmu_register_types);

/*
 * QTest of the V100 model's test engine: what a GPU reaches over PCIe, over
 * NVLink with TCEs, and over NVLink with ATS, with tables that the test lays
 * out in memory.
 *
 * Formats of tables and registers are written out: the test does not share the
 * model's headers, but for the engine's registers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "nvlink2-v100.h"

#define BDF             0x100           /* 01:00.0 */
#define BDF2            0x101           /* 01:00.1 */
#define BAR0_2          (BAR0 + V100_BAR0_SIZE)

/* Two GPUs on one NPU, two links each */
#define TWO_GPUS \
    "-smp 1 -device nvlink2-v100,id=gpu,bus=pcie.0,addr=0.0,multifunction=on," \
    "npu=/machine/chip[0]/npu,bricks=0x3,ram-size=1G " \
    "-device nvlink2-v100,id=gpu2,bus=pcie.0,addr=0.1," \
    "npu=/machine/chip[0]/npu,bricks=0xc,ram-size=1G"

#define ATS(off)        RING(7, 0, off)
#define XTS(off)        RING(7, 1, off)
#define MISC(off)       RING(7, 2, off)
#define ATSD(n, off)    RING(8, n, off)
#define BDF_MAP(n)      XTS(0x4000 + 8 * (n))
#define PID_MAP(n)      XTS(0x8000 + 0x20 * (n))
#define ATSD_LPARID(n)  XTS(0x100 + 8 * (n))
#define NMMU_PTCR       (0x5012c40u + 0xb)

#define KIB             1024ull
#define MIB             (1024 * KIB)

/*
 * The engine
 */

static void engine_setq(QTestState *qts, uint64_t bar, unsigned reg,
                        uint64_t val)
{
    qtest_writel(qts, bar + reg, bswap32((uint32_t)val));
    qtest_writel(qts, bar + reg + 4, bswap32(val >> 32));
}

static uint32_t engine_get(QTestState *qts, uint64_t bar, unsigned reg)
{
    return bswap32(qtest_readl(qts, bar + reg));
}

static uint64_t engine_getq(QTestState *qts, unsigned reg)
{
    return regl(qts, reg) | (uint64_t)regl(qts, reg + 4) << 32;
}

/* Copy, and the cause if that fails */
static uint32_t copy_of(QTestState *qts, uint64_t bar, uint32_t paths,
                        uint64_t src, uint64_t dst, uint32_t length)
{
    uint32_t cause;

    engine_setq(qts, bar, V100_ENGINE_SRC_LO, src);
    engine_setq(qts, bar, V100_ENGINE_DST_LO, dst);
    qtest_writel(qts, bar + V100_ENGINE_LENGTH, bswap32(length));
    qtest_writel(qts, bar + V100_ENGINE_PATH, bswap32(paths));
    qtest_writel(qts, bar + V100_ENGINE_START, bswap32(1));
    cause = engine_get(qts, bar, V100_ENGINE_CAUSE);
    g_assert_cmpint(engine_get(qts, bar, V100_ENGINE_STATUS), ==,
                    cause ? V100_ENGINE_STATUS_FAULT :
                    V100_ENGINE_STATUS_DONE);
    if (!cause) {
        g_assert_cmpint(engine_get(qts, bar, V100_ENGINE_COPIED), ==, length);
    }
    return cause;
}

static uint32_t copy(QTestState *qts, uint32_t paths, uint64_t src,
                     uint64_t dst, uint32_t length)
{
    return copy_of(qts, BAR0, paths, src, dst, length);
}

/* Eight bytes, read by a path into the GPU's RAM: the cause, or 0 */
static uint32_t fetch(QTestState *qts, unsigned path, uint64_t addr,
                      uint64_t *val)
{
    uint32_t cause = copy(qts, V100_ENGINE_PATHS(path, V100_ENGINE_PATH_RAM),
                          addr, 0, 8);

    *val = qtest_readq(qts, BAR1);
    return cause;
}

static uint32_t store(QTestState *qts, unsigned path, uint64_t addr,
                      uint64_t val)
{
    qtest_writeq(qts, BAR1, val);
    return copy(qts, V100_ENGINE_PATHS(V100_ENGINE_PATH_RAM, path), 0, addr, 8);
}

static void assert_reads(QTestState *qts, unsigned path, uint64_t addr,
                         uint64_t expected)
{
    uint64_t val;

    g_assert_cmpint(fetch(qts, path, addr, &val), ==, 0);
    g_assert_cmphex(val, ==, expected);
}

/* As software does after a refused access, which freezes the PE */
static void thaw(QTestState *qts)
{
    for (unsigned pe = 0; pe < 16; pe++) {
        ring_write(qts, MISC(0x200 + 8 * pe), 0);
    }
}

/*
 * Reading fails; the address that failed is told, and nothing was copied.  No
 * PE is frozen after it.
 */
static void assert_faults(QTestState *qts, unsigned path, uint64_t addr,
                          uint32_t cause)
{
    uint64_t val;

    qtest_writeq(qts, BAR1, 0x5ca1ab1e);
    g_assert_cmpint(fetch(qts, path, addr, &val), ==, cause);
    g_assert_cmphex(val, ==, 0x5ca1ab1e);
    g_assert_cmpint(regl(qts, V100_ENGINE_COPIED), ==, 0);
    g_assert_cmpint(regl(qts, V100_ENGINE_FAULT_SIDE), ==,
                    V100_ENGINE_FAULT_SIDE_SRC);
    g_assert_cmphex(engine_getq(qts, V100_ENGINE_FAULT_ADDR_LO), ==, addr);
    thaw(qts);
}

static QTestState *start(void)
{
    return v100_start(V100_ONE_GPU);
}

static void test_registers(void)
{
    static const struct {
        unsigned reg;
        uint32_t val;
    } bad[] = {
        { V100_ENGINE_LENGTH, 0 },
        { V100_ENGINE_LENGTH, V100_ENGINE_LENGTH_MAX + 1 },
        { V100_ENGINE_PASID, V100_ENGINE_PASID_MAX + 1 },
        { V100_ENGINE_PATH, 4 },
        { V100_ENGINE_PATH, 0x40 },
        { V100_ENGINE_PATH, 0x100 },
        { V100_ENGINE_LINK, 2 },
        { V100_ENGINE_LINK, ~0u },
        { V100_ENGINE_SRC_HI, ~0u },
        { V100_ENGINE_DST_HI, ~0u },
    };
    QTestState *qts = start();

    g_assert_cmpint(regl(qts, V100_ENGINE_STATUS), ==,
                    V100_ENGINE_STATUS_NONE);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        uint32_t good;

        reg_write(qts, V100_ENGINE_SRC_LO, -8);
        reg_write(qts, V100_ENGINE_DST_LO, -8);
        reg_write(qts, V100_ENGINE_LENGTH, 8);
        good = regl(qts, bad[i].reg);
        reg_write(qts, bad[i].reg, bad[i].val);
        g_assert_cmphex(regl(qts, bad[i].reg), ==, bad[i].val);
        reg_write(qts, V100_ENGINE_START, 1);
        g_assert_cmpint(regl(qts, V100_ENGINE_STATUS), ==,
                        V100_ENGINE_STATUS_FAULT);
        g_assert_cmpint(regl(qts, V100_ENGINE_CAUSE), ==,
                        V100_ENGINE_CAUSE_PARAM);
        reg_write(qts, bad[i].reg, good);
    }

    /* START takes 1 only; the results can't be written */
    g_assert_cmpint(copy(qts, 0, 0, 0x1000, 8), ==, 0);
    reg_write(qts, V100_ENGINE_LENGTH, 0);
    reg_write(qts, V100_ENGINE_START, 0);
    reg_write(qts, V100_ENGINE_START, 2);
    reg_write(qts, V100_ENGINE_STATUS, V100_ENGINE_STATUS_FAULT);
    g_assert_cmpint(regl(qts, V100_ENGINE_STATUS), ==,
                    V100_ENGINE_STATUS_DONE);
    qtest_quit(qts);
}

static void test_ram(void)
{
    QTestState *qts = start();

    qtest_memset(qts, BAR1 + 0x10123, 0x5a, 0x5000);
    g_assert_cmpint(copy(qts, 0, 0x10123, 0x20fff, 0x5000), ==, 0);
    g_assert_cmphex(qtest_readb(qts, BAR1 + 0x20ffe), ==, 0);
    g_assert_cmphex(qtest_readb(qts, BAR1 + 0x20fff), ==, 0x5a);
    g_assert_cmphex(qtest_readb(qts, BAR1 + 0x20fff + 0x4fff), ==, 0x5a);
    g_assert_cmphex(qtest_readb(qts, BAR1 + 0x20fff + 0x5000), ==, 0);

    /* What fits is copied, the fault is where the RAM ends */
    g_assert_cmpint(copy(qts, 0, 0x10123, RAM_SIZE - 0x1000, 0x1001), ==,
                    V100_ENGINE_CAUSE_RAM);
    g_assert_cmphex(regl(qts, V100_ENGINE_COPIED), ==, 0x1000);
    g_assert_cmpint(regl(qts, V100_ENGINE_FAULT_SIDE), ==,
                    V100_ENGINE_FAULT_SIDE_DST);
    g_assert_cmphex(engine_getq(qts, V100_ENGINE_FAULT_ADDR_LO), ==, RAM_SIZE);
    assert_faults(qts, V100_ENGINE_PATH_RAM, RAM_SIZE,
                  V100_ENGINE_CAUSE_RAM);
    qtest_quit(qts);
}

/*
 * (a) PCIe and the PHB's TCEs
 */

#define RTT             0x1000000ull
#define TABLE           0x1100000ull    /* TCEs */
#define TABLE2          0x1200000ull
#define DATA            0x2000000ull

#define TCE_R           1ull
#define TCE_W           2ull

static uint64_t tve(uint64_t table, unsigned levels, unsigned size_log2,
                    unsigned page_shift)
{
    return FIELD_(0, 47, table >> 12) | FIELD_(48, 50, levels - 1) |
           FIELD_(51, 55, size_log2 - 11) | FIELD_(59, 63, page_shift - 11);
}

static void phb_tve(QTestState *qts, unsigned index, uint64_t val)
{
    qtest_writeq(qts, PHB_REGS + 0x220, FIELD_(11, 15, 9) | index);
    qtest_writeq(qts, PHB_REGS + 0x228, val);
}

static void test_pci(void)
{
    const unsigned pe = 3;
    const uint64_t page = 64 * KIB;
    QTestState *qts = start();
    uint64_t val;

    qtest_writew(qts, RTT + 2 * BDF, pe);
    qtest_writeq(qts, PHB_REGS + 0x168, BIT_(0) | RTT);
    phb_tve(qts, 2 * pe, tve(TABLE, 1, 16, 16));
    qtest_writeq(qts, TABLE, DATA | TCE_R | TCE_W);
    qtest_writeq(qts, TABLE + 8, (DATA + 4 * page) | TCE_R);
    qtest_writeq(qts, DATA + 0x18, 0x1122334455667788ull);
    qtest_writeq(qts, DATA + 4 * page, 0x99);

    assert_faults(qts, V100_ENGINE_PATH_PCI, 0x18, V100_ENGINE_CAUSE_PCI);
    config_writel(qts, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_reads(qts, V100_ENGINE_PATH_PCI, 0x18, 0x1122334455667788ull);
    g_assert_cmpint(store(qts, V100_ENGINE_PATH_PCI, 0x20, 0x77), ==, 0);
    g_assert_cmphex(qtest_readq(qts, DATA + 0x20), ==, 0x77);
    /* Into the second page, which can't be written */
    assert_reads(qts, V100_ENGINE_PATH_PCI, page, 0x99);
    g_assert_cmpint(copy(qts, V100_ENGINE_PATHS(V100_ENGINE_PATH_RAM,
                                                V100_ENGINE_PATH_PCI),
                         0, page - 8, 16), ==, V100_ENGINE_CAUSE_PCI);
    g_assert_cmpint(regl(qts, V100_ENGINE_COPIED), ==, 8);
    g_assert_cmphex(qtest_readq(qts, DATA + 4 * page), ==, 0x99);
    assert_faults(qts, V100_ENGINE_PATH_PCI, 2 * page, V100_ENGINE_CAUSE_PCI);

    /* Links don't matter */
    g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 0);
    g_assert_cmpint(fetch(qts, V100_ENGINE_PATH_PCI, 0x18, &val), ==, 0);
    qtest_quit(qts);
}

/*
 * (b) NVLink, TVE and TCEs
 */

#define PE              5

static void set_tve(QTestState *qts, unsigned pe, uint64_t val)
{
    ring_write(qts, ATS(0x108), FIELD_(11, 15, 9) | pe);
    ring_write(qts, ATS(0x110), val);
}

static void set_pe(QTestState *qts, unsigned brick, unsigned entry,
                   uint16_t bdf, unsigned pe)
{
    ring_write(qts, MISC(0x100 + 0x18 * brick + 8 * entry),
               BIT_(0) | FIELD_(4, 7, pe) | FIELD_(8, 23, bdf));
}

static void tce_kill_all(QTestState *qts)
{
    ring_write(qts, ATS(0x120), BIT_(0));
}

static void tce_kill_one(QTestState *qts, unsigned pe, uint64_t addr)
{
    ring_write(qts, ATS(0x120), BIT_(2) | FIELD_(4, 7, pe) | addr);
}

static QTestState *start_tce(void)
{
    QTestState *qts = start();

    train(qts);
    set_pe(qts, 0, 0, BDF, PE);
    set_pe(qts, 1, 0, BDF, PE);
    qtest_writeq(qts, DATA, 0xda7a0000da7aull);
    return qts;
}

static void test_tce_pe(void)
{
    QTestState *qts = start();

    /* After reset a TVE lets everything through, but the brick has no PE */
    train(qts);
    assert_faults(qts, V100_ENGINE_PATH_TCE, DATA, V100_ENGINE_CAUSE_NO_TVE);
    set_pe(qts, 0, 0, BDF2, PE);
    assert_faults(qts, V100_ENGINE_PATH_TCE, DATA, V100_ENGINE_CAUSE_NO_TVE);
    qtest_writeq(qts, DATA, 0x1234);
    set_pe(qts, 0, 2, BDF, PE);
    assert_reads(qts, V100_ENGINE_PATH_TCE, DATA, 0x1234);
    /* That was for one brick only */
    reg_write(qts, V100_ENGINE_LINK, 1);
    assert_faults(qts, V100_ENGINE_PATH_TCE, DATA, V100_ENGINE_CAUSE_NO_TVE);
    reg_write(qts, V100_ENGINE_LINK, 0);
    /* The PE selects the TVE */
    set_tve(qts, PE, BIT_(51));
    assert_faults(qts, V100_ENGINE_PATH_TCE, DATA,
                  V100_ENGINE_CAUSE_TVE_RANGE);
    set_pe(qts, 0, 2, BDF, PE + 1);
    assert_reads(qts, V100_ENGINE_PATH_TCE, DATA, 0x1234);
    qtest_quit(qts);
}

static void test_tce_bypass(void)
{
    const uint64_t low = 0x2000000, high = 0x3000000;
    QTestState *qts = start_tce();

    /* From 32 up to 48 MiB */
    set_tve(qts, PE, FIELD_(0, 23, low >> 24) | FIELD_(24, 47, high >> 24) |
            BIT_(51));
    assert_reads(qts, V100_ENGINE_PATH_TCE, low, 0xda7a0000da7aull);
    g_assert_cmpint(store(qts, V100_ENGINE_PATH_TCE, high - 8, 0x55), ==, 0);
    g_assert_cmphex(qtest_readq(qts, high - 8), ==, 0x55);
    assert_faults(qts, V100_ENGINE_PATH_TCE, low - 8,
                  V100_ENGINE_CAUSE_TVE_RANGE);
    assert_faults(qts, V100_ENGINE_PATH_TCE, high,
                  V100_ENGINE_CAUSE_TVE_RANGE);
    /* The bits of both ends above 2^48 */
    set_tve(qts, PE, BIT_(51) | FIELD_(54, 55, 1));
    assert_reads(qts, V100_ENGINE_PATH_TCE, low, 0xda7a0000da7aull);
    set_tve(qts, PE, BIT_(51) | FIELD_(52, 53, 1) | FIELD_(54, 55, 2));
    assert_faults(qts, V100_ENGINE_PATH_TCE, low,
                  V100_ENGINE_CAUSE_TVE_RANGE);
    /* Without a check: any memory, and nothing where there is none */
    set_tve(qts, PE, 0);
    assert_reads(qts, V100_ENGINE_PATH_TCE, low, 0xda7a0000da7aull);
    assert_faults(qts, V100_ENGINE_PATH_TCE, 0x100000000000ull,
                  V100_ENGINE_CAUSE_NO_MEMORY);
    qtest_quit(qts);
}

static void test_tce_pages(void)
{
    static const unsigned shifts[] = { 12, 16, 21, 24 };
    QTestState *qts = start_tce();

    for (unsigned i = 0; i < ARRAY_SIZE(shifts); i++) {
        uint64_t page = 1ull << shifts[i];
        uint64_t base = 0x10000000 + 4 * page * i;

        base = ROUND_UP(base, page);
        set_tve(qts, PE, tve(TABLE, 1, 12, shifts[i]));
        qtest_writeq(qts, TABLE + 0, base | TCE_R | TCE_W);
        qtest_writeq(qts, TABLE + 8, (base + 2 * page) | TCE_R);
        qtest_writeq(qts, TABLE + 16, (base + page) | TCE_W);
        qtest_writeq(qts, TABLE + 24, base);
        tce_kill_all(qts);

        qtest_writeq(qts, base + page - 8, 0x100 + i);
        qtest_writeq(qts, base + 2 * page, 0x200 + i);
        assert_reads(qts, V100_ENGINE_PATH_TCE, page - 8, 0x100 + i);
        assert_reads(qts, V100_ENGINE_PATH_TCE, page, 0x200 + i);
        g_assert_cmpint(store(qts, V100_ENGINE_PATH_TCE, page, 1), ==,
                        V100_ENGINE_CAUSE_TCE_WRITE);
        thaw(qts);
        g_assert_cmphex(qtest_readq(qts, base + 2 * page), ==, 0x200 + i);
        g_assert_cmpint(store(qts, V100_ENGINE_PATH_TCE, 2 * page, 3 + i), ==,
                        0);
        g_assert_cmphex(qtest_readq(qts, base + page), ==, 3 + i);
        assert_faults(qts, V100_ENGINE_PATH_TCE, 2 * page,
                      V100_ENGINE_CAUSE_TCE_READ);
        assert_faults(qts, V100_ENGINE_PATH_TCE, 3 * page,
                      V100_ENGINE_CAUSE_TCE_INVALID);
        /* 512 TCEs; bits that select a TVE on PCIe don't count */
        assert_faults(qts, V100_ENGINE_PATH_TCE, 512 * page,
                      V100_ENGINE_CAUSE_TVE_RANGE);
        assert_reads(qts, V100_ENGINE_PATH_TCE, (1ull << 59) + page,
                     0x200 + i);
    }
    qtest_quit(qts);
}

static void test_tce_levels(void)
{
    const uint64_t page = 64 * KIB;
    QTestState *qts = start_tce();

    /* Tables of 64 KiB: 13 bits each */
    set_tve(qts, PE, tve(TABLE, 2, 16, 16));
    qtest_writeq(qts, TABLE + 8 * 7, TABLE2 | TCE_R | TCE_W);
    qtest_writeq(qts, TABLE2 + 8 * 0x1fff, DATA | TCE_R);
    assert_reads(qts, V100_ENGINE_PATH_TCE, (7ull << 29) + 0x1fff * page,
                 0xda7a0000da7aull);
    assert_faults(qts, V100_ENGINE_PATH_TCE, (7ull << 29),
                  V100_ENGINE_CAUSE_TCE_INVALID);
    assert_faults(qts, V100_ENGINE_PATH_TCE, (6ull << 29),
                  V100_ENGINE_CAUSE_TCE_INVALID);
    assert_faults(qts, V100_ENGINE_PATH_TCE, 1ull << 42,
                  V100_ENGINE_CAUSE_TVE_RANGE);
    /* Five levels of small tables */
    qtest_memset(qts, TABLE, 0, 64 * KIB);
    set_tve(qts, PE, tve(TABLE, 5, 12, 12));
    for (unsigned i = 0; i < 4; i++) {
        qtest_writeq(qts, TABLE + i * 0x1000 + 8 * 3,
                     (TABLE + (i + 1) * 0x1000) | TCE_R | TCE_W);
    }
    qtest_writeq(qts, TABLE + 0x4000 + 8 * 3, DATA | TCE_R);
    assert_reads(qts, V100_ENGINE_PATH_TCE,
                 3ull << 48 | 3ull << 39 | 3ull << 30 | 3ull << 21 | 3 << 12,
                 0xda7a0000da7aull);
    qtest_quit(qts);
}

static void test_tce_kill(void)
{
    const uint64_t page = 64 * KIB;
    QTestState *qts = start_tce();

    set_tve(qts, PE, tve(TABLE, 1, 16, 16));
    qtest_writeq(qts, TABLE, DATA | TCE_R);
    qtest_writeq(qts, TABLE + 8, DATA | TCE_R);
    assert_reads(qts, V100_ENGINE_PATH_TCE, 0, 0xda7a0000da7aull);
    assert_reads(qts, V100_ENGINE_PATH_TCE, page, 0xda7a0000da7aull);
    /* Stale, until it is killed: not another PE's, not another page */
    qtest_writeq(qts, TABLE, 0);
    qtest_writeq(qts, TABLE + 8, 0);
    assert_reads(qts, V100_ENGINE_PATH_TCE, 8, 0);
    tce_kill_one(qts, PE + 1, 0);
    assert_reads(qts, V100_ENGINE_PATH_TCE, 0, 0xda7a0000da7aull);
    tce_kill_one(qts, PE, 0);
    assert_faults(qts, V100_ENGINE_PATH_TCE, 0, V100_ENGINE_CAUSE_TCE_INVALID);
    assert_reads(qts, V100_ENGINE_PATH_TCE, page, 0xda7a0000da7aull);
    tce_kill_all(qts);
    assert_faults(qts, V100_ENGINE_PATH_TCE, page,
                  V100_ENGINE_CAUSE_TCE_INVALID);
    /* Nor does one PE see what is cached for another */
    qtest_writeq(qts, TABLE, DATA | TCE_R);
    assert_reads(qts, V100_ENGINE_PATH_TCE, 0, 0xda7a0000da7aull);
    set_pe(qts, 0, 0, BDF, PE + 1);
    set_tve(qts, PE + 1, tve(TABLE2, 1, 16, 16));
    assert_faults(qts, V100_ENGINE_PATH_TCE, 0, V100_ENGINE_CAUSE_TCE_INVALID);
    set_pe(qts, 0, 0, BDF, PE);
    /* A disabled TVE does not look into the cache */
    assert_reads(qts, V100_ENGINE_PATH_TCE, 0, 0xda7a0000da7aull);
    set_tve(qts, PE, BIT_(51));
    assert_faults(qts, V100_ENGINE_PATH_TCE, 0, V100_ENGINE_CAUSE_TVE_RANGE);
    qtest_quit(qts);
}

/* A refused access stops all of its PE until PESTB is cleared, and no other */
static void check_frozen(QTestState *qts, bool write_ones)
{
    const uint64_t page = 64 * KIB;
    const uint32_t pestb = MISC(0x200 + 8 * PE);
    uint64_t irqs = npu_table(qts, 0, "irqs", 18), val;

    train(qts);
    set_pe(qts, 0, 0, BDF, PE);
    set_pe(qts, 1, 0, BDF, PE);
    set_tve(qts, PE, tve(TABLE, 1, 16, 16));
    set_tve(qts, PE + 1, tve(TABLE, 1, 16, 16));
    qtest_writeq(qts, DATA, 0xda7a0000da7aull);
    qtest_writeq(qts, TABLE, DATA | TCE_R);
    assert_reads(qts, V100_ENGINE_PATH_TCE, 0, 0xda7a0000da7aull);

    g_assert_cmpint(fetch(qts, V100_ENGINE_PATH_TCE, page, &val), ==,
                    V100_ENGINE_CAUSE_TCE_INVALID);
    g_assert_cmphex(ring_read(qts, pestb), ==, BIT_(0));
    g_assert_cmphex(npu_table(qts, 0, "pestb", PE), ==, BIT_(0));
    g_assert_cmpint(npu_table(qts, 0, "irqs", 18), ==, irqs + 1);
    /* On any link, of any kind, and by what is cached as well */
    for (unsigned link = 0; link < 2; link++) {
        reg_write(qts, V100_ENGINE_LINK, link);
        g_assert_cmpint(fetch(qts, V100_ENGINE_PATH_TCE, 0, &val), ==,
                        V100_ENGINE_CAUSE_FROZEN);
        g_assert_cmpint(fetch(qts, V100_ENGINE_PATH_ATS, 0, &val), ==,
                        V100_ENGINE_CAUSE_FROZEN);
    }
    reg_write(qts, V100_ENGINE_LINK, 0);
    g_assert_cmpint(npu_table(qts, 0, "irqs", 18), ==, irqs + 1);
    /* Another PE goes on; training and other TVEs thaw nothing */
    set_pe(qts, 0, 0, BDF, PE + 1);
    assert_reads(qts, V100_ENGINE_PATH_TCE, 0, 0xda7a0000da7aull);
    set_pe(qts, 0, 0, BDF, PE);
    train(qts);
    set_tve(qts, PE, tve(TABLE, 1, 16, 16));
    g_assert_cmpint(fetch(qts, V100_ENGINE_PATH_TCE, 0, &val), ==,
                    V100_ENGINE_CAUSE_FROZEN);

    ring_write(qts, pestb, write_ones ? 0 : BIT_(0));
    g_assert_cmphex(ring_read(qts, pestb), ==, BIT_(0));
    ring_write(qts, pestb, write_ones ? BIT_(0) : 0);
    g_assert_cmphex(ring_read(qts, pestb), ==, 0);
    assert_reads(qts, V100_ENGINE_PATH_TCE, 0, 0xda7a0000da7aull);
    qtest_quit(qts);
}

static void test_tce_freeze(void)
{
    check_frozen(start(), false);
}

static void test_tce_freeze_ones(void)
{
    check_frozen(v100_start(V100_ONE_GPU
                            " -global pnv-npu2.pest-write-ones=on"), true);
}

/* For comparison: as if nothing froze */
static void test_tce_no_freeze(void)
{
    QTestState *qts = v100_start(V100_ONE_GPU " -global pnv-npu2.freeze=off");
    uint64_t val;

    train(qts);
    set_pe(qts, 0, 0, BDF, PE);
    set_tve(qts, PE, BIT_(51));
    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmpint(fetch(qts, V100_ENGINE_PATH_TCE, 0, &val), ==,
                        V100_ENGINE_CAUSE_TVE_RANGE);
    }
    qtest_quit(qts);
}

static void test_link(void)
{
    QTestState *qts = start_tce();

    set_tve(qts, PE, 0);
    for (unsigned path = V100_ENGINE_PATH_TCE; path <= V100_ENGINE_PATH_ATS;
         path++) {
        reg_write(qts, V100_LINK_TRAIN, V100_LINK_TRAIN_DOWN);
        assert_faults(qts, path, DATA, V100_ENGINE_CAUSE_UNTRAINED);
        train(qts);
        npu_set(qts, 0, "inject-fence", 1);
        reg_write(qts, V100_ENGINE_LINK, 1);
        assert_faults(qts, path, DATA, V100_ENGINE_CAUSE_FENCED);
        reg_write(qts, V100_ENGINE_LINK, 0);
        train(qts);
    }
    assert_reads(qts, V100_ENGINE_PATH_TCE, DATA, 0xda7a0000da7aull);
    /* The other link's fence does not matter */
    npu_set(qts, 0, "inject-fence", 1);
    assert_reads(qts, V100_ENGINE_PATH_TCE, DATA, 0xda7a0000da7aull);
    qtest_quit(qts);
}

/*
 * (c) NVLink with ATS
 */

#define PARTITIONS      0x4000000ull            /* the partition table */
#define PARTITIONS_LOG2 16                      /* 4096 LPARs */

#define RADIX_VALID     BIT_(0)
#define RADIX_LEAF      BIT_(1)
#define RADIX_R         0x100ull
#define RADIX_C         0x080ull
#define PTE_PRIVILEGED  0x8ull
#define PTE_R           0x4ull
#define PTE_RW          0x6ull

/* 52 bits; 13 in the root, then 9, 9, and 9 (4 KiB pages) or 5 (64 KiB) */
#define ROOT_BITS       13
#define ROOT_RTS        (FIELD_(1, 2, 2) | FIELD_(56, 58, 5))

/* A tree whose tables are at delta + their address in it */
typedef struct Tree {
    uint64_t root;
    uint64_t next;              /* free space */
    uint64_t delta;
} Tree;

static uint64_t tree_root(const Tree *tree)
{
    return ROOT_RTS | tree->root | ROOT_BITS;
}

/* Host real address of the entry for addr at the level of shift */
static uint64_t tree_entry(QTestState *qts, Tree *tree, uint64_t addr,
                           unsigned shift)
{
    uint64_t table = tree->root;
    unsigned level = 52, bits = ROOT_BITS;

    for (;;) {
        uint64_t entry, pde;

        level -= bits;
        entry = tree->delta + table +
                8 * ((addr >> level) & ((1ull << bits) - 1));
        if (level == shift) {
            return entry;
        }
        pde = qtest_readq(qts, entry);
        bits = level == 21 && shift == 16 ? 5 : 9;
        if (!(pde & RADIX_VALID)) {
            pde = RADIX_VALID | tree->next | bits;
            qtest_writeq(qts, entry, pde);
            tree->next += 0x1000;
        }
        table = pde & FIELD_(8, 55, ~0ull >> 16) & ~0xffull;
    }
}

static void tree_map(QTestState *qts, Tree *tree, uint64_t addr, unsigned shift,
                     uint64_t to, uint64_t permissions)
{
    qtest_writeq(qts, tree_entry(qts, tree, addr, shift),
                 RADIX_VALID | RADIX_LEAF | to | permissions);
}

/* A VM: 16 MiB of guest real memory from 0, its process table and a process */
typedef struct Vm {
    uint32_t lpid;
    uint32_t pid;
    uint64_t memory;            /* host real */
    Tree partition;
    Tree process;
} Vm;

#define VM_SIZE         (16 * MIB)
#define VM_PRTB         0x100000ull     /* guest real */
#define VM_TREE         0x200000ull
#define VM_DATA         0x800000ull
#define VM_EA           0x7f0012340000ull

static void vm_partition_entry(QTestState *qts, const Vm *vm)
{
    qtest_writeq(qts, PARTITIONS + 16 * vm->lpid,
                 BIT_(0) | tree_root(&vm->partition));
    /* 64 KiB of process table: 4096 processes */
    qtest_writeq(qts, PARTITIONS + 16 * vm->lpid + 8,
                 BIT_(0) | VM_PRTB | FIELD_(59, 63, 4));
}

static uint64_t vm_process_entry(const Vm *vm)
{
    return vm->memory + VM_PRTB + 16 * vm->pid;
}

/* VM number n, of this LPID; its process maps VM_DATA at VM_EA */
static Vm vm_create(QTestState *qts, unsigned n, uint32_t lpid, uint32_t pid)
{
    uint64_t tables = 0x8000000 + n * 0x1000000;
    Vm vm = {
        .lpid = lpid,
        .pid = pid,
        .memory = 0x10000000 + n * VM_SIZE,
        .partition = { .root = tables, .next = tables + 0x10000 },
        .process = { .root = VM_TREE, .next = VM_TREE + 0x10000 },
    };

    vm.process.delta = vm.memory;
    for (uint64_t gpa = 0; gpa < VM_SIZE; gpa += 2 * MIB) {
        tree_map(qts, &vm.partition, gpa, 21, vm.memory + gpa, PTE_RW);
    }
    vm_partition_entry(qts, &vm);
    qtest_writeq(qts, vm_process_entry(&vm), tree_root(&vm.process));
    tree_map(qts, &vm.process, VM_EA, 16, VM_DATA, PTE_RW);
    qtest_writeq(qts, vm.memory + VM_DATA, 0x5eed0000 + n);
    return vm;
}

static void set_ptcr(QTestState *qts)
{
    xscom_write(qts, 0, NMMU_PTCR,
                PARTITIONS | FIELD_(59, 63, PARTITIONS_LOG2 - 12));
}

#define MSR_DR          BIT_(25)
#define MSR_HV          BIT_(27)
#define MSR_PR          BIT_(28)
#define MSR_SF          BIT_(30)
#define PID_VALID       (BIT_(0) | BIT_(1) | BIT_(2))
#define PID_GUEST       (PID_VALID | MSR_DR | MSR_PR | MSR_SF)

/* As OPAL binds a function on a brick to an LPAR, with entry `lparshort` */
static void bind_gpu(QTestState *qts, unsigned lparshort, uint16_t bdf,
                     unsigned brick, uint32_t lpid)
{
    ring_write(qts, BDF_MAP(lparshort), BIT_(0) | BIT_(1) |
               FIELD_(4, 6, 4 >> (brick / 2)) | FIELD_(7, 7, brick % 2) |
               FIELD_(16, 31, bdf) | FIELD_(39, 40, 3) |
               FIELD_(48, 51, lparshort) | FIELD_(52, 63, lpid));
    ring_write(qts, PID_MAP(lparshort), PID_GUEST |
               FIELD_(40, 43, lparshort));
}

#define LPID            0x123
#define PID             0x77

static QTestState *start_ats_with(Vm *vm, const char *args)
{
    QTestState *qts = v100_start(args);

    train(qts);
    set_ptcr(qts);
    *vm = vm_create(qts, 0, LPID, PID);
    bind_gpu(qts, 2, BDF, 0, LPID);
    reg_write(qts, V100_ENGINE_PASID, PID);
    return qts;
}

/* What the XTS says matters to each access */
#define ASKS_XTS " -global nvlink2-v100.atc-asks-xts=on"

/* What changes in a table is seen at once: most tests are not about caches */
static QTestState *start_ats(Vm *vm)
{
    return start_ats_with(vm, V100_ONE_GPU
                          " -global pnv-nmmu.walk-cache=off");
}

static void assert_ats_faults(QTestState *qts, uint64_t ea, uint32_t cause)
{
    assert_faults(qts, V100_ENGINE_PATH_ATS, ea, cause);
}

/* The same, by the guest real address gpa */
static void assert_gpa_faults(QTestState *qts, uint64_t ea, uint32_t cause,
                              uint64_t gpa)
{
    assert_faults(qts, V100_ENGINE_PATH_ATS, ea, cause);
    g_assert_cmphex(engine_getq(qts, V100_ENGINE_FAULT_GPA_LO), ==, gpa);
}

static void test_ats_copy(void)
{
    const uint64_t end = VM_EA + 64 * KIB;
    Vm vm;
    QTestState *qts = start_ats(&vm);
    uint64_t val;

    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    g_assert_cmpint(store(qts, V100_ENGINE_PATH_ATS, VM_EA + 8, 0x1234), ==, 0);
    g_assert_cmphex(qtest_readq(qts, vm.memory + VM_DATA + 8), ==, 0x1234);

    /* Over a page's end: what fits is copied */
    g_assert_cmpint(copy(qts, V100_ENGINE_PATHS(V100_ENGINE_PATH_RAM,
                                                V100_ENGINE_PATH_ATS),
                         0, end - 24, 40), ==, V100_ENGINE_CAUSE_RADIX);
    g_assert_cmpint(regl(qts, V100_ENGINE_COPIED), ==, 24);
    g_assert_cmpint(regl(qts, V100_ENGINE_FAULT_SIDE), ==,
                    V100_ENGINE_FAULT_SIDE_DST);
    g_assert_cmphex(engine_getq(qts, V100_ENGINE_FAULT_ADDR_LO), ==, end);

    /* Pages of other sizes, on top of the guest's 2 MiB */
    tree_map(qts, &vm.process, 0x10000000, 21, 0xa00000, PTE_R);
    tree_map(qts, &vm.process, 0x20003000, 12, 0xc01000, PTE_R);
    qtest_writeq(qts, vm.memory + 0xb23458, 0xaaaa);
    qtest_writeq(qts, vm.memory + 0xc01ff8, 0xbbbb);
    assert_reads(qts, V100_ENGINE_PATH_ATS, 0x10123458, 0xaaaa);
    assert_reads(qts, V100_ENGINE_PATH_ATS, 0x20003ff8, 0xbbbb);
    assert_ats_faults(qts, 0x20002ff8, V100_ENGINE_CAUSE_RADIX);

    /* Another process has nothing there */
    reg_write(qts, V100_ENGINE_PASID, PID + 1);
    g_assert_cmpint(fetch(qts, V100_ENGINE_PATH_ATS, VM_EA, &val), ==,
                    V100_ENGINE_CAUSE_PROCESS_ENTRY);
    qtest_quit(qts);
}

static void test_ats_xts(void)
{
    Vm vm;
    QTestState *qts = start_ats_with(&vm, V100_ONE_GPU ASKS_XTS);
    uint64_t bdf = ring_read(qts, BDF_MAP(2)), pid = ring_read(qts, PID_MAP(2));

    ring_write(qts, BDF_MAP(2), bdf & ~BIT_(0));
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_XTS_BDF_MISS);
    ring_write(qts, BDF_MAP(2), bdf ^ FIELD_(16, 31, BDF ^ BDF2));
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_XTS_BDF_MISS);
    ring_write(qts, BDF_MAP(2), bdf & ~FIELD_(39, 40, 1));
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_XTS_BDF_MISS);
    ring_write(qts, BDF_MAP(2), bdf & ~BIT_(1));
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_XTS_PID_MISS);
    /* A map entry of the process' own does without the wildcard */
    ring_write(qts, PID_MAP(40), PID_GUEST | FIELD_(40, 43, 2) | PID);
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    ring_write(qts, PID_MAP(40), PID_GUEST | FIELD_(40, 43, 2) | (PID + 1));
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_XTS_PID_MISS);
    ring_write(qts, PID_MAP(40), 0);
    ring_write(qts, BDF_MAP(2), bdf);

    ring_write(qts, PID_MAP(2), 0);
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_XTS_PID_MISS);
    ring_write(qts, PID_MAP(2), pid & ~BIT_(0));
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_XTS_PID_MISS);
    ring_write(qts, PID_MAP(2), pid & ~MSR_DR);
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_XTS_PID_MISS);
    ring_write(qts, PID_MAP(2), pid ^ FIELD_(40, 43, 1));
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_XTS_PID_MISS);
    ring_write(qts, PID_MAP(2), pid | MSR_HV);
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_HV_DENIED);
    ring_write(qts, PID_MAP(2), pid);
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    qtest_quit(qts);
}

static void test_ats_tables(void)
{
    Vm vm;
    QTestState *qts = start_ats(&vm);
    uint64_t pate = PARTITIONS + 16 * LPID, dw0, dw1;

    xscom_write(qts, 0, NMMU_PTCR, 0);
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_NO_PTCR);
    /* 4 KiB of table: LPIDs up to 255 */
    xscom_write(qts, 0, NMMU_PTCR, PARTITIONS);
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_PARTITION_ENTRY);
    set_ptcr(qts);

    dw0 = qtest_readq(qts, pate);
    dw1 = qtest_readq(qts, pate + 8);
    qtest_writeq(qts, pate, dw0 & ~BIT_(0));
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_PARTITION_ENTRY);
    qtest_writeq(qts, pate, dw0);
    qtest_writeq(qts, pate + 8, dw1 & ~BIT_(0));
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_PARTITION_ENTRY);
    /* A process table outside of the guest's memory */
    qtest_writeq(qts, pate + 8, dw1 | VM_SIZE);
    assert_gpa_faults(qts, VM_EA, V100_ENGINE_CAUSE_PARTITION_RADIX,
                      VM_SIZE + VM_PRTB + 16 * PID);
    /* One that is too small, 4 KiB, whatever lies behind it */
    qtest_writeq(qts, pate + 8, dw1 & ~FIELD_(59, 63, 31));
    qtest_writeq(qts, vm.memory + VM_PRTB + 16 * 256, tree_root(&vm.process));
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    reg_write(qts, V100_ENGINE_PASID, 256);
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_PROCESS_ENTRY);
    qtest_quit(qts);
}

static void test_ats_process_entry(void)
{
    Vm vm;
    QTestState *qts = start_ats(&vm);
    uint64_t entry = vm_process_entry(&vm), root = qtest_readq(qts, entry);
    uint64_t pte;

    qtest_writeq(qts, entry, 0);
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_PROCESS_ENTRY);
    /* Guest real, not host real, is what the tables hold */
    qtest_writeq(qts, entry, root + vm.memory);
    assert_gpa_faults(qts, VM_EA, V100_ENGINE_CAUSE_PARTITION_RADIX,
                      vm.memory + VM_TREE + 8 * (VM_EA >> 39));
    /* Beyond the 52 bits of the tree, and one of 31 bits */
    qtest_writeq(qts, entry, root);
    assert_ats_faults(qts, VM_EA | 1ull << 52, V100_ENGINE_CAUSE_RADIX);
    qtest_writeq(qts, entry, root & ~ROOT_RTS);
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_RADIX);
    /* An index that no table has, though the entry would do */
    qtest_writeq(qts, vm.memory + VM_TREE, RADIX_VALID | RADIX_LEAF | PTE_RW);
    qtest_writeq(qts, entry, (root & ~0x1full) | 4);
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_RADIX);
    /* All of a PTE, but not valid */
    qtest_writeq(qts, entry, root);
    pte = tree_entry(qts, &vm.process, VM_EA, 16);
    qtest_writeq(qts, pte, qtest_readq(qts, pte) & ~RADIX_VALID);
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_RADIX);
    qtest_writeq(qts, pte, qtest_readq(qts, pte) | RADIX_VALID);
    /* Quadrants: 1 and 2 are nobody's, 3 is PID 0's */
    assert_ats_faults(qts, VM_EA | 1ull << 62, V100_ENGINE_CAUSE_RADIX);
    assert_ats_faults(qts, VM_EA | 2ull << 62, V100_ENGINE_CAUSE_RADIX);
    assert_ats_faults(qts, VM_EA | 3ull << 62,
                      V100_ENGINE_CAUSE_PROCESS_ENTRY);
    qtest_writeq(qts, vm.memory + VM_PRTB, root);
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA | 3ull << 62, 0x5eed0000);
    qtest_quit(qts);
}

static void test_ats_permissions(void)
{
    const uint64_t pages = 0x30000000;
    Vm vm;
    QTestState *qts = start_ats_with(&vm, V100_ONE_GPU ASKS_XTS
                                     " -global pnv-nmmu.walk-cache=off");
    uint64_t val, guest_pte;

    /* The process' own */
    tree_map(qts, &vm.process, pages, 12, VM_DATA, PTE_R);
    tree_map(qts, &vm.process, pages + 0x1000, 12, VM_DATA,
             PTE_RW | PTE_PRIVILEGED);
    tree_map(qts, &vm.process, pages + 0x2000, 12, VM_DATA, 0);
    assert_reads(qts, V100_ENGINE_PATH_ATS, pages, 0x5eed0000);
    g_assert_cmpint(store(qts, V100_ENGINE_PATH_ATS, pages, 1), ==,
                    V100_ENGINE_CAUSE_PERMISSION);
    assert_ats_faults(qts, pages + 0x1000, V100_ENGINE_CAUSE_PERMISSION);
    assert_ats_faults(qts, pages + 0x2000, V100_ENGINE_CAUSE_PERMISSION);
    g_assert_cmphex(qtest_readq(qts, vm.memory + VM_DATA), ==, 0x5eed0000);
    /* Privileged pages are those of a context without MSR PR */
    ring_write(qts, PID_MAP(2), ring_read(qts, PID_MAP(2)) & ~MSR_PR);
    assert_reads(qts, V100_ENGINE_PATH_ATS, pages + 0x1000, 0x5eed0000);
    ring_write(qts, PID_MAP(2), ring_read(qts, PID_MAP(2)) | MSR_PR);
    assert_ats_faults(qts, pages + 0x1000, V100_ENGINE_CAUSE_PERMISSION);

    /* The LPAR's */
    tree_map(qts, &vm.process, pages + 0x200000, 21, 0xa00000, PTE_RW);
    tree_map(qts, &vm.partition, 0xa00000, 21, vm.memory + 0xa00000, PTE_R);
    qtest_writeq(qts, vm.memory + 0xa00018, 0x77);
    assert_reads(qts, V100_ENGINE_PATH_ATS, pages + 0x200018, 0x77);
    g_assert_cmpint(store(qts, V100_ENGINE_PATH_ATS, pages + 0x200018, 1), ==,
                    V100_ENGINE_CAUSE_PARTITION_PERMISSION);
    g_assert_cmphex(engine_getq(qts, V100_ENGINE_FAULT_GPA_LO), ==, 0xa00018);
    tree_map(qts, &vm.process, pages + 0x400000, 21, VM_SIZE, PTE_RW);
    assert_gpa_faults(qts, pages + 0x400010, V100_ENGINE_CAUSE_PARTITION_RADIX,
                      VM_SIZE + 0x10);

    /* Tables that the guest may not write can't record the access */
    guest_pte = tree_entry(qts, &vm.process, pages + 0x3000, 12);
    tree_map(qts, &vm.process, pages + 0x3000, 12, VM_DATA, PTE_RW);
    tree_map(qts, &vm.partition, VM_TREE, 21, vm.memory + VM_TREE, PTE_R);
    g_assert_cmpint(fetch(qts, V100_ENGINE_PATH_ATS, pages + 0x3000, &val), ==,
                    V100_ENGINE_CAUSE_PARTITION_PERMISSION);
    g_assert_cmphex(engine_getq(qts, V100_ENGINE_FAULT_GPA_LO), ==,
                    guest_pte - vm.memory);
    qtest_quit(qts);
}

static void test_ats_rc(void)
{
    Vm vm;
    QTestState *qts = start_ats(&vm);
    uint64_t guest = tree_entry(qts, &vm.process, VM_EA, 16);
    uint64_t host = tree_entry(qts, &vm.partition, VM_DATA, 21);

    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    g_assert_cmphex(qtest_readq(qts, guest) & (RADIX_R | RADIX_C), ==,
                    RADIX_R);
    g_assert_cmphex(qtest_readq(qts, host) & (RADIX_R | RADIX_C), ==, RADIX_R);
    /* The cached translation is not enough for a write */
    g_assert_cmpint(store(qts, V100_ENGINE_PATH_ATS, VM_EA, 5), ==, 0);
    g_assert_cmphex(qtest_readq(qts, guest) & (RADIX_R | RADIX_C), ==,
                    RADIX_R | RADIX_C);
    g_assert_cmphex(qtest_readq(qts, host) & (RADIX_R | RADIX_C), ==,
                    RADIX_R | RADIX_C);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_ENTRIES), ==, 1);
    qtest_quit(qts);
}

/* LPAR 0 with MSR HV, as the host's own processes are bound */
static void test_ats_host(void)
{
    Tree tree = { .root = 0x5000000, .next = 0x5010000 };
    const uint64_t prtb = 0x5800000;
    QTestState *qts = v100_start(V100_ONE_GPU ASKS_XTS);

    train(qts);
    set_ptcr(qts);
    qtest_writeq(qts, PARTITIONS, BIT_(0) | tree_root(&tree));
    qtest_writeq(qts, PARTITIONS + 8, BIT_(0) | prtb | FIELD_(59, 63, 4));
    qtest_writeq(qts, prtb + 16 * PID, tree_root(&tree));
    tree_map(qts, &tree, VM_EA, 16, DATA, PTE_RW);
    qtest_writeq(qts, DATA, 0x4057);
    bind_gpu(qts, 0, BDF, 0, 0);
    ring_write(qts, PID_MAP(0), PID_GUEST | MSR_HV);
    reg_write(qts, V100_ENGINE_PASID, PID);
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x4057);
    /* Without HV the process' addresses go through the LPAR's tree */
    ring_write(qts, PID_MAP(0), PID_GUEST);
    assert_gpa_faults(qts, VM_EA, V100_ENGINE_CAUSE_PARTITION_RADIX,
                      prtb + 16 * PID);
    qtest_quit(qts);
}

/*
 * Shootdowns
 */

#define LAUNCH_PRS      BIT_(13)
#define LAUNCH_PAGE(ap, pid) \
    (LAUNCH_PRS | FIELD_(14, 17, ap) | FIELD_(19, 38, pid))
#define LAUNCH_PID(pid) (BIT_(12) | LAUNCH_PRS | FIELD_(19, 38, pid))
#define LAUNCH_LPAR     (BIT_(11) | LAUNCH_PRS)     /* as tlbie */
#define LAUNCH_ALL      BIT_(12)                    /* as NVIDIA's driver */
#define LAUNCH_NO_FLUSH BIT_(39)
#define AP_4K           0
#define AP_64K          5
#define AP_2M           1

/* More often than any launch that ends */
#define POLLS           100

static bool launch_ends(QTestState *qts, unsigned n)
{
    for (unsigned i = 0; i < POLLS; i++) {
        if (!ring_read(qts, ATSD(n, 0x010))) {
            return true;
        }
    }
    return false;
}

static void begin_launch(QTestState *qts, unsigned n, uint64_t ava,
                         uint64_t val)
{
    ring_write(qts, ATSD(n, 0x008), ava);
    ring_write(qts, ATSD(n, 0x000), val);
}

/* Launch on register set n, whose LPARID is set before */
static void launch(QTestState *qts, unsigned n, uint64_t ava, uint64_t val)
{
    begin_launch(qts, n, ava, val);
    g_assert_true(launch_ends(qts, n));
}

/* Two launches for PID 0: what was named before is gone then */
static void flush(QTestState *qts, unsigned n)
{
    launch(qts, n, 0, LAUNCH_PID(0));
    launch(qts, n, 0, LAUNCH_PID(0));
}

static void shoot(QTestState *qts, unsigned n, uint64_t ava, uint64_t val)
{
    launch(qts, n, ava, val);
    flush(qts, n);
}

static QTestState *start_atsd_with(Vm *vm, const char *args)
{
    QTestState *qts = start_ats_with(vm, args);

    ring_write(qts, XTS(0x020), BIT_(1));
    ring_write(qts, ATSD_LPARID(3), LPID);
    ring_write(qts, ATSD_LPARID(4), LPID + 1);
    tree_map(qts, &vm->process, VM_EA + 64 * KIB, 16, VM_DATA, PTE_RW);
    return qts;
}

static QTestState *start_atsd(Vm *vm)
{
    return start_atsd_with(vm, V100_ONE_GPU
                           " -global pnv-nmmu.walk-cache=off");
}

/* Fill the cache for both pages of the process, then unmap these */
static void make_stale(QTestState *qts, Vm *vm)
{
    for (unsigned i = 0; i < 2; i++) {
        uint64_t entry = tree_entry(qts, &vm->process, VM_EA + i * 64 * KIB,
                                    16);

        tree_map(qts, &vm->process, VM_EA + i * 64 * KIB, 16, VM_DATA, PTE_RW);
        assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA + i * 64 * KIB,
                     0x5eed0000);
        qtest_writeq(qts, entry, 0);
    }
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_ENTRIES), ==, 2);
}

static void assert_stale(QTestState *qts, bool first, bool second)
{
    uint64_t val;

    g_assert_cmpint(fetch(qts, V100_ENGINE_PATH_ATS, VM_EA, &val), ==,
                    first ? 0 : V100_ENGINE_CAUSE_RADIX);
    g_assert_cmpint(fetch(qts, V100_ENGINE_PATH_ATS, VM_EA + 64 * KIB, &val),
                    ==, second ? 0 : V100_ENGINE_CAUSE_RADIX);
}

/* What the launch val with ava removes of the two pages, when it is flushed */
static void assert_removes(QTestState *qts, Vm *vm, uint64_t ava, uint64_t val,
                           bool first, bool second)
{
    uint32_t removed;

    make_stale(qts, vm);
    removed = regl(qts, V100_ENGINE_ATC_REMOVED);
    shoot(qts, 3, ava, val);
    assert_stale(qts, !first, !second);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_REMOVED), ==,
                    removed + first + second);
    shoot(qts, 3, 0, LAUNCH_PID(PID));
}

static void test_atsd_scope(void)
{
    Vm vm;
    QTestState *qts = start_atsd(&vm);

    make_stale(qts, &vm);
    assert_stale(qts, true, true);
    /* Other LPAR, other process, other page, and while shootdowns are off */
    launch(qts, 4, VM_EA, LAUNCH_PID(PID));
    launch(qts, 4, VM_EA, LAUNCH_LPAR);
    launch(qts, 3, VM_EA, LAUNCH_PID(PID + 1));
    launch(qts, 3, VM_EA, LAUNCH_PAGE(AP_64K, PID + 1));
    launch(qts, 3, VM_EA + 128 * KIB, LAUNCH_PAGE(AP_64K, PID));
    ring_write(qts, XTS(0x020), 0);
    launch(qts, 3, VM_EA, LAUNCH_PID(PID));
    ring_write(qts, XTS(0x020), BIT_(1));
    flush(qts, 3);
    assert_stale(qts, true, true);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_SHOOTDOWNS), ==, 5);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_REMOVED), ==, 0);
    shoot(qts, 3, 0, LAUNCH_PID(PID));

    assert_removes(qts, &vm, VM_EA, LAUNCH_PAGE(AP_64K, PID), true, false);
    assert_removes(qts, &vm, VM_EA + 64 * KIB, LAUNCH_PAGE(AP_64K, PID), false,
                   true);
    assert_removes(qts, &vm, VM_EA, LAUNCH_PAGE(AP_2M, PID), true, true);
    assert_removes(qts, &vm, 0, LAUNCH_PID(PID), true, true);
    assert_removes(qts, &vm, 0, LAUNCH_LPAR, true, true);
    /* There are no pages of 4 KiB, nor other APs */
    assert_removes(qts, &vm, VM_EA, LAUNCH_PAGE(AP_4K, PID), false, false);
    assert_removes(qts, &vm, VM_EA, LAUNCH_PAGE(7, PID), false, false);
    /* What is not process scoped a GPU does not have, whatever IS is */
    for (unsigned is = 0; is < 4; is++) {
        assert_removes(qts, &vm, VM_EA, FIELD_(11, 12, is) |
                       FIELD_(14, 17, AP_64K), false, false);
    }
    qtest_quit(qts);
}

/* The other reading of the same bits */
static void test_atsd_scope_uvm(void)
{
    Vm vm;
    QTestState *qts = start_atsd_with(&vm, V100_ONE_GPU
        " -global pnv-nmmu.walk-cache=off -global pnv-npu2.is=uvm");

    assert_removes(qts, &vm, VM_EA, LAUNCH_PAGE(AP_64K, PID), true, false);
    assert_removes(qts, &vm, VM_EA, LAUNCH_PAGE(AP_64K, PID + 1), false, false);
    assert_removes(qts, &vm, VM_EA, FIELD_(14, 17, AP_64K), true, false);
    assert_removes(qts, &vm, 0, LAUNCH_PID(PID), true, true);
    assert_removes(qts, &vm, 0, LAUNCH_PID(PID + 1), false, false);
    assert_removes(qts, &vm, 0, LAUNCH_ALL, true, true);
    /* One page, at address 0 of PID 0 */
    assert_removes(qts, &vm, 0, LAUNCH_LPAR, false, false);
    assert_removes(qts, &vm, VM_EA, LAUNCH_PAGE(AP_4K, PID), false, false);
    qtest_quit(qts);
}

static void test_atsd_4k(void)
{
    Vm vm;
    QTestState *qts = start_atsd_with(&vm, V100_ONE_GPU
        " -global pnv-nmmu.walk-cache=off -global pnv-npu2.atsd-4k=on");

    assert_removes(qts, &vm, VM_EA, LAUNCH_PAGE(AP_4K, PID), true, false);
    qtest_quit(qts);
}

/* What a shootdown names stays until two others have flushed it */
static void test_atsd_flush(void)
{
    Vm vm;
    QTestState *qts = start_atsd_with(&vm, V100_ONE_GPU
                                      " -global pnv-nmmu.walk-cache=off"
                                      " -global nvlink2-v100.flr=on");

    make_stale(qts, &vm);
    launch(qts, 3, VM_EA, LAUNCH_PAGE(AP_64K, PID));
    assert_stale(qts, true, true);
    launch(qts, 3, 0, LAUNCH_PID(0));
    assert_stale(qts, true, true);
    /* Named anew it takes two more, and these are none */
    launch(qts, 3, VM_EA, LAUNCH_PAGE(AP_64K, PID));
    for (unsigned i = 0; i < 3; i++) {
        launch(qts, 3, 0, LAUNCH_PID(0) | LAUNCH_NO_FLUSH);
        launch(qts, 3, 0, LAUNCH_PID(PID + 1));
        launch(qts, 3, 0, LAUNCH_PAGE(AP_64K, 0));
        launch(qts, 4, 0, LAUNCH_PID(0));
    }
    launch(qts, 3, 0, LAUNCH_PID(0));
    assert_stale(qts, true, true);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_REMOVED), ==, 0);
    launch(qts, 3, 0, LAUNCH_PID(0));
    assert_stale(qts, false, true);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_REMOVED), ==, 1);
    /* A reset needs none */
    launch(qts, 3, 0, LAUNCH_PID(PID));
    config_writel(qts, CAP_EXP + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR);
    setup_bars(qts);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_ENTRIES), ==, 0);
    qtest_quit(qts);

    qts = start_atsd_with(&vm, V100_ONE_GPU " -global pnv-nmmu.walk-cache=off "
                          "-global nvlink2-v100.atc-flushes=0");
    make_stale(qts, &vm);
    launch(qts, 3, VM_EA, LAUNCH_PAGE(AP_64K, PID));
    assert_stale(qts, false, true);
    qtest_quit(qts);
}

/* Nothing is done before STATUS says so */
static void test_atsd_status(void)
{
    Vm vm;
    QTestState *qts = start_atsd(&vm);

    make_stale(qts, &vm);
    begin_launch(qts, 3, 0, LAUNCH_PID(PID));
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_SHOOTDOWNS), ==, 0);
    g_assert_cmphex(ring_read(qts, ATSD(3, 0x010)), !=, 0);
    /* Who does not wait has not launched */
    begin_launch(qts, 3, 0, LAUNCH_PID(0));
    begin_launch(qts, 3, 0, LAUNCH_PID(0));
    g_assert_cmpint(npu_table(qts, 0, "atsd-ignored", 3), ==, 2);
    g_assert_true(launch_ends(qts, 3));
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_SHOOTDOWNS), ==, 1);
    assert_stale(qts, true, true);
    flush(qts, 3);
    assert_stale(qts, false, false);
    qtest_quit(qts);

    qts = start_atsd_with(&vm, V100_ONE_GPU " -global pnv-nmmu.walk-cache=off "
                          "-global pnv-npu2.atsd-polls=0");
    make_stale(qts, &vm);
    begin_launch(qts, 3, 0, LAUNCH_PID(PID));
    begin_launch(qts, 3, 0, LAUNCH_PID(0));
    begin_launch(qts, 3, 0, LAUNCH_PID(0));
    assert_stale(qts, false, false);
    qtest_quit(qts);
}

static void test_atsd_hang(void)
{
    Vm vm;
    QTestState *qts = start_atsd(&vm);

    ring_write(qts, ATSD_LPARID(5), LPID);
    make_stale(qts, &vm);
    npu_set(qts, 0, "inject-atsd-busy", 1);
    begin_launch(qts, 3, 0, LAUNCH_PID(PID));
    g_assert_false(launch_ends(qts, 3));
    /* Other register sets work, and this one takes nothing */
    begin_launch(qts, 3, 0, LAUNCH_PID(PID));
    g_assert_false(launch_ends(qts, 3));
    g_assert_cmpint(npu_table(qts, 0, "atsd-launches", 3), ==, 1);
    assert_stale(qts, true, true);
    shoot(qts, 5, VM_EA, LAUNCH_PAGE(AP_64K, PID));
    assert_stale(qts, false, true);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_SHOOTDOWNS), ==, 3);
    npu_set(qts, 0, "inject-atsd-busy", 0);
    g_assert_true(launch_ends(qts, 3));
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_SHOOTDOWNS), ==, 4);
    qtest_quit(qts);
}

static void test_atsd_forwarding(void)
{
    Vm vm;
    QTestState *qts = start_atsd(&vm);
    uint64_t pid = ring_read(qts, PID_MAP(2));

    make_stale(qts, &vm);
    /* Neither an entry that forwards none, nor a brick without a GPU */
    ring_write(qts, PID_MAP(2), pid & ~BIT_(2));
    shoot(qts, 3, 0, LAUNCH_PID(PID));
    ring_write(qts, PID_MAP(2), pid);
    bind_gpu(qts, 2, BDF, 4, LPID);
    shoot(qts, 3, 0, LAUNCH_PID(PID));
    bind_gpu(qts, 2, BDF, 0, LPID);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_SHOOTDOWNS), ==, 0);
    assert_stale(qts, true, true);
    /* One for a link that is down waits until it is up */
    npu_set(qts, 0, "inject-fence", 0);
    begin_launch(qts, 3, 0, LAUNCH_PID(PID));
    g_assert_false(launch_ends(qts, 3));
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_SHOOTDOWNS), ==, 0);
    /* Whom the tables have now does not matter to it */
    ring_write(qts, BDF_MAP(2), 0);
    g_assert_false(launch_ends(qts, 3));
    bind_gpu(qts, 2, BDF, 0, LPID);
    train(qts);
    g_assert_true(launch_ends(qts, 3));
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_SHOOTDOWNS), ==, 1);
    flush(qts, 3);
    assert_stale(qts, false, false);
    /* The brick of the BDF map entry is the one that counts */
    make_stale(qts, &vm);
    bind_gpu(qts, 2, BDF, 1, LPID);
    npu_set(qts, 0, "inject-fence", 0);
    shoot(qts, 3, 0, LAUNCH_PID(PID));
    train(qts);
    assert_stale(qts, false, false);
    qtest_quit(qts);

    qts = start_atsd_with(&vm, V100_ONE_GPU " -global pnv-nmmu.walk-cache=off "
                          "-global pnv-npu2.atsd-link-wait=off");
    make_stale(qts, &vm);
    npu_set(qts, 0, "inject-fence", 0);
    shoot(qts, 3, 0, LAUNCH_PID(PID));
    train(qts);
    assert_stale(qts, true, true);
    qtest_quit(qts);
}

/*
 * The nest MMU's walk cache
 */

#define SCOPE_PROCESS   1
#define SCOPE_PARTITION 0

static void tlbie(QTestState *qts, unsigned ric, unsigned is, unsigned scope,
                  uint32_t lpid, uint32_t pid)
{
    g_autofree char *value = g_strdup_printf("%u %u %u %u %u", ric, is, scope,
                                             lpid, pid);
    QDict *response = qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': "
                                "{ 'path': '/machine/chip[0]/nmmu', "
                                "'property': 'inject-tlbie', 'value': %s } }",
                                value);

    g_assert(qdict_haskey(response, "return"));
    qobject_unref(response);
}

/* What the GPU sees at VM_EA when it asks the nest MMU */
static void assert_walks_to(QTestState *qts, uint64_t expected)
{
    uint32_t walks = regl(qts, V100_ENGINE_ATC_WALKS);

    shoot(qts, 3, 0, LAUNCH_PID(PID));
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, expected);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_WALKS), ==, walks + 1);
}

/* All that leaves old PTEs of the scope where they are */
static void tlbies_too_small(QTestState *qts, unsigned scope)
{
    for (unsigned is = 0; is < 4; is++) {
        tlbie(qts, 0, is, scope, LPID, PID);
        tlbie(qts, 1, is, scope, LPID, PID);
    }
    tlbie(qts, 2, 0, scope, LPID, PID);
    tlbie(qts, 2, 2, scope, LPID + 1, 0);
    tlbie(qts, 2, 2, !scope, LPID, 0);
    tlbie(qts, 2, 3, !scope, 0, 0);
}

static void test_nmmu_process(void)
{
    static const struct {
        unsigned is;
        uint32_t lpid, pid;
    } enough[] = {
        { 1, LPID, PID }, { 2, LPID, 0 }, { 3, 0, 0 },
    };
    const uint64_t other = VM_DATA + 64 * KIB;
    Vm vm;
    QTestState *qts = start_atsd_with(&vm, V100_ONE_GPU);

    qtest_writeq(qts, vm.memory + other, 0x07e4);
    for (unsigned i = 0; i < ARRAY_SIZE(enough); i++) {
        assert_walks_to(qts, 0x5eed0000);
        tree_map(qts, &vm.process, VM_EA, 16, other, PTE_RW);
        tlbies_too_small(qts, SCOPE_PROCESS);
        tlbie(qts, 2, 1, SCOPE_PROCESS, LPID, PID + 1);
        tlbie(qts, 2, 1, SCOPE_PROCESS, LPID + 1, PID);
        assert_walks_to(qts, 0x5eed0000);
        tlbie(qts, 2, enough[i].is, SCOPE_PROCESS, enough[i].lpid,
              enough[i].pid);
        assert_walks_to(qts, 0x07e4);
        tree_map(qts, &vm.process, VM_EA, 16, VM_DATA, PTE_RW);
        tlbie(qts, 2, 2, SCOPE_PROCESS, LPID, 0);
    }
    /* The entry of the process table, too */
    assert_walks_to(qts, 0x5eed0000);
    qtest_writeq(qts, vm_process_entry(&vm), 0);
    assert_walks_to(qts, 0x5eed0000);
    tlbie(qts, 2, 1, SCOPE_PROCESS, LPID, PID);
    shoot(qts, 3, 0, LAUNCH_PID(PID));
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_PROCESS_ENTRY);
    qtest_quit(qts);
}

static void test_nmmu_partition(void)
{
    static const struct {
        unsigned is;
        uint32_t lpid;
    } enough[] = { { 2, LPID }, { 3, 0 } };
    const uint64_t page = VM_DATA & ~(2 * MIB - 1);
    Vm vm;
    QTestState *qts = start_atsd_with(&vm, V100_ONE_GPU);
    const uint64_t elsewhere = vm.memory + 2 * VM_SIZE;

    qtest_writeq(qts, elsewhere + VM_DATA, 0x07e4);
    for (unsigned i = 0; i < ARRAY_SIZE(enough); i++) {
        assert_walks_to(qts, 0x5eed0000);
        tree_map(qts, &vm.partition, page, 21, elsewhere + page, PTE_RW);
        tlbies_too_small(qts, SCOPE_PARTITION);
        assert_walks_to(qts, 0x5eed0000);
        tlbie(qts, 2, enough[i].is, SCOPE_PARTITION, enough[i].lpid, 0);
        assert_walks_to(qts, 0x07e4);
        tree_map(qts, &vm.partition, page, 21, vm.memory + page, PTE_RW);
        tlbie(qts, 2, 2, SCOPE_PARTITION, LPID, 0);
    }
    /* A page that goes, too */
    assert_walks_to(qts, 0x5eed0000);
    qtest_writeq(qts, tree_entry(qts, &vm.partition, page, 21), 0);
    tlbies_too_small(qts, SCOPE_PARTITION);
    assert_walks_to(qts, 0x5eed0000);
    tlbie(qts, 2, 2, SCOPE_PARTITION, LPID, 0);
    shoot(qts, 3, 0, LAUNCH_PID(PID));
    assert_gpa_faults(qts, VM_EA, V100_ENGINE_CAUSE_PARTITION_RADIX, VM_DATA);
    qtest_quit(qts);
}

/* The entry of the partition table, when the LPID is another VM's */
static void test_nmmu_partition_table(void)
{
    const uint64_t page = VM_DATA + 2 * MIB;
    Vm vm, next;
    QTestState *qts = start_atsd_with(&vm, V100_ONE_GPU);

    tree_map(qts, &vm.process, VM_EA + 64 * KIB, 16, page, PTE_RW);
    qtest_writeq(qts, vm.memory + page, 0x07e4);
    assert_walks_to(qts, 0x5eed0000);
    next = vm_create(qts, 1, LPID, PID);
    qtest_writeq(qts, next.memory + page, 0x07e5);
    tlbies_too_small(qts, SCOPE_PARTITION);
    /* No walk was there before: only the root tells whose it is */
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA + 64 * KIB, 0x07e4);
    tlbie(qts, 2, 2, SCOPE_PARTITION, LPID, 0);
    tlbie(qts, 2, 2, SCOPE_PROCESS, LPID, 0);
    assert_walks_to(qts, 0x5eed0001);
    /* And none */
    qtest_writeq(qts, PARTITIONS + 16 * next.lpid, 0);
    assert_walks_to(qts, 0x5eed0001);
    tlbie(qts, 2, 3, SCOPE_PARTITION, 0, 0);
    shoot(qts, 3, 0, LAUNCH_PID(PID));
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_PARTITION_ENTRY);
    qtest_quit(qts);
}

/* More rights need no tlbie, and recorded accesses stay recorded */
static void test_nmmu_rights(void)
{
    Vm vm;
    QTestState *qts = start_atsd_with(&vm, V100_ONE_GPU);
    uint64_t pte = tree_entry(qts, &vm.process, VM_EA, 16);

    tree_map(qts, &vm.process, VM_EA, 16, VM_DATA, PTE_R);
    assert_walks_to(qts, 0x5eed0000);
    g_assert_cmpint(store(qts, V100_ENGINE_PATH_ATS, VM_EA, 1), ==,
                    V100_ENGINE_CAUSE_PERMISSION);
    tree_map(qts, &vm.process, VM_EA, 16, VM_DATA, PTE_RW);
    g_assert_cmpint(store(qts, V100_ENGINE_PATH_ATS, VM_EA, 5), ==, 0);
    g_assert_cmphex(qtest_readq(qts, pte) & (RADIX_R | RADIX_C), ==,
                    RADIX_R | RADIX_C);
    /* A cached PTE that a write was recorded in is not recorded in again */
    qtest_writeq(qts, pte, qtest_readq(qts, pte) & ~RADIX_C);
    assert_walks_to(qts, 5);
    g_assert_cmpint(store(qts, V100_ENGINE_PATH_ATS, VM_EA, 6), ==, 0);
    g_assert_cmphex(qtest_readq(qts, pte) & RADIX_C, ==, 0);
    qtest_quit(qts);
}

/* Two GPUs, each bound to a VM of its own; same PID and addresses in both */
static void test_two_lpars(void)
{
    QTestState *qts = v100_start(TWO_GPUS ASKS_XTS
                                 " -global pnv-nmmu.walk-cache=off");
    uint64_t val;
    Vm vm[2];

    root_port_writel(qts, PCI_MEMORY_BASE, 0x81f08000);
    qtest_writeq(qts, PHB_REGS + 0x140, GPU_CONFIG | FIELD_(12, 19, 1) |
                 FIELD_(20, 31, PCI_BASE_ADDRESS_0));
    qtest_writel(qts, PHB_REGS + 0x130,
                 bswap32(PHB_M32_PCI + V100_BAR0_SIZE));
    qtest_writeq(qts, PHB_REGS + 0x140, GPU_CONFIG | FIELD_(12, 19, 1) |
                 FIELD_(20, 31, PCI_COMMAND));
    qtest_writel(qts, PHB_REGS + 0x130, bswap32(PCI_COMMAND_MEMORY));
    train(qts);
    qtest_writel(qts, BAR0_2 + V100_LINK_TRAIN, bswap32(1));
    g_assert_cmphex(engine_get(qts, BAR0_2, V100_LINK_STATUS), ==, 3);

    set_ptcr(qts);
    for (unsigned i = 0; i < 2; i++) {
        vm[i] = vm_create(qts, i, LPID + i, PID);
        bind_gpu(qts, i, i ? BDF2 : BDF, 2 * i, LPID + i);
        ring_write(qts, ATSD_LPARID(i), LPID + i);
    }
    ring_write(qts, XTS(0x020), BIT_(1));
    reg_write(qts, V100_ENGINE_PASID, PID);
    qtest_writel(qts, BAR0_2 + V100_ENGINE_PASID, bswap32(PID));

    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    g_assert_cmpint(copy_of(qts, BAR0_2,
                            V100_ENGINE_PATHS(V100_ENGINE_PATH_ATS,
                                              V100_ENGINE_PATH_ATS),
                            VM_EA, VM_EA + 8, 8), ==, 0);
    g_assert_cmphex(qtest_readq(qts, vm[1].memory + VM_DATA + 8), ==,
                    0x5eed0001);
    g_assert_cmphex(qtest_readq(qts, vm[0].memory + VM_DATA + 8), ==, 0);

    /* A shootdown of the second VM leaves the first one's alone */
    shoot(qts, 1, 0, LAUNCH_LPAR);
    g_assert_cmpint(engine_get(qts, BAR0_2, V100_ENGINE_ATC_ENTRIES), ==, 0);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_ENTRIES), ==, 1);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_SHOOTDOWNS), ==, 0);
    qtest_writeq(qts, tree_entry(qts, &vm[0].process, VM_EA, 16), 0);
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);

    /*
     * The cache goes by LPAR: bound to the other VM the GPU sees that one's
     * memory, and gets that one's shootdowns
     */
    bind_gpu(qts, 0, BDF, 0, LPID + 1);
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0001);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_ENTRIES), ==, 2);
    shoot(qts, 1, 0, LAUNCH_LPAR);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_ENTRIES), ==, 1);
    bind_gpu(qts, 0, BDF, 0, LPID);
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    shoot(qts, 0, 0, LAUNCH_LPAR);
    g_assert_cmpint(fetch(qts, V100_ENGINE_PATH_ATS, VM_EA, &val), ==,
                    V100_ENGINE_CAUSE_RADIX);
    qtest_quit(qts);
}

/* What the NPU's maps say matters to what the GPU does not know yet */
static void test_unbind(void)
{
    Vm vm;
    QTestState *qts = start_ats(&vm);
    uint32_t walks;

    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    walks = regl(qts, V100_ENGINE_ATC_WALKS);
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_WALKS), ==, walks);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_HITS), ==, 1);
    ring_write(qts, PID_MAP(2), 0);
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    assert_ats_faults(qts, VM_EA + 64 * KIB, V100_ENGINE_CAUSE_XTS_PID_MISS);
    ring_write(qts, BDF_MAP(2), 0);
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    assert_ats_faults(qts, VM_EA + 64 * KIB, V100_ENGINE_CAUSE_XTS_BDF_MISS);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_HITS), ==, 3);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_ENTRIES), ==, 1);
    /* Of another process it knows nothing, nor that it may write this page */
    reg_write(qts, V100_ENGINE_PASID, PID + 1);
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_XTS_BDF_MISS);
    reg_write(qts, V100_ENGINE_PASID, PID);
    g_assert_cmpint(store(qts, V100_ENGINE_PATH_ATS, VM_EA, 0), ==,
                    V100_ENGINE_CAUSE_XTS_BDF_MISS);
    /* Reset drops it */
    bus_reset(qts);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_ENTRIES), ==, 0);
    g_assert_cmpint(regl(qts, V100_ENGINE_STATUS), ==,
                    V100_ENGINE_STATUS_NONE);
    g_assert_cmpint(regl(qts, V100_ENGINE_LENGTH), ==, 0);
    qtest_quit(qts);
}

/* The other answer: a cached translation does not serve once it is unbound */
static void test_unbind_asks(void)
{
    Vm vm;
    QTestState *qts = start_ats_with(&vm, V100_ONE_GPU ASKS_XTS);

    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_HITS), ==, 1);
    ring_write(qts, PID_MAP(2), 0);
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_XTS_PID_MISS);
    ring_write(qts, BDF_MAP(2), 0);
    assert_ats_faults(qts, VM_EA, V100_ENGINE_CAUSE_XTS_BDF_MISS);
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_ENTRIES), ==, 1);
    qtest_quit(qts);
}

/* More pages than the cache has entries */
static void test_cache_full(void)
{
    Vm vm;
    QTestState *qts = start_ats(&vm);
    const unsigned pages = V100_ENGINE_ATC_SIZE + 1;

    for (unsigned i = 0; i < pages; i++) {
        tree_map(qts, &vm.process, 0x40000000 + i * 0x1000, 12, VM_DATA,
                 PTE_R);
        assert_reads(qts, V100_ENGINE_PATH_ATS, 0x40000000 + i * 0x1000,
                     0x5eed0000);
    }
    g_assert_cmpint(regl(qts, V100_ENGINE_ATC_ENTRIES), ==,
                    V100_ENGINE_ATC_SIZE);
    qtest_writeq(qts, tree_entry(qts, &vm.process, 0x40000000, 12), 0);
    qtest_writeq(qts, tree_entry(qts, &vm.process, 0x40001000, 12), 0);
    assert_ats_faults(qts, 0x40000000, V100_ENGINE_CAUSE_RADIX);
    assert_reads(qts, V100_ENGINE_PATH_ATS, 0x40001000, 0x5eed0000);
    qtest_quit(qts);
}

static uint64_t gpu_number(QTestState *qts, const char *property)
{
    QDict *response = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': "
                                "{ 'path': '/machine/peripheral/gpu', "
                                "'property': %s } }", property);
    uint64_t val;

    g_assert(qdict_haskey(response, "return"));
    val = qnum_get_uint(qobject_to(QNum, qdict_get(response, "return")));
    qobject_unref(response);
    return val;
}

static void test_properties(void)
{
    static const uint64_t expected[] = {
        LPID, PID, VM_EA, 0x10000000 + VM_DATA, 64 * KIB, 1,
    };
    Vm vm;
    QTestState *qts = start_ats(&vm);
    const QListEntry *entry;
    QDict *response;

    assert_reads(qts, V100_ENGINE_PATH_ATS, VM_EA, 0x5eed0000);
    response = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': "
                         "{ 'path': '/machine/peripheral/gpu', "
                         "'property': 'engine-atc' } }");
    entry = qlist_first(qdict_get_qlist(response, "return"));
    for (unsigned i = 0; i < ARRAY_SIZE(expected); i++) {
        g_assert_nonnull(entry);
        g_assert_cmphex(qnum_get_uint(qobject_to(QNum, qlist_entry_obj(entry))),
                        ==, expected[i]);
        entry = qlist_next(entry);
    }
    g_assert_null(entry);
    qobject_unref(response);

    g_assert_cmpint(gpu_number(qts, "engine-status"), ==,
                    V100_ENGINE_STATUS_DONE);
    assert_ats_faults(qts, 0x1230, V100_ENGINE_CAUSE_RADIX);
    g_assert_cmpint(gpu_number(qts, "engine-status"), ==,
                    V100_ENGINE_STATUS_FAULT);
    g_assert_cmpint(gpu_number(qts, "engine-cause"), ==,
                    V100_ENGINE_CAUSE_RADIX);
    g_assert_cmphex(gpu_number(qts, "engine-fault-address"), ==, 0x1230);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("v100-engine/registers", test_registers);
    qtest_add_func("v100-engine/ram", test_ram);
    qtest_add_func("v100-engine/pci", test_pci);
    qtest_add_func("v100-engine/tce/pe", test_tce_pe);
    qtest_add_func("v100-engine/tce/bypass", test_tce_bypass);
    qtest_add_func("v100-engine/tce/pages", test_tce_pages);
    qtest_add_func("v100-engine/tce/levels", test_tce_levels);
    qtest_add_func("v100-engine/tce/kill", test_tce_kill);
    qtest_add_func("v100-engine/tce/freeze", test_tce_freeze);
    qtest_add_func("v100-engine/tce/freeze-ones", test_tce_freeze_ones);
    qtest_add_func("v100-engine/tce/no-freeze", test_tce_no_freeze);
    qtest_add_func("v100-engine/link", test_link);
    qtest_add_func("v100-engine/ats/copy", test_ats_copy);
    qtest_add_func("v100-engine/ats/xts", test_ats_xts);
    qtest_add_func("v100-engine/ats/tables", test_ats_tables);
    qtest_add_func("v100-engine/ats/process-entry", test_ats_process_entry);
    qtest_add_func("v100-engine/ats/permissions", test_ats_permissions);
    qtest_add_func("v100-engine/ats/rc", test_ats_rc);
    qtest_add_func("v100-engine/ats/host", test_ats_host);
    qtest_add_func("v100-engine/atsd/scope", test_atsd_scope);
    qtest_add_func("v100-engine/atsd/scope-uvm", test_atsd_scope_uvm);
    qtest_add_func("v100-engine/atsd/4k", test_atsd_4k);
    qtest_add_func("v100-engine/atsd/flush", test_atsd_flush);
    qtest_add_func("v100-engine/atsd/status", test_atsd_status);
    qtest_add_func("v100-engine/atsd/hang", test_atsd_hang);
    qtest_add_func("v100-engine/atsd/forwarding", test_atsd_forwarding);
    qtest_add_func("v100-engine/nmmu/process", test_nmmu_process);
    qtest_add_func("v100-engine/nmmu/partition", test_nmmu_partition);
    qtest_add_func("v100-engine/nmmu/partition-table",
                   test_nmmu_partition_table);
    qtest_add_func("v100-engine/nmmu/rights", test_nmmu_rights);
    qtest_add_func("v100-engine/atsd/two-lpars", test_two_lpars);
    qtest_add_func("v100-engine/cache/unbind", test_unbind);
    qtest_add_func("v100-engine/cache/unbind-asks", test_unbind_asks);
    qtest_add_func("v100-engine/cache/full", test_cache_full);
    qtest_add_func("v100-engine/properties", test_properties);
    return g_test_run();
}

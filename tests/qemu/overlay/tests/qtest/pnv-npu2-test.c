/*
 * QTest of the POWER9 NPU2 model
 *
 * Register numbers are written out: the test does not share the model's header.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "pnv-npu2.h"

#define ONE_CHIP        "-smp 1"

#define NTL_BLOCK(b)    (9 + 2 * ((b) % 2))
#define NTL(b, off)     RING(4 + (b) / 2, NTL_BLOCK(b), off)
#define NTLU(b, off)    RING((b) / 2, NTL_BLOCK(b), off)
#define DL(b, off)      RING((b) / 2, 8 + 2 * ((b) % 2), off)
#define ATS(off)        RING(7, 0, off)
#define XTS(off)        RING(7, 1, off)
#define MISC(off)       RING(7, 2, off)
#define ATSD(n, off)    RING(8, n, off)

#define MISC_FENCE_STATE    MISC(0x0b0)

static void test_scom_direct(void)
{
    static const struct {
        unsigned scom, block, offset;
    } regs[] = {
        { 0x000, 0, 0x000 }, { 0x009, 0, 0x048 }, { 0x030, 1, 0x000 },
        { 0x060, 2, 0x000 }, { 0x090, 3, 0x000 }, { 0x0c0, 4, 0x000 },
        { 0x0f1, 5, 0x008 }, { 0x110, 9, 0x000 }, { 0x130, 11, 0x000 },
    };
    QTestState *qts = npu_start(ONE_CHIP);

    for (unsigned stack = 0; stack < 3; stack++) {
        for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
            uint32_t scom = NPU2_XSCOM + stack * 0x200 + regs[i].scom;
            uint32_t ring = RING(4 + stack, regs[i].block, regs[i].offset);
            uint64_t val = 0x123456789abc0000ull + stack * 256 + i;

            xscom_write(qts, 0, scom, val);
            g_assert_cmphex(ring_read(qts, ring), ==, val);
            ring_write(qts, ring, ~val);
            g_assert_cmphex(xscom_read(qts, 0, scom), ==, ~val);
        }
    }
    qtest_quit(qts);
}

static void test_scom_4_bytes(void)
{
    QTestState *qts = npu_start(ONE_CHIP);

    for (unsigned brick = 0; brick < 6; brick++) {
        uint32_t reg = DL(brick, 0xfff4);

        xscom_write(qts, 0, NPU2_XSCOM + 0x68e,
                    FIELD_(0, 23, reg) | FIELD_(24, 25, 2));
        xscom_write(qts, 0, NPU2_XSCOM + 0x68f, (0xc0000000ull + brick) << 32);
    }
    for (unsigned brick = 0; brick < 6; brick++) {
        uint32_t reg = DL(brick, 0xfff4);

        xscom_write(qts, 0, NPU2_XSCOM + 0x68e,
                    FIELD_(0, 23, reg) | FIELD_(24, 25, 2));
        g_assert_cmphex(xscom_read(qts, 0, NPU2_XSCOM + 0x68f), ==,
                        (0xc0000000ull + brick) << 32);
        /* The next register of the block is another one */
        xscom_write(qts, 0, NPU2_XSCOM + 0x68e,
                    FIELD_(0, 23, reg + 4) | FIELD_(24, 25, 2));
        g_assert_cmphex(xscom_read(qts, 0, NPU2_XSCOM + 0x68f), ==, 0);
    }
    qtest_quit(qts);
}

static void test_unknown(void)
{
    QTestState *qts = npu_start(ONE_CHIP);
    static const uint32_t unknown[] = {
        RING(4, 0, 0x140), RING(4, 6, 0), RING(7, 3, 0), RING(7, 1, 0x140),
        RING(3, 0, 0), RING(9, 0, 0), RING(0xc, 0, 0), RING(7, 1, 0x8018),
        RING(8, 8, 0), RING(4, 8, 0x20), RING(6, 12, 0),
    };

    for (unsigned i = 0; i < ARRAY_SIZE(unknown); i++) {
        ring_write(qts, unknown[i], ~0ull);
        g_assert_cmphex(ring_read(qts, unknown[i]), ==, 0);
    }
    qtest_quit(qts);
}

static void test_read_only(void)
{
    QTestState *qts = npu_start(ONE_CHIP);
    static const uint32_t regs[] = {
        RING(4, 0, 0x088), RING(4, 4, 0x090), NTLU(0, 0x500), MISC(0x080),
        MISC(0x0b8), ATSD(0, 0x010),
    };

    for (unsigned i = 0; i < ARRAY_SIZE(regs); i++) {
        ring_write(qts, regs[i], ~0ull);
        g_assert_cmphex(ring_read(qts, regs[i]), ==, 0);
    }
    qtest_quit(qts);
}

#define RING_BASE       0x0006030200000000ull
#define RING_MOVED      0x0006030240000000ull
#define SCRATCH         RING(4, 5, 0x018)

static uint64_t phy_bar(uint64_t base)
{
    return BIT_(0) | FIELD_(3, 30, (base & 0x1ffffffffffffull) >> 21);
}

static void test_ring_bar(void)
{
    QTestState *qts = npu_start(ONE_CHIP);

    ring_write(qts, SCRATCH, 0x1111);
    for (unsigned sm = 0; sm < 4; sm++) {
        /* Nothing decodes before the four copies agree */
        g_assert_cmphex(qtest_readq(qts, RING_BASE + SCRATCH), !=, 0x1111);
        ring_write(qts, RING(4, sm, 0x030), phy_bar(RING_BASE));
    }
    g_assert_cmphex(qtest_readq(qts, RING_BASE + SCRATCH), ==, 0x1111);
    g_assert_cmphex(qtest_readl(qts, RING_BASE + SCRATCH + 4), ==, 0x1111);
    qtest_writel(qts, RING_BASE + SCRATCH, 0x2222);
    g_assert_cmphex(ring_read(qts, SCRATCH), ==, 0x0000222200001111ull);
    /* Smaller ones do nothing */
    qtest_writew(qts, RING_BASE + SCRATCH, 0x3333);
    qtest_writeb(qts, RING_BASE + SCRATCH + 7, 0x33);
    g_assert_cmphex(ring_read(qts, SCRATCH), ==, 0x0000222200001111ull);
    g_assert_cmphex(qtest_readb(qts, RING_BASE + SCRATCH + 7), ==, 0);

    bar_write(qts, 0, 0x030, phy_bar(RING_MOVED));
    qtest_writeq(qts, RING_BASE + SCRATCH, 0x3333);
    g_assert_cmphex(ring_read(qts, SCRATCH), ==, 0x0000222200001111ull);
    qtest_writeq(qts, RING_MOVED + SCRATCH, 0x4444);
    g_assert_cmphex(ring_read(qts, SCRATCH), ==, 0x4444);

    /* One copy off is enough to switch it off */
    ring_write(qts, RING(4, 2, 0x030), 0);
    qtest_writeq(qts, RING_MOVED + SCRATCH, 0x5555);
    g_assert_cmphex(ring_read(qts, SCRATCH), ==, 0x4444);
    qtest_quit(qts);
}

static void test_ntl_bar(void)
{
    QTestState *qts = npu_start(ONE_CHIP);

    for (unsigned brick = 0; brick < 6; brick++) {
        uint64_t base = 0x0006030201600000ull + brick * 0x20000;

        bar_write(qts, brick / 2, 0x068 + 8 * (brick % 2),
                  BIT_(0) | FIELD_(39, 43, 1) |
                  FIELD_(3, 35, (base & 0x1ffffffffffffull) >> 16));
        /* DL in the first 64 KiB, NTL in the second */
        qtest_writel(qts, base + 0xfff8, 0x80000000u + brick);
        qtest_writeq(qts, base + 0x100d0, 0x700 + brick);
    }
    for (unsigned brick = 0; brick < 6; brick++) {
        g_assert_cmphex(ring_read(qts, NTL(brick, 0x0d0)), ==, 0x700 + brick);
        g_assert_cmphex(qtest_readl(qts, 0x0006030201600000ull +
                                    brick * 0x20000 + 0xfff8), ==,
                        0x80000000u + brick);
    }
    qtest_quit(qts);
}

static void test_xts(void)
{
    QTestState *qts = npu_start(ONE_CHIP);

    for (unsigned i = 0; i < 16; i++) {
        ring_write(qts, XTS(0x4000 + 8 * i), ~0ull << i);
    }
    for (unsigned i = 0; i < 16; i++) {
        /* Reserved fields stay zero */
        uint64_t val = (~0ull << i) & 0xcf00ffff018cffffull;

        g_assert_cmphex(ring_read(qts, XTS(0x4000 + 8 * i)), ==, val);
        g_assert_cmphex(npu_table(qts, 0, "xts-bdf-map", i), ==, val);
    }
    for (unsigned i = 0; i < 256; i++) {
        ring_write(qts, XTS(0x8000 + 0x20 * i), BIT_(0) | i);
        ring_write(qts, XTS(0x8008 + 0x20 * i), 0x10000 + i);
        ring_write(qts, XTS(0x8010 + 0x20 * i), 0x20000 + i);
    }
    g_assert_cmphex(npu_table(qts, 0, "xts-pid-map", 255), ==, BIT_(0) | 255);
    g_assert_cmphex(ring_read(qts, XTS(0x8008 + 0x20 * 77)), ==, 0x10000 + 77);
    g_assert_cmphex(ring_read(qts, XTS(0x8010 + 0x20 * 255)), ==,
                    0x20000 + 255);
    ring_write(qts, XTS(0x8000), ~0ull);
    g_assert_cmphex(ring_read(qts, XTS(0x8000)), ==, 0xe000007f00ffffffull);
    qtest_quit(qts);
}

static void test_atsd(void)
{
    QTestState *qts = npu_start(ONE_CHIP);

    for (unsigned i = 0; i < 8; i++) {
        ring_write(qts, XTS(0x100 + 8 * i), ~0ull - i);
        g_assert_cmphex(npu_table(qts, 0, "atsd-lparid", i), ==, 0x1fff - i);
    }
    /* MMIO shootdowns are off after reset */
    ring_write(qts, ATSD(3, 0x000), 0x1234);
    g_assert_cmpint(npu_table(qts, 0, "atsd-launches", 3), ==, 0);
    g_assert_cmpint(npu_table(qts, 0, "atsd-ignored", 3), ==, 1);

    ring_write(qts, XTS(0x020), BIT_(1));
    ring_write(qts, ATSD(3, 0x008), 0xabcd000);
    ring_write(qts, ATSD(3, 0x000), 0x5678);
    /* STATUS is busy for a while, and what is launched then is lost */
    ring_write(qts, ATSD(3, 0x000), 0x4321);
    g_assert_cmpint(npu_table(qts, 0, "atsd-ignored", 3), ==, 2);
    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmphex(ring_read(qts, ATSD(3, 0x010)), !=, 0);
    }
    g_assert_cmphex(ring_read(qts, ATSD(3, 0x010)), ==, 0);
    ring_write(qts, ATSD(3, 0x000), 0x9abc);
    for (unsigned i = 0; i < 8; i++) {
        g_assert_cmpint(npu_table(qts, 0, "atsd-launches", i), ==,
                        i == 3 ? 2 : 0);
    }
    g_assert_cmphex(npu_table(qts, 0, "atsd-last-launch", 3), ==, 0x9abc);
    g_assert_cmphex(npu_table(qts, 0, "atsd-ava", 3), ==, 0xabcd000);

    /* Each set is a 64 KiB page of the ring's BAR */
    bar_write(qts, 0, 0x030, phy_bar(RING_BASE));
    qtest_writeq(qts, RING_BASE + 0x870000, 0x77);
    g_assert_cmpint(npu_table(qts, 0, "atsd-launches", 7), ==, 1);
    g_assert_cmphex(qtest_readq(qts, RING_BASE + 0x870010), ==, 1);
    qtest_quit(qts);
}

static void test_tvt(void)
{
    QTestState *qts = npu_start(ONE_CHIP);

    /* Table 9, from 14, with increment: it wraps */
    ring_write(qts, ATS(0x108), BIT_(0) | FIELD_(11, 15, 9) | 14);
    for (unsigned i = 0; i < 4; i++) {
        ring_write(qts, ATS(0x110), 0x1000 + i);
    }
    g_assert_cmphex(npu_table(qts, 0, "tvt", 14), ==, 0x1000);
    g_assert_cmphex(npu_table(qts, 0, "tvt", 15), ==, 0x1001);
    g_assert_cmphex(npu_table(qts, 0, "tvt", 0), ==, 0x1002);
    g_assert_cmphex(npu_table(qts, 0, "tvt", 1), ==, 0x1003);

    /* Without: the index stays */
    ring_write(qts, ATS(0x108), FIELD_(11, 15, 9) | 5);
    ring_write(qts, ATS(0x110), 0x2000);
    ring_write(qts, ATS(0x110), 0x2001);
    g_assert_cmphex(npu_table(qts, 0, "tvt", 5), ==, 0x2001);
    g_assert_cmphex(npu_table(qts, 0, "tvt", 6), ==, 0);
    g_assert_cmphex(ring_read(qts, ATS(0x110)), ==, 0x2001);

    /* Beyond the table, and another table */
    ring_write(qts, ATS(0x108), FIELD_(11, 15, 9) | 16);
    ring_write(qts, ATS(0x110), 0x3000);
    g_assert_cmphex(ring_read(qts, ATS(0x110)), ==, 0);
    ring_write(qts, ATS(0x108), FIELD_(11, 15, 10) | 5);
    ring_write(qts, ATS(0x110), 0x3000);
    g_assert_cmphex(npu_table(qts, 0, "tvt", 5), ==, 0x2001);
    qtest_quit(qts);
}

static void test_tce_kill(void)
{
    QTestState *qts = npu_start(ONE_CHIP);
    uint64_t one = BIT_(2) | FIELD_(4, 7, 6) | 0x10000;

    ring_write(qts, ATS(0x120), one);
    ring_write(qts, ATS(0x120), one);
    g_assert_cmphex(npu_table(qts, 0, "tce-kills", 2), ==, one);
    ring_write(qts, ATS(0x120), BIT_(0));
    ring_write(qts, ATS(0x120), 0);
    g_assert_cmpint(npu_table(qts, 0, "tce-kills", 0), ==, 1);
    g_assert_cmpint(npu_table(qts, 0, "tce-kills", 1), ==, 2);
    g_assert_cmphex(ring_read(qts, ATS(0x120)), ==, 0);
    qtest_quit(qts);
}

#define CFG1(b)         NTLU(b, 0x0c0)
#define FENCE_STATUS(b) NTLU(b, 0x500)

static void test_ntl_reset(void)
{
    QTestState *qts = npu_start(ONE_CHIP);

    for (unsigned b = 0; b < 6; b++) {
        g_assert_cmphex(ring_read(qts, FENCE_STATUS(b)), ==, 0);
        ring_write(qts, CFG1(b), BIT_(8) | BIT_(9) | 1);
        g_assert_cmphex(ring_read(qts, FENCE_STATUS(b)), ==, 3ull << 62);
        /* A reset is not an error */
        g_assert_cmphex(ring_read(qts, MISC_FENCE_STATE), ==, 0);
        ring_write(qts, CFG1(b), BIT_(8) | 1);
        g_assert_cmphex(ring_read(qts, FENCE_STATUS(b)), ==, 2ull << 62);
        g_assert_cmpint(npu_table(qts, 0, "fences", b), ==, 2);
        /* Credits come back at the limit that was set */
        ring_write(qts, NTLU(b, 0x440), 0x0000be0000000000ull);
        g_assert_cmphex(ring_read(qts, NTLU(b, 0x440)), ==,
                        0x0be0be0000000000ull);
        ring_write(qts, CFG1(b), 1);
        g_assert_cmphex(ring_read(qts, FENCE_STATUS(b)), ==, 0);
        g_assert_cmphex(ring_read(qts, CFG1(b)), ==, 1);
    }
    qtest_quit(qts);
}

static void test_fence(void)
{
    QTestState *qts = npu_start(ONE_CHIP);

    npu_set(qts, 0, "inject-fence", 4);
    npu_set(qts, 0, "inject-fence", 4);
    ring_write(qts, MISC_FENCE_STATE, BIT_(1 + 6));
    g_assert_cmphex(ring_read(qts, MISC_FENCE_STATE), ==, BIT_(1) | BIT_(4));
    g_assert_cmphex(ring_read(qts, FENCE_STATUS(4)), ==, 3ull << 62);
    g_assert_cmphex(ring_read(qts, FENCE_STATUS(3)), ==, 0);
    /* One event each, of the brick's NTL */
    g_assert_cmpint(npu_table(qts, 0, "irqs", 12 + 4), ==, 1);
    g_assert_cmpint(npu_table(qts, 0, "irqs", 12 + 1), ==, 1);
    g_assert_cmpint(npu_table(qts, 0, "irqs", 12 + 3), ==, 0);

    /* A reset meanwhile does not keep the fence from being cleared */
    ring_write(qts, CFG1(4), BIT_(8) | BIT_(9));
    ring_write(qts, MISC_FENCE_STATE, BIT_(4));
    g_assert_cmphex(ring_read(qts, MISC_FENCE_STATE), ==, BIT_(1));
    g_assert_cmphex(ring_read(qts, FENCE_STATUS(4)), ==, 0);
    qtest_quit(qts);
}

static void test_irq(void)
{
    static const struct {
        uint64_t cfg;
        unsigned stride;
    } modes[] = {
        { BIT_(11), 0x20000 },              /* 64K pages, in pairs */
        { BIT_(11) | BIT_(12), 0x10000 },
        { 0, 0x2000 },
        { BIT_(12), 0x1000 },
    };
    QTestState *qts = npu_start(ONE_CHIP);
    uint64_t base = 0x10000000;             /* RAM shows where stores go */

    npu_set(qts, 0, "inject-irq", 5);       /* no base, no store */
    ring_write(qts, MISC(0x098), base << 13);
    for (unsigned i = 0; i < ARRAY_SIZE(modes); i++) {
        ring_write(qts, MISC(0x030), modes[i].cfg);
        for (unsigned source = 0; source < 35; source += 17) {
            uint64_t page = base + source * modes[i].stride;

            qtest_writeq(qts, page - 8, ~0ull);
            qtest_writeq(qts, page, ~0ull);
            qtest_writeq(qts, page + 8, ~0ull);
            npu_set(qts, 0, "inject-irq", source);
            g_assert_cmphex(qtest_readq(qts, page), ==, 0);
            g_assert_cmphex(qtest_readq(qts, page - 8), ==, ~0ull);
            g_assert_cmphex(qtest_readq(qts, page + 8), ==, ~0ull);
        }
    }
    g_assert_cmpint(npu_table(qts, 0, "irqs", 34), ==, ARRAY_SIZE(modes));
    g_assert_cmpint(npu_table(qts, 0, "irqs", 5), ==, 1);
    qtest_quit(qts);
}

static void test_phy(void)
{
    QTestState *qts = npu_start(ONE_CHIP);

    for (unsigned n = 0; n < 2; n++) {
        for (unsigned lane = 0; lane < 24; lane++) {
            phy_write(qts, n, 0x08a, lane, 0x100 * n + lane);
        }
    }
    for (unsigned n = 0; n < 2; n++) {
        for (unsigned lane = 0; lane < 24; lane++) {
            g_assert_cmphex(phy_read(qts, n, 0x08a, lane), ==,
                            0x100 * n + lane);
        }
    }
    /* Lanes that do not exist */
    phy_write(qts, 0, 0x08a, 24, 0xffff);
    g_assert_cmphex(phy_read(qts, 0, 0x08a, 24), ==, 0);
    /* One register for all lanes */
    phy_write(qts, 1, 0x204, 0, 0xe000);
    g_assert_cmphex(phy_read(qts, 1, 0x204, 7), ==, 0xe000);

    /* DC calibration of one lane: done, not busy.  Nobody is at its end. */
    phy_write(qts, 0, 0x0c8, 3, 0xc000);
    g_assert_cmphex(phy_read(qts, 0, 0x0ca, 3), ==, 0x4000);
    g_assert_cmphex(phy_read(qts, 0, 0x0ca, 4), ==, 0);
    /* Impedance calibration: request, done, no error, a sane result */
    g_assert_cmphex(phy_read(qts, 0, 0x3c1, 0), ==, 0);
    phy_write(qts, 0, 0x3c1, 0, 0x4000);
    g_assert_cmphex(phy_read(qts, 0, 0x3c1, 0), ==, 0x6000);
    g_assert_cmpint(phy_read(qts, 0, 0x3c3, 0) >> 7, ==, 200);

    /* IOVALID */
    xscom_write(qts, 0, 0xc000009, BIT_(7));
    g_assert_cmphex(xscom_read(qts, 0, 0xc000009), ==, BIT_(7));
    g_assert_cmphex(xscom_read(qts, 0, 0x9000009), ==, 0);
    qtest_quit(qts);
}

static void test_fir(void)
{
    QTestState *qts = npu_start(ONE_CHIP);

    for (unsigned set = 0; set < 3; set++) {
        uint32_t fir = 0x5013c00 + set * 0x40;

        xscom_write(qts, 0, fir + 2, 0xff00 + set);
        xscom_write(qts, 0, fir + 2, 0x00f0);
        g_assert_cmphex(xscom_read(qts, 0, fir), ==, 0xfff0 + set);
        xscom_write(qts, 0, fir + 1, 0x10ff0);
        g_assert_cmphex(xscom_read(qts, 0, fir), ==, 0x0ff0);
        xscom_write(qts, 0, fir + 3, 0x30 + set);
        g_assert_cmphex(xscom_read(qts, 0, fir + 3), ==, 0x30 + set);
    }
    xscom_write(qts, 0, 0x5013c00, 0);
    g_assert_cmphex(xscom_read(qts, 0, 0x5013c00), ==, 0);
    g_assert_cmphex(xscom_read(qts, 0, 0x5013c40), ==, 0x0ff0);
    qtest_quit(qts);
}

static uint64_t quad_get(QTestState *qts, const char *name)
{
    QDict *response = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': "
                                "{ 'path': '/machine/chip[0]/eq[0]', "
                                "'property': %s } }", name);
    uint64_t val;

    g_assert(qdict_haskey(response, "return"));
    val = qdict_get_int(response, "return");
    qobject_unref(response);
    return val;
}

static void test_purge(void)
{
    QTestState *qts = npu_start(ONE_CHIP);

    for (unsigned ex = 0; ex < 2; ex++) {
        uint32_t l2 = 0x10000000 + 0x1080e + ex * 0x400;
        uint32_t l3 = 0x10000000 + 0x1180e + ex * 0x400;

        g_assert_cmphex(xscom_read(qts, 0, l2), ==, 0);
        /* Software clears the trigger of L2; L3 clears its request */
        xscom_write(qts, 0, l2, BIT_(0) | BIT_(9));
        g_assert_cmphex(xscom_read(qts, 0, l2), ==, BIT_(0));
        xscom_write(qts, 0, l2, 0);
        g_assert_cmphex(xscom_read(qts, 0, l2), ==, 0);
        xscom_write(qts, 0, l3, BIT_(0) | BIT_(1));
        g_assert_cmphex(xscom_read(qts, 0, l3), ==, BIT_(1));
        g_assert_cmpint(quad_get(qts, "l2-purges"), ==, ex + 1);
        g_assert_cmpint(quad_get(qts, "l3-purges"), ==, ex + 1);
    }
    qtest_quit(qts);
}

static void test_gpio(void)
{
    QTestState *qts = npu_start(ONE_CHIP);

    xscom_write(qts, 0, 0xb0051, BIT_(2) | BIT_(3));
    g_assert_cmphex(xscom_read(qts, 0, 0xb0050), ==, 0);
    xscom_write(qts, 0, 0xb0054, BIT_(2) | BIT_(4));
    g_assert_cmphex(xscom_read(qts, 0, 0xb0050), ==, BIT_(2));
    g_assert_cmphex(xscom_read(qts, 0, 0xb0051), ==, BIT_(2) | BIT_(3));
    g_assert_cmphex(xscom_read(qts, 0, 0xb0054), ==, BIT_(2) | BIT_(4));
    qtest_quit(qts);
}

static void test_aperture_without_gpu(void)
{
    QTestState *qts = npu_start(ONE_CHIP);
    uint64_t base = 0x3e000000000ull;

    gpu_bar(qts, 0, base, 7);
    g_assert_cmphex(npu_table(qts, 0, "apertures", 0), ==, base);
    g_assert_cmphex(npu_table(qts, 0, "unanswered", 0), ==, 0);
    g_assert_cmphex(qtest_readq(qts, base), ==, ~0ull);
    g_assert_cmphex(qtest_readb(qts, base + 0x1fffffffffull), ==, 0xff);
    g_assert_cmphex(npu_table(qts, 0, "unanswered", 0), ==, 2);
    g_assert_cmphex(ring_read(qts, MISC_FENCE_STATE), ==, BIT_(0));
    /* The other brick of the GPU shares the aperture and is not to blame */
    gpu_bar(qts, 1, base, 7);
    qtest_writel(qts, base, 0);
    g_assert_cmphex(npu_table(qts, 0, "unanswered", 0), ==, 3);
    g_assert_cmphex(npu_table(qts, 0, "unanswered", 1), ==, 0);
    /* A smaller aperture ends where it says */
    gpu_bar(qts, 1, 0, 0);
    gpu_bar(qts, 0, base, 0);
    qtest_readq(qts, base + (1ull << 30));
    g_assert_cmphex(npu_table(qts, 0, "unanswered", 0), ==, 3);
    qtest_readq(qts, base + (1ull << 30) - 8);
    g_assert_cmphex(npu_table(qts, 0, "unanswered", 0), ==, 4);
    gpu_bar(qts, 0, 0, 0);
    qtest_readq(qts, base);
    g_assert_cmphex(npu_table(qts, 0, "unanswered", 0), ==, 4);
    g_assert_cmphex(npu_table(qts, 0, "apertures", 0), ==, 0);
    qtest_quit(qts);
}

static void test_two_chips(void)
{
    QTestState *qts = npu_start("-smp 2,sockets=2,cores=1,threads=1");

    ring_write_chip(qts, 0, SCRATCH, 0x10);
    ring_write_chip(qts, 1, SCRATCH, 0x20);
    g_assert_cmphex(ring_read_chip(qts, 0, SCRATCH), ==, 0x10);
    g_assert_cmphex(ring_read_chip(qts, 1, SCRATCH), ==, 0x20);
    npu_set(qts, 1, "inject-fence", 2);
    g_assert_cmphex(ring_read_chip(qts, 0, MISC_FENCE_STATE), ==, 0);
    g_assert_cmphex(ring_read_chip(qts, 1, MISC_FENCE_STATE), ==, BIT_(2));
    qtest_quit(qts);
}

/* How the memory map was set up, which tells firmware where GPU memory is */
static void test_memory_map(void)
{
    const uint32_t mode = 0x5011c0a, hp_mode = 0x5011c0c;
    QTestState *qts = npu_start(ONE_CHIP);

    g_assert_cmphex(xscom_read(qts, 0, hp_mode) & BIT_(2), ==, 0);
    g_assert_cmphex(xscom_read(qts, 0, mode) & FIELD_(42, 48, 0x7f), ==, 0);
    qtest_quit(qts);

    qts = npu_start(ONE_CHIP " -global pnv-npu2.small-memory-map=on");
    g_assert_cmphex(xscom_read(qts, 0, hp_mode) & BIT_(2), ==, BIT_(2));
    g_assert_cmphex(xscom_read(qts, 0, mode) & FIELD_(42, 48, 0x7f), ==,
                    FIELD_(42, 48, 7));
    qtest_quit(qts);
}

/* What the expander of a chip's SXM2 sockets says of its pins */
static uint8_t sxm2_pins(QTestState *qts, unsigned chip)
{
    /* Engine 1, port 4, address 0x20: one byte of register 0 */
    const uint32_t engine = 0xa1000, fifo = 4, cmd = 5, mode = 6;

    xscom_write(qts, chip, engine + mode, FIELD_(16, 21, 4));
    xscom_write(qts, chip, engine + cmd,
                BIT_(0) | BIT_(1) | BIT_(3) | FIELD_(8, 14, 0x20) | BIT_(15) |
                FIELD_(16, 31, 1));
    return xscom_read(qts, chip, engine + fifo) >> 56;
}

/* What the board adds: numbers of the chips, and what their sockets hold */
static void test_witherspoon(void)
{
    /* The OCC's dynamic data: state, version 0.1, and the sockets' bits */
    const uint64_t dynamic = 0x203ffd800000ull + 0xe2000 + 0xb80;
    const uint64_t homer_size = 4 << 20;
    QTestState *qts = npu_start("-smp 2,sockets=2,cores=1,threads=1 "
                                "-M powernv9-witherspoon,gpus-present=0x13");

    ring_write_chip(qts, 0, SCRATCH, 0x10);
    ring_write_chip(qts, 8, SCRATCH, 0x20);
    g_assert_cmphex(ring_read_chip(qts, 0, SCRATCH), ==, 0x10);
    g_assert_cmphex(ring_read_chip(qts, 8, SCRATCH), ==, 0x20);

    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmphex(qtest_readb(qts, dynamic + 1), ==, 0);
        g_assert_cmphex(qtest_readb(qts, dynamic + 2), ==, 1);
        g_assert_cmphex(qtest_readb(qts, dynamic + 3), ==, 3);
        g_assert_cmphex(qtest_readb(qts, dynamic + homer_size + 3), ==, 1);
        /* Low is NVLink */
        g_assert_cmphex(sxm2_pins(qts, 0) & 3, ==, 0);
        g_assert_cmphex(sxm2_pins(qts, 8) & 3, ==, 2);
        qtest_system_reset(qts);
    }
    qtest_quit(qts);
}

/* The nest MMU's PTCR, which firmware writes per chip */
static void test_nmmu(void)
{
    const uint32_t ptcr = 0x5012c40 + 0xb;
    QTestState *qts = npu_start("-smp 2,sockets=2");

    xscom_write(qts, 1, ptcr, ~0ull);
    g_assert_cmphex(xscom_read(qts, 1, ptcr), ==,
                    FIELD_(4, 51, ~0ull >> 16) | FIELD_(59, 63, 31));
    g_assert_cmphex(xscom_read(qts, 0, ptcr), ==, 0);
    xscom_write(qts, 1, ptcr + 1, 1);
    g_assert_cmphex(xscom_read(qts, 1, ptcr + 1), ==, 0);
    qtest_system_reset(qts);
    g_assert_cmphex(xscom_read(qts, 1, ptcr), ==, 0);

    /* Each NPU asks the one of its chip */
    for (unsigned chip = 0; chip < 2; chip++) {
        g_autofree char *npu = g_strdup_printf("/machine/chip[%u]/npu", chip);
        g_autofree char *nmmu = g_strdup_printf("/machine/chip[%u]/nmmu", chip);
        QDict *response = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': "
                                    "{ 'path': %s, 'property': 'nmmu' } }",
                                    npu);

        g_assert_cmpstr(qdict_get_try_str(response, "return"), ==, nmmu);
        qobject_unref(response);
    }
    qtest_quit(qts);
}

static void npu_set_bool(QTestState *qts, const char *name, bool val)
{
    QDict *response = qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': "
                                "{ 'path': '/machine/chip[0]/npu', "
                                "'property': %s, 'value': %i } }", name, val);

    g_assert(qdict_haskey(response, "return"));
    qobject_unref(response);
}

static void test_inject_xts_full(void)
{
    QTestState *qts = npu_start(ONE_CHIP);

    ring_write(qts, XTS(0x4000 + 8 * 3), BIT_(0) | 0x123);
    ring_write(qts, XTS(0x4000 + 8 * 4), BIT_(1) | 0x124);
    npu_set_bool(qts, "inject-xts-full", true);
    /* What is bound stays visible; nothing else is free, or anybody's */
    for (unsigned i = 0; i < 16; i++) {
        uint64_t val = ring_read(qts, XTS(0x4000 + 8 * i));

        g_assert_cmphex(val, ==, i == 3 ? BIT_(0) | 0x123 :
                        BIT_(1) | FIELD_(16, 31, 0xffff));
    }
    g_assert_cmphex(npu_table(qts, 0, "xts-bdf-map", 4), ==, BIT_(1) | 0x124);
    npu_set_bool(qts, "inject-xts-full", false);
    g_assert_cmphex(ring_read(qts, XTS(0x4000)), ==, 0);
    g_assert_cmphex(ring_read(qts, XTS(0x4000 + 8 * 4)), ==, BIT_(1) | 0x124);
    qtest_quit(qts);
}

/* How a load ends that nobody answers, and that it is counted */
static void assert_dead(QTestState *qts, uint64_t addr, bool machine_check)
{
    uint64_t before = npu_table(qts, 0, "unanswered", 0);
    g_autofree char *seen = qtest_hmp(qts, "xp /1gx 0x%" PRIx64, addr);

    g_assert(!!strstr(seen, "Cannot access memory") == machine_check);
    g_assert(!!strstr(seen, "0xffffffffffffffff") == !machine_check);
    g_assert_cmphex(npu_table(qts, 0, "unanswered", 0), ==, before + 1);
}

static bool npu_dead_is(QTestState *qts, const char *how)
{
    QDict *response = qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': "
                                "{ 'path': '/machine/chip[0]/npu', "
                                "'property': 'dead', 'value': %s } }", how);
    bool ret = qdict_haskey(response, "return");

    qobject_unref(response);
    return ret;
}

static void test_dead(void)
{
    QTestState *qts = npu_start(ONE_CHIP);
    uint64_t base = 0x3e000000000ull;

    gpu_bar(qts, 0, base, 7);
    assert_dead(qts, base, true);
    g_assert(npu_dead_is(qts, "ones"));
    assert_dead(qts, base, false);
    g_assert(!npu_dead_is(qts, "zeros"));
    assert_dead(qts, base, false);
    g_assert(npu_dead_is(qts, "machine-check"));
    assert_dead(qts, base, true);
    qtest_quit(qts);

    qts = npu_start(ONE_CHIP " -global pnv-npu2.dead=ones");
    gpu_bar(qts, 0, base, 7);
    assert_dead(qts, base, false);
    qtest_quit(qts);
}

static void test_inject_scom_error(void)
{
    static const uint32_t hit[] = {
        XTS(0x100), XTS(0x4000), XTS(0x8000), ATSD(2, 0x008),
    };
    static const uint32_t spared[] = { XTS(0x020), ATS(0x108), MISC(0x098) };
    QTestState *qts = npu_start(ONE_CHIP);

    for (unsigned i = 0; i < ARRAY_SIZE(hit); i++) {
        ring_write(qts, hit[i], BIT_(0) | 5);
        npu_set(qts, 0, "inject-scom-error", 2);
        for (unsigned j = 0; j < ARRAY_SIZE(spared); j++) {
            ring_write(qts, spared[j], 0x80 + j);
            g_assert_cmphex(ring_read(qts, spared[j]), ==, 0x80 + j);
        }
        ring_write(qts, hit[i], 6);
        g_assert_cmphex(ring_read(qts, hit[i]), ==, ~0ull);
        /* Both are used up, and the write was lost */
        g_assert_cmphex(ring_read(qts, hit[i]) & 7, ==, 5);
    }
    qtest_quit(qts);
}

static void test_reset(void)
{
    QTestState *qts = npu_start(ONE_CHIP);
    uint64_t base = 0x3e000000000ull;

    gpu_bar(qts, 0, base, 7);
    qtest_readq(qts, base);
    bar_write(qts, 0, 0x030, phy_bar(RING_BASE));
    ring_write(qts, SCRATCH, 0x1111);
    ring_write(qts, XTS(0x4000), BIT_(0));
    ring_write(qts, XTS(0x8000), BIT_(0));
    ring_write(qts, XTS(0x100), 5);
    ring_write(qts, CFG1(0), BIT_(8) | BIT_(9));
    phy_write(qts, 0, 0x204, 0, 0xe000);
    npu_set(qts, 0, "inject-fence", 2);

    qtest_system_reset(qts);
    qtest_writeq(qts, RING_BASE + SCRATCH, 0x2222);
    g_assert_cmphex(ring_read(qts, SCRATCH), ==, 0);
    g_assert_cmphex(ring_read(qts, XTS(0x4000)), ==, 0);
    g_assert_cmphex(ring_read(qts, XTS(0x8000)), ==, 0);
    g_assert_cmphex(ring_read(qts, XTS(0x100)), ==, 0);
    g_assert_cmphex(ring_read(qts, FENCE_STATUS(0)), ==, 0);
    g_assert_cmphex(ring_read(qts, FENCE_STATUS(2)), ==, 0);
    g_assert_cmphex(ring_read(qts, MISC_FENCE_STATE), ==, 0);
    g_assert_cmphex(phy_read(qts, 0, 0x204, 0), ==, 0);
    /* Counts since power on */
    g_assert_cmphex(npu_table(qts, 0, "unanswered", 0), ==, 1);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("pnv-npu2/scom/direct", test_scom_direct);
    qtest_add_func("pnv-npu2/scom/4-bytes", test_scom_4_bytes);
    qtest_add_func("pnv-npu2/ring/unknown", test_unknown);
    qtest_add_func("pnv-npu2/ring/read-only", test_read_only);
    qtest_add_func("pnv-npu2/bar/ring", test_ring_bar);
    qtest_add_func("pnv-npu2/bar/ntl", test_ntl_bar);
    qtest_add_func("pnv-npu2/bar/aperture", test_aperture_without_gpu);
    qtest_add_func("pnv-npu2/xts/maps", test_xts);
    qtest_add_func("pnv-npu2/xts/atsd", test_atsd);
    qtest_add_func("pnv-npu2/ats/tvt", test_tvt);
    qtest_add_func("pnv-npu2/ats/tce-kill", test_tce_kill);
    qtest_add_func("pnv-npu2/ntl/reset", test_ntl_reset);
    qtest_add_func("pnv-npu2/fence", test_fence);
    qtest_add_func("pnv-npu2/irq", test_irq);
    qtest_add_func("pnv-npu2/phy", test_phy);
    qtest_add_func("pnv-npu2/fir", test_fir);
    qtest_add_func("pnv-npu2/purge", test_purge);
    qtest_add_func("pnv-npu2/gpio", test_gpio);
    qtest_add_func("pnv-npu2/two-chips", test_two_chips);
    qtest_add_func("pnv-npu2/memory-map", test_memory_map);
    qtest_add_func("pnv-npu2/witherspoon", test_witherspoon);
    qtest_add_func("pnv-npu2/nmmu", test_nmmu);
    qtest_add_func("pnv-npu2/inject/xts-full", test_inject_xts_full);
    qtest_add_func("pnv-npu2/dead", test_dead);
    qtest_add_func("pnv-npu2/inject/scom-error", test_inject_scom_error);
    qtest_add_func("pnv-npu2/reset", test_reset);
    return g_test_run();
}

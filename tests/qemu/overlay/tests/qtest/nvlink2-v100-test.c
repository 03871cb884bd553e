/*
 * QTest of the NVLink2 V100 model, on an NPU2 and behind a PHB4
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/bitops.h"
#include "nvlink2-v100.h"

static QTestState *start(void)
{
    return v100_start(V100_ONE_GPU);
}

static void test_identity_32g(void)
{
    QTestState *qts = v100_start("-smp 1 -device nvlink2-v100,id=gpu0,bus=pcie.0,"
                                 "npu=/machine/chip[0]/npu,bricks=0x7,"
                                 "ram-size=32G");

    g_assert_cmphex(config_readl(qts, PCI_VENDOR_ID), ==, 0x1db510de);
    qtest_quit(qts);
}

static void test_identity(void)
{
    QTestState *qts = start();

    g_assert_cmphex(config_readl(qts, PCI_VENDOR_ID), ==, 0x1db110de);
    g_assert_cmphex(config_readl(qts, PCI_CLASS_REVISION), ==, 0x030200a1);
    /* BAR sizes and types */
    config_writel(qts, PCI_COMMAND, 0);
    for (unsigned reg = PCI_BASE_ADDRESS_0; reg <= PCI_BASE_ADDRESS_5;
         reg += 4) {
        config_writel(qts, reg, ~0u);
    }
    g_assert_cmphex(config_readl(qts, PCI_BASE_ADDRESS_0), ==,
                    (uint32_t)-V100_BAR0_SIZE);
    g_assert_cmphex(config_readl(qts, PCI_BASE_ADDRESS_1), ==,
                    (uint32_t)-V100_BAR1_SIZE | 0xc);
    g_assert_cmphex(config_readl(qts, PCI_BASE_ADDRESS_3), ==,
                    (uint32_t)-V100_BAR3_SIZE | 0xc);
    g_assert_cmphex(config_readl(qts, PCI_BASE_ADDRESS_5), ==, 0);
    setup_bars(qts);

    g_assert_cmphex(regl(qts, V100_PMC_BOOT_0), ==, V100_PMC_BOOT_0_GV100);
    g_assert_cmphex(regl(qts, V100_MODEL_ID), ==, V100_MODEL_ID_MAGIC);
    g_assert_cmphex(regl(qts, V100_RAM_SIZE_LO), ==, RAM_SIZE);
    g_assert_cmphex(regl(qts, V100_RAM_SIZE_HI), ==, 0);
    g_assert_cmphex(bswap64(qtest_readq(qts, BAR0 + V100_RAM_SIZE_LO)), ==,
                    RAM_SIZE);
    /* A part of a register; the write of one is ignored */
    g_assert_cmphex(qtest_readb(qts, BAR0 + V100_MODEL_ID + 1), ==,
                    extract32(V100_MODEL_ID_MAGIC, 8, 8));
    g_assert_cmphex(bswap16(qtest_readw(qts, BAR0 + V100_MODEL_ID + 2)), ==,
                    extract32(V100_MODEL_ID_MAGIC, 16, 16));
    qtest_writeb(qts, BAR0 + V100_LINK_TRAIN, V100_LINK_TRAIN_UP);
    g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 0);
    g_assert_cmphex(regl(qts, V100_LINK_MASK), ==, 3);
    g_assert_cmphex(regl(qts, V100_APERTURE_LO), ==, (uint32_t)APERTURE);
    g_assert_cmphex(regl(qts, V100_APERTURE_HI), ==, APERTURE >> 32);
    /* Unknown registers */
    reg_write(qts, 0x1000, ~0u);
    g_assert_cmphex(regl(qts, 0x1000), ==, 0);
    qtest_quit(qts);
}

static void test_hidden(void)
{
    QTestState *qts = v100_start(V100_ONE_GPU ",hide-model=on");

    g_assert_cmphex(regl(qts, V100_PMC_BOOT_0), ==, V100_PMC_BOOT_0_GV100);
    g_assert_cmphex(regl(qts, V100_MODEL_ID), ==, 0);
    g_assert_cmphex(regl(qts, V100_LINK_MASK), ==, 0);
    reg_write(qts, V100_LINK_TRAIN, V100_LINK_TRAIN_UP);
    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, ~0ull);
    g_assert_cmpint(npu_table(qts, 0, "unanswered", 0), ==, 1);
    qtest_quit(qts);
}

static void test_untrained(void)
{
    QTestState *qts = start();

    g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 0);
    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, ~0ull);
    qtest_writeq(qts, APERTURE + 8, 0x1234);
    g_assert_cmpint(regl(qts, V100_UNTRAINED_ACCESSES), ==, 2);
    g_assert_cmpint(npu_table(qts, 0, "unanswered", 0), ==, 2);
    g_assert_cmpint(npu_table(qts, 0, "fences", 0), ==, 3);
    g_assert_cmpint(npu_table(qts, 0, "fences", 1), ==, 0);
    /* The store is lost; BAR1 answers whatever the links do */
    g_assert_cmphex(qtest_readq(qts, BAR1 + 8), ==, 0);
    /* Nobody clears the count */
    reg_write(qts, V100_UNTRAINED_ACCESSES, 0);
    g_assert_cmpint(regl(qts, V100_UNTRAINED_ACCESSES), ==, 2);
    qtest_quit(qts);
}

static void test_trained(void)
{
    QTestState *qts = start();

    qtest_readq(qts, APERTURE);
    g_assert_cmpint(regl(qts, V100_UNTRAINED_ACCESSES), ==, 1);
    train(qts);
    g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 3);
    g_assert_cmphex(regl(qts, V100_LINK_TRAIN), ==, 1);
    g_assert_cmpint(npu_table(qts, 0, "trained", 1), ==, 1);
    /* The fence of the access before is gone */
    g_assert_cmpint(npu_table(qts, 0, "fences", 0), ==, 0);

    /* One memory, two views */
    qtest_writeq(qts, APERTURE + 0x1000, 0x1122334455667788ull);
    g_assert_cmphex(qtest_readq(qts, BAR1 + 0x1000), ==,
                    0x1122334455667788ull);
    qtest_writeb(qts, BAR1 + V100_BAR1_SIZE - 1, 0x5a);
    g_assert_cmphex(qtest_readb(qts, APERTURE + V100_BAR1_SIZE - 1), ==, 0x5a);
    qtest_writel(qts, APERTURE + RAM_SIZE - 4, 0xcafe);
    g_assert_cmphex(qtest_readl(qts, APERTURE + RAM_SIZE - 4), ==, 0xcafe);
    g_assert_cmpint(regl(qts, V100_UNTRAINED_ACCESSES), ==, 1);

    /* Beyond the RAM there is nothing, and that fences */
    g_assert_cmphex(qtest_readl(qts, APERTURE + RAM_SIZE), ==, ~0u);
    g_assert_cmpint(regl(qts, V100_UNTRAINED_ACCESSES), ==, 2);
    g_assert_cmphex(qtest_readq(qts, APERTURE + 0x1000), ==, ~0ull);
    train(qts);
    g_assert_cmphex(qtest_readq(qts, APERTURE + 0x1000), ==,
                    0x1122334455667788ull);

    reg_write(qts, V100_LINK_TRAIN, 3);
    g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 3);
    reg_write(qts, V100_LINK_TRAIN, V100_LINK_TRAIN_DOWN);
    g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 0);
    g_assert_cmphex(qtest_readq(qts, APERTURE + 0x1000), ==, ~0ull);
    qtest_quit(qts);
}

/* lost: how many accesses there were before the reset that nothing answered */
static void check_untrained_by_reset(QTestState *qts, uint32_t resets,
                                     uint32_t lost)
{
    setup_bars(qts);
    g_assert_cmpint(regl(qts, V100_UNTRAINED_ACCESSES), ==, lost);
    g_assert_cmpint(regl(qts, V100_RESETS), ==, resets + 1);
    g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 0);
    g_assert_cmphex(regl(qts, V100_LINK_TRAIN), ==, 0);
    /* The NPU's end was not reset before */
    for (unsigned brick = 0; brick < 2; brick++) {
        g_assert_cmpint(npu_table(qts, 0, "fences", brick), ==, 3);
    }
    g_assert_cmpint(npu_table(qts, 0, "fences", 2), ==, 0);
    g_assert_cmphex(qtest_readq(qts, APERTURE + 0x1000), ==, ~0ull);
    g_assert_cmpint(regl(qts, V100_UNTRAINED_ACCESSES), ==, lost + 1);
    /* The content survives */
    train(qts);
    g_assert_cmphex(qtest_readq(qts, APERTURE + 0x1000), ==, 0x77);
}

/* Function level reset, which the real one is not known to have */
static void test_function_reset(void)
{
    QTestState *qts = v100_start(V100_ONE_GPU ",flr=on");
    uint32_t resets = regl(qts, V100_RESETS);

    qtest_readq(qts, APERTURE);
    train(qts);
    qtest_writeq(qts, APERTURE + 0x1000, 0x77);
    g_assert_cmphex(config_readl(qts, CAP_EXP + PCI_EXP_DEVCAP) &
                    PCI_EXP_DEVCAP_FLR, !=, 0);
    config_writel(qts, CAP_EXP + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR);
    check_untrained_by_reset(qts, resets, 1);
    qtest_quit(qts);
}

static void test_no_function_reset(void)
{
    QTestState *qts = start();
    uint32_t resets = regl(qts, V100_RESETS);

    train(qts);
    qtest_writeq(qts, APERTURE, 0x77);
    g_assert_cmphex(config_readl(qts, CAP_EXP + PCI_EXP_DEVCAP) &
                    PCI_EXP_DEVCAP_FLR, ==, 0);
    config_writel(qts, CAP_EXP + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR);
    g_assert_cmphex(config_readl(qts, CAP_EXP + PCI_EXP_DEVCTL) &
                    PCI_EXP_DEVCTL_BCR_FLR, ==, 0);
    g_assert_cmpint(regl(qts, V100_RESETS), ==, resets);
    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, 0x77);
    qtest_quit(qts);
}

static void ntl_reset(QTestState *qts, unsigned brick)
{
    ring_write(qts, RING(brick / 2, 9 + 2 * (brick % 2), 0x0c0),
               BIT_(8) | BIT_(9));
}

/* A reset tears the links that are open, which fences them, and no others */
static void test_torn(void)
{
    QTestState *qts = start();

    bus_reset(qts);
    g_assert_cmpint(npu_table(qts, 0, "torn-links", 0), ==, 0);
    train(qts);
    bus_reset(qts);
    for (unsigned brick = 0; brick < 3; brick++) {
        bool own = brick < 2;

        g_assert_cmpint(npu_table(qts, 0, "torn-links", brick), ==, own);
        g_assert_cmpint(npu_table(qts, 0, "fences", brick), ==, own ? 3 : 0);
    }
    /* One of two in NTL reset, as firmware does it before */
    train(qts);
    ntl_reset(qts, 0);
    bus_reset(qts);
    g_assert_cmpint(npu_table(qts, 0, "torn-links", 0), ==, 1);
    g_assert_cmpint(npu_table(qts, 0, "torn-links", 1), ==, 2);
    /* Both, or after an orderly end */
    train(qts);
    ntl_reset(qts, 0);
    ntl_reset(qts, 1);
    bus_reset(qts);
    train(qts);
    reg_write(qts, V100_LINK_TRAIN, V100_LINK_TRAIN_DOWN);
    bus_reset(qts);
    /* With the machine */
    train(qts);
    qtest_system_reset(qts);
    g_assert_cmpint(npu_table(qts, 0, "torn-links", 0), ==, 1);
    g_assert_cmpint(npu_table(qts, 0, "torn-links", 1), ==, 2);
    qtest_quit(qts);
}

static void test_bus_reset(void)
{
    QTestState *qts = start();
    uint32_t resets = regl(qts, V100_RESETS);

    qtest_readq(qts, APERTURE);
    qtest_readq(qts, APERTURE);
    train(qts);
    qtest_writeq(qts, APERTURE + 0x1000, 0x77);
    root_port_writel(qts, PCI_INTERRUPT_LINE, PCI_BRIDGE_CTL_BUS_RESET << 16);
    root_port_writel(qts, PCI_INTERRUPT_LINE, 0);
    check_untrained_by_reset(qts, resets, 2);
    qtest_quit(qts);
}

static void test_brick_reset(void)
{
    QTestState *qts = start();

    train(qts);
    qtest_writeq(qts, APERTURE, 0x55);
    /* NTL reset of brick 1, as for a function reset of its bridge */
    ring_write(qts, RING(0, 11, 0x0c0), BIT_(8) | BIT_(9));
    g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 1);
    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, ~0ull);
    train(qts);
    g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 3);
    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, 0x55);

    /* A fence on either brick */
    npu_set(qts, 0, "inject-fence", 1);
    g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 3);
    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, ~0ull);
    /* Another GPU's brick does not matter */
    train(qts);
    npu_set(qts, 0, "inject-fence", 2);
    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, 0x55);
    qtest_quit(qts);
}

/*
 * What OPAL's procedures for training do to brick 0 or 1, as far as a step up to
 * which they go: a link trains with the last of them
 */
enum { NTL, DL, IOVALID, CALIBRATION, LANES };

static const uint32_t brick_lanes[] = { 0xf1e000, 0x0e1870 };

static void for_each_lane(QTestState *qts, unsigned brick, unsigned reg,
                          uint16_t val)
{
    for (unsigned lane = 0; lane < 24; lane++) {
        if (brick_lanes[brick] & BIT(23 - lane)) {
            phy_write(qts, 0, reg, lane, val);
        }
    }
}

static void cfg1_write(QTestState *qts, unsigned brick, uint64_t val)
{
    ring_write(qts, RING(4 + brick / 2, 9 + 2 * (brick % 2), 0x0c0), val);
}

/* All but the step that is left out */
static void train_npu_end(QTestState *qts, unsigned brick, int without)
{
    cfg1_write(qts, brick, BIT_(8) | BIT_(9));
    for_each_lane(qts, brick, 0x0c8, 0);
    for_each_lane(qts, brick, 0x096, 1);
    for_each_lane(qts, brick, 0x096, 0);
    xscom_write(qts, 0, 0x9000009, 0);
    if (without != NTL) {
        cfg1_write(qts, brick, BIT_(8));
    }
    xscom_write(qts, 0, NPU2_XSCOM + 0x68e, FIELD_(24, 25, 2) |
                FIELD_(0, 23, RING(4, 8 + 2 * brick, 0xfff8)));
    xscom_write(qts, 0, NPU2_XSCOM + 0x68f, without == DL ? 0 : BIT_(0));
    if (without != CALIBRATION) {
        for_each_lane(qts, brick, 0x0c8, 0x4000);
        for_each_lane(qts, brick, 0x0c8, 0);
    }
    if (without != IOVALID) {
        xscom_write(qts, 0, 0x9000009, BIT_(6) | BIT_(7));
    }
    if (without != LANES) {
        for_each_lane(qts, brick, 0x0c8, 0x8000);
    }
}

static void test_both_ends(void)
{
    QTestState *qts = start();

    for (int without = NTL; without <= LANES; without++) {
        train_npu_end(qts, 0, -1);
        train_npu_end(qts, 1, without);
        g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 0);
        /* The lanes of brick 0: nobody is at their end yet */
        g_assert_cmphex(phy_read(qts, 0, 0x0ca, 0), ==, 0);
        reg_write(qts, V100_LINK_TRAIN, V100_LINK_TRAIN_GPU_END);
        g_assert_cmphex(phy_read(qts, 0, 0x0ca, 0), ==, 0x8000);
        g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==,
                        without == IOVALID ? 0 : 1);
        train_npu_end(qts, 1, -1);
        g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 3);
        reg_write(qts, V100_LINK_TRAIN, V100_LINK_TRAIN_DOWN);
        g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 0);
        /* The lanes have to learn anew */
        reg_write(qts, V100_LINK_TRAIN, V100_LINK_TRAIN_GPU_END);
        g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 0);
        reg_write(qts, V100_LINK_TRAIN, V100_LINK_TRAIN_DOWN);
    }
    /* It is trained, and fenced until the NTL is all out of reset */
    train_npu_end(qts, 0, -1);
    train_npu_end(qts, 1, -1);
    reg_write(qts, V100_LINK_TRAIN, V100_LINK_TRAIN_GPU_END);
    cfg1_write(qts, 1, 0);
    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, ~0ull);
    ring_write(qts, RING(7, 2, 0x0b0), BIT_(0));
    cfg1_write(qts, 0, 0);
    qtest_writeq(qts, APERTURE, 0x66);
    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, 0x66);
    g_assert_cmpint(npu_table(qts, 0, "fences", 1), ==, 0);
    /* An end that goes down while accesses pass is an error */
    xscom_write(qts, 0, 0x9000009, BIT_(6));
    g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 1);
    g_assert_cmpint(npu_table(qts, 0, "fences", 1), ==, 3);
    g_assert_cmpint(npu_table(qts, 0, "fences", 0), ==, 0);
    /* And a reset of the NTL takes the lanes along */
    cfg1_write(qts, 0, BIT_(8) | BIT_(9));
    cfg1_write(qts, 0, 0);
    g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 0);
    qtest_quit(qts);
}

static void test_aperture_moves(void)
{
    QTestState *qts = start();
    uint64_t moved = 0x3a000000000ull;

    train(qts);
    qtest_writeq(qts, APERTURE, 0x55);
    gpu_bar(qts, 0, moved, 7);
    gpu_bar(qts, 1, moved, 7);
    g_assert_cmphex(qtest_readq(qts, moved), ==, 0x55);
    g_assert_cmphex(qtest_readq(qts, APERTURE), !=, 0x55);
    g_assert_cmphex(regl(qts, V100_APERTURE_LO), ==, (uint32_t)moved);
    g_assert_cmpint(regl(qts, V100_UNTRAINED_ACCESSES), ==, 0);
    qtest_quit(qts);
}

/*
 * While the function is as the guest's `write` to the configuration register
 * `reg` makes it, the RAM does not answer on links that are trained, and that
 * fences; `back` undoes it.
 */
static void check_asleep(QTestState *qts, unsigned reg, uint32_t write,
                         uint32_t back)
{
    uint32_t lost = regl(qts, V100_UNTRAINED_ACCESSES);

    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, 0x55);
    g_assert_cmphex(qtest_readq(qts, BAR1), ==, 0x55);
    config_writel(qts, reg, write);
    g_assert_cmphex(qtest_readq(qts, BAR1), !=, 0x55);
    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, ~0ull);
    qtest_writeq(qts, APERTURE, 0x66);
    config_writel(qts, reg, back);
    g_assert_cmpint(regl(qts, V100_UNTRAINED_ACCESSES), ==, lost + 2);
    g_assert_cmphex(qtest_readq(qts, BAR1), ==, 0x55);
    g_assert_cmphex(regl(qts, V100_LINK_STATUS), ==, 3);
    /* Only the fence keeps it away now */
    g_assert_cmphex(npu_table(qts, 0, "fences", 0), ==, 3);
    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, ~0ull);
    train(qts);
    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, 0x55);

    /* Nobody notices what nobody looks at */
    lost = regl(qts, V100_UNTRAINED_ACCESSES);
    config_writel(qts, reg, write);
    config_writel(qts, reg, back);
    g_assert_cmphex(qtest_readq(qts, APERTURE), ==, 0x55);
    g_assert_cmpint(regl(qts, V100_UNTRAINED_ACCESSES), ==, lost);
}

static void test_memory_space_off(void)
{
    QTestState *qts = start();

    train(qts);
    qtest_writeq(qts, APERTURE, 0x55);
    check_asleep(qts, PCI_COMMAND, 0, PCI_COMMAND_MEMORY);
    qtest_quit(qts);
}

static void test_d3(void)
{
    QTestState *qts = start();

    train(qts);
    qtest_writeq(qts, APERTURE, 0x55);
    check_asleep(qts, CAP_PM + PCI_PM_CTRL, 3, 0);
    qtest_quit(qts);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    qtest_add_func("nvlink2-v100/identity", test_identity);
    qtest_add_func("nvlink2-v100/identity-32g", test_identity_32g);
    qtest_add_func("nvlink2-v100/hidden", test_hidden);
    qtest_add_func("nvlink2-v100/untrained", test_untrained);
    qtest_add_func("nvlink2-v100/trained", test_trained);
    qtest_add_func("nvlink2-v100/both-ends", test_both_ends);
    qtest_add_func("nvlink2-v100/reset/function", test_function_reset);
    qtest_add_func("nvlink2-v100/reset/no-function", test_no_function_reset);
    qtest_add_func("nvlink2-v100/reset/bus", test_bus_reset);
    qtest_add_func("nvlink2-v100/reset/torn", test_torn);
    qtest_add_func("nvlink2-v100/reset/brick", test_brick_reset);
    qtest_add_func("nvlink2-v100/aperture-moves", test_aperture_moves);
    qtest_add_func("nvlink2-v100/memory-space-off", test_memory_space_off);
    qtest_add_func("nvlink2-v100/d3", test_d3);
    return g_test_run();
}

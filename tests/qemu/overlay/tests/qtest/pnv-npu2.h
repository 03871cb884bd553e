/*
 * QTest helpers for the POWER9 NPU2
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_PNV_NPU2_H
#define TESTS_PNV_NPU2_H

#include "libqtest.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"

#define XSCOM_BASE      0x000603fc00000000ull
#define CHIP_SHIFT      42
#define NPU2_XSCOM      0x5011000u

/* Bits in IBM order, 0 = most significant */
#define BIT_(n)         (1ull << (63 - (n)))
#define FIELD_(first, last, val) ((uint64_t)(val) << (63 - (last)))

#define RING(stack, block, off) \
    ((uint32_t)(stack) << 20 | (uint32_t)(block) << 16 | (off))

static inline uint64_t xscom_addr(unsigned chip, uint32_t pcba)
{
    return XSCOM_BASE + ((uint64_t)chip << CHIP_SHIFT) + ((uint64_t)pcba << 3);
}

static inline uint64_t xscom_read(QTestState *qts, unsigned chip, uint32_t pcba)
{
    return qtest_readq(qts, xscom_addr(chip, pcba));
}

static inline void xscom_write(QTestState *qts, unsigned chip, uint32_t pcba,
                               uint64_t val)
{
    qtest_writeq(qts, xscom_addr(chip, pcba), val);
}

/* A register of the ring, through the indirect pair */
static inline uint64_t ring_read_chip(QTestState *qts, unsigned chip,
                                      uint32_t reg)
{
    xscom_write(qts, chip, NPU2_XSCOM + 0x68e,
                FIELD_(0, 23, reg) | FIELD_(24, 25, 3));
    return xscom_read(qts, chip, NPU2_XSCOM + 0x68f);
}

static inline void ring_write_chip(QTestState *qts, unsigned chip, uint32_t reg,
                                   uint64_t val)
{
    xscom_write(qts, chip, NPU2_XSCOM + 0x68e,
                FIELD_(0, 23, reg) | FIELD_(24, 25, 3));
    xscom_write(qts, chip, NPU2_XSCOM + 0x68f, val);
}

static inline uint64_t ring_read(QTestState *qts, uint32_t reg)
{
    return ring_read_chip(qts, 0, reg);
}

static inline void ring_write(QTestState *qts, uint32_t reg, uint64_t val)
{
    ring_write_chip(qts, 0, reg, val);
}

/* All four copies of a BAR of a stack */
static inline void bar_write(QTestState *qts, unsigned stack, unsigned offset,
                             uint64_t val)
{
    for (unsigned sm = 0; sm < 4; sm++) {
        ring_write(qts, RING(4 + stack, sm, offset), val);
    }
}

/* GPU memory BAR of a brick: 1 GiB << size_log2 at base, or off */
static inline void gpu_bar(QTestState *qts, unsigned brick, uint64_t base,
                           unsigned size_log2)
{
    bar_write(qts, brick / 2, 0x20 + 8 * (brick % 2),
              base ? BIT_(0) | FIELD_(1, 21, base >> 30) |
              FIELD_(24, 27, size_log2) : 0);
}

/* Entry i of a table property of the NPU of a chip */
static inline uint64_t npu_table(QTestState *qts, unsigned chip,
                                 const char *name, unsigned i)
{
    g_autofree char *path = g_strdup_printf("/machine/chip[%u]/npu", chip);
    QDict *response = qtest_qmp(qts, "{ 'execute': 'qom-get', 'arguments': "
                                "{ 'path': %s, 'property': %s } }", path, name);
    const QListEntry *entry;
    uint64_t val;

    g_assert(qdict_haskey(response, "return"));
    entry = qlist_first(qdict_get_qlist(response, "return"));
    while (i--) {
        entry = qlist_next(entry);
    }
    val = qnum_get_uint(qobject_to(QNum, qlist_entry_obj(entry)));
    qobject_unref(response);
    return val;
}

static inline void npu_set(QTestState *qts, unsigned chip, const char *name,
                           unsigned val)
{
    g_autofree char *path = g_strdup_printf("/machine/chip[%u]/npu", chip);
    QDict *response = qtest_qmp(qts, "{ 'execute': 'qom-set', 'arguments': "
                                "{ 'path': %s, 'property': %s, 'value': %u } }",
                                path, name, val);

    g_assert(qdict_haskey(response, "return"));
    qobject_unref(response);
}

/* The PHYs of OBUS 0 and 3 */
#define PHY(n)          ((n) ? 0xc010c3f : 0x9010c3f)

static inline void phy_write(QTestState *qts, unsigned n, unsigned reg,
                             unsigned lane, uint16_t val)
{
    xscom_write(qts, 0, PHY(n), FIELD_(12, 21, reg) | FIELD_(27, 31, lane) |
                val);
}

static inline uint64_t phy_read(QTestState *qts, unsigned n, unsigned reg,
                                unsigned lane)
{
    uint64_t val;

    xscom_write(qts, 0, PHY(n), BIT_(0) | FIELD_(12, 21, reg) |
                FIELD_(27, 31, lane));
    val = xscom_read(qts, 0, PHY(n));
    /* Complete, no error */
    g_assert_cmphex(val >> 28, ==, 8);
    return val & 0xffff;
}

/* A powernv9 machine; it wants some firmware file, which nothing runs */
static inline QTestState *npu_start(const char *args)
{
    g_autofree char *firmware = NULL;
    g_autofree char *zeros = g_malloc0(4096);
    int fd = g_file_open_tmp(NULL, &firmware, NULL);
    QTestState *qts;

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, zeros, 4096), ==, 4096);
    close(fd);
    qts = qtest_initf("-M powernv9 -accel tcg -m 2G -bios %s %s", firmware,
                      args);
    unlink(firmware);
    return qts;
}

#endif /* TESTS_PNV_NPU2_H */

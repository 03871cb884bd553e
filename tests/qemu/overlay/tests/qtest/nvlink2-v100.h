/*
 * QTest helpers for the NVLink2 V100 model, on an NPU2 and behind a PHB4
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef TESTS_NVLINK2_V100_H
#define TESTS_NVLINK2_V100_H

#include "qemu/bswap.h"
#include "hw/misc/nvlink2-v100-regs.h"
#include "hw/pci/pci_regs.h"
#include "pnv-npu2.h"

#define V100_ONE_GPU \
    "-smp 1 -device nvlink2-v100,id=gpu,bus=pcie.0," \
    "npu=/machine/chip[0]/npu,bricks=0x3,ram-size=1G"

#define APERTURE        0x3e000000000ull
#define RAM_SIZE        0x40000000ull

/* PHB 0 of chip 0 as OPAL lays it out */
#define PHB_NEST        (0x4010c00 + 0x40)
#define PHB_REGS        0x000600c3c0000000ull
#define PHB_M64         0x0006000000000000ull
#define PHB_M32         0x000600c000000000ull
#define PHB_M32_PCI     0x80000000ull

#define BAR0            PHB_M32
#define BAR1            PHB_M64

/* The device is alone on the root port's bus: 01:00.0 */
#define GPU_CONFIG      (BIT_(0) | FIELD_(4, 11, 1))
#define CAP_EXP         0x78
#define CAP_PM          0x60

static inline void config_writel(QTestState *qts, unsigned reg, uint32_t val)
{
    qtest_writeq(qts, PHB_REGS + 0x140, GPU_CONFIG | FIELD_(20, 31, reg));
    qtest_writel(qts, PHB_REGS + 0x130, bswap32(val));
}

static inline uint32_t config_readl(QTestState *qts, unsigned reg)
{
    qtest_writeq(qts, PHB_REGS + 0x140, GPU_CONFIG | FIELD_(20, 31, reg));
    return bswap32(qtest_readl(qts, PHB_REGS + 0x130));
}

static inline void root_port_writel(QTestState *qts, unsigned reg, uint32_t val)
{
    qtest_writel(qts, PHB_REGS + 0x1000 + reg, bswap32(val));
}

static inline void phb_window(QTestState *qts, unsigned index, uint64_t base,
                              uint64_t size, bool m32)
{
    qtest_writeq(qts, PHB_REGS + 0x220, FIELD_(11, 15, 16) | (2 * index));
    qtest_writeq(qts, PHB_REGS + 0x228, BIT_(0) | (m32 ? BIT_(1) : 0) |
                 FIELD_(8, 51, base >> 12));
    qtest_writeq(qts, PHB_REGS + 0x220, FIELD_(11, 15, 16) | (2 * index + 1));
    qtest_writeq(qts, PHB_REGS + 0x228, BIT_(0) |
                 FIELD_(8, 51, (-size & 0x00ffffffffffffffull) >> 12));
}

/* What the firmware and the OS do to reach the device's BARs */
static inline void setup_bars(QTestState *qts)
{
    config_writel(qts, PCI_BASE_ADDRESS_0, PHB_M32_PCI);
    config_writel(qts, PCI_BASE_ADDRESS_1, (uint32_t)BAR1);
    config_writel(qts, PCI_BASE_ADDRESS_2, BAR1 >> 32);
    config_writel(qts, PCI_COMMAND, PCI_COMMAND_MEMORY);
}

/* Secondary bus reset, after which the device's BARs are set up again */
static inline void bus_reset(QTestState *qts)
{
    root_port_writel(qts, PCI_INTERRUPT_LINE, PCI_BRIDGE_CTL_BUS_RESET << 16);
    root_port_writel(qts, PCI_INTERRUPT_LINE, 0);
    setup_bars(qts);
}

/* A machine whose PHB 0 leads to the GPU's BARs */
static inline QTestState *v100_start(const char *args)
{
    QTestState *qts = npu_start(args);

    xscom_write(qts, 0, PHB_NEST + 0x0e, PHB_M64 << 8);
    xscom_write(qts, 0, PHB_NEST + 0x0f, -0x4000000000ull << 8);
    xscom_write(qts, 0, PHB_NEST + 0x10, PHB_M32 << 8);
    xscom_write(qts, 0, PHB_NEST + 0x11, -0x80000000ull << 8);
    xscom_write(qts, 0, PHB_NEST + 0x12, PHB_REGS << 8);
    xscom_write(qts, 0, PHB_NEST + 0x14, BIT_(0) | BIT_(1) | BIT_(2));
    qtest_writeq(qts, PHB_REGS + 0x1a0, PHB_M32_PCI);
    phb_window(qts, 0, PHB_M32, 0x80000000ull, true);
    phb_window(qts, 1, PHB_M64, 0x4000000000ull, false);

    root_port_writel(qts, PCI_PRIMARY_BUS, 0x00010100);
    root_port_writel(qts, PCI_MEMORY_BASE, 0x80f08000);
    root_port_writel(qts, PCI_PREF_MEMORY_BASE, 0x1ff10001);
    root_port_writel(qts, PCI_PREF_BASE_UPPER32, PHB_M64 >> 32);
    root_port_writel(qts, PCI_PREF_LIMIT_UPPER32, PHB_M64 >> 32);
    root_port_writel(qts, PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    setup_bars(qts);

    gpu_bar(qts, 0, APERTURE, 7);
    gpu_bar(qts, 1, APERTURE, 7);
    return qts;
}

/* BAR0 is little endian, the machine big */
static inline uint32_t regl(QTestState *qts, unsigned reg)
{
    return bswap32(qtest_readl(qts, BAR0 + reg));
}

static inline void reg_write(QTestState *qts, unsigned reg, uint32_t val)
{
    qtest_writel(qts, BAR0 + reg, bswap32(val));
}

static inline void train(QTestState *qts)
{
    reg_write(qts, V100_LINK_TRAIN, V100_LINK_TRAIN_UP);
}

#endif /* TESTS_NVLINK2_V100_H */

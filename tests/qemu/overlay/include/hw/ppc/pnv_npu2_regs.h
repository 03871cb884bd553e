/*
 * QEMU PowerNV, POWER9 NPU2 (NVLink2) registers
 *
 * Register numbers and fields are those of the POWER9 NPU2; bit 0 is the most
 * significant one.  Only what NVLink needs is listed: the OpenCAPI half of the
 * unit (OTL, XSL) is not modelled.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#ifndef PPC_PNV_NPU2_REGS_H
#define PPC_PNV_NPU2_REGS_H

#include "target/ppc/cpu.h"

/*
 * The unit's register ring: 24 address bits, stack (4), block (4), offset (16).
 * A stack drives two bricks (links).  It answers at two stack numbers: as the
 * hypervisor sees it and, for the registers a driver of the link may use, as
 * the user ("U") page sees it.
 */
#define NPU2_RING_BITS              24
#define NPU2_RING_SIZE              (1u << NPU2_RING_BITS)
#define NPU2_RING(stack, block, off) \
    (((stack) << 20) | ((block) << 16) | (off))
#define NPU2_RING_STACK(addr)       (((addr) >> 20) & 0xf)
#define NPU2_RING_BLOCK(addr)       (((addr) >> 16) & 0xf)
#define NPU2_RING_OFFSET(addr)      ((addr) & 0xffff)

#define NPU2_STACK_U(n)             (0x0 + (n))
#define NPU2_STACK(n)               (0x4 + (n))
#define NPU2_STACK_MISC             0x7
#define NPU2_STACK_ATSD             0x8
#define NPU2_STACK_PHY(n)           (0xc + 2 * (n))

#define NPU2_BLOCK_SM(n)            (0x0 + (n))
#define NPU2_BLOCK_CTL              0x4
#define NPU2_BLOCK_DAT              0x5
#define NPU2_BLOCK_DL(brick)        (0x8 + 2 * (brick))
#define NPU2_BLOCK_NTL(brick)       (0x9 + 2 * (brick))
/* of NPU2_STACK_MISC */
#define NPU2_BLOCK_ATS              0x0
#define NPU2_BLOCK_XTS              0x1
#define NPU2_BLOCK_MISC             0x2

/* CQ state machines: four per stack, each holds a copy of the stack's BARs */
#define NPU2_SM_GPU_MEM_BAR(brick)  (0x020 + 8 * (brick))
#define   NPU2_GPU_MEM_BAR_EN           PPC_BIT(0)
#define   NPU2_GPU_MEM_BAR_ADDR         PPC_BITMASK(1, 21)  /* of 1 GiB */
#define   NPU2_GPU_MEM_BAR_SIZE         PPC_BITMASK(24, 27) /* log2, 1 GiB */
#define NPU2_SM_PHY_BAR             0x030   /* stack 0: the register ring */
#define   NPU2_PHY_BAR_EN               PPC_BIT(0)
#define   NPU2_PHY_BAR_ADDR             PPC_BITMASK(3, 30)  /* of 2 MiB */
#define NPU2_SM_GENID_BAR           0x038
#define   NPU2_GENID_BAR_EN             PPC_BIT(0)
#define   NPU2_GENID_BAR_ADDR           PPC_BITMASK(3, 35)  /* of 64 KiB */
#define NPU2_SM_NTL_BAR(brick)      (0x068 + 8 * (brick))
#define   NPU2_NTL_BAR_EN               PPC_BIT(0)
#define   NPU2_NTL_BAR_ADDR             PPC_BITMASK(3, 35)  /* of 64 KiB */
#define   NPU2_NTL_BAR_SIZE             PPC_BITMASK(39, 43) /* log2, 64 KiB */
/* PHY, GENID and NTL BARs decode in the MMIO part of the address space */
#define NPU2_BAR_MMIO_SPACE         0x0006000000000000ull

/* NTL: the transport layer of one brick */
#define NPU2_NTL_MISC_CFG2          0x000
#define NPU2_NTL_MISC_CFG1          0x0c0
#define   NPU2_NTL_CFG1_FENCE           PPC_BITMASK(8, 9)
#define NPU2_NTL_CREDIT_RX          0x440   /* ten registers */
#define   NPU2_NTL_CREDIT_RX_AVAIL      PPC_BITMASK(0, 11)
#define   NPU2_NTL_CREDIT_RX_LIMIT      PPC_BITMASK(12, 23)
#define NPU2_NTL_CREDIT_RX_LAST     0x488
#define NPU2_NTL_CQ_FENCE_STATUS    0x500
#define   NPU2_NTL_FENCE_STATUS         PPC_BITMASK(0, 1)
#define     NPU2_FENCE_NONE             0u
#define     NPU2_FENCE_RESET_HALF       2u
#define     NPU2_FENCE_FULL             3u

/* DL: the data link layer of one brick, 32-bit registers */
#define NPU2_DL_CLK_CTRL            0x001c
#define NPU2_DL_CONTROL             0xfff4
#define NPU2_DL_CONFIG              0xfff8
#define   NPU2_DL_CONFIG_TRAIN          0x80000000u

/* ATS block: TCE translation of accesses that the GPU did not translate */
#define NPU2_ATS_IODA_TBL           0x108
#define   NPU2_IODA_TBL_AUTOINC         PPC_BIT(0)
#define   NPU2_IODA_TBL_SELECT          PPC_BITMASK(11, 15)
#define     NPU2_IODA_TBL_TVT           9
#define   NPU2_IODA_TBL_INDEX           PPC_BITMASK(54, 63)
#define NPU2_ATS_IODA_DATA          0x110
#define NPU2_ATS_TCE_KILL           0x120
#define   NPU2_TCE_KILL_ALL             PPC_BIT(0)
#define   NPU2_TCE_KILL_ONE             PPC_BIT(2)
#define   NPU2_TCE_KILL_PE              PPC_BITMASK(4, 7)
#define   NPU2_TCE_KILL_ADDR            PPC_BITMASK(8, 51)

#define NPU2_TVT_SIZE               16
#define   NPU2_TVE_TTA                  PPC_BITMASK(0, 47)  /* of 4 KiB */
#define   NPU2_TVE_LEVELS               PPC_BITMASK(48, 50) /* minus 1 */
#define   NPU2_TVE_SIZE                 PPC_BITMASK(51, 55) /* log2, 2 KiB */
#define   NPU2_TVE_PSIZE                PPC_BITMASK(59, 63) /* log2, 2 KiB */
/* PSIZE 0: no TCEs.  With RANGE_CHECK only addresses in [START, END) pass */
#define   NPU2_TVE_START_LOW            PPC_BITMASK(0, 23)  /* of 16 MiB */
#define   NPU2_TVE_END_LOW              PPC_BITMASK(24, 47)
#define   NPU2_TVE_RANGE_CHECK          PPC_BIT(51)
#define   NPU2_TVE_START_HIGH           PPC_BITMASK(52, 53)
#define   NPU2_TVE_END_HIGH             PPC_BITMASK(54, 55)

/* XTS block: address translation services */
#define NPU2_XTS_CFG                0x020
#define   NPU2_XTS_CFG_MMIOSD           PPC_BIT(1)
#define NPU2_XTS_ATSD_LPARID(n)     (0x100 + 8 * (n))
#define   NPU2_ATSD_LPARID_HV           PPC_BIT(51)
#define   NPU2_ATSD_LPARID_LPARID       PPC_BITMASK(52, 63)
#define NPU2_XTS_BDF_MAP(n)         (0x4000 + 8 * (n))
#define   NPU2_BDF_MAP_VALID            PPC_BIT(0)
#define   NPU2_BDF_MAP_UNFILT           PPC_BIT(1)
#define   NPU2_BDF_MAP_STACK            PPC_BITMASK(4, 6)
#define   NPU2_BDF_MAP_BRICK            PPC_BIT(7)
#define   NPU2_BDF_MAP_BDF              PPC_BITMASK(16, 31)
#define   NPU2_BDF_MAP_XLAT             PPC_BITMASK(39, 40)
#define     NPU2_BDF_MAP_XLAT_RADIX     3
#define   NPU2_BDF_MAP_LPCR             PPC_BITMASK(44, 45)
#define   NPU2_BDF_MAP_LPARSHORT        PPC_BITMASK(48, 51)
#define   NPU2_BDF_MAP_LPARID           PPC_BITMASK(52, 63)
#define NPU2_XTS_PID_MAP(n)         (0x8000 + 0x20 * (n))
#define   NPU2_PID_MAP_VALID            PPC_BITMASK(0, 2)
#define   NPU2_PID_MAP_VALID_ATR        PPC_BIT(0)      /* effective address */
#define   NPU2_PID_MAP_VALID_ATSD       PPC_BIT(2)
#define   NPU2_PID_MAP_MSR              PPC_BITMASK(25, 31)
#define   NPU2_PID_MAP_MSR_DR           PPC_BIT(25)
#define   NPU2_PID_MAP_MSR_HV           PPC_BIT(27)
#define   NPU2_PID_MAP_MSR_PR           PPC_BIT(28)
#define   NPU2_PID_MAP_LPARSHORT        PPC_BITMASK(40, 43)
#define   NPU2_PID_MAP_PASID            PPC_BITMASK(44, 63)
#define NPU2_XTS_SEIDR_MAP(n)       (0x8008 + 0x20 * (n))
#define NPU2_XTS_AMR_MAP(n)         (0x8010 + 0x20 * (n))

#define NPU2_XTS_BDF_MAP_SIZE       16
#define NPU2_XTS_PID_MAP_SIZE       256
#define NPU2_XTS_WILDCARDS          16      /* of the PID map, by LPARSHORT */
#define NPU2_ATSD_COUNT             8

/* ATSD stack: one block per register set */
#define NPU2_ATSD_LAUNCH            0x000
#define   NPU2_ATSD_LAUNCH_IS           PPC_BITMASK(11, 12)
#define     NPU2_ATSD_IS_PAGE           0
#define     NPU2_ATSD_IS_PID            1
#define   NPU2_ATSD_LAUNCH_ALL          PPC_BIT(12)     /* not AVA's page */
#define   NPU2_ATSD_LAUNCH_PRS          PPC_BIT(13)     /* process scoped */
#define   NPU2_ATSD_LAUNCH_AP           PPC_BITMASK(15, 17)
#define   NPU2_ATSD_LAUNCH_PID          PPC_BITMASK(19, 38)
#define   NPU2_ATSD_LAUNCH_NO_FLUSH     PPC_BIT(39)
#define NPU2_ATSD_AVA               0x008
#define NPU2_ATSD_STATUS            0x010

/* MISC block */
#define NPU2_MISC_CFG               0x030
#define   NPU2_MISC_CFG_IPI_PS_64K      PPC_BIT(11)
#define   NPU2_MISC_CFG_IPI_OS_LINUX    PPC_BIT(12)
#define NPU2_MISC_IRQ_BASE          0x098
#define   NPU2_MISC_IRQ_BASE_SHIFT      13
#define NPU2_MISC_FENCE_STATE       0x0b0
#define   NPU2_FENCE_STATE_BRICK(n)     PPC_BIT(n)
#define   NPU2_FENCE_STATE_REQUEST(n)   PPC_BIT((n) + 6)
#define NPU2_MISC_BDF2PE(brick, n)  (0x100 + 0x18 * (brick) + 8 * (n))
#define   NPU2_BDF2PE_EN                PPC_BIT(0)
#define   NPU2_BDF2PE_PE                PPC_BITMASK(4, 7)
#define   NPU2_BDF2PE_BDF               PPC_BITMASK(8, 23)
#define NPU2_BDF2PE_ENTRIES         3       /* per brick */
#define NPU2_MISC_PESTB(pe)         (0x200 + 8 * (pe))
#define   NPU2_PESTB_DMA_STOPPED        PPC_BIT(0)
#define NPU2_PESTB_ENTRIES          16

/* Interrupt sources, in the order of the trigger pages at MISC_IRQ_BASE */
#define NPU2_IRQ_NDL_STALL(brick)   (2 * (brick))
#define NPU2_IRQ_NDL_NOSTALL(brick) (2 * (brick) + 1)
#define NPU2_IRQ_NTL(brick)         (12 + (brick))
#define NPU2_IRQ_TCE                18
#define NPU2_IRQ_COUNT              35

/*
 * SCOM addresses.  The three stacks and the MISC stack are reachable directly,
 * and the whole ring through an address and data pair.
 */
#define NPU2_XSCOM_STACK_SIZE       0x200
#define NPU2_XSCOM_IND_ADDR         0x68e
#define   NPU2_IND_ADDR_ADDR            PPC_BITMASK(0, 23)
#define   NPU2_IND_ADDR_LEN             PPC_BITMASK(24, 25)
#define     NPU2_IND_LEN_4B             2
#define     NPU2_IND_LEN_8B             3
#define NPU2_XSCOM_IND_DATA         0x68f

/* Fault isolation registers: three sets of eight, 0x40 apart */
#define NPU2_FIR_SETS               3
#define NPU2_FIR_STRIDE             0x40
#define   NPU2_FIR_VALUE                0x0
#define   NPU2_FIR_AND                  0x1
#define   NPU2_FIR_OR                   0x2
#define   NPU2_FIR_MASK                 0x3
#define   NPU2_FIR_MASK_AND             0x4
#define   NPU2_FIR_MASK_OR              0x5
#define   NPU2_FIR_ACTION0              0x6
#define   NPU2_FIR_ACTION1              0x7

/* PowerBus centre: how the chip's memory map was set up */
#define NPU2_PB_CENT_MODE           0xa
#define   NPU2_PB_CENT_EXTENSION_MASK   PPC_BITMASK(42, 48)
#define NPU2_PB_CENT_HP_MODE_CURR   0xc
#define   NPU2_PB_CENT_GP_MASTER        PPC_BIT(2)

/*
 * OBUS PHY, one indirect register per chiplet: a write with IND_READ selects
 * what the next read returns, one without it writes 16 bits of data.
 */
#define NPU2_PHY_IND_READ           PPC_BIT(0)
#define NPU2_PHY_IND_REG            PPC_BITMASK(12, 21)
#define NPU2_PHY_IND_LANE           PPC_BITMASK(27, 31)
#define NPU2_PHY_IND_COMPLETE       PPC_BIT(32)
#define NPU2_PHY_IND_DATA           PPC_BITMASK(48, 63)
#define NPU2_PHY_LANES              24
#define NPU2_PHY_REGS               0x400
#define NPU2_PHY_PER_LANE           0x200   /* below: one copy per lane */
/* Lane control and status: run and DC calibration, and their completion */
#define NPU2_PHY_RX_RESET           0x096
#define   NPU2_PHY_RX_IORESET           0x0001
#define NPU2_PHY_RX_CONTROL         0x0c8
#define NPU2_PHY_RX_STATUS          0x0ca
#define   NPU2_PHY_RX_RUN_LANE          0x8000
#define   NPU2_PHY_RX_RUN_DCCAL         0x4000
/* Impedance calibration: request, done, and the results in units of 1/8 ohm */
#define NPU2_PHY_TX_ZCAL            0x3c1
#define   NPU2_PHY_TX_ZCAL_REQ          0x4000
#define   NPU2_PHY_TX_ZCAL_DONE         0x2000
#define NPU2_PHY_TX_ZCAL_N          0x3c3
#define NPU2_PHY_TX_ZCAL_P          0x3c5
#define   NPU2_PHY_TX_ZCAL_NOMINAL      (200 << 7)

#endif /* PPC_PNV_NPU2_REGS_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the NPU of a chip holds, read past the driver: out of the emulator, or by SCOM on hardware.
 * Functions that return int give 0 or a negative errno.
 */
#ifndef NVLINK2_SELFTEST_NPU_H
#define NVLINK2_SELFTEST_NPU_H

#include <linux/types.h>

struct dt_bridge;
struct dt_topology;

#define NUM_BDF_MAP	16
#define NUM_PID_MAP	256
#define NUM_ATSD	8
#define NUM_LINKS	6
#define NUM_PEST	16

/* Bits are numbered as in the documents of POWER: 0 is the highest. */
#define PPC_BIT(n)	(0x8000000000000000ULL >> (n))

/* XTS BDF map */
#define BDF_VALID	PPC_BIT(0)
#define BDF_OF(e)	((e) >> 32 & 0xffff)
#define BDF_LPARSHORT(e) ((e) >> 12 & 0xf)
/* XTS PID map. The wildcard entry of an LPAR is the one with the number of its LPARSHORT. */
#define PID_VALID	(PPC_BIT(0) | PPC_BIT(1) | PPC_BIT(2))
#define PID_VALID_ATR	PPC_BIT(0)
#define PID_MSR_DR	PPC_BIT(25)
#define PID_MSR_HV	PPC_BIT(27)
#define PID_MSR_PR	PPC_BIT(28)
/* Of a BDF map entry or an ATSD LPARID register */
#define LPID_OF(e)	((e) & 0xfff)

/* From now on it is the NPU of @bridge; before that, the emulator tells of the first chip's. */
void npu_select(const struct dt_bridge *bridge);
/* Where entries of the maps are in the NPU's register space */
#define XTS_ATSD_LPARID(n)	(0x710100 + (n) * 8)
#define XTS_BDF_MAP(n)	(0x714000 + (n) * 8)
#define XTS_PID_MAP(n)	(0x718000 + (n) * 0x20)
/* And what says that DMA of a PE is stopped */
#define PESTB(pe)	(0x720200 + (pe) * 8)

/* What an NPU knows about LPARs. */
struct npu {
	__u64 bdf_map[NUM_BDF_MAP];
	__u64 pid_map[NUM_PID_MAP];
	__u64 atsd_lparid[NUM_ATSD];
};

/* Reads the first @count values of the table @name, a property of the model "pnv-npu2". */
int npu_table(const char *name, __u64 *values, unsigned int count);

/* How many shootdowns were launched by all ATSD registers, and not lost; or a negative errno. */
long npu_launches(void);

int npu_read(struct npu *npu);
/* Why the NPU is not as it has to be while no GPU is bound; "" if it is. */
const char *npu_not_clear(void);

/* The PEs whose DMA is stopped, a bit for each; all ones if the emulator does not tell. */
__u32 npu_frozen(void);
/*
 * Lets them do DMA again, as nobody does but a test, by registers of the NPU of @bridge. How many
 * there were, or a negative errno.
 */
int npu_thaw(const struct dt_bridge *bridge);
/*
 * How many links, of all chips, were open when their GPU was reset, since the machine was switched
 * on; or a negative errno. Hardware does not tell: 0.
 */
long npu_torn(const struct dt_topology *topo);
/* How often a processor of the chip was told to purge its caches, L2 and L3, of all cores. */
int npu_purges(__u64 *l2, __u64 *l3);

/* What accesses of GPU RAM are that nobody answers: a value of the property "dead". */
#define MACHINE_CHECK	"machine-check"
#define ALL_ONES	"ones"
const char *npu_dead(void);

/* Sets a property of the model, e.g. one that injects a fault. */
int npu_set(const char *property, const char *value);

/* The function @bdf as the NPU's tables name it: bus, device and function, without the domain. */
__u16 bdfn(const char *bdf);

#endif

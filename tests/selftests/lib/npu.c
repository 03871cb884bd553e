// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dt.h"
#include "hardware.h"
#include "npu.h"
#include "qmp.h"
#include "scom.h"

/* Chips are numbered 0 and 8; the emulator counts them. */
#define CHIP_STRIDE	8

static unsigned int chip_index;
static struct dt_bridge selected;

void npu_select(const struct dt_bridge *bridge)
{
	chip_index = bridge->chip / CHIP_STRIDE;
	selected = *bridge;
}

/* The table @name of the chip that the emulator has as number @index. */
static int table_of(unsigned int index, const char *name, __u64 *values, unsigned int count)
{
	static char answer[8192];
	char command[64], *text = answer;
	unsigned int i;
	int ret;

	snprintf(command, sizeof(command), "qom-get /machine/chip[%u]/npu %s", index, name);
	ret = qmp_human(command, answer, sizeof(answer));
	if (ret)
		return ret;
	/* Which may have numbers in it, too. */
	if (strstr(answer, "Error"))
		return -EOPNOTSUPP;
	for (i = 0; i < count; i++) {
		text += strcspn(text, "0123456789");
		if (!*text)
			return -EPROTO;
		values[i] = strtoull(text, &text, 10);
	}
	return 0;
}

int npu_table(const char *name, __u64 *values, unsigned int count)
{
	return table_of(chip_index, name, values, count);
}

long npu_launches(void)
{
	__u64 launches[NUM_ATSD];
	unsigned int i;
	long sum = npu_table("atsd-launches", launches, NUM_ATSD);

	for (i = 0; sum >= 0 && i < NUM_ATSD; i++)
		sum += launches[i];
	return sum;
}

/* @count registers from @reg on, each @stride behind the one before. */
static int registers(__u32 reg, unsigned int stride, __u64 *values, unsigned int count)
{
	unsigned int i;
	int ret = selected.xscom_base ? 0 : -ENODEV;

	for (i = 0; !ret && i < count; i++)
		ret = npu_read64(selected.chip, selected.xscom_base, reg + i * stride, &values[i]);
	return ret;
}

/* By SCOM, which a machine without a monitor has, too. */
static int npu_read_scom(struct npu *npu)
{
	int ret = registers(XTS_BDF_MAP(0), 0x8, npu->bdf_map, NUM_BDF_MAP);

	ret = ret ?: registers(XTS_PID_MAP(0), 0x20, npu->pid_map, NUM_PID_MAP);
	return ret ?: registers(XTS_ATSD_LPARID(0), 0x8, npu->atsd_lparid, NUM_ATSD);
}

int npu_read(struct npu *npu)
{
	int ret;

	if (on_hardware())
		return npu_read_scom(npu);
	ret = npu_table("xts-bdf-map", npu->bdf_map, NUM_BDF_MAP);
	ret = ret ?: npu_table("xts-pid-map", npu->pid_map, NUM_PID_MAP);
	return ret ?: npu_table("atsd-lparid", npu->atsd_lparid, NUM_ATSD);
}

const char *npu_not_clear(void)
{
	struct npu npu;
	unsigned int i;

	if (npu_read(&npu))
		return "the NPU does not tell";
	for (i = 0; i < NUM_BDF_MAP; i++) {
		if (npu.bdf_map[i] & BDF_VALID)
			return "BDF map";
	}
	for (i = 0; i < NUM_PID_MAP; i++) {
		if (npu.pid_map[i] & PID_VALID)
			return "PID map";
	}
	for (i = 0; i < NUM_ATSD; i++) {
		if (npu.atsd_lparid[i])
			return "LPARID of an ATSD register";
	}
	return "";
}

__u32 npu_frozen(void)
{
	__u64 pestb[NUM_PEST];
	unsigned int pe;
	__u32 frozen = 0;

	if (npu_table("pestb", pestb, NUM_PEST))
		return ~0U;
	for (pe = 0; pe < NUM_PEST; pe++)
		frozen |= (__u32)!!pestb[pe] << pe;
	return frozen;
}

int npu_thaw(const struct dt_bridge *bridge)
{
	const __u32 frozen = npu_frozen();
	unsigned int pe;
	int ret = 0;

	if (frozen == ~0U)
		return -EPROTO;
	for (pe = 0; !ret && pe < NUM_PEST; pe++) {
		if (!(frozen >> pe & 1))
			continue;
		/* Whichever of the two it takes. */
		ret = npu_write64(bridge->chip, bridge->xscom_base, PESTB(pe), PPC_BIT(0));
		ret = ret ?: npu_write64(bridge->chip, bridge->xscom_base, PESTB(pe), 0);
	}
	return ret ?: __builtin_popcount(frozen);
}

long npu_torn(const struct dt_topology *topo)
{
	__u64 torn[NUM_LINKS];
	unsigned int i, gpu, chips = 0;
	long count = 0;

	for (gpu = 0; !on_hardware() && gpu < topo->num_gpus; gpu++) {
		const unsigned int index = topo->gpu[gpu].link[0].chip / CHIP_STRIDE;
		int ret;

		if (chips & 1U << index)
			continue;
		chips |= 1U << index;
		ret = table_of(index, "torn-links", torn, NUM_LINKS);
		if (ret)
			return ret;
		for (i = 0; i < NUM_LINKS; i++)
			count += torn[i];
	}
	return count;
}

static int read_count(const char *cache, __u64 *count)
{
	char command[64], answer[128], *end;
	int ret;

	snprintf(command, sizeof(command), "qom-get /machine/chip[%u]/eq[0] %s-purges", chip_index,
		 cache);
	ret = qmp_human(command, answer, sizeof(answer));
	if (ret)
		return ret;
	*count = strtoull(answer, &end, 10);
	return end == answer ? -EPROTO : 0;
}

int npu_purges(__u64 *l2, __u64 *l3)
{
	return read_count("l2", l2) ?: read_count("l3", l3);
}

int npu_set(const char *property, const char *value)
{
	char command[96], answer[256];
	int ret;

	snprintf(command, sizeof(command), "qom-set /machine/chip[%u]/npu %s %s", chip_index,
		 property, value);
	ret = qmp_human(command, answer, sizeof(answer));
	if (!ret && strstr(answer, "Error"))
		ret = -EOPNOTSUPP;
	return ret;
}

const char *npu_dead(void)
{
	char command[64], answer[64];

	snprintf(command, sizeof(command), "qom-get /machine/chip[%u]/npu dead", chip_index);
	if (qmp_human(command, answer, sizeof(answer)))
		return "";
	return strstr(answer, ALL_ONES) ? ALL_ONES : MACHINE_CHECK;
}

__u16 bdfn(const char *bdf)
{
	unsigned int domain, bus, device, function;

	if (sscanf(bdf, "%x:%x:%x.%x", &domain, &bus, &device, &function) != 4)
		return 0;
	return bus << 8 | device << 3 | function;
}

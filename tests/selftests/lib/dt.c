// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest.h"

#include "dt.h"
#include "sys.h"

#define PCI_DEVICES "/sys/bus/pci/devices"
#define DT_BASE "/sys/firmware/devicetree/base"

/* sys_read() would eat a final 0x0a. */
ssize_t dt_prop(const char *node, const char *name, void *buf, size_t size)
{
	char path[PATH_MAX];
	size_t n;
	FILE *f;

	if ((size_t)snprintf(path, sizeof(path), "%s/%s", node, name) >= sizeof(path))
		return -ENAMETOOLONG;
	f = fopen(path, "re");
	if (!f)
		return -errno;
	n = fread(buf, 1, size, f);
	fclose(f);
	return n;
}

int dt_u32(const char *node, const char *name, unsigned int index, __u32 *value)
{
	__u32 cells[64];
	ssize_t n = dt_prop(node, name, cells, sizeof(cells));

	if (n < 0)
		return n;
	if ((size_t)n < (index + 1) * sizeof(*cells))
		return -EOVERFLOW;
	*value = be32toh(cells[index]);
	return 0;
}

int dt_u64(const char *node, const char *name, unsigned int index, __u64 *value)
{
	__u32 hi, lo;
	int ret = dt_u32(node, name, 2 * index, &hi);

	if (!ret)
		ret = dt_u32(node, name, 2 * index + 1, &lo);
	if (!ret)
		*value = (__u64)hi << 32 | lo;
	return ret;
}

/*
 * Every phandle of the tree, gathered in one walk before the harness makes a process for each
 * test: a topology has dozens of references, and on a slow kernel a walk takes seconds.
 */
static struct {
	__u32 phandle;
	char *node;
} *nodes;
static size_t num_nodes;

static int add_node(const char *node)
{
	__u32 phandle = 0;
	void *grown;

	if (dt_u32(node, "phandle", 0, &phandle))
		return 0;
	grown = realloc(nodes, (num_nodes + 1) * sizeof(*nodes));
	if (!grown)
		return -ENOMEM;
	nodes = grown;
	nodes[num_nodes].phandle = phandle;
	nodes[num_nodes].node = strdup(node);
	return nodes[num_nodes++].node ? 0 : -ENOMEM;
}

static int add_nodes_below(const char *folder)
{
	char path[PATH_MAX];
	struct dirent *e;
	int ret = add_node(folder);
	DIR *d = opendir(folder);
	size_t n;

	if (!d)
		return -errno;
	while (!ret && (e = readdir(d))) {
		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		n = snprintf(path, sizeof(path), "%s/%s", folder, e->d_name);
		ret = n < sizeof(path) ? add_nodes_below(path) : -ENAMETOOLONG;
	}
	closedir(d);
	return ret;
}

static int gathered;

__attribute__((constructor))
static void gather_nodes(void)
{
	gathered = add_nodes_below(DT_BASE);
}

int dt_node_of_phandle(__u32 phandle, char *node, size_t size)
{
	size_t i;

	for (i = 0; i < num_nodes; i++) {
		if (nodes[i].phandle == phandle) {
			snprintf(node, size, "%s", nodes[i].node);
			return 0;
		}
	}
	return gathered ?: -ENOENT;
}

int dt_node_of_pci(const char *bdf, char node[PATH_MAX])
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), PCI_DEVICES "/%.15s/of_node", bdf);
	return realpath(path, node) ? 0 : -errno;
}

static int list_pci(char (*bdf)[BDF_LEN], int max)
{
	struct dirent **names;
	int count = 0, n, i;

	n = scandir(PCI_DEVICES, &names, NULL, alphasort);
	if (n < 0)
		return -errno;
	for (i = 0; i < n; i++) {
		if (names[i]->d_name[0] != '.' && count < max)
			snprintf(bdf[count++], BDF_LEN, "%.*s", BDF_LEN - 1, names[i]->d_name);
		free(names[i]);
	}
	free(names);
	return count;
}

/* Where a reader says why it gave up. */
struct complaint {
	char *text;
	size_t size;
};

static __printf(3, 4)
int fail(const struct complaint *why, int ret, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why->text, why->size, format, args);
	va_end(args);
	return ret;
}

static int read_bridge(struct dt_bridge *b, const char *node, const struct complaint *why)
{
	char phb[PATH_MAX], link[PATH_MAX];
	__u32 phandle = 0;
	char *slash;
	int ret;

	snprintf(phb, sizeof(phb), "%s", node);
	slash = strrchr(phb, '/');
	if (!slash)
		return fail(why, -EINVAL, "%s: no parent", node);
	*slash = '\0';

	ret = dt_u32(node, "phandle", 0, &b->phandle);
	ret = ret ?: dt_u32(node, "ibm,nvlink-speed", 0, &b->speed);
	ret = ret ?: dt_u64(node, "ibm,device-tgt-addr", 0, &b->tgt);
	ret = ret ?: dt_u32(node, "ibm,nvlink", 0, &phandle);
	if (ret)
		return fail(why, ret, "%s: bad bridge node", b->bdf);
	ret = dt_node_of_phandle(phandle, link, sizeof(link));
	ret = ret ?: dt_u32(link, "ibm,npu-link-index", 0, &b->link_index);
	if (ret)
		return fail(why, ret, "%s: no link node %#x", b->bdf, phandle);
	ret = dt_u64(phb, "ibm,mmio-atsd", b->link_index, &b->atsd);
	ret = ret ?: dt_u64(phb, "reg", 0, &b->npu_regs);
	ret = ret ?: dt_u32(phb, "ibm,xscom-base", 0, &b->xscom_base);
	ret = ret ?: dt_u32(phb, "ibm,chip-id", 0, &b->chip);
	if (ret)
		return fail(why, ret, "%s: bad NVLink PHB node %s", b->bdf, phb);
	return 0;
}

static int read_gpu(struct dt_gpu *g, const char *node, char (*bdf)[BDF_LEN], int num_bdf,
		    const struct complaint *why)
{
	char bridge_node[PATH_MAX], mem[PATH_MAX];
	__u32 phandle = 0, region = 0, this_phandle = 0;
	int i, ret;

	for (g->num_links = 0; g->num_links < DT_MAX_LINKS; g->num_links++) {
		struct dt_bridge *b = &g->link[g->num_links];

		if (dt_u32(node, "ibm,npu", g->num_links, &phandle))
			break;
		for (i = 0; i < num_bdf; i++) {
			if (!dt_node_of_pci(bdf[i], bridge_node) &&
			    !dt_u32(bridge_node, "phandle", 0, &this_phandle) &&
			    this_phandle == phandle)
				break;
		}
		if (i == num_bdf)
			return fail(why, -ENODEV, "%s: ibm,npu: %#x is no PCI function", g->bdf,
				    phandle);
		snprintf(b->bdf, sizeof(b->bdf), "%.15s", bdf[i]);
		ret = read_bridge(b, bridge_node, why);
		if (ret)
			return ret;
		ret = dt_u32(bridge_node, "memory-region", 0, &region);
		if (ret)
			return fail(why, ret, "%s: no memory-region", b->bdf);
	}
	if (!g->num_links)
		return fail(why, -EINVAL, "%s: empty ibm,npu", g->bdf);
	g->tgt = g->link[0].tgt;
	ret = dt_node_of_phandle(region, mem, sizeof(mem));
	ret = ret ?: dt_u64(mem, "reg", 0, &g->aperture);
	ret = ret ?: dt_u64(mem, "reg", 1, &g->aperture_size);
	if (ret)
		return fail(why, ret, "%s: no memory node %#x", g->bdf, region);
	return 0;
}

/* Most tests use the first GPU, so this says which one, and which chip, they are about. */
static int begin_with(struct dt_topology *t, const char *number, const struct complaint *why)
{
	const struct dt_topology sorted = *t;
	const unsigned int first = atoi(number);
	unsigned int i;

	if (first >= t->num_gpus)
		return fail(why, -ENODEV, "NVLINK2_FIRST_GPU is %s, and there are %u", number,
			    t->num_gpus);
	for (i = 0; i < t->num_gpus; i++)
		t->gpu[i] = sorted.gpu[(first + i) % t->num_gpus];
	return 0;
}

int dt_read_topology(struct dt_topology *t, char *why_text, size_t why_size)
{
	const struct complaint complaint = { .text = why_text, .size = why_size };
	const struct complaint *why = &complaint;
	static char bdf[256][BDF_LEN];
	char node[PATH_MAX];
	__u32 cell;
	int num, i, ret;

	memset(t, 0, sizeof(*t));
	num = list_pci(bdf, 256);
	if (num < 0)
		return fail(why, num, "cannot list " PCI_DEVICES);
	for (i = 0; i < num; i++) {
		struct dt_gpu *g = &t->gpu[t->num_gpus];

		if (dt_node_of_pci(bdf[i], node) || dt_u32(node, "ibm,npu", 0, &cell))
			continue;
		if (t->num_gpus == DT_MAX_GPUS)
			return fail(why, -E2BIG, "more than %d GPUs", DT_MAX_GPUS);
		snprintf(g->bdf, sizeof(g->bdf), "%.15s", bdf[i]);
		ret = read_gpu(g, node, bdf, num, why);
		if (ret)
			return ret;
		t->num_gpus++;
	}
	if (!t->num_gpus)
		return fail(why, -ENODEV, "no PCI function with ibm,npu in the device tree");
	return begin_with(t, getenv("NVLINK2_FIRST_GPU") ?: "0", why);
}

int pci_iommu_group(const char *bdf)
{
	char path[PATH_MAX], target[PATH_MAX];
	ssize_t n;

	snprintf(path, sizeof(path), PCI_DEVICES "/%.15s/iommu_group", bdf);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return -errno;
	target[n] = '\0';
	return atoi(strrchr(target, '/') + 1);
}

int pci_resource(const char *bdf, unsigned int index, __u64 *start, __u64 *end)
{
	char path[PATH_MAX], line[128];
	unsigned int i;
	FILE *f;

	snprintf(path, sizeof(path), PCI_DEVICES "/%.15s/resource", bdf);
	f = fopen(path, "re");
	if (!f)
		return -errno;
	for (i = 0; i <= index; i++) {
		if (!fgets(line, sizeof(line), f)) {
			fclose(f);
			return -ENOENT;
		}
	}
	fclose(f);
	return sscanf(line, "%lx %lx", start, end) == 2 ? 0 : -EINVAL;
}

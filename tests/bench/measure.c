// SPDX-License-Identifier: GPL-2.0
/*
 * What mapping and using GPU RAM costs, measured in the emulated host. Not a test: it judges
 * nothing, so that it runs on the original driver too (Linux up to 5.12, inside of vfio-pci).
 *
 * One line a run, separated by tabs:
 *
 *	benchmark  variant  size  run  ticks  count
 *
 * `size` is in bytes or 0; `ticks` are of the time base, which an emulator that counts
 * instructions advances by instructions; `count` is what the benchmark counts (faults, entries,
 * calls, bytes). Lines with "#" say what the rest was measured on. Arguments are the names of
 * benchmarks, if not all are wanted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "bind.h"
#include "guest.h"
#include "npu.h"
#include "sys.h"
#include "testbed.h"

#define RUNS		9
#define MIB		(16 * PAGE_64K)
#define GIB		(1024 * MIB)
#define CALLS		1000
#define ACCESSES	16384

/* As QEMU places the RAM of a GPU in a guest. */
#define GUEST_RAM	(64UL << 40)

/*
 * Where a mapping is put decides about its pages: its address is congruent to the offset modulo
 * the page wanted, and not modulo a larger one.
 */
struct variant {
	const char *name;
	unsigned long page;
	unsigned long behind_alignment;
};

static const struct variant variants[] = {
	{ "64 KiB", PAGE_64K, PAGE_64K },
	{ "2 MiB", 2 * MIB, 2 * MIB },
	{ "1 GiB", GIB, 0 },
};

static struct testbed tb;
static bool original;
static unsigned int num_variants = ARRAY_SIZE(variants);

static void fail(const char *what, int error)
{
	fprintf(stderr, "measure: %s: %s\n", what, strerror(error < 0 ? -error : error));
	exit(1);
}

static void check(const char *what, int ret)
{
	if (ret < 0)
		fail(what, ret);
}

static void result(const char *benchmark, const char *variant, unsigned long size,
		   unsigned int run, __u64 ticks, __u64 count)
{
	printf("%s\t%s\t%lu\t%u\t%llu\t%llu\n", benchmark, variant, size, run,
	       (unsigned long long)ticks, (unsigned long long)count);
	fflush(stdout);
}

static __u64 now(void)
{
	return __builtin_ppc_get_timebase();
}

static __u64 minor_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/* The original maps GPU RAM once in the life of an open device. */
static void renew(void)
{
	close(tb.dev);
	tb.dev = vfio_device_open(&tb.group, tb.gpu->bdf);
	check("opening the GPU again", tb.dev);
	tb.model.dev = tb.dev;
	check("training", model_train(&tb.model));
}

static char *map(const struct vfio_region_info *region, unsigned long size,
		 const struct variant *v)
{
	char *p = reserve(size + v->behind_alignment, GIB);

	if (original)
		renew();
	if (p)
		p = vfio_map_at(tb.dev, region, 0, size, p + v->behind_alignment);
	if (!p)
		fail("mapping a region", errno);
	return p;
}

/* The reservation around a mapping goes too. */
static void unmap(char *p, unsigned long size)
{
	char *start = (char *)((uintptr_t)p & ~(GIB - 1));

	if (munmap(start, p - start + size))
		fail("munmap", errno);
}

static void touch(const char *p, unsigned long size)
{
	unsigned long at;

	for (at = 0; at < size; at += PAGE_64K)
		load64(p + at);
}

static void measure_touch(const char *benchmark, const struct vfio_region_info *region,
			  unsigned long size, const struct variant *v, unsigned int run)
{
	char *p = map(region, size, v);
	__u64 faults = minor_faults(), start = now(), end;

	touch(p, size);
	end = now();
	result(benchmark, v->name, size, run, end - start, minor_faults() - faults);
	unmap(p, size);
}

static void open_gpu(bool kvm)
{
	int ret = testbed_open(&tb, 0, kvm);

	if (ret)
		fail(tb.why, ret);
}

static void close_gpu(void)
{
	if (testbed_close(&tb))
		fail("the kernel log has a splat", EIO);
}

/* From nothing mapped to everything touched. */
static void populate(void)
{
	unsigned int i, run;
	unsigned long size;

	open_gpu(false);
	for (size = MIB; size <= 32 * GIB; size *= size < 16 * GIB ? 4 : 2) {
		for (i = 0; i < num_variants && variants[i].page <= size; i++) {
			for (run = 0; run < RUNS; run++)
				measure_touch("populate", tb.ram, size, &variants[i], run);
		}
	}
	close_gpu();
}

/* A BAR is vfio-pci's own; its pages are uncached, which costs nothing here. */
static void fault_path(void)
{
	struct vfio_region_info *bar;
	unsigned int i, run;

	open_gpu(false);
	check("region info of BAR1", vfio_region(tb.dev, 1, &bar));
	for (i = 0; i < num_variants && variants[i].page <= bar->size; i++) {
		for (run = 0; run < RUNS; run++) {
			measure_touch("fault", tb.ram, bar->size, &variants[i], run);
			measure_touch("fault of a BAR", bar, bar->size, &variants[i], run);
		}
	}
	free(bar);
	close_gpu();
}

/* Loads 64 bytes here and there, as guest_wander() does. */
static void wander(const char *p, unsigned long size)
{
	__u64 x = 1;
	unsigned int i, j;

	for (i = 0; i < ACCESSES; i++) {
		const char *at;

		x = x * RANDOM_MULTIPLIER + RANDOM_INCREMENT;
		at = p + (x >> 32 & (size - 1) & ~63UL);
		for (j = 0; j < 64; j += 8)
			load64(at + j);
	}
}

/* How many translations that takes, if none is forgotten: what the TLB has to hold. */
static __u64 translations(unsigned long size, unsigned long page)
{
	static bool seen[GIB / PAGE_64K];
	__u64 x = 1, count = 0;
	unsigned int i;

	memset(seen, 0, sizeof(seen));
	for (i = 0; i < ACCESSES; i++) {
		x = x * RANDOM_MULTIPLIER + RANDOM_INCREMENT;
		if (!seen[(x >> 32 & (size - 1)) / page]) {
			seen[(x >> 32 & (size - 1)) / page] = true;
			count++;
		}
	}
	return count;
}

static void random_access(void)
{
	__u64 start, end, faults;
	unsigned int i, run;
	char *p;

	open_gpu(false);
	for (i = 0; i < num_variants; i++) {
		for (run = 0; run < RUNS; run++) {
			p = map(tb.ram, GIB, &variants[i]);
			faults = minor_faults();
			start = now();
			wander(p, GIB);
			end = now();
			result("random access, first", variants[i].name, GIB, run, end - start,
			       minor_faults() - faults);
			start = now();
			wander(p, GIB);
			end = now();
			result("random access, again", variants[i].name, GIB, run, end - start,
			       translations(GIB, variants[i].page));
			unmap(p, GIB);
		}
	}
	close_gpu();
}

static void guest_runs(const char *first, const char *again,
		       int (*program)(struct guest *g))
{
	__u64 start, end;
	struct guest g;
	unsigned int i, run;
	char *p;

	open_gpu(true);
	check("making a guest", guest_create(&g, tb.group.vm, 1));
	for (i = 0; i < num_variants; i++) {
		for (run = 0; run < RUNS; run++) {
			p = map(tb.ram, GIB, &variants[i]);
			check("guest memory", guest_set_memory(tb.group.vm, GUEST_RAM, p, GIB));
			start = now();
			check("running the guest", program(&g));
			end = now();
			result(first, variants[i].name, GIB, run, end - start,
			       guest_host_pages(GUEST_RAM, GIB, 0));
			start = now();
			check("running the guest", program(&g));
			end = now();
			result(again, variants[i].name, GIB, run, end - start,
			       guest_host_pages(GUEST_RAM, GIB, 0));
			check("guest memory", guest_set_memory(tb.group.vm, GUEST_RAM, p, 0));
			unmap(p, GIB);
		}
	}
	guest_destroy(&g);
	close_gpu();
}

/* All of it, however often the kernel has to be asked. */
static void move(bool out, char *buf, unsigned long size)
{
	unsigned long done;
	ssize_t n;

	for (done = 0; done < size; done += n) {
		__u64 at = tb.ram->offset + done;

		n = out ? pread(tb.dev, buf + done, size - done, at) :
			  pwrite(tb.dev, buf + done, size - done, at);
		if (n <= 0)
			fail(out ? "pread" : "pwrite", errno);
	}
}

/* By the kernel, and through a mapping; both sides were touched before. The count is bytes. */
static void copy(void)
{
	const unsigned long size = 64 * MIB;
	char *p, *buf = anonymous(size);
	__u64 start, end;
	unsigned int run;

	if (!buf)
		fail("memory", errno);
	memset(buf, 1, size);
	for (run = 0; run < RUNS; run++) {
		open_gpu(false);
		p = map(tb.ram, size, &variants[num_variants - 1]);
		memcpy(p, buf, size);
		start = now();
		memcpy(buf, p, size);
		end = now();
		result("copy", "out, mapping", size, run, end - start, size);
		start = now();
		memcpy(p, buf, size);
		end = now();
		result("copy", "in, mapping", size, run, end - start, size);
		/* The kernel makes its own mapping now. */
		start = now();
		move(true, buf, PAGE_64K);
		end = now();
		result("copy", "out, the first", PAGE_64K, run, end - start, PAGE_64K);
		start = now();
		move(true, buf, size);
		end = now();
		result("copy", "out, pread()", size, run, end - start, size);
		start = now();
		move(false, buf, size);
		end = now();
		result("copy", "in, pwrite()", size, run, end - start, size);
		unmap(p, size);
		close_gpu();
	}
	munmap(buf, size);
}

static int walk_gib(struct guest *g)
{
	return guest_walk(g, GUEST_RAM, PAGE_64K, GIB / PAGE_64K);
}

static int wander_gib(struct guest *g)
{
	return guest_wander(g, GUEST_RAM, GIB, ACCESSES);
}

static void guest_access(void)
{
	guest_runs("guest populates", "guest, page by page, again", walk_gib);
	guest_runs("guest random access, first", "guest random access, again", wander_gib);
}

static void region_info(void)
{
	struct {
		struct vfio_region_info info;
		char capabilities[256];
	} r;
	__u64 start, end;
	unsigned int run, i;

	open_gpu(false);
	for (run = 0; run < RUNS; run++) {
		start = now();
		for (i = 0; i < CALLS; i++) {
			r.info = (struct vfio_region_info){
				.argsz = sizeof(r), .index = tb.ram->index,
			};
			check("region info", ioctl(tb.dev, VFIO_DEVICE_GET_REGION_INFO, &r) ?
			      -errno : 0);
		}
		end = now();
		result("region info", "", 0, run, end - start, CALLS);
	}
	close_gpu();
}

/* As QEMU does it: the whole aperture, anywhere. The count is how far from 1 GiB it is. */
static void map_aperture(void)
{
	const unsigned long size = 128 * GIB;
	__u64 start, mapped, end;
	unsigned int run;
	char *p;

	open_gpu(false);
	for (run = 0; run < RUNS; run++) {
		if (original)
			renew();
		start = now();
		p = vfio_map(tb.dev, tb.ram, 0, size);
		mapped = now();
		if (!p)
			fail("mapping the aperture", errno);
		munmap(p, size);
		end = now();
		result("mmap of the aperture", "", size, run, mapped - start,
		       (uintptr_t)p & (GIB - 1));
		result("munmap of the aperture", "", size, run, end - mapped, 0);
	}
	close_gpu();
}

/* What is mapped goes when memory space is turned off; the count is how much that is. */
static void zap(void)
{
	static const unsigned long sizes[] = { 0, 64 * MIB, GIB, 4 * GIB };
	__u64 start, end, faults;
	unsigned int i, j, run;
	char *p;

	open_gpu(false);
	for (i = 0; i < num_variants; i++) {
		for (j = 0; j < ARRAY_SIZE(sizes); j++) {
			for (run = 0; run < RUNS; run++) {
				p = map(tb.ram, 16 * GIB, &variants[i]);
				faults = minor_faults();
				touch(p, sizes[j]);
				faults = minor_faults() - faults;
				start = now();
				check("memory space", vfio_set_memory(tb.dev, false));
				end = now();
				check("memory space", vfio_set_memory(tb.dev, true));
				result("zap", variants[i].name, sizes[j], run, end - start, faults);
				unmap(p, 16 * GIB);
			}
		}
	}
	close_gpu();
}

/* The same with a guest that has all of the aperture. */
static void guest_zap(void)
{
	static const unsigned long sizes[] = { 0, GIB };
	const unsigned long aperture = 128 * GIB;
	const struct variant *large = &variants[num_variants - 1];
	__u64 start, end, entries;
	struct guest g;
	unsigned int j, run;
	char *p;

	open_gpu(true);
	check("making a guest", guest_create(&g, tb.group.vm, 1));
	p = map(tb.ram, aperture, large);
	check("guest memory", guest_set_memory(tb.group.vm, GUEST_RAM, p, aperture));
	for (j = 0; j < ARRAY_SIZE(sizes); j++) {
		for (run = 0; run < RUNS; run++) {
			check("running the guest",
			      guest_walk(&g, GUEST_RAM, PAGE_64K, 1 + sizes[j] / PAGE_64K));
			entries = guest_host_pages(GUEST_RAM, aperture, 0);
			start = now();
			check("memory space", vfio_set_memory(tb.dev, false));
			end = now();
			check("memory space", vfio_set_memory(tb.dev, true));
			result("guest zap", large->name, sizes[j], run, end - start, entries);
		}
	}
	for (run = 0; run < RUNS; run++) {
		start = now();
		check("guest memory", guest_set_memory(tb.group.vm, GUEST_RAM, p, 0));
		end = now();
		result("guest loses the aperture", large->name, aperture, run, end - start, 0);
		check("guest memory", guest_set_memory(tb.group.vm, GUEST_RAM, p, aperture));
	}
	unmap(p, aperture);
	guest_destroy(&g);
	close_gpu();
}

/* What a machine's process loses while a GPU is bound: pages of its own, and the machine's. */
static void shootdowns(void)
{
	unsigned int run, n;
	__u64 start, end;
	long launches;
	struct guest g;
	char *p;

	open_gpu(true);
	check("training", model_train(&tb.model));
	check("making a guest", guest_create(&g, tb.group.vm, 1));
	check("running the guest", guest_touch_tables(&g));
	/* The first one is for what memory the machine was given. */
	check("munmap", munmap(anonymous(PAGE_64K), PAGE_64K));
	for (run = 0; run < RUNS; run++) {
		launches = npu_launches();
		check("launches", launches);
		start = now();
		for (n = 0; n < CALLS; n++) {
			p = anonymous(PAGE_64K);
			*p = 1;
			munmap(p, PAGE_64K);
		}
		end = now();
		result("munmap", "beside the guest's memory", CALLS, run, end - start,
		       npu_launches() - launches);
		check("running the guest", guest_touch(&g, 0));
		launches = npu_launches();
		start = now();
		madvise(guest_page(&g, 0), PAGE_64K, MADV_DONTNEED);
		end = now();
		result("munmap", "of the guest's memory", 1, run, end - start,
		       npu_launches() - launches);
	}
	guest_destroy(&g);
	close_gpu();
}

/* Sleeps of the PCI core included. */
static void reset(void)
{
	__u64 start, end, faults;
	unsigned int i, run;
	char *p;

	open_gpu(false);
	for (i = 0; i < num_variants; i++) {
		for (run = 0; run < RUNS; run++) {
			check("training", model_train(&tb.model));
			p = map(tb.ram, 4 * GIB, &variants[i]);
			faults = minor_faults();
			touch(p, 4 * GIB);
			faults = minor_faults() - faults;
			start = now();
			if (ioctl(tb.dev, VFIO_DEVICE_RESET))
				fail("reset", errno);
			end = now();
			result("reset", variants[i].name, 4 * GIB, run, end - start, faults);
			unmap(p, 4 * GIB);
		}
	}
	close_gpu();
}

/* Until the region of the GPU's RAM is known; the PCI core's sleeps included. */
static void open_and_close(void)
{
	struct vfio_region_info *ram;
	unsigned int run;
	__u64 start, end;
	int dev;

	open_gpu(false);
	close(tb.dev);
	for (run = 0; run < RUNS; run++) {
		start = now();
		dev = vfio_device_open(&tb.group, tb.gpu->bdf);
		check("opening the GPU", dev);
		check("region info", vfio_find_gpu_ram(dev, &ram));
		end = now();
		result("open", "", 0, run, end - start, 0);
		free(ram);
		start = now();
		close(dev);
		end = now();
		result("close", "", 0, run, end - start, 0);
	}
	tb.dev = -1;
	close_gpu();
}

#define INSTANCE	"/sys/kernel/tracing/instances/measure"
#define MAX_BLOCKS	65536

/* Blocks of kernel memory that were allocated and not freed, by hashed address. */
static struct block {
	unsigned long address;
	unsigned long bytes;
} blocks[MAX_BLOCKS];

static void memory_start(void)
{
	static const char * const events[] = {
		"kmalloc", "kmalloc_node", "kmem_cache_alloc", "kmem_cache_alloc_node",
		"kfree", "kmem_cache_free",
	};
	char path[256];
	unsigned int i;

	if (mkdir(INSTANCE, 0700) && errno != EEXIST)
		fail(INSTANCE, errno);
	check("trace buffer", sys_write(INSTANCE "/buffer_size_kb", "8192"));
	for (i = 0; i < ARRAY_SIZE(events); i++) {
		snprintf(path, sizeof(path), INSTANCE "/events/kmem/%s/enable", events[i]);
		/* Newer kernels have fewer kinds of allocations. */
		if (sys_exists(path))
			check(path, sys_write(path, "1"));
	}
}

static void add_block(unsigned long address, unsigned long bytes)
{
	unsigned int i = address * 2654435761UL % MAX_BLOCKS, n;

	for (n = 0; n < MAX_BLOCKS; n++, i = (i + 1) % MAX_BLOCKS) {
		if (!blocks[i].address || blocks[i].address == address) {
			blocks[i] = (struct block){ address, bytes };
			return;
		}
	}
	fail("more allocations than expected", ENOSPC);
}

/*
 * Bytes that were allocated since memory_start() and are still in use, by whatever thread: the
 * PCI core binds devices in one of its own.
 */
static __u64 memory_stop(void)
{
	unsigned long address, bytes;
	char line[1024], *at;
	__u64 total = 0;
	unsigned int i;
	FILE *f;

	check("trace", sys_write(INSTANCE "/events/kmem/enable", "0"));
	f = fopen(INSTANCE "/trace", "re");
	if (!f)
		fail(INSTANCE "/trace", errno);
	memset(blocks, 0, sizeof(blocks));
	while (fgets(line, sizeof(line), f)) {
		at = strstr(line, " ptr=");
		if (line[0] == '#' || !at || sscanf(at, " ptr=%lx", &address) != 1)
			continue;
		at = strstr(line, " bytes_alloc=");
		if (at && sscanf(at, " bytes_alloc=%lu", &bytes) == 1)
			add_block(address, bytes);
		else
			add_block(address, 0);
	}
	fclose(f);
	rmdir(INSTANCE);
	for (i = 0; i < MAX_BLOCKS; i++)
		total += blocks[i].bytes;
	return total;
}

/* What tracing itself leaves behind. */
static __u64 memory_of_nothing(void)
{
	memory_start();
	return memory_stop();
}

static __u64 beyond(__u64 bytes, __u64 nothing)
{
	return bytes > nothing ? bytes - nothing : 0;
}

static void memory_of_mapping(const char *variant, const struct vfio_region_info *region,
			      unsigned int run)
{
	__u64 bytes, nothing = memory_of_nothing();
	char *p;

	if (original)
		renew();
	memory_start();
	p = vfio_map(tb.dev, region, 0, PAGE_64K);
	bytes = memory_stop();
	if (!p)
		fail("mapping a region", errno);
	munmap(p, PAGE_64K);
	result("memory of a mapping", variant, PAGE_64K, run, 0, beyond(bytes, nothing));
}

static void memory_of_binding(const char *bdf, const char *driver, const char *what,
			      unsigned int run)
{
	__u64 bytes, nothing = memory_of_nothing();

	check("unbinding", driver_unbind(bdf));
	memory_start();
	check("binding", driver_bind(bdf, driver));
	bytes = memory_stop();
	result("memory of a device", what, 0, run, 0, beyond(bytes, nothing));
}

/* Small objects of the kernel (slab), without page tables. */
static void memory(void)
{
	struct vfio_region_info *bar;
	unsigned int run;

	open_gpu(false);
	check("region info of BAR1", vfio_region(tb.dev, 1, &bar));
	for (run = 0; run < RUNS; run++) {
		memory_of_mapping("GPU RAM", tb.ram, run);
		memory_of_mapping("BAR", bar, run);
	}
	free(bar);
	close_gpu();
	for (run = 0; run < RUNS; run++) {
		if (!original) {
			memory_of_binding(tb.gpu->bdf, DRIVER, "GPU", run);
			memory_of_binding(tb.gpu->link[0].bdf, DRIVER, "bridge", run);
		}
		memory_of_binding(tb.gpu->bdf, "vfio-pci", "GPU, vfio-pci", run);
		memory_of_binding(tb.gpu->link[0].bdf, "vfio-pci", "bridge, vfio-pci", run);
	}
}

static void unbind(void)
{
	__u64 start, end;
	unsigned int run;

	open_gpu(false);
	close_gpu();
	for (run = 0; run < RUNS; run++) {
		start = now();
		check("unbinding", driver_unbind(tb.gpu->bdf));
		end = now();
		result("unbind", "", 0, run, end - start, 0);
		start = now();
		check("binding", driver_bind(tb.gpu->bdf, original ? "vfio-pci" : DRIVER));
		end = now();
		result("bind", "", 0, run, end - start, 0);
	}
}

static const struct benchmark {
	const char *name;
	void (*measure)(void);
	/*
	 * The original removes no mapping when memory space goes, and on its Linux 5.10 no guest
	 * starts in the emulated host (KVM_RUN: ENOENT).
	 */
	bool not_of_original;
} benchmarks[] = {
	{ "region-info", region_info, false },
	{ "open", open_and_close, false },
	{ "map", map_aperture, false },
	{ "unbind", unbind, false },
	{ "memory", memory, false },
	{ "fault", fault_path, false },
	{ "random", random_access, false },
	{ "copy", copy, true },
	{ "guest", guest_access, true },
	{ "zap", zap, true },
	{ "guest-zap", guest_zap, true },
	{ "shootdowns", shootdowns, true },
	{ "reset", reset, true },
	{ "populate", populate, false },
};

static bool is_wanted(const char *name, int argc, char **argv)
{
	int i;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], name))
			return true;
	}
	return argc < 2;
}

int main(int argc, char **argv)
{
	struct utsname host;
	cpu_set_t one;
	size_t i;

	/* The last CPU has fewer interrupts. */
	CPU_ZERO(&one);
	CPU_SET(sysconf(_SC_NPROCESSORS_ONLN) - 1, &one);
	sched_setaffinity(0, sizeof(one), &one);

	original = !sys_exists("/sys/bus/pci/drivers/" DRIVER);
	if (original) {
		num_variants = 1;
		setenv("DRIVER", "vfio-pci", 1);
	}
	uname(&host);
	printf("# %s %s\n", original ? "vfio-pci" : DRIVER, host.release);
	for (i = 0; i < ARRAY_SIZE(benchmarks); i++) {
		const struct benchmark *b = &benchmarks[i];

		if (is_wanted(b->name, argc, argv) && !(original && b->not_of_original))
			b->measure();
	}
	return 0;
}

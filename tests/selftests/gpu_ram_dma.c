// SPDX-License-Identifier: GPL-2.0
/*
 * GPU RAM as a target of DMA: the registration that mmap() makes and the TCEs that VFIO
 * builds on it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include "kselftest_harness.h"

#include "bind.h"
#include "scom.h"
#include "sys.h"
#include "testbed.h"

#define MAP_SIZE	(4 * PAGE_64K)
#define MAP_OFFSET	(37 * PAGE_64K)

FIXTURE(dma)
{
	struct testbed tb;
	/* Ordinary memory: a container accepts no mapping before something was registered. */
	void *ram;
};

FIXTURE_SETUP(dma)
{
	ASSERT_EQ(0, testbed_open(&self->tb, 0, false))
		TH_LOG("%s", self->tb.why);
	self->ram = anonymous(PAGE_64K);
	ASSERT_NE(NULL, self->ram);
	ASSERT_EQ(0, vfio_dma_register(&self->tb.group, self->ram, PAGE_64K));
}

FIXTURE_TEARDOWN(dma)
{
	EXPECT_EQ(0, testbed_close(&self->tb));
}

/*
 * Defect 4: the original registered the start of the aperture whatever was mapped; DMA then
 * went elsewhere.
 */
TEST_F(dma, defect_4_tce_holds_the_address_of_the_page)
{
	const __u64 iova = 5 * PAGE_64K;
	char *p = vfio_map(self->tb.dev, self->tb.ram, MAP_OFFSET, MAP_SIZE);
	__u64 i;

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p + PAGE_64K, iova, 2 * PAGE_64K));
	for (i = 0; i < 2; i++) {
		const __u64 hpa = self->tb.gpu->aperture + MAP_OFFSET + (1 + i) * PAGE_64K;

		EXPECT_LT(0, testbed_tves_with(&self->tb, iova + i * PAGE_64K,
					       hpa | TCE_READ_WRITE));
	}
	ASSERT_EQ(0, vfio_dma_unmap(&self->tb.group, iova, 2 * PAGE_64K));
	EXPECT_LT(0, testbed_tves_with(&self->tb, iova, 0));
	EXPECT_EQ(0, munmap(p, MAP_SIZE));
}

/* Two mappings of different parts keep their own physical addresses. */
TEST_F(dma, defect_4_two_mappings)
{
	char *p = vfio_map(self->tb.dev, self->tb.ram, 0, MAP_SIZE);
	char *q = vfio_map(self->tb.dev, self->tb.ram, self->tb.ram->size - MAP_SIZE, MAP_SIZE);
	__u64 end;

	ASSERT_NE(NULL, p);
	ASSERT_NE(NULL, q);
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, MAP_SIZE));
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, q, MAP_SIZE, MAP_SIZE));
	EXPECT_LT(0, testbed_tves_with(&self->tb, 0, self->tb.gpu->aperture | TCE_READ_WRITE));
	end = self->tb.gpu->aperture + self->tb.ram->size;
	EXPECT_LT(0, testbed_tves_with(&self->tb, 2 * MAP_SIZE - PAGE_64K,
				       (end - PAGE_64K) | TCE_READ_WRITE));
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, 2 * MAP_SIZE));
}

/* Ordinary memory for comparison: the same walk must not find it inside an aperture. */
TEST_F(dma, ordinary_memory_is_not_in_the_aperture)
{
	const struct dt_bridge *b = &self->tb.gpu->link[0];
	unsigned int pe, found = 0;
	__u64 tve, tce;

	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, self->ram, 0, PAGE_64K));
	for (pe = 0; pe < NPU_NUM_TVES; pe++) {
		ASSERT_EQ(0, npu_read_tve(b->chip, b->xscom_base, pe, &tve));
		if (tve_lookup(tve, 0, &tce))
			continue;
		found++;
		EXPECT_EQ(TCE_READ_WRITE, tce & TCE_READ_WRITE);
		EXPECT_GT(self->tb.gpu->aperture - 2 * self->tb.ram->size, tce);
	}
	EXPECT_LT(0U, found);
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, PAGE_64K));
}

/*
 * QEMU takes the registration away and makes it again, for the whole range, at every reset
 * of its PHB.
 */
TEST_F(dma, whole_aperture_registers_again_and_again)
{
	const __u64 size = self->tb.ram->size;
	void *p = vfio_map(self->tb.dev, self->tb.ram, 0, size);
	int i;

	ASSERT_NE(NULL, p);
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, vfio_dma_register(&self->tb.group, p, size))
			TH_LOG("round %d", i);
		EXPECT_EQ(-EBUSY, vfio_dma_register(&self->tb.group, p, size));
		ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, 16 * PAGE_64K));
		ASSERT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, 16 * PAGE_64K));
		ASSERT_EQ(0, vfio_dma_unregister(&self->tb.group, p, size));
	}
}

/* What is not exactly the mapping is ordinary memory to the container, and cannot be pinned. */
TEST_F(dma, part_of_a_mapping_does_not_register)
{
	char *p = vfio_map(self->tb.dev, self->tb.ram, 0, MAP_SIZE);

	ASSERT_NE(NULL, p);
	EXPECT_NE(0, vfio_dma_register(&self->tb.group, p, PAGE_64K));
	EXPECT_NE(0, vfio_dma_register(&self->tb.group, p + PAGE_64K, MAP_SIZE - PAGE_64K));
	EXPECT_EQ(0, vfio_dma_register(&self->tb.group, p, MAP_SIZE));
	EXPECT_EQ(0, vfio_dma_unregister(&self->tb.group, p, MAP_SIZE));
}

/* The registration goes with the mapping; before and after, the address is of no use. */
TEST_F(dma, registration_follows_the_mapping)
{
	void *p = vfio_map(self->tb.dev, self->tb.ram, 0, MAP_SIZE);

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, MAP_SIZE));
	ASSERT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, MAP_SIZE));
	ASSERT_EQ(0, munmap(p, MAP_SIZE));
	EXPECT_EQ(-EINVAL, vfio_dma_map(&self->tb.group, p, 0, MAP_SIZE));
}

/* Waits for the driver to drop what it retained: its table of registrations runs empty. */
static int wait_for_no_registration(const struct testbed *tb)
{
	char path[128], text[4096];
	int i, n = 0;

	snprintf(path, sizeof(path), DEBUGFS "/%s/mappings", tb->gpu->bdf);
	for (i = 0; i < 50; i++) {
		n = sys_read(path, text, sizeof(text));
		if (n <= 0)
			return n;
		usleep(100000);
	}
	return -ETIMEDOUT;
}

/*
 * Defect 14: munmap() with a TCE still there. No warning, the TCE keeps pointing at the GPU's
 * RAM, and when it is gone so is the registration, soon: ordinary memory at that address is
 * then ordinary memory.
 */
TEST_F(dma, defect_14_munmap_with_a_live_tce)
{
	void *p = vfio_map(self->tb.dev, self->tb.ram, MAP_OFFSET, MAP_SIZE);
	const __u64 expected = (self->tb.gpu->aperture + MAP_OFFSET) | TCE_READ_WRITE;
	const struct dt_bridge *b = &self->tb.gpu->link[0];
	unsigned int pe, found = 0;
	__u64 tve, tce;
	void *q;

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, MAP_SIZE));
	ASSERT_EQ(0, munmap(p, MAP_SIZE));
	usleep(500000);
	EXPECT_LT(0, testbed_tves_with(&self->tb, 0, expected));
	ASSERT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, MAP_SIZE));
	EXPECT_LT(0, testbed_tves_with(&self->tb, 0, 0));
	ASSERT_EQ(0, wait_for_no_registration(&self->tb));

	q = mmap(p, MAP_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0);
	ASSERT_EQ(p, q);
	memset(p, 1, MAP_SIZE);
	ASSERT_EQ(0, vfio_dma_register(&self->tb.group, p, MAP_SIZE));
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, MAP_SIZE));
	for (pe = 0; pe < NPU_NUM_TVES; pe++) {
		ASSERT_EQ(0, npu_read_tve(b->chip, b->xscom_base, pe, &tve));
		if (tve_lookup(tve, 0, &tce))
			continue;
		found++;
		EXPECT_NE(expected, tce)
			TH_LOG("memory of the process is still taken for GPU RAM");
	}
	EXPECT_LT(0U, found);
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, MAP_SIZE));
	EXPECT_EQ(0, vfio_dma_unregister(&self->tb.group, p, MAP_SIZE));
}

struct look_up {
	const struct vfio_group *group;
	const void *at;
	atomic_bool stop;
	atomic_uint looked;
	/* What a look-up gave that found something: none may. */
	int ret;
};

static void *look_up(void *arg)
{
	struct look_up *l = arg;

	do {
		l->ret = vfio_dma_unregister(l->group, l->at, MAP_SIZE);
		atomic_fetch_add(&l->looked, 1);
	} while (l->ret == -ENOENT && !atomic_load(&l->stop));
	return NULL;
}

/*
 * A container that looks for what it has not registered has a hold of it for a moment, which must
 * not keep a registration for good that waits for its last TCE.
 */
TEST_F_TIMEOUT(dma, defect_14_looked_up_while_it_waits, 120)
{
	void *p = vfio_map(self->tb.dev, self->tb.ram, MAP_OFFSET, MAP_SIZE);
	struct look_up l = { .group = &self->tb.group, .at = p };
	unsigned int i, looked;
	pthread_t thread;

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, MAP_SIZE));
	ASSERT_EQ(0, munmap(p, MAP_SIZE));
	ASSERT_EQ(0, pthread_create(&thread, NULL, look_up, &l));
	while (!atomic_load(&l.looked))
		usleep(100);
	looked = atomic_load(&l.looked);
	/* Each of them has the driver try again. */
	for (i = 0; i < 5000; i++) {
		void *q = vfio_map(self->tb.dev, self->tb.ram, 0, PAGE_64K);

		if (!q || munmap(q, PAGE_64K))
			break;
	}
	EXPECT_EQ(5000U, i)
		TH_LOG("%s", strerror(errno));
	/* It looked meanwhile, and to the end. */
	EXPECT_LT(looked + 100, atomic_load(&l.looked));
	atomic_store(&l.stop, true);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(-ENOENT, l.ret);
	ASSERT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, MAP_SIZE));
	EXPECT_EQ(0, wait_for_no_registration(&self->tb));
}

/* How often the kernel log says @text of the GPU and then who this process is. */
static int log_names_us(int kmsg, const struct testbed *tb, const char *text)
{
	char line[256];

	snprintf(line, sizeof(line), DRIVER " %s: %s process %d (gpu_ram_dma)", tb->gpu->bdf, text,
		 getpid());
	return kmsg_count(kmsg, line);
}

/*
 * A TCE of a mapping that is gone does not keep the driver from being unbound. It is still known
 * when the driver is back, and is let go in the end. Until then the module has to stay.
 */
TEST_F_TIMEOUT(dma, unbinding_does_not_wait_for_a_live_tce, 120)
{
	void *p = vfio_map(self->tb.dev, self->tb.ram, MAP_OFFSET, MAP_SIZE);
	const __u64 expected = (self->tb.gpu->aperture + MAP_OFFSET) | TCE_READ_WRITE;
	int kmsg = kmsg_open();

	ASSERT_LE(0, kmsg);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, MAP_SIZE));
	ASSERT_EQ(0, munmap(p, MAP_SIZE));
	ASSERT_EQ(0, close(self->tb.dev));
	self->tb.dev = -1;
	ASSERT_EQ(0, driver_unbind(self->tb.gpu->bdf));
	EXPECT_EQ(1, log_names_us(kmsg, &self->tb, "GPU RAM is still mapped for DMA by"));
	EXPECT_LT(0, testbed_tves_with(&self->tb, 0, expected));
	EXPECT_EQ(-EWOULDBLOCK, module_unload());

	ASSERT_EQ(0, driver_bind(self->tb.gpu->bdf, DRIVER));
	EXPECT_EQ(1, testbed_mappings(&self->tb, p));
	self->tb.dev = vfio_device_open(&self->tb.group, self->tb.gpu->bdf);
	EXPECT_LE(0, self->tb.dev)
		TH_LOG("a TCE of its own: %s", strerror(-self->tb.dev));
	close(self->tb.dev);
	self->tb.dev = -1;

	ASSERT_EQ(0, driver_unbind(self->tb.gpu->bdf));
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, MAP_SIZE));
	ASSERT_EQ(0, driver_bind(self->tb.gpu->bdf, DRIVER));
	EXPECT_EQ(0, wait_for_no_registration(&self->tb));
	EXPECT_EQ(0, module_unload());
	EXPECT_EQ(0, module_load());
	close(kmsg);
}

/* The same address and memory again, while a TCE of the first mapping lives. */
TEST_F(dma, defect_14_maps_again_under_a_live_tce)
{
	void *p = vfio_map(self->tb.dev, self->tb.ram, MAP_OFFSET, MAP_SIZE);
	const __u64 expected = (self->tb.gpu->aperture + MAP_OFFSET) | TCE_READ_WRITE;
	__u64 value;
	void *q;

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, PAGE_64K));
	ASSERT_EQ(0, munmap(p, MAP_SIZE));
	q = mmap(p, MAP_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, self->tb.dev,
		 self->tb.ram->offset + MAP_OFFSET);
	ASSERT_EQ(p, q)
		TH_LOG("%s", strerror(errno));
	EXPECT_EQ(0, try_write64(p, 3));
	EXPECT_EQ(0, try_read64(p, &value));
	EXPECT_EQ(3ULL, value);
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, PAGE_64K));
	EXPECT_EQ(0, vfio_dma_map(&self->tb.group, p, 0, PAGE_64K));
	EXPECT_LT(0, testbed_tves_with(&self->tb, 0, expected));
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, PAGE_64K));
	EXPECT_EQ(0, munmap(p, MAP_SIZE));
	EXPECT_EQ(0, wait_for_no_registration(&self->tb));
}

/* Exit status of a child that opens the GPU: 0, or the errno of what failed. */
static int open_in_a_child(const char *bdf, int group)
{
	struct vfio_group g;
	int ret, status;
	pid_t child = fork();

	if (child < 0)
		return -errno;
	if (!child) {
		ret = vfio_group_open(&g, group, false);
		ret = ret ?: vfio_device_open(&g, bdf);
		_exit(ret < 0 ? -ret : 0);
	}
	if (waitpid(child, &status, 0) != child || !WIFEXITED(status))
		return -ECHILD;
	return WEXITSTATUS(status);
}

/*
 * Defect 15: a second container, of another group, keeps a TCE to this GPU's RAM after the GPU
 * was closed. Nobody else gets the GPU before that TCE is gone.
 */
TEST_F_TIMEOUT(dma, defect_15_tce_of_another_container, 120)
{
	const struct dt_topology *t = &self->tb.topo;
	int other = -1, group = self->tb.group.id;
	struct vfio_group second;
	unsigned int i;
	int kmsg;
	void *p;

	for (i = 0; i < t->num_gpus && other < 0; i++) {
		if (pci_iommu_group(t->gpu[i].bdf) != group)
			other = pci_iommu_group(t->gpu[i].bdf);
	}
	if (other < 0)
		SKIP(return, "one NPU only: no second group (boot with --chips 2)");

	ASSERT_EQ(0, vfio_group_open(&second, other, false));
	p = vfio_map(self->tb.dev, self->tb.ram, 0, MAP_SIZE);
	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, vfio_dma_register(&second, p, MAP_SIZE));
	ASSERT_EQ(0, vfio_dma_map(&second, p, 0, MAP_SIZE));
	ASSERT_EQ(0, munmap(p, MAP_SIZE));
	close(self->tb.dev);
	self->tb.dev = -1;
	vfio_group_close(&self->tb.group);

	kmsg = kmsg_open();
	ASSERT_LE(0, kmsg);
	EXPECT_EQ(EBUSY, open_in_a_child(self->tb.gpu->bdf, group))
		TH_LOG("somebody else opened the GPU while a TCE reaches its RAM");
	EXPECT_EQ(1, log_names_us(kmsg, &self->tb, "GPU RAM is still mapped for DMA by"));
	close(kmsg);
	/* The driver may have been away meanwhile. */
	EXPECT_EQ(0, driver_unbind(self->tb.gpu->bdf));
	EXPECT_EQ(0, driver_bind(self->tb.gpu->bdf, DRIVER));
	EXPECT_EQ(EBUSY, open_in_a_child(self->tb.gpu->bdf, group))
		TH_LOG("binding the driver anew makes it forget a TCE");
	EXPECT_EQ(0, vfio_dma_unmap(&second, 0, MAP_SIZE));
	EXPECT_EQ(0, vfio_dma_unregister(&second, p, MAP_SIZE));
	EXPECT_EQ(0, open_in_a_child(self->tb.gpu->bdf, group));
	vfio_group_close(&second);
}

/*
 * Defect 14, as it happens when a VM is killed: everything goes in the order in which the
 * kernel drops it.
 */
TEST_F(dma, defect_14_process_dies_with_live_tces)
{
	int group = self->tb.group.id, status, i;
	struct vfio_group g;
	pid_t child;

	close(self->tb.dev);
	self->tb.dev = -1;
	vfio_group_close(&self->tb.group);

	for (i = 0; i < 4; i++) {
		child = fork();
		ASSERT_LE(0, child);
		if (!child) {
			struct testbed tb;
			char *p;

			if (testbed_open(&tb, 0, i & 1))
				_exit(1);
			p = vfio_map(tb.dev, tb.ram, MAP_OFFSET, MAP_SIZE);
			if (!p || vfio_dma_register(&tb.group, p, MAP_SIZE) ||
			    vfio_dma_map(&tb.group, p, 0, MAP_SIZE) || try_write64(p, 1))
				_exit(2);
			if (i & 2)
				munmap(p, MAP_SIZE);
			kill(getpid(), SIGKILL);
		}
		ASSERT_EQ(child, waitpid(child, &status, 0));
		EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
			TH_LOG("round %d: wait status %#x", i, status);
		ASSERT_EQ(0, vfio_group_open(&g, group, false));
		vfio_group_close(&g);
	}
}

/*
 * Defect 3: a TCE page larger than what address and memory share must not be reached; such
 * windows do not exist.
 */
TEST_F(dma, defect_3_tces_of_4k_and_64k_at_any_page)
{
	struct vfio_group *group = &self->tb.group;
	char *p = vfio_map(self->tb.dev, self->tb.ram, 3 * PAGE_64K, 5 * PAGE_64K);
	__u64 iova, hpa;

	ASSERT_NE(NULL, p);
	ASSERT_EQ(0, vfio_group_replace_window(group, 16));
	EXPECT_EQ(0, vfio_dma_map(group, p + PAGE_64K, 0, 3 * PAGE_64K));
	EXPECT_EQ(-EINVAL, vfio_dma_map(&self->tb.group, p + 4096, 0, PAGE_64K));
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, 0, 3 * PAGE_64K));

	ASSERT_EQ(0, vfio_group_replace_window(group, 12));
	iova = group->window_start + 8192;
	hpa = self->tb.gpu->aperture + 4 * PAGE_64K + 4096;
	ASSERT_EQ(0, vfio_dma_map(&self->tb.group, p + PAGE_64K + 4096, iova, 4096));
	EXPECT_LT(0, testbed_tves_with(&self->tb, iova, hpa | TCE_READ_WRITE));
	EXPECT_EQ(0, vfio_dma_unmap(&self->tb.group, iova, 4096));
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * What a driver of GPUs on NVLink2 does in a guest whose kernel still knows of NVLinks, up to
 * Linux 5.12: it asks the platform for the GPU's links and the links' GPU, reads where the GPU's
 * RAM is and in which NUMA node, takes the ATSD registers that the virtual PHB has, and keeps GPUs
 * informed of what changes in the address spaces of processes that let GPUs use them (ATS).
 *
 * It drives no GPU: test programs use the emulated GPU's engine themselves.
 */
#include <linux/fs.h>
#include <linux/io.h>
#include <linux/miscdevice.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/of.h>
#include <linux/of_address.h>
#include <linux/pci.h>
#include <linux/proc_fs.h>
#include <linux/sched/mm.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>

#include <asm/mmu_context.h>
#include <asm/pci-bridge.h>

#include "nvlink_guest.h"

#define MAX_GPUS	6
#define MAX_LINKS	3
#define MAX_ATSD	16

struct link {
	struct pci_dev *dev;
	/* The GPU, as the platform says. */
	struct pci_dev *gpu;
	u32 speed;
	u64 tgt;
	u64 memory;
};

struct gpu {
	struct pci_dev *dev;
	unsigned int num_links;
	struct link link[MAX_LINKS];
	struct resource memory;
	int node;
};

static struct gpu gpus[MAX_GPUS];
static unsigned int num_gpus;

#define ATSD_SIZE	32
#define ATSD_LAUNCH	0x00
#define ATSD_AVA	0x08
#define ATSD_STATUS	0x10

/* Of LAUNCH: translations of one process (PRS, PID), all of them (IS) or those of a page. */
#define LAUNCH_PRS	PPC_BIT(13)
#define LAUNCH_PID(p)	((u64)(p) << PPC_BITLSHIFT(38))
#define LAUNCH_IS_PID	PPC_BIT(12)
#define LAUNCH_AP_64K	(5ULL << PPC_BITLSHIFT(17))

static void __iomem *atsd[MAX_ATSD];
static unsigned int num_atsd;
/* Which of the registers is free: one launches at a time. */
static DEFINE_SPINLOCK(atsd_lock);

static void launch_and_wait(u64 what)
{
	/* The page tables have changed before the GPU asks again. */
	mb();
	__raw_writeq_be(what, atsd[0] + ATSD_LAUNCH);
	/* It is launched before its status is asked for. */
	mb();
	while (__raw_readq(atsd[0] + ATSD_STATUS))
		cpu_relax();
}

/* Has GPUs forget a page of a process, or everything. A register reaches all of the guest's. */
static void launch(u32 pasid, bool page, u64 address)
{
	const u64 flush = LAUNCH_PRS | LAUNCH_IS_PID;
	u64 what = LAUNCH_PRS | LAUNCH_PID(pasid);
	unsigned long flags;

	spin_lock_irqsave(&atsd_lock, flags);
	if (page) {
		__raw_writeq_be(address, atsd[0] + ATSD_AVA);
		eieio();
		what |= LAUNCH_AP_64K;
	} else {
		what |= LAUNCH_IS_PID;
	}
	launch_and_wait(what);
	/* Accesses by what is forgotten have ended after two more, of no process. */
	launch_and_wait(flush);
	launch_and_wait(flush);
	spin_unlock_irqrestore(&atsd_lock, flags);
}

/* An open file, and the address space that it watches. */
struct watch {
	struct mmu_notifier notifier;
	/* NULL before NVLINK_GUEST_WATCH. */
	struct mm_struct *mm;
	u32 pasid;
	atomic_t launched;
	/* One command at a time. */
	struct mutex lock;
};

static void invalidate_range(struct mmu_notifier *notifier, struct mm_struct *mm,
			     unsigned long start, unsigned long end)
{
	struct watch *watch = container_of(notifier, struct watch, notifier);

	/* The vendor's driver names pages where there are few of them, too. */
	if (IS_ENABLED(CONFIG_PPC_64K_PAGES) && end - start <= PAGE_SIZE && PAGE_ALIGNED(start))
		launch(watch->pasid, true, start);
	else
		launch(watch->pasid, false, 0);
	atomic_inc(&watch->launched);
}

static void release(struct mmu_notifier *notifier, struct mm_struct *mm)
{
	invalidate_range(notifier, mm, 0, ULONG_MAX);
}

static const struct mmu_notifier_ops notifier_ops = {
	.invalidate_range = invalidate_range,
	.release = release,
};

static int watch_open(struct inode *inode, struct file *file)
{
	struct watch *watch = kzalloc(sizeof(*watch), GFP_KERNEL);

	if (!watch)
		return -ENOMEM;
	mutex_init(&watch->lock);
	watch->notifier.ops = &notifier_ops;
	file->private_data = watch;
	return 0;
}

static int begin(struct watch *watch)
{
	int ret;

	if (watch->mm)
		return -EBUSY;
	if (!num_atsd)
		return -ENODEV;
	/* The PID register of the processor, and what its page tables are found by. */
	watch->pasid = current->mm->context.id;
	ret = mmu_notifier_register(&watch->notifier, current->mm);
	if (ret)
		return ret;
	mmgrab(current->mm);
	watch->mm = current->mm;
	/* From now on the processor's own invalidations reach beyond it, too. */
	mm_context_add_copro(watch->mm);
	return 0;
}

static long watch_ioctl(struct file *file, unsigned int command, unsigned long argument)
{
	struct watch *watch = file->private_data;
	u32 value = 0;
	int ret = 0;

	mutex_lock(&watch->lock);
	if (command == NVLINK_GUEST_WATCH) {
		ret = begin(watch);
		value = watch->pasid;
	} else if (command == NVLINK_GUEST_LAUNCHED && watch->mm) {
		value = atomic_read(&watch->launched);
	} else {
		ret = -ENOTTY;
	}
	mutex_unlock(&watch->lock);
	return ret ?: put_user(value, (u32 __user *)argument);
}

static int watch_release(struct inode *inode, struct file *file)
{
	struct watch *watch = file->private_data;

	if (watch->mm) {
		mm_context_remove_copro(watch->mm);
		mmu_notifier_unregister(&watch->notifier, watch->mm);
		mmdrop(watch->mm);
	}
	kfree(watch);
	return 0;
}

static const struct file_operations watch_fops = {
	.owner = THIS_MODULE,
	.open = watch_open,
	.release = watch_release,
	.unlocked_ioctl = watch_ioctl,
	.llseek = noop_llseek,
};

static struct miscdevice watch_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "nvlink_guest",
	.fops = &watch_fops,
};

static int show(struct seq_file *s, void *unused)
{
	unsigned int i, j;

	for (i = 0; i < num_gpus; i++) {
		const struct gpu *gpu = &gpus[i];

		seq_printf(s, "gpu %s links %u memory %#llx %#llx node %d\n",
			   pci_name(gpu->dev), gpu->num_links, gpu->memory.start,
			   resource_size(&gpu->memory), gpu->node);
		for (j = 0; j < gpu->num_links; j++) {
			const struct link *link = &gpu->link[j];

			seq_printf(s, "link %s gpu %s speed %u tgt %#llx memory %#llx\n",
				   pci_name(link->dev), link->gpu ? pci_name(link->gpu) : "none",
				   link->speed, link->tgt, link->memory);
		}
	}
	seq_printf(s, "atsd %u\n", num_atsd);
	return 0;
}

/* Where the RAM of a link's GPU is, and in which node. */
static int read_memory(struct pci_dev *link, struct resource *memory, int *node)
{
	struct device_node *dn = of_parse_phandle(link->dev.of_node, "memory-region", 0);
	int ret;

	if (!dn)
		return -ENODEV;
	ret = of_address_to_resource(dn, 0, memory);
	*node = of_node_to_nid(dn);
	of_node_put(dn);
	return ret;
}

static int read_gpu(struct gpu *gpu)
{
	int ret;

	/* One more than there may be, which would be too many. */
	for (gpu->num_links = 0; gpu->num_links <= MAX_LINKS; gpu->num_links++) {
		struct pci_dev *dev = pnv_pci_get_npu_dev(gpu->dev, gpu->num_links);
		struct device_node *dn;
		struct resource memory;
		struct link *link;
		int node;

		if (!dev)
			break;
		if (gpu->num_links == MAX_LINKS)
			return -E2BIG;
		link = &gpu->link[gpu->num_links];
		link->dev = dev;
		link->gpu = pnv_pci_get_gpu_dev(dev);
		dn = dev->dev.of_node;
		ret = of_property_read_u32(dn, "ibm,nvlink-speed", &link->speed);
		ret = ret ?: of_property_read_u64(dn, "ibm,device-tgt-addr", &link->tgt);
		ret = ret ?: read_memory(dev, &memory, &node);
		if (ret)
			return ret;
		link->memory = memory.start;
		if (!gpu->num_links) {
			gpu->memory = memory;
			gpu->node = node;
		}
	}
	return 0;
}

/* The registers of the virtual PHB that has the link. */
static int map_atsd(struct pci_dev *link)
{
	struct device_node *dn = pci_bus_to_host(link->bus)->dn;
	int count = of_property_count_elems_of_size(dn, "ibm,mmio-atsd", sizeof(u64));
	u64 address;
	int i;

	if (count < 0 || count > MAX_ATSD)
		return count < 0 ? count : -E2BIG;
	for (i = 0; i < count; i++) {
		if (of_property_read_u64_index(dn, "ibm,mmio-atsd", i, &address))
			return -EINVAL;
		atsd[num_atsd] = ioremap(address, ATSD_SIZE);
		if (!atsd[num_atsd])
			return -ENOMEM;
		num_atsd++;
	}
	return 0;
}

static void forget(void)
{
	while (num_atsd)
		iounmap(atsd[--num_atsd]);
	while (num_gpus)
		pci_dev_put(gpus[--num_gpus].dev);
}

static int __init nvlink_guest_init(void)
{
	struct pci_dev *dev = NULL;
	int ret = 0;

	while (!ret && (dev = pci_get_device(PCI_VENDOR_ID_NVIDIA, PCI_ANY_ID, dev))) {
		if (num_gpus == MAX_GPUS) {
			pci_dev_put(dev);
			ret = -E2BIG;
			break;
		}
		gpus[num_gpus].dev = pci_dev_get(dev);
		ret = read_gpu(&gpus[num_gpus++]);
	}
	if (!ret && num_gpus && gpus[0].num_links)
		ret = map_atsd(gpus[0].link[0].dev);
	if (ret)
		goto failed;
	ret = -ENOMEM;
	if (!proc_create_single("nvlink_guest", 0444, NULL, show))
		goto failed;
	ret = misc_register(&watch_device);
	if (ret) {
		remove_proc_entry("nvlink_guest", NULL);
		goto failed;
	}
	return 0;

failed:
	forget();
	return ret;
}

static void __exit nvlink_guest_exit(void)
{
	misc_deregister(&watch_device);
	remove_proc_entry("nvlink_guest", NULL);
	forget();
}

module_init(nvlink_guest_init);
module_exit(nvlink_guest_exit);
MODULE_DESCRIPTION("NVLinks, GPU RAM and ATS as a driver of GPUs uses them in a guest");
MODULE_LICENSE("GPL");

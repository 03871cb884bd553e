// SPDX-License-Identifier: GPL-2.0
/*
 * Functions around C macros and inline functions, for Rust to call.
 *
 * One call each and no policy: whatever decides something is Rust.
 */
#include <linux/interval_tree.h>
#include <linux/io.h>
#include <linux/kvm_host.h>
#include <linux/memory.h>
#include <linux/memory_hotplug.h>
#include <linux/module.h>
#include <linux/pm_runtime.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>
#include <linux/vmalloc.h>
#include <linux/wait_bit.h>
#include <asm/firmware.h>
#include <asm/kvm_ppc.h>
#include <asm/opal.h>
#include <asm/tlbflush.h>

#include "nvlink2_helpers.h"

bool nvlink2_module_get(void)
{
	return try_module_get(THIS_MODULE);
}

void nvlink2_module_put(void)
{
	module_put(THIS_MODULE);
}

/* @name has TASK_COMM_LEN bytes. */
void nvlink2_task_name(struct task_struct *task, char *name)
{
	strscpy_pad(name, task->comm, TASK_COMM_LEN);
}

/* A task keeps its signal_struct for as long as it exists itself. */
bool nvlink2_task_has_ended(struct task_struct *task)
{
	return !atomic_read(&task->signal->live);
}

bool nvlink2_platform_is_powernv(void)
{
	return firmware_has_feature(FW_FEATURE_OPAL);
}

bool nvlink2_opal_has_npu_calls(void)
{
	return opal_check_token(OPAL_NPU_MAP_LPAR) && opal_check_token(OPAL_NPU_INIT_CONTEXT) &&
	       opal_check_token(OPAL_NPU_DESTROY_CONTEXT);
}

s64 nvlink2_opal_map_lpar(u64 phb, u16 bdfn, u64 lpid)
{
	return opal_npu_map_lpar(phb, bdfn, lpid, 0);
}

s64 nvlink2_opal_init_context(u64 phb, u64 msr, u16 bdfn)
{
	return opal_npu_init_context(phb, 0, msr, bdfn);
}

s64 nvlink2_opal_destroy_context(u64 phb, u16 bdfn)
{
	return opal_npu_destroy_context(phb, 0, bdfn);
}

int nvlink2_opal_errno(s64 code)
{
	return opal_error_code(code);
}

void nvlink2_radix_flush_all_lpid(u32 lpid)
{
	radix__flush_all_lpid(lpid);
}

u16 nvlink2_pci_dev_id(struct pci_dev *pdev)
{
	return pci_dev_id(pdev);
}

struct device_node *nvlink2_pci_of_node(struct pci_dev *pdev)
{
	return of_node_get(pci_device_to_OF_node(pdev));
}

struct device_node *nvlink2_of_node_get(struct device_node *node)
{
	return of_node_get(node);
}

void nvlink2_of_node_put(struct device_node *node)
{
	of_node_put(node);
}

struct pci_dev *nvlink2_pci_of_node_find(struct device_node *node)
{
	struct device *dev = bus_find_device_by_of_node(&pci_bus_type, node);

	return dev ? to_pci_dev(dev) : NULL;
}

void nvlink2_pm_get(struct device *dev)
{
	pm_runtime_get_noresume(dev);
}

void nvlink2_pm_put(struct device *dev)
{
	pm_runtime_put(dev);
}

void nvlink2_init_delayed_work(struct delayed_work *work, work_func_t func)
{
	INIT_DELAYED_WORK(work, func);
}

bool nvlink2_queue_delayed_work(struct delayed_work *work, unsigned int msecs)
{
	return schedule_delayed_work(work, msecs_to_jiffies(msecs));
}

int nvlink2_register_pfn_address_space(struct pfn_address_space *space)
{
	return register_pfn_address_space(space);
}

void nvlink2_unregister_pfn_address_space(struct pfn_address_space *space)
{
	unregister_pfn_address_space(space);
}

void nvlink2_vma_set_pfnmap(struct vm_area_struct *vma)
{
	vm_flags_set(vma, VM_PFNMAP);
}

void nvlink2_vma_set_uncached(struct vm_area_struct *vma)
{
	vma->vm_page_prot = pgprot_noncached(vma->vm_page_prot);
}

/* Orders of huge pages, 0 if there are none. The hash MMU cannot map device memory with them. */
unsigned int nvlink2_pmd_order(void)
{
	return radix_enabled() && has_transparent_hugepage() ? PMD_ORDER : 0;
}

unsigned int nvlink2_pud_order(void)
{
	return radix_enabled() && has_transparent_pud_hugepage() ? PUD_ORDER : 0;
}

void nvlink2_release_fault_lock(struct vm_fault *vmf)
{
	release_fault_lock(vmf);
}

/* Of src/linux/published.rs: a number in the upper half, and a count in the lower. */
s64 nvlink2_fetch_inc_acquire(s64 *word)
{
	return atomic64_fetch_inc_acquire((atomic64_t *)word);
}

s64 nvlink2_fetch_dec_release(s64 *word)
{
	return atomic64_fetch_dec_release((atomic64_t *)word);
}

void nvlink2_wake_up(s64 *word)
{
	/* Between the change and the look at who waits, as wake_up_var() wants it. */
	smp_mb();
	wake_up_var(word);
}

static s64 nvlink2_read(s64 *word)
{
	/* What others did before they changed it is seen by who goes on then. */
	return smp_load_acquire(word);
}

void nvlink2_wait_for_readers(s64 *word)
{
	wait_var_event(word, !lower_32_bits(nvlink2_read(word)));
}

void nvlink2_wait_while_killable(s64 *word, s32 number)
{
	wait_var_event_killable(word, nvlink2_read(word) >> 32 != number);
}

void nvlink2_wait_while_interruptible(s64 *word, s32 number)
{
	wait_var_event_interruptible(word, nvlink2_read(word) >> 32 != number);
}

/* 0: the kernel has no blocks. */
u64 nvlink2_memory_block_size(void)
{
	return IS_ENABLED(CONFIG_MEMORY_HOTPLUG) ? memory_block_size_bytes() : 0;
}

bool nvlink2_memory_is_online(u64 address)
{
	return pfn_to_online_page(PHYS_PFN(address));
}

int nvlink2_remove_memory(u64 start, u64 size)
{
	return remove_memory(start, size);
}

/* Returns the number of bytes not copied: a load from a dead link ends in a machine check. */
unsigned long nvlink2_copy_from_device(void *dst, const void *src, size_t len)
{
	return copy_mc_to_kernel(dst, src, len);
}

void nvlink2_copy_to_device(void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
}

/* Returns the number of bytes not copied, without a page fault. */
unsigned long nvlink2_copy_device_to_user(void __user *dst, const void *src, size_t len)
{
	unsigned long left;

	pagefault_disable();
	left = copy_mc_to_user(dst, src, len);
	pagefault_enable();
	return left;
}

/* The same. What was not copied keeps its value, which copy_from_user() would set to 0. */
unsigned long nvlink2_copy_user_to_device(void *dst, const void __user *src, size_t len)
{
	unsigned long left = len;

	pagefault_disable();
	if (access_ok(src, len))
		left = __copy_from_user_inatomic(dst, src, len);
	pagefault_enable();
	return left;
}

/* Processors forget it now, and not when that suits them: there must be no speculation. */
void nvlink2_unmap_device(void *address)
{
	memunmap(address);
	vm_unmap_aliases();
}

#ifdef CONFIG_KVM

/*
 * KVM may be a module, without which this one has to load. The symbol that gives the reference
 * back keeps KVM loaded as long as there is a reference.
 */
bool nvlink2_kvm_get(struct kvm *kvm)
{
	bool (*get)(struct kvm *kvm);
	bool taken = false;

	if (!symbol_get(kvm_put_kvm))
		return false;
	get = symbol_get(kvm_get_kvm_safe);
	if (get) {
		taken = get(kvm);
		symbol_put(kvm_get_kvm_safe);
	}
	if (!taken)
		symbol_put(kvm_put_kvm);
	return taken;
}

void nvlink2_kvm_put(struct kvm *kvm)
{
	void (*put)(struct kvm *kvm) = symbol_get(kvm_put_kvm);

	/* It has not gone since nvlink2_kvm_get() got hold of it. */
	if (WARN_ON(!put))
		return;
	put(kvm);
	symbol_put(kvm_put_kvm);
	symbol_put(kvm_put_kvm);
}

struct mm_struct *nvlink2_kvm_mm(struct kvm *kvm)
{
	return kvm->mm;
}

/*
 * Whether @kvm has memory anywhere from @start to @end in its process. That is so for as long as
 * @generation stays the same.
 */
bool nvlink2_kvm_has_memory_at(struct kvm *kvm, unsigned long start, unsigned long end,
			       u64 *generation)
{
	int idx = srcu_read_lock(&kvm->srcu);
	struct kvm_memslots *slots = kvm_memslots(kvm);
	bool found = interval_tree_iter_first(&slots->hva_tree, start, end - 1);

	*generation = slots->generation;
	srcu_read_unlock(&kvm->srcu, idx);
	return found;
}

#else /* !CONFIG_KVM: VFIO has none to tell about */

bool nvlink2_kvm_get(struct kvm *kvm)
{
	return false;
}

void nvlink2_kvm_put(struct kvm *kvm)
{
}

struct mm_struct *nvlink2_kvm_mm(struct kvm *kvm)
{
	return NULL;
}

bool nvlink2_kvm_has_memory_at(struct kvm *kvm, unsigned long start, unsigned long end,
			       u64 *generation)
{
	*generation = 0;
	return false;
}

#endif

#ifdef CONFIG_KVM_BOOK3S_HV_POSSIBLE

bool nvlink2_kvm_is_hv(struct kvm *kvm)
{
	struct kvmppc_ops **hv = symbol_get(kvmppc_hv_ops);
	bool is_hv;

	if (!hv)
		return false;
	is_hv = kvm->arch.kvm_ops == *hv;
	symbol_put(kvmppc_hv_ops);
	return is_hv;
}

void nvlink2_kvm_pin_mmu(struct kvm *kvm)
{
	kvmppc_pin_mmu(kvm);
}

void nvlink2_kvm_unpin_mmu(struct kvm *kvm)
{
	kvmppc_unpin_mmu(kvm);
}

bool nvlink2_kvm_is_radix(struct kvm *kvm)
{
	return kvm_is_radix(kvm);
}

u64 nvlink2_kvm_lpid(struct kvm *kvm)
{
	return kvm->arch.lpid;
}

#else /* !CONFIG_KVM_BOOK3S_HV_POSSIBLE: guests have no LPID */

void nvlink2_kvm_pin_mmu(struct kvm *kvm)
{
}

void nvlink2_kvm_unpin_mmu(struct kvm *kvm)
{
}

bool nvlink2_kvm_is_hv(struct kvm *kvm)
{
	return false;
}

bool nvlink2_kvm_is_radix(struct kvm *kvm)
{
	return false;
}

u64 nvlink2_kvm_lpid(struct kvm *kvm)
{
	return 0;
}

#endif

// SPDX-License-Identifier: GPL-2.0
/*
 * Functions around C macros and inline functions, for Rust to call.
 *
 * One call each and no policy: whatever decides something is Rust.
 */
#include <linux/kvm_host.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio.h>
#include <asm/firmware.h>
#include <asm/kvm_ppc.h>

#include "nvlink2_helpers.h"

bool nvlink2_platform_is_powernv(void)
{
	return firmware_has_feature(FW_FEATURE_OPAL);
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

/* Without memory for it the chain is as it was, and grows by each capability. */
void nvlink2_info_cap_reserve(struct vfio_info_cap *caps, size_t size)
{
	caps->buf = kmalloc(size, GFP_KERNEL);
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

/* The entry is made for reading; a store sets the rest. */
vm_fault_t nvlink2_vmf_insert_pfn(struct vm_fault *vmf, unsigned long pfn, unsigned int order)
{
	if (!order)
		return vmf_insert_pfn(vmf->vma, vmf->address, pfn);
	if (IS_ENABLED(CONFIG_ARCH_SUPPORTS_PMD_PFNMAP) && order == PMD_ORDER)
		return vmf_insert_pfn_pmd(vmf, pfn, false);
	if (IS_ENABLED(CONFIG_ARCH_SUPPORTS_PUD_PFNMAP) && order == PUD_ORDER)
		return vmf_insert_pfn_pud(vmf, pfn, false);
	return VM_FAULT_FALLBACK;
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

/* SPDX-License-Identifier: GPL-2.0 */
/* Functions for what C has only as macros and inline functions, see src/linux/helpers.c. */
#ifndef _NVLINK2_HELPERS_H
#define _NVLINK2_HELPERS_H

#include <linux/memory-failure.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/rwsem.h>
#include <linux/workqueue.h>
#include <asm/reg.h>

struct kvm;
struct vfio_info_cap;

/* MSR bits of translation requests for pnv_npu2_map_lpar(). */
enum {
	NVLINK2_MSR_DR = MSR_DR,
	NVLINK2_MSR_PR = MSR_PR,
};

bool nvlink2_platform_is_powernv(void);
struct device_node *nvlink2_pci_of_node(struct pci_dev *pdev);
struct device_node *nvlink2_of_node_get(struct device_node *node);
void nvlink2_of_node_put(struct device_node *node);
struct pci_dev *nvlink2_pci_of_node_find(struct device_node *node);

void nvlink2_info_cap_reserve(struct vfio_info_cap *caps, size_t size);

void nvlink2_init_delayed_work(struct delayed_work *work, work_func_t func);
bool nvlink2_queue_delayed_work(struct delayed_work *work, unsigned int msecs);

int nvlink2_register_pfn_address_space(struct pfn_address_space *space);
void nvlink2_unregister_pfn_address_space(struct pfn_address_space *space);

void nvlink2_vma_set_pfnmap(struct vm_area_struct *vma);
void nvlink2_vma_set_uncached(struct vm_area_struct *vma);

unsigned int nvlink2_pmd_order(void);
unsigned int nvlink2_pud_order(void);
vm_fault_t nvlink2_vmf_insert_pfn(struct vm_fault *vmf, unsigned long pfn, unsigned int order);

unsigned long nvlink2_copy_from_device(void *dst, const void *src, size_t len);
void nvlink2_copy_to_device(void *dst, const void *src, size_t len);
bool nvlink2_kvm_get(struct kvm *kvm);
void nvlink2_kvm_put(struct kvm *kvm);
void nvlink2_kvm_pin_mmu(struct kvm *kvm);
void nvlink2_kvm_unpin_mmu(struct kvm *kvm);
bool nvlink2_kvm_is_hv(struct kvm *kvm);
bool nvlink2_kvm_is_radix(struct kvm *kvm);
u64 nvlink2_kvm_lpid(struct kvm *kvm);
struct mm_struct *nvlink2_kvm_mm(struct kvm *kvm);

void nvlink2_trace_gpu_fault(struct pci_dev *pdev, unsigned long hpa, unsigned long ua,
			     unsigned int ret);
void nvlink2_trace_gpu_mmap(struct pci_dev *pdev, unsigned long hpa, unsigned long ua,
			    unsigned long size, int ret);
void nvlink2_trace_bridge_mmap(struct pci_dev *pdev, unsigned long hpa, unsigned long ua,
			       unsigned long size, int ret);
void nvlink2_trace_lpar_bind(const char *gpu, unsigned int lpid, int ret);
void nvlink2_trace_lpar_unbind(const char *gpu, unsigned int lpid, int ret);
void nvlink2_trace_lpar_invalidate(const char *gpu, unsigned int lpid, int ret);

#endif

/* SPDX-License-Identifier: GPL-2.0 */
/* Functions for what C has only as macros and inline functions, see src/linux/helpers.c. */
#ifndef _NVLINK2_HELPERS_H
#define _NVLINK2_HELPERS_H

#include <linux/memory-failure.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/tracepoint-defs.h>
#include <linux/workqueue.h>
#include <asm/opal-api.h>
#include <asm/reg.h>

struct kvm;
struct task_struct;
struct vfio_info_cap;

enum {
	NVLINK2_COMM_LEN = TASK_COMM_LEN,
};

/* MSR bits of translation requests. */
enum {
	NVLINK2_MSR_DR = MSR_DR,
	NVLINK2_MSR_PR = MSR_PR,
};

/* What the calls of OPAL mean that the driver makes. */
enum {
	NVLINK2_OPAL_PARAMETER = OPAL_PARAMETER,
	NVLINK2_OPAL_BUSY = OPAL_BUSY,
	NVLINK2_OPAL_BUSY_EVENT = OPAL_BUSY_EVENT,
	NVLINK2_OPAL_HARDWARE = OPAL_HARDWARE,
	NVLINK2_OPAL_UNSUPPORTED = OPAL_UNSUPPORTED,
	NVLINK2_OPAL_PERMISSION = OPAL_PERMISSION,
	NVLINK2_OPAL_NO_MEM = OPAL_NO_MEM,
	NVLINK2_OPAL_RESOURCE = OPAL_RESOURCE,
	NVLINK2_OPAL_INTERNAL_ERROR = OPAL_INTERNAL_ERROR,
	NVLINK2_OPAL_TIMEOUT = OPAL_TIMEOUT,
};

bool nvlink2_module_get(void);
void nvlink2_module_put(void);
void nvlink2_task_name(struct task_struct *task, char *name);
bool nvlink2_task_has_ended(struct task_struct *task);

bool nvlink2_platform_is_powernv(void);
bool nvlink2_opal_has_npu_calls(void);
s64 nvlink2_opal_map_lpar(u64 phb, u16 bdfn, u64 lpid);
s64 nvlink2_opal_init_context(u64 phb, u64 msr, u16 bdfn);
s64 nvlink2_opal_destroy_context(u64 phb, u16 bdfn);
int nvlink2_opal_errno(s64 code);
void nvlink2_radix_flush_all_lpid(u32 lpid);
u16 nvlink2_pci_dev_id(struct pci_dev *pdev);
struct device_node *nvlink2_pci_of_node(struct pci_dev *pdev);
struct device_node *nvlink2_of_node_get(struct device_node *node);
void nvlink2_of_node_put(struct device_node *node);
struct pci_dev *nvlink2_pci_of_node_find(struct device_node *node);

void nvlink2_pm_get(struct device *dev);
void nvlink2_pm_put(struct device *dev);

void nvlink2_init_delayed_work(struct delayed_work *work, work_func_t func);
bool nvlink2_queue_delayed_work(struct delayed_work *work, unsigned int msecs);

int nvlink2_register_pfn_address_space(struct pfn_address_space *space);
void nvlink2_unregister_pfn_address_space(struct pfn_address_space *space);

void nvlink2_vma_set_pfnmap(struct vm_area_struct *vma);
void nvlink2_vma_set_uncached(struct vm_area_struct *vma);

unsigned int nvlink2_pmd_order(void);
unsigned int nvlink2_pud_order(void);
void nvlink2_release_fault_lock(struct vm_fault *vmf);

s64 nvlink2_fetch_inc_acquire(s64 *word);
s64 nvlink2_fetch_dec_release(s64 *word);
void nvlink2_wake_up(s64 *word);
void nvlink2_wait_for_readers(s64 *word);
void nvlink2_wait_while_killable(s64 *word, s32 number);
void nvlink2_wait_while_interruptible(s64 *word, s32 number);

u64 nvlink2_memory_block_size(void);
bool nvlink2_memory_is_online(u64 address);
int nvlink2_remove_memory(u64 start, u64 size);

unsigned long nvlink2_copy_from_device(void *dst, const void *src, size_t len);
void nvlink2_copy_to_device(void *dst, const void *src, size_t len);
unsigned long nvlink2_copy_device_to_user(void __user *dst, const void *src, size_t len);
unsigned long nvlink2_copy_user_to_device(void *dst, const void __user *src, size_t len);
void nvlink2_unmap_device(void *address);

bool nvlink2_kvm_get(struct kvm *kvm);
void nvlink2_kvm_put(struct kvm *kvm);
void nvlink2_kvm_pin_mmu(struct kvm *kvm);
void nvlink2_kvm_unpin_mmu(struct kvm *kvm);
bool nvlink2_kvm_is_hv(struct kvm *kvm);
bool nvlink2_kvm_is_radix(struct kvm *kvm);
u64 nvlink2_kvm_lpid(struct kvm *kvm);
struct mm_struct *nvlink2_kvm_mm(struct kvm *kvm);
bool nvlink2_kvm_has_memory_at(struct kvm *kvm, unsigned long start, unsigned long end,
			       u64 *generation);

extern struct tracepoint __tracepoint_vfio_pci_nvgpu_mmap_fault;

void nvlink2_trace_gpu_fault(struct pci_dev *pdev, unsigned long hpa, unsigned long ua,
			     unsigned int ret);
void nvlink2_trace_gpu_mmap(struct pci_dev *pdev, unsigned long hpa, unsigned long ua,
			    unsigned long size, int ret);
void nvlink2_trace_bridge_mmap(struct pci_dev *pdev, unsigned long hpa, unsigned long ua,
			       unsigned long size, int ret);
void nvlink2_trace_lpar_bind(const char *gpu, unsigned int lpid, int ret);
void nvlink2_trace_lpar_unbind(const char *gpu, unsigned int lpid, int ret);
void nvlink2_trace_lpar_invalidate(unsigned int lpid, unsigned long start, unsigned long end,
				   unsigned int launches, int ret);

#endif

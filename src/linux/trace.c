// SPDX-License-Identifier: GPL-2.0
/* Tracepoints are defined in C: Rust can only declare those in the kernel's own bindings. */
#define CREATE_TRACE_POINTS
#include "nvlink2_trace.h"

#include "nvlink2_helpers.h"

void nvlink2_trace_gpu_fault(struct pci_dev *pdev, unsigned long hpa, unsigned long ua,
			     unsigned int ret)
{
	trace_vfio_pci_nvgpu_mmap_fault(pdev, hpa, ua, ret);
}

void nvlink2_trace_gpu_mmap(struct pci_dev *pdev, unsigned long hpa, unsigned long ua,
			    unsigned long size, int ret)
{
	trace_vfio_pci_nvgpu_mmap(pdev, hpa, ua, size, ret);
}

void nvlink2_trace_bridge_mmap(struct pci_dev *pdev, unsigned long hpa, unsigned long ua,
			       unsigned long size, int ret)
{
	trace_vfio_pci_npu2_mmap(pdev, hpa, ua, size, ret);
}

void nvlink2_trace_lpar_bind(const char *gpu, unsigned int lpid, int ret)
{
	trace_nvlink2_lpar_bind(gpu, lpid, ret);
}

void nvlink2_trace_lpar_unbind(const char *gpu, unsigned int lpid, int ret)
{
	trace_nvlink2_lpar_unbind(gpu, lpid, ret);
}

void nvlink2_trace_lpar_invalidate(unsigned int lpid, unsigned long start, unsigned long end,
				   unsigned int launches, int ret)
{
	trace_nvlink2_lpar_invalidate(lpid, start, end, launches, ret);
}

/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM nvlink2_vfio

#if !defined(_NVLINK2_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _NVLINK2_TRACE_H

#include <linux/pci.h>
#include <linux/tracepoint.h>

/* Names and fields of the mmap events are those that tools know from Linux 5.12 and before. */
TRACE_EVENT(vfio_pci_nvgpu_mmap_fault,
	    TP_PROTO(struct pci_dev *pdev, unsigned long hpa, unsigned long ua,
		     unsigned int ret),
	    TP_ARGS(pdev, hpa, ua, ret),
	    TP_STRUCT__entry(__string(name, pci_name(pdev))
			     __field(unsigned long, hpa)
			     __field(unsigned long, ua)
			     __field(int, ret)),
	    TP_fast_assign(__assign_str(name);
			   __entry->hpa = hpa;
			   __entry->ua = ua;
			   __entry->ret = ret;),
	    TP_printk("%s: %lx -> %lx ret=%d", __get_str(name), __entry->hpa,
		      __entry->ua, __entry->ret)
);

DECLARE_EVENT_CLASS(nvlink2_mmap,
		    TP_PROTO(struct pci_dev *pdev, unsigned long hpa, unsigned long ua,
			     unsigned long size, int ret),
		    TP_ARGS(pdev, hpa, ua, size, ret),
		    TP_STRUCT__entry(__string(name, pci_name(pdev))
				     __field(unsigned long, hpa)
				     __field(unsigned long, ua)
				     __field(unsigned long, size)
				     __field(int, ret)),
		    TP_fast_assign(__assign_str(name);
				   __entry->hpa = hpa;
				   __entry->ua = ua;
				   __entry->size = size;
				   __entry->ret = ret;),
		    TP_printk("%s: %lx -> %lx size=%lx ret=%d", __get_str(name),
			      __entry->hpa, __entry->ua, __entry->size, __entry->ret)
);

DEFINE_EVENT(nvlink2_mmap, vfio_pci_nvgpu_mmap,
	     TP_PROTO(struct pci_dev *pdev, unsigned long hpa, unsigned long ua,
		      unsigned long size, int ret),
	     TP_ARGS(pdev, hpa, ua, size, ret)
);

DEFINE_EVENT(nvlink2_mmap, vfio_pci_npu2_mmap,
	     TP_PROTO(struct pci_dev *pdev, unsigned long hpa, unsigned long ua,
		      unsigned long size, int ret),
	     TP_ARGS(pdev, hpa, ua, size, ret)
);

DECLARE_EVENT_CLASS(nvlink2_lpar,
		    TP_PROTO(const char *gpu, unsigned int lpid, int result),
		    TP_ARGS(gpu, lpid, result),
		    TP_STRUCT__entry(__string(gpu, gpu)
				     __field(unsigned int, lpid)
				     __field(int, result)),
		    TP_fast_assign(__assign_str(gpu);
				   __entry->lpid = lpid;
				   __entry->result = result;),
		    TP_printk("gpu=%s lpid=%u result=%d", __get_str(gpu),
			      __entry->lpid, __entry->result)
);

DEFINE_EVENT(nvlink2_lpar, nvlink2_lpar_bind,
	     TP_PROTO(const char *gpu, unsigned int lpid, int result),
	     TP_ARGS(gpu, lpid, result)
);

DEFINE_EVENT(nvlink2_lpar, nvlink2_lpar_unbind,
	     TP_PROTO(const char *gpu, unsigned int lpid, int result),
	     TP_ARGS(gpu, lpid, result)
);

TRACE_EVENT(nvlink2_lpar_invalidate,
	    TP_PROTO(unsigned int lpid, unsigned long start, unsigned long end,
		     unsigned int launches, int result),
	    TP_ARGS(lpid, start, end, launches, result),
	    TP_STRUCT__entry(__field(unsigned int, lpid)
			     __field(unsigned long, start)
			     __field(unsigned long, end)
			     __field(unsigned int, launches)
			     __field(int, result)),
	    TP_fast_assign(__entry->lpid = lpid;
			   __entry->start = start;
			   __entry->end = end;
			   __entry->launches = launches;
			   __entry->result = result;),
	    TP_printk("lpid=%u start=%lx end=%lx launches=%u result=%d", __entry->lpid,
		      __entry->start, __entry->end, __entry->launches, __entry->result)
);

#endif

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE nvlink2_trace

#include <trace/define_trace.h>

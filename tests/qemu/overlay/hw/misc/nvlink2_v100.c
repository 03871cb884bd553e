/*
 * NVIDIA Tesla V100-SXM2 as an NVLink2 host sees it
 *
 * A PCIe endpoint with the BARs of the real one and RAM behind them, that is
 * wired to some bricks of a POWER9's NPU2.  The RAM is coherent memory for the
 * CPU while the links are trained, which the vendor's driver does on the real
 * one and a register of this model does here.  No computing is modelled but a
 * test engine that copies (nvlink2_v100_engine.c).
 *
 * Registers: hw/misc/nvlink2-v100-regs.h.
 *
 * RAM keeps its content through every reset, as HBM does: clearing it is up to
 * whoever hands the device on.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/module.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "hw/misc/nvlink2-v100-regs.h"
#include "hw/misc/nvlink2_v100_engine.h"
#include "hw/pci/msi.h"
#include "hw/pci/pci_device.h"
#include "hw/pci/pcie.h"
#include "hw/ppc/pnv_npu2.h"
#include "hw/qdev-properties.h"
#include "qom/object.h"
#include "trace.h"

#define TYPE_NVLINK2_V100 "nvlink2-v100"
OBJECT_DECLARE_SIMPLE_TYPE(NVLink2V100State, NVLINK2_V100)

/* Capabilities, where the real one has them */
#define V100_CAP_PM         0x60
#define V100_CAP_MSI        0x68
#define V100_CAP_EXP        0x78

struct NVLink2V100State {
    PCIDevice parent_obj;

    /* Properties */
    PnvNpu2 *npu;
    uint32_t bricks;
    uint64_t ram_size;
    uint32_t atc_flushes;
    bool flr;
    bool hide_model;

    MemoryRegion regs;          /* BAR0 */
    MemoryRegion window;        /* BAR1 */
    MemoryRegion bar3;
    MemoryRegion ram;

    PnvNpu2Gpu gpu;
    V100Engine engine;
    uint32_t train;
    uint32_t unanswered;
    uint32_t resets;
};

/* Bricks of the NPU as links of this GPU: packed, in the same order */
static uint32_t v100_links(const NVLink2V100State *s, uint32_t bricks)
{
    uint32_t links = 0;
    unsigned link = 0;

    for (unsigned i = 0; i < PNV_NPU2_BRICKS; i++) {
        if (s->bricks & BIT(i)) {
            if (bricks & BIT(i)) {
                links |= BIT(link);
            }
            link++;
        }
    }
    return links;
}

static void v100_unanswered(PnvNpu2Gpu *gpu, hwaddr offset)
{
    NVLink2V100State *s = container_of(gpu, NVLink2V100State, gpu);

    s->unanswered++;
}

/*
 * Asked of the configuration space each time, since a reset of the function
 * changes that behind this model's back.
 */
static bool v100_awake(PnvNpu2Gpu *gpu)
{
    NVLink2V100State *s = container_of(gpu, NVLink2V100State, gpu);
    const uint8_t *config = PCI_DEVICE(s)->config;

    return (pci_get_word(config + PCI_COMMAND) & PCI_COMMAND_MEMORY) &&
           !(pci_get_word(config + V100_CAP_PM + PCI_PM_CTRL) &
             PCI_PM_CTRL_STATE_MASK);
}

static void v100_shootdown(PnvNpu2Gpu *gpu, const PnvShootdown *shootdown)
{
    NVLink2V100State *s = container_of(gpu, NVLink2V100State, gpu);

    v100_engine_shootdown(&s->engine, shootdown);
}

static void v100_train(NVLink2V100State *s, uint32_t val)
{
    switch (val) {
    case V100_LINK_TRAIN_UP:
        pnv_npu2_train(s->npu, &s->gpu);
        break;
    case V100_LINK_TRAIN_DOWN:
        pnv_npu2_untrain(s->npu, &s->gpu);
        break;
    default:
        qemu_log_mask(LOG_GUEST_ERROR, "nvlink2-v100: LINK_TRAIN 0x%x\n", val);
        return;
    }
    s->train = val;
    trace_nvlink2_v100_train(PCI_DEVICE(s)->name, val);
}

/* What a real V100 does not have is not there while the model is hidden. */
static bool v100_has(const NVLink2V100State *s, hwaddr addr)
{
    return addr < V100_MODEL_BASE || !s->hide_model;
}

static uint64_t v100_regs_read(void *opaque, hwaddr addr, unsigned size)
{
    NVLink2V100State *s = opaque;
    unsigned shift = addr % 4 * 8;
    uint64_t val = 0;

    addr -= addr % 4;
    switch (v100_has(s, addr) ? addr : V100_BAR0_SIZE) {
    case V100_PMC_BOOT_0:
        val = V100_PMC_BOOT_0_GV100;
        break;
    case V100_MODEL_ID:
        val = V100_MODEL_ID_MAGIC;
        break;
    case V100_MODEL_VERSION:
        val = V100_MODEL_VERSION_2;
        break;
    case V100_RAM_SIZE_LO:
        val = extract64(s->ram_size, 0, 32);
        break;
    case V100_RAM_SIZE_HI:
        val = extract64(s->ram_size, 32, 32);
        break;
    case V100_LINK_TRAIN:
        val = s->train;
        break;
    case V100_LINK_STATUS:
        val = v100_links(s, pnv_npu2_trained(s->npu, &s->gpu));
        break;
    case V100_LINK_MASK:
        val = v100_links(s, s->bricks);
        break;
    case V100_UNTRAINED_ACCESSES:
        val = s->unanswered;
        break;
    case V100_APERTURE_LO:
        val = extract64(pnv_npu2_aperture(s->npu, &s->gpu), 0, 32);
        break;
    case V100_APERTURE_HI:
        val = extract64(pnv_npu2_aperture(s->npu, &s->gpu), 32, 32);
        break;
    case V100_RESETS:
        val = s->resets;
        break;
    case V100_ENGINE_BASE ... V100_ENGINE_END:
        val = v100_engine_read(&s->engine, addr);
        break;
    default:
        qemu_log_mask(LOG_UNIMP, "nvlink2-v100: read of BAR0 0x%" HWADDR_PRIx
                      "\n", addr);
    }
    trace_nvlink2_v100_read(PCI_DEVICE(s)->name, addr, val);
    return extract64(val, shift, size * 8);
}

static void v100_regs_write(void *opaque, hwaddr addr, uint64_t val,
                            unsigned size)
{
    NVLink2V100State *s = opaque;

    trace_nvlink2_v100_write(PCI_DEVICE(s)->name, addr, val);
    if (size < 4) {
        qemu_log_mask(LOG_GUEST_ERROR, "nvlink2-v100: write of %u bytes of BAR0"
                      " 0x%" HWADDR_PRIx "\n", size, addr);
        return;
    }
    switch (v100_has(s, addr) ? addr : V100_BAR0_SIZE) {
    case V100_LINK_TRAIN:
        v100_train(s, val);
        break;
    case V100_ENGINE_BASE ... V100_ENGINE_END:
        v100_engine_write(&s->engine, addr, val);
        break;
    default:
        qemu_log_mask(LOG_UNIMP, "nvlink2-v100: write of BAR0 0x%" HWADDR_PRIx
                      " = 0x%" PRIx64 "\n", addr, val);
    }
}

static const MemoryRegionOps v100_regs_ops = {
    .read = v100_regs_read,
    .write = v100_regs_write,
    .valid.min_access_size = 1,
    .valid.max_access_size = 8,
    .impl.min_access_size = 1,
    .impl.max_access_size = 4,
    .endianness = DEVICE_LITTLE_ENDIAN,
};

/* BAR3 has no modelled registers */
static uint64_t v100_bar3_read(void *opaque, hwaddr addr, unsigned size)
{
    qemu_log_mask(LOG_UNIMP, "nvlink2-v100: read of BAR3 0x%" HWADDR_PRIx "\n",
                  addr);
    return 0;
}

static void v100_bar3_write(void *opaque, hwaddr addr, uint64_t val,
                            unsigned size)
{
    qemu_log_mask(LOG_UNIMP, "nvlink2-v100: write of BAR3 0x%" HWADDR_PRIx
                  " = 0x%" PRIx64 "\n", addr, val);
}

static const MemoryRegionOps v100_bar3_ops = {
    .read = v100_bar3_read,
    .write = v100_bar3_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
};

/*
 * Secondary bus reset, loss of power, system reset, and function level reset if
 * there is one.  The count of accesses that nothing answered goes on: whoever
 * opens or closes the device resets it, and must not hide by that what was lost
 * before.
 */
static void v100_reset_hold(Object *obj, ResetType type)
{
    NVLink2V100State *s = NVLINK2_V100(obj);

    pnv_npu2_gpu_reset(s->npu, &s->gpu);
    s->train = V100_LINK_TRAIN_DOWN;
    v100_engine_reset(&s->engine);
    s->resets++;
    trace_nvlink2_v100_reset(PCI_DEVICE(s)->name, s->resets);
}

static bool v100_init_caps(PCIDevice *pdev, Error **errp)
{
    int ret;

    ret = pci_pm_init(pdev, V100_CAP_PM, errp);
    if (ret < 0) {
        return false;
    }
    pci_set_word(pdev->config + V100_CAP_PM + PCI_PM_PMC,
                 PCI_PM_CAP_VER_1_2);
    pci_set_word(pdev->config + V100_CAP_PM + PCI_PM_CTRL,
                 PCI_PM_CTRL_NO_SOFT_RESET);
    pci_set_word(pdev->wmask + V100_CAP_PM + PCI_PM_CTRL,
                 PCI_PM_CTRL_STATE_MASK);

    ret = msi_init(pdev, V100_CAP_MSI, 1, true, false, errp);
    if (ret < 0) {
        return false;
    }

    ret = pcie_endpoint_cap_init(pdev, V100_CAP_EXP);
    if (ret < 0) {
        error_setg(errp, "nvlink2-v100: no PCI Express capability: %d", ret);
        return false;
    }
    /* The real one is not known to have it */
    if (NVLINK2_V100(pdev)->flr) {
        pcie_cap_flr_init(pdev);
    }
    return true;
}

static void v100_write_config(PCIDevice *pdev, uint32_t addr, uint32_t val,
                              int len)
{
    NVLink2V100State *s = NVLINK2_V100(pdev);

    pci_default_write_config(pdev, addr, val, len);
    pcie_cap_flr_write_config(pdev, addr, val, len);
    pnv_npu2_gpu_changed(s->npu);
}

static void v100_realize(PCIDevice *pdev, Error **errp)
{
    NVLink2V100State *s = NVLINK2_V100(pdev);
    Object *obj = OBJECT(s);
    g_autofree char *name = NULL;

    if (!s->npu) {
        error_setg(errp, "nvlink2-v100: property npu is not set");
        return;
    }
    if (s->ram_size < V100_BAR1_SIZE || !is_power_of_2(s->ram_size)) {
        error_setg(errp, "nvlink2-v100: ram-size must be a power of 2 and at "
                   "least 256 MiB");
        return;
    }

    if (s->ram_size >= V100_32G_RAM_SIZE) {
        pci_config_set_device_id(pdev->config, V100_32G_PCI_DEVICE_ID);
    }
    memory_region_init_io(&s->regs, obj, &v100_regs_ops, s,
                          "nvlink2-v100-regs", V100_BAR0_SIZE);
    memory_region_init_io(&s->bar3, obj, &v100_bar3_ops, s,
                          "nvlink2-v100-bar3", V100_BAR3_SIZE);
    /* Sparse: nobody has the host memory for six of these */
    name = g_strdup_printf("nvlink2-v100-ram.%s",
                           DEVICE(s)->id ? DEVICE(s)->id : "");
    if (!memory_region_init_ram_flags_nomigrate(&s->ram, obj, name,
                                                s->ram_size, RAM_NORESERVE,
                                                errp)) {
        return;
    }
    memory_region_init_alias(&s->window, obj, "nvlink2-v100-window", &s->ram,
                             0, V100_BAR1_SIZE);

    pci_register_bar(pdev, 0, PCI_BASE_ADDRESS_SPACE_MEMORY, &s->regs);
    pci_register_bar(pdev, 1, PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_PREFETCH |
                     PCI_BASE_ADDRESS_MEM_TYPE_64, &s->window);
    pci_register_bar(pdev, 3, PCI_BASE_ADDRESS_SPACE_MEMORY |
                     PCI_BASE_ADDRESS_MEM_PREFETCH |
                     PCI_BASE_ADDRESS_MEM_TYPE_64, &s->bar3);
    if (!v100_init_caps(pdev, errp)) {
        return;
    }

    s->gpu = (PnvNpu2Gpu) {
        .bricks = s->bricks,
        .ram = &s->ram,
        .awake = v100_awake,
        .unanswered = v100_unanswered,
        .shootdown = v100_shootdown,
    };
    v100_engine_init(&s->engine, pdev, s->npu, s->bricks, &s->ram,
                     s->atc_flushes);
    pnv_npu2_attach(s->npu, &s->gpu, errp);
}

static void v100_exit(PCIDevice *pdev)
{
    NVLink2V100State *s = NVLINK2_V100(pdev);

    pnv_npu2_detach(s->npu, &s->gpu);
    pcie_cap_exit(pdev);
    msi_uninit(pdev);
}

static const Property v100_properties[] = {
    DEFINE_PROP_LINK("npu", NVLink2V100State, npu, TYPE_PNV_NPU2, PnvNpu2 *),
    DEFINE_PROP_UINT32("bricks", NVLink2V100State, bricks, 0),
    DEFINE_PROP_SIZE("ram-size", NVLink2V100State, ram_size, 16 * GiB),
    DEFINE_PROP_UINT32("atc-flushes", NVLink2V100State, atc_flushes, 2),
    DEFINE_PROP_BOOL("flr", NVLink2V100State, flr, false),
    DEFINE_PROP_BOOL("hide-model", NVLink2V100State, hide_model, false),
};

static void v100_instance_init(Object *obj)
{
    NVLink2V100State *s = NVLINK2_V100(obj);

    object_property_add_uint32_ptr(obj, "untrained-accesses", &s->unanswered,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint32_ptr(obj, "resets", &s->resets,
                                   OBJ_PROP_FLAG_READ);
    object_property_add_uint32_ptr(obj, "link-train", &s->train,
                                   OBJ_PROP_FLAG_READ);
    PCI_DEVICE(obj)->cap_present |= QEMU_PCI_CAP_EXPRESS;
}

static void v100_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    pc->realize = v100_realize;
    pc->exit = v100_exit;
    pc->config_write = v100_write_config;
    pc->vendor_id = V100_PCI_VENDOR_ID;
    pc->device_id = V100_PCI_DEVICE_ID;
    pc->revision = V100_PCI_REVISION;
    pc->subsystem_vendor_id = V100_PCI_VENDOR_ID;
    pc->subsystem_id = V100_PCI_SUBSYSTEM_ID;
    pc->class_id = V100_PCI_CLASS;
    rc->phases.hold = v100_reset_hold;
    dc->desc = "Tesla V100-SXM2 with NVLink2 to an NPU2";
    dc->hotpluggable = false;
    set_bit(DEVICE_CATEGORY_DISPLAY, dc->categories);
    device_class_set_props(dc, v100_properties);
}

static const TypeInfo v100_info = {
    .name          = TYPE_NVLINK2_V100,
    .parent        = TYPE_PCI_DEVICE,
    .instance_size = sizeof(NVLink2V100State),
    .instance_init = v100_instance_init,
    .class_init    = v100_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_PCIE_DEVICE },
        { },
    },
};

static void v100_register_types(void)
{
    type_register_static(&v100_info);
}

type_init(v100_register_types)

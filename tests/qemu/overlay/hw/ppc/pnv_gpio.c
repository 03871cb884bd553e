/*
 * QEMU PowerNV, POWER9 GPIO
 *
 * The pins of a chip, with nothing connected: an enabled output is read back,
 * any other pin reads as zero.  Firmware of two-chip machines drives one to
 * switch a PCIe slot that both chips share.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/module.h"
#include "hw/ppc/pnv_gpio.h"
#include "hw/ppc/pnv_xscom.h"
#include "hw/resettable.h"
#include "system/reset.h"

#define GPIO_DATA_IN            0x0
#define GPIO_DATA_OUT           0x1
#define GPIO_DATA_OUT_ENABLE    0x4

static uint64_t pnv_gpio_read(void *opaque, hwaddr addr, unsigned width)
{
    PnvGpio *gpio = opaque;
    uint32_t reg = addr >> 3;

    switch (reg) {
    case GPIO_DATA_IN:
        return gpio->out & gpio->enable;
    case GPIO_DATA_OUT:
        return gpio->out;
    case GPIO_DATA_OUT_ENABLE:
        return gpio->enable;
    }
    qemu_log_mask(LOG_UNIMP, "pnv-gpio: SCOM read of 0x%x\n", reg);
    return 0;
}

static void pnv_gpio_write(void *opaque, hwaddr addr, uint64_t val,
                           unsigned width)
{
    PnvGpio *gpio = opaque;
    uint32_t reg = addr >> 3;

    switch (reg) {
    case GPIO_DATA_OUT:
        gpio->out = val;
        break;
    case GPIO_DATA_OUT_ENABLE:
        gpio->enable = val;
        break;
    default:
        qemu_log_mask(LOG_UNIMP, "pnv-gpio: SCOM write of 0x%x = 0x%016"
                      PRIx64 "\n", reg, val);
    }
}

static const MemoryRegionOps pnv_gpio_ops = {
    .read = pnv_gpio_read,
    .write = pnv_gpio_write,
    .valid.min_access_size = 8,
    .valid.max_access_size = 8,
    .impl.min_access_size = 8,
    .impl.max_access_size = 8,
    .endianness = DEVICE_BIG_ENDIAN,
};

static void pnv_gpio_reset_hold(Object *obj, ResetType type)
{
    PnvGpio *gpio = PNV_GPIO(obj);

    gpio->out = 0;
    gpio->enable = 0;
}

static void pnv_gpio_realize(DeviceState *dev, Error **errp)
{
    PnvGpio *gpio = PNV_GPIO(dev);

    pnv_xscom_region_init(&gpio->xscom_regs, OBJECT(gpio), &pnv_gpio_ops, gpio,
                          "xscom-gpio", PNV9_XSCOM_GPIO_SIZE);
    qemu_register_resettable(OBJECT(dev));
}

static void pnv_gpio_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    ResettableClass *rc = RESETTABLE_CLASS(klass);

    dc->desc = "PowerNV GPIO";
    dc->realize = pnv_gpio_realize;
    dc->user_creatable = false;
    rc->phases.hold = pnv_gpio_reset_hold;
}

static const TypeInfo pnv_gpio_info = {
    .name          = TYPE_PNV_GPIO,
    .parent        = TYPE_DEVICE,
    .instance_size = sizeof(PnvGpio),
    .class_init    = pnv_gpio_class_init,
};

static void pnv_gpio_register_types(void)
{
    type_register_static(&pnv_gpio_info);
}

type_init(pnv_gpio_register_types);

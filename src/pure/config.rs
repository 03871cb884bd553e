// SPDX-License-Identifier: GPL-2.0

//! Which writes to configuration space can take a device's memory away.

/// Offset of the command register in the header.
const COMMAND: u64 = 4;

/// Offset of the control/status register in the power management capability.
const PMCSR: u64 = 4;

/// Whether writing `len` bytes at `offset` of configuration space touches a register that turns
/// off memory decoding (command) or power (the power management capability at `pm_cap`, if any).
///
/// Resets through configuration space are not its business: the PCI core announces them.
pub(crate) fn write_may_disable(offset: u64, len: u64, pm_cap: Option<u8>) -> bool {
    let end = offset.saturating_add(len);
    let touches = |register: u64| offset < register.saturating_add(2) && register < end;

    touches(COMMAND) || pm_cap.is_some_and(|cap| touches(u64::from(cap).saturating_add(PMCSR)))
}

#[cfg(any(test, CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(nvlink2_config))]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_either_register_counts() {
        let table = [
            (0, 4, false),
            (0, 5, true),
            (4, 1, true),
            (5, 1, true),
            (6, 2, false),
            (0x60, 4, false),
            (0x64, 2, true),
            (0x65, 1, true),
            (0x66, 4, false),
            (0, 0x100, true),
            (u64::MAX, 8, false),
        ];

        for (offset, len, expected) in table {
            assert_eq!(write_may_disable(offset, len, Some(0x60)), expected);
        }
        assert!(!write_may_disable(0x64, 2, None));
    }
}

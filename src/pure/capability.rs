// SPDX-License-Identifier: GPL-2.0

//! Byte layout of the NVLink2 capabilities in VFIO region info (include/uapi/linux/vfio.h).

/// Size of either capability: an 8-byte header and 8 bytes of content.
pub(crate) const CAPABILITY_SIZE: usize = 16;

/// `VFIO_REGION_INFO_CAP_NVLINK2_SSATGT`
pub(crate) const ID_SSATGT: u16 = 4;
/// `VFIO_REGION_INFO_CAP_NVLINK2_LNKSPD`
pub(crate) const ID_LNKSPD: u16 = 5;
const VERSION: u16 = 1;

/// An NVLink2 capability of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capability {
    /// The address by which the NPU knows the GPU (`ibm,device-tgt-addr`). It pairs a GPU with its
    /// bridges.
    TargetAddress(u64),
    /// The link's speed code (`ibm,nvlink-speed`; 9 is 25 Gb/s per lane).
    LinkSpeed(u32),
}

impl Capability {
    /// Returns the capability as user space gets it: id, version, next (0, VFIO fills it in),
    /// content; all in the byte order of the CPU.
    pub(crate) fn to_bytes(self) -> [u8; CAPABILITY_SIZE] {
        let (id, content) = match self {
            Self::TargetAddress(tgt) => (ID_SSATGT, tgt.to_ne_bytes()),
            Self::LinkSpeed(speed) => {
                let [a, b, c, d] = speed.to_ne_bytes();
                (ID_LNKSPD, [a, b, c, d, 0, 0, 0, 0])
            }
        };
        let mut bytes = [0; CAPABILITY_SIZE];

        bytes[0..2].copy_from_slice(&id.to_ne_bytes());
        bytes[2..4].copy_from_slice(&VERSION.to_ne_bytes());
        bytes[8..16].copy_from_slice(&content);
        bytes
    }
}

#[cfg(any(test, CONFIG_VFIO_PCI_NVLINK2_KUNIT_TEST))]
#[cfg_attr(not(test), kernel::macros::kunit_tests(nvlink2_capability))]
mod tests {
    use super::*;

    // As read from the original C driver on Linux 5.10 (little endian).
    #[test]
    #[cfg(target_endian = "little")]
    fn bytes_are_those_of_the_original() {
        assert_eq!(
            Capability::TargetAddress(0x3e0_0000_0000).to_bytes(),
            [4, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xe0, 3, 0, 0]
        );
        assert_eq!(
            Capability::LinkSpeed(9).to_bytes(),
            [5, 0, 1, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn content_keeps_every_bit() {
        let tgt = Capability::TargetAddress(u64::MAX).to_bytes();
        let speed = Capability::LinkSpeed(u32::MAX).to_bytes();

        assert_eq!(tgt[8..], [0xff; 8]);
        assert_eq!(speed[8..12], [0xff; 4]);
        assert_eq!(speed[12..], [0; 4]);
    }
}

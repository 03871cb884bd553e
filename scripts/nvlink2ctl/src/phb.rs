// SPDX-License-Identifier: GPL-2.0

//! How many PCI host bridges (PHBs) libvirt gives a pseries guest.
//!
//! libvirt gives every device a slot before the guest starts, and adds PHBs as it runs out of them:
//!
//! - a bus is what a controller of type `pci` makes; its number is the controller's index. What is
//!   missing up to the highest index becomes a PHB. Bus 0 is the default PHB, which always exists.
//! - an isolation group keeps devices of different IOMMU groups of the host on different buses; 0 is that
//!   of emulated devices. An empty bus takes the group of its first device, but the default PHB's stays 0.

use serde::Serialize;

/// Slots 1 to 31 of a bus are for devices.
const SLOTS: usize = 31;

/// Buses that a guest address can name.
const MOST_BUSES: usize = 256;

/// The default PHB and those with target indices 1 to 31.
const MOST_PHBS: usize = 32;

/// Where on the guest's buses a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Bus, the index of a controller.
    pub bus: u8,
    /// Slot, 1 to 31.
    pub slot: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

/// A device of the guest on PCI.
#[derive(Clone, Debug)]
pub struct Device {
    /// What it is, for messages.
    pub name: String,
    /// Where the XML wants it; `None`: where libvirt finds room.
    pub slot: Option<Slot>,
    /// Its isolation group.
    pub group: u64,
}

/// Why libvirt would not start the guest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Two functions at one address.
    #[error(
        "{0}: another device has the guest address bus {1:#04x} slot {2:#04x} function {3} already; remove one of the addresses"
    )]
    Twice(String, u8, u8, u8),
    /// Slot 0 is the bus's own.
    #[error("{0}: no device can be in slot 0x00 of bus {1:#04x}; use slots 0x01 to 0x1f")]
    SlotZero(String, u8),
    /// More devices than a guest can have.
    #[error("{0}: the guest has no room for more devices")]
    Full(String),
    /// More PHBs than QEMU has.
    #[error("{0} PCI host bridges are more than the 32 that a pseries guest can have")]
    TooMany(usize),
}

/// A PHB, and why it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Phb {
    /// Index of its controller.
    pub index: usize,
    /// Why it is there.
    pub reason: String,
}

#[derive(Clone, Default)]
struct Bus {
    /// Functions in use, a bit each, of slots 1 to 31.
    slots: [u8; SLOTS],
    group: u64,
    /// Why it is a PHB; `None`: it is another kind of bridge.
    phb: Option<String>,
}

impl Bus {
    fn phb(reason: String) -> Self {
        Self {
            phb: Some(reason),
            ..Self::default()
        }
    }

    fn is_empty(&self) -> bool {
        self.slots.iter().all(|functions| *functions == 0)
    }

    /// Gives away a whole slot.
    fn take_slot(&mut self) -> bool {
        match self.slots.iter_mut().find(|functions| **functions == 0) {
            Some(free) => {
                *free = 1;
                true
            }
            None => false,
        }
    }
}

/// The buses of a guest while devices find their places.
pub struct Buses(Vec<Bus>);

impl Buses {
    /// The default PHB, and buses that controllers make: their index, and whether they are PHBs.
    pub fn new(controllers: &[(u8, bool)]) -> Self {
        let mut buses = vec![Bus::phb("the default PHB of every pseries guest".into())];
        let highest = controllers.iter().map(|(index, _)| *index).max();

        for index in 1..=highest.unwrap_or_default() {
            buses.push(match controllers.iter().find(|other| other.0 == index) {
                Some((_, true)) => Bus::phb("a controller of the XML".into()),
                Some((_, false)) => Bus::default(),
                None => Bus::phb("fills the gap below a controller of a higher index".into()),
            });
        }
        Self(buses)
    }

    /// Finds places for all devices: first for those that have addresses, then for the others in
    /// their order; and a slot that libvirt keeps free. Returns the bus of each device.
    pub fn place(&mut self, devices: &[Device]) -> Result<Vec<usize>, Impossible> {
        for device in devices {
            if let Some(slot) = device.slot {
                self.place_at(device, slot)?;
            }
        }
        if self.0.iter().any(|bus| bus.slots.contains(&0)) {
            let spare = Device {
                name: "a slot that libvirt keeps free for a device to come".into(),
                slot: None,
                group: 0,
            };
            self.place_anywhere(&spare)?;
        }
        devices
            .iter()
            .map(|device| match device.slot {
                Some(slot) => Ok(usize::from(slot.bus)),
                None => self.place_anywhere(device),
            })
            .collect()
    }

    fn place_at(&mut self, device: &Device, at: Slot) -> Result<(), Impossible> {
        let index = usize::from(at.bus);
        while self.0.len() <= index {
            self.0
                .push(Bus::phb(format!("{} has an address on it", device.name)));
        }
        let slot_zero = || Impossible::SlotZero(device.name.clone(), at.bus);
        let bus = self.0.get_mut(index).ok_or_else(slot_zero)?;
        let was_empty = bus.is_empty();
        let slot = usize::from(at.slot)
            .checked_sub(1)
            .and_then(|slot| bus.slots.get_mut(slot))
            .ok_or_else(slot_zero)?;
        let bit = 1_u8.checked_shl(at.function.into()).unwrap_or_default();
        if *slot & bit != 0 || bit == 0 {
            return Err(Impossible::Twice(
                device.name.clone(),
                at.bus,
                at.slot,
                at.function,
            ));
        }
        *slot |= bit;
        if was_empty && index != 0 {
            bus.group = device.group;
        } else if bus.group != device.group {
            // Devices of several groups: nothing is isolated on this bus any more.
            bus.group = 0;
        }
        Ok(())
    }

    fn place_anywhere(&mut self, device: &Device) -> Result<usize, Impossible> {
        let room = self
            .0
            .iter_mut()
            .position(|bus| bus.group == device.group && bus.take_slot());
        if let Some(index) = room {
            return Ok(index);
        }
        let full = || Impossible::Full(device.name.clone());
        if !self.0.iter().skip(1).any(Bus::is_empty) {
            if self.0.len() == MOST_BUSES {
                return Err(full());
            }
            self.0.push(Bus::phb(match device.group {
                0 => format!("no room for {} on the other buses", device.name),
                _ => format!(
                    "isolates {} from devices of other IOMMU groups",
                    device.name
                ),
            }));
        }
        let mut others = self.0.iter_mut().enumerate().skip(1);
        let (index, bus) = others.find(|(_, bus)| bus.is_empty()).ok_or_else(full)?;
        bus.group = device.group;
        bus.take_slot();
        Ok(index)
    }

    /// The PHBs.
    pub fn phbs(&self) -> Result<Vec<Phb>, Impossible> {
        let phbs: Vec<_> = self
            .0
            .iter()
            .enumerate()
            .filter_map(|(index, bus)| {
                let reason = bus.phb.clone()?;
                Some(Phb { index, reason })
            })
            .collect();

        if phbs.len() > MOST_PHBS {
            return Err(Impossible::TooMany(phbs.len()));
        }
        Ok(phbs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(group: u64, slot: Option<(u8, u8, u8)>) -> Device {
        Device {
            name: "device".into(),
            slot: slot.map(|(bus, slot, function)| Slot {
                bus,
                slot,
                function,
            }),
            group,
        }
    }

    fn count(controllers: &[(u8, bool)], devices: &[Device]) -> Result<usize, Impossible> {
        let mut buses = Buses::new(controllers);
        buses.place(devices)?;
        Ok(buses.phbs()?.len())
    }

    #[test]
    fn default_phb_is_always_there() {
        assert_eq!(count(&[], &[]), Ok(1));
        assert_eq!(count(&[(0, true)], &[]), Ok(1));
    }

    #[test]
    fn gaps_and_controllers_count() {
        assert_eq!(count(&[(0, true), (1, true)], &[]), Ok(2));
        assert_eq!(count(&[(3, true)], &[]), Ok(4));
        assert_eq!(count(&[(3, false)], &[]), Ok(3));
        assert_eq!(count(&[(31, true)], &[]), Ok(32));
        assert_eq!(count(&[(32, true)], &[]), Err(Impossible::TooMany(33)));
    }

    #[test]
    fn host_devices_are_isolated_by_group() {
        let one = || device(1, None);
        assert_eq!(count(&[], &[one()]), Ok(2));
        assert_eq!(count(&[], &[one(), one(), one()]), Ok(2));
        assert_eq!(count(&[], &[one(), device(3, None), one()]), Ok(3));
        // An empty PHB is taken before one is added.
        assert_eq!(count(&[(1, true)], &[one()]), Ok(2));
        assert_eq!(count(&[(1, true)], &[one(), device(2, None)]), Ok(3));
        // Group 0: the host does not say which group.
        assert_eq!(count(&[], &[device(0, None)]), Ok(1));
    }

    #[test]
    fn addresses_are_respected() {
        let at = |group, bus, slot| device(group, Some((bus, slot, 0)));
        // On the default PHB, as the facts' n = 1.
        assert_eq!(count(&[], &[at(1, 0, 5)]), Ok(1));
        assert_eq!(count(&[], &[at(1, 2, 5)]), Ok(3));
        // Bus 1 has the group of the device with an address.
        assert_eq!(count(&[], &[device(1, None), at(1, 1, 1)]), Ok(2));
        // Mixed groups on bus 1: it is nobody's.
        assert_eq!(
            count(&[], &[at(1, 1, 1), at(2, 1, 2), device(1, None)]),
            Ok(3)
        );
        assert_eq!(
            count(&[], &[at(1, 0, 5), at(2, 0, 5)]),
            Err(Impossible::Twice("device".into(), 0, 5, 0))
        );
        assert_eq!(
            count(&[], &[at(1, 0, 0)]),
            Err(Impossible::SlotZero("device".into(), 0))
        );
        assert_eq!(count(&[], &[at(1, 255, 1)]), Err(Impossible::TooMany(256)));
    }

    #[test]
    fn emulated_devices_overflow() {
        let emulated = |count| vec![device(0, None); count];
        // One of the 31 slots stays free.
        assert_eq!(count(&[], &emulated(30)), Ok(1));
        assert_eq!(count(&[], &emulated(31)), Ok(2));
        assert_eq!(count(&[], &emulated(61)), Ok(2));
        assert_eq!(count(&[], &emulated(62)), Ok(3));
        // A bridge has room, too, and is no PHB.
        assert_eq!(count(&[(1, false)], &emulated(31)), Ok(1));
    }

    #[test]
    fn functions_of_a_slot() {
        let all: Vec<_> = (0..8)
            .map(|function| device(0, Some((0, 1, function))))
            .collect();
        assert_eq!(count(&[], &all), Ok(1));
        // A slot with one function in use is not free.
        let rest = vec![device(0, None); 30];
        assert_eq!(
            count(&[], &[vec![device(0, Some((0, 1, 1)))], rest].concat()),
            Ok(2)
        );
    }
}

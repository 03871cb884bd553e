// SPDX-License-Identifier: GPL-2.0

//! Elements of a domain's XML, with messages that name them.

use crate::{
    phb::Slot,
    units::{BadSize, Kib},
};
use anyhow::{Context, Result};
use roxmltree::{Document, Node, ParsingOptions};

/// No domain has more elements and attributes.
const MOST_NODES: u32 = 1 << 20;

/// The namespace of elements that libvirt hands to QEMU as they are.
const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// What is wrong with an element.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("<{element}> in line {line} {problem}")]
pub struct Fault {
    element: String,
    line: u32,
    problem: String,
}

/// Reads XML.
pub fn parse(text: &str) -> Result<Document<'_>> {
    let options = ParsingOptions {
        nodes_limit: MOST_NODES,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(text, options).context("no well-formed XML")
}

/// Where on the guest's buses a device is.
#[derive(Debug, PartialEq, Eq)]
pub enum GuestAddress {
    /// The XML does not say.
    Open,
    /// At a PCI address.
    At(Slot),
    /// Not on PCI.
    Elsewhere,
}

/// An element.
#[derive(Clone, Copy)]
pub struct Element<'a>(Node<'a, 'a>);

impl<'a> Element<'a> {
    /// The outermost element, which must have this name.
    pub fn root(document: &'a Document<'a>, name: &str) -> Result<Self, Fault> {
        let root = Self(document.root_element());
        if root.name() == "domstatus" {
            return Err(root.fault(&format!(
                "is no <{name}> but the state of a running guest: want what 'virsh dumpxml --inactive' prints"
            )));
        }
        if root.name() != name {
            return Err(root.fault(&format!("is no <{name}>")));
        }
        Ok(root)
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        self.0.tag_name().name()
    }

    /// The elements in it, but for those of other namespaces.
    pub fn children(&self) -> impl Iterator<Item = Self> + use<'a> {
        self.0
            .children()
            .filter(|node| node.is_element() && node.tag_name().namespace().is_none())
            .map(Self)
    }

    /// The first element of this name in it.
    pub fn child(&self, name: &str) -> Option<Self> {
        self.children().find(|child| child.name() == name)
    }

    /// The same, which must be there.
    pub fn required(&self, name: &str) -> Result<Self, Fault> {
        self.child(name)
            .ok_or_else(|| self.fault(&format!("has no <{name}>")))
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&'a str> {
        self.0.attribute(name)
    }

    /// Where it is, such as `devices/hostdev[2]`; the outermost element is left out.
    pub fn path(&self) -> String {
        let mut parts: Vec<_> = self
            .0
            .ancestors()
            .filter(|node| node.is_element())
            .map(|node| {
                let same = |other: &Node| other.tag_name() == node.tag_name();
                let before = node.prev_siblings().skip(1).filter(same).count();
                let after = node.next_siblings().skip(1).filter(same).count();
                let name = node.tag_name().name();

                match before.checked_add(1) {
                    Some(number) if number > 1 || after > 0 => format!("{name}[{number}]"),
                    _ => name.to_owned(),
                }
            })
            .collect();

        if parts.len() > 1 {
            parts.pop();
        }
        parts.reverse();
        parts.join("/")
    }

    /// An error that names the element.
    pub fn fault(&self, problem: &str) -> Fault {
        Fault {
            element: self.path(),
            line: self.0.document().text_pos_at(self.0.range().start).row,
            problem: problem.to_owned(),
        }
    }

    /// The arguments of `<qemu:commandline>` that are as wanted, each with where it is.
    pub fn qemu_arguments(&self, wanted: fn(&str) -> bool) -> Vec<String> {
        let is = |node: &Node, name| node.has_tag_name((QEMU, name));
        self.0
            .children()
            .filter(|node| is(node, "commandline"))
            .flat_map(|node| node.children())
            .filter(|node| is(node, "arg"))
            .filter_map(|node| {
                let value = node.attribute("value").filter(|text| wanted(text))?;
                Some(format!("{} ({value})", Self(node).path()))
            })
            .collect()
    }

    /// All text in it.
    pub fn text(&self) -> String {
        self.0
            .descendants()
            .filter(Node::is_text)
            .filter_map(|node| node.text())
            .collect()
    }

    /// Its content as a size; `None` if it is empty, which libvirt takes for not there.
    pub fn size(
        &self,
        read: fn(&str, Option<&str>) -> Result<Kib, BadSize>,
    ) -> Result<Option<Kib>, Fault> {
        let text = self.text();
        if text.is_empty() {
            return Ok(None);
        }
        read(&text, self.attribute("unit"))
            .map(Some)
            .map_err(|bad| self.fault(&format!("has a bad size: {bad}")))
    }

    /// The same, which must be there.
    pub fn required_size(
        &self,
        read: fn(&str, Option<&str>) -> Result<Kib, BadSize>,
    ) -> Result<Kib, Fault> {
        self.size(read)?.ok_or_else(|| self.fault("is empty"))
    }

    /// An attribute as a size in units of the attribute `unit`.
    pub fn size_attribute(&self, name: &str) -> Result<Kib, Fault> {
        let text = self
            .attribute(name)
            .ok_or_else(|| self.fault(&format!("has no attribute '{name}'")))?;

        Kib::of_memory(text, self.attribute("unit"))
            .map_err(|bad| self.fault(&format!("has a bad '{name}': {bad}")))
    }

    /// An attribute as a number; `base` 0: hexadecimal after 0x, octal after 0.
    pub fn number<T: TryFrom<u32>>(&self, name: &str, base: u32) -> Result<Option<T>, Fault> {
        let Some(text) = self.attribute(name) else {
            return Ok(None);
        };
        let (digits, base) = match (base, text.strip_prefix("0x"), text.strip_prefix('0')) {
            (0, Some(hex), _) => (hex, 16),
            (0, None, Some(octal)) if !octal.is_empty() => (octal, 8),
            (0, ..) => (text, 10),
            (base, ..) => (text, base),
        };

        Some(digits)
            .filter(|digits| !digits.starts_with('+'))
            .and_then(|digits| u32::from_str_radix(digits, base).ok())
            .and_then(|number| T::try_from(number).ok())
            .map(Some)
            .ok_or_else(|| {
                self.fault(&format!(
                    "has {name}='{text}', which is no number or too large"
                ))
            })
    }

    /// Where the guest has this device.
    pub fn guest_address(&self) -> Result<GuestAddress> {
        let Some(address) = self.child("address") else {
            return Ok(GuestAddress::Open);
        };
        if address.attribute("type") != Some("pci") {
            return Ok(GuestAddress::Elsewhere);
        }
        let part =
            |name| -> Result<u32, Fault> { Ok(address.number(name, 0)?.unwrap_or_default()) };
        let (domain, bus, slot, function) = (
            part("domain")?,
            part("bus")?,
            part("slot")?,
            part("function")?,
        );
        if (domain, bus, slot) == (0, 0, 0) {
            return Ok(GuestAddress::Open);
        }
        let found = || {
            Some(Slot {
                bus: u8::try_from(bus).ok().filter(|_| domain == 0)?,
                slot: u8::try_from(slot).ok().filter(|slot| *slot < 32)?,
                function: u8::try_from(function).ok().filter(|number| *number < 8)?,
            })
        };
        let slot = found().ok_or_else(|| {
            address.fault("is no PCI address of a guest: want domain 0, bus up to 0xff, slot up to 0x1f, function up to 7")
        })?;
        Ok(GuestAddress::At(slot))
    }
}

// SPDX-License-Identifier: GPL-2.0

//! Domains, and what libvirt makes of them.

use super::*;

const GPU: &str = "0000:03:00.0";
const BRIDGES: [&str; 2] = ["0006:00:00.0", "0006:00:00.1"];

/// A host with two GPUs in two groups and a network card in a third.
fn host(bdf: Bdf) -> Option<Known> {
    let (group, bridge) = match bdf.to_string().as_str() {
        "0000:03:00.0" => (Some(0), false),
        "0006:00:00.0" | "0006:00:00.1" => (Some(0), true),
        "0006:03:00.0" => (Some(2), false),
        "000d:00:00.0" => (Some(2), true),
        "0001:01:00.0" => (Some(1), false),
        "0009:00:00.0" => (None, false),
        _ => return None,
    };
    Some(Known { group, bridge })
}

fn hostdev(bdf: &str) -> String {
    let bdf: Bdf = bdf.parse().unwrap();
    format!(
        "<hostdev mode='subsystem' type='pci' managed='no'><driver name='vfio'/><source><address domain='{:#06x}' bus='{:#04x}' slot='{:#04x}' function='{:#x}'/></source></hostdev>",
        bdf.domain, bdf.bus, bdf.slot, bdf.function
    )
}

fn hostdevs(bdfs: &[&str]) -> String {
    bdfs.iter().map(|bdf| hostdev(bdf)).collect()
}

/// A KVM guest on pseries.
fn guest(elements: &str, devices: &str) -> String {
    format!(
        "<domain type='kvm'><name>guest</name>{elements}<os><type arch='ppc64' machine='pseries'>hvm</type></os><devices>{devices}</devices></domain>"
    )
}

const GIB: &str = "<memory unit='KiB'>1048576</memory>";

fn limit(xml: &str) -> Result<u64> {
    Ok(Domain::parse(xml)?.limit(host)?.limit.bytes)
}

fn phbs(xml: &str) -> usize {
    Domain::parse(xml)
        .unwrap()
        .limit(host)
        .unwrap()
        .host_bridges
        .len()
}

/// The cases of libvirt's own test of limits, with its names; on x86 "pc", on POWER "pseries".
#[test]
fn the_cases_of_libvirt() {
    let hard = "<memtune><hard_limit unit='KiB'>2097152</hard_limit></memtune>";
    let locked = "<memoryBacking><locked/></memoryBacking>";
    let device = hostdev("0001:01:00.0");
    const UNLIMITED: u64 = 9_007_199_254_740_991;

    for (name, elements, devices, pc, pseries) in [
        ("kvm", String::new(), "", 0, 20_971_520),
        ("hardlimit", hard.into(), "", 2_147_483_648, 2_147_483_648),
        ("locked", locked.into(), "", UNLIMITED, UNLIMITED),
        (
            "hostdev",
            String::new(),
            &*device,
            2_147_483_648,
            4_320_133_120,
        ),
        (
            "hardlimit+locked",
            format!("{hard}{locked}"),
            "",
            2_147_483_648,
            2_147_483_648,
        ),
        (
            "hardlimit+hostdev",
            hard.into(),
            &device,
            2_147_483_648,
            2_147_483_648,
        ),
        (
            "hardlimit+locked+hostdev",
            format!("{hard}{locked}"),
            &device,
            2_147_483_648,
            2_147_483_648,
        ),
        (
            "locked+hostdev",
            locked.into(),
            &device,
            UNLIMITED,
            UNLIMITED,
        ),
    ] {
        let xml = guest(&format!("{GIB}{elements}"), devices);
        assert_eq!(limit(&xml).unwrap(), pseries, "pseries-{name}");
        let xml = xml.replace(
            "arch='ppc64' machine='pseries'",
            "arch='x86_64' machine='pc'",
        );
        assert_eq!(limit(&xml).unwrap(), pc, "pc-{name}");
    }
    for arch in [
        "arch='ppc64' machine='pseries'",
        "arch='x86_64' machine='pc'",
    ] {
        let tcg = guest(GIB, "")
            .replace("type='kvm'", "type='qemu'")
            .replace("arch='ppc64' machine='pseries'", arch);
        assert_eq!(limit(&tcg).unwrap(), 0, "tcg {arch}");
    }
}

/// What libvirt 9.0 was seen to set for QEMU on an emulated host.
#[test]
fn the_limits_that_were_seen() {
    let root = |index| format!("<controller type='pci' index='{index}' model='pci-root'/>");
    let all = [GPU, BRIDGES[0], BRIDGES[1]];
    // On the default PHB, by an address in the guest, and on one that isolates the group.
    let on_default = |bdfs: &[&str]| {
        let mut slot = 4;
        hostdevs(bdfs).replace("</source>", "</source>@").split('@').fold(String::new(), |text, part| {
            slot += 1;
            if part.ends_with("</source>") {
                format!("{text}{part}<address type='pci' domain='0x0000' bus='0x00' slot='{slot:#04x}' function='0x0'/>")
            } else {
                format!("{text}{part}")
            }
        })
    };
    let three = "<memory unit='GiB'>3</memory>";
    let growing = format!("{GIB}<maxMemory slots='16' unit='GiB'>4</maxMemory>");

    for (elements, devices, wanted) in [
        (GIB, root(1), 25_165_824),
        (GIB, on_default(&[GPU]), 2_168_455_168),
        (GIB, hostdev(GPU), 4_320_133_120),
        (GIB, on_default(&all), 275_981_008_896),
        (GIB, on_default(&BRIDGES[..1]), 275_981_008_896),
        (GIB, hostdevs(&all), 550_863_110_144),
        (GIB, hostdev(BRIDGES[0]), 550_863_110_144),
        (
            GIB,
            hostdevs(&[GPU, BRIDGES[0], "0006:03:00.0", "000d:00:00.0"]),
            825_745_211_392,
        ),
        (three, on_default(&[GPU]), 3_273_654_272),
        (three, hostdevs(&all), 553_027_371_008),
        (&growing, on_default(&[GPU]), 2_193_620_992),
        (&growing, on_default(&all), 279_227_400_192),
    ] {
        let xml = guest(elements, &devices);
        assert_eq!(limit(&xml).unwrap(), wanted, "{xml}");
    }
}

#[test]
fn host_bridges_are_counted_as_libvirt_does() {
    let root = |index| {
        format!(
            "<controller type='pci' index='{index}' model='pci-root'><model name='spapr-pci-host-bridge'/><target index='{index}'/></controller>"
        )
    };
    let bridge = "<controller type='pci' index='1' model='pci-bridge'/>";
    let nic = hostdev("0001:01:00.0");
    let at = |bdf: &str, bus: u8| {
        hostdev(bdf).replace(
            "</hostdev>",
            &format!("<address type='pci' domain='0' bus='{bus}' slot='7'/></hostdev>"),
        )
    };

    for (devices, wanted) in [
        (String::new(), 1),
        (root(0), 1),
        (format!("{}{}", root(0), root(1)), 2),
        (root(2), 3),
        (bridge.into(), 1),
        (hostdevs(&[GPU, BRIDGES[0], BRIDGES[1]]), 2),
        (hostdevs(&[GPU, "0006:03:00.0"]), 3),
        (hostdevs(&[GPU, "0006:03:00.0"]) + &nic, 4),
        (format!("{}{}", root(1), hostdev(GPU)), 2),
        (format!("{}{}{nic}", root(1), hostdev(GPU)), 3),
        (at(GPU, 0), 1),
        (at(GPU, 3), 4),
        (format!("{}{}", at(GPU, 1), hostdev(BRIDGES[0])), 2),
        (format!("{}{}", at(GPU, 0), hostdev(BRIDGES[0])), 2),
        // The host does not tell its group: it is not isolated.
        (hostdev("0009:00:00.0"), 1),
        // An interface of this type is a host device.
        ("<interface type='hostdev'><source><address type='pci' domain='1' bus='1' slot='0'/></source></interface>".into(), 2),
        // 26 disks, a USB controller, a balloon: with the spare slot 29. Then 31 and 32.
        (disks(26), 1),
        (disks(28), 1),
        (disks(29), 2),
        // What is not on PCI does not count.
        (disks(28) + "<disk><target dev='sda' bus='scsi'/></disk><interface type='user'><model type='spapr-vlan'/></interface><tpm model='tpm-spapr'/><controller type='scsi' index='0'/>", 1),
        (disks(28) + "<memballoon model='none'/><controller type='usb' index='0' model='none'/>", 1),
        (disks(30) + "<memballoon model='none'/><controller type='usb' index='0' model='none'/>", 1),
        (disks(31) + "<memballoon model='none'/><controller type='usb' index='0' model='none'/>", 2),
        // Each of these does.
        (disks(27) + "<interface type='user'/>", 1),
        (disks(28) + "<interface type='user'/>", 2),
        (disks(28) + "<graphics type='vnc'/>", 2),
        (disks(28) + "<channel type='unix'><target type='virtio'/></channel>", 2),
        (disks(28) + "<rng model='virtio'/>", 2),
        (disks(28) + "<controller type='scsi' model='virtio-scsi'/>", 2),
        // Companions share a slot.
        (disks(28) + "<controller type='usb' index='0' model='ich9-ehci1'/><controller type='usb' index='0' model='ich9-uhci1'/>", 1),
    ] {
        let xml = guest(GIB, &devices);
        assert_eq!(phbs(&xml), wanted, "{xml}");
    }
}

fn disks(count: usize) -> String {
    "<disk><target dev='vda' bus='virtio'/></disk>".repeat(count)
}

#[test]
fn memory_is_rounded_as_at_start() {
    let memory = |elements: &str, devices: &str| {
        let domain = Domain::parse(&guest(elements, devices)).unwrap();
        (
            domain.memory.0 >> 10,
            domain.max_memory.map(|max| max.0 >> 10),
        )
    };
    let dimm = |mib: u64| {
        format!("<memory model='dimm'><target><size unit='MiB'>{mib}</size></target></memory>")
    };

    assert_eq!(memory("<memory unit='MiB'>1000</memory>", ""), (1024, None));
    assert_eq!(memory("<memory unit='b'>1</memory>", ""), (256, None));
    assert_eq!(memory("<memory>1048577</memory>", ""), (1280, None));
    assert_eq!(
        memory(
            "<memory unit='GiB'>1</memory><maxMemory slots='1' unit='MiB'>1100</maxMemory>",
            ""
        ),
        (1024, Some(1280))
    );
    // The memory includes DIMMs; each is rounded, and before it is taken from the memory.
    assert_eq!(
        memory("<memory unit='MiB'>1224</memory>", &dimm(200)),
        (1280, None)
    );
    assert_eq!(
        memory("<memory unit='GiB'>8</memory>", &dimm(300).repeat(2)),
        (8192, None)
    );
    assert_eq!(
        memory("<memory unit='MiB'>1281</memory>", &dimm(257)),
        (1024 + 512, None)
    );
    // Nodes overrule it.
    assert_eq!(
        memory(
            "<memory unit='GiB'>9</memory><cpu><numa><cell memory='500' unit='MiB'/><cell memory='524288'/></numa></cpu>",
            &dimm(256)
        ),
        (1280, None)
    );
    // Of an NVDIMM the content is rounded down.
    let nvdimm = "<memory model='nvdimm'><target><size unit='MiB'>800</size><label><size unit='MiB'>2</size></label></target></memory>";
    assert_eq!(
        memory("<memory unit='MiB'>1794</memory>", nvdimm),
        (1024 + 768 + 2, None)
    );
}

#[test]
fn what_decides_the_rule() {
    let mode = |devices: &str| match Domain::parse(&guest(GIB, devices))
        .unwrap()
        .limit(host)
        .unwrap()
        .inputs
    {
        Some(Inputs::Pseries(guest)) => guest.mode,
        other => panic!("{other:?}"),
    };

    assert_eq!(mode(""), Mode::None);
    assert_eq!(mode(&hostdev(GPU)), Mode::Vfio);
    assert_eq!(mode(&hostdevs(&[GPU, BRIDGES[1]])), Mode::Nvlink2);
    assert_eq!(mode("<hostdev type='mdev' model='vfio-pci'/>"), Mode::Vfio);
    assert_eq!(mode("<disk type='nvme'/>"), Mode::Vfio);
    assert_eq!(mode("<interface type='vdpa'/>"), Mode::Vfio);
    assert_eq!(mode("<hostdev mode='subsystem' type='usb'/>"), Mode::None);
}

#[test]
fn machines_that_are_not_pseries_have_no_host_bridges() {
    let xml = guest(GIB, "").replace("machine='pseries'", "machine='powernv9'");
    assert_eq!((phbs(&xml), limit(&xml).unwrap()), (0, (8192 + 8192) << 10));
    for machine in ["machine='pseries-7.2'", ""] {
        assert_eq!(
            phbs(&guest(GIB, "").replace("machine='pseries'", machine)),
            1
        );
    }
}

/// Each is refused with a message that has these words.
#[test]
fn nonsense_names_the_element() {
    let memory =
        |attributes: &str, text: &str| guest(&format!("<memory {attributes}>{text}</memory>"), "");
    let device = |text: &str| guest(GIB, text);
    let source = |address: &str| {
        device(&format!(
            "<hostdev type='pci'><source>{address}</source></hostdev>"
        ))
    };

    for (xml, words) in [
        (String::new(), "no well-formed XML"),
        ("<domain".into(), "no well-formed XML"),
        (
            "<!DOCTYPE a [<!ENTITY b 'c'>]><domain/>".into(),
            "no well-formed XML",
        ),
        ("<network/>".into(), "<network> in line 1 is no <domain>"),
        (
            guest("", ""),
            "<domain> in line 1 leaves no memory at start",
        ),
        (
            memory("", "0"),
            "<memory> in line 1 leaves no memory at start",
        ),
        (
            memory("", "-1"),
            "<memory> in line 1 has a bad size: '-1' is no number",
        ),
        (
            memory("", "1 "),
            "<memory> in line 1 has a bad size: '1 ' is no number",
        ),
        (
            memory("", "18446744073709551616"),
            "<memory> in line 1 has a bad size",
        ),
        (memory("unit='XiB'", "1"), "'XiB' is no unit"),
        (memory("unit='EiB'", "8"), "8 EiB is too large"),
        (
            guest(
                "\n<memory/>\n<memtune>\n<hard_limit>x</hard_limit></memtune>",
                "",
            ),
            "<memory> in line 2 leaves no memory at start",
        ),
        (
            guest(
                &format!(
                    "{GIB}\n\n<memtune><hard_limit unit='KiB'>9007199254740992</hard_limit></memtune>"
                ),
                "",
            ),
            "<memtune/hard_limit> in line 3",
        ),
        (
            guest(&format!("{GIB}<maxMemory unit='GiB'>4</maxMemory>"), ""),
            "<maxMemory> in line 1 needs an attribute 'slots'",
        ),
        (
            guest(
                &format!("{GIB}<maxMemory slots='1' unit='MiB'>4</maxMemory>"),
                "",
            ),
            "<maxMemory> in line 1 is less than the memory",
        ),
        (
            guest(&format!("{GIB}<cpu><numa><cell/></numa></cpu>"), ""),
            "<cpu/numa/cell> in line 1 has no attribute 'memory'",
        ),
        (
            guest(
                "<cpu><numa><cell memory='9007199254740990'/><cell memory='9223372036854775807' unit='b'/></numa></cpu>",
                "",
            ),
            "<cpu/numa/cell[2]> in line 1",
        ),
        (
            device("<memory model='dimm'/>"),
            "<devices/memory> in line 1 has no <target>",
        ),
        (
            device("<memory model='dimm'><target><size unit='GiB'>2</size></target></memory>"),
            "is less than the sum of the memory devices",
        ),
        (
            // 1 GiB, all of which the rounded DIMMs take.
            device(
                &"<memory model='dimm'><target><size unit='MiB'>300</size></target></memory>"
                    .repeat(2),
            ),
            "<memory> in line 1 leaves no memory at start",
        ),
        (
            device(&format!("<rng/>{}\n{}", hostdev(GPU), hostdev(GPU))),
            "<devices/hostdev[2]> in line 2 has the host's PCI function 0000:03:00.0, as devices/hostdev[1] has already",
        ),
        (
            device(&format!(
                "{}<interface type='hostdev'><source><address type='pci' domain='1' bus='1' slot='0'/></source></interface>",
                hostdev("0001:01:00.0")
            )),
            "<devices/interface> in line 1 has the host's PCI function 0001:01:00.0, as devices/hostdev has already",
        ),
        (
            source("<address bus='4' slot='1'/>"),
            "the host has no PCI function 0000:04:01.0 (without the attribute 'domain' it is in PCI domain 0000)",
        ),
        (
            "<domstatus state='running'><domain type='kvm'/></domstatus>".into(),
            "'virsh dumpxml --inactive'",
        ),
        (
            device(
                "<memory model='nvdimm'><target><size unit='MiB'>256</size><label><size unit='MiB'>1</size></label></target></memory>",
            ),
            "<devices/memory/target> in line 1 needs a size",
        ),
        (
            device("<hostdev type='pci'/>"),
            "<devices/hostdev> in line 1 has no <source>",
        ),
        (
            device("<hostdev type='usb'/><hostdev type='pci'><source/></hostdev>"),
            "<devices/hostdev[2]/source> in line 1 has no <address>",
        ),
        (source("<address/>"), "is no PCI address"),
        (source("<address bus='0x100'/>"), "is no PCI address"),
        (
            source("<address bus='1' slot='0x20'/>"),
            "is no PCI address",
        ),
        (
            source("<address bus='1' function='8'/>"),
            "is no PCI address",
        ),
        (
            source("<address bus='-1'/>"),
            "<devices/hostdev/source/address> in line 1 has bus='-1'",
        ),
        (
            source("<address bus='0xfffffffff'/>"),
            "has bus='0xfffffffff'",
        ),
        (source("<address bus='0x+1'/>"), "has bus='0x+1'"),
        (
            source("<address domain='4' bus='4'/>"),
            "devices/hostdev: the host has no PCI function 0004:04:00.0",
        ),
        (
            device(
                "<hostdev type='pci'><driver name='kvm'/><source><address bus='1'/></source></hostdev>",
            ),
            "<devices/hostdev/driver> in line 1 has name='kvm'",
        ),
        (
            device("<controller type='pci' index='300' model='pci-root'/>"),
            "has index='300'",
        ),
        (
            device("<controller type='pci' index='0' model='pcie-root'/>"),
            "has model 'pcie-root'",
        ),
        (
            device("<controller type='pci' index='0' model='pci-bridge'/>"),
            "has index 0",
        ),
        (
            device("<controller type='pci' index='1'/><controller type='pci' index='1'/>"),
            "<devices/controller[2]> in line 1 has the index 1 of another",
        ),
        (
            device("<controller type='pci' index='32' model='pci-root'/>"),
            "33 PCI host bridges",
        ),
        (
            device("<rng><address type='pci' domain='1' bus='0' slot='1'/></rng>"),
            "is no PCI address of a guest",
        ),
        (
            device("<rng><address type='pci' bus='1' slot='0'/></rng>"),
            "devices/rng: no device can be in slot 0x00 of bus 0x01",
        ),
        (
            device(
                "<rng><address type='pci' slot='1'/></rng><rng><address type='pci' slot='1'/></rng>",
            ),
            "devices/rng[2]: another device has the guest address",
        ),
    ] {
        let error = limit(&xml).expect_err(&xml);
        let message = format!("{error:#}");
        assert!(message.contains(words), "{xml}\n{message}");
    }
}

/// Devices that are handed to QEMU behind libvirt's back, in either of QEMU's notations.
#[test]
fn arguments_for_qemu_are_seen() {
    let arguments = |values: &[&str], namespace: &str| {
        let values: String = values
            .iter()
            .map(|value| format!("<qemu:arg value='{value}'/>"))
            .collect();
        let xml = guest(GIB, "")
            .replace("<domain ", &format!("<domain xmlns:qemu='{namespace}' "))
            .replace(
                "</domain>",
                &format!("<qemu:commandline>{values}</qemu:commandline></domain>"),
            );
        Domain::parse(&xml).unwrap().behind_libvirt
    };
    let qemu = "http://libvirt.org/schemas/domain/qemu/1.0";

    assert_eq!(
        arguments(&["-device", "vfio-pci,host=0004:04:00.0"], qemu),
        ["commandline/arg[2] (vfio-pci,host=0004:04:00.0)"]
    );
    assert_eq!(
        arguments(
            &["-device", r#"{"driver":"vfio-pci","host":"0004:04:00.0"}"#],
            qemu
        )
        .len(),
        1
    );
    let by_path = "vfio-pci,sysfsdev=/sys/bus/pci/devices/0004:04:00.0";
    assert_eq!(arguments(&["-device", by_path], qemu).len(), 1);
    assert!(arguments(&["-device", "virtio-rng-pci"], qemu).is_empty());
    let property = "vfio-pci.x-no-kvm-intx=on";
    assert!(arguments(&["-global", property], qemu).is_empty());
    let other = "vfio-pci,host=0004:04:00.0";
    assert!(arguments(&[other], "http://example.org").is_empty());
}

/// The bus of each host function: what has an address is there, the rest on a bus of its group.
#[test]
fn functions_get_a_bus_by_group() {
    let buses = |devices: &str| -> Vec<_> {
        let domain = Domain::parse(&guest(GIB, devices)).unwrap();
        let functions = domain.limit(host).unwrap().functions;
        functions.iter().map(|function| function.bus).collect()
    };
    let at = |bdf: &str, bus: u8| {
        hostdev(bdf).replace(
            "</hostdev>",
            &format!("<address type='pci' domain='0' bus='{bus}' slot='7'/></hostdev>"),
        )
    };

    assert_eq!(
        buses(&hostdevs(&[GPU, "0006:03:00.0", BRIDGES[0]])),
        [Some(1), Some(2), Some(1)]
    );
    assert_eq!(
        buses(&format!("{}{}", at(GPU, 2), hostdev("0006:03:00.0"))),
        [Some(2), Some(1)]
    );
    assert_eq!(buses(&hostdev("0009:00:00.0")), [Some(0)]);
}

#[test]
fn other_namespaces_are_not_read() {
    let xml = guest(GIB, "").replace(
        "<domain ",
        "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' ",
    );
    let xml = xml.replace(
        "</domain>",
        "<qemu:memtune><qemu:hard_limit>1</qemu:hard_limit></qemu:memtune></domain>",
    );
    assert_eq!(limit(&xml).unwrap(), 20_971_520);
}

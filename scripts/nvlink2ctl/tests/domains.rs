// SPDX-License-Identifier: GPL-2.0

//! Domains after public reports, in `tests/cases`, and what is right to say about them. Each test has the case
//! itself, and others of the same kind.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has failed"
)]

mod common;

use common::{data, device, expect, expect_after, host, json_of, on_domain, remove};
use serde_json::{Value, json};

/// Checks a domain of the cases with one text replaced by another.
fn with_domain(file: &str, (old, new): (&str, &str), check: impl FnOnce(&str)) {
    let text = std::fs::read_to_string(data(&format!("cases/{file}"))).unwrap();
    assert!(text.contains(old), "{file}: no {old}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("domain.xml");
    std::fs::write(&path, text.replace(old, new)).unwrap();
    check(&format!("check-domain {}", path.display()));
}

/// DIMMs of 300 MiB are 512 MiB each, and are so before they are taken from <memory>.
#[test]
fn unaligned_dimm() {
    let command = on_domain("memlock --domain", "unaligned-dimm/dimm.xml");
    expect(&host("redbud"), &[(&command, 0, &["8782872576 bytes\n"])]);
    assert_eq!(
        json_of(&host("redbud"), &command)["inputs"]["memory"],
        8_388_608
    );
    // Numbers are rounded as sizes in XML are.
    for (numbers, bytes) in [
        ("--memory 1000MiB --max-memory 1024MiB", 275_981_008_896_u64),
        ("--memory 1025MiB --max-memory 1280MiB", 276_251_541_504),
        ("--memory 1GiB --max-memory 1025MiB", 276_251_541_504),
        ("--memory 8100MiB --mode vfio", 8_694_792_192),
    ] {
        let command = format!("memlock {numbers}");
        let said = format!("{bytes} bytes\n");
        expect(&host("redbud"), &[(&command, 0, &[&said])]);
    }
}

/// A limit of memory and 1 GiB, as guides for x86 say.
#[test]
fn hard_limit_too_small() {
    let file = "hard-limit-too-small/hard.xml";
    expect(
        &host("redbud"),
        &[
            (
                &on_domain("memlock --explain --domain", file),
                0,
                &[
                    "35433480192 bytes\n",
                    "note: <hard_limit> is 35433480192 bytes, less than the 584409153536",
                ],
            ),
            (
                &on_domain("check-domain", file),
                1,
                &[
                    "FAILED  locked memory: <hard_limit> is 35433480192 bytes, less than the 584409153536",
                    "570712064 KiB",
                ],
            ),
        ],
    );
    with_domain(
        file,
        (
            "<hard_limit unit='GiB'>33<",
            "<hard_limit unit='KiB'>570712064<",
        ),
        |command| {
            expect(&host("redbud"), &[(command, 0, &["-hard_limit"])]);
        },
    );
    with_domain(
        file,
        (
            "<hard_limit unit='GiB'>33<",
            "<hard_limit unit='KiB'>570712063<",
        ),
        |command| {
            expect(&host("redbud"), &[(command, 1, &["570712064 KiB"])]);
        },
    );
}

/// GPUs of two chips, or a GPU and another device, on one PCI host bridge: QEMU gives the guest no ATSD.
#[test]
fn two_groups_on_one_phb() {
    let file = "two-groups-on-one-phb/a.xml";
    let words =
        "PCI host bridge 1 of the guest has devices of 2 IOMMU groups (group 1: 0004:04:00.0";
    expect(
        &host("redbud"),
        &[
            (
                &on_domain("memlock --domain", file),
                0,
                &["584409153536 bytes\n", "note: PCI host bridge 1", words],
            ),
            (
                &on_domain("check-domain", file),
                1,
                &["FAILED  PCI host bridges", words],
            ),
            (
                "qemu-args 0004:04:00.0 0035:03:00.0",
                0,
                &[
                    "host=0004:04:00.0,bus=pci.0",
                    "host=0035:03:00.0,bus=phb1.0,addr=0x1",
                ],
            ),
        ],
    );
    // A network card beside a GPU is a second group, too.
    with_domain(
        file,
        ("domain='0x0035' bus='0x03'", "domain='0x0001' bus='0x01'"),
        |command| {
            expect(&host("redbud"), &[(command, 1, &["group 0: 0001:01:00.0"])]);
        },
    );
    // As libvirt places them by itself.
    let apart = |text: &str| text.replace("<address type='pci' domain='0' bus='0x01'", "<unknown");
    let text = std::fs::read_to_string(data(&format!("cases/{file}"))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("apart.xml");
    std::fs::write(&path, apart(&text)).unwrap();
    expect(
        &host("redbud"),
        &[(
            &format!("check-domain {}", path.display()),
            0,
            &["3 PCI host bridges", "-FAILED", "-IOMMU groups"],
        )],
    );
}

/// A bridge whose GPU is not there, beside another GPU: QEMU ends. And a GPU without its bridges.
#[test]
fn bridge_without_its_gpu() {
    let foreign = "bridge-without-its-gpu/foreign.xml";
    let words = "0006:00:01.0 is a bridge of 0004:05:00.0";
    expect(
        &host("redbud"),
        &[
            (
                "qemu-args 0004:04:00.0 0006:00:01.0",
                4,
                &[words, "QEMU would end"],
            ),
            ("libvirt-xml 0004:04:00.0 0006:00:01.0", 4, &[words]),
            (
                "bind --dry-run 0004:04:00.0 0006:00:01.0",
                0,
                &["note: 0006:00:01.0 is a bridge of 0004:05:00.0, which is not bound with it"],
            ),
            // On a PCI host bridge without GPU it is of no use, but does no harm.
            ("libvirt-xml 0006:00:01.0", 0, &["note: ", words]),
            ("qemu-args 0035:03:00.0 0006:00:01.0", 0, &["note: ", words]),
            ("qemu-args 0004:04:00.0 0004:05:00.0", 0, &["-note"]),
            (
                &on_domain("memlock --domain", foreign),
                0,
                &[
                    "584409153536 bytes\n",
                    "note: 0006:00:01.0 (devices/hostdev[2]) is a bridge of 0004:05:00.0, which the domain does not have",
                ],
            ),
            (
                &on_domain("check-domain", foreign),
                1,
                &["FAILED  bridges: 0006:00:01.0 (devices/hostdev[2]) is a bridge of 0004:05:00.0"],
            ),
            (
                &on_domain("memlock --domain", "bridge-without-its-gpu/no-bridges.xml"),
                0,
                &[
                    "34787557376 bytes\n",
                    "note: 0004:04:00.0 (devices/hostdev) comes without its bridges 0006:00:00.0, 0006:00:00.1, 0006:00:00.2",
                ],
            ),
            (
                &on_domain("check-domain", "bridge-without-its-gpu/no-bridges.xml"),
                0,
                &["note    GPUs: 0004:04:00.0 (devices/hostdev) comes without"],
            ),
        ],
    );
    // A bridge of its own, but not all of them.
    with_domain(
        foreign,
        ("bus='0x00' slot='0x01'", "bus='0x00' slot='0x00'"),
        |command| {
            expect(
                &host("redbud"),
                &[(
                    command,
                    0,
                    &[
                        "comes without its bridges 0006:00:00.1, 0006:00:00.2",
                        "-FAILED",
                    ],
                )],
            );
        },
    );
    // Beside nobody: the domain's GPU is of another group, so on another PCI host bridge.
    with_domain(
        foreign,
        ("domain='0x0004' bus='0x04'", "domain='0x0035' bus='0x03'"),
        |command| {
            expect(
                &host("redbud"),
                &[(
                    command,
                    0,
                    &[
                        "note    bridges: 0006:00:01.0 (devices/hostdev[2]) comes without its GPU 0004:05:00.0",
                        "-FAILED",
                    ],
                )],
            );
        },
    );
    // On another PCI host bridge than its GPU.
    let two = "two-groups-on-one-phb/a.xml";
    with_domain(
        two,
        ("bus='0x01' slot='0x02'", "bus='0x00' slot='0x02'"),
        |command| {
            expect(
                &host("redbud"),
                &[(
                    command,
                    1,
                    &[
                        "FAILED  bridges: 0006:00:00.0 (devices/hostdev[2]) is on another PCI host bridge",
                    ],
                )],
            );
        },
    );
}

/// A device twice, the state of a running guest, a device behind libvirt's back, an address without domain.
#[test]
fn duplicate_and_odd_xml() {
    let dup = "duplicate-and-odd-xml/dup.xml";
    let twice = "<devices/hostdev[2]> in line 16 has the host's PCI function 0004:04:00.0, as devices/hostdev[1] has already";
    let argument =
        "commandline/arg[2] (vfio-pci,host=0004:04:00.0): libvirt does not count this device";
    expect(
        &host("redbud"),
        &[
            (&on_domain("memlock --domain", dup), 2, &[twice]),
            (
                &on_domain("check-domain", dup),
                1,
                &["FAILED  definition", twice],
            ),
            (
                &on_domain("memlock --domain", "duplicate-and-odd-xml/qemu-arg.xml"),
                0,
                &["281018368 bytes\n", "note: ", argument],
            ),
            (
                &on_domain("check-domain", "duplicate-and-odd-xml/qemu-arg.xml"),
                1,
                &["FAILED  QEMU's arguments", argument],
            ),
            ("check-domain /nonexistent", 2, &["/nonexistent"]),
        ],
    );
    with_domain(dup, ("domain='0x0004' ", ""), |command| {
        expect(
            &host("redbud"),
            &[(
                command,
                1,
                &["0000:04:00.0, as devices/hostdev[1] has already"],
            )],
        );
    });
    with_domain(
        "bridge-without-its-gpu/no-bridges.xml",
        ("domain='0x0004' ", ""),
        |command| {
            expect(
                &host("redbud"),
                &[(
                    command,
                    1,
                    &[
                        "FAILED  definition: devices/hostdev: the host has no PCI function 0000:04:00.0 (without the attribute 'domain' it is in PCI domain 0000)",
                    ],
                )],
            );
        },
    );
}

/// What check-domain says of a whole GPU, by what the host and the domain are like.
#[test]
fn drivers_and_machines_of_domains() {
    let bound = |files: &mut Value, driver: &str| {
        for bdf in [
            "0004:04:00.0",
            "0006:00:00.0",
            "0006:00:00.1",
            "0006:00:00.2",
        ] {
            device(files, bdf)["driver"] = format!(">/sys/bus/pci/drivers/{driver}").into();
        }
    };
    let libvirt = |files: &mut Value, version: &str| {
        files["output"]["usr"]["sbin"]["libvirtd"] =
            json!({ "--version": format!("=libvirtd (libvirt) {version}") });
    };
    // The domain without the limit that is too small.
    let whole = |replaced: (&str, &str)| {
        let text = std::fs::read_to_string(data("cases/hard-limit-too-small/hard.xml")).unwrap();
        let text = text.replace(
            "<memtune><hard_limit unit='GiB'>33</hard_limit></memtune>",
            "",
        );
        assert!(text.contains(replaced.0), "{}", replaced.0);
        text.replace(replaced.0, replaced.1)
    };
    let same = ("<vcpu>", "<vcpu>");
    let unmanaged = ("managed='yes'", "managed='no'");
    type Change<'a> = &'a dyn Fn(&mut Value);
    let rows: [((&str, &str), Change, i32, &str); 16] = [
        (same, &|_| {}, 0, "Nothing is known to be wrong"),
        (
            unmanaged,
            &|_| {},
            1,
            "FAILED  drivers: 0004:04:00.0 (devices/hostdev[1]) has no driver and managed='no': libvirt refuses it",
        ),
        (
            unmanaged,
            &|files| bound(files, "nvidia"),
            1,
            "has the driver nvidia and managed='no'",
        ),
        (
            unmanaged,
            &|files| bound(files, "vfio-pci"),
            1,
            "has the driver vfio-pci, which knows no NVLink2",
        ),
        (
            unmanaged,
            &|files| bound(files, "nvlink2-vfio-pci"),
            0,
            "Nothing is known to be wrong",
        ),
        (
            unmanaged,
            &|files| {
                bound(files, "nvlink2-vfio-pci");
                libvirt(files, "9.0.0");
            },
            1,
            "has managed='no': libvirt 9.0.0 refuses drivers other than vfio-pci",
        ),
        (
            unmanaged,
            &|files| {
                bound(files, "nvlink2-vfio-pci");
                libvirt(files, "9.7.0");
            },
            0,
            "-libvirt 9.7.0",
        ),
        (
            same,
            &|files| libvirt(files, "9.0.0"),
            0,
            "note    drivers: libvirt 9.0.0 gives 0004:04:00.0, 0006:00:00.0, 0006:00:00.1, 0006:00:00.2 with managed='yes' to vfio-pci",
        ),
        (same, &|files| libvirt(files, "10.0.0"), 0, "-note"),
        (
            same,
            &|files| {
                device(files, "0004:05:00.0")["driver"] = ">/sys/bus/pci/drivers/nvidia".into()
            },
            1,
            "FAILED  viability: IOMMU group 1: 0004:05:00.0 belongs to nvidia",
        ),
        (
            ("pseries-7.2", "pseries-4.0"),
            &|_| {},
            1,
            "FAILED  machine: pseries-4.0 is older than NVLink2",
        ),
        (
            ("pseries-7.2", "pseries-9.0"),
            &|_| {},
            0,
            "note    machine: pseries-9.0 needs a QEMU later than 8.1",
        ),
        (
            (
                "pseries-7.2'>hvm</type></os>\n  <devices>\n    <emulator>/usr/bin/qemu-system-ppc64<",
                "pseries-10.0'>hvm</type></os>\n  <devices>\n    <emulator>/usr/bin/qemu-system-ppc64-nvlink2<",
            ),
            &|_| {},
            0,
            "-note",
        ),
        (
            ("type='kvm'", "type='qemu'"),
            &|_| {},
            1,
            "FAILED  machine: NVLink2 is for KVM guests",
        ),
        (
            same,
            &|files| {
                files["output"]["usr"]["bin"]["qemu-system-ppc64"] = json!({
                    "--version": "=QEMU emulator version 10.0.13",
                    "-device spapr-pci-host-bridge,help": "=",
                });
            },
            1,
            "FAILED  QEMU: /usr/bin/qemu-system-ppc64 is 10.0.13, which has no NVLink2 client",
        ),
        (
            same,
            &|files| remove(&mut files["sys"]["bus"]["pci"]["devices"], "0006:00:00.1"),
            1,
            "FAILED  definition: devices/hostdev[3]: the host has no PCI function 0006:00:00.1",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("domain.xml");
    let command = format!("check-domain {}", path.display());
    for (replaced, change, status, words) in rows {
        std::fs::write(&path, whole(replaced)).unwrap();
        expect_after(&host("redbud"), change, &[(&command, status, &[words])]);
    }
    // As JSON, an array like doctor's.
    let findings = json_of(&host("redbud"), &command);
    assert_eq!(findings[0]["check"], "devices");
    assert_eq!(findings[0]["verdict"], "ok");
}

/// The domains of the guide to guests, on the machine that they are for, and the limits that it names.
#[test]
fn domains_of_the_guide() {
    let documents = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Documentation");
    let guide = std::fs::read_to_string(documents.join("guest-guide.rst")).unwrap();
    let domains = documents.join("domains");
    let rows = [
        (
            "one-gpu",
            "1 GPUs on NVLink2 and 3 NVLink2 bridges",
            619_037_327_360_u64,
        ),
        (
            "two-gpus",
            "2 GPUs on NVLink2 and 6 NVLink2 bridges",
            688_293_675_008,
        ),
        (
            "four-gpus",
            "4 GPUs on NVLink2 and 12 NVLink2 bridges",
            1_101_688_471_552,
        ),
    ];
    for (name, devices, bytes) in rows {
        let file = domains.join(format!("{name}.xml"));
        let (file, said) = (file.display(), format!("{bytes} bytes"));
        let check = format!("check-domain {file}");
        let memlock = format!("memlock --domain {file}");
        for recording in ["4-gpus", "4-bound"] {
            expect(
                &data(&format!("recordings/{recording}.json")),
                &[
                    (&check, 0, &[devices, &said, "-note", "-FAILED"]),
                    (&memlock, 0, &[&format!("{said}\n"), "-note"]),
                ],
            );
        }
        for text in [format!("domains/{name}.xml"), format!("{bytes}")] {
            assert!(guide.contains(&text), "the guide does not say {text}");
        }
    }
    assert_eq!(std::fs::read_dir(domains).unwrap().count(), rows.len());
}

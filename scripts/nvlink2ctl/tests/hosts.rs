// SPDX-License-Identifier: GPL-2.0

//! Hosts after public reports, made of recordings of emulated hosts ([`common::host`]), and what is right to say
//! about them. Each test has the case itself, and others of the same kind.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has failed"
)]

mod common;

use common::{
    BRIDGES, GPUS, Row, changed, device, expect, expect_after, host, json_of, node, output, remove,
    run,
};
use serde_json::{Value, json};

const BOUND: &str = ">/sys/bus/pci/drivers/nvlink2-vfio-pci";

/// The air-cooled machine: three links each, chips 0 and 8, addresses of chip 8 compressed for the NPU.
#[test]
fn redbud() {
    let redbud = host("redbud");
    expect(
        &redbud,
        &[
            (
                "list",
                0,
                &["0004:05:00.0  GPU     GPU1", "0007:00:01.2  bridge  GPU4"],
            ),
            (
                "topology",
                0,
                &[
                    "NPU of chip 8",
                    "3 x 0035:04:00.0",
                    "-not shown",
                    "-not connected",
                ],
            ),
            (
                "show 0035:03:00.0",
                0,
                &[
                    "0x23e000000000, 128 GiB",
                    "tgt            0xbe000000000",
                    "NUMA node      8",
                ],
            ),
            (
                "doctor",
                1,
                &["1 check failed", "FAILED  binding: no GPU belongs"],
            ),
        ],
    );
    let list = json_of(&redbud, "list");
    assert_eq!(list["gpus"].as_array().unwrap().len(), 4);
    assert_eq!(list["bridges"].as_array().unwrap().len(), 12);
    for gpu in list["gpus"].as_array().unwrap() {
        assert_eq!(gpu["bridges"].as_array().unwrap().len(), 3);
    }
    let hostdevs = json_of(&redbud, "libvirt-xml 0035:03:00.0");
    assert_eq!(hostdevs.as_array().unwrap().len(), 4);
    let words = json_of(&redbud, "qemu-args --all");
    let count = |word: &str| {
        let words = words.as_array().unwrap().iter();
        words
            .filter(|other| other.as_str().unwrap().contains(word))
            .count()
    };
    assert_eq!(
        (count("vfio-pci,"), count("spapr-pci-host-bridge")),
        (16, 1)
    );
}

/// Links to a free or failed socket are not connected: nothing is wrong with firmware or host.
#[test]
fn empty_socket() {
    let host = host("empty-socket");
    expect(
        &host,
        &[
            (
                "list",
                0,
                &["0006:00:01.2  bridge  GPU1", "not connected", "-not usable"],
            ),
            (
                "doctor",
                1,
                &[
                    "ok      NVLink2 bridges: 9 on 2 NPUs; not connected, as links to an empty socket are: 0006:00:01.0, 0006:00:01.1, 0006:00:01.2",
                    "ok      GPUs: 3 with NVLink2",
                    "1 check failed",
                ],
            ),
            (
                "show 0006:00:01.0",
                0,
                &["not connected", "link           3", "-not usable"],
            ),
            (
                "topology",
                0,
                &["not connected: 0006:00:01.0, 0006:00:01.1, 0006:00:01.2"],
            ),
            (
                "bind --dry-run --all",
                0,
                &["0004:04:00.0", "0006:00:00.2", "-0006:00:01"],
            ),
            ("qemu-args 0004:04:00.0", 0, &["-0006:00:01"]),
            (
                "bind --dry-run 0006:00:01.0",
                4,
                &["0006:00:01.0 is not connected"],
            ),
            (
                "libvirt-xml 0004:04:00.0 0006:00:01.0",
                4,
                &["is not connected"],
            ),
        ],
    );
    assert_eq!(json_of(&host, "show 0006:00:01.1")["role"], "unconnected");
    assert_eq!(json_of(&host, "list")["unconnected"][2]["link"], 5);
    // All bound: nothing is left to complain about.
    expect_after(
        &host,
        |files| {
            let there = GPUS.iter().filter(|bdf| **bdf != "0004:05:00.0");
            let connected = BRIDGES.iter().filter(|bdf| !bdf.starts_with("0006:00:01"));
            for bdf in there.chain(connected) {
                device(files, bdf)["driver"] = BOUND.into();
            }
            files["dev"]["vfio"]["1"] = "=".into();
            files["dev"]["vfio"]["2"] = "=".into();
        },
        &[("doctor", 0, &["This host is ready", "-FAILED"])],
    );
    // A driver of the host that keeps such a bridge keeps the group from VFIO.
    expect_after(
        &host,
        |files| device(files, "0006:00:01.1")["driver"] = ">/sys/bus/pci/drivers/nvidia".into(),
        &[
            (
                "bind --dry-run 0004:04:00.0",
                4,
                &["0006:00:01.1 belongs to nvidia"],
            ),
            (
                "bind --dry-run --group 1",
                0,
                &["0006:00:01.1  nvidia -> nvlink2-vfio-pci"],
            ),
        ],
    );
    // What was given to the driver is taken back, too.
    expect_after(
        &host,
        |files| device(files, "0006:00:01.1")["driver"] = BOUND.into(),
        &[(
            "unbind --dry-run --all",
            0,
            &["0006:00:01.1  nvlink2-vfio-pci -> whatever driver the kernel finds"],
        )],
    );
    // A bridge that a GPU lists is no such one.
    expect_after(
        &self::host("redbud"),
        |files| {
            remove(
                node(files, "pciex@6030200000000/unknown-bridge@1,1"),
                "ibm,gpu",
            )
        },
        &[
            (
                "list",
                0,
                &[
                    "0006:00:01.1: not usable: device tree: ibm,gpu of /pciex@6030200000000/unknown-bridge@1,1 is missing",
                ],
            ),
            (
                "doctor",
                1,
                &[
                    "FAILED  NVLink2 bridges: 0006:00:01.1: device tree: ibm,gpu",
                    "FAILED  GPUs: 0004:05:00.0",
                ],
            ),
        ],
    );
}

/// Codes of speed as nvlink.rst of the firmware has them.
#[test]
fn link_speed() {
    expect(
        &host("redbud"),
        &[
            ("list", 0, &["25.78125 Gb/s", "-code"]),
            ("topology", 0, &["0006:00:00.0 (25.78125 Gb/s)", "-code"]),
            ("show 0007:00:01.2", 0, &["speed          25.78125 Gb/s"]),
        ],
    );
    for (code, text) in [
        ("3", "20 Gb/s"),
        ("8", "25.78125 Gb/s"),
        ("9", "25 Gb/s"),
        ("7", "code 7"),
    ] {
        expect_after(
            &host("redbud"),
            |files| {
                node(files, "pciex@6030200000000/unknown-bridge@0")["ibm,nvlink-speed"] =
                    format!("#0000000{code}").into()
            },
            &[(
                "show 0006:00:00.0",
                0,
                &[&format!("speed          {text}\n")],
            )],
        );
    }
}

/// The aperture is 128 GiB for 16 and for 32 GiB of RAM, which the PCI id tells.
#[test]
fn ram() {
    for (id, text, ram) in [
        (
            "1db1",
            "aperture 0x3e000000000 (128 GiB), RAM 16 GiB\n",
            json!(16_u64 << 30),
        ),
        (
            "1db5",
            "aperture 0x3e000000000 (128 GiB), RAM 32 GiB\n",
            json!(32_u64 << 30),
        ),
        ("1db8", "aperture 0x3e000000000 (128 GiB)\n", Value::Null),
    ] {
        let (_folder, file) = changed(&host("redbud"), |files| {
            device(files, "0004:04:00.0")["device"] = format!("=0x{id}\n").into();
        });
        expect(&file, &[("list", 0, &[text, "-RAM 0x"])]);
        assert_eq!(json_of(&file, "show 0004:04:00.0")["ram"], ram);
    }
}

/// A distribution's kernel: firmware describes links, Linux shows no function of an NPU.
#[test]
fn stock_kernel() {
    let host = host("stock-kernel");
    let lacks = "Linux shows none of its 3 bridges";
    expect(
        &host,
        &[
            (
                "doctor",
                1,
                &[
                    "FAILED  kernel options: Linux 6.12.0 lacks CONFIG_PPC_POWERNV_NPU2=y",
                    "FAILED  NVLink2 bridges: firmware describes 12 links of 4 GPUs, and Linux 6.12.0 shows no PCI function of an NPU: the kernel has no support for NPUs",
                    "skipped IOMMU groups",
                    "-with their bridges",
                    "-bind --all",
                ],
            ),
            (
                "topology",
                0,
                &[
                    "NPU of chip 8",
                    "3 not shown by Linux",
                    lacks,
                    "CONFIG_PPC_POWERNV_NPU2",
                ],
            ),
            ("list", 0, &["0035:04:00.0  GPU", lacks]),
            (
                "bind --dry-run --all",
                4,
                &[lacks, "CONFIG_PPC_POWERNV_NPU2"],
            ),
            ("libvirt-xml 0004:04:00.0", 4, &[lacks]),
        ],
    );
    // The reason is told without the kernel's configuration, too.
    expect_after(
        &host,
        |files| remove(files, "boot"),
        &[(
            "doctor",
            1,
            &[
                "note    kernel options",
                "the kernel has no support for NPUs",
            ],
        )],
    );
}

/// The function of a link was removed, or has failed: a GPU is given away with all bridges or not at all.
#[test]
fn link_gone() {
    let gone = host("link-gone");
    let lacks = "0004:04:00.0: Linux has no PCI function for its bridge /pciex@6030200000000/unknown-bridge@0,1";
    expect(
        &gone,
        &[
            (
                "doctor",
                1,
                &["FAILED  NVLink2 bridges", lacks, "rescan", "1 check failed"],
            ),
            ("list", 0, &[lacks]),
            ("bind --dry-run 0004:04:00.0", 4, &[lacks]),
            ("bind --dry-run --all", 4, &[lacks]),
            ("bind --dry-run --group 1", 4, &[lacks]),
            ("libvirt-xml 0004:04:00.0", 4, &[lacks]),
            ("qemu-args 0004:04:00.0", 4, &[lacks]),
            // Others are none the worse for it, and what is there can be taken back.
            ("qemu-args 0004:05:00.0", 0, &["0006:00:01.2"]),
            ("bind --dry-run --group 2", 0, &["0007:00:01.2"]),
            ("unbind --dry-run 0004:04:00.0", 0, &["0006:00:00.2"]),
        ],
    );
    // The other way round: bridges are there, their GPU is not.
    expect_after(
        &host("redbud"),
        |files| remove(&mut files["sys"]["bus"]["pci"]["devices"], "0035:03:00.0"),
        &[
            (
                "doctor",
                1,
                &[
                    "FAILED  NVLink2 bridges: Linux has no PCI function for the GPU of 0007:00:00.0, 0007:00:00.1, 0007:00:00.2",
                ],
            ),
            (
                "list",
                0,
                &["0007:00:00.0: Linux has no PCI function for its GPU"],
            ),
            (
                "qemu-args 0035:04:00.0 0007:00:00.0",
                4,
                &["0007:00:00.0 is a bridge of a GPU that is gone"],
            ),
        ],
    );
    // Both: only the device tree still tells of them.
    expect_after(
        &host("redbud"),
        |files| {
            for bdf in [
                "0035:03:00.0",
                "0007:00:00.0",
                "0007:00:00.1",
                "0007:00:00.2",
            ] {
                remove(&mut files["sys"]["bus"]["pci"]["devices"], bdf);
            }
        },
        &[
            (
                "doctor",
                1,
                &[
                    "FAILED  NVLink2 bridges: Linux has no PCI function for /pciex@6230200000000/unknown-bridge@0 (GPU3), ",
                    "FAILED  GPUs: Linux has no PCI function for /pciex@620c3c0500000/",
                    "(GPU3)",
                    "rescan",
                ],
            ),
            (
                "list",
                0,
                &["(GPU3): Linux has no PCI function for this GPU"],
            ),
            (
                "topology",
                0,
                &["(GPU3): Linux has no PCI function for this bridge"],
            ),
            ("qemu-args 0035:04:00.0", 0, &["0007:00:01.2"]),
        ],
    );
    // All of them: that is no fault of firmware's, or of the kernel's.
    expect_after(
        &host("redbud"),
        |files| {
            files["sys"]["bus"]["pci"]["devices"]
                .as_object_mut()
                .unwrap()
                .clear();
        },
        &[
            (
                "doctor",
                1,
                &[
                    "FAILED  NVLink2 bridges: Linux has no PCI function for",
                    "rescan",
                    "-Boot a Linux",
                ],
            ),
            (
                "list",
                3,
                &["Linux has no PCI function for those that firmware has found"],
            ),
        ],
    );
}

/// The host's driver for GPUs drives bridges, too: those of GPUs that stay with it are missed there.
#[test]
fn bridges_have_a_host_driver() {
    let bind = |gpu: &str, rows: &[Row]| {
        expect_after(
            &host("redbud"),
            |files| {
                for bdf in [
                    "0035:03:00.0",
                    "0035:04:00.0",
                    "0007:00:00.0",
                    "0007:00:00.1",
                    "0007:00:00.2",
                    "0007:00:01.0",
                    "0007:00:01.1",
                    "0007:00:01.2",
                    "0006:00:00.1",
                ] {
                    device(files, bdf)["driver"] = BOUND.into();
                }
                device(files, "0004:04:00.0")["driver"] = gpu.into();
            },
            rows,
        );
    };
    bind(
        ">/sys/bus/pci/drivers/nvidia",
        &[(
            "doctor",
            1,
            &[
                "note    binding: 0006:00:00.1 belong to nvlink2-vfio-pci, and their GPU to a driver of the host",
                "'nvlink2ctl unbind 0006:00:00.1' gives them back",
            ],
        )],
    );
    bind(
        ">/sys/bus/pci/drivers/vfio-pci",
        &[(
            "doctor",
            1,
            &["note    binding: not bound to nvlink2-vfio-pci: 0004:04:00.0 (has vfio-pci)"],
        )],
    );
}

/// Two GPUs for guests, two that the host works with: who gives back all means those of the guests.
#[test]
fn unbind_leaves_the_host_its_own() {
    expect_after(
        &host("redbud"),
        |files| {
            for bdf in BRIDGES.iter().chain(&GPUS) {
                let of_the_host = bdf.starts_with("0035:") || bdf.starts_with("0007:");
                device(files, bdf)["driver"] = if of_the_host {
                    ">/sys/bus/pci/drivers/nvidia".into()
                } else {
                    BOUND.into()
                };
            }
            device(files, "0006:00:01.0")["driver"] = ">/sys/bus/pci/drivers/vfio-pci".into();
        },
        &[
            (
                "unbind --all --dry-run",
                0,
                &[
                    "0004:04:00.0 nvlink2-vfio-pci -> whatever driver the kernel finds",
                    "0006:00:01.0 vfio-pci -> ",
                    "-nvidia ->",
                    "note: 0035:03:00.0, 0007:00:00.0",
                    "stay with their drivers",
                ],
            ),
            (
                "unbind --all --dry-run --driver nvidia",
                0,
                &["0035:03:00.0 nvidia -> ", "-nvlink2-vfio-pci ->"],
            ),
            (
                "unbind --group 1 --dry-run --driver vfio-pci --no-probe",
                0,
                &["0006:00:01.0 vfio-pci -> no driver", "-nvlink2-vfio-pci ->"],
            ),
            // Who names a function means it.
            (
                "unbind --dry-run 0035:03:00.0",
                0,
                &[
                    "0035:03:00.0 nvidia -> ",
                    "0007:00:00.2 nvidia -> ",
                    "-stay with",
                ],
            ),
            (
                "unbind --dry-run --driver nvidia 0035:03:00.0",
                2,
                &["cannot be used with"],
            ),
        ],
    );
}

/// All GPUs and bridges of an NPU are to be in one group.
#[test]
fn groups_of_an_npu() {
    let group = |files: &mut Value, bdfs: &[&str], number: u32| {
        for bdf in bdfs {
            device(files, bdf)["iommu_group"] =
                format!(">/sys/kernel/iommu_groups/{number}").into();
        }
    };
    let second = [
        "0004:05:00.0",
        "0006:00:01.0",
        "0006:00:01.1",
        "0006:00:01.2",
    ];
    expect_after(
        &host("redbud"),
        |files| group(files, &second, 5),
        &[(
            "doctor",
            1,
            &[
                "FAILED  IOMMU groups: 0004:04:00.0 is in group 1, 0004:05:00.0 of the same NPU (/pciex@6030200000000) in 5",
            ],
        )],
    );
    let chip_8 = [
        "0035:03:00.0",
        "0035:04:00.0",
        "0007:00:00.0",
        "0007:00:00.1",
        "0007:00:00.2",
        "0007:00:01.0",
        "0007:00:01.1",
        "0007:00:01.2",
    ];
    expect_after(
        &host("redbud"),
        |files| group(files, &chip_8, 1),
        &[(
            "doctor",
            1,
            &["FAILED  IOMMU groups: group 1 has functions of two NPUs"],
        )],
    );
    expect_after(
        &host("redbud"),
        |files| remove(device(files, "0007:00:01.1"), "iommu_group"),
        &[(
            "doctor",
            1,
            &["FAILED  IOMMU groups: 0007:00:01.1 has none"],
        )],
    );
}

/// The smallest guest has 1 GiB and one PCI host bridge, as 'qemu-args' makes it.
#[test]
fn unprivileged_memlock() {
    let case = |limit: &str, rows: &[Row]| {
        expect_after(
            &host("redbud"),
            |files| {
                files["proc"]["self"] = json!({
                    "status": "=CapEff:\t0000000000000000\n",
                    "limits": format!("=Max locked memory         {limit}         {limit}         bytes\n"),
                });
            },
            rows,
        );
    };
    case(
        "67108864",
        &[(
            "doctor",
            1,
            &[
                "FAILED  locked memory: this user may lock 67108864 bytes, the smallest guest needs 275981008896\n",
            ],
        )],
    );
    case(
        "300000000000",
        &[
            (
                "doctor",
                1,
                &["ok      locked memory: this user may lock 300000000000 bytes"],
            ),
            ("memlock --memory 1GiB", 0, &["275981008896 bytes\n"]),
            ("qemu-args 0004:04:00.0", 0, &["-spapr-pci-host-bridge"]),
        ],
    );
}

/// A POWER8 with P100: NVLink1, which nothing and nobody has to repair.
#[test]
fn power8_nvlink1() {
    let minsky = host("power8-nvlink1");
    expect(
        &minsky,
        &[
            ("list", 3, &["NVLink1", "-not usable"]),
            ("topology", 3, &["NVLink1"]),
            ("bind --dry-run --all", 3, &["NVLink1"]),
            (
                "doctor",
                1,
                &[
                    "FAILED  processor: 'POWER8NVL (raw), altivec supported' is no POWER9",
                    "NVLink1",
                    "1 check failed",
                    "-repair",
                ],
            ),
        ],
    );
    // On a POWER9 the same tree is firmware's fault.
    expect_after(
        &minsky,
        |files| {
            files["proc"]["cpuinfo"] =
                "=cpu\t\t: POWER9, altivec supported\nMMU\t\t: Radix\n".into()
        },
        &[("list", 0, &["not usable: device tree: ibm,device-tgt-addr"])],
    );
}

/// An old hostboot does not tell the speed: the first failure names the property.
#[test]
fn no_link_speed() {
    let host = host("no-link-speed");
    expect(
        &host,
        &[
            ("is-bridge 0006:00:00.0", 1, &[]),
            (
                "qemu-args 0004:04:00.0",
                4,
                &[
                    "its bridge 0006:00:00.0: device tree: ibm,nvlink-speed of /pciex@6030200000000/unknown-bridge@0 is missing",
                ],
            ),
            ("bind --dry-run --all", 4, &["ibm,nvlink-speed"]),
        ],
    );
    let findings = json_of(&host, "doctor");
    let failed: Vec<_> = findings
        .as_array()
        .unwrap()
        .iter()
        .filter(|finding| finding["verdict"] == "failed")
        .collect();
    let first = failed[0]["found"].as_str().unwrap();
    assert!(first.starts_with("0006:00:00.0: device tree: ibm,nvlink-speed of /pciex@6030200000000/unknown-bridge@0 is missing"), "{first}");
    assert_eq!(failed.len(), 1);
}

/// Firmware before the fixes for GPUs that are passed through.
#[test]
fn old_opal() {
    let old = host("old-opal");
    expect(
        &old,
        &[
            (
                "doctor",
                1,
                &[
                    "FAILED  firmware: OPAL skiboot-v6.0.20 is old: before 6.2",
                    "before 6.3.2 the reset of a GPU before its bridges raises HMIs",
                    "OPAL 6.5.3 or later",
                ],
            ),
            (
                "qemu-args 0004:04:00.0",
                0,
                &["host=0004:04:00.0,bus=pci.0\n-device vfio-pci,host=0006:00:00.0"],
            ),
        ],
    );
    // A GPU is reset before its bridges, whoever starts the guest.
    let hostdevs = json_of(&old, "libvirt-xml 0004:04:00.0");
    let domains: Vec<_> = hostdevs
        .as_array()
        .unwrap()
        .iter()
        .map(|hostdev| hostdev.as_str().unwrap().contains("domain=\"0x0004\""))
        .collect();
    assert_eq!(domains, [true, false, false, false]);
    for (version, words) in [
        (
            "skiboot-v6.3.2",
            "note    firmware: OPAL skiboot-v6.3.2 is old: before 6.5.3",
        ),
        ("v6.5.3-12-g0123456", "ok      firmware"),
        ("v6.0.23", "FAILED  firmware"),
        (
            "unknown",
            "note    firmware: OPAL unknown, which does not tell how old it is",
        ),
    ] {
        expect_after(
            &old,
            |files| node(files, "ibm,opal/firmware")["version"] = format!("={version}\0").into(),
            &[("doctor", 1, &[words])],
        );
    }
}

/// What doctor says of the programs of a host, by what they print of themselves.
#[test]
fn software() {
    let qemu = |version: &str, client: &str| {
        json!({
            "--version": format!("=QEMU emulator version {version}\n"),
            "-device spapr-pci-host-bridge,help": format!("={client}"),
        })
    };
    let atsd = "  atsd=<uint64>          -  (default: 0)\n";
    for (version, client, words) in [
        (
            "7.2.11 (Debian 1:7.2+dfsg-7+deb12u7)",
            atsd,
            "note    QEMU: /usr/bin/qemu-system-ppc64 is 7.2.11, with the NVLink2 client; releases 7.1 to 8.1 free",
        ),
        (
            "6.2.0",
            atsd,
            "ok      QEMU: /usr/bin/qemu-system-ppc64 is 6.2.0, with the NVLink2 client\n",
        ),
        (
            "10.0.13",
            atsd,
            "ok      QEMU: /usr/bin/qemu-system-ppc64 is 10.0.13, with the NVLink2 client\n",
        ),
        (
            "10.0.13",
            "",
            "FAILED  QEMU: /usr/bin/qemu-system-ppc64 is 10.0.13, which has no NVLink2 client",
        ),
        (
            "8.2.0",
            "",
            "FAILED  QEMU: /usr/bin/qemu-system-ppc64 is 8.2.0, which has no NVLink2 client",
        ),
        ("4.0.0", "", "FAILED  QEMU"),
    ] {
        expect_after(
            &host("redbud"),
            |files| files["output"]["usr"]["bin"]["qemu-system-ppc64"] = qemu(version, client),
            &[("doctor", 1, &[words])],
        );
    }
    for (version, qemu_version, words) in [
        (
            "9.0.0",
            "7.2.0",
            "note    libvirt: 9.0.0 takes no driver but vfio-pci, whether managed or not",
        ),
        (
            "9.7.0",
            "7.2.0",
            "note    libvirt: 9.7.0 takes no driver but vfio-pci with managed='yes'",
        ),
        (
            "10.0.0",
            "7.2.0",
            "ok      libvirt: 10.0.0 finds the driver by itself",
        ),
        (
            "12.9.0",
            "7.2.0",
            "ok      libvirt: 12.9.0 finds the driver by itself",
        ),
        (
            "11.3.0",
            "6.1.0",
            "FAILED  libvirt: 11.3.0 takes no QEMU before 6.2, and /usr/bin/qemu-system-ppc64 is 6.1.0",
        ),
        ("11.2.0", "6.1.0", "ok      libvirt: 11.2.0"),
    ] {
        expect_after(
            &host("redbud"),
            |files| {
                files["output"]["usr"]["bin"]["qemu-system-ppc64"] = qemu(qemu_version, atsd);
                files["output"]["usr"]["sbin"]["libvirtd"] =
                    json!({ "--version": format!("=libvirtd (libvirt) {version}\n") });
            },
            &[("doctor", 1, &[words])],
        );
    }
    expect(
        &host("redbud"),
        &[(
            "doctor",
            1,
            &[
                "note    QEMU: none for ppc64 was found",
                "note    libvirt: none was found",
            ],
        )],
    );
}

/// The QEMU of this project's package is taken for no guest that does not name it, and named where a guest is set up.
#[test]
fn packaged_qemu() {
    let qemu = |version: &str, client: &str| {
        json!({
            "--version": format!("=QEMU emulator version {version}\n"),
            "-device spapr-pci-host-bridge,help": format!("={client}"),
        })
    };
    let atsd = "  atsd=<uint64>          -  (default: 0)\n";
    let all = "0035:03:00.0";
    for (client, of_the_distribution, words) in [
        (
            atsd,
            "7.2.11",
            "ok      QEMU: /usr/bin/qemu-system-ppc64-nvlink2 is 10.0.13, with the NVLink2 client\n",
        ),
        (
            atsd,
            "6.2.0",
            "ok      QEMU: /usr/bin/qemu-system-ppc64 is 6.2.0, with the NVLink2 client\n",
        ),
        (
            "",
            "6.2.0",
            "ok      QEMU: /usr/bin/qemu-system-ppc64 is 6.2.0, with the NVLink2 client\n",
        ),
    ] {
        let (_folder, file) = changed(&host("redbud"), |files| {
            let bin = &mut files["output"]["usr"]["bin"];
            bin["qemu-system-ppc64"] = qemu(of_the_distribution, atsd);
            bin["qemu-system-ppc64-nvlink2"] = qemu("10.0.13", client);
        });
        assert!(
            output(&run(&file, "doctor").code(1)).contains(words),
            "{words}"
        );
        for (command, named) in [
            (
                "libvirt-xml",
                "note: <emulator>/usr/bin/qemu-system-ppc64-nvlink2</emulator>",
            ),
            ("qemu-args", "note: /usr/bin/qemu-system-ppc64-nvlink2"),
        ] {
            let run = run(&file, &format!("{command} {all}")).success();
            let said = String::from_utf8_lossy(&run.get_output().stderr).into_owned();
            assert_eq!(
                said.contains(named),
                !client.is_empty(),
                "{command}: {said}"
            );
        }
    }
}

/// Kernels of distributions have pages of 4 KiB or 64 KiB.
#[test]
fn page_size() {
    for (options, words) in [
        ("CONFIG_PPC_64K_PAGES=y\n", "ok      page size: 64 KiB"),
        ("CONFIG_PAGE_SIZE_64KB=y\n", "ok      page size: 64 KiB"),
        ("CONFIG_PPC_4K_PAGES=y\n", "note    page size: 4 KiB"),
        (
            "",
            "note    page size: the kernel's configuration does not say it",
        ),
    ] {
        expect_after(
            &host("redbud"),
            |files| {
                let (_, config) = files["boot"]
                    .as_object_mut()
                    .unwrap()
                    .iter_mut()
                    .next()
                    .unwrap();
                let others = config.as_str().unwrap().split_inclusive('\n');
                let others: String = others.filter(|line| !line.contains("_64K")).collect();
                *config = format!("{others}{options}").into();
            },
            &[("doctor", 1, &[words])],
        );
    }
}

/// The vendor's driver has made the RAM of a GPU memory of the host: who takes the GPU away ends the host.
#[test]
fn memory_of_the_host() {
    let blocks = |state: &'static str| {
        move |files: &mut Value| {
            device(files, "0004:04:00.0")["driver"] = ">/sys/bus/pci/drivers/nvidia".into();
            let memory = &mut files["sys"]["devices"]["system"]["memory"];
            memory["block_size_bytes"] = "=40000000\n".into();
            // The first block of the host's own, the last below RAM of GPUs, two of that, and the first behind.
            for (number, state) in [
                (0, "online"),
                (3839, "online"),
                (3968, "offline"),
                (3999, state),
                (4000, state),
                (4096, "online"),
            ] {
                memory[format!("memory{number}")]["state"] = format!("={state}\n").into();
            }
        }
    };
    let said = "RAM of 0004:04:00.0 is memory of the host: memory3999 to memory4000 are online";
    expect_after(
        &host("redbud"),
        blocks("online"),
        &[
            (
                "doctor",
                1,
                &["FAILED memory: ", said, "Stop nvidia-persistenced"],
            ),
            (
                "bind --dry-run --all",
                4,
                &[said, "Stop nvidia-persistenced"],
            ),
            // A bridge alone is a link less, too.
            ("bind --dry-run 0006:00:00.0", 4, &[said]),
            ("unbind --dry-run 0004:04:00.0", 4, &[said]),
            ("bind --dry-run --group 2", 0, &["-is memory of the host"]),
        ],
    );
    expect_after(
        &host("redbud"),
        blocks("offline"),
        &[
            (
                "doctor",
                1,
                &["ok memory: no RAM of a GPU is memory of the host"],
            ),
            ("bind --dry-run --group 1", 0, &["-is memory of the host"]),
        ],
    );
    let (_folder, file) = changed(&host("redbud"), blocks("online"));
    let again = output(&run(&file, "record").success());
    assert!(again.contains("memory3999") && !again.contains("memory3839"));
}

/// What is recorded of a recording says the same of every host: all that the program reads is in it.
#[test]
fn recordings_have_all_that_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let again = folder.path().join("again.json");
    for case in [
        "redbud",
        "empty-socket",
        "stock-kernel",
        "link-gone",
        "power8-nvlink1",
        "no-link-speed",
        "old-opal",
    ] {
        let (_folder, file) = changed(&host(case), |files| {
            files["output"]["usr"]["bin"]["qemu-system-ppc64"] = json!({
                "--version": "=QEMU emulator version 7.2.11",
                "-device spapr-pci-host-bridge,help": "=  atsd=<uint64>",
            });
            files["output"]["usr"]["sbin"]["libvirtd"] =
                json!({ "--version": "=libvirtd (libvirt) 9.0.0" });
        });
        std::fs::write(&again, output(&run(&file, "record").success())).unwrap();
        for command in ["doctor", "list", "topology"] {
            let said = |recording| run(recording, &format!("--json {command}"));
            let (first, second) = (said(&file), said(&again));
            assert_eq!(output(&first), output(&second), "{case}: {command}");
        }
    }
}

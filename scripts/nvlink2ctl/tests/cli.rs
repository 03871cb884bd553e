// SPDX-License-Identifier: GPL-2.0

//! The program on recordings of emulated hosts, and on this machine.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a test that panics has failed"
)]

mod common;

use assert_cmd::{Command, assert::Assert};
use common::{data, device, program};
use predicates::{prelude::*, str::contains};
use serde_json::Value;
use std::{fs, path::PathBuf};

fn recording(name: &str) -> PathBuf {
    data(&format!("recordings/{name}.json"))
}

/// Runs the program on a recording.
fn on(host: &str, arguments: &str) -> Assert {
    common::run(&recording(host), arguments)
}

fn output(assert: Assert) -> String {
    common::output(&assert)
}

fn json(host: &str, arguments: &str) -> Value {
    serde_json::from_str(&output(on(host, &format!("--json {arguments}")).success())).unwrap()
}

/// A recording with changes, in a file that goes away with the first value.
fn changed(host: &str, change: impl FnOnce(&mut Value)) -> (tempfile::TempDir, PathBuf) {
    common::changed(&recording(host), change)
}

#[test]
fn list_has_all_gpus_and_bridges() {
    for (host, gpus) in [("4-gpus", 4), ("6-bound", 6)] {
        let list = json(host, "list");
        assert_eq!(list["gpus"].as_array().unwrap().len(), gpus);
        assert_eq!(list["bridges"].as_array().unwrap().len(), 12);
        assert_eq!(list["npus"].as_array().unwrap().len(), 2);
        assert!(list["faulty"].as_array().unwrap().is_empty());
        let text = output(on(host, "list").success());
        assert_eq!(text.lines().count(), 1 + gpus + 12);
    }
}

#[test]
fn list_says_what_emulation_is_known_for() {
    let list = json("6-bound", "list");
    let gpu = &list["gpus"][4];
    assert_eq!(gpu["bdf"], "0035:04:00.0");
    assert_eq!(gpu["id"], "10de:1db1");
    assert_eq!(gpu["slot"], "GPU4");
    assert_eq!(gpu["driver"], "nvlink2-vfio-pci");
    assert_eq!(gpu["aperture"]["base"], "0x23c000000000");
    assert_eq!(gpu["aperture"]["size"], 128_u64 << 30);
    assert_eq!(gpu["tgt"], "0xbc000000000");
    assert_eq!(gpu["lpar"], "none");
    assert_eq!(
        gpu["bridges"],
        serde_json::json!(["0007:00:01.0", "0007:00:01.1"])
    );
    assert_eq!(gpu["peers"].as_array().unwrap().len(), 6);

    let bridge = &list["bridges"][9];
    assert_eq!(bridge["bdf"], "0007:00:01.1");
    assert_eq!(bridge["gpu"], "0035:04:00.0");
    assert_eq!((&bridge["link"], &bridge["speed"]), (&3.into(), &9.into()));
    assert_eq!(bridge["atsd"], "0x6230200830000");
    assert_eq!(bridge["libvirt_bridge"], true);
    assert_eq!(list["npus"][1]["chip"], 8);
    assert_eq!(
        list["npus"][1]["gpus"],
        serde_json::json!(["0035:03:00.0", "0035:04:00.0", "0035:05:00.0"])
    );
}

/// A Redbud with one of its sockets empty.
#[test]
fn an_empty_socket_is_no_fault() {
    let list = json("4-empty", "list");
    assert_eq!(list["gpus"].as_array().unwrap().len(), 3);
    assert_eq!(list["bridges"].as_array().unwrap().len(), 9);
    assert_eq!(list["unconnected"].as_array().unwrap().len(), 3);
    assert!(list["faulty"].as_array().unwrap().is_empty());
    on("4-empty", "doctor").code(1).stdout(
        contains("not connected, as links to an empty socket are: 0006:00:01.0")
            .and(contains("FAILED  binding: no GPU belongs"))
            .and(contains("1 check failed")),
    );
}

#[test]
fn show_knows_every_role() {
    for (bdf, role) in [
        ("0004:04:00.0", "gpu"),
        ("0006:00:00.1", "bridge"),
        ("0001:01:00.0", "other"),
    ] {
        assert_eq!(json("4-gpus", &format!("show {bdf}"))["role"], role);
    }
    on("4-gpus", "show 0004:04:00.0")
        .success()
        .stdout(contains("0x3e000000000, 128 GiB").and(contains("gpu 0004:05:00.0")));
    on("4-gpus", "show 0004:04:00.1")
        .code(2)
        .stderr(contains("no PCI function 0004:04:00.1"));
    on("4-gpus", "show 3:00")
        .code(2)
        .stderr(contains("is no address of a PCI function"));
}

#[test]
fn topology_has_every_link_once() {
    // Of a Redbud's chip six links lead to its GPUs, and three from one to the other.
    for (host, between) in [("4-gpus", 6), ("6-gpus", 12)] {
        let topology = json(host, "topology");
        let links = topology["links"].as_array().unwrap();
        let count = |to| links.iter().filter(|link| link["to"] == to).count();
        assert_eq!((count("npu"), count("gpu")), (12, between));
        let dot = output(on(host, "topology --dot").success());
        assert_eq!(dot.matches(" -- ").count(), 12 + between);
    }
    on("4-gpus", "topology")
        .success()
        .stdout(contains("NPU of chip 0 (/pciex@6030200000000)").and(contains("3 x 0004:05:00.0")));
    on("4-gpus", "--json topology --dot").code(2);
}

#[test]
fn is_bridge_answers_by_exit_status() {
    on("4-gpus", "is-bridge 0006:00:00.0").success().stdout("");
    on("4-gpus", "is-bridge 0004:04:00.0").code(1);
    on("4-gpus", "is-bridge 0006:00:00.7").code(2);
    assert_eq!(json("4-gpus", "is-bridge 0006:00:00.0")["bridge"], true);
}

#[test]
fn is_bridge_wants_all_four_properties() {
    for property in ["ibm,gpu", "ibm,nvlink", "ibm,nvlink-speed", "memory-region"] {
        let (_folder, file) = changed("4-gpus", |files| {
            let node = &mut files["sys"]["firmware"]["devicetree"]["base"]["pciex@6030200000000"]["unknown-bridge@0"];
            node.as_object_mut().unwrap().remove(property).unwrap();
        });
        program()
            .arg("--sysfs")
            .arg(file)
            .args(["is-bridge", "0006:00:00.0"])
            .assert()
            .code(1);
    }
}

#[test]
fn wrong_firmware_is_blamed() {
    let (_folder, file) = changed("4-gpus", |files| {
        let node = &mut files["sys"]["firmware"]["devicetree"]["base"]["pciex@6030200000000"]["unknown-bridge@0"];
        node["ibm,device-tgt-addr"] = "#00000000".into();
    });
    let blame = "device tree: ibm,device-tgt-addr of /pciex@6030200000000/unknown-bridge@0 has the wrong length";
    let run = |arguments: &[&str]| program().arg("--sysfs").arg(&file).args(arguments).assert();

    run(&["list"]).success().stdout(contains(blame));
    run(&["show", "0004:04:00.0"])
        .success()
        .stdout(contains(blame));
    run(&["doctor"])
        .code(1)
        .stdout(contains("FAILED  GPUs").and(contains(blame)));
    run(&["qemu-args", "0004:04:00.0"])
        .code(2)
        .stderr(contains(blame));
    // The others are none the worse for it.
    run(&["qemu-args", "0004:05:00.0"]).success();
}

const GUEST: &str = "<domain type='kvm'><memory unit='GiB'>1</memory><os><type arch='ppc64' machine='pseries'>hvm</type></os><devices>";

#[test]
fn memlock_looks_devices_up() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("guest.xml");
    for (host, functions, bytes) in [
        ("4-gpus", "--group 1", 550_863_110_144_u64),
        ("4-gpus", "--all", 825_745_211_392),
        ("6-gpus", "--group 1", 550_863_110_144),
        ("6-gpus", "--all", 825_745_211_392),
        ("6-gpus", "0007:00:00.0", 550_863_110_144),
    ] {
        let hostdevs = output(on(host, &format!("libvirt-xml {functions}")).success());
        fs::write(&file, format!("{GUEST}{hostdevs}</devices></domain>")).unwrap();
        let arguments = format!("memlock --domain {}", file.display());
        let report = json(host, &arguments);

        assert_eq!(report["bytes"], bytes, "{host} {functions}");
        assert_eq!(report["kib"], bytes / 1024);
        assert_eq!(report["inputs"]["mode"], "nvlink2");
        on(host, &arguments)
            .success()
            .stdout(contains(format!("{bytes} bytes\n")).and(contains(format!(
                "<hard_limit unit=\"KiB\">{}</hard_limit>",
                bytes / 1024
            ))));
    }
    // The GPU alone is an ordinary device.
    let hostdev = output(on("4-gpus", "libvirt-xml 0004:04:00.0").success());
    let first = hostdev.split_inclusive("</hostdev>").next().unwrap();
    fs::write(&file, format!("{GUEST}{first}</devices></domain>")).unwrap();
    let arguments = format!("memlock --explain --domain {}", file.display());
    on("4-gpus", &arguments).success().stdout(
        contains("4320133120 bytes").and(contains("PCI host bridge 1: isolates devices/hostdev")),
    );
    // And this machine has no such device.
    program()
        .args(["memlock", "--domain"])
        .arg(&file)
        .assert()
        .code(2)
        .stderr(contains(
            "devices/hostdev: the host has no PCI function 0004:04:00.0",
        ));
}

#[test]
fn memlock_from_numbers() {
    for (arguments, bytes) in [
        (
            "--memory 1048576KiB --max-memory 1048576KiB --phbs 2 --mode none",
            25_165_824_u64,
        ),
        ("--memory 1GiB --phbs 1 --mode vfio", 2_168_455_168),
        ("--memory 1048576 --phbs 1", 275_981_008_896),
        ("--memory 1GiB --phbs 3 --mode nvlink2", 825_745_211_392),
        (
            "--memory 1GiB --max-memory 4GiB --mode nvlink2",
            279_227_400_192,
        ),
    ] {
        program()
            .arg("memlock")
            .args(arguments.split(' '))
            .assert()
            .success()
            .stdout(contains(format!("{bytes} bytes")));
    }
    for (arguments, words) in [
        ("", "--memory"),
        ("--memory 1Gi", "is no unit"),
        ("--memory=-1", "is no number"),
        (
            "--memory 1GiB --max-memory 1MiB",
            "--max-memory is less than --memory",
        ),
        ("--memory 1GiB --phbs 0", "at least the default"),
        (
            "--memory 1GiB --phbs 18446744073709551615",
            "does not fit into 64 bits",
        ),
        ("--memory 1GiB --mode kvm", "none, vfio, nvlink2"),
        ("--memory 1GiB --domain x", "cannot be used with"),
        ("--domain /nonexistent", "/nonexistent"),
    ] {
        program()
            .arg("memlock")
            .args(arguments.split_whitespace())
            .assert()
            .code(2)
            .stderr(contains(words));
    }
}

#[test]
fn memlock_reads_standard_input_and_settings() {
    for (settings, first) in [
        (
            "<memtune><hard_limit unit='GiB'>2</hard_limit></memtune>",
            "2147483648 bytes",
        ),
        (
            "<memtune><hard_limit>0</hard_limit></memtune>",
            "0 bytes (libvirt leaves the limit alone)",
        ),
        (
            "<memoryBacking><locked/></memoryBacking>",
            "9007199254740991 bytes (libvirt's number for no limit)",
        ),
        ("", "20971520 bytes"),
    ] {
        let xml = format!("{GUEST}</devices>{settings}</domain>");
        let run = |json: &[&str]| {
            program()
                .args(["memlock", "--explain", "--domain", "-"])
                .args(json)
                .write_stdin(xml.clone())
                .assert()
                .success()
        };
        run(&[]).stdout(predicate::str::starts_with(first).and(contains("rule: ")));
        let _: Value = serde_json::from_str(&output(run(&["--json"]))).unwrap();
    }
    program()
        .args(["memlock", "--domain", "-"])
        .write_stdin(b"\xff".as_slice())
        .assert()
        .code(2);
}

#[test]
fn guests_get_a_host_bridge_per_group() {
    let arguments = output(on("6-gpus", "qemu-args --all").success());
    // The first group is on the default one, between whatever else is there.
    assert_eq!(arguments.matches("spapr-pci-host-bridge").count(), 1);
    assert_eq!(arguments.matches("vfio-pci").count(), 18);
    assert_eq!(arguments.matches(",bus=pci.0\n").count(), 9);
    assert!(arguments.contains("-device vfio-pci,host=0035:03:00.0,bus=phb1.0,addr=0x1\n"));

    let words = json("6-gpus", "qemu-args 0035:03:00.0 --first-index 5");
    assert_eq!(
        words,
        serde_json::json!([
            "-device",
            "spapr-pci-host-bridge,index=5,id=phb5",
            "-device",
            "vfio-pci,host=0035:03:00.0,bus=phb5.0,addr=0x1",
            "-device",
            "vfio-pci,host=0007:00:00.0,bus=phb5.0,addr=0x2",
            "-device",
            "vfio-pci,host=0007:00:00.1,bus=phb5.0,addr=0x3",
        ])
    );
    on("6-gpus", "qemu-args --all --first-index 31")
        .code(2)
        .stderr(contains("no PCI host bridge 32"));
    on("6-gpus", "qemu-args --all --first-index 32").code(2);
    for (arguments, managed) in [("", "yes"), ("--managed no", "no")] {
        on("6-gpus", &format!("libvirt-xml {arguments} 0035:03:00.0"))
            .success()
            .stdout(contains(format!("managed=\"{managed}\"")).count(3));
    }
    on("6-gpus", "libvirt-xml --all --managed maybe").code(2);
}

#[test]
fn plans_are_made_for_gpus_groups_and_all() {
    for (arguments, count) in [
        ("0004:04:00.0", 3),
        ("0004:04:00.0 0006:00:00.0", 3),
        ("0006:00:00.0", 1),
        ("--group 1", 9),
        ("--group 1 --group 2", 18),
        ("--all", 18),
    ] {
        let plan = json("6-gpus", &format!("bind --dry-run {arguments}"));
        assert_eq!(
            plan["changes"].as_array().unwrap().len(),
            count,
            "{arguments}"
        );
        assert_eq!(plan["changes"][0]["to"], "nvlink2-vfio-pci");
        on("6-gpus", &format!("unbind --dry-run {arguments}")).success();
    }
    for (arguments, words) in [
        ("", "required"),
        ("--all --group 1", "cannot be used with"),
        ("--group 0", "IOMMU group 0 has no GPU"),
        ("0000:00:00.0", "neither a GPU on NVLink2 nor"),
        ("0000:00:00.7", "no PCI function"),
    ] {
        on("6-gpus", &format!("bind --dry-run {arguments}"))
            .code(2)
            .stderr(contains(words));
    }
    // A recording cannot be changed.
    on("6-gpus", "bind --all")
        .code(2)
        .stderr(contains("--sysfs"));
    on("6-bound", "unbind --all")
        .code(2)
        .stderr(contains("--sysfs"));
}

#[test]
fn a_group_with_a_driver_of_the_host_is_refused() {
    let (_folder, file) = changed("4-gpus", |files| {
        device(files, "0004:05:00.0")["driver"] = ">/sys/bus/pci/drivers/nvidia".into();
    });
    let run = |arguments: &str| {
        program()
            .arg("--sysfs")
            .arg(&file)
            .args(arguments.split(' '))
            .assert()
    };
    run("bind --dry-run 0004:04:00.0")
        .code(4)
        .stderr(contains("IOMMU group 1: 0004:05:00.0 belongs to nvidia"));
    run("bind --dry-run --group 1")
        .success()
        .stdout(contains("nvidia -> nvlink2-vfio-pci"));
    run("doctor").code(1).stdout(contains(
        "FAILED  viability: IOMMU group 1: 0004:05:00.0 belongs to nvidia",
    ));
    run("bind --dry-run --driver nvidia --group 1").code(4);
}

#[test]
fn other_vfio_drivers_are_told_by_their_modules() {
    let (_folder, file) = changed("4-bound", |files| {
        device(files, "0004:05:00.0")["driver"] = ">/sys/bus/pci/drivers/own".into();
        files["sys"]["bus"]["pci"]["drivers"]["own"] =
            serde_json::json!({ "module": ">/sys/module/own_vfio" });
        files["sys"]["module"]["vfio_pci_core"] =
            serde_json::json!({ "holders": { "own_vfio": {} } });
    });
    program()
        .arg("--sysfs")
        .arg(file)
        .arg("doctor")
        .assert()
        .success()
        .stdout(contains("ok      viability").and(contains(
            "note    binding: not bound to nvlink2-vfio-pci: 0004:05:00.0 (has own)",
        )));
}

#[test]
fn doctor_is_content_with_a_core_that_is_built_in() {
    let (_folder, file) = changed("4-bound", |files| {
        files["sys"]["module"]
            .as_object_mut()
            .unwrap()
            .remove("vfio_pci_core");
    });
    program()
        .arg("--sysfs")
        .arg(file)
        .arg("doctor")
        .assert()
        .success();
}

/// A host on which a thing is missing, and what doctor says about it.
#[test]
fn doctor_finds_what_is_missing() {
    type Change = fn(&mut Value);
    let table: [(Change, &str); 12] = [
        (
            |files| {
                files["sys"]["firmware"]["devicetree"]["base"]["compatible"] = "=ibm,pseries".into()
            },
            "FAILED  platform: 'ibm,pseries' is not PowerNV",
        ),
        (
            |files| {
                files["sys"]["firmware"]["devicetree"]["base"]["ibm,opal"] = serde_json::json!({})
            },
            "FAILED  firmware",
        ),
        (
            |files| files["proc"]["cpuinfo"] = "=cpu : POWER8\nMMU : Radix".into(),
            "FAILED  processor: 'POWER8' is no POWER9",
        ),
        (
            |files| files["proc"]["cpuinfo"] = "=cpu : POWER9\nMMU : Hash".into(),
            "disable_radix",
        ),
        (
            |files| files["boot"] = serde_json::json!({ "config-7.3.4+": "=CONFIG_VFIO=m\n" }),
            "lacks CONFIG_PPC_POWERNV_NPU2=y, CONFIG_SPAPR_TCE_IOMMU=y",
        ),
        (
            |files| {
                device(files, "0006:00:00.0")["iommu_group"] = ">/sys/kernel/iommu_groups/7".into()
            },
            "FAILED  IOMMU groups: 0004:04:00.0 is in group 1, 0006:00:00.0 of the same NPU (/pciex@6030200000000) in 7",
        ),
        (
            |files| {
                files["sys"]["module"]
                    .as_object_mut()
                    .unwrap()
                    .remove("kvm_hv");
            },
            "FAILED  KVM: kvm_hv is not loaded",
        ),
        (
            |files| {
                files["sys"]["module"]
                    .as_object_mut()
                    .unwrap()
                    .remove("vfio_iommu_spapr_tce");
            },
            "FAILED  VFIO: vfio_iommu_spapr_tce is not loaded",
        ),
        (
            |files| {
                files["dev"]["vfio"].as_object_mut().unwrap().remove("1");
            },
            "FAILED  device files: there is no /dev/vfio/1",
        ),
        (
            |files| {
                files["proc"]["self"] =
                    serde_json::json!({ "limits": "=Max locked memory 8388608 8388608 bytes" });
            },
            "FAILED  locked memory: this user may lock 8388608 bytes, the smallest guest needs 275981008896",
        ),
        (
            |files| {
                files["sys"]["bus"]["pci"]["devices"]
                    .as_object_mut()
                    .unwrap()
                    .retain(|bdf, _| !bdf.starts_with("0006:"));
            },
            "FAILED  NVLink2 bridges",
        ),
        (
            |files| {
                files["sys"]["firmware"]["devicetree"]["base"]["pciex@6030200000000"]
                    .as_object_mut()
                    .unwrap()
                    .remove("ibm,mmio-atsd");
            },
            "ibm,mmio-atsd of /pciex@6030200000000 is missing",
        ),
    ];

    on("4-bound", "doctor")
        .success()
        .stdout(contains("FAILED").not());
    for (change, words) in table {
        let (_folder, file) = changed("4-bound", change);
        let run = |json: &[&str]| {
            program()
                .arg("--sysfs")
                .arg(&file)
                .args(json)
                .arg("doctor")
                .assert()
                .code(1)
        };

        run(&[]).stdout(contains(words).and(contains("-> ")));
        let findings: Value = serde_json::from_str(&output(run(&["--json"]))).unwrap();
        assert!(
            findings
                .as_array()
                .unwrap()
                .iter()
                .any(|finding| finding["verdict"] == "failed" && finding["remedy"].is_string())
        );
    }
}

#[test]
fn memory_for_a_user_without_the_capability() {
    for (limit, verdict) in [
        ("unlimited", "ok "),
        ("275981008896", "ok "),
        ("275981008895", "FAILED "),
    ] {
        let (_folder, file) = changed("4-bound", |files| {
            files["proc"]["self"] = serde_json::json!({
                "status": "=CapEff:\t0000000000003fff\n",
                "limits": format!("=Max locked memory         {limit}    {limit}    bytes\n"),
            });
        });
        let status = if verdict == "ok " { 0 } else { 1 };
        let line = format!("{verdict:8}locked memory: ");
        program()
            .arg("--sysfs")
            .arg(file)
            .arg("doctor")
            .assert()
            .code(status)
            .stdout(contains(line));
    }
}

#[test]
fn a_recording_of_a_recording_is_the_same() {
    for host in ["4-gpus", "4-bound", "4-empty", "6-gpus", "6-bound"] {
        let text = fs::read_to_string(recording(host)).unwrap();
        on(host, "record").success().stdout(text);
    }
}

/// Found by fuzzing: a node that lacks what it is asked for has to be in the recording, too.
#[test]
fn what_is_missing_is_recorded_as_missing() {
    let (_folder, file) = changed("4-gpus", |files| {
        let link = &mut files["sys"]["firmware"]["devicetree"]["base"]["xscom@603fc00000000"]["npu@5011000"]
            ["link@0"];
        link.as_object_mut()
            .unwrap()
            .remove("ibm,npu-link-index")
            .unwrap();
    });
    let again = file.with_file_name("again.json");
    let run = |root: &PathBuf, arguments: &[&str]| {
        let program = program().arg("--sysfs").arg(root).args(arguments).assert();
        output(program.success())
    };

    fs::write(&again, run(&file, &["record"])).unwrap();
    let said = run(&file, &["list"]);
    assert!(
        said.contains("ibm,npu-link-index of /xscom@603fc00000000/npu@5011000/link@0 is missing")
    );
    assert_eq!(run(&again, &["list"]), said);
}

#[test]
fn bad_roots_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (root, words) in [
        (folder.path().join("none"), "none"),
        (folder.path().to_owned(), "has no folder 'sys'"),
        (
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"),
            "no recording of nvlink2ctl",
        ),
    ] {
        program()
            .arg("--sysfs")
            .arg(root)
            .arg("list")
            .assert()
            .code(2)
            .stderr(contains(words));
    }
}

/// A folder with a sysfs in it, as in a container: the files are the machine's own.
#[test]
fn other_roots_are_read() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("sys/bus/pci/devices/0004:04:00.0")).unwrap();
    fs::write(
        folder
            .path()
            .join("sys/bus/pci/devices/0004:04:00.0/vendor"),
        "0x10de\n",
    )
    .unwrap();
    let run = |arguments: &str| {
        program()
            .arg("--sysfs")
            .arg(folder.path())
            .args(arguments.split(' '))
            .assert()
    };
    run("list").code(3);
    run("--json show 0004:04:00.0")
        .success()
        .stdout(contains("\"id\": \"10de:\""));
    run("is-bridge 0004:04:00.0").code(1);
    run("doctor").code(1).stdout(contains("no device tree"));
}

/// This machine is no POWER9 host, or the tests would not run on it.
#[test]
fn a_machine_without_nvlink_says_so() {
    for command in [
        "list",
        "topology",
        "bind --all",
        "unbind --all",
        "qemu-args --all",
        "libvirt-xml --all",
    ] {
        program()
            .args(command.split(' '))
            .assert()
            .code(3)
            .stderr(contains("has no GPU with NVLink2").and(contains("doctor")));
    }
    program()
        .args(["--json", "list"])
        .assert()
        .code(3)
        .stdout("")
        .stderr(contains("\"status\": 3"));
    program()
        .arg("doctor")
        .assert()
        .code(1)
        .stdout(contains("FAILED  platform").and(contains("1 check failed")));
}

/// The session in the administrator's guide: what follows each command is a part of what it prints.
#[test]
fn the_guide_shows_what_is_printed() {
    let guide = include_str!("../../../Documentation/admin-guide.rst");
    for (recording, shown, arguments) in [
        ("4-gpus", "bind --all", "bind --all --dry-run"),
        ("4-bound", "list", "list"),
        ("4-bound", "doctor", "doctor"),
    ] {
        let (_, behind) = guide
            .split_once(&format!("\n    # nvlink2ctl {shown}\n"))
            .unwrap();
        let lines: Vec<_> = behind
            .lines()
            .take_while(|line| line.starts_with("    ") && !line.starts_with("    #"))
            .map(|line| line.strip_prefix("    ").unwrap())
            .filter(|line| *line != "...")
            .collect();
        assert!(!lines.is_empty(), "{shown}");
        let printed = output(on(recording, arguments).success());
        assert!(
            printed.contains(&lines.join("\n")),
            "nvlink2ctl {shown} prints:\n{printed}"
        );
    }
}

#[test]
fn completions_and_pages_know_every_command() {
    let help = output(program().arg("help").assert().success());
    let commands = [
        "list",
        "show",
        "topology",
        "is-bridge",
        "memlock",
        "check-domain",
        "bind",
        "unbind",
        "qemu-args",
        "libvirt-xml",
        "doctor",
        "record",
        "completions",
        "man",
    ];
    let folder = tempfile::tempdir().unwrap();
    program()
        .arg("man")
        .arg("--out")
        .arg(folder.path())
        .assert()
        .success();
    for command in commands {
        assert!(help.contains(&format!("  {command} ")), "{command}");
        assert!(
            folder
                .path()
                .join(format!("nvlink2ctl-{command}.1"))
                .exists(),
            "{command}"
        );
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = output(program().args(["completions", shell]).assert().success());
        for command in commands {
            assert!(script.contains(command), "{shell} {command}");
        }
    }
    program()
        .arg("man")
        .assert()
        .success()
        .stdout(contains("EXIT STATUS"));
}

/// A reader who goes away is no reason to panic.
#[test]
fn closed_pipes_are_no_error() {
    let run = |command: &str| {
        let line = format!("{} {command}", env!("CARGO_BIN_EXE_nvlink2ctl"));
        let script = format!("set -o pipefail; ({line}; echo $? >&3) 3>&1 >/dev/full 2>/dev/full");
        output(
            Command::new("bash")
                .args(["-c", &script])
                .assert()
                .success(),
        )
    };
    assert_eq!(run("list"), "3\n");
    assert_eq!(run("help"), "0\n");
    assert_eq!(run("memlock --memory 1GiB"), "2\n");
    // The reader is gone long before the first line.
    let script = format!(
        "exec 3>&1; (sleep 0.5; {} man; echo $? >&3) | true",
        env!("CARGO_BIN_EXE_nvlink2ctl")
    );
    let bash = Command::new("bash")
        .args(["-c", &script])
        .assert()
        .success();
    assert_eq!(output(bash), "0\n");
}

// SPDX-License-Identifier: GPL-2.0

//! What the kernel says and keeps: its log, its memory, and the model's counters.

use crate::{
    machine::{self, Machine, DRIVER},
    sys::milliseconds,
};
use anyhow::{bail, ensure, Context, Result};
use serde_json::{json, Value};
use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::Duration,
};

/// What no line of the kernel's log may contain, one to a line.
const SPLATS: &str = include_str!("../../selftests/splats.txt");
/// What kmemleak says when it finds something, or gives up.
const KMEMLEAK: &str = "kmemleak: ";
/// What says so and is none: kmemleak's own start and end.
const HARMLESS: &[&str] = &[
    "kmemleak: Kernel memory leak detector",
    "kmemleak: Automatic memory scanning",
];

/// What the kernel itself says where the console could not keep up, for the log: a splat, too.
const LOST: &str = "** printk messages dropped **";

/// The kernel's log from the moment this was made.
pub struct Log {
    file: File,
    lines: Vec<String>,
}

impl Log {
    /// Forgets what was said before.
    pub fn open() -> Result<Self> {
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .context("/dev/kmsg")?;
        file.seek(SeekFrom::End(0)).context("/dev/kmsg")?;
        Ok(Self {
            file,
            lines: Vec::new(),
        })
    }

    /// Keeps what was said until now: the kernel keeps less than a round may say.
    pub fn poll(&mut self) {
        let mut record = vec![0; 16 << 10];
        loop {
            match self.file.read(&mut record) {
                Ok(0) => break,
                Ok(len) => {
                    let text = String::from_utf8_lossy(&record[..len]);
                    let text = text.split_once(';').map_or(&*text, |(_, text)| text);
                    let line = text.lines().next().unwrap_or_default();
                    self.lines.push(line.to_owned());
                }
                // The log was faster than its reader.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    self.lines.push(LOST.to_owned())
                }
                Err(_) => break,
            }
        }
    }

    /// Lines since the last time, and those of them that are splats.
    pub fn read(&mut self) -> (Vec<String>, Vec<String>) {
        self.poll();
        let lines = std::mem::take(&mut self.lines);
        let is_splat = |line: &&String| {
            SPLATS
                .lines()
                .chain([KMEMLEAK])
                .any(|word| line.contains(word))
                && !HARMLESS.iter().any(|word| line.contains(word))
        };
        let splats = lines.iter().filter(is_splat).cloned().collect();
        (lines, splats)
    }
}

/// The kernel's taint flags: set by warnings and oopses, whether or not the log was read in time.
pub fn taint() -> u64 {
    let text = fs::read_to_string("/proc/sys/kernel/tainted").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Has the console show warnings and errors only: it is slow, and there are many lines that say what
/// users did.
pub fn quiet_console() {
    let _ = fs::write("/proc/sys/kernel/printk", "5");
}

/// The monitor of the machine's own emulator.
pub struct Monitor {
    port: File,
    serial: u64,
}

impl Monitor {
    /// An error on a machine without one: nothing else tells of lost accesses.
    pub fn open() -> Result<Self> {
        const PORTS: &str = "/sys/class/virtio-ports";
        for port in fs::read_dir(PORTS).context(PORTS)?.flatten() {
            if fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == "qmp") {
                let path = format!("/dev/{}", port.file_name().to_string_lossy());
                let port = File::options()
                    .read(true)
                    .write(true)
                    .open(&path)
                    .context(path)?;
                let mut monitor = Self {
                    port,
                    serial: milliseconds(),
                };
                // Refused where somebody negotiated before.
                monitor.execute("qmp_capabilities", json!({}))?;
                return Ok(monitor);
            }
        }
        bail!("there is no port to the emulator's monitor, which tells of lost accesses")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            ensure!(self.port.read(&mut byte)? == 1, "the monitor hung up");
            if byte[0] == b'\n' {
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            line.push(byte[0]);
        }
    }

    fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.serial += 1;
        let id = format!("fuzz-{}", self.serial);
        let request = json!({ "execute": command, "arguments": arguments, "id": id });
        self.port.write_all(format!("{request}\n").as_bytes())?;
        loop {
            let answer: Value = serde_json::from_str(&self.line()?).unwrap_or(Value::Null);
            if answer["id"] == id.as_str() {
                return Ok(answer);
            }
        }
    }

    /// Accesses of the CPU to RAM of all GPUs that got no answer, since the machine started.
    pub fn untrained_accesses(&mut self, machine: &Machine) -> Result<u64> {
        let mut sum = 0;
        for gpu in 0..machine.gpus.len() {
            let property = json!({ "path": format!("/machine/peripheral/gpu{gpu}"), "property": "untrained-accesses" });
            let answer = self.execute("qom-get", property)?;
            let count = answer["return"].as_u64();
            sum += count.with_context(|| {
                format!("gpu{gpu} has no count of untrained accesses: {answer}")
            })?;
        }
        Ok(sum)
    }
}

/// A frame of the module in what the kernel prints of a stack.
const FRAME: &str = "[nvlink2_vfio_pci]";

/// Objects in use that the module allocated, or had the kernel allocate: how many, by cache and the
/// module's innermost function. `None` where the kernel was not told to remember who allocates
/// (`slab_debug=U` on its command line).
///
/// Nobody else's are among them, so that their number does not change by chance.
pub fn own_objects() -> Option<BTreeMap<String, u64>> {
    let mut own = BTreeMap::new();
    let mut known = false;
    for cache in fs::read_dir("/sys/kernel/debug/slab").ok()?.flatten() {
        let Ok(text) = fs::read_to_string(cache.path().join("alloc_traces")) else {
            continue;
        };
        known = true;
        // A line with the number of objects, and one for each frame of the stack that allocated them.
        let mut count = 0;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            if line.contains(" age=") {
                count = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            }
            let function = words.next().unwrap_or_default();
            // A frame without a name is one of a module that was unloaded, perhaps ours.
            if count != 0 && (line.contains(FRAME) || function.starts_with("0x")) {
                let (function, _) = function
                    .split_once('+')
                    .unwrap_or(("of a module that has gone", ""));
                let cache = cache.file_name();
                let name = format!("{}, {function}", cache.to_string_lossy());
                *own.entry(name).or_default() += count;
                count = 0;
            }
        }
    }
    known.then_some(own)
}

/// Of what there are more objects than `before`.
pub fn more_objects(before: &BTreeMap<String, u64>) -> Vec<String> {
    let now = own_objects().unwrap_or_default();
    now.iter()
        .filter_map(|(name, count)| {
            let was = before.get(name).copied().unwrap_or(0);
            (*count > was).then(|| format!("{name}: {was} -> {count} objects"))
        })
        .collect()
}

/// Memory of the kernel that is in use.
pub struct Usage {
    /// Objects of each slab cache.
    objects: BTreeMap<String, u64>,
    /// KiB of /proc/meminfo's fields.
    kilobytes: BTreeMap<String, u64>,
}

/// Fields of /proc/meminfo that a leak shows in.
const FIELDS: &[&str] = &[
    "SUnreclaim",
    "VmallocUsed",
    "Percpu",
    "KernelStack",
    "PageTables",
    "Unevictable",
    "Mlocked",
];

/// How often it is counted.
const READINGS: u32 = 5;
/// Longer than a grace period, and than debug objects wait before they are freed.
pub const SETTLING: Duration = Duration::from_secs(2);

impl Usage {
    /// Gives up caches first, so that what is left is in use. The lowest of several readings: pools
    /// and sheaves that were just filled count as in use.
    pub fn read() -> Result<Self> {
        let mut usage = Self::once()?;
        for _ in 1..READINGS {
            let other = Self::once()?;
            lower(&mut usage.objects, other.objects);
            lower(&mut usage.kilobytes, other.kilobytes);
        }
        Ok(usage)
    }

    fn once() -> Result<Self> {
        let _ = fs::write("/proc/sys/vm/drop_caches", "3");
        thread::sleep(SETTLING);
        for cache in fs::read_dir("/sys/kernel/slab")
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = fs::write(cache.path().join("shrink"), "1");
        }
        let text = fs::read_to_string("/proc/slabinfo").context("/proc/slabinfo")?;
        let mut objects: BTreeMap<String, u64> = text
            .lines()
            .skip(2)
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
            })
            .collect();
        // Most of these wait in pools of a thousand and more.
        if let Some(used) = debug_objects() {
            objects.insert("debug_objects_cache".to_owned(), used);
        }
        let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
        let kilobytes = text
            .lines()
            .filter_map(|line| {
                let (name, rest) = line.split_once(':')?;
                let number = rest.split_whitespace().next()?.parse().ok()?;
                FIELDS.contains(&name).then(|| (name.to_owned(), number))
            })
            .collect();
        Ok(Self { objects, kilobytes })
    }

    /// What grew by more than chance since `before`, `rounds` rounds ago: a leak of one object a round
    /// is more than that from 128 rounds on. [`own_objects`] counts those of the module exactly.
    pub fn growth(&self, before: &Self, rounds: u64) -> Vec<String> {
        let mut grown = Vec::new();
        // Caches of files, names and page tables follow what the whole system does.
        let slack = 64 + rounds / 2;
        for (name, count) in &self.objects {
            let was = before.objects.get(name).copied().unwrap_or(0);
            if count.saturating_sub(was) > slack.max(was / 8) {
                grown.push(format!("slab {name}: {was} -> {count} objects"));
            }
        }
        for (name, size) in &self.kilobytes {
            let was = before.kilobytes.get(name).copied().unwrap_or(0);
            // A slab is kept for one object, and a debug kernel has many: objects are what counts.
            let slack = if name == "SUnreclaim" { was / 64 } else { 0 };
            if size.saturating_sub(was) > slack.max(4096 + rounds) {
                grown.push(format!(
                    "{name}: {was} -> {size} KiB; more objects than before have {}",
                    self.most_grown(before)
                ));
            }
        }
        grown
    }

    /// The slab caches that grew most, which says where to look for what is in none.
    fn most_grown(&self, before: &Self) -> String {
        let mut caches: Vec<_> = self
            .objects
            .iter()
            .map(|(name, count)| {
                let was = before.objects.get(name).copied().unwrap_or(0);
                (count.saturating_sub(was), name)
            })
            .collect();
        caches.sort_unstable_by(|one, other| other.cmp(one));
        let caches: Vec<_> = caches
            .into_iter()
            .take(8)
            .map(|(more, name)| format!("{name} ({more})"))
            .collect();
        caches.join(", ")
    }
}

/// How many objects CONFIG_DEBUG_OBJECTS watches.
fn debug_objects() -> Option<u64> {
    let text = fs::read_to_string("/sys/kernel/debug/debug_objects/stats").ok()?;
    text.lines().find_map(|line| {
        let (name, count) = line.split_once(':')?;
        (name.trim() == "pool_used").then(|| count.trim().parse().ok())?
    })
}

/// Has `usage` say what is the least of both.
fn lower(usage: &mut BTreeMap<String, u64>, other: BTreeMap<String, u64>) {
    for (name, count) in other {
        let least = usage.entry(name).or_insert(count);
        *least = count.min(*least);
    }
}

const KMEMLEAK_FILE: &str = "/sys/kernel/debug/kmemleak";

/// Whether the kernel can look for lost memory.
pub fn has_kmemleak() -> bool {
    Path::new(KMEMLEAK_FILE).exists()
}

/// What kmemleak finds, where the kernel has it.
pub fn memory_leaks() -> Vec<String> {
    if !has_kmemleak() {
        return Vec::new();
    }
    // An object counts as lost when two scans did not find it.
    for _ in 0..2 {
        if let Err(error) = fs::write(KMEMLEAK_FILE, "scan") {
            return vec![format!("unknown, kmemleak does not scan: {error}")];
        }
        thread::sleep(Duration::from_secs(6));
    }
    match fs::read_to_string(KMEMLEAK_FILE) {
        Ok(text) => text.lines().map(str::to_owned).collect(),
        Err(error) => vec![format!("unknown, kmemleak says nothing: {error}")],
    }
}

/// What is left of users that are gone, by the driver's own word.
pub fn left_behind(machine: &Machine) -> Vec<String> {
    let mut left = Vec::new();
    for function in &machine.functions {
        let folder = format!("/sys/kernel/debug/{DRIVER}/{}", function.bdf);
        // Who has taken it from the driver has taken its folder along.
        if machine::driver(&function.bdf).as_deref() != Some(DRIVER) {
            continue;
        }
        let of_gpus = function.is_gpu.then_some(("mappings", ""));
        for (file, clean) in [("lpar", "none")].into_iter().chain(of_gpus) {
            match fs::read_to_string(format!("{folder}/{file}")) {
                Ok(text) if text.trim() == clean => (),
                Ok(text) => left.push(format!(
                    "{} {file}: {}",
                    function.bdf,
                    text.trim().replace('\n', "; ")
                )),
                Err(error) => left.push(format!("{folder}/{file}: {error}")),
            }
        }
    }
    left
}

/// Where a process is in the kernel.
pub fn stack(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/stack")).unwrap_or_default();
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// A limit of time, in seconds, on a slow kernel or machine: NVLINK2_TIME_FACTOR times as long.
pub fn limit(seconds: u64) -> u64 {
    let factor = env::var("NVLINK2_TIME_FACTOR").ok();
    factor.and_then(|f| f.parse().ok()).unwrap_or(1).max(1) * seconds
}

/// Looks at a condition until it holds, at most for `seconds` (see [`limit`]).
pub fn settle(seconds: u64, what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let seconds = limit(seconds);
    let end = milliseconds() + seconds * 1000;
    while !holds() {
        if milliseconds() > end {
            bail!("{what} after {seconds} s");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

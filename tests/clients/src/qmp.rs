// SPDX-License-Identifier: GPL-2.0

//! The QEMU Machine Protocol: JSON objects, one a line.

use crate::lines::{within, Lines};
use anyhow::{anyhow, bail, Context, Result};
use serde_json::{json, Value};
use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

/// Seconds in which QEMU answers. It may be busy in one thread for long: every processor is emulated.
const ANSWER: u64 = 120;

/// A monitor.
pub struct Qmp {
    to: Box<dyn Write>,
    from: Lines,
    events: VecDeque<Value>,
    serial: u64,
    /// QEMU's version, where it said so.
    pub version: Option<(u64, u64)>,
}

impl Qmp {
    /// The monitor of the QEMU that listens at `path`.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).with_context(|| path.display().to_string())?;
        let mut qmp = Self::new(stream.try_clone()?, stream, &path.display().to_string());
        let greeting = qmp.receive()?;
        let number = |name: &str| greeting["QMP"]["version"]["qemu"][name].as_u64();
        qmp.version = number("major").zip(number("minor"));
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// The monitor of the emulator that runs this host: a virtio-serial port with the name "qmp".
    pub fn emulator() -> Result<Self> {
        let port = emulator_port()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&port)
            .with_context(|| port.display().to_string())?;
        let mut qmp = Self::new(file.try_clone()?, file, "the emulator's monitor");
        // The connection lasts as long as the machine: who came before may have negotiated.
        if let Err(error) = qmp.execute("qmp_capabilities", json!({})) {
            if !error
                .to_string()
                .contains("capabilities negotiation is done")
            {
                let again = qmp.execute("query-status", json!({}));
                again.map_err(|_| error)?;
            }
        }
        Ok(qmp)
    }

    fn new(from: impl Read + Send + 'static, to: impl Write + 'static, source: &str) -> Self {
        Self {
            to: Box::new(to),
            from: Lines::new(from, source),
            events: VecDeque::new(),
            serial: 0,
            version: None,
        }
    }

    fn receive(&mut self) -> Result<Value> {
        let line = self.from.next(within(ANSWER))?;
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
    }

    /// Executes a command; its result, or QEMU's description of the error.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        self.serial += 1;
        let id = json!(format!("{}-{}", std::process::id(), self.serial));
        let request = json!({"execute": command, "arguments": arguments, "id": id});
        self.to.write_all(format!("{request}\n").as_bytes())?;
        loop {
            let mut answer = self.receive()?;
            if answer["event"].is_string() {
                self.events.push_back(answer);
            } else if answer["id"] == id {
                if let Some(text) = answer["error"]["desc"].as_str() {
                    bail!("{command}: {text}");
                }
                return Ok(answer["return"].take());
            }
        }
    }

    /// Waits for the event `name`; others that come before are dropped.
    pub fn wait_for(&mut self, name: &str, seconds: u64) -> Result<()> {
        let deadline = within(seconds);
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => serde_json::from_str(&self.from.next(deadline).context(name.to_owned())?)?,
            };
            if event["event"] == name {
                return Ok(());
            }
        }
    }

    /// A property of an object of the emulated machine.
    pub fn property(&mut self, path: &str, name: &str) -> Result<Value> {
        self.execute("qom-get", json!({"path": path, "property": name}))
    }

    /// A property that is a list of numbers.
    pub fn numbers(&mut self, path: &str, name: &str) -> Result<Vec<u64>> {
        let value = self.property(path, name)?;
        let list = value
            .as_array()
            .filter(|list| !list.is_empty())
            .ok_or_else(|| anyhow!("{path}.{name}: {value}"))?;
        list.iter()
            .map(|n| n.as_u64().ok_or_else(|| anyhow!("{path}.{name}: {n}")))
            .collect()
    }
}

fn emulator_port() -> Result<PathBuf> {
    for port in fs::read_dir("/sys/class/virtio-ports")? {
        let port = port?;
        let mut name = String::new();
        if File::open(port.path().join("name"))
            .and_then(|mut file| file.read_to_string(&mut name))
            .is_ok()
            && name.trim_end() == "qmp"
        {
            return Ok(Path::new("/dev").join(port.file_name()));
        }
    }
    bail!("no virtio-serial port \"qmp\": not in an emulated host of this project?")
}

//! A server on a network of its own: a namespace with a cable (a pair of virtual interfaces) to each of those it works with.
//! Packets of a cable are lost one way or both, and nobody is told: to the kernels at its ends the other side is just silent.

use std::{
    io::{BufRead, BufReader, Read},
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{drill::mount::run, process::run_by};

/// Nobody's: a packet that is sent there is dropped by whoever gets it.
const NOWHERE: &str = "02:00:00:00:00:00";

/// Which packets are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// What the server says.
    There,
    /// What it is told.
    Back,
    Both,
}

/// A namespace, which is there for as long as this, and no longer than this process.
pub struct Island {
    holder: Child,
    pub to_database: Cable,
    pub to_broker: Cable,
    /// From those who call it.
    pub to_callers: Cable,
}

pub struct Cable {
    /// The namespace is this process's.
    holder: u32,
    name: String,
    /// The address of those whom the server works with.
    pub outer: Ipv4Addr,
    /// The server's.
    pub inner: Ipv4Addr,
    hardware: [String; 2],
}

impl Island {
    /// Answers why not, where the system does not allow it.
    pub fn new() -> Result<Self, String> {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|err| format!("unshare: {err}"))?;
        let mut said = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said.is_empty() {
            holder.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            return Err(format!("unshare does not let it (as root it does): {}", said.trim()));
        }
        let id = holder.id();
        let [to_database, to_broker, to_callers] = [(); 3].map(|()| Cable::new(id));
        let island = Self { holder, to_database, to_broker, to_callers };
        for cable in island.cables() {
            cable.lay()?;
        }
        Ok(island)
    }

    fn cables(&self) -> [&Cable; 3] {
        [&self.to_database, &self.to_broker, &self.to_callers]
    }

    /// What runs a command on it.
    pub fn run(&self, command: &Command) -> Command {
        let mut on = Command::new("nsenter");
        on.arg(network_of(self.holder.id()));
        run_by(on, command)
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        for cable in self.cables() {
            let _gone = run("ip", &["link", "delete", &cable.name]);
        }
        let _gone = self.holder.kill();
        let _gone = self.holder.wait();
    }
}

impl Cable {
    fn new(holder: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // 198.18.0.0/15 is nobody's: networks are measured there. A process has 64 cables before it meets another's.
        let number = std::process::id() * 64 + NEXT.fetch_add(1, Ordering::Relaxed);
        let at = |host: u32| Ipv4Addr::from_bits(0xC612_0000 | ((number * 4 + host) & 0x1_FFFF));
        let [.., a, b] = number.to_be_bytes();
        let hardware = [1, 2].map(|end| format!("02:00:01:{a:02x}:{b:02x}:{end:02x}"));
        let name = format!("utmos{:x}", number & 0xFF_FFFF);
        Self { holder, name, outer: at(1), inner: at(2), hardware }
    }

    fn lay(&self) -> Result<(), String> {
        let (outside, inside) = (self.name.as_str(), self.inside());
        let [outer, inner] = self.hardware.each_ref().map(String::as_str);
        let ends = ["type", "veth", "peer", "name", &inside, "address", inner];
        run("ip", &[&["link", "add", outside, "address", outer][..], &ends].concat())?;
        run("ip", &["link", "set", &inside, "netns", &self.holder.to_string()])?;
        let address = |end: Ipv4Addr| format!("{end}/30");
        run("ip", &["address", "add", &address(self.outer), "dev", outside])?;
        run("ip", &["link", "set", outside, "up"])?;
        self.within(&["address", "add", &address(self.inner), "dev", &inside])?;
        self.within(&["link", "set", &inside, "up"])?;
        self.set(None)
    }

    fn inside(&self) -> String {
        format!("{}i", self.name)
    }

    /// What goes on it is lost from now on.
    pub fn lose(&self, lost: Lost) {
        self.set(Some(lost)).unwrap();
    }

    /// Everything comes through again: what a kernel still has to send as well.
    pub fn mend(&self) {
        self.set(None).unwrap();
    }

    /// Tells either end where the other one is, or that it is nowhere.
    fn set(&self, lost: Option<Lost>) -> Result<(), String> {
        let [outer, inner] = self.hardware.each_ref().map(String::as_str);
        let there = if matches!(lost, Some(Lost::There | Lost::Both)) { NOWHERE } else { outer };
        let back = if matches!(lost, Some(Lost::Back | Lost::Both)) { NOWHERE } else { inner };
        let (to_outer, to_inner) = (self.outer.to_string(), self.inner.to_string());
        let inside = self.inside();
        self.within(&["neighbour", "replace", &to_outer, "lladdr", there, "dev", &inside])?;
        run("ip", &["neighbour", "replace", &to_inner, "lladdr", back, "dev", &self.name])
    }

    /// `ip` in the namespace.
    fn within(&self, arguments: &[&str]) -> Result<(), String> {
        run("nsenter", &[&[network_of(self.holder).as_str(), "ip"], arguments].concat())
    }
}

fn network_of(process: u32) -> String {
    format!("--net=/proc/{process}/ns/net")
}

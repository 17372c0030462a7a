//! Machines on one machine: network namespaces on a bridge, each with an address of its own, whose
//! ways to each other can be cut, also in one direction.
//!
//! The services listen on this machine's loopback alone. Each namespace has a relay on its own
//! loopback at the same ports, over sockets in a folder, which know no namespaces.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use crate::harness::{PATIENCE, left_out, until};

/// Listens at `from`, and passes on what comes to `to`; each `PORT`, on 127.0.0.1, or a path.
const RELAY: &str = r#"
import asyncio, os, sys
def is_port(place): return place.isdigit()
async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError: pass
    finally:
        try: writer.close()
        except OSError: pass
def passing(to):
    async def each(reader, writer):
        try:
            if is_port(to): r, w = await asyncio.open_connection('127.0.0.1', int(to))
            else: r, w = await asyncio.open_unix_connection(to)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, w), pump(r, writer))
    return each
async def main():
    for pair in sys.argv[1:]:
        at, to = pair.split('=')
        if is_port(at): await asyncio.start_server(passing(to), '127.0.0.1', int(at))
        else: await asyncio.start_unix_server(passing(to), at)
    print('ready', flush=True)
    await asyncio.get_running_loop().create_future()
asyncio.run(main())
"#;

/// The MAC address of nobody.
const NOBODY: &str = "02:00:00:00:00:fe";

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A network of machines, gone when dropped.
pub(crate) struct Network {
    name: String,
    /// The first three numbers of all addresses.
    subnet: String,
    machines: usize,
    relays: Vec<Child>,
    sockets: TempDir,
}

fn ip(arguments: &str) -> bool {
    let mut ip = Command::new("ip");
    ip.args(arguments.split_whitespace()).stderr(Stdio::null());
    ip.status().is_ok_and(|status| status.success())
}

#[track_caller]
fn must(arguments: &str) {
    assert!(ip(arguments), "ip {arguments}");
}

impl Network {
    /// So many machines that reach these ports of this machine's loopback as if they were on their
    /// own. None, said plainly, where namespaces cannot be made.
    pub(crate) fn new(test: &str, machines: usize, ports: &BTreeSet<u16>) -> Option<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let name = format!("tm{}x{number}", process % 100_000);
        if !ip(&format!("netns add {name}m0")) {
            left_out(&format!("{test} needs `ip netns` and root"));
            return None;
        }
        let network = Self {
            subnet: format!("198.18.{}", (process + number * 37) % 256),
            name,
            machines,
            relays: Vec::new(),
            sockets: tempfile::tempdir().unwrap(),
        };
        network.wire();
        Some(network.relay(ports))
    }

    fn wire(&self) {
        let (name, subnet) = (&self.name, &self.subnet);
        must(&format!("link add {name} type bridge"));
        must(&format!("addr add {subnet}.1/24 dev {name}"));
        must(&format!("link set {name} up"));
        for machine in 0..self.machines {
            let space = self.space(machine);
            if machine > 0 {
                must(&format!("netns add {space}"));
            }
            let (here, there) = (format!("{name}v{machine}"), "eth0");
            must(&format!(
                "link add {here} type veth peer name {there} netns {space}"
            ));
            must(&format!("link set {here} master {name}"));
            must(&format!("link set {here} up"));
            let address = self.address(machine);
            must(&format!("-n {space} addr add {address}/24 dev {there}"));
            must(&format!("-n {space} link set {there} up"));
            must(&format!("-n {space} link set lo up"));
        }
    }

    fn relay(mut self, ports: &BTreeSet<u16>) -> Self {
        let folder = self.sockets.path().to_owned();
        let socket = |port: &u16| folder.join(port.to_string()).display().to_string();
        let out: Vec<String> = ports
            .iter()
            .map(|port| format!("{}={port}", socket(port)))
            .collect();
        let into: Vec<String> = ports
            .iter()
            .map(|port| format!("{port}={}", socket(port)))
            .collect();
        let mut here = Command::new("python3");
        self.relays
            .push(start_relay(here.args(["-c", RELAY]).args(out), &folder));
        for machine in 0..self.machines {
            let mut there = self.command(machine, "python3");
            let there = there.args(["-c", RELAY]).args(&into);
            self.relays.push(start_relay(there, &folder));
        }
        self
    }

    fn space(&self, machine: usize) -> String {
        format!("{}m{machine}", self.name)
    }

    /// The address of this machine, which all others reach.
    pub(crate) fn host(&self) -> String {
        format!("{}.1", self.subnet)
    }

    /// The address of one of the machines.
    pub(crate) fn address(&self, machine: usize) -> String {
        format!("{}.{}", self.subnet, 10 + machine)
    }

    /// A command that runs on a machine; the process is the program's own.
    pub(crate) fn command(&self, machine: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(machine), program]);
        command
    }

    /// From now on nothing that `from` sends reaches `to`; what `to` sends arrives.
    pub(crate) fn cut_one_way(&self, from: usize, to: usize) {
        let (space, to) = (self.space(from), self.address(to));
        must(&format!(
            "-n {space} neigh replace {to} lladdr {NOBODY} dev eth0 nud permanent"
        ));
    }

    /// From now on these two do not reach each other.
    pub(crate) fn cut(&self, a: usize, b: usize) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// The ways between these two are as they were.
    pub(crate) fn heal(&self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            let (space, to) = (self.space(from), self.address(to));
            // It may be cut in one direction only.
            ip(&format!("-n {space} neigh del {to} dev eth0"));
        }
    }
}

fn start_relay(command: &mut Command, folder: &Path) -> Child {
    let said = folder.join(crate::harness::unique("relay"));
    let out = std::fs::File::create(&said).unwrap();
    command.stdin(Stdio::null()).stdout(out);
    let child = command.spawn().unwrap();
    until("a relay listens", PATIENCE, || {
        let said = std::fs::read_to_string(&said).unwrap();
        said.contains("ready").then_some(())
    });
    child
}

impl Drop for Network {
    fn drop(&mut self) {
        for relay in &mut self.relays {
            // It may have ended already.
            let _ended = relay.kill();
            let _ended = relay.wait();
        }
        for machine in 0..self.machines {
            ip(&format!("netns del {}", self.space(machine)));
        }
        ip(&format!("link del {}", self.name));
    }
}

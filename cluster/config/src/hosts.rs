//! Processes of one job, from timely's own flags: how many there are, which one this is, and the
//! addresses of all.
//!
//! The flags are timely's (`-w`, `-n`, `-p`, `-h`), so that a job is started like any other timely
//! program. In: flags and the host file. Out: [`Hosts`], with one address for each process.

use std::net::{TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use tidemill_dataflow::job::Workers;
use tidemill_protocol::exit::Usage;

/// First port of processes without a host list, as in timely.
const PORT_BASE: usize = 2101;

/// Timely's flags.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Workers and processes (timely's own flags)")]
pub struct HostArgs {
    /// Worker threads in each process
    #[arg(short = 'w', long, value_name = "THREADS", default_value_t = 1)]
    pub(crate) workers: usize,
    /// Processes in all [default: as many as there are hosts, else 1]
    #[arg(short = 'n', long, value_name = "PROCESSES")]
    pub(crate) processes: Option<usize>,
    /// Which of them this one is, from 0
    #[arg(short = 'p', long, value_name = "PROCESS", default_value_t = 0)]
    pub process: usize,
    /// File with one host:port a line [default: localhost, ports 2101 and up]
    #[arg(short = 'h', long, value_name = "HOSTFILE", conflicts_with = "hosts")]
    pub(crate) hostfile: Option<PathBuf>,
    /// The same list on the command line: a:2101,b:2101
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) hosts: Vec<String>,
}

/// The processes that the flags describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    /// The threads of this process, and its index among the processes.
    pub workers: Workers,
    /// `host:port` of every process by index; empty for a single process.
    pub addresses: Vec<String>,
}

impl HostArgs {
    /// Resolves the flags.
    ///
    /// # Errors
    ///
    /// The flags contradict each other or an address is invalid ([`Usage`], exit code 2), or the
    /// host file cannot be read.
    pub fn resolve(&self) -> anyhow::Result<Hosts> {
        if self.workers == 0 {
            return Err(Usage("-w 0: at least one worker is needed".into()).into());
        }
        let listed = match &self.hostfile {
            Some(file) => Some(read(file)?),
            None if self.hosts.is_empty() => None,
            None => Some(self.hosts.clone()),
        };
        let processes = match (self.processes, &listed) {
            (Some(0), _) => return Err(Usage("-n 0: at least one process is needed".into()).into()),
            (Some(processes), _) => processes,
            (None, Some(listed)) => listed.len(),
            (None, None) => 1,
        };
        let (n, p) = (processes, self.process);
        if p >= n {
            let why = format!(
                "-p {p}: there are {n} processes, numbered from 0 to {}",
                n - 1
            );
            return Err(Usage(why).into());
        }
        if processes == 1 {
            return Ok(Hosts {
                workers: Workers::Threads(self.workers),
                addresses: Vec::new(),
            });
        }
        let mut addresses = listed.unwrap_or_else(|| {
            (0..processes)
                .map(|index| format!("localhost:{}", PORT_BASE + index))
                .collect()
        });
        if addresses.len() < processes {
            let why = format!("-n {n}: the host list has only {} lines", addresses.len());
            return Err(Usage(why).into());
        }
        addresses.truncate(processes);
        for address in &addresses {
            let port = address
                .rsplit_once(':')
                .map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                let why = format!("host list: `{address}` is not host:port, as in node1:2101");
                return Err(Usage(why).into());
            }
        }
        let workers = Workers::Cluster {
            threads: self.workers,
            process: self.process,
            processes,
        };
        Ok(Hosts { workers, addresses })
    }
}

/// Reads a host file: one `host:port` per line, `#` begins a comment.
///
/// # Errors
///
/// The file cannot be read.
fn read(file: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the host file {}", file.display()))?;
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    Ok(lines
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

impl Hosts {
    /// Listens on this process's address; `None` for a single process.
    ///
    /// # Errors
    ///
    /// The address is in use, or is not of this machine.
    pub fn listen(&self) -> anyhow::Result<Option<TcpListener>> {
        let Workers::Cluster { process, .. } = self.workers else {
            return Ok(None);
        };
        let Some(address) = self.addresses.get(process) else {
            return Ok(None);
        };
        let listener = TcpListener::bind(address).with_context(|| {
            format!(
                "process {process} cannot listen on {address}: is another process with -p \
                 {process} running, or is the port taken? Name other ports with --hosts or -h \
                 HOSTFILE"
            )
        })?;
        Ok(Some(listener))
    }

    /// Whether all addresses are loopback addresses, which other machines cannot reach. A name that
    /// cannot be resolved counts as another machine.
    pub fn are_loopback(&self) -> bool {
        self.addresses.iter().all(|address| {
            let mut found = address.to_socket_addrs().into_iter().flatten().peekable();
            found.peek().is_some() && found.all(|address| address.ip().is_loopback())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> HostArgs {
        HostArgs {
            workers: 2,
            processes: None,
            process: 0,
            hostfile: None,
            hosts: Vec::new(),
        }
    }

    fn cluster(process: usize, addresses: &[&str]) -> Hosts {
        let workers = Workers::Cluster {
            threads: 2,
            process,
            processes: addresses.len(),
        };
        let addresses = addresses.iter().map(|&address| address.to_owned());
        Hosts {
            workers,
            addresses: addresses.collect(),
        }
    }

    #[test]
    fn loopback_is_told_from_elsewhere() {
        let loopback = |addresses: &[&str]| cluster(0, addresses).are_loopback();
        assert!(loopback(&["127.0.0.1:1", "[::1]:2", "localhost:3"]));
        assert!(!loopback(&["127.0.0.1:1", "10.0.0.1:2"]));
        assert!(!loopback(&["127.0.0.1:1", "no-such-host.invalid:2"]));
    }

    #[test]
    fn as_timely_reads_them() {
        let alone = args().resolve().unwrap();
        assert_eq!(alone.workers, Workers::Threads(2));
        assert!(alone.listen().unwrap().is_none());
        let two = HostArgs {
            processes: Some(2),
            process: 1,
            ..args()
        };
        let expected = cluster(1, &["localhost:2101", "localhost:2102"]);
        assert_eq!(two.resolve().unwrap(), expected);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hosts");
        std::fs::write(&file, "a:1\n\n# not this\nb:2 # second\n").unwrap();
        let listed = HostArgs {
            hostfile: Some(file),
            ..args()
        };
        assert_eq!(listed.resolve().unwrap(), cluster(0, &["a:1", "b:2"]));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let hosts = vec!["a:1".to_owned()];
        for (bad, part) in [
            (
                HostArgs {
                    workers: 0,
                    ..args()
                },
                "-w 0",
            ),
            (
                HostArgs {
                    processes: Some(0),
                    ..args()
                },
                "-n 0",
            ),
            (
                HostArgs {
                    processes: Some(2),
                    process: 2,
                    ..args()
                },
                "-p 2: there are 2",
            ),
            (
                HostArgs {
                    processes: Some(2),
                    hosts,
                    ..args()
                },
                "only 1 line",
            ),
            (
                HostArgs {
                    hosts: vec!["a".into(), "b:1".into()],
                    ..args()
                },
                "`a` is not host:port",
            ),
        ] {
            let said = bad.resolve().unwrap_err().to_string();
            assert!(said.contains(part), "{said}");
        }
    }
}

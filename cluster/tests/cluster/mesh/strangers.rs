//! Processes that were started by hand, among strangers.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::harness::{PATIENCE, Process, free_port, until};
use crate::mesh::Clicks;

const SECRET: &str = "a secret of this test";
/// Log lines about strangers of one kind in the time of a test.
const LINES_MAX: usize = 12;

/// Somebody who connects to a port a hundred times a second: with garbage, with nothing, and
/// without waiting.
struct Stranger {
    ends: Arc<AtomicBool>,
    connected: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Stranger {
    fn at(port: u16) -> Self {
        let (ends, connected) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (over, count) = (Arc::clone(&ends), Arc::clone(&connected));
        let thread = thread::spawn(move || {
            let mut silent = Vec::new();
            while !over.load(Relaxed) {
                thread::sleep(Duration::from_millis(10));
                let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue; // the process has just ended
                };
                let number = count.fetch_add(1, Relaxed);
                let garbage: &[u8] = match number % 4 {
                    0 => b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                    1 => &[0xff; 4096],
                    2 => b"",
                    _ => continue,
                };
                // It may have been closed meanwhile.
                let _written = stream.write_all(garbage);
                silent.push(stream);
                if silent.len() > 200 {
                    silent.remove(0);
                }
            }
        });
        let thread = Some(thread);
        Self {
            ends,
            connected,
            thread,
        }
    }

    /// Waits until it came so many more times.
    fn comes(&self, times: usize) {
        let before = self.connected.load(Relaxed);
        until("strangers", PATIENCE, || {
            (self.connected.load(Relaxed) >= before + times).then_some(())
        });
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(ended.is_none_or(|ended| ended.is_ok()) || thread::panicking());
    }
}

fn start(clicks: &Clicks, process: &str, hosts: &str, secret: &str, more: &[&str]) -> Process {
    let flags = ["-w", "1", "-n", "2", "-p", process, "--hosts", hosts];
    let mut command = clicks
        .place
        .command(&["dataflow"], &[&flags[..], more].concat());
    command.env("TIDEMILL_MESH_SECRET", secret);
    Process::start(command, clicks.place.folder())
}

#[test]
fn strangers_and_a_wrong_secret_disturb_nothing() {
    let mut clicks = Clicks::new("strangers");
    let ports = [free_port(), free_port()];
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", ports[0], ports[1]);
    let mut zero = start(&clicks, "0", &hosts, SECRET, &[]);
    zero.says("waiting for all processes of the job");
    let strangers = ports.map(Stranger::at);
    strangers[0].comes(100);
    let mut wrong = start(&clicks, "1", &hosts, "another secret, not this", &[]);
    zero.says("it does not know the mesh's secret");
    wrong.says("it has another mesh secret");
    wrong.stop("TERM");
    let mut one = start(&clicks, "1", &hosts, SECRET, &[]);
    clicks.expect_all();
    // They go on coming while the job runs.
    strangers.iter().for_each(|stranger| stranger.comes(300));
    clicks.append(700);
    clicks.expect_all();
    zero.runs();
    one.runs();
    zero.signal("TERM");
    for process in [&mut zero, &mut one] {
        let said = process.ends(0, PATIENCE);
        let kind = "it does not speak the mesh's protocol";
        let lines = said.lines().filter(|line| line.contains(kind)).count();
        assert!((1..=LINES_MAX).contains(&lines), "{lines} lines:\n{said}");
    }
}

/// Flags of a process with a certificate of a new authority.
fn certificate(folder: &Path) -> Vec<String> {
    let authority = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&authority).unwrap().pem();
    let issuer = Issuer::new(params, authority);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap().pem();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (ca, cert) = (write("ca.pem", &ca), write("cert.pem", &cert));
    let key = write("key.pem", &key.serialize_pem());
    let flags = [
        ("--mesh-ca", ca),
        ("--mesh-cert", cert),
        ("--mesh-key", key),
    ];
    let flags = flags.map(|(flag, file)| [flag.to_owned(), file]);
    flags.into_iter().flatten().collect()
}

#[test]
fn a_mesh_over_tls_works_and_ends_cleanly() {
    let mut clicks = Clicks::new("encrypted");
    let certificate = certificate(clicks.place.folder());
    let flags: Vec<_> = certificate.iter().map(String::as_str).collect();
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", free_port(), free_port());
    for _ in 0..2 {
        let mut both = ["0", "1"].map(|process| start(&clicks, process, &hosts, SECRET, &flags));
        clicks.expect_all();
        clicks.append(500);
        clicks.expect_all();
        both[1].signal("TERM");
        both.iter_mut()
            .for_each(|process| _ = process.ends(0, PATIENCE));
    }
    // Without a certificate nobody is let in.
    let mut zero = start(&clicks, "0", &hosts, SECRET, &flags);
    let mut plain = start(&clicks, "1", &hosts, SECRET, &[]);
    zero.says("refused a connection: TLS");
    plain.stop("TERM");
    let mut one = start(&clicks, "1", &hosts, SECRET, &flags);
    clicks.append(1);
    clicks.expect_all();
    // A lost peer is seen through it too.
    one.runs();
    one.kill();
    zero.ends(3, Duration::from_secs(10));
}

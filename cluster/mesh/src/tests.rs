//! Tests of the mesh: several processes of one job, each with its own mesh, within one process.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::hello::Secret;
use super::limits::HANDSHAKE_MAX;
use super::tls::TlsFiles;
use super::*;

const SECRET: &str = "0123456789abcdef";
const SOON: Duration = Duration::from_secs(60);

fn identity(process: usize, processes: usize) -> Identity {
    Identity {
        job: "users".into(),
        generation: 3,
        program: program(&["test"]),
        process,
        processes,
        threads: 1,
    }
}

fn with_secret(text: &str) -> Credentials {
    Credentials {
        authenticated: true,
        secret: Secret::new(text),
        tls: None,
    }
}

fn with_files(files: &TlsFiles) -> Credentials {
    Credentials {
        tls: Some(Tls::open(files).unwrap()),
        ..with_secret(SECRET)
    }
}

/// One process, and where it listens.
fn listening(me: Identity, credentials: Credentials) -> (Mesh, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mesh = Mesh::listen(listener, me, credentials).unwrap();
    let address = format!("127.0.0.1:{}", mesh.port());
    (mesh, address)
}

fn never() -> AtomicBool {
    AtomicBool::new(false)
}

fn formed(mesh: &Mesh) -> Sockets {
    mesh.take(&never()).unwrap()
}

/// Waits until the error about the missing processes contains `why`.
fn says(mesh: &Mesh, why: &str) -> Unreachable {
    let deadline = Instant::now() + SOON;
    loop {
        let lost = mesh
            .formed(Duration::from_millis(20), &never())
            .unwrap_err();
        if lost.to_string().contains(why) {
            return lost;
        }
        assert!(Instant::now() < deadline, "{lost}");
    }
}

/// Both directions of a connection.
trait Both: Read + Write + Send + Sync {
    fn end(&self);
}

impl Both for TcpStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

impl Both for std::os::unix::net::UnixStream {
    fn end(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }
}

/// The connections as timely uses them.
fn blocking(sockets: Sockets) -> Vec<Option<Box<dyn Both>>> {
    match sockets {
        Sockets::Tcp(all) => {
            let all = all.into_iter().map(|one| {
                one.map(|one| {
                    one.set_nonblocking(false).unwrap();
                    Box::new(one) as Box<dyn Both>
                })
            });
            all.collect()
        }
        Sockets::Unix(all) => {
            let all = all.into_iter().map(|one| {
                one.map(|one| {
                    one.set_nonblocking(false).unwrap();
                    Box::new(one) as Box<dyn Both>
                })
            });
            all.collect()
        }
    }
}

/// Checks that each connection leads to the process of its index.
fn lead_right(all: Vec<Sockets>) -> Vec<Vec<Option<Box<dyn Both>>>> {
    let mut all: Vec<_> = all.into_iter().map(blocking).collect();
    for (own, sockets) in all.iter_mut().enumerate() {
        for (index, socket) in sockets.iter_mut().enumerate() {
            assert_eq!(socket.is_some(), index != own);
            if let Some(socket) = socket {
                socket.write_all(&[own as u8, index as u8]).unwrap();
                socket.flush().unwrap();
            }
        }
    }
    for (own, sockets) in all.iter_mut().enumerate() {
        for (index, socket) in sockets.iter_mut().enumerate() {
            if let Some(socket) = socket {
                let mut said = [0; 2];
                socket.read_exact(&mut said).unwrap();
                assert_eq!(said, [index as u8, own as u8]);
            }
        }
    }
    all
}

#[test]
fn all_processes_are_connected_each_with_each() {
    let all: Vec<_> = (0..4)
        .map(|process| listening(identity(process, 4), with_secret(SECRET)))
        .collect();
    let addresses: Vec<_> = all.iter().map(|(_, address)| address.clone()).collect();
    for (mesh, _) in &all {
        mesh.connect(&addresses);
    }
    lead_right(all.iter().map(|(mesh, _)| formed(mesh)).collect());
}

#[test]
fn a_wrong_secret_is_refused_and_the_right_one_still_joins() {
    let (zero, address) = listening(identity(0, 2), with_secret(SECRET));
    zero.connect(&[]);
    let addresses = [address, String::new()];
    let (wrong, _) = listening(identity(1, 2), with_secret("another secret 0"));
    wrong.connect(&addresses);
    assert_eq!(says(&wrong, "another mesh secret").indices, [0]);
    let mut older = identity(1, 2);
    older.generation = 2;
    let (older, _) = listening(older, with_secret(SECRET));
    older.connect(&addresses);
    says(&older, "another generation");
    let (one, _) = listening(identity(1, 2), with_secret(SECRET));
    one.connect(&addresses);
    let all = lead_right(vec![formed(&zero), formed(&one)]);
    // And a second one of the same index is not let in any more.
    let (twin, _) = listening(identity(1, 2), with_secret(SECRET));
    twin.connect(&addresses);
    says(&twin, "connected already");
    drop(all);
}

#[test]
fn one_that_leaves_before_all_are_there_makes_room_for_another() {
    let (zero, address) = listening(identity(0, 3), with_secret(SECRET));
    zero.connect(&[]);
    let addresses = [address.clone(), String::new(), String::new()];
    let (first, _) = listening(identity(1, 3), with_secret(SECRET));
    first.connect(&addresses);
    let deadline = Instant::now() + SOON;
    while zero.shared.roster.missing() != [2] {
        assert!(Instant::now() < deadline, "process 1 is connected");
        thread::sleep(LOOK);
    }
    drop(first);
    let (one, one_address) = listening(identity(1, 3), with_secret(SECRET));
    let addresses = [address, one_address, String::new()];
    one.connect(&addresses);
    let (two, _) = listening(identity(2, 3), with_secret(SECRET));
    two.connect(&addresses);
    lead_right(vec![formed(&zero), formed(&one), formed(&two)]);
}

#[test]
fn strangers_in_crowds_keep_no_process_out() {
    let (zero, address) = listening(identity(0, 2), with_secret(SECRET));
    zero.connect(&[]);
    // More than may be in their handshake, and none says a word.
    let silent: Vec<_> = (0..2 * limits::PENDING_MAX)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    let ends = Arc::new(AtomicBool::new(false));
    let strangers = {
        let (ends, address) = (Arc::clone(&ends), address.clone());
        thread::spawn(move || {
            let mut count = 0;
            while !ends.load(Relaxed) {
                // One may be reset before all is written.
                let _written = TcpStream::connect(&address)
                    .unwrap()
                    .write_all(b"GET / HTTP/1.1\r\n\r\n");
                count += 1;
                thread::sleep(Duration::from_millis(2));
            }
            count
        })
    };
    let began = Instant::now();
    let (one, _) = listening(identity(1, 2), with_secret(SECRET));
    one.connect(&[address, String::new()]);
    let all = vec![formed(&zero), formed(&one)];
    let took = began.elapsed();
    assert!(
        took < HANDSHAKE_MAX,
        "{took:?}: before the silent ones are given up"
    );
    lead_right(all);
    ends.store(true, Relaxed);
    assert!(strangers.join().unwrap() > 0);
    drop(silent);
}

#[test]
fn who_is_missing_is_named_and_a_stop_ends_the_waiting() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let (one, address) = listening(identity(1, 3), with_secret(SECRET));
    let addresses = [nobody, address, String::new()];
    one.connect(&addresses);
    let lost = says(&one, &format!("process 0 at {}", addresses[0]));
    assert_eq!(lost.indices, [0, 2]);
    let said = lost.to_string();
    assert!(said.contains("process 2 did not connect"), "{said}");
    let (waits, _) = listening(identity(1, 2), with_secret(SECRET));
    waits.connect(&addresses[..2]);
    assert!(waits.take(&AtomicBool::new(true)).is_none());
    assert!(!waits.formed(SOON, &AtomicBool::new(true)).unwrap());
}

/// An authority, and certificates that it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// Files for one process that is connected to by `name`.
    fn files(&self, folder: &Path, name: &str) -> TlsFiles {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let write = |file: &str, text: &str| {
            let path = folder.join(file);
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsFiles {
            cert: write("cert.pem", &signed.pem()),
            key: write("key.pem", &key.serialize_pem()),
            ca: write("ca.pem", &self.pem),
        }
    }
}

#[test]
fn over_tls_all_that_is_written_arrives_and_each_direction_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let files = Authority::new().files(folder.path(), "127.0.0.1");
    let both: Vec<_> = (0..2)
        .map(|process| listening(identity(process, 2), with_files(&files)))
        .collect();
    let addresses: Vec<_> = both.iter().map(|(_, address)| address.clone()).collect();
    for (mesh, _) in &both {
        mesh.connect(&addresses);
    }
    let mut all = lead_right(both.iter().map(|(mesh, _)| formed(mesh)).collect());
    let mut one = all.pop().unwrap().swap_remove(0).unwrap();
    let mut zero = all.pop().unwrap().swap_remove(1).unwrap();
    let sent: Vec<u8> = (0..8_000_000_u32).map(|at| (at % 251) as u8).collect();
    thread::scope(|scope| {
        let expected = &sent;
        let reads = scope.spawn(move || {
            let mut received = Vec::new();
            zero.read_to_end(&mut received).unwrap();
            assert!(received == *expected);
            // The other direction goes on.
            zero.write_all(b"thanks").unwrap();
            zero.end();
            zero
        });
        one.write_all(&sent).unwrap();
        one.end();
        let mut answer = String::new();
        one.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "thanks");
        drop(reads.join().unwrap());
    });
    drop(one);
    for (mesh, _) in &both {
        mesh.drained();
        assert!(mesh.shared.tls.as_ref().unwrap().is_done());
    }
}

#[test]
fn over_tls_whoever_has_no_certificate_of_the_authority_is_refused() {
    let folders: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let authority = Authority::new();
    let good = authority.files(folders[0].path(), "127.0.0.1");
    let (zero, address) = listening(identity(0, 2), with_files(&good));
    zero.connect(&[]);
    let addresses = [address, String::new()];
    let refused = |credentials, why: &str| {
        let (one, _) = listening(identity(1, 2), credentials);
        one.connect(&addresses);
        assert_eq!(says(&one, why).indices, [0]);
    };
    refused(with_secret(SECRET), "process 0 at");
    let other = Authority::new().files(folders[1].path(), "127.0.0.1");
    refused(with_files(&other), "TLS");
    // A certificate of the authority, but the other side's own is not believed.
    let mixed = TlsFiles {
        ca: other.ca,
        ..good.clone()
    };
    refused(with_files(&mixed), "TLS");
    // One that is connected to by another name than its certificate says.
    let elsewhere = authority.files(folders[2].path(), "elsewhere");
    let (named, address) = listening(identity(0, 2), with_files(&elsewhere));
    named.connect(&[]);
    let (one, _) = listening(identity(1, 2), with_files(&good));
    one.connect(&[address, String::new()]);
    says(&one, "TLS");
    let (one, _) = listening(identity(1, 2), with_files(&good));
    one.connect(&addresses);
    lead_right(vec![formed(&zero), formed(&one)]);
}

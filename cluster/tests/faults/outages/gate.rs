//! A gate before an HTTP service: lets everything through, or refuses it with a status, as a proxy
//! with other credentials does.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// Ends with the test's process.
pub(crate) struct Gate {
    address: SocketAddr,
    /// The status that every request gets; 0 lets it through.
    status: Arc<AtomicU16>,
    through: Arc<Mutex<Vec<TcpStream>>>,
}

impl Gate {
    /// Before a service on this machine's port.
    pub(crate) fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Self {
            address: listener.local_addr().unwrap(),
            status: Arc::default(),
            through: Arc::default(),
        };
        let (status, through) = (Arc::clone(&gate.status), Arc::clone(&gate.through));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (status, through) = (Arc::clone(&status), Arc::clone(&through));
                thread::spawn(move || pass(stream.unwrap(), port, &status, &through));
            }
        });
        gate
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Refuses with this status from now on, or lets everything through again (0).
    pub(crate) fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
        for stream in self.through.lock().unwrap().drain(..) {
            let _closed = stream.shutdown(Shutdown::Both);
        }
    }
}

fn pass(mut client: TcpStream, port: u16, status: &AtomicU16, through: &Mutex<Vec<TcpStream>>) {
    let refuses = status.load(Ordering::SeqCst);
    if refuses > 0 {
        let mut request = [0; 65_536];
        let _some = client.read(&mut request);
        let body = "refused by the gate";
        let answer = format!(
            "HTTP/1.1 {refuses} Refused\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let _gone = client.write_all(answer.as_bytes());
        return;
    }
    // While the service is away the client sees what it would see without a gate: an end.
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
        return;
    };
    through.lock().unwrap().push(client.try_clone().unwrap());
    let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let there = thread::spawn(move || copy(from, to));
    copy(server, client);
    let _ended = there.join();
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ended = std::io::copy(&mut from, &mut to);
    let _closed = to.shutdown(Shutdown::Both);
    let _closed = from.shutdown(Shutdown::Both);
}

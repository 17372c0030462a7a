//! A registry behind TLS that wants a user.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::certificates::Certificates;
use crate::secure::call::Call;

/// `me:hunter/22` as HTTP's basic authentication has it.
const BASIC: &str = "authorization: Basic bWU6aHVudGVyLzIy";

/// A server that has no subjects, for whoever shows the password. Returns its port.
fn serve(certificates: &Certificates) -> u16 {
    let chain = CertificateDer::pem_file_iter(certificates.file("server.pem")).unwrap();
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(certificates.file("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = BufReader::new(StreamOwned::new(session, stream));
            let mut lines = (&mut stream).lines().map_while(Result::ok);
            let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
            let known = head.iter().any(|line| line.eq_ignore_ascii_case(BASIC));
            let lists = head.iter().any(|line| line.contains("/subjects HTTP"));
            let answer = if known && lists {
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]"
            } else if known {
                "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
            } else {
                "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
            };
            // A client that does not trust us is gone already.
            let _gone = stream.get_mut().write_all(answer.as_bytes());
            stream.get_mut().conn.send_close_notify();
            let _gone = stream.get_mut().flush();
        }
    });
    port
}

#[test]
fn a_registry_is_trusted_by_its_authority_and_entered_by_password() {
    let certificates = Certificates::new("unused");
    let port = serve(&certificates);
    let call = Call::new();
    let password = call.write("password", "hunter/22\n");
    let (ca, other) = (certificates.file("ca.pem"), certificates.file("other.pem"));
    let url = format!("https://localhost:{port}/apis");
    let of = |ca: &str, parts: &[&str], code: i32, more: &[(&str, &str)]| {
        let env = [&[("TIDEMILL_REGISTRY_CA", ca)], more].concat();
        call.check(&["--registry", &url], &env, code, parts);
    };
    let user = [
        ("TIDEMILL_REGISTRY_USER", "me"),
        ("TIDEMILL_REGISTRY_PASSWORD_FILE", password.as_str()),
    ];
    of(&ca, &["answering: the registry"], 0, &user);
    of(&ca, &["401 Unauthorized"], 1, &[]);
    of(
        &other,
        &["was not issued by an authority that is trusted here"],
        1,
        &user,
    );
    let address = format!("https://127.0.0.1:{port}");
    let env = [[("TIDEMILL_REGISTRY_CA", ca.as_str())].as_slice(), &user].concat();
    let parts = ["not valid for name \"127.0.0.1\""];
    call.check(&["--registry", &address], &env, 1, &parts);
    // The same in the file; and a URL with the password may be in the environment.
    call.write(
        "tidemill.toml",
        &format!(
            "[connections]\nregistry = '{url}'\n[registry]\nuser = 'me'\nca = '{ca}'\n\
             password = 'hunter/22'\n"
        ),
    );
    call.check(&[], &[], 0, &["answering: the registry"]);
    call.write("tidemill.toml", &format!("[registry]\nca = '{ca}'\n"));
    let whole = url.replace("https://", "https://me:hunter%2F22@");
    call.check(
        &[],
        &[("TIDEMILL_REGISTRY", &whole)],
        0,
        &["answering: the registry"],
    );
}

//! An authority, a server's certificate for `localhost` alone, a client's, and an authority that
//! nobody knows: files in a folder, as the services and the binary take them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

pub(crate) struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// `password` is the one of Kafka's user.
    pub(crate) fn new(password: &str) -> Self {
        let certificates = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let authority = certificates.authority("ca");
        certificates.authority("other");
        certificates.issue(&authority, "server", &["localhost"]);
        certificates.issue(&authority, "certified", &[]);
        certificates.write("password", password);
        certificates
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file's name, such as `ca.pem`.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn authority(&self, name: &str) -> Issuer<'static, KeyPair> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        Issuer::new(params, key)
    }

    fn issue(&self, authority: &Issuer<'_, KeyPair>, name: &str, hosts: &[&str]) {
        let key = KeyPair::generate().unwrap();
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, authority).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }
}

//! A root that lives in files, as an operator keeps it: everything is done by openssl.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use estd::keys::SigningKey;
use estd::pki::Certificate;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

use crate::support::Device;

/// A certificate and key in `NAME.pem` and `NAME.key` that signs certificates.
pub struct OfflineRoot {
    folder: PathBuf,
    name: String,
}

const NEW_KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// What `openssl ca` needs to sign with a validity and an encoding of subjects of its own: the OU
/// first, and whatever can be a PrintableString.
const CA: &str = "
[ca]
default_ca = it
[it]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
default_days = 3650
policy = subject
copy_extensions = copyall
unique_subject = no
string_mask = default
[subject]
organizationalUnitName = optional
commonName = supplied
";

impl OfflineRoot {
    /// A new root with this subject.
    pub fn new(folder: &Path, name: &str, subject: &str) -> Self {
        Self::with(folder, name, subject, &[])
    }

    /// A new root with this subject and these options of `openssl req -x509`.
    pub fn with(folder: &Path, name: &str, subject: &str, options: &[&str]) -> Self {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.pem"));
        let files = ["-keyout", &key, "-out", &certificate, "-subj", subject, "-days", "7300"];
        openssl(folder, &[&["req", "-x509"], &NEW_KEY[..], &files, options].concat());
        Self { folder: folder.to_owned(), name: name.to_owned() }
    }

    /// Signs a request; later options win over earlier ones.
    pub fn sign(&self, request: &str, certificate: &str, options: &[&str]) {
        let (ca, key) = (format!("{}.pem", self.name), format!("{}.key", self.name));
        let sign = ["x509", "-req", "-copy_extensions", "copyall", "-days", "3650"];
        let files = ["-CA", &ca, "-CAkey", &key, "-in", request, "-out", certificate];
        openssl(&self.folder, &[&sign[..], &files, options].concat());
    }

    /// Signs a request by `openssl ca`, which encodes the subject anew.
    pub fn sign_by_ca(&self, request: &str, certificate: &str, options: &[&str]) {
        std::fs::write(self.folder.join("ca.cnf"), CA).unwrap();
        std::fs::write(self.folder.join("index.txt"), "").unwrap();
        let (ca, key) = (format!("{}.pem", self.name), format!("{}.key", self.name));
        let sign = ["ca", "-batch", "-notext", "-config", "ca.cnf"];
        let files = ["-cert", &ca, "-keyfile", &key, "-in", request, "-out", certificate];
        openssl(&self.folder, &[&sign[..], &files, options].concat());
    }

    /// A Device CA below this root whose key is here too.
    pub fn device_ca(&self, name: &str, options: &[&str]) -> Self {
        self.request(name, &format!("/CN={name}/OU=factory"));
        let extensions = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=keyCertSign\n";
        std::fs::write(self.folder.join("device-ca.ext"), extensions).unwrap();
        let (request, certificate) = (format!("{name}.csr"), format!("{name}.pem"));
        let options = [&["-extfile", "device-ca.ext"], options].concat();
        self.sign(&request, &certificate, &options);
        Self { folder: self.folder.clone(), name: name.to_owned() }
    }

    /// A device with the files `FILE.pem` and `FILE.key`, called `common_name` (a `/` in it
    /// escaped).
    pub fn device(&self, file: &str, common_name: &str) -> Device {
        self.request(file, &format!("/CN={common_name}/OU=factory"));
        let extensions = "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n";
        std::fs::write(self.folder.join("device.ext"), extensions).unwrap();
        let options = ["-extfile", "device.ext"];
        self.sign(&format!("{file}.csr"), &format!("{file}.pem"), &options);
        let key = std::fs::read(self.folder.join(format!("{file}.key"))).unwrap();
        let key = PrivateKeyDer::from_pem_slice(&key).unwrap();
        let key = SigningKey::from_der(key.secret_der()).unwrap();
        Device { certificate: certificate(&self.folder.join(format!("{file}.pem"))), key }
    }

    /// Makes a key and a request for it: `FILE.key` and `FILE.csr`.
    pub fn request(&self, file: &str, subject: &str) {
        let (key, request) = (format!("{file}.key"), format!("{file}.csr"));
        let files = ["-keyout", &key, "-out", &request, "-utf8", "-subj", subject];
        openssl(&self.folder, &[&["req", "-new"], &NEW_KEY[..], &files].concat());
    }

    pub fn certificate(&self) -> Certificate {
        certificate(&self.folder.join(format!("{}.pem", self.name)))
    }
}

/// The only certificate of a PEM file.
pub fn certificate(path: &Path) -> Certificate {
    let mut all = Certificate::from_pem(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(all.len(), 1, "{}", path.display());
    all.remove(0)
}

/// What openssl prints; panics if it fails.
pub fn openssl(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.current_dir(folder).args(arguments).stdin(Stdio::null());
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

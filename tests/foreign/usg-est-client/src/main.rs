//! `usg-est`: a small command around the `usg-est-client` crate, so that a test
//! can meet the server with an EST client that it did not write itself.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::process::ExitCode;

use const_oid::db::rfc5280::ID_CE_SUBJECT_ALT_NAME;
use const_oid::db::rfc5912::ECDSA_WITH_SHA_256;
use der::asn1::{BitString, SetOfVec};
use der::pem::LineEnding;
use der::{Encode as _, EncodePem as _};
use p256::ecdsa::{DerSignature, SigningKey, signature::Signer as _};
use p256::elliptic_curve::Generate as _;
use p256::pkcs8::EncodePrivateKey as _;
use usg_est_client::{ClientIdentity, EnrollmentResultV2, EstClient, EstClientConfig};
use x509_cert::Certificate;
use x509_cert::request::{CertReq, CertReqInfo, ExtensionReq, Version};
use x509_cert::spki::{AlgorithmIdentifier, SubjectPublicKeyInfo};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "\
usage: usg-est cacerts  --url URL [--label LABEL] --root root.pem
       usg-est reenroll --url URL [--label LABEL] --root root.pem \\
                        --cert device.pem --key device.key --out new.pem --out-key new.key";

/// The `--name value` pairs of the command line.
struct Options(HashMap<String, String>);

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = HashMap::new();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or(USAGE)?;
            options.insert(name.to_owned(), words.next().ok_or(USAGE)?);
        }
        Ok(Self(options))
    }

    fn get(&self, name: &str) -> Result<&str> {
        let value = self.0.get(name).map(String::as_str);
        value.ok_or_else(|| format!("--{name} is missing\n{USAGE}").into())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.get(name)?;
        fs::read(path).map_err(|error| format!("{path}: {error}").into())
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("usg-est: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let command = words.next().ok_or(USAGE)?;
    let options = Options::parse(words)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command.as_str() {
        "cacerts" => runtime.block_on(cacerts(&options)),
        "reenroll" => runtime.block_on(reenroll(&options)),
        _ => Err(USAGE.into()),
    }
}

/// Writes the server's CA certificates to standard output as PEM.
async fn cacerts(options: &Options) -> Result<()> {
    let client = connect(options, None).await?;
    for certificate in client.get_ca_certs().await? {
        print!("{}", certificate.to_pem(LineEnding::LF)?);
    }
    Ok(())
}

/// Renews a certificate over a connection authenticated with that certificate.
async fn reenroll(options: &Options) -> Result<()> {
    let current = options.read("cert")?;
    let identity = ClientIdentity::new(current.clone(), options.read("key")?);
    let client = connect(options, Some(identity)).await?;

    let key = SigningKey::generate();
    let chain = Certificate::load_pem_chain(&current)?;
    let request = renewal(chain.first().ok_or("--cert holds no certificate")?, &key)?;
    // The key is written first: a certificate whose key is lost is of no use.
    fs::write(options.get("out-key")?, key.to_pkcs8_pem(LineEnding::LF)?.as_bytes())?;
    match client.simple_reenroll_v2(&request).await? {
        EnrollmentResultV2::Issued { certificate, .. } => {
            fs::write(options.get("out")?, certificate.to_pem(LineEnding::LF)?)?;
            println!("issued serial {}", certificate.tbs_certificate().serial_number());
            Ok(())
        }
        EnrollmentResultV2::Pending { retry_after } => {
            Err(format!("pending: retry after {} s", retry_after.as_secs()).into())
        }
    }
}

async fn connect(options: &Options, identity: Option<ClientIdentity>) -> Result<EstClient> {
    let mut config = EstClientConfig::builder()
        .server_url(options.get("url")?)?
        .trust_explicit(vec![options.read("root")?]);
    if let Ok(label) = options.get("label") {
        config = config.ca_label(label);
    }
    if let Some(identity) = identity {
        config = config.client_identity(identity);
    }
    Ok(EstClient::new(config.build()?).await?)
}

/// A PKCS#10 request for `key` with the subject and the subject alternative
/// names of `current`, as RFC 7030 section 4.2.2 asks of a renewal.
///
/// The crate's own builder knows a few subject attributes only and picks their
/// string types itself, so it cannot repeat a subject byte for byte.
fn renewal(current: &Certificate, key: &SigningKey) -> Result<Vec<u8>> {
    let current = current.tbs_certificate();
    let mut attributes = SetOfVec::new();
    let extensions = current.extensions().into_iter().flatten();
    let names: Vec<_> =
        extensions.filter(|e| e.extn_id == ID_CE_SUBJECT_ALT_NAME).cloned().collect();
    if !names.is_empty() {
        attributes.insert(ExtensionReq(names).try_into()?)?;
    }
    let info = CertReqInfo {
        version: Version::V1,
        subject: current.subject().clone(),
        public_key: SubjectPublicKeyInfo::from_key(key.verifying_key())?,
        attributes,
    };
    let signature: DerSignature = key.sign(&info.to_der()?);
    let algorithm = AlgorithmIdentifier { oid: ECDSA_WITH_SHA_256, parameters: None };
    let signature = BitString::from_bytes(signature.as_bytes())?;
    Ok(CertReq { info, algorithm, signature }.to_der()?)
}

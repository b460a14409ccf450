//! `estd client`: an EST client for devices and for trying a server out.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use aws_lc_rs::rand::SystemRandom;
use clap::Subcommand;
use data_encoding::BASE64;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::renew::Renew;
use super::{Global, output, read_file};
use crate::client::{ClientError, EstClient, Identity};
use crate::keys::SigningKey;
use crate::pki::{self, Certificate, CertificationRequest, Extension, UnsignedRequest};

#[derive(Subcommand)]
pub(super) enum Client {
    /// Fetch the CA certificates and print them as PEM
    Cacerts {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Enrol for a new key, authenticated by a certificate that the device has
    Enroll(Enrolment),
    /// Replace the device's certificate by one for a new key
    Reenroll(Enrolment),
    /// Renew the device's certificate in its place when the server wants it: `renewal-info`, else
    /// after two thirds of its lifetime
    Renew(Renew),
}

#[derive(clap::Args)]
pub(super) struct ServerArgs {
    /// The server: https://HOST[:PORT][/.well-known/est[/LABEL]]
    #[arg(long, value_name = "URL")]
    server: String,
    /// The root to trust, PEM
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
}

#[derive(clap::Args)]
pub(super) struct Enrolment {
    #[command(flatten)]
    server: ServerArgs,
    /// The device's present certificate, PEM
    #[arg(long, value_name = "FILE")]
    cert: PathBuf,
    /// Its key, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where the new certificate goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Where the new key (P-256) goes
    #[arg(long, value_name = "FILE")]
    out_key: PathBuf,
    /// Bind the request to its TLS session (RFC 9266) by a challengePassword; needs TLS 1.3
    #[arg(long)]
    bind: bool,
}

impl Client {
    pub(super) async fn run(self, global: &Global) -> anyhow::Result<()> {
        match self {
            Self::Cacerts { server } => cacerts(&server, global).await,
            Self::Enroll(enrolment) => enrolment.run("simpleenroll", global).await,
            Self::Reenroll(enrolment) => enrolment.run("simplereenroll", global).await,
            Self::Renew(renew) => renew.run(global).await,
        }
    }
}

impl ServerArgs {
    pub(super) fn client(&self, identity: Option<&Identity>) -> anyhow::Result<EstClient> {
        let roots = Certificate::from_pem(&read_file(&self.root)?)
            .with_context(|| self.root.display().to_string())?;
        Ok(EstClient::new(&self.server, &roots, identity)?)
    }
}

async fn cacerts(server: &ServerArgs, global: &Global) -> anyhow::Result<()> {
    let certificates = server.client(None)?.connect().await?.cacerts().await?;
    let pems: Result<Vec<String>, _> =
        certificates.iter().map(|one| pki::to_pem("CERTIFICATE", one.der())).collect();
    if global.json {
        return output::json(&json!({ "certificates": pems? }));
    }
    output::line(pems?.concat().trim_end())
}

impl Enrolment {
    async fn run(self, operation: &str, global: &Global) -> anyhow::Result<()> {
        // Before the server is asked: a certificate must not be issued and then have no place.
        output::must_be_new(&[&self.out])?;
        let identity = self.identity()?;
        let client = self.server.client(Some(&identity))?;
        let mut connection = client.connect().await?;
        let binding = match (self.bind, connection.channel_binding()) {
            (false, _) => None,
            (true, Some(binding)) => Some(BASE64.encode(&binding)),
            (true, None) => bail!("--bind needs TLS 1.3, which the server does not speak"),
        };
        let Asked { request, is_new } = self.ask(&identity.certificate, binding.as_deref())?;
        let answered = match operation {
            "simpleenroll" => connection.enroll(&request).await,
            _ => connection.reenroll(&request).await,
        };
        let issued = match answered {
            Err(ClientError::Waiting { .. }) => {
                let pem = pki::to_pem("CERTIFICATE REQUEST", &request)?;
                output::replace(&self.request_file(), &pem)?;
                bail!("the request waits for an operator's approval: run the same command again")
            }
            // A definite no: nothing was issued for the key. After anything else it may have been.
            Err(why @ ClientError::Status { status: 400..500, .. }) if is_new => {
                std::fs::remove_file(&self.out_key)?;
                return Err(why.into());
            }
            other => other?,
        };
        output::write_new(&self.out, &pki::to_pem("CERTIFICATE", issued.der())?)?;
        if self.request_file().exists() {
            std::fs::remove_file(self.request_file())?;
        }
        if global.json {
            return output::json(&told(&issued));
        }
        output::line(&format!("{} until {}", issued.subject(), issued.validity().not_after))
    }

    /// The key and request to send. The key is on disk before the server knows of it: a certificate
    /// without its key would be of no use, a key without its certificate does no harm. What an
    /// earlier run has left is taken up: its certificate may have been issued and lost, and a
    /// request that waits for approval is known by its bytes.
    fn ask(&self, certificate: &Certificate, binding: Option<&str>) -> anyhow::Result<Asked> {
        let random = SystemRandom::new();
        let is_new = !self.out_key.exists();
        let key = if is_new {
            let key = SigningKey::generate(&random)?;
            output::write_secret(&self.out_key, &key.to_pem()?)?;
            key
        } else {
            let key = private_key(&self.out_key)?;
            SigningKey::from_der(key.secret_der())
                .with_context(|| self.out_key.display().to_string())?
        };
        let file = self.request_file();
        if !is_new && file.exists() {
            let waiting = CertificationRequest::from_pem(&read_file(&file)?)
                .with_context(|| file.display().to_string())?;
            if waiting.public_key() == key.public_key() {
                return Ok(Asked { request: waiting.der().to_vec(), is_new });
            }
        }
        Ok(Asked { request: request(certificate, &key, binding, &random)?, is_new })
    }

    /// Where a request stays that waits for an operator.
    fn request_file(&self) -> PathBuf {
        let mut name = self.out.clone().into_os_string();
        name.push(".csr");
        name.into()
    }

    fn identity(&self) -> anyhow::Result<Identity> {
        let certificate = first(&self.cert)?;
        let key = private_key(&self.key)?;
        Ok(Identity { certificate, key: Zeroizing::new(key.secret_der().to_vec()) })
    }
}

/// An issued certificate as JSON.
pub(super) fn told(issued: &Certificate) -> Value {
    json!({
        "subject": issued.subject().to_string(),
        "serial": issued.serial().to_string(),
        "not_after": issued.validity().not_after,
        "sha256": issued.fingerprint().to_string(),
    })
}

/// What is sent to the server.
struct Asked {
    request: Vec<u8>,
    /// Whether this run made its key.
    is_new: bool,
}

pub(super) fn private_key(path: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    let pem = Zeroizing::new(read_file(path)?);
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| anyhow::anyhow!("{}: there is no private key in PEM in it", path.display()))
}

pub(super) fn first(path: &Path) -> anyhow::Result<Certificate> {
    let certificates =
        Certificate::from_pem(&read_file(path)?).with_context(|| path.display().to_string())?;
    certificates.into_iter().next().context("no certificate")
}

/// A request for what `certificate` says, with another key.
pub(super) fn request(
    certificate: &Certificate,
    key: &SigningKey,
    challenge_password: Option<&str>,
    random: &SystemRandom,
) -> anyhow::Result<Vec<u8>> {
    let name = certificate.extensions().subject_alt_name.as_deref();
    let extensions: Vec<Extension> =
        name.map(|value| Extension::subject_alt_name(value, false)).into_iter().collect();
    let request = UnsignedRequest {
        subject: certificate.subject(),
        public_key: key.public_key(),
        extensions: &extensions,
        challenge_password,
    };
    Ok(key.sign(request.to_be_signed(key.algorithm())?, random)?)
}

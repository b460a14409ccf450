//! The floor: TLS handshakes in memory, the server's side of them alone on the clock.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use estd::clock::UnixTime;
use estd::factory::Authority;
use estd::keys::SigningKey;
use estd::model::{FactoryName, HostName};
use estd::pki::{Certificate, NameBuilder};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::device::Device;
use crate::floor::{Signatures, median, time};
use crate::server::{FACTORY, HOST};

const ROUNDS: usize = 1000;

/// The least that each part can cost the server.
pub struct Floor {
    pub mutual: Duration,
    pub anonymous: Duration,
    pub signatures: Duration,
}

impl Floor {
    /// The same on every core at once, as the server finds the machine while it is measured: cores
    /// that share what they have are slower together.
    pub fn measure_on_every_core() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let threads: Vec<_> = (0..cores).map(|_| thread::spawn(Self::measure)).collect();
        let floors: Vec<Self> = threads.into_iter().map(|one| one.join().unwrap()).collect();
        let middle = |part: fn(&Self) -> Duration| median(floors.iter().map(part).collect());
        Self {
            mutual: middle(|floor| floor.mutual),
            anonymous: middle(|floor| floor.anonymous),
            signatures: middle(|floor| floor.signatures),
        }
    }

    pub fn measure() -> Self {
        let (random, now) = (SystemRandom::new(), UnixTime::now());
        let name = FactoryName::parse(FACTORY).unwrap();
        let root = Authority::root(&name, now, &random).unwrap();
        let device_ca = root.device_ca(&name, "Device CA", now, &random).unwrap();
        let device = Device::new(&device_ca, FACTORY, "device-1");
        let server = server_config(&root, device_ca.certificate());
        let trust = trust(root.certificate());
        let mutual = client_config(&trust, Some(&device), false);
        let anonymous = client_config(&trust, None, false);
        let signatures = Signatures::new();
        Self {
            mutual: rounds(|| handshake(&server, &mutual)),
            anonymous: rounds(|| handshake(&server, &anonymous)),
            signatures: rounds(|| time(|| signatures.run()).1),
        }
    }

    pub fn reenrolment(&self) -> Duration {
        self.mutual + self.signatures
    }
}

fn rounds(run: impl Fn() -> Duration) -> Duration {
    median((0..ROUNDS).map(|_| run()).collect())
}

/// A handshake to its end; how long the server worked on it.
fn handshake(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Duration {
    let name = ServerName::try_from(HOST).unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let (mut server, mut worked) = time(|| ServerConnection::new(Arc::clone(server)).unwrap());
    let (mut up, mut down) = (Vec::new(), Vec::new());
    while client.is_handshaking() || server.is_handshaking() {
        while client.wants_write() {
            client.write_tls(&mut up).unwrap();
        }
        let ((), took) = time(|| {
            let mut arrived = up.as_slice();
            while !arrived.is_empty() {
                server.read_tls(&mut arrived).unwrap();
                server.process_new_packets().unwrap();
            }
            while server.wants_write() {
                server.write_tls(&mut down).unwrap();
            }
        });
        worked += took;
        let mut arrived = down.as_slice();
        while !arrived.is_empty() {
            client.read_tls(&mut arrived).unwrap();
            client.process_new_packets().unwrap();
        }
        up.clear();
        down.clear();
    }
    worked
}

fn server_config(root: &Authority, device_ca: &Certificate) -> Arc<ServerConfig> {
    let random = SystemRandom::new();
    let key = SigningKey::generate(&random).unwrap();
    let name = NameBuilder::default().common_name(HOST).build().unwrap();
    let host = HostName::parse(HOST).unwrap();
    let certificate =
        root.certify_server(&name, &host, key.public_key(), UnixTime::now(), &random).unwrap();
    let provider = provider(false);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(trust(device_ca), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![der(&certificate)], private_key(&key))
        .unwrap();
    // As the product does it.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}

/// How a device does TLS, or somebody without a certificate.
pub fn client_config(
    trust: &Arc<RootCertStore>,
    device: Option<&Device>,
    post_quantum: bool,
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider(post_quantum))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(Arc::clone(trust));
    let mut config = match device {
        None => builder.with_no_client_auth(),
        Some(device) => builder
            .with_client_auth_cert(vec![der(&device.certificate)], private_key(&device.key))
            .unwrap(),
    };
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Trust in this certificate alone.
pub fn trust(certificate: &Certificate) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(der(certificate)).unwrap();
    Arc::new(roots)
}

fn provider(post_quantum: bool) -> Arc<CryptoProvider> {
    let mut provider = default_provider();
    if !post_quantum {
        provider.kx_groups = vec![kx_group::X25519];
    }
    Arc::new(provider)
}

fn der(certificate: &Certificate) -> CertificateDer<'static> {
    CertificateDer::from(certificate.der().to_vec())
}

fn private_key(key: &SigningKey) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(key.to_pem().unwrap().as_bytes()).unwrap()
}

//! From the body of a request to the body of its answer, without TLS, HTTP and the ledger: as a
//! ratio to the cryptography in it. `cargo bench --bench issuance`.

#![allow(missing_docs, reason = "a benchmark has no users")]
#![allow(unreachable_pub, dead_code, reason = "floor/ is shared with the other benchmark")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a benchmark fails by panicking"
)]

#[path = "../tests/support/device.rs"]
mod device;
mod floor;

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use criterion::Criterion;
use estd::clock::UnixTime;
use estd::factory::Authority;
use estd::keys;
use estd::model::{
    DeviceCa, DeviceCaId, DeviceCaKind, DeviceCaState, EnrolmentProfile, Factory, FactoryId,
    FactoryName, FactoryTrust, HostName, Issuer, Operation, Peer, PeerCertificate, Snapshot,
};
use estd::pki::{CertificationRequest, certs_only, from_est_text, to_est_text};
use estd::policy::{self, Judged};
use tokio::runtime::{Builder, Runtime};

use device::Device;

const FACTORY: &str = "factory";
const TURNS: usize = 5000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let (signatures, issuance) = (floor::Signatures::new(), Issuance::new());
    criterion.bench_function("floor: P-256 verify and sign", |bencher| {
        bencher.iter(|| signatures.run());
    });
    criterion.bench_function("issuance: PKCS#10 to PKCS#7", |bencher| {
        bencher.iter(|| issuance.run());
    });
    criterion.final_summary();
    print_ratio(&signatures, &issuance);
}

/// Each by turns, so that what else the machine does weighs on both alike.
fn print_ratio(signatures: &floor::Signatures, issuance: &Issuance) {
    let turn = |_| (floor::time(|| signatures.run()).1, floor::time(|| issuance.run()).1);
    let (floor, path) = (0..TURNS).map(turn).unzip();
    let [floor, path] = [floor, path].map(|times| floor::median(times).as_secs_f64() * 1e6);
    println!("issuance {path:.1} µs, floor {floor:.1} µs: ratio {:.2}", path / floor);
}

/// A Factory with an online Device CA, one of its devices on a connection, and its request.
struct Issuance {
    snapshot: Snapshot,
    ca: Authority,
    peer: Peer,
    body: String,
    profile: EnrolmentProfile,
    now: UnixTime,
    random: SystemRandom,
    runtime: Runtime,
}

impl Issuance {
    fn new() -> Self {
        let (random, now) = (SystemRandom::new(), UnixTime::now());
        let name = FactoryName::parse(FACTORY).unwrap();
        let root = Authority::root(&name, now, &random).unwrap();
        let authority = root.device_ca(&name, "Device CA", now, &random).unwrap();
        let device = Device::new(&authority, FACTORY, "device-1");
        let host = HostName::parse("est.example").unwrap();
        let factory = Factory {
            id: FactoryId(1),
            name,
            est_host: host.clone(),
            gateway_host: host,
            any_organizational_unit: false,
            root: Some(root.certificate().clone()),
        };
        let ca = DeviceCa {
            id: DeviceCaId(2),
            factory: factory.id,
            kind: DeviceCaKind::Online,
            state: DeviceCaState::Enabled,
            certificate: authority.certificate().clone(),
        };
        let peer = Peer {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
            factory: factory.id,
            certificate: Some(PeerCertificate {
                certificate: Arc::new(device.certificate.clone()),
                issuer: Issuer::DeviceCa(ca.id),
            }),
            channel_binding: Some([7; 32]),
        };
        let trust = FactoryTrust {
            factory,
            device_cas: vec![ca],
            bootstrap_cas: vec![],
            has_targets: false,
        };
        Self {
            snapshot: Snapshot { factories: vec![trust], ..Snapshot::default() },
            ca: authority,
            peer,
            body: device.request().1,
            profile: EnrolmentProfile::default(),
            now,
            random,
            runtime: Builder::new_current_thread().build().unwrap(),
        }
    }

    fn run(&self) -> String {
        let der = from_est_text(self.body.as_bytes()).unwrap();
        let csr = CertificationRequest::from_der(&der).unwrap();
        let requester = policy::authenticate(&self.peer, &self.snapshot, self.now).unwrap();
        let (operation, profile) = (Operation::SimpleReenroll, &self.profile);
        let request = policy::EnrolmentRequest { operation, label: None, profile, csr: &csr };
        let judged = policy::judge(&requester, &request, None, self.now).unwrap();
        let Judged::Granted(grant) = judged else {
            panic!("nobody asked for approval");
        };
        let signing = keys::sign(grant, self.ca.key().into(), &self.random);
        black_box(self.runtime.block_on(signing).unwrap());
        // A signed certificate comes out only by way of the ledger (I1): the answer is made of the
        // device's present one, which is as long.
        let present = self.peer.certificate.as_ref().unwrap();
        to_est_text(&certs_only(&[present.certificate.der()]).unwrap())
    }
}

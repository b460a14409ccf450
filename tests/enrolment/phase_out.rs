//! I8: no order of operations reaches "revoked" with a dependent device that was not named.

use std::collections::BTreeMap;

use estd::factory::{self, Asked, Authority};
use estd::ledger::{ChangeError, ChangeRefused, Ledger};
use estd::model::{DeviceCa, DeviceCaAct, DeviceCaState};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::wire::{get_with, post};
use crate::support::{Backend, Device, FACTORY, TestServer};
use crate::{add_online_ca, device_name, on_both_ledgers, path, trust};

const DEVICES: usize = 5;
/// Two local Device CAs and two online ones, the later of which signs.
const CAS: usize = 4;
const LOCAL: usize = 2;

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    /// A device connects for the first time, or somebody in its name, by a certificate of a local CA.
    Meet { device: usize, ca: usize },
    /// It re-enrols with what it uses.
    Rotate { device: usize },
    /// It connects with one of those that it was given.
    Switch { device: usize, given: usize },
    /// An operator denies it.
    Deny { device: usize },
    /// An operator acts upon a Device CA; `off` is how far `--strand` is from the truth.
    Act { ca: usize, act: DeviceCaAct, off: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let (device, ca) = (0..DEVICES, 0..CAS);
    let act = prop_oneof![
        Just(DeviceCaAct::Disable),
        Just(DeviceCaAct::Enable),
        Just(DeviceCaAct::Readmit),
        Just(DeviceCaAct::Revoke),
        Just(DeviceCaAct::Revoke),
    ];
    prop_oneof![
        3 => (device.clone(), 0..LOCAL).prop_map(|(device, ca)| Step::Meet { device, ca }),
        3 => device.clone().prop_map(|device| Step::Rotate { device }),
        3 => (device.clone(), 0..3_usize).prop_map(|(device, given)| Step::Switch { device, given }),
        1 => device.prop_map(|device| Step::Deny { device }),
        4 => (ca, act, 0..3_u64).prop_map(|(ca, act, off)| Step::Act { ca, act, off }),
    ]
}

/// What is true of a device, by the story that the test tells it.
#[derive(Default)]
struct Truth {
    current: Option<(usize, Device)>,
    given: Vec<(usize, Device)>,
    denied: bool,
}

struct World {
    server: TestServer,
    locals: Vec<Authority>,
    /// SHA-256 of the keys, in the order of the steps' numbers.
    keys: Vec<estd::pki::Fingerprint>,
    states: Vec<DeviceCaState>,
    devices: BTreeMap<usize, Truth>,
}

impl World {
    async fn new(backend: Backend) -> Self {
        let server = TestServer::start(backend).await;
        let line = server.add_device_ca("first line").await;
        let second = server.add_device_ca("second line").await;
        let first_online = crate::issuing_ca(&server).await;
        let second_online = add_online_ca(&server, 3650).await;
        server.server.reload().await.unwrap();
        let keys = [line.certificate(), second.certificate(), &first_online, &second_online];
        let keys = keys.map(|one| one.public_key().fingerprint()).to_vec();
        let devices = (0..DEVICES).map(|device| (device, Truth::default())).collect();
        let states = vec![DeviceCaState::Enabled; CAS];
        Self { server, locals: vec![line, second], keys, states, devices }
    }

    async fn ca(&self, index: usize) -> DeviceCa {
        let key = self.keys[index];
        let mut cas = trust(&self.server).await.device_cas.into_iter();
        cas.find(|ca| ca.certificate.public_key().fingerprint() == key).unwrap()
    }

    /// How many devices depend on a Device CA.
    fn dependents(&self, ca: usize) -> u64 {
        let depends = |truth: &&Truth| {
            let held = truth.current.iter().chain(&truth.given);
            !truth.denied && held.into_iter().any(|(by, _)| *by == ca)
        };
        self.devices.values().filter(depends).count() as u64
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Meet { device, ca } => self.meet(device, ca).await,
            Step::Rotate { device } => self.rotate(device).await,
            Step::Switch { device, given } => self.switch(device, given).await,
            Step::Deny { device } => {
                let (ledger, name) = (self.server.ledger(), name(device));
                let known = ledger.deny_device(self.server.factory, &name, "test").await.unwrap();
                let truth = self.devices.get_mut(&device).unwrap();
                assert_eq!(known, truth.current.is_some() || truth.denied);
                truth.denied = known;
            }
            Step::Act { ca, act, off } => self.act(ca, act, off).await,
        }
        for index in 0..CAS {
            let ca = self.ca(index).await;
            assert_eq!(ca.state, self.states[index]);
            let counted = self.server.ledger().dependents(ca.id, None, 100).await.unwrap();
            assert_eq!(counted.count.unsigned_abs(), self.dependents(index), "of {index}");
            assert_eq!(counted.devices.len() as u64, self.dependents(index));
        }
    }

    async fn meet(&mut self, device: usize, ca: usize) {
        let shown = Device::new(&self.locals[ca], FACTORY, name(device).as_str());
        self.connects(&shown).await;
        let truth = self.devices.get_mut(&device).unwrap();
        if truth.current.is_none() && !truth.denied && self.states[ca] == DeviceCaState::Enabled {
            truth.current = Some((ca, shown));
        }
    }

    async fn rotate(&mut self, device: usize) {
        let truth = &self.devices[&device];
        let Some((by, old)) = &truth.current else { return };
        let (key, body) = old.request();
        let asked = post(&path("simplereenroll"), &body);
        let answer = self.server.send(Some(old), &asked).await;
        let issuing = (LOCAL..CAS).rev().find(|ca| self.states[*ca] == DeviceCaState::Enabled);
        let accepted = !truth.denied && self.states[*by] != DeviceCaState::Revoked;
        match (answer, issuing) {
            (Ok(answer), Some(issuing)) if accepted => {
                let new = Device::switched(answer.certificate(), key);
                self.devices.get_mut(&device).unwrap().given.push((issuing, new));
            }
            (Ok(answer), _) => assert!(answer.status >= 400),
            (Err(_), _) => assert!(!accepted),
        }
    }

    async fn switch(&mut self, device: usize, given: usize) {
        let truth = &self.devices[&device];
        let Some((by, new)) = truth.given.get(given) else { return };
        self.connects(new).await;
        if truth.denied || self.states[*by] == DeviceCaState::Revoked {
            return;
        }
        let truth = self.devices.get_mut(&device).unwrap();
        let later = truth.given.split_off(given + 1);
        truth.current = truth.given.pop();
        truth.given = later;
    }

    async fn act(&mut self, ca: usize, act: DeviceCaAct, off: u64) {
        let (needed, device_ca) = (self.dependents(ca), self.ca(ca).await);
        let strand = needed + off;
        let asked = Asked { device_ca: &device_ca, act, strand, reason: "test" };
        let factory = trust(&self.server).await.factory;
        let done = factory::act(self.server.ledger(), &factory, asked, "test").await;
        self.server.server.reload().await.unwrap();
        let Ok(after) = self.states[ca].after(act) else {
            assert!(done.is_err());
            return;
        };
        if act == DeviceCaAct::Revoke && after != self.states[ca] && off != 0 {
            let refused = done.unwrap_err();
            let ChangeError::Refused(ChangeRefused::StillNeeded { count, .. }) = refused else {
                panic!("{refused}");
            };
            assert_eq!(count, needed);
            return;
        }
        done.unwrap();
        self.states[ca] = after;
    }

    /// Whatever comes of it.
    async fn connects(&self, device: &Device) {
        let _refused = self.server.send(Some(device), &get_with(&path("cacerts"), "")).await;
    }
}

fn name(device: usize) -> estd::model::DeviceName {
    device_name(&format!("device-{device}"))
}

fn walks(backend: Backend, cases: u32) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let steps = prop::collection::vec(step(), 1..30);
    TestRunner::new(config)
        .run(&steps, |steps| {
            runtime.block_on(async {
                let mut world = World::new(backend).await;
                for step in &steps {
                    world.take(step).await;
                }
                world.server.stop().await;
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn i8_no_order_of_operations_strands_a_device_that_was_not_named() {
    walks(Backend::Sqlite, 16);
}

#[test]
fn i8_no_order_of_operations_strands_a_device_on_postgresql() {
    walks(Backend::Postgres, 6);
}

on_both_ledgers! {
    /// Two servers of one ledger: what one revokes gets no new device from the other.
    async fn i8_a_revoke_and_a_first_contact_at_once_agree(backend: Backend) {
        let server = TestServer::start(backend).await;
        let other = Ledger::open(&server.config.ledger).await.unwrap();
        for round in 0..10 {
            let ca = server.add_device_ca(&format!("line {round}")).await;
            let cas = trust(&server).await.device_cas;
            let device_ca = cas.iter().find(|one| one.certificate == *ca.certificate()).unwrap();
            let factory = trust(&server).await.factory;
            let device = Device::new(&ca, FACTORY, &format!("device-{round}"));
            let act = DeviceCaAct::Revoke;
            let asked = Asked { device_ca, act, strand: 0, reason: "test" };
            let look = get_with(&path("cacerts"), "");
            let (revoked, _seen) = tokio::join!(
                factory::act(&other, &factory, asked, "test"),
                server.send(Some(&device), &look),
            );
            server.server.reload().await.unwrap();
            let needed = other.dependents(device_ca.id, None, 10).await.unwrap().count;
            assert_eq!(revoked.is_ok(), needed == 0, "round {round}: {needed} depend on it");
        }
        other.close().await;
        server.stop().await;
    }
}

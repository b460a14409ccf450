//! One transaction of the writer: reads what it must know of all its work at once, judges each in
//! order, writes all of it at once, and answers after the commit.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::LedgerError;
use super::database::{Database, Row, Statement, Value};
use super::transaction::WriteTransaction;
use crate::clock::UnixTime;
use crate::keys::Signed;
use crate::model::audit::{Entry, Outcome};
use crate::model::{
    CredentialState, DeviceCaId, DeviceCaState, DeviceName, FactoryId, HELD_LIMIT, HeldState,
    KnownCredential, KnownDevice, Label, Presented, Refusal, Sighting,
};
use crate::pki::{Certificate, Fingerprint};
use crate::policy::{Grant, Requester, Unapproved};

/// How old, in seconds, the record of a device's last contact may grow before it is written anew.
const LAST_SEEN_RESOLUTION: i64 = 60;

/// A device was seen with a certificate that verified against a Device CA.
#[derive(Clone, Debug)]
pub struct Contact {
    /// In which Factory.
    pub factory: FactoryId,
    /// Which device the certificate names.
    pub device: DeviceName,
    /// The certificate.
    pub certificate: Arc<Certificate>,
    /// The Device CA that issued it.
    pub device_ca: DeviceCaId,
    /// Where the device connected from.
    pub address: SocketAddr,
}

impl From<&Requester<'_>> for Contact {
    fn from(requester: &Requester<'_>) -> Self {
        Self {
            factory: requester.trust.factory.id,
            device: requester.name.clone(),
            certificate: Arc::clone(&requester.certificate.certificate),
            device_ca: requester.device_ca.id,
            address: requester.peer.address,
        }
    }
}

/// Who asked for a certificate.
#[derive(Clone, Debug)]
pub enum Asker {
    /// The device itself.
    Device(Contact),
    /// A registration authority, on the device's behalf (E-25).
    RegistrationAuthority {
        /// The name in its certificate.
        name: DeviceName,
        /// SHA-256 of its certificate.
        certificate: Fingerprint,
        /// Where it connected from.
        address: SocketAddr,
    },
}

/// A certificate that is on record. Only a committed transaction makes one (I1).
pub struct Recorded {
    certificate: Certificate,
}

impl Recorded {
    /// The certificate, which may now be handed out.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

pub(super) enum Work {
    Record {
        signed: Box<Signed>,
        asker: Asker,
        reply: oneshot::Sender<Result<Recorded, Refusal>>,
    },
    Contact {
        contact: Contact,
        reply: oneshot::Sender<Result<Sighting, Refusal>>,
    },
    Hold {
        unapproved: Box<Unapproved>,
        request: Fingerprint,
        asker: Asker,
        reply: oneshot::Sender<Result<Held, Refusal>>,
    },
    Note {
        entry: Entry,
        reply: oneshot::Sender<()>,
    },
}

/// What became of a request that an operator must approve.
pub enum Held {
    /// It waits.
    Waiting,
    /// An operator approved it: sign it.
    Approved(Grant),
}

/// What the transaction decided.
enum Ruling {
    Seen(Sighting),
    Waiting,
    Approved,
    Noted,
}

type Verdict = Result<Ruling, Refusal>;
type DeviceKey = (FactoryId, DeviceName);

/// What the transaction has read and will write.
pub(super) struct Batch {
    transaction: WriteTransaction,
    now: UnixTime,
    devices: HashMap<DeviceKey, KnownDevice>,
    cas: HashMap<DeviceCaId, DeviceCaState>,
    held: HashMap<DeviceKey, Vec<HeldFacts>>,
    last_seen: HashMap<i64, i64>,
    changes: Changes,
}

/// A held request as the ledger knows it.
struct HeldFacts {
    id: i64,
    request: Fingerprint,
    state: HeldState,
}

#[derive(Default)]
struct Changes {
    devices: Vec<[Value; 6]>,
    credentials: Vec<[Value; 9]>,
    enrolments: Vec<[Value; 8]>,
    states: HashMap<i64, CredentialState>,
    used: BTreeSet<i64>,
    seen: BTreeSet<i64>,
    allowances_used: BTreeSet<i64>,
    held: Vec<[Value; 9]>,
    forgotten: BTreeSet<i64>,
}

impl Batch {
    /// Does all of the work in one transaction and answers it; on failure nothing is recorded and
    /// nobody is answered: the work comes back.
    pub(super) async fn run(
        database: &Database,
        works: Vec<Work>,
    ) -> Result<(), (LedgerError, Vec<Work>)> {
        match Self::transact(database, &works).await {
            Ok(verdicts) => {
                for (work, verdict) in works.into_iter().zip(verdicts) {
                    work.answer(verdict);
                }
                Ok(())
            }
            Err(why) => Err((why, works)),
        }
    }

    async fn transact(database: &Database, works: &[Work]) -> Result<Vec<Verdict>, LedgerError> {
        let transaction = WriteTransaction::begin(database).await?;
        let mut batch = Self {
            transaction,
            now: UnixTime::now(),
            devices: HashMap::new(),
            cas: HashMap::new(),
            held: HashMap::new(),
            last_seen: HashMap::new(),
            changes: Changes::default(),
        };
        batch.read(works).await?;
        let verdicts = works.iter().map(|work| batch.judge(work)).collect();
        batch.write().await?;
        batch.transaction.commit().await?;
        Ok(verdicts)
    }

    async fn read(&mut self, works: &[Work]) -> Result<(), LedgerError> {
        let mut names: HashMap<FactoryId, BTreeSet<&str>> = HashMap::new();
        for (factory, device) in works.iter().filter_map(Work::device) {
            names.entry(factory).or_default().insert(device.as_str());
        }
        for (factory, names) in names {
            self.read_devices(factory, names).await?;
        }
        if works.iter().any(|work| work.device().is_some()) {
            self.read_cas().await?;
        }
        let holds = works.iter().filter(|work| matches!(work, Work::Hold { .. }));
        let held: HashSet<_> = holds.filter_map(Work::device).collect();
        for (factory, device) in held {
            self.read_held(factory, device).await?;
        }
        Ok(())
    }

    async fn read_held(
        &mut self,
        factory: FactoryId,
        device: &DeviceName,
    ) -> Result<(), LedgerError> {
        let select = Statement::new(
            "SELECT id, request_sha256, state FROM held_request \
             WHERE factory_id = $1 AND device = $2 ORDER BY id",
        );
        let select = select.bind(factory.0).bind(device.as_str());
        let mut known = Vec::new();
        for row in self.transaction.rows(select).await? {
            let state = row.text("state")?;
            known.push(HeldFacts {
                id: row.integer("id")?,
                request: fingerprint(&row, "request_sha256")?,
                state: HeldState::from_word(&state).ok_or(LedgerError::Corrupt(state))?,
            });
        }
        self.held.insert((factory, device.clone()), known);
        Ok(())
    }

    async fn read_devices(
        &mut self,
        factory: FactoryId,
        names: BTreeSet<&str>,
    ) -> Result<(), LedgerError> {
        let select = Statement::new(
            "SELECT device.id AS device_id, device.name, device.allowed_once, device.last_seen_at, \
             credential.id AS credential_id, credential.sha256, credential.public_key_sha256, \
             credential.state \
             FROM device LEFT JOIN credential ON credential.device_id = device.id \
             WHERE device.factory_id = $1 AND device.name IN ",
        )
        .bind(factory.0)
        .tuple(names.into_iter().map(Value::from))
        .then(" ORDER BY credential.id");
        for row in self.transaction.rows(select).await? {
            let id = row.integer("device_id")?;
            let name = DeviceName::parse(&row.text("name")?).map_err(LedgerError::corrupt)?;
            let device = self
                .devices
                .entry((factory, name))
                .or_insert_with(|| KnownDevice { id, ..KnownDevice::default() });
            device.allowed_once = row.integer("allowed_once")? != 0;
            if let Some(credential) = known_credential(&row)? {
                device.credentials.push(credential);
            }
            if let Some(seen) = row.maybe_integer("last_seen_at")? {
                self.last_seen.insert(id, seen);
            }
        }
        Ok(())
    }

    async fn read_cas(&mut self) -> Result<(), LedgerError> {
        let rows = self.transaction.rows(Statement::new("SELECT id, state FROM device_ca")).await?;
        for row in rows {
            let state = row.text("state")?;
            let state = DeviceCaState::from_word(&state).ok_or(LedgerError::Corrupt(state))?;
            self.cas.insert(DeviceCaId(row.integer("id")?), state);
        }
        Ok(())
    }

    fn judge(&mut self, work: &Work) -> Verdict {
        match work {
            Work::Record { signed, asker, .. } => {
                let verdict = self.enrol(signed, asker);
                if let Err(refusal) = &verdict {
                    let grant = signed.grant();
                    let action = grant.operation.as_str();
                    self.refused(action, asker.name(), grant.factory, &grant.device, refusal);
                }
                verdict.map(Ruling::Seen)
            }
            Work::Hold { unapproved, request, asker, .. } => {
                let verdict = self.hold(unapproved.grant(), *request, asker);
                if let Err(refusal) = &verdict {
                    let grant = unapproved.grant();
                    let action = grant.operation.as_str();
                    self.refused(action, asker.name(), grant.factory, &grant.device, refusal);
                }
                verdict
            }
            Work::Contact { contact, .. } => {
                let verdict = self.contact(contact);
                if let Err(refusal) = &verdict {
                    let device = &contact.device;
                    self.refused("connect", device, contact.factory, device, refusal);
                }
                verdict.map(Ruling::Seen)
            }
            Work::Note { entry, .. } => {
                self.transaction.note(entry.clone());
                Ok(Ruling::Noted)
            }
        }
    }

    fn asked_by(&mut self, asker: &Asker) -> Result<Sighting, Refusal> {
        match asker {
            Asker::Device(contact) => self.contact(contact),
            Asker::RegistrationAuthority { .. } => Ok(Sighting::Expected),
        }
    }

    /// Finds what an operator has said to the same request before, or lets it wait.
    fn hold(&mut self, grant: &Grant, request: Fingerprint, asker: &Asker) -> Verdict {
        self.asked_by(asker)?;
        let key = (grant.factory, grant.device.clone());
        let known = self.held.entry(key.clone()).or_default();
        match known.iter().find(|held| held.request == request).map(|held| held.state) {
            Some(HeldState::Approved) => return Ok(Ruling::Approved),
            Some(HeldState::Rejected) => return Err(Refusal::RequestRejected),
            Some(HeldState::Waiting) => return Ok(Ruling::Waiting),
            None => {}
        }
        let id = self.transaction.next_id();
        known.push(HeldFacts { id, request, state: HeldState::Waiting });
        let excess = known.len().saturating_sub(HELD_LIMIT);
        self.changes.forgotten.extend(known.drain(..excess).map(|held| held.id));
        self.changes.held.push([
            id.into(),
            grant.factory.0.into(),
            grant.device.as_str().into(),
            request.as_bytes().into(),
            grant.operation.as_str().into(),
            grant.public_key.algorithm().to_string().into(),
            HeldState::Waiting.as_str().into(),
            self.now.0.into(),
            None::<i64>.into(),
        ]);
        self.done("hold", asker.name(), &key, format!("request {request} waits for approval"));
        Ok(Ruling::Waiting)
    }

    fn enrol(&mut self, signed: &Signed, asker: &Asker) -> Result<Sighting, Refusal> {
        let grant = signed.grant();
        let sighting = self.asked_by(asker)?;
        if self.cas.get(&grant.issuing_ca.id) != Some(&DeviceCaState::Enabled) {
            return Err(Refusal::IssuingCaDisabled);
        }
        let key = (grant.factory, grant.device.clone());
        if !self.devices.contains_key(&key) {
            self.register(key.clone(), asker.name(), None);
        }
        let dropped = self.devices.get(&key).map(KnownDevice::pending_to_drop).unwrap_or_default();
        self.set_state(&key, &dropped, CredentialState::Superseded);

        let certificate = signed.certificate();
        let issuer = grant.issuing_ca.id;
        let credential = self.add_credential(&key, certificate, issuer, CredentialState::Pending);
        let id = self.transaction.next_id();
        self.changes.enrolments.push([
            id.into(),
            credential.into(),
            certificate.serial().contents().into(),
            grant.operation.as_str().into(),
            grant.label.as_ref().map(Label::as_str).into(),
            asker.certificate().as_bytes().into(),
            asker.address().to_string().into(),
            self.now.0.into(),
        ]);
        let detail = format!(
            "certificate {} serial {} of {} until {}",
            certificate.fingerprint(),
            certificate.serial(),
            certificate.issuer(),
            certificate.validity().not_after,
        );
        self.done(grant.operation.as_str(), asker.name(), &key, detail);
        Ok(sighting)
    }

    fn contact(&mut self, contact: &Contact) -> Result<Sighting, Refusal> {
        let key = (contact.factory, contact.device.clone());
        let certificate = &contact.certificate;
        let presented = Presented {
            fingerprint: certificate.fingerprint(),
            key: certificate.public_key().fingerprint(),
        };
        let known = self.devices.get(&key);
        let issuer = self.cas.get(&contact.device_ca).copied();
        let issuer = issuer.ok_or(Refusal::CertificateUntrusted)?;
        let sighting = Sighting::judge(known, presented, issuer)?;
        let device_id = known.map(|device| device.id);

        let (action, adopt, superseded) = match &sighting {
            Sighting::Expected => ("", false, &[][..]),
            Sighting::FirstContact => {
                self.register(key.clone(), &contact.device, Some(self.now.0));
                ("", true, &[][..])
            }
            Sighting::Confirmed { superseded, .. } => ("confirm", false, superseded.as_slice()),
            Sighting::Adopted { superseded } => ("adopt", true, superseded.as_slice()),
            Sighting::Allowed { credential, superseded } => {
                self.use_allowance(&key);
                ("readmit", credential.is_none(), superseded.as_slice())
            }
        };
        self.set_state(&key, superseded, CredentialState::Superseded);
        if let Sighting::Confirmed { credential, .. }
        | Sighting::Allowed { credential: Some(credential), .. } = sighting
        {
            self.set_state(&key, &[credential], CredentialState::Current);
            self.changes.used.insert(credential);
        }
        if adopt {
            let current = CredentialState::Current;
            let id = self.add_credential(&key, certificate, contact.device_ca, current);
            self.changes.used.insert(id);
        }
        if !action.is_empty() {
            let detail = format!("certificate {} in use", presented.fingerprint);
            self.done(action, &contact.device, &key, detail);
        }
        if let Some(id) = device_id {
            self.seen(id);
        }
        Ok(sighting)
    }

    fn register(&mut self, key: DeviceKey, actor: &DeviceName, seen: Option<i64>) {
        let id = self.transaction.next_id();
        let (factory, device) = &key;
        self.changes.devices.push([
            id.into(),
            factory.0.into(),
            device.as_str().into(),
            0.into(),
            self.now.0.into(),
            seen.into(),
        ]);
        self.done("register", actor, &key, String::new());
        self.devices.insert(key, KnownDevice { id, ..KnownDevice::default() });
    }

    fn add_credential(
        &mut self,
        key: &DeviceKey,
        certificate: &Certificate,
        issuer: DeviceCaId,
        state: CredentialState,
    ) -> i64 {
        let id = self.transaction.next_id();
        let known = KnownCredential {
            id,
            fingerprint: certificate.fingerprint(),
            key: certificate.public_key().fingerprint(),
            state,
        };
        let device = self.devices.entry(key.clone()).or_default();
        device.credentials.push(known);
        self.changes.credentials.push([
            id.into(),
            device.id.into(),
            issuer.0.into(),
            state.as_str().into(),
            known.fingerprint.as_bytes().into(),
            known.key.as_bytes().into(),
            certificate.der().into(),
            self.now.0.into(),
            None::<i64>.into(),
        ]);
        id
    }

    fn set_state(&mut self, key: &DeviceKey, ids: &[i64], state: CredentialState) {
        if let Some(device) = self.devices.get_mut(key) {
            device.set_state(ids, state);
        }
        self.changes.states.extend(ids.iter().map(|id| (*id, state)));
    }

    fn use_allowance(&mut self, key: &DeviceKey) {
        if let Some(device) = self.devices.get_mut(key) {
            device.allowed_once = false;
            self.changes.allowances_used.insert(device.id);
        }
    }

    fn seen(&mut self, device: i64) {
        let last = self.last_seen.insert(device, self.now.0).unwrap_or(i64::MIN);
        if last.saturating_add(LAST_SEEN_RESOLUTION) <= self.now.0 {
            self.changes.seen.insert(device);
        }
    }

    fn done(&mut self, action: &str, actor: &DeviceName, key: &DeviceKey, detail: String) {
        self.transaction.note(Entry {
            at: self.now,
            factory: Some(key.0),
            actor: actor.to_string(),
            action: action.to_owned(),
            subject: key.1.to_string(),
            outcome: Outcome::Done,
            code: String::new(),
            detail,
        });
    }

    fn refused(
        &mut self,
        action: &str,
        actor: &DeviceName,
        factory: FactoryId,
        device: &DeviceName,
        refusal: &Refusal,
    ) {
        self.transaction.note(Entry {
            at: self.now,
            factory: Some(factory),
            actor: actor.to_string(),
            action: action.to_owned(),
            subject: device.to_string(),
            outcome: if refusal.is_alarm() { Outcome::Alarm } else { Outcome::Refused },
            code: refusal.code().to_owned(),
            detail: refusal.to_string(),
        });
    }

    async fn write(&mut self) -> Result<(), LedgerError> {
        let changes = std::mem::take(&mut self.changes);
        self.insert(
            "INSERT INTO device (id, factory_id, name, allowed_once, registered_at, last_seen_at) \
             VALUES ",
            changes.devices,
        )
        .await?;
        self.insert(
            "INSERT INTO credential (id, device_id, device_ca_id, state, sha256, \
             public_key_sha256, certificate, recorded_at, first_used_at) VALUES ",
            changes.credentials,
        )
        .await?;
        self.insert(
            "INSERT INTO enrolment (id, credential_id, serial, operation, label, \
             presented_sha256, address, at) VALUES ",
            changes.enrolments,
        )
        .await?;
        for state in [CredentialState::Superseded, CredentialState::Current] {
            let ids = changes.states.iter().filter(|(_, to)| **to == state).map(|(id, _)| *id);
            let update = Statement::new("UPDATE credential SET state = $1 WHERE id IN ")
                .bind(state.as_str());
            self.update(update, ids.collect()).await?;
        }
        let now = self.now.0;
        let used = "UPDATE credential SET first_used_at = COALESCE(first_used_at, $1) WHERE id IN ";
        self.update(Statement::new(used).bind(now), changes.used).await?;
        let seen = "UPDATE device SET last_seen_at = $1 WHERE id IN ";
        self.update(Statement::new(seen).bind(now), changes.seen).await?;
        let allowed = "UPDATE device SET allowed_once = 0 WHERE id IN ";
        self.update(Statement::new(allowed), changes.allowances_used).await?;
        self.insert(
            "INSERT INTO held_request (id, factory_id, device, request_sha256, operation, \
             key_algorithm, state, asked_at, decided_at) VALUES ",
            changes.held,
        )
        .await?;
        let forget = Statement::new("DELETE FROM held_request WHERE id IN ");
        self.update(forget, changes.forgotten).await
    }

    async fn insert<const N: usize>(
        &mut self,
        into: &str,
        rows: Vec<[Value; N]>,
    ) -> Result<(), LedgerError> {
        if !rows.is_empty() {
            self.transaction.execute(Statement::new(into).tuples(rows)).await?;
        }
        Ok(())
    }

    async fn update(&mut self, update: Statement, ids: BTreeSet<i64>) -> Result<(), LedgerError> {
        if !ids.is_empty() {
            self.transaction.execute(update.tuple(ids.into_iter().map(Value::from))).await?;
        }
        Ok(())
    }
}

fn known_credential(row: &Row) -> Result<Option<KnownCredential>, LedgerError> {
    let Some(id) = row.maybe_integer("credential_id")? else {
        return Ok(None);
    };
    let state = row.text("state")?;
    Ok(Some(KnownCredential {
        id,
        fingerprint: fingerprint(row, "sha256")?,
        key: fingerprint(row, "public_key_sha256")?,
        state: CredentialState::from_word(&state).ok_or(LedgerError::Corrupt(state))?,
    }))
}

pub(super) fn fingerprint(row: &Row, column: &str) -> Result<Fingerprint, LedgerError> {
    Fingerprint::from_bytes(&row.bytes(column)?)
        .ok_or_else(|| LedgerError::corrupt(format!("a {column} of another length")))
}

impl Work {
    /// The device that it is about.
    fn device(&self) -> Option<(FactoryId, &DeviceName)> {
        match self {
            Self::Record { signed, .. } => Some((signed.grant().factory, &signed.grant().device)),
            Self::Contact { contact, .. } => Some((contact.factory, &contact.device)),
            Self::Hold { unapproved, .. } => {
                Some((unapproved.grant().factory, &unapproved.grant().device))
            }
            Self::Note { .. } => None,
        }
    }

    /// Answers, after the commit. Whoever waited may be gone by now, which changes nothing.
    fn answer(self, verdict: Verdict) {
        match self {
            Self::Record { signed, reply, .. } => {
                let certificate = signed.into_certificate();
                let _gone = reply.send(verdict.map(|_| Recorded { certificate }));
            }
            Self::Contact { reply, .. } => {
                let _gone = reply.send(verdict.map(|ruling| match ruling {
                    Ruling::Seen(sighting) => sighting,
                    Ruling::Waiting | Ruling::Approved | Ruling::Noted => Sighting::Expected,
                }));
            }
            Self::Hold { unapproved, reply, .. } => {
                let _gone = reply.send(verdict.map(|ruling| match ruling {
                    Ruling::Approved => Held::Approved(unapproved.approved()),
                    Ruling::Waiting | Ruling::Seen(_) | Ruling::Noted => Held::Waiting,
                }));
            }
            Self::Note { reply, .. } => {
                let _gone = reply.send(());
            }
        }
    }
}

impl Asker {
    /// The name in the certificate that asks.
    pub fn name(&self) -> &DeviceName {
        match self {
            Self::Device(contact) => &contact.device,
            Self::RegistrationAuthority { name, .. } => name,
        }
    }

    fn certificate(&self) -> Fingerprint {
        match self {
            Self::Device(contact) => contact.certificate.fingerprint(),
            Self::RegistrationAuthority { certificate, .. } => *certificate,
        }
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Device(contact) => contact.address,
            Self::RegistrationAuthority { address, .. } => *address,
        }
    }
}

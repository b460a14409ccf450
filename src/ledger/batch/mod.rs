//! One transaction of the writer: reads what it must know of all its work at once, judges each in
//! order, writes all of it at once, and answers after the commit.

mod holding;
mod registering;
mod rotating;
mod telling;

use rotating::Happened;

use super::LedgerError;
use super::changes::Changes;
use super::contact::LAST_SEEN_RESOLUTION;
use super::database::Database;
use super::facts::{DeviceKey, Facts};
use super::tally::{Draft, Tally};
use super::transaction::WriteTransaction;
use super::work::{Asker, Contact, Ruling, Verdict, Work};
use crate::clock::UnixTime;
use crate::keys::Signed;
use crate::model::audit::{Entry, Outcome};
use crate::model::{
    Allowance, CredentialState, DeviceCaId, DeviceCaState, DeviceMetadata, DeviceName, FactoryId,
    KnownCredential, KnownDevice, Label, Operation, Presented, Refusal, Sighting, Switch,
};
use crate::pki::{Certificate, Fingerprint};
use crate::policy::Introduction;

/// What the transaction has read and will write.
pub(super) struct Batch<'a> {
    repeats: Draft<'a>,
    transaction: WriteTransaction,
    now: UnixTime,
    facts: Facts,
    changes: Changes,
}

impl<'a> Batch<'a> {
    /// Does all of the work in one transaction and answers it; gives the number of alarms. On
    /// failure nothing is recorded and nobody is answered: the work comes back.
    pub(super) async fn run(
        database: &Database,
        repeats: &'a Tally,
        works: Vec<Work>,
    ) -> Result<usize, (LedgerError, Vec<Work>)> {
        match Self::transact(database, repeats, &works).await {
            Ok(verdicts) => {
                let alarm = |verdict: &&Verdict| verdict.as_ref().is_err_and(Refusal::is_alarm);
                let alarms = verdicts.iter().filter(alarm).count();
                for (work, verdict) in works.into_iter().zip(verdicts) {
                    work.answer(verdict);
                }
                Ok(alarms)
            }
            Err(why) => Err((why, works)),
        }
    }

    async fn transact(
        database: &Database,
        repeats: &'a Tally,
        works: &[Work],
    ) -> Result<Vec<Verdict>, LedgerError> {
        let mut transaction = WriteTransaction::begin(database).await?;
        let facts = Facts::read(&mut transaction, works).await?;
        let (now, changes) = (UnixTime::now(), Changes::default());
        let repeats = repeats.draft();
        let mut batch = Self { repeats, transaction, now, facts, changes };
        let verdicts = works.iter().map(|work| batch.judge(work)).collect();
        let Self { repeats, mut transaction, now, changes, facts } = batch;
        changes.write(&mut transaction, &facts, now).await?;
        transaction.commit().await?;
        repeats.commit();
        Ok(verdicts)
    }

    fn judge(&mut self, work: &Work) -> Verdict {
        match work {
            Work::Record { signed, asker, .. } => {
                let verdict = self.enrol(signed, asker);
                if let Err(refusal) = &verdict {
                    let grant = signed.grant();
                    let action = grant.operation.as_str();
                    let shown = asker.certificate();
                    let (factory, device) = (grant.factory, &grant.device);
                    self.refused(action, asker.name(), factory, device, shown, refusal);
                    self.follow_refused(&(factory, device.clone()), shown, refusal);
                }
                verdict.map(Ruling::Seen)
            }
            Work::Hold { unapproved, request, asker, .. } => {
                let grant = unapproved.grant();
                let verdict = self.hold(grant, *request, asker);
                let shown = asker.certificate();
                let (factory, device) = (grant.factory, &grant.device);
                let key = (factory, device.clone());
                match &verdict {
                    Err(refusal) => {
                        let action = grant.operation.as_str();
                        self.refused(action, asker.name(), factory, device, shown, refusal);
                        self.follow_refused(&key, shown, refusal);
                    }
                    Ok(Ruling::Waiting) => self.follow_own(&key, shown, Happened::Held),
                    Ok(_) => {}
                }
                verdict
            }
            Work::Contact { contact, .. } => {
                let verdict = self.contact(contact);
                if let Err(refusal) = &verdict {
                    let device = &contact.device;
                    let shown = Some(contact.certificate.fingerprint());
                    let actor = device.as_str();
                    self.refused("connect", actor, contact.factory, device, shown, refusal);
                }
                verdict.map(Ruling::Seen)
            }
            Work::Introduce { introduction, registrar, .. } => {
                let verdict = self.introduce(introduction, registrar);
                if let Err(refusal) = &verdict {
                    let Introduction { factory, device, .. } = introduction;
                    let action = Operation::Register.as_str();
                    self.refused(action, &registrar.token, *factory, device, None, refusal);
                }
                verdict.map(Ruling::Introduced)
            }
            Work::Announce { device, next, .. } => {
                self.announce(device, *next).map(|()| Ruling::Noted)
            }
            Work::Tell { device, events, .. } => {
                self.keep_events(device, events);
                Ok(Ruling::Noted)
            }
            Work::Note { entries, .. } => {
                self.transaction.note_all(entries.iter().cloned());
                Ok(Ruling::Noted)
            }
            Work::Refuse { entry, asker, refusal, .. } => {
                self.note_refusal(entry.clone(), Some(asker.shown.fingerprint));
                let key = (asker.factory, asker.device.clone());
                self.follow_refused(&key, Some(asker.shown.fingerprint), refusal);
                Ok(Ruling::Noted)
            }
        }
    }

    fn asked_by(&mut self, asker: &Asker, key: &DeviceKey) -> Result<Sighting, Refusal> {
        let known = self.facts.devices.get(key);
        match asker {
            Asker::Device(contact) => return self.contact(contact),
            Asker::RegistrationAuthority(contact) => {
                if known.is_some_and(|device| device.denied) {
                    return Err(Refusal::DeviceDenied);
                }
                return self.contact(contact);
            }
            Asker::Newcomer(newcomer) => {
                if !self.facts.bootstrap_cas.contains(&newcomer.bootstrap_ca) {
                    return Err(Refusal::CertificateUntrusted);
                }
                known.map_or(Ok(()), |device| device.comes_again(newcomer.shown))?;
            }
            Asker::Registrar(_) => {}
        }
        Ok(Sighting::Expected)
    }

    /// Whom an operator lets in waits for nothing.
    fn may_have_another(
        &self,
        key: &DeviceKey,
        asker: &Asker,
        sighting: &Sighting,
    ) -> Result<(), Refusal> {
        let Some(device) = self.facts.devices.get(key) else { return Ok(()) };
        let let_in = match asker {
            Asker::Newcomer(newcomer) => device.allows(newcomer.shown.fingerprint),
            _ => matches!(sighting, Sighting::Allowed { .. }),
        };
        if let_in { Ok(()) } else { device.may_have_another(self.now, asker.ends_at()) }
    }

    fn enrol(&mut self, signed: &Signed, asker: &Asker) -> Result<Sighting, Refusal> {
        let grant = signed.grant();
        let key = (grant.factory, grant.device.clone());
        let sighting = self.asked_by(asker, &key)?;
        if self.facts.cas.get(&grant.issuing_ca.id) != Some(&DeviceCaState::Enabled) {
            return Err(Refusal::IssuingCaDisabled);
        }
        // Before anything is used up for it.
        self.may_have_another(&key, asker, &sighting)?;
        match (asker, self.facts.devices.get(&key)) {
            (Asker::Registrar(registrar), _) => {
                self.register_once(&key, grant.public_key.fingerprint(), &registrar.metadata)?;
            }
            (_, None) => {
                self.done("register", asker.name(), &key, String::new());
                self.register(key.clone(), None, &DeviceMetadata::default());
            }
            (Asker::Newcomer(newcomer), Some(device)) => {
                if device.allows(newcomer.shown.fingerprint) {
                    self.use_allowance(&key);
                }
            }
            (_, Some(_)) => {}
        }
        if let Asker::Newcomer(newcomer) = asker {
            self.introduced_by(&key, newcomer.shown.key);
        }
        let dropped =
            self.facts.devices.get(&key).map(KnownDevice::pending_to_drop).unwrap_or_default();
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
            asker.certificate().as_ref().map_or(&[][..], Fingerprint::as_bytes).into(),
            asker.address().into(),
            self.now.0.into(),
        ]);
        let detail = format!(
            "certificate {} serial {} by Device CA {} until {}",
            certificate.fingerprint(),
            certificate.serial(),
            grant.issuing_ca.certificate.serial(),
            certificate.validity().not_after,
        );
        self.done(grant.operation.as_str(), asker.name(), &key, detail);
        self.follow(&key, Happened::Issued(credential, issuer));
        Ok(sighting)
    }

    fn contact(&mut self, contact: &Contact) -> Result<Sighting, Refusal> {
        let key = (contact.factory, contact.device.clone());
        let certificate = &contact.certificate;
        let presented = Presented {
            fingerprint: certificate.fingerprint(),
            key: certificate.public_key().fingerprint(),
        };
        let known = self.facts.devices.get(&key);
        let issuer = self.facts.cas.get(&contact.device_ca).copied();
        let issuer = issuer.ok_or(Refusal::CertificateUntrusted)?;
        let sighting = Sighting::judge(known, presented, issuer)?;
        let device_id = known.map(|device| device.id);
        let before = known.and_then(KnownDevice::current);

        let (action, adopt, superseded) = match &sighting {
            // It is well again: whoever comes with another certificate is somebody else.
            Sighting::Expected
                if known.is_some_and(|device| device.allowance == Some(Allowance::Any)) =>
            {
                self.use_allowance(&key);
                ("lapse-allowance", false, &[][..])
            }
            Sighting::Expected => ("", false, &[][..]),
            Sighting::FirstContact => {
                self.done("register", contact.device.as_str(), &key, String::new());
                self.register(key.clone(), Some(self.now.0), &DeviceMetadata::default());
                ("", true, &[][..])
            }
            Sighting::Confirmed { superseded, .. } => ("confirm", false, superseded.as_slice()),
            Sighting::Adopted { superseded } => ("adopt", true, superseded.as_slice()),
            Sighting::Allowed { credential, superseded } => {
                self.use_allowance(&key);
                self.changes.let_back.extend(device_id.zip(*credential));
                ("readmit", credential.is_none(), superseded.as_slice())
            }
        };
        self.set_state(&key, superseded, CredentialState::Superseded);
        if let Sighting::Confirmed { credential, .. }
        | Sighting::Allowed { credential: Some(credential), .. } = sighting
        {
            self.set_state(&key, &[credential], CredentialState::Current);
            self.changes.used.insert(credential);
            self.follow(&key, Happened::InUse(credential, contact.device_ca));
        }
        if adopt {
            let current = CredentialState::Current;
            let id = self.add_credential(&key, certificate, contact.device_ca, current);
            self.changes.used.insert(id);
            self.follow(&key, Happened::InUse(id, contact.device_ca));
        }
        if !action.is_empty() {
            let new = presented.fingerprint;
            let switch = Switch { new, old: before.filter(|old| *old != new) };
            self.done(action, contact.device.as_str(), &key, switch.to_string());
        }
        if let Some(id) = device_id {
            self.seen(id);
        }
        Ok(sighting)
    }

    fn register(&mut self, key: DeviceKey, seen: Option<i64>, metadata: &DeviceMetadata) {
        let id = self.transaction.next_id();
        let (factory, device) = &key;
        self.changes.devices.push([
            id.into(),
            factory.0.into(),
            device.as_str().into(),
            0.into(),
            self.now.0.into(),
            seen.into(),
            metadata.alias.as_deref().into(),
            metadata.group.as_deref().into(),
            metadata.hardware_id.as_deref().into(),
        ]);
        self.facts.devices.insert(key, KnownDevice { id, ..KnownDevice::default() });
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
            recorded_at: self.now,
        };
        let device = self.facts.devices.entry(key.clone()).or_default();
        device.credentials.push(known);
        self.changes.credentials.push([
            id.into(),
            device.id.into(),
            issuer.0.into(),
            state.as_str().into(),
            known.fingerprint.as_bytes().into(),
            known.key.as_bytes().into(),
            certificate.der().into(),
            certificate.serial().contents().into(),
            certificate.public_key().algorithm().to_string().into(),
            certificate.validity().not_after.0.into(),
            self.now.0.into(),
            self.now.0.into(),
            None::<i64>.into(),
        ]);
        id
    }

    fn set_state(&mut self, key: &DeviceKey, ids: &[i64], state: CredentialState) {
        if let Some(device) = self.facts.devices.get_mut(key) {
            device.set_state(ids, state);
        }
        self.changes.states.extend(ids.iter().map(|id| (*id, state)));
    }

    fn use_allowance(&mut self, key: &DeviceKey) {
        if let Some(device) = self.facts.devices.get_mut(key) {
            (device.allowance, device.denied) = (None, false);
            self.changes.allowances_used.insert(device.id);
        }
    }

    fn introduced_by(&mut self, device: &DeviceKey, key: Fingerprint) {
        if let Some(device) = self.facts.devices.get_mut(device) {
            device.introduced_by = Some(key);
            self.changes.introduced.push((device.id, key));
        }
    }

    fn seen(&mut self, device: i64) {
        let last = self.facts.last_seen.insert(device, self.now.0).unwrap_or(i64::MIN);
        if last.saturating_add(LAST_SEEN_RESOLUTION) <= self.now.0 {
            self.changes.seen.insert(device);
        }
    }

    fn done(&mut self, action: &str, actor: &str, key: &DeviceKey, detail: String) {
        self.transaction.note(Entry {
            at: self.now,
            factory: Some(key.0),
            actor: actor.to_owned(),
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
        actor: &str,
        factory: FactoryId,
        device: &DeviceName,
        shown: Option<Fingerprint>,
        refusal: &Refusal,
    ) {
        let certificate = shown.map(|shown| format!(" (certificate {shown})"));
        let entry = Entry {
            at: self.now,
            factory: Some(factory),
            actor: actor.to_owned(),
            action: action.to_owned(),
            subject: device.to_string(),
            outcome: if refusal.is_alarm() { Outcome::Alarm } else { Outcome::Refused },
            code: refusal.code().to_owned(),
            detail: format!("{refusal}{}", certificate.unwrap_or_default()),
        };
        self.note_refusal(entry, shown);
    }

    fn note_refusal(&mut self, entry: Entry, shown: Option<Fingerprint>) {
        if self.repeats.admits(&entry, shown) {
            self.transaction.note(entry);
        }
    }
}

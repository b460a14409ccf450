//! Registration on the word of an API token: through the same pipeline, with the token in the place
//! of a client certificate.

use super::{Enrolments, Refused, refused_by_ledger};
use crate::clock::UnixTime;
use crate::keys::ActiveSnapshot;
use crate::ledger::{Asker, Introduced, Recorded, Registrar};
use crate::model::{DeviceName, FactoryTrust, Operation, Refusal, audit};
use crate::pki::{Certificate, CertificationRequest};
use crate::policy;

const REGISTER: Operation = Operation::Register;

impl Enrolments {
    /// Registers a device and issues its first certificate, or refuses both; either way it is on
    /// record when this returns. The certificate is pending until the device is seen with it.
    ///
    /// # Errors
    /// The refusal.
    pub async fn register(
        &self,
        active: &ActiveSnapshot,
        trust: &FactoryTrust,
        uuid: &DeviceName,
        request: &CertificationRequest,
        registrar: Registrar,
    ) -> Result<Recorded, Refused> {
        let profile = &active.snapshot().profiles.unlabelled;
        let grant = policy::judge_registration(trust, uuid, profile, request, UnixTime::now());
        let signed = match grant {
            Ok(grant) => self.sign(active, grant).await,
            Err(refusal) => Err(refusal),
        };
        let signed = match signed {
            Ok(signed) => signed,
            Err(refusal) => {
                let subject = uuid.to_string();
                let token = &registrar.token;
                return Err(self.refuse_registration(trust, token, subject, refusal).await);
            }
        };
        let token = registrar.token.clone();
        let recorded = self.record(signed, Asker::Registrar(registrar)).await;
        recorded.map_err(|refusal| refused_by_ledger(refusal, &token, REGISTER))
    }

    /// Registers a device with a certificate that it was given elsewhere, or refuses it.
    ///
    /// # Errors
    /// The refusal.
    pub async fn introduce(
        &self,
        trust: &FactoryTrust,
        certificate: Certificate,
        registrar: Registrar,
    ) -> Result<Introduced, Refused> {
        let subject = audit::shortened(&certificate.subject().to_string());
        match policy::judge_introduction(trust, certificate, UnixTime::now()) {
            Ok(introduction) => {
                let token = registrar.token.clone();
                let introduced = self.ledger.introduce(introduction, registrar).await;
                introduced.map_err(|refusal| refused_by_ledger(refusal, &token, REGISTER))
            }
            Err(refusal) => {
                let token = &registrar.token;
                Err(self.refuse_registration(trust, token, subject, refusal).await)
            }
        }
    }

    /// Records a refusal that was decided before the ledger was asked.
    pub async fn refuse_registration(
        &self,
        trust: &FactoryTrust,
        token: &str,
        subject: String,
        refusal: Refusal,
    ) -> Refused {
        self.note(trust.factory.id, token.to_owned(), subject, REGISTER, refusal).await
    }
}

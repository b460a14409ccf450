//! A session in a token, logged in.

use std::collections::BTreeMap;

use const_oid::db::rfc5912::SECP_256_R_1;
use cryptoki::context::Pkcs11 as Context;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use der::{AnyRef, Decode, Encode};

use super::TokenError;
use crate::config::Secret;
use crate::pki::{Fingerprint, Malformed, PublicKey, ecdsa_signature};

pub(super) struct Session {
    session: cryptoki::session::Session,
    /// Of the private keys that were used in this session.
    handles: BTreeMap<Fingerprint, ObjectHandle>,
}

/// Why there is no session.
pub(super) enum OpenError {
    /// The token refused the PIN.
    Pin,
    /// Anything else.
    Other(TokenError),
}

impl From<Error> for OpenError {
    fn from(why: Error) -> Self {
        match why {
            Error::Pkcs11(
                RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked,
                _,
            ) => Self::Pin,
            other => Self::Other(other.into()),
        }
    }
}

impl From<Error> for TokenError {
    fn from(why: Error) -> Self {
        Self::Failed(reason(&why))
    }
}

/// A PKCS#11 error in few words: the library quotes whole paragraphs of the standard.
pub(super) fn reason(why: &Error) -> String {
    match why {
        Error::Pkcs11(code, function) => format!("C_{function:?} failed: {code:?}"),
        Error::LibraryLoading(why) => why.to_string(),
        other => other.to_string(),
    }
}

impl Session {
    /// Logs in to the token with that label.
    pub(super) fn open(context: &Context, label: &str, pin: &Secret) -> Result<Self, OpenError> {
        let mut found = Vec::new();
        for slot in context.get_slots_with_token()? {
            // A slot whose token is broken must not keep the others from being found.
            let Ok(token) = context.get_token_info(slot) else { continue };
            if token.label() == label {
                let session = context.open_rw_session(slot)?;
                match session.login(UserType::User, Some(&AuthPin::from(pin.as_str()))) {
                    Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
                    Err(why) => return Err(why.into()),
                }
                return Ok(Self { session, handles: BTreeMap::new() });
            }
            if token.token_initialized() {
                found.push(format!("{:?}", token.label()));
            }
        }
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        Err(OpenError::Other(TokenError::Absent { label: label.to_owned(), found }))
    }

    /// Whether it is still good for anything.
    pub(super) fn check(&mut self) -> Result<(), TokenError> {
        self.session.get_session_info()?;
        Ok(())
    }

    /// Makes a key pair whose private half stays in the token.
    pub(super) fn generate(&mut self, label: &str) -> Result<PublicKey, TokenError> {
        let curve = SECP_256_R_1.to_der().map_err(|why| TokenError::Failed(why.to_string()))?;
        let label = Attribute::Label(label.as_bytes().to_vec());
        let public = [
            Attribute::Token(true),
            Attribute::Verify(true),
            Attribute::EcParams(curve),
            label.clone(),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            label,
        ];
        let pair = self.session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
        let named = self.name(pair);
        if named.is_err() {
            // Best effort: nobody will look for these again.
            let _left = [pair.0, pair.1].map(|half| self.session.destroy_object(half));
        }
        named
    }

    /// Gives both halves the CKA_ID by which the ledger knows them.
    fn name(
        &self,
        (public, private): (ObjectHandle, ObjectHandle),
    ) -> Result<PublicKey, TokenError> {
        let private_is = [AttributeType::Sensitive, AttributeType::Extractable];
        let private_is = self.session.get_attributes(private, &private_is)?;
        let fine = [Attribute::Sensitive(true), Attribute::Extractable(false)];
        if !fine.iter().all(|one| private_is.contains(one)) {
            return Err(TokenError::Extractable);
        }
        let point = self.session.get_attributes(public, &[AttributeType::EcPoint])?;
        let Some(Attribute::EcPoint(point)) = point.first() else {
            return Err(TokenError::Failed("it keeps the public key to itself".to_owned()));
        };
        let public_key = read_point(point)?;
        let id = Attribute::Id(public_key.fingerprint().as_bytes().to_vec());
        for half in [public, private] {
            self.session.update_attributes(half, std::slice::from_ref(&id))?;
        }
        Ok(public_key)
    }

    /// Signs a SHA-256 digest by ECDSA; gives the DER of the signature.
    pub(super) fn sign(&mut self, key: Fingerprint, digest: &[u8]) -> Result<Vec<u8>, TokenError> {
        let handle = self.handle(key)?;
        let signature = self.session.sign(&Mechanism::Ecdsa, handle, digest)?;
        Ok(ecdsa_signature(&signature)?)
    }

    fn handle(&mut self, key: Fingerprint) -> Result<ObjectHandle, TokenError> {
        if let Some(handle) = self.handles.get(&key) {
            return Ok(*handle);
        }
        let wanted =
            [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::Id(key.as_bytes().to_vec())];
        let found = self.session.find_objects(&wanted)?;
        let handle = *found.first().ok_or(TokenError::KeyAbsent(key))?;
        self.handles.insert(key, handle);
        Ok(handle)
    }
}

/// CKA_EC_POINT is an OCTET STRING around the point; some tokens leave that out.
fn read_point(point: &[u8]) -> Result<PublicKey, Malformed> {
    PublicKey::from_p256_point(point).or_else(|why| match AnyRef::from_der(point) {
        Ok(octets) => PublicKey::from_p256_point(octets.value()),
        Err(_) => Err(why),
    })
}

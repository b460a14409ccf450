//! `POST /v1/sightings`: a gateway that is not ours says which devices it saw, by the certificates of
//! their sessions. It counts like a session of ours (I3).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::Api;
use super::error::ApiError;
use super::role::Operator;
use super::selection::FactoryQuery;
use crate::fleet::{self, Report};
use crate::model::{Refusal, Sighting};
use crate::pki::Certificate;

/// How many certificates one report takes.
const LIMIT: usize = 100;

/// One certificate or several, each in PEM; of a chain the first counts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reported {
    certificate: Option<String>,
    certificates: Option<Vec<String>>,
    /// Where the devices connected from: an address, with its port or without. Absent: whoever
    /// reports them.
    address: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Sightings {
    /// In the order of the certificates.
    sightings: Vec<Seen>,
}

#[derive(Serialize)]
struct Seen {
    device: String,
    #[serde(flatten)]
    verdict: Verdict,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Verdict {
    Accepted { verdict: &'static str },
    Refused { code: &'static str, message: String },
}

pub(super) async fn report(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Extension(peer): Extension<SocketAddr>,
    Json(reported): Json<Reported>,
) -> Result<Json<Sightings>, ApiError> {
    let active = api.active.load_full();
    let trust = query.select(&principal, &active)?;
    let address = reported.address()?.unwrap_or(peer);
    let mut sightings = Vec::new();
    for certificate in reported.certificates()? {
        let device = device_of(&certificate);
        let report = Report { token: &principal.name, trust: &trust, certificate, address };
        let verdict = verdict(fleet::report(&api.ledger, &active, report).await)?;
        sightings.push(Seen { device, verdict });
    }
    Ok(Json(Sightings { sightings }))
}

/// What a certificate calls its device.
pub(super) fn device_of(certificate: &Certificate) -> String {
    let subject = certificate.subject();
    subject.common_name().unwrap_or_else(|| subject.to_string())
}

impl Reported {
    fn address(&self) -> Result<Option<SocketAddr>, ApiError> {
        let parse = |text: &str| {
            let alone = || text.parse().map(|address: IpAddr| SocketAddr::new(address, 0)).ok();
            text.parse().ok().or_else(alone)
        };
        let wrong = || field("address", "must be an IP address, with its port or without");
        self.address.as_deref().map(|text| parse(text).ok_or_else(wrong)).transpose()
    }

    /// Every certificate; all are read before any of them counts.
    fn certificates(self) -> Result<Vec<Certificate>, ApiError> {
        let named: Vec<(String, String)> = match (self.certificate, self.certificates) {
            (Some(one), None) => vec![("certificate".to_owned(), one)],
            (None, Some(all)) if all.len() <= LIMIT => {
                let name = |(index, one)| (format!("certificates[{index}]"), one);
                all.into_iter().enumerate().map(name).collect()
            }
            (None, Some(all)) => {
                let why = format!("are {}, and {LIMIT} are taken at once", all.len());
                return Err(field("certificates", &why));
            }
            _ => return Err(field("certificates", "or certificate must be there, and not both")),
        };
        let read = |(name, pem): (String, String)| {
            let certificates = Certificate::from_pem(pem.as_bytes());
            let certificates = certificates.map_err(|why| field(&name, &why.to_string()))?;
            certificates.into_iter().next().ok_or_else(|| field(&name, "is empty"))
        };
        named.into_iter().map(read).collect()
    }
}

fn field(name: &str, why: &str) -> ApiError {
    let fields = BTreeMap::from([(name.to_owned(), why.to_owned())]);
    ApiError::fields(StatusCode::BAD_REQUEST, format!("{name}: {why}"), fields)
}

/// What is told of one certificate. Where nothing can be recorded, the whole report is to be sent again.
fn verdict(judged: Result<Sighting, Refusal>) -> Result<Verdict, ApiError> {
    match judged {
        Ok(sighting) => Ok(Verdict::Accepted { verdict: sighting.as_str() }),
        Err(refusal) if refusal.is_unrecorded() => {
            let message = format!("{refusal} ({})", refusal.code());
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
        Err(refusal) => Ok(Verdict::Refused { code: refusal.code(), message: refusal.to_string() }),
    }
}

//! `POST /ota/devices/`: a device is registered and gets its first certificate, as
//! lmp-device-register asks for it. `PUT`: one that has its certificate from a Device CA already.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::Api;
use super::super::auth::Principal;
use super::super::error::ApiError;
use super::super::role::Operator;
use super::super::selection::FactoryQuery;
use super::read;
use super::sota::{Overrides, SotaToml};
use crate::ledger::{Introduced, Registrar};
use crate::model::{DeviceMetadata, DeviceName, FactoryTrust, Refusal};
use crate::pki::{self, Certificate, CertificationRequest, Name};

/// Every value is a string; what else comes along is passed over.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Registration {
    uuid: String,
    csr: String,
    name: Option<String>,
    group: Option<String>,
    hardware_id: Option<String>,
    sota_config_dir: Option<String>,
    #[serde(default)]
    overrides: Overrides,
}

#[derive(Deserialize)]
struct Introduction {
    #[serde(rename = "client.pem")]
    client_pem: String,
    name: Option<String>,
    group: Option<String>,
}

/// Each becomes a file of the device.
#[derive(Serialize)]
pub(super) struct Files {
    #[serde(rename = "root.crt")]
    root: String,
    #[serde(rename = "client.pem")]
    client: String,
    #[serde(rename = "sota.toml")]
    sota: String,
}

pub(super) async fn register(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    body: Bytes,
) -> Result<(StatusCode, Json<Files>), ApiError> {
    let asked: Registration = read(&body)?;
    let uuid = DeviceName::parse(&asked.uuid)?;
    let (name, group) = (asked.name.as_deref(), asked.group.as_deref());
    let metadata = DeviceMetadata::parse(name, group, asked.hardware_id.as_deref())?;
    let registrar = Registrar { token: principal.name.clone(), metadata };
    let request = CertificationRequest::from_pem(asked.csr.as_bytes());
    let subject = request.as_ref().ok().map(CertificationRequest::subject);
    let trust = api.factory_of(&principal, &query, subject)?;
    let root = trust.factory.root.as_ref();
    let root =
        root.ok_or_else(|| ApiError::new(StatusCode::CONFLICT, "the Factory has no root"))?;
    // Before anything is issued: what is wrong here must not leave a device behind.
    let sota = SotaToml {
        gateway: &trust.factory.gateway_host,
        hardware_id: registrar.metadata.hardware_id.as_deref(),
        config_dir: asked.sota_config_dir.as_deref(),
        overrides: &asked.overrides,
    };
    let sota = sota.text().map_err(|refused| {
        let fields = BTreeMap::from([(refused.field.clone(), refused.reason.clone())]);
        ApiError::fields(StatusCode::BAD_REQUEST, refused, fields)
    })?;
    let request = match request {
        Ok(request) => request,
        Err(why) => {
            let refusal = Refusal::CsrMalformed(why.to_string());
            let subject = uuid.to_string();
            let token = &principal.name;
            let refused = api.enrolments.refuse_registration(&trust, token, subject, refusal);
            return Err(refused.await.into());
        }
    };
    let root = pki::to_pem("CERTIFICATE", root.der())?;
    let active = api.enrolments.active();
    let recorded = api.enrolments.register(&active, &trust, &uuid, &request, registrar).await?;
    let client = pki::to_pem("CERTIFICATE", recorded.certificate().der())?;
    Ok((StatusCode::CREATED, Json(Files { root, client, sota })))
}

pub(super) async fn introduce(
    Operator(principal): Operator,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let asked: Introduction = read(&body)?;
    let metadata = DeviceMetadata::parse(asked.name.as_deref(), asked.group.as_deref(), None)?;
    let registrar = Registrar { token: principal.name.clone(), metadata };
    let certificate = Certificate::from_pem(asked.client_pem.as_bytes()).map_err(|why| {
        let fields = BTreeMap::from([("client.pem".to_owned(), why.to_string())]);
        ApiError::fields(StatusCode::BAD_REQUEST, why, fields)
    })?;
    // Its own comes first in a chain.
    let Some(certificate) = certificate.into_iter().next() else {
        return Err(ApiError::bad_request("there is no certificate in client.pem"));
    };
    let trust = api.factory_of(&principal, &query, Some(certificate.subject()))?;
    let uuid = certificate.subject().common_name();
    let status = match api.enrolments.introduce(&trust, certificate, registrar).await? {
        Introduced::New => StatusCode::CREATED,
        Introduced::Known => StatusCode::OK,
    };
    Ok((status, Json(json!({ "uuid": uuid }))))
}

impl Api {
    /// The Factory that the query names, else one that the subject's organizational unit names, else
    /// the only one.
    fn factory_of(
        &self,
        principal: &Principal,
        query: &FactoryQuery,
        subject: Option<&Name>,
    ) -> Result<FactoryTrust, ApiError> {
        let active = self.active.load();
        let units = subject.filter(|_| !query.is_named()).map(Name::organizational_units);
        let mut units = units.unwrap_or_default().into_iter();
        let select = |unit| FactoryQuery::named(unit).select(principal, &active).ok();
        units.find_map(select).map_or_else(|| query.select(principal, &active), Ok)
    }
}

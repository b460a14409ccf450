//! The device gateway: the channel over which fioconfig devices are told to rotate and prove that they
//! have, as the real agent speaks it. Every request comes with a device's certificate.

mod answer;
mod config;
mod device;
mod events;
mod forward;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Extension, Request, State};
use axum::http::Method;
use axum::response::Response;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use tracing::error;

use crate::client::Upstream;
use crate::clock::UnixTime;
use crate::fleet;
use crate::keys::ActiveSnapshot;
use crate::ledger::{Ledger, LedgerError};
use crate::listener::Session;
use crate::model::{DeviceName, Factory, FactoryId, Refusal};
use crate::policy;
use crate::telemetry::Metrics;

/// What the handlers share.
pub struct Gateway {
    /// The ledger.
    pub ledger: Ledger,
    /// The snapshot in use.
    pub active: Arc<ArcSwap<ActiveSnapshot>>,
    /// The port at which devices reach EST.
    pub est_public_port: u16,
    /// The server behind the gateway, for what is not its own.
    pub upstream: Option<Upstream<Body>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// The largest body that is read.
const BODY_LIMIT: usize = 256 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A device whose certificate the ledger accepts now.
struct Caller {
    factory: Factory,
    device: DeviceName,
}

impl Caller {
    fn key(&self) -> (FactoryId, DeviceName) {
        (self.factory.id, self.device.clone())
    }
}

/// The gateway service. Every request must carry its [`Session`].
pub fn router(gateway: Gateway) -> Router {
    // One handler parses the path: devices ask for doubled slashes.
    Router::new().fallback(handle).with_state(Arc::new(gateway))
}

async fn handle(
    State(gateway): State<Arc<Gateway>>,
    Extension(session): Extension<Arc<Session>>,
    request: Request,
) -> Response {
    let path: Vec<_> = request.uri().path().split('/').filter(|part| !part.is_empty()).collect();
    let operation = match (request.method(), path.as_slice()) {
        (&Method::GET, ["config"]) => Operation::Config,
        (&Method::PATCH, ["config"]) => Operation::UpdateConfig,
        (&Method::GET, ["config-device"]) => Operation::DeviceConfig,
        (&Method::GET, ["device"]) => Operation::Device,
        (&Method::PATCH, ["device"]) => Operation::UpdateDevice,
        (&Method::POST, ["events"]) => Operation::Events,
        (_, ["config" | "device"]) => Operation::WrongMethod("GET, PATCH"),
        (_, ["config-device"]) => Operation::WrongMethod("GET"),
        (_, ["events"]) => Operation::WrongMethod("POST"),
        _ => Operation::Other,
    };
    let answered = gateway.answer(&session, operation, request).await;
    let code = answered.as_ref().map_or_else(Refusal::code, |_| "ok");
    gateway.metrics.request(operation.as_str(), code);
    answered.unwrap_or_else(|refusal| answer::refused(&refusal))
}

/// What a device may ask for.
#[derive(Clone, Copy)]
enum Operation {
    Config,
    UpdateConfig,
    DeviceConfig,
    Device,
    UpdateDevice,
    Events,
    /// What it takes.
    WrongMethod(&'static str),
    Other,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Self::Config => "gateway-config",
            Self::UpdateConfig => "gateway-update-config",
            Self::DeviceConfig => "gateway-device-config",
            Self::Device => "gateway-device",
            Self::UpdateDevice => "gateway-update-device",
            Self::Events => "gateway-events",
            Self::Other => "gateway-other",
            Self::WrongMethod(_) => "none",
        }
    }
}

impl Gateway {
    async fn answer(
        &self,
        session: &Session,
        operation: Operation,
        request: Request<Body>,
    ) -> Result<Response, Refusal> {
        let caller = self.caller(session).await?;
        match operation {
            Operation::Config => config::get(self, &caller, request.headers()).await,
            Operation::UpdateConfig => config::update(self, &caller, request.into_body()).await,
            Operation::DeviceConfig => config::of_device(self, &caller).await,
            Operation::Device => device::get(self, &caller).await,
            Operation::UpdateDevice => device::update(self, &caller, request.into_body()).await,
            Operation::Events => events::post(self, &caller, session, request).await,
            Operation::WrongMethod(takes) => Err(Refusal::MethodNotAllowed(takes)),
            Operation::Other => match &self.upstream {
                Some(upstream) => forward::pass(upstream, &caller, session, request).await,
                None => Err(Refusal::PathUnknown),
            },
        }
    }

    /// Who asks. It is judged anew at each request: a certificate may have been replaced meanwhile.
    async fn caller(&self, session: &Session) -> Result<Caller, Refusal> {
        let active = self.active.load_full();
        let requester =
            match policy::authenticate(session.peer(), active.snapshot(), UnixTime::now()) {
                Ok(requester) => requester,
                Err(refusal) => {
                    session.was_sighted();
                    return Err(fleet::refuse_session(&self.ledger, session.peer(), refusal).await);
                }
            };
        let verdict = fleet::sight(&self.ledger, &active, session.peer()).await;
        if !verdict.as_ref().is_err_and(Refusal::is_unrecorded) {
            session.was_sighted();
        }
        verdict?;
        let factory = requester.trust.factory.clone();
        Ok(Caller { factory, device: requester.name })
    }
}

/// Reads a body of JSON.
async fn read<T: DeserializeOwned>(body: Body) -> Result<T, Refusal> {
    parse(&read_bytes(body).await?)
}

async fn read_bytes(body: Body) -> Result<Bytes, Refusal> {
    let body = timeout(BODY_TIMEOUT, to_bytes(body, BODY_LIMIT)).await;
    let body = body.map_err(|_elapsed| Refusal::BodyTooSlow)?;
    body.map_err(|_| Refusal::BodyTooLarge(BODY_LIMIT))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|why| Refusal::GatewayBody(why.to_string()))
}

fn unreadable(why: LedgerError) -> Refusal {
    error!(error = %why, "the ledger does not answer");
    Refusal::LedgerUnavailable
}

//! `/v1/rotations/{id}/events`: how a rotation stands, told anew whenever it changes, as server-sent
//! events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::unfold;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep};
use tracing::error;

use super::Api;
use super::error::ApiError;
use super::role::Viewer;
use super::rotation_view::RotationView;
use super::rotations::find;
use super::selection::FactoryQuery;
use crate::model::FactoryTrust;
use crate::model::rotation::RotationName;

/// How often the ledger is asked.
const STEP: Duration = Duration::from_secs(1);
/// How long one answer goes on. Clients of server-sent events connect again by themselves, and show
/// their token again.
const SPAN: Duration = Duration::from_mins(1);
/// How many may follow at once: each asks the ledger once a second.
const FOLLOWERS: usize = 200;

static PLACES: Semaphore = Semaphore::const_new(FOLLOWERS);

/// What has been told so far.
struct Told {
    api: Arc<Api>,
    trust: FactoryTrust,
    name: RotationName,
    end: Instant,
    last: String,
    over: bool,
    _place: SemaphorePermit<'static>,
}

pub(super) async fn follow(
    Viewer(principal): Viewer,
    State(api): State<Arc<Api>>,
    Query(query): Query<FactoryQuery>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    let (trust, rotation) = find(&api, &principal, &query, &id).await?;
    let place = PLACES.try_acquire().map_err(|_| {
        let why = format!("{FOLLOWERS} follow rotations already: ask again later");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why)
    })?;
    let end = Instant::now() + SPAN;
    let (name, last) = (rotation.name, String::new());
    let told = Told { api, trust, name, end, last, over: false, _place: place };
    let events = unfold(told, async |mut told| {
        let event = told.next().await?;
        Some((Ok::<_, Infallible>(event), told))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

impl Told {
    /// The next event; `None` when the rotation has ended, the server ends, or it is time to connect
    /// again.
    async fn next(&mut self) -> Option<Event> {
        while !self.over && Instant::now() < self.end && !*self.api.draining.borrow() {
            match self.look().await {
                Ok(now) if now != self.last => {
                    self.last.clone_from(&now);
                    return Some(Event::default().event("rotation").data(now));
                }
                Ok(_) => sleep(STEP).await,
                Err(why) => {
                    error!(error = %why, "a rotation cannot be followed");
                    return None;
                }
            }
        }
        None
    }

    async fn look(&mut self) -> anyhow::Result<String> {
        let rotation = self.api.ledger.rotation(self.trust.factory.id, &self.name).await?;
        let rotation = rotation.ok_or_else(|| anyhow::anyhow!("it is gone"))?;
        self.over = !rotation.state.is_active();
        Ok(serde_json::to_string(&RotationView::new(&rotation, &self.trust))?)
    }
}

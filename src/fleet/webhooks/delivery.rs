//! One turn with a webhook: its events one by one, until one fails or none is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, warn};

use super::{Courier, event};
use crate::client::{ClientError, Poster};
use crate::clock::UnixTime;
use crate::keys::WebhookSecret;
use crate::ledger::{LedgerError, Turn, WebhookEvent};

/// How many events are read at once.
const PAGE: u32 = 100;
/// How often what was delivered is noted: what is lost with a crash is delivered once more.
const NOTED_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Delivery {
    courier: Arc<Courier>,
    turn: Turn,
    secret: WebhookSecret,
    poster: Result<Poster, ClientError>,
    stop: watch::Receiver<bool>,
    noted: Instant,
}

/// How the delivery of what waited has ended.
enum Ended {
    /// Nothing waits any more.
    Through,
    /// One event failed; for the last time, if its number is here.
    Failed(Option<i64>),
    /// The server ends.
    Stopped,
    /// The webhook is gone, or another server has its turn.
    Lost,
}

impl Delivery {
    pub(super) async fn new(
        courier: Arc<Courier>,
        turn: Turn,
        secret: WebhookSecret,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let poster = courier.poster(turn.url.uri()).await;
        Self { courier, turn, secret, poster, stop, noted: Instant::now() }
    }

    pub(super) async fn run(mut self) -> Result<(), LedgerError> {
        let dead = match self.deliver_events().await? {
            Ended::Through => {
                self.redeliver_letters().await?;
                None
            }
            Ended::Failed(dead) => dead,
            Ended::Stopped => None,
            Ended::Lost => return Ok(()),
        };
        self.courier.ledger.end_turn(self.turn, dead).await
    }

    async fn deliver_events(&mut self) -> Result<Ended, LedgerError> {
        loop {
            let page = self.courier.ledger.webhook_events(&self.turn, PAGE).await?;
            for event in &page.events {
                if *self.stop.borrow() {
                    return Ok(Ended::Stopped);
                }
                let number = event.row.number;
                if let Err(error) = self.post(event).await? {
                    return Ok(Ended::Failed(self.failed(number, &error)));
                }
                self.courier.metrics.webhook_delivery("delivered");
                self.turn.progress.delivered(number, UnixTime::now());
                if !self.still_has_turn().await? {
                    return Ok(Ended::Lost);
                }
            }
            self.turn.progress.done_to = page.looked_to;
            if page.events.is_empty() {
                return Ok(Ended::Through);
            }
        }
    }

    /// Dead letters come after what is new, so that what fails again holds nothing up, and the first
    /// that fails ends it for this turn.
    async fn redeliver_letters(&mut self) -> Result<(), LedgerError> {
        let ledger = self.courier.ledger.clone();
        for event in ledger.letters_to_redeliver(&self.turn, PAGE).await? {
            let number = event.row.number;
            if *self.stop.borrow() || !self.still_has_turn().await? {
                return Ok(());
            }
            if let Err(error) = self.post(&event).await? {
                self.courier.metrics.webhook_delivery("dead");
                return ledger.not_redelivered(&self.turn, number, &error).await;
            }
            self.courier.metrics.webhook_delivery("delivered");
            self.turn.progress.delivered_at = Some(UnixTime::now());
            ledger.redelivered(&self.turn, number).await?;
        }
        Ok(())
    }

    /// Posts an event. The inner error is why nobody took it.
    async fn post(&self, event: &WebhookEvent) -> Result<Result<(), String>, LedgerError> {
        let body = event::to_json(&self.courier.ledger, event).await?.to_string().into_bytes();
        let poster = match &self.poster {
            Ok(poster) => poster,
            Err(why) => return Ok(Err(why.to_string())),
        };
        let headers = [
            ("estd-event", event.kind.as_str().to_owned()),
            ("estd-delivery", format!("{}/{}", self.turn.name, event.row.number)),
            ("estd-signature", self.secret.sign(UnixTime::now(), &body)),
        ];
        let answer = poster.post(&headers, body).await;
        debug!(webhook = self.turn.name.as_str(), number = event.row.number, ?answer, "posted");
        Ok(match answer {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) if status.is_redirection() => {
                Err(format!("the receiver answered {status}, and redirects are not followed"))
            }
            Ok(status) => Err(format!("the receiver answered {status}")),
            Err(why) => Err(why.to_string()),
        })
    }

    /// Notes that an event failed; gives its number if that was the last time.
    fn failed(&mut self, number: i64, error: &str) -> Option<i64> {
        let dead = self.turn.progress.failed(number, error, UnixTime::now());
        let (webhook, result) = (self.turn.name.as_str(), if dead { "dead" } else { "failed" });
        let attempts = self.turn.progress.attempts;
        if dead {
            warn!(webhook, number, error, "not delivered, and given up: a dead letter");
        } else {
            warn!(webhook, number, attempts, error, "not delivered");
        }
        self.courier.metrics.webhook_delivery(result);
        dead.then_some(number)
    }

    async fn still_has_turn(&mut self) -> Result<bool, LedgerError> {
        if self.noted.elapsed() < NOTED_EVERY {
            return Ok(true);
        }
        self.noted = Instant::now();
        self.courier.ledger.prolong_turn(&mut self.turn).await
    }
}

//! The one writer: what arrives while a transaction is under way goes into the next one together,
//! so that many share one sync (group commit). Each waiter is woken after the commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tracing::error;

use super::LedgerError;
use super::batch::Batch;
use super::database::Database;
use super::facts::DeviceKey;
use super::tally::Tally;
use super::work::{Asker, Contact, Held, Introduced, Recorded, RefusedAsker, Registrar, Work};
use crate::clock::UnixTime;
use crate::keys::Signed;
use crate::model::audit::Entry;
use crate::model::{DeviceEvent, Refusal, Sighting};
use crate::pki::Fingerprint;
use crate::policy::{Introduction, Unapproved};

/// How much work goes into one transaction at most.
const BATCH_LIMIT: usize = 64;
/// How long a transaction waits for more work when there was more than one piece in the last.
const GATHER_TIME: Duration = Duration::from_millis(2);
/// How much work may wait; beyond, it is refused as busy (I11).
const QUEUE_LIMIT: usize = 4096;

#[derive(Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
    metrics: Arc<WriterMetrics>,
}

enum Message {
    Work(Box<Work>),
    Stop(oneshot::Sender<()>),
}

/// Counters of the writer.
#[derive(Debug, Default)]
pub struct WriterMetrics {
    /// Transactions committed.
    pub batches: AtomicU64,
    /// Pieces of work in them.
    pub recorded: AtomicU64,
    /// Pieces of work that could not be recorded.
    pub failed: AtomicU64,
    /// Pieces of work that were refused as an alarm (I6, I7).
    pub alarms: AtomicU64,
    /// Since when a transaction has been under way, in unix seconds; 0 while none is.
    pub busy_since: AtomicI64,
}

impl Writer {
    pub(super) fn start(database: Arc<Database>, repeats: Arc<Tally>) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE_LIMIT);
        let metrics = Arc::new(WriterMetrics::default());
        tokio::spawn(run((database, repeats), receiver, Arc::clone(&metrics)));
        Self { queue, metrics }
    }

    pub(super) async fn record(&self, signed: Signed, asker: Asker) -> Result<Recorded, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Work::Record { signed: Box::new(signed), asker, reply })?;
        answer.await.unwrap_or(Err(Refusal::LedgerUnavailable))
    }

    pub(super) async fn contact(&self, contact: Contact) -> Result<Sighting, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Work::Contact { contact, reply })?;
        answer.await.unwrap_or(Err(Refusal::LedgerUnavailable))
    }

    pub(super) async fn hold(
        &self,
        unapproved: Unapproved,
        request: Fingerprint,
        asker: Asker,
    ) -> Result<Held, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Work::Hold { unapproved: Box::new(unapproved), request, asker, reply })?;
        answer.await.unwrap_or(Err(Refusal::LedgerUnavailable))
    }

    pub(super) async fn introduce(
        &self,
        introduction: Introduction,
        registrar: Registrar,
    ) -> Result<Introduced, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Work::Introduce { introduction, registrar, reply })?;
        answer.await.unwrap_or(Err(Refusal::LedgerUnavailable))
    }

    pub(super) async fn announce(
        &self,
        device: DeviceKey,
        next: Fingerprint,
    ) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Work::Announce { device, next, reply })?;
        answer.await.unwrap_or(Err(Refusal::LedgerUnavailable))
    }

    pub(super) async fn tell(
        &self,
        device: DeviceKey,
        events: Vec<DeviceEvent>,
    ) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Work::Tell { device, events, reply })?;
        answer.await.map_err(|_| Refusal::LedgerUnavailable)
    }

    pub(super) async fn note(&self, entries: Vec<Entry>) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Work::Note { entries, reply })?;
        answer.await.map_err(|_| Refusal::LedgerUnavailable)
    }

    pub(super) async fn refuse(
        &self,
        entry: Entry,
        asker: RefusedAsker,
        refusal: Refusal,
    ) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Work::Refuse { entry, asker, refusal, reply })?;
        answer.await.map_err(|_| Refusal::LedgerUnavailable)
    }

    pub(super) fn metrics(&self) -> &WriterMetrics {
        &self.metrics
    }

    /// Waits until everything that was enqueued before is recorded, and ends the writer.
    pub(super) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.queue.send(Message::Stop(done)).await.is_ok() {
            // An error means that the writer is gone already, which is what is wanted.
            let _gone = stopped.await;
        }
    }

    fn enqueue(&self, work: Work) -> Result<(), Refusal> {
        self.queue.try_send(Message::Work(Box::new(work))).map_err(|full_or_closed| {
            match full_or_closed {
                mpsc::error::TrySendError::Full(_) => Refusal::Busy,
                mpsc::error::TrySendError::Closed(_) => Refusal::LedgerUnavailable,
            }
        })
    }
}

async fn run(
    onto: (Arc<Database>, Arc<Tally>),
    mut queue: mpsc::Receiver<Message>,
    metrics: Arc<WriterMetrics>,
) {
    let mut messages = Vec::with_capacity(BATCH_LIMIT);
    let mut busy = false;
    while queue.recv_many(&mut messages, BATCH_LIMIT).await > 0 {
        if busy {
            gather(&mut queue, &mut messages).await;
        }
        busy = messages.len() > 1;
        let mut stop = None;
        let mut works = Vec::with_capacity(messages.len());
        for message in messages.drain(..) {
            match message {
                Message::Work(work) => works.push(*work),
                Message::Stop(done) => stop = Some(done),
            }
        }
        metrics.busy_since.store(UnixTime::now().0, Ordering::Relaxed);
        write(&onto.0, &onto.1, works, &metrics).await;
        metrics.busy_since.store(0, Ordering::Relaxed);
        if let Some(done) = stop {
            let _nobody_waits = done.send(());
            return;
        }
    }
}

/// Under load, waits a little for more: a transaction costs much the same for one as for many.
async fn gather(queue: &mut mpsc::Receiver<Message>, messages: &mut Vec<Message>) {
    let end = Instant::now() + GATHER_TIME;
    while messages.len() < BATCH_LIMIT {
        let more = queue.recv_many(messages, BATCH_LIMIT - messages.len());
        match timeout_at(end, more).await {
            Ok(count) if count > 0 => {}
            _ => return,
        }
    }
}

async fn write(database: &Database, repeats: &Tally, works: Vec<Work>, metrics: &WriterMetrics) {
    if works.is_empty() {
        return;
    }
    let count = works.len();
    match Batch::run(database, repeats, works).await {
        Ok(alarms) => committed(metrics, count, alarms),
        // One piece of work must not take the others down with it. A database that is away, though,
        // takes all of them, and is not asked for each.
        Err((why, works)) if count > 1 && why.is_about_the_work() => {
            for work in works {
                match Batch::run(database, repeats, vec![work]).await {
                    Ok(alarms) => committed(metrics, 1, alarms),
                    Err((why, works)) => failed(metrics, &why, works),
                }
            }
        }
        Err((why, works)) => failed(metrics, &why, works),
    }
}

fn committed(metrics: &WriterMetrics, count: usize, alarms: usize) {
    metrics.batches.fetch_add(1, Ordering::Relaxed);
    metrics.recorded.fetch_add(count as u64, Ordering::Relaxed);
    metrics.alarms.fetch_add(alarms as u64, Ordering::Relaxed);
}

/// Tells the waiters, by dropping their reply channels, that nothing was recorded.
fn failed(metrics: &WriterMetrics, why: &LedgerError, works: Vec<Work>) {
    error!(error = %why, lost = works.len(), "the ledger could not record");
    metrics.failed.fetch_add(works.len() as u64, Ordering::Relaxed);
}

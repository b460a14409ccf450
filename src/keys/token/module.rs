//! A PKCS#11 module and the one thread that calls it. A module can be started once per process, so
//! all tokens of one module share it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11 as Context};
use cryptoki::error::{Error, RvError};
use tracing::{info, warn};

use super::session::{OpenError, Session, reason};
use super::{TokenError, TokenId};
use crate::config::{Pkcs11, Secret};

/// How much may wait for a module; beyond, it is refused (I11).
const QUEUE_LIMIT: usize = 1024;

static QUEUES: Mutex<BTreeMap<PathBuf, SyncSender<Job>>> = Mutex::new(BTreeMap::new());

pub(super) type Job = Box<dyn FnOnce(&mut Module) + Send>;

/// Hands work to the thread of the module at `path`, which is started if it does not run.
pub(super) fn enqueue(path: &Path, job: Job) -> Result<(), TokenError> {
    let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
    let queue = match queues.get(path) {
        Some(queue) => queue,
        None => {
            let queue = start(path)?;
            queues.entry(path.to_owned()).or_insert(queue)
        }
    };
    match queue.try_send(job) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(_)) => Err(TokenError::Busy),
        Err(TrySendError::Disconnected(_)) => {
            queues.remove(path);
            Err(TokenError::Failed("its thread has ended".to_owned()))
        }
    }
}

fn start(path: &Path) -> Result<SyncSender<Job>, TokenError> {
    let (queue, jobs) = sync_channel(QUEUE_LIMIT);
    let path = path.to_owned();
    thread::Builder::new()
        .name("pkcs11".to_owned())
        .spawn(move || run(path, &jobs))
        .map_err(|why| TokenError::Failed(format!("a thread for it: {why}")))?;
    Ok(queue)
}

fn run(path: PathBuf, jobs: &Receiver<Job>) {
    let mut module = Module {
        path,
        context: None,
        started: false,
        sessions: BTreeMap::new(),
        refused: BTreeMap::new(),
    };
    for job in jobs {
        job(&mut module);
    }
}

/// A module with the sessions in it. It never leaves its thread.
pub(super) struct Module {
    path: PathBuf,
    /// The library, once it is loaded.
    context: Option<Context>,
    started: bool,
    sessions: BTreeMap<TokenId, Session>,
    /// The PINs that their tokens refused.
    refused: BTreeMap<TokenId, Secret>,
}

impl Module {
    /// Works in the token's session. When that fails, it was perhaps the session that did: the same
    /// is tried once more in a new one, and if need be in a module that was started anew.
    pub(super) fn in_session<T>(
        &mut self,
        id: TokenId,
        settings: &Pkcs11,
        work: impl Fn(&mut Session) -> Result<T, TokenError>,
    ) -> Result<T, TokenError> {
        if let Some(mut session) = self.sessions.remove(&id) {
            match work(&mut session) {
                Ok(done) => {
                    self.sessions.insert(id, session);
                    return Ok(done);
                }
                Err(why) => warn!(error = %why, "the token's session is opened anew"),
            }
        }
        let mut session = match self.open(id, settings) {
            Err(TokenError::Absent { .. } | TokenError::Failed(_)) if self.started => {
                self.stop();
                self.open(id, settings)?
            }
            other => other?,
        };
        let done = work(&mut session)?;
        self.sessions.insert(id, session);
        Ok(done)
    }

    pub(super) fn forgive(&mut self, id: TokenId) {
        self.refused.remove(&id);
    }

    pub(super) fn close(&mut self, id: TokenId) {
        self.sessions.remove(&id);
        self.refused.remove(&id);
    }

    fn open(&mut self, id: TokenId, settings: &Pkcs11) -> Result<Session, TokenError> {
        let pin = settings.pin.read()?;
        let refused = || TokenError::PinRefused(settings.pin.to_string());
        if self.refused.get(&id).is_some_and(|known| known.as_str() == pin.as_str()) {
            return Err(refused());
        }
        let opened = Session::open(self.context()?, &settings.token, &pin);
        match opened {
            Ok(session) => {
                self.refused.remove(&id);
                info!(token = settings.token, "logged in to the token");
                Ok(session)
            }
            Err(OpenError::Pin) => {
                warn!(token = settings.token, "the login was refused");
                self.refused.insert(id, pin);
                Err(refused())
            }
            Err(OpenError::Other(why)) => Err(why),
        }
    }

    /// The library, loaded and started.
    fn context(&mut self) -> Result<&Context, TokenError> {
        let context = match self.context.take() {
            Some(context) => context,
            None => Context::new(&self.path).map_err(|why| failed(&self.path, &why))?,
        };
        let started = if self.started { Ok(()) } else { initialize(&context) };
        self.started = started.is_ok();
        let context = self.context.insert(context);
        match started {
            Ok(()) => Ok(context),
            Err(why) => Err(failed(&self.path, &why)),
        }
    }

    /// Ends the module, to be started again: some look for tokens only then.
    fn stop(&mut self) {
        self.sessions.clear();
        self.started = false;
        if let Some(Err(why)) = self.context.clone().map(Context::finalize) {
            warn!(error = reason(&why), "the PKCS#11 module does not end");
        }
    }
}

fn failed(path: &Path, why: &Error) -> TokenError {
    TokenError::Module(format!("{}: {}", path.display(), reason(why)))
}

fn initialize(context: &Context) -> Result<(), Error> {
    match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // By the same module under another path.
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(()),
        other => other,
    }
}

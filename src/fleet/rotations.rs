//! Rotations: how one is started, and the task that lets time act on them.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use tracing::error;

use crate::clock::UnixTime;
use crate::ledger::{ChangeError, ChangeRefused, DryRun, Ledger, NewRotation, Started, Wanted};
use crate::model::rotation::{Plan, RotationName};
use crate::model::{DeviceCa, DeviceName, FactoryTrust};
use crate::pki::Fingerprint;

/// How often slots are given out.
const STEP: Duration = Duration::from_secs(1);

/// What an operator asks for.
pub struct AskedRotation<'a> {
    /// Its name.
    pub name: RotationName,
    /// What the ledger keeps of it.
    pub plan: Plan,
    /// The Device CA that devices shall leave.
    pub device_ca: Option<&'a DeviceCa>,
    /// The Device CA that they shall have a certificate of.
    pub target: Option<&'a DeviceCa>,
    /// The only ones; `None`: any.
    pub named: Option<Vec<DeviceName>>,
    /// What tells the same request when it comes again, and SHA-256 of what came with it.
    pub request: Option<(String, Fingerprint)>,
}

/// Starts a rotation.
///
/// # Errors
/// When it would give devices what they have, for all that [`Ledger::start_rotation`] refuses, or
/// when the ledger fails.
pub async fn start(
    ledger: &Ledger,
    trust: &FactoryTrust,
    asked: AskedRotation<'_>,
    actor: &str,
) -> Result<Started, ChangeError> {
    check_issuer(trust, &asked)?;
    let wanted = wanted(&asked);
    let new = NewRotation {
        factory: trust.factory.id,
        name: asked.name,
        plan: asked.plan,
        target: asked.target.map(|ca| ca.id),
        request: asked.request,
        wanted,
    };
    ledger.start_rotation(new, actor).await
}

/// Tells what a rotation would do.
///
/// # Errors
/// As [`start`].
pub async fn dry_run(
    ledger: &Ledger,
    trust: &FactoryTrust,
    asked: &AskedRotation<'_>,
) -> Result<DryRun, ChangeError> {
    check_issuer(trust, asked)?;
    ledger.dry_run(trust.factory.id, &wanted(asked)).await
}

/// Devices must get what they do not have: otherwise the rotation would go on for ever.
fn check_issuer(trust: &FactoryTrust, asked: &AskedRotation<'_>) -> Result<(), ChangeRefused> {
    let (now, validity) = (UnixTime::now(), asked.plan.validity);
    let usual = trust.issuing_ca(now, validity);
    let issuer = match asked.target {
        Some(target) => trust.signing_ca(target.id, now),
        None => usual,
    };
    let issuer = issuer.ok_or(ChangeRefused::TargetDoesNotSign)?;
    if asked.device_ca.is_some_and(|leaving| leaving.id == issuer.id) {
        return Err(ChangeRefused::NothingLeaves);
    }
    // Where there is none that lives longer, devices make do with what there is.
    let end = issuer.certificate.validity().not_after;
    if end < now.plus(validity) && usual.is_some_and(|usual| usual.id != issuer.id) {
        return Err(ChangeRefused::TargetEndsSoon(end));
    }
    Ok(())
}

fn wanted(asked: &AskedRotation<'_>) -> Wanted {
    let selection = &asked.plan.selection;
    Wanted {
        device_ca: asked.device_ca.map(|ca| ca.id),
        group: selection.group.clone(),
        expires_before: selection.expires_before.map(UnixTime),
        key_algorithm: selection.key_algorithm.clone(),
        named: asked.named.clone(),
        not_on: asked.target.filter(|_| selection.leaves_out_target()).map(|ca| ca.id),
    }
}

/// Lets time act on the rotations until `drain`: slots come, patience ends. What it has done is in the
/// ledger, so that it goes on there after a restart, and on several servers at once.
pub async fn keep_going(ledger: Ledger, mut drain: watch::Receiver<bool>) {
    loop {
        let more = advance_all(&ledger).await;
        let pause = if more { Duration::ZERO } else { STEP };
        tokio::select! {
            () = sleep(pause) => {}
            _ = drain.wait_for(|drain| *drain) => return,
        }
    }
}

/// One that fails holds up no other.
async fn advance_all(ledger: &Ledger) -> bool {
    let rotations = ledger.advancing_rotations().await.unwrap_or_else(|why| {
        error!(error = %why, "the rotations cannot go on");
        Vec::new()
    });
    let mut more = false;
    for id in rotations {
        match ledger.advance_rotation(id).await {
            Ok(has_more) => more |= has_more,
            Err(why) => error!(rotation = id.0, error = %why, "a rotation cannot go on"),
        }
    }
    more
}

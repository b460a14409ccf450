//! What an event says, as JSON.

use serde_json::{Value, json};

use crate::ledger::{Ledger, LedgerError, WebhookEvent};
use crate::model::{EventKind, FactoryId, Switch};
use crate::pki::{Certificate, Fingerprint, to_pem};

/// The body of a delivery.
///
/// # Errors
/// When the ledger fails.
pub async fn to_json(ledger: &Ledger, event: &WebhookEvent) -> Result<Value, LedgerError> {
    let row = &event.row;
    let mut body = json!({
        "id": row.number,
        "event": event.kind.as_str(),
        "at": row.at,
        "factory": event.factory,
    });
    let switch = (event.kind == EventKind::DeviceRotated).then(|| Switch::parse(&row.detail));
    let more = match (switch.flatten(), row.factory) {
        (Some(switch), Some(factory)) => {
            rotated(ledger, FactoryId(factory), &row.subject, switch).await?
        }
        _ => json!({
            "actor": row.actor,
            "action": row.action,
            "subject": row.subject,
            "code": row.code,
            "detail": row.detail,
        }),
    };
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    Ok(body)
}

async fn rotated(
    ledger: &Ledger,
    factory: FactoryId,
    device: &str,
    switch: Switch,
) -> Result<Value, LedgerError> {
    let wanted: Vec<_> = [Some(switch.new), switch.old].into_iter().flatten().collect();
    let certificates = ledger.certificates(factory, device, &wanted).await?;
    let credential = |certificate: Fingerprint| {
        json!({
            "certificate_sha256": certificate.to_string(),
            "public_key": certificates.get(&certificate).and_then(public_key),
        })
    };
    Ok(json!({
        "device": device,
        "old": switch.old.map(credential),
        "new": credential(switch.new),
    }))
}

fn public_key(certificate: &Certificate) -> Option<String> {
    to_pem("PUBLIC KEY", certificate.public_key().der()).ok()
}

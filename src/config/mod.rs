//! Configuration: as written (file, environment, flags), then as meant, with every default here.

mod secret;
mod written;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hyper::Uri;
pub use secret::{Secret, SecretError, SecretSource};
pub use written::{Overrides, ServeOverrides, Written};

use crate::clock::UnixTime;
use crate::model::rotation::{FioconfigSettings, Pace, RotationDefaults, StopRule};
use crate::model::{AnswerStyle, Approval, EnrolmentProfile, Label, Profiles};
use crate::pki::Fingerprint;
use crate::telemetry::LogFormat;

/// Where files for other gateways are written, and what is run when they have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportTo {
    /// Each Factory has a folder of its own in it, with `cas.pem` and `crls.pem`.
    pub folder: PathBuf,
    /// A program and its arguments; none: nothing is run.
    pub hook: Vec<String>,
}

/// How a server runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of keys, the admin token and the embedded ledger.
    pub data_dir: PathBuf,
    /// The ledger's URL.
    pub ledger: String,
    /// Where the key-encryption key is, unless in the data folder.
    pub key_encryption_key: Option<SecretSource>,
    /// The token that keys of online Device CAs are made in; otherwise they are in the ledger.
    pub pkcs11: Option<Pkcs11>,
    /// Where EST listens.
    pub est_listen: SocketAddr,
    /// Where the device gateway listens.
    pub gateway_listen: SocketAddr,
    /// Where files for other gateways are written.
    pub export: Option<ExportTo>,
    /// The server behind the device gateway: `http://HOST[:PORT]` or `https://HOST[:PORT]`.
    pub gateway_upstream: Option<Uri>,
    /// Where the API listens.
    pub api_listen: SocketAddr,
    /// The port at which devices reach EST, if it is not the one that EST listens at.
    pub est_public_port: Option<u16>,
    /// What holds for a rotation that says nothing else.
    pub rotation: RotationDefaults,
    /// The enrolment profiles.
    pub profiles: Profiles,
    /// SHA-256 of the public keys that may act as registration authority.
    pub registration_authorities: HashSet<Fingerprint>,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_filter: String,
}

/// A PKCS#11 token.
#[derive(Clone, Debug)]
pub struct Pkcs11 {
    /// The module: a shared library.
    pub module: PathBuf,
    /// The token's label.
    pub token: String,
    /// Where its user's PIN is read, at each login anew.
    pub pin: SecretSource,
}

/// A key whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct ConfigError {
    /// The key, as in the file.
    pub key: String,
    /// What is wrong with its value.
    pub reason: String,
}

impl ConfigError {
    fn new(key: impl Into<String>, reason: impl ToString) -> Self {
        Self { key: key.into(), reason: reason.to_string() }
    }
}

const DATA_DIR: &str = "./estd-data";
const EST_LISTEN: &str = "0.0.0.0:8443";
const GATEWAY_LISTEN: &str = "0.0.0.0:8444";
const API_LISTEN: &str = "127.0.0.1:8080";
const LOG_FILTER: &str = "info";
const FIOCONFIG: &str = "fioconfig";
const PER_MINUTE: u32 = 60;
/// A week: devices that are switched on at weekends only have their turn.
const PATIENCE_HOURS: u32 = 7 * 24;
/// What a certificate may live at most: longer than any device.
const MAX_VALIDITY_DAYS: i64 = 100 * 365;

impl Config {
    /// What `written` means.
    ///
    /// # Errors
    /// Every key whose value cannot be used.
    pub fn from_written(written: Written) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let data_dir = written.data_dir.unwrap_or_else(|| PathBuf::from(DATA_DIR));
        let ledger = written.ledger.url.unwrap_or_else(|| sqlite_url(&data_dir));
        if !ledger.starts_with("sqlite:") && !ledger.starts_with("postgres") {
            let reason = "must begin with sqlite: or postgres:";
            errors.push(ConfigError::new("ledger.url", reason));
        }
        let pkcs11 = written
            .keys
            .pkcs11
            .and_then(|keys| pkcs11(keys, written.secrets.pkcs11_pin, &mut errors));
        let est_listen = address("est.listen", written.est.listen, EST_LISTEN, &mut errors);
        let gateway_listen =
            address("gateway.listen", written.gateway.listen, GATEWAY_LISTEN, &mut errors);
        let gateway_upstream = upstream(written.gateway.upstream, &mut errors);
        let export = export(written.export, &mut errors);
        let api_listen = address("api.listen", written.api.listen, API_LISTEN, &mut errors);
        let profiles = profiles(written.est.profile, written.est.labels, &mut errors);
        let authorities = registration_authorities(
            written.est.registration_authorities.unwrap_or_default(),
            &mut errors,
        );
        let rotation = rotation(written.rotation, &mut errors);
        let log_filter = written.log.filter.unwrap_or_else(|| LOG_FILTER.to_owned());
        if let Err(why) = tracing_subscriber::EnvFilter::try_new(&log_filter) {
            errors.push(ConfigError::new("log.filter", why));
        }
        match (est_listen, gateway_listen, api_listen) {
            (Some(est_listen), Some(gateway_listen), Some(api_listen)) if errors.is_empty() => {
                Ok(Self {
                    data_dir,
                    ledger,
                    key_encryption_key: written.secrets.key_encryption_key,
                    pkcs11,
                    est_public_port: written.est.public_port,
                    rotation,
                    est_listen,
                    gateway_listen,
                    gateway_upstream,
                    export,
                    api_listen,
                    profiles,
                    registration_authorities: authorities,
                    log_format: written.log.format.unwrap_or_default(),
                    log_filter,
                })
            }
            _ => Err(errors),
        }
    }

    /// Where the key-encryption key is.
    pub fn key_encryption(&self) -> SecretSource {
        self.key_encryption_key.clone().unwrap_or_else(|| SecretSource::File(self.key_file()))
    }

    /// The file of the key-encryption key, where it comes neither from the environment nor from a
    /// systemd credential.
    pub fn key_file(&self) -> PathBuf {
        self.data_dir.join("key-encryption-key")
    }

    /// The file of the admin token.
    pub fn admin_token_file(&self) -> PathBuf {
        self.data_dir.join("admin-token")
    }
}

fn sqlite_url(data_dir: &Path) -> String {
    format!("sqlite:{}", data_dir.join("ledger.sqlite").display())
}

fn pkcs11(
    written: written::Pkcs11,
    pin: Option<SecretSource>,
    errors: &mut Vec<ConfigError>,
) -> Option<Pkcs11> {
    let key = |name: &str| format!("keys.pkcs11.{name}");
    if written.module.is_none() {
        errors.push(ConfigError::new(key("module"), "must name the PKCS#11 module, a .so file"));
    }
    if written.token.is_none() {
        errors.push(ConfigError::new(key("token"), "must be the token's label"));
    }
    // The environment goes over the file, as everywhere.
    let pin = match (pin, written.pin_file) {
        (Some(environment @ SecretSource::Environment(..)), _) => Some(environment),
        (_, Some(file)) => Some(SecretSource::File(file)),
        (other, None) => other,
    };
    if pin.is_none() {
        let reason = "must name the file of the PIN, unless ESTD_PKCS11_PIN or the systemd \
                      credential pkcs11-pin holds it";
        errors.push(ConfigError::new(key("pin_file"), reason));
    }
    Some(Pkcs11 { module: written.module?, token: written.token?, pin: pin? })
}

fn address(
    key: &str,
    written: Option<String>,
    default: &str,
    errors: &mut Vec<ConfigError>,
) -> Option<SocketAddr> {
    let text = written.unwrap_or_else(|| default.to_owned());
    match text.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let reason = format!("{text:?} is not ADDRESS:PORT, for instance {default}");
            errors.push(ConfigError::new(key, reason));
            None
        }
    }
}

fn export(written: written::Export, errors: &mut Vec<ConfigError>) -> Option<ExportTo> {
    let hook = written.hook.unwrap_or_default();
    let Some(folder) = written.folder else {
        if !hook.is_empty() {
            errors.push(ConfigError::new("export.folder", "must be there where export.hook is"));
        }
        return None;
    };
    Some(ExportTo { folder, hook })
}

fn upstream(written: Option<String>, errors: &mut Vec<ConfigError>) -> Option<Uri> {
    let text = written?;
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        let user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        scheme
            && uri.host().is_some()
            && !user
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
    });
    if uri.is_none() {
        let reason = format!("{text:?} is not http://HOST[:PORT] or https://HOST[:PORT]");
        errors.push(ConfigError::new("gateway.upstream", reason));
    }
    uri
}

fn profiles(
    unlabelled: written::Profile,
    labelled: std::collections::BTreeMap<String, written::Profile>,
    errors: &mut Vec<ConfigError>,
) -> Profiles {
    let mut profiles = Profiles {
        unlabelled: profile("est.profile", unlabelled, EnrolmentProfile::default(), errors),
        ..Profiles::default()
    };
    let fioconfig =
        EnrolmentProfile { answer: AnswerStyle::Fioconfig, ..EnrolmentProfile::default() };
    if let Ok(label) = Label::parse(FIOCONFIG) {
        profiles.labelled.insert(label, fioconfig.clone());
    }
    for (text, written) in labelled {
        let key = format!("est.labels.{text}");
        match Label::parse(&text) {
            Ok(label) => {
                let default =
                    if text == FIOCONFIG { fioconfig.clone() } else { EnrolmentProfile::default() };
                profiles.labelled.insert(label, profile(&key, written, default, errors));
            }
            Err(why) => errors.push(ConfigError::new(key, why)),
        }
    }
    profiles
}

fn profile(
    key: &str,
    written: written::Profile,
    default: EnrolmentProfile,
    errors: &mut Vec<ConfigError>,
) -> EnrolmentProfile {
    let days = written.validity_days;
    if days.is_some_and(|days| !(1..=MAX_VALIDITY_DAYS).contains(&days)) {
        let reason = format!("must be 1 to {MAX_VALIDITY_DAYS}");
        errors.push(ConfigError::new(format!("{key}.validity_days"), reason));
    }
    if written.keys.as_ref().is_some_and(Vec::is_empty) {
        errors.push(ConfigError::new(format!("{key}.keys"), "must name at least one kind of key"));
    }
    let answer = written.answer.map_or(default.answer, Into::into);
    let approval = written.approval.map_or(default.approval, Into::into);
    if (answer, approval) == (AnswerStyle::Fioconfig, Approval::Manual) {
        // 202 is a failure to it, and it comes back every 10 seconds with a new key for ever.
        let reason = "`manual` cannot go with answer = \"fioconfig\": these agents do not wait";
        errors.push(ConfigError::new(format!("{key}.approval"), reason));
    }
    EnrolmentProfile {
        answer,
        validity_seconds: days
            .map_or(default.validity_seconds, |days| days.saturating_mul(24 * 3600)),
        keys: written.keys.map_or(default.keys, |keys| keys.into_iter().map(Into::into).collect()),
        require_challenge_password: written
            .require_challenge_password
            .unwrap_or(default.require_challenge_password),
        approval,
    }
}

fn rotation(written: written::Rotation, errors: &mut Vec<ConfigError>) -> RotationDefaults {
    let pace = Pace {
        per_minute: written.per_minute.unwrap_or(PER_MINUTE),
        canary: written.canary.unwrap_or(0),
        window: None,
        begin: None,
        until: None,
    };
    if let Err(why) = pace.check(UnixTime(0)) {
        errors.push(ConfigError::new("rotation.per_minute", why));
    }
    let patience_hours = written.patience_hours.unwrap_or(PATIENCE_HOURS);
    if patience_hours == 0 {
        errors.push(ConfigError::new("rotation.patience_hours", "must be at least 1"));
    }
    let default = FioconfigSettings::default();
    let mut ids = |key: &str, written: Option<String>, default: String| {
        let ids = written.unwrap_or(default);
        if !FioconfigSettings::are_ids(&ids) {
            let reason = "must be hex numbers separated by commas, for instance 01,07";
            errors.push(ConfigError::new(format!("rotation.{key}"), reason));
        }
        ids
    };
    let pkey_ids = ids("pkey_ids", written.pkey_ids, default.pkey_ids);
    let cert_ids = ids("cert_ids", written.cert_ids, default.cert_ids);
    RotationDefaults {
        pace,
        stop: StopRule::default(),
        patience: i64::from(patience_hours) * 3600,
        fioconfig: FioconfigSettings { label: default.label, pkey_ids, cert_ids },
    }
}

fn registration_authorities(
    written: Vec<String>,
    errors: &mut Vec<ConfigError>,
) -> HashSet<Fingerprint> {
    let mut authorities = HashSet::new();
    for text in written {
        match Fingerprint::from_hex(&text) {
            Some(fingerprint) => {
                authorities.insert(fingerprint);
            }
            None => errors.push(ConfigError::new(
                "est.registration_authorities",
                format!("{text:?} is not the 64 hex digits of a public key's SHA-256"),
            )),
        }
    }
    authorities
}

#[cfg(test)]
mod tests {
    use super::{Config, Written};
    use crate::model::{AnswerStyle, Label};

    fn read(text: &str) -> Result<Config, Vec<String>> {
        let written = toml::from_str::<Written>(text).map_err(|why| vec![why.to_string()])?;
        Config::from_written(written)
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn an_empty_file_is_the_embedded_default() {
        let config = read("").unwrap();
        assert_eq!(config.ledger, "sqlite:./estd-data/ledger.sqlite");
        let label = Label::parse("fioconfig").unwrap();
        let fioconfig = config.profiles.select(Some(&label)).unwrap();
        assert_eq!(fioconfig.answer, AnswerStyle::Fioconfig);
    }

    #[test]
    fn every_wrong_key_is_named() {
        let errors = read(
            "[gateway]\nupstream = 'http://u@x/y'\n[export]\nhook = ['true']\n[est]\nlisten = 'here'\nregistration_authorities = ['x']\n\
             [est.labels.fioconfig]\napproval = 'manual'\n\
             [est.labels.cacerts]\n[est.labels.x]\nvalidity_days = 0\nkeys = []\n[ledger]\nurl = 'mysql:x'\n\
             [keys.pkcs11]\n[rotation]\nper_minute = 0\npatience_hours = 0\npkey_ids = 'one'",
        )
        .unwrap_err();
        for key in [
            "gateway.upstream",
            "export.folder",
            "est.listen",
            "est.registration_authorities",
            "est.labels.cacerts",
            "est.labels.x.validity_days",
            "est.labels.x.keys",
            "est.labels.fioconfig.approval",
            "ledger.url",
            "keys.pkcs11.module",
            "keys.pkcs11.token",
            "keys.pkcs11.pin_file",
            "rotation.per_minute",
            "rotation.patience_hours",
            "rotation.pkey_ids",
        ] {
            let named = errors.iter().any(|error| error.starts_with(&format!("{key}:")));
            assert!(named, "{key} is not in {errors:?}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        assert!(read("[est]\nlisen = '0.0.0.0:1'").is_err());
    }
}

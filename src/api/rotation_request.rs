//! A rotation to be started: as it is written, then as it is meant.

use serde::Deserialize;

use super::Api;
use super::error::ApiError;
use crate::clock::UnixTime;
use crate::fleet::rotations::AskedRotation;
use crate::model::rotation::{
    DailyWindow, FioconfigSettings, Pace, Plan, RotationName, Selection, StopRule,
};
use crate::model::{Approval, DeviceCa, DeviceName, EnrolmentProfile, FactoryTrust, Label};
use crate::pki::KeyAlgorithm;

/// How many devices may be named.
const NAMES_LIMIT: usize = 10_000;
/// How long a reason may be, in characters: it is shown wherever the rotation is.
pub(super) const REASON_LIMIT: usize = 1000;
const HOUR: i64 = 3600;

/// A rotation to be started, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Written {
    id: Option<String>,
    #[serde(default)]
    reason: String,
    select: WrittenSelection,
    /// The serial number of the Device CA that shall issue.
    target: Option<String>,
    #[serde(default)]
    pace: WrittenPace,
    stop: Option<WrittenStop>,
    patience_hours: Option<u32>,
    #[serde(default)]
    fioconfig: WrittenFioconfig,
    #[serde(default)]
    pub(super) dry_run: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenSelection {
    all: bool,
    device_ca: Option<String>,
    group: Option<String>,
    expires_before: Option<String>,
    key_algorithm: Option<String>,
    devices: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenPace {
    per_minute: Option<u32>,
    canary: Option<u32>,
    window: Option<String>,
    begin: Option<String>,
    until: Option<String>,
}

/// `{"never":true}`, or how many failures of how many devices are too many.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStop {
    #[serde(default)]
    never: bool,
    last: Option<u32>,
    percent: Option<u8>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenFioconfig {
    label: Option<String>,
    pkey_ids: Option<String>,
    cert_ids: Option<String>,
}

impl Written {
    /// What is meant, in a Factory.
    pub(super) fn asked<'a>(
        self,
        api: &Api,
        trust: &'a FactoryTrust,
    ) -> Result<AskedRotation<'a>, ApiError> {
        let now = UnixTime::now();
        let defaults = &api.rotation_defaults;
        let device_ca = self.select.device_ca.as_deref().map(|serial| find_ca(trust, serial));
        let target = self.target.as_deref().map(|serial| find_ca(trust, serial));
        let (device_ca, target) = (device_ca.transpose()?, target.transpose()?);
        let named = self.select.named()?;
        let name = self.id.as_deref().map(RotationName::parse).transpose()?;
        let patience = match self.patience_hours {
            None => defaults.patience,
            Some(0) => return Err(ApiError::bad_request("patience_hours must be at least 1")),
            Some(hours) => i64::from(hours) * HOUR,
        };
        check_reason(&self.reason)?;
        let profile = profile(api, "fioconfig.label", self.fioconfig.label.as_deref())?;
        let plan = Plan {
            selection: self.select.selection(device_ca, named.as_deref())?,
            pace: self.pace.meant(&defaults.pace, now)?,
            stop: stop_rule(self.stop, defaults.stop)?,
            patience,
            validity: profile.validity_seconds,
            fioconfig: self.fioconfig.meant(&defaults.fioconfig)?,
            reason: self.reason,
        };
        let name = name.unwrap_or_else(|| RotationName::at(now));
        Ok(AskedRotation { name, plan, device_ca, target, named, request: None })
    }
}

impl WrittenSelection {
    fn named(&self) -> Result<Option<Vec<DeviceName>>, ApiError> {
        let Some(written) = &self.devices else {
            return Ok(None);
        };
        if written.is_empty() || written.len() > NAMES_LIMIT {
            let why = format!("select.devices must name 1 to {NAMES_LIMIT} devices");
            return Err(ApiError::bad_request(why));
        }
        let mut names = written.clone();
        names.sort_unstable();
        names.dedup();
        let names = names.iter().map(|name| DeviceName::parse(name)).collect::<Result<_, _>>()?;
        Ok(Some(names))
    }

    fn selection(
        self,
        device_ca: Option<&DeviceCa>,
        named: Option<&[DeviceName]>,
    ) -> Result<Selection, ApiError> {
        let expires_before =
            self.expires_before.as_deref().map(|text| time("expires_before", text));
        let selection = Selection {
            device_ca: device_ca.map(|ca| ca.certificate.serial().to_string()),
            group: self.group,
            expires_before: expires_before.transpose()?.map(|time| time.0),
            key_algorithm: self.key_algorithm,
            named: named.map(<[_]>::len),
        };
        if selection.group.as_deref() == Some("") {
            return Err(ApiError::bad_request("select.group is empty: name a group"));
        }
        let algorithm = selection.key_algorithm.as_deref();
        if algorithm.is_some_and(|text| KeyAlgorithm::parse(text).is_none()) {
            let why =
                "select.key_algorithm must be P-256, P-384, Ed25519, or RSA-2048 for instance";
            return Err(ApiError::bad_request(why));
        }
        if self.all == (selection != Selection::default()) {
            let why = "select must say which devices: device_ca, group, expires_before, \
                       key_algorithm, devices, or all and nothing else";
            return Err(ApiError::bad_request(why));
        }
        Ok(selection)
    }
}

impl WrittenPace {
    fn meant(self, default: &Pace, now: UnixTime) -> Result<Pace, ApiError> {
        let window = self.window.as_deref().map(DailyWindow::parse).transpose();
        let begin = self.begin.as_deref().map(|text| time("pace.begin", text)).transpose()?;
        let until = self.until.as_deref().map(|text| time("pace.until", text)).transpose()?;
        let pace = Pace {
            per_minute: self.per_minute.unwrap_or(default.per_minute),
            canary: self.canary.unwrap_or(default.canary),
            window: window.map_err(ApiError::bad_request)?,
            begin: begin.map(|time| time.0),
            until: until.map(|time| time.0),
        };
        pace.check(now).map_err(ApiError::bad_request)?;
        Ok(pace)
    }
}

impl WrittenFioconfig {
    fn meant(self, default: &FioconfigSettings) -> Result<FioconfigSettings, ApiError> {
        let settings = FioconfigSettings {
            label: self.label,
            pkey_ids: self.pkey_ids.unwrap_or_else(|| default.pkey_ids.clone()),
            cert_ids: self.cert_ids.unwrap_or_else(|| default.cert_ids.clone()),
        };
        for (key, ids) in [("pkey_ids", &settings.pkey_ids), ("cert_ids", &settings.cert_ids)] {
            if !FioconfigSettings::are_ids(ids) {
                let why = format!("fioconfig.{key} must be hex numbers separated by commas");
                return Err(ApiError::bad_request(why));
            }
        }
        Ok(settings)
    }
}

/// The profile that devices are sent to, under the label that `key` names. They must be able to get a
/// certificate there: an agent that is told to wait makes a new request each time, which no approval
/// fits.
pub(super) fn profile(
    api: &Api,
    key: &str,
    label: Option<&str>,
) -> Result<EnrolmentProfile, ApiError> {
    let named = label.map(Label::parse).transpose()?;
    let active = api.active.load();
    let why = match (active.snapshot().profiles.select(named.as_ref()), label) {
        (Some(profile), _) if profile.approval == Approval::Automatic => {
            return Ok(profile.clone());
        }
        (Some(_), Some(label)) => format!("requests under the label {label} wait for an operator"),
        (Some(_), None) => "requests without a label wait for an operator".to_owned(),
        (None, label) => format!("no profile has the label {}", label.unwrap_or_default()),
    };
    Err(ApiError::bad_request(format!("{key}: {why}: name one that is approved by itself")))
}

pub(super) fn check_reason(reason: &str) -> Result<(), ApiError> {
    if reason.chars().count() > REASON_LIMIT {
        let why = format!("reason: {REASON_LIMIT} characters at most");
        return Err(ApiError::bad_request(why));
    }
    Ok(())
}

fn stop_rule(
    written: Option<WrittenStop>,
    default: StopRule,
) -> Result<Option<StopRule>, ApiError> {
    match written {
        None => Ok(Some(default)),
        Some(WrittenStop { never: true, last: None, percent: None }) => Ok(None),
        Some(WrittenStop { never: true, .. }) => {
            Err(ApiError::bad_request("stop: never, or a rule, not both"))
        }
        Some(WrittenStop { never: false, last, percent }) => {
            let last = last.unwrap_or(default.last);
            let rule = StopRule::new(last, percent.unwrap_or(default.percent));
            let why = "stop: last must be 1 to 1000 devices, percent 0 to 99";
            rule.map(Some).ok_or_else(|| ApiError::bad_request(why))
        }
    }
}

fn time(key: &str, text: &str) -> Result<UnixTime, ApiError> {
    let why = || ApiError::bad_request(format!("{key} must be a time in RFC 3339, or a date"));
    UnixTime::parse(text).ok_or_else(why)
}

fn find_ca<'a>(trust: &'a FactoryTrust, serial: &str) -> Result<&'a DeviceCa, ApiError> {
    let why = || ApiError::not_found("this Factory has no Device CA with that serial number");
    trust.device_ca_by_written_serial(serial).ok_or_else(why)
}

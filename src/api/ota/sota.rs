//! `sota.toml`: how aktualizr-lite on a device reaches its gateway. What the registering client
//! overrides goes in as it stands, once it has proved to be one TOML value and nothing else.

use std::collections::BTreeMap;

use crate::model::HostName;

/// Where the device gateway listens, unless it is configured otherwise.
const GATEWAY_PORT: u16 = 8444;
/// Where a device keeps its keys and configuration unless it says otherwise.
const CONFIG_DIR: &str = "/var/sota";

const MAX_OVERRIDES: usize = 200;
const MAX_VALUE: usize = 4096;
const MAX_NAME: usize = 64;
const MAX_CONFIG_DIR: usize = 255;

/// Sections, keys, and TOML values; an empty value or none unsets the key.
pub(super) type Overrides = BTreeMap<String, BTreeMap<String, Option<String>>>;

/// What a device's configuration is made of.
pub(super) struct SotaToml<'a> {
    pub(super) gateway: &'a HostName,
    pub(super) hardware_id: Option<&'a str>,
    pub(super) config_dir: Option<&'a str>,
    pub(super) overrides: &'a Overrides,
}

/// A part of the request that cannot go into the file.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {reason}")]
pub(super) struct SotaRefused {
    pub(super) field: String,
    pub(super) reason: String,
}

type Section = (String, Vec<(String, Option<String>)>);
type Sections = Vec<Section>;

impl SotaToml<'_> {
    /// The file.
    pub(super) fn text(&self) -> Result<String, SotaRefused> {
        let mut sections = self.defaults()?;
        if self.overrides.values().map(BTreeMap::len).sum::<usize>() > MAX_OVERRIDES {
            return Err(refuse("overrides", &format!("they are more than {MAX_OVERRIDES}")));
        }
        for (section, keys) in self.overrides {
            for (key, value) in keys {
                let value = value.as_deref().filter(|value| !value.is_empty());
                check(section, key, value)?;
                set(&mut sections, section, key, value);
            }
        }
        let text = write(&sections);
        match toml::from_str::<toml::Table>(&text) {
            Ok(_) => Ok(text),
            Err(why) => Err(refuse("overrides", &format!("they make no TOML: {}", why.message()))),
        }
    }

    fn defaults(&self) -> Result<Sections, SotaRefused> {
        let folder = self.config_dir.filter(|folder| !folder.is_empty()).unwrap_or(CONFIG_DIR);
        let is_path = folder.starts_with('/') && !folder.chars().any(char::is_control);
        if !is_path || folder.len() > MAX_CONFIG_DIR {
            return Err(refuse("sota-config-dir", "it is not an absolute path"));
        }
        let folder = folder.trim_end_matches('/');
        let gateway = format!("https://{}:{GATEWAY_PORT}", self.gateway);
        let file = "file".to_owned();
        let mut provision = vec![("server", gateway.clone())];
        provision.extend(self.hardware_id.map(|id| ("primary_ecu_hardware_id", id.to_owned())));
        let sections = [
            (
                "tls",
                vec![
                    ("server", gateway.clone()),
                    ("ca_source", file.clone()),
                    ("pkey_source", file.clone()),
                    ("cert_source", file.clone()),
                ],
            ),
            ("provision", provision),
            ("uptane", vec![("repo_server", format!("{gateway}/repo")), ("key_source", file)]),
            (
                "pacman",
                vec![
                    ("type", "ostree+compose_apps".to_owned()),
                    ("ostree_server", format!("{gateway}/treehub")),
                    ("compose_apps_root", format!("{folder}/compose-apps")),
                ],
            ),
            ("storage", vec![("type", "sqlite".to_owned()), ("path", format!("{folder}/"))]),
            (
                "import",
                vec![
                    ("tls_cacert_path", format!("{folder}/root.crt")),
                    ("tls_pkey_path", format!("{folder}/pkey.pem")),
                    ("tls_clientcert_path", format!("{folder}/client.pem")),
                ],
            ),
        ];
        let quoted = sections.map(|(section, keys)| {
            let keys = keys
                .into_iter()
                .map(|(key, value)| (key.to_owned(), Some(toml::Value::String(value).to_string())));
            (section.to_owned(), keys.collect())
        });
        Ok(quoted.into())
    }
}

fn check(section: &str, key: &str, value: Option<&str>) -> Result<(), SotaRefused> {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let is_bare = |name: &str| !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(bare);
    if !is_bare(section) || !is_bare(key) {
        let reason = "sections and keys are 1 to 64 letters, digits, '_' and '-'";
        return Err(refuse("overrides", reason));
    }
    let Some(value) = value else { return Ok(()) };
    let field = format!("overrides.{section}.{key}");
    if value.len() > MAX_VALUE || value.chars().any(char::is_control) {
        let reason = format!("it is longer than {MAX_VALUE} bytes, or has control characters");
        return Err(refuse(&field, &reason));
    }
    match toml::from_str::<toml::Table>(&format!("value = {value}")) {
        Ok(table) if table.len() == 1 => Ok(()),
        _ => Err(refuse(&field, "it is not one TOML value (is a string without its quotes?)")),
    }
}

fn set(sections: &mut Sections, section: &str, key: &str, value: Option<&str>) {
    let place = sections.iter().position(|(name, _)| name == section).unwrap_or_else(|| {
        sections.push((section.to_owned(), Vec::new()));
        sections.len() - 1
    });
    let Some((_, keys)) = sections.get_mut(place) else { return };
    let value = value.map(str::to_owned);
    match keys.iter_mut().find(|(name, _)| name == key) {
        Some((_, old)) => *old = value,
        None => keys.push((key.to_owned(), value)),
    }
}

fn write(sections: &Sections) -> String {
    let section = |(section, keys): &Section| {
        let keys = keys.iter().map(|(key, value)| match value {
            Some(value) => format!("{key} = {value}\n"),
            None => format!("# {key} is unset\n"),
        });
        format!("[{section}]\n{}", keys.collect::<String>())
    };
    sections.iter().map(section).collect::<Vec<_>>().join("\n")
}

fn refuse(field: &str, reason: &str) -> SotaRefused {
    SotaRefused { field: field.to_owned(), reason: reason.to_owned() }
}

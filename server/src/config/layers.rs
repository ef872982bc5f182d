//! The layers of the configuration merged by figment, each value with the place it came from; typed access that
//! collects faults instead of stopping at the first.

use figment::value::{Dict, Map as ProfileMap, Value};
use figment::{Error, Figment, Metadata, Profile, Provider};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use super::settings::{OBSOLETE_VARS, OTHER_VARS, SETTINGS, Setting};
use super::{ConfigFault, Notice, Overrides};
use crate::document::{self, Faults, Section, nearest};

/// The embedded defaults.
pub(super) const DEFAULTS: &str = include_str!("defaults.toml");

/// The merged layers.
pub(super) struct Layers {
    figment: Figment,
    faults: RefCell<Vec<ConfigFault>>,
    notices: RefCell<Vec<Notice>>,
    /// Keys that were read, so that a test can tell that every default has an effect.
    #[cfg(test)]
    pub(super) read: RefCell<std::collections::BTreeSet<String>>,
}

/// A layer: a dictionary with the name of its place.
struct Layer {
    place: String,
    values: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.place.clone())
    }

    fn data(&self) -> Result<ProfileMap<Profile, Dict>, Error> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

impl Layer {
    fn of(place: impl Into<String>, key: &str, value: impl Into<Value>) -> Layer {
        let values = figment::util::nest(key, value.into());
        Layer {
            place: place.into(),
            values: values.into_dict().unwrap_or_default(),
        }
    }
}

impl Layers {
    /// Merges the defaults, the file's text (with the path it is called by), the environment and the flags.
    pub(super) fn new(file: Option<(&Path, &str)>, env: &BTreeMap<String, String>, flags: &Overrides) -> Layers {
        let mut layers = Layers {
            figment: Figment::new(),
            faults: RefCell::default(),
            notices: RefCell::default(),
            #[cfg(test)]
            read: RefCell::default(),
        };
        layers.merge_file(Path::new("defaults.toml"), DEFAULTS);
        if let Some((path, text)) = file {
            layers.merge_file(path, text);
        }
        layers.merge_env(env);
        layers.merge_flags(flags);
        layers
    }

    fn merge(&mut self, layer: Layer) {
        self.figment = std::mem::take(&mut self.figment).merge(layer);
    }

    fn merge_file(&mut self, path: &Path, text: &str) {
        let faults = Faults::new(text);
        let root = document::parse(text, &faults);
        if faults.is_empty() {
            let mut file = Section::new("the file", 1, root.get_ref(), &faults);
            self.read_section("", &mut file, path);
            let mut sections: Vec<&'static str> =
                SETTINGS.iter().map(|s| s.section).filter(|s| !s.is_empty()).collect();
            sections.dedup();
            for name in sections {
                if let Some(mut section) = file.section(name, format!("[{name}]")) {
                    self.read_section(name, &mut section, path);
                    section.finish();
                }
            }
            file.finish();
        }
        for fault in faults.into_sorted() {
            self.fault(format!("{}:{}", path.display(), fault.line), fault.what, fault.remedy);
        }
    }

    fn read_section(&mut self, name: &str, section: &mut Section<'_, '_>, path: &Path) {
        for setting in SETTINGS.iter().filter(|s| s.section == name) {
            let Some(spot) = section.json(setting.name) else {
                continue;
            };
            let key = setting.key();
            let place = format!("{}:{}", path.display(), spot.line);
            match Value::serialize(&spot.value) {
                Ok(value) => self.merge(Layer::of(place, &key, value)),
                Err(error) => self.fault(place, format!("`{key}`: {error}"), "write a plain value"),
            }
        }
    }

    fn merge_env(&mut self, env: &BTreeMap<String, String>) {
        let set = |var: &str| env.get(var).map(|v| v.trim()).filter(|v| !v.is_empty());
        for setting in SETTINGS {
            let mut given = setting.vars.iter().filter_map(|var| Some((*var, set(var)?)));
            let Some((var, value)) = given.next() else { continue };
            self.merge(Layer::of(var, &setting.key(), value));
            for (other, _) in given.filter(|(_, other)| *other != value) {
                self.notice(other, format!("is set too and differs; {var} counts"));
            }
        }
        for (var, why) in OBSOLETE_VARS {
            if set(var).is_some() {
                self.notice(*var, format!("has no effect: {why}"));
            }
        }
        let ours = || {
            let settings = SETTINGS.iter().flat_map(|s| s.vars.iter().copied());
            settings
                .chain(OTHER_VARS.iter().copied())
                .filter(|var| var.starts_with("VELRO_"))
        };
        for (var, value) in env.iter().filter(|(var, _)| var.starts_with("VELRO_")) {
            if !is_service_link(var, value) && !ours().any(|known| known == var) {
                let hint = match nearest(var, ours()) {
                    Some(known) => format!("did you mean {known}?"),
                    None => "it has no effect".to_owned(),
                };
                self.notice(var, format!("is not a known variable; {hint}"));
            }
        }
    }

    fn merge_flags(&mut self, flags: &Overrides) {
        let path = |p: &Option<std::path::PathBuf>| p.as_ref().map(|p| p.display().to_string());
        for (flag, key, value) in [
            ("--role", "server.role", flags.role.clone()),
            ("--host", "server.host", flags.host.clone()),
            ("--port", "server.port", flags.port.map(|port| port.to_string())),
            ("--data", "storage.data_dir", path(&flags.data_dir)),
            ("--providers", "providers.path", path(&flags.providers_path)),
            ("--log-level", "log.level", flags.log_level.clone()),
        ] {
            if let Some(value) = value {
                self.merge(Layer::of(flag, key, value));
            }
        }
    }

    /// Notes a fault at a place.
    pub(super) fn fault(&self, place: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.borrow_mut().push(ConfigFault {
            place: place.into(),
            what: what.into(),
            remedy: remedy.into(),
        });
    }

    /// Notes a fault of the value of a key, at the place it came from.
    pub(super) fn fault_of(&self, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let what = format!("`{key}` {}", what.into());
        self.fault(self.place(key), what, remedy);
    }

    /// Says something that does not stop the start.
    pub(super) fn notice(&self, place: impl Into<String>, text: impl Into<String>) {
        self.notices.borrow_mut().push(Notice {
            place: place.into(),
            text: text.into(),
        });
    }

    /// Where the value of a key came from: a variable, `file:line`, a flag, or `default`.
    pub(super) fn place(&self, key: &str) -> String {
        let place = self.figment.find_metadata(key).map(|m| m.name.to_string());
        place
            .filter(|p| !p.starts_with("defaults.toml:"))
            .unwrap_or("default".into())
    }

    /// Ends the resolving.
    pub(super) fn into_findings(self) -> (Vec<ConfigFault>, Vec<Notice>) {
        (self.faults.into_inner(), self.notices.into_inner())
    }

    fn value(&self, key: &str) -> Option<Value> {
        #[cfg(test)]
        self.read.borrow_mut().insert(key.to_owned());
        self.figment.find_value(key).ok()
    }

    /// How a value is called in a message: secrets are not shown.
    fn shown(key: &str, value: &Value) -> String {
        let secret = SETTINGS.iter().any(|s: &Setting| s.secret && s.key() == key);
        match value.as_str() {
            _ if secret => "not as it must be".to_owned(),
            Some(text) => format!("is \"{text}\""),
            None => match value.deserialize::<serde_json::Value>() {
                Ok(value) => format!("is {value}"),
                Err(_) => "is of another type".to_owned(),
            },
        }
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) {
        self.fault_of(key, Self::shown(key, value), format!("write {expected}"));
    }

    /// A text; empty when it is not set.
    pub(super) fn text(&self, key: &str) -> String {
        let Some(value) = self.value(key) else {
            return String::new();
        };
        match value.as_str() {
            Some(text) => text.trim().to_owned(),
            None => {
                self.wrong(key, &value, "a text in quotes");
                String::new()
            }
        }
    }

    /// A whole number within a range; its lower end when something is wrong (which has been noted).
    pub(super) fn integer(&self, key: &str, range: RangeInclusive<i64>) -> i64 {
        let Some(value) = self.value(key) else {
            return *range.start();
        };
        let number = match value.as_str() {
            Some(text) => text.parse().ok(),
            None => {
                let unsigned = || value.to_u128().and_then(|n| i64::try_from(n).ok());
                value.to_i128().and_then(|n| i64::try_from(n).ok()).or_else(unsigned)
            }
        };
        match number.filter(|n| range.contains(n)) {
            Some(number) => number,
            None => {
                let expected = format!("a whole number from {} to {}", range.start(), range.end());
                self.wrong(key, &value, &expected);
                *range.start()
            }
        }
    }

    /// The same where an empty text means that it is not set.
    pub(super) fn optional_integer(&self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        match self.value(key)?.as_str() {
            Some(text) if text.trim().is_empty() => None,
            _ => Some(self.integer(key, range)),
        }
    }

    /// Yes or no.
    pub(super) fn boolean(&self, key: &str) -> bool {
        let Some(value) = self.value(key) else { return false };
        let flag = match value.as_str().map(str::to_ascii_lowercase).as_deref() {
            Some("true" | "1" | "yes" | "on") => Some(true),
            Some("false" | "0" | "no" | "off") => Some(false),
            Some(_) => None,
            None => value.to_bool(),
        };
        flag.unwrap_or_else(|| {
            self.wrong(key, &value, "true or false");
            false
        })
    }

    /// Any value as JSON; a text is JSON that has to be parsed. `None` when it is not set.
    pub(super) fn json(&self, key: &str) -> Option<Result<serde_json::Value, serde_json::Error>> {
        let value = self.value(key)?;
        Some(match value.as_str() {
            Some(text) => serde_json::from_str(text),
            None => value.deserialize().map_err(serde::de::Error::custom),
        })
    }

    /// A list; as text a JSON array, a comma list or one value.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        let Some(value) = self.value(key) else {
            return Vec::new();
        };
        let items: Option<Vec<String>> = match (value.as_str(), value.as_array()) {
            (Some(text), _) if text.trim_start().starts_with('[') => serde_json::from_str(text).ok(),
            (Some(text), _) => Some(text.split(',').map(str::to_owned).collect()),
            (None, Some(items)) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
            (None, None) => None,
        };
        let Some(items) = items else {
            self.wrong(key, &value, "a list of texts, for example [\"a\", \"b\"]");
            return Vec::new();
        };
        let items = items.iter().map(|item| item.trim().to_owned());
        items.filter(|item| !item.is_empty()).collect()
    }
}

/// Kubernetes gives every pod variables about the services around it; a service called `velro` makes `VELRO_PORT` and
/// the like. They are not meant for us.
fn is_service_link(var: &str, value: &str) -> bool {
    let address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    address
        || ["_SERVICE_HOST", "_SERVICE_PORT", "_TCP_", "_UDP_"]
            .iter()
            .any(|part| var.contains(part))
}

//! A network configuration list, and the document each of its plugins is fed.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Attachment, Failure};

/// A `.conflist` as a runtime has read it.
#[derive(Debug, Clone)]
pub struct Conflist {
    /// The version all plugins are spoken to in.
    pub cni_version: String,
    /// The network's name.
    pub name: String,
    /// Whether CHECK must not be called.
    pub disable_check: bool,
    /// The plugins in the order of ADD.
    pub plugins: Vec<Map<String, Value>>,
}

impl Conflist {
    /// Reads a list from JSON.
    ///
    /// # Errors
    /// When it is none: no name, no plugin, a plugin without a type.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |what: String| Failure::Configuration(what);
        let list: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let word = |key: &str| list[key].as_str().map(str::to_owned);
        let name = word("name").ok_or_else(|| wrong("no name".to_owned()))?;
        let plugins = list["plugins"].as_array().ok_or_else(|| wrong("no plugins".to_owned()))?;
        let plugins: Vec<Map<String, Value>> =
            plugins.iter().filter_map(|plugin| plugin.as_object().cloned()).collect();
        if plugins.is_empty()
            || plugins.iter().any(|plugin| !plugin.get("type").is_some_and(Value::is_string))
        {
            return Err(wrong(format!("{name}: every plugin needs a type")));
        }
        Ok(Self {
            // A list without a version is as old as lists can be.
            cni_version: word("cniVersion").unwrap_or_else(|| "0.2.0".to_owned()),
            disable_check: list["disableCheck"] == true,
            name,
            plugins,
        })
    }

    /// A list of these plugins.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn of(version: &str, name: &str, plugins: Value) -> Result<Self, Failure> {
        Self::parse(&json!({"cniVersion": version, "name": name, "plugins": plugins}).to_string())
    }

    /// As a file, for a runtime that reads folders.
    pub fn document(&self) -> Value {
        json!({"cniVersion": self.cni_version, "name": self.name, "plugins": self.plugins,
               "disableCheck": self.disable_check})
    }

    /// Writes it as a runtime should find it: whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let next = path.with_extension("new");
        std::fs::write(&next, format!("{:#}", self.document()))?;
        std::fs::rename(next, path)
    }

    /// Whether this version is at least that one.
    pub(super) fn is_at_least(&self, least: [u32; 3]) -> bool {
        let mut parts = self.cni_version.split('.').map(|part| part.parse().unwrap_or(0));
        let version = [parts.next(), parts.next(), parts.next()].map(Option::unwrap_or_default);
        version >= least
    }

    /// What one plugin of the list is fed for an attachment.
    pub(super) fn derive(
        &self,
        plugin: &Map<String, Value>,
        capabilities: &BTreeMap<String, Value>,
        previous: Option<&Value>,
    ) -> Map<String, Value> {
        let mut document = self.base(plugin);
        let offered = plugin.get("capabilities").and_then(Value::as_object);
        let wanted: Map<String, Value> = offered
            .into_iter()
            .flatten()
            .filter(|(_, on)| **on == true)
            .filter_map(|(name, _)| Some((name.clone(), capabilities.get(name)?.clone())))
            .collect();
        if !wanted.is_empty() {
            document.insert("runtimeConfig".to_owned(), Value::Object(wanted));
        }
        if let Some(previous) = previous {
            document.insert("prevResult".to_owned(), previous.clone());
        }
        document
    }

    /// What one plugin is fed for GC.
    pub(super) fn derive_gc(&self, plugin: &Map<String, Value>, valid: &[Attachment]) -> Map<String, Value> {
        let valid: Vec<Value> =
            valid.iter().map(|one| json!({"containerID": one.container_id, "ifname": one.ifname})).collect();
        let mut document = self.base(plugin);
        document.insert("cni.dev/valid-attachments".to_owned(), Value::Array(valid));
        document
    }

    /// The plugin's own keys, with what the list adds and without what is only for runtimes.
    pub(super) fn base(&self, plugin: &Map<String, Value>) -> Map<String, Value> {
        let mut document = plugin.clone();
        document.remove("capabilities");
        document.insert("cniVersion".to_owned(), self.cni_version.clone().into());
        document.insert("name".to_owned(), self.name.clone().into());
        document
    }
}

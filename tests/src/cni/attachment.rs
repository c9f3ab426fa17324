//! One interface of one container, as a runtime asks for it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::netns::Netns;

/// What a runtime knows of an attachment before any plugin runs.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// `CNI_CONTAINERID`.
    pub container_id: String,
    /// `CNI_NETNS`; none for a DEL after the namespace is gone.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`.
    pub ifname: String,
    /// `CNI_ARGS`, in this order.
    pub args: Vec<(String, String)>,
    /// What the container asks of plugins that offer a capability: `portMappings`, `bandwidth`, `ips`, `mac` …
    pub capabilities: BTreeMap<String, Value>,
}

impl Attachment {
    /// `eth0` of a container that has this namespace.
    pub fn new(container_id: &str, netns: &Netns) -> Self {
        Self {
            container_id: container_id.to_owned(),
            netns: Some(netns.path()),
            ifname: "eth0".to_owned(),
            args: Vec::new(),
            capabilities: BTreeMap::new(),
        }
    }

    /// With one more `CNI_ARGS` pair.
    #[must_use]
    pub fn arg(mut self, key: &str, value: &str) -> Self {
        self.args.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With an argument for plugins that offer this capability.
    #[must_use]
    pub fn capability(mut self, name: &str, value: Value) -> Self {
        self.capabilities.insert(name.to_owned(), value);
        self
    }

    /// What a runtime remembers it by.
    pub(super) fn key(&self) -> (String, String) {
        (self.container_id.clone(), self.ifname.clone())
    }

    /// `K=V;K=V`.
    pub(super) fn joined_args(&self) -> String {
        let pairs: Vec<String> = self.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(";")
    }
}

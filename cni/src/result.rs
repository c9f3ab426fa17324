//! A result, read and written in the shape of each version of the specification.
//!
//! ```text
//! 0.1.0, 0.2.0   ip4 {ip, gateway, routes}, ip6 likewise, dns
//! 0.3.0 – 0.4.0  interfaces, ips {version, interface, address, gateway}, routes, dns
//! 1.0.0          the same without ips.version
//! 1.1.0          interfaces also have mtu, socketPath, pciID; routes mtu, advmss, priority, table, scope
//! ```

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::version::Version;

/// What only 1.1.0 knows of an interface, and of a route.
const NEW_OF_INTERFACE: [&str; 3] = ["mtu", "socketPath", "pciID"];
const NEW_OF_ROUTE: [&str; 5] = ["mtu", "advmss", "priority", "table", "scope"];

/// What a verb brought about, in the newest shape.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Outcome {
    /// The interfaces, on the host and inside.
    #[serde(deserialize_with = "lenient")]
    pub(crate) interfaces: Vec<Interface>,
    /// The addresses.
    #[serde(deserialize_with = "lenient")]
    pub(crate) ips: Vec<Ip>,
    /// The routes inside.
    #[serde(deserialize_with = "lenient")]
    pub(crate) routes: Vec<Route>,
    /// How names are resolved.
    pub(crate) dns: Dns,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Interface {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) mac: String,
    /// The namespace's path; empty on the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) sandbox: String,
    /// What others say beyond that.
    #[serde(flatten)]
    pub(crate) more: Map<String, Value>,
}

/// An address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ip {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interface: Option<usize>,
    pub(crate) address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<String>,
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) dst: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gw: Option<String>,
    /// What others say beyond that.
    #[serde(flatten)]
    pub(crate) more: Map<String, Value>,
}

/// How names are resolved; handed through.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Dns {
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    nameservers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    domain: String,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    search: Vec<String>,
    #[serde(deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    options: Vec<String>,
}

/// The shape before 0.3.0.
#[derive(Deserialize)]
struct Old {
    ip4: Option<OldIp>,
    ip6: Option<OldIp>,
    #[serde(default)]
    dns: Dns,
}

/// One family in the shape before 0.3.0.
#[derive(Serialize, Deserialize)]
struct OldIp {
    ip: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<String>,
    #[serde(default, deserialize_with = "lenient", skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
}

/// A list that is `null` is an empty one: Go writes it so.
fn lenient<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Dns {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Interface {
    /// An interface on the host.
    pub(crate) fn on_host(name: String, mac: String) -> Self {
        Self { name, mac, ..Self::default() }
    }
}

impl Ip {
    /// An address of the interface with that place in the list, if it is of one.
    pub(crate) fn new(address: String, gateway: Option<String>, interface: Option<usize>) -> Self {
        Self { version: None, interface, address, gateway }
    }
}

impl Outcome {
    /// Reads the result of another plugin, or an earlier one of ours, in whatever shape it has.
    pub(crate) fn parse(value: &Value) -> Result<Self, serde_json::Error> {
        if value.get("ip4").is_none() && value.get("ip6").is_none() {
            return Self::deserialize(value);
        }
        let Old { ip4, ip6, dns } = Old::deserialize(value)?;
        let mut outcome = Self { dns, ..Self::default() };
        for OldIp { ip, gateway, routes } in ip4.into_iter().chain(ip6) {
            outcome.ips.push(Ip::new(ip, gateway, None));
            outcome.routes.extend(routes);
        }
        Ok(outcome)
    }

    /// Writes it in the shape of a version.
    pub(crate) fn document(&self, version: Version) -> String {
        if version <= Version::V0_2_0 { self.in_old_shape(version) } else { self.in_new_shape(version) }
    }

    fn in_old_shape(&self, version: Version) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Document<'a> {
            cni_version: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            ip4: Option<OldIp>,
            #[serde(skip_serializing_if = "Option::is_none")]
            ip6: Option<OldIp>,
            #[serde(skip_serializing_if = "Dns::is_empty")]
            dns: &'a Dns,
        }
        // It has room for one address of each family: the first.
        let family = |six: bool| {
            let ip = self.ips.iter().find(|ip| ip.address.contains(':') == six)?;
            let routes = self.routes.iter().filter(|route| route.dst.contains(':') == six);
            let routes = routes.map(|route| route.of(version)).collect();
            Some(OldIp { ip: ip.address.clone(), gateway: ip.gateway.clone(), routes })
        };
        json(&Document {
            cni_version: version.as_str(),
            ip4: family(false),
            ip6: family(true),
            dns: &self.dns,
        })
    }

    fn in_new_shape(&self, version: Version) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Document<'a> {
            cni_version: &'static str,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            interfaces: Vec<Interface>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            ips: Vec<Ip>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            routes: Vec<Route>,
            #[serde(skip_serializing_if = "Dns::is_empty")]
            dns: &'a Dns,
        }
        let ip = |ip: &Ip| {
            let family = if ip.address.contains(':') { "6" } else { "4" };
            Ip { version: (version < Version::V1_0_0).then(|| family.to_owned()), ..ip.clone() }
        };
        json(&Document {
            cni_version: version.as_str(),
            interfaces: self.interfaces.iter().map(|interface| interface.of(version)).collect(),
            ips: self.ips.iter().map(ip).collect(),
            routes: self.routes.iter().map(|route| route.of(version)).collect(),
            dns: &self.dns,
        })
    }
}

impl Interface {
    fn of(&self, version: Version) -> Self {
        Self { more: known(&self.more, &NEW_OF_INTERFACE, version), ..self.clone() }
    }
}

impl Route {
    fn of(&self, version: Version) -> Self {
        Self { more: known(&self.more, &NEW_OF_ROUTE, version), ..self.clone() }
    }
}

/// Leaves out what a version does not know.
fn known(more: &Map<String, Value>, new: &[&str], version: Version) -> Map<String, Value> {
    let keep = |key: &str| version >= Version::V1_1_0 || !new.contains(&key);
    more.iter().filter(|(key, _)| keep(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Writes a document of ours, which always can be written: no map in it has keys that are not text.
pub(crate) fn json(document: &impl Serialize) -> String {
    serde_json::to_string(document).expect("keys are text and nothing in it fails to serialise")
}

#[cfg(test)]
mod tests;

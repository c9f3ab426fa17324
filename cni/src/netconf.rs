//! The network configuration: what stands on the standard input, with what a runtime adds to it.
//!
//! Unknown fields pass: runtimes and later versions of the specification add their own.

use serde::{Deserialize, Deserializer};
use weft_api::CniName;

use crate::{call::is_name, error::Error, result::Dns, result::Outcome, result::Route};

/// Where the router listens when the configuration does not say.
const SOCKET: &str = "/run/weft/weft.sock";
/// The IPAM type that is the router's own.
const OWN_IPAM: &str = "weft-ipam";

/// A network configuration.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NetConf {
    /// The network's name.
    #[serde(default)]
    pub(crate) name: String,
    /// The bridge; refused when the router has another.
    pub(crate) bridge: Option<String>,
    /// The pods' MTU in bytes; 0 is the router's.
    pub(crate) mtu: Option<u32>,
    /// Whether a pod may reach itself by its own service address; on unless switched off.
    pub(crate) hairpin_mode: Option<bool>,
    /// Whether a pod is to reach the outside by its host's addresses; on unless switched off.
    pub(crate) ip_masq: Option<bool>,
    /// Who gives out addresses.
    #[serde(default)]
    pub(crate) ipam: IpamConf,
    /// The router's API socket.
    pub(crate) socket: Option<String>,
    /// Handed through to the result.
    pub(crate) dns: Option<Dns>,
    args: Option<Arguments>,
    runtime_config: Option<RuntimeConfig>,
    prev_result: Option<serde_json::Value>,
    #[serde(rename = "cni.dev/valid-attachments", default, deserialize_with = "given")]
    valid: Option<Vec<Attachment>>,
}

/// Who gives out addresses, and which.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct IpamConf {
    /// The IPAM plugin; `weft-ipam`, or nothing, is the router.
    #[serde(rename = "type", default)]
    kind: String,
    /// Where an address is to be taken from.
    pub(crate) subnet: Option<String>,
    /// Where routes without a gateway lead.
    pub(crate) gateway: Option<String>,
    /// The routes inside; by default the default route.
    pub(crate) routes: Option<Vec<Route>>,
}

/// `args.cni`: the older way by which a runtime asks for addresses (CONVENTIONS of the specification).
#[derive(Debug, Deserialize)]
struct Arguments {
    cni: Option<RuntimeConfig>,
}

/// `runtimeConfig`: the capabilities `ips` and `mac`.
#[derive(Debug, Deserialize)]
struct RuntimeConfig {
    ips: Option<Vec<String>>,
    mac: Option<String>,
}

/// One attachment that is in use.
#[derive(Debug, Deserialize)]
struct Attachment {
    #[serde(rename = "containerID")]
    container: String,
    ifname: String,
}

/// A list that is `null` is an empty one; only one that is not there is none.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<Attachment>>, D::Error> {
    Ok(Some(Option::deserialize(deserializer)?.unwrap_or_default()))
}

impl NetConf {
    /// Reads and checks a configuration.
    pub(crate) fn parse(input: &[u8]) -> Result<Self, Error> {
        let conf: Self = serde_json::from_slice(input).map_err(|error| Error::undecodable(&error))?;
        if !is_name(&conf.name) {
            let shown: String = conf.name.chars().take(60).collect();
            return Err(Error::configuration(format!(
                "name {shown:?}: it must begin with a letter or digit and go on with letters, digits, '_', '.' and '-'"
            )));
        }
        if !conf.ipam.kind.is_empty() && !is_name(&conf.ipam.kind) {
            // It becomes a file's name: nothing but a plain one may.
            let shown: String = conf.ipam.kind.chars().take(60).collect();
            return Err(Error::configuration(format!("ipam type {shown:?} is no plugin's name")));
        }
        if conf.socket.as_ref().is_some_and(|socket| !socket.starts_with('/')) {
            return Err(Error::configuration("socket: it must be an absolute path"));
        }
        Ok(conf)
    }

    /// The router's API socket.
    pub(crate) fn socket(&self) -> &str {
        self.socket.as_deref().unwrap_or(SOCKET)
    }

    /// The IPAM plugin of others that is to be asked, if one is.
    pub(crate) fn delegate(&self) -> Option<&str> {
        Some(self.ipam.kind.as_str()).filter(|kind| !kind.is_empty() && *kind != OWN_IPAM)
    }

    /// The MTU that was asked for.
    pub(crate) fn mtu(&self) -> Option<u32> {
        self.mtu.filter(|mtu| *mtu > 0)
    }

    /// The addresses that the runtime asks for, the newest way first.
    pub(crate) fn addresses(&self, arguments: &[String]) -> Vec<String> {
        let asked = self.asked().filter_map(|asked| asked.ips.clone());
        asked.chain([arguments.to_vec()]).find(|ips| !ips.is_empty()).unwrap_or_default()
    }

    /// The MAC address that the runtime asks for, the newest way first.
    pub(crate) fn mac(&self, argument: Option<&str>) -> Option<String> {
        let asked = self.asked().find_map(|asked| asked.mac.clone().filter(|mac| !mac.is_empty()));
        asked.or_else(|| argument.map(str::to_owned))
    }

    fn asked(&self) -> impl Iterator<Item = &RuntimeConfig> {
        let older = self.args.as_ref().and_then(|args| args.cni.as_ref());
        self.runtime_config.iter().chain(older)
    }

    /// The result of the plugin before, or of the ADD before.
    pub(crate) fn previous(&self) -> Result<Option<Outcome>, Error> {
        let previous = self.prev_result.as_ref().filter(|previous| !previous.is_null());
        previous
            .map(Outcome::parse)
            .transpose()
            .map_err(|error| Error::configuration(format!("prevResult cannot be decoded: {error}")))
    }

    /// What a garbage collection is to leave.
    pub(crate) fn valid(&self) -> Result<Vec<CniName>, Error> {
        let missing = || Error::configuration("cni.dev/valid-attachments is missing");
        let valid = self.valid.as_ref().ok_or_else(missing)?.iter();
        Ok(valid
            .map(|one| CniName { container: one.container.clone(), ifname: one.ifname.clone() })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NetConf, Error> {
        NetConf::parse(text.as_bytes())
    }

    #[test]
    fn the_smallest_configuration_has_defaults_and_unknown_fields_pass() {
        let conf =
            parse(r#"{"name":"weft","type":"weft-net","future":{"x":[1]},"ipam":{"also":1}}"#).unwrap();
        assert_eq!(conf.socket(), "/run/weft/weft.sock");
        assert_eq!((conf.delegate(), conf.mtu()), (None, None));
        assert!(conf.addresses(&[]).is_empty() && conf.previous().unwrap().is_none());
        assert!(
            parse(r#"{"name":"weft","ipam":{"type":"weft-ipam"},"mtu":0}"#).unwrap().delegate().is_none()
        );
    }

    #[test]
    fn what_cannot_be_decoded_is_6_and_what_makes_no_sense_7() {
        let deep = format!("{{\"name\":\"n\",\"prevResult\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
        for bad in [
            "",
            "{",
            "[]",
            "7",
            r#"{"name":7}"#,
            r#"{"name":"n","name":"m"}"#,
            r#"{"name":"n","mtu":-1}"#,
            &deep,
        ] {
            assert_eq!(parse(bad).unwrap_err().code, 6, "{}", &bad[..bad.len().min(40)]);
        }
        for bad in [
            "{}",
            r#"{"name":""}"#,
            r#"{"name":"../../x"}"#,
            r#"{"name":"n","ipam":{"type":"../host-local"}}"#,
            r#"{"name":"n","socket":"weft.sock"}"#,
        ] {
            assert_eq!(parse(bad).unwrap_err().code, 7, "{bad}");
        }
    }

    #[test]
    fn the_newest_way_to_ask_for_an_address_wins() {
        let conf = parse(
            r#"{"name":"n","args":{"cni":{"ips":["10.0.0.2"],"mac":"02:00:00:00:00:02"}},
                "runtimeConfig":{"ips":["10.0.0.1/8"]}}"#,
        );
        let conf = conf.unwrap();
        assert_eq!(conf.addresses(&["10.0.0.3".into()]), ["10.0.0.1/8"]);
        assert_eq!(conf.mac(Some("02:00:00:00:00:03")).unwrap(), "02:00:00:00:00:02");
        let conf = parse(r#"{"name":"n"}"#).unwrap();
        assert_eq!(conf.addresses(&["10.0.0.3".into()]), ["10.0.0.3"]);
    }

    #[test]
    fn an_empty_list_of_attachments_is_one_and_a_missing_one_is_refused() {
        let conf = |list: &str| parse(&format!(r#"{{"name":"n"{list}}}"#)).unwrap().valid();
        assert_eq!(conf("").unwrap_err().code, 7);
        assert!(conf(r#","cni.dev/valid-attachments":null"#).unwrap().is_empty());
        assert!(conf(r#","cni.dev/valid-attachments":[]"#).unwrap().is_empty());
        let one = conf(r#","cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}]"#).unwrap();
        assert_eq!(one, [CniName { container: "c".into(), ifname: "eth0".into() }]);
    }
}

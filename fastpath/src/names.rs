//! What our objects are called, and how we know them again.
//!
//! A Linux interface name has at most 15 bytes. Everything is named after the bridge, so two routers with two
//! bridges share a host:
//!
//! ```text
//! weft          the bridge (as given)
//! weft-sl       sleeve port: the end of the sleeve pair that is a port of the bridge
//! weft-io       capture end: the other end, where the router reads and writes frames
//! weft-vx       VXLAN device over IPv4
//! weft-v6       VXLAN device over IPv6
//! wvXXXXXXXXXXX host end of a container link: 44 bits of a hash over bridge, id and interface
//! ```
//!
//! A name proves nothing, so each object carries two marks. The *alias* (`IFLA_IFALIAS`) says what it is and for
//! whom; it is no look-up name, so it cannot clash, it has room for an id, it survives renaming, and people see it
//! in `ip link`. But the kernel takes no alias in the request that creates a link. So every link is also *born
//! into a link group of ours* (`IFLA_GROUP`, which creation does take): a crash between the two leaves a link that
//! is known to be ours, and the next look only adds the alias. By the group, too, the source filter knows at the cost of
//! one comparison what comes from containers (see `filter`). (Alternative names were rejected: they are unique
//! per namespace, resolve in look-ups, and cannot hold a slash.)

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::vxlan::Underlay;

/// The link group our links are born into: `weft` in ASCII.
pub const GROUP: u32 = u32::from_be_bytes(*b"weft");

/// How many bytes the kernel allows in an interface name.
const NAME_LIMIT: usize = 15;
/// How many bytes of a bridge name leave room for the suffixes.
const BRIDGE_LIMIT: usize = NAME_LIMIT - 3;
/// How long an id may be: an alias holds 255 bytes with bridge, interface and id in it.
const ID_LIMIT: usize = 200;

/// The name of the bridge, from which the names of all our objects follow.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BridgeName(String);

impl BridgeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The end of the sleeve pair that is an isolated port of the bridge.
    pub fn sleeve_port(&self) -> String {
        format!("{}-sl", self.0)
    }

    /// The end of the sleeve pair that the router captures on and injects into.
    pub fn capture(&self) -> String {
        format!("{}-io", self.0)
    }

    /// The VXLAN device over one underlay.
    pub fn vxlan(&self, underlay: Underlay) -> String {
        match underlay {
            Underlay::V4 => format!("{}-vx", self.0),
            Underlay::V6 => format!("{}-v6", self.0),
        }
    }

    /// Which of our VXLAN devices has this name.
    pub fn underlay_of(&self, name: &str) -> Option<Underlay> {
        Underlay::ALL.into_iter().find(|underlay| self.vxlan(*underlay) == name)
    }

    /// The host end of a container link.
    pub fn host_end(&self, port: &PortId) -> String {
        let text = format!("{}\0{}\0{}", self.0, port.id, port.ifname);
        format!("wv{:011x}", fnv1a(text.as_bytes()) >> 20)
    }
}

impl Default for BridgeName {
    fn default() -> Self {
        Self("weft".to_owned())
    }
}

impl fmt::Display for BridgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BridgeName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        valid_interface("bridge", name)?;
        if name.len() > BRIDGE_LIMIT {
            let cause =
                format!("a bridge name has at most {BRIDGE_LIMIT} bytes (three are kept for its ports)");
            return Err(Error::refused(format!("bridge `{name}`"), cause));
        }
        Ok(Self(name.to_owned()))
    }
}

/// A container link: whose it is and what it is called inside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortId {
    /// The id the attachment was made under.
    pub id: String,
    /// The name of the interface inside the container.
    pub ifname: String,
}

impl PortId {
    /// Makes an id after checking that both parts can stand in the kernel.
    ///
    /// # Errors
    /// Refused, when the id is empty, too long or not printable, or the interface name is none.
    pub fn new(id: &str, ifname: &str) -> Result<Self, Error> {
        if id.is_empty() || id.len() > ID_LIMIT || id.chars().any(char::is_control) {
            let shown: String = id.chars().take(40).flat_map(char::escape_default).collect();
            let cause = format!("an id has 1 to {ID_LIMIT} printable bytes");
            return Err(Error::refused(format!("id `{shown}`"), cause));
        }
        valid_interface("interface", ifname)?;
        Ok(Self { id: id.to_owned(), ifname: ifname.to_owned() })
    }
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.ifname, self.id)
    }
}

/// What one of our links is for; written into its alias.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The bridge it belongs to.
    pub bridge: BridgeName,
    /// What it is for.
    pub role: Role,
}

/// The parts our links play.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// The bridge itself.
    Bridge,
    /// The isolated port of the bridge that leads to the sleeve.
    SleevePort,
    /// Where the router captures and injects.
    Capture,
    /// The VXLAN device over one underlay.
    Vxlan(Underlay),
    /// The host end of a container link.
    Container(PortId),
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "weft/{}/", self.bridge)?;
        match &self.role {
            Role::Bridge => f.write_str("bridge"),
            Role::SleevePort => f.write_str("sleeve"),
            Role::Capture => f.write_str("capture"),
            Role::Vxlan(Underlay::V4) => f.write_str("vxlan"),
            Role::Vxlan(Underlay::V6) => f.write_str("vxlan6"),
            Role::Container(port) => write!(f, "link/{}/{}", port.ifname, port.id),
        }
    }
}

impl Mark {
    /// Reads an alias; None when it is not one of ours.
    pub fn parse(alias: &str) -> Option<Self> {
        let (bridge, role) = alias.strip_prefix("weft/")?.split_once('/')?;
        let role = match role {
            "bridge" => Role::Bridge,
            "sleeve" => Role::SleevePort,
            "capture" => Role::Capture,
            "vxlan" => Role::Vxlan(Underlay::V4),
            "vxlan6" => Role::Vxlan(Underlay::V6),
            _ => {
                let (ifname, id) = role.strip_prefix("link/")?.split_once('/')?;
                Role::Container(PortId::new(id, ifname).ok()?)
            }
        };
        Some(Self { bridge: bridge.parse().ok()?, role })
    }
}

/// Checks what the kernel would refuse in an interface name, so that the message can say it in words.
fn valid_interface(what: &str, name: &str) -> Result<(), Error> {
    let odd = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control();
    let cause = if name.is_empty() {
        "the name is empty".to_owned()
    } else if name.len() > NAME_LIMIT {
        format!("an interface name has at most {NAME_LIMIT} bytes")
    } else if name == "." || name == ".." || name.contains(odd) {
        "an interface name has no slash, colon, percent sign or blank, and is not `.` or `..`".to_owned()
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(40).flat_map(char::escape_default).collect();
    Err(Error::refused(format!("{what} `{shown}`"), cause))
}

/// FNV-1a, 64 bits: stable over releases, and a clash is told apart by the alias.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn port(id: &str, ifname: &str) -> PortId {
        PortId::new(id, ifname).unwrap()
    }

    #[test]
    fn all_names_fit_and_follow_the_bridge() {
        let bridge: BridgeName = "twelve-bytes".parse().unwrap();
        for name in [bridge.sleeve_port(), bridge.capture(), bridge.host_end(&port("c1", "eth0"))] {
            assert!(name.len() <= NAME_LIMIT, "{name}");
        }
        for underlay in Underlay::ALL {
            let name = bridge.vxlan(underlay);
            assert!(name.len() <= NAME_LIMIT, "{name}");
            assert_eq!(bridge.underlay_of(&name), Some(underlay));
            let mark = Mark { bridge: bridge.clone(), role: Role::Vxlan(underlay) };
            assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        }
        let other = BridgeName::default();
        assert_ne!(other.host_end(&port("c1", "eth0")), bridge.host_end(&port("c1", "eth0")));
    }

    #[test]
    fn a_host_end_keeps_its_name_over_releases() {
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8, "the published FNV-1a vector");
        let name = BridgeName::default().host_end(&port("c1", "eth0"));
        assert_eq!(name.len(), 13);
        assert!(name.starts_with("wv"));
    }

    #[test]
    fn a_long_or_odd_bridge_name_is_refused_in_words() {
        let error = "thirteen-byte".parse::<BridgeName>().unwrap_err().to_string();
        assert!(error.contains("at most 12 bytes"), "{error}");
        for name in ["", ".", "..", "a/b", "a b", "a:b", "we%d", "sixteen-bytes-xx"] {
            assert!(name.parse::<BridgeName>().is_err(), "{name}");
        }
    }

    #[test]
    fn an_alias_of_others_is_not_ours() {
        for alias in
            ["", "weft", "weft/", "weft/weft", "weft/weft/", "weft/weft/other", "weft/a b/bridge", "lan"]
        {
            assert_eq!(Mark::parse(alias), None, "{alias}");
        }
        assert_eq!(Mark::parse("weft/weft/link/eth0/"), None, "no id");
    }

    proptest! {
        #[test]
        fn a_mark_is_read_back(id in "[a-z0-9/:. -]{1,200}", ifname in "[a-z0-9.-]{1,15}") {
            prop_assume!(ifname != "." && ifname != "..");
            let mark = Mark { bridge: BridgeName::default(), role: Role::Container(port(&id, &ifname)) };
            prop_assert!(mark.to_string().len() <= 255);
            prop_assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        }

        #[test]
        fn no_alias_panics(alias in "\\PC*") {
            let _ = Mark::parse(&alias);
        }
    }
}

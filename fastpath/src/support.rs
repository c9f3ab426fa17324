//! What this host's kernel can do, as far as it matters to us; `weft doctor` prints it.

use std::fmt;

/// A kernel's version, as far as it decides anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl Release {
    /// Reads the beginning of a release string such as `6.1.0-18-amd64`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self { major: numbers.next()?.ok()?, minor: numbers.next()?.ok()? })
    }

    /// Whether addresses keep the mark of who set them (`IFA_PROTO`, Linux 5.18). Without it every address on our
    /// bridge counts as ours.
    pub fn marks_addresses(self) -> bool {
        self >= Self { major: 5, minor: 18 }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What was found out about this host for `weft doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The kernel's version; None when it does not say.
    pub release: Option<Release>,
    /// Whether bridges can be made.
    pub bridge: bool,
    /// Whether pairs can be made.
    pub veth: bool,
    /// Whether VXLAN devices can be made.
    pub vxlan: bool,
    /// Whether bridged IPv4 goes through the host's FORWARD chain (`bridge-nf-call-iptables`); None: `br_netfilter`
    /// is not loaded, so it does not.
    pub bridge_netfilter: Option<bool>,
    /// Whether the host forwards IPv4; None when it does not say.
    pub ip_forward: Option<bool>,
    /// Interfaces that carry our mark but that nothing we want explains.
    pub leftovers: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_strings_of_distributions_are_read() {
        let release = |major, minor| Some(Release { major, minor });
        assert_eq!(Release::parse("6.1.0-18-amd64\n"), release(6, 1));
        assert_eq!(Release::parse("5.15.153.1-microsoft-standard-WSL2"), release(5, 15));
        assert_eq!(Release::parse("unknown"), None);
        assert!(!Release { major: 5, minor: 17 }.marks_addresses());
        assert!(Release { major: 5, minor: 18 }.marks_addresses());
        assert!(Release { major: 6, minor: 0 }.marks_addresses());
    }
}

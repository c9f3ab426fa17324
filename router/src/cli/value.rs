//! Values typed at the client verbs: checked for their form here, so that a malformed one is a usage error and never
//! reaches the router.

use std::{fmt, net::Ipv4Addr, str::FromStr, time::Duration};

use ipnet::Ipv4Net;

use crate::config::ConfigError;

/// An IPv4 address, with its prefix length or without (then the router gives it the range's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AddressArgument {
    address: Ipv4Addr,
    prefix: Option<u8>,
}

impl fmt::Display for AddressArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        self.prefix.map_or(Ok(()), |prefix| write!(f, "/{prefix}"))
    }
}

impl FromStr for AddressArgument {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let malformed =
            || ConfigError("it is an IPv4 address with its prefix length, like 10.32.0.5/12".to_owned());
        if text.contains('/') {
            let net: Ipv4Net = text.parse().map_err(|_| malformed())?;
            return Ok(Self { address: net.addr(), prefix: Some(net.prefix_len()) });
        }
        Ok(Self { address: text.parse().map_err(|_| malformed())?, prefix: None })
    }
}

/// An IPv4 network: no bits behind the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subnet(Ipv4Net);

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Subnet {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let net: Ipv4Net =
            text.parse().map_err(|_| ConfigError("it is an IPv4 network, like 10.32.4.0/24".to_owned()))?;
        if net.trunc() != net {
            return Err(ConfigError(format!("bits are set behind the prefix: do you mean {}?", net.trunc())));
        }
        Ok(Self(net))
    }
}

/// The id of an attachment or of whoever holds an address: 1 to 255 bytes, printable, no blanks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Id(String);

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.0
    }
}

impl FromStr for Id {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if text.is_empty() || text.len() > 255 || text.contains(|c: char| c.is_whitespace() || c.is_control())
        {
            return Err(ConfigError("an id has 1 to 255 bytes and no blanks".to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// How long to wait: `500ms`, `10s`, `2m`, or a bare number of seconds; at most an hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timeout(Duration);

impl Timeout {
    /// In milliseconds, as requests carry it.
    pub(super) fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Timeout {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let malformed = || ConfigError("it is a time like 500ms, 10s or 2m, at most 60m".to_owned());
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            _ => return Err(malformed()),
        };
        let number: u64 = digits.parse().map_err(|_| malformed())?;
        match number.checked_mul(unit) {
            Some(millis) if millis <= 3_600_000 => Ok(Self(Duration::from_millis(millis))),
            _ => Err(malformed()),
        }
    }
}

/// A switch as its environment variable says it; set and empty is as not set.
pub(super) fn switch(text: &str) -> Result<bool, ConfigError> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" | "y" | "t" => Ok(true),
        "" | "0" | "false" | "no" | "off" | "n" | "f" => Ok(false),
        _ => Err(ConfigError("it is true or false".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_is_on_or_off_and_nothing_between() {
        for text in ["1", "true", "YES", "on"] {
            assert_eq!(switch(text), Ok(true), "{text}");
        }
        for text in ["", "0", "False", "no", "off"] {
            assert_eq!(switch(text), Ok(false), "{text}");
        }
        for text in ["maybe", "2", " ", "true false"] {
            assert!(switch(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_may_leave_out_their_prefix() {
        for text in ["10.32.0.5/12", "10.32.0.5", "10.32.0.5/32"] {
            assert_eq!(text.parse::<AddressArgument>().unwrap().to_string(), text);
        }
        for text in ["", "10.32.0.5/", "10.32.0.5/33", "10.32.0.256", "10.32.0", "fd00::1/64", "x"] {
            assert!(text.parse::<AddressArgument>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_subnet_has_no_host_bits() {
        assert_eq!("10.32.4.0/24".parse::<Subnet>().unwrap().to_string(), "10.32.4.0/24");
        for text in ["10.32.4.1/24", "10.32.4.0", "10.32.4.0/99", ""] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, millis) in [("500ms", 500), ("10s", 10_000), ("10", 10_000), ("2m", 120_000), ("0", 0)] {
            assert_eq!(text.parse::<Timeout>().unwrap().as_millis(), millis);
        }
        for text in ["", "s", "-1s", "1.5s", "61m", "10h", "18446744073709551615m", "1 s", "ü"] {
            assert!(text.parse::<Timeout>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_id_is_one_word() {
        for text in ["", "a b", "a\n", &"x".repeat(256)] {
            assert!(text.parse::<Id>().is_err(), "{text:?}");
        }
    }
}

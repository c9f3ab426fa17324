//! Names that people give: of peers, sites and interfaces.

use std::{fmt, str::FromStr};

use super::ConfigError;

/// The name of a peer or a site as people read it: 1 to 64 bytes, no blanks, no commas, nothing unprintable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nickname(String);

impl Nickname {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Nickname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Nickname {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | '=' | '"' | '\'');
        if text.is_empty() || text.len() > 64 || text.contains(odd) {
            return Err(ConfigError(
                "a name has 1 to 64 bytes, no blanks, commas, quotes or equal signs".to_owned(),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The name of a network interface, as Linux takes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for InterfaceName {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        // dev_valid_name() of the kernel, and no character that needs quoting in a shell or a log.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty()
            || text.len() > 15
            || !text.chars().all(plain)
            || matches!(text, "." | ".." | "all" | "default")
        {
            return Err(ConfigError(
                "an interface name has 1 to 15 letters, digits, '-', '_' or '.'".to_owned(),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_fits_on_a_line_and_in_the_kernel() {
        for good in ["host1", "ip-10-0-0-1.ec2.internal", "küche"] {
            assert_eq!(good.parse::<Nickname>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a,b", "a\nb", &"x".repeat(65)] {
            assert!(bad.parse::<Nickname>().is_err(), "{bad:?}");
        }
        for good in ["weft", "eth0", "a23456789012345"] {
            assert_eq!(good.parse::<InterfaceName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "all", "a/b", "a b", "a234567890123456", "eth0:1"] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad:?}");
        }
    }
}

//! The universe of addresses.

use std::str::FromStr;

use ipnet::Ipv4Net;

use super::ConfigError;

/// The range addresses are given out from, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range(pub Option<Ipv4Net>);

impl FromStr for Range {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        if text == "none" {
            return Ok(Self(None));
        }
        let net: Ipv4Net = text
            .parse()
            .map_err(|_| ConfigError("a range is an IPv4 network like 10.32.0.0/12, or none".to_owned()))?;
        if net.trunc() != net {
            return Err(ConfigError(format!("bits are set behind the prefix: do you mean {}?", net.trunc())));
        }
        if !(8..=29).contains(&net.prefix_len()) {
            return Err(ConfigError(format!("a range is a /8 to a /29, not a /{}", net.prefix_len())));
        }
        let first = net.network();
        if first.octets()[0] == 0 || first.is_loopback() || first.octets()[0] >= 224 {
            return Err(ConfigError("hosts cannot have addresses of that network".to_owned()));
        }
        Ok(Self(Some(net)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Range>().unwrap_err().to_string()
    }

    #[test]
    fn a_range_is_a_network_that_hosts_can_use() {
        for text in ["10.32.0.0/12", "10.0.0.0/8", "192.168.7.8/29", "172.16.0.0/26"] {
            assert_eq!(text.parse::<Range>().unwrap().0.unwrap().to_string(), text);
        }
        assert_eq!("none".parse::<Range>().unwrap(), Range(None));
    }

    #[test]
    fn a_range_that_is_none_says_why() {
        assert_eq!(error("10.32.0.1/12"), "bits are set behind the prefix: do you mean 10.32.0.0/12?");
        assert_eq!(error("10.32.0.0/30"), "a range is a /8 to a /29, not a /30");
        assert_eq!(error("0.0.0.0/0"), "a range is a /8 to a /29, not a /0");
        for text in ["", "10.32.0.0", "10.32.0.0/33", "10.32.0.0/", "fd00::/64", "nonsense", "None"] {
            assert_eq!(error(text), "a range is an IPv4 network like 10.32.0.0/12, or none");
        }
        for text in ["127.0.0.0/8", "224.0.0.0/8", "255.255.0.0/16", "0.0.0.0/8"] {
            assert_eq!(error(text), "hosts cannot have addresses of that network");
        }
    }
}

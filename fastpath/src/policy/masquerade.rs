//! Containers speak to the world outside under the host's address.
//!
//! ```text
//! table ip weft-<bridge> {
//!   chain postrouting {
//!     type nat hook postrouting priority 100; policy accept;
//!     ip saddr <range> ip daddr != <range> ip daddr != 224.0.0.0/4 oifname != <bridge> masquerade fully-random
//!   }
//! }
//! ```
//!
//! What stays in the range keeps its address, on whichever host it ends, and so does what leaves by the bridge into some
//! other network on it. Multicast has no answer that would have to find its way back. What is for this host itself
//! never comes here. Random ports: sequential ones of many containers collide when several processors choose at
//! once (a lost first packet), and can be guessed.

use std::collections::BTreeMap;
use std::fmt;

use ipnet::Ipv4Net;

use crate::names::BridgeName;
use crate::table::{Base, Chain, Expression, Header, Meta, Rule, Table};

/// `NF_INET_POST_ROUTING` and `NF_IP_PRI_NAT_SRC`.
const POSTROUTING: u32 = 4;
const SOURCE_NAT: i32 = 100;
/// Where an IPv4 header has its addresses.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;

/// Who goes out under the host's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Masquerade {
    /// The range that containers have their addresses from.
    pub range: Ipv4Net,
}

impl fmt::Display for Masquerade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what leaves {}", self.range.trunc())
    }
}

impl Masquerade {
    /// The wish as a table.
    pub fn table(&self, bridge: &BridgeName) -> Table {
        let multicast = Ipv4Net::new_assert(std::net::Ipv4Addr::new(224, 0, 0, 0), 4);
        // With the zero that ends it: the whole name, not a beginning.
        let name = [bridge.as_str().as_bytes(), &[0]].concat();
        let expressions = [
            within(SOURCE, self.range, true),
            within(DESTINATION, self.range, false),
            within(DESTINATION, multicast, false),
            vec![Expression::Meta(Meta::InterfaceOut), Expression::IsNot(name), Expression::Masquerade],
        ]
        .concat();
        let rules = vec![Rule { expressions, comment: "containers to the world".to_owned() }];
        let base = Base { kind: "nat".to_owned(), hook: POSTROUTING, priority: SOURCE_NAT, accepts: true };
        let chain = Chain { base: Some(base), rules };
        Table { chains: BTreeMap::from([("postrouting".to_owned(), chain)]), ..Table::default() }
    }
}

/// Holds when an address is in a network, or when it is not.
fn within(offset: u32, network: Ipv4Net, inside: bool) -> Vec<Expression> {
    let first = network.network().octets().to_vec();
    vec![
        Expression::Payload { header: Header::Network, offset, length: 4 },
        Expression::Masked(network.netmask().octets().to_vec()),
        if inside { Expression::Is(first) } else { Expression::IsNot(first) },
    ]
}

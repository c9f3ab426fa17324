//! A container, as far as a network cares: a namespace with a loopback, and an address once it is attached.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;

use crate::netns::Netns;

/// One container and the address it was given.
#[derive(Debug)]
pub struct Container {
    name: String,
    netns: Netns,
    address: Ipv4Addr,
}

impl Container {
    /// Makes the namespace; it is connected with nothing.
    pub(crate) fn new(name: &str) -> Result<Self> {
        Ok(Self { name: name.to_owned(), netns: Netns::create(name)?, address: Ipv4Addr::UNSPECIFIED })
    }

    /// What the test calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The address it was given at attach; unspecified before.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Remembers the address it was given.
    pub fn set_address(&mut self, address: Ipv4Addr) {
        self.address = address;
    }

    /// The addresses its `eth0` really has, each with its prefix length.
    ///
    /// # Errors
    /// When there is no `eth0`.
    pub fn addresses_in_kernel(&self) -> Result<Vec<String>> {
        let listed = self.netns.ip("-4 -o addr show dev eth0")?;
        let words = listed.lines().filter_map(|line| line.split_whitespace().nth(3));
        Ok(words
            .filter(|word| word.split('/').next().is_some_and(|ip| ip.parse::<IpAddr>().is_ok()))
            .map(str::to_owned)
            .collect())
    }
}

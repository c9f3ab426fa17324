//! Which container uses which address here, looked up from both ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::address::Span;

/// The addresses in use on this host, inside the range and outside.
#[derive(Clone, Default, Debug)]
pub(super) struct Leases {
    by_address: BTreeMap<Ipv4Addr, String>,
    by_id: BTreeMap<String, BTreeSet<Ipv4Addr>>,
}

impl Leases {
    /// Writes down that the id uses the address; a holder before it is forgotten.
    pub(super) fn insert(&mut self, id: &str, address: Ipv4Addr) {
        self.remove(address);
        self.by_address.insert(address, id.to_owned());
        self.by_id.entry(id.to_owned()).or_default().insert(address);
    }

    /// Frees an address and says who had it.
    pub(super) fn remove(&mut self, address: Ipv4Addr) -> Option<String> {
        let id = self.by_address.remove(&address)?;
        if let Some(addresses) = self.by_id.get_mut(&id) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.by_id.remove(&id);
            }
        }
        Some(id)
    }

    /// Who uses the address.
    pub(super) fn holder(&self, address: Ipv4Addr) -> Option<&str> {
        self.by_address.get(&address).map(String::as_str)
    }

    /// The addresses of an id, lowest first.
    pub(super) fn of(&self, id: &str) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.by_id.get(id).into_iter().flatten().copied()
    }

    /// The lowest address of an id inside a span.
    pub(super) fn of_in(&self, id: &str, span: Span) -> Option<Ipv4Addr> {
        self.of(id).find(|address| span.contains((*address).into()))
    }

    /// All of them, by address.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.by_address.iter().map(|(address, id)| (id.as_str(), *address))
    }

    /// The addresses in use inside a span.
    pub(super) fn addresses_in(&self, span: Span) -> impl Iterator<Item = u32> + '_ {
        let bounds = Ipv4Addr::from(span.first())..=Ipv4Addr::from(span.last());
        self.by_address.range(bounds).map(|(address, _)| u32::from(*address))
    }
}

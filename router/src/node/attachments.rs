//! The journal of container links: what was begun, what stands, what is in conflict.
//!
//! ```text
//!  attach ──► Begun ──(kernel: done)──► Wired ──(namespace gone, detach)──► removed, addresses released
//!               └────(kernel: failed, or found half-done at start)──► undone, addresses released
//! ```
//! An entry is durable before the kernel is touched, so a crash at any step leaves either a link that an
//! entry explains or an entry without a link; the next start finishes or undoes it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use weft_fastpath::MacAddr;

/// What names a container link: the id the client gave and the interface's name inside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LinkKey {
    /// The client's id, by default made from the namespace.
    pub id: String,
    /// The interface's name inside the namespace.
    pub ifname: String,
}

impl LinkKey {
    /// The id under which the link's addresses are allocated: the plain id for the usual `eth0`, so that
    /// `ipam allocate --id X` and `attach --id X` mean the same address.
    #[must_use]
    pub fn allocation_id(&self) -> String {
        if self.ifname == "eth0" { self.id.clone() } else { format!("{}/{}", self.id, self.ifname) }
    }
}

/// How far an attachment has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Addresses are ours, the kernel may or may not have been touched.
    Begun,
    /// The link stands.
    Wired,
}

/// One container link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its name.
    pub key: LinkKey,
    /// The namespace as the client named it, for people.
    pub netns: String,
    /// The interface's address.
    pub mac: MacAddr,
    /// Its addresses with the length of their network, in the order given.
    pub addresses: Vec<Ipv4Net>,
    /// Whether a default route was asked for.
    pub default_route: bool,
    /// How far it has come.
    pub stage: Stage,
    /// The addresses another peer owns and uses now; not empty means the port is down.
    pub conflicts: Vec<Ipv4Addr>,
}

/// The host's own addresses on the bridge (`weft expose`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// The addresses with the length of their network.
    pub addresses: Vec<Ipv4Net>,
}

/// All attachments of this router, by name.
#[derive(Clone, Debug, Default)]
pub struct Attachments(BTreeMap<LinkKey, Attachment>);

impl Attachments {
    /// Takes the journal of the last run.
    #[must_use]
    pub fn new(journal: Vec<Attachment>) -> Self {
        Self(journal.into_iter().map(|attachment| (attachment.key.clone(), attachment)).collect())
    }

    /// Every attachment, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = &Attachment> {
        self.0.values()
    }

    /// The attachment of that name.
    #[must_use]
    pub fn get(&self, key: &LinkKey) -> Option<&Attachment> {
        self.0.get(key)
    }

    /// The attachment of that name, to change.
    pub fn get_mut(&mut self, key: &LinkKey) -> Option<&mut Attachment> {
        self.0.get_mut(key)
    }

    /// Adds or replaces an attachment.
    pub fn insert(&mut self, attachment: Attachment) {
        self.0.insert(attachment.key.clone(), attachment);
    }

    /// Takes an attachment out.
    pub fn remove(&mut self, key: &LinkKey) -> Option<Attachment> {
        self.0.remove(key)
    }

    /// Every interface of one client id, or, without an id, of the namespace with that name.
    #[must_use]
    pub fn of(&self, id: Option<&str>, netns: &str) -> Vec<LinkKey> {
        let matches = |a: &&Attachment| id.map_or(a.netns == netns, |id| a.key.id == id);
        self.0.values().filter(matches).map(|a| a.key.clone()).collect()
    }

    /// The names of attachments whose address `address` is.
    #[must_use]
    pub fn using(&self, address: Ipv4Addr) -> Vec<LinkKey> {
        let uses = |a: &&Attachment| a.addresses.iter().any(|net| net.addr() == address);
        self.0.values().filter(uses).map(|a| a.key.clone()).collect()
    }
}

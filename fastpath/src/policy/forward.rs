//! The two rules that get containers past a FORWARD chain that drops.
//!
//! Docker sets the policy of that chain to DROP, and others end it with a REJECT. Three things of ours come through it:
//! frames from container to container where `br_netfilter` sends them there (in and out by the bridge), what
//! containers send elsewhere (in by the bridge), and the replies to that (out by the bridge). Hence
//!
//! ```text
//! -i <bridge> -j ACCEPT                                             the first two
//! -o <bridge> -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT  the replies
//! ```
//!
//! and no plain `-o <bridge>`: it would open every port of every container to whoever can route to this host. Both
//! stand at the head, because a rule that drops may be the last of the chain as well as its policy. So they also come
//! before what the host's owner wants to keep containers from; that belongs into a table of its own, where a drop is
//! final (as our own drops are). Where others put theirs before ours, ours stay where they are: the chain is not
//! ours to order.
//!
//! A chain without rules that lets everything pass needs nothing, and a host without the chain gets none. Both rules
//! carry a mark as their comment, by which they are known and removed. They are IPv4's: inside there is IPv4 only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::names::BridgeName;
use crate::table::{Expression, Meta, Rule};

/// Who keeps a FORWARD chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// nftables: `iptables-nft`, or `nft` itself, in the table `ip filter`.
    Nftables,
    /// The older tables of `iptables-legacy`.
    Legacy,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::Legacy => "iptables-legacy",
        })
    }
}

/// One of our rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Accept {
    /// What comes from the bridge.
    FromBridge,
    /// What goes to the bridge and belongs to a connection that was let through.
    Replies,
}

impl fmt::Display for Accept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FromBridge => "what comes from the bridge",
            Self::Replies => "replies to it",
        })
    }
}

/// How a rule that stands is named when it is to be removed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Locator {
    /// By the number that the kernel has given it.
    Handle(u64),
    /// By all of it.
    Words(Vec<String>),
}

/// A rule with our mark that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// Which it is; None: what we would not write (any more).
    pub accept: Option<Accept>,
    /// Which of the chain it is.
    pub at: Locator,
}

/// A FORWARD chain that stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForwardChain {
    /// What passes all rules is dropped.
    pub drops: bool,
    /// How many rules of others are in it.
    pub foreign: usize,
    /// The ones with our mark.
    pub ours: Vec<Marked>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardChange {
    /// Puts a rule at the head of the chain.
    Insert {
        /// Whose chain.
        backend: Backend,
        /// The rule.
        accept: Accept,
    },
    /// Removes a rule with our mark.
    Remove {
        /// Whose chain.
        backend: Backend,
        /// The rule.
        at: Locator,
    },
}

impl fmt::Display for ForwardChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insert { backend, accept } => write!(f, "FORWARD chain of {backend}: accept {accept}"),
            Self::Remove { backend, .. } => write!(f, "FORWARD chain of {backend}: remove a rule of ours"),
        }
    }
}

impl ForwardChange {
    /// Whose chain it is about.
    pub fn backend(&self) -> Backend {
        match self {
            Self::Insert { backend, .. } | Self::Remove { backend, .. } => *backend,
        }
    }
}

impl Accept {
    /// Both.
    pub const ALL: [Self; 2] = [Self::FromBridge, Self::Replies];

    /// The rule in nftables' words, in a form that `iptables-nft` reads too.
    pub(crate) fn rule(self, bridge: &BridgeName) -> Rule {
        // With the zero that ends it: the whole name, not a beginning.
        let name = Expression::Is([bridge.as_str().as_bytes(), &[0]].concat());
        let mut expressions = match self {
            Self::FromBridge => vec![Expression::Meta(Meta::InterfaceIn), name],
            Self::Replies => vec![Expression::Meta(Meta::InterfaceOut), name, Expression::Established],
        };
        expressions.extend([Expression::Counter, Expression::Accept]);
        Rule { expressions, comment: mark(bridge) }
    }

    /// The rule in the words of `iptables`, as it lists it.
    pub(crate) fn words(self, bridge: &BridgeName) -> Vec<String> {
        let mark = mark(bridge);
        let words = match self {
            Self::FromBridge => vec!["-i", bridge.as_str()],
            Self::Replies => {
                vec!["-o", bridge.as_str(), "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED"]
            }
        };
        let end = ["-m", "comment", "--comment", &mark, "-j", "ACCEPT"];
        words.into_iter().chain(end).map(str::to_owned).collect()
    }
}

/// What our rules carry as a comment.
pub(crate) fn mark(bridge: &BridgeName) -> String {
    format!("weft/{bridge}")
}

impl ForwardChain {
    /// Whether the chain can drop anything.
    fn matters(&self) -> bool {
        self.drops || self.foreign > 0
    }
}

/// The changes to the chains that stand; empty when they are right.
pub(crate) fn plan_forward(wanted: bool, found: &BTreeMap<Backend, ForwardChain>) -> Vec<ForwardChange> {
    let mut changes = Vec::new();
    for (&backend, chain) in found {
        let mut missing: BTreeSet<Accept> =
            if wanted && chain.matters() { Accept::ALL.into() } else { BTreeSet::new() };
        for rule in &chain.ours {
            if !rule.accept.is_some_and(|accept| missing.remove(&accept)) {
                changes.push(ForwardChange::Remove { backend, at: rule.at.clone() });
            }
        }
        changes.extend(missing.into_iter().map(|accept| ForwardChange::Insert { backend, accept }));
    }
    changes
}

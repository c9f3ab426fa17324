//! Why a carrier serves a peer, in words people read in `weft status`.
//!
//! A reason is a value, not a string made up on the way: it is compared to see a change, logged once
//! and shown for as long as it holds. Every one names the cause, and where it lies: here, at the peer or
//! on the way.

use std::fmt;

/// Why this carrier and not a better one, or why none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The session is up, the neighbour has not said yet what it can carry.
    AwaitingOffer,
    /// Both ends offer sleeve and no heartbeat has been answered yet.
    AwaitingHeartbeat,
    /// The heartbeats that were answered before are answered no more.
    Silent,
    /// Sleeve was left out by a flag, at this end.
    SleeveOffHere,
    /// Sleeve was left out by a flag, at the other end.
    SleeveOffThere,
    /// The two peers were seeded apart and both gave addresses out: no frame may cross.
    SeededApart,
    /// The peer was removed from the cluster, or has left it.
    Removed,
    /// A secret is set and this end does not trust the link: the frames must be sealed.
    NotTrusted,
    /// A secret is set and the other end does not trust the link: the frames must be sealed.
    NotTrustedThere,
    /// Fastpath was left out by a flag, at this end.
    FastpathOffHere,
    /// Fastpath was left out by a flag, at the other end.
    FastpathOffThere,
    /// This host cannot do it.
    FastpathImpossibleHere(String),
    /// The other host cannot do it.
    FastpathImpossibleThere(String),
    /// The two have different VXLAN ports, and a VXLAN device sends to its own whatever it has learned.
    PortsDiffer {
        /// Our VXLAN port.
        ours: u16,
        /// The peer's.
        theirs: u16,
    },
    /// The kernel here is not ready yet.
    KernelAwaited,
    /// The other end has not said yet whether its kernel can carry; an old version never does.
    FastpathAwaited,
    /// Probes are under way.
    Trying,
    /// No probe gets through.
    Blocked {
        /// The peer's VXLAN port.
        port: u16,
    },
    /// Probes get through from the peer to us, but not from us to the peer.
    BlockedThere {
        /// The peer's VXLAN port.
        port: u16,
    },
    /// Probes get through from us to the peer, but not from the peer to us.
    BlockedHere {
        /// Our VXLAN port.
        port: u16,
    },
    /// Small frames get through, the largest do not.
    PathTooSmall {
        /// Bytes of the largest IP packet the path takes, if that is known.
        takes: Option<u16>,
        /// Bytes of the largest IP packet VXLAN makes.
        needs: u16,
    },
    /// The path works again and has to go on working for a while.
    Steadying,
    /// On fastpath since before this session; not proven in it yet.
    Kept,
    /// On fastpath: no secret is set.
    Clear,
    /// On fastpath although a secret is set.
    Trusted,
    /// Neither carrier works: what is wrong with sleeve, and what with fastpath.
    Neither(Box<Self>, Box<Self>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AwaitingOffer => f.write_str("waiting for the peer's offer"),
            Self::AwaitingHeartbeat => {
                f.write_str("no heartbeat answered yet: is UDP to the peer's port blocked?")
            }
            Self::Silent => f.write_str("heartbeats are not answered: the path or the router is silent"),
            Self::SleeveOffHere => f.write_str("sleeve is switched off here (--no-sleeve)"),
            Self::SleeveOffThere => f.write_str("sleeve is switched off at the peer (--no-sleeve)"),
            Self::SeededApart => {
                f.write_str("seeded apart: both clusters have given addresses out, no frame may cross")
            }
            Self::Removed => f.write_str("the peer was removed from the cluster"),
            Self::NotTrusted => f.write_str("secret set and link not trusted"),
            Self::NotTrustedThere => f.write_str("secret set and link not trusted at the peer"),
            Self::FastpathOffHere => f.write_str("fastpath is switched off here (--no-fastpath)"),
            Self::FastpathOffThere => f.write_str("fastpath is switched off at the peer (--no-fastpath)"),
            Self::FastpathImpossibleHere(why) => write!(f, "fastpath is not possible here: {why}"),
            Self::FastpathImpossibleThere(why) => write!(f, "fastpath is not possible at the peer: {why}"),
            Self::PortsDiffer { ours, theirs } => {
                write!(f, "VXLAN needs the same UDP port at both ends: {ours} here, {theirs} at the peer")
            }
            Self::KernelAwaited => f.write_str("the kernel is being prepared for fastpath"),
            Self::FastpathAwaited => f.write_str("the peer has not offered fastpath"),
            Self::Trying => f.write_str("fastpath is being tried"),
            Self::Blocked { port } => write!(f, "VXLAN does not get through (UDP {port} blocked?)"),
            Self::BlockedThere { port } => {
                write!(f, "VXLAN comes from the peer but does not get to it (UDP {port} blocked there?)")
            }
            Self::BlockedHere { port } => {
                write!(f, "VXLAN gets to the peer but not back (UDP {port} blocked here?)")
            }
            Self::PathTooSmall { takes: Some(takes), needs } => {
                write!(f, "path takes only {takes} bytes: VXLAN needs {needs}")
            }
            Self::PathTooSmall { takes: None, needs } => {
                write!(f, "path does not take the {needs} bytes that VXLAN needs")
            }
            Self::Steadying => f.write_str("VXLAN gets through; used once it has held for a while"),
            Self::Kept => f.write_str("kept from before; being proven again"),
            Self::Clear => f.write_str("no secret: frames travel in clear"),
            Self::Trusted => f.write_str("link trusted at both ends"),
            Self::Neither(sleeve, fastpath) => write!(f, "{sleeve}; {fastpath}"),
        }
    }
}

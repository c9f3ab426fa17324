//! What the control half can say about its own health: a line for everything that could be wrong.
//!
//! The shell adds what only the host can tell (kernel features, ports, leftovers). A line that is not fine
//! always says what to do.

use std::time::Instant;

use weft_api::{DoctorLine, IpamState};

use super::Node;
use crate::overlay::Reason;

impl Node {
    /// Looks at bridge, addresses, encryption, attachments and the path to every peer.
    pub(super) fn doctor(&self, now: Instant) -> Vec<DoctorLine> {
        let mut lines = vec![self.bridge_line(), self.ipam_line(now), self.secret_line()];
        lines.extend(self.attachments.iter().filter(|a| !a.conflicts.is_empty()).map(|a| {
            let text = format!("{} uses an address that belongs to another peer now", a.key.id);
            DoctorLine::error("attachment", text, "detach it and attach it again to get another address")
        }));
        lines.extend(self.faults().into_iter().map(|fault| {
            DoctorLine::warning(
                "addresses",
                fault,
                "launch every router of a cluster with the same --range and version",
            )
        }));
        lines.extend(self.peer_lines(now));
        lines
    }

    fn bridge_line(&self) -> DoctorLine {
        let name = &self.config.kernel.bridge;
        match &self.bridge {
            Some(Ok(())) => DoctorLine::fine("bridge", format!("bridge {name} stands")),
            Some(Err(error)) => DoctorLine::error(
                "bridge",
                format!("bridge {name}: {error}"),
                "`weft doctor --plan` shows what is missing; the router tries again by itself",
            ),
            None => {
                DoctorLine::warning("bridge", format!("bridge {name} is being made"), "ask again in a moment")
            }
        }
    }

    fn ipam_line(&self, now: Instant) -> DoctorLine {
        let ipam = self.ipam_status(now);
        let reason = ipam.reason.unwrap_or_default();
        match ipam.state {
            IpamState::Off => DoctorLine::fine("addresses", "allocation is off (--range none)"),
            IpamState::Ready => {
                DoctorLine::fine("addresses", format!("{} owned here, {} in use", ipam.owned, ipam.used))
            }
            IpamState::Waiting => DoctorLine::error(
                "addresses",
                format!("none can be given out: {reason}"),
                "start the peers it waits for, or remove those that are gone with `weft peer remove`",
            ),
            IpamState::Split => DoctorLine::error(
                "addresses",
                reason,
                "choose the cluster to give up and run `weft reset` on each of its hosts, then launch them again",
            ),
        }
    }

    fn secret_line(&self) -> DoctorLine {
        if self.config.encrypted {
            DoctorLine::fine("encryption", "a secret is set: frames between hosts are sealed")
        } else {
            DoctorLine::warning(
                "encryption",
                "no secret is set: anyone who reaches the mesh port can join, and frames travel in clear",
                "make one with `weft secret generate` and launch every router with --secret-file",
            )
        }
    }

    fn peer_lines(&self, now: Instant) -> Vec<DoctorLine> {
        let connections = self.connections(now);
        let apart = Reason::SeededApart.to_string();
        // Who was seeded apart is named by the line about addresses: nothing is wrong with the path.
        let lines = connections.into_iter().filter(|c| c.reason.as_ref() != Some(&apart)).map(|connection| {
            let who = connection.nickname.unwrap_or_else(|| connection.address.clone());
            let reason = connection.reason.unwrap_or_default();
            match (connection.carrier, connection.error) {
                (Some(carrier), _) => {
                    let mtu = connection.mtu.map_or_else(String::new, |mtu| format!(", path MTU {mtu}"));
                    DoctorLine::fine("peer", format!("{who}: {carrier}{mtu}"))
                }
                (None, Some(error)) => DoctorLine::error(
                    "peer",
                    format!("{who}: {error}"),
                    "check that the router there runs, the address is right and TCP to its port is open",
                ),
                (None, None) => DoctorLine::error(
                    "peer",
                    format!("{who}: no carrier works: {reason}"),
                    "check that UDP to the peer's port is open in both directions",
                ),
            }
        });
        lines.collect()
    }
}

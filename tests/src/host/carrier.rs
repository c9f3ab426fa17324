//! Which carrier serves a peer, as a host's status says.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::{Host, connection};

/// How long hosts may take to agree on a carrier after the mesh stands.
pub const CARRIER_LIMIT: Duration = Duration::from_secs(15);

impl Host {
    /// Waits until this carrier serves a peer and returns the connection.
    ///
    /// # Errors
    /// When `limit` passes first; the message holds the last status.
    pub fn wait_carrier(&self, peer: &Self, carrier: &str, limit: Duration) -> Result<Value> {
        let what = format!("{carrier} to {}", peer.name());
        let serves = |status: &Value| {
            connection(status, peer.name()).is_some_and(|connection| connection["carrier"] == carrier)
        };
        let status = self.wait_status(&what, limit, serves)?;
        Ok(connection(&status, peer.name()).cloned().unwrap_or_default())
    }

    /// Waits until this carrier serves a peer for a reason that holds these words; returns the connection.
    ///
    /// # Errors
    /// When `limit` passes first; the message holds the last status.
    pub fn wait_reason(&self, peer: &Self, carrier: &str, words: &str, limit: Duration) -> Result<Value> {
        let what = format!("{carrier} to {} because: {words}", peer.name());
        let serves = |status: &Value| {
            connection(status, peer.name()).is_some_and(|connection| {
                let reason = connection["reason"].as_str().unwrap_or_default();
                connection["carrier"] == carrier && reason.contains(words)
            })
        };
        let status = self.wait_status(&what, limit, serves)?;
        Ok(connection(&status, peer.name()).cloned().unwrap_or_default())
    }
}

/// Waits until every host serves every other by this carrier.
///
/// # Errors
/// When that does not come true in time.
pub fn wait_all_on(hosts: &[Host], carrier: &str) -> Result<()> {
    for host in hosts {
        for peer in hosts.iter().filter(|peer| peer.name() != host.name()) {
            host.wait_carrier(peer, carrier, CARRIER_LIMIT)?;
        }
    }
    Ok(())
}

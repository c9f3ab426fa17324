//! Reading what `weft` prints: addresses, and the parts of a status document.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use serde_json::Value;

/// The address of the first `ADDRESS/LEN` line.
///
/// # Errors
/// When there is none.
pub fn first_address(printed: &str) -> Result<Ipv4Addr> {
    let line = printed.lines().next().context("no address was printed")?.trim();
    let (address, length) = line.split_once('/').with_context(|| format!("not ADDRESS/LEN: {line}"))?;
    length.parse::<u8>().with_context(|| format!("not ADDRESS/LEN: {line}"))?;
    address.parse().with_context(|| format!("not ADDRESS/LEN: {line}"))
}

/// The address on the first line, with or without a prefix length.
///
/// # Errors
/// When there is none.
pub fn address_in(printed: &str) -> Result<Ipv4Addr> {
    let line = printed.lines().next().context("no address was printed")?.trim();
    line.split('/').next().unwrap_or_default().parse().with_context(|| format!("not an address: {line}"))
}

/// The nicknames of all reachable peers in a status.
pub fn reachable(status: &Value) -> Vec<String> {
    let peers = status["peers"].as_array().into_iter().flatten();
    let reached = peers.filter(|peer| peer["reachable"] == true);
    reached.filter_map(|peer| peer["nickname"].as_str().map(str::to_owned)).collect()
}

/// The established connection to a nickname in a status.
pub fn connection<'a>(status: &'a Value, nickname: &str) -> Option<&'a Value> {
    let connections = status["connections"].as_array().into_iter().flatten();
    connections.into_iter().find(|one| one["nickname"] == nickname && one["state"] == "established")
}

/// The entry of a peer in a status.
pub fn peer<'a>(status: &'a Value, nickname: &str) -> Option<&'a Value> {
    status["peers"].as_array().into_iter().flatten().find(|one| one["nickname"] == nickname)
}

//! What a host's kernel holds: links by index, and the forwarding tables of its bridge and its VXLAN device.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;

/// What must not change while a router is away: the same objects, not equal ones made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The index of every link.
    pub links: BTreeMap<String, u32>,
    /// The forwarding entries that somebody wrote down, as `bridge fdb` shows them.
    pub written: BTreeSet<String>,
}

impl Kernel {
    /// Looks at a namespace.
    ///
    /// # Errors
    /// When `ip` or `bridge` fails.
    pub fn look(netns: &Netns) -> Result<Self> {
        let written = forwarding(netns)?.into_iter().filter(|entry| entry.contains("permanent"));
        // Multicast addresses that a device listens to come and go with sockets.
        let written = written.filter(|entry| !entry.starts_with("33:33:") && !entry.starts_with("01:00:5e:"));
        Ok(Self { links: links(netns)?, written: written.collect() })
    }
}

/// The index of every link.
///
/// # Errors
/// When `ip` fails.
pub fn links(netns: &Netns) -> Result<BTreeMap<String, u32>> {
    let listed = netns.ip("-o link")?;
    let entry = |line: &str| -> Option<(String, u32)> {
        let mut parts = line.split(": ");
        let index = parts.next()?.trim().parse().ok()?;
        Some((parts.next()?.split('@').next()?.to_owned(), index))
    };
    listed.lines().map(|line| entry(line).with_context(|| format!("ip said: {line}"))).collect()
}

/// Every forwarding entry, as `bridge fdb` shows it.
///
/// # Errors
/// When `bridge` fails.
pub fn forwarding(netns: &Netns) -> Result<Vec<String>> {
    let mut bridge = Command::new("bridge");
    let shown = netns.execute(bridge.args(["fdb", "show"]), "", Duration::from_secs(10))?;
    let shown = shown.success("bridge fdb show")?;
    Ok(shown.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect())
}

/// Changes something behind the router's back: words for `bridge`, separated by blanks.
///
/// # Errors
/// When `bridge` refuses.
pub fn bridge(netns: &Netns, words: &str) -> Result<()> {
    let mut bridge = Command::new("bridge");
    let bridge = bridge.args(words.split_whitespace());
    netns.execute(bridge, "", Duration::from_secs(10))?.success(&format!("bridge {words}")).map(drop)
}

/// Feeds rules to the namespace's own packet filter, as an administrator would.
///
/// # Errors
/// When `nft` refuses.
pub fn nft(netns: &Netns, rules: &str) -> Result<String> {
    let mut nft = Command::new("nft");
    netns.execute(nft.args(["-f", "-"]), rules, Duration::from_secs(10))?.success("nft")
}

/// Drops what this expression holds for as it comes into a host, in a table of its administrator.
///
/// # Errors
/// When `nft` refuses.
pub fn drop_arriving(netns: &Netns, expression: &str) -> Result<()> {
    let rules = format!(
        "table inet administrator {{\nchain input {{\ntype filter hook input priority 0;\n{expression} drop\n}}\n}}\n"
    );
    nft(netns, &rules).map(drop)
}

/// The network identifier of a VXLAN device.
///
/// # Errors
/// When there is no such device.
pub fn vni(netns: &Netns, device: &str) -> Result<u32> {
    let shown = netns.ip(&format!("-d link show dev {device}"))?;
    let words: Vec<&str> = shown.split_whitespace().collect();
    let at = words.windows(3).find(|three| three[..2] == ["vxlan", "id"]);
    at.with_context(|| format!("not a VXLAN device: {shown}"))?[2].parse().context("VNI")
}

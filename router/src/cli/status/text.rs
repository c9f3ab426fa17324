//! The status for people: a summary, then a table for each part, readable at 80 columns.

use weft_api::{AttachmentState, Connection, ConnectionState, Direction, IpamState, Status};

use crate::cli::table::{Side, Table, pairs, wrapped};

/// What stands where there is nothing to say.
const NOTHING: &str = "-";

/// The summary and every part that has something in it.
pub(super) fn everything(status: &Status) -> String {
    let mut text = summary(status);
    let mut part = |title: &str, body: String| text.push_str(&format!("\n{title}\n{body}"));
    if !status.connections.is_empty() {
        part("Connections", connections(status));
    }
    if !status.peers.is_empty() {
        part("Peers", peers(status));
    }
    if !status.ipam.owners.is_empty() {
        part("Owners of addresses", owners(status));
    }
    if !status.attachments.is_empty() {
        part("Attachments", attachments(status));
    }
    text
}

/// Who this is and how it fares, then what somebody should look at.
fn summary(status: &Status) -> String {
    let peer = &status.peer;
    let encryption =
        if status.encryption { "on" } else { "off: no secret is set, everybody may join and listen" };
    let reachable = status.peers.iter().filter(|peer| peer.reachable).count();
    let mut lines = vec![
        (
            "Router",
            format!(
                "{} ({}), incarnation {}, site {}",
                peer.nickname, peer.name, peer.incarnation, peer.site
            ),
        ),
        ("Version", status.version.clone()),
        ("Ready", if status.ready { "yes" } else { "no" }.to_owned()),
        ("Encryption", encryption.to_owned()),
        ("Targets", or_none(&status.targets.join(", "))),
        ("Connections", states(&status.connections)),
        ("Peers", format!("{} known, {reachable} reachable", status.peers.len())),
        ("Addresses", addresses(status)),
        ("Attachments", attached(status)),
    ];
    if !status.exposed.is_empty() {
        lines.push(("Exposed", status.exposed.join(", ")));
    }
    if !status.drops.is_empty() {
        let drops: Vec<String> =
            status.drops.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        lines.push((
            "Dropped",
            format!("{} frames: {}", status.drops.values().sum::<u64>(), drops.join(", ")),
        ));
    }
    let mut text = pairs(&lines);
    for warning in &status.warnings {
        text.push('\n');
        text.push_str(&wrapped(&format!("! {warning}"), ""));
    }
    text
}

/// The connections, one each; under it why it is not better.
pub(super) fn connections(status: &Status) -> String {
    if status.connections.is_empty() {
        return none("connections");
    }
    let mut table = Table::new([
        ("PEER", Side::Left),
        ("ADDRESS", Side::Left),
        ("STATE", Side::Left),
        ("CARRIER", Side::Left),
        ("SEALED", Side::Left),
        ("MTU", Side::Right),
        ("RTT", Side::Right),
    ]);
    for connection in &status.connections {
        let arrow = match connection.direction {
            Direction::Outbound => "→",
            Direction::Inbound => "←",
        };
        table.row(
            [
                connection.nickname.clone().unwrap_or_else(nothing),
                format!("{arrow} {}", connection.address),
                connection.state.to_string(),
                connection.carrier.map_or_else(nothing, |carrier| carrier.to_string()),
                if connection.carrier.is_none() { NOTHING } else { yes(connection.encrypted) }.to_owned(),
                connection.mtu.map_or_else(nothing, |mtu| mtu.to_string()),
                connection.rtt_us.map_or_else(nothing, milliseconds),
            ],
            note(connection),
        );
    }
    table.render()
}

/// Why this carrier, what failed, when it is tried again.
fn note(connection: &Connection) -> Option<String> {
    let retry =
        connection.retry_in_ms.map(|retry| format!("again in {}.{} s", retry / 1000, retry % 1000 / 100));
    let parts: Vec<String> =
        [connection.reason.clone(), connection.error.clone(), retry].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Every other peer, and the way to it.
pub(super) fn peers(status: &Status) -> String {
    if status.peers.is_empty() {
        return none("other peers");
    }
    let nickname = |name: &String| {
        let peer = status.peers.iter().find(|peer| peer.name == *name);
        peer.map_or_else(|| name.clone(), |peer| peer.nickname.clone())
    };
    let mut table = Table::new([
        ("PEER", Side::Left),
        ("NAME", Side::Left),
        ("SITE", Side::Left),
        ("REACHABLE", Side::Left),
        ("HOPS", Side::Right),
        ("VIA", Side::Left),
        ("LINKS", Side::Right),
    ]);
    for peer in &status.peers {
        table.row(
            [
                peer.nickname.clone(),
                peer.name.clone(),
                peer.site.clone(),
                yes(peer.reachable).to_owned(),
                peer.hops.map_or_else(nothing, |hops| hops.to_string()),
                peer.via.as_ref().map_or_else(nothing, nickname),
                peer.links.len().to_string(),
            ],
            peer.held.then(|| "its router is silent; what the kernel carries to it goes on".to_owned()),
        );
    }
    table.render()
}

/// The addresses: the state, and who owns how many.
pub(super) fn ipam(status: &Status) -> String {
    let ipam = &status.ipam;
    let mut lines = vec![("State", ipam.state.to_string())];
    if let Some(reason) = &ipam.reason {
        lines.push(("Reason", reason.clone()));
    }
    if let Some(range) = &ipam.range {
        lines.push(("Range", range.clone()));
        lines.push(("Owned here", ipam.owned.to_string()));
        lines.push(("Used here", ipam.used.to_string()));
    }
    let mut text = pairs(&lines);
    if !ipam.owners.is_empty() {
        text.push('\n');
        text.push_str(&owners(status));
    }
    text
}

fn owners(status: &Status) -> String {
    let owners = &status.ipam.owners;
    let all: u64 = owners.iter().map(|owner| owner.addresses).sum();
    let mut table = Table::new([
        ("OWNER", Side::Left),
        ("NAME", Side::Left),
        ("ADDRESSES", Side::Right),
        ("SHARE", Side::Right),
        ("REACHABLE", Side::Left),
    ]);
    for owner in owners {
        // In tenths of a percent; wide enough for any number of addresses.
        let share = u128::from(owner.addresses) * 1000 / u128::from(all.max(1));
        table.row(
            [
                if owner.nickname.is_empty() { nothing() } else { owner.nickname.clone() },
                owner.peer.clone(),
                owner.addresses.to_string(),
                format!("{}.{} %", share / 10, share % 10),
                yes(owner.reachable).to_owned(),
            ],
            None,
        );
    }
    table.render()
}

/// What is dialled, one a line.
pub(super) fn targets(status: &Status) -> String {
    if status.targets.is_empty() {
        return none("targets");
    }
    status.targets.iter().map(|target| format!("  {target}\n")).collect()
}

/// The namespaces connected here.
pub(super) fn attachments(status: &Status) -> String {
    if status.attachments.is_empty() {
        return none("attachments");
    }
    let mut table = Table::new([
        ("ADDRESS", Side::Left),
        ("MAC", Side::Left),
        ("INTERFACE", Side::Left),
        ("STATE", Side::Left),
        ("NAMESPACE", Side::Left),
    ]);
    for attachment in &status.attachments {
        table.row(
            [
                or_none(&attachment.addresses.join(" ")),
                attachment.mac.clone(),
                attachment.interface.clone(),
                attachment.state.to_string(),
                attachment.netns.clone(),
            ],
            Some(format!("id {}", attachment.id)),
        );
    }
    table.render()
}

/// `2 established, 1 retrying`.
fn states(connections: &[Connection]) -> String {
    let all = [
        ConnectionState::Established,
        ConnectionState::Connecting,
        ConnectionState::Retrying,
        ConnectionState::Failed,
    ];
    let counts = all.map(|state| (state, connections.iter().filter(|each| each.state == state).count()));
    let counts: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    or_none(&counts.join(", "))
}

fn addresses(status: &Status) -> String {
    let ipam = &status.ipam;
    let range = ipam.range.as_deref().unwrap_or(NOTHING);
    let mut text = match ipam.state {
        IpamState::Off => "off".to_owned(),
        state @ (IpamState::Waiting | IpamState::Ready | IpamState::Split) => {
            format!("{state}; of {range} we own {}, {} in use", ipam.owned, ipam.used)
        }
    };
    if let Some(reason) = &ipam.reason {
        text.push_str(&format!(" ({reason})"));
    }
    text
}

fn attached(status: &Status) -> String {
    let conflicts = status.attachments.iter().filter(|each| each.state == AttachmentState::Conflict).count();
    match conflicts {
        0 => status.attachments.len().to_string(),
        _ => format!("{}, {conflicts} in conflict", status.attachments.len()),
    }
}

/// `0.21 ms`, `3.4 ms`, `120 ms`: two figures are enough.
fn milliseconds(microseconds: u64) -> String {
    match microseconds {
        0..1_000 => format!("0.{:02} ms", microseconds / 10),
        1_000..10_000 => format!("{}.{} ms", microseconds / 1_000, microseconds % 1_000 / 100),
        _ => format!("{} ms", microseconds / 1_000),
    }
}

fn yes(value: bool) -> &'static str {
    if value { "yes" } else { "no" }
}

fn nothing() -> String {
    NOTHING.to_owned()
}

fn or_none(text: &str) -> String {
    if text.is_empty() { "none".to_owned() } else { text.to_owned() }
}

fn none(what: &str) -> String {
    format!("  no {what}\n")
}

#[cfg(test)]
mod tests;

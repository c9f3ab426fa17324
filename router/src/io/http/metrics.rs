//! The numbers for Prometheus, in the OpenMetrics text format, made anew from one snapshot at every scrape.

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    metrics::{MetricType, exemplar::Exemplar},
    registry::Registry,
};
use weft_api::{Counter, IpamState, Metrics, Status};

/// What the text is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Writes the snapshot as text.
pub(super) fn encode(snapshot: Metrics) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("weft");
    registry.register_collector(Box::new(Snapshot(snapshot)));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Snapshot(Metrics);

/// A value with what tells it from others of its name.
type Sample = (Vec<(String, String)>, f64);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, samples) in gauges(&self.0.status) {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, value) in samples {
                if labels.is_empty() {
                    family.encode_gauge(&value)?;
                } else {
                    family.encode_family(&labels)?.encode_gauge(&value)?;
                }
            }
        }
        for (name, counters) in families(&self.0) {
            let help = counters.first().map(|counter| counter.help.as_str()).unwrap_or_default();
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for counter in counters {
                let labels: Vec<(String, String)> = counter.labels.into_iter().collect();
                let exemplar: Option<&Exemplar<Vec<(String, String)>, f64>> = None;
                if labels.is_empty() {
                    family.encode_counter(&counter.value, exemplar)?;
                } else {
                    family.encode_family(&labels)?.encode_counter(&counter.value, exemplar)?;
                }
            }
        }
        Ok(())
    }
}

/// The counters by name, the drops among them: a family must stand together.
fn families(snapshot: &Metrics) -> BTreeMap<&str, Vec<Counter>> {
    let mut families: BTreeMap<&str, Vec<Counter>> = BTreeMap::new();
    for counter in &snapshot.counters {
        families.entry(&counter.name).or_default().push(counter.clone());
    }
    let drops = snapshot.status.drops.iter().map(|(reason, value)| Counter {
        name: "dropped_frames".to_owned(),
        help: "Frames dropped, by reason".to_owned(),
        labels: BTreeMap::from([("reason".to_owned(), reason.clone())]),
        value: *value,
    });
    families.entry("dropped_frames").or_insert_with(|| drops.collect());
    families
}

/// What stands now, by name.
fn gauges(status: &Status) -> Vec<(&'static str, &'static str, Vec<Sample>)> {
    let plain = |value: f64| vec![(Vec::new(), value)];
    let mut connections: BTreeMap<(String, String), u32> = BTreeMap::new();
    for connection in &status.connections {
        let carrier = connection.carrier.map_or("none", |carrier| carrier.as_str()).to_owned();
        *connections.entry((connection.state.to_string(), carrier)).or_default() += 1;
    }
    let connections = connections.into_iter().map(|((state, carrier), count)| {
        (labels([("state", state), ("carrier", carrier)]), f64::from(count))
    });
    let states = [IpamState::Off, IpamState::Waiting, IpamState::Ready, IpamState::Split];
    let states =
        states.map(|state| (labels([("state", state.to_string())]), flag(state == status.ipam.state)));
    vec![
        ("info", "The router", vec![(labels([("version", status.version.clone())]), 1.0)]),
        ("ready", "Whether the router can serve", plain(flag(status.ready))),
        ("encryption", "Whether a secret is set", plain(flag(status.encryption))),
        ("connections", "Connections, by state and carrier", connections.collect()),
        ("connection_rtt_seconds", "Round trip to a neighbour", round_trips(status)),
        ("peers", "Other known peers", reachable(status)),
        ("ipam_state", "Which state the allocator is in", states.into()),
        ("ipam_owned_addresses", "Addresses this peer owns", plain(number(status.ipam.owned))),
        ("ipam_used_addresses", "Addresses given out here", plain(number(status.ipam.used))),
        ("attachments", "Namespaces connected here, by state", attachments(status)),
    ]
}

/// One a neighbour: of two sessions with the same one, the quicker.
fn round_trips(status: &Status) -> Vec<Sample> {
    let mut trips: BTreeMap<(String, String), u64> = BTreeMap::new();
    for connection in &status.connections {
        if let (Some(peer), Some(rtt)) = (&connection.peer, connection.rtt_us) {
            let nickname = connection.nickname.clone().unwrap_or_default();
            let trip = trips.entry((peer.clone(), nickname)).or_insert(rtt);
            *trip = rtt.min(*trip);
        }
    }
    let sample =
        |((peer, nickname), rtt)| (labels([("peer", peer), ("nickname", nickname)]), number(rtt) / 1e6);
    trips.into_iter().map(sample).collect()
}

fn reachable(status: &Status) -> Vec<Sample> {
    let count = |reachable| status.peers.iter().filter(|peer| peer.reachable == reachable).count() as f64;
    [true, false].map(|each| (labels([("reachable", each.to_string())]), count(each))).into()
}

fn attachments(status: &Status) -> Vec<Sample> {
    let mut counts = BTreeMap::from([("ok", 0_u32), ("conflict", 0)]);
    for attachment in &status.attachments {
        *counts.entry(attachment.state.as_str()).or_default() += 1;
    }
    counts
        .into_iter()
        .map(|(state, count)| (labels([("state", state.to_owned())]), f64::from(count)))
        .collect()
}

fn labels<const N: usize>(labels: [(&str, String); N]) -> Vec<(String, String)> {
    labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}

/// Exact up to 2^53, far past any number of addresses or microseconds.
fn number(value: u64) -> f64 {
    value as f64
}

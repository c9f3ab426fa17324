//! Every counter of every part as one flat list, for `/metrics` and the report.
//!
//! The parts count into plain structs; here their field names become counter names, so a counter added to a
//! part shows without another line anywhere.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_api::Counter;

/// Lists the counters of one part: numbers by their path, maps by a label.
///
/// A field that holds a map from words to numbers (drops by reason, links by peer) becomes one counter with a
/// label; what is no number is left out.
pub(super) fn list(part: &str, value: &Value, labels: &BTreeMap<&str, &str>, into: &mut Vec<Counter>) {
    let Value::Object(fields) = value else { return };
    for (field, value) in fields {
        let name = format!("{part}_{field}");
        let label = match (part, field.as_str()) {
            (_, "drops" | "refusals") => Some("reason"),
            (_, "links") => Some("peer"),
            _ => None,
        };
        match (label, value) {
            (_, Value::Number(number)) => {
                into.extend(number.as_u64().map(|value| counter(&name, labels, value)))
            }
            (Some(label), Value::Object(entries)) => {
                for (word, value) in entries {
                    let mut labels = labels.clone();
                    labels.insert(label, word);
                    match value.as_u64() {
                        Some(value) => into.push(counter(&name, &labels, value)),
                        None => list(&name, value, &labels, into),
                    }
                }
            }
            (None, Value::Object(_)) => list(&name, value, labels, into),
            (_, Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_)) => {}
        }
    }
}

fn counter(name: &str, labels: &BTreeMap<&str, &str>, value: u64) -> Counter {
    Counter {
        name: name.to_owned(),
        help: format!("Counted since the router started: {}.", name.replace('_', " ")),
        labels: labels.iter().map(|(label, word)| ((*label).to_owned(), (*word).to_owned())).collect(),
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_named_by_their_path_and_maps_by_a_label() {
        let value =
            serde_json::json!({"captured": {"frames": 3}, "drops": {"no-route": 2}, "capture": "pcap"});
        let mut counters = Vec::new();
        list("data", &value, &BTreeMap::new(), &mut counters);
        let shown: Vec<String> =
            counters.iter().map(|c| format!("{} {:?} {}", c.name, c.labels, c.value)).collect();
        assert_eq!(shown, ["data_captured_frames {} 3", r#"data_drops {"reason": "no-route"} 2"#]);
    }
}

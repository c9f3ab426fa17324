//! The JSON file: every sample, so that a later reader can make other figures of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::say;
use crate::metric::{Better, Metric};
use crate::samples::{Row, Samples};
use crate::settings::Settings;
use crate::targets::Verdict;

/// Writes the whole run.
pub(crate) fn write(
    samples: &Samples,
    verdicts: &[Verdict],
    settings: &Settings,
    took: Duration,
) -> Result<()> {
    let (all, noisy) = samples.count();
    let document = json!({
        "finished_unix": now(),
        "seconds": took.as_secs(),
        "rounds": settings.rounds,
        "quick": settings.quick,
        "machine": machine(),
        "samples": all,
        "samples_beside_other_load": noisy,
        "systems": samples.rows().map(|row| system(row, samples)).collect::<Vec<_>>(),
        "targets": verdicts.iter().map(verdict).collect::<Vec<_>>(),
    });
    if let Some(folder) = settings.json.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let text = serde_json::to_string_pretty(&document)?;
    std::fs::write(&settings.json, text)
        .with_context(|| format!("cannot write {}", settings.json.display()))?;
    say(&format!("\n{}", settings.json.display()));
    Ok(())
}

fn system(row: &Row, samples: &Samples) -> Value {
    let metrics =
        Metric::STREAMS.into_iter().chain(Metric::PACKETS).chain(Metric::ATTACH).chain(Metric::PODS);
    let figures: Map<String, Value> =
        metrics.filter_map(|metric| Some((metric.key().to_owned(), figure(row, metric, samples)?))).collect();
    json!({
        "name": row.description.name,
        "about": row.description.about,
        "role": format!("{:?}", row.description.role).to_lowercase(),
        "version": row.version,
        "container_mtu": row.mtu,
        "absent": row.absent,
        "failures": row.failures,
        "figures": figures,
    })
}

/// One figure; none where nothing was measured.
fn figure(row: &Row, metric: Metric, samples: &Samples) -> Option<Value> {
    let found = row.figure(metric)?;
    let taken: Vec<Value> = row
        .samples(metric)
        .iter()
        .map(|sample| json!({ "value": sample.value, "beside_other_load": !sample.quiet }))
        .collect();
    let vxlan = samples.figure("vxlan", metric).map(|base| found.median / base.median);
    let best = samples.best_peer(metric);
    Some(json!({
        "unit": metric.unit(),
        "median": found.median,
        "low": found.low,
        "high": found.high,
        "used": found.used,
        "samples": taken,
        "of_vxlan": vxlan.filter(|ratio| ratio.is_finite()),
        "of_best_peer": best.map(|(_, base)| found.median / base.median).filter(|ratio| ratio.is_finite()),
        "best_peer": best.map(|(name, _)| name),
    }))
}

fn verdict(verdict: &Verdict) -> Value {
    json!({
        "meaning": verdict.target.meaning,
        "better": if verdict.target.better == Better::Higher { "higher" } else { "lower" },
        "first_reach": verdict.target.first,
        "goal": verdict.target.goal,
        "found": verdict.found.as_ref().ok(),
        "not_measured": verdict.found.as_ref().err(),
        "against": verdict.against,
        "reached": verdict.word(),
    })
}

/// What it ran on, as far as it can be told.
fn machine() -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let models = read("/proc/cpuinfo");
    let model = models.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "processor": model.map(|(_, name)| name),
        "processors": std::thread::available_parallelism().map(usize::from).ok(),
    })
}

#[expect(clippy::disallowed_methods, reason = "the file says when it was made")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

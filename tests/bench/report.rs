//! What the run has to say: progress while it runs, tables for people, a JSON file for programs.

mod json;
mod table;

use std::io::Write as _;
use std::time::Duration;

use anyhow::Error;

pub(crate) use json::write;

use crate::metric::{Better, Metric};
use crate::samples::{Figure, Row, Samples};
use crate::settings::Settings;
use crate::system::Role;
use crate::targets::Verdict;
use table::Table;

/// A line for people; when nobody reads on, the JSON file is still worth writing.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{}", line.trim_end());
}

/// Says why there is no result.
#[expect(clippy::print_stderr, reason = "a program's last word")]
pub(crate) fn complain(error: &Error) {
    eprintln!("bench: {error:#}");
}

/// Says what is being measured.
pub(crate) fn progress(what: &str, passed: Duration) {
    say(&format!("{:>4} s  {what}", passed.as_secs()));
}

/// Says what went wrong on the way.
pub(crate) fn note(reason: &str) {
    say(&format!("        not measured: {}", brief(reason)));
}

/// Prints everything.
pub(crate) fn print(samples: &Samples, verdicts: &[Verdict], settings: &Settings, took: Duration) {
    say("");
    let (all, noisy) = samples.count();
    say(&format!(
        "{} in {} s; median and range of the rounds. {noisy} of {all} samples were taken beside other load; `~` \
         marks figures that had to use them.",
        if settings.rounds == 1 { "1 round".to_owned() } else { format!("{} rounds", settings.rounds) },
        took.as_secs()
    ));
    say("`wire`: nothing larger than the MTU crosses the cable between the hosts.");
    figures(samples, "Streams", &Metric::STREAMS);
    figures(samples, "Small packets", &Metric::PACKETS);
    attach(samples);
    pods(samples);
    ratios(samples);
    targets(verdicts);
    reasons(samples);
}

/// A table without a row says nothing.
fn show(table: &Table) {
    if !table.is_empty() {
        say(&table.to_string());
    }
}

fn figures(samples: &Samples, title: &str, metrics: &[Metric]) {
    let mut table = Table::new(title, metrics.iter().map(|metric| heading(*metric)).collect());
    for row in samples.systems() {
        table.row(row.description.name, metrics.iter().map(|metric| cell(row.figure(*metric))).collect());
    }
    show(&table);
}

fn pods(samples: &Samples) {
    let mut table = Table::new("Pods", Metric::PODS.iter().map(|metric| heading(*metric)).collect());
    for row in samples.rows().filter(|row| Metric::PODS.iter().any(|one| row.figure(*one).is_some())) {
        table
            .row(row.description.name, Metric::PODS.iter().map(|metric| cell(row.figure(*metric))).collect());
    }
    show(&table);
}

fn attach(samples: &Samples) {
    let mut table = Table::new("Attaching", Metric::ATTACH.iter().map(|metric| heading(*metric)).collect());
    for row in samples.rows().filter(|row| Metric::ATTACH.iter().any(|one| row.figure(*one).is_some())) {
        table.row("weft", Metric::ATTACH.iter().map(|metric| cell(row.figure(*metric))).collect());
    }
    show(&table);
}

/// Ours against the kernel's VXLAN and the best peer.
fn ratios(samples: &Samples) {
    let metrics = [
        Metric::Tcp1,
        Metric::Tcp4,
        Metric::WireTcp1,
        Metric::Cpu,
        Metric::Packets,
        Metric::RttTwoP50,
        Metric::RttTwoP99,
    ];
    let title = |metric: &Metric| match metric.better() {
        Better::Higher => metric.title().to_owned(),
        Better::Lower => format!("{} (less is better)", metric.title()),
    };
    let peers = metrics.iter().any(|&metric| samples.best_peer(metric).is_some());
    for against in ["kernel VXLAN", "the best peer"].into_iter().take(if peers { 2 } else { 1 }) {
        let mut table = Table::new(&format!("Ratio to {against}"), metrics.iter().map(title).collect());
        let base = |metric| match against {
            "kernel VXLAN" => Some(("vxlan", samples.figure("vxlan", metric)?)),
            _ => samples.best_peer(metric),
        };
        for row in samples.systems().filter(|row| row.description.role == Role::Ours) {
            let ratio = |metric: &Metric| {
                let ratio = row
                    .figure(*metric)
                    .zip(base(*metric))
                    .map(|(ours, base)| (ours.median / base.1.median, base.0));
                match ratio {
                    Some((ratio, "vxlan")) => format!("{ratio:.2}"),
                    Some((ratio, name)) => format!("{ratio:.2} {name}"),
                    None => "-".to_owned(),
                }
            };
            table.row(row.description.name, metrics.iter().map(ratio).collect());
        }
        show(&table);
    }
}

fn targets(verdicts: &[Verdict]) {
    let columns = ["found", "first reach", "goal", "reached", ""];
    let mut table = Table::new("Targets", columns.map(str::to_owned).to_vec());
    for verdict in verdicts {
        let sign = if verdict.target.better == Better::Higher { ">=" } else { "<=" };
        let (found, against) = match &verdict.found {
            Ok(found) => (format!("{found:.2}"), verdict.against.clone()),
            Err(reason) => ("-".to_owned(), reason.clone()),
        };
        let bound = |bound: f64| format!("{sign} {bound}");
        table.row(
            verdict.target.meaning,
            vec![
                found,
                bound(verdict.target.first),
                bound(verdict.target.goal),
                verdict.word().to_owned(),
                against,
            ],
        );
    }
    show(&table);
}

/// Who stood there, and what could not be measured and why.
fn reasons(samples: &Samples) {
    say("\nRows");
    for row in samples.systems() {
        let version = row.version.as_deref().map(|version| format!("; {version}")).unwrap_or_default();
        say(&format!("  {:<17} {}{version}", row.description.name, row.description.about));
    }
    let missing: Vec<String> = samples.rows().flat_map(missing).collect();
    if !missing.is_empty() {
        say("\nNot measured");
        missing.iter().for_each(|line| say(&format!("  {line}")));
    }
}

fn missing(row: &Row) -> Vec<String> {
    let absent = row.absent.iter().map(|reason| (reason, String::new()));
    let failed = row.failures.iter().map(|(reason, &count)| {
        (reason, if count > 1 { format!(" ({count} times)") } else { String::new() })
    });
    let line =
        |(reason, times): (&String, String)| format!("{:<17} {}{times}", row.description.name, brief(reason));
    absent.chain(failed).map(line).collect()
}

/// The beginning of a reason, on one line.
fn brief(reason: &str) -> String {
    const LENGTH: usize = 240;
    let line = reason.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= LENGTH { line } else { line.chars().take(LENGTH).chain(['…']).collect() }
}

fn heading(metric: Metric) -> String {
    format!("{} {}", metric.title(), metric.unit())
}

/// Three figures are enough: more would only show the machine's mood.
fn cell(figure: Option<Figure>) -> String {
    let Some(Figure { median, low, high, used, noisy }) = figure else { return "-".to_owned() };
    let mark = if noisy { "~" } else { "" };
    let range = if used > 1 { format!(" ({}-{})", short(low), short(high)) } else { String::new() };
    format!("{mark}{}{range}", short(median))
}

fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

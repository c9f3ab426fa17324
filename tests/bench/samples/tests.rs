//! Figures from samples whose answer is known, and verdicts from figures.

use super::*;
use crate::targets;

fn rows(names: &[(&'static str, Role)]) -> Samples {
    Samples::new(names.iter().map(|&(name, role)| Description { name, role, about: "" }).collect())
}

fn add(samples: &mut Samples, name: &str, metric: Metric, values: &[(f64, bool)]) {
    for &(value, quiet) in values {
        samples.add(name, metric, Sample { value, quiet });
    }
}

#[test]
fn a_figure_is_the_median_with_the_range() {
    let mut samples = rows(&[("raw", Role::Limit)]);
    add(&mut samples, "raw", Metric::Tcp1, &[(3.0, true), (1.0, true), (2.0, true)]);
    let figure = Figure { median: 2.0, low: 1.0, high: 3.0, used: 3, noisy: false };
    assert_eq!(samples.figure("raw", Metric::Tcp1), Some(figure));
    add(&mut samples, "raw", Metric::Tcp1, &[(9.0, true)]);
    assert_eq!(samples.figure("raw", Metric::Tcp1).map(|figure| figure.median), Some(2.5));
}

#[test]
fn samples_beside_other_load_are_left_out_when_two_quiet_ones_exist() {
    let mut samples = rows(&[("raw", Role::Limit)]);
    add(&mut samples, "raw", Metric::Tcp1, &[(1.0, false), (4.0, true)]);
    let figure = samples.figure("raw", Metric::Tcp1).unwrap();
    assert!(figure.noisy && figure.used == 2 && figure.median == 2.5, "{figure:?}");
    add(&mut samples, "raw", Metric::Tcp1, &[(6.0, true)]);
    let figure = samples.figure("raw", Metric::Tcp1).unwrap();
    assert!(!figure.noisy && figure.used == 2 && figure.median == 5.0, "{figure:?}");
    assert_eq!(samples.count(), (3, 1));
}

#[test]
fn what_was_not_measured_has_no_figure() {
    let mut samples = rows(&[("tinc", Role::Peer)]);
    samples.set_absent("tinc", "no tincd".to_owned());
    assert_eq!(samples.figure("tinc", Metric::Tcp1), None);
    assert_eq!(samples.figure("never heard of", Metric::Tcp1), None);
    assert!(samples.best_peer(Metric::Tcp1).is_none() && !samples.measured_anything());
    let verdicts = targets::judge(&samples);
    assert!(verdicts.iter().all(|verdict| verdict.found.is_err() && verdict.word() == "not measured"));
}

#[test]
fn the_best_peer_is_the_highest_rate_or_the_lowest_time_and_never_one_of_ours() {
    let mut samples = rows(&[("a", Role::Peer), ("b", Role::Peer), ("vnet", Role::Ours)]);
    for (name, rate, time) in [("a", 2.0, 90.0), ("b", 1.0, 80.0), ("vnet", 9.0, 10.0)] {
        add(&mut samples, name, Metric::Tcp1, &[(rate, true)]);
        add(&mut samples, name, Metric::RttTwoP50, &[(time, true)]);
    }
    assert_eq!(samples.best_peer(Metric::Tcp1).map(|(name, _)| name), Some("a"));
    assert_eq!(samples.best_peer(Metric::RttTwoP50).map(|(name, _)| name), Some("b"));
}

#[test]
fn a_target_is_judged_by_its_ratio_and_its_direction() {
    let word = |rate: f64, time: f64| {
        let mut samples = rows(&[("vxlan", Role::Kernel), ("fastpath", Role::Ours)]);
        for (name, rate, time) in [("vxlan", 10.0, 100.0), ("fastpath", rate, time)] {
            add(&mut samples, name, Metric::Tcp1, &[(rate, true)]);
            add(&mut samples, name, Metric::RttTwoP50, &[(time, true)]);
        }
        let verdicts = targets::judge(&samples);
        let of = |start: &str| {
            verdicts
                .iter()
                .find(|verdict| verdict.target.meaning.starts_with(start))
                .map(targets::Verdict::word)
        };
        (of("fastpath, TCP 1"), of("fastpath, RTT p50"))
    };
    assert_eq!(word(10.0, 80.0), (Some("goal"), Some("goal")));
    assert_eq!(word(9.7, 105.0), (Some("first reach"), Some("first reach")));
    assert_eq!(word(9.6, 106.0), (Some("missed"), Some("missed")));
}

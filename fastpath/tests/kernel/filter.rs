//! The source filter as a table in a real kernel: written, adopted, bent by others, repaired.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use tokio::time::timeout;
use weft_fastpath::{BridgeName, Fastpath, Filter, FilterChange, FilterState, plan_filter};

use crate::world::{Namespace, fastpath};

const SOON: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_millis(300);

/// A filter for two peers.
pub(crate) fn filter() -> Filter {
    Filter {
        mesh_tcp: BTreeSet::from([6783]),
        mesh_udp: BTreeSet::from([6783, 6784, 6785]),
        sources: BTreeSet::from([ip("192.0.2.2"), ip("2001:db8::2")]),
        ..Filter::new(6784)
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Runs a program in the namespace of the calling thread.
pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(arguments.split_whitespace())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// `nft`, its arguments being one word each.
fn nft(arguments: &str) -> String {
    run("nft", arguments)
}

/// Converges as a router that has just started would.
pub(crate) fn converge(filter: Option<&Filter>) -> Vec<FilterChange> {
    fastpath().converge_filter(filter).unwrap()
}

/// Runs in a new namespace, on a runtime.
fn alone(work: impl FnOnce() + Send) {
    Namespace::new().block_on(|| async { work() });
}

const TABLE: &str = r#"table inet weft-weft {
	comment "the source filter of weft"
	set mesh_tcp {
		type inet_service
		elements = { 6783 }
	}

	set mesh_udp {
		type inet_service
		elements = { 6783, 6784,
			     6785 }
	}

	set probes4 {
		type ipv4_addr
	}

	set probes6 {
		type ipv6_addr
	}

	set sources4 {
		type ipv4_addr
		elements = { 192.0.2.2 }
	}

	set sources6 {
		type ipv6_addr
		elements = { 2001:db8::2 }
	}

	chain forward {
		type filter hook forward priority raw; policy accept;
		oifgroup 2003134068 accept comment "to a container"
		iifgroup 2003134068 tcp dport @mesh_tcp counter packets 0 bytes 0 drop comment "no container reaches the mesh of another host"
		iifgroup 2003134068 udp dport @mesh_udp counter packets 0 bytes 0 drop comment "no container reaches the mesh of another host"
	}

	chain input {
		type filter hook input priority raw; policy accept;
		udp dport 6784 goto vxlan comment "VXLAN"
		iifgroup 2003134068 tcp dport @mesh_tcp counter packets 0 bytes 0 drop comment "no container reaches the mesh"
		iifgroup 2003134068 udp dport @mesh_udp counter packets 0 bytes 0 drop comment "no container reaches the mesh"
	}

	chain vxlan {
		iifgroup 2003134068 counter packets 0 bytes 0 drop comment "no container reaches the mesh"
		ip daddr 192.0.2.1 ip saddr @sources4 accept comment "from a peer"
		ip daddr 192.0.2.1 ip saddr @probes4 @th,224,16 0x88b5 accept comment "a probe from a peer"
		counter packets 0 bytes 0 drop comment "not from a stranger"
	}
}
"#;

#[test]
fn nft_shows_the_table_as_it_is_drawn() {
    alone(|| {
        let mut filter = filter();
        filter.destination = Some(ip("192.0.2.1"));
        converge(Some(&filter));
        // How elements are ordered is the kernel's affair.
        let sorted = |text: &str| {
            let mut words: Vec<String> =
                text.split_whitespace().map(|word| word.trim_matches(',').to_owned()).collect();
            words.sort();
            words
        };
        let shown = nft("list table inet weft-weft");
        assert_eq!(sorted(&shown), sorted(TABLE), "{shown}");
    });
}

#[test]
fn what_was_written_is_found_as_it_was_wanted_and_a_restart_changes_nothing() {
    for destination in [None, Some(ip("192.0.2.1")), Some(ip("2001:db8::1"))] {
        alone(|| {
            let filter = Filter { destination, ..filter() };
            let mut fastpath = fastpath();
            assert_eq!(fastpath.observe_filter().unwrap(), FilterState::default());
            let create = plan_filter(Some(&filter), &FilterState::default());
            assert_eq!(fastpath.converge_filter(Some(&filter)).unwrap(), create);
            assert_eq!(fastpath.converge_filter(Some(&filter)).unwrap(), []);
            assert_eq!(fastpath.observe_filter().unwrap().table, Some(filter.table()));

            let before = nft("-a list ruleset");
            assert_eq!(converge(Some(&filter)), [], "another process finds it right");
            assert_eq!(nft("-a list ruleset"), before);
            assert!(fastpath.teardown_filter().unwrap());
            assert_eq!(nft("list ruleset"), "");
            assert!(!fastpath.teardown_filter().unwrap(), "there is none any more");
        });
    }
}

#[test]
fn elements_come_and_go_and_the_rules_stay() {
    alone(|| {
        let rules = || nft("-a -s list chain inet weft-weft vxlan");
        let mut fastpath = fastpath();
        let mut filter = filter();
        fastpath.converge_filter(Some(&filter)).unwrap();
        let before = rules();
        filter.sources = BTreeSet::from([ip("192.0.2.3"), ip("192.0.2.4"), ip("2001:db8::3")]);
        filter.mesh_tcp.insert(16783);
        let changes = fastpath.converge_filter(Some(&filter)).unwrap();
        assert_eq!(changes.len(), 5, "{changes:?}");
        assert_eq!(rules(), before);
        assert_eq!(fastpath.observe_filter().unwrap().table, Some(filter.table()), "as it was foreseen");

        filter.vxlan_port = Some(4789);
        let changes = fastpath.converge_filter(Some(&filter)).unwrap();
        assert!(matches!(changes[..], [FilterChange::Replace { .. }]), "{changes:?}");
        assert_eq!(converge(Some(&filter)), []);
    });
}

#[test]
fn what_others_do_to_it_is_repaired_and_what_is_theirs_is_left_alone() {
    alone(|| {
        let mut fastpath = fastpath();
        fastpath.converge_filter(Some(&filter())).unwrap();
        let handle = |rule: &str| {
            let shown = nft("-a list table inet weft-weft");
            let line = shown.lines().find(|line| line.contains(rule)).expect("a rule");
            line.rsplit(' ').next().unwrap().to_owned()
        };
        for (deed, said) in [
            ("flush ruleset", "create the source filter: VXLAN on port 6784 from 2 peers"),
            ("delete table inet weft-weft", "create the source filter: VXLAN on port 6784 from 2 peers"),
            ("flush table inet weft-weft", "replace the source filter: chain forward differs"),
            (
                "add element inet weft-weft sources4 { 198.51.100.9 }",
                "source filter: remove from sources4: 198.51.100.9",
            ),
            (
                "delete element inet weft-weft sources6 { 2001:db8::2 }",
                "source filter: add to sources6: 2001:db8::2",
            ),
            ("flush set inet weft-weft mesh_tcp", "source filter: add to mesh_tcp: 6783"),
            ("insert rule inet weft-weft vxlan accept", "replace the source filter: chain vxlan differs"),
            (
                "add chain inet weft-weft input { policy drop ; }",
                "replace the source filter: chain input differs",
            ),
            ("add chain inet weft-weft mine", "replace the source filter: chain mine is not ours"),
            (
                "add set inet weft-weft mine { type mark ; }",
                "replace the source filter: set mine is not ours",
            ),
            ("add table inet weft-weft { flags dormant ; }", "replace the source filter: it is dormant"),
        ] {
            nft("add table inet theirs");
            nft("add chain inet theirs input { type filter hook input priority 0 ; policy drop ; }");
            nft(deed);
            let theirs = nft("list tables").contains("theirs");
            let lines: Vec<String> =
                fastpath.converge_filter(Some(&filter())).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(lines, [said], "{deed}");
            assert_eq!(fastpath.observe_filter().unwrap().table, Some(filter().table()), "{deed}");
            assert_eq!(nft("list tables").contains("theirs"), theirs, "{deed}");
        }
        nft(&format!("delete rule inet weft-weft vxlan handle {}", handle("not from a stranger")));
        assert_eq!(fastpath.converge_filter(Some(&filter())).unwrap().len(), 1);
        assert_eq!(converge(Some(&filter())), []);
    });
}

#[test]
fn two_bridges_of_one_host_have_two_filters() {
    alone(|| {
        let other: BridgeName = "other".parse().unwrap();
        converge(Some(&filter()));
        let mut second = Fastpath::new(other).unwrap();
        second.converge_filter(Some(&Filter::new(6794))).unwrap();
        assert_eq!(converge(Some(&filter())), []);
        assert!(second.teardown_filter().unwrap());
        assert_eq!(nft("list tables").trim(), "table inet weft-weft");
    });
}

#[test]
fn a_transaction_that_is_refused_in_part_changes_nothing_and_says_what_was_refused() {
    alone(|| {
        converge(Some(&filter()));
        let before = nft("-a list ruleset");
        let element = |set: &str| FilterChange::Add {
            what: "source filter",
            set: set.to_owned(),
            elements: BTreeSet::from([weft_fastpath::filter::Element::Address(ip("192.0.2.9"))]),
        };
        let error = fastpath().apply_filter(&[element("sources4"), element("nothing")]).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT));
        assert!(error.to_string().contains("source filter weft-weft (elements of set nothing)"), "{error}");
        assert_eq!(nft("-a list ruleset"), before);
    });
}

/// The filter of the tests with so many sources.
fn many(count: u32) -> Filter {
    let sources = (0..count).map(|at| IpAddr::V4(Ipv4Addr::from(0x0a00_0001 + at))).collect();
    Filter { sources, ..filter() }
}

/// How long some work takes when nobody else has the processor: the best of several tries.
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
fn best(mut before: impl FnMut(), mut work: impl FnMut()) -> Duration {
    let once = |_| {
        before();
        let clock = Instant::now();
        work();
        clock.elapsed()
    };
    (0..10).map(once).min().unwrap()
}

#[test]
fn a_thousand_sources_are_written_in_an_eyeblink_and_one_more_is_nothing() {
    alone(|| {
        let (all, one_more) = (many(1000), many(1001));
        let fastpath = std::cell::RefCell::new(fastpath());
        let wish = |filter: Option<&Filter>| fastpath.borrow_mut().converge_filter(filter).unwrap();
        let first = best(|| drop(wish(None)), || assert_eq!(wish(Some(&all)).len(), 1));
        let element = best(|| drop(wish(Some(&all))), || assert_eq!(wish(Some(&one_more)).len(), 1));
        let nothing = best(|| (), || assert_eq!(wish(Some(&one_more)), []));
        let adopted = best(|| (), || assert_eq!(converge(Some(&one_more)), []));
        println!("1,000: {first:?}, one more: {element:?}, none: {nothing:?}, adopted: {adopted:?}");
        assert!(first < Duration::from_millis(50), "{first:?}");
        assert!(element < Duration::from_millis(5), "{element:?}");
        assert!(nothing < Duration::from_millis(5), "{nothing:?}");
        assert!(adopted < Duration::from_millis(50), "{adopted:?}");
    });
}

#[test]
fn more_elements_than_one_message_holds_are_written_and_read() {
    alone(|| {
        for (count, changes) in [(5000, 1), (5000, 0), (10, 1), (5000, 1), (0, 1), (0, 0)] {
            assert_eq!(converge(Some(&many(count))).len(), changes, "{count}");
        }
    });
}

#[test]
fn a_change_of_others_is_told_and_quiet_is_quiet() {
    Namespace::new().block_on(|| async {
        converge(Some(&filter()));
        let mut monitor = Fastpath::filter_monitor().unwrap();
        assert!(timeout(QUIET, monitor.changed()).await.is_err(), "nothing happens");
        nft("delete element inet weft-weft sources4 { 192.0.2.2 }");
        timeout(SOON, monitor.changed()).await.expect("told").unwrap();
        assert_eq!(converge(Some(&filter())).len(), 1);
        nft("flush ruleset");
        timeout(SOON, monitor.changed()).await.expect("told").unwrap();
        assert_eq!(converge(Some(&filter())).len(), 1);
    });
}

#[test]
fn while_others_change_their_tables_ours_is_read_whole() {
    Namespace::new().block_on(|| async {
        let filter = many(3000);
        converge(Some(&filter));
        std::thread::scope(|scope| {
            let noise = scope.spawn(|| {
                for _ in 0..40 {
                    nft("add table ip noise");
                    nft("delete table ip noise");
                }
            });
            let mut looks = 0;
            while !noise.is_finished() || looks == 0 {
                assert_eq!(converge(Some(&filter)), []);
                looks += 1;
            }
        });
    });
}

//! FORWARD chains that drop, of both backends, with our rules and without.
//!
//! ```text
//!  c1 10.32.0.1 -- weft 10.32.0.254 (host, br_netfilter on) u0 192.0.2.1/24 -- p0 192.0.2.2/24 (world)
//!  c2 10.32.0.2 --/
//! ```

use std::time::Duration;

use weft_fastpath::policy::Backend;
use weft_fastpath::{BridgeName, Fastpath, Policy};

use crate::filter::run;
use crate::masquerade::{World, asks, converge, policy};
use crate::world::{Namespace, fastpath};

const SOON: Duration = Duration::from_secs(2);
const NEVER: Duration = Duration::from_millis(200);
const BOTH: [&str; 2] = ["iptables-nft", "iptables-legacy"];

/// Containers speak to the world outside, and only FORWARD stands between.
fn wish() -> Policy {
    Policy { forward: true, ..policy() }
}

/// A host whose bridged frames go through FORWARD, as Docker and Kubernetes have it.
fn world() -> World {
    let world = World::new();
    world.host.run(|| {
        Fastpath::enable_forwarding().unwrap();
        std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1")
            .expect("these tests need a kernel with br_netfilter");
    });
    converge(&world.host, &policy());
    world
}

/// The rules of the chain as the program lists them.
fn rules(host: &Namespace, program: &str) -> Vec<String> {
    let shown = host.run(|| run(program, "-S FORWARD"));
    shown.lines().map(|line| line.replace('"', "")).collect()
}

fn ours() -> Vec<String> {
    let end = "-m comment --comment weft/weft -j ACCEPT";
    vec![
        format!("-A FORWARD -i weft {end}"),
        format!("-A FORWARD -o weft -m conntrack --ctstate RELATED,ESTABLISHED {end}"),
    ]
}

fn has_ours(host: &Namespace, program: &str) -> bool {
    let rules = rules(host, program);
    ours().iter().all(|rule| rules.iter().filter(|found| *found == rule).count() == 1)
}

/// Whether containers reach each other, and the world and back.
fn works(world: &World, patience: Duration) -> (bool, bool) {
    let bridged = asks(&world.one, &world.two, "10.32.0.2", patience);
    let routed = asks(&world.one, &world.world, "192.0.2.2", patience);
    (bridged.is_some_and(|(_, answered)| answered), routed.is_some_and(|(_, answered)| answered))
}

#[test]
fn through_a_chain_that_drops_containers_get_with_our_rules_and_not_without() {
    for program in BOTH {
        let world = world();
        assert_eq!(works(&world, SOON), (true, true), "{program}: nothing is in the way yet");
        world.host.run(|| run(program, "-P FORWARD DROP"));
        assert_eq!(works(&world, NEVER), (false, false), "{program}");

        assert_eq!(converge(&world.host, &wish()).len(), 2, "{program}");
        assert_eq!(works(&world, SOON), (true, true), "{program}");
        assert!(has_ours(&world.host, program), "{:?}", rules(&world.host, program));
        assert_eq!(
            converge(&world.host, &wish()),
            Vec::<String>::new(),
            "{program}: a restart finds it right"
        );

        // Nobody from outside gets to a container by it.
        world.world.run(|| run("ip", "route add 10.32.0.0/12 via 192.0.2.1"));
        assert_eq!(asks(&world.world, &world.two, "10.32.0.2", NEVER), None, "{program}");

        assert_eq!(converge(&world.host, &policy()).len(), 2, "{program}: no longer wanted");
        assert_eq!(rules(&world.host, program), ["-P FORWARD DROP"]);
        assert_eq!(works(&world, NEVER), (false, false), "{program}");
    }
}

#[test]
fn they_come_before_a_rule_that_drops_and_what_is_of_others_stays_as_it_is() {
    for program in BOTH {
        let world = world();
        world.host.run(|| run(program, "-A FORWARD -s 198.51.100.7 -m comment --comment theirs -j ACCEPT"));
        world.host.run(|| run(program, "-A FORWARD -j DROP"));
        let theirs = rules(&world.host, program);
        assert_eq!(theirs[0], "-P FORWARD ACCEPT", "{program}");
        converge(&world.host, &wish());
        assert_eq!(works(&world, SOON), (true, true), "{program}");

        // Gone, doubled, bent: they come back as they were.
        for deed in [
            "-D FORWARD 1",
            "-D FORWARD 2",
            "-I FORWARD -i weft -m comment --comment weft/weft -j ACCEPT",
            "-I FORWARD -i weft -p udp -m comment --comment weft/weft -j DROP",
        ] {
            world.host.run(|| run(program, deed));
            assert_eq!(converge(&world.host, &wish()).len(), 1, "{program} {deed}");
            assert!(has_ours(&world.host, program), "{:?}", rules(&world.host, program));
            assert_eq!(rules(&world.host, program).len(), theirs.len() + 2, "{program} {deed}");
            assert_eq!(works(&world, SOON), (true, true), "{program} {deed}");
        }
        let done = world.host.block_on(|| async { fastpath().teardown().await });
        assert_eq!(done.errors, [], "{program}");
        let removed = done.removed.iter().filter(|line| line.starts_with("rule in the FORWARD chain of"));
        assert_eq!(removed.count(), 2, "{:?}", done.removed);
        assert_eq!(rules(&world.host, program), theirs);
    }
}

#[test]
fn a_chain_that_drops_nothing_is_left_alone_and_none_is_made() {
    let world = world();
    assert_eq!(converge(&world.host, &wish()), Vec::<String>::new());
    let tables = world.host.run(|| run("nft", "list tables"));
    assert_eq!(tables.trim(), "table ip weft-weft");
    let in_use = || std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap();
    assert_eq!(world.host.run(in_use), "", "looking does not bring the older tables to life");

    for program in BOTH {
        world.host.run(|| run(program, "-P FORWARD ACCEPT"));
    }
    let state = world.host.block_on(|| async { fastpath().observe_policy().await }).unwrap();
    assert_eq!(state.forward.keys().copied().collect::<Vec<_>>(), [Backend::Nftables, Backend::Legacy]);
    assert_eq!(converge(&world.host, &wish()), Vec::<String>::new(), "open chains without rules");
    world.host.run(|| run("iptables-nft", "-P FORWARD DROP"));
    assert_eq!(converge(&world.host, &wish()).len(), 2);
    world.host.run(|| run("iptables-nft", "-P FORWARD ACCEPT"));
    assert_eq!(converge(&world.host, &wish()).len(), 2, "not needed any more");
    assert_eq!(rules(&world.host, "iptables-nft"), ["-P FORWARD ACCEPT"]);
}

#[test]
fn two_bridges_of_one_host_have_rules_of_their_own() {
    let world = world();
    world.host.run(|| run("iptables-nft", "-P FORWARD DROP"));
    converge(&world.host, &wish());
    let other: BridgeName = "other".parse().unwrap();
    let forward = Policy { forward: true, ..Policy::default() };
    world.host.block_on(|| async {
        let mut second = Fastpath::new(other).unwrap();
        assert_eq!(second.converge_policy(&forward).await.changes.len(), 2);
        assert_eq!(second.teardown().await.removed.len(), 2);
    });
    assert!(has_ours(&world.host, "iptables-nft"));
    assert_eq!(rules(&world.host, "iptables-nft").len(), 3);
}

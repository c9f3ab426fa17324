//! Names and paths made to do harm, and a pod that is root in its namespace and lies to its neighbours.
//!
//! ```text
//!   evil ─┐
//!   good ─┴─ bridge "weft" of host1 ── underlay ── host2 ── far
//! ```

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use weft_tests::cni::{
    Attachment, Conflist, Holdings, Runtime, Verb, addresses, network, network_with, runtime, serving,
};
use weft_tests::traffic::{
    ECHO_PORT, Echo, advertise, ping, tcp_round_trip, udp_round_trip, udp_send, wait_reaches,
};
use weft_tests::{Fabric, Host, Netns, deadline, host, scenario};

/// All files below a folder, by path.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(files(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found.sort();
    found
}

#[test]
fn a7_hostile_names_are_refused_and_reach_no_file_and_no_shell() -> Result<()> {
    scenario(|fabric| {
        let (mut host, runtime) = serving(fabric)?;
        let container = fabric.container("c1")?;
        let list = network(&host, "1.1.0")?;
        let good = Attachment::new("good", container.netns());
        runtime.add(&list, &good)?;
        runtime.del(&list, &good)?;
        let before = Holdings::of(&host)?;
        let beside = files(fabric.home());
        let mark = fabric.home().join("mark");
        let long = "a".repeat(4096);
        let shell = format!("$(touch {0})`touch {0}`;touch {0}", mark.display());
        let hostile = [
            "../../x",
            "..",
            "/etc/passwd",
            "a/../../b",
            ";rm -rf x",
            "$(id)",
            "a\nb",
            "ü",
            "%s%n",
            &shell,
            &long,
        ];
        for bad in hostile {
            for verb in [Verb::Add, Verb::Del, Verb::Check] {
                let mut pod = good.clone();
                pod.container_id = bad.to_owned();
                let (code, _) = runtime
                    .run(&runtime.prepare(verb, &list, 0, Some(&pod))?)?
                    .refused()
                    .context(bad.to_owned())?;
                ensure!(code == 4, "container id {bad:?}: {code}");
                if bad == long {
                    continue; // a network's name may be long
                }
                let mut named = list.clone();
                named.name = bad.to_owned();
                let (code, _) = runtime
                    .run(&runtime.prepare(verb, &named, 0, Some(&good))?)?
                    .refused()
                    .context(bad.to_owned())?;
                ensure!(code == 7, "network name {bad:?}: {code}");
            }
            for args in [
                format!("IP={bad}"),
                format!("MAC={bad}"),
                format!("{bad}=x"),
                bad.to_owned(),
                format!("K8S_POD_NAME={bad};{bad}"),
            ] {
                let call = runtime.prepare(Verb::Add, &list, 0, Some(&good))?.env("CNI_ARGS", &args);
                let answer = runtime.run(&call)?;
                ensure!(answer.code != 0, "CNI_ARGS {args:?} was taken: {}", answer.text());
                answer.refused()?;
            }
        }
        // With no router the plugin leaves notes: the name is all they have.
        host.kill()?;
        for bad in hostile {
            let mut pod = good.clone();
            pod.container_id = bad.to_owned();
            runtime.run(&runtime.prepare(Verb::Del, &list, 0, Some(&pod))?)?.refused()?;
        }
        ensure!(files(fabric.home()) == beside, "{:?}\n{:?}", beside, files(fabric.home()));
        ensure!(!mark.exists(), "a shell has run");
        host.launch(&[])?;
        host.wait_ready()?;
        before.wait_again(&host, Duration::from_secs(10)).map(drop)
    })
}

#[test]
fn a7_what_kubernetes_says_of_a_pod_is_read_and_never_obeyed() -> Result<()> {
    scenario(|fabric| {
        let (host, runtime) = serving(fabric)?;
        let container = fabric.container("c1")?;
        let pod = Attachment::new("c1", container.netns())
            .arg("IgnoreUnknown", "1")
            .arg("K8S_POD_NAMESPACE", "../../..")
            .arg("K8S_POD_NAME", "$(reboot)")
            .arg("K8S_POD_INFRA_CONTAINER_ID", &"f".repeat(64));
        let list = network(&host, "1.0.0")?;
        runtime.add(&list, &pod)?;
        runtime.check(&list, &pod)?;
        runtime.del(&list, &pod).map(drop).map_err(Into::into)
    })
}

#[test]
fn addresses_and_devices_that_are_not_a_pod_s_to_have_are_refused() -> Result<()> {
    scenario(|fabric| {
        let (host, runtime) = serving(fabric)?;
        let (c1, c2) = (fabric.container("c1")?, fabric.container("c2")?);
        let list = network(&host, "1.0.0")?;
        let taken = addresses(&runtime.add(&list, &Attachment::new("c1", c1.netns()))?.result)?;
        let before = Holdings::of(&host)?;
        let taken = taken.first().context("no address")?.0.to_string();
        for wanted in [
            taken.as_str(),
            "10.32.0.0",
            "10.47.255.255",
            "0.0.0.0",
            "127.0.0.1",
            "224.0.0.1",
            "10.32.0.9/33",
            "::1",
        ] {
            let pod = Attachment::new("c2", c2.netns()).capability("ips", json!([wanted]));
            let mut asking = list.clone();
            asking.plugins[0].insert("capabilities".to_owned(), json!({"ips": true}));
            let answer = runtime.add(&asking, &pod);
            ensure!(answer.is_err(), "{wanted}: {answer:?}");
        }
        for (key, value) in [
            ("bridge", json!("eth0")),
            ("bridge", json!("../x")),
            ("mtu", json!(1)),
            ("mtu", json!(1_000_000)),
        ] {
            let mut asking = list.clone();
            asking.plugins[0].insert(key.to_owned(), value.clone());
            let answer = runtime.add(&asking, &Attachment::new("c2", c2.netns()));
            ensure!(answer.is_err(), "{key} {value}: {answer:?}");
        }
        before.wait_again(&host, Duration::from_secs(5))?;
        ensure!(c2.netns().ip("-o link")?.lines().count() == 1, "a refused pod got an interface");
        Ok(())
    })
}

/// Three pods on two hosts, all by our plugin.
struct Village {
    hosts: Vec<Host>,
    evil: weft_tests::Container,
    good: weft_tests::Container,
    far: weft_tests::Container,
}

fn village(fabric: &Fabric) -> Result<Village> {
    let mut hosts = fabric.hosts(2)?;
    host::mesh(&mut hosts, &[])?;
    let (near, away) = (runtime(fabric, &hosts[0])?, runtime(fabric, &hosts[1])?);
    let lists: Vec<Conflist> = hosts.iter().map(|host| network(host, "1.1.0")).collect::<Result<_>>()?;
    let connect = |runtime: &Runtime, list: &Conflist, name: &str| {
        let mut container = fabric.container(name)?;
        let added = runtime.add(list, &Attachment::new(name, container.netns()))?;
        match addresses(&added.result)?.first() {
            Some((IpAddr::V4(address), _)) => container.set_address(*address),
            other => bail!("no IPv4 address: {other:?}"),
        }
        Ok(container)
    };
    let evil = connect(&near, &lists[0], "evil")?;
    let good = connect(&near, &lists[0], "good")?;
    let far = connect(&away, &lists[1], "far")?;
    wait_reaches(good.netns(), far.address(), Duration::from_secs(10))?;
    wait_reaches(evil.netns(), good.address(), Duration::from_secs(10))?;
    Ok(Village { hosts, evil, good, far })
}

/// What IPv6 a namespace has beyond what every link has by itself.
fn learned(netns: &Netns) -> Result<String> {
    let routes = netns.ip("-6 route show default")?;
    let addresses = netns.ip("-6 -o addr show scope global")?;
    Ok(routes + &addresses)
}

#[test]
fn a_pod_that_advertises_itself_as_a_router_is_believed_by_nobody() -> Result<()> {
    scenario(|fabric| {
        let village = village(fabric)?;
        let places =
            [village.good.netns(), village.far.netns(), village.hosts[0].netns(), village.hosts[1].netns()];
        for _ in 0..3 {
            advertise(village.evil.netns())?;
            deadline::pause(Duration::from_millis(300));
        }
        for place in places {
            ensure!(learned(place)?.is_empty(), "{} believed it: {}", place.name(), learned(place)?);
        }
        Ok(())
    })
}

#[test]
fn a_pod_reaches_no_port_of_the_mesh_on_its_own_host_or_another() -> Result<()> {
    scenario(|fabric| {
        let village = village(fabric)?;
        let evil = village.evil.netns();
        for host in &village.hosts {
            for port in [6783, 6784, 6785] {
                for _ in 0..50 {
                    // Refused or swallowed: both are well.
                    let _ = udp_send(evil, (host.address(), port).into(), &[0; 64]);
                }
            }
            let reached = evil.run(|| {
                let to = (host.address(), 6783).into();
                Ok(std::net::TcpStream::connect_timeout(&to, Duration::from_millis(700)).is_ok())
            })?;
            ensure!(!reached, "a pod can speak to the mesh port of {}", host.name());
        }
        wait_reaches(village.good.netns(), village.far.address(), Duration::from_secs(3)).map(drop)
    })
}

#[test]
fn a_pod_with_a_neighbour_s_addresses_is_forgotten_when_it_stops() -> Result<()> {
    scenario(|fabric| {
        let village = village(fabric)?;
        let Village { evil, good, far, .. } = &village;
        let _echo = Echo::start(good.netns())?;
        let mac = good.netns().ip("-o link show dev eth0")?;
        let mac = mac.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).context("no MAC")?;
        let own = evil.netns().ip("-o link show dev eth0")?;
        let own = own.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).context("no MAC")?;
        // It takes the neighbour's MAC and IP, and talks to everybody with them.
        evil.netns().ip(&format!("link set eth0 address {mac}"))?;
        evil.netns().ip(&format!("addr add {}/32 dev eth0", good.address()))?;
        ping(evil.netns(), far.address(), 5, 56)?;
        // It stops; the neighbour says one word, and all is as before.
        evil.netns().ip(&format!("addr del {}/32 dev eth0", good.address()))?;
        evil.netns().ip(&format!("link set eth0 address {own}"))?;
        ping(good.netns(), far.address(), 1, 56)?;
        wait_reaches(far.netns(), good.address(), Duration::from_secs(5))?;
        let answer = tcp_round_trip(far.netns(), good.address(), b"it is me")?;
        ensure!(answer == b"it is me", "port {ECHO_PORT} of the neighbour answers something else");
        Ok(())
    })
}

/// Runs a program in a namespace; what it prints.
fn tool(netns: &Netns, program: &str, words: &str) -> Result<String> {
    let mut command = Command::new(program);
    netns.execute(command.args(words.split(' ')), "", Duration::from_secs(10))?.success(words)
}

/// What a port's lock has dropped, by its reason.
fn dropped(host: &Host) -> Result<BTreeMap<String, u64>> {
    let shown = tool(host.netns(), "nft", "list table bridge weft-weft")?;
    let mut dropped = BTreeMap::new();
    for line in shown.lines() {
        let packets = line.split_once("counter packets ").and_then(|(_, rest)| rest.split(' ').next());
        let reason = line.split_once("comment \"").and_then(|(_, rest)| rest.strip_suffix('"'));
        if let (Some(packets), Some(reason)) = (packets, reason) {
            *dropped.entry(reason.to_owned()).or_insert(0) += packets.parse::<u64>()?;
        }
    }
    Ok(dropped)
}

fn mac_of(netns: &Netns) -> Result<String> {
    let shown = netns.ip("-o link show dev eth0")?;
    let mac = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    Ok(mac.context("no MAC")?.to_owned())
}

/// Datagrams to everybody and to one pod, from a port and, if there is one, from an address that is not its own.
fn shout(from: &Netns, source: Ipv4Addr, port: u16, to: &[(Ipv4Addr, u16)]) -> Result<()> {
    from.run(|| {
        let mut bound = None;
        // A program that is just being started beside us holds a copy of the last socket for a moment.
        deadline::until_true("the port is free", Duration::from_secs(2), || {
            match UdpSocket::bind((source, port)) {
                Ok(socket) => bound = Some(socket),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => return Err(error.into()),
            }
            Ok(bound.is_some())
        })?;
        let socket = bound.context("bound")?;
        socket.set_broadcast(true)?;
        for address in to {
            // Nobody answers for it, or it was dropped on its way out: that is the point.
            let _ = socket.send_to(b"in another's name", address);
        }
        Ok(())
    })
}

/// What root in a pod can do to its neighbours, under the reason by which it is counted.
fn attack(village: &Village, reason: &str, own: &str) -> Result<()> {
    const EVERYBODY: Ipv4Addr = Ipv4Addr::BROADCAST;
    let Village { evil, good, far, .. } = village;
    let netns = evil.netns();
    match reason {
        "another's MAC address" => {
            netns.ip(&format!("link set eth0 address {}", mac_of(good.netns())?))?;
            shout(netns, evil.address(), 0, &[(EVERYBODY, 9), (far.address(), 9)])?;
            netns.ip(&format!("link set eth0 address {own}")).map(drop)
        }
        "another's IPv4 address" => {
            // What it asks for it must know, or the question is what is dropped.
            netns.ip(&format!("neigh replace {} lladdr {} dev eth0", far.address(), mac_of(far.netns())?))?;
            shout(netns, good.address(), 0, &[(EVERYBODY, 9), (far.address(), 9)])
        }
        "ARP in another's name" => {
            netns.ip("neigh flush dev eth0")?;
            shout(netns, good.address(), 0, &[(far.address(), 9)])?;
            // Setting the address it has makes the kernel announce all it claims to be.
            netns.ip(&format!("link set eth0 address {own}")).map(drop)
        }
        "a router advertisement" => advertise(netns),
        "a DHCP server" => shout(netns, evil.address(), 67, &[(EVERYBODY, 68)]),
        other => bail!("no attack is called {other}"),
    }
}

#[test]
fn a_pod_that_lies_and_goes_on_lying_harms_nobody_meanwhile() -> Result<()> {
    scenario(|fabric| {
        let village = village(fabric)?;
        let Village { evil, good, far, hosts } = &village;
        let (_near, _away) = (Echo::start(good.netns())?, Echo::start(far.netns())?);
        let own = mac_of(evil.netns())?;
        let truth = mac_of(good.netns())?;
        evil.netns().ip(&format!("addr add {}/32 dev eth0", good.address()))?;
        let reasons = [
            "another's MAC address",
            "another's IPv4 address",
            "ARP in another's name",
            "a router advertisement",
            "a DHCP server",
        ];
        for reason in reasons {
            let before = dropped(&hosts[0])?;
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| {
                let lying = scope.spawn(|| -> Result<u32> {
                    let mut rounds = 0;
                    while !stop.load(Ordering::Relaxed) {
                        attack(&village, reason, &own)?;
                        rounds += 1;
                    }
                    Ok(rounds)
                });
                let honest = (0..15).try_for_each(|_| -> Result<()> {
                    // Each has to ask anew who has the other's address, and only one may answer.
                    far.netns().ip("neigh flush dev eth0")?;
                    for (from, to) in [(far, good), (good, far)] {
                        let answer = tcp_round_trip(from.netns(), to.address(), b"is it you?")?;
                        ensure!(answer == b"is it you?", "something else answers for {}", to.name());
                    }
                    let told = far.netns().ip(&format!("neigh show {}", good.address()))?;
                    ensure!(told.contains(&truth), "{} is thought to be elsewhere: {told}", good.name());
                    deadline::pause(Duration::from_millis(50));
                    Ok(())
                });
                stop.store(true, Ordering::Relaxed);
                let rounds = lying.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                ensure!(rounds > 3, "it lied only {rounds} times");
                honest
            })
            .with_context(|| format!("while it goes on with {reason}"))?;
            for place in [good.netns(), far.netns(), hosts[0].netns(), hosts[1].netns()] {
                ensure!(learned(place)?.is_empty(), "{} believed it: {}", place.name(), learned(place)?);
            }
            let after = dropped(&hosts[0])?;
            ensure!(after.get(reason) > before.get(reason), "{reason} is not counted: {before:?} {after:?}");
        }
        Ok(())
    })
}

/// A host with a router and two pods of a network, and a machine on the underlay that knows no way back to pods.
fn outside(fabric: &Fabric, further: serde_json::Value) -> Result<(Host, Vec<weft_tests::Container>, Host)> {
    let world = fabric.host("world")?;
    let (host, runtime) = serving(fabric)?;
    let list = network_with(&host, "1.0.0", further)?;
    let mut pods = Vec::new();
    for name in ["c1", "c2"] {
        let mut pod = fabric.container(name)?;
        let added = runtime.add(&list, &Attachment::new(name, pod.netns()))?;
        match addresses(&added.result)?.first() {
            Some((IpAddr::V4(address), _)) => pod.set_address(*address),
            other => bail!("no IPv4 address: {other:?}"),
        }
        pods.push(pod);
    }
    Ok((host, pods, world))
}

#[test]
fn a_pod_reaches_the_outside_by_its_host_s_address_unless_it_is_not_to() -> Result<()> {
    scenario(|fabric| {
        let (host, pods, world) = outside(fabric, json!({}))?;
        let _echo = Echo::start(world.netns())?;
        ensure!(world.netns().ip("route get 10.32.0.2").is_err(), "there is a way back");
        deadline::until_true("the outside answers a pod", Duration::from_secs(5), || {
            udp_round_trip(pods[0].netns(), world.address(), b"hello")
        })?;
        ensure!(tool(host.netns(), "nft", "list ruleset")?.contains("masquerade"), "by what?");
        Ok(())
    })?;
    scenario(|fabric| {
        let (host, pods, world) = outside(fabric, json!({"ipMasq": false}))?;
        let _echo = Echo::start(world.netns())?;
        host.netns().run(|| Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
        for _ in 0..3 {
            ensure!(!udp_round_trip(pods[0].netns(), world.address(), b"hello")?, "by whose address?");
        }
        ensure!(!tool(host.netns(), "nft", "list ruleset")?.contains("masquerade"), "masquerade");
        // With a way back its own address is as good.
        world.netns().ip(&format!("route add 10.32.0.0/12 via {}", host.address()))?;
        deadline::until_true("the outside answers a pod", Duration::from_secs(5), || {
            udp_round_trip(pods[0].netns(), world.address(), b"hello")
        })?;
        Ok(())
    })
}

/// Pods of a host whose FORWARD chain drops everything, bridged frames too, reach each other and the outside; without
/// our rules, nobody.
fn through_a_chain_that_drops(program: &str) -> Result<()> {
    scenario(|fabric| {
        let world = fabric.host("world")?;
        let mut host = fabric.host("host1")?;
        let netns = host.netns().clone();
        let tables = |words: &str| tool(&netns, program, words);
        tables("-P FORWARD DROP")?;
        let switch = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        host.netns().run(|| std::fs::write(switch, "1").context("the tests need br_netfilter"))?;
        host.launch(&[])?;
        host.wait_ready()?;
        let runtime = runtime(fabric, &host)?;
        let list = network(&host, "1.0.0")?;
        let pods = ["c1", "c2"].map(|name| fabric.container(name));
        let mut places = Vec::new();
        for (name, pod) in ["c1", "c2"].into_iter().zip(pods) {
            let pod = pod?;
            let added = runtime.add(&list, &Attachment::new(name, pod.netns()))?;
            match addresses(&added.result)?.first() {
                Some((IpAddr::V4(address), _)) => places.push((pod, *address)),
                other => bail!("no IPv4 address: {other:?}"),
            }
        }
        let (_far, _near) = (Echo::start(world.netns())?, Echo::start(places[1].0.netns())?);
        let works = || -> Result<(bool, bool)> {
            let from = places[0].0.netns();
            let hello = |to| udp_round_trip(from, to, b"hello");
            Ok((hello(places[1].1)?, hello(world.address())?))
        };
        let reached = || Ok(works()? == (true, true));
        deadline::until_true("pods reach each other and the outside", Duration::from_secs(5), reached)?;
        let rules = tables("-S FORWARD")?;
        ensure!(rules.contains("-P FORWARD DROP") && rules.contains("weft/weft"), "{rules}");
        host.freeze()?;
        tables("-F FORWARD")?;
        let without = works();
        host.thaw()?;
        ensure!(without? == (false, false), "the chain was in nobody's way");
        Ok(())
    })
}

#[test]
fn pods_get_through_a_forward_chain_that_drops_of_iptables_nft() -> Result<()> {
    through_a_chain_that_drops("iptables-nft")
}

#[test]
fn pods_get_through_a_forward_chain_that_drops_of_iptables_legacy() -> Result<()> {
    through_a_chain_that_drops("iptables-legacy")
}

//! Names and paths made to do harm, and a pod that is root in its namespace and lies to its neighbours.
//!
//! ```text
//!   evil ─┐
//!   good ─┴─ bridge "weft" of host1 ── underlay ── host2 ── far
//! ```

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use weft_tests::cni::{Attachment, Conflist, Holdings, Runtime, Verb, addresses, network, runtime};
use weft_tests::traffic::{ECHO_PORT, Echo, advertise, ping, tcp_round_trip, udp_send, wait_reaches};
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

fn serving(fabric: &Fabric) -> Result<(Host, Runtime)> {
    let mut host = fabric.host("host1")?;
    host.launch(&[])?;
    host.wait_ready()?;
    let runtime = runtime(fabric, &host)?;
    Ok((host, runtime))
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

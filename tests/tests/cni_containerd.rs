//! Pods started by a real containerd, on two hosts, connected by our plugin.
//!
//! ```text
//!   host1: containerd ── pods ── weft      weft ── pods ── containerd :host2
//!     └── eth0 10.99.0.1 ───────────────────── 10.99.0.2 ──┘
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use weft_tests::cni::{Conflist, Holdings, binary, link, network};
use weft_tests::containerd::{Containerd, Pod, PodSpec};
use weft_tests::{Fabric, Host, deadline, host, scenario, scenario_alone};

/// A web server with one page that says which pod it is.
const SERVER: &str = "mkdir -p /tmp/www; echo \"here is $(cat /etc/hostname)\" > /tmp/www/index.html; exec httpd -f -p 80 -h /tmp/www";
/// A container that is only there to ask from.
const IDLE: &str = "exec sleep 1000";

fn named(name: &str) -> PodSpec {
    PodSpec { name: name.to_owned(), ..PodSpec::default() }
}

/// A containerd on a host with a router, its pods connected by our plugin with portmap and bandwidth behind it.
fn node(fabric: &Fabric, host: &Host) -> Result<Containerd> {
    let containerd = Containerd::start(fabric, host.name(), host.netns())?;
    link(&containerd.plugins(), &binary()?)?;
    let mut list = network(host, "1.0.0")?;
    for plugin in [
        json!({"type": "portmap", "capabilities": {"portMappings": true}, "snat": true}),
        json!({"type": "bandwidth", "capabilities": {"bandwidth": true}}),
    ] {
        list.plugins.push(plugin.as_object().context("an object")?.clone());
    }
    containerd.set_network(&list)?;
    Ok(containerd)
}

/// Fetches a page from within a pod until it is what is expected.
fn page(pod: &Pod<'_>, container: &str, server: Ipv4Addr, wanted: &str) -> Result<()> {
    let mut last = None;
    // Not wget: the static busybox of Debian falls over its own name lookup.
    let script = format!("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {server} 80");
    let fetched = deadline::until_true(&format!("{server} answers"), Duration::from_secs(10), || {
        let got = pod.exec(container, &["sh", "-c", &script])?;
        let right = got.code == 0 && got.stdout.contains(wanted);
        last = Some(got);
        Ok(right)
    });
    fetched.map(drop).with_context(|| format!("{last:?}"))
}

#[test]
fn the_reference_plugins_carry_pods_of_the_harness() -> Result<()> {
    scenario(|fabric| {
        let host = fabric.host("host1")?;
        let containerd = Containerd::start(fabric, "host1", host.netns())?;
        let bridge = json!({
            "type": "bridge", "bridge": "ref0", "isGateway": true,
            "ipam": {"type": "host-local", "dataDir": fabric.home().join("host-local"),
                     "ranges": [[{"subnet": "10.77.0.0/24"}]]},
        });
        let portmap = json!({"type": "portmap", "capabilities": {"portMappings": true}});
        containerd.set_network(&Conflist::of("1.0.0", "reference", json!([bridge, portmap]))?)?;
        let (first, _) = containerd.shell(&named("first"), IDLE)?;
        let (second, container) = containerd.shell(&named("second"), IDLE)?;
        let target = first.address()?.to_string();
        let pinged = second.exec(&container, &["ping", "-c", "1", "-W", "2", &target])?;
        ensure!(pinged.code == 0, "{pinged:?}");
        second.remove()?;
        first.remove()
    })
}

#[test]
fn pods_on_two_hosts_talk_and_leave_nothing_when_they_go() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        host::mesh(&mut hosts, &[])?;
        let (near, far) = (node(fabric, &hosts[0])?, node(fabric, &hosts[1])?);
        // The first pod of a host gives the host its own address, which stays.
        near.pod(&named("warm"))?.remove()?;
        far.pod(&named("warm"))?.remove()?;
        let before = [Holdings::of(&hosts[0])?, Holdings::of(&hosts[1])?];
        let (asker, asking) = near.shell(&named("asker"), IDLE)?;
        let (beside, _) = near.shell(&named("beside"), SERVER)?;
        let (server, _) = far.shell(&named("server"), SERVER)?;
        page(&asker, &asking, beside.address()?, "here is beside")?;
        page(&asker, &asking, server.address()?, "here is server")?;
        let ids: Vec<String> = [&asker, &beside].iter().map(|pod| pod.id().to_owned()).collect();
        let held = Holdings::of(&hosts[0])?.attachments;
        ensure!(ids.iter().all(|id| held.contains(id)), "{held:?} lacks one of {ids:?}");
        for pod in [asker, beside, server] {
            pod.remove()?;
        }
        before[0].wait_again(&hosts[0], Duration::from_secs(10))?;
        before[1].wait_again(&hosts[1], Duration::from_secs(10))?;
        Ok(())
    })
}

#[test]
fn a_host_port_and_a_bandwidth_limit_of_the_reference_plugins_work_behind_ours() -> Result<()> {
    scenario_alone(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        host::mesh(&mut hosts, &[])?;
        let containerd = node(fabric, &hosts[0])?;
        // Every Kubernetes node forwards: the kubelet asks for it, and nothing of ours may change it.
        hosts[0].netns().run(|| Ok(std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?))?;
        let spec = PodSpec { ports: vec![(80, 8080)], ..named("server") };
        let (server, _) = containerd.shell(&spec, SERVER)?;
        // From the other host, over the underlay.
        let (asked, to) = (hosts[1].netns().clone(), hosts[0].address());
        let page = || asked.run(|| http_get(to, 8080, Duration::from_secs(2)));
        let found = deadline::until("the host port answers", Duration::from_secs(10), || Ok(page().ok()))?.0;
        ensure!(found.contains("here is server"), "{found}");
        server.remove()?;
        ensure!(page().is_err(), "the host port answers for a pod that is gone");
        let limited = PodSpec {
            annotations: vec![("kubernetes.io/egress-bandwidth".to_owned(), "1M".to_owned())],
            ..named("slow")
        };
        let slow = containerd.pod(&limited)?;
        let shaped = hosts[0].netns().execute(
            std::process::Command::new("tc").args(["qdisc", "show"]),
            "",
            Duration::from_secs(5),
        )?;
        ensure!(shaped.stdout.contains("tbf"), "no limit was set: {}", shaped.stdout);
        slow.remove()
    })
}

/// The body and head of one page, by HTTP/1.0.
fn http_get(to: Ipv4Addr, port: u16, limit: Duration) -> Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&(to, port).into(), limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn a_restart_of_the_router_costs_pods_neither_address_nor_connection() -> Result<()> {
    scenario_alone(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        host::mesh(&mut hosts, &[])?;
        let (near, far) = (node(fabric, &hosts[0])?, node(fabric, &hosts[1])?);
        let (asker, asking) = near.shell(&named("asker"), IDLE)?;
        let (server, _) = far.shell(&named("server"), SERVER)?;
        page(&asker, &asking, server.address()?, "here is server")?;
        let before = Holdings::of(&hosts[1])?;
        hosts[1].terminate()?;
        // Pods go on among themselves, and DEL works, while no router is there.
        let other = hosts[0].address().to_string();
        hosts[1].launch(&[&other])?;
        hosts[1].wait_ready()?;
        page(&asker, &asking, server.address()?, "here is server")?;
        before.wait_again(&hosts[1], Duration::from_secs(10)).context("what pods hold after the restart")?;
        let address = server.address()?;
        let held = hosts[1].status()?;
        ensure!(held["attachments"].to_string().contains(&address.to_string()), "{held:#}");
        hosts[1].kill()?;
        server.remove().context("a pod that goes while the router is away")?;
        hosts[1].launch(&[&other])?;
        hosts[1].wait_ready()?;
        deadline::until_true("the address of the pod that went is free", Duration::from_secs(15), || {
            Ok(Holdings::of(&hosts[1])?.used + 1 == before.used)
        })?;
        asker.remove()
    })
}

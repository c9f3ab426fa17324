//! Pods: what a plugin asks for comes true once, wholly, and nothing of it later.

use weft_api::{CniAdd, CniAttached, CniLease, CniName, CniRoute, CniStatus, Response};
use weft_fastpath::{ContainerLink, DefaultRoute};

use super::*;

fn name(container: &str) -> CniName {
    CniName { container: container.into(), ifname: "eth0".into() }
}

fn add(container: &str) -> CniAdd {
    CniAdd {
        name: name(container),
        network: "weft".into(),
        netns: format!("/run/netns/{container}"),
        bridge: None,
        mtu: None,
        mac: None,
        hairpin: true,
        addresses: Vec::new(),
        subnet: None,
        gateway: None,
        routes: None,
        outward: true,
        timeout_ms: 5_000,
    }
}

fn replies(outputs: &[Output]) -> Vec<Result<Response, ApiError>> {
    let reply = |output: &Output| {
        let Output::Reply(_, result) = output else { return None };
        Some(result.clone())
    };
    outputs.iter().filter_map(reply).collect()
}

impl Bench {
    /// Asks for a pod and gives the link that the kernel is to make.
    fn pod(&mut self, add: CniAdd) -> (CallId, Option<ContainerLink>) {
        let call = self.call(Request::CniAdd(Box::new(add)));
        let link = self.quiet().into_iter().find_map(|output| {
            let Output::Kernel(KernelJob::Attach(_, link, _)) = output else { return None };
            Some(*link)
        });
        (call, link)
    }

    fn wired(&mut self, add: CniAdd) -> CniAttached {
        let (call, _) = self.pod(add);
        self.node.handle_kernel(KernelReport::Attached(call, Ok(())), self.now);
        match replies(&self.quiet()).pop() {
            Some(Ok(Response::CniAttached(attached))) => *attached,
            other => panic!("{other:?}"),
        }
    }

    fn status_of_pods(&mut self) -> CniStatus {
        self.call(Request::CniStatus { addresses: true });
        match replies(&self.quiet()).pop() {
            Some(Ok(Response::CniStatus(status))) => status,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_first_pod_brings_the_host_an_address_and_all_lead_by_it() {
    let mut bench = Bench::new();
    let first = bench.wired(add("c1"));
    assert_eq!(
        (first.gateway.as_deref(), &first.addresses[..]),
        (Some("10.32.0.1"), &["10.32.0.2/24".to_owned()][..])
    );
    assert_eq!(first.routes, [CniRoute { dst: "0.0.0.0/0".into(), gw: Some("10.32.0.1".into()) }]);
    let (_, link) = bench.pod(add("c2"));
    assert_eq!(link.unwrap().gateway, DefaultRoute::Via("10.32.0.1".parse().unwrap()));
    assert_eq!(bench.node.status(bench.now).exposed, ["10.32.0.1/24"]);
    assert!(bench.node.state().cni.outward);
}

#[test]
fn a_pod_has_the_routes_the_mac_and_the_mtu_it_was_to_have_and_a_restart_keeps_them() {
    let mut bench = Bench::new();
    let wish = CniAdd {
        mtu: Some(1300),
        mac: Some("02:11:22:33:44:55".into()),
        hairpin: false,
        addresses: vec!["10.32.0.77".into()],
        gateway: Some("10.32.0.9".into()),
        routes: Some(vec![
            CniRoute { dst: "10.99.1.0/24".into(), gw: None },
            CniRoute { dst: "10.98.0.0/16".into(), gw: Some("10.32.0.8".into()) },
        ]),
        ..add("c1")
    };
    let (call, link) = bench.pod(wish);
    let link = link.unwrap();
    assert_eq!((link.mtu, link.hairpin, link.gateway), (1300, false, DefaultRoute::None));
    let via = |text: &str| Some(text.parse().unwrap());
    let routes = [("10.99.1.0/24", "10.32.0.9"), ("10.98.0.0/16", "10.32.0.8")];
    assert_eq!(link.routes, routes.map(|(net, by)| (net.parse().unwrap(), via(by))));
    assert!(bench.node.status(bench.now).exposed.is_empty(), "a gateway was named");
    bench.node.handle_kernel(KernelReport::Attached(call, Ok(())), bench.now);
    bench.quiet();
    let again = Bench::with(State::decode(&bench.node.state().encode()).unwrap());
    let port = again.node.local_wish().desired.ports.into_values().next().unwrap();
    assert_eq!((port.mtu, port.hairpin), (1300, false));
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_done() {
    for bad in [
        CniAdd { bridge: Some("cni0".into()), ..add("c1") },
        CniAdd { mtu: Some(9000), ..add("c1") },
        CniAdd { mtu: Some(100), ..add("c1") },
        CniAdd { mac: Some("ff:ff:ff:ff:ff:ff".into()), ..add("c1") },
        CniAdd { mac: Some("mac".into()), ..add("c1") },
        CniAdd { gateway: Some("fd00::1".into()), ..add("c1") },
        CniAdd { addresses: vec!["10.32.0.9/33".into()], ..add("c1") },
        CniAdd { addresses: vec!["fd00::9/64".into()], ..add("c1") },
        CniAdd { subnet: Some("10.32.0.0/40".into()), ..add("c1") },
        CniAdd { routes: Some(vec![CniRoute { dst: "all".into(), gw: None }]), ..add("c1") },
    ] {
        let mut bench = Bench::new();
        bench.call(Request::CniAdd(Box::new(bad)));
        let outputs = bench.quiet();
        let error = replies(&outputs).pop().unwrap().unwrap_err();
        assert_eq!(error.code, ErrorCode::Usage, "{error}");
        assert!(!words(&outputs).contains(&"attach") && bench.node.status(bench.now).exposed.is_empty());
    }
}

#[test]
fn an_address_that_no_host_can_have_is_refused_however_it_is_asked_for() {
    for bad in
        ["0.0.0.0", "0.1.2.3/8", "127.0.0.1", "127.8.8.8/8", "224.0.0.1", "255.255.255.255", "250.1.1.1"]
    {
        let lease = CniLease {
            name: name("c1"),
            network: "weft".into(),
            address: Some(bad.into()),
            subnet: None,
            timeout_ms: 5_000,
        };
        for request in [
            Request::CniAdd(Box::new(CniAdd { addresses: vec![bad.into()], ..add("c1") })),
            Request::CniLease(lease),
            Request::Attach(Attach { addresses: vec![bad.into()], ..attach("c1") }),
            Request::IpamClaim { id: "c1".into(), cidr: bad.into(), timeout_ms: 5_000 },
            Request::Expose { cidr: Some(bad.into()) },
        ] {
            let mut bench = Bench::new();
            bench.call(request.clone());
            let error = replies(&bench.quiet()).pop().unwrap().unwrap_err();
            assert!(error.code == ErrorCode::Failed && error.message.contains(bad), "{request:?}: {error}");
            assert!(bench.held("c1").is_empty() && bench.node.state().cni.leases.is_empty());
        }
    }
}

#[test]
fn a_pod_deleted_while_it_is_added_never_comes_true() {
    // Before it has a gateway, before it has an address, and while the kernel works.
    for routes in [None, Some(Vec::new())] {
        let mut bench = Bench::of(State::default(), Some(3));
        bench.call(Request::CniAdd(Box::new(CniAdd { routes, ..add("c1") })));
        assert!(!words(&bench.drain()).contains(&"no"), "it waits for addresses");
        bench.call(Request::CniDel(name("c1")));
        let outputs = bench.quiet();
        let (refused, done): (Vec<_>, Vec<_>) = replies(&outputs).into_iter().partition(Result::is_err);
        assert_eq!((refused.len(), done.len()), (1, 0), "the delete is answered by the kernel task");
        bench.now += Duration::from_secs(10);
        assert!(!words(&bench.quiet()).contains(&"attach") && bench.held("c1").is_empty());
    }
    let mut bench = Bench::new();
    let (call, link) = bench.pod(add("c2"));
    assert!(link.is_some());
    bench.call(Request::CniDel(name("c2")));
    let outputs = bench.quiet();
    assert!(words(&outputs).contains(&"detach"), "{:?}", words(&outputs));
    assert_eq!(replies(&outputs).len(), 1, "the add is refused, the delete answered by the kernel task");
    bench.node.handle_kernel(KernelReport::Attached(call, Ok(())), bench.now);
    bench.quiet();
    assert!(bench.held("c2").is_empty());
    assert!(bench.node.status(bench.now).attachments.is_empty() && bench.node.state().cni.links.is_empty());
}

#[test]
fn a_delete_is_answered_by_whoever_removes_the_link_and_again_is_fine() {
    let mut bench = Bench::new();
    bench.wired(add("c1"));
    let call = bench.call(Request::CniDel(name("c1")));
    let outputs = bench.quiet();
    let place = |found: &dyn Fn(&Output) -> bool| outputs.iter().position(found).unwrap();
    let detached = place(&|output| matches!(output, Output::Kernel(KernelJob::Detach(_))));
    let asked = place(&|output| matches!(output, Output::Kernel(KernelJob::Fence(one)) if *one == call));
    assert!(detached < asked);
    assert!(bench.held("c1").is_empty());
    for _ in 0..3 {
        bench.call(Request::CniDel(name("c1")));
        assert_eq!(words(&bench.quiet()), ["yes"]);
    }
}

#[test]
fn a_look_at_the_kernel_from_before_a_delete_does_not_bring_the_pod_back() {
    let mut bench = Bench::new();
    bench.node.handle_links(&[], bench.now);
    bench.wired(add("c1"));
    let looked = standing("c1", true, Some(Ipv4Addr::new(10, 32, 0, 2)));
    bench.call(Request::CniDel(name("c1")));
    bench.quiet();
    bench.node.handle_links(&[looked], bench.now);
    bench.quiet();
    assert!(bench.held("c1").is_empty() && bench.node.status(bench.now).attachments.is_empty());
}

#[test]
fn a_collection_takes_what_its_network_does_not_use_and_nothing_else() {
    let mut bench = Bench::new();
    bench.attached("mine");
    for (container, network) in [("a", "weft"), ("b", "weft"), ("c", "other")] {
        bench.wired(CniAdd { network: network.into(), ..add(container) });
        let lease = CniLease {
            name: name(container),
            network: network.into(),
            address: None,
            subnet: None,
            timeout_ms: 5_000,
        };
        bench.call(Request::CniLease(lease));
        bench.quiet();
    }
    bench.call(Request::CniGc { network: "weft".into(), valid: vec![name("a")] });
    bench.quiet();
    let left: Vec<String> = bench.node.status(bench.now).attachments.into_iter().map(|a| a.id).collect();
    assert_eq!(left, ["a", "c", "mine"]);
    assert!(bench.held("b").is_empty() && bench.held("b/eth0").is_empty());
    assert!(!bench.held("a/eth0").is_empty() && !bench.held("c/eth0").is_empty());
    bench.call(Request::CniGc { network: "weft".into(), valid: Vec::new() });
    bench.quiet();
    assert!(bench.held("a").is_empty() && !bench.held("c").is_empty());
}

#[test]
fn with_no_address_left_a_pod_is_to_try_again_and_the_status_says_so() {
    let mut bench = Bench::new();
    assert_eq!(bench.status_of_pods().unavailable.as_deref(), Some("the bridge does not stand yet"));
    bench.node.handle_kernel(KernelReport::Converged(Ok(())), bench.now);
    assert_eq!(bench.status_of_pods(), CniStatus::default());
    for number in 0..254 {
        bench.call(Request::IpamAllocate { id: format!("i{number}"), cidr: None, timeout_ms: 1_000 });
        bench.drain();
        bench.node.handle_persisted(Ok(()), bench.now);
    }
    bench.quiet();
    assert_eq!(bench.status_of_pods().unavailable.as_deref(), Some("no free address is left"));
    bench.call(Request::CniAdd(Box::new(add("c1"))));
    let error = replies(&bench.quiet()).pop().unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::NotNow, "{error}");
}

#[test]
fn a_check_tells_a_pod_that_stands_from_one_that_does_not() {
    let mut bench = Bench::new();
    bench.call(Request::CniCheck(name("c1")));
    assert_eq!(words(&bench.quiet()), ["no"]);
    bench.wired(add("c1"));
    bench.call(Request::CniCheck(name("c1")));
    assert_eq!(replies(&bench.quiet()), [Ok(Response::Addresses(vec!["10.32.0.2/24".into()]))]);
    bench.node.handle_links(&[], bench.now);
    bench.quiet();
    bench.call(Request::CniCheck(name("c1")));
    assert_eq!(words(&bench.quiet()), ["no"], "its namespace has vanished");
    assert!(bench.node.state().cni.links.is_empty());
}

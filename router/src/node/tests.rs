//! One router alone, driven by hand: what is promised only after it is on disk, and what is undone.

use std::net::Ipv4Addr;
use std::time::Duration;

use weft_api::{Attach, ErrorCode, Request};
use weft_fastpath::{PortId, StandingLink};
use weft_gossip::{BootId, Identity, Incarnation, Psk};

use super::*;

struct Bench {
    node: Node,
    now: Instant,
    calls: u64,
}

/// What a drained node wanted, in words, in order.
fn words(outputs: &[Output]) -> Vec<&'static str> {
    let word = |output: &Output| match output {
        Output::Persist => Some("persist"),
        Output::Kernel(KernelJob::Attach(..)) => Some("attach"),
        Output::Kernel(KernelJob::Detach(_)) => Some("detach"),
        Output::Kernel(KernelJob::SetPort(..)) => Some("port"),
        Output::Kernel(KernelJob::Fence(_)) => Some("fence"),
        Output::Reply(_, Ok(_)) => Some("yes"),
        Output::Reply(_, Err(_)) => Some("no"),
        Output::Leave(_) => Some("leave"),
        Output::Kernel(KernelJob::Converge(_) | KernelJob::Fastpath(_) | KernelJob::MoveMacs { .. })
        | Output::Probe { .. }
        | Output::Transport(_)
        | Output::Data(_)
        | Output::Inspect(..) => None,
    };
    outputs.iter().filter_map(word).collect()
}

fn attach(id: &str) -> Attach {
    Attach {
        id: Some(id.into()),
        addresses: Vec::new(),
        ifname: "eth0".into(),
        default_route: true,
        netns: format!("/run/netns/{id}"),
        netns_inode: 1,
        timeout_ms: 5_000,
    }
}

impl Bench {
    fn new() -> Self {
        Self::with(State::default())
    }

    fn with(state: State) -> Self {
        Self::of(state, None)
    }

    /// A router that waits for that many peers before it gives out addresses.
    fn of(state: State, electors: Option<usize>) -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant will do, time is moved by hand")]
        let now = Instant::now();
        let identity = Identity::from_secret([7; 32]);
        let me = identity.name();
        let mesh = MeshConfig {
            identity,
            incarnation: Incarnation(1),
            boot: BootId(1),
            nickname: "here".into(),
            site: "default".into(),
            psk: Psk::open(),
            endpoints: Vec::new(),
            listen_port: 6783,
            discovery: true,
            connection_limit: None,
            targets: Vec::new(),
            channels: BTreeSet::new(),
        };
        let range = "10.32.0.0/24".parse().unwrap();
        let config = NodeConfig {
            mesh,
            ipam: Some(AllocatorConfig { range, init: ipam::InitMode::Consensus(electors), peers_given: 0 }),
            overlay: overlay::Config {
                me,
                sleeve: Some(6783),
                fastpath: Some(6784),
                mtu: 1450,
                encrypted: false,
                trusted: Vec::new(),
                entropy: overlay::Entropy([1; 32]),
            },
            kernel: KernelConfig { bridge: BridgeName::default(), mtu: 1450, offloads: true, sleeve: true },
            version: "test".into(),
            described: BTreeMap::new(),
            seed: 1,
            mesh_seed: Seed::from(1u64),
        };
        let mut bench = Self { node: Node::new(config, state, now), now, calls: 0 };
        bench.quiet();
        bench
    }

    fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.node.poll_output()).collect()
    }

    /// Writes whatever is to be written and lets time pass until nothing is.
    fn quiet(&mut self) -> Vec<Output> {
        let mut all = Vec::new();
        for _ in 0..200 {
            for output in self.drain() {
                if matches!(output, Output::Persist) {
                    self.node.handle_persisted(Ok(()), self.now);
                }
                all.push(output);
            }
            self.now += Duration::from_millis(20);
            self.node.handle_timeout(self.now);
        }
        all
    }

    fn call(&mut self, request: Request) -> CallId {
        self.calls += 1;
        let call = CallId(self.calls);
        self.node.handle_call(call, request, self.now);
        call
    }

    fn attach(&mut self, id: &str) -> CallId {
        self.call(Request::Attach(attach(id)))
    }

    /// Attaches and wires.
    fn attached(&mut self, id: &str) {
        let call = self.attach(id);
        self.quiet();
        self.node.handle_kernel(KernelReport::Attached(call, Ok(())), self.now);
        self.quiet();
    }

    fn held(&self, id: &str) -> Vec<Ipv4Addr> {
        self.node.ipam.as_ref().unwrap().lookup(id).collect()
    }
}

#[test]
fn an_attachment_is_on_disk_before_the_kernel_is_touched_and_that_it_stands_soon_after() {
    let mut bench = Bench::new();
    let call = bench.attach("c1");
    let asked = bench.quiet();
    let order = words(&asked);
    let kernel = order.iter().position(|word| *word == "attach").unwrap();
    assert!(order[..kernel].contains(&"persist"), "{order:?}");
    assert!(!order.contains(&"yes"), "{order:?}");
    bench.node.handle_kernel(KernelReport::Attached(call, Ok(())), bench.now);
    assert_eq!(words(&bench.drain()), ["yes"], "a restart would find the link standing");
    let soon = bench.node.poll_timeout().unwrap();
    assert!(soon <= bench.now + Duration::from_secs(1));
    bench.node.handle_timeout(soon);
    assert_eq!(words(&bench.drain()), ["persist"]);
}

#[test]
fn what_the_kernel_refused_leaves_no_address_and_no_attachment() {
    let mut bench = Bench::new();
    let call = bench.attach("c1");
    bench.quiet();
    assert_eq!(bench.held("c1").len(), 1);
    bench.node.handle_kernel(KernelReport::Attached(call, Err("no such device".into())), bench.now);
    assert_eq!(words(&bench.quiet()), ["persist", "no"]);
    assert!(bench.held("c1").is_empty());
    assert!(bench.node.status(bench.now).attachments.is_empty());
}

#[test]
fn with_a_full_disk_nothing_is_promised_nor_wired_and_later_it_works_again() {
    let mut bench = Bench::new();
    bench.attached("early");
    bench.attach("late");
    let outputs = bench.drain();
    assert_eq!(words(&outputs), ["persist"]);
    bench.node.handle_persisted(Err("No space left on device".into()), bench.now);
    let outputs = bench.drain();
    let refused = outputs.iter().find_map(|output| {
        let Output::Reply(_, Err(error)) = output else { return None };
        Some(error.clone())
    });
    let refused = refused.unwrap();
    assert_eq!(refused.code, ErrorCode::NotNow);
    assert!(refused.message.contains("No space left"), "{}", refused.message);
    assert!(!words(&outputs).contains(&"attach"));
    assert!(!bench.node.status(bench.now).warnings.is_empty());
    bench.quiet();
    bench.attached("late");
    assert_eq!(bench.held("late").len(), 1);
}

#[test]
fn attaching_again_while_the_disk_is_full_takes_nothing_from_a_container_that_stands() {
    let mut bench = Bench::new();
    bench.attached("c1");
    let held = bench.held("c1");
    bench.attach("c1");
    assert_eq!(words(&bench.drain()), ["persist"]);
    bench.node.handle_persisted(Err("No space left on device".into()), bench.now);
    assert_eq!(words(&bench.drain()), ["no"]);
    assert_eq!(bench.held("c1"), held);
    assert!(!words(&bench.quiet()).contains(&"detach"));
    assert_eq!(bench.node.status(bench.now).attachments.len(), 1);
}

#[test]
fn a_container_that_vanished_gives_its_address_back_and_one_that_stands_keeps_it() {
    let mut bench = Bench::new();
    bench.attached("gone");
    bench.attached("stays");
    let kept = bench.held("stays");
    let standing = standing("stays", true, None);
    bench.node.handle_links(&[standing], bench.now);
    assert!(words(&bench.quiet()).contains(&"detach"));
    assert!(bench.held("gone").is_empty());
    assert_eq!(bench.held("stays"), kept);
}

fn standing(id: &str, carrier: bool, address: Option<Ipv4Addr>) -> StandingLink {
    StandingLink {
        port: PortId::new(id, "eth0").unwrap(),
        host_end: format!("wv-{id}"),
        ifindex: 7,
        joined: true,
        up: true,
        carrier,
        mtu: 1450,
        address,
    }
}

#[test]
fn a_restart_keeps_what_was_wired_and_undoes_what_was_left_half_made() {
    let mut bench = Bench::new();
    bench.attached("wired");
    bench.attach("finished");
    bench.attach("half-made");
    bench.quiet();
    let kept = [bench.held("wired"), bench.held("finished")];
    let mut again = Bench::with(State::decode(&bench.node.state().encode()).unwrap());
    let links =
        [standing("wired", true, None), standing("finished", true, None), standing("half-made", false, None)];
    again.node.handle_links(&links, again.now);
    let outputs = again.quiet();
    assert_eq!(
        words(&outputs).iter().filter(|word| **word == "detach").count(),
        1,
        "only the half-made link goes"
    );
    assert_eq!([again.held("wired"), again.held("finished")], kept);
    assert!(again.held("half-made").is_empty());
}

#[test]
fn with_the_state_lost_a_running_container_s_address_is_claimed_back_and_not_given_to_another() {
    let mut bench = Bench::new();
    let running = Ipv4Addr::new(10, 32, 0, 1);
    bench.node.handle_links(&[standing("old", true, Some(running))], bench.now);
    bench.quiet();
    assert_eq!(bench.held("old"), [running]);
    bench.attached("new");
    assert_ne!(bench.held("new"), [running]);
    assert_eq!(bench.node.status(bench.now).attachments.len(), 2);
}

#[test]
fn an_address_given_to_another_before_the_link_of_the_first_went_has_one_owner_after_a_crash() {
    let mut bench = Bench::new();
    bench.attached("first");
    let address = bench.held("first")[0];
    // The first is detached and its address given to the second; the crash comes before the kernel does either.
    bench.call(Request::Detach {
        id: Some("first".into()),
        netns: "/run/netns/first".into(),
        netns_inode: None,
    });
    bench.quiet();
    bench.attach("second");
    bench.quiet();
    assert_eq!(bench.held("second"), [address]);
    let mut again = Bench::with(State::decode(&bench.node.state().encode()).unwrap());
    again.node.handle_links(&[standing("first", true, Some(address))], again.now);
    again.quiet();
    assert_eq!((again.held("first"), again.held("second")), (vec![address], vec![]));
    again.attached("third");
    assert_ne!(again.held("third"), [address]);
}

#[test]
fn the_address_of_an_attachment_cannot_be_released_under_it() {
    let mut bench = Bench::new();
    bench.attached("c1");
    let held = bench.held("c1");
    bench.call(Request::IpamRelease { id: "c1".into(), cidr: None });
    assert_eq!(words(&bench.quiet()), ["no"]);
    assert_eq!(bench.held("c1"), held);
}

#[test]
fn attaching_again_answers_the_same_and_other_addresses_are_refused() {
    let mut bench = Bench::new();
    bench.attached("c1");
    let first = bench.held("c1");
    bench.attached("c1");
    assert_eq!(bench.held("c1"), first);
    bench.call(Request::Attach(Attach { addresses: vec!["10.32.0.77/24".into()], ..attach("c1") }));
    assert_eq!(words(&bench.quiet()), ["no"]);
    assert_eq!(bench.held("c1"), first);
}

mod pods;

/// A peer that dials it again at once would have a session, and keep what it serves when that ends.
#[test]
fn a_router_that_has_left_takes_nobody_in_any_more() {
    let mut bench = Bench::new();
    let caller = "10.99.0.2:40000".parse().unwrap();
    assert!(bench.node.accept(caller, None, bench.now).is_some());
    bench.call(Request::Reset { force: true });
    assert!(words(&bench.quiet()).contains(&"leave"));
    assert_eq!(bench.node.accept(caller, None, bench.now), None);
}

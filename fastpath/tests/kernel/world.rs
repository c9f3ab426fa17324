//! Network namespaces that live as long as the value, and the hosts and containers in them.

use std::fs::File;
use std::future::Future;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use weft_fastpath::{
    Attached, BridgeName, ContainerLink, ContainerPort, DefaultRoute, Desired, Error, Fastpath, MacAddr,
    PortId, Sleeve,
};

/// The MTU of everything in these tests.
pub(crate) const MTU: u32 = 1450;

/// A network namespace that nobody else has; it ends with the value.
pub(crate) struct Namespace {
    descriptor: OwnedFd,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        let make = || {
            if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
                panic!("cannot make a network namespace ({errno}): run as root, or under `unshare -Urnm`");
            }
            File::open("/proc/thread-self/ns/net").expect("a thread has a network namespace").into()
        };
        Self { descriptor: joined(thread::scope(|scope| scope.spawn(make).join())) }
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Runs on a thread in this namespace.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let enter = || {
            setns(&self.descriptor, CloneFlags::CLONE_NEWNET).expect("we made this namespace");
            work()
        };
        joined(thread::scope(|scope| scope.spawn(enter).join()))
    }

    /// Runs on a thread in this namespace, on a runtime of its own.
    pub(crate) fn block_on<T: Send, F: Future<Output = T>>(&self, work: impl FnOnce() -> F + Send) -> T {
        self.run(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async { work().await })
        })
    }

    /// A route netlink socket that was opened inside.
    pub(crate) fn netlink(&self) -> OwnedFd {
        self.run(|| {
            let protocol = SockProtocol::NetlinkRoute;
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).expect("netlink")
        })
    }

    /// Whether an interface of that name stands in it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.run(|| nix::net::if_::if_nametoindex(name).is_ok())
    }

    pub(crate) fn index(&self, name: &str) -> u32 {
        self.run(|| nix::net::if_::if_nametoindex(name).unwrap_or_else(|errno| panic!("{name}: {errno}")))
    }

    /// How many interfaces stand in it.
    pub(crate) fn interfaces(&self) -> Vec<String> {
        self.run(|| {
            let text = std::fs::read_to_string("/proc/thread-self/net/dev").expect("proc");
            text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
        })
    }

    /// Waits until the interface is gone: the kernel clears away a dead namespace's devices in its own time.
    pub(crate) fn wait_without(&self, name: &str) {
        self.block_on(|| async {
            for _ in 0..200 {
                if nix::net::if_::if_nametoindex(name).is_err() {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            panic!("{name} is still there");
        });
    }
}

fn joined<T>(result: thread::Result<T>) -> T {
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// What a router wants on a host: the bridge and a sleeve that captures finished frames.
pub(crate) fn wish() -> Desired {
    let mut desired = Desired::new(BridgeName::default(), MacAddr::from_peer(0x1122_3344_5566_7788), MTU);
    desired.sleeve = Some(Sleeve { offloads: false });
    desired
}

/// As [`wish`], with these containers journaled.
pub(crate) fn wish_with(ids: &[&str]) -> Desired {
    let mut desired = wish();
    for id in ids {
        desired.ports.insert(port(id), ContainerPort { mtu: MTU, up: true, hairpin: true });
    }
    desired
}

pub(crate) fn port(id: &str) -> PortId {
    PortId::new(id, "eth0").expect("a good id")
}

pub(crate) fn host_end(id: &str) -> String {
    BridgeName::default().host_end(&port(id))
}

pub(crate) fn fastpath() -> Fastpath {
    Fastpath::new(BridgeName::default()).expect("netlink")
}

/// A link for container `id` with address 10.32.0.`last`/12.
pub(crate) fn link(id: &str, last: u8) -> ContainerLink {
    let address = std::net::Ipv4Addr::new(10, 32, 0, last);
    ContainerLink {
        id: id.to_owned(),
        ifname: "eth0".to_owned(),
        mac: MacAddr::from_ip(address),
        addresses: vec![format!("{address}/12").parse().expect("an address")],
        gateway: DefaultRoute::OnLink,
        mtu: MTU,
        routes: Vec::new(),
        hairpin: true,
    }
}

/// A host with the bridge standing.
pub(crate) fn host(desired: &Desired) -> Namespace {
    let host = Namespace::new();
    host.block_on(|| async { fastpath().converge(desired).await.map(drop) }).expect("converges");
    host
}

/// Attaches a container to a host, as a router that has just started would.
pub(crate) fn attach(
    host: &Namespace,
    container: &Namespace,
    link: &ContainerLink,
) -> Result<Attached, Error> {
    let netlink = container.netlink();
    host.block_on(|| async { fastpath().attach(link, container.descriptor(), netlink).await })
}

/// Another hand on the same open file.
pub(crate) fn again(descriptor: &OwnedFd) -> OwnedFd {
    assert!(descriptor.as_raw_fd() >= 0);
    descriptor.try_clone().expect("a descriptor")
}

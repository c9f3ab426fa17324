//! One host's kernel as the router sees it: the interfaces that stand, and the jobs of the kernel task.
//!
//! The interfaces are fastpath's own pure picture (`Actual`), brought to the wish by fastpath's own plan, so what
//! is planned in the simulation is what is planned on a host. What survives the router survives it here too.

use std::collections::{BTreeMap, VecDeque};

use weft_fastpath::link::Flag;
use weft_fastpath::names::Role;
use weft_fastpath::{Actual, BridgeName, ContainerPort, Desired, MacAddr, PortId, StandingLink, plan};
use weft_gossip::PeerName;
use weft_router::node::KernelJob;
use weft_router::node::attachments::LinkKey;
use weft_router::overlay::{KernelWish, Stand};

use super::agenda::HostId;
use super::bridge::Bridge;

/// A step of the kernel task that takes time.
#[derive(Debug)]
pub(super) enum Task {
    /// A job of the control half.
    Job(KernelJob),
    /// The data half has said what is behind a peer; it moves to VXLAN.
    Lift { peer: PeerName, job: u64, behind: HostId, macs: Vec<MacAddr> },
}

/// A container link: the pair of interfaces and what is inside.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    pub(super) container: usize,
    pub(super) mac: MacAddr,
    pub(super) address: std::net::Ipv4Addr,
    /// The far end is up: the last thing that an attachment does.
    pub(super) carrier: bool,
}

/// The kernel of one host.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    pub(super) actual: Actual,
    pub(super) bridge: Bridge,
    /// The container links, by the name of their host end.
    pub(super) wires: BTreeMap<String, Wire>,
}

/// The kernel task of one process.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) desired: Desired,
    pub(super) jobs: VecDeque<Task>,
    pub(super) busy: bool,
    /// Moves to VXLAN that wait for the data half.
    pub(super) lifts: Vec<(PeerName, u64, HostId)>,
    pub(super) wish: KernelWish,
    pub(super) look_planned: bool,
}

impl Worker {
    pub(super) fn new(desired: Desired) -> Self {
        Self {
            desired,
            jobs: VecDeque::new(),
            busy: false,
            lifts: Vec::new(),
            wish: KernelWish::default(),
            look_planned: false,
        }
    }
}

impl Kernel {
    /// Brings the interfaces to a wish; the plan must lead there, and twice must change nothing.
    pub(super) fn converge(&mut self, desired: &Desired) -> Result<usize, String> {
        let changes = plan(desired, &self.actual).map_err(|error| error.to_string())?;
        for change in &changes {
            self.actual.after(change);
        }
        let again = plan(desired, &self.actual).map_err(|error| error.to_string())?;
        if !again.is_empty() {
            return Err(format!("a plan that does not end: {again:?}"));
        }
        self.refresh(&desired.bridge, desired.mac);
        Ok(changes.len())
    }

    /// What forwards follows from what stands.
    fn refresh(&mut self, bridge: &BridgeName, mac: MacAddr) {
        self.bridge.mac = mac;
        self.bridge.has_sleeve = self.actual.links.contains_key(&bridge.sleeve_port());
        let up = |name: &String| {
            let link = self.actual.links.get(name)?;
            let joined = link.bridge.as_deref() == Some(bridge.as_str());
            (joined && link.flags.get(&Flag::Up) == Some(&true)).then_some(())
        };
        let live = self.wires.iter().filter(|(name, wire)| wire.carrier && up(name).is_some());
        let live: BTreeMap<usize, MacAddr> = live.map(|(_, wire)| (wire.container, wire.mac)).collect();
        let gone: Vec<usize> =
            self.bridge.ports.keys().filter(|at| !live.contains_key(at)).copied().collect();
        gone.into_iter().for_each(|container| self.bridge.unplug(container));
        self.bridge.ports = live;
    }

    /// Makes a container link, or finds it standing.
    pub(super) fn attach(
        &mut self,
        bridge: &BridgeName,
        key: &LinkKey,
        wire: Wire,
        mtu: u32,
    ) -> Result<(), String> {
        let port = PortId::new(&key.id, &key.ifname).map_err(|error| error.to_string())?;
        let name = bridge.host_end(&port);
        let mac = self.bridge.mac;
        // The wish's own words for such a link: what an attachment makes is what a convergence holds.
        let mut wish = Desired::new(bridge.clone(), mac, mtu);
        wish.ports.insert(port, ContainerPort { mtu, up: true, hairpin: true });
        let made = wish.links().into_iter().find(|(link, _)| *link == name);
        let (_, mut link) = made.ok_or("the wish does not name the port")?;
        link.mac = Some(MacAddr::facing(wire.address));
        self.actual.links.insert(name.clone(), link);
        self.wires.insert(name, wire);
        self.refresh(bridge, mac);
        Ok(())
    }

    /// Removes a container link; one that is gone is gone.
    pub(super) fn detach(&mut self, bridge: &BridgeName, key: &LinkKey) {
        if let Ok(port) = PortId::new(&key.id, &key.ifname) {
            self.cut_wire(bridge, &bridge.host_end(&port));
        }
    }

    /// Takes a port down or up.
    pub(super) fn set_port(&mut self, bridge: &BridgeName, key: &LinkKey, up: bool) {
        let Ok(port) = PortId::new(&key.id, &key.ifname) else { return };
        if let Some(link) = self.actual.links.get_mut(&bridge.host_end(&port)) {
            link.flags.insert(Flag::Up, up);
        }
        self.refresh(bridge, self.bridge.mac);
    }

    /// A namespace is gone, and the pair with it.
    pub(super) fn vanish(&mut self, bridge: &BridgeName, container: usize) {
        let name = self.wires.iter().find(|(_, wire)| wire.container == container);
        if let Some(name) = name.map(|(name, _)| name.clone()) {
            self.cut_wire(bridge, &name);
        }
    }

    fn cut_wire(&mut self, bridge: &BridgeName, name: &str) {
        self.actual.links.remove(name);
        self.wires.remove(name);
        self.refresh(bridge, self.bridge.mac);
    }

    /// Which container links stand, as `adopt` tells it.
    pub(super) fn standing(&self, bridge: &BridgeName) -> Vec<StandingLink> {
        let standing = |(name, wire): (&String, &Wire)| {
            let link = self.actual.links.get(name)?;
            let weft_fastpath::link::Owner::Ours(mark) = &link.owner else { return None };
            let Role::Container(port) = &mark.role else { return None };
            Some(StandingLink {
                port: port.clone(),
                host_end: name.clone(),
                ifindex: u32::try_from(wire.container).unwrap_or(u32::MAX),
                joined: link.bridge.as_deref() == Some(bridge.as_str()),
                up: link.flags.get(&Flag::Up) == Some(&true),
                carrier: wire.carrier,
                mtu: link.mtu,
                address: link.mac.and_then(MacAddr::faced),
            })
        };
        self.wires.iter().filter_map(standing).collect()
    }

    /// The names of the container links that no journal explains.
    pub(super) fn strays<'a>(
        &'a self,
        known: impl Fn(&PortId) -> bool + 'a,
    ) -> impl Iterator<Item = &'a str> {
        let stray = move |link: &weft_fastpath::link::Link| match &link.owner {
            weft_fastpath::link::Owner::Ours(mark) => {
                matches!(&mark.role, Role::Container(port) if !known(port))
            }
            weft_fastpath::link::Owner::Unmarked | weft_fastpath::link::Owner::Foreign => false,
        };
        self.actual.links.iter().filter(move |(_, link)| stray(link)).map(|(name, _)| name.as_str())
    }
}

/// Whether a move goes to the VXLAN device.
pub(super) fn is_lift(to: Stand) -> bool {
    match to {
        Stand::Fastpath => true,
        Stand::Sleeve => false,
    }
}

//! The kernel itself: look, apply, attach, watch. Everything that waits or asks is below this point.
//!
//! A netlink socket belongs for ever to the namespace of the thread that opened it: [`Fastpath::new`] decides by
//! its thread which host is meant. Requests go one after another; each has a deadline.

mod apply;
mod attach;
mod entries;
mod facts;
#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's vocabulary grows; we read what we know")]
mod fdb;
mod inside;
mod kernel;
mod legacy;
mod monitor;
mod nft;
#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's vocabulary grows; we read what we know")]
mod observe;
mod offload;
mod policy;
mod probe;
mod removal;
#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's vocabulary grows; we read what we know")]
mod routes;
mod steady;
#[expect(unsafe_code, reason = "ioctl and adopting a descriptor; nothing else in this crate is unsafe")]
mod sys;
#[expect(clippy::wildcard_enum_match_arm, reason = "the kernel's vocabulary grows; we read what we know")]
mod tunnel;

use std::collections::{BTreeMap, BTreeSet};

use crate::actual::Actual;
use crate::change::Change;
use crate::container::{Attached, ContainerLink, StandingLink};
use crate::desired::Desired;
use crate::error::Error;
use crate::filter;
use crate::link::{Flag, Owner};
use crate::mac::MacAddr;
use crate::names::{BridgeName, PortId, Role};
use crate::plan;
use crate::policy::{self as rules, Policy, PolicyChange};
use crate::table::TableChange;
use crate::vxlan::Underlay;
use kernel::Kernel;
use nft::{Foreign, Nft};

pub use fdb::Port;
pub use monitor::Monitor;
pub use policy::PolicyReport;
pub use probe::{Probe, ProbeSocket};
pub use routes::HostRoute;

/// How often we look again before we say that somebody works against us.
const ROUNDS: usize = 4;

/// The hand on the kernel of one host, for one bridge.
pub struct Fastpath {
    bridge: BridgeName,
    kernel: Kernel,
    filter: Nft,
    masquerade: Nft,
    lock: Nft,
    forward: Foreign,
}

/// What converging did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// What was changed, in order; empty when everything was right.
    pub changes: Vec<Change>,
    /// What could not be had but is not worth failing for.
    pub unmet: Vec<Error>,
    /// Wanted container links that do not stand; only an attachment can make them again.
    pub missing: BTreeSet<PortId>,
    /// Why VXLAN is left out, by underlay; it is tried again at every look. All else is as wanted all the same.
    pub no_vxlan: BTreeMap<Underlay, Error>,
}

/// What tearing down did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Teardown {
    /// Each `interface …` that was removed, each `nftables table …`, and each rule in a chain of others.
    pub removed: Vec<String>,
    /// What could not be removed, and why.
    pub errors: Vec<Error>,
}

impl Fastpath {
    /// Opens netlink in the namespace of the calling thread, on the running tokio runtime (with time and I/O).
    ///
    /// # Errors
    /// When the kernel gives no netlink socket.
    pub fn new(bridge: BridgeName) -> Result<Self, Error> {
        Ok(Self {
            kernel: Kernel::open()?,
            filter: Nft::open(filter::place(&bridge)),
            masquerade: Nft::open(rules::masquerade_place(&bridge)),
            lock: Nft::open(rules::lock_place(&bridge)),
            forward: Foreign::open(rules::mark(&bridge)),
            bridge,
        })
    }

    /// The bridge this is about.
    pub fn bridge(&self) -> &BridgeName {
        &self.bridge
    }

    /// Reads what stands.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn observe(&self) -> Result<Actual, Error> {
        Ok(observe::observe(&self.kernel, &self.bridge).await?.actual)
    }

    /// Says what converging would change, and changes nothing.
    ///
    /// # Errors
    /// As [`plan::plan`], and when the kernel does not answer.
    pub async fn plan(&self, desired: &Desired) -> Result<Vec<Change>, Error> {
        self.same_bridge(desired)?;
        plan(desired, &self.observe().await?)
    }

    /// Makes the kernel what is wanted: looks, changes what is not right, and looks again until nothing is left.
    ///
    /// A VXLAN device that cannot be had (its name or its port is taken) does not hold up the rest: see
    /// [`Report::no_vxlan`].
    ///
    /// # Errors
    /// Conflict before anything is changed; or the first change the kernel refused, the earlier ones staying (the
    /// next call goes on from there); or Restless when somebody undoes our changes.
    pub async fn converge(&mut self, desired: &Desired) -> Result<Report, Error> {
        self.same_bridge(desired)?;
        let mut report = Report::default();
        let mut refused: Vec<Change> = Vec::new();
        let mut changes = Vec::new();
        for _ in 0..ROUNDS {
            let actual = self.observe().await?;
            report.no_vxlan.extend(plan::obstacles(desired, &actual));
            changes = plan(desired, &actual)?;
            changes.retain(|change| !refused.contains(change) && !self.left_out(change, &report));
            if changes.is_empty() {
                report.missing = self.missing(desired, &actual).await?;
                return Ok(report);
            }
            self.round(&changes, &mut refused, &mut report).await?;
            // Entries change nothing but themselves, and each was confirmed; looking at thousands again for the sake
            // of one would double the price of a new peer.
            let entries = changes.iter().all(Change::is_of_entry);
            if entries && report.changes.ends_with(&changes) {
                report.missing = self.missing(desired, &actual).await?;
                return Ok(report);
            }
        }
        let first = changes.first().map(ToString::to_string).unwrap_or_default();
        let restless = Error::Restless { rounds: ROUNDS, first };
        for change in &changes {
            let Some(underlay) = self.bridge.underlay_of(change.link()) else { return Err(restless) };
            report.no_vxlan.insert(underlay, restless.clone());
        }
        report.missing = self.missing(desired, &self.observe().await?).await?;
        Ok(report)
    }

    /// Carries out one plan.
    async fn round(
        &self,
        changes: &[Change],
        refused: &mut Vec<Change>,
        report: &mut Report,
    ) -> Result<(), Error> {
        for change in changes {
            if self.left_out(change, report) {
                continue;
            }
            match apply::apply(&self.kernel, change).await {
                Ok(()) if change.is_of_entry() => {
                    tracing::debug!(%change, "changed the kernel");
                    report.changes.push(change.clone());
                }
                Ok(()) => {
                    tracing::info!(%change, "changed the kernel");
                    report.changes.push(change.clone());
                }
                // The device went while we were at it: time to look again.
                Err(error) if change.is_of_entry() && error.is(&[libc::ENODEV]) => return Ok(()),
                Err(error) if change.is_best_effort() => {
                    tracing::debug!(%change, %error, "cannot have this");
                    refused.push(change.clone());
                    report.unmet.push(error);
                }
                Err(error) => match self.bridge.underlay_of(change.link()) {
                    Some(underlay) => drop(report.no_vxlan.insert(underlay, error)),
                    None => return Err(error),
                },
            }
        }
        Ok(())
    }

    /// Whether a change is about a VXLAN device that cannot be had.
    fn left_out(&self, change: &Change, report: &Report) -> bool {
        self.bridge.underlay_of(change.link()).is_some_and(|underlay| report.no_vxlan.contains_key(&underlay))
    }

    /// Makes a container link, or finds it standing and completes it. `namespace` is the container's network
    /// namespace, `netlink_inside` a route netlink socket that was opened in it. When any step fails (and when the
    /// call is abandoned) a link that it made is removed again, and what it changed on the host is changed back.
    ///
    /// # Errors
    /// Refused for bad arguments or descriptors, Conflict for a taken name on the host, otherwise what the kernel
    /// said.
    pub async fn attach(
        &mut self,
        link: &ContainerLink,
        namespace: std::os::fd::BorrowedFd<'_>,
        netlink_inside: std::os::fd::OwnedFd,
    ) -> Result<Attached, Error> {
        attach::attach(&self.kernel, &self.bridge, link, namespace, netlink_inside).await
    }

    /// Removes a container link; fine when it does not stand. Of a foreign interface with that name, nothing of
    /// ours stands.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn detach(&mut self, id: &str, ifname: &str) -> Result<(), Error> {
        let port = PortId::new(id, ifname)?;
        let failed = self.detach_all(&BTreeSet::from([port])).await;
        failed.into_values().next().map_or(Ok(()), Err)
    }

    /// The same for many, in hardly more time than for one; returns which could not be removed, and why.
    pub async fn detach_all(&mut self, ports: &BTreeSet<PortId>) -> BTreeMap<PortId, Error> {
        let (mut standing, mut failed) = (BTreeMap::new(), BTreeMap::new());
        let mut port_of = BTreeMap::new();
        for port in ports {
            match self.removable(port).await {
                Ok(Some((host_end, index))) => {
                    port_of.insert(host_end.clone(), port);
                    standing.insert(host_end, index);
                }
                Ok(None) => {}
                Err(error) => drop(failed.insert(port.clone(), error)),
            }
        }
        let refused = removal::many(&self.kernel, &standing).await;
        failed.extend(
            refused.into_iter().filter_map(|(name, why)| Some(((*port_of.get(&name)?).clone(), why))),
        );
        failed
    }

    /// The host end of a container link, and its index, if it stands. One that was born as ours and has no alias is it,
    /// too: whoever made it died before it could say what for.
    async fn removable(&self, port: &PortId) -> Result<Option<(String, u32)>, Error> {
        let host_end = self.bridge.host_end(port);
        let observed = observe::pair(&self.kernel, &self.bridge, &host_end).await?;
        let (Some(link), Some(seen)) = (observed.actual.links.get(&host_end), observed.seen.get(&host_end))
        else {
            return Ok(None);
        };
        let ours = match &link.owner {
            Owner::Ours(mark) => mark.bridge == self.bridge && mark.role == Role::Container(port.clone()),
            Owner::Unmarked => true,
            Owner::Foreign => false,
        };
        Ok(ours.then_some((host_end, seen.index)))
    }

    /// The container links of our bridge that stand, whoever remembers them.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn adopt(&self) -> Result<BTreeSet<StandingLink>, Error> {
        Ok(self.container_links(&observe::links(&self.kernel, &self.bridge).await?))
    }

    fn container_links(&self, observed: &observe::Observed) -> BTreeSet<StandingLink> {
        let standing = |(name, link): (&String, &crate::link::Link)| {
            let Owner::Ours(mark) = &link.owner else { return None };
            let Role::Container(port) = &mark.role else { return None };
            let seen = observed.seen.get(name)?;
            (mark.bridge == self.bridge).then(|| StandingLink {
                port: port.clone(),
                host_end: name.clone(),
                ifindex: seen.index,
                joined: link.bridge.as_deref() == Some(self.bridge.as_str()),
                up: link.flags.get(&Flag::Up) == Some(&true),
                carrier: seen.carrier,
                mtu: link.mtu,
                address: link.mac.and_then(MacAddr::faced),
            })
        };
        observed.actual.links.iter().filter_map(standing).collect()
    }

    /// Takes the port of a container link down (its address is in conflict) or up again. Keep the same wish in
    /// [`Desired::ports`], or the next convergence turns it back.
    ///
    /// # Errors
    /// Refused when the link does not stand; otherwise what the kernel said.
    pub async fn set_port_up(&mut self, id: &str, ifname: &str, up: bool) -> Result<(), Error> {
        let port = PortId::new(id, ifname)?;
        let Some(link) = self.standing(&port).await? else {
            return Err(Error::refused(format!("container link {port}"), "it does not stand"));
        };
        if link.up == up {
            return Ok(());
        }
        apply::apply(&self.kernel, &Change::Set { link: link.host_end, flag: Flag::Up, on: up }).await
    }

    /// Removes every interface of ours, and then what we have in the host's firewall, going on past errors.
    pub async fn teardown(&mut self) -> Teardown {
        let mut done = Teardown::default();
        let ours = self.observe().await.map(|actual| actual.ours(&self.bridge));
        for link in ours.unwrap_or_else(|error| {
            done.errors.push(error);
            Vec::new()
        }) {
            match apply::apply(&self.kernel, &Change::Delete { link: link.clone() }).await {
                Ok(()) => done.removed.push(format!("interface {link}")),
                Err(error) => done.errors.push(error),
            }
        }
        // Only now: as long as a VXLAN device stands, nobody else is to speak to it.
        match self.teardown_filter() {
            Ok(true) => done.removed.push(self.filter.place().to_string()),
            Ok(false) => {}
            Err(error) => done.errors.push(error),
        }
        self.teardown_policy(&mut done).await;
        done
    }

    async fn teardown_policy(&mut self, done: &mut Teardown) {
        let report = self.converge_policy(&Policy::default()).await;
        for change in report.changes {
            done.removed.push(match change {
                PolicyChange::Table(TableChange::Delete { what }) if what == self.lock.place().what => {
                    self.lock.place().to_string()
                }
                PolicyChange::Table(_) => self.masquerade.place().to_string(),
                PolicyChange::Forward(change) => format!("rule in the FORWARD chain of {}", change.backend()),
            });
        }
        done.errors.extend(report.unmet);
    }

    /// A list that is made while links come and go may leave one out, so what is missed is asked for by name.
    async fn missing(&self, desired: &Desired, actual: &Actual) -> Result<BTreeSet<PortId>, Error> {
        let mut missing = plan::missing(desired, actual);
        for id in missing.clone() {
            let host_end = self.bridge.host_end(&id);
            if !actual.links.contains_key(&host_end) && self.kernel.link(&host_end).await?.is_some() {
                missing.remove(&id);
            }
        }
        Ok(missing)
    }

    async fn standing(&self, port: &PortId) -> Result<Option<StandingLink>, Error> {
        let observed = observe::pair(&self.kernel, &self.bridge, &self.bridge.host_end(port)).await?;
        Ok(self.container_links(&observed).into_iter().find(|link| link.port == *port))
    }

    fn same_bridge(&self, desired: &Desired) -> Result<(), Error> {
        if desired.bridge == self.bridge {
            return Ok(());
        }
        let cause = format!("this was opened for bridge {}", self.bridge);
        Err(Error::refused(format!("bridge {}", desired.bridge), cause))
    }
}

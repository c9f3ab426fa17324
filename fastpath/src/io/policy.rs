//! The host's firewall, looked at and changed; and forwarding, which is switched on only when asked.

use std::collections::BTreeMap;
use std::io;

use super::legacy;
use super::{Fastpath, ROUNDS};
use crate::error::Error;
use crate::policy::{
    Accept, Backend, ForwardChain, ForwardChange, Policy, PolicyChange, PolicyState, plan_forward,
    plan_policy,
};

/// The switch that makes a host a router.
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// What converging did to the host's firewall.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyReport {
    /// What was changed, in order; empty when everything was right.
    pub changes: Vec<PolicyChange>,
    /// What could not be had, and why; all else is as wanted all the same.
    pub unmet: Vec<Error>,
}

impl Fastpath {
    /// Reads what stands of the host's firewall, as far as it is about us.
    ///
    /// # Errors
    /// When this kernel has no nf_tables, or refuses, or the chain that the host uses cannot be read.
    pub async fn observe_policy(&self) -> Result<PolicyState, Error> {
        Ok(PolicyState {
            masquerade: self.masquerade.observe()?.1,
            lock: self.lock.observe()?.1,
            forward: self.chains().await?,
        })
    }

    /// Says what converging would change, and changes nothing.
    ///
    /// # Errors
    /// As [`Self::observe_policy`].
    pub async fn plan_policy(&self, desired: &Policy) -> Result<Vec<PolicyChange>, Error> {
        Ok(plan_policy(&self.bridge, desired, &self.observe_policy().await?))
    }

    /// Makes the host's firewall what is wanted; what cannot be had does not hold up the rest. A new port is to be
    /// in [`Policy::locks`] before its link is made, or what it sends first is not looked at.
    pub async fn converge_policy(&mut self, desired: &Policy) -> PolicyReport {
        let mut report = PolicyReport::default();
        let bridge = &self.bridge;
        let masquerade = self
            .masquerade
            .converge(desired.masquerade.is_some(), |found| desired.plan_masquerade(bridge, found));
        let lock = self.lock.converge(!desired.locks.is_empty(), |found| desired.plan_lock(found));
        for done in [masquerade, lock] {
            match done {
                Ok(changes) => report.changes.extend(changes.into_iter().map(PolicyChange::Table)),
                Err(error) => report.unmet.push(error),
            }
        }
        for backend in [Backend::Nftables, Backend::Legacy] {
            if let Err(error) = self.converge_forward(backend, desired.forward, &mut report).await {
                report.unmet.push(error);
            }
        }
        report
    }

    /// The part of [`Self::converge_policy`] that must hold before a new port carries its first frame.
    ///
    /// # Errors
    /// When this kernel has no nf_tables, or refuses; or Restless when somebody undoes our changes.
    pub fn converge_locks(&mut self, desired: &Policy) -> Result<(), Error> {
        self.lock.converge(!desired.locks.is_empty(), |found| desired.plan_lock(found)).map(drop)
    }

    /// Has this host forward IPv4, which masquerading needs; whether it did not yet. A setting of the host, not of ours:
    /// call it only when somebody has asked for it. Nothing takes it back.
    ///
    /// # Errors
    /// When `/proc/sys` is read-only or not there.
    pub fn enable_forwarding() -> Result<bool, Error> {
        let failed = |error: io::Error| Error::kernel("net.ipv4.ip_forward", "switch on", &error);
        if std::fs::read_to_string(IP_FORWARD).map_err(failed)?.trim() == "1" {
            return Ok(false);
        }
        std::fs::write(IP_FORWARD, "1").map_err(failed)?;
        tracing::info!("switched on net.ipv4.ip_forward");
        Ok(true)
    }

    /// Brings one chain to what is wanted.
    async fn converge_forward(
        &self,
        backend: Backend,
        wanted: bool,
        report: &mut PolicyReport,
    ) -> Result<(), Error> {
        let mut open = Error::Restless { rounds: ROUNDS, first: format!("FORWARD chain of {backend}") };
        for _ in 0..ROUNDS {
            let found = match self.chain(backend).await {
                // Without the program to write with, nothing of ours stands there.
                Err(Error::Refused { .. }) if !wanted => return Ok(()),
                found => found?,
            };
            let found = found.map(|chain| BTreeMap::from([(backend, chain)])).unwrap_or_default();
            let changes = plan_forward(wanted, &found);
            if changes.is_empty() {
                return Ok(());
            }
            match self.write(backend, &changes).await {
                Ok(()) => {
                    for change in changes {
                        tracing::info!(%change, "changed the host's firewall");
                        report.changes.push(PolicyChange::Forward(change));
                    }
                }
                // Somebody may have been there between our look and our change.
                Err(error) if error.is(&[libc::ENOENT]) => open = error,
                Err(error) => return Err(error),
            }
        }
        Err(open)
    }

    async fn chains(&self) -> Result<BTreeMap<Backend, ForwardChain>, Error> {
        let mut chains = BTreeMap::new();
        for backend in [Backend::Nftables, Backend::Legacy] {
            chains.extend(self.chain(backend).await?.map(|chain| (backend, chain)));
        }
        Ok(chains)
    }

    async fn chain(&self, backend: Backend) -> Result<Option<ForwardChain>, Error> {
        match backend {
            Backend::Nftables => self
                .forward
                .chain(|rule| Accept::ALL.into_iter().find(|accept| accept.rule(&self.bridge) == *rule)),
            Backend::Legacy => legacy::chain(&self.bridge).await,
        }
    }

    async fn write(&self, backend: Backend, changes: &[ForwardChange]) -> Result<(), Error> {
        match backend {
            Backend::Nftables => self.forward.write(changes, |accept| accept.rule(&self.bridge)),
            Backend::Legacy => legacy::write(&self.bridge, changes).await,
        }
    }
}

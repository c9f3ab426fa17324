//! What `weft doctor` wants to know about this host.
//!
//! Whether a kind of device can be made is found by asking for one under an impossible name: an unknown kind is
//! "not supported", a known one "invalid argument", and nothing is made either way. (The kernel loads the module
//! on the way, as it would at the first real request.)

use std::collections::BTreeSet;

use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::Fastpath;
use super::kernel::ask;
use super::observe;
use crate::desired::Desired;
use crate::error::Error;
use crate::support::{Facts, Release};

/// A name the kernel gives to no interface.
const IMPOSSIBLE: &str = ".";

impl Fastpath {
    /// Finds out what matters to us about this host. Leftovers are judged by what is wanted; without a wish, all of
    /// ours is left over.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub async fn facts(&self, desired: Option<&Desired>) -> Result<Facts, Error> {
        let wanted: BTreeSet<String> =
            desired.map(Desired::frame).into_iter().flatten().map(|(name, _)| name).collect();
        Ok(Facts {
            release: release(),
            bridge: self.knows(InfoKind::Bridge).await?,
            veth: self.knows(InfoKind::Veth).await?,
            vxlan: self.knows(InfoKind::Vxlan).await?,
            bridge_netfilter: switch("bridge/bridge-nf-call-iptables"),
            ip_forward: switch("ipv4/ip_forward"),
            leftovers: observe::links(&self.kernel, &self.bridge)
                .await?
                .actual
                .leftovers(&self.bridge, &wanted),
        })
    }

    async fn knows(&self, kind: InfoKind) -> Result<bool, Error> {
        let name = kind.to_string();
        let mut request = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind.clone()).name(IMPOSSIBLE);
        if kind == InfoKind::Veth {
            let peer = LinkUnspec::new_with_name(IMPOSSIBLE).build();
            request = request.set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        }
        match ask(&name, "try", self.kernel.handle.link().add(request.build()).execute()).await {
            Err(error) if error.is(&[libc::EOPNOTSUPP]) => Ok(false),
            Err(error) if error.is(&[libc::EINVAL]) => Ok(true),
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        }
    }
}

/// The running kernel's version.
pub(super) fn release() -> Option<Release> {
    Release::parse(&std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?)
}

/// A switch under `/proc/sys/net`, of the namespace of the calling thread.
fn switch(path: &str) -> Option<bool> {
    let text = std::fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?;
    Some(text.trim() != "0")
}

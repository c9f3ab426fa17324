//! Several hosts as one mesh: launched with all the others as peers, and awaited.

use anyhow::Result;

use super::{Host, READY_LIMIT};
use crate::{Container, Fabric};

/// Starts a mesh: every host with all the others as peers, then waits until each is ready and reaches all the others.
///
/// # Errors
/// When the mesh does not come up in time.
pub fn mesh(hosts: &mut [Host], arguments: &[&str]) -> Result<()> {
    let addresses: Vec<(String, String)> =
        hosts.iter().map(|host| (host.name.clone(), host.address().to_string())).collect();
    for host in hosts.iter_mut() {
        let others =
            addresses.iter().filter(|(name, _)| *name != host.name).map(|(_, address)| address.as_str());
        let words: Vec<&str> = arguments.iter().copied().chain(others).collect();
        host.launch(&words)?;
    }
    settle(hosts)
}

/// Waits until every host is ready and reaches all the others.
///
/// # Errors
/// When that does not come true in time.
pub fn settle(hosts: &mut [Host]) -> Result<()> {
    for host in hosts.iter_mut() {
        host.wait_ready()?;
    }
    for host in hosts.iter() {
        let others: Vec<&str> =
            hosts.iter().filter(|other| other.name != host.name).map(|other| other.name.as_str()).collect();
        host.wait_reaches(&others, READY_LIMIT)?;
    }
    Ok(())
}

/// Gives every host a container: `c1`, `c2` and so on.
///
/// # Errors
/// When a namespace cannot be made, or a router refuses.
pub fn attach_each(fabric: &Fabric, hosts: &[Host]) -> Result<Vec<Container>> {
    let attached = (1..).zip(hosts).map(|(number, host)| {
        let mut container = fabric.container(&format!("c{number}"))?;
        host.attach(&mut container)?;
        Ok(container)
    });
    attached.collect()
}

//! Pods connected as a container runtime does it: whole plugin processes, ours and the reference ones, turn by turn.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use weft_tests::cni::{Attachment, Conflist, network, runtime};
use weft_tests::host::mesh;
use weft_tests::{Container, Fabric};

use super::Times;
use crate::settings::Settings;
use crate::stage::Stage;

/// ADD and DEL of one list of plugins.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) add: Times,
    pub(super) del: Times,
}

/// On a mesh of two hosts that is ready: every container is connected by our plugin and by `bridge` with `host-local`,
/// one right after the other, so that a slow moment hits both. The first result is ours.
pub(super) fn run(fabric: &Fabric, settings: &Settings) -> Result<[Found; 2]> {
    let mut stage = Stage::new(fabric)?;
    mesh(&mut stage.hosts, &[])?;
    let host = &stage.hosts[0];
    let runtime = runtime(fabric, host)?;
    let bridge = json!({
        "type": "bridge", "bridge": "ref0", "isGateway": true, "isDefaultGateway": true,
        "ipam": {"type": "host-local", "dataDir": fabric.home().join("host-local"),
                 "ranges": [[{"subnet": "10.77.0.0/16"}]]},
    });
    let lists = [network(host, "1.0.0")?, Conflist::of("1.0.0", "reference", json!([bridge]))?];
    let names = (0..settings.attachments()).map(|number| fabric.container(&format!("p{number}")));
    let containers = names.collect::<Result<Vec<Container>>>()?;
    let mut taken = [const { (Vec::new(), Vec::new()) }; 2];
    // The first turn pays for what all later ones find done: bridges, the host's own address.
    for (turn, container) in stage.containers.iter().take(1).chain(&containers).enumerate() {
        for (list, (add, del)) in lists.iter().zip(&mut taken) {
            let pod = Attachment::new(&format!("pod-{turn}"), container.netns());
            let (added, deleted): (Duration, Duration) =
                (runtime.add(list, &pod)?.took, runtime.del(list, &pod)?);
            if turn > 0 {
                add.push(added);
                del.push(deleted);
            }
        }
    }
    Ok(taken.map(|(add, del)| Found { add: Times::new(add), del: Times::new(del) }))
}

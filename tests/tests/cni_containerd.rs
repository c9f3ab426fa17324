//! Pods started by a real containerd, on two hosts.
//!
//! ```text
//!   host1: containerd ── pods          host2: containerd ── pods
//!     └── eth0 10.99.0.1 ───────────────── 10.99.0.2 ──┘
//! ```

use anyhow::{Result, ensure};
use serde_json::json;
use weft_tests::cni::Conflist;
use weft_tests::containerd::{Containerd, PodSpec};
use weft_tests::scenario;

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
        let named = |name: &str| PodSpec { name: name.to_owned(), ..PodSpec::default() };
        let (first, _) = containerd.shell(&named("first"), "sleep 1000")?;
        let (second, container) = containerd.shell(&named("second"), "sleep 1000")?;
        let target = first.address()?.to_string();
        let pinged = second.exec(&container, &["ping", "-c", "1", "-W", "2", &target])?;
        ensure!(pinged.code == 0, "{pinged:?}");
        second.remove()?;
        first.remove()
    })
}

//! What the kernel does alone: the cable without a tunnel, and a VXLAN device on a bridge made by hand.

use anyhow::Result;
use weft_tests::Fabric;

use super::{Description, Role, System};
use crate::stage::{Layer, Stage};

/// Containers whose hosts route between them: no tunnel at all.
pub(super) struct Raw;

/// A bridge and a VXLAN device with one static remote, as Flannel and many a script make it.
pub(super) struct Vxlan;

impl System for Raw {
    fn description(&self) -> Description {
        Description { name: "raw", role: Role::Limit, about: "the hosts route, no tunnel, MTU 1500" }
    }

    fn up(&self, fabric: &Fabric) -> Result<Stage> {
        let mut stage = Stage::new(fabric)?;
        stage.connect(Layer::Routed, 1500)?;
        for index in [0, 1] {
            let other = 1 - index;
            let via = stage.hosts[other].address();
            stage.hosts[index].netns().ip(&format!("route add {} via {via}", Stage::subnet(other)))?;
        }
        Ok(stage)
    }
}

impl System for Vxlan {
    fn description(&self) -> Description {
        Description {
            name: "vxlan",
            role: Role::Kernel,
            about: "kernel VXLAN on a bridge, static remote, nolearning, UDP checksums, MTU 1450",
        }
    }

    fn up(&self, fabric: &Fabric) -> Result<Stage> {
        let mut stage = Stage::new(fabric)?;
        stage.connect(Layer::Bridged, 1450)?;
        for index in [0, 1] {
            let (near, far) = (stage.hosts[index].address(), stage.hosts[1 - index].address());
            let netns = stage.hosts[index].netns();
            netns.ip(&format!(
                "link add name vx0 mtu 1450 type vxlan id 77 local {near} remote {far} dstport 4789 dev eth0 \
                 nolearning udpcsum"
            ))?;
            netns.ip("link set dev vx0 master br0 up")?;
        }
        Ok(stage)
    }
}

//! The four ports a router listens on, and the rule that makes three of them from the first.

use super::ConfigError;

/// The ports of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// TCP: the mesh; UDP: sleeve.
    pub mesh: u16,
    /// UDP: VXLAN.
    pub vxlan: u16,
    /// UDP: QUIC.
    pub quic: u16,
}

impl Ports {
    /// The ports as they were given; VXLAN and QUIC follow the mesh port where they were not.
    ///
    /// # Errors
    ///
    /// Two that are the same, or one past 65535.
    pub fn new(mesh: u16, vxlan: Option<u16>, quic: Option<u16>) -> Result<Self, ConfigError> {
        let after = |given: Option<u16>, distance: u16, name: &str| {
            given.or_else(|| mesh.checked_add(distance)).ok_or_else(|| {
                ConfigError(format!("--port {mesh} leaves no {name} port after it: give --{name}-port"))
            })
        };
        let ports = Self { mesh, vxlan: after(vxlan, 1, "vxlan")?, quic: after(quic, 2, "quic")? };
        let Self { mesh, vxlan, quic } = ports;
        if mesh == vxlan || mesh == quic || vxlan == quic {
            return Err(ConfigError(format!(
                "sleeve, VXLAN and QUIC need three UDP ports, not {mesh}, {vxlan} and {quic}"
            )));
        }
        Ok(ports)
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self { mesh: 6783, vxlan: 6784, quic: 6785 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_follow_the_first() {
        assert_eq!(Ports::new(6783, None, None).unwrap(), Ports::default());
        assert_eq!(
            Ports::new(7000, Some(4789), None).unwrap(),
            Ports { mesh: 7000, vxlan: 4789, quic: 7002 }
        );
        assert_eq!(Ports::new(65535, Some(1), Some(2)).unwrap(), Ports { mesh: 65535, vxlan: 1, quic: 2 });
    }

    #[test]
    fn ports_that_cannot_be_are_refused() {
        assert!(Ports::new(65534, None, None).is_err());
        assert!(Ports::new(7000, Some(7000), None).is_err());
        assert!(Ports::new(7000, Some(7002), None).is_err());
    }
}

//! What `weft doctor` finds on this host, router or no router: ports, the containers' MTU, the clock.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use weft_api::DoctorLine;

use crate::config::Ports;

/// What VXLAN over IPv4 adds to a container's packet, bytes: the MTU is the underlay's minus this on every
/// carrier, so that a change of carrier never changes it.
pub const OVERHEAD: u32 = 50;

/// The first moment of 2024: a clock before that was never set.
const PLAUSIBLE: Duration = Duration::from_secs(1_704_067_200);

/// Where a router listens.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The address; none: all.
    pub listen: Option<IpAddr>,
    /// The ports.
    pub ports: Ports,
    /// Whether the UDP mesh port is taken for sleeve.
    pub sleeve: bool,
    /// Whether the VXLAN port is the kernel's, or is to be.
    pub fastpath: bool,
}

impl Places {
    /// The ports where no router runs: all are to be free.
    #[must_use]
    pub fn free_lines(&self) -> Vec<DoctorLine> {
        let Ports { mesh, vxlan, quic } = self.ports;
        let mut lines = vec![free("TCP", mesh, self.tcp(mesh))];
        lines.extend([mesh, vxlan, quic].map(|port| free("UDP", port, self.udp(port))));
        lines
    }

    /// The ports as the router that listens there sees them.
    #[must_use]
    pub fn held_lines(&self) -> Vec<DoctorLine> {
        let Ports { mesh, vxlan, quic } = self.ports;
        let mut lines = vec![held("TCP", mesh, self.tcp(mesh))];
        if self.sleeve {
            lines.push(held("UDP", mesh, self.udp(mesh)));
        }
        // Whether the VXLAN device has its port is seen when the device is set up.
        if !self.fastpath {
            lines.push(free("UDP", vxlan, self.udp(vxlan)));
        }
        lines.push(free("UDP", quic, self.udp(quic)));
        lines
    }

    fn address(&self) -> IpAddr {
        self.listen.unwrap_or(Ipv4Addr::UNSPECIFIED.into())
    }

    fn tcp(&self, port: u16) -> io::Result<()> {
        TcpListener::bind((self.address(), port)).map(drop)
    }

    fn udp(&self, port: u16) -> io::Result<()> {
        UdpSocket::bind((self.address(), port)).map(drop)
    }
}

/// A port that nobody should have; `bound` says what came of trying.
fn free(protocol: &str, number: u16, bound: io::Result<()>) -> DoctorLine {
    match bound {
        Ok(()) => DoctorLine::fine("port", format!("{protocol} {number} is free")),
        // A stopped router leaves its VXLAN device, and so its port, standing: that is no fault.
        Err(error) if error.kind() == ErrorKind::AddrInUse => DoctorLine::warning(
            "port",
            format!("{protocol} {number} is in use"),
            "if no router of ours left it there ('ss -lunt' shows programs, 'ip -d link' VXLAN devices), choose \
             others with --port",
        ),
        Err(error) => {
            DoctorLine::error("port", format!("{protocol} {number}: {error}"), "choose another with --port")
        }
    }
}

/// A port that the router took when it started: that it can be had now means that it was lost.
fn held(protocol: &str, number: u16, bound: io::Result<()>) -> DoctorLine {
    match bound {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            DoctorLine::fine("port", format!("{protocol} {number} is held by this router"))
        }
        Ok(()) => DoctorLine::error(
            "port",
            format!("nobody listens on {protocol} {number}"),
            "start the router again; its log says why it lost the port",
        ),
        Err(error) => DoctorLine::error(
            "port",
            format!("{protocol} {number}: {error}"),
            "is the --listen address still one of this host?",
        ),
    }
}

/// Whether what containers send fits the underlay with the overhead around it.
#[must_use]
pub fn mtu_line(containers: u32, underlay: u32) -> DoctorLine {
    if containers.saturating_add(OVERHEAD) <= underlay {
        return DoctorLine::fine("mtu", format!("{containers} in containers, {underlay} towards the peers"));
    }
    let most = underlay.saturating_sub(OVERHEAD);
    DoctorLine::error(
        "mtu",
        format!("{containers} in containers and {OVERHEAD} of overhead, but {underlay} towards the peers"),
        format!("launch with --mtu {most} or less, or raise the underlay's; attach the containers again"),
    )
}

/// Whether the time of day was ever set.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the shell in io/ reads the clock")]
pub fn clock_line() -> DoctorLine {
    clock_says(SystemTime::now())
}

fn clock_says(now: SystemTime) -> DoctorLine {
    if now.duration_since(UNIX_EPOCH).is_ok_and(|since| since >= PLAUSIBLE) {
        return DoctorLine::fine("clock", "the time of day is plausible; only log stamps use it");
    }
    DoctorLine::warning(
        "clock",
        "the time of day is before 2024",
        "set it, or the log stamps mislead; it is not used for anything but log stamps",
    )
}

#[cfg(test)]
mod tests {
    use weft_api::Severity;

    use super::*;

    #[test]
    fn a_port_is_free_or_held_by_whoever_binds_it() {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let ports = Ports { mesh: port, vxlan: port, quic: port };
        let places = Places { listen: Some(Ipv4Addr::LOCALHOST.into()), ports, sleeve: true, fastpath: true };
        let taken = places.udp(port);
        assert_eq!(held("UDP", port, taken).message, format!("UDP {port} is held by this router"));
        let line = free("UDP", port, places.udp(port));
        assert!(line.ok && line.severity == Severity::Warning, "{line:?}");
        assert!(!held("UDP", port, Ok(())).ok);
        assert_eq!(free("UDP", port, Ok(())).severity, Severity::Info);
        assert_eq!((places.held_lines().len(), places.free_lines().len()), (3, 4));
    }

    #[test]
    fn an_mtu_that_does_not_fit_with_the_overhead_is_wrong() {
        assert!(mtu_line(1450, 1500).ok);
        let line = mtu_line(1451, 1500);
        assert!(!line.ok && line.advice.unwrap().contains("--mtu 1450"));
    }

    #[test]
    fn a_clock_that_was_never_set_is_seen() {
        assert_eq!(clock_says(UNIX_EPOCH).severity, Severity::Warning);
        assert_eq!(clock_says(UNIX_EPOCH + PLAUSIBLE).severity, Severity::Info);
    }
}

//! The claim on a bridge: in a network namespace, a bridge has one router, whatever state directory or socket it has.
//!
//! The claim is an abstract unix socket. Such a name belongs to the network namespace, as the bridge does; it leaves no
//! file behind and vanishes with the process, however that ends.

use std::{
    io,
    os::{
        fd::AsRawFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials,
};

/// Why a bridge cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// A router has it.
    #[error("bridge {bridge} is in use by another router (pid {pid})")]
    InUse {
        /// The bridge.
        bridge: String,
        /// The router's pid as this process sees it, or `?`.
        pid: String,
    },
    /// The system refused.
    #[error("cannot claim bridge {bridge}: {reason}")]
    System {
        /// The bridge.
        bridge: String,
        /// What the system said.
        reason: io::Error,
    },
}

/// A bridge that is this process's until it is dropped.
#[derive(Debug)]
pub struct BridgeClaim {
    /// Never accepts: that it listens lets others see whose it is.
    _name: UnixListener,
}

impl BridgeClaim {
    /// Claims the bridge of this name in this network namespace.
    ///
    /// # Errors
    ///
    /// `InUse` when another router has it.
    pub fn take(bridge: &str) -> Result<Self, BridgeError> {
        let name = format!("weft-bridge-{bridge}");
        let listening =
            SocketAddr::from_abstract_name(&name).and_then(|address| UnixListener::bind_addr(&address));
        match listening {
            Ok(listener) => Ok(Self { _name: listener }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let pid = holder(&name).map_or_else(|| "?".to_owned(), |pid| pid.to_string());
                Err(BridgeError::InUse { bridge: bridge.to_owned(), pid })
            }
            Err(reason) => Err(BridgeError::System { bridge: bridge.to_owned(), reason }),
        }
    }
}

/// Who listens there; none when it cannot be told (it is gone, its queue is full, or it is in another pid namespace).
fn holder(name: &str) -> Option<i32> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    connect(probe.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes()).ok()?).ok()?;
    let pid = getsockopt(&probe, PeerCredentials).ok()?.pid();
    (pid > 0).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_has_one_router_and_is_free_when_that_ends() {
        let bridge = format!("t{}", std::process::id());
        let claim = BridgeClaim::take(&bridge).unwrap();
        let _other = BridgeClaim::take(&format!("{bridge}b")).expect("another bridge is another claim");
        let error = BridgeClaim::take(&bridge).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("bridge {bridge} is in use by another router (pid {})", std::process::id())
        );
        drop(claim);
        BridgeClaim::take(&bridge).unwrap();
    }
}

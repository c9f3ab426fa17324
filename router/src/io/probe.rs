//! The probes of the VXLAN path, in and out of the bridge.
//!
//! The socket lives as long as its bridge; it is opened when the kernel has been converged, and again after it broke.

use weft_fastpath::{BridgeName, Fastpath, MacAddr, ProbeSocket};

/// Sends and receives probes while there is a bridge to do it on.
pub struct Prober {
    bridge: BridgeName,
    socket: Option<ProbeSocket>,
}

impl Prober {
    /// Knows where; opens nothing yet.
    #[must_use]
    pub fn new(bridge: BridgeName) -> Self {
        Self { bridge, socket: None }
    }

    /// Opens the socket if it is not open: the bridge and the VXLAN device stand now.
    pub fn open(&mut self) {
        if self.socket.is_none() {
            match Fastpath::probe_socket(&self.bridge) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => tracing::debug!(%error, "no probes yet"),
            }
        }
    }

    /// Sends a probe; one that cannot be sent is lost, as on the path itself.
    pub fn send(&self, to: MacAddr, bytes: &[u8]) {
        if let Some(Err(error)) = self.socket.as_ref().map(|socket| socket.send(to, bytes)) {
            tracing::debug!(%error, "a probe is lost");
        }
    }

    /// The next probe; for ever without a socket. May be dropped and called again.
    pub async fn recv(&mut self) -> Vec<u8> {
        if let Some(socket) = &mut self.socket {
            match socket.recv().await {
                Ok(probe) => return probe.payload,
                Err(error) => {
                    tracing::debug!(%error, "no probes until the bridge stands again");
                    self.socket = None;
                }
            }
        }
        std::future::pending().await
    }
}

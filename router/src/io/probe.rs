//! The probes of the VXLAN path, in and out of the bridge.
//!
//! The socket lives as long as its bridge; it is opened when the kernel has been converged, and again after it broke.

use std::time::Duration;

use tokio::time::sleep;
use weft_fastpath::{BridgeName, Fastpath, MacAddr, ProbeSocket};

/// A bridge that was taken away is made again within a tenth of a second or so.
const RETRY: Duration = Duration::from_millis(200);

/// Sends and receives probes while there is a bridge to do it on.
pub struct Prober {
    bridge: BridgeName,
    socket: Option<ProbeSocket>,
    /// There was a socket and it broke.
    broken: bool,
    /// It was said that there can be none.
    said: bool,
}

impl Prober {
    /// Knows where; opens nothing yet.
    #[must_use]
    pub fn new(bridge: BridgeName) -> Self {
        Self { bridge, socket: None, broken: false, said: false }
    }

    /// Opens the socket if it is not open: the bridge and the VXLAN device stand now.
    pub fn open(&mut self) {
        if self.socket.is_none() {
            match Fastpath::probe_socket(&self.bridge) {
                Ok(socket) => (self.socket, self.broken, self.said) = (Some(socket), false, false),
                // Without probes fastpath is never used: whoever wonders why finds it said, once.
                Err(error) if error.errno() == Some(libc::EPERM) && !self.said => {
                    self.said = true;
                    tracing::warn!(%error, "fastpath cannot be proven, and so is not used");
                }
                Err(error) => tracing::debug!(%error, "no probes yet"),
            }
        }
    }

    /// Sends a probe; one that cannot be sent is lost, as on the path itself.
    pub fn send(&mut self, to: MacAddr, bytes: &[u8]) {
        if let Some(Err(error)) = self.socket.as_ref().map(|socket| socket.send(to, bytes)) {
            tracing::debug!(%error, "a probe is lost");
            // Whoever sends may hear of the end of the bridge first, and then nobody else does.
            if error.is_gone() {
                (self.socket, self.broken) = (None, true);
            }
        }
    }

    /// The next probe; for ever without a socket. May be dropped and called again.
    pub async fn recv(&mut self) -> Vec<u8> {
        loop {
            match &mut self.socket {
                Some(socket) => match socket.recv().await {
                    Ok(probe) => return probe.payload,
                    Err(error) => {
                        tracing::debug!(%error, "no probes until the bridge stands again");
                        (self.socket, self.broken) = (None, true);
                    }
                },
                None if self.broken => {
                    sleep(RETRY).await;
                    self.open();
                }
                None => std::future::pending().await,
            }
        }
    }
}

//! Transmit offloads of one device: whether the kernel must finish checksums and cut segments before it.
//!
//! Containers keep theirs (switching them off there costs two thirds of their throughput, also between containers
//! of one host); only the device by which frames leave for capture is switched. Done by name of the feature, over
//! all that this kernel knows, because the old one-switch ioctls miss the newer kinds (UDP, SCTP, tunnels).

use std::io;
use std::os::fd::BorrowedFd;

use super::sys;

/// Whether a feature lets unfinished or oversized frames through.
fn is_offload(name: &str) -> bool {
    name.starts_with("tx-checksum-")
        || name.starts_with("tx-gso-")
        || name.starts_with("tx-") && name.ends_with("-segmentation")
}

/// Reads whether the device has its offloads: all that it could have, or none at all; None when mixed or not to
/// be known.
pub(super) fn read(socket: BorrowedFd<'_>, device: &str) -> Option<bool> {
    let names = sys::feature_names(socket, device).ok()?;
    let features = sys::features(socket, device, names.len()).ok()?;
    let offloads = |bits: &sys::FeatureBits| {
        let of_ours = names.iter().enumerate().filter(|(_, name)| is_offload(name)).map(|(at, _)| at);
        of_ours.filter(|at| bits.get(*at)).collect::<Vec<_>>()
    };
    let (available, requested) = (offloads(&features.available), offloads(&features.requested));
    if offloads(&features.active).is_empty() {
        Some(false)
    } else if available.iter().all(|at| requested.contains(at)) {
        Some(true)
    } else {
        None
    }
}

/// Switches all offloads of the device on or off, as far as it has them.
pub(super) fn write(socket: BorrowedFd<'_>, device: &str, on: bool) -> io::Result<()> {
    let names = sys::feature_names(socket, device)?;
    let features = sys::features(socket, device, names.len())?;
    let chosen: Vec<usize> = names
        .iter()
        .enumerate()
        .filter(|(at, name)| is_offload(name) && features.available.get(*at))
        .map(|(at, _)| at)
        .collect();
    sys::set_features(socket, device, names.len(), &chosen, on)
}

#[cfg(test)]
mod tests {
    use super::is_offload;

    #[test]
    fn only_what_shapes_outgoing_frames_is_chosen() {
        for name in ["tx-checksum-ip-generic", "tx-tcp6-segmentation", "tx-udp-segmentation", "tx-gso-list"] {
            assert!(is_offload(name), "{name}");
        }
        for name in ["tx-scatter-gather", "rx-checksum", "tx-vlan-hw-insert", "rx-gro", "highdma"] {
            assert!(!is_offload(name), "{name}");
        }
    }
}

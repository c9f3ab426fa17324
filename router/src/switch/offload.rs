//! What a kernel left undone in a frame it handed over: the virtio-net header.
//!
//! A packet socket with `PACKET_VNET_HDR` reads and writes this in front of a frame, so that 64 KiB TCP segments
//! with unfinished checksums cross user space whole. On the wire it takes ten bytes, big-endian.

/// Bytes of the header, in the kernel's form and on the wire.
pub const VNET_HEADER: usize = 10;

/// Flag: the checksum at `checksum_start + checksum_offset` is still to be finished.
pub const NEEDS_CHECKSUM: u8 = 1;

/// The virtio-net header of one frame (virtio 1.2, section 5.1.6), in native numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHeader {
    /// Bit 0: checksum unfinished; bit 1: checksum already verified.
    pub flags: u8,
    /// 0 none, 1 TCP over IPv4, 3 UDP fragments, 4 TCP over IPv6, 5 UDP segments; bit 7: ECN.
    pub segmentation: u8,
    /// Bytes of Ethernet, IP and transport headers.
    pub header_length: u16,
    /// Payload bytes of each segment.
    pub segment_size: u16,
    /// Where summing starts, from the start of the frame.
    pub checksum_start: u16,
    /// Where the sum goes, from `checksum_start`.
    pub checksum_offset: u16,
}

impl VnetHeader {
    /// Whether there is nothing left to do to the frame.
    pub fn is_plain(&self) -> bool {
        self.flags & NEEDS_CHECKSUM == 0 && self.segmentation == 0
    }

    /// From the kernel's form (native endianness).
    pub fn from_kernel(bytes: [u8; VNET_HEADER]) -> Self {
        Self::from_fields(bytes, u16::from_ne_bytes)
    }

    /// The kernel's form (native endianness).
    pub fn to_kernel(self) -> [u8; VNET_HEADER] {
        self.to_fields(u16::to_ne_bytes)
    }

    /// From the wire (big-endian).
    pub fn from_wire(bytes: [u8; VNET_HEADER]) -> Self {
        Self::from_fields(bytes, u16::from_be_bytes)
    }

    /// For the wire (big-endian).
    pub fn to_wire(self) -> [u8; VNET_HEADER] {
        self.to_fields(u16::to_be_bytes)
    }

    fn from_fields(bytes: [u8; VNET_HEADER], number: fn([u8; 2]) -> u16) -> Self {
        let [flags, segmentation, a, b, c, d, e, f, g, h] = bytes;
        Self {
            flags,
            segmentation,
            header_length: number([a, b]),
            segment_size: number([c, d]),
            checksum_start: number([e, f]),
            checksum_offset: number([g, h]),
        }
    }

    fn to_fields(self, bytes: fn(u16) -> [u8; 2]) -> [u8; VNET_HEADER] {
        let [a, b] = bytes(self.header_length);
        let [c, d] = bytes(self.segment_size);
        let [e, f] = bytes(self.checksum_start);
        let [g, h] = bytes(self.checksum_offset);
        [self.flags, self.segmentation, a, b, c, d, e, f, g, h]
    }
}

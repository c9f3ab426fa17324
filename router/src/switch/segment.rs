//! Finishes in user space what a kernel left undone, for a capture that cannot pass the virtio header on.
//!
//! A frame whose sender's kernel left the checksum or the cutting to the network card arrives here with its virtio
//! header when the other host captures with packet sockets. Where this host injects with pcap, nobody would finish
//! it: so it is cut into segments and summed here. TCP over IPv4 and IPv6 and UDP segments; the rules are those of
//! the kernel's own segmentation (length, identification, sequence, flags, checksums).

use super::offload::{NEEDS_CHECKSUM, VnetHeader};

const NONE: u8 = 0;
const TCP4: u8 = 1;
const TCP6: u8 = 4;
const UDP: u8 = 5;
const ECN: u8 = 0x80;

const FIN_PUSH: u8 = 0x09;
const CONGESTION_REDUCED: u8 = 0x80;

/// The frame is not what its virtio header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinishable;

/// Hands the frame to `take` as frames that need nothing more; `scratch` is where they are made.
///
/// # Errors
/// When header and frame contradict each other, or for a kind of segmentation that no kernel uses any more.
pub fn finish(
    frame: &[u8],
    vnet: &VnetHeader,
    scratch: &mut Vec<u8>,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), Unfinishable> {
    match vnet.segmentation & !ECN {
        NONE if vnet.flags & NEEDS_CHECKSUM == 0 => take(frame),
        NONE => take(summed(frame, vnet, scratch)?),
        kind @ (TCP4 | TCP6 | UDP) => Segments::new(frame, vnet, kind)?.cut(scratch, take)?,
        _ => return Err(Unfinishable),
    }
    Ok(())
}

/// The kernel has already put the sum of the pseudo-header where the checksum goes.
fn summed<'a>(frame: &[u8], vnet: &VnetHeader, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], Unfinishable> {
    scratch.clear();
    scratch.extend_from_slice(frame);
    let start = usize::from(vnet.checksum_start);
    let sum = fold(add(0, scratch.get(start..).ok_or(Unfinishable)?));
    put(scratch, start + usize::from(vnet.checksum_offset), !sum)?;
    Ok(scratch)
}

/// A frame that is cut: headers that are repeated, and a payload that is shared out.
struct Segments<'a> {
    headers: &'a [u8],
    payload: &'a [u8],
    size: usize,
    network: usize,
    transport: usize,
    checksum: usize,
    ipv6: bool,
    udp: bool,
}

impl<'a> Segments<'a> {
    fn new(frame: &'a [u8], vnet: &VnetHeader, kind: u8) -> Result<Self, Unfinishable> {
        let network = network_offset(frame).ok_or(Unfinishable)?;
        let transport = usize::from(vnet.checksum_start);
        let version = frame.get(network).ok_or(Unfinishable)? >> 4;
        let ipv6 = version == 6;
        let udp = kind == UDP;
        let length =
            if udp { 8 } else { usize::from(frame.get(transport + 12).ok_or(Unfinishable)? >> 4) * 4 };
        let least = if ipv6 { 40 } else { 20 };
        let matches = match kind {
            TCP4 => !ipv6,
            TCP6 => ipv6,
            _ => version == 4 || ipv6,
        };
        let size = usize::from(vnet.segment_size);
        if !matches || size == 0 || transport < network + least || (!udp && length < 20) {
            return Err(Unfinishable);
        }
        let (headers, payload) = frame.split_at_checked(transport + length).ok_or(Unfinishable)?;
        let checksum = transport + if udp { 6 } else { 16 };
        Ok(Self { headers, payload, size, network, transport, checksum, ipv6, udp })
    }

    fn cut(&self, scratch: &mut Vec<u8>, take: &mut dyn FnMut(&[u8])) -> Result<(), Unfinishable> {
        let count = self.payload.len().div_ceil(self.size).max(1);
        for number in 0..count {
            let start = number * self.size;
            let end = self.payload.len().min(start + self.size);
            scratch.clear();
            scratch.extend_from_slice(self.headers);
            scratch.extend_from_slice(&self.payload[start..end]);
            self.address(scratch, number)?;
            if self.udp {
                let length = short(scratch.len() - self.transport)?;
                put(scratch, self.transport + 4, length)?;
            } else {
                self.sequence(scratch, start, number == 0, number + 1 == count)?;
            }
            self.sum(scratch)?;
            take(scratch);
        }
        Ok(())
    }

    /// The network header of segment `number`.
    fn address(&self, segment: &mut [u8], number: usize) -> Result<(), Unfinishable> {
        let length = segment.len() - self.network;
        if self.ipv6 {
            return put(segment, self.network + 4, short(length - 40)?);
        }
        put(segment, self.network + 2, short(length)?)?;
        let first = get(segment, self.network + 4)?;
        put(segment, self.network + 4, first.wrapping_add(short(number)?))?;
        put(segment, self.network + 10, 0)?;
        let sum = fold(add(0, &segment[self.network..self.transport]));
        put(segment, self.network + 10, !sum)
    }

    /// What TCP says only once: the end at the end, "congestion window reduced" at the beginning.
    fn sequence(
        &self,
        segment: &mut [u8],
        start: usize,
        first: bool,
        last: bool,
    ) -> Result<(), Unfinishable> {
        let at = segment.get_mut(self.transport + 4..self.transport + 8).ok_or(Unfinishable)?;
        let sequence = u32::from_be_bytes([at[0], at[1], at[2], at[3]]);
        let start = u32::try_from(start).map_err(|_| Unfinishable)?;
        at.copy_from_slice(&sequence.wrapping_add(start).to_be_bytes());
        let flags = segment.get_mut(self.transport + 13).ok_or(Unfinishable)?;
        if !last {
            *flags &= !FIN_PUSH;
        }
        if !first {
            *flags &= !CONGESTION_REDUCED;
        }
        Ok(())
    }

    fn sum(&self, segment: &mut [u8]) -> Result<(), Unfinishable> {
        let addresses = if self.ipv6 { 8..40 } else { 12..20 };
        let addresses = &segment[self.network + addresses.start..self.network + addresses.end];
        let protocol = if self.udp { 17 } else { 6 };
        let length = u64::from(short(segment.len() - self.transport)?);
        let pseudo = add(protocol + length, addresses);
        put(segment, self.checksum, 0)?;
        let sum = !fold(add(pseudo, &segment[self.transport..]));
        put(segment, self.checksum, if self.udp && sum == 0 { u16::MAX } else { sum })
    }
}

/// Where the network header starts, behind up to two VLAN tags.
fn network_offset(frame: &[u8]) -> Option<usize> {
    let mut at = 12;
    for _ in 0..3 {
        match get(frame, at).ok()? {
            0x8100 | 0x88a8 => at += 4,
            0x0800 | 0x86dd => return Some(at + 2),
            _ => return None,
        }
    }
    None
}

fn get(bytes: &[u8], at: usize) -> Result<u16, Unfinishable> {
    let number = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or(Unfinishable)?;
    Ok(u16::from_be_bytes(*number))
}

fn put(bytes: &mut [u8], at: usize, number: u16) -> Result<(), Unfinishable> {
    let place = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()).ok_or(Unfinishable)?;
    *place = number.to_be_bytes();
    Ok(())
}

fn short(number: usize) -> Result<u16, Unfinishable> {
    u16::try_from(number).map_err(|_| Unfinishable)
}

/// Adds big-endian 16-bit words to an Internet checksum (RFC 1071).
fn add(sum: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<2>();
    let odd = rest.first().map_or(0, |byte| u64::from(*byte) << 8);
    words.iter().fold(sum + odd, |sum, word| sum + u64::from(u16::from_be_bytes(*word)))
}

fn fold(mut sum: u64) -> u16 {
    loop {
        match u16::try_from(sum) {
            Ok(folded) => return folded,
            Err(_) => sum = (sum & 0xffff) + (sum >> 16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An Ethernet frame with a TCP or UDP packet whose checksums are not finished.
    fn packet(ipv6: bool, udp: bool, vlan: bool, payload: &[u8]) -> (Vec<u8>, VnetHeader) {
        let mut frame = vec![2; 12];
        if vlan {
            frame.extend([0x81, 0, 0, 5]);
        }
        frame.extend(if ipv6 { [0x86, 0xdd] } else { [8, 0] });
        let protocol = if udp { 17 } else { 6 };
        if ipv6 {
            frame.extend([0x60, 0, 0, 0, 0xff, 0xff, protocol, 64]);
            frame.extend([7; 32]);
        } else {
            frame.extend([0x45, 0, 0xff, 0xff, 0xff, 0xfe, 0x40, 0, 64, protocol, 0xaa, 0xaa]);
            frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        }
        let checksum_start = u16::try_from(frame.len()).unwrap();
        if udp {
            frame.extend([0, 1, 0, 2, 0xff, 0xff, 0, 0]);
        } else {
            frame.extend([0, 1, 0, 2, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 1, 0x60, 0x99, 1, 1, 0, 0, 0, 0]);
            frame.extend([1; 4]);
        }
        let header_length = u16::try_from(frame.len()).unwrap();
        frame.extend(payload);
        let checksum_offset = if udp { 6 } else { 16 };
        let segmentation = match (udp, ipv6) {
            (true, _) => UDP,
            (false, true) => TCP6,
            (false, false) => TCP4,
        };
        let vnet = VnetHeader {
            flags: 1,
            segmentation,
            header_length,
            segment_size: 1000,
            checksum_start,
            checksum_offset,
        };
        (frame, vnet)
    }

    fn transport_sum(segment: &[u8], ipv6: bool, udp: bool, network: usize, transport: usize) -> u16 {
        let addresses =
            if ipv6 { &segment[network + 8..network + 40] } else { &segment[network + 12..network + 20] };
        let length = segment.len() - transport;
        fold(add(add(length as u64 + if udp { 17 } else { 6 }, addresses), &segment[transport..]))
    }

    proptest! {
        #[test]
        fn segments_are_complete_packets_that_add_up(
            ipv6: bool, udp: bool, vlan: bool, payload in proptest::collection::vec(any::<u8>(), 1..5000),
        ) {
            let (frame, vnet) = packet(ipv6, udp, vlan, &payload);
            let mut segments = Vec::new();
            finish(&frame, &vnet, &mut Vec::new(), &mut |segment| segments.push(segment.to_vec())).unwrap();
            prop_assert_eq!(segments.len(), payload.len().div_ceil(1000));
            let (network, transport) = (if vlan { 18 } else { 14 }, usize::from(vnet.checksum_start));
            let headers = usize::from(vnet.header_length);
            let mut joined: Vec<u8> = Vec::new();
            for (number, segment) in segments.iter().enumerate() {
                if ipv6 {
                    prop_assert_eq!(usize::from(get(segment, network + 4).unwrap()), segment.len() - network - 40);
                } else {
                    prop_assert_eq!(usize::from(get(segment, network + 2).unwrap()), segment.len() - network);
                    prop_assert_eq!(fold(add(0, &segment[network..transport])), 0xffff);
                    let identification = 0xfffe_u16.wrapping_add(u16::try_from(number).unwrap());
                    prop_assert_eq!(get(segment, network + 4).unwrap(), identification);
                }
                prop_assert_eq!(transport_sum(segment, ipv6, udp, network, transport), 0xffff);
                if !udp {
                    let sequence = u32::from_be_bytes(segment[transport + 4..transport + 8].try_into().unwrap());
                    prop_assert_eq!(sequence, 0xffff_fff0_u32.wrapping_add(u32::try_from(joined.len()).unwrap()));
                    let (first, last) = (number == 0, number + 1 == segments.len());
                    let flags = 0x10 | if first { 0x80 } else { 0 } | if last { 0x09 } else { 0 };
                    prop_assert_eq!(segment[transport + 13], flags);
                }
                joined.extend(&segment[headers..]);
            }
            prop_assert_eq!(joined, payload);
        }

        #[test]
        fn no_header_panics_the_cutter(
            frame in proptest::collection::vec(any::<u8>(), 0..200), header: [u8; 10], ip: bool, kind in 0_u8..6,
        ) {
            let mut frame = frame;
            if ip && frame.len() > 14 {
                frame[12..15].copy_from_slice(&[8, 0, 0x45]);
            }
            let vnet = VnetHeader { segmentation: kind, ..VnetHeader::from_wire(header) };
            let _ = finish(&frame, &vnet, &mut Vec::new(), &mut |_| ());
            let near = VnetHeader { checksum_start: 34, checksum_offset: 16, ..vnet };
            let _ = finish(&frame, &near, &mut Vec::new(), &mut |_| ());
        }
    }

    #[test]
    fn an_unfinished_checksum_alone_is_finished() {
        let (mut frame, vnet) = packet(false, true, false, b"payload");
        put(&mut frame, 38, 15).unwrap();
        let pseudo = fold(add(17 + 15, &frame[26..34]));
        put(&mut frame, 40, pseudo).unwrap();
        let vnet = VnetHeader { segmentation: 0, ..vnet };
        let mut taken = 0;
        finish(&frame, &vnet, &mut Vec::new(), &mut |whole| {
            taken += 1;
            assert_eq!(transport_sum(whole, false, true, 14, 34), 0xffff);
        })
        .unwrap();
        assert_eq!(taken, 1);
    }
}

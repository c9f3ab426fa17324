//! A borrowed look at an Ethernet frame: the fields the switch decides by, and nothing more.

use weft_fastpath::MacAddr;

/// Bytes of destination, source and ethertype.
pub const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: u16 = 0x8100;
const SERVICE_TAG: u16 = 0x88a8;

/// The header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// To whom.
    pub destination: MacAddr,
    /// From whom.
    pub source: MacAddr,
    /// What is inside, behind a VLAN tag if there is one.
    pub ethertype: u16,
    /// The VLAN of the outer tag.
    pub vlan: Option<u16>,
}

impl Frame {
    /// Reads the header; `None` when the frame is too short to have one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (destination, rest) = bytes.split_first_chunk::<6>()?;
        let (source, rest) = rest.split_first_chunk::<6>()?;
        let (mut ethertype, rest) = number(rest)?;
        let mut vlan = None;
        if ethertype == VLAN_TAG || ethertype == SERVICE_TAG {
            let (tag, rest) = number(rest)?;
            vlan = Some(tag & 0x0fff);
            ethertype = number(rest)?.0;
        }
        Some(Self { destination: MacAddr::new(*destination), source: MacAddr::new(*source), ethertype, vlan })
    }
}

/// Whether the address is one that bridges keep to the link (IEEE 802.1Q: spanning tree, pause frames, LLDP).
pub fn is_link_local(mac: MacAddr) -> bool {
    let [.., last] = mac.octets();
    mac.octets()[..5] == [0x01, 0x80, 0xc2, 0, 0] && last < 0x10
}

fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_header_is_read_where_it_stands(to: [u8; 6], from: [u8; 6], vlan in 0_u16..4096, tagged: bool, rest: [u8; 8]) {
            let mut bytes = [to, from].concat();
            if tagged {
                bytes.extend(VLAN_TAG.to_be_bytes());
                bytes.extend((0xe000 | vlan).to_be_bytes());
            }
            bytes.extend(0x0800_u16.to_be_bytes());
            let header = bytes.len();
            bytes.extend(rest);
            let frame = Frame::parse(&bytes).unwrap();
            prop_assert_eq!((frame.destination, frame.source), (MacAddr::new(to), MacAddr::new(from)));
            prop_assert_eq!((frame.ethertype, frame.vlan), (0x0800, tagged.then_some(vlan)));
            prop_assert!((0..header).all(|length| Frame::parse(&bytes[..length]).is_none()));
        }
    }
}

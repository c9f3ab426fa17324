//! Netlink messages for nfnetlink as bytes, in and out.
//!
//! ```text
//! length 4 | type 2 | flags 2 | sequence 4 | port 4      struct nlmsghdr, in the order of the machine
//! family 1 | version 1 | resource 2                      struct nfgenmsg, the resource in network order
//! { length 2 | type 2 | value, padded to 4 } ...         attributes; nf_tables' numbers are in network order
//! ```

/// The sizes of the two headers, and of an attribute's.
const HEADER: usize = 16;
const FAMILY: usize = 4;
const ATTRIBUTE: usize = 4;
/// `NLA_TYPE_MASK`: the type without the bits "nested" and "network order".
const TYPE: u16 = 0x3fff;

/// Messages to be sent.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

/// The head of one message.
pub(super) struct Head {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) family: u8,
    pub(super) resource: u16,
}

impl Writer {
    /// Appends a message; it gets its number when it is sent.
    pub(super) fn message(&mut self, head: &Head, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(head.kind.to_ne_bytes());
        self.bytes.extend(head.flags.to_ne_bytes());
        self.bytes.extend([0; 8]);
        self.bytes.extend([head.family, 0]);
        self.bytes.extend(head.resource.to_be_bytes());
        fill(&mut Attributes(&mut self.bytes));
        let length =
            u32::try_from(self.bytes.len() - start).expect("a message of ours is some kilobytes long");
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Numbers the messages from `first` on; the number after the last.
    pub(super) fn renumber(&mut self, first: u32) -> u32 {
        let lengths: Vec<usize> =
            messages(&self.bytes).map(|message| HEADER + message.payload.len()).collect();
        let (mut at, mut sequence) = (0, first);
        for length in lengths {
            self.bytes[at + 8..at + 12].copy_from_slice(&sequence.to_ne_bytes());
            (at, sequence) = (at + length, sequence.wrapping_add(1));
        }
        sequence
    }
}

/// The attributes of the message that is being written.
pub(super) struct Attributes<'a>(&'a mut Vec<u8>);

impl Attributes<'_> {
    pub(super) fn put(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |inside| inside.0.extend(value));
    }

    /// A text, ended by a zero as the kernel wants it.
    pub(super) fn text(&mut self, kind: u16, value: &str) {
        self.nest(kind, |inside| {
            inside.0.extend(value.as_bytes());
            inside.0.push(0);
        });
    }

    pub(super) fn number(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    pub(super) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        fill(&mut Attributes(self.0));
        let length = u16::try_from(self.0.len() - start).expect("elements come in chunks far below 64 KiB");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// A message that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    /// What follows the first header.
    pub(super) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// What follows both headers.
    pub(super) fn attributes(&self) -> &'a [u8] {
        self.payload.get(FAMILY..).unwrap_or_default()
    }

    /// The number at the start of the payload of an error, or of the end of a list: 0, or a negative errno.
    pub(super) fn status(&self) -> i32 {
        self.payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes))
    }
}

/// Reads the messages of one datagram; what is cut off ends it.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
        let message = bytes.get(..length).filter(|message| message.len() >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes(*message.get(4..)?.first_chunk()?),
            flags: u16::from_ne_bytes(*message.get(6..)?.first_chunk()?),
            sequence: u32::from_ne_bytes(*message.get(8..)?.first_chunk()?),
            payload: message.get(HEADER..)?,
        })
    })
}

/// Reads a list of attributes; what is cut off ends it.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?) & TYPE;
        let value = bytes.get(ATTRIBUTE..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(super) fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// The first attribute of a kind, as a number.
pub(super) fn number(bytes: &[u8], wanted: u16) -> Option<u32> {
    Some(u32::from_be_bytes(attribute(bytes, wanted)?.try_into().ok()?))
}

/// The first attribute of a kind, as a long number.
pub(super) fn long(bytes: &[u8], wanted: u16) -> Option<u64> {
    Some(u64::from_be_bytes(attribute(bytes, wanted)?.try_into().ok()?))
}

/// The first attribute of a kind, as a text.
pub(super) fn text(bytes: &[u8], wanted: u16) -> Option<String> {
    attribute(bytes, wanted).map(until_zero)
}

/// The text before the first zero.
pub(super) fn until_zero(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: Head = Head { kind: 0x0a06, flags: 5, family: 1, resource: 10 };

    #[test]
    fn what_is_written_is_read_back() {
        let mut writer = Writer::default();
        writer.message(&HEAD, |attributes| {
            attributes.text(1, "weft");
            attributes.nest(2, |inside| inside.number(3, 0xdead_beef));
        });
        writer.message(&HEAD, |_| {});
        let found: Vec<Message<'_>> = messages(writer.bytes()).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].kind, found[0].flags), (0x0a06, 5));
        assert_eq!(found[0].payload[..4], [1, 0, 0, 10]);
        assert_eq!(text(found[0].attributes(), 1).as_deref(), Some("weft"));
        assert_eq!(number(attribute(found[0].attributes(), 2).unwrap(), 3), Some(0xdead_beef));
        assert_eq!(found[1].attributes(), []);
        assert_eq!(writer.renumber(u32::MAX), 1);
        let numbers: Vec<u32> = messages(writer.bytes()).map(|message| message.sequence).collect();
        assert_eq!(numbers, [u32::MAX, 0]);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_go_on_for_ever(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                prop_assert!(attributes(message.attributes()).count() <= bytes.len() / ATTRIBUTE);
                let _ = message.status();
            }
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER);
        }
    }
}

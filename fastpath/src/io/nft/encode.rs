//! Changes to a table as one nfnetlink transaction.
//!
//! Everything between "begin" and "end" happens, or nothing does. A whole table is written as
//! add table, delete table, add table and all that is in it: right whether one stands or not, and at no moment is
//! there none. Each message has a label, so that a refusal says what was refused.

use std::net::IpAddr;

use super::number::*;
use super::wire::{Attributes, Head, Writer};
use crate::table::{
    Base, Chain, Element, Expression, Family, Header, Key, Meta, Place, Rule, Set, Table, TableChange,
};

/// How many elements go into one message: an attribute has at most 64 KiB, an element of ours some 32 bytes.
const CHUNK: usize = 1000;
/// How long an interface name is as the key of a set.
pub(super) const INTERFACE: usize = 16;

/// `NLM_F_REQUEST`, `NLM_F_ACK`, `NLM_F_CREATE` and `NLM_F_APPEND`.
pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// A transaction to be sent.
pub(super) struct Batch<'a> {
    writer: Writer,
    place: &'a Place,
    /// What each message is about.
    labels: Vec<String>,
}

impl<'a> Batch<'a> {
    /// Begins a transaction about one table.
    pub(super) fn new(place: &'a Place) -> Self {
        let mut batch = Self { writer: Writer::default(), place, labels: Vec::new() };
        batch.frame(NFNL_MSG_BATCH_BEGIN);
        batch
    }

    /// Ends it: the messages, and what each is about; "begin" first and "end" last, those between acknowledged.
    pub(super) fn into_parts(mut self) -> (Writer, Vec<String>) {
        self.frame(NFNL_MSG_BATCH_END);
        (self.writer, self.labels)
    }

    fn frame(&mut self, kind: u16) {
        self.labels.push("transaction".to_owned());
        let head = Head { kind, flags: REQUEST, family: 0, resource: SUBSYSTEM };
        self.writer.message(&head, |_| {});
    }

    fn message(&mut self, label: String, kind: u16, flags: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.labels.push(label);
        let (kind, flags) = (SUBSYSTEM << 8 | kind, flags | REQUEST | ACK);
        let family = family(self.place.family);
        self.writer.message(&Head { kind, flags, family, resource: 0 }, fill);
    }

    /// Appends a change to a table of ours.
    pub(super) fn change(&mut self, change: &TableChange) {
        match change {
            TableChange::Create { table, .. } | TableChange::Replace { table, .. } => {
                self.add_table(table);
                self.delete_table();
                self.add_table(table);
                self.contents(table);
            }
            TableChange::Add { set, elements, .. } => {
                self.elements(NFT_MSG_NEWSETELEM, CREATE, set, elements.iter());
            }
            TableChange::Remove { set, elements, .. } => {
                self.elements(NFT_MSG_DELSETELEM, 0, set, elements.iter());
            }
            TableChange::Delete { .. } => self.delete_table(),
        }
    }

    fn add_table(&mut self, table: &Table) {
        let Place { name, what, .. } = self.place;
        self.message("table".to_owned(), NFT_MSG_NEWTABLE, CREATE, |message| {
            message.text(NFTA_TABLE_NAME, name);
            message.number(NFTA_TABLE_FLAGS, table.flags);
            message.put(NFTA_TABLE_USERDATA, &comment(&format!("the {what} of weft")));
        });
    }

    fn delete_table(&mut self) {
        let name = &self.place.name;
        self.message("table".to_owned(), NFT_MSG_DELTABLE, 0, |message| message.text(NFTA_TABLE_NAME, name));
    }

    /// Sets before the rules that ask them, chains before the rules that go there.
    fn contents(&mut self, table: &Table) {
        for (id, (name, set)) in (1..).zip(&table.sets) {
            self.set(id, name, set);
        }
        for (name, chain) in &table.chains {
            self.chain(name, chain);
        }
        for (name, chain) in &table.chains {
            for rule in &chain.rules {
                self.rule(name, rule);
            }
        }
        for (name, set) in &table.sets {
            self.elements(NFT_MSG_NEWSETELEM, CREATE, name, set.elements.iter());
        }
    }

    fn set(&mut self, id: u32, name: &str, set: &Set) {
        let Some((kind, length, order)) = key(set.key) else { return };
        let table = &self.place.name;
        self.message(format!("set {name}"), NFT_MSG_NEWSET, CREATE, |message| {
            message.text(NFTA_SET_TABLE, table);
            message.text(NFTA_SET_NAME, name);
            message.number(NFTA_SET_FLAGS, set.flags);
            message.number(NFTA_SET_KEY_TYPE, kind);
            message.number(NFTA_SET_KEY_LEN, length);
            message.number(NFTA_SET_ID, id);
            message.put(NFTA_SET_USERDATA, &note(NFTNL_UDATA_SET_KEYBYTEORDER, &order.to_ne_bytes()));
        });
    }

    fn chain(&mut self, name: &str, chain: &Chain) {
        let table = &self.place.name;
        self.message(format!("chain {name}"), NFT_MSG_NEWCHAIN, CREATE, |message| {
            message.text(NFTA_CHAIN_TABLE, table);
            message.text(NFTA_CHAIN_NAME, name);
            let Some(Base { kind, hook, priority, accepts }) = &chain.base else { return };
            message.nest(NFTA_CHAIN_HOOK, |inside| {
                inside.number(NFTA_HOOK_HOOKNUM, *hook);
                inside.number(NFTA_HOOK_PRIORITY, priority.cast_unsigned());
            });
            message.number(NFTA_CHAIN_POLICY, if *accepts { NF_ACCEPT } else { NF_DROP });
            message.text(NFTA_CHAIN_TYPE, kind);
        });
    }

    fn rule(&mut self, chain: &str, rule: &Rule) {
        self.write_rule(chain, rule, CREATE | APPEND);
    }

    /// Puts a rule before all others of a chain.
    pub(super) fn insert_rule(&mut self, chain: &str, rule: &Rule) {
        self.write_rule(chain, rule, CREATE);
    }

    /// Removes the rule that the kernel has given this handle.
    pub(super) fn delete_rule(&mut self, chain: &str, handle: u64) {
        let table = &self.place.name;
        self.message(format!("rule {handle} of chain {chain}"), NFT_MSG_DELRULE, 0, |message| {
            message.text(NFTA_RULE_TABLE, table);
            message.text(NFTA_RULE_CHAIN, chain);
            message.put(NFTA_RULE_HANDLE, &handle.to_be_bytes());
        });
    }

    fn write_rule(&mut self, chain: &str, rule: &Rule, flags: u16) {
        let table = &self.place.name;
        self.message(format!("rule of chain {chain}"), NFT_MSG_NEWRULE, flags, |message| {
            message.text(NFTA_RULE_TABLE, table);
            message.text(NFTA_RULE_CHAIN, chain);
            message.nest(NFTA_RULE_EXPRESSIONS, |list| {
                for part in &rule.expressions {
                    list.nest(NFTA_LIST_ELEM, |inside| expression(inside, part));
                }
            });
            message.put(NFTA_RULE_USERDATA, &comment(&rule.comment));
        });
    }

    fn elements<'e>(
        &mut self,
        kind: u16,
        flags: u16,
        set: &str,
        elements: impl Iterator<Item = &'e Element>,
    ) {
        let table = &self.place.name;
        let keys: Vec<Vec<u8>> = elements.map(bytes).collect();
        for chunk in keys.chunks(CHUNK) {
            self.message(format!("elements of set {set}"), kind, flags, |message| {
                message.text(NFTA_SET_ELEM_LIST_TABLE, table);
                message.text(NFTA_SET_ELEM_LIST_SET, set);
                message.nest(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
                    for key in chunk {
                        list.nest(NFTA_LIST_ELEM, |element| {
                            element.nest(NFTA_SET_ELEM_KEY, |data| data.put(NFTA_DATA_VALUE, key));
                        });
                    }
                });
            });
        }
    }
}

fn expression(into: &mut Attributes<'_>, part: &Expression) {
    let named = |into: &mut Attributes<'_>, name: &str, fill: &dyn Fn(&mut Attributes<'_>)| {
        into.text(NFTA_EXPR_NAME, name);
        into.nest(NFTA_EXPR_DATA, fill);
    };
    match part {
        Expression::Meta(meta) => named(into, "meta", &|data| {
            data.number(NFTA_META_KEY, meta_key(*meta));
            data.number(NFTA_META_DREG, NFT_REG_1);
        }),
        Expression::Payload { header, offset, length } => {
            named(into, "payload", &|data| payload(data, NFT_REG_1, *header, *offset, *length));
        }
        Expression::Beside { header, offset, length } => {
            named(into, "payload", &|data| payload(data, NFT_REG_2, *header, *offset, *length));
        }
        Expression::Masked(mask) => named(into, "bitwise", &|data| bitwise(data, mask)),
        Expression::Is(value) => named(into, "cmp", &|data| compare(data, NFT_CMP_EQ, value)),
        Expression::IsNot(value) => named(into, "cmp", &|data| compare(data, NFT_CMP_NEQ, value)),
        Expression::In(set) => named(into, "lookup", &|data| lookup(data, set, 0)),
        Expression::NotIn(set) => named(into, "lookup", &|data| lookup(data, set, NFT_LOOKUP_F_INV)),
        Expression::Counter => named(into, "counter", &|_| {}),
        Expression::Drop => named(into, "immediate", &|data| verdict(data, NF_DROP, None)),
        Expression::Accept => named(into, "immediate", &|data| verdict(data, NF_ACCEPT, None)),
        Expression::Goto(chain) => named(into, "immediate", &|data| verdict(data, NFT_GOTO, Some(chain))),
        Expression::Masquerade => {
            named(into, "masq", &|data| data.number(NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY));
        }
        Expression::Established => named(into, "match", &established),
        // Never wanted; the kernel would refuse the transaction by this name.
        Expression::Other(name) => named(into, name, &|_| {}),
    }
}

fn payload(data: &mut Attributes<'_>, register: u32, header: Header, offset: u32, length: u32) {
    data.number(NFTA_PAYLOAD_DREG, register);
    data.number(NFTA_PAYLOAD_BASE, payload_base(header));
    data.number(NFTA_PAYLOAD_OFFSET, offset);
    data.number(NFTA_PAYLOAD_LEN, length);
}

fn bitwise(data: &mut Attributes<'_>, mask: &[u8]) {
    data.number(NFTA_BITWISE_SREG, NFT_REG_1);
    data.number(NFTA_BITWISE_DREG, NFT_REG_1);
    data.number(NFTA_BITWISE_LEN, u32::try_from(mask.len()).expect("a mask is as long as an address"));
    data.nest(NFTA_BITWISE_MASK, |inside| inside.put(NFTA_DATA_VALUE, mask));
    data.nest(NFTA_BITWISE_XOR, |inside| inside.put(NFTA_DATA_VALUE, &vec![0; mask.len()]));
}

fn compare(data: &mut Attributes<'_>, operation: u32, value: &[u8]) {
    data.number(NFTA_CMP_SREG, NFT_REG_1);
    data.number(NFTA_CMP_OP, operation);
    data.nest(NFTA_CMP_DATA, |inside| inside.put(NFTA_DATA_VALUE, value));
}

fn established(data: &mut Attributes<'_>) {
    data.text(NFTA_MATCH_NAME, CONNTRACK);
    data.number(NFTA_MATCH_REV, CONNTRACK_REVISION);
    data.put(NFTA_MATCH_INFO, &established_or_related());
}

/// `struct xt_conntrack_mtinfo3` for "state ESTABLISHED or RELATED" and nothing else.
pub(super) fn established_or_related() -> [u8; CONNTRACK_LENGTH] {
    let mut info = [0; CONNTRACK_LENGTH];
    info[146..148].copy_from_slice(&XT_CONNTRACK_STATE.to_ne_bytes());
    info[150..152].copy_from_slice(&XT_CONNTRACK_ESTABLISHED_OR_RELATED.to_ne_bytes());
    info
}

fn lookup(data: &mut Attributes<'_>, set: &str, flags: u32) {
    data.text(NFTA_LOOKUP_SET, set);
    data.number(NFTA_LOOKUP_SREG, NFT_REG_1);
    data.number(NFTA_LOOKUP_FLAGS, flags);
}

fn verdict(data: &mut Attributes<'_>, code: u32, chain: Option<&str>) {
    data.number(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
    data.nest(NFTA_IMMEDIATE_DATA, |inside| {
        inside.nest(NFTA_DATA_VERDICT, |verdict| {
            verdict.number(NFTA_VERDICT_CODE, code);
            if let Some(chain) = chain {
                verdict.text(NFTA_VERDICT_CHAIN, chain);
            }
        });
    });
}

pub(super) fn meta_key(meta: Meta) -> u32 {
    match meta {
        Meta::InterfaceIn => NFT_META_IIFNAME,
        Meta::InterfaceOut => NFT_META_OIFNAME,
        Meta::GroupIn => NFT_META_IIFGROUP,
        Meta::GroupOut => NFT_META_OIFGROUP,
        Meta::Family => NFT_META_NFPROTO,
        Meta::Protocol => NFT_META_L4PROTO,
    }
}

pub(super) fn payload_base(header: Header) -> u32 {
    match header {
        Header::Link => NFT_PAYLOAD_LL_HEADER,
        Header::Network => NFT_PAYLOAD_NETWORK_HEADER,
        Header::Transport => NFT_PAYLOAD_TRANSPORT_HEADER,
    }
}

/// The type of a key as `nft` numbers it, its length, and the order of its bytes; None for what is not ours.
pub(super) fn key(key: Key) -> Option<(u32, u32, u32)> {
    Some(match key {
        Key::Ipv4 => (TYPE_IPV4, 4, BYTEORDER_BIG),
        Key::Ipv6 => (TYPE_IPV6, 16, BYTEORDER_BIG),
        Key::Interface => (TYPE_INTERFACE, 16, BYTEORDER_HOST),
        Key::Port => (TYPE_PORT, 2, BYTEORDER_BIG),
        Key::InterfaceMac => (pair(TYPE_ETHER), 16 + 8, BYTEORDER_INVALID),
        Key::InterfaceIpv4 => (pair(TYPE_IPV4), 16 + 4, BYTEORDER_INVALID),
        Key::InterfaceIpv6 => (pair(TYPE_IPV6), 16 + 16, BYTEORDER_INVALID),
        Key::Other => return None,
    })
}

/// The type of an interface name and something else together.
fn pair(second: u32) -> u32 {
    TYPE_INTERFACE << TYPE_BITS | second
}

pub(super) fn family(family: Family) -> u8 {
    match family {
        Family::Inet => NFPROTO_INET,
        Family::Ipv4 => NFPROTO_IPV4,
        Family::Bridge => NFPROTO_BRIDGE,
    }
}

/// An interface name as the kernel compares it.
fn interface(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(INTERFACE, 0);
    bytes
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    }
}

/// An element as the kernel compares it; each part of a pair fills whole registers of 4 bytes.
fn bytes(element: &Element) -> Vec<u8> {
    match element {
        Element::Address(address) => octets(*address),
        Element::Port(port) => port.to_be_bytes().to_vec(),
        Element::Interface(name) => interface(name),
        Element::InterfaceMac(name, mac) => [&interface(name)[..], &mac.octets(), &[0; 2]].concat(),
        Element::InterfaceAddress(name, address) => [interface(name), octets(*address)].concat(),
        Element::Other(bytes) => bytes.clone(),
    }
}

/// Opaque data for the `nft` program: a comment.
fn comment(text: &str) -> Vec<u8> {
    note(NFTNL_UDATA_COMMENT, &[text.as_bytes(), &[0]].concat())
}

/// Opaque data for the `nft` program: kind, length, value.
fn note(kind: u8, value: &[u8]) -> Vec<u8> {
    let length = u8::try_from(value.len()).expect("our comments are short");
    [&[kind, length], value].concat()
}

//! Changes to the filter as one nfnetlink transaction.
//!
//! Everything between "begin" and "end" happens, or nothing does. A whole filter is written as
//! add table, delete table, add table and all that is in it: right whether one stands or not, and at no moment is
//! there none. Each message has a label, so that a refusal says what was refused.

use std::net::IpAddr;

use super::number::*;
use super::wire::{Attributes, Head, Writer};
use crate::filter::{Base, Chain, Element, Expression, FilterChange, Header, Key, Meta, Rule, Set, Table};

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
    table: &'a str,
    /// What each message is about.
    labels: Vec<String>,
}

impl<'a> Batch<'a> {
    /// Writes the transaction.
    pub(super) fn new(table: &'a str, changes: &[FilterChange]) -> Self {
        let mut batch = Self { writer: Writer::default(), table, labels: Vec::new() };
        batch.frame(NFNL_MSG_BATCH_BEGIN);
        for change in changes {
            batch.change(change);
        }
        batch.frame(NFNL_MSG_BATCH_END);
        batch
    }

    /// The messages, and what each is about: "begin" first and "end" last; those between are acknowledged.
    pub(super) fn into_parts(self) -> (Writer, Vec<String>) {
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
        self.writer.message(&Head { kind, flags, family: NFPROTO_INET, resource: 0 }, fill);
    }

    fn change(&mut self, change: &FilterChange) {
        match change {
            FilterChange::Create { filter } | FilterChange::Replace { filter, .. } => {
                let table = filter.table();
                self.add_table(&table);
                self.delete_table();
                self.add_table(&table);
                self.contents(&table);
            }
            FilterChange::Add { set, elements } => {
                self.elements(NFT_MSG_NEWSETELEM, CREATE, set, elements.iter());
            }
            FilterChange::Remove { set, elements } => {
                self.elements(NFT_MSG_DELSETELEM, 0, set, elements.iter());
            }
            FilterChange::Delete => self.delete_table(),
        }
    }

    fn add_table(&mut self, table: &Table) {
        let name = self.table;
        self.message("table".to_owned(), NFT_MSG_NEWTABLE, CREATE, |message| {
            message.text(NFTA_TABLE_NAME, name);
            message.number(NFTA_TABLE_FLAGS, table.flags);
            message.put(NFTA_TABLE_USERDATA, &comment("the source filter of weft"));
        });
    }

    fn delete_table(&mut self) {
        let name = self.table;
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
        let table = self.table;
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
        let table = self.table;
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
        let table = self.table;
        self.message(format!("rule of chain {chain}"), NFT_MSG_NEWRULE, CREATE | APPEND, |message| {
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
        let table = self.table;
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
        Expression::Payload { header, offset, length } => named(into, "payload", &|data| {
            data.number(NFTA_PAYLOAD_DREG, NFT_REG_1);
            data.number(NFTA_PAYLOAD_BASE, payload_base(*header));
            data.number(NFTA_PAYLOAD_OFFSET, *offset);
            data.number(NFTA_PAYLOAD_LEN, *length);
        }),
        Expression::Is(value) => named(into, "cmp", &|data| {
            data.number(NFTA_CMP_SREG, NFT_REG_1);
            data.number(NFTA_CMP_OP, NFT_CMP_EQ);
            data.nest(NFTA_CMP_DATA, |inside| inside.put(NFTA_DATA_VALUE, value));
        }),
        Expression::In(set) => named(into, "lookup", &|data| lookup(data, set, 0)),
        Expression::NotIn(set) => named(into, "lookup", &|data| lookup(data, set, NFT_LOOKUP_F_INV)),
        Expression::Counter => named(into, "counter", &|_| {}),
        Expression::Drop => named(into, "immediate", &|data| verdict(data, NF_DROP, None)),
        Expression::Accept => named(into, "immediate", &|data| verdict(data, NF_ACCEPT, None)),
        Expression::Goto(chain) => named(into, "immediate", &|data| verdict(data, NFT_GOTO, Some(chain))),
        // Never wanted; the kernel would refuse the transaction by this name.
        Expression::Other(name) => named(into, name, &|_| {}),
    }
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
        Meta::Family => NFT_META_NFPROTO,
        Meta::Protocol => NFT_META_L4PROTO,
    }
}

pub(super) fn payload_base(header: Header) -> u32 {
    match header {
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
        Key::Other => return None,
    })
}

/// An element as the kernel compares it.
fn bytes(element: &Element) -> Vec<u8> {
    match element {
        Element::Address(IpAddr::V4(four)) => four.octets().to_vec(),
        Element::Address(IpAddr::V6(six)) => six.octets().to_vec(),
        Element::Port(port) => port.to_be_bytes().to_vec(),
        Element::Interface(name) => {
            let mut bytes = name.as_bytes().to_vec();
            bytes.resize(INTERFACE, 0);
            bytes
        }
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

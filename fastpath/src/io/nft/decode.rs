//! What the kernel shows of our table, in our words.
//!
//! The kernel shows a rule as it was written, expression by expression. What we would never write in exactly that
//! way (another register, another operation, another kind) becomes `Other` with its name, and so is a difference.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::encode::{INTERFACE, established_or_related, key, meta_key, payload_base};
use super::number::*;
use super::wire::{attribute, attributes, long, number, text, until_zero};
use crate::mac::MacAddr;
use crate::table::{Base, Chain, Count, Element, Expression, Header, Key, Meta, Rule, Set};

/// The generation of the rule set.
pub(super) fn generation(message: &[u8]) -> Option<u32> {
    number(message, NFTA_GEN_ID)
}

/// The flags of a table.
pub(super) fn table(message: &[u8]) -> u32 {
    number(message, NFTA_TABLE_FLAGS).unwrap_or_default()
}

/// A chain of the table and its name, without rules; None when it is another table's.
pub(super) fn chain(message: &[u8], table: &str) -> Option<(String, Chain)> {
    of(message, NFTA_CHAIN_TABLE, table)?;
    let base = attribute(message, NFTA_CHAIN_HOOK).map(|hook| Base {
        kind: text(message, NFTA_CHAIN_TYPE).unwrap_or_default(),
        hook: number(hook, NFTA_HOOK_HOOKNUM).unwrap_or(u32::MAX),
        priority: number(hook, NFTA_HOOK_PRIORITY).unwrap_or_default().cast_signed(),
        accepts: number(message, NFTA_CHAIN_POLICY) == Some(NF_ACCEPT),
    });
    Some((text(message, NFTA_CHAIN_NAME)?, Chain { base, rules: Vec::new() }))
}

/// A rule of the table, its chain, and what it has counted; None when it is another table's.
pub(super) fn rule(message: &[u8], table: &str) -> Option<(String, Rule, Count)> {
    of(message, NFTA_RULE_TABLE, table)?;
    let list = attribute(message, NFTA_RULE_EXPRESSIONS).unwrap_or_default();
    let parts = || attributes(list).filter(|(kind, _)| *kind == NFTA_LIST_ELEM).map(|(_, part)| part);
    let expressions = parts().filter(|part| remark(part).is_none()).map(expression).collect();
    let comment = comment(message).or_else(|| parts().find_map(remark)).unwrap_or_default();
    let rule = Rule { expressions, comment };
    let count = parts().filter_map(count).fold(Count::default(), Count::plus);
    Some((text(message, NFTA_RULE_CHAIN)?, rule, count))
}

/// The number that the kernel has given a rule.
pub(super) fn handle(message: &[u8]) -> Option<u64> {
    long(message, NFTA_RULE_HANDLE)
}

/// A set of the table and its name, without elements; None when it is another table's.
pub(super) fn set(message: &[u8], table: &str) -> Option<(String, Set)> {
    of(message, NFTA_SET_TABLE, table)?;
    let found = (number(message, NFTA_SET_KEY_TYPE), number(message, NFTA_SET_KEY_LEN));
    let pairs = [Key::InterfaceMac, Key::InterfaceIpv4, Key::InterfaceIpv6];
    let known = [Key::Ipv4, Key::Ipv6, Key::Interface, Key::Port].into_iter().chain(pairs);
    let is = |candidate: &Key| {
        key(*candidate).is_some_and(|(kind, length, _)| found == (Some(kind), Some(length)))
    };
    let key = known.into_iter().find(is).unwrap_or(Key::Other);
    let flags = number(message, NFTA_SET_FLAGS).unwrap_or_default();
    Some((text(message, NFTA_SET_NAME)?, Set { key, flags, elements: Default::default() }))
}

/// The elements in a message about a set.
pub(super) fn elements(message: &[u8], key: Key) -> impl Iterator<Item = Element> {
    let list = attribute(message, NFTA_SET_ELEM_LIST_ELEMENTS).unwrap_or_default();
    attributes(list).filter_map(move |(_, found)| {
        let bytes = attribute(attribute(found, NFTA_SET_ELEM_KEY)?, NFTA_DATA_VALUE)?;
        Some(element(bytes, key))
    })
}

fn element(bytes: &[u8], key: Key) -> Element {
    let pair = || bytes.split_at_checked(INTERFACE).map(|(name, rest)| (until_zero(name), rest));
    let known = match key {
        Key::Ipv4 | Key::Ipv6 => address(bytes).map(Element::Address),
        Key::Port => bytes.try_into().ok().map(|port| Element::Port(u16::from_be_bytes(port))),
        Key::Interface => (bytes.len() == INTERFACE).then(|| Element::Interface(until_zero(bytes))),
        Key::InterfaceMac => pair()
            .and_then(|(name, rest)| Some(Element::InterfaceMac(name, MacAddr::new(*rest.first_chunk()?)))),
        Key::InterfaceIpv4 | Key::InterfaceIpv6 => {
            pair().and_then(|(name, rest)| Some(Element::InterfaceAddress(name, address(rest)?)))
        }
        Key::Other => None,
    };
    known.unwrap_or_else(|| Element::Other(bytes.to_vec()))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.try_into().ok().map(|octets: [u8; 4]| IpAddr::V4(Ipv4Addr::from(octets))),
        16 => bytes.try_into().ok().map(|octets: [u8; 16]| IpAddr::V6(Ipv6Addr::from(octets))),
        _ => None,
    }
}

fn expression(part: &[u8]) -> Expression {
    let name = text(part, NFTA_EXPR_NAME).unwrap_or_default();
    let data = attribute(part, NFTA_EXPR_DATA).unwrap_or_default();
    let known = match name.as_str() {
        "meta" => meta(data),
        "payload" => payload(data),
        "bitwise" => mask(data),
        "cmp" => comparison(data),
        "masq" => masquerade(data),
        "match" => established(data),
        "lookup" => lookup(data),
        "counter" => Some(Expression::Counter),
        "immediate" => verdict(data),
        _ => None,
    };
    known.unwrap_or(Expression::Other(name))
}

fn meta(data: &[u8]) -> Option<Expression> {
    let found = (number(data, NFTA_META_DREG)?, number(data, NFTA_META_KEY)?);
    let known =
        [Meta::InterfaceIn, Meta::InterfaceOut, Meta::GroupIn, Meta::GroupOut, Meta::Family, Meta::Protocol];
    known.into_iter().find(|meta| found == (NFT_REG_1, meta_key(*meta))).map(Expression::Meta)
}

fn payload(data: &[u8]) -> Option<Expression> {
    let found = (number(data, NFTA_PAYLOAD_DREG)?, number(data, NFTA_PAYLOAD_BASE)?);
    let known = [Header::Link, Header::Network, Header::Transport];
    let header = known.into_iter().find(|header| found.1 == payload_base(*header))?;
    let (offset, length) = (number(data, NFTA_PAYLOAD_OFFSET)?, number(data, NFTA_PAYLOAD_LEN)?);
    match found.0 {
        NFT_REG_1 => Some(Expression::Payload { header, offset, length }),
        NFT_REG_2 => Some(Expression::Beside { header, offset, length }),
        _ => None,
    }
}

/// A mask; the exclusive-or that comes with it must be with zeros, and the operation the first of its kind.
fn mask(data: &[u8]) -> Option<Expression> {
    let found = (number(data, NFTA_BITWISE_SREG)?, number(data, NFTA_BITWISE_DREG)?);
    let value = |kind| Some(attribute(attribute(data, kind)?, NFTA_DATA_VALUE)?.to_vec());
    let plain = number(data, NFTA_BITWISE_OP).unwrap_or_default() == 0
        && value(NFTA_BITWISE_XOR)?.iter().all(|byte| *byte == 0);
    let mask = value(NFTA_BITWISE_MASK)?;
    (plain && found == (NFT_REG_1, NFT_REG_1)).then_some(Expression::Masked(mask))
}

fn masquerade(data: &[u8]) -> Option<Expression> {
    let ours = number(data, NFTA_MASQ_FLAGS) == Some(NF_NAT_RANGE_PROTO_RANDOM_FULLY)
        && attributes(data).all(|(kind, _)| kind == NFTA_MASQ_FLAGS);
    ours.then_some(Expression::Masquerade)
}

/// What iptables calls `-m conntrack --ctstate RELATED,ESTABLISHED`. Kernels pad what they show.
fn established(data: &[u8]) -> Option<Expression> {
    let info = attribute(data, NFTA_MATCH_INFO)?;
    let ours = text(data, NFTA_MATCH_NAME)? == CONNTRACK
        && number(data, NFTA_MATCH_REV) == Some(CONNTRACK_REVISION)
        && info.get(..CONNTRACK_USED) == established_or_related().get(..CONNTRACK_USED);
    ours.then_some(Expression::Established)
}

fn comparison(data: &[u8]) -> Option<Expression> {
    let found = (number(data, NFTA_CMP_SREG)?, number(data, NFTA_CMP_OP)?);
    let value = attribute(attribute(data, NFTA_CMP_DATA)?, NFTA_DATA_VALUE)?;
    match found {
        (NFT_REG_1, NFT_CMP_EQ) => Some(Expression::Is(value.to_vec())),
        (NFT_REG_1, NFT_CMP_NEQ) => Some(Expression::IsNot(value.to_vec())),
        _ => None,
    }
}

fn lookup(data: &[u8]) -> Option<Expression> {
    let set = text(data, NFTA_LOOKUP_SET)?;
    let ours =
        number(data, NFTA_LOOKUP_SREG) == Some(NFT_REG_1) && attribute(data, NFTA_LOOKUP_DREG).is_none();
    match (ours, number(data, NFTA_LOOKUP_FLAGS).unwrap_or_default()) {
        (true, 0) => Some(Expression::In(set)),
        (true, NFT_LOOKUP_F_INV) => Some(Expression::NotIn(set)),
        _ => None,
    }
}

fn verdict(data: &[u8]) -> Option<Expression> {
    let verdict = attribute(attribute(data, NFTA_IMMEDIATE_DATA)?, NFTA_DATA_VERDICT)?;
    match (number(data, NFTA_IMMEDIATE_DREG)?, number(verdict, NFTA_VERDICT_CODE)?) {
        (NFT_REG_VERDICT, NF_DROP) => Some(Expression::Drop),
        (NFT_REG_VERDICT, NF_ACCEPT) => Some(Expression::Accept),
        (NFT_REG_VERDICT, NFT_GOTO) => Some(Expression::Goto(text(verdict, NFTA_VERDICT_CHAIN)?)),
        _ => None,
    }
}

fn count(part: &[u8]) -> Option<Count> {
    (text(part, NFTA_EXPR_NAME)? == "counter").then_some(())?;
    let data = attribute(part, NFTA_EXPR_DATA)?;
    Some(Count { packets: long(data, NFTA_COUNTER_PACKETS)?, bytes: long(data, NFTA_COUNTER_BYTES)? })
}

fn comment(message: &[u8]) -> Option<String> {
    let mut notes = attribute(message, NFTA_RULE_USERDATA).unwrap_or_default();
    while let [kind, length, rest @ ..] = notes {
        let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else { break };
        if *kind == NFTNL_UDATA_COMMENT {
            return Some(until_zero(value));
        }
        notes = rest;
    }
    None
}

/// A comment as `iptables` writes it: an expression that always holds. Ours comes back like that when somebody saves
/// and restores the rules.
fn remark(part: &[u8]) -> Option<String> {
    let data = (text(part, NFTA_EXPR_NAME)? == "match").then(|| attribute(part, NFTA_EXPR_DATA))??;
    (text(data, NFTA_MATCH_NAME)? == "comment").then(|| attribute(data, NFTA_MATCH_INFO).map(until_zero))?
}

fn of(message: &[u8], kind: u16, table: &str) -> Option<()> {
    (text(message, kind)? == table).then_some(())
}

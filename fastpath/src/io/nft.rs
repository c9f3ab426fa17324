//! Our nftables tables in the kernel: look, change in one transaction, look again.
//!
//! The kernel numbers the generations of its rule set, one per transaction of anybody. As long as the number stands,
//! nothing has changed, and after a change of ours it is one higher, or somebody else was there too. So a look
//! that finds nothing new is one small question, and only a foreign change makes us read the table again.

mod decode;
mod encode;
mod foreign;
mod number;
mod socket;
mod wire;

use std::collections::BTreeMap;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use nix::errno::Errno;

use self::encode::Batch;
pub(super) use self::foreign::Foreign;
use self::number::{
    NFT_MSG_GETCHAIN, NFT_MSG_GETGEN, NFT_MSG_GETRULE, NFT_MSG_GETSET, NFT_MSG_GETSETELEM, NFT_MSG_GETTABLE,
    NFTA_RULE_TABLE, NFTA_SET_ELEM_LIST_SET, NFTA_SET_ELEM_LIST_TABLE, NFTA_SET_TABLE, NFTA_TABLE_NAME,
};
use self::socket::{Refusal, Socket};
use super::{Fastpath, Monitor, ROUNDS};
use crate::error::Error;
use crate::filter::{self, Filter, FilterChange, FilterState, plan_filter};
use crate::table::{Count, Expression, Family, Place, Table, TableChange, TableState};

/// How often a table that changes while it is read is read again.
const PATIENCE: usize = 16;
/// `NFNLGRP_NFTABLES` as a mask: news of every change to any table.
const NEWS: u32 = 1 << 6;

/// The hand on one nftables table of ours.
pub(super) struct Nft {
    place: Place,
    /// Opening it fails where the kernel has no netfilter netlink; that is said when it is needed.
    socket: Result<Socket, Error>,
    /// The generation that was read last, and the table in it.
    seen: Option<(u32, TableState)>,
}

impl Fastpath {
    /// Reads the filter that stands, and what it has dropped.
    ///
    /// # Errors
    /// When this kernel has no nf_tables, or refuses, or others change the table faster than it can be read.
    pub fn observe_filter(&self) -> Result<FilterState, Error> {
        Ok(self.filter.observe()?.1.into())
    }

    /// Says what converging would change, and changes nothing.
    ///
    /// # Errors
    /// As [`Self::observe_filter`]; without nf_tables there is nothing to change when no filter is wanted.
    pub fn plan_filter(&self, desired: Option<&Filter>) -> Result<Vec<FilterChange>, Error> {
        match self.observe_filter() {
            Ok(state) => Ok(plan_filter(desired, &state)),
            Err(error) if desired.is_none() && error.is(&[libc::EOPNOTSUPP]) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Makes these changes, all or none.
    ///
    /// # Errors
    /// What the kernel refused, and why; nothing was changed then.
    pub fn apply_filter(&mut self, changes: &[FilterChange]) -> Result<(), Error> {
        self.filter.apply(changes)
    }

    /// Makes the filter what is wanted (None: that there is none), and says what was changed. The kernel answers
    /// within the call, so there is nothing to wait for: with a thousand sources a look that finds all right takes
    /// 0.2 ms, one element 0.4 ms, the whole filter 2 ms.
    ///
    /// # Errors
    /// When this kernel has no nf_tables (unless no filter is wanted, which is then already so), or refuses (then
    /// nothing was changed); or Restless when somebody undoes our changes.
    pub fn converge_filter(&mut self, desired: Option<&Filter>) -> Result<Vec<FilterChange>, Error> {
        self.filter.converge(desired.is_some(), |found| filter::plan_table(desired, found))
    }

    /// Removes the filter; whether there was one.
    ///
    /// # Errors
    /// As [`Self::converge_filter`].
    pub fn teardown_filter(&mut self) -> Result<bool, Error> {
        Ok(!self.converge_filter(None)?.is_empty())
    }

    /// Starts listening for changes to any nftables table, in the namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel gives no netfilter netlink socket.
    pub fn filter_monitor() -> Result<Monitor, Error> {
        Monitor::listen(NETLINK_NETFILTER, NEWS)
    }
}

impl Nft {
    /// Connects to the namespace of the calling thread.
    pub(super) fn open(place: Place) -> Self {
        let opened = Socket::open(encode::family(place.family));
        let socket = opened.map_err(|error| failed(&place, "", "open netlink for", error));
        Self { place, socket, seen: None }
    }

    /// Whose table it is.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    fn socket(&self) -> Result<&Socket, Error> {
        self.socket.as_ref().map_err(Clone::clone)
    }

    /// Carries out what `plan` says of the table that stands, until it says nothing. A kernel without nf_tables has
    /// no table, which is right when none is `wanted`.
    pub(super) fn converge(
        &mut self,
        wanted: bool,
        plan: impl Fn(Option<&Table>) -> Vec<TableChange>,
    ) -> Result<Vec<TableChange>, Error> {
        let mut done = Vec::new();
        let mut open = Error::Restless { rounds: ROUNDS, first: String::new() };
        for _ in 0..ROUNDS {
            let changes = match self.look() {
                Ok(()) => self.seen.as_ref().map(|(_, state)| plan(state.table.as_ref())).unwrap_or_default(),
                Err(error) if !wanted && error.is(&[libc::EOPNOTSUPP]) => return Ok(done),
                Err(error) => return Err(error),
            };
            let Some(change) = changes.first() else { return Ok(done) };
            open = Error::Restless { rounds: ROUNDS, first: change.to_string() };
            match self.apply(&changes) {
                Ok(()) => {
                    for change in &changes {
                        tracing::info!(%change, "changed the kernel");
                    }
                    done.extend(changes);
                }
                // Somebody may have been there between our look and our change; or it is not known whether it was made.
                Err(error) if error.passes() || error.is(&[libc::ENOENT, libc::EEXIST]) => {
                    tracing::debug!(%error, "looking at the table again");
                    open = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(open)
    }

    /// Brings what we have seen up to date. Without the filter nothing is let in, so one answer that was lost must not
    /// look like a kernel that has none.
    fn look(&mut self) -> Result<(), Error> {
        for _ in 0..PATIENCE {
            match self.look_once() {
                Err(error) if error.passes() => tracing::debug!(%error, "looking at the table again"),
                looked => return looked,
            }
        }
        self.look_once()
    }

    fn look_once(&mut self) -> Result<(), Error> {
        let now = self.generation()?;
        if !matches!(&self.seen, Some((then, _)) if *then == now) {
            self.seen = None;
            self.seen = Some(self.observe()?);
        }
        Ok(())
    }

    fn apply(&mut self, changes: &[TableChange]) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let seen = self.seen.take();
        let socket = self.socket()?;
        let mut batch = Batch::new(&self.place);
        changes.iter().for_each(|change| batch.change(change));
        let refused = |refusal: Refusal| failed(&self.place, &refusal.label, "write", refusal.error);
        socket.transact(batch).map_err(refused)?;
        // One generation on, and nobody but us was there: no need to read what we have just written.
        if let Some((then, mut state)) = seen
            && self.generation()? == then.wrapping_add(1)
        {
            changes.iter().for_each(|change| state.after(change));
            self.seen = Some((then.wrapping_add(1), state));
        }
        Ok(())
    }

    fn generation(&self) -> Result<u32, Error> {
        let answer =
            self.socket()?.get(NFT_MSG_GETGEN, |_| {}).map_err(|error| match error.raw_os_error() {
                // The question has no content that could be invalid: nobody is there who understands it.
                Some(libc::EINVAL) => failed(&self.place, "", "read", Errno::EOPNOTSUPP.into()),
                _ => failed(&self.place, "", "read", error),
            })?;
        decode::generation(&answer)
            .ok_or_else(|| failed(&self.place, "", "read", io::Error::other("no generation in the answer")))
    }

    /// The table as it stands, and a generation since which it may have changed but before which it has not. (So
    /// what was changed while we read is read again at the next look.)
    pub(super) fn observe(&self) -> Result<(u32, TableState), Error> {
        for _ in 0..PATIENCE {
            let before = self.generation()?;
            match self.read() {
                Ok(state) => return Ok((before, state)),
                // Gone or changed between two parts of a list.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOENT)) => {}
                Err(error) => return Err(failed(&self.place, "", "read", error)),
            }
        }
        let cause = io::Error::other("others change the rule set faster than it can be read");
        Err(failed(&self.place, "", "read", cause))
    }

    fn read(&self) -> io::Result<TableState> {
        let socket = self.socket().map_err(io::Error::other)?;
        let name = self.place.name.as_str();
        let flags = match socket.get(NFT_MSG_GETTABLE, |ask| ask.text(NFTA_TABLE_NAME, name)) {
            Ok(found) => decode::table(&found),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(TableState::default()),
            Err(error) => return Err(error),
        };
        let mut table = Table { flags, ..Table::default() };
        let mut counts = BTreeMap::new();
        // The kernel sorts chains by family only.
        socket.list(NFT_MSG_GETCHAIN, |_| {}, |found| table.chains.extend(decode::chain(found, name)))?;
        socket.list(
            NFT_MSG_GETRULE,
            |ask| ask.text(NFTA_RULE_TABLE, name),
            |found| {
                let Some((chain, rule, count)) = decode::rule(found, name) else { return };
                if rule.expressions.contains(&Expression::Counter) {
                    let sum: &mut Count = counts.entry((chain.clone(), rule.comment.clone())).or_default();
                    *sum = sum.plus(count);
                }
                table.chains.entry(chain).or_default().rules.push(rule);
            },
        )?;
        socket.list(
            NFT_MSG_GETSET,
            |ask| ask.text(NFTA_SET_TABLE, name),
            |found| table.sets.extend(decode::set(found, name)),
        )?;
        for (set, found) in &mut table.sets {
            let ask = |ask: &mut wire::Attributes<'_>| {
                ask.text(NFTA_SET_ELEM_LIST_TABLE, name);
                ask.text(NFTA_SET_ELEM_LIST_SET, set);
            };
            let (key, elements) = (found.key, &mut found.elements);
            socket
                .list(NFT_MSG_GETSETELEM, ask, |message| elements.extend(decode::elements(message, key)))?;
        }
        Ok(TableState { table: Some(table), counts })
    }
}

/// What the kernel said no to, in words; `part` is what of the table it was about.
fn failed(place: &Place, part: &str, operation: &'static str, error: io::Error) -> Error {
    let Place { family, name, what } = place;
    let object = match part {
        "" => format!("{what} {name}"),
        part => format!("{what} {name} ({part})"),
    };
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => Error::Kernel {
            object,
            operation,
            errno: Some(libc::EOPNOTSUPP),
            cause: format!("this kernel has no nf_tables for {family} ({})", option(*family)),
        },
        _ => Error::kernel(object, operation, &error),
    }
}

/// What the kernel must have been built with for a family.
fn option(family: Family) -> &'static str {
    match family {
        Family::Inet => "CONFIG_NF_TABLES_INET, module nf_tables",
        Family::Ipv4 => "CONFIG_NF_TABLES_IPV4, module nf_tables",
        Family::Bridge => "CONFIG_NF_TABLES_BRIDGE, module nf_tables",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::BridgeName;

    fn place() -> Place {
        filter::place(&BridgeName::default())
    }

    #[test]
    fn a_kernel_without_nf_tables_is_told_in_words_whichever_way_it_says_so() {
        for errno in [libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT] {
            let error = failed(&place(), "set ours", "write", io::Error::from_raw_os_error(errno));
            assert!(error.is(&[libc::EOPNOTSUPP]));
            assert_eq!(
                error.to_string(),
                "cannot write source filter weft-weft (set ours): this kernel has no nf_tables for inet \
                 (CONFIG_NF_TABLES_INET, module nf_tables)"
            );
        }
    }

    #[test]
    fn without_a_socket_no_filter_is_already_so_and_a_filter_is_an_error() {
        let missing = || failed(&place(), "", "open netlink for", Errno::EPROTONOSUPPORT.into());
        let mut nft = Nft { place: place(), socket: Err(missing()), seen: None };
        let filter = Filter::new(6784);
        assert_eq!(nft.converge(false, |found| filter::plan_table(None, found)), Ok(vec![]));
        assert_eq!(nft.converge(true, |found| filter::plan_table(Some(&filter), found)), Err(missing()));
    }
}

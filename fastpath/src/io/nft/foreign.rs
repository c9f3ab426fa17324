//! The FORWARD chain that others keep in nftables: read, and changed by our marked rules only.

use libc::ENOENT;

use super::encode::{self, Batch};
use super::failed;
use super::number::{NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFTA_CHAIN_NAME, NFTA_CHAIN_TABLE};
use super::number::{NFTA_RULE_CHAIN, NFTA_RULE_TABLE};
use super::socket::Socket;
use super::{PATIENCE, decode};
use crate::error::Error;
use crate::policy::{Accept, ForwardChain, ForwardChange, Locator, Marked};
use crate::table::{Family, Place, Rule};

/// Where `iptables-nft` keeps it.
const TABLE: &str = "filter";
const CHAIN: &str = "FORWARD";
/// `NF_INET_FORWARD`.
const HOOK: u32 = 2;

/// What a kernel without nf_tables, or without netfilter netlink, answers.
const ABSENT: [i32; 4] = [libc::EINVAL, libc::EOPNOTSUPP, libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT];

/// The hand on it.
pub(in crate::io) struct Foreign {
    place: Place,
    /// What our rules carry as a comment.
    mark: String,
    socket: Result<Socket, Error>,
}

impl Foreign {
    /// Connects to the namespace of the calling thread.
    pub(in crate::io) fn open(mark: String) -> Self {
        let place = Place { family: Family::Ipv4, name: TABLE.to_owned(), what: "FORWARD chain in table" };
        let opened = Socket::open(encode::family(place.family));
        let socket = opened.map_err(|error| failed(&place, "", "open netlink for", error));
        Self { place, mark, socket }
    }

    /// The chain that stands, `judge` saying which of ours a rule with our mark is; None: there is none.
    pub(in crate::io) fn chain(
        &self,
        judge: impl Fn(&Rule) -> Option<Accept>,
    ) -> Result<Option<ForwardChain>, Error> {
        for _ in 0..PATIENCE {
            match self.read(&judge) {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                // A kernel without nf_tables (or nobody who understands the question) has no such chain.
                Err(error) if error.raw_os_error().is_some_and(|errno| ABSENT.contains(&errno)) => {
                    return Ok(None);
                }
                read => return read.map_err(|error| failed(&self.place, "", "read", error)),
            }
        }
        let cause = std::io::Error::other("others change the rule set faster than it can be read");
        Err(failed(&self.place, "", "read", cause))
    }

    fn read(&self, judge: impl Fn(&Rule) -> Option<Accept>) -> std::io::Result<Option<ForwardChain>> {
        let socket = self.socket.as_ref().map_err(|error| match error.errno() {
            Some(errno) => std::io::Error::from_raw_os_error(errno),
            None => std::io::Error::other(error.clone()),
        })?;
        let answer = socket.get(NFT_MSG_GETCHAIN, |ask| {
            ask.text(NFTA_CHAIN_TABLE, TABLE);
            ask.text(NFTA_CHAIN_NAME, CHAIN);
        });
        let base = match answer {
            Ok(found) => decode::chain(&found, TABLE).and_then(|(_, chain)| chain.base),
            Err(error) if error.raw_os_error() == Some(ENOENT) => None,
            Err(error) => return Err(error),
        };
        let Some(base) = base.filter(|base| base.hook == HOOK && base.kind == "filter") else {
            return Ok(None);
        };
        let mut chain = ForwardChain { drops: !base.accepts, ..ForwardChain::default() };
        let ask = |ask: &mut super::wire::Attributes<'_>| {
            ask.text(NFTA_RULE_TABLE, TABLE);
            ask.text(NFTA_RULE_CHAIN, CHAIN);
        };
        socket.list(NFT_MSG_GETRULE, ask, |found| {
            let Some((name, rule, _)) = decode::rule(found, TABLE) else { return };
            match decode::handle(found) {
                _ if name != CHAIN => {}
                Some(handle) if rule.comment == self.mark => {
                    chain.ours.push(Marked { accept: judge(&rule), at: Locator::Handle(handle) });
                }
                _ => chain.foreign += 1,
            }
        })?;
        Ok(Some(chain))
    }

    /// Makes these changes, all or none.
    pub(in crate::io) fn write(
        &self,
        changes: &[ForwardChange],
        rule: impl Fn(Accept) -> Rule,
    ) -> Result<(), Error> {
        let socket = self.socket.as_ref().map_err(Clone::clone)?;
        let mut batch = Batch::new(&self.place);
        for change in changes {
            match change {
                ForwardChange::Insert { accept, .. } => batch.insert_rule(CHAIN, &rule(*accept)),
                ForwardChange::Remove { at: Locator::Handle(handle), .. } => {
                    batch.delete_rule(CHAIN, *handle)
                }
                // Rules of nftables are found by number only.
                ForwardChange::Remove { at: Locator::Words(_), .. } => {}
            }
        }
        socket.transact(batch).map_err(|refusal| failed(&self.place, &refusal.label, "write", refusal.error))
    }
}

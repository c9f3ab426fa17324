//! Moves of addresses that are carried out together, and the wishes that were made between them.
//!
//! When many peers change their carrier at once, wishes and moves take turns in the queue, and each wish by itself is a
//! transaction of the kernel. Of a peer all must stay in order, filter and tables; but what is wished of one has nothing
//! to do with the addresses behind another. So all that was wished of a peer before its own move is carried out before
//! the moves, in one, and what was wished after it is carried out after them:
//!
//! ```text
//!  queue      wish 1 (A)   move A   wish 2 (A, B)   move B   wish 3 (B)
//!  carried    wish 1 (A), wish 2 (B)   move A   move B   wish 3 (A as in wish 2)
//! ```

use weft_gossip::PeerName;

use super::Move;
use crate::overlay::KernelWish;

/// Moves of different peers, and the last wish that was made since the first of them.
pub(super) struct Moves {
    moves: Vec<Move>,
    after: Option<KernelWish>,
}

impl Moves {
    pub(super) fn new(first: Move) -> Self {
        Self { moves: vec![first], after: None }
    }

    /// Adds a move; gives it back if the addresses behind its peer are moved already.
    pub(super) fn add(&mut self, next: Move) -> Option<Move> {
        if self.moves(next.peer) {
            return Some(next);
        }
        self.moves.push(next);
        None
    }

    /// Adds a wish: of peers whose addresses are not moved it is taken over into what is carried out `before` the moves.
    pub(super) fn wish(&mut self, before: &mut KernelWish, wish: KernelWish) {
        before.remotes.retain(|peer, _| self.moves(*peer) || wish.remotes.contains_key(peer));
        let others = wish.remotes.iter().filter(|(peer, _)| !self.moves(**peer));
        before.remotes.extend(others.map(|(peer, remote)| (*peer, *remote)));
        self.after = Some(wish);
    }

    /// The moves in their order, and what is wished after them.
    pub(super) fn end(self) -> (Vec<Move>, Option<KernelWish>) {
        (self.moves, self.after)
    }

    fn moves(&self, peer: PeerName) -> bool {
        self.moves.iter().any(|known| known.peer == peer)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::sync::oneshot;
    use weft_fastpath::MacAddr;

    use super::*;
    use crate::io::kernel::Way;
    use crate::overlay::{Accept, RemoteWish};

    fn peer(number: u64) -> PeerName {
        PeerName::from_u64(number)
    }

    fn moved(number: u64, job: u64) -> Move {
        let (_, learned) = oneshot::channel();
        Move { peer: peer(number), address: Ipv4Addr::LOCALHOST.into(), job, to: Way::Vxlan(learned) }
    }

    /// A wish with these peers, each let in with its frames or with its probes.
    fn wish(serial: u64, remotes: &[(u64, Accept)]) -> KernelWish {
        let remote = |accept| RemoteWish {
            address: Ipv4Addr::LOCALHOST.into(),
            port: 1,
            mac: MacAddr::vxlan_of(1),
            accept,
            default: false,
        };
        let remotes = remotes.iter().map(|(number, accept)| (peer(*number), remote(*accept))).collect();
        KernelWish { serial, remotes }
    }

    #[test]
    fn of_no_peer_a_wish_is_carried_past_its_move_and_of_others_all_are_one() {
        let (frames, probes) = (Accept::Frames, Accept::Probes);
        let mut before = wish(1, &[(1, probes), (2, frames), (4, frames)]);
        let mut moves = Moves::new(moved(1, 7));
        moves.wish(&mut before, wish(2, &[(1, frames), (2, probes), (3, probes), (4, frames)]));
        assert!(moves.add(moved(2, 8)).is_none());
        let last = wish(3, &[(1, frames), (2, frames), (3, frames)]);
        moves.wish(&mut before, last.clone());
        assert_eq!(
            before,
            wish(1, &[(1, probes), (2, probes), (3, frames)]),
            "the fourth is gone, and nobody moves it"
        );
        assert_eq!(
            moves.add(moved(1, 9)).map(|again| again.job),
            Some(9),
            "its second move waits for its wish"
        );
        let (moves, after) = moves.end();
        assert_eq!(moves.iter().map(|known| known.job).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(after, Some(last));
    }

    #[test]
    fn without_a_wish_between_nothing_is_left_to_do() {
        let mut moves = Moves::new(moved(1, 1));
        assert!(moves.add(moved(2, 2)).is_none());
        assert_eq!(moves.end().1, None);
    }
}

//! The change of carrier that both ends make together, in the order that loses nothing.
//!
//! The end with the lower name leads, so two proposals never cross; the other end's wish shows in its view.
//! A step is said over the session, done in the kernel, and only then answered:
//!
//! ```text
//!           leaving fastpath                     returning to it
//!  leader   Propose                              Propose
//!  follower Agree                                Agree
//!  leader   Begin                                Begin
//!  follower   close the filter                     open the filter, set the default entry
//!             MACs to sleeve                       (the kernel has it)
//!             default entry away                 Ack
//!           Ack                                  leader: the same, then its MACs to VXLAN
//!  leader     the same                           Commit
//!           Commit                               follower: its MACs to VXLAN
//!  follower   sweep: MACs to sleeve again        Done
//!           Done                                 both: sweep: MACs to VXLAN again
//!  leader     sweep
//! ```
//!
//! Nothing is touched before each end has heard the other answer: a router that hangs while its kernel goes on
//! forwarding loses nothing, and one that wakes up does nothing on what it was told before. Leaving
//! never waits for a kernel that does not answer; returning is undone then. Every wait ends: a step is said
//! again, then given up, and what the two ends stand on is compared anew.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use weft_fastpath::MacAddr;
use weft_gossip::PeerName;

use super::orders::{Accept, Orders, Output, RemoteWish};
use super::wire::{Say, Stand, Told};

/// After how long without an answer a step is said again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often a step is said.
const TRIES: u8 = 6;
/// How long the kernel may take to leave fastpath: what is left may carry nothing any more.
const LEAVE: Duration = Duration::from_secs(2);
/// How long it may take to return: sleeve carries meanwhile, and in a mesh that comes up all peers are waiting. To give up
/// would be to begin again.
const RETURN: Duration = Duration::from_secs(8);
/// How long the follower waits for the leader's part: what the leader's kernel and all its tries may take.
const PATIENCE: Duration = Duration::from_secs(12);
/// After a change that failed, how long until the next is proposed.
const REST: Duration = Duration::from_secs(2);
/// How long frames may still arrive by the carrier that was left. So long nothing is let in from a peer that
/// left fastpath; after a return, what they turned back is swept then.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// How long the kernel may take for a step.
fn kernel(to: Stand) -> Duration {
    match to {
        Stand::Sleeve => LEAVE,
        Stand::Fastpath => RETURN,
    }
}

/// Where a change stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Settled,
    /// Leader: waits for the follower to agree.
    Asked(Stand),
    /// Leader: waits for the follower's part.
    Begun(Stand),
    /// Leader: waits for the kernel.
    Working(Stand, Wait),
    /// Leader: waits for the follower to finish.
    Committed(Stand),
    /// Follower: waits for the leader to begin.
    Agreed(Stand),
    /// Follower: waits for the kernel.
    Preparing(Stand, Wait),
    /// Follower: waits for the leader's part.
    Prepared(Stand),
    /// Follower, returning: waits for its MAC addresses to be moved.
    Finishing(Wait),
}

/// What the kernel has to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Applied(u64),
    Moved(u64),
}

/// One end of the agreement with one peer, in one session.
#[derive(Debug, Default)]
pub(super) struct Switchover {
    epoch: u64,
    /// What the follower last agreed to.
    agreed: Option<Stand>,
    phase: Phase,
    deadline: Option<Instant>,
    tries: u8,
    rest: Option<Instant>,
    linger: Option<Instant>,
}

/// What a step may touch: the kernel's wish for the peer, the queue, and what the peer stands on.
pub(super) struct Hands<'a> {
    pub(super) orders: &'a mut Orders,
    pub(super) peer: PeerName,
    pub(super) session: u64,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) stand: &'a mut Stand,
}

impl Hands<'_> {
    fn say(&mut self, epoch: u64, say: Say) {
        let told = Told::Change { session: self.session, epoch, say };
        self.orders.push(Output::Tell(self.peer, told));
    }

    /// From now on the data half is told that this carries.
    fn stand(&mut self, stand: Stand) {
        if *self.stand != stand {
            *self.stand = stand;
            self.orders.push(Output::Remember);
            self.orders.push(Output::Changed);
        }
    }

    /// Sets what is let in and whether flooded frames go there; `None` keeps what is.
    fn gate(&mut self, accept: Accept, default: Option<bool>) -> u64 {
        let known = self.orders.remote(self.peer).copied();
        if accept == Accept::Probes && known.is_none() {
            return self.orders.want(self.peer, None);
        }
        let default = default.unwrap_or_else(|| known.is_some_and(|remote| remote.default));
        let remote = RemoteWish {
            address: self.address,
            port: self.port,
            mac: MacAddr::vxlan_of(self.peer.as_u64()),
            accept,
            default,
        };
        self.orders.want(self.peer, Some(remote))
    }

    fn sweep(&mut self, to: Stand) -> u64 {
        self.orders.move_macs(self.peer, self.address, to)
    }

    /// Leaves fastpath at this end: first the filter, then the tables, then the default entry.
    fn leave(&mut self) -> u64 {
        // The data half first: it must be ready to carry what the kernel hands it from now on.
        self.stand(Stand::Sleeve);
        self.gate(Accept::Probes, None);
        let job = self.sweep(Stand::Sleeve);
        self.gate(Accept::Probes, Some(false));
        job
    }

    /// Stops sending by fastpath, and lets in what the other end sends before it stops too.
    pub(super) fn part(&mut self) {
        self.stand(Stand::Sleeve);
        self.gate(Accept::Frames, Some(false));
        self.sweep(Stand::Sleeve);
    }

    fn ready_for_frames(&mut self) -> u64 {
        self.gate(Accept::Frames, Some(true))
    }

    /// Takes back what was prepared for a return that does not happen.
    fn undo_return(&mut self) {
        if *self.stand == Stand::Sleeve {
            self.sweep(Stand::Sleeve);
            self.gate(Accept::Probes, Some(false));
        }
    }
}

impl Switchover {
    /// Another session: its changes are counted from the start.
    pub(super) fn renew(&mut self) {
        *self = Self { linger: self.linger, ..Self::default() };
    }

    /// A session after a time without: frames that were relayed meanwhile came by sleeve, so both bridges believe
    /// that this is the way, and on fastpath the router would take what they hand it for copies.
    pub(super) fn resume(&mut self, hands: &mut Hands<'_>, now: Instant) {
        if *hands.stand == Stand::Fastpath {
            hands.sweep(Stand::Fastpath);
            self.linger = Some(now + LINGER);
        }
    }

    /// Whether no change is under way.
    pub(super) fn is_settled(&self) -> bool {
        self.phase == Phase::Settled
    }

    /// When the next change may be proposed; `None` when at once.
    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.rest
    }

    /// Whether late frames may still arrive, so that nothing may be let in.
    pub(super) fn lingers(&self) -> bool {
        self.linger.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.deadline, self.linger, self.rest].into_iter().flatten().min()
    }

    /// The leader starts a change.
    pub(super) fn propose(&mut self, to: Stand, hands: &mut Hands<'_>, now: Instant) {
        self.epoch += 1;
        self.enter(Phase::Asked(to), AGAIN, now);
        hands.say(self.epoch, Say::Propose(to));
    }

    /// The leader said something; `willing` is whether this end can return to fastpath now.
    pub(super) fn follow(
        &mut self,
        epoch: u64,
        say: Say,
        willing: bool,
        hands: &mut Hands<'_>,
        now: Instant,
    ) {
        if let Say::Propose(to) = say {
            return self.proposed(epoch, to, willing, hands, now);
        }
        if epoch != self.epoch {
            return;
        }
        match (say, self.phase) {
            (Say::Begin, Phase::Agreed(to)) => self.prepare(to, hands, now),
            (Say::Begin, Phase::Prepared(_)) => hands.say(epoch, Say::Ack),
            (Say::Begin, Phase::Preparing(..)) => {}
            (Say::Commit, Phase::Prepared(to)) => self.finish(to, hands, now),
            (Say::Commit, Phase::Finishing(_)) => {}
            // The answer to the first was lost.
            (Say::Commit, _) if self.agreed == Some(*hands.stand) => hands.say(epoch, Say::Done),
            (Say::Begin | Say::Commit, _) => hands.say(epoch, Say::Refuse),
            (Say::Refuse, _) if !self.is_settled() => self.fail(hands),
            (Say::Propose(_) | Say::Refuse | Say::Agree | Say::Ack | Say::Done, _) => {}
        }
    }

    fn proposed(&mut self, epoch: u64, to: Stand, willing: bool, hands: &mut Hands<'_>, now: Instant) {
        if epoch < self.epoch {
            return;
        }
        if epoch > self.epoch {
            if !self.is_settled() {
                self.fail(hands);
            }
            self.epoch = epoch;
            if willing || to == Stand::Sleeve {
                self.agreed = Some(to);
                self.enter(Phase::Agreed(to), PATIENCE, now);
            }
        }
        let agrees = self.phase == Phase::Agreed(to);
        hands.say(epoch, if agrees { Say::Agree } else { Say::Refuse });
    }

    /// The follower said something.
    pub(super) fn lead(&mut self, epoch: u64, say: Say, hands: &mut Hands<'_>, now: Instant) {
        if epoch != self.epoch {
            return;
        }
        match (say, self.phase) {
            (Say::Agree, Phase::Asked(to)) => {
                self.enter(Phase::Begun(to), AGAIN, now);
                hands.say(epoch, Say::Begin);
            }
            (Say::Ack, Phase::Begun(to)) => self.work(to, hands, now),
            (Say::Done, Phase::Committed(to)) => self.close(to, hands, now),
            (Say::Refuse, Phase::Asked(_) | Phase::Begun(_) | Phase::Working(Stand::Fastpath, _)) => {
                self.give_up(hands, now);
            }
            (Say::Refuse, Phase::Committed(to)) => {
                self.close(to, hands, now);
                self.give_up(hands, now);
            }
            _ => {}
        }
    }

    /// The kernel holds another wish.
    pub(super) fn applied(&mut self, hands: &mut Hands<'_>, now: Instant) {
        if let Phase::Working(_, Wait::Applied(serial)) | Phase::Preparing(_, Wait::Applied(serial)) =
            self.phase
            && hands.orders.is_applied(serial)
        {
            self.kernel_did(hands, now);
        }
    }

    /// The kernel has moved MAC addresses.
    pub(super) fn moved(&mut self, job: u64, hands: &mut Hands<'_>, now: Instant) {
        if let Phase::Working(_, wait) | Phase::Preparing(_, wait) | Phase::Finishing(wait) = self.phase
            && wait == Wait::Moved(job)
        {
            self.kernel_did(hands, now);
        }
    }

    pub(super) fn timeout(&mut self, hands: &mut Hands<'_>, now: Instant) {
        self.rest = self.rest.filter(|rest| now < *rest);
        if self.linger.is_some_and(|linger| now >= linger) {
            self.linger = None;
            // A late sleeve frame may have turned an address back, whose owner is silent since.
            if self.is_settled() && *hands.stand == Stand::Fastpath {
                hands.sweep(Stand::Fastpath);
            }
        }
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.phase {
            Phase::Settled => self.deadline = None,
            Phase::Asked(to) if self.tries < TRIES => self.again(Say::Propose(to), hands, now),
            Phase::Begun(_) if self.tries < TRIES => self.again(Say::Begin, hands, now),
            Phase::Committed(_) if self.tries < TRIES => self.again(Say::Commit, hands, now),
            Phase::Asked(_) | Phase::Begun(_) => {
                hands.say(self.epoch, Say::Refuse);
                self.give_up(hands, now);
            }
            Phase::Committed(to) => {
                self.close(to, hands, now);
                self.give_up(hands, now);
            }
            Phase::Working(Stand::Sleeve, _)
            | Phase::Working(Stand::Fastpath, Wait::Moved(_))
            | Phase::Preparing(Stand::Sleeve, _)
            | Phase::Finishing(_) => {
                hands.orders.counters.kernel_late += 1;
                self.kernel_did(hands, now);
            }
            Phase::Working(Stand::Fastpath, _) | Phase::Preparing(Stand::Fastpath, _) => {
                hands.orders.counters.kernel_late += 1;
                hands.say(self.epoch, Say::Refuse);
                self.give_up(hands, now);
            }
            Phase::Prepared(Stand::Sleeve) => self.finish(Stand::Sleeve, hands, now),
            Phase::Prepared(Stand::Fastpath) | Phase::Agreed(_) => self.fail(hands),
        }
    }

    /// The session is gone: what was begun is ended here alone.
    pub(super) fn abort(&mut self, hands: &mut Hands<'_>) {
        if !self.is_settled() {
            self.fail(hands);
        }
    }

    /// Leaves fastpath without asking the other end: it must not be used, or nobody is there.
    pub(super) fn leave_alone(&mut self, hands: &mut Hands<'_>, now: Instant) {
        hands.leave();
        self.settle();
        self.linger = Some(now + LINGER);
    }

    fn prepare(&mut self, to: Stand, hands: &mut Hands<'_>, now: Instant) {
        let wait = self.start(to, hands);
        self.enter(Phase::Preparing(to, wait), kernel(to), now);
        self.applied(hands, now);
    }

    fn work(&mut self, to: Stand, hands: &mut Hands<'_>, now: Instant) {
        let wait = self.start(to, hands);
        self.enter(Phase::Working(to, wait), kernel(to), now);
        self.applied(hands, now);
    }

    fn start(&mut self, to: Stand, hands: &mut Hands<'_>) -> Wait {
        match to {
            Stand::Sleeve => Wait::Moved(hands.leave()),
            Stand::Fastpath => {
                self.linger = None;
                Wait::Applied(hands.ready_for_frames())
            }
        }
    }

    fn kernel_did(&mut self, hands: &mut Hands<'_>, now: Instant) {
        match self.phase {
            Phase::Preparing(to, _) => {
                self.enter(Phase::Prepared(to), PATIENCE, now);
                hands.say(self.epoch, Say::Ack);
            }
            Phase::Working(Stand::Fastpath, Wait::Applied(_)) => {
                // The data half last: until they are moved, it carries what the bridge still hands it.
                let job = hands.sweep(Stand::Fastpath);
                self.enter(Phase::Working(Stand::Fastpath, Wait::Moved(job)), RETURN, now);
            }
            Phase::Working(to, _) => {
                hands.stand(to);
                self.enter(Phase::Committed(to), AGAIN, now);
                hands.say(self.epoch, Say::Commit);
            }
            Phase::Finishing(_) => {
                hands.stand(Stand::Fastpath);
                self.linger = Some(now + LINGER);
                self.settle();
                hands.say(self.epoch, Say::Done);
            }
            Phase::Settled
            | Phase::Asked(_)
            | Phase::Begun(_)
            | Phase::Committed(_)
            | Phase::Agreed(_)
            | Phase::Prepared(_) => {}
        }
    }

    /// The follower's last part.
    fn finish(&mut self, to: Stand, hands: &mut Hands<'_>, now: Instant) {
        match to {
            Stand::Sleeve => {
                self.close(to, hands, now);
                hands.say(self.epoch, Say::Done);
            }
            Stand::Fastpath => {
                let job = hands.sweep(to);
                self.enter(Phase::Finishing(Wait::Moved(job)), RETURN, now);
            }
        }
    }

    /// Ends a change at this end: what late frames turned back is swept once more.
    fn close(&mut self, to: Stand, hands: &mut Hands<'_>, now: Instant) {
        hands.sweep(to);
        self.linger = Some(now + LINGER);
        self.settle();
    }

    fn again(&mut self, say: Say, hands: &mut Hands<'_>, now: Instant) {
        (self.tries, self.deadline) = (self.tries + 1, Some(now + AGAIN));
        hands.say(self.epoch, say);
    }

    fn give_up(&mut self, hands: &mut Hands<'_>, now: Instant) {
        self.fail(hands);
        self.rest = Some(now + REST);
    }

    fn fail(&mut self, hands: &mut Hands<'_>) {
        hands.orders.counters.changes_failed += 1;
        if let Phase::Working(Stand::Fastpath, _)
        | Phase::Preparing(Stand::Fastpath, _)
        | Phase::Prepared(Stand::Fastpath) = self.phase
        {
            hands.undo_return();
        }
        if let Phase::Finishing(_) = self.phase {
            hands.stand(Stand::Fastpath);
        }
        self.settle();
    }

    fn settle(&mut self) {
        (self.phase, self.deadline) = (Phase::Settled, None);
    }

    fn enter(&mut self, phase: Phase, patience: Duration, now: Instant) {
        (self.phase, self.deadline, self.tries) = (phase, Some(now + patience), 1);
    }
}

//! The rules that keep an address from being used twice; the checker breaks one at a time.

/// A rule of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rule {
    /// A peer gives away only what it owns itself.
    OnlyTheOwnerGives,
    /// Taking over from a removed peer raises the fence, which outweighs all that peer may have granted.
    Fences,
    /// What was taken over rests, so that another operator's removal of the same peer can be heard of.
    Rests,
    /// What was given away is on disk before anybody hears of it.
    DiskFirst,
}

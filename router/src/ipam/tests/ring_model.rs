//! The ring against a naive model: one holding per address, written down one by one.

use proptest::prelude::*;
use weft_gossip::PeerName;

use super::world::name;
use crate::ipam::{
    address::Span,
    ring::{BadRing, Epoch, Holding, Ring, Segment},
    wire::{self, Body, Header},
};

const FIRST: u32 = 0x0a20_0000;
const SIZE: u32 = 64;

fn range() -> Span {
    Span::new(FIRST, FIRST + SIZE - 1).unwrap()
}

/// What one peer believes, address by address.
#[derive(Clone, PartialEq, Debug)]
struct Model(Vec<Holding>);

impl Model {
    fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            let key = |holding: &Holding| (holding.epoch.fence, holding.epoch.grant);
            if key(theirs) > key(mine) || (key(theirs) == key(mine) && theirs.owner < mine.owner) {
                *mine = *theirs;
            }
        }
    }
}

fn flat(ring: &Ring) -> Model {
    let holdings = ring.segments().into_iter();
    Model(holdings.flat_map(|one| (one.span.first()..=one.span.last()).map(move |_| one.holding)).collect())
}

#[derive(Clone, Debug)]
enum Step {
    Grant {
        from: usize,
        to: usize,
        first: u32,
        size: u32,
    },
    TakeOver {
        by: usize,
        from: usize,
    },
    Compact(usize),
    /// Everything one peer knows, to another, perhaps a part only.
    Tell {
        from: usize,
        to: usize,
        first: u32,
        size: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let peer = 0_usize..5;
    let part = (0..SIZE, 1..SIZE);
    prop_oneof![
        6 => (peer.clone(), peer.clone(), 0..SIZE, 0_u32..5).prop_map(|(from, to, first, bits)| Step::Grant {
            from, to, first: first >> bits << bits, size: 1 << bits,
        }),
        1 => (peer.clone(), peer.clone()).prop_map(|(by, from)| Step::TakeOver { by, from }),
        1 => peer.clone().prop_map(Step::Compact),
        6 => (peer.clone(), peer, part).prop_map(|(from, to, (first, size))| Step::Tell { from, to, first, size }),
    ]
}

fn span(first: u32, size: u32) -> Span {
    Span::new(FIRST + first, (FIRST + first + size - 1).min(range().last())).unwrap()
}

fn apply(rings: &mut [Ring], models: &mut [Model], step: &Step, removals: bool) -> Result<(), TestCaseError> {
    match *step {
        Step::Grant { from, to, first, size } => {
            let span = span(first, size);
            let places = (span.first() - FIRST) as usize..=(span.last() - FIRST) as usize;
            let owner = name(from);
            let allowed = models[from].0[places.clone()].iter().all(|holding| holding.owner == owner);
            prop_assert_eq!(rings[from].grant(span, owner, name(to)).is_ok(), allowed);
            if allowed {
                for holding in &mut models[from].0[places] {
                    holding.owner = name(to);
                    holding.epoch.grant += 1;
                }
            }
        }
        Step::TakeOver { by, from } if removals && by != from => {
            rings[by].take_over(name(from), name(by));
            for holding in models[by].0.iter_mut().filter(|holding| holding.owner == name(from)) {
                *holding =
                    Holding { owner: name(by), epoch: Epoch { fence: holding.epoch.fence + 1, grant: 0 } };
            }
        }
        Step::TakeOver { .. } => {}
        Step::Compact(at) => {
            let owners: Vec<PeerName> = flat(&rings[at]).0.iter().map(|holding| holding.owner).collect();
            rings[at].compact(name(at));
            let after = flat(&rings[at]);
            prop_assert_eq!(after.0.iter().map(|holding| holding.owner).collect::<Vec<_>>(), owners);
            let fences = |model: &Model| model.0.iter().map(|one| one.epoch.fence).collect::<Vec<_>>();
            prop_assert_eq!(fences(&after), fences(&models[at]), "a fence was raised without a removal");
            models[at] = after;
        }
        Step::Tell { from, to, first, size } => {
            let span = span(first, size);
            let told = rings[from].segments_in(span);
            let news = rings[to].merge(&told).unwrap();
            let before = models[to].clone();
            let mut partial = before.clone();
            for segment in &told {
                for address in segment.span.first()..=segment.span.last() {
                    partial.0[(address - FIRST) as usize] = segment.holding;
                }
            }
            models[to].merge(&partial);
            let changed: u64 = news.iter().map(|segment| segment.span.size()).sum();
            let differing = before.0.iter().zip(&models[to].0).filter(|(old, new)| old != new).count();
            prop_assert_eq!(changed, differing as u64);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_ring_is_the_model(steps in prop::collection::vec(step(), 1..120), order in Just((0..5).collect::<Vec<usize>>()).prop_shuffle()) {
        let names: Vec<PeerName> = (0..5).map(name).collect();
        let start = Ring::divided(range(), &names).unwrap();
        let mut rings = vec![start.clone(); 5];
        let mut models = vec![flat(&start); 5];
        for step in &steps {
            apply(&mut rings, &mut models, step, true)?;
            for (ring, model) in rings.iter().zip(&models) {
                prop_assert_eq!(&flat(ring), model);
                let rebuilt = Ring::from_segments(range(), &ring.segments());
                prop_assert_eq!(rebuilt.as_ref(), Ok(ring), "one form per content");
            }
        }
        // Everyone tells everyone, in any order and twice: all are equal, and nothing of the range is lost.
        for _ in 0..2 {
            for from in &order {
                for to in 0..5 {
                    let told = rings[*from].segments();
                    rings[to].merge(&told).unwrap();
                }
            }
        }
        for ring in &rings {
            prop_assert_eq!(ring, &rings[0]);
            prop_assert_eq!(ring.digest(), rings[0].digest());
            prop_assert_eq!(ring.owners_in(range()).values().sum::<u64>(), u64::from(SIZE));
        }
    }

    #[test]
    fn without_removals_no_address_ever_has_two_owners(steps in prop::collection::vec(step(), 1..120)) {
        let names: Vec<PeerName> = (0..5).map(name).collect();
        let start = Ring::divided(range(), &names).unwrap();
        let mut rings = vec![start.clone(); 5];
        let mut models = vec![flat(&start); 5];
        for step in &steps {
            apply(&mut rings, &mut models, step, false)?;
            for address in range().first()..=range().last() {
                let owners = (0..5).filter(|at| rings[*at].owner_of(address) == Some(name(*at))).count();
                prop_assert!(owners <= 1, "{owners} peers think that they own {address:x}");
            }
        }
    }

    #[test]
    fn what_one_knows_better_makes_the_other_equal(
        left in prop::collection::vec(step(), 1..40), right in prop::collection::vec(step(), 1..40),
    ) {
        let names: Vec<PeerName> = (0..5).map(name).collect();
        let start = Ring::divided(range(), &names).unwrap();
        let mut one = vec![start.clone(); 5];
        let mut two = one.clone();
        let mut models = vec![flat(&start); 5];
        for step in &left { apply(&mut one, &mut models, step, true)?; }
        let mut models = vec![flat(&start); 5];
        for step in &right { apply(&mut two, &mut models, step, true)?; }
        let (mut one, mut two) = (one.remove(0), two.remove(0));
        let told = one.segments();
        two.merge(&told).unwrap();
        let answer = two.newer_than(&told);
        one.merge(&answer).unwrap();
        prop_assert_eq!(one, two);
    }

    #[test]
    fn bad_segments_change_nothing_and_never_panic(
        raw in prop::collection::vec((0_u32..140, 0_u32..140, 0_usize..5, any::<u32>(), any::<u32>()), 0..8),
    ) {
        let start = Ring::divided(range(), &[name(0), name(1)]).unwrap();
        let segments: Vec<Segment> = raw.iter().filter_map(|(first, last, owner, fence, grant)| Some(Segment {
            span: Span::new(FIRST - 30 + first, FIRST - 30 + last)?,
            holding: Holding { owner: name(*owner), epoch: Epoch { fence: fence % (1 << 29) * 3, grant: *grant } },
        })).collect();
        let mut ring = start.clone();
        if ring.merge(&segments).is_err() {
            prop_assert_eq!(&ring, &start);
        }
        prop_assert_eq!(ring.owners_in(range()).values().sum::<u64>(), u64::from(SIZE));
        let _ = Ring::from_segments(range(), &segments);
    }

    #[test]
    fn noise_never_decodes_into_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_u8..12) {
        let mut framed = vec![kind];
        framed.extend(&bytes);
        let _ = wire::decode(&framed);
    }

    #[test]
    fn segments_survive_the_wire(steps in prop::collection::vec(step(), 1..60)) {
        let start = Ring::divided(range(), &(0..5).map(name).collect::<Vec<_>>()).unwrap();
        let mut rings = vec![start.clone(); 5];
        let mut models = vec![flat(&start); 5];
        for step in &steps { apply(&mut rings, &mut models, step, true)?; }
        let header = Header {
            author: name(0), stamp: (1, 2), range: "10.32.0.0/26".parse().unwrap(), observer: false, ring: None, idle: 3,
        };
        for body in [
            Body::State(rings[0].segments()),
            Body::Delta { segments: rings[1].segments_in(span(7, 20)), removed: vec![name(3)] },
        ] {
            let bytes = wire::encode(&header, &body);
            prop_assert_eq!(wire::decode(&bytes).unwrap(), (header.clone(), body));
            for cut in 0..bytes.len() {
                prop_assert!(wire::decode(&bytes[..cut]).is_err());
            }
        }
    }
}

#[test]
fn shares_are_equal_and_aligned() {
    let range = Span::from("10.32.0.0/12".parse::<ipnet::Ipv4Net>().unwrap());
    let two = Ring::divided(range, &[name(0), name(1)]).unwrap();
    assert_eq!(two.owners_in(range).into_values().collect::<Vec<_>>(), [1 << 19, 1 << 19]);
    let three = Ring::divided(range, &[name(0), name(1), name(2)]).unwrap();
    let shares: Vec<u64> = three.owners_in(range).into_values().collect();
    assert!(shares.iter().all(|share| share.abs_diff((1 << 20) / 3) <= 1 << 15), "{shares:?}");
    let everything = Span::new(0, u32::MAX).unwrap();
    let many: Vec<PeerName> = (0..7).map(name).collect();
    assert_eq!(
        Ring::divided(everything, &many).unwrap().owners_in(everything).values().sum::<u64>(),
        1 << 32
    );
    let few = Ring::divided(Span::new(8, 9).unwrap(), &many).unwrap();
    assert_eq!(few.owners_in(Span::new(8, 9).unwrap()).values().sum::<u64>(), 2);
    assert_eq!(Ring::divided(range, &[]), None);
}

#[test]
fn a_removed_owner_cannot_take_back_what_it_gave_away_later() {
    let mut living = Ring::divided(range(), &[name(0), name(1)]).unwrap();
    let mut dead = living.clone();
    living.take_over(name(1), name(0));
    for _ in 0..100 {
        dead.grant(range().halves().unwrap().1, name(1), name(1)).unwrap();
    }
    living.merge(&dead.segments()).unwrap();
    assert_eq!(living.owners_in(range()).len(), 1);
    assert_eq!(dead.grant(range(), name(1), name(0)), Err(BadRing::NotOwner(range())));
}

#[test]
fn a_ring_of_ten_thousand_tokens_stays_small_on_the_wire() {
    let range = Span::new(0, (1 << 20) - 1).unwrap();
    let mut ring = Ring::divided(range, &[name(0), name(1)]).unwrap();
    for at in 0..5_000 {
        ring.grant(Span::single(at * 64), if at * 64 < 1 << 19 { name(0) } else { name(1) }, name(2))
            .unwrap();
    }
    assert!(ring.len() >= 10_000);
    let header = Header {
        author: name(0),
        stamp: (1, 1),
        range: "0.0.0.0/12".parse().unwrap(),
        observer: false,
        ring: None,
        idle: 0,
    };
    let bytes = wire::encode(&header, &Body::State(ring.segments()));
    assert!(bytes.len() < 60_000, "{} bytes", bytes.len());
}

//! The way of frames, where it is another than that of gossip.

use super::*;

/// To whom a node passes on, and from whom it takes, the frames that `source` floods.
fn flood(sim: &Sim, node: NodeId, source: NodeId) -> (Vec<NodeId>, Option<NodeId>) {
    let routes = sim.mesh(node).frame_routes();
    let to = routes.flood(sim.name(source)).iter().filter_map(|peer| sim.node(*peer)).collect();
    (to, routes.upstream().get(&sim.name(source)).and_then(|peer| sim.node(*peer)))
}

#[test]
fn frames_are_led_around_a_link_that_carries_none_and_gossip_is_not() {
    let mut sim = sim(41);
    mesh_of(&mut sim, 3, &on_ipam());
    let names = [0, 1, 2].map(|node| sim.name(node));
    let direct = |sim: &Sim, node: NodeId| sim.mesh(node).frame_routes() == sim.mesh(node).routes();
    assert!((0..3).all(|node| direct(&sim, node)));
    sim.act(0, |mesh, now| mesh.set_idle([names[1]].into(), now));
    sim.run_for(100 * MILLISECOND);
    for (one, two) in [(0, 1), (1, 0)] {
        let mesh = sim.mesh(one);
        assert_eq!(mesh.frame_routes().next_hop(names[two]), Some(names[2]));
        assert_eq!(mesh.routes().next_hop(names[two]), Some(names[two]));
        let view = mesh.peers().find(|view| view.name == names[two]).unwrap();
        assert_eq!((view.reachable, view.hops, view.via), (true, Some(2), Some(names[2])));
        assert_eq!(flood(&sim, one, one), (vec![2], None));
        assert_eq!(flood(&sim, 2, one), (vec![two], Some(one)));
        assert_eq!(flood(&sim, two, one), (vec![], Some(2)));
    }
    sim.act(0, |mesh, now| mesh.set_idle(BTreeSet::new(), now));
    sim.run_for(100 * MILLISECOND);
    assert!((0..3).all(|node| direct(&sim, node)));
}

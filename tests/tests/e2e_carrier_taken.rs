//! What VXLAN needs is somebody else's: fastpath is left out with a clear word, and taken up when it is free.
//!
//! ```text
//!   c1 ── host1 ─────── host2 ── c2      host1 has a VXLAN device, a port or a name of others
//! ```

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};
use weft_tests::host::{CARRIER_LIMIT, mesh, wait_all_on};
use weft_tests::traffic::wait_reaches;
use weft_tests::{Netns, scenario};

/// Two hosts become a mesh while `taken` holds something of VXLAN in the first; both say so, the containers speak, and
/// what is foreign stands as it was. Then it is given back.
fn left_out<T>(
    words: &str,
    take: impl Fn(&Netns) -> Result<T>,
    give: impl Fn(&Netns, T) -> Result<()>,
) -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        let taken = take(hosts[0].netns())?;
        let foreign = |host: &Netns| host.ip("-d -o link show type vxlan");
        let before = foreign(hosts[0].netns())?;
        mesh(&mut hosts, &[])?;
        hosts[0].wait_reason(&hosts[1], "sleeve", words, CARRIER_LIMIT)?;
        hosts[0].wait_reason(&hosts[1], "sleeve", "not possible here", CARRIER_LIMIT)?;
        hosts[1].wait_reason(&hosts[0], "sleeve", words, CARRIER_LIMIT)?;
        hosts[1].wait_reason(&hosts[0], "sleeve", "not possible at the peer", CARRIER_LIMIT)?;
        let (mut c1, mut c2) = (fabric.container("c1")?, fabric.container("c2")?);
        hosts[0].attach(&mut c1)?;
        hosts[1].attach(&mut c2)?;
        wait_reaches(c1.netns(), c2.address(), Duration::from_secs(5))?;
        let found = hosts[0].weft(&["doctor"])?;
        ensure!(found.code == 1 && found.stdout.contains(words), "doctor does not say it: {found:?}");
        // Of ours there may be one that cannot be set up; what is not ours must not have changed.
        let now = foreign(hosts[0].netns())?;
        let lines = |text: &str| {
            text.lines().filter(|line| !line.contains("weft/weft/")).map(str::to_owned).collect::<Vec<_>>()
        };
        ensure!(lines(&now) == lines(&before), "what is foreign was touched:\n{before}\n{now}");

        give(hosts[0].netns(), taken)?;
        wait_all_on(&hosts, "fastpath")?;
        wait_reaches(c1.netns(), c2.address(), Duration::from_secs(5)).map(drop)
    })
}

#[test]
fn a_foreign_vxlan_device_with_our_network_leaves_fastpath_out() -> Result<()> {
    let take = |host: &Netns| {
        host.ip("link add foreign type vxlan id 6784 dstport 6784")
            .and_then(|_| host.ip("link set foreign up"))
    };
    left_out("another VXLAN device", take, |host, _| host.ip("link del foreign").map(drop))
}

#[test]
fn a_foreign_device_with_our_name_leaves_fastpath_out() -> Result<()> {
    let take = |host: &Netns| host.ip("link add weft-vx type vxlan id 77 dstport 4789");
    left_out("weft-vx", take, |host, _| host.ip("link del weft-vx").map(drop))
}

#[test]
fn a_port_that_a_program_has_leaves_fastpath_out() -> Result<()> {
    let take = |host: &Netns| host.run(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 6784))?));
    left_out("UDP port is in use", take, |_, socket| {
        drop(socket);
        Ok(())
    })
}

//! A partition in which both sides go on giving out addresses until they have none left, and what is true afterwards.
//!
//! ```text
//!   host1  ╳  host2        range 10.32.0.0/26: 64 addresses, 62 to give
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use weft_tests::{Host, host, scenario};

const RANGE: &str = "10.32.0.0/26";

/// Asks for addresses until the router says "not now"; anything but that answer is an error.
fn exhaust(host: &Host) -> Result<BTreeMap<String, Ipv4Addr>> {
    let mut given = BTreeMap::new();
    for number in 0..64 {
        let id = format!("{}-{number}", host.name());
        let outcome = host.allocate(&id)?;
        match outcome.code {
            0 => given.insert(id, host::address_in(&outcome.stdout)?),
            4 => return Ok(given),
            _ => bail!("{id}: {outcome:?}"),
        };
    }
    bail!("{} gave out more than the range holds", host.name())
}

#[test]
fn both_sides_of_a_partition_allocate_and_no_address_is_given_twice() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        host::mesh(&mut hosts, &["--range", RANGE, "--init", "seed=host1"])?;
        // host1 owns everything at first: host2 gets its first address from donated space.
        let early = hosts[1].allocated("early")?;
        let donated = hosts[1].status()?["ipam"]["owned"].as_u64().unwrap_or(0);
        ensure!(donated > 0 && donated < 64, "host2 was given {donated} addresses");

        fabric.partition(&[&hosts[0]], &[&hosts[1]])?;
        for host in &hosts {
            host.wait_reaches(&[], Duration::from_secs(10))?;
        }
        let mut sides = Vec::new();
        for host in &hosts {
            let given = exhaust(host)?;
            ensure!(!given.is_empty(), "{} gave out nothing during the partition", host.name());
            sides.push(given);
        }
        fabric.heal()?;
        hosts[0].wait_reaches(&["host2"], Duration::from_secs(15))?;
        hosts[1].wait_reaches(&["host1"], Duration::from_secs(15))?;

        let mut holder: BTreeMap<Ipv4Addr, String> = BTreeMap::from([(early, "early".to_owned())]);
        for (id, address) in sides.iter().flatten() {
            let last = address.octets()[3];
            ensure!((1..=62).contains(&last), "{id} was given {address}");
            if let Some(other) = holder.insert(*address, id.clone()) {
                bail!("{address} was given to {other} and to {id}");
            }
        }
        ensure!(holder.len() == 62, "only {} of 62 were given out", holder.len());
        for (asked, other, given) in [(0, 1, &sides[0]), (1, 0, &sides[1])] {
            for (id, address) in given {
                ensure!(hosts[asked].lookup(id)? == Some(*address), "{id} is no longer {address}");
                let elsewhere = hosts[other].lookup(id)?;
                ensure!(elsewhere == Some(*address), "{id}: {elsewhere:?} and {address}");
            }
        }
        let owners = |host: &Host| -> Result<BTreeMap<String, u64>> {
            let status = host.status()?;
            ensure!(status["ipam"]["state"] == "ready", "{:#}", status["ipam"]);
            let listed = status["ipam"]["owners"].as_array().cloned().unwrap_or_default();
            let entry = |one: &serde_json::Value| {
                Some((one["peer"].as_str()?.to_owned(), one["addresses"].as_u64()?))
            };
            Ok(listed.iter().filter_map(entry).collect())
        };
        let (one, two) = (owners(&hosts[0])?, owners(&hosts[1])?);
        ensure!(one == two && one.values().sum::<u64>() == 64, "the sides disagree: {one:?} {two:?}");

        // One address comes back on one side: the other can have it now.
        hosts[0].expect(&["ipam", "release", "--id", "host1-0"])?;
        let freed = sides[0]["host1-0"];
        ensure!(hosts[1].allocated("late")? == freed, "the freed address did not travel");
        Ok(())
    })
}

//! A router killed at any moment while containers come and go: E1 and I8 of the catalogue (`docs/faults.md`).
//!
//! ```text
//!   c1 … c6 ── host1 ──── host2       two workers attach and detach on host1, whose router is killed over and over
//! ```
//!
//! `WEFT_KILLS=200` makes it 200 moments instead of 25.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use weft_tests::attack::Noise;
use weft_tests::host::{mesh, wait_all_on};
use weft_tests::kernel::{forwarding, links};
use weft_tests::{Container, Host, deadline, scenario};

const WORKERS: usize = 2;
const CONTAINERS: usize = 6;
/// The latest moment of a churn at which the router is killed.
const LATEST: usize = 600_000;
/// How soon after its start a router has undone or finished whatever was begun.
const SETTLED: Duration = Duration::from_secs(10);

fn kills() -> Result<usize> {
    std::env::var("WEFT_KILLS").map_or(Ok(25), |text| text.parse().context("WEFT_KILLS"))
}

/// What a worker knows of a container: only what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Attached,
    Detached,
    /// The router died over the call.
    Open,
}

/// A container and what is known of it.
struct Guest {
    container: Container,
    known: Known,
}

/// Attaches and detaches guests until told to stop, or until the router is gone.
fn churn(host: &Host, guests: &mut [Guest], noise: &mut Noise, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let chosen = noise.below(guests.len());
        let guest = &mut guests[chosen];
        let name = guest.container.netns().name().to_owned();
        if guest.known == Known::Detached {
            guest.known = Known::Open;
            if host.attach(&mut guest.container).is_err() {
                return Ok(());
            }
            guest.known = Known::Attached;
        } else {
            guest.known = Known::Open;
            if host.weft(&["detach", &name])?.code != 0 {
                return Ok(());
            }
            guest.known = Known::Detached;
        }
    }
    Ok(())
}

/// What stands on a host when nothing is attached.
struct Bare {
    links: BTreeSet<String>,
    filter: Vec<String>,
}

impl Bare {
    fn of(host: &Host) -> Result<Self> {
        Ok(Self {
            links: links(host.netns())?.into_keys().collect(),
            filter: filter(host, &BTreeSet::new())?,
        })
    }
}

/// The words of the host's packet filter, without the links of containers, their order, and what is counted.
fn filter(host: &Host, of_containers: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut nft = std::process::Command::new("nft");
    let rules = host.netns().execute(nft.args(["list", "ruleset"]), "", Duration::from_secs(10))?;
    let rules = rules.success("nft list")?;
    let words = rules.split_whitespace().map(|word| word.trim_matches(['"', ',', '{', '}']).to_owned());
    let explained = |word: &String| of_containers.contains(word) || word.parse::<u64>().is_ok();
    let mut words: Vec<String> = words.filter(|word| !word.is_empty() && !explained(word)).collect();
    words.sort();
    Ok(words)
}

/// The attachments a router knows of, by their ids.
fn attachments(status: &Value) -> BTreeMap<String, Value> {
    let all = status["attachments"].as_array().into_iter().flatten();
    all.map(|one| (one["id"].as_str().unwrap_or_default().to_owned(), one.clone())).collect()
}

/// The id of a container that was attached by its namespace: after a restart its name may not be known any more.
fn id(container: &Container) -> Result<String> {
    Ok(format!("netns-{}", std::fs::metadata(container.netns().path())?.ino()))
}

/// Everything that is attached works, everything else is gone, from records and kernel alike.
fn account(host: &Host, guests: &mut [Guest], bare: &Bare) -> Result<()> {
    let status = host.status()?;
    let known = attachments(&status);
    let mut addresses = BTreeSet::new();
    for guest in guests.iter_mut() {
        let attachment = known.get(&id(&guest.container)?);
        let name = guest.container.name().to_owned();
        match (attachment, guest.known) {
            (None, Known::Attached) => bail!("{name} was attached and is forgotten"),
            (Some(one), Known::Detached) => bail!("{name} was detached and is on record: {one}"),
            (Some(_), Known::Attached | Known::Open) | (None, Known::Detached | Known::Open) => {}
        }
        let kernel = guest.container.addresses_in_kernel().unwrap_or_default();
        match attachment {
            None => {
                ensure!(kernel.is_empty(), "{name} is on no record and has {kernel:?}");
                ensure!(guest.container.netns().ip("link show dev eth0").is_err(), "{name} keeps its eth0");
                guest.known = Known::Detached;
            }
            Some(one) => {
                let recorded = one["addresses"][0].as_str().unwrap_or_default().to_owned();
                ensure!(kernel == [recorded.as_str()], "{name} has {kernel:?}, on record is {recorded}");
                ensure!(one["state"] == "ok", "{name}: {one}");
                ensure!(addresses.insert(recorded.clone()), "{recorded} was given twice");
                let address: Ipv4Addr = recorded.split('/').next().unwrap_or_default().parse()?;
                if guest.known == Known::Attached {
                    let told = guest.container.address();
                    ensure!(address == told, "{name} was told {told}, on record is {recorded}");
                }
                guest.container.set_address(address);
                guest.known = Known::Attached;
            }
        }
    }
    ensure!(known.len() == addresses.len(), "attachments of nobody: {known:#?}");
    ensure!(status["ipam"]["used"] == addresses.len(), "{} stand, {:#}", addresses.len(), status["ipam"]);
    unexplained(host, bare, addresses.len())
}

/// Whether the kernel holds as many objects as attachments explain.
fn unexplained(host: &Host, bare: &Bare, attached: usize) -> Result<()> {
    let all: BTreeSet<String> = links(host.netns())?.into_keys().collect();
    let more: BTreeSet<String> = all.difference(&bare.links).cloned().collect();
    ensure!(bare.links.is_subset(&all), "missing of {:?}: {all:?}", bare.links);
    ensure!(more.len() == attached, "{attached} attachments, links {more:?}");
    let filter = filter(host, &more)?;
    ensure!(filter == bare.filter, "the filter was {:?} and is {filter:?}", bare.filter);
    for entry in forwarding(host.netns())? {
        let device = entry.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap_or_default();
        ensure!(all.contains(device), "an entry of no device: {entry}");
    }
    Ok(())
}

#[test]
fn e1_a_router_killed_at_any_moment_of_a_churn_loses_no_container_and_leaves_nothing() -> Result<()> {
    let kills = kills()?;
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        mesh(&mut hosts, &[])?;
        wait_all_on(&hosts, "fastpath")?;
        let peer = hosts[1].address().to_string();
        let host = &mut hosts[0];
        let new_guest = |n: usize| -> Result<Guest> {
            Ok(Guest { container: fabric.container(&format!("c{n}"))?, known: Known::Detached })
        };
        let mut guests = (0..CONTAINERS).map(new_guest).collect::<Result<Vec<_>>>()?;
        // The first attachment may bring what stays.
        host.attach(&mut guests[0].container)?;
        host.expect(&["detach", guests[0].container.netns().name()])?;
        let bare = Bare::of(host)?;
        let mut moments = Noise::new(1);
        let (mut open, mut slowest) = (0, Duration::ZERO);
        for round in 0..kills {
            let after = Duration::from_micros(moments.below(LATEST) as u64);
            let stop = AtomicBool::new(false);
            std::thread::scope(|scope| -> Result<()> {
                let pid = host.running()?.pid();
                let calling: &Host = host;
                let workers: Vec<_> = guests
                    .chunks_mut(CONTAINERS / WORKERS)
                    .enumerate()
                    .map(|(number, share)| {
                        let (stop, seed) = (&stop, (round * WORKERS + number) as u64 * 2 + 3);
                        scope.spawn(move || churn(calling, share, &mut Noise::new(seed), stop))
                    })
                    .collect();
                deadline::pause(after);
                kill_now(pid)?;
                stop.store(true, Ordering::Relaxed);
                workers.into_iter().try_for_each(|worker| {
                    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                })
            })?;
            host.kill()?;
            open += guests.iter().filter(|guest| guest.known == Known::Open).count();
            host.launch(&[&peer])?;
            host.wait_ready().with_context(|| format!("round {round}, killed after {after:?}"))?;
            let settled = deadline::until("all is accounted for", SETTLED, || {
                account(host, &mut guests, &bare).map(Some)
            });
            let (_, took) = settled.with_context(|| {
                let links = host.netns().ip("-o link show type veth").unwrap_or_default();
                format!("round {round}, killed after {after:?}, links:\n{links}")
            })?;
            slowest = slowest.max(took);
        }
        println!(
            "E1: {kills} kills, {open} calls were under way, accounted for at most {slowest:.0?} after ready"
        );
        ensure!(open >= kills / 4, "hardly any call was under way: {open} in {kills} kills");
        for guest in guests.iter().filter(|guest| guest.known == Known::Attached) {
            host.expect(&["detach", guest.container.netns().name()])?;
        }
        unexplained(host, &bare, 0)
    })
}

/// `kill -9` of a router that others are still calling.
fn kill_now(pid: u32) -> Result<()> {
    use nix::sys::signal::{Signal, kill};
    kill(nix::unistd::Pid::from_raw(i32::try_from(pid)?), Signal::SIGKILL).context("kill -9")
}

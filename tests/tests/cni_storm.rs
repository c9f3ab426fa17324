//! Many pods at once, and many after each other: nobody starves, nothing is given twice, nothing stays.
//!
//! `WEFT_STORM_ROUNDS` and `WEFT_CYCLES` raise the numbers; the figures are printed, with `WEFT_STORM_REFERENCE=1` also
//! those of the reference plugins in the same rounds, and an ADD must be done in half their time at p99.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use weft_tests::cni::{Added, Attachment, Conflist, Failure, Holdings, Runtime, addresses, network, runtime};
use weft_tests::{Container, Fabric, Host, deadline, scenario_alone};

/// The longest any single call may take, however many run beside it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A second after each ADD the pod is announced once more; until then a descriptor of its namespace is held.
const ANNOUNCED: Duration = Duration::from_millis(1500);

fn number(variable: &str, default: usize) -> Result<usize> {
    match std::env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable} is a number, not {text}")),
        Err(_) => Ok(default),
    }
}

fn quantile(times: &mut [Duration], part: f64) -> Duration {
    times.sort();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index, clamped")]
    let rank = (part * times.len() as f64).ceil() as usize;
    times.get(rank.clamp(1, times.len().max(1)) - 1).copied().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "figures are read by people")]
fn print(what: &str, times: &mut [Duration]) {
    let (half, most, all) = (quantile(times, 0.5), quantile(times, 0.99), quantile(times, 1.0));
    println!("{what}: {} calls, p50 {half:.1?}, p99 {most:.1?}, longest {all:.1?}", times.len());
}

fn everybody<T: Send>(
    pods: &[Attachment],
    call: impl Fn(&Attachment) -> Result<T, Failure> + Sync,
) -> Result<Vec<T>, Failure> {
    std::thread::scope(|scope| {
        let call = &call;
        let calls: Vec<_> = pods.iter().map(|pod| scope.spawn(move || call(pod))).collect();
        calls
            .into_iter()
            .map(|call| call.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn pods(containers: &[Container], round: usize) -> Vec<Attachment> {
    let each = containers.iter().enumerate();
    each.map(|(n, one)| Attachment::new(&format!("r{round}-pod{n}"), one.netns())).collect()
}

/// Debian's `bridge` with `host-local`, on a host of its own.
struct Reference {
    runtime: Runtime,
    list: Conflist,
    _host: Host,
}

impl Reference {
    /// If it is asked for.
    fn wanted(fabric: &Fabric) -> Result<Option<Self>> {
        if std::env::var_os("WEFT_STORM_REFERENCE").is_none() {
            return Ok(None);
        }
        let host = fabric.host("host2")?;
        let bridge = json!({
            "type": "bridge", "bridge": "ref0", "isGateway": true, "isDefaultGateway": true,
            "ipam": {"type": "host-local", "dataDir": fabric.home().join("host-local"),
                     "ranges": [[{"subnet": "10.77.0.0/16"}]]},
        });
        let list = Conflist::of("1.0.0", "reference", json!([bridge]))?;
        Ok(Some(Self { runtime: Runtime::new(host.netns(), &[]), list, _host: host }))
    }
}

fn open_files(host: &Host) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", host.running()?.pid()))?.count())
}

fn state_bytes(host: &Host) -> Result<u64> {
    let entries = std::fs::read_dir(host.state_dir())?.flatten();
    entries.map(|entry| Ok(entry.metadata()?.len())).sum()
}

#[test]
fn a8_two_hundred_pods_come_and_go_at_once_and_nothing_stays() -> Result<()> {
    scenario_alone(|fabric| {
        let mut host = fabric.host("host1")?;
        host.launch(&[])?;
        host.wait_ready()?;
        let runtime = runtime(fabric, &host)?;
        let list = network(&host, "1.1.0")?;
        let containers = (0..200).map(|n| fabric.container(&format!("c{n}"))).collect::<Result<Vec<_>>>()?;
        let warm = Attachment::new("warm", containers[0].netns());
        runtime.add(&list, &warm)?;
        runtime.del(&list, &warm)?;
        let before = Holdings::of(&host)?;
        let (mut adds, mut dels) = (Vec::new(), Vec::new());
        let (mut their_adds, mut their_dels) = (Vec::new(), Vec::new());
        let reference = Reference::wanted(fabric)?;
        for round in 0..number("WEFT_STORM_ROUNDS", 2)? {
            let pods = pods(&containers, round);
            let added: Vec<Added> = everybody(&pods, |pod| runtime.add(&list, pod))?;
            let given = added.iter().map(|one| addresses(&one.result)).collect::<Result<Vec<_>>>()?;
            let different: BTreeSet<_> = given.iter().flatten().collect();
            ensure!(different.len() == pods.len(), "{} addresses for {} pods", different.len(), pods.len());
            ensure!(
                Holdings::of(&host)?.used == before.used + pods.len() as u64,
                "{:?}",
                Holdings::of(&host)?
            );
            everybody(&pods[..20], |pod| runtime.check(&list, pod))?;
            adds.extend(added.iter().map(|one| one.took));
            dels.extend(everybody(&pods, |pod| runtime.del(&list, pod))?);
            before.wait_again(&host, Duration::from_secs(10))?;
            if let Some(Reference { runtime, list, .. }) = &reference {
                their_adds.extend(everybody(&pods, |pod| runtime.add(list, pod))?.iter().map(|one| one.took));
                their_dels.extend(everybody(&pods, |pod| runtime.del(list, pod))?);
            }
        }
        print("200 parallel ADD", &mut adds);
        print("200 parallel DEL", &mut dels);
        if reference.is_some() {
            print("200 parallel ADD by bridge + host-local", &mut their_adds);
            print("200 parallel DEL by bridge + host-local", &mut their_dels);
            let (ours, theirs) = (quantile(&mut adds, 0.99), quantile(&mut their_adds, 0.99));
            ensure!(ours * 2 <= theirs, "p99 of an ADD: {ours:.1?}, of the reference {theirs:.1?}");
        }
        ensure!(
            adds.iter().chain(&dels).all(|took| *took < PATIENCE),
            "a call took longer than {PATIENCE:?}"
        );
        Ok(())
    })
}

#[test]
fn a3_a_sandbox_made_anew_over_and_over_costs_nothing() -> Result<()> {
    scenario_alone(|fabric| {
        let mut host = fabric.host("host1")?;
        // A range that would be used up long before the end if a single address in ten stayed.
        host.launch(&["--range", "10.32.0.0/27"])?;
        host.wait_ready()?;
        let runtime = runtime(fabric, &host)?;
        let list = network(&host, "1.1.0")?;
        let container = fabric.container("c1")?;
        let cycles = number("WEFT_CYCLES", 300)?;
        let (mut adds, mut dels) = (Vec::new(), Vec::new());
        let mut settled = None;
        for cycle in 0..cycles {
            let pod = Attachment::new(&format!("sandbox-{cycle}"), container.netns());
            adds.push(runtime.add(&list, &pod).with_context(|| format!("cycle {cycle}"))?.took);
            dels.push(runtime.del(&list, &pod).with_context(|| format!("cycle {cycle}"))?);
            if cycle == cycles / 3 {
                deadline::pause(ANNOUNCED);
                settled = Some((
                    Holdings::of(&host)?,
                    host.running()?.resident_bytes()?,
                    open_files(&host)?,
                    state_bytes(&host)?,
                ));
            }
        }
        let (holdings, memory, files, state) = settled.context("too few cycles")?;
        deadline::pause(ANNOUNCED);
        holdings.wait_again(&host, Duration::from_secs(5))?;
        let grown = host.running()?.resident_bytes()?.saturating_sub(memory);
        ensure!(grown < 2 << 20, "the router grew by {grown} bytes");
        ensure!(open_files(&host)? <= files + 2, "files: {files} before, {} now", open_files(&host)?);
        ensure!(state_bytes(&host)? <= state + 4096, "state: {state} before, {} now", state_bytes(&host)?);
        print("ADD after ADD", &mut adds);
        print("DEL after DEL", &mut dels);
        Ok(())
    })
}

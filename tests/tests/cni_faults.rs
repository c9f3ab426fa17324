//! The catalogue of faults between a runtime, the plugin and the router, each under its number.
//!
//! ```text
//!   c1 … cN ── bridge "weft" ── router of host1        whoever is killed, nothing stays that nobody knows of
//! ```

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use serde_json::json;
use weft_tests::cni::{
    Attachment, Conflist, Holdings, Runtime, Verb, addresses, faulty_binary, link, network, runtime,
};
use weft_tests::{Container, Fabric, Host, deadline, scenario};

/// Where the plugin built with faults can die, in the order of ADD and DEL.
const STEPS: [&str; 4] = ["parsed", "opened", "asking", "asked"];
/// How soon nothing may be left of a call that was killed.
const SOON: Duration = Duration::from_secs(20);
/// The most any call may take.
const PATIENCE: Duration = Duration::from_secs(10);

struct Stage {
    host: Host,
    runtime: Runtime,
    list: Conflist,
    container: Container,
    before: Holdings,
}

/// A router that has served one pod already, and what is held then.
fn stage(fabric: &Fabric) -> Result<Stage> {
    let mut host = fabric.host("host1")?;
    host.launch(&[])?;
    host.wait_ready()?;
    let runtime = runtime(fabric, &host)?;
    let list = network(&host, "1.1.0")?;
    let container = fabric.container("c1")?;
    let warm = Attachment::new("warm", container.netns());
    runtime.add(&list, &warm)?;
    runtime.del(&list, &warm)?;
    let before = Holdings::of(&host)?;
    Ok(Stage { host, runtime, list, container, before })
}

/// The same numbers in every run: a linear congruential generator (Numerical Recipes).
struct Seeded(u32);

impl Seeded {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) % limit
    }
}

impl Stage {
    /// A runtime tries again, the pod works, it goes, and nothing is left.
    fn recovers(&self, pod: &Attachment) -> Result<()> {
        // The call of the one that was killed may still be under way: "try again later" is an answer then.
        deadline::until("ADD again", SOON, || match self.runtime.add(&self.list, pod) {
            Ok(added) => Ok(Some(added)),
            Err(failure) if failure.code() == Some(11) => Ok(None),
            Err(failure) => bail!("ADD again: {failure}"),
        })?;
        self.runtime.check(&self.list, pod).context("CHECK after ADD again")?;
        self.runtime.del(&self.list, pod).context("DEL")?;
        self.before.wait_again(&self.host, SOON).map(drop)
    }
}

#[test]
fn a1_a_plugin_killed_at_any_step_leaves_nothing() -> Result<()> {
    let faulty = faulty_binary()?;
    scenario(|fabric| {
        let stage = stage(fabric)?;
        let folder = fabric.home().join("faulty");
        link(&folder, &faulty)?;
        let dying = Runtime::new(stage.host.netns(), &[&folder]);
        for step in STEPS {
            let pod = Attachment::new(&format!("add-{step}"), stage.container.netns());
            let call = dying.prepare(Verb::Add, &stage.list, 0, Some(&pod))?.env("WEFT_CNI_FAULT", step);
            ensure!(dying.run(&call)?.code == 137, "ADD did not die at {step}");
            stage.recovers(&pod).with_context(|| format!("killed in ADD at {step}"))?;
            // The runtime gives up instead.
            ensure!(dying.run(&call)?.code == 137, "ADD did not die at {step}");
            stage.runtime.del(&stage.list, &pod)?;
            stage.before.wait_again(&stage.host, SOON).with_context(|| format!("given up after {step}"))?;
        }
        for step in ["parsed", "asking", "asked"] {
            let pod = Attachment::new(&format!("del-{step}"), stage.container.netns());
            stage.runtime.add(&stage.list, &pod)?;
            let call = dying.prepare(Verb::Del, &stage.list, 0, Some(&pod))?.env("WEFT_CNI_FAULT", step);
            ensure!(dying.run(&call)?.code == 137, "DEL did not die at {step}");
            stage.runtime.del(&stage.list, &pod)?;
            stage.before.wait_again(&stage.host, SOON).with_context(|| format!("killed in DEL at {step}"))?;
        }
        Ok(())
    })
}

#[test]
fn a1_a_plugin_killed_while_it_leaves_a_note_leaves_a_whole_one_or_none() -> Result<()> {
    let faulty = faulty_binary()?;
    scenario(|fabric| {
        let mut stage = stage(fabric)?;
        let folder = fabric.home().join("faulty");
        link(&folder, &faulty)?;
        let dying = Runtime::new(stage.host.netns(), &[&folder]);
        for step in ["noting", "noted-aside", "noted"] {
            let pod = Attachment::new(&format!("note-{step}"), stage.container.netns());
            stage.runtime.add(&stage.list, &pod)?;
            stage.host.kill()?;
            let call = dying.prepare(Verb::Del, &stage.list, 0, Some(&pod))?.env("WEFT_CNI_FAULT", step);
            ensure!(dying.run(&call)?.code == 137, "DEL did not die at {step}");
            stage.runtime.del(&stage.list, &pod).context("DEL again, with no router")?;
            stage.host.launch(&[])?;
            stage.host.wait_ready()?;
            stage
                .before
                .wait_again(&stage.host, SOON)
                .with_context(|| format!("killed in a note at {step}"))?;
        }
        Ok(())
    })
}

#[test]
fn a1_a_plugin_killed_at_any_moment_leaves_nothing() -> Result<()> {
    scenario(|fabric| {
        let stage = stage(fabric)?;
        let mut seeded = Seeded(41);
        for round in 0..40 {
            let pod = Attachment::new(&format!("moment-{round}"), stage.container.netns());
            let verb = if round % 4 == 3 { Verb::Del } else { Verb::Add };
            if verb == Verb::Del {
                stage.runtime.add(&stage.list, &pod)?;
            }
            let call = stage.runtime.prepare(verb, &stage.list, 0, Some(&pod))?;
            let after = Duration::from_micros(u64::from(seeded.below(12_000)));
            stage.runtime.run_killed(&call, after)?;
            stage
                .recovers(&pod)
                .with_context(|| format!("{verb:?} killed after {after:?}, round {round}"))?;
        }
        Ok(())
    })
}

#[test]
fn a2_a_router_killed_at_any_moment_has_done_it_or_not() -> Result<()> {
    scenario(|fabric| {
        let mut stage = stage(fabric)?;
        let mut seeded = Seeded(42);
        for round in 0..12 {
            let pod = Attachment::new(&format!("round-{round}"), stage.container.netns());
            let after = Duration::from_micros(u64::from(seeded.below(15_000)));
            let Stage { host, runtime, list, .. } = &mut stage;
            let added = std::thread::scope(|scope| {
                let adding = scope.spawn(|| runtime.add(list, &pod));
                deadline::pause(after);
                let killed = host.kill();
                let added = adding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                killed.map(|()| added)
            })?;
            stage.host.launch(&[])?;
            stage.host.wait_ready()?;
            if added.is_ok() {
                stage.runtime.check(&stage.list, &pod).with_context(|| {
                    format!("round {round}: ADD had succeeded, the router was killed after {after:?}")
                })?;
            }
            stage
                .recovers(&pod)
                .with_context(|| format!("round {round}: killed after {after:?}: {added:?}"))?;
        }
        Ok(())
    })
}

#[test]
fn a3_pods_whose_del_was_lost_are_collected() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        host.launch(&["--range", "10.32.0.0/27"])?;
        host.wait_ready()?;
        let runtime = runtime(fabric, &host)?;
        let list = network(&host, "1.1.0")?;
        let living = fabric.container("living")?;
        let alive = Attachment::new("living", living.netns());
        let address = runtime.add(&list, &alive)?.result;
        let before = Holdings::of(&host)?;
        for round in 0..60 {
            let gone = fabric.container("gone")?;
            runtime.add(&list, &Attachment::new(&format!("lost-{round}"), gone.netns()))?;
            if round % 15 == 14 {
                drop(gone);
                runtime.gc(&list, std::slice::from_ref(&alive))?;
                before.wait_again(&host, SOON).with_context(|| format!("round {round}"))?;
            }
        }
        runtime.check(&list, &alive).with_context(|| format!("the living pod: {address}"))?;
        Ok(())
    })
}

#[test]
fn a4_after_a_reboot_addresses_of_pods_that_are_no_more_are_free() -> Result<()> {
    scenario(|fabric| {
        let mut stage = stage(fabric)?;
        let survivor = Attachment::new("survivor", stage.container.netns());
        stage.runtime.add(&stage.list, &survivor)?;
        let held = Holdings::of(&stage.host)?;
        let gone = (0..5).map(|n| fabric.container(&format!("gone{n}"))).collect::<Result<Vec<_>>>()?;
        for (n, one) in gone.iter().enumerate() {
            stage.runtime.add(&stage.list, &Attachment::new(&format!("gone-{n}"), one.netns()))?;
        }
        stage.host.kill()?;
        drop(gone);
        stage.host.launch(&[])?;
        stage.host.wait_ready()?;
        held.wait_again(&stage.host, SOON).context("reservations of pods that are gone")?;
        stage.runtime.check(&stage.list, &survivor).context("the pod that lived on")?;
        Ok(())
    })
}

#[test]
fn a5_add_while_the_router_starts_is_served_or_told_to_come_again() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        let runtime = runtime(fabric, &host)?;
        let list = network(&host, "1.1.0")?;
        let container = fabric.container("c1")?;
        let pod = Attachment::new("early", container.netns());
        let call = runtime.prepare(Verb::Add, &list, 0, Some(&pod))?;
        let absent = runtime.run(&call)?;
        let (code, text) = absent.refused()?;
        ensure!(code == 11 && absent.took < PATIENCE, "no router: {code} {text} {:?}", absent.took);
        host.launch(&[])?;
        let mut served = false;
        let begin = deadline::now();
        while !served {
            let answer = runtime.run(&call)?;
            served = answer.code == 0;
            if !served {
                let (code, text) = answer.refused()?;
                ensure!(code == 11 || code == 50, "while starting: {code} {text}");
            }
            ensure!(answer.took < PATIENCE && begin.elapsed() < Duration::from_secs(20), "{answer:?}");
        }
        let before = Holdings::of(&host)?;
        let other = fabric.container("c2")?;
        let frozen = Attachment::new("frozen", other.netns());
        host.freeze()?;
        let silent = runtime.run(&runtime.prepare(Verb::Add, &list, 0, Some(&frozen))?);
        host.thaw()?;
        let silent = silent?;
        let (code, text) = silent.refused()?;
        ensure!(
            code == 11 && silent.took < PATIENCE,
            "a router that stands still: {code} {text} {:?}",
            silent.took
        );
        // Whatever it had begun comes true for nobody, now or later.
        before.wait_again(&host, SOON)?;
        deadline::pause(Duration::from_secs(3));
        ensure!(Holdings::of(&host)? == before, "{before:?}\n{:?}", Holdings::of(&host)?);
        ensure!(other.addresses_in_kernel().is_err(), "an interface after all");
        deadline::until("ADD again", SOON, || Ok(runtime.add(&list, &frozen).ok()))?;
        Ok(())
    })
}

#[test]
fn a6_a_namespace_that_is_none_or_goes_away_is_a_clean_error() -> Result<()> {
    scenario(|fabric| {
        let stage = stage(fabric)?;
        let home = fabric.home();
        std::fs::write(home.join("file"), "not a namespace")?;
        std::os::unix::fs::symlink(home.join("loop"), home.join("loop"))?;
        let own = format!("/proc/{}/ns/net", stage.host.running()?.pid());
        let other_kind = format!("/proc/{}/ns/mnt", std::process::id());
        // What was made and taken back for the stage has left the filter's lists.
        deadline::pause(Duration::from_secs(1));
        let shape = stage.host.netns().snapshot()?;
        let file = home.join("file");
        let looped = home.join("loop");
        let hosts = stage.host.netns().path();
        let device = PathBuf::from("/dev/null");
        let odd = [file, looped, hosts, own.into(), other_kind.into(), home.to_path_buf(), device];
        for path in &odd {
            let mut pod = Attachment::new("odd", stage.container.netns());
            pod.netns = Some(path.clone());
            let call = stage.runtime.prepare(Verb::Add, &stage.list, 0, Some(&pod))?;
            let answer = stage.runtime.run(&call)?;
            let (code, text) = answer.refused().with_context(|| path.display().to_string())?;
            ensure!(code == 4 && answer.took < PATIENCE, "{}: {code} {text}", path.display());
            stage.runtime.del(&stage.list, &pod).with_context(|| path.display().to_string())?;
        }
        let now = stage.host.netns().snapshot()?;
        ensure!(now == shape, "the host's namespace was changed:\n{shape}\nto\n{now}");
        let mut seeded = Seeded(43);
        for round in 0..15 {
            let doomed = fabric.container("doomed")?;
            let pod = Attachment::new(&format!("doomed-{round}"), doomed.netns());
            let after = Duration::from_micros(u64::from(seeded.below(8_000)));
            std::thread::scope(|scope| {
                let adding = scope.spawn(|| stage.runtime.add(&stage.list, &pod));
                deadline::pause(after);
                drop(doomed);
                adding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .ok();
            stage.runtime.del(&stage.list, &pod)?;
            stage.before.wait_again(&stage.host, SOON).with_context(|| format!("gone after {after:?}"))?;
        }
        Ok(())
    })
}

#[test]
fn a9_an_installation_while_pods_come_and_go_disturbs_none_of_them() -> Result<()> {
    scenario(|fabric| {
        let stage = stage(fabric)?;
        let (bin, conf) = (fabric.home().join("opt"), fabric.home().join("net.d"));
        let folders = [format!("--bin-dir={}", bin.display()), format!("--conf-dir={}", conf.display())];
        let words = ["cni", "install", &folders[0], &folders[1]];
        stage.host.expect(&words)?;
        let installed = Runtime::new(stage.host.netns(), &[&bin]);
        let whole = |path: &std::path::Path| -> Result<()> {
            Conflist::parse(&std::fs::read_to_string(path)?).map(drop).map_err(Into::into)
        };
        std::thread::scope(|scope| {
            let installing = scope.spawn(|| (0..25).try_for_each(|_| stage.host.expect(&words).map(drop)));
            let mut rounds = 0;
            while !installing.is_finished() || rounds < 5 {
                rounds += 1;
                let pod = Attachment::new(&format!("during-{rounds}"), stage.container.netns());
                installed.add(&stage.list, &pod).with_context(|| format!("round {rounds}"))?;
                whole(&conf.join("10-weft.conflist")).context("the configuration is not whole")?;
                installed.del(&stage.list, &pod).with_context(|| format!("round {rounds}"))?;
            }
            installing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        // What somebody else has written is left as it is.
        let foreign = conf.join("10-weft.conflist");
        std::fs::write(&foreign, "{\"cniVersion\": \"1.0.0\", \"na")?;
        stage.host.expect(&words)?;
        ensure!(std::fs::read_to_string(&foreign)?.ends_with("\"na"), "a file of somebody else was replaced");
        stage.before.wait_again(&stage.host, SOON).map(drop)
    })
}

#[test]
fn a10_what_an_older_list_added_a_newer_one_checks_and_deletes() -> Result<()> {
    scenario(|fabric| {
        let stage = stage(fabric)?;
        for old in ["0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
            let pod = Attachment::new("old", stage.container.netns());
            let older = network(&stage.host, old)?;
            let mut result = stage.runtime.add(&older, &pod)?.result;
            ensure!(addresses(&result)?.len() == 1, "{result}");
            // As libcni hands on what it has kept: converted to the list's version, unless an older libcni did not.
            for version in ["1.1.0", old] {
                result["cniVersion"] = version.into();
                let document = json!({"cniVersion": "1.1.0", "name": "weft", "type": "weft-net",
                                      "socket": stage.host.socket(), "prevResult": result});
                let input = document.to_string();
                let check = stage.runtime.prepare(Verb::Check, &stage.list, 0, Some(&pod))?;
                stage
                    .runtime
                    .run(&check.input(input.as_bytes()))?
                    .silence()
                    .with_context(|| format!("{old}: {input}"))?;
            }
            stage.runtime.del(&stage.list, &pod)?;
            stage.before.wait_again(&stage.host, SOON)?;
        }
        // The router is updated in between: ended and started on the same state.
        let mut stage = stage;
        let pod = Attachment::new("kept", stage.container.netns());
        stage.runtime.add(&stage.list, &pod)?;
        stage.host.process()?.signal(Signal::SIGTERM)?;
        stage.host.process()?.wait(PATIENCE)?;
        stage.host.launch(&[])?;
        stage.host.wait_ready()?;
        stage.runtime.check(&stage.list, &pod)?;
        stage.recovers(&pod)
    })
}

//! Network namespaces that vanish with their owner.
//!
//! A namespace is made by a thread that leaves its own and bind-mounts the new one under `/run/netns`, exactly where
//! `ip netns` and `weft attach NAME` look. Its name carries the pid of this process: parallel runs never meet, and
//! [`sweep`] can tell what a killed run has left from what a living one uses.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::command::{self, Outcome};

/// Where named namespaces live.
const HOME: &str = "/run/netns";
/// What every namespace of ours begins with.
const PREFIX: &str = "weftt";

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A handle on one namespace; the last one to go deletes it.
#[derive(Debug, Clone)]
pub struct Netns(Arc<Owned>);

#[derive(Debug)]
struct Owned {
    name: String,
}

impl Netns {
    /// Creates a namespace with nothing in it but a loopback that is up.
    ///
    /// # Errors
    /// When this process may not create namespaces.
    pub fn create(role: &str) -> Result<Self> {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{serial}-{role}", std::process::id());
        prepare_home().context("cannot prepare /run/netns")?;
        let path = Path::new(HOME).join(&name);
        File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let owned = Owned { name };
        std::thread::spawn(move || -> Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("cannot leave the network namespace: root is needed")?;
            let none: Option<&str> = None;
            mount(Some("/proc/thread-self/ns/net"), &path, none, MsFlags::MS_BIND, none)
                .with_context(|| format!("cannot mount {}", path.display()))
        })
        .join()
        .map_err(|_| anyhow!("the thread that makes a namespace panicked"))??;
        let netns = Self(Arc::new(owned));
        netns.ip("link set dev lo up")?;
        Ok(netns)
    }

    /// The name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The path under `/run/netns`.
    pub fn path(&self) -> PathBuf {
        Path::new(HOME).join(&self.0.name)
    }

    /// Runs `work` inside the namespace, on a thread of its own, and waits for it.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or what `work` returns.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter()?;
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `work` inside the namespace, on a thread of its own, in the background.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> JoinHandle<Result<T>> {
        let netns = self.clone();
        std::thread::spawn(move || {
            netns.enter()?;
            work()
        })
    }

    /// Moves the calling thread into the namespace.
    pub(crate) fn enter(&self) -> Result<()> {
        let file = File::open(self.path()).with_context(|| format!("no namespace {}", self.name()))?;
        setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", self.name()))
    }

    /// Runs `ip` on this namespace, words separated by blanks, and returns what it printed.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn ip(&self, words: &str) -> Result<String> {
        let mut ip = Command::new("ip");
        ip.args(["-n", self.name()]).args(words.split_whitespace());
        command::run(&mut ip, "", Duration::from_secs(10))?.success(&format!("ip {words}"))
    }

    /// Runs a program inside the namespace.
    ///
    /// # Errors
    /// When it cannot be started or does not end within `limit`.
    pub fn execute(&self, program: &mut Command, input: &str, limit: Duration) -> Result<Outcome> {
        self.run(|| command::run(program, input, limit))
    }

    /// Everything the kernel tells about links, addresses, routes and filters in here, without what changes by itself:
    /// two of these are equal when nothing was changed between them.
    ///
    /// # Errors
    /// When `ip` or `nft` fails.
    pub fn snapshot(&self) -> Result<String> {
        let mut nft = Command::new("nft");
        let rules =
            self.execute(nft.args(["list", "ruleset"]), "", Duration::from_secs(10))?.success("nft list")?;
        let all = [self.ip("-d -o link")?, self.ip("-o addr")?, self.ip("route")?, self.ip("rule")?, rules]
            .concat();
        Ok(without_what_moves(&all))
    }
}

/// Drops what changes by itself: a bridge's running timers, the counters of rules, and that an IPv6 address is still
/// being tried.
fn without_what_moves(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        while let Some(word) = words.next() {
            let counted = matches!(word, "packets" | "bytes");
            if counted || word.ends_with("_timer") {
                words.next();
            } else if word != "tentative" {
                kept.push_str(word);
                kept.push(' ');
            }
        }
        kept.push('\n');
    }
    kept
}

/// Makes `/run/netns` a shared mount, as the first `ip netns add` on a machine does: were it done later, by somebody
/// else, that mount would cover all ours.
fn prepare_home() -> Result<()> {
    std::fs::create_dir_all(HOME)?;
    let none: Option<&str> = None;
    let share = || mount(none, HOME, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none);
    // iproute2 takes the same lock.
    let home = File::open(HOME)?;
    home.lock()?;
    if share().is_err() {
        mount(Some(HOME), HOME, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
        share()?;
    }
    Ok(())
}

impl Drop for Owned {
    fn drop(&mut self) {
        remove(&Path::new(HOME).join(&self.name));
    }
}

/// Deletes one name under `/run/netns`; the namespace ends when the last process in it does.
fn remove(path: &Path) {
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = std::fs::remove_file(path);
}

/// Removes the namespaces of test processes that are no more: only names of ours, only when their pid is dead.
pub fn sweep() {
    each_of_ours(|path, pid| {
        if !Path::new("/proc").join(pid.to_string()).exists() {
            remove(path);
        }
    });
}

/// Removes every namespace this very process has made: for an end by signal, where nothing is dropped.
pub fn sweep_own() {
    each_of_ours(|path, pid| {
        if pid == std::process::id() {
            remove(path);
        }
    });
}

fn each_of_ours(mut visit: impl FnMut(&Path, u32)) {
    let Ok(entries) = std::fs::read_dir(HOME) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
        if let Some(pid) = pid {
            visit(&entry.path(), pid);
        }
    }
}

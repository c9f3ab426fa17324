//! What outlives a containerd that ends: shims and the processes of pods, mounts, cgroups. All of it carries the test's
//! own names, and nothing without them is touched.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What folders and cgroups of test processes begin with; the pid follows.
const PREFIX: &str = "weftt";
const CGROUPS: &str = "/sys/fs/cgroup";

/// Removes what a containerd has left: its home is the mark of shims and mounts, its cgroup that of processes.
pub(super) fn remove(home: &Path, cgroup: &str) {
    // The shims first: they would tidy up behind the processes, with calls to a containerd that is no more.
    end_shims(|words| words.contains(&*home.to_string_lossy()));
    for folder in controllers() {
        remove_cgroup(&folder.join(cgroup.trim_start_matches('/')));
    }
    unmount_below(home);
}

/// Removes what test processes that are no more have left.
pub(super) fn sweep() {
    let dead = |name: &str| {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    };
    end_shims(|words| words.split('/').any(dead));
    for folder in controllers() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if dead(&entry.file_name().to_string_lossy()) {
                remove_cgroup(&entry.path());
            }
        }
    }
    let temp = std::env::temp_dir();
    for entry in std::fs::read_dir(&temp).into_iter().flatten().flatten() {
        if dead(&entry.file_name().to_string_lossy()) {
            unmount_below(&entry.path());
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Every hierarchy of version 1, and that of version 2.
fn controllers() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(CGROUPS).into_iter().flatten().flatten();
    let folders = entries.map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists());
    folders.chain([PathBuf::from(CGROUPS)]).collect()
}

/// Kills the shims whose command line holds what is looked for.
fn end_shims(ours: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        if words.split('\0').next().is_some_and(|program| program.contains("containerd-shim")) && ours(&words)
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Ends every process in a cgroup and those below it, then removes them.
fn remove_cgroup(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_cgroup(&entry.path());
        }
    }
    // A killed process leaves its cgroup a moment later.
    for _ in 0..50 {
        let pids = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        for pid in pids.lines().filter_map(|line| line.parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        if std::fs::remove_dir(folder).is_ok() || !folder.exists() {
            return;
        }
        crate::deadline::pause(std::time::Duration::from_millis(20));
    }
}

/// Unmounts all that is mounted below a folder, the innermost first.
fn unmount_below(home: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut below: Vec<&Path> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(Path::new)
        .filter(|path| path.starts_with(home))
        .collect();
    below.sort();
    for path in below.into_iter().rev() {
        let _ = umount2(path, MntFlags::MNT_DETACH);
    }
}

//! The FORWARD chain of `iptables-legacy`, on hosts that use those tables.
//!
//! The kernel takes a whole table at a time there, in a form that only `iptables` masters, and without a word to those
//! who watch. So this is the one place where we run a program, and only when the tables are in use: the kernel
//! lists those that somebody has touched.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::error::Error;
use crate::names::BridgeName;
use crate::policy::{Accept, ForwardChain, ForwardChange, Locator, Marked, mark};

/// The tables in use, one per line, in the namespace of the calling thread.
const IN_USE: &str = "/proc/thread-self/net/ip_tables_names";
/// What the program is called; plain `iptables` may be the other backend's.
const PROGRAMS: [&str; 2] = ["iptables-legacy", "iptables"];
/// A service may have been started without the directories of the administrator.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long the program may wait for another of its kind, in seconds, and how long we wait for it.
const LOCK: &str = "3";
const DEADLINE: Duration = Duration::from_secs(5);

/// The chain that stands; None: the tables are not in use.
pub(super) async fn chain(bridge: &BridgeName) -> Result<Option<ForwardChain>, Error> {
    if !in_use() {
        return Ok(None);
    }
    let shown = iptables("read", &["-S".to_owned(), "FORWARD".to_owned()]).await?;
    Ok(Some(read(&shown, bridge)))
}

/// Makes these changes, one after the other.
pub(super) async fn write(bridge: &BridgeName, changes: &[ForwardChange]) -> Result<(), Error> {
    for change in changes {
        let (verb, words) = match change {
            ForwardChange::Insert { accept, .. } => ("-I", accept.words(bridge)),
            ForwardChange::Remove { at: Locator::Words(words), .. } => ("-D", words.clone()),
            // Rules of these tables have no number that lasts.
            ForwardChange::Remove { at: Locator::Handle(_), .. } => continue,
        };
        let arguments: Vec<String> = [verb, "FORWARD"].into_iter().map(str::to_owned).chain(words).collect();
        iptables("write", &arguments).await?;
    }
    Ok(())
}

fn in_use() -> bool {
    let names = std::fs::read_to_string(IN_USE).unwrap_or_default();
    names.lines().any(|name| name == "filter")
}

/// Reads what `iptables -S FORWARD` prints.
fn read(shown: &str, bridge: &BridgeName) -> ForwardChain {
    let mut chain = ForwardChain::default();
    let mark = mark(bridge);
    for line in shown.lines() {
        let words: Vec<String> =
            line.split_whitespace().map(|word| word.trim_matches('"').to_owned()).collect();
        match words.split_at_checked(2) {
            Some(([verb, _], [policy])) if verb == "-P" => chain.drops = policy != "ACCEPT",
            Some(([verb, _], rule)) if verb == "-A" => {
                if rule.windows(2).any(|pair| pair[0] == "--comment" && pair[1] == mark) {
                    let accept = Accept::ALL.into_iter().find(|accept| accept.words(bridge) == rule);
                    chain.ours.push(Marked { accept, at: Locator::Words(rule.to_vec()) });
                } else {
                    chain.foreign += 1;
                }
            }
            _ => {}
        }
    }
    chain
}

/// Runs `iptables-legacy` in the namespace of the calling thread; what it prints.
async fn iptables(operation: &'static str, arguments: &[String]) -> Result<String, Error> {
    let object = "FORWARD chain of iptables-legacy";
    for program in PROGRAMS {
        let failed = |error: &io::Error| Error::kernel(object, operation, error);
        match run(program, &["--version".to_owned()]).await {
            Ok((true, version, _)) if !version.contains("nf_tables") => {}
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(&error)),
        }
        let wait = ["-w", LOCK].map(str::to_owned);
        let all: Vec<String> = wait.into_iter().chain(arguments.iter().cloned()).collect();
        return match run(program, &all).await.map_err(|error| failed(&error))? {
            (true, said, _) => Ok(said),
            (false, _, complaint) => Err(failed(&io::Error::other(complaint.trim().to_owned()))),
        };
    }
    let cause = "this host uses it, but the program iptables-legacy is not installed here";
    Err(Error::refused(object, cause))
}

/// Runs a program to its end: whether it was content, what it printed, and what it complained of.
async fn run(program: &str, arguments: &[String]) -> io::Result<(bool, String, String)> {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", PATH).stdin(Stdio::null()).kill_on_drop(true);
    let ended = timeout(DEADLINE, command.output()).await;
    let output = ended.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.success(), text(&output.stdout), text(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_iptables_lists_is_read_and_ours_are_known_by_their_mark() {
        let shown = "-P FORWARD DROP\n\
            -A FORWARD -i weft -m comment --comment \"weft/weft\" -j ACCEPT\n\
            -A FORWARD -o weft -m conntrack --ctstate RELATED,ESTABLISHED -m comment --comment weft/weft -j ACCEPT\n\
            -A FORWARD -m comment --comment \"weft/weft\" -j ACCEPT\n\
            -A FORWARD -m comment --comment \"weft/other\" -j ACCEPT\n\
            -A FORWARD -i weft -j ACCEPT\n";
        let chain = read(shown, &BridgeName::default());
        let ours: Vec<Option<Accept>> = chain.ours.iter().map(|rule| rule.accept).collect();
        assert_eq!(ours, [Some(Accept::FromBridge), Some(Accept::Replies), None]);
        assert_eq!((chain.drops, chain.foreign), (true, 2));
        assert_eq!(read("-P FORWARD ACCEPT\n", &BridgeName::default()), ForwardChain::default());
        assert_eq!(read("", &BridgeName::default()), ForwardChain::default());
    }
}

//! One host: a namespace on the underlay in which `weft` runs as a user would run it.

mod answer;
mod carrier;
mod mesh;

pub use answer::{address_in, connection, first_address, peer, reachable};
pub use carrier::{CARRIER_LIMIT, wait_all_on};
pub use mesh::{attach_each, mesh, settle};

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::command::Outcome;
use crate::container::Container;
use crate::deadline;
use crate::netns::Netns;
use crate::process::Process;

/// The longest a client command may take: nothing in the product waits longer than its own deadlines.
const CLIENT_LIMIT: Duration = Duration::from_secs(45);
/// How long a router may take until it answers, and until it can serve.
const READY_LIMIT: Duration = Duration::from_secs(15);

/// A host, and its router while one runs.
#[derive(Debug)]
pub struct Host {
    name: String,
    addresses: Vec<Ipv4Addr>,
    home: PathBuf,
    log: PathBuf,
    secret: Option<String>,
    capture: Option<String>,
    clock: i64,
    under: Vec<String>,
    environment: Vec<(String, String)>,
    router: Option<Process>,
    netns: Netns,
}

impl Host {
    pub(crate) fn new(name: &str, netns: Netns, addresses: Vec<Ipv4Addr>, home: &Path) -> Result<Self> {
        let log = home.join(format!("{name}.log"));
        let home = home.join(name);
        std::fs::create_dir_all(&home)?;
        Ok(Self {
            name: name.to_owned(),
            addresses,
            home,
            log,
            secret: None,
            capture: None,
            clock: 0,
            under: Vec::new(),
            environment: Vec::new(),
            router: None,
            netns,
        })
    }

    /// The nickname its router gets.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Its address on the first segment it stands on.
    pub fn address(&self) -> Ipv4Addr {
        self.addresses.first().copied().unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    /// Its addresses, one per segment.
    pub fn addresses(&self) -> &[Ipv4Addr] {
        &self.addresses
    }

    /// The secret later launches use.
    pub fn set_secret(&mut self, secret: &str) {
        self.secret = Some(secret.to_owned());
    }

    /// How later launches capture frames (`--capture`, by its environment variable).
    pub fn set_capture(&mut self, capture: &str) {
        self.capture = Some(capture.to_owned());
    }

    /// By how many seconds the steady clock of later launches is ahead of this machine's: another time namespace.
    pub fn set_clock(&mut self, seconds: i64) {
        self.clock = seconds;
    }

    /// The program, with its arguments, that starts later launches: one that takes something away first.
    pub fn set_under(&mut self, words: &[&str]) {
        self.under = words.iter().map(|&word| word.to_owned()).collect();
    }

    /// A variable in the environment of later launches.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// The secret later launches use; empty when there is none.
    pub fn secret(&self) -> String {
        self.secret.clone().unwrap_or_default()
    }

    /// The state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.home.join("state")
    }

    /// The API socket.
    pub fn socket(&self) -> PathBuf {
        self.home.join("weft.sock")
    }

    /// All that its routers have logged so far.
    ///
    /// # Errors
    /// When there is no log yet.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(&self.log).context("no log")
    }

    /// Starts a router with its own state directory, socket and nickname, and these further arguments. Returns at
    /// once: [`Self::wait_ready`] waits.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self, arguments: &[&str]) -> Result<()> {
        let mut weft = self.launcher()?;
        weft.arg("launch").args(["--nickname", &self.name]).arg("--state-dir").arg(self.state_dir());
        weft.args(["--log", "info"]).args(arguments);
        match &self.secret {
            Some(secret) => weft.env("WEFT_SECRET", secret),
            None => weft.env_remove("WEFT_SECRET"),
        };
        if let Some(capture) = &self.capture {
            weft.env("WEFT_CAPTURE", capture);
        }
        self.router = Some(Process::start(&self.netns, weft, &self.log)?);
        Ok(())
    }

    /// Starts a second router here and lets it end by itself: for launches that must be refused.
    ///
    /// # Errors
    /// When it has not ended within ten seconds.
    pub fn launch_refused(&self, arguments: &[&str]) -> Result<Outcome> {
        let mut weft = self.binary()?;
        weft.arg("launch").args(arguments);
        self.netns.execute(&mut weft, "", Duration::from_secs(10))
    }

    /// The binary with this host's environment, clock and whatever is to start it.
    fn launcher(&self) -> Result<Command> {
        let seconds = self.clock.to_string();
        let elsewhen = ["unshare", "--time", "--monotonic", &seconds, "--boottime", &seconds];
        let elsewhen = elsewhen.iter().filter(|_| self.clock != 0).map(|&word| word.to_owned());
        let mut words = elsewhen.chain(self.under.iter().cloned());
        let mut command = match words.next() {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(words).arg(binary()?);
                command
            }
            None => Command::new(binary()?),
        };
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(self.named(command))
    }

    /// The binary with this host's environment.
    fn binary(&self) -> Result<Command> {
        Ok(self.named(Command::new(binary()?)))
    }

    fn named(&self, mut command: Command) -> Command {
        command.env("WEFT_SOCKET", self.socket()).env("NO_COLOR", "1");
        command
    }

    /// Runs a client command against this host's router.
    ///
    /// # Errors
    /// When it does not end in time; a non-zero exit code is an answer, not an error.
    pub fn weft(&self, arguments: &[&str]) -> Result<Outcome> {
        let mut weft = self.binary()?;
        weft.args(arguments);
        self.netns.execute(&mut weft, "", CLIENT_LIMIT)
    }

    /// Runs a client command that must succeed, and returns what it printed.
    ///
    /// # Errors
    /// When its exit code is not 0.
    pub fn expect(&self, arguments: &[&str]) -> Result<String> {
        self.weft(arguments)?.success(&format!("weft {} on {}", arguments.join(" "), self.name))
    }

    /// The status document.
    ///
    /// # Errors
    /// When no router answers or the document is not JSON.
    pub fn status(&self) -> Result<Value> {
        let text = self.expect(&["status", "-o", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("status is not JSON: {text}"))
    }

    /// The peer name of the router.
    ///
    /// # Errors
    /// When no router answers.
    pub fn peer_name(&self) -> Result<String> {
        let status = self.status()?;
        Ok(status["peer"]["name"].as_str().context("status has no peer.name")?.to_owned())
    }

    /// Waits until the router answers and `holds` is true of its status, which is returned.
    ///
    /// # Errors
    /// When `limit` passes; the message holds the last status.
    pub fn wait_status(&self, what: &str, limit: Duration, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut last = Value::Null;
        let found = deadline::until(&format!("{}: {what}", self.name), limit, || {
            last = self.status()?;
            Ok(holds(&last).then(|| last.clone()))
        });
        found.map(|(status, _)| status).with_context(|| format!("the last status was {last:#}"))
    }

    /// Waits until the router can serve.
    ///
    /// # Errors
    /// When it is not ready in time or has ended.
    pub fn wait_ready(&mut self) -> Result<Value> {
        let begin = deadline::now();
        loop {
            if let Some(code) = self.process()?.ended()? {
                bail!("the router of {} ended with {code}:\n{}", self.name, self.log()?);
            }
            if let Ok(status) = self.status()
                && status["ready"] == true
            {
                return Ok(status);
            }
            if begin.elapsed() > READY_LIMIT {
                let said = self.weft(&["status"])?;
                bail!("{} is not ready after {READY_LIMIT:?}: {}{}", self.name, said.stdout, said.stderr);
            }
            deadline::pause(Duration::from_millis(20));
        }
    }

    /// Waits until exactly these nicknames are known and reachable.
    ///
    /// # Errors
    /// When that does not come true in time.
    pub fn wait_reaches(&self, nicknames: &[&str], limit: Duration) -> Result<Value> {
        self.wait_status(&format!("reaches {nicknames:?}"), limit, |status| {
            let mut reached = reachable(status);
            let mut wanted: Vec<String> = nicknames.iter().map(|&name| name.to_owned()).collect();
            reached.sort();
            wanted.sort();
            reached == wanted
        })
    }

    /// The running router.
    ///
    /// # Errors
    /// When none was launched.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.router.as_mut().ok_or_else(|| anyhow!("no router on {}", self.name))
    }

    /// The log of the running router, its pid and figures.
    ///
    /// # Errors
    /// When none was launched.
    pub fn running(&self) -> Result<&Process> {
        self.router.as_ref().ok_or_else(|| anyhow!("no router on {}", self.name))
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When none was launched.
    pub fn kill(&mut self) -> Result<()> {
        self.router.take().ok_or_else(|| anyhow!("no router on {}", self.name)).map(drop)
    }

    /// `kill -9` of many at once: each takes its time to go, but none of them waits for another.
    ///
    /// # Errors
    /// When none was launched on one of them.
    pub fn kill_all(hosts: &mut [Self]) -> Result<()> {
        for host in hosts.iter_mut() {
            host.process()?.signal(Signal::SIGKILL)?;
        }
        hosts.iter_mut().try_for_each(Self::kill)
    }

    /// SIGTERM, and waits for the end; returns the exit code.
    ///
    /// # Errors
    /// When it does not end within ten seconds.
    pub fn terminate(&mut self) -> Result<i32> {
        let mut router = self.router.take().ok_or_else(|| anyhow!("no router on {}", self.name))?;
        router.signal(Signal::SIGTERM)?;
        router.wait(Duration::from_secs(10))
    }

    /// SIGSTOP: the process stands still, its sockets stay open.
    ///
    /// # Errors
    /// When none runs.
    pub fn freeze(&mut self) -> Result<()> {
        self.process()?.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When none runs.
    pub fn thaw(&mut self) -> Result<()> {
        self.process()?.signal(Signal::SIGCONT)
    }

    /// Attaches a container and remembers its address in it.
    ///
    /// # Errors
    /// When `weft attach` fails or prints no address.
    pub fn attach(&self, container: &mut Container) -> Result<Ipv4Addr> {
        self.attach_with(container, &[])
    }

    /// Attaches a container with further arguments; the first address printed is remembered.
    ///
    /// # Errors
    /// When `weft attach` fails or prints no address.
    pub fn attach_with(&self, container: &mut Container, arguments: &[&str]) -> Result<Ipv4Addr> {
        let mut words = vec!["attach"];
        words.extend(arguments);
        words.push(container.netns().name());
        let address = first_address(&self.expect(&words)?)?;
        container.set_address(address);
        Ok(address)
    }

    /// Asks for an address without wiring; the whole outcome, because "not now" is an answer too.
    ///
    /// # Errors
    /// When the command does not end.
    pub fn allocate(&self, id: &str) -> Result<Outcome> {
        self.weft(&["ipam", "allocate", "--timeout", "3s", "--id", id])
    }

    /// Asks for an address that must be given.
    ///
    /// # Errors
    /// When it is not.
    pub fn allocated(&self, id: &str) -> Result<Ipv4Addr> {
        address_in(&self.expect(&["ipam", "allocate", "--id", id])?)
    }

    /// The address this host's router has on record for an id; none when it knows of none.
    ///
    /// # Errors
    /// When the command does not end.
    pub fn lookup(&self, id: &str) -> Result<Option<Ipv4Addr>> {
        let outcome = self.weft(&["ipam", "lookup", "--id", id])?;
        if outcome.code == 1 { Ok(None) } else { address_in(&outcome.success("weft ipam lookup")?).map(Some) }
    }

    /// Adds a peer by address.
    ///
    /// # Errors
    /// When the command fails.
    pub fn peer_add(&self, other: &Self) -> Result<()> {
        self.expect(&["peer", "add", &other.address().to_string()]).map(drop)
    }
}

/// The `weft` binary: `WEFT_BIN`, or the one this test was built beside.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("WEFT_BIN") {
        return std::fs::canonicalize(&named).with_context(|| format!("WEFT_BIN: {}", named.display()));
    }
    // target/<profile>/deps/<test>, or target/<profile>/<program>.
    let here = std::env::current_exe()?;
    let beside =
        here.ancestors().skip(1).take(2).map(|folder| folder.join("weft")).find(|path| path.is_file());
    beside.context("no weft binary: set WEFT_BIN, or run `cargo build -p weft-router`")
}

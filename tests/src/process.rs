//! One running router: started inside a namespace, its log in a file, ended when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Netns;
use crate::{command, deadline, sys};

/// A child process that lives no longer than this value, nor than this test run.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
    /// The thread that spawned the child: the kernel kills the child when it ends, so it stays until we are done.
    keeper: Option<(mpsc::Sender<()>, JoinHandle<()>)>,
}

impl Process {
    /// Starts `program` inside `netns` with both outputs appended to `log`.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be started.
    pub fn start(netns: &Netns, mut program: Command, log: &Path) -> Result<Self> {
        let what = command::describe(&program);
        let out = File::options().create(true).append(true).open(log).context("cannot open the log")?;
        program.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        sys::die_with_parent(&mut program);
        let (stay, told_to_go) = mpsc::channel::<()>();
        let (born, birth) = mpsc::channel();
        let inside = netns.clone();
        let keeper = std::thread::spawn(move || {
            let child = inside.enter().and_then(|()| Ok(program.spawn()?));
            drop(inside);
            if born.send(child).is_ok() {
                let _ = told_to_go.recv();
            }
        });
        let child =
            birth.recv().context("the keeper ended")?.with_context(|| format!("cannot start: {what}"))?;
        Ok(Self { child, log: log.to_path_buf(), keeper: Some((stay, keeper)) })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that holds everything it wrote.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal, unless the process has already ended.
    ///
    /// # Errors
    /// When it has ended, or the kernel refuses.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            return Err(anyhow!("it has already ended: {status}"));
        }
        let pid = i32::try_from(self.child.id())?;
        kill(Pid::from_raw(pid), signal).context("cannot send the signal")
    }

    /// The exit code, once it has ended.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        Ok(self.child.try_wait()?.map(command::exit_code))
    }

    /// Waits for the end and returns the exit code.
    ///
    /// # Errors
    /// When it is still running after `limit`.
    pub fn wait(&mut self, limit: Duration) -> Result<i32> {
        deadline::until("the process ends", limit, || self.ended()).map(|(code, _)| code)
    }

    /// Ends it the hard way, at once.
    pub fn kill(&mut self) {
        command::end(&mut self.child);
    }

    /// Processor time used since its start.
    ///
    /// # Errors
    /// When it has ended.
    pub fn processor_time(&self) -> Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // The command name may hold blanks; the fields after the closing bracket begin with number 3.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
        let (Some(user), Some(system)) = (ticks(11), ticks(12)) else {
            return Err(anyhow!("cannot read /proc/{}/stat: {stat}", self.pid()));
        };
        Ok(Duration::from_secs_f64((user + system) / sys::clock_ticks()))
    }

    /// Resident memory, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS: it has ended")?;
        let kib: u64 = line.split_whitespace().next().context("VmRSS is empty")?.parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if let Some((stay, keeper)) = self.keeper.take() {
            drop(stay);
            let _ = keeper.join();
        }
    }
}

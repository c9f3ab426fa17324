//! One plugin process: any environment, any input, a deadline, and a clock around all of it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Answer, Attachment, Failure};
use crate::{command, deadline};

/// How long a plugin may run unless told otherwise: more than any promise of the product.
const LIMIT: Duration = Duration::from_secs(30);
/// Where plugins find `iptables` and its like.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The verbs of CNI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the specification's own words")]
pub enum Verb {
    Add,
    Del,
    Check,
    Gc,
    Status,
    Version,
}

impl Verb {
    /// As it stands in `CNI_COMMAND`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
            Self::Version => "VERSION",
        }
    }
}

/// What a plugin process will be given.
#[derive(Debug, Clone)]
pub struct Call {
    program: PathBuf,
    environment: BTreeMap<OsString, OsString>,
    input: Vec<u8>,
    limit: Duration,
    /// The most address space it may have, in bytes.
    memory: Option<u64>,
}

/// A plugin process that has been started.
#[derive(Debug)]
pub struct Running {
    plugin: String,
    child: Child,
    /// Standard output, standard error.
    outputs: [File; 2],
    begin: Instant,
    limit: Duration,
}

impl Call {
    /// A call with nothing but a `PATH`.
    pub fn bare(program: &Path) -> Self {
        let environment = BTreeMap::from([("PATH".into(), PATH.into())]);
        Self { program: program.to_owned(), environment, input: Vec::new(), limit: LIMIT, memory: None }
    }

    /// A call as a runtime makes it; the attachment is left out for VERSION, STATUS and GC.
    pub fn new(program: &Path, verb: Verb, attachment: Option<&Attachment>, input: &[u8]) -> Self {
        let folder = program.parent().unwrap_or(Path::new("/"));
        let mut call = Self::bare(program).env("CNI_COMMAND", verb.word()).env("CNI_PATH", folder);
        if let Some(attachment) = attachment {
            call =
                call.env("CNI_CONTAINERID", &attachment.container_id).env("CNI_IFNAME", &attachment.ifname);
            if let Some(netns) = &attachment.netns {
                call = call.env("CNI_NETNS", netns);
            }
            if !attachment.args.is_empty() {
                call = call.env("CNI_ARGS", attachment.joined_args());
            }
        }
        call.input = input.to_vec();
        call
    }

    /// With this variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.into(), value.as_ref().to_owned());
        self
    }

    /// Without this variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.environment.remove(OsStr::new(name));
        self
    }

    /// With this on standard input.
    #[must_use]
    pub fn input(mut self, input: &[u8]) -> Self {
        input.clone_into(&mut self.input);
        self
    }

    /// With this much time.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// With no more address space than this, in bytes.
    #[must_use]
    pub fn within_memory(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Runs it to its end, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When it cannot be started or is not done in time; a refusal is an answer.
    pub fn run(&self) -> Result<Answer, Failure> {
        self.start()?.finish()
    }

    /// Starts it, in the network namespace of the calling thread. Nothing is done between fork and exec, so no page of
    /// ours is copied, as it is with a real runtime: with hundreds of threads that would cost more than the plugin. What
    /// a killed run leaves ends by itself, at its own deadline.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> Result<Running, Failure> {
        let plugin = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let not_started = |reason: String| Failure::NotStarted { plugin: plugin.clone(), reason };
        let mut command = match self.memory {
            Some(bytes) => {
                let mut limited = Command::new("prlimit");
                limited.arg(format!("--as={bytes}")).arg(&self.program);
                limited
            }
            None => Command::new(&self.program),
        };
        command.env_clear().envs(&self.environment);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let begin = deadline::now();
        let mut child = command.spawn().map_err(|error| not_started(error.to_string()))?;
        let (Some(mut stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(not_started("no pipes".to_owned()));
        };
        if self.input.len() <= 4096 {
            // One page always fits into the pipe. A plugin that ended before is a broken pipe: its answer counts.
            let _ = stdin.write_all(&self.input);
        } else {
            let input = self.input.clone();
            std::thread::spawn(move || stdin.write_all(&input));
        }
        let outputs = [OwnedFd::from(stdout), OwnedFd::from(stderr)].map(File::from);
        Ok(Running { plugin, child, outputs, begin, limit: self.limit })
    }
}

impl Running {
    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9` when this much time has passed since its start, or at its end if that comes first.
    ///
    /// # Errors
    /// When the answer cannot be read.
    pub fn kill_after(mut self, delay: Duration) -> Result<Answer, Failure> {
        while self.begin.elapsed() < delay {
            std::hint::spin_loop();
        }
        let _ = self.child.kill();
        self.finish()
    }

    /// Waits for its end and returns what it left.
    ///
    /// # Errors
    /// When it is still running at its deadline; it is killed then.
    pub fn finish(mut self) -> Result<Answer, Failure> {
        let Some([stdout, stderr]) = self.collect() else {
            command::end(&mut self.child);
            return Err(Failure::Late { plugin: self.plugin, limit: self.limit });
        };
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if self.begin.elapsed() < self.limit => deadline::pause(Duration::from_micros(50)),
                Ok(None) | Err(_) => {
                    command::end(&mut self.child);
                    return Err(Failure::Late { plugin: self.plugin, limit: self.limit });
                }
            }
        };
        let took = self.begin.elapsed();
        Ok(Answer {
            plugin: self.plugin,
            code: command::exit_code(status),
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            took,
        })
    }

    /// Reads both outputs to their ends; none when the deadline comes first.
    fn collect(&mut self) -> Option<[Vec<u8>; 2]> {
        let mut read = [Vec::new(), Vec::new()];
        let mut open = vec![0, 1];
        while !open.is_empty() {
            let rest = self.limit.checked_sub(self.begin.elapsed())?;
            let patience = PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX);
            let polled = |which: &usize| PollFd::new(self.outputs[*which].as_fd(), PollFlags::POLLIN);
            let mut pipes: Vec<PollFd<'_>> = open.iter().map(polled).collect();
            match poll(&mut pipes, patience) {
                Ok(0) => return None,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => break,
            }
            let ready: Vec<bool> = pipes.iter().map(|pipe| pipe.any().unwrap_or_default()).collect();
            let mut ready = ready.into_iter();
            open.retain(|&which| {
                !ready.next().unwrap_or_default() || take(&mut self.outputs[which], &mut read[which])
            });
        }
        Some(read)
    }
}

/// Takes what has come; false at the end.
fn take(pipe: &mut impl Read, into: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 16_384];
    match pipe.read(&mut buffer) {
        Ok(0) | Err(_) => false,
        Ok(length) => {
            into.extend_from_slice(&buffer[..length]);
            true
        }
    }
}

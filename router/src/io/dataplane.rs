//! The thread that drives the data half: waits, reads, runs to completion, writes.
//!
//! One OS thread owns the sockets, the capture and the machine. It waits for the UDP sockets, the capture, commands
//! (a bounded queue and an eventfd) and the machine's next deadline. Each pass takes at most a budget from every
//! source, so none starves another. Reports go into a bounded channel; what does not fit waits here, bounded too.
//! The capture interface may vanish and come back: it is opened again with backoff, and links live on meanwhile.

use super::{
    capture::{Capture, CaptureKind, CaptureMode},
    udp::{Sent, Sockets},
};
use crate::{
    dataplane::{Command, Dataplane, Event, Output, Setup, ShellCounters},
    sleeve::keys::KeyLimits,
};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::{EfdFlags, EventFd},
};
use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use weft_gossip::PeerName;

/// Commands that may wait; the control half sends a handful per topology change.
const COMMANDS: usize = 4096;
/// Reports that may wait for a control half that is busy, beyond what the channel holds.
const BACKLOG: usize = 4096;
/// Reads from each source before the others get their turn and the clock is read again.
const ROUNDS: usize = 8;
const BACKLOG_RETRY: Duration = Duration::from_millis(20);
const REOPEN: std::ops::Range<Duration> = Duration::from_millis(50)..Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What the data half is told when it starts.
#[derive(Debug, Clone)]
pub struct DataplaneConfig {
    /// This router.
    pub me: PeerName,
    /// Whether there is a secret.
    pub encrypted: bool,
    /// Where keys come from: 32 bytes from the operating system.
    pub seed: [u8; 32],
    /// UDP address of the sleeve; unspecified for all addresses of both families.
    pub listen: SocketAddr,
    /// The capture end of the sleeve port.
    pub interface: String,
    /// MTU of the containers, and of that interface.
    pub mtu: u16,
    /// How to capture.
    pub capture: CaptureMode,
}

/// The running data half; it ends when this is dropped.
pub struct DataplaneHandle {
    commands: SyncSender<Command>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    port: u16,
    capture: CaptureKind,
}

struct Shared {
    wake: EventFd,
    stop: AtomicBool,
}

/// The command was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The data half does not keep up.
    #[error("the data half has {COMMANDS} commands waiting")]
    Full,
    /// The data half has ended.
    #[error("the data half has ended")]
    Ended,
}

impl DataplaneHandle {
    /// Hands over a command; never blocks.
    ///
    /// # Errors
    /// When the queue is full or the thread has ended; the command is dropped then.
    pub fn send(&self, command: Command) -> Result<(), SendError> {
        self.commands.try_send(command).map_err(|error| match error {
            std::sync::mpsc::TrySendError::Full(_) => SendError::Full,
            std::sync::mpsc::TrySendError::Disconnected(_) => SendError::Ended,
        })?;
        // A full eventfd counter is awake already.
        let _ = self.shared.wake.write(1);
        Ok(())
    }

    /// The UDP port of the sleeve.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How frames are captured.
    pub fn capture(&self) -> CaptureKind {
        self.capture
    }
}

impl Drop for DataplaneHandle {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let _ = self.shared.wake.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Binds the sockets, opens the capture and starts the thread. The channel closes when the thread ends.
///
/// # Errors
/// When a socket cannot be bound or the capture cannot be opened. An interface that is not there yet is waited for.
pub fn spawn(config: DataplaneConfig, events: mpsc::Sender<Event>) -> io::Result<DataplaneHandle> {
    let sockets = Sockets::bind(config.listen)?;
    let port = sockets.port()?;
    let kind = config.capture.resolve();
    let capture = match kind.open(&config.interface, config.mtu) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        opened => Some(opened?),
    };
    let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
    let shared = Arc::new(Shared { wake, stop: AtomicBool::new(false) });
    let (commands, inbox) = sync_channel(COMMANDS);
    let setup = Setup {
        me: config.me,
        encrypted: config.encrypted,
        hardware_aes: hardware_aes(),
        seed: config.seed,
        limits: KeyLimits::default(),
    };
    let counters = ShellCounters { capture_opened: capture.is_some().into(), ..ShellCounters::default() };
    let shell = Shell {
        machine: Dataplane::new(setup, now()),
        sockets,
        capture,
        reopen: REOPEN.start,
        reopen_at: None,
        kind,
        config,
        inbox,
        shared: Arc::clone(&shared),
        events,
        backlog: VecDeque::new(),
        too_large: Vec::new(),
        counters,
    };
    let thread = std::thread::Builder::new().name("weft-data".into()).spawn(move || shell.run())?;
    Ok(DataplaneHandle { commands, shared, thread: Some(thread), port, capture: kind })
}

#[expect(clippy::disallowed_methods, reason = "the shell in io/ reads the clock")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(target_arch = "x86_64")]
fn hardware_aes() -> bool {
    std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn hardware_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn hardware_aes() -> bool {
    false
}

/// What the thread owns.
struct Shell {
    machine: Dataplane,
    sockets: Sockets,
    capture: Option<Box<dyn Capture>>,
    /// The next pause before the capture is opened again, and when it ends.
    reopen: Duration,
    reopen_at: Option<Instant>,
    kind: CaptureKind,
    config: DataplaneConfig,
    inbox: Receiver<Command>,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    backlog: VecDeque<Event>,
    too_large: Vec<(SocketAddr, usize)>,
    counters: ShellCounters,
}

impl Shell {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) && !self.events.is_closed() {
            if let Err(error) = self.wait() {
                tracing::error!(%error, "the data half cannot wait for its sockets any more");
                return;
            }
            self.commands();
            self.traffic();
            let now = now();
            if self.machine.poll_timeout().is_some_and(|due| now >= due) {
                self.machine.handle_timeout(now);
            }
            self.drain(now);
            self.reopen(now);
        }
    }

    /// Waits until there is something to do.
    fn wait(&mut self) -> io::Result<()> {
        let now = now();
        let retry = (!self.backlog.is_empty()).then(|| now + BACKLOG_RETRY);
        let missing = self.capture.is_none().then(|| self.reopen_at.unwrap_or(now));
        let due = [self.machine.poll_timeout(), retry, missing].into_iter().flatten().min();
        let pause = due.map_or(LONGEST_WAIT, |due| due.saturating_duration_since(now).min(LONGEST_WAIT));
        // Rounded up: waking a moment too early would mean waking twice.
        let pause =
            Duration::from_millis(u64::try_from(pause.as_micros().div_ceil(1000)).unwrap_or(u64::MAX));
        let readable = PollFlags::POLLIN;
        // The wake-up, at most two sockets, and the capture, which stands first; unused places wait for no event.
        let wake = self.shared.wake.as_fd();
        let mut fds = [const { PollFlags::empty() }; 4].map(|nothing| PollFd::new(wake, nothing));
        let capture = self.capture.as_ref().map(|capture| capture.fd());
        let used = capture.into_iter().chain([wake]).chain(self.sockets.fds());
        for (place, fd) in fds.iter_mut().zip(used) {
            *place = PollFd::new(fd, readable);
        }
        match poll(&mut fds, PollTimeout::try_from(pause).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let broken = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
        let last = fds[0].revents().unwrap_or(PollFlags::empty());
        if self.capture.is_some() && last.intersects(broken) {
            self.lose_capture(&io::Error::from_raw_os_error(libc::ENETDOWN), now);
        }
        Ok(())
    }

    fn commands(&mut self) {
        let _ = self.shared.wake.read();
        let now = now();
        while let Ok(command) = self.inbox.try_recv() {
            if matches!(command, Command::Counters) {
                self.counters.capture_dropped += self.capture.as_mut().map_or(0, |capture| capture.dropped());
            }
            self.machine.handle_command(command, now);
        }
        self.drain(now);
    }

    /// Reads from the sockets and the capture in turn, until both are empty or the budget is used up.
    fn traffic(&mut self) {
        for _ in 0..ROUNDS {
            let now = now();
            let Self { machine, sockets, counters, .. } = self;
            let mut more =
                sockets.receive(&mut |from, bytes| machine.handle_datagram(from, bytes, now), counters);
            self.drain(now);
            let Some(capture) = &mut self.capture else { break };
            let machine = &mut self.machine;
            let taken = capture.receive(&mut |frame, vnet| machine.handle_captured(frame, vnet, now));
            self.drain(now);
            match taken {
                Ok(frames) => more |= frames > 0,
                Err(error) => self.lose_capture(&error, now),
            }
            if !more {
                break;
            }
        }
    }

    /// Does what the machine wants done.
    fn drain(&mut self, now: Instant) {
        let mut inject_failed = 0;
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Transmit { to, segment, bytes } => {
                    if self.sockets.send(to, segment, bytes, &mut self.counters) == Sent::TooLarge {
                        self.too_large.push((to, segment.min(bytes.len())));
                    }
                }
                Output::Inject { frame, vnet } => {
                    let injected = self.capture.as_mut().map(|capture| capture.inject(frame, vnet));
                    inject_failed += u32::from(!matches!(injected, Some(Ok(()))));
                }
                Output::Event(event) => {
                    if self.backlog.len() >= BACKLOG {
                        self.backlog.pop_front();
                        self.counters.events_lost += 1;
                    }
                    self.backlog.push_back(event);
                }
            }
        }
        for _ in 0..inject_failed {
            self.machine.handle_inject_failed();
        }
        for (to, size) in self.too_large.drain(..) {
            self.machine.handle_too_large(to, size, now);
        }
        self.deliver();
    }

    /// Hands reports over as long as the control half takes them.
    fn deliver(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            let event = self.complete(event);
            if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
                self.backlog.push_front(event);
                return;
            }
        }
    }

    /// Adds what only this thread counts.
    fn complete(&self, event: Event) -> Event {
        match event {
            Event::Counters(mut counters) => {
                counters.shell = self.counters.clone();
                counters.shell.capture =
                    self.capture.as_ref().map(|_| self.kind.to_string()).unwrap_or_default();
                Event::Counters(counters)
            }
            event @ (Event::Announce { .. }
            | Event::LinkUp { .. }
            | Event::LinkSuspect { .. }
            | Event::LinkDown { .. }
            | Event::LinkChanged { .. }
            | Event::Behind { .. }) => event,
        }
    }

    fn lose_capture(&mut self, error: &io::Error, now: Instant) {
        tracing::warn!(interface = self.config.interface, %error, "the capture interface is gone");
        self.capture = None;
        self.reopen_at = Some(now + self.reopen);
    }

    fn reopen(&mut self, now: Instant) {
        if self.capture.is_some() || self.reopen_at.is_some_and(|at| now < at) {
            return;
        }
        match self.kind.open(&self.config.interface, self.config.mtu) {
            Ok(capture) => {
                tracing::info!(interface = self.config.interface, kind = %self.kind, "capturing");
                self.capture = Some(capture);
                self.counters.capture_opened += 1;
                self.reopen = REOPEN.start;
            }
            Err(error) => {
                tracing::debug!(interface = self.config.interface, %error, "cannot capture yet");
                self.reopen = (self.reopen * 2).min(REOPEN.end);
                self.reopen_at = Some(now + self.reopen);
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! Small datagrams: the highest rate that arrives with no more than 1 % lost.
//!
//! First everything the sender can make (a blast): when that arrives, it is the answer. Else a search by halves between
//! what was lost and what was not. The receiver's own buffer is large, so that the path is measured and not its reader;
//! the sender sleeps between bursts instead of spinning, because it shares the processors with what it measures.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use weft_tests::{Netns, deadline};

use crate::stage::Stage;

/// The UDP payload.
const SIZE: usize = 64;
const PORT: u16 = 7200;
/// The loss that still counts as none.
const LOSS: f64 = 0.01;
/// How often a paced sender wakes.
const PACE: Duration = Duration::from_micros(100);
/// What comes later than this after the sender has stopped is lost.
const LATE: Duration = Duration::from_millis(300);
const BUFFER: usize = 16 << 20;

/// How hard to search.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// Rates to try after the blast.
    pub(super) steps: usize,
    /// How long each is offered.
    pub(super) step: Duration,
}

/// One rate offered: what was sent and what arrived, a second.
#[derive(Debug, Clone, Copy)]
struct Offer {
    sent: f64,
    received: f64,
}

impl Offer {
    fn is_whole(self) -> bool {
        self.received >= self.sent * (1.0 - LOSS)
    }
}

/// The highest rate found, in datagrams that arrived a second.
pub(super) fn highest_rate(stage: &Stage, effort: Effort) -> Result<f64> {
    let (from, to) = (&stage.containers[0], &stage.containers[1]);
    let receiver = Receiver::start(to.netns())?;
    let mut run = 0;
    let mut offer = |rate: Option<f64>| {
        run += 1;
        offer(from.netns(), to.address(), &receiver, Burst { run, rate, time: effort.step })
    };
    let blast = offer(None)?;
    if blast.is_whole() {
        return Ok(blast.received);
    }
    let (mut good, mut bad, mut best) = (0.0, blast.sent, None);
    // What survives an overload is a fair first guess.
    let mut rate = blast.received.max(blast.sent / 8.0);
    for _ in 0..effort.steps {
        let found = offer(Some(rate))?;
        if found.is_whole() {
            good = rate;
            best = Some(found.received.max(best.unwrap_or_default()));
        } else {
            bad = rate;
        }
        rate = f64::midpoint(good, bad);
    }
    best.with_context(|| format!("more than 1 % was lost at every rate tried, down to {bad:.0} a second"))
}

/// One rate to offer: none is as fast as it goes.
#[derive(Debug, Clone, Copy)]
struct Burst {
    run: u32,
    rate: Option<f64>,
    time: Duration,
}

fn offer(from: &Netns, to: Ipv4Addr, receiver: &Receiver, burst: Burst) -> Result<Offer> {
    receiver.expect(burst.run);
    let (sent, took) = from.run(|| send(to, burst))?;
    receiver.settle();
    let received = receiver.count.load(Ordering::Acquire);
    let second = took.as_secs_f64();
    Ok(Offer { sent: f64::from(sent) / second, received: received as f64 / second })
}

/// Sends one burst; returns how many datagrams in how much time.
fn send(to: Ipv4Addr, burst: Burst) -> Result<(u32, Duration)> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((to, PORT)).context("no route")?;
    let mut payload = [0; SIZE];
    payload[..4].copy_from_slice(&burst.run.to_be_bytes());
    let begin = deadline::now();
    let (mut sent, mut passed) = (0_u32, Duration::ZERO);
    while passed < burst.time {
        let due = burst.rate.map_or(f64::INFINITY, |rate| passed.as_secs_f64() * rate);
        // The clock is read once a few datagrams, not once each.
        for _ in 0..32 {
            if f64::from(sent) >= due {
                deadline::pause(PACE);
                break;
            }
            payload[4..8].copy_from_slice(&sent.to_be_bytes());
            // A refusal (no buffer) is a lost datagram: it was offered.
            let _ = socket.send(&payload);
            sent += 1;
        }
        passed = begin.elapsed();
    }
    ensure!(sent > 0, "nothing was sent");
    Ok((sent, passed))
}

/// Counts what arrives of one run at a time, each datagram once.
struct Receiver {
    run: Arc<AtomicU32>,
    count: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Receiver {
    fn start(netns: &Netns) -> Result<Self> {
        let (run, count, stop) = (Arc::default(), Arc::default(), Arc::default());
        let shared = (Arc::clone(&run), Arc::clone(&count), Arc::clone(&stop));
        let socket = netns.run(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?))?;
        if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
        }
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let thread = std::thread::spawn(move || receive(&socket, &shared.0, &shared.1, &shared.2));
        Ok(Self { run, count, stop, thread: Some(thread) })
    }

    /// Counts anew, this run only.
    fn expect(&self, run: u32) {
        self.run.store(run, Ordering::Release);
        self.count.store(0, Ordering::Release);
    }

    /// Waits until nothing more comes.
    fn settle(&self) {
        let begin: Instant = deadline::now();
        let mut last = u64::MAX;
        loop {
            let now = self.count.load(Ordering::Acquire);
            if now == last || begin.elapsed() > LATE {
                return;
            }
            last = now;
            deadline::pause(Duration::from_millis(30));
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn receive(socket: &UdpSocket, run: &AtomicU32, count: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let mut buffer = [0; 2048];
    let mut seen: Vec<u64> = Vec::new();
    let mut current = 0;
    while !stop.load(Ordering::Acquire) {
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let words = buffer[..length].first_chunk::<8>().filter(|_| length == SIZE);
        let Some(&[a, b, c, d, e, f, g, h]) = words else { continue };
        let of = u32::from_be_bytes([a, b, c, d]);
        if of != run.load(Ordering::Acquire) {
            continue;
        }
        if of != current {
            current = of;
            seen.clear();
        }
        let number = usize::try_from(u32::from_be_bytes([e, f, g, h])).map_err(|_| anyhow!("32 bits"))?;
        let (word, bit) = (number / 64, 1_u64 << (number % 64));
        if seen.len() <= word {
            seen.resize(word + 1, 0);
        }
        // A second copy is no second arrival.
        if seen[word] & bit == 0 {
            seen[word] |= bit;
            count.fetch_add(1, Ordering::AcqRel);
        }
    }
    Ok(())
}

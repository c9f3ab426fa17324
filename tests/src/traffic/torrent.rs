//! One TCP connection that never rests: a steady trickle to see whether it lives, or all that fits to see what it costs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Background;
use crate::container::Container;
use crate::deadline;

/// The longest a connection may stand still: longer is a broken one.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes written at once.
const CHUNK: usize = 16 * 1024;
/// The byte at a place of the stream is the place modulo this: a prime, so that no lost piece goes unseen.
const PERIOD: u8 = 251;
/// Arrivals closer together than this are one.
const GRAIN: Duration = Duration::from_millis(1);

/// A TCP stream from one container to another, until finished.
#[derive(Debug)]
pub struct Torrent {
    sender: Background<u64>,
    receiver: Background<Received>,
}

#[derive(Debug)]
struct Received {
    bytes: u64,
    moments: Vec<Instant>,
}

/// What a stream has carried.
#[derive(Debug, Clone)]
pub struct Carried {
    /// Bytes that arrived: all that were sent, each where it belongs.
    pub bytes: u64,
    moments: Vec<Instant>,
}

impl Torrent {
    /// Opens the connection and sends a chunk of 16 KiB every `interval`; a zero interval sends all that fits.
    ///
    /// # Errors
    /// When the connection cannot be made.
    pub fn start(from: &Container, to: &Container, interval: Duration) -> Result<Self> {
        let listener = to.netns().run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
        let target = (to.address(), listener.local_addr()?.port()).into();
        let limit = Duration::from_secs(10);
        let mut sender = from.netns().run(|| Ok(TcpStream::connect_timeout(&target, limit)?))?;
        let (mut receiver, _) = listener.accept().context("the connection did not come in")?;
        sender.set_write_timeout(Some(PATIENCE))?;
        receiver.set_read_timeout(Some(PATIENCE))?;
        let sender = Background::start(|stop| std::thread::spawn(move || send(&mut sender, interval, &stop)));
        let receiver = Background::start(|_| std::thread::spawn(move || receive(&mut receiver)));
        Ok(Self { sender, receiver })
    }

    /// Ends the stream and compares what was sent with what arrived.
    ///
    /// # Errors
    /// When the connection was reset, stood still for a minute, or garbled something.
    pub fn finish(self) -> Result<Carried> {
        let sent = self.sender.finish().context("the sender of the TCP stream")?;
        let received = self.receiver.finish().context("the receiver of the TCP stream")?;
        ensure!(sent == received.bytes, "{sent} bytes sent, {} received", received.bytes);
        Ok(Carried { bytes: received.bytes, moments: received.moments })
    }
}

impl Carried {
    /// The longest time without a byte that ended after `from` and began before `to`.
    pub fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let pairs = self.moments.windows(2).filter(|pair| pair[1] >= from && pair[0] < to);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

fn send(stream: &mut TcpStream, interval: Duration, stop: &AtomicBool) -> Result<u64> {
    let pattern = pattern(CHUNK);
    let (mut sent, mut due) = (0_u64, deadline::now());
    while !stop.load(Ordering::Relaxed) {
        let phase = phase(sent);
        stream.write_all(&pattern[phase..phase + CHUNK]).context("TCP write")?;
        sent += CHUNK as u64;
        if !interval.is_zero() {
            due = (due + interval).max(deadline::now());
            deadline::pause(due.saturating_duration_since(deadline::now()));
        }
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(sent)
}

fn receive(stream: &mut TcpStream) -> Result<Received> {
    let mut received = Received { bytes: 0, moments: Vec::new() };
    let mut buffer = vec![0; 256 * 1024];
    let pattern = pattern(buffer.len());
    loop {
        let length = stream.read(&mut buffer).context("TCP read")?;
        if length == 0 {
            return Ok(received);
        }
        let phase = phase(received.bytes);
        ensure!(buffer[..length] == pattern[phase..phase + length], "garbled after {} bytes", received.bytes);
        received.bytes += length as u64;
        let now = deadline::now();
        if received.moments.last().is_none_or(|last| now - *last >= GRAIN) {
            received.moments.push(now);
        }
    }
}

/// The bytes of the stream from any place on, at most `length`, are in here from the place's phase on.
fn pattern(length: usize) -> Vec<u8> {
    (0..PERIOD).cycle().take(length + usize::from(PERIOD)).collect()
}

/// Where in its period a place of the stream is.
fn phase(place: u64) -> usize {
    usize::try_from(place % u64::from(PERIOD)).expect("less than a byte")
}

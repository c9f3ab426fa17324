//! A ping every few milliseconds, each answer written down: exact losses and copies, which `ping` does not tell.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use super::trail::Trail;
use super::{Background, is_silence};
use crate::deadline;
use crate::netns::Netns;

/// How long the last answers may take.
const GRACE: Duration = Duration::from_secs(1);
/// ICMP types (RFC 792).
const ECHO: u8 = 8;
const ECHO_REPLY: u8 = 0;
/// Bytes of an ICMP header, and of the number behind it.
const HEADER: usize = 8;
const NUMBER: usize = 8;

static IDENTIFIER: AtomicU16 = AtomicU16::new(1);

/// Pings an address at a fixed interval until finished.
#[derive(Debug)]
pub struct Pulse(Background<Trail>);

impl Pulse {
    /// Starts pinging.
    ///
    /// # Errors
    /// When no socket can be had or there is no route.
    pub fn start(from: &Netns, to: Ipv4Addr, interval: Duration) -> Result<Self> {
        let socket = from.run(|| {
            let raw = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)?;
            let socket = UdpSocket::from(raw);
            socket.connect((to, 0)).context("no route for the ping")?;
            Ok(socket)
        })?;
        let identifier = IDENTIFIER.fetch_add(1, Ordering::Relaxed);
        let work = move |stop: &AtomicBool| ping(&socket, identifier, interval, stop);
        Ok(Self(Background::start(|stop| std::thread::spawn(move || work(&stop)))))
    }

    /// Stops pinging, waits for the last answers and reports.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn finish(self) -> Result<Trail> {
        self.0.finish()
    }
}

fn ping(socket: &UdpSocket, identifier: u16, interval: Duration, stop: &AtomicBool) -> Result<Trail> {
    let mut trail = Trail::default();
    let mut due = deadline::now();
    let mut number = 0;
    let mut end = None;
    loop {
        let now = deadline::now();
        if end.is_none() && stop.load(Ordering::Relaxed) {
            end = Some(now + GRACE);
        }
        if end.is_some_and(|end| now >= end) {
            return Ok(trail);
        }
        if end.is_none() && now >= due {
            trail.leaves(number, now);
            // A refusal (no route, neighbour unknown) is a lost ping; the trail shows it.
            let _ = socket.send(&request(identifier, number));
            number += 1;
            due += interval;
        }
        let rest = due.saturating_duration_since(now).clamp(Duration::from_millis(1), interval);
        hear(socket, identifier, rest, &mut trail)?;
    }
}

fn hear(socket: &UdpSocket, identifier: u16, patience: Duration, trail: &mut Trail) -> Result<()> {
    let mut buffer = [0; 256];
    socket.set_read_timeout(Some(patience))?;
    match socket.recv(&mut buffer) {
        Ok(length) => {
            if let Some(number) = answer(&buffer[..length], identifier) {
                trail.arrives(number, deadline::now());
            }
            Ok(())
        }
        Err(error) if is_silence(&error) => Ok(()),
        // EHOSTUNREACH and its like are news about an earlier ping.
        Err(error) if error.raw_os_error().is_some() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// An echo request that holds its number.
fn request(identifier: u16, number: u64) -> Vec<u8> {
    let mut packet = vec![ECHO, 0, 0, 0];
    packet.extend(identifier.to_be_bytes());
    let number = number.to_be_bytes();
    // The sequence that tools show; ours is the whole number behind it.
    packet.extend(&number[6..]);
    packet.extend(number);
    let checksum = checksum(&packet).to_be_bytes();
    packet[2..4].copy_from_slice(&checksum);
    packet
}

/// The ones' complement of the ones' complement sum of all words (RFC 1071).
fn checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|pair| u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    let sum = words.fold(0_u16, |sum, word| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    });
    !sum
}

/// The number in an answer to one of ours; a raw socket hears every ICMP packet of its namespace, with the IP header.
fn answer(packet: &[u8], identifier: u16) -> Option<u64> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let icmp = packet.get(header..header + HEADER + NUMBER)?;
    let ours = icmp[0] == ECHO_REPLY && icmp[4..6] == identifier.to_be_bytes();
    ours.then(|| icmp[HEADER..].iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

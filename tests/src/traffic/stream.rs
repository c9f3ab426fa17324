//! Numbered datagrams in one direction only: nothing comes back that could keep a path or a table fresh.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::trail::Trail;
use super::{Background, GLANCE, is_silence};
use crate::container::Container;
use crate::deadline;

/// How long the last datagrams may take.
const GRACE: Duration = Duration::from_millis(500);

/// Sends numbered datagrams from one container to another until finished.
#[derive(Debug)]
pub struct Stream {
    sender: Background<Trail>,
    receiver: Background<Trail>,
}

impl Stream {
    /// Starts sending.
    ///
    /// # Errors
    /// When a socket cannot be had or there is no route.
    pub fn start(from: &Container, to: &Container, interval: Duration) -> Result<Self> {
        let receiver = to.netns().run(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
        receiver.set_read_timeout(Some(GLANCE))?;
        let target = (to.address(), receiver.local_addr()?.port());
        let sender = from.netns().run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(target).context("no route for the stream")?;
            Ok(socket)
        })?;
        let receiver = Background::start(|stop| std::thread::spawn(move || receive(&receiver, &stop)));
        let sender = Background::start(|stop| std::thread::spawn(move || Ok(send(&sender, interval, &stop))));
        Ok(Self { sender, receiver })
    }

    /// Stops sending, waits for the last datagrams and reports.
    ///
    /// # Errors
    /// When a socket failed.
    pub fn finish(self) -> Result<Trail> {
        let sent = self.sender.finish()?;
        deadline::pause(GRACE);
        Ok(sent.with_arrivals_of(self.receiver.finish()?))
    }
}

fn send(socket: &UdpSocket, interval: Duration, stop: &AtomicBool) -> Trail {
    let mut trail = Trail::default();
    let mut due = deadline::now();
    for number in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        trail.leaves(number, deadline::now());
        // A refusal is a lost datagram; the trail shows it.
        let _ = socket.send(&number.to_be_bytes());
        due += interval;
        deadline::pause(due.saturating_duration_since(deadline::now()));
    }
    trail
}

fn receive(socket: &UdpSocket, stop: &AtomicBool) -> Result<Trail> {
    let mut trail = Trail::default();
    let mut number = [0; 8];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv(&mut number) {
            Ok(8) => trail.arrives(u64::from_be_bytes(number), deadline::now()),
            Ok(_) => {}
            Err(error) if is_silence(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(trail)
}

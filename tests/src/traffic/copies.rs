//! Counting copies: a broadcast or multicast must arrive once, not never and not twice.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use super::{Background, GLANCE, is_silence};
use crate::container::Container;

type Counts = Arc<Mutex<BTreeMap<Vec<u8>, u32>>>;

/// Counts how often each payload arrives at a port of a container.
#[derive(Debug)]
pub struct Copies {
    counts: Counts,
    _receiver: Background<()>,
}

impl Copies {
    /// Listens on `port`, and in `group` when one is given.
    ///
    /// # Errors
    /// When the port is taken or the group cannot be joined.
    pub fn start(container: &Container, port: u16, group: Option<Ipv4Addr>) -> Result<Self> {
        let socket = container.netns().run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
            if let Some(group) = group {
                socket.join_multicast_v4(&group, &container.address()).context("cannot join the group")?;
            }
            socket.set_read_timeout(Some(GLANCE))?;
            Ok(socket)
        })?;
        let counts = Counts::default();
        let counted = Arc::clone(&counts);
        let receiver = Background::start(|stop| std::thread::spawn(move || count(&socket, &counted, &stop)));
        Ok(Self { counts, _receiver: receiver })
    }

    /// How many copies of `payload` have arrived so far.
    pub fn of(&self, payload: &[u8]) -> u32 {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).get(payload).copied().unwrap_or(0)
    }
}

fn count(socket: &UdpSocket, counts: &Counts, stop: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
                *counts.entry(buffer[..length].to_vec()).or_insert(0) += 1;
            }
            Err(error) if is_silence(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Broadcasts `payload` from a container to everyone on its Ethernet.
///
/// # Errors
/// When the kernel refuses it.
pub fn broadcast(from: &Container, port: u16, payload: &[u8]) -> Result<()> {
    send_to_many(from, Ipv4Addr::BROADCAST, port, payload).context("broadcast")
}

/// Sends `payload` to a multicast group.
///
/// # Errors
/// When the kernel refuses it.
pub fn multicast(from: &Container, group: Ipv4Addr, port: u16, payload: &[u8]) -> Result<()> {
    send_to_many(from, group, port, payload).context("multicast")
}

/// Binding to the container's own address is what picks the interface: no route is needed.
fn send_to_many(from: &Container, to: Ipv4Addr, port: u16, payload: &[u8]) -> Result<()> {
    from.netns().run(|| {
        let socket = UdpSocket::bind((from.address(), 0))?;
        socket.set_broadcast(true)?;
        socket.set_multicast_ttl_v4(1)?;
        socket.send_to(payload, (to, port))?;
        Ok(())
    })
}

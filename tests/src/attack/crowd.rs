//! Slow-loris: many TCP connections of one address that say a byte now and then, each opened anew when it is closed.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::deadline;
use crate::netns::Netns;
use crate::traffic::Background;

/// Between two bytes of one connection.
const BETWEEN_BYTES: Duration = Duration::from_secs(10);
/// How soon a closed connection is opened again.
const AGAIN: Duration = Duration::from_secs(1);
/// How long one attempt to connect may take.
const CONNECT: Duration = Duration::from_millis(200);

/// A crowd at the door, until finished.
#[derive(Debug)]
pub struct Crowd(Background<Toll>);

/// What became of a crowd.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Toll {
    /// Connections that were opened.
    pub opened: u64,
    /// Connections that the router closed.
    pub closed: u64,
    /// The most that stood at one time.
    pub most: usize,
}

/// One place in the crowd.
struct Place {
    stream: Option<TcpStream>,
    speaks: Instant,
    returns: Instant,
}

impl Crowd {
    /// Sends `size` connections from a namespace to a port.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn start(from: &Netns, to: SocketAddr, size: usize) -> Result<Self> {
        let from = from.clone();
        Ok(Self(Background::start(|stop| from.spawn(move || Ok(press(to, size, &stop))))))
    }

    /// Sends them home.
    ///
    /// # Errors
    /// When the namespace could not be entered.
    pub fn finish(self) -> Result<Toll> {
        self.0.finish()
    }
}

fn press(to: SocketAddr, size: usize, stop: &AtomicBool) -> Toll {
    let begin = deadline::now();
    let mut places: Vec<Place> =
        (0..size).map(|_| Place { stream: None, speaks: begin, returns: begin }).collect();
    let mut toll = Toll::default();
    while !stop.load(Ordering::Relaxed) {
        for place in &mut places {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            place.look(to, &mut toll);
        }
        toll.most = toll.most.max(places.iter().filter(|place| place.stream.is_some()).count());
        deadline::pause(Duration::from_millis(20));
    }
    toll
}

impl Place {
    fn look(&mut self, to: SocketAddr, toll: &mut Toll) {
        let now = deadline::now();
        let Some(stream) = &mut self.stream else {
            if self.returns <= now {
                self.stream = connect(to);
                toll.opened += u64::from(self.stream.is_some());
                (self.speaks, self.returns) = (now, now + AGAIN);
            }
            return;
        };
        let mut stands = stands(stream);
        if stands && self.speaks <= now {
            stands = stream.write_all(b"w").is_ok();
            self.speaks = now + BETWEEN_BYTES;
        }
        if !stands {
            self.stream = None;
            self.returns = now + AGAIN;
            toll.closed += 1;
        }
    }
}

fn connect(to: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, CONNECT).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}

/// Whether the far side has not closed it; what it says is read and forgotten.
fn stands(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 256]) {
        Ok(length) => length > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

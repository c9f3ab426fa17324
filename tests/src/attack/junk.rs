//! Datagrams and byte streams that mean nothing.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};

use crate::deadline;
use crate::netns::Netns;
use crate::traffic::pattern;

/// The largest datagram of junk: what an Ethernet takes whole.
const LARGEST: usize = 1472;
/// How long the far side may take to end a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Numbers and bytes without meaning, the same in every run.
#[derive(Debug)]
pub struct Noise {
    state: u64,
    pool: Vec<u8>,
}

impl Noise {
    /// Noise of its own for each seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed | 1, pool: pattern(1 << 16) }
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        // A linear congruential generator (Knuth, MMIX); its upper bits are the random ones.
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.state >> 33) % (limit.max(1) as u64)).unwrap_or(0)
    }

    /// At most `most` bytes, sometimes none.
    pub fn bytes(&mut self, most: usize) -> &[u8] {
        let length = self.below(most + 1);
        let from = self.below(self.pool.len() - length);
        &self.pool[from..from + length]
    }
}

/// Sends `count` datagrams of noise as fast as the kernel takes them. Every fourth begins as a real one would.
///
/// # Errors
/// When there is no way to `to`; a datagram the kernel has no room for is lost, as on any network.
pub fn flood(from: &Netns, to: SocketAddr, count: usize, seed: u64) -> Result<()> {
    from.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        setsockopt(&socket, sockopt::SndBuf, &(4 << 20))?;
        socket.connect(to).context("no route for the flood")?;
        let mut noise = Noise::new(seed);
        let mut like_real = Vec::with_capacity(LARGEST);
        for number in 0..count {
            if number % 4 == 0 {
                like_real.clear();
                // Format 1 with each of the suites that the other half of the byte can name.
                like_real.push(0x10 | u8::try_from(number / 4 % 16)?);
                like_real.extend_from_slice(noise.bytes(LARGEST - 1));
                let _ = socket.send(&like_real);
            } else {
                let _ = socket.send(noise.bytes(LARGEST));
            }
        }
        Ok(())
    })
}

/// Says this over a TCP connection, in pieces of at most `piece` bytes, ends its own direction, and returns what came
/// back until the far side ended too, and how long that took.
///
/// # Errors
/// When it cannot connect, or the far side has not ended the connection ten seconds later.
pub fn speak(from: &Netns, to: SocketAddr, words: &[u8], piece: usize) -> Result<(Vec<u8>, Duration)> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("TCP connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let begin = deadline::now();
        for part in words.chunks(piece.max(1)) {
            // The far side may have heard enough: then the rest is not said.
            if stream.write_all(part).is_err() {
                break;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
        let mut heard = Vec::new();
        match stream.read_to_end(&mut heard) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(error).context("the far side did not end the connection")
            }
            Ok(_) | Err(_) => Ok((heard, begin.elapsed())),
        }
    })
}

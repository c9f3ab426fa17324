//! Carrying a file: many bytes over one TCP connection, compared at the far end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::container::Container;
use crate::deadline;

/// The longest the stream may stand still.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends `bytes` from one container to another and returns what arrived there.
///
/// # Errors
/// When the connection fails or stands still for ten seconds.
pub fn carry(from: &Container, to: &Container, bytes: &[u8]) -> Result<Vec<u8>> {
    let listener = to.netns().run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?))?;
    listener.set_nonblocking(true)?;
    let target = (to.address(), listener.local_addr()?.port()).into();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || receive(&listener));
        from.netns().run(|| {
            let mut stream = TcpStream::connect_timeout(&target, PATIENCE).context("TCP connect")?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.write_all(bytes).context("TCP write")?;
            Ok(stream.shutdown(Shutdown::Write)?)
        })?;
        receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn receive(listener: &TcpListener) -> Result<Vec<u8>> {
    let accepted = deadline::until("a connection comes in", PATIENCE * 2, || Ok(listener.accept().ok()));
    let ((mut stream, _), _) = accepted?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).context("TCP read")?;
    Ok(bytes)
}

/// `length` bytes that never repeat soon, so that a lost or doubled piece shows.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

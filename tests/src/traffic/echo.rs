//! A small server that says back what it hears, over UDP and TCP, and the clients that ask it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Background, GLANCE, is_silence};
use crate::deadline;
use crate::netns::Netns;

/// The port of both servers.
pub const ECHO_PORT: u16 = 7007;
/// The longest a connection may be quiet.
const PATIENCE: Duration = Duration::from_secs(10);

/// Echoes inside a namespace until dropped.
#[derive(Debug)]
pub struct Echo {
    _udp: Background<()>,
    _tcp: Background<()>,
}

impl Echo {
    /// Starts both servers on all addresses of the namespace.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(netns: &Netns) -> Result<Self> {
        let udp =
            netns.run(|| Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, ECHO_PORT))?)).context("UDP echo")?;
        let tcp =
            netns.run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, ECHO_PORT))?)).context("TCP echo")?;
        udp.set_read_timeout(Some(GLANCE))?;
        tcp.set_nonblocking(true)?;
        let udp = Background::start(|stop| std::thread::spawn(move || serve_udp(&udp, &stop)));
        let tcp = Background::start(|stop| std::thread::spawn(move || serve_tcp(&tcp, &stop)));
        Ok(Self { _udp: udp, _tcp: tcp })
    }
}

fn serve_udp(socket: &UdpSocket, stop: &AtomicBool) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                // The way back may be broken just now: that is for the asker to notice.
                let _ = socket.send_to(&buffer[..length], from);
            }
            Err(error) if is_silence(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn serve_tcp(listener: &TcpListener, stop: &Arc<AtomicBool>) -> Result<()> {
    let mut serving: Vec<JoinHandle<std::io::Result<()>>> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => serving.push(std::thread::spawn(move || serve_stream(stream))),
            Err(error) if is_silence(&error) => deadline::pause(Duration::from_millis(5)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn serve_stream(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; 65_536];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return stream.shutdown(Shutdown::Write);
        }
        stream.write_all(&buffer[..length])?;
    }
}

/// Whether `payload` comes back over UDP within a second.
///
/// # Errors
/// When no socket can be had; silence is a result, not an error.
pub fn udp_round_trip(from: &Netns, to: Ipv4Addr, payload: &[u8]) -> Result<bool> {
    from.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect((to, ECHO_PORT))?;
        socket.send(payload)?;
        let mut answer = vec![0; 65_536];
        match socket.recv(&mut answer) {
            Ok(length) => Ok(answer[..length] == *payload),
            Err(error) if is_silence(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
}

/// Sends one datagram and does not wait for anything.
///
/// # Errors
/// When the kernel refuses it.
pub fn udp_send(from: &Netns, to: SocketAddr, payload: &[u8]) -> Result<()> {
    from.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.send_to(payload, to)?;
        Ok(())
    })
}

/// Sends `payload` over one TCP connection and returns what came back.
///
/// # Errors
/// When the connection fails or stands still for ten seconds.
pub fn tcp_round_trip(from: &Netns, to: Ipv4Addr, payload: &[u8]) -> Result<Vec<u8>> {
    from.run(|| {
        let mut stream =
            TcpStream::connect_timeout(&(to, ECHO_PORT).into(), PATIENCE).context("TCP connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut reader = stream.try_clone()?;
        std::thread::scope(|scope| {
            let back = scope.spawn(move || -> std::io::Result<Vec<u8>> {
                let mut back = Vec::new();
                reader.read_to_end(&mut back)?;
                Ok(back)
            });
            stream.write_all(payload).context("TCP write")?;
            stream.shutdown(Shutdown::Write)?;
            let back = back.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            back.context("TCP read")
        })
    })
}

//! One TCP connection: a dial or an accepted stream, then a reader and a writer.
//!
//! The reader sends to the transport and waits while the transport is busy. The writer takes from its own
//! queue, bounded in bytes by the transport; it joins what is queued into one write.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::transport::Report;
use crate::event::{ConnectionId, Input, UNREPORTED};
use crate::target::Target;

/// A dial is over by then, name look-up included.
const DIAL_DEADLINE: Duration = Duration::from_secs(5);
/// How long what is queued may take to leave once the connection is to be closed.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes read at once; with the queue's length this bounds what waits for the control loop.
const READ_SIZE: usize = 16 << 10;
/// Bytes written at once.
const WRITE_SIZE: usize = 64 << 10;

/// Connects to the first of a target's addresses that answers, from `source` unless that is unspecified.
pub(super) async fn dial(target: Target, source: IpAddr) -> Result<TcpStream, String> {
    match timeout(DIAL_DEADLINE, connect(&target, source)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", DIAL_DEADLINE.as_secs())),
    }
}

async fn connect(target: &Target, source: IpAddr) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", target.host()));
    for address in tokio::net::lookup_host((target.host(), target.port())).await? {
        match connect_from(address, source).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn connect_from(address: SocketAddr, source: IpAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if !source.is_unspecified() && source.is_ipv4() == address.is_ipv4() {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    socket.connect(address).await
}

/// Reads until the end and reports everything.
pub(super) async fn read(connection: ConnectionId, mut half: OwnedReadHalf, reports: Sender<Report>) {
    loop {
        // A connection at rest holds no buffer. What is wrong with it, reading says.
        let _ = half.readable().await;
        let mut bytes = Vec::with_capacity(READ_SIZE);
        let input = match half.read_buf(&mut bytes).await {
            Ok(0) => Input::Closed { connection, error: None },
            Ok(_) => {
                bytes.shrink_to_fit();
                Input::Received { connection, bytes }
            }
            Err(error) => Input::Closed { connection, error: Some(error.to_string()) },
        };
        let last = matches!(input, Input::Closed { .. });
        if reports.send(Report::Input(input)).await.is_err() || last {
            return;
        }
    }
}

/// Writes what is queued until an error comes or the connection is given up; then what is left, if that is quick.
pub(super) async fn write(
    connection: ConnectionId,
    half: OwnedWriteHalf,
    queue: Receiver<Vec<u8>>,
    given_up: oneshot::Receiver<Infallible>,
    queued: Arc<AtomicUsize>,
    reports: Sender<Report>,
) {
    let mut pump = std::pin::pin!(pump(connection, half, queue, queued, reports));
    tokio::select! {
        () = &mut pump => return,
        _ = given_up => {}
    }
    let _ = timeout(LINGER, pump).await; // the far side may not be reading: then the rest is lost
}

async fn pump(
    connection: ConnectionId,
    mut half: OwnedWriteHalf,
    mut queue: Receiver<Vec<u8>>,
    queued: Arc<AtomicUsize>,
    reports: Sender<Report>,
) {
    let mut unreported = 0;
    while let Some(mut bytes) = queue.recv().await {
        while bytes.len() < WRITE_SIZE {
            match queue.try_recv() {
                Ok(more) => bytes.extend_from_slice(&more),
                Err(_) => break,
            }
        }
        if let Err(error) = half.write_all(&bytes).await {
            let error = Some(error.to_string());
            let _ = reports.send(Report::Input(Input::Closed { connection, error })).await;
            return;
        }
        queued.fetch_sub(bytes.len(), Ordering::Relaxed);
        unreported += bytes.len();
        if unreported >= UNREPORTED {
            unreported = 0;
            if reports.send(Report::Written { connection }).await.is_err() {
                return;
            }
        }
    }
    let _ = half.shutdown().await;
}

//! The transport: carries out what the mesh wants of the network, and says what the network did.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{connection, listener};
use crate::event::{ConnectionId, Input, Output};
use crate::mesh::Mesh;
use crate::target::Target;

/// Reports that may wait for the control loop: at 16 KiB each at most 4 MiB.
const REPORTS: usize = 256;
/// Messages that may wait in one writer's queue…
const QUEUE: usize = 16_384;
/// …and bytes. The mesh sends a slow neighbour nothing more long before.
const QUEUE_BYTES: usize = 32 << 20;

/// How often a flush looks whether the writers are done.
const FLUSH_LOOK: Duration = Duration::from_millis(2);

/// What a task tells the transport.
#[derive(Debug)]
pub(super) enum Report {
    Accepted { stream: TcpStream, remote: SocketAddr },
    Connected { connection: ConnectionId, stream: TcpStream },
    Written { connection: ConnectionId },
    Input(Input),
}

/// What the network did.
#[derive(Debug)]
#[expect(missing_docs, reason = "the sentence of each variant names its fields")]
pub enum TransportEvent {
    /// Somebody called; `adopt` the token with what `Mesh::accept` says.
    Accepted { remote: SocketAddr, local: Option<SocketAddr>, token: AcceptToken },
    /// For `Mesh::handle_input`.
    Input(Input),
}

/// An inbound connection the mesh has not decided about; dropping it closes the connection.
#[derive(Debug)]
pub struct AcceptToken(TcpStream);

/// One connection or dial: its tasks end when this is dropped.
enum Connection {
    Dialing(JoinHandle<()>),
    Open {
        reader: JoinHandle<()>,
        queue: Sender<Vec<u8>>,
        queued: Arc<AtomicUsize>,
        /// Dropped with the connection, which is all it says to the writer.
        _held: oneshot::Sender<Infallible>,
    },
}

impl Drop for Connection {
    fn drop(&mut self) {
        let (Self::Dialing(task) | Self::Open { reader: task, .. }) = self;
        task.abort(); // the writer sees that it was given up
    }
}

/// Owns the listener and all connections of one router.
pub struct Transport {
    local: SocketAddr,
    accepting: JoinHandle<()>,
    reports: Receiver<Report>,
    reporter: Sender<Report>,
    connections: BTreeMap<ConnectionId, Connection>,
}

impl Transport {
    /// Listens on an address; dials leave from the same address unless it is unspecified.
    ///
    /// # Errors
    /// If the address is in use or not of this host.
    pub async fn bind(listen: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let local = listener.local_addr()?;
        let (reporter, reports) = mpsc::channel(REPORTS);
        let accepting = tokio::spawn(listener::run(listener, reporter.clone()));
        Ok(Self { local, accepting, reports, reporter, connections: BTreeMap::new() })
    }

    /// The address the listener is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Waits for the next thing the network does. Cancelling this loses nothing.
    pub async fn next(&mut self) -> TransportEvent {
        loop {
            let report = self.reports.recv().await.expect("the transport holds a sender itself");
            if let Some(event) = self.take(report) {
                return event;
            }
        }
    }

    /// Hands an event to the mesh, inbound connections included; the caller drains the mesh afterwards.
    pub fn feed(&mut self, event: TransportEvent, mesh: &mut Mesh, now: Instant) {
        match event {
            TransportEvent::Accepted { remote, local, token } => {
                if let Some(connection) = mesh.accept(remote, local, now) {
                    self.adopt(token, connection);
                }
            }
            TransportEvent::Input(input) => mesh.handle_input(input, now),
        }
    }

    /// Begins to read and write an inbound connection that the mesh has taken.
    pub fn adopt(&mut self, token: AcceptToken, connection: ConnectionId) {
        self.open(connection, token.0);
    }

    /// Carries out an output that is for the shell; gives back one that is for the application.
    pub fn execute(&mut self, output: Output) -> Option<Output> {
        match output {
            Output::Dial { connection, target } => self.dial(connection, target),
            Output::Send { connection, bytes } => self.send(connection, bytes),
            Output::Close { connection } => drop(self.connections.remove(&connection)),
            report @ (Output::Established { .. }
            | Output::Lost { .. }
            | Output::Told { .. }
            | Output::Deliver { .. }
            | Output::Routes(_)
            | Output::PeersChanged
            | Output::Refused { .. }) => return Some(report),
        }
        None
    }

    /// Waits until all that is queued has been handed to the kernel; give it a deadline.
    pub async fn flush(&self) {
        let is_busy = |connection: &Connection| match connection {
            Connection::Dialing(_) => false,
            Connection::Open { queued, .. } => queued.load(Ordering::Relaxed) > 0,
        };
        while self.connections.values().any(is_busy) {
            tokio::time::sleep(FLUSH_LOOK).await;
        }
    }

    fn take(&mut self, report: Report) -> Option<TransportEvent> {
        match report {
            Report::Accepted { stream, remote } => {
                let local = stream.local_addr().ok().map(canonical);
                Some(TransportEvent::Accepted {
                    remote: canonical(remote),
                    local,
                    token: AcceptToken(stream),
                })
            }
            Report::Connected { connection, stream } => {
                if !matches!(self.connections.get(&connection), Some(Connection::Dialing(_))) {
                    return None; // given up meanwhile
                }
                let input = match stream.peer_addr() {
                    Ok(remote) => {
                        let local = stream.local_addr().ok().map(canonical);
                        self.open(connection, stream);
                        Input::Dialed { connection, remote: canonical(remote), local }
                    }
                    Err(error) => Input::DialFailed { connection, error: error.to_string() },
                };
                Some(TransportEvent::Input(input))
            }
            Report::Written { connection } => {
                // Read now and not when it was written: nothing queued since then may be forgotten.
                let Some(Connection::Open { queued, .. }) = self.connections.get(&connection) else {
                    return None;
                };
                let queued = queued.load(Ordering::Relaxed);
                Some(TransportEvent::Input(Input::Writable { connection, queued }))
            }
            Report::Input(input) => Some(TransportEvent::Input(input)),
        }
    }

    fn dial(&mut self, connection: ConnectionId, target: Target) {
        let (source, reports) = (self.local.ip(), self.reporter.clone());
        let task = tokio::spawn(async move {
            let report = match connection::dial(target, source).await {
                Ok(stream) => Report::Connected { connection, stream },
                Err(error) => Report::Input(Input::DialFailed { connection, error }),
            };
            let _ = reports.send(report).await;
        });
        self.connections.insert(connection, Connection::Dialing(task));
    }

    fn open(&mut self, connection: ConnectionId, stream: TcpStream) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let (read, write) = stream.into_split();
        let (queue, receiver) = mpsc::channel(QUEUE);
        let queued = Arc::new(AtomicUsize::new(0));
        let reader = tokio::spawn(connection::read(connection, read, self.reporter.clone()));
        let (held, given_up) = oneshot::channel();
        let reports = self.reporter.clone();
        tokio::spawn(connection::write(connection, write, receiver, given_up, Arc::clone(&queued), reports));
        self.connections.insert(connection, Connection::Open { reader, queue, queued, _held: held });
    }

    fn send(&mut self, connection: ConnectionId, bytes: Vec<u8>) {
        let Some(Connection::Open { queue, queued, .. }) = self.connections.get(&connection) else { return };
        let length = bytes.len();
        let before = queued.fetch_add(length, Ordering::Relaxed);
        if before + length > QUEUE_BYTES || queue.try_send(bytes).is_err() {
            // A hole in the stream would be worse than its end: the far side sees it closed, and so does the mesh.
            self.connections.remove(&connection);
            let reports = self.reporter.clone();
            let error = Some("the queue to the far side is full".to_owned());
            tokio::spawn(async move {
                let _ = reports.send(Report::Input(Input::Closed { connection, error })).await;
            });
        }
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An IPv4 address as such, also where a socket of both families shows it inside an IPv6 one.
fn canonical(address: SocketAddr) -> SocketAddr {
    let ip = address.ip().to_canonical();
    if ip.is_ipv4() { SocketAddr::new(ip, address.port()) } else { address } // which may carry a scope
}

#[cfg(test)]
mod tests;

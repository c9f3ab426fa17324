//! A listener with so many connections at most, each of which must speak soon and may not live for ever.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// How long a new connection may say nothing.
const SILENCE: Duration = Duration::from_secs(5);

/// A listener that accepts no more than it has room for; who comes then waits in the kernel's queue.
pub(super) struct Bounded<L> {
    listener: L,
    room: Arc<Semaphore>,
    lifetime: Duration,
}

impl<L> Bounded<L> {
    pub(super) fn new(listener: L, connections: usize, lifetime: Duration) -> Self {
        Self { listener, room: Arc::new(Semaphore::new(connections)), lifetime }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = Limited<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // `None` only if the semaphore were closed, which nobody does; then the connection is not counted.
        let room = Arc::clone(&self.room).acquire_owned().await.ok();
        let (stream, address) = self.listener.accept().await;
        let end = Box::pin(sleep(SILENCE));
        (Limited { stream, end, lifetime: Some(self.lifetime), _room: room }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when its time is over.
pub(super) struct Limited<S> {
    stream: S,
    end: Pin<Box<Sleep>>,
    /// What it gets once it has spoken.
    lifetime: Option<Duration>,
    _room: Option<OwnedSemaphorePermit>,
}

impl<S> Limited<S> {
    fn over(&mut self, context: &mut Context<'_>) -> bool {
        self.end.as_mut().poll(context).is_ready()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Limited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before
            && let Some(lifetime) = self.lifetime.take()
        {
            self.end.as_mut().reset(Instant::now() + lifetime);
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Limited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.over(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    async fn pair(lifetime: Duration) -> (TcpStream, Limited<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut bounded = Bounded::new(listener, 1, lifetime);
        let client = TcpStream::connect(address).await.unwrap();
        (client, bounded.accept().await.0)
    }

    #[tokio::test]
    async fn who_says_nothing_is_sent_away() {
        let (_client, mut server) = pair(Duration::from_secs(60)).await;
        server.end.as_mut().reset(Instant::now());
        let error = server.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_has_spoken_may_stay_longer_but_not_for_ever() {
        let (mut client, mut server) = pair(Duration::from_millis(30)).await;
        client.write_u8(7).await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), 7);
        assert_eq!(server.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(server.write_u8(7).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_connection_too_many_waits_for_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut bounded = Bounded::new(listener, 1, SILENCE);
        let _clients =
            (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let (first, _) = bounded.accept().await;
        let short = Duration::from_millis(50);
        assert!(tokio::time::timeout(short, bounded.accept()).await.is_err());
        drop(first);
        assert!(tokio::time::timeout(SILENCE, bounded.accept()).await.is_ok());
    }
}

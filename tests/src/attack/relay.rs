//! A man in the middle who only listens: passes TCP connections on and writes down both directions.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::deadline;
use crate::netns::Netns;
use crate::traffic::{Background, GLANCE, is_silence};

/// How long the way to the far side may take.
const CONNECT: Duration = Duration::from_secs(5);

/// What was said over one relayed connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation {
    /// By whoever dialled.
    pub asked: Vec<u8>,
    /// By whoever was dialled.
    pub answered: Vec<u8>,
}

/// Relays until dropped.
#[derive(Debug)]
pub struct Relay {
    said: Arc<Mutex<Vec<Conversation>>>,
    _serving: Background<()>,
}

impl Relay {
    /// Listens on a port of a namespace and passes every connection on to `to`.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(netns: &Netns, port: u16, to: SocketAddr) -> Result<Self> {
        let listener =
            netns.run(|| Ok(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?)).context("relay")?;
        listener.set_nonblocking(true)?;
        let said = Arc::<Mutex<Vec<Conversation>>>::default();
        let (inside, written) = (netns.clone(), Arc::clone(&said));
        let serving = Background::start(|stop| inside.spawn(move || serve(&listener, to, &written, &stop)));
        Ok(Self { said, _serving: serving })
    }

    /// What was said so far, by connection.
    pub fn said(&self) -> Vec<Conversation> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(
    listener: &TcpListener,
    to: SocketAddr,
    said: &Mutex<Vec<Conversation>>,
    stop: &AtomicBool,
) -> Result<()> {
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let Ok((near, _)) = listener.accept() else {
                deadline::pause(Duration::from_millis(5));
                continue;
            };
            near.set_nonblocking(false)?;
            let Ok(far) = TcpStream::connect_timeout(&to, CONNECT) else { continue };
            let number = {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                said.push(Conversation::default());
                said.len() - 1
            };
            let note = move |way: fn(&mut Conversation) -> &mut Vec<u8>, bytes: &[u8]| {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                way(&mut said[number]).extend_from_slice(bytes);
            };
            let (near_again, far_again) = (near.try_clone()?, far.try_clone()?);
            scope.spawn(move || pass(near, far, stop, |bytes| note(|it| &mut it.asked, bytes)));
            scope
                .spawn(move || pass(far_again, near_again, stop, |bytes| note(|it| &mut it.answered, bytes)));
        }
        Ok(())
    })
}

/// Passes one direction on until either end closes.
fn pass(mut from: TcpStream, mut to: TcpStream, stop: &AtomicBool, note: impl Fn(&[u8])) {
    let mut buffer = [0; 16 << 10];
    let _ = from.set_read_timeout(Some(GLANCE));
    while !stop.load(Ordering::Relaxed) {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                note(&buffer[..length]);
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            Err(error) if is_silence(&error) => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

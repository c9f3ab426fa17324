//! More frames than a container has any use for, at a rate that is told beforehand.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};

use crate::deadline;
use crate::frames;
use crate::netns::Netns;
use crate::traffic::Background;

/// Frames that leave without a look at the clock.
const BURST: u32 = 64;

/// Frames sent until finished.
#[derive(Debug)]
pub struct Storm(Background<Raged>);

/// What a storm was.
#[derive(Debug, Clone, Copy)]
pub struct Raged {
    /// Frames the interface took.
    pub sent: u64,
    /// Frames it had no room for.
    pub refused: u64,
    /// When it began.
    pub begin: Instant,
    /// When it ended.
    pub end: Instant,
}

impl Storm {
    /// Sends what `frame` makes of each number by an interface, so many a second.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn start(
        from: &Netns,
        interface: &str,
        per_second: u32,
        mut frame: impl FnMut(u64) -> Vec<u8> + Send + 'static,
    ) -> Result<Self> {
        let raw = from.run(|| frames::open(interface))?;
        let mut rage = move |stop: &AtomicBool| -> Result<Raged> {
            let begin = deadline::now();
            let mut raged = Raged { sent: 0, refused: 0, begin, end: begin };
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..BURST {
                    match send(raw.as_raw_fd(), &frame(number), MsgFlags::empty()) {
                        Ok(_) => raged.sent += 1,
                        Err(Errno::ENOBUFS | Errno::EAGAIN) => raged.refused += 1,
                        Err(error) => return Err(error.into()),
                    }
                    number += 1;
                }
                let due = begin + Duration::from_secs_f64(number as f64 / f64::from(per_second));
                deadline::pause(due.saturating_duration_since(deadline::now()));
            }
            raged.end = deadline::now();
            Ok(raged)
        };
        Ok(Self(Background::start(|stop| std::thread::spawn(move || rage(&stop)))))
    }

    /// Ends it and tells what it was.
    ///
    /// # Errors
    /// When the interface was gone.
    pub fn finish(self) -> Result<Raged> {
        self.0.finish()
    }
}

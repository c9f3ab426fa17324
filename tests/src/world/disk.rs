//! A host's disk, as the store promises it: a write that was reported survives, one under way may or may not.

use std::time::Duration;

/// What the disk holds and how it behaves just now.
#[derive(Debug, Default)]
pub(super) struct Disk {
    durable: Option<Vec<u8>>,
    writing: Option<Vec<u8>>,
    /// Nothing can be written.
    pub(super) full: bool,
    /// It says that it has written, and has not.
    pub(super) lies: bool,
    /// How long a write takes; zero: it is over before anything else happens.
    pub(super) slow: Duration,
}

impl Disk {
    /// What a process that starts now reads.
    pub(super) fn read(&self) -> Option<&[u8]> {
        self.durable.as_deref()
    }

    /// Writes, or begins to: then [`Disk::finish`] ends it.
    pub(super) fn write(&mut self, bytes: Vec<u8>) -> Result<(), String> {
        if self.full {
            return Err("No space left on device".to_owned());
        }
        if self.lies {
            return Ok(());
        }
        if self.slow.is_zero() {
            self.durable = Some(bytes);
        } else {
            self.writing = Some(bytes);
        }
        Ok(())
    }

    /// The write under way ends.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        let writing = self.writing.take();
        if self.full {
            return Err("No space left on device".to_owned());
        }
        self.durable = writing.or(self.durable.take());
        Ok(())
    }

    /// The process is gone: what it was writing got there, or did not.
    pub(super) fn crash(&mut self, lucky: bool) {
        if let Some(writing) = self.writing.take().filter(|_| lucky && !self.full) {
            self.durable = Some(writing);
        }
    }

    /// Another host takes this one's place.
    pub(super) fn erase(&mut self) {
        (self.durable, self.writing) = (None, None);
    }
}

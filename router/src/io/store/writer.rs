//! The thread that writes snapshots: an fsync takes milliseconds, and the control loop has other things to do in them.
//!
//! ```text
//! control loop ── write(snapshot) ──► thread: Store::save ──► written() ── control loop
//! ```
//!
//! One write at a time. Whatever is changed during one is in the next, so callers that come together share a write; the
//! node holds back what depends on it (`node/durability.rs`).

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use tokio::sync::mpsc;

use super::{Store, StoreError};

/// It has panicked: nothing is promised any more.
const GONE: &str = "the thread that writes the state has ended";

/// The store, given to a thread.
#[derive(Debug)]
pub struct Writer {
    /// None: the thread is to end.
    orders: Option<SyncSender<Vec<u8>>>,
    results: mpsc::Receiver<Result<(), StoreError>>,
    /// Whether a result is owed.
    writing: bool,
    thread: Option<JoinHandle<Store>>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn spawn(store: Store) -> io::Result<Self> {
        // One order and one result: nobody orders a write before the last is done.
        let (orders, inbox) = sync_channel::<Vec<u8>>(1);
        let (outbox, results) = mpsc::channel(1);
        let thread = thread::Builder::new().name("weft-store".to_owned()).spawn(move || {
            while let Ok(snapshot) = inbox.recv() {
                if outbox.blocking_send(store.save(&snapshot)).is_err() {
                    break;
                }
            }
            store
        })?;
        Ok(Self { orders: Some(orders), results, writing: false, thread: Some(thread) })
    }

    /// Has the next generation written; [`Self::written`] says what came of it.
    pub fn write(&mut self, snapshot: Vec<u8>) {
        self.writing = true;
        if let Some(orders) = &self.orders {
            // A thread that has ended is told by `written`, as everything that comes of a write.
            let _ = orders.send(snapshot);
        }
    }

    /// Returns when the write under way has ended, never without one. May be dropped and called again.
    ///
    /// # Errors
    /// What the system said, in words; the generation before stands untouched.
    pub async fn written(&mut self) -> Result<(), String> {
        if !self.writing {
            return std::future::pending().await;
        }
        let result = self.results.recv().await;
        self.writing = false;
        match result {
            Some(result) => result.map_err(|error| error.to_string()),
            None => Err(GONE.to_owned()),
        }
    }

    /// Removes all state, once the write under way has ended; see [`Store::erase`].
    ///
    /// # Errors
    /// What the system said, in words.
    pub fn erase(mut self) -> Result<(), String> {
        match self.end() {
            Some(store) => store.erase().map_err(|error| error.to_string()),
            None => Err(GONE.to_owned()),
        }
    }

    fn end(&mut self) -> Option<Store> {
        self.orders = None;
        self.results.close();
        self.thread.take()?.join().ok()
    }
}

/// A write that was begun is brought to its end: half of one would cost the next start a warning.
impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::testing::Directory;

    #[tokio::test(flavor = "current_thread")]
    async fn a_write_is_reported_once_and_lies_on_the_disk_then() {
        let dir = Directory::new();
        let (store, _) = Store::open(dir.path()).unwrap();
        let mut writer = Writer::spawn(store).unwrap();
        for snapshot in [b"one".to_vec(), b"two".to_vec()] {
            writer.write(snapshot.clone());
            writer.written().await.unwrap();
            assert!(std::fs::read(dir.path().join("state")).unwrap().ends_with(&snapshot));
        }
        let nothing = tokio::time::timeout(std::time::Duration::from_millis(1), writer.written()).await;
        assert!(nothing.is_err(), "nobody asked for a write");
        writer.erase().unwrap();
        assert_eq!(Store::open(dir.path()).unwrap().1.bytes, None);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_write_that_fails_says_why_and_the_next_is_tried() {
        let dir = Directory::new();
        let (store, _) = Store::open(dir.path()).unwrap();
        let mut writer = Writer::spawn(store).unwrap();
        // A directory in the place of the new file.
        std::fs::create_dir(dir.path().join("state.new")).unwrap();
        writer.write(b"lost".to_vec());
        assert!(writer.written().await.unwrap_err().contains("state.new"));
        std::fs::remove_dir(dir.path().join("state.new")).unwrap();
        writer.write(b"kept".to_vec());
        writer.written().await.unwrap();
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_was_begun_is_on_the_disk_when_the_writer_is_dropped() {
        let dir = Directory::new();
        let (store, _) = Store::open(dir.path()).unwrap();
        let mut writer = Writer::spawn(store).unwrap();
        writer.write(b"last".to_vec());
        drop(writer);
        assert_eq!(Store::open(dir.path()).unwrap().1.bytes, Some(b"last".to_vec()));
    }
}

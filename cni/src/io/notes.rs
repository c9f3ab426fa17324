//! Notes for a router that is away, in a directory beside its socket.
//!
//! A note appears whole (written aside, synced, renamed) and goes when it is done. While it is written, its file is
//! locked: one that nobody holds was begun by a plugin that is dead, and the router removes it. Whoever does what a note
//! says holds the directory's lock, so that a pod that is made anew is not undone by the note about the one before.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use weft_api::{ApiError, Client, CniNote, notes_directory};

use super::fault;

/// How long between two tries to get the directory's lock.
const PAUSE: Duration = Duration::from_millis(5);

/// The notes of one router.
pub(super) struct Notes {
    directory: PathBuf,
}

impl Notes {
    /// Those of the router behind a socket.
    pub(super) fn of(socket: &Path) -> Self {
        Self { directory: notes_directory(socket) }
    }

    /// Leaves a note; the same one twice is one.
    pub(super) fn leave(&self, note: &CniNote) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let path = self.directory.join(note.file());
        let aside = self.directory.join(format!(".{}", process::id()));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        fault::reached("noting");
        let mut file = options.open(&aside)?;
        file.lock()?;
        file.write_all(crate::result::json(note).as_bytes())?;
        file.sync_all()?;
        fault::reached("noted-aside");
        fs::rename(&aside, &path)?;
        fault::reached("noted");
        File::open(&self.directory)?.sync_all()
    }

    /// Does what a note says, if it still lies there.
    pub(super) fn honour(&self, note: &CniNote, router: &Client) -> Result<(), ApiError> {
        let path = self.directory.join(note.file());
        if fs::symlink_metadata(&path).is_err() {
            return Ok(());
        }
        let broken = |error: io::Error| ApiError::failed(format!("{}: {error}", path.display()));
        let directory = File::open(&self.directory).map_err(broken)?;
        loop {
            match directory.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(broken(error)),
                Err(TryLockError::WouldBlock) if !router.has_time() => {
                    return Err(ApiError::not_now("the router is busy with what was left for it"));
                }
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a lock is no event that could be waited for in time"
                )]
                Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            }
        }
        if fs::symlink_metadata(&path).is_err() {
            return Ok(()); // the router was quicker
        }
        router.call(&note.request())?;
        fs::remove_file(&path).map_err(broken)
    }
}

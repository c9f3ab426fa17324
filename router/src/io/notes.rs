//! Notes that the CNI plugin left while no router answered: what each asks is done, then it goes.
//!
//! They lie in a directory beside the API socket. Looked at before the first pod is taken, and every second after: a
//! router that is only busy may have notes, too. The directory's lock is held meanwhile, so that a plugin that makes a
//! pod anew sees either the note or what came of it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use tokio::sync::mpsc;
use weft_api::{CniNote, notes_directory};

use super::call::{Call, ask};

/// The largest note; a container's id and an interface's name are far shorter.
const LARGEST: u64 = 4096;
/// Notes done at one look; the rest waits for the next, and so does whoever wants the lock.
const AT_ONCE: usize = 256;
/// How old a note must be that was begun and that nobody holds before it goes, in seconds: whoever writes one locks it
/// a moment after it has made it.
const ABANDONED: i64 = 2;

/// The notes for one router.
#[derive(Debug)]
pub(super) struct Notes {
    directory: PathBuf,
}

impl Notes {
    /// Those for the router with that API socket; makes their directory.
    pub(super) fn of(socket: &Path) -> Self {
        let directory = notes_directory(socket);
        if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(&directory) {
            tracing::warn!(directory = %directory.display(), %error, "no place for notes of the CNI plugin");
        }
        Self { directory }
    }

    /// Does what the notes say. One that cannot be done now is left for the next look.
    pub(super) async fn honour(&self, calls: &mpsc::Sender<Call>) {
        let files = match self.list() {
            Ok(files) if files.is_empty() => return,
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::debug!(%error, "the notes of the CNI plugin cannot be listed");
                return;
            }
        };
        let Ok(directory) = File::open(&self.directory) else { return };
        // A plugin is at it: the next look finds what is left.
        if directory.try_lock().is_err() {
            return;
        }
        for file in files {
            self.honour_one(&file, calls).await;
        }
    }

    async fn honour_one(&self, file: &Path, calls: &mpsc::Sender<Call>) {
        let note = match read(file) {
            Ok(note) => note,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(note = %file.display(), %error, "a note that nobody understands is removed");
                let _ = fs::remove_file(file);
                return;
            }
        };
        match ask(calls, note.request(), None).await {
            Ok(_) => {
                tracing::info!(?note, "done what the CNI plugin asked for while no router answered");
                let _ = fs::remove_file(file);
            }
            Err(error) => tracing::debug!(?note, %error, "a note of the CNI plugin has to wait"),
        }
    }

    /// The finished notes, by name; removes those whose writer died over them.
    fn list(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let path = entry.path();
            if !entry.file_name().to_string_lossy().starts_with('.') {
                found.push(path);
            } else if age(&path).is_some_and(|age| age >= ABANDONED) && !is_held(&path) {
                let _ = fs::remove_file(&path);
            }
        }
        found.sort();
        found.truncate(AT_ONCE);
        Ok(found)
    }
}

/// Whether somebody is still writing it; what cannot be opened is nothing of the plugin's.
fn is_held(file: &Path) -> bool {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(file);
    opened.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// How long ago a file was changed, in seconds.
fn age(file: &Path) -> Option<i64> {
    let changed = fs::symlink_metadata(file).ok()?.mtime();
    let since = std::time::UNIX_EPOCH.elapsed().ok()?;
    Some(i64::try_from(since.as_secs()).ok()? - changed)
}

/// Reads one note; never follows a link, never waits at a pipe.
fn read(file: &Path) -> io::Result<CniNote> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(file)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no plain file"));
    }
    let mut text = Vec::new();
    file.take(LARGEST).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
mod tests {
    use weft_api::{ApiError, CniName, Request, Response};

    use super::*;
    use crate::io::testing::Directory;

    fn note(container: &str) -> CniNote {
        CniNote::Del(CniName { container: container.into(), ifname: "eth0".into() })
    }

    fn leave(notes: &Notes, note: &CniNote) -> PathBuf {
        let path = notes.directory.join(note.file());
        fs::write(&path, serde_json::to_vec(note).unwrap()).unwrap();
        path
    }

    #[tokio::test]
    async fn a_note_goes_when_it_is_done_and_stays_when_it_is_not_and_rubbish_goes() {
        let dir = Directory::new();
        let notes = Notes::of(&dir.path().join("weft.sock"));
        let (done, waits) = (leave(&notes, &note("a")), leave(&notes, &note("b")));
        let rubbish = notes.directory.join("link-c");
        fs::write(&rubbish, "{").unwrap();
        let link = notes.directory.join("link-d");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let begun = notes.directory.join(".17");
        fs::write(&begun, "{").unwrap();
        let (calls, mut queue) = mpsc::channel::<Call>(4);
        let router = tokio::spawn(async move {
            while let Some(call) = queue.recv().await {
                let done = matches!(&call.request, Request::CniDel(name) if name.container == "a");
                let result = if done {
                    Ok(Response::Done(Vec::new()))
                } else {
                    Err(ApiError::not_now("the state cannot be written"))
                };
                call.reply.send(result).unwrap();
            }
        });
        notes.honour(&calls).await;
        assert!(!done.exists() && waits.exists());
        assert!(!rubbish.exists() && fs::symlink_metadata(&link).is_err());
        assert!(begun.exists(), "somebody may be writing it");
        drop(calls);
        router.await.unwrap();
    }

    #[tokio::test]
    async fn a_note_whose_writer_is_dead_goes_and_one_that_is_being_written_stays() {
        let dir = Directory::new();
        let notes = Notes::of(&dir.path().join("weft.sock"));
        let begin = |name: &str| {
            let path = notes.directory.join(name);
            let file = File::create(&path).unwrap();
            let written = file.metadata().unwrap().modified().unwrap();
            file.set_modified(written - std::time::Duration::from_secs(5)).unwrap();
            (path, file)
        };
        let ((dead, _), (alive, writing)) = (begin(".1"), begin(".2"));
        writing.lock().unwrap();
        let (calls, _queue) = mpsc::channel::<Call>(4);
        notes.honour(&calls).await;
        assert!(!dead.exists() && alive.exists());
        drop(writing);
        notes.honour(&calls).await;
        assert!(!alive.exists());
    }

    #[tokio::test]
    async fn while_a_plugin_holds_the_lock_its_note_is_not_touched() {
        let dir = Directory::new();
        let notes = Notes::of(&dir.path().join("weft.sock"));
        let path = leave(&notes, &note("a"));
        let lock = File::open(&notes.directory).unwrap();
        lock.lock().unwrap();
        let (calls, queue) = mpsc::channel::<Call>(4);
        notes.honour(&calls).await;
        assert!(path.exists() && queue.is_empty());
    }
}

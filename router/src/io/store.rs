//! What the router remembers over a restart: one snapshot, two generations of it, and the identity key.
//!
//! ```text
//! lock            held (flock) while a router uses the directory; its pid stands in it
//! identity        the static secret key, sealed as below, mode 0600
//! state           the snapshot:  "weftstor" │ version u32 │ length u64 │ BLAKE2s-256 │ bytes
//! state.previous  the one before
//! state.new       a write that was not finished; never read
//! state.damaged   a `state` that was found broken, for whoever wants to know why
//! ```
//!
//! One file written whole, not a database: the snapshot is far under a megabyte, a write takes a millisecond, and
//! anybody can copy it. A write is: new file, fsync, `state` → `state.previous`, new → `state`, fsync of the directory.
//! So at every moment a sound generation lies there, and [`Store::save`] returns only when the new one will survive.

mod seal;
mod writer;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::directory::Made;
pub use seal::Flaw;
use seal::{seal, unseal};
pub use writer::Writer;

/// Larger is no snapshot of ours.
const LARGEST: u64 = 256 << 20;

const LOCK: &str = "lock";
const IDENTITY: &str = "identity";
const CURRENT: &str = "state";
const PREVIOUS: &str = "state.previous";
const NEW: &str = "state.new";
const DAMAGED: &str = "state.damaged";
/// Everything that may lie in the directory, but for the lock.
const FILES: [&str; 6] = [IDENTITY, "identity.new", CURRENT, PREVIOUS, NEW, DAMAGED];

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A router holds it.
    #[error("state directory {} in use by another router (pid {pid})", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The router's pid as it sees itself, or `?`.
        pid: String,
    },
    /// The identity key is there and broken; a new one would make another peer of this host.
    #[error("{} is damaged ({flaw}): restore it, or remove it to start as a new peer", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The system refused.
    #[error("cannot {verb} {}: {reason}", path.display())]
    System {
        /// What was tried.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
}

/// What was found at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The latest sound snapshot; none: there never was one, or none is sound.
    pub bytes: Option<Vec<u8>>,
    /// Which generation was used and why, whenever it is not simply the latest. Worth a warning.
    pub note: Option<String>,
}

/// What a look from outside finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// No state.
    Empty,
    /// The latest snapshot is sound.
    Sound,
    /// It is not.
    Damaged(String),
    /// A router (its pid) uses it now.
    InUse(String),
}

/// The state directory, held by this process.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    _lock: File,
    /// The files that were there before this process came.
    found: Vec<&'static str>,
    _made: Made,
}

impl Store {
    /// Makes the directory if need be, holds it, and reads the latest sound snapshot.
    ///
    /// # Errors
    ///
    /// `InUse` and `System`; a damaged snapshot is none, but stands in the note.
    pub fn open(dir: &Path) -> Result<(Self, Loaded), StoreError> {
        let _made = Made::ensure(dir, 0o700).map_err(system("make", dir))?;
        let found = found(dir);
        let store = Self { dir: dir.to_owned(), _lock: hold(dir)?, found, _made };
        let loaded = store.load()?;
        Ok((store, loaded))
    }

    /// Writes the next generation; when this returns, it survives a crash of the host.
    ///
    /// # Errors
    ///
    /// `System`; the generation before stands untouched.
    pub fn save(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let [current, previous, new] = [CURRENT, PREVIOUS, NEW].map(|name| self.dir.join(name));
        write_durably(&new, &seal(bytes))?;
        match fs::rename(&current, &previous) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            other => other.map_err(system("rename", &current))?,
        }
        fs::rename(&new, &current).map_err(system("rename", &new))?;
        sync_directory(&self.dir)
    }

    /// The identity key, if there is one.
    ///
    /// # Errors
    ///
    /// `Identity` when it is damaged, and `System`.
    pub fn identity(&self) -> Result<Option<[u8; 32]>, StoreError> {
        let path = self.dir.join(IDENTITY);
        let broken = |flaw| StoreError::Identity { path: path.clone(), flaw };
        match read(&path)? {
            None => Ok(None),
            Some(file) => {
                let key = unseal(&file).map_err(broken)?;
                key.try_into().map(Some).map_err(|_| broken(Flaw::Length))
            }
        }
    }

    /// Writes the identity key, mode 0600.
    ///
    /// # Errors
    ///
    /// `System`.
    pub fn save_identity(&self, key: &[u8; 32]) -> Result<(), StoreError> {
        let [path, new] = [IDENTITY, "identity.new"].map(|name| self.dir.join(name));
        write_durably(&new, &seal(key))?;
        fs::rename(&new, &path).map_err(system("rename", &new))?;
        sync_directory(&self.dir)
    }

    /// A launch came to nothing: puts back the snapshot it began with and removes what was not there before.
    ///
    /// # Errors
    ///
    /// `System`.
    pub fn abandon(self, before: &Loaded) -> Result<(), StoreError> {
        if let Some(bytes) = &before.bytes {
            let current = read(&self.dir.join(CURRENT))?;
            if current.as_deref().is_some_and(|file| unseal(file).ok() != Some(bytes)) {
                self.save(bytes)?;
            }
        }
        let kept = |name: &&str| self.found.contains(name) || (*name == PREVIOUS && before.bytes.is_some());
        for name in FILES.into_iter().chain([LOCK]).filter(|name| !kept(name)) {
            // A damaged snapshot was set aside, not made.
            if name != DAMAGED {
                remove(&self.dir.join(name))?;
            }
        }
        Ok(())
    }

    /// Removes all state, and the directory if nothing else is in it.
    ///
    /// # Errors
    ///
    /// `System`.
    pub fn erase(self) -> Result<(), StoreError> {
        for name in FILES.into_iter().chain([LOCK]) {
            remove(&self.dir.join(name))?;
        }
        // Not ours to insist on: the directory may be a mount, or hold what others put there.
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }

    /// The latest sound generation. A broken `state` is set aside, or the next save would put it over the sound one.
    fn load(&self) -> Result<Loaded, StoreError> {
        let [current, previous] = [CURRENT, PREVIOUS].map(|name| self.dir.join(name));
        let why = match read(&current)?.map(|file| unseal(&file).map(<[u8]>::to_vec)) {
            Some(Ok(bytes)) => return Ok(Loaded { bytes: Some(bytes), note: None }),
            Some(Err(flaw)) => {
                let aside = self.dir.join(DAMAGED);
                fs::rename(&current, &aside).map_err(system("rename", &current))?;
                Some(format!("{} was damaged ({flaw}) and is kept as {}", current.display(), aside.display()))
            }
            None => None,
        };
        Ok(match (read(&previous)?.map(|file| unseal(&file).map(<[u8]>::to_vec)), why) {
            (Some(Ok(bytes)), why) => {
                let why = why.unwrap_or_else(|| format!("{} was missing", current.display()));
                Loaded { bytes: Some(bytes), note: Some(format!("{why}; using the generation before it")) }
            }
            (Some(Err(flaw)), why) => {
                let why = why.unwrap_or_else(|| format!("{} was missing", current.display()));
                let note =
                    format!("{why}; {} is damaged too ({flaw}); starting without state", previous.display());
                Loaded { bytes: None, note: Some(note) }
            }
            (None, Some(why)) => Loaded {
                bytes: None,
                note: Some(format!("{why}; there is none before it; starting without state")),
            },
            (None, None) => Loaded { bytes: None, note: None },
        })
    }
}

/// Looks at a state directory without changing or holding it.
///
/// # Errors
///
/// `System` when it cannot be read.
pub fn inspect(dir: &Path) -> Result<Condition, StoreError> {
    let lock = dir.join(LOCK);
    match File::open(&lock) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Condition::InUse(holder(&lock))),
            Err(TryLockError::Error(error)) => return Err(system("lock", &lock)(error)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(system("open", &lock)(error)),
    }
    Ok(match read(&dir.join(CURRENT))?.map(|file| unseal(&file).map(drop)) {
        Some(Ok(())) => Condition::Sound,
        Some(Err(flaw)) => Condition::Damaged(format!("the latest snapshot is damaged: {flaw}")),
        None if read(&dir.join(PREVIOUS))?.is_some() => {
            Condition::Damaged("the latest snapshot is missing, the one before is there".to_owned())
        }
        None => Condition::Empty,
    })
}

/// Removes the state of a router that does not run; false when there is none.
///
/// # Errors
///
/// `InUse` and `System`.
pub fn erase(dir: &Path) -> Result<bool, StoreError> {
    match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(system("look at", dir)(error)),
        Ok(_) => {
            let existed = FILES.iter().any(|name| dir.join(name).exists());
            let _lock = hold(dir)?;
            let store = Store { dir: dir.to_owned(), _lock, found: Vec::new(), _made: Made::default() };
            store.erase().map(|()| existed)
        }
    }
}

/// The files of ours that lie in the directory.
fn found(dir: &Path) -> Vec<&'static str> {
    let names = FILES.into_iter().chain([LOCK]);
    names.filter(|name| fs::symlink_metadata(dir.join(name)).is_ok()).collect()
}

/// Removes a file that may be there.
fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(system("remove", path)),
    }
}

/// Takes the lock and writes the pid into it.
fn hold(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK);
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = opened.map_err(system("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(StoreError::InUse { dir: dir.to_owned(), pid: holder(&path) });
        }
        Err(TryLockError::Error(error)) => return Err(system("lock", &path)(error)),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(system("write", &path))?;
    Ok(file)
}

/// The pid in a lock file, as text for people.
fn holder(lock: &Path) -> String {
    let mut text = String::new();
    let read = File::open(lock).and_then(|file| file.take(20).read_to_string(&mut text));
    let pid = text.trim();
    if read.is_ok() && !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()) { pid } else { "?" }
        .to_owned()
}

/// The file's bytes; none when there is no file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let mut bytes = Vec::new();
    // One byte past the limit is enough to see, by its checksum, that it is not ours.
    match File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(system("read", path)(error)),
    }
}

/// A new private file with these bytes, on the disk when this returns.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(system("write", path))
}

fn sync_directory(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(system("sync", dir))
}

fn system(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |reason| StoreError::System { verb, path: path.to_owned(), reason }
}

#[cfg(test)]
mod tests;

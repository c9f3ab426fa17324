//! The place of a unix socket in the file system: one router a path, mode 0600 from the first moment, gone with the
//! router, and a file left by a dead one is replaced.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket},
        stat::{Mode, fchmod},
    },
};

use super::directory::Made;

/// Why a socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A router lives there.
    #[error("another router answers on {}", .0.display())]
    Live(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{} is in the way: it is not a socket", .0.display())]
    InTheWay(PathBuf),
    /// The system refused.
    #[error("cannot listen on {}: {reason}", path.display())]
    Refused {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
}

/// Holds a path that a socket of ours listens on, and frees it when dropped.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    inode: u64,
    made: Made,
}

impl Place {
    /// The router serves: the directories made for the socket outlive it, for others may have mounted them.
    pub(super) fn settle(&mut self) {
        self.made.keep();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Somebody may have removed ours and put another there: that one is not ours to remove.
        if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Takes a path and listens there. The listener does not block.
///
/// The standard listener serves both kinds: `SOCK_STREAM`, and `SOCK_SEQPACKET`, whose accept is the same call.
pub(super) fn claim(path: &Path, kind: SockType) -> Result<(UnixListener, Place), SocketError> {
    let refused = |reason: io::Error| SocketError::Refused { path: path.to_owned(), reason };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let made = Made::ensure(directory, 0o755).map_err(refused)?;
    // Two launches at once must not both take the same dead file for theirs.
    let turn = File::open(directory).map_err(refused)?;
    turn.lock().map_err(refused)?;
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused(error)),
        Ok(file) if !file.file_type().is_socket() => return Err(SocketError::InTheWay(path.to_owned())),
        Ok(_) if is_live(path, kind).map_err(refused)? => return Err(SocketError::Live(path.to_owned())),
        Ok(_) => fs::remove_file(path).map_err(refused)?,
    }
    let socket = listening(path, kind).map_err(|error| refused(error.into()))?;
    let inode = fs::symlink_metadata(path).map_err(refused)?.ino();
    Ok((UnixListener::from(socket), Place { path: path.to_owned(), inode, made }))
}

/// Whether somebody listens there; a full queue counts.
fn is_live(path: &Path, kind: SockType) -> io::Result<bool> {
    let probe = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn listening(path: &Path, kind: SockType) -> nix::Result<OwnedFd> {
    let address = UnixAddr::new(path)?;
    let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    // Before bind: the file is made with the socket's mode, so at no moment is it open to others.
    fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(socket.as_raw_fd(), &address)?;
    listen(&socket, Backlog::new(128)?)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::io::testing::Directory;

    #[test]
    fn a_socket_is_private_from_the_start_and_goes_with_its_router() {
        let dir = Directory::new();
        let path = dir.path().join("run").join("weft.sock");
        let (listener, place) = claim(&path, SockType::Stream).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop((listener, place));
        assert!(!path.exists());
    }

    #[test]
    fn the_directory_made_for_a_socket_goes_with_it_until_it_serves() {
        let dir = Directory::new();
        let run = dir.path().join("run");
        drop(claim(&run.join("weft.sock"), SockType::Stream).unwrap());
        assert!(!run.exists(), "a launch that is refused leaves nothing");
        let (listener, mut place) = claim(&run.join("weft.sock"), SockType::Stream).unwrap();
        place.settle();
        drop((listener, place));
        assert!(run.exists());
    }

    #[test]
    fn a_live_socket_is_refused_and_a_dead_one_replaced() {
        let dir = Directory::new();
        let path = dir.path().join("weft.sock");
        for kind in [SockType::Stream, SockType::SeqPacket] {
            let (listener, place) = claim(&path, kind).unwrap();
            let error = claim(&path, kind).unwrap_err();
            assert_eq!(error.to_string(), format!("another router answers on {}", path.display()));
            assert!(path.exists(), "a refused launch removes nothing");
            drop(listener);
            std::mem::forget(place); // as after kill -9
            assert!(path.exists());
            drop(claim(&path, kind).unwrap());
        }
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let dir = Directory::new();
        let path = dir.path().join("weft.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(claim(&path, SockType::Stream), Err(SocketError::InTheWay(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn somebody_elses_socket_is_not_removed() {
        let dir = Directory::new();
        let path = dir.path().join("weft.sock");
        let (_first, place) = claim(&path, SockType::Stream).unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        let (_second, _place) = claim(&path, SockType::Stream).unwrap();
        drop(place);
        assert!(path.exists());
    }
}

//! A network namespace as people name it, and the two descriptors the router needs of it.
//!
//! The router may run where it can neither see the namespace's path nor its process. So the client opens it and hands
//! over the namespace itself (for the far end of the veth pair) and a netlink socket opened inside it (addresses and
//! routes then need no `setns`).

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::{
        socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
        statfs::{NSFS_MAGIC, fstatfs},
    },
};

use crate::{ApiError, sys};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// What goes to the router with an attach request.
#[derive(Debug)]
pub struct Descriptors {
    /// The namespace.
    pub netns: OwnedFd,
    /// A route netlink socket opened inside it, not bound yet.
    pub netlink: OwnedFd,
}

/// An open network namespace.
#[derive(Debug)]
pub struct Namespace {
    path: PathBuf,
    inode: u64,
    file: File,
}

/// Why a namespace cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// Neither a path, nor a name, nor `pid:N`.
    #[error("'{0}' names no network namespace: give a path, a name under {NAMES}, or pid:N")]
    Malformed(String),
    /// Nothing is there.
    #[error("no network namespace at {}", .0.display())]
    Missing(PathBuf),
    /// Something else is there.
    #[error("{} is not a network namespace", .0.display())]
    NotOne(PathBuf),
    /// It is the one the caller itself is in.
    #[error("{} is the host's own network namespace; 'weft expose' gives the host an address", .0.display())]
    Own(PathBuf),
    /// The kernel refused.
    #[error("cannot open network namespace {}: {reason}", path.display())]
    Refused {
        /// The namespace.
        path: PathBuf,
        /// What the kernel said.
        reason: io::Error,
    },
}

impl From<NetnsError> for ApiError {
    fn from(error: NetnsError) -> Self {
        match error {
            NetnsError::Malformed(_) => Self::usage(error.to_string()),
            NetnsError::Missing(_)
            | NetnsError::NotOne(_)
            | NetnsError::Own(_)
            | NetnsError::Refused { .. } => Self::failed(error.to_string()),
        }
    }
}

impl Namespace {
    /// The path of a namespace named by a path, a name under `/run/netns`, or `pid:N`; it need not exist.
    ///
    /// # Errors
    ///
    /// `Malformed`.
    pub fn locate(name: &str) -> Result<PathBuf, NetnsError> {
        let malformed = || NetnsError::Malformed(name.to_owned());
        if let Some(pid) = name.strip_prefix("pid:") {
            let pid: u32 = pid.parse().map_err(|_| malformed())?;
            return Ok(format!("/proc/{pid}/ns/net").into());
        }
        match name {
            "" | "." | ".." => Err(malformed()),
            _ if name.contains('\0') => Err(malformed()),
            _ if name.contains('/') => std::path::absolute(name).map_err(|_| malformed()),
            _ => Ok(Path::new(NAMES).join(name)),
        }
    }

    /// Opens the namespace and makes sure that it is one.
    ///
    /// # Errors
    ///
    /// All but `Own`.
    pub fn open(name: &str) -> Result<Self, NetnsError> {
        let path = Self::locate(name)?;
        // Not blocking: the path may be a pipe nobody writes to.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        let file = opened.map_err(|error| {
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                NetnsError::Missing(path.clone())
            } else {
                NetnsError::Refused { path: path.clone(), reason: error }
            }
        })?;
        match is_network_namespace(&file) {
            Ok(true) => {}
            Ok(false) => return Err(NetnsError::NotOne(path)),
            Err(reason) => return Err(NetnsError::Refused { path, reason }),
        }
        match file.metadata() {
            Ok(metadata) => Ok(Self { path, inode: metadata.ino(), file }),
            Err(reason) => Err(NetnsError::Refused { path, reason }),
        }
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its inode: which namespace it is, whatever path it was opened by.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Opens a netlink socket inside and gives both descriptors away.
    ///
    /// # Errors
    ///
    /// `Own` and `Refused`.
    pub fn into_descriptors(self) -> Result<Descriptors, NetnsError> {
        let Self { path, file, .. } = self;
        let own = is_own(&file);
        let result = match own {
            Ok(true) => return Err(NetnsError::Own(path)),
            Ok(false) => netlink_inside(&file),
            Err(error) => Err(error),
        };
        match result {
            Ok(netlink) => Ok(Descriptors { netns: file.into(), netlink }),
            Err(reason) => Err(NetnsError::Refused { path, reason }),
        }
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether an open file is a network namespace; asks the file system first, so that no device sees a foreign ioctl.
///
/// # Errors
///
/// What the kernel says.
pub fn is_network_namespace(file: &impl AsFd) -> io::Result<bool> {
    Ok(fstatfs(file)?.filesystem_type() == NSFS_MAGIC && sys::is_network_namespace(file.as_fd())?)
}

/// Whether an open namespace is the one this process is in.
///
/// # Errors
///
/// What the kernel says.
pub fn is_own(namespace: &impl AsFd) -> io::Result<bool> {
    let own = fs::metadata("/proc/self/ns/net")?;
    let other = nix::sys::stat::fstat(namespace)?;
    Ok((own.dev(), own.ino()) == (other.st_dev, other.st_ino))
}

/// Opens a route netlink socket inside a namespace, on a thread that ends in there.
fn netlink_inside(namespace: &File) -> io::Result<OwnedFd> {
    let inside = || -> io::Result<OwnedFd> {
        setns(namespace, CloneFlags::CLONE_NEWNET)?;
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?)
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, inside)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_a_path_a_name_or_a_process() {
        for (name, path) in [
            ("c1", "/run/netns/c1"),
            ("/run/netns/c1", "/run/netns/c1"),
            ("/proc/1/ns/net", "/proc/1/ns/net"),
            ("pid:42", "/proc/42/ns/net"),
        ] {
            assert_eq!(Namespace::locate(name).unwrap(), Path::new(path));
        }
        for name in ["", ".", "..", "pid:", "pid:x", "pid:-1", "a\0b"] {
            assert!(matches!(Namespace::locate(name), Err(NetnsError::Malformed(_))), "{name}");
        }
    }

    #[test]
    fn what_is_no_namespace_is_refused_with_its_name() {
        let error = Namespace::open("weft-test-no-such-name").unwrap_err();
        assert_eq!(error.to_string(), "no network namespace at /run/netns/weft-test-no-such-name");
        let error = Namespace::open("/etc/passwd").unwrap_err();
        assert_eq!(error.to_string(), "/etc/passwd is not a network namespace");
        let error = Namespace::open("/etc/passwd/x").unwrap_err();
        assert!(matches!(error, NetnsError::Missing(_)));
        let error = Namespace::open("/dev/null").unwrap_err();
        assert!(matches!(error, NetnsError::NotOne(_)));
        let error = Namespace::open("/proc/self/ns/mnt").unwrap_err();
        assert!(matches!(error, NetnsError::NotOne(_)));
    }

    #[test]
    fn the_callers_own_namespace_is_refused() {
        let own = Namespace::open("/proc/self/ns/net").unwrap();
        assert!(own.inode() > 0);
        assert!(matches!(own.into_descriptors(), Err(NetnsError::Own(_))));
    }
}

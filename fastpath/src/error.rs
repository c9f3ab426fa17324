//! What can go wrong, divided by whose fault it is.
//!
//! Each message names the object, what was tried, and the cause in words; the error number stays beside it for
//! those who decide by it.

/// What the kernel says of one call that it would not say of the next.
pub(crate) const PASSING: [i32; 3] = [libc::EINTR, libc::ENOBUFS, libc::ENOMEM];

/// A failure of something asked of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The caller asked for something that cannot be; nothing was done.
    #[error("{object}: {cause}")]
    Refused {
        /// What was asked for.
        object: String,
        /// Why it cannot be.
        cause: String,
    },
    /// Something that is not ours stands where ours should; it was not touched.
    #[error("{object} exists and is not ours ({found}); remove it or choose another name")]
    Conflict {
        /// The name we wanted.
        object: String,
        /// What has the name.
        found: String,
    },
    /// The kernel refused.
    #[error("cannot {operation} {object}: {cause}")]
    Kernel {
        /// What it was done to.
        object: String,
        /// What was tried, as a verb.
        operation: &'static str,
        /// The kernel's error number, when it gave one.
        errno: Option<i32>,
        /// The reason in words.
        cause: String,
    },
    /// The kernel did not answer in time; what it was asked may or may not have happened.
    #[error("cannot {operation} {object}: no answer from the kernel within {seconds} s")]
    Timeout {
        /// What it was done to.
        object: String,
        /// What was tried, as a verb.
        operation: &'static str,
        /// How long we waited.
        seconds: u64,
    },
    /// Somebody undoes our changes as fast as we make them.
    #[error("the kernel does not stay as wanted; still to do after {rounds} rounds: {first}")]
    Restless {
        /// How often we looked and changed.
        rounds: usize,
        /// The first change that was still due.
        first: String,
    },
}

impl Error {
    /// Something the caller may not ask for.
    pub(crate) fn refused(object: impl Into<String>, cause: impl Into<String>) -> Self {
        Self::Refused { object: object.into(), cause: cause.into() }
    }

    /// What the kernel said no to.
    pub(crate) fn kernel(object: impl Into<String>, operation: &'static str, error: &std::io::Error) -> Self {
        let errno = error.raw_os_error();
        let cause = errno.and_then(human).map_or_else(|| error.to_string(), str::to_owned);
        Self::Kernel { object: object.into(), operation, errno, cause }
    }

    /// The same with a better reason.
    pub(crate) fn because(mut self, reason: &str) -> Self {
        if let Self::Kernel { cause, .. } | Self::Refused { cause, .. } = &mut self {
            reason.clone_into(cause);
        }
        self
    }

    /// The kernel's error number, when there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { errno, .. } => *errno,
            Self::Refused { .. } | Self::Conflict { .. } | Self::Timeout { .. } | Self::Restless { .. } => {
                None
            }
        }
    }

    /// Whether the interface that something was asked of is gone, or down.
    pub fn is_gone(&self) -> bool {
        self.is(&[libc::ENODEV, libc::ENXIO, libc::ENETDOWN])
    }

    /// Whether the same may go well the next time: a call was interrupted, or the kernel was short of memory for it.
    pub(crate) fn passes(&self) -> bool {
        self.is(&PASSING)
    }

    /// Whether the kernel answered with one of these error numbers.
    pub(crate) fn is(&self, numbers: &[i32]) -> bool {
        self.errno().is_some_and(|errno| numbers.contains(&errno))
    }
}

/// What an error number means here, where that says more than the C library does.
fn human(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EPERM | libc::EACCES => "not permitted (CAP_NET_ADMIN is needed)",
        libc::EEXIST => "it exists already",
        libc::EADDRINUSE => "its UDP port is in use on this host",
        libc::ENODEV => "no such interface",
        libc::EOPNOTSUPP => "this kernel does not support it",
        libc::EROFS => "the file system is read-only",
        libc::EAFNOSUPPORT => "the address family is switched off on this host",
        libc::ENETUNREACH => "the gateway cannot be reached through this interface",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_object_operation_and_cause() {
        let error = Error::kernel("bridge weft", "create", &std::io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(error.to_string(), "cannot create bridge weft: not permitted (CAP_NET_ADMIN is needed)");
        assert_eq!(error.errno(), Some(libc::EPERM));
    }

    #[test]
    fn a_number_we_have_no_words_for_keeps_those_of_the_system() {
        let error = Error::kernel("weft", "set up", &std::io::Error::from_raw_os_error(libc::ENOBUFS));
        assert!(error.to_string().contains("No buffer space"), "{error}");
    }
}

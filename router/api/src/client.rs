//! The blocking client: one request, one connection, one answer, and a deadline over all of it.

use std::{
    io::{self, IoSlice},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg,
            setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};

use crate::{Answer, ApiError, Descriptors, Request, Response, deadline::Deadline, http, sys};

/// The API's one path.
pub const CALL_PATH: &str = "/v1/call";

/// The largest packet on the attach socket, either way, in bytes.
pub const LARGEST_PACKET: usize = 64 << 10;

/// How much longer the client waits than the router may take, so that the router's own words win.
const GRACE: Duration = Duration::from_secs(2);

/// The attach socket that belongs to an API socket: `weft-attach.sock` beside `weft.sock`.
pub fn attach_socket(socket: &Path) -> PathBuf {
    let mut name = socket.file_stem().unwrap_or_default().to_owned();
    name.push("-attach");
    if let Some(extension) = socket.extension() {
        name.push(".");
        name.push(extension);
    }
    socket.with_file_name(name)
}

/// A way to the router behind a socket; nothing is opened before a call.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    /// When everything must be over, whatever each request allows.
    until: Option<Deadline>,
}

impl Client {
    /// The router behind the API socket at this path.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), until: None }
    }

    /// The same, but all its requests from now on have no more time together than this.
    #[must_use]
    pub fn within(self, patience: Duration) -> Self {
        Self { until: Some(Deadline::after(patience)), ..self }
    }

    /// Whether there is time for anything more.
    pub fn has_time(&self) -> bool {
        self.until.is_none_or(|until| until.left().is_ok())
    }

    /// When this request must be over.
    fn deadline(&self, request: &Request) -> Deadline {
        let deadline = Deadline::after(request.allowance() + GRACE);
        self.until.map_or(deadline, |until| until.min(deadline))
    }

    /// Asks one thing.
    ///
    /// # Errors
    ///
    /// What the router refused; `NoRouter` when none is there, `NotNow` when it does not answer in time.
    pub fn call(&self, request: &Request) -> Result<Response, ApiError> {
        let deadline = self.deadline(request);
        let body = encode(request)?;
        let stream = open(&self.socket, SockType::Stream, deadline)?;
        let answer = http::post(&mut UnixStream::from(stream), CALL_PATH, &body, deadline);
        decode(&answer.map_err(|error| self.lost(&error))?)
    }

    /// Asks one thing and hands over a namespace with it.
    ///
    /// # Errors
    ///
    /// What the router refused; `NoRouter` when none is there, `NotNow` when it does not answer in time.
    pub fn call_with(&self, request: &Request, descriptors: &Descriptors) -> Result<Response, ApiError> {
        let deadline = self.deadline(request);
        let body = encode(request)?;
        if body.len() > LARGEST_PACKET {
            return Err(ApiError::usage(format!(
                "a request of {} bytes, at most {LARGEST_PACKET} go",
                body.len()
            )));
        }
        let socket = open(&attach_socket(&self.socket), SockType::SeqPacket, deadline)?;
        let answer = exchange(&socket, &body, descriptors, deadline);
        decode(&answer.map_err(|error| self.lost(&error))?)
    }

    /// Waits until the router has ended, at most `patience`; true when it has.
    ///
    /// It holds a connection to the attach socket, which the kernel closes with the router.
    pub fn wait_for_end(&self, patience: Duration) -> bool {
        let deadline = Deadline::after(patience);
        loop {
            let Ok(socket) = open(&attach_socket(&self.socket), SockType::SeqPacket, deadline) else {
                return deadline.left().is_ok();
            };
            let read = timeout(&socket, deadline).and_then(|()| sys::receive(socket.as_fd(), &mut [0]));
            if read.is_err() && deadline.left().is_err() {
                return false;
            }
        }
    }

    /// The router was there and then was not, or spoke nonsense.
    fn lost(&self, error: &io::Error) -> ApiError {
        let socket = self.socket.display();
        let kind = error.kind();
        if matches!(kind, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) {
            ApiError::not_now(format!("the router behind {socket} does not answer"))
        } else if matches!(
            kind,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
        ) {
            ApiError::no_router(format!("the router behind {socket} ended before it answered"))
        } else {
            ApiError::failed(format!("talking to the router behind {socket}: {error}"))
        }
    }
}

/// Connects; a unix connect heeds the send timeout, so a router that accepts nothing cannot hold us.
fn open(path: &Path, kind: SockType, deadline: Deadline) -> Result<OwnedFd, ApiError> {
    let shown = path.display();
    let address = UnixAddr::new(path)
        .map_err(|_| ApiError::usage(format!("{shown} is no socket path: at most 107 bytes")))?;
    let connected = || -> io::Result<OwnedFd> {
        let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::SendTimeout, &time_value(deadline.left()?))?;
        connect(socket.as_raw_fd(), &address)?;
        Ok(socket)
    };
    connected().map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR) => {
            ApiError::no_router(format!("no router answers on {shown}"))
        }
        Some(Errno::EACCES | Errno::EPERM) => {
            ApiError::failed(format!("no permission for {shown}: run as the user the router runs as (root)"))
        }
        Some(Errno::EAGAIN) => ApiError::not_now(format!("the router behind {shown} does not answer")),
        None if error.kind() == io::ErrorKind::TimedOut => {
            ApiError::not_now(format!("no time left to ask the router behind {shown}"))
        }
        _ => ApiError::failed(format!("cannot connect to {shown}: {error}")),
    })
}

/// Sends one packet with descriptors, receives one without.
fn exchange(
    socket: &OwnedFd,
    body: &[u8],
    descriptors: &Descriptors,
    deadline: Deadline,
) -> io::Result<Vec<u8>> {
    let raw = [descriptors.netns.as_raw_fd(), descriptors.netlink.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&raw)];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(body)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    timeout(socket, deadline)?;
    let mut answer = vec![0; LARGEST_PACKET];
    let (length, _) = sys::receive(socket.as_fd(), &mut answer)?;
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    answer.truncate(length);
    Ok(answer)
}

fn timeout(socket: &OwnedFd, deadline: Deadline) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::ReceiveTimeout, &time_value(deadline.left()?))?)
}

fn time_value(duration: Duration) -> TimeVal {
    // Of another width on every system: what does not fit is longer than anybody waits.
    let seconds = duration.as_secs().try_into().unwrap_or(i32::MAX.into());
    TimeVal::new(seconds, duration.subsec_micros().into())
}

fn encode(request: &Request) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(request)
        .map_err(|error| ApiError::usage(format!("a request that cannot be written: {error}")))
}

fn decode(answer: &[u8]) -> Result<Response, ApiError> {
    match serde_json::from_slice::<Answer>(answer) {
        Ok(answer) => answer.into(),
        Err(error) => {
            Err(ApiError::failed(format!("the router answers in words this version does not know: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[test]
    fn the_attach_socket_stands_beside_the_other() {
        for (socket, attach) in [
            ("/run/weft/weft.sock", "/run/weft/weft-attach.sock"),
            ("/x/foo.sock", "/x/foo-attach.sock"),
            ("/x/foo", "/x/foo-attach"),
            ("weft.sock", "weft-attach.sock"),
        ] {
            assert_eq!(attach_socket(Path::new(socket)), Path::new(attach));
        }
    }

    #[test]
    fn a_router_that_takes_the_call_and_is_silent_is_not_now_and_in_time() {
        let folder = std::env::temp_dir().join(format!("weft-client-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("weft.sock");
        let _listening = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let client = Client::new(&path).within(Duration::from_millis(50));
        for time_is_left in [true, false] {
            assert_eq!(client.has_time(), time_is_left);
            let error = client.call(&Request::Status).unwrap_err();
            assert_eq!(error.code, ErrorCode::NotNow, "{error}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn nobody_behind_the_socket_is_no_router() {
        for path in ["/no/such/dir/weft.sock", "/etc/passwd", "/etc/passwd/weft.sock"] {
            let error = Client::new(path).call(&Request::Status).unwrap_err();
            assert_eq!(error.code, ErrorCode::NoRouter, "{error}");
        }
        let error = Client::new("x".repeat(200)).call(&Request::Status).unwrap_err();
        assert_eq!(error.code, ErrorCode::Usage);
    }
}

//! As much HTTP/1.1 as one request to a local router takes: one request a connection, no chunks, no keeping alive.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
};

use crate::deadline::Deadline;

/// A status of ten thousand peers fits many times; more is not from a router.
const LARGEST_ANSWER: usize = 64 << 20;

/// Posts `body` and returns the body of the answer.
pub(crate) fn post(
    stream: &mut UnixStream,
    path: &str,
    body: &[u8],
    deadline: Deadline,
) -> io::Result<Vec<u8>> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: weft\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.set_write_timeout(Some(deadline.left()?))?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut received = Vec::with_capacity(4096);
    let mut chunk = [0; 16 << 10];
    loop {
        if let Some(answer) = complete(&received)? {
            return Ok(received.split_off(answer));
        }
        stream.set_read_timeout(Some(deadline.left()?))?;
        let read = match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        received.extend_from_slice(&chunk[..read]);
        if received.len() > LARGEST_ANSWER {
            return Err(malformed("an answer of more than 64 MiB"));
        }
    }
}

/// Where the body starts, once all of it is here.
fn complete(received: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if received.len() > 16 << 10 { Err(malformed("an endless head")) } else { Ok(None) };
    };
    let body = head + 4;
    let head = std::str::from_utf8(&received[..head]).map_err(|_| malformed("a head that is not text"))?;
    if !head.starts_with("HTTP/1.1 ") {
        return Err(malformed("no HTTP/1.1"));
    }
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .ok_or_else(|| malformed("no length"))?;
    let length: usize = length.1.trim().parse().map_err(|_| malformed("no length"))?;
    Ok((received.len() - body >= length).then_some(body))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed answer: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_complete_when_its_length_is_here() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-LENGTH: 5\r\n\r\nhello";
        for cut in 0..whole.len() {
            assert_eq!(complete(&whole[..cut]).unwrap(), None, "cut at {cut}");
        }
        assert_eq!(complete(whole).unwrap(), Some(whole.len() - 5));
    }

    #[test]
    fn an_answer_that_is_no_http_is_an_error() {
        assert!(complete(b"SSH-2.0\r\n\r\n").is_err());
        assert!(complete(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(complete(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n").is_err());
        assert!(complete(&[b'x'; 20 << 10]).is_err());
    }
}

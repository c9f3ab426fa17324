//! The log: stderr, and the latest lines kept for `weft report`.
//!
//! One global buffer, because the log has one: tracing's subscriber is global too. It holds the last
//! `KEPT` lines of whatever the filter lets through, oldest first.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Mutex;

/// Lines kept: the story of the last changes, about 100 kB at most.
const KEPT: usize = 400;

/// A longer line is kept up to here, bytes.
const LONGEST: usize = 1024;

static LINES: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Writes to stderr and remembers.
#[derive(Clone, Copy, Debug)]
pub struct Journal;

impl Write for Journal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The subscriber hands over one whole line a call.
        let line = String::from_utf8_lossy(bytes).trim_end().chars().take(LONGEST).collect();
        if let Ok(mut lines) = LINES.lock() {
            if lines.len() == KEPT {
                lines.pop_front();
            }
            lines.push_back(line);
        }
        io::stderr().write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The latest lines, oldest first.
#[must_use]
pub fn recent() -> Vec<String> {
    LINES.lock().map(|lines| lines.iter().cloned().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_lines_are_kept_and_the_oldest_go_first() {
        for number in 0..=KEPT {
            Journal.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        let lines = recent();
        assert_eq!(lines.len(), KEPT);
        assert_eq!(lines.last().map(String::as_str), Some(format!("line {KEPT}").as_str()));
        assert!(!lines.contains(&"line 0".to_owned()));
    }
}

//! A steady stream of small questions, to see what an application feels while routers come and go.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Background, ECHO_PORT, is_silence};
use crate::deadline;
use crate::netns::Netns;

/// How long the last answers may take.
const GRACE: Duration = Duration::from_secs(1);

/// Asks an [`super::Echo`] over UDP at a fixed interval until finished.
#[derive(Debug)]
pub struct Flow(Background<FlowReport>);

/// When each question was asked and when it was answered.
#[derive(Debug, Clone, Default)]
pub struct FlowReport {
    asked: BTreeMap<u64, Instant>,
    answered: BTreeMap<u64, Instant>,
}

impl Flow {
    /// Starts asking.
    ///
    /// # Errors
    /// When no socket can be had.
    pub fn start(from: &Netns, to: Ipv4Addr, interval: Duration) -> Result<Self> {
        let socket = from.run(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((to, ECHO_PORT)).context("no route for the flow")?;
            Ok(socket)
        })?;
        Ok(Self(Background::start(|stop| std::thread::spawn(move || ask(&socket, interval, &stop)))))
    }

    /// Stops asking, waits for the last answers and reports.
    ///
    /// # Errors
    /// When the socket failed.
    pub fn finish(self) -> Result<FlowReport> {
        self.0.finish()
    }
}

fn ask(socket: &UdpSocket, interval: Duration, stop: &AtomicBool) -> Result<FlowReport> {
    let mut report = FlowReport::default();
    let mut due = deadline::now();
    let mut end = None;
    loop {
        let now = deadline::now();
        if end.is_none() && stop.load(Ordering::Relaxed) {
            end = Some(now + GRACE);
        }
        if end.is_some_and(|end| now >= end || report.lost() == 0) {
            return Ok(report);
        }
        if end.is_none() && now >= due {
            let number = report.asked.len() as u64;
            report.asked.insert(number, now);
            // A refusal (no route, neighbour unknown) is a lost question; the report shows it.
            let _ = socket.send(&number.to_be_bytes());
            due += interval;
        }
        let rest = due.saturating_duration_since(now).clamp(Duration::from_millis(1), interval);
        hear(socket, rest, &mut report)?;
    }
}

fn hear(socket: &UdpSocket, patience: Duration, report: &mut FlowReport) -> Result<()> {
    let mut buffer = [0; 64];
    socket.set_read_timeout(Some(patience))?;
    match socket.recv(&mut buffer) {
        Ok(8) => {
            let mut number = [0; 8];
            number.copy_from_slice(&buffer[..8]);
            report.answered.entry(u64::from_be_bytes(number)).or_insert_with(deadline::now);
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) if is_silence(&error) => Ok(()),
        // EHOSTUNREACH and its like are news about an earlier question.
        Err(error) if error.raw_os_error().is_some() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

impl FlowReport {
    /// Questions asked.
    pub fn sent(&self) -> usize {
        self.asked.len()
    }

    /// Questions never answered.
    pub fn lost(&self) -> usize {
        self.asked.len().saturating_sub(self.answered.len())
    }

    /// When the first question asked at or after `moment` that got an answer got it.
    pub fn first_answer_after(&self, moment: Instant) -> Option<Instant> {
        let fresh = self.asked.iter().filter(|(_, asked)| **asked >= moment);
        fresh.filter_map(|(number, _)| self.answered.get(number)).min().copied()
    }

    /// The longest time between two answers, the start and the end of the flow counting as answers.
    pub fn longest_silence(&self) -> Duration {
        let mut moments: Vec<Instant> = self.answered.values().copied().collect();
        moments.extend(self.asked.values().next());
        moments.extend(self.asked.values().next_back());
        moments.sort();
        moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

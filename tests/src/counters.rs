//! What a router has counted: its `/metrics`, as a scraper reads them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::host::Host;

/// Where metrics are served unless told otherwise: loopback of the host.
const PORT: u16 = 6782;
const PATIENCE: Duration = Duration::from_secs(5);

/// Every sample, by its name with its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Counters(BTreeMap<String, f64>);

impl Counters {
    /// Scrapes a host's router.
    ///
    /// # Errors
    /// When it does not answer, or not with numbers.
    pub fn of(host: &Host) -> Result<Self> {
        let answer = host.netns().run(|| {
            let mut stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, PORT).into(), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "/metrics said: {answer}");
        let samples = answer.lines().filter(|line| line.starts_with("weft_"));
        let sample = |line: &str| -> Option<(String, f64)> {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        let samples: Option<BTreeMap<String, f64>> = samples.map(sample).collect();
        Ok(Self(samples.with_context(|| format!("not numbers: {answer}"))?))
    }

    /// The sum of all samples whose name, with labels, begins with these words.
    pub fn sum(&self, prefix: &str) -> f64 {
        self.0.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, value)| value).sum()
    }

    /// What has grown since, by how much.
    pub fn since(&self, before: &Self) -> BTreeMap<String, f64> {
        let grown = |(name, value): (&String, &f64)| {
            let by = value - before.0.get(name).copied().unwrap_or_default();
            (by > 0.0).then(|| (name.clone(), by))
        };
        self.0.iter().filter_map(grown).collect()
    }
}

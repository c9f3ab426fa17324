//! Where a contender stands: two hosts on one cable, a container behind each, nothing else.
//!
//! ```text
//!   c1                                             c2
//!    │ eth0                                         │ eth0
//!   br0 ── host1 ── eth0 ════════════ eth0 ── host2 ── br0        10.99.0.1, 10.99.0.2, MTU 1500
//! ```
//!
//! The cable is one veth pair. Whole, it carries super-packets, as between machines whose cards cut and join in
//! hardware at best; as `wire`, nothing larger than its MTU crosses and the sender's kernel does the cutting. A design is
//! judged by both, because the whole cable flatters whoever makes large packets, the kernel's VXLAN included.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use weft_tests::process::Process;
use weft_tests::{Container, Fabric, Host, deadline};

/// What the cable between the hosts does with packets larger than its MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cable {
    /// Carries them.
    Whole,
    /// Makes the sender's kernel cut them.
    Wire,
}

/// How the containers are addressed when the contender does not do it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    /// One Ethernet: one subnet.
    Bridged,
    /// A subnet on each host, the hosts route.
    Routed,
}

/// Two hosts, two containers and the processes of a contender; everything ends and vanishes when this does.
#[derive(Debug)]
pub(crate) struct Stage {
    daemons: Vec<Process>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) containers: Vec<Container>,
}

impl Stage {
    /// Two hosts on a direct cable, two containers connected with nothing.
    pub(crate) fn new(fabric: &Fabric) -> Result<Self> {
        let hosts = fabric.hosts(2)?;
        for host in &hosts {
            host.netns().ip("link del dev eth0")?;
        }
        let far = hosts[1].netns().name();
        hosts[0].netns().ip(&format!("link add name eth0 type veth peer name eth0 netns {far}"))?;
        for host in &hosts {
            host.netns().ip("link set dev eth0 mtu 1500 up")?;
            host.netns().ip(&format!("addr add {}/24 dev eth0", host.address()))?;
        }
        let containers = vec![fabric.container("c1")?, fabric.container("c2")?];
        Ok(Self { daemons: Vec::new(), hosts, containers })
    }

    /// Changes the cable under what runs.
    pub(crate) fn cable(&self, cable: Cable) -> Result<()> {
        let segments = if cable == Cable::Wire { 1 } else { 65_535 };
        for host in &self.hosts {
            host.netns().ip(&format!("link set dev eth0 gso_max_segs {segments}"))?;
        }
        Ok(())
    }

    /// Puts each container on a bridge of its host, with an address and this MTU.
    pub(crate) fn connect(&mut self, layer: Layer, mtu: u16) -> Result<()> {
        for index in [0, 1] {
            let (host, near) = (self.hosts[index].netns(), index + 1);
            let inside = self.containers[index].netns();
            host.ip("link add name br0 type bridge forward_delay 0 mcast_snooping 0")?;
            host.ip(&format!(
                "link add name c0 mtu {mtu} type veth peer name eth0 mtu {mtu} netns {}",
                inside.name()
            ))?;
            host.ip("link set dev c0 master br0 up")?;
            host.ip("link set dev br0 up")?;
            inside.ip("link set dev eth0 up")?;
            let address = match layer {
                Layer::Bridged => Ipv4Addr::new(10, 77, 0, u8::try_from(near)?),
                Layer::Routed => Ipv4Addr::new(10, 77, u8::try_from(near)?, 2),
            };
            inside.ip(&format!("addr add {address}/24 dev eth0"))?;
            if layer == Layer::Routed {
                host.ip(&format!("addr add 10.77.{near}.1/24 dev br0"))?;
                inside.ip(&format!("route add default via 10.77.{near}.1"))?;
                host.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("no forwarding"))?;
            }
            self.containers[index].set_address(address);
        }
        Ok(())
    }

    /// The subnet behind a host, for [`Layer::Routed`].
    pub(crate) fn subnet(index: usize) -> String {
        format!("10.77.{}.0/24", index + 1)
    }

    /// Starts a process of the contender on a host; it ends with the stage.
    pub(crate) fn start(&mut self, index: usize, program: Command) -> Result<()> {
        let host = &self.hosts[index];
        let log = host.state_dir().with_file_name("daemon.log");
        self.daemons.push(Process::start(host.netns(), program, &log)?);
        Ok(())
    }

    /// Waits until a process started last has made its device.
    pub(crate) fn wait_device(&mut self, index: usize, device: &str) -> Result<()> {
        let begin = deadline::now();
        loop {
            if self.hosts[index].netns().ip(&format!("link show dev {device}")).is_ok() {
                return Ok(());
            }
            self.all_alive()?;
            if begin.elapsed() > Duration::from_secs(10) {
                bail!("there is no {device} after 10 s");
            }
            deadline::pause(Duration::from_millis(20));
        }
    }

    /// Fails with the end of its log when a process has ended.
    pub(crate) fn all_alive(&mut self) -> Result<()> {
        for daemon in &mut self.daemons {
            if let Some(code) = daemon.ended()? {
                let log = std::fs::read_to_string(daemon.log()).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                bail!("it ended with {code}: {}", last.into_iter().rev().collect::<Vec<_>>().join(" / "));
            }
        }
        Ok(())
    }

    /// Processor time used so far by the contender's processes, both hosts together; none when it has no process.
    pub(crate) fn daemon_time(&self) -> Result<Option<Duration>> {
        let routers = self.hosts.iter().filter_map(|host| host.running().ok());
        let mut times = self.daemons.iter().chain(routers).map(Process::processor_time).peekable();
        if times.peek().is_none() { Ok(None) } else { times.sum::<Result<Duration>>().map(Some) }
    }

    /// The MTU that the containers have.
    pub(crate) fn container_mtu(&self) -> Result<u32> {
        let shown = self.containers[0].netns().ip("-o link show dev eth0")?;
        let mut words = shown.split_whitespace().skip_while(|word| *word != "mtu");
        words.nth(1).context("no MTU")?.parse().context("the MTU is no number")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for daemon in &mut self.daemons {
            // A kind word first: some leave files behind when they are killed.
            if daemon.signal(Signal::SIGTERM).is_ok() {
                let _ = daemon.wait(Duration::from_millis(500));
            }
        }
    }
}

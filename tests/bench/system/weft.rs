//! This build, with each of its carriers, launched and attached as its users do.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weft_tests::host::{connection, mesh};
use weft_tests::{Fabric, Host, deadline};

use super::{Description, Role, System};
use crate::stage::Stage;

/// How long the carrier asked for may take to be the one in use.
const PATIENCE: Duration = Duration::from_secs(6);

/// One way to launch it.
#[derive(Debug, Clone)]
pub(super) struct Weft {
    description: Description,
    arguments: &'static [&'static str],
    secret: bool,
    carrier: &'static str,
}

const fn ours(
    name: &'static str,
    about: &'static str,
    arguments: &'static [&'static str],
    secret: bool,
) -> Weft {
    let description = Description { name, role: Role::Ours, about };
    Weft { description, arguments, secret, carrier: "sleeve" }
}

/// Every carrier, clear and sealed.
pub(super) const ALL: [Weft; 5] = [
    Weft { carrier: "fastpath", ..ours("fastpath", "weft, fastpath, clear", &[], false) },
    ours(
        "vnet",
        "weft, sleeve through a packet socket, clear",
        &["--no-fastpath", "--capture", "vnet"],
        false,
    ),
    ours("vnet-sealed", "weft, sleeve through a packet socket, encrypted", &["--capture", "vnet"], true),
    ours("pcap", "weft, sleeve through libpcap, clear", &["--no-fastpath", "--capture", "pcap"], false),
    ours("pcap-sealed", "weft, sleeve through libpcap, encrypted", &["--capture", "pcap"], true),
];

impl System for Weft {
    fn description(&self) -> Description {
        self.description.clone()
    }

    fn version(&self) -> Option<String> {
        let mut weft = std::process::Command::new(weft_tests::host::binary().ok()?);
        super::ask(
            {
                weft.arg("--version");
                weft
            },
            "",
        )
        .ok()
        .map(|line| line.trim().to_owned())
    }

    fn up(&self, fabric: &Fabric) -> Result<Stage> {
        let mut stage = Stage::new(fabric)?;
        if self.secret {
            stage.hosts.iter_mut().for_each(|host| host.set_secret("a secret of the bench, as good as any"));
        }
        mesh(&mut stage.hosts, self.arguments)?;
        let Stage { hosts, containers, .. } = &mut stage;
        for (host, container) in hosts.iter().zip(containers) {
            host.attach(container)?;
        }
        let begin = deadline::now();
        while let Err(error) = self.verify(&stage) {
            ensure!(begin.elapsed() < PATIENCE, "after {PATIENCE:?} {error:#}");
            deadline::pause(Duration::from_millis(100));
        }
        Ok(stage)
    }

    fn verify(&self, stage: &Stage) -> Result<()> {
        for (near, far) in [(0, 1), (1, 0)] {
            let status = stage.hosts[near].status()?;
            self.is_carrier(&stage.hosts[near], connection(&status, stage.hosts[far].name()))?;
        }
        Ok(())
    }
}

impl Weft {
    fn is_carrier(&self, host: &Host, connection: Option<&Value>) -> Result<()> {
        let connection = connection.context("status shows no established connection")?;
        let word = |key: &str| connection[key].as_str().unwrap_or("nothing").to_owned();
        ensure!(
            connection["carrier"] == self.carrier,
            "status of {} says {}, because: {}",
            host.name(),
            word("carrier"),
            word("reason")
        );
        ensure!(connection["encrypted"] == self.secret, "status says encrypted: {}", connection["encrypted"]);
        Ok(())
    }
}

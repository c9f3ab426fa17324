//! The test runtime itself, held against Debian's reference plugins: what it says of ours is worth what it says of them.
//!
//! ```text
//!   c1 ── bridge "ref0" ── c2        one host; addresses from host-local; portmap behind it in the list
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use weft_tests::cni::{Attachment, Conflist, Failure, Runtime, VERSIONS, Verb, addresses, conforms};
use weft_tests::traffic::wait_reaches;
use weft_tests::{Fabric, scenario};

fn reference(fabric: &Fabric, version: &str) -> Result<Conflist> {
    let bridge = json!({
        "type": "bridge", "bridge": "ref0", "isGateway": true,
        "ipam": {"type": "host-local", "dataDir": fabric.home().join("host-local"),
                 "ranges": [[{"subnet": "10.77.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]},
    });
    Ok(Conflist::of(
        version,
        "reference",
        json!([bridge, {"type": "portmap", "capabilities": {"portMappings": true}}]),
    )?)
}

#[test]
fn a_list_of_reference_plugins_connects_two_containers_in_every_version() -> Result<()> {
    scenario(|fabric| {
        let host = fabric.host("host1")?;
        let runtime = Runtime::new(host.netns(), &[]);
        for version in VERSIONS.into_iter().filter(|version| *version != "1.1.0") {
            let list = reference(fabric, version)?;
            let (c1, c2) = (fabric.container("c1")?, fabric.container("c2")?);
            let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
            let first = Attachment::new("first", c1.netns()).capability("portMappings", ports);
            let second = Attachment::new("second", c2.netns());
            let added = runtime.add(&list, &first)?;
            conforms(version, &added.result)?;
            let other = runtime.add(&list, &second)?;
            let address = addresses(&other.result)?.first().context("no address")?.0;
            let std::net::IpAddr::V4(address) = address else { anyhow::bail!("{address} is not IPv4") };
            wait_reaches(c1.netns(), address, Duration::from_secs(3))?;
            if version != "0.3.0" && version != "0.3.1" {
                // Not the first: portmap 1.1.1 looks for IPv6 rules of a port that has none.
                runtime.check(&list, &second)?;
            }
            runtime.del(&list, &first)?;
            runtime.del(&list, &first)?;
            ensure!(c1.addresses_in_kernel().is_err(), "DEL left eth0 in c1");
            runtime.del(&list, &second)?;
        }
        Ok(())
    })
}

#[test]
fn refusals_of_reference_plugins_are_told_apart() -> Result<()> {
    scenario(|fabric| {
        let host = fabric.host("host1")?;
        let runtime = Runtime::new(host.netns(), &[]);
        let container = fabric.container("c1")?;
        let attachment = Attachment::new("first", container.netns());
        let newer = reference(fabric, "1.1.0")?;
        let refused = runtime.add(&newer, &attachment);
        ensure!(matches!(refused, Err(Failure::Refused { code: 1, .. })), "{refused:?}");
        let list = reference(fabric, "1.0.0")?;
        let nameless = runtime.prepare(Verb::Add, &list, 0, Some(&attachment))?.without("CNI_IFNAME");
        let (code, text) = runtime.run(&nameless)?.refused()?;
        ensure!(code == 4 && text.contains("CNI_IFNAME"), "{code}: {text}");
        let absent = Conflist::of("1.0.0", "n", json!([{"type": "no-such-plugin"}]))?;
        let failure = runtime.add(&absent, &attachment);
        ensure!(matches!(failure, Err(Failure::NotStarted { .. })), "{failure:?}");
        let never = runtime.prepare(Verb::Add, &list, 0, Some(&attachment))?.limit(Duration::ZERO);
        let failure = runtime.run(&never);
        ensure!(matches!(failure, Err(Failure::Late { .. })), "{failure:?}");
        ensure!(
            runtime.status(&list).is_err() && runtime.gc(&list, &[]).is_err(),
            "1.0.0 has no GC and no STATUS"
        );
        let printed = runtime.version("bridge", b"")?;
        ensure!(printed["supportedVersions"].as_array().is_some_and(|all| all.len() > 3), "{printed}");
        Ok(())
    })
}

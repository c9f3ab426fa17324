//! Ethernet tunnels through a TAP device on the bridge: tinc, fastd, OpenVPN, vpncloud.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use weft_tests::Fabric;

use super::{Description, Role, System, ask, found, missing, stagger, version, write};
use crate::programs::Program;
use crate::stage::{Layer, Stage};

/// The MTU inside, small enough for the overhead of each.
const MTU: u16 = 1400;
const NAMES: [&str; 2] = ["a", "b"];

/// tinc 1.0 as a switch, with its default ciphers.
pub(super) struct Tinc(pub(super) Result<Program>);
/// fastd with its fastest authenticated cipher.
pub(super) struct Fastd(pub(super) Result<Program>);
/// OpenVPN over UDP with AES-256-GCM, and the openssl that makes its certificates.
pub(super) struct Openvpn(pub(super) Result<Program>, pub(super) Result<Program>);
/// vpncloud as a switch.
pub(super) struct Vpncloud(pub(super) Result<Program>);

fn peer(name: &'static str, about: &'static str) -> Description {
    Description { name, role: Role::Peer, about }
}

/// Starts both ends, one after the other, and puts the device of each on its bridge.
fn start_both(stage: &mut Stage, command: impl Fn(usize) -> Result<Command>) -> Result<()> {
    for index in [0, 1] {
        stage.start(index, command(index)?)?;
        stage.wait_device(index, "tap0")?;
        let netns = stage.hosts[index].netns();
        netns.ip(&format!("link set dev tap0 mtu {MTU} master br0 up"))?;
        stagger();
    }
    stage.all_alive()
}

fn bridged(fabric: &Fabric) -> Result<Stage> {
    let mut stage = Stage::new(fabric)?;
    stage.connect(Layer::Bridged, MTU)?;
    Ok(stage)
}

impl System for Tinc {
    fn description(&self) -> Description {
        peer("tinc", "tinc 1.0, switch mode, its default AES-256-CBC and SHA-256, MTU 1400")
    }

    fn version(&self) -> Option<String> {
        version(&self.0)
    }

    fn obstacle(&self) -> Option<String> {
        missing(&self.0)
    }

    fn up(&self, fabric: &Fabric) -> Result<Stage> {
        let mut stage = bridged(fabric)?;
        let folder = |index: usize| fabric.home().join("tinc").join(NAMES[index]);
        for index in [0, 1] {
            let connect = if index == 1 { "ConnectTo = a\n" } else { "" };
            let name = NAMES[index];
            write(
                &folder(index).join("tinc.conf"),
                &format!(
                    "Name = {name}\nMode = switch\nDeviceType = tap\nInterface = tap0\nAddressFamily = ipv4\n{connect}"
                ),
            )?;
            let address = stage.hosts[index].address();
            write(&folder(index).join("hosts").join(name), &format!("Address = {address}\n"))?;
            let mut keys = found(&self.0)?.command();
            keys.arg("-c").arg(folder(index)).arg("-K2048");
            // It asks twice where to save: an empty line is its own choice.
            ask(keys, "\n\n")?;
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let host = |of: usize| folder(of).join("hosts").join(NAMES[from]);
            std::fs::copy(host(from), host(to))?;
        }
        start_both(&mut stage, |index| {
            let mut tincd = found(&self.0)?.command();
            tincd.arg("-c").arg(folder(index)).arg("-D");
            tincd.arg(format!("--pidfile={}", folder(index).join("pid").display()));
            Ok(tincd)
        })?;
        Ok(stage)
    }
}

impl System for Fastd {
    fn description(&self) -> Description {
        peer("fastd", "fastd, tap, salsa2012+umac, MTU 1400")
    }

    fn version(&self) -> Option<String> {
        version(&self.0)
    }

    fn obstacle(&self) -> Option<String> {
        missing(&self.0)
    }

    fn up(&self, fabric: &Fabric) -> Result<Stage> {
        let mut stage = bridged(fabric)?;
        let keys = [self.keys()?, self.keys()?];
        let file = |index: usize| fabric.home().join(format!("fastd{index}.conf"));
        for index in [0, 1] {
            let (near, far) = (stage.hosts[index].address(), stage.hosts[1 - index].address());
            let (secret, public) = (&keys[index].0, &keys[1 - index].1);
            write(
                &file(index),
                &format!(
                    "log level warn;\nmode tap;\ninterface \"tap0\";\nmethod \"salsa2012+umac\";\nmtu {MTU};\n\
                     bind {near}:10000;\nsecret \"{secret}\";\n\
                     peer \"other\" {{ key \"{public}\"; remote {far}:10000; }}\n"
                ),
            )?;
        }
        start_both(&mut stage, |index| {
            let mut fastd = found(&self.0)?.command();
            fastd.arg("-c").arg(file(index));
            Ok(fastd)
        })?;
        Ok(stage)
    }
}

impl Fastd {
    /// A fresh secret key and its public half.
    fn keys(&self) -> Result<(String, String)> {
        let mut generate = found(&self.0)?.command();
        generate.arg("--generate-key");
        let said = ask(generate, "")?;
        let after = |word: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(word));
            line.map(|key| key.trim().to_owned()).with_context(|| format!("fastd prints no {word}"))
        };
        Ok((after("Secret:")?, after("Public:")?))
    }
}

impl System for Openvpn {
    fn description(&self) -> Description {
        peer("openvpn", "OpenVPN, tap over UDP, AES-256-GCM, no kernel offload, MTU 1400")
    }

    fn version(&self) -> Option<String> {
        version(&self.0)
    }

    fn obstacle(&self) -> Option<String> {
        missing(&self.0).or_else(|| missing(&self.1))
    }

    fn up(&self, fabric: &Fabric) -> Result<Stage> {
        let mut stage = bridged(fabric)?;
        let file = |index: usize, what: &str| fabric.home().join(format!("openvpn{index}.{what}"));
        let mut prints = Vec::new();
        for index in [0, 1] {
            prints.push(certificate(found(&self.1)?, &file(index, "key"), &file(index, "pem"))?);
        }
        let far = [stage.hosts[1].address(), stage.hosts[0].address()];
        start_both(&mut stage, |index| {
            let mut openvpn = found(&self.0)?.command();
            openvpn.args(["--dev", "tap0", "--dev-type", "tap", "--proto", "udp4", "--verb", "1"]);
            openvpn.args(["--remote", &far[index].to_string(), "--port", "1194", "--disable-dco"]);
            openvpn.args(["--data-ciphers", "AES-256-GCM", "--tun-mtu", "1414", "--mssfix", "0"]);
            openvpn.args(if index == 0 { &["--tls-server", "--dh", "none"][..] } else { &["--tls-client"] });
            openvpn.arg("--key").arg(file(index, "key")).arg("--cert").arg(file(index, "pem"));
            openvpn.args(["--peer-fingerprint", &prints[1 - index]]);
            Ok(openvpn)
        })?;
        Ok(stage)
    }
}

/// A self-signed certificate; returns its fingerprint as OpenVPN wants it.
fn certificate(openssl: &Program, key: &Path, pem: &Path) -> Result<String> {
    let mut request = openssl.command();
    request.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    request.args(["-days", "2", "-subj", "/CN=bench", "-keyout"]).arg(key).arg("-out").arg(pem);
    ask(request, "")?;
    let mut print = openssl.command();
    print.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(pem);
    let said = ask(print, "")?;
    Ok(said.split_once('=').context("openssl prints no fingerprint")?.1.trim().to_owned())
}

impl System for Vpncloud {
    fn description(&self) -> Description {
        peer("vpncloud", "vpncloud, tap, switch mode, AES-128, MTU 1400")
    }

    fn version(&self) -> Option<String> {
        version(&self.0)
    }

    fn obstacle(&self) -> Option<String> {
        missing(&self.0)
    }

    fn up(&self, fabric: &Fabric) -> Result<Stage> {
        let mut stage = bridged(fabric)?;
        let address = [stage.hosts[0].address(), stage.hosts[1].address()];
        for index in [0, 1] {
            // It looks for its own address by way of a public one, and gives up without a route there.
            stage.hosts[index].netns().ip(&format!("route add default via {}", address[1 - index]))?;
        }
        start_both(&mut stage, |index| {
            let mut vpncloud = found(&self.0)?.command();
            vpncloud.args(["--type", "tap", "--device", "tap0", "--mode", "switch", "--no-port-forwarding"]);
            vpncloud.args(["--listen", &format!("{}:3210", address[index])]);
            vpncloud.args(["--peer", &format!("{}:3210", address[1 - index])]);
            vpncloud.args(["--password", "a password of the bench", "--algorithm", "aes128"]);
            Ok(vpncloud)
        })?;
        Ok(stage)
    }
}

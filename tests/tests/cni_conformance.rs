//! The CNI specification 1.1.0, row by row, in every version.
//!
//! ```text
//!   c1 … cN ── bridge "weft" ── router of host1        one host; each call is one process of the plugin
//! ```

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weft_tests::cni::{
    Attachment, Call, Conflist, Holdings, Runtime, VERSIONS, Verb, addresses, binary, conforms, network,
    network_with, runtime, serving,
};
use weft_tests::{Host, deadline, scenario};

/// Every version a result can be asked for in.
const ALL: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// The most memory a plugin may want for whatever input, in bytes.
const MEMORY: u64 = 64 << 20;

#[test]
fn version_is_answered_with_nothing_else_in_the_environment() -> Result<()> {
    let versions = r#""supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"]}"#;
    let ask = |input: String| {
        Call::bare(&binary()?).env("CNI_COMMAND", "VERSION").input(input.as_bytes()).run().context(input)
    };
    for version in ALL.into_iter().chain(["9.9.9"]) {
        let answer = ask(json!({"cniVersion": version}).to_string())?;
        answer.accepted()?;
        ensure!(
            answer.text().trim() == format!("{{\"cniVersion\":\"{version}\",{versions}"),
            "{}",
            answer.text()
        );
    }
    for input in ["", "{}", "no JSON", "{\"cniVersion\": 7}"] {
        let answer = ask(input.to_owned())?;
        ensure!(
            answer.text().trim() == format!("{{\"cniVersion\":\"1.1.0\",{versions}"),
            "{}",
            answer.text()
        );
    }
    Ok(())
}

#[test]
fn a_version_nobody_knows_is_refused_with_code_1_before_anything_is_done() -> Result<()> {
    scenario(|fabric| {
        let (host, runtime) = serving(fabric)?;
        let before = Holdings::of(&host)?;
        let container = fabric.container("c1")?;
        let attachment = Attachment::new("c1", container.netns());
        for version in ["0.0.1", "0.5.0", "1.1.1", "2.0.0", "one", " 1.0.0"] {
            for verb in [Verb::Add, Verb::Del, Verb::Check, Verb::Gc, Verb::Status] {
                let call = runtime.prepare(verb, &network(&host, version)?, 0, Some(&attachment))?;
                let (code, text) =
                    runtime.run(&call)?.refused().with_context(|| format!("{verb:?} {version}"))?;
                ensure!(code == 1, "{verb:?} {version}: {code} {text}");
            }
        }
        // Verbs that a version does not have.
        for (verb, versions) in [(Verb::Check, &ALL[..4]), (Verb::Gc, &ALL[..6]), (Verb::Status, &ALL[..6])] {
            for version in versions {
                let call = runtime.prepare(verb, &network(&host, version)?, 0, Some(&attachment))?;
                let (code, text) =
                    runtime.run(&call)?.refused().with_context(|| format!("{verb:?} {version}"))?;
                ensure!(code == 1, "{verb:?} {version}: {code} {text}");
            }
        }
        ensure!(Holdings::of(&host)? == before, "a refused call has changed something");
        Ok(())
    })
}

#[test]
fn a_result_has_the_shape_of_the_version_it_was_asked_for_in() -> Result<()> {
    scenario(|fabric| {
        let (host, runtime) = serving(fabric)?;
        for version in ALL {
            let container = fabric.container("c1")?;
            let dns = json!({"dns": {"nameservers": ["10.32.0.53"], "domain": "d", "search": ["s"], "options": ["o"]}});
            let list = network_with(&host, version, dns.clone())?;
            let attachment = Attachment::new("c1", container.netns());
            let added = runtime.add(&list, &attachment).with_context(|| version.to_owned())?;
            conforms(version, &added.result).with_context(|| format!("{}", added.result))?;
            ensure!(added.result["dns"] == dns["dns"], "{version}: {}", added.result);
            let given = addresses(&added.result)?;
            let kernel = container.addresses_in_kernel()?;
            let told: Vec<String> =
                given.iter().map(|(address, length)| format!("{address}/{length}")).collect();
            ensure!(told == kernel && told.len() == 1, "{version}: told {told:?}, has {kernel:?}");
            if VERSIONS.contains(&version) {
                interfaces_are_told_as_they_are(&host, &container, version, &added.result)?;
            }
            runtime.del(&list, &attachment)?;
        }
        Ok(())
    })
}

/// Host and container ends by name, MAC and namespace, the address on the inner one.
fn interfaces_are_told_as_they_are(
    host: &Host,
    container: &weft_tests::Container,
    version: &str,
    result: &Value,
) -> Result<()> {
    let interfaces = result["interfaces"].as_array().context("no interfaces")?;
    let sandbox = container.netns().path();
    let (inner, outer): (Vec<&Value>, Vec<&Value>) =
        interfaces.iter().partition(|one| one["sandbox"].as_str().is_some_and(|path| !path.is_empty()));
    ensure!(inner.len() == 1 && !outer.is_empty(), "{version}: {result}");
    ensure!(inner[0]["name"] == "eth0" && inner[0]["sandbox"] == json!(sandbox), "{version}: {result}");
    let mac_of = |text: String| {
        text.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).map(str::to_owned)
    };
    let mac = mac_of(container.netns().ip("-o link show dev eth0")?);
    ensure!(
        mac.is_some() && inner[0]["mac"].as_str().map(str::to_owned) == mac,
        "{version}: {mac:?}: {result}"
    );
    for end in outer {
        let name = end["name"].as_str().context("a host interface without a name")?;
        let mac = mac_of(host.netns().ip(&format!("-o link show dev {name}"))?);
        ensure!(end["mac"].as_str().map(str::to_owned) == mac, "{version}: {name} has {mac:?}: {result}");
    }
    let index = result["ips"][0]["interface"].as_u64().context("the address is of no interface")?;
    ensure!(interfaces[usize::try_from(index)?]["name"] == "eth0", "{version}: {result}");
    Ok(())
}

#[test]
fn every_variable_that_is_missing_or_wrong_is_code_4_and_named() -> Result<()> {
    scenario(|fabric| {
        let (host, runtime) = serving(fabric)?;
        let before = Holdings::of(&host)?;
        let container = fabric.container("c1")?;
        let attachment = Attachment::new("c1", container.netns());
        let long = "x".repeat(4096);
        let words: [(&str, &[&str]); 4] = [
            ("CNI_COMMAND", &["", "add", "ADDD", "ADD\n", &long]),
            ("CNI_CONTAINERID", &["", "-a", ".a", "_a", "../../x", "a/b", ";rm", "a b", "a\nb", "ä", &long]),
            ("CNI_IFNAME", &["", ".", "..", "a/b", "a:b", "a b", "a\tb", "a\nb", "0123456789abcdef", &long]),
            ("CNI_NETNS", &["", "relative", "/no/such/file", "/", "/etc/passwd", "/proc/1/root", &long]),
        ];
        for version in ["0.4.0", "1.1.0"] {
            let list = network(&host, version)?;
            for (name, values) in words {
                let whole = runtime.prepare(Verb::Add, &list, 0, Some(&attachment))?;
                let wrong = values.iter().map(|value| whole.clone().env(name, value));
                for call in wrong.chain([whole.clone().without(name)]) {
                    let answer = runtime.run(&call)?;
                    let (code, text) = answer.refused().with_context(|| format!("{call:?}"))?;
                    ensure!(code == 4 && text.contains(name), "{name}: {code} {text}");
                }
            }
        }
        let call = runtime.prepare(Verb::Add, &network(&host, "1.1.0")?, 0, Some(&attachment))?;
        let call = call.without("CNI_CONTAINERID").without("CNI_IFNAME").without("CNI_NETNS");
        let (code, text) = runtime.run(&call)?.refused()?;
        let all = ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"];
        ensure!(code == 4 && all.iter().all(|name| text.contains(name)), "{code} {text}");
        ensure!(Holdings::of(&host)? == before, "a refused call has changed something");
        Ok(())
    })
}

#[test]
fn input_that_is_no_configuration_is_refused_with_one_error_object_in_little_memory() -> Result<()> {
    scenario(|fabric| {
        let (host, runtime) = serving(fabric)?;
        let before = Holdings::of(&host)?;
        let container = fabric.container("c1")?;
        let attachment = Attachment::new("c1", container.netns());
        let good = json!({"cniVersion": "1.0.0", "name": "n", "type": "weft-net", "socket": host.socket()})
            .to_string();
        let mut inputs: Vec<Vec<u8>> =
            (0..good.len()).map(|length| good.as_bytes()[..length].to_vec()).collect();
        inputs.extend(
            ["null", "7", "[]", "\"text\"", "{\"cniVersion\":1}", "{\"cniVersion\":\"1.0.0\"}"]
                .map(Into::into),
        );
        inputs.push(br#"{"cniVersion":"1.0.0","name":7}"#.to_vec());
        inputs.push(br#"{"cniVersion":"1.0.0","name":"a","name":"b"}"#.to_vec());
        inputs.push(br#"{"cniVersion":"1.0.0","name":"n","mtu":"many"}"#.to_vec());
        inputs.push(br#"{"cniVersion":"1.0.0","name":"n","ipam":[]}"#.to_vec());
        inputs.push(br#"{"cniVersion":"1.0.0","name":"n","prevResult":7}"#.to_vec());
        inputs.push(vec![0xff; 100]);
        inputs.push(vec![b'['; 1_000_000]);
        inputs.push(vec![b' '; 10 << 20]);
        let padding = "x".repeat(20 << 20);
        inputs.push(format!("{{\"cniVersion\":\"1.0.0\",\"name\":\"n\",\"x\":\"{padding}\"}}").into_bytes());
        let bare = runtime
            .prepare(Verb::Add, &network(&host, "1.0.0")?, 0, Some(&attachment))?
            .within_memory(MEMORY);
        for input in inputs {
            let shown = String::from_utf8_lossy(&input).chars().take(80).collect::<String>();
            let answer = runtime.run(&bare.clone().input(&input))?;
            let (code, text) = answer.refused().with_context(|| format!("{} bytes: {shown}", input.len()))?;
            ensure!((5..=7).contains(&code), "{shown}: {code} {text}");
        }
        ensure!(Holdings::of(&host)? == before, "a refused call has changed something");
        Ok(())
    })
}

#[test]
fn what_the_specification_does_not_know_yet_passes_through() -> Result<()> {
    scenario(|fabric| {
        let (host, runtime) = serving(fabric)?;
        let container = fabric.container("c1")?;
        let attachment =
            Attachment::new("c1", container.netns()).arg("IgnoreUnknown", "1").arg("K8S_NEW", "x");
        let future =
            json!({"future": {"deep": [1, {"x": null}]}, "cni.dev/tomorrow": true, "ipam": {"new": 1}});
        let list = network_with(&host, "1.1.0", future)?;
        runtime.add(&list, &attachment)?;
        runtime.check(&list, &attachment)?;
        runtime.gc(&list, std::slice::from_ref(&attachment))?;
        runtime.check(&list, &attachment)?;
        runtime.del(&list, &attachment)?;
        Ok(())
    })
}

#[test]
fn add_refuses_a_name_that_is_taken_and_touches_nothing() -> Result<()> {
    scenario(|fabric| {
        let (host, runtime) = serving(fabric)?;
        let (c0, c1) = (fabric.container("c0")?, fabric.container("c1")?);
        let list = network(&host, "1.0.0")?;
        runtime.add(&list, &Attachment::new("warm", c0.netns()))?;
        let before = Holdings::of(&host)?;
        c1.netns().ip("link add eth0 type veth peer name other")?;
        let shape = c1.netns().snapshot()?;
        let refused = runtime.add(&list, &Attachment::new("c1", c1.netns()));
        ensure!(refused.is_err(), "eth0 was taken, yet: {refused:?}");
        ensure!(c1.netns().snapshot()? == shape, "the container's own interface was changed");
        before.wait_again(&host, Duration::from_secs(5)).map(drop)
    })
}

#[test]
fn a_result_from_before_is_kept_and_added_to() -> Result<()> {
    scenario(|fabric| {
        let (host, runtime) = serving(fabric)?;
        for version in VERSIONS {
            let container = fabric.container("c1")?;
            let attachment = Attachment::new("c1", container.netns());
            let mut ip = json!({"address": "192.0.2.7/24", "gateway": "192.0.2.1", "interface": 0});
            if version.starts_with('0') {
                ip["version"] = "4".into();
            }
            let previous = json!({
                "cniVersion": version, "interfaces": [{"name": "other0", "mac": "02:00:00:00:00:01"}], "ips": [ip],
                "routes": [{"dst": "198.51.100.0/24", "gw": "192.0.2.1"}], "dns": {"domain": "before"},
            });
            let list = network_with(&host, version, json!({"prevResult": previous.clone()}))?;
            let result = runtime.add(&list, &attachment)?.result;
            conforms(version, &result)?;
            for key in ["interfaces", "ips", "routes"] {
                ensure!(result[key][0] == previous[key][0], "{version}: {key}: {result}");
            }
            ensure!(result["dns"] == previous["dns"], "{version}: {result}");
            ensure!(addresses(&result)?.len() == 2, "{version}: {result}");
            runtime.del(&list, &attachment)?;
        }
        Ok(())
    })
}

#[test]
fn a_plugin_behind_ours_gets_our_result_byte_for_byte() -> Result<()> {
    scenario(|fabric| {
        let (host, _) = serving(fabric)?;
        // A plugin that hands on what it was given, as portmap does without a port.
        let folder = fabric.home().join("chained");
        weft_tests::cni::link(&folder, &binary()?)?;
        let echo = folder.join("echo");
        let script = "#!/bin/sh\n[ \"$CNI_COMMAND\" = ADD ] || exit 0\ncat > \"$0.$CNI_CONTAINERID\"\n\
                      sed 's/.*\"prevResult\"://; s/,\"type\":\"echo\"}$//' \"$0.$CNI_CONTAINERID\"\n";
        std::fs::write(&echo, script)?;
        std::fs::set_permissions(&echo, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let runtime = Runtime::new(host.netns(), &[&folder]);
        for version in VERSIONS {
            let container = fabric.container("c1")?;
            let alone = network(&host, version)?;
            let mut chained = alone.clone();
            chained.plugins.push(json!({"type": "echo"}).as_object().context("an object")?.clone());
            let attachment = Attachment::new("c1", container.netns());
            let first = runtime.add(&chained, &attachment)?;
            // ADD of the same attachment is idempotent, so what our plugin alone says can be held against it.
            let call = runtime.prepare(Verb::Check, &alone, 0, Some(&attachment))?;
            if version >= "0.4.0" {
                runtime.run(&call)?.silence()?;
            }
            let given: Value = serde_json::from_slice(&std::fs::read(folder.join("echo.c1"))?)?;
            ensure!(given["prevResult"] == first.result, "{version}: {given}");
            conforms(version, &given["prevResult"])?;
            runtime.del(&chained, &attachment)?;
        }
        Ok(())
    })
}

#[test]
fn an_address_of_another_ipam_plugin_is_given_back_when_add_fails() -> Result<()> {
    scenario(|fabric| {
        let (host, runtime) = serving(fabric)?;
        let container = fabric.container("c1")?;
        let folder = fabric.home().join("host-local");
        let ipam = json!({"type": "host-local", "dataDir": folder, "ranges": [[{"subnet": "10.32.200.0/24"}]],
                          "routes": [{"dst": "0.0.0.0/0"}]});
        let list = network_with(&host, "1.0.0", json!({"ipam": ipam}))?;
        let leases = || {
            let entries = std::fs::read_dir(folder.join("weft")).into_iter().flatten().flatten();
            entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("10.")).count()
        };
        let attachment = Attachment::new("c1", container.netns());
        let added = runtime.add(&list, &attachment)?;
        ensure!(leases() == 1 && container.addresses_in_kernel()?.len() == 1, "{}", added.result);
        runtime.check(&list, &attachment)?;
        runtime.del(&list, &attachment)?;
        ensure!(leases() == 0, "DEL left the address with host-local");
        container.netns().ip("link add eth0 type veth peer name other")?;
        ensure!(runtime.add(&list, &attachment).is_err(), "eth0 was taken");
        ensure!(leases() == 0, "a failed ADD left the address with host-local");
        Ok(())
    })
}

#[test]
fn del_succeeds_whatever_is_left_and_however_often() -> Result<()> {
    scenario(|fabric| {
        let (mut host, runtime) = serving(fabric)?;
        let c1 = fabric.container("c1")?;
        let warm = network(&host, "1.0.0")?;
        runtime.add(&warm, &Attachment::new("warm", c1.netns()))?;
        runtime.del(&warm, &Attachment::new("warm", c1.netns()))?;
        let before = Holdings::of(&host)?;
        for version in ALL {
            let list = network(&host, version)?;
            let attachment = Attachment::new("c1", c1.netns());
            runtime.del(&list, &Attachment::new("never-was", c1.netns()))?;
            runtime.add(&list, &attachment)?;
            runtime.forget();
            runtime.del(&list, &attachment).context("without a result")?;
            for _ in 0..14 {
                runtime.del(&list, &attachment).context("again")?;
            }
            // The namespace has gone first.
            let gone = fabric.container("gone")?;
            let mut late = Attachment::new("gone", gone.netns());
            runtime.add(&list, &late)?;
            drop(gone);
            runtime.del(&list, &late).context("with the path of a namespace that is gone")?;
            late.netns = None;
            runtime.del(&list, &late).context("without a namespace")?;
        }
        let list = network(&host, "1.1.0")?;
        let attachment = Attachment::new("c1", c1.netns());
        runtime.add(&list, &attachment)?;
        c1.netns().ip("link del eth0")?;
        runtime.del(&list, &attachment).context("with the interface gone")?;
        std::thread::scope(|scope| {
            let calls: Vec<_> = (0..32).map(|_| scope.spawn(|| runtime.del(&list, &attachment))).collect();
            calls.into_iter().try_for_each(|call| {
                call.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(drop)
            })
        })?;
        before.wait_again(&host, Duration::from_secs(5))?;
        runtime.add(&list, &attachment)?;
        host.kill()?;
        runtime.del(&list, &attachment).context("with no router")?;
        runtime.del(&list, &attachment).context("with no router, again")?;
        host.launch(&[])?;
        host.wait_ready()?;
        before
            .wait_again(&host, Duration::from_secs(10))
            .context("the router did not do what was left for it")
            .map(drop)
    })
}

#[test]
fn check_finds_each_thing_that_is_broken_and_nothing_else() -> Result<()> {
    scenario(|fabric| {
        let (mut host, runtime) = serving(fabric)?;
        let c1 = fabric.container("c1")?;
        for version in ["0.4.0", "1.0.0", "1.1.0"] {
            let list = network(&host, version)?;
            let attachment = Attachment::new("c1", c1.netns());
            let breaks = [
                "link set eth0 down",
                "addr flush dev eth0",
                "route del default",
                "link del eth0",
                "link set eth0 address 02:00:00:00:00:09",
            ];
            for broken in breaks {
                runtime.add(&list, &attachment)?;
                runtime.check(&list, &attachment).context("right after ADD")?;
                c1.netns().ip(broken)?;
                let found = runtime.check(&list, &attachment);
                ensure!(found.is_err(), "{version}: CHECK did not see: {broken}");
                runtime.del(&list, &attachment)?;
            }
            let added = runtime.add(&list, &attachment)?;
            // What a later plugin adds is none of ours.
            c1.netns().ip("addr add 192.0.2.9/32 dev eth0")?;
            c1.netns().ip("route add 198.51.100.0/24 dev eth0")?;
            runtime.check(&list, &attachment).context("after others have added something")?;
            let id = host.status()?["attachments"][0]["id"].as_str().context("no id")?.to_owned();
            host.expect(&["detach", "--id", &id, &c1.netns().path().to_string_lossy()])?;
            ensure!(runtime.check(&list, &attachment).is_err(), "the router gave it up: {}", added.result);
            runtime.del(&list, &attachment)?;
        }
        let mut list = network(&host, "1.1.0")?;
        let attachment = Attachment::new("c1", c1.netns());
        runtime.add(&list, &attachment)?;
        host.kill()?;
        ensure!(runtime.check(&list, &attachment).is_err(), "no router, and CHECK is content");
        list.disable_check = true;
        runtime.check(&list, &attachment)?;
        Ok(())
    })
}

#[test]
fn gc_leaves_exactly_what_is_valid_of_its_own_network() -> Result<()> {
    scenario(|fabric| {
        let (host, runtime) = serving(fabric)?;
        let list = network(&host, "1.1.0")?;
        let mut other = list.clone();
        other.name = "other".to_owned();
        let containers = (0..8).map(|n| fabric.container(&format!("c{n}"))).collect::<Result<Vec<_>>>()?;
        let foreign = Attachment::new("foreign", containers[7].netns());
        runtime.add(&other, &foreign)?;
        let mut manual = fabric.container("manual")?;
        host.attach(&mut manual)?;
        let base = Holdings::of(&host)?;
        // Every subset of three, then none.
        for valid in 0..8_usize {
            let all: Vec<Attachment> =
                (0..3).map(|n| Attachment::new(&format!("pod-{n}"), containers[n].netns())).collect();
            for attachment in &all {
                runtime.add(&list, attachment)?;
            }
            let keep: Vec<Attachment> = all
                .iter()
                .enumerate()
                .filter(|(n, _)| valid >> n & 1 == 1)
                .map(|(_, one)| one.clone())
                .collect();
            runtime.gc(&list, &keep)?;
            let now = Holdings::of(&host)?;
            ensure!(now.used == base.used + keep.len() as u64, "{valid:03b}: {now:?}");
            for (n, attachment) in all.iter().enumerate() {
                let stands = runtime.check(&list, attachment).is_ok();
                ensure!(stands == (valid >> n & 1 == 1), "{valid:03b}: pod-{n} stands: {stands}");
            }
            runtime.check(&other, &foreign)?;
            runtime.gc(&list, &[])?;
            base.wait_again(&host, Duration::from_secs(5))?;
        }
        runtime.gc(&other, &[])?;
        ensure!(Holdings::of(&host)?.used == base.used - 1, "the other network's pod stayed");
        ensure!(manual.addresses_in_kernel()?.len() == 1, "GC took what it never made");
        Ok(())
    })
}

#[test]
fn status_says_whether_add_would_work() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        let runtime = runtime(fabric, &host)?;
        let list = network(&host, "1.1.0")?;
        let ask = |runtime: &Runtime| -> Result<Option<(u64, String)>> {
            let answer = runtime.run(&runtime.prepare(Verb::Status, &list, 0, None)?)?;
            if answer.code == 0 {
                answer.silence()?;
                Ok(None)
            } else {
                Ok(Some(answer.refused()?))
            }
        };
        let absent = ask(&runtime)?;
        ensure!(matches!(absent, Some((50, _))), "with no router: {absent:?}");
        // Eight addresses: network and broadcast are never given out, the host has one, five pods the others.
        host.launch(&["--range", "10.32.0.0/29"])?;
        host.wait_ready()?;
        ensure!(ask(&runtime)?.is_none(), "{:?}", ask(&runtime)?);
        let containers = (1..=5).map(|n| fabric.container(&format!("c{n}"))).collect::<Result<Vec<_>>>()?;
        for (n, container) in containers.iter().enumerate() {
            runtime.add(&list, &Attachment::new(&format!("c{n}"), container.netns()))?;
        }
        let more = fabric.container("more")?;
        let full = ask(&runtime)?;
        ensure!(matches!(full, Some((50, _))), "with no address left: {full:?}");
        let begin = deadline::now();
        let refused = runtime.add(&list, &Attachment::new("more", more.netns()));
        ensure!(
            refused.is_err() && begin.elapsed() < Duration::from_secs(10),
            "{refused:?} {:?}",
            begin.elapsed()
        );
        runtime.del(&list, &Attachment::new("c0", containers[0].netns()))?;
        ensure!(ask(&runtime)?.is_none(), "an address is free again: {:?}", ask(&runtime)?);
        Ok(())
    })
}

#[test]
fn status_tells_that_pods_no_longer_reach_their_peers() -> Result<()> {
    scenario(|fabric| {
        let mut hosts = fabric.hosts(2)?;
        weft_tests::host::mesh(&mut hosts, &[])?;
        let runtime = runtime(fabric, &hosts[0])?;
        let list = network(&hosts[0], "1.1.0")?;
        let container = fabric.container("c1")?;
        runtime.add(&list, &Attachment::new("c1", container.netns()))?;
        runtime.status(&list)?;
        fabric.cut(&hosts[0], &hosts[1])?;
        let degraded = || {
            let code = runtime.status(&list).err().and_then(|failure| failure.code());
            Ok(code == Some(51))
        };
        deadline::until_true("STATUS answers 51", Duration::from_secs(20), degraded)?;
        fabric.heal()?;
        let content = || Ok(runtime.status(&list).is_ok());
        deadline::until_true("STATUS is content", Duration::from_secs(30), content)?;
        // Who has removed the others is alone on purpose.
        hosts[1].kill()?;
        deadline::until_true("STATUS answers 51", Duration::from_secs(20), degraded)?;
        hosts[0].expect(&["peer", "remove", hosts[1].name()])?;
        deadline::until_true("STATUS is content", Duration::from_secs(10), content)?;
        Ok(())
    })
}

#[test]
fn add_that_must_wait_says_try_again_in_bounded_time() -> Result<()> {
    scenario(|fabric| {
        let mut host = fabric.host("host1")?;
        // Half of three peers is not enough to say who owns which addresses.
        host.launch(&["--init", "consensus=3", "10.99.0.77"])?;
        deadline::until_true("the router answers", Duration::from_secs(10), || Ok(host.status().is_ok()))?;
        let runtime = runtime(fabric, &host)?;
        let container = fabric.container("c1")?;
        for version in VERSIONS {
            let list = network(&host, version)?;
            let call =
                runtime.prepare(Verb::Add, &list, 0, Some(&Attachment::new("c1", container.netns())))?;
            let answer = runtime.run(&call)?;
            let (code, text) = answer.refused()?;
            ensure!(code == 11, "{version}: {code} {text}");
            ensure!(answer.took < Duration::from_secs(10), "{version}: {:?}", answer.took);
        }
        ensure!(container.addresses_in_kernel().is_err(), "an interface without an address");
        Ok(())
    })
}

#[test]
fn the_ipam_plugin_alone_serves_the_reference_bridge() -> Result<()> {
    scenario(|fabric| {
        let (host, runtime) = serving(fabric)?;
        let before = Holdings::of(&host)?;
        for version in VERSIONS.into_iter().filter(|version| *version != "1.1.0") {
            let ipam = json!({"type": "weft-ipam", "subnet": "10.40.0.0/16", "gateway": "10.40.0.1"});
            let bridge = json!({"type": "bridge", "bridge": "ref0", "ipam": ipam, "socket": host.socket()});
            let list = Conflist::of(version, "by-bridge", json!([bridge]))?;
            let container = fabric.container("c1")?;
            let attachment = Attachment::new("c1", container.netns());
            let added = runtime.add(&list, &attachment)?;
            let kernel = container.addresses_in_kernel()?;
            ensure!(kernel.len() == 1 && kernel[0].starts_with("10.40."), "{kernel:?}: {}", added.result);
            ensure!(Holdings::of(&host)?.used == before.used + 1, "the router does not hold it");
            runtime.del(&list, &attachment)?;
            ensure!(Holdings::of(&host)?.used == before.used, "{version}: DEL left the address");
        }
        Ok(())
    })
}

//! What a result may hold in each version of the specification, and reading it whatever the version.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The versions with lists of plugins; 0.1.0 and 0.2.0 came before and know another result.
pub const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The keys of one kind of object: those that must be there, those that may be.
struct Shape {
    must: &'static [&'static str],
    may: &'static [&'static str],
}

const DNS: Shape = Shape { must: &[], may: &["nameservers", "domain", "search", "options"] };
const OLD_IP: Shape = Shape { must: &["ip"], may: &["gateway", "routes"] };
const ROUTE: Shape = Shape { must: &["dst"], may: &["gw"] };
const ROUTE_1_1: Shape =
    Shape { must: &["dst"], may: &["gw", "mtu", "advmss", "priority", "table", "scope"] };
const INTERFACE: Shape = Shape { must: &["name"], may: &["mac", "sandbox"] };
const INTERFACE_1_1: Shape =
    Shape { must: &["name"], may: &["mac", "sandbox", "mtu", "socketPath", "pciID"] };
const ADDRESS_WITH_VERSION: Shape = Shape { must: &["version", "address"], may: &["gateway", "interface"] };
const ADDRESS: Shape = Shape { must: &["address"], may: &["gateway", "interface"] };
const RESULT: Shape = Shape { must: &["cniVersion"], may: &["interfaces", "ips", "routes", "dns"] };
const OLD_RESULT: Shape = Shape { must: &["cniVersion"], may: &["ip4", "ip6", "dns"] };

/// Whether a result is one of this version: every key known then, none missing, indexes pointing somewhere.
///
/// # Errors
/// The first thing that is not so.
pub fn conforms(version: &str, result: &Value) -> Result<()> {
    ensure!(result["cniVersion"] == version, "asked for {version}, got {}", result["cniVersion"]);
    if matches!(version, "0.1.0" | "0.2.0") {
        return conforms_to_old(result);
    }
    ensure!(VERSIONS.contains(&version), "no version {version}");
    let newest = version == "1.1.0";
    let with_version = version.starts_with("0.");
    fits(result, "result", &RESULT)?;
    each(result, "interfaces", if newest { &INTERFACE_1_1 } else { &INTERFACE })?;
    each(result, "ips", if with_version { &ADDRESS_WITH_VERSION } else { &ADDRESS })?;
    each(result, "routes", if newest { &ROUTE_1_1 } else { &ROUTE })?;
    if let Some(dns) = result.get("dns") {
        fits(dns, "dns", &DNS)?;
    }
    let interfaces = result["interfaces"].as_array().map_or(0, Vec::len);
    for ip in list(result, "ips") {
        if with_version {
            let (address, _) = parse(ip["address"].as_str())?;
            let family = if address.is_ipv4() { "4" } else { "6" };
            ensure!(ip["version"] == family, "{address} has version {}", ip["version"]);
        }
        if let Some(index) = ip["interface"].as_u64() {
            ensure!(usize::try_from(index)? < interfaces, "interface {index} of {interfaces}");
        }
    }
    Ok(())
}

fn conforms_to_old(result: &Value) -> Result<()> {
    fits(result, "result", &OLD_RESULT)?;
    for key in ["ip4", "ip6"] {
        if let Some(ip) = result.get(key) {
            fits(ip, key, &OLD_IP)?;
            let (address, _) = parse(ip["ip"].as_str())?;
            ensure!(address.is_ipv4() == (key == "ip4"), "{key} is {address}");
            each(ip, "routes", &ROUTE)?;
        }
    }
    Ok(())
}

/// All addresses of a result with their prefix lengths, whatever its version.
///
/// # Errors
/// When one is not `ADDRESS/LEN`.
pub fn addresses(result: &Value) -> Result<Vec<(IpAddr, u8)>> {
    let old = ["ip4", "ip6"].iter().filter_map(|&key| result.get(key)).map(|ip| &ip["ip"]);
    let new = list(result, "ips").iter().map(|ip| &ip["address"]);
    old.chain(new).map(|text| parse(text.as_str())).collect()
}

fn parse(text: Option<&str>) -> Result<(IpAddr, u8)> {
    let text = text.context("an address is not a string")?;
    let (address, length) = text.split_once('/').with_context(|| format!("not ADDRESS/LEN: {text}"))?;
    Ok((address.parse().with_context(|| text.to_owned())?, length.parse().with_context(|| text.to_owned())?))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn each(value: &Value, key: &str, shape: &Shape) -> Result<()> {
    match value.get(key) {
        None => Ok(()),
        Some(Value::Array(entries)) => entries.iter().try_for_each(|entry| fits(entry, key, shape)),
        Some(other) => bail!("{key} is not a list: {other}"),
    }
}

fn fits(value: &Value, what: &str, shape: &Shape) -> Result<()> {
    let object = value.as_object().with_context(|| format!("{what} is not an object: {value}"))?;
    for key in shape.must {
        ensure!(object.contains_key(*key), "{what} lacks {key}: {value}");
    }
    for key in object.keys() {
        let known = shape.must.iter().chain(shape.may).any(|known| known == key);
        ensure!(known, "{what} of this version has no {key}: {value}");
    }
    Ok(())
}

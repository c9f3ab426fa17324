//! How an interface looks from inside of its namespace.
//!
//! The process enters the namespace for good: it looks, says what it saw, and ends. The kernel's own text files tell
//! the routes, so that no netlink is spoken here.

use std::{collections::BTreeMap, fs, io, net::Ipv4Addr, os::fd::AsFd};

use nix::{
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sched::{CloneFlags, setns},
};

use crate::world::Inside;

/// The interfaces of the namespace the process is in.
pub(super) fn interfaces() -> io::Result<Vec<String>> {
    Ok(look()?.into_keys().collect())
}

/// Enters a namespace and looks at one interface.
pub(super) fn enter(namespace: &impl AsFd, ifname: &str) -> io::Result<Option<Inside>> {
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let Some(mut inside) = look()?.remove(ifname) else { return Ok(None) };
    // The thread's own file: that of the process would be the same, for it has one thread.
    inside.routes = routes(&fs::read_to_string("/proc/thread-self/net/route")?);
    Ok(Some(inside))
}

fn look() -> io::Result<BTreeMap<String, Inside>> {
    let mut found: BTreeMap<String, Inside> = BTreeMap::new();
    for part in getifaddrs()? {
        let inside = found.entry(part.interface_name).or_default();
        inside.up = part.flags.contains(InterfaceFlags::IFF_UP);
        let Some(address) = part.address else { continue };
        if let Some(mac) = address.as_link_addr().and_then(|link| link.addr()) {
            let [a, b, c, d, e, f] = mac;
            inside.mac = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
        }
        if let Some(four) = address.as_sockaddr_in() {
            let mask = part.netmask.and_then(|mask| mask.as_sockaddr_in().map(|mask| mask.ip().to_bits()));
            inside.addresses.push(format!("{}/{}", four.ip(), mask.map_or(32, u32::count_ones)));
        }
    }
    Ok(found)
}

/// Reads the kernel's table: `Iface Destination Gateway Flags RefCnt Use Metric Mask …`, numbers as they lie in memory.
fn routes(table: &str) -> Vec<(Ipv4Addr, u8, Ipv4Addr)> {
    let address = |word: &str| {
        let bits = u32::from_str_radix(word, 16).ok()?;
        Some(Ipv4Addr::from(bits.to_ne_bytes()))
    };
    let route = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, destination, gateway, _, _, _, _, mask, ..] = words.as_slice() else { return None };
        let length = u8::try_from(address(mask)?.to_bits().leading_ones()).ok()?;
        Some((address(destination)?, length, address(gateway)?))
    };
    table.lines().skip(1).filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_table_is_read() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t0100200A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t0000200A\t00000000\t0001\t0\t0\t0\t0000F0FF\t0\t0\t0\n";
        let gateway = Ipv4Addr::new(10, 32, 0, 1);
        let none = Ipv4Addr::UNSPECIFIED;
        assert_eq!(routes(table), [(none, 0, gateway), (Ipv4Addr::new(10, 32, 0, 0), 12, none)]);
    }

    #[test]
    fn the_loopback_is_seen_by_its_name() {
        assert!(interfaces().unwrap().contains(&"lo".to_owned()));
    }
}

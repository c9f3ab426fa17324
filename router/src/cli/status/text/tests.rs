//! What people see, letter by letter.

use std::collections::BTreeMap;

use weft_api::{Attachment, Carrier, Ipam, Owner, Peer, ThisPeer, Transport};

use super::*;

fn connection(nickname: Option<&str>, address: &str) -> Connection {
    Connection {
        address: address.to_owned(),
        transport: Transport::Tcp,
        direction: Direction::Outbound,
        state: ConnectionState::Established,
        peer: nickname.map(|_| "1111222233334444".to_owned()),
        nickname: nickname.map(str::to_owned),
        carrier: Some(Carrier::Sleeve),
        reason: Some("secret set and link not trusted".to_owned()),
        encrypted: true,
        mtu: Some(1424),
        rtt_us: Some(210),
        error: None,
        retry_in_ms: None,
    }
}

fn status() -> Status {
    let retrying = Connection {
        state: ConnectionState::Retrying,
        carrier: None,
        reason: None,
        encrypted: false,
        mtu: None,
        rtt_us: None,
        error: Some("connection refused".to_owned()),
        retry_in_ms: Some(3250),
        ..connection(None, "10.0.0.3:6783")
    };
    let inbound = Connection {
        direction: Direction::Inbound,
        rtt_us: Some(12_900),
        reason: None,
        ..connection(Some("host4"), "[fd00::4]:51234")
    };
    let peer = |name: &str, nickname: &str| Peer {
        name: name.to_owned(),
        nickname: nickname.to_owned(),
        site: "default".to_owned(),
        reachable: true,
        hops: Some(1),
        via: None,
        links: vec!["8c1f0a3be27d9954".to_owned()],
        held: false,
    };
    let far =
        Peer { hops: Some(2), via: Some("1111222233334444".to_owned()), ..peer("5555666677778888", "host5") };
    let gone = Peer { reachable: false, hops: None, links: vec![], ..peer("9999aaaabbbbcccc", "host6") };
    Status {
        version: "0.1.0".to_owned(),
        ready: true,
        peer: ThisPeer {
            name: "8c1f0a3be27d9954".to_owned(),
            nickname: "host1".to_owned(),
            incarnation: 3,
            site: "default".to_owned(),
        },
        encryption: true,
        targets: vec!["10.0.0.2:6783".to_owned(), "10.0.0.3:6783".to_owned()],
        connections: vec![connection(Some("host2"), "10.0.0.2:6783"), inbound, retrying],
        peers: vec![peer("1111222233334444", "host2"), far, gone],
        ipam: Ipam {
            state: IpamState::Ready,
            reason: None,
            range: Some("10.32.0.0/12".to_owned()),
            owned: 524_288,
            used: 3,
            owners: vec![
                Owner {
                    peer: "8c1f0a3be27d9954".to_owned(),
                    nickname: "host1".to_owned(),
                    addresses: 524_288,
                    reachable: true,
                },
                Owner {
                    peer: "9999aaaabbbbcccc".to_owned(),
                    nickname: String::new(),
                    addresses: 524_288,
                    reachable: false,
                },
            ],
        },
        attachments: vec![Attachment {
            id: "netns-4026532251".to_owned(),
            netns: "/run/netns/c1".to_owned(),
            interface: "eth0".to_owned(),
            mac: "0a:58:0a:20:00:01".to_owned(),
            addresses: vec!["10.32.0.1/12".to_owned()],
            state: AttachmentState::Ok,
        }],
        exposed: vec![],
        drops: BTreeMap::from([("hop_limit".to_owned(), 2), ("no_route".to_owned(), 10)]),
        warnings: vec![],
    }
}

#[test]
fn the_whole_status_reads_like_a_page() {
    let expected = "  Router       host1 (8c1f0a3be27d9954), incarnation 3, site default
  Version      0.1.0
  Ready        yes
  Encryption   on
  Targets      10.0.0.2:6783, 10.0.0.3:6783
  Connections  2 established, 1 retrying
  Peers        3 known, 2 reachable
  Addresses    ready; of 10.32.0.0/12 we own 524288, 3 in use
  Attachments  1
  Dropped      12 frames: hop_limit 2, no_route 10

Connections
  PEER   ADDRESS            STATE        CARRIER  SEALED   MTU      RTT
  host2  → 10.0.0.2:6783    established  sleeve   yes     1424  0.21 ms
      secret set and link not trusted
  host4  ← [fd00::4]:51234  established  sleeve   yes     1424    12 ms
  -      → 10.0.0.3:6783    retrying     -        -          -        -
      connection refused; again in 3.2 s

Peers
  PEER   NAME              SITE     REACHABLE  HOPS  VIA    LINKS
  host2  1111222233334444  default  yes           1  -          1
  host5  5555666677778888  default  yes           2  host2      1
  host6  9999aaaabbbbcccc  default  no            -  -          0

Owners of addresses
  OWNER  NAME              ADDRESSES   SHARE  REACHABLE
  host1  8c1f0a3be27d9954     524288  50.0 %  yes
  -      9999aaaabbbbcccc     524288  50.0 %  no

Attachments
  ADDRESS       MAC                INTERFACE  STATE  NAMESPACE
  10.32.0.1/12  0a:58:0a:20:00:01  eth0       ok     /run/netns/c1
      id netns-4026532251
";
    assert_eq!(everything(&status()), expected);
}

#[test]
fn a_lonely_router_says_so_without_tables() {
    let mut status = status();
    status.encryption = false;
    status.ready = false;
    (status.targets, status.connections, status.peers, status.attachments) = (vec![], vec![], vec![], vec![]);
    status.drops.clear();
    status.ipam.owners.clear();
    status.ipam.state = IpamState::Waiting;
    status.ipam.reason = Some("2 of 3 peers".to_owned());
    status.warnings = vec!["the clock differs from host2 by 40 s: set it".to_owned()];
    let text = everything(&status);
    assert!(text.contains("Encryption   off: no secret is set, everybody may join and listen\n"), "{text}");
    assert!(text.contains("Targets      none\n"), "{text}");
    assert!(text.contains("waiting; of 10.32.0.0/12 we own 524288, 3 in use (2 of 3 peers)\n"), "{text}");
    assert!(text.ends_with("\n\n! the clock differs from host2 by 40 s: set it\n"), "{text}");
    assert_eq!(connections(&status), "  no connections\n");
    assert_eq!(targets(&status), "  no targets\n");
}

#[test]
fn addresses_switched_off_have_no_numbers() {
    let mut status = status();
    status.ipam =
        Ipam { state: IpamState::Off, reason: None, range: None, owned: 0, used: 0, owners: vec![] };
    assert_eq!(ipam(&status), "  State  off\n");
    assert!(everything(&status).contains("Addresses    off\n"));
}

#[test]
fn every_line_fits_in_eighty_columns() {
    let mut status = status();
    status.warnings = vec!["a long warning ".repeat(20)];
    status.targets = (0..40).map(|host| format!("10.0.0.{host}:6783")).collect();
    for line in everything(&status).lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn the_document_has_the_keys_of_the_contract() {
    let document = serde_json::to_value(status()).unwrap();
    let keys =
        |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    // `serde_json::Value` sorts its keys; the text of the document keeps the order of the structs.
    assert_eq!(
        keys(&document),
        "attachments connections drops encryption exposed ipam peer peers ready targets version warnings"
    );
    assert_eq!(keys(&document["peer"]), "incarnation name nickname site");
    assert_eq!(
        keys(&document["connections"][0]),
        "address carrier direction encrypted error mtu nickname peer reason retry_in_ms rtt_us state transport"
    );
    assert_eq!(document["connections"][2]["carrier"], serde_json::Value::Null);
    assert_eq!(document["connections"][0]["carrier"], "sleeve");
    assert_eq!(document["connections"][1]["direction"], "inbound");
    assert_eq!(keys(&document["peers"][0]), "held hops links name nickname reachable site via");
    assert_eq!(keys(&document["ipam"]), "owned owners range reason state used");
    assert_eq!(keys(&document["ipam"]["owners"][0]), "addresses nickname peer reachable");
    assert_eq!(keys(&document["attachments"][0]), "addresses id interface mac netns state");
    let text = serde_json::to_string(&status()).unwrap();
    assert!(text.starts_with(r#"{"version":"0.1.0","ready":true,"peer":{"name":"#), "{text}");
    assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status());
}

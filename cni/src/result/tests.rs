//! Golden results: every byte of every version.

use super::*;

fn outcome() -> Outcome {
    let more = Map::from_iter([("mtu".to_owned(), Value::from(1450))]);
    Outcome {
        interfaces: vec![
            Interface::on_host("weft".into(), "0e:ff:1f:0a:3b:e2".into()),
            Interface::on_host("wv0123456789a".into(), "02:58:0a:20:00:05".into()),
            Interface {
                name: "eth0".into(),
                mac: "0a:58:0a:20:00:05".into(),
                sandbox: "/run/netns/c1".into(),
                more,
            },
        ],
        ips: vec![Ip::new("10.32.0.5/12".into(), Some("10.32.0.1".into()), Some(2))],
        routes: vec![Route { dst: "0.0.0.0/0".into(), gw: Some("10.32.0.1".into()), more: Map::new() }],
        dns: serde_json::from_str(r#"{"nameservers":["10.96.0.10"],"search":null}"#).unwrap(),
    }
}

const HOST: &str =
    r#"{"name":"weft","mac":"0e:ff:1f:0a:3b:e2"},{"name":"wv0123456789a","mac":"02:58:0a:20:00:05"}"#;
const TAIL: &str = r#""routes":[{"dst":"0.0.0.0/0","gw":"10.32.0.1"}],"dns":{"nameservers":["10.96.0.10"]}}"#;

#[test]
fn versions_before_0_3_have_one_address_of_a_family() {
    for version in ["0.1.0", "0.2.0"] {
        let asked = Version::of(format!(r#"{{"cniVersion":"{version}"}}"#).as_bytes()).unwrap();
        let golden = [
            r#"{"cniVersion":""#,
            version,
            r#"","ip4":{"ip":"10.32.0.5/12","gateway":"10.32.0.1","routes":[{"dst":"0.0.0.0/0","gw":"10.32.0.1"}]},"#,
            r#""dns":{"nameservers":["10.96.0.10"]}}"#,
        ];
        assert_eq!(outcome().document(asked), golden.concat());
    }
}

#[test]
fn versions_0_3_and_0_4_say_which_family_an_address_is_of() {
    for version in ["0.3.0", "0.3.1", "0.4.0"] {
        let asked = Version::of(format!(r#"{{"cniVersion":"{version}"}}"#).as_bytes()).unwrap();
        let golden = [
            r#"{"cniVersion":""#,
            version,
            r#"","interfaces":["#,
            HOST,
            r#",{"name":"eth0","mac":"0a:58:0a:20:00:05","sandbox":"/run/netns/c1"}],"#,
            r#""ips":[{"version":"4","interface":2,"address":"10.32.0.5/12","gateway":"10.32.0.1"}],"#,
            TAIL,
        ];
        assert_eq!(outcome().document(asked), golden.concat());
    }
}

#[test]
fn version_1_0_does_not_and_1_1_adds_the_mtu() {
    for (version, asked, mtu) in
        [("1.0.0", Version::V1_0_0, ""), ("1.1.0", Version::V1_1_0, r#","mtu":1450"#)]
    {
        let golden = [
            r#"{"cniVersion":""#,
            version,
            r#"","interfaces":["#,
            HOST,
            r#",{"name":"eth0","mac":"0a:58:0a:20:00:05","sandbox":"/run/netns/c1""#,
            mtu,
            r#"}],"ips":[{"interface":2,"address":"10.32.0.5/12","gateway":"10.32.0.1"}],"#,
            TAIL,
        ];
        assert_eq!(outcome().document(asked), golden.concat());
    }
}

#[test]
fn a_result_of_any_version_is_read_back() {
    for version in Version::ALL {
        let value: Value = serde_json::from_str(&outcome().document(version)).unwrap();
        let read = Outcome::parse(&value).unwrap();
        assert_eq!(read.document(version), outcome().document(version), "{version:?}");
    }
}

#[test]
fn what_others_say_of_a_route_is_kept_where_the_version_knows_it() {
    let value = serde_json::json!({
        "interfaces": null,
        "ips": [{"address": "fd00::5/64"}],
        "routes": [{"dst": "fd01::/16", "mtu": 1400, "table": 7, "own": true}],
    });
    let read = Outcome::parse(&value).unwrap();
    assert_eq!(
        read.document(Version::V1_1_0),
        r#"{"cniVersion":"1.1.0","ips":[{"address":"fd00::5/64"}],"routes":[{"dst":"fd01::/16","mtu":1400,"own":true,"table":7}]}"#
    );
    assert_eq!(
        read.document(Version::V0_4_0),
        r#"{"cniVersion":"0.4.0","ips":[{"version":"6","address":"fd00::5/64"}],"routes":[{"dst":"fd01::/16","own":true}]}"#
    );
    assert_eq!(
        read.document(Version::V0_2_0),
        r#"{"cniVersion":"0.2.0","ip6":{"ip":"fd00::5/64","routes":[{"dst":"fd01::/16","own":true}]}}"#
    );
}

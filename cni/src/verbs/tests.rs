//! The verbs against a world that answers what it is told to, and writes down what it was asked.

use std::collections::VecDeque;

use serde_json::json;
use weft_api::{ApiError, CniAdd, CniAttached, CniName, CniNote, CniRoute, CniStatus, Request, Response};

use super::*;
use crate::{call::Environment, ipam, version::Version, world::Inside};

#[derive(Default)]
struct Fake {
    /// What the router answers, in order; nothing left: it is away.
    answers: VecDeque<Result<Response, ApiError>>,
    /// What other plugins answer, in order.
    plugins: VecDeque<Result<Option<Outcome>, Error>>,
    inside: Option<Inside>,
    noteless: bool,
    log: Vec<String>,
    last: Option<CniAdd>,
}

impl Fake {
    fn answer(&mut self) -> Result<Response, ApiError> {
        self.answers.pop_front().unwrap_or_else(|| Err(ApiError::no_router("no router answers")))
    }
}

impl World for Fake {
    fn ask(&mut self, request: &Request) -> Result<Response, ApiError> {
        let request = serde_json::to_value(request).unwrap();
        self.log.push(format!("ask {}", request["verb"].as_str().unwrap()));
        self.answer()
    }

    fn open(&mut self, netns: &str) -> Result<(), Error> {
        if netns.contains("missing") {
            return Err(Error::environment("CNI_NETNS: no network namespace"));
        }
        self.log.push("open".into());
        Ok(())
    }

    fn attach(&mut self, add: CniAdd) -> Result<Response, Error> {
        self.log.push("attach".into());
        self.last = Some(add);
        Ok(self.answer()?)
    }

    fn delegate(&mut self, plugin: &str, verb: Verb) -> Result<Option<Outcome>, Error> {
        self.log.push(format!("{plugin} {}", verb.as_str()));
        self.plugins.pop_front().unwrap_or(Ok(None))
    }

    fn leave(&mut self, note: &CniNote) -> Result<(), Error> {
        self.log.push(format!("leave {}", note.file()));
        if self.noteless { Err(Error::later("read-only")) } else { Ok(()) }
    }

    fn honour(&mut self, _: &CniNote) -> Result<(), Error> {
        Ok(())
    }

    fn host_interfaces(&mut self) -> Result<Vec<String>, Error> {
        Ok(vec!["weft".into(), "wv1".into()])
    }

    fn inside(&mut self, _: &str) -> Result<Option<Inside>, Error> {
        Ok(self.inside.clone())
    }
}

fn call(verb: Verb) -> Call {
    let environment = Environment {
        container: Some("c1".into()),
        netns: Some("/run/netns/c1".into()),
        ifname: Some("eth0".into()),
        ..Environment::default()
    };
    Call::parse(verb, &environment).unwrap()
}

fn conf(extra: serde_json::Value) -> NetConf {
    let mut conf = json!({"cniVersion": "1.1.0", "name": "weft", "type": "weft-net"});
    conf.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    NetConf::parse(conf.to_string().as_bytes()).unwrap()
}

fn attached() -> Response {
    Response::CniAttached(Box::new(CniAttached {
        bridge: "weft".into(),
        bridge_mac: "0e:00:00:00:00:01".into(),
        host_interface: "wv1".into(),
        host_mac: "02:58:0a:20:00:05".into(),
        mac: "0a:58:0a:20:00:05".into(),
        mtu: 1450,
        addresses: vec!["10.32.0.5/12".into()],
        gateway: Some("10.32.0.1".into()),
        routes: vec![CniRoute { dst: "0.0.0.0/0".into(), gw: Some("10.32.0.1".into()) }],
    }))
}

fn world(answers: impl IntoIterator<Item = Result<Response, ApiError>>) -> Fake {
    Fake { answers: answers.into_iter().collect(), ..Fake::default() }
}

#[test]
fn an_add_names_bridge_host_end_and_pod_end_in_that_order() {
    let mut world = world([Ok(attached())]);
    let outcome = run(&call(Verb::Add), &conf(json!({})), &mut world).unwrap().unwrap();
    assert_eq!(
        outcome.document(Version::V1_0_0),
        concat!(
            r#"{"cniVersion":"1.0.0","interfaces":[{"name":"weft","mac":"0e:00:00:00:00:01"},"#,
            r#"{"name":"wv1","mac":"02:58:0a:20:00:05"},"#,
            r#"{"name":"eth0","mac":"0a:58:0a:20:00:05","sandbox":"/run/netns/c1"}],"#,
            r#""ips":[{"interface":2,"address":"10.32.0.5/12","gateway":"10.32.0.1"}],"#,
            r#""routes":[{"dst":"0.0.0.0/0","gw":"10.32.0.1"}]}"#
        )
    );
    let asked = world.last.unwrap();
    assert_eq!((asked.hairpin, asked.outward, asked.routes), (true, true, None));
}

#[test]
fn an_add_in_a_chain_keeps_what_was_there_and_counts_on_from_it() {
    let previous = json!({
        "interfaces": [{"name": "net0", "sandbox": "/run/netns/c1", "pciID": "1"}],
        "ips": [{"address": "192.0.2.1/24", "interface": 0}],
    });
    let mut world = world([Ok(attached())]);
    let conf = conf(json!({"prevResult": previous}));
    let outcome = run(&call(Verb::Add), &conf, &mut world).unwrap().unwrap();
    let document = outcome.document(Version::V1_1_0);
    assert!(document.contains(r#"{"name":"net0","sandbox":"/run/netns/c1","pciID":"1"}"#), "{document}");
    assert_eq!(outcome.ips.iter().map(|ip| ip.interface).collect::<Vec<_>>(), [Some(0), Some(3)]);
}

#[test]
fn an_add_that_another_plugin_addresses_gives_the_address_back_when_the_router_refuses() {
    let given = || {
        let value = json!({"ips": [{"address": "10.22.0.7/16", "gateway": "10.22.0.1"}], "routes": [{"dst": "0.0.0.0/0"}]});
        Ok(Some(Outcome::parse(&value).unwrap()))
    };
    let conf = conf(json!({"ipam": {"type": "host-local"}}));
    let mut world = world([Err(ApiError::failed("no"))]);
    world.plugins.push_back(given());
    let error = run(&call(Verb::Add), &conf, &mut world).unwrap_err();
    assert_eq!(error.code, 100);
    assert_eq!(world.log, ["open", "host-local ADD", "attach", "host-local DEL"]);
    let asked = world.last.take().unwrap();
    assert_eq!(asked.addresses, ["10.22.0.7/16"]);
    assert_eq!(asked.gateway.as_deref(), Some("10.22.0.1"));

    world.log.clear();
    let six = json!({"ips": [{"address": "fd00::7/64"}]});
    world.plugins.push_back(Ok(Some(Outcome::parse(&six).unwrap())));
    assert!(run(&call(Verb::Add), &conf, &mut world).unwrap_err().msg.contains("fd00::7/64"));
    assert_eq!(world.log, ["open", "host-local ADD", "host-local DEL"], "the router was not even asked");
}

#[test]
fn an_add_without_a_router_is_to_be_tried_again_and_leaves_nothing_that_could_come_true_later() {
    let mut world = Fake::default();
    let error = run(&call(Verb::Add), &conf(json!({})), &mut world).unwrap_err();
    assert_eq!(error.code, 11);
    assert_eq!(world.log, ["open", "attach", "leave link-c1%2Feth0"]);
}

#[test]
fn an_add_for_no_namespace_asks_nobody() {
    let mut world = Fake::default();
    let call = Call { netns: "/run/netns/missing".into(), ..call(Verb::Add) };
    let conf = conf(json!({"ipam": {"type": "host-local"}}));
    assert_eq!(run(&call, &conf, &mut world).unwrap_err().code, 4);
    assert!(world.log.is_empty());
}

#[test]
fn a_delete_without_a_router_leaves_a_note_and_succeeds() {
    for answer in [ApiError::no_router("away"), ApiError::not_now("disk full"), ApiError::failed("stuck")] {
        let mut world = world([Err(answer)]);
        run(&call(Verb::Del), &conf(json!({})), &mut world).unwrap();
        assert_eq!(world.log, ["ask cni_del", "leave link-c1%2Feth0"]);
    }
    let mut world = Fake { noteless: true, ..Fake::default() };
    assert_eq!(run(&call(Verb::Del), &conf(json!({})), &mut world).unwrap_err().code, 11);
}

#[test]
fn a_check_finds_each_thing_that_is_missing() {
    let previous = json!({
        "interfaces": [
            {"name": "weft"}, {"name": "wv1"},
            {"name": "eth0", "mac": "0a:58:0a:20:00:05", "sandbox": "/run/netns/c1"},
        ],
        "ips": [{"interface": 2, "address": "10.32.0.5/12"}],
        "routes": [{"dst": "0.0.0.0/0", "gw": "10.32.0.1"}],
    });
    let good = Inside {
        up: true,
        mac: "0a:58:0a:20:00:05".into(),
        addresses: vec!["10.32.0.5/12".into(), "192.0.2.1/24".into()],
        routes: vec![("0.0.0.0".parse().unwrap(), 0, "10.32.0.1".parse().unwrap())],
    };
    let check = |inside: Option<Inside>, held: &str| {
        let mut world = world([Ok(Response::Addresses(vec![held.into()]))]);
        world.inside = inside;
        run(&call(Verb::Check), &conf(json!({"prevResult": previous})), &mut world).map_err(|error| error.msg)
    };
    assert_eq!(check(Some(good.clone()), "10.32.0.5/12"), Ok(None));
    let told = |inside: Option<Inside>, held: &str| check(inside, held).unwrap_err();
    assert!(told(None, "10.32.0.5/12").contains("is not in"));
    assert!(told(Some(good.clone()), "10.32.0.6/12").contains("10.32.0.6/12"));
    assert!(told(Some(Inside { up: false, ..good.clone() }), "10.32.0.5/12").contains("down"));
    assert!(
        told(Some(Inside { mac: "02:00:00:00:00:00".into(), ..good.clone() }), "10.32.0.5/12")
            .contains("MAC")
    );
    assert!(told(Some(Inside { addresses: Vec::new(), ..good.clone() }), "10.32.0.5/12").contains("address"));
    assert!(told(Some(Inside { routes: Vec::new(), ..good }), "10.32.0.5/12").contains("route to 0.0.0.0/0"));
    let mut world = world([]);
    assert_eq!(run(&call(Verb::Check), &conf(json!({})), &mut world).unwrap_err().code, 7);
}

#[test]
fn the_status_says_50_without_a_router_or_addresses_and_51_when_split() {
    let say = |answer: Option<CniStatus>| {
        let mut world = world(answer.map(|status| Ok(Response::CniStatus(status))));
        run(&call(Verb::Status), &conf(json!({})), &mut world).map_err(|error| error.code)
    };
    assert_eq!(say(None), Err(50));
    assert_eq!(say(Some(CniStatus::default())), Ok(None));
    let unavailable = CniStatus { unavailable: Some("x".into()), degraded: None };
    assert_eq!(say(Some(unavailable.clone())), Err(50));
    assert_eq!(say(Some(CniStatus { degraded: Some("split".into()), ..unavailable })), Err(51));
}

#[test]
fn the_ipam_plugin_returns_addresses_and_no_interfaces() {
    let mut world = world([Ok(Response::Addresses(vec!["10.32.0.9/12".into()]))]);
    let conf = conf(
        json!({"ipam": {"type": "weft-ipam", "gateway": "10.32.0.1", "routes": [{"dst": "0.0.0.0/0"}]}}),
    );
    let outcome = ipam::run(&call(Verb::Add), &conf, &mut world).unwrap().unwrap();
    assert_eq!(
        outcome.document(Version::V1_0_0),
        concat!(
            r#"{"cniVersion":"1.0.0","ips":[{"address":"10.32.0.9/12","gateway":"10.32.0.1"}],"#,
            r#""routes":[{"dst":"0.0.0.0/0"}]}"#
        )
    );
    assert_eq!(world.log, ["ask cni_lease"]);
}

#[test]
fn of_several_addresses_one_that_is_refused_gives_all_back() {
    let mut world = world([
        Ok(Response::Addresses(vec!["10.32.0.9/12".into()])),
        Err(ApiError::failed("in use")),
        Ok(Response::Done(Vec::new())),
    ]);
    let conf = conf(json!({"runtimeConfig": {"ips": ["10.32.0.9", "10.32.0.10"]}}));
    assert_eq!(ipam::run(&call(Verb::Add), &conf, &mut world).unwrap_err().code, 100);
    assert_eq!(world.log, ["ask cni_lease", "ask cni_lease", "ask cni_release"]);
}

#[test]
fn a_collection_hands_over_what_is_in_use() {
    let mut world = world([Ok(Response::Done(Vec::new()))]);
    let conf = conf(json!({"cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}]}));
    run(&call(Verb::Gc), &conf, &mut world).unwrap();
    assert_eq!(world.log, ["ask cni_gc"]);
    assert_eq!(conf.valid().unwrap(), [CniName { container: "c1".into(), ifname: "eth0".into() }]);
}

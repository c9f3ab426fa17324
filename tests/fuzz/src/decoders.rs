//! Decoders that stand alone: bytes in, a value or an error out, and the value reads back as itself.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use weft_api::{Attach, Request};
use weft_gossip::fuzz as gossip;
use weft_router::io::store::Store;
use weft_router::ipam::wire;
use weft_router::node::State;
use weft_router::overlay::{Far, Goodbye, Told};

/// What allocators say to each other.
pub(super) fn ipam_wire(bytes: &[u8]) {
    if let Ok((header, body)) = wire::decode(bytes) {
        let again = wire::decode(&wire::encode(&header, &body)).expect("what we wrote is read");
        assert_eq!(again, (header, body));
    }
}

/// What overlays say to each other.
pub(super) fn told(bytes: &[u8]) {
    if let Ok(told) = Told::decode(bytes) {
        let again = Told::decode(&told.encode()).expect("what we wrote is read");
        assert_eq!(format!("{again:?}"), format!("{told:?}"));
    }
    if let Ok(far) = Far::decode(bytes) {
        assert_eq!(Far::decode(&far.encode()).expect("what we wrote is read"), far);
    }
}

/// A call of the local API.
pub(super) fn request(bytes: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<Request>(bytes) {
        let _ = request.allowance();
        let text = serde_json::to_vec(&request).expect("a request is plain data");
        assert_eq!(serde_json::from_slice::<Request>(&text).expect("what we wrote is read"), request);
    }
}

/// The durable state, once the store has found it whole.
pub(super) fn state(bytes: &[u8]) {
    if let Ok(state) = State::decode(bytes) {
        let again = State::decode(&state.encode()).expect("what we wrote is read");
        assert_eq!(again.encode(), state.encode());
    }
}

/// The state file and the one before it: the first byte says where the first of them ends.
pub(super) fn store(bytes: &[u8]) {
    let Some((cut, rest)) = bytes.split_first() else { return };
    let (current, previous) = rest.split_at(usize::from(*cut).min(rest.len()));
    let dir = directory();
    fs::write(dir.join("state"), current).expect("a directory of ours");
    fs::write(dir.join("state.previous"), previous).expect("a directory of ours");
    let (store, loaded) = Store::open(&dir).expect("damage is no error");
    if let Some(bytes) = &loaded.bytes {
        assert!(current.ends_with(bytes) || previous.ends_with(bytes), "bytes that nobody wrote");
        state(bytes);
    }
    drop(store);
}

fn directory() -> PathBuf {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let dir = std::env::temp_dir().join(format!("weft-fuzz-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary directory can be made");
        dir
    };
    DIRECTORY.get_or_init(make).clone()
}

pub(super) fn hellos() -> Vec<Vec<u8>> {
    vec![
        b"WEFT\0\x01\0\x01\0\0\0\0".to_vec(),
        b"WEFT\0\x02\0\x05\0\0\0\x03".to_vec(),
        b"GET / HTTP/1.1\r\n".to_vec(),
    ]
}

pub(super) fn records() -> Vec<Vec<u8>> {
    let records = super::overheard().into_iter().filter(|message| message[1] == 9);
    records.map(|message| message[6..].to_vec()).collect()
}

pub(super) fn broadcasts() -> Vec<Vec<u8>> {
    let bodies =
        || super::overheard().into_iter().filter(|message| message[1] == 10).map(|one| one[6..].to_vec());
    vec![super::join(bodies()), super::join(bodies().chain(bodies()))]
}

pub(super) fn strangers() -> Vec<Vec<u8>> {
    let hello = &hellos()[0];
    let mut handshake = vec![255];
    handshake.extend(hello);
    handshake.extend([0, 32]);
    handshake.extend([9; 32]);
    let mut drop_by_drop = handshake.clone();
    drop_by_drop[0] = 1;
    vec![handshake, drop_by_drop, [vec![7], hellos()[2].clone()].concat()]
}

pub(super) fn conversations() -> Vec<Vec<u8>> {
    let heard = super::overheard();
    let mut each: Vec<Vec<u8>> = heard.iter().map(|message| super::join([message, &vec![50]])).collect();
    each.push(super::join(&heard));
    each
}

pub(super) fn tellings() -> Vec<Vec<u8>> {
    [Goodbye::Restarting, Goodbye::Leaving]
        .into_iter()
        .map(|goodbye| Told::Goodbye(goodbye).encode())
        .collect()
}

pub(super) fn requests() -> Vec<Vec<u8>> {
    let attach = Attach {
        id: Some("pod".into()),
        addresses: vec!["10.32.0.9/12".into()],
        ifname: "eth0".into(),
        default_route: true,
        netns: "/var/run/netns/pod".into(),
        netns_inode: 4_026_532_000,
        timeout_ms: 1_000,
    };
    let requests = [
        Request::Status,
        Request::Report,
        Request::Metrics,
        Request::Doctor,
        Request::Plan,
        Request::Hide,
        Request::Attach(attach),
        Request::Detach { id: None, netns: "pod".into(), netns_inode: Some(4_026_532_000) },
        Request::PeerAdd { peers: vec!["10.0.0.9:6783".into(), "[fe80::1]:1".into()], replace: true },
        Request::PeerForget { peers: vec!["host".into()] },
        Request::PeerRemove { name: "host1".into(), force: true },
        Request::Expose { cidr: Some("10.32.0.1/12".into()) },
        Request::IpamAllocate { id: "a".into(), cidr: Some("10.32.0.0/24".into()), timeout_ms: 100 },
        Request::IpamClaim { id: "b".into(), cidr: "10.32.0.7/12".into(), timeout_ms: 100 },
        Request::IpamRelease { id: "a".into(), cidr: None },
        Request::IpamLookup { id: "a".into(), cidr: None },
        Request::Prime { timeout_ms: 100 },
        Request::CniGc { network: "weft".into(), valid: Vec::new() },
        Request::CniStatus { addresses: true },
        Request::Reset { force: true },
    ];
    requests.iter().map(|request| serde_json::to_vec(request).expect("a request is plain data")).collect()
}

pub(super) fn states() -> Vec<Vec<u8>> {
    let used = super::node::state();
    vec![
        State::default().encode(),
        State { incarnation: 7, targets: vec!["host".into()], ..used.clone() }.encode(),
        used.encode(),
    ]
}

pub(super) fn stores() -> Vec<Vec<u8>> {
    let dir = std::env::temp_dir().join(format!("weft-fuzz-seeds-{}", std::process::id()));
    let mut stores = Vec::new();
    if let Ok((store, _)) = Store::open(&dir) {
        for bytes in [&states()[0], &b"state".to_vec()] {
            if store.save(bytes).is_ok() {
                let file = fs::read(dir.join("state")).unwrap_or_default();
                let length = u8::try_from(file.len()).unwrap_or(u8::MAX);
                stores.push([vec![length], file.clone()].concat());
                stores.push([vec![0], file].concat());
            }
        }
        let _ = store.erase();
    }
    let _ = fs::remove_dir_all(&dir);
    stores
}

/// The messages a mesh sends, for whoever talks to one.
pub(super) fn parts(bytes: &[u8]) -> Vec<&[u8]> {
    gossip::parts(bytes)
}

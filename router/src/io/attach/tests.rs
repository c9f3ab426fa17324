//! The attach socket with real descriptors: each test's namespace is made by a thread that leaves ours.

use std::{fs::File, os::unix::fs::MetadataExt, thread};

use nix::sched::{CloneFlags, unshare};
use tokio::task::spawn_blocking;
use weft_api::{Attach, Client, ErrorCode, Namespace};

use super::*;
use crate::io::testing::Directory;

/// A network namespace that lives as long as this does; none where we may not make one.
struct Netns(File);

impl Netns {
    fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace needs root, or `unshare -Urnm`");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(made.join().unwrap())
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

fn request(namespace: &Namespace) -> Request {
    Request::Attach(Attach {
        id: None,
        addresses: vec![],
        ifname: "eth0".to_owned(),
        default_route: true,
        netns: namespace.path().display().to_string(),
        netns_inode: namespace.inode(),
        timeout_ms: 2_000,
    })
}

fn server(dir: &Directory) -> (Client, mpsc::Receiver<Call>) {
    let api = dir.path().join("weft.sock");
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(AttachSocket::bind(&api).unwrap().serve(sender));
    (Client::new(api), receiver)
}

#[tokio::test]
async fn a_namespace_and_a_socket_inside_it_arrive() {
    let dir = Directory::new();
    let (client, mut calls) = server(&dir);
    let netns = Netns::new();
    let namespace = Namespace::open(&netns.path()).unwrap();
    assert_eq!(namespace.inode(), netns.0.metadata().unwrap().ino());
    let asked = request(&namespace);
    let expected = asked.clone();
    let asking = spawn_blocking(move || client.call_with(&asked, &namespace.into_descriptors().unwrap()));
    let call = calls.recv().await.unwrap();
    assert_eq!(call.request, expected);
    let descriptors = call.descriptors.unwrap();
    let arrived = File::from(descriptors.netns).metadata().unwrap();
    assert_eq!(arrived.ino(), netns.0.metadata().unwrap().ino());
    let inside = links(&descriptors.netlink);
    assert_eq!(
        inside,
        ["lo"],
        "the netlink socket sees the namespace, which has a loopback and nothing else"
    );
    call.reply.send(Ok(Response::Addresses(vec!["10.32.0.1/12".to_owned()]))).unwrap();
    assert_eq!(asking.await.unwrap(), Ok(Response::Addresses(vec!["10.32.0.1/12".to_owned()])));
}

/// The names of the links a netlink socket sees, by a hand-made dump request.
fn links(netlink: &OwnedFd) -> Vec<String> {
    // nlmsghdr {length, RTM_GETLINK, REQUEST|DUMP, sequence, port} and an empty ifinfomsg.
    let mut message = [0_u8; 32];
    message[0] = 32;
    message[4] = 18;
    message[6..8].copy_from_slice(&0x301_u16.to_le_bytes());
    nix::unistd::write(netlink, &message).unwrap();
    let mut answer = [0; 32 << 10];
    let length = nix::unistd::read(netlink, &mut answer).unwrap();
    let mut names = Vec::new();
    let mut rest = &answer[..length];
    while rest.len() >= 32 {
        let size = u32::from_le_bytes(rest[..4].try_into().unwrap()) as usize;
        // The first attribute of a link is its name.
        if u16::from_le_bytes(rest[4..6].try_into().unwrap()) == 16 {
            let name = rest[36..size].split(|byte| *byte == 0).next().unwrap();
            names.push(String::from_utf8(name.to_vec()).unwrap());
        }
        rest = &rest[size.next_multiple_of(4).min(rest.len())..];
    }
    names
}

#[tokio::test]
async fn a_loop_that_does_not_answer_in_time_finds_its_call_closed() {
    let dir = Directory::new();
    let (client, mut calls) = server(&dir);
    let netns = Netns::new();
    let namespace = Namespace::open(&netns.path()).unwrap();
    let Request::Attach(attach) = request(&namespace) else { panic!("attach is attach") };
    // The router gives up before its client does, so that the client hears why.
    let asked = Request::Attach(Attach { timeout_ms: 0, ..attach });
    let asking = spawn_blocking(move || client.call_with(&asked, &namespace.into_descriptors().unwrap()));
    let mut call = calls.recv().await.unwrap();
    timeout(Duration::from_secs(8), call.reply.closed()).await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap_err().code, ErrorCode::NotNow);
}

#[tokio::test]
async fn a_client_that_dies_closes_its_call() {
    let dir = Directory::new();
    let (_client, mut calls) = server(&dir);
    let netns = Netns::new();
    let namespace = Namespace::open(&netns.path()).unwrap();
    let body = serde_json::to_vec(&request(&namespace)).unwrap();
    let descriptors = namespace.into_descriptors().unwrap();
    let socket = connected(&dir);
    send_raw(&socket, &body, &[descriptors.netns.as_raw_fd(), descriptors.netlink.as_raw_fd()]);
    let mut call = calls.recv().await.unwrap();
    assert!(!call.reply.is_closed());
    drop(socket);
    timeout(Duration::from_secs(2), call.reply.closed()).await.unwrap();
}

#[tokio::test]
async fn packets_that_make_no_sense_are_refused_in_words() {
    let dir = Directory::new();
    let (_client, _calls) = server(&dir);
    let own = File::open("/proc/self/ns/net").unwrap();
    let null = File::open("/dev/null").unwrap();
    let (own, null) = (own.as_raw_fd(), null.as_raw_fd());
    let attach = br#"{"verb":"attach","addresses":[],"ifname":"eth0","default_route":true,"netns":"x","netns_inode":1,"timeout_ms":1}"#;
    let cases: [(&[u8], &[i32], &str); 6] = [
        (b"rubbish", &[], "malformed request"),
        (br#"{"verb":"status"}"#, &[], "only attach comes over the attach socket"),
        (attach, &[], "two descriptors come with attach, not 0"),
        (attach, &[null; 5], "two descriptors come with attach, not 5"),
        (attach, &[null, null], "the first descriptor is no network namespace"),
        (attach, &[own, null], "that is the network namespace of the router itself"),
    ];
    for (body, descriptors, expected) in cases {
        let socket = connected(&dir);
        send_raw(&socket, body, descriptors);
        let answer = spawn_blocking(move || {
            let mut buffer = [0; 4096];
            let length = nix::unistd::read(&socket, &mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        });
        let answer = answer.await.unwrap();
        assert!(answer.contains(expected), "{answer}");
    }
}

fn connected(dir: &Directory) -> OwnedFd {
    use nix::sys::socket::{AddressFamily, SockFlag, UnixAddr, connect, socket};
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap();
    connect(socket.as_raw_fd(), &UnixAddr::new(&dir.path().join("weft-attach.sock")).unwrap()).unwrap();
    socket
}

fn send_raw(socket: &OwnedFd, body: &[u8], descriptors: &[i32]) {
    let rights = [nix::sys::socket::ControlMessage::ScmRights(descriptors)];
    let rights = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(body)], rights, MsgFlags::MSG_NOSIGNAL, None).unwrap();
}

#[tokio::test]
async fn the_client_sees_the_router_end() {
    let dir = Directory::new();
    let api = dir.path().join("weft.sock");
    let (sender, receiver) = mpsc::channel(4);
    let server = tokio::spawn(AttachSocket::bind(&api).unwrap().serve(sender));
    let client = Client::new(&api);
    let early = client.clone();
    assert!(!spawn_blocking(move || early.wait_for_end(Duration::from_millis(100))).await.unwrap());
    let waiting = spawn_blocking(move || client.wait_for_end(Duration::from_secs(10)));
    sleep(Duration::from_millis(50)).await;
    drop(receiver);
    server.await.unwrap();
    assert!(waiting.await.unwrap());
    assert!(!dir.path().join("weft-attach.sock").exists());
}

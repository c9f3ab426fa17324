//! The servers over real sockets, with a control loop that answers what the test says.

use std::{io::Write as _, os::unix::net::UnixStream as Blocking};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::spawn_blocking,
    time::timeout,
};
use weft_api::Client;

use super::*;
use crate::io::testing::Directory;

/// An API server and the queue its calls come out of.
fn api(dir: &Directory) -> (Client, mpsc::Receiver<Call>, tokio::task::JoinHandle<()>) {
    let path = dir.path().join("weft.sock");
    let (sender, receiver) = mpsc::channel(4);
    let server = tokio::spawn(Api::bind(&path).unwrap().serve(sender));
    (Client::new(path), receiver, server)
}

async fn ask_blocking(client: &Client, request: Request) -> Result<Response, ApiError> {
    let client = client.clone();
    spawn_blocking(move || client.call(&request)).await.unwrap()
}

#[tokio::test]
async fn a_request_reaches_the_loop_and_its_answer_comes_back() {
    let dir = Directory::new();
    let (client, mut calls, server) = api(&dir);
    let answers = tokio::spawn(async move {
        let call = calls.recv().await.unwrap();
        assert_eq!(call.request, Request::PeerAdd { peers: vec!["host2".to_owned()], replace: true });
        call.reply.send(Ok(Response::Done(vec!["dialling".to_owned()]))).unwrap();
        let call = calls.recv().await.unwrap();
        call.reply.send(Err(ApiError::not_now("no addresses yet"))).unwrap();
        drop(calls.recv().await.unwrap());
    });
    let request = Request::PeerAdd { peers: vec!["host2".to_owned()], replace: true };
    assert_eq!(ask_blocking(&client, request).await, Ok(Response::Done(vec!["dialling".to_owned()])));
    let error = ask_blocking(&client, Request::Prime { timeout_ms: 10 }).await.unwrap_err();
    assert_eq!(error, ApiError::not_now("no addresses yet"));
    let error = ask_blocking(&client, Request::Hide).await.unwrap_err();
    assert_eq!(error, ApiError::no_router("the router is ending"));
    answers.await.unwrap();
    server.await.unwrap();
    assert!(!dir.path().join("weft.sock").exists(), "the file goes with the router");
    let error = ask_blocking(&client, Request::Status).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NoRouter, "{error}");
}

#[tokio::test]
async fn the_last_answer_is_written_before_the_server_ends() {
    let dir = Directory::new();
    let (client, mut calls, server) = api(&dir);
    let idle = UnixStream::connect(dir.path().join("weft.sock")).await.unwrap();
    let lines = vec!["x".repeat(1 << 20); 4];
    let expected = lines.clone();
    let router = tokio::spawn(async move {
        calls.recv().await.unwrap().reply.send(Ok(Response::Done(lines))).unwrap();
        drop(calls);
        timeout(Duration::from_secs(8), server)
            .await
            .expect("an idle connection does not hold the end")
            .unwrap();
    });
    assert_eq!(ask_blocking(&client, Request::Reset { force: false }).await, Ok(Response::Done(expected)));
    router.await.unwrap();
    drop(idle);
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let dir = Directory::new();
    let (client, mut calls, _server) = api(&dir);
    let lines: Vec<String> = (0..100_000).map(|line| format!("line {line}")).collect();
    let expected = lines.clone();
    tokio::spawn(async move { calls.recv().await.unwrap().reply.send(Ok(Response::Plan(lines))) });
    assert_eq!(ask_blocking(&client, Request::Plan).await, Ok(Response::Plan(expected)));
}

#[tokio::test]
async fn a_loop_that_does_not_answer_in_time_is_not_now() {
    let dir = Directory::new();
    let (client, mut calls, _server) = api(&dir);
    let held = tokio::spawn(async move { calls.recv().await });
    let error = ask_blocking(&client, Request::Prime { timeout_ms: 0 }).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotNow, "{error}");
    drop(held.await.unwrap());
}

#[tokio::test]
async fn who_goes_away_takes_the_call_along() {
    let dir = Directory::new();
    let (_client, mut calls, _server) = api(&dir);
    let mut stream = UnixStream::connect(dir.path().join("weft.sock")).await.unwrap();
    let body = serde_json::to_string(&Request::Prime { timeout_ms: 60_000 }).unwrap();
    let head = format!("POST {CALL_PATH} HTTP/1.1\r\nHost: weft\r\nContent-Type: application/json\r\n");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut call = calls.recv().await.unwrap();
    assert!(!call.reply.is_closed());
    drop(stream);
    timeout(Duration::from_secs(5), call.reply.closed()).await.unwrap();
}

#[tokio::test]
async fn nonsense_is_refused_and_the_server_lives_on() {
    let dir = Directory::new();
    let (client, mut calls, _server) = api(&dir);
    let path = dir.path().join("weft.sock");
    for request in
        [&b"\0\xff\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/call HTTP/1.1\r\nContent-Length: 9"]
    {
        Blocking::connect(&path).unwrap().write_all(request).unwrap();
    }
    let attach = weft_api::Attach {
        id: None,
        addresses: vec![],
        ifname: "eth0".to_owned(),
        default_route: true,
        netns: "/x".to_owned(),
        netns_inode: 1,
        timeout_ms: 1,
    };
    let error = ask_blocking(&client, Request::Attach(attach)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Usage);
    let text = get_over(UnixStream::connect(&path).await.unwrap(), "/v1/nonsense").await;
    assert!(text.starts_with("HTTP/1.1 404"), "{text}");
    tokio::spawn(async move { calls.recv().await.unwrap().reply.send(Ok(Response::Done(vec![]))) });
    assert_eq!(ask_blocking(&client, Request::Hide).await, Ok(Response::Done(vec![])));
}

async fn get_over(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    path: &str,
) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

fn snapshot_of(ready: bool) -> Metrics {
    let connection = serde_json::json!({
        "address": "10.0.0.2:6783", "transport": "tcp", "direction": "outbound", "state": "established",
        "peer": "1111222233334444", "nickname": "ho\"st2", "carrier": "sleeve", "reason": null,
        "encrypted": true, "mtu": 1424, "rtt_us": 210, "error": null, "retry_in_ms": null
    });
    let status = serde_json::json!({
        "version": "0.1.0", "ready": ready,
        "peer": {"name": "8c1f0a3be27d9954", "nickname": "host1", "incarnation": 3, "site": "default"},
        "encryption": true, "targets": [], "connections": [connection], "peers": [],
        "ipam": {"state": if ready { "ready" } else { "waiting" }, "reason": "2 of 3 peers", "range": "10.32.0.0/12",
                 "owned": 524_288, "used": 3, "owners": []},
        "attachments": [], "drops": {"no_route": 10}
    });
    let frames = |direction: &str, value| weft_api::Counter {
        name: "frames".to_owned(),
        help: "Frames carried".to_owned(),
        labels: std::collections::BTreeMap::from([("direction".to_owned(), direction.to_owned())]),
        value,
    };
    Metrics {
        status: serde_json::from_value(status).unwrap(),
        counters: vec![frames("in", 7), frames("out", 8)],
    }
}

#[tokio::test]
async fn metrics_health_and_readiness_say_what_the_loop_says() {
    let server = MetricsServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = server.address().unwrap();
    let (sender, mut calls) = mpsc::channel::<Call>(4);
    let server = tokio::spawn(server.serve(sender));
    let answers = tokio::spawn(async move {
        for ready in [true, true, true, false] {
            let call = calls.recv().await.unwrap();
            assert_eq!(call.request, Request::Metrics);
            call.reply.send(Ok(Response::Metrics(Box::new(snapshot_of(ready))))).unwrap();
        }
        drop(calls.recv().await.unwrap());
        calls
    });
    let get = async |path| get_over(TcpStream::connect(address).await.unwrap(), path).await;
    let text = get("/metrics").await;
    assert!(text.contains("content-type: application/openmetrics-text"), "{text}");
    for line in [
        "weft_ready 1.0",
        "weft_connections{state=\"established\",carrier=\"sleeve\"} 1.0",
        "weft_connection_rtt_seconds{peer=\"1111222233334444\",nickname=\"ho\\\"st2\"} 0.00021",
        "weft_ipam_state{state=\"ready\"} 1.0",
        "weft_ipam_owned_addresses 524288.0",
        "weft_frames_total{direction=\"in\"} 7",
        "weft_frames_total{direction=\"out\"} 8",
        "weft_dropped_frames_total{reason=\"no_route\"} 10",
        "# EOF",
    ] {
        assert!(text.lines().any(|each| each == line), "{line} is missing in\n{text}");
    }
    assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get("/readyz").await.starts_with("HTTP/1.1 200"));
    let text = get("/readyz").await;
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(text.ends_with("not ready; addresses waiting: 2 of 3 peers\n"), "{text}");
    assert!(get("/healthz").await.starts_with("HTTP/1.1 503"), "alive is what answers");
    assert!(get("/v1/status").await.starts_with("HTTP/1.1 404"), "nothing of the API listens on the network");
    drop(answers.await.unwrap());
    server.await.unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let first = MetricsServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = first.address().unwrap();
    let error = MetricsServer::bind(address).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {address} for metrics: ")), "{error}");
}

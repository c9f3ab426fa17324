//! The DaemonSet of `examples/daemonset` on two nodes: its image, with the privileges its manifest grants and no others.
//!
//! ```text
//!   node (namespace): containerd ── weft pod on the host's network: install, then launch   NET_ADMIN, NET_RAW, no more
//!                         └─────── pods, connected by what install has put into cni/bin and cni/net.d
//! ```
//!
//! Two nodes share one file system here, so each has its own folder in place of `/run/weft`, `/var/lib/weft`, `/opt/cni`
//! and `/etc/cni`, mounted into the containers as the manifest mounts those.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weft_tests::containerd::{ContainerSpec, Containerd, Pod, PodSpec, import};
use weft_tests::{Host, deadline, scenario};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/daemonset");
const IMAGE: &str = "docker.io/local/weft:latest";
/// The most a node may take from nothing to its first pod.
const UP: Duration = Duration::from_secs(20);

/// The most bytes of the plugin, which each node starts for every pod: with musl, and where only glibc was to be had.
const PLUGIN: [usize; 2] = [1_000_000, 1_800_000];

/// The image as a tar: `WEFT_IMAGE`, or where `build.sh` leaves it.
fn image() -> Result<PathBuf> {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/image/weft.tar");
    let path = std::env::var_os("WEFT_IMAGE").map_or(built, PathBuf::from);
    ensure!(path.is_file(), "no image {}: make it with examples/daemonset/build.sh", path.display());
    Ok(path)
}

/// What the manifest adds after dropping all capabilities.
fn capabilities() -> Result<Vec<String>> {
    let manifest = std::fs::read_to_string(Path::new(EXAMPLE).join("weft.yaml"))?;
    for word in ["privileged: true", "hostPID: true", "allowPrivilegeEscalation: true"] {
        ensure!(!manifest.contains(word), "the manifest says {word}");
    }
    let lines: Vec<&str> = manifest.lines().map(str::trim).collect();
    let added: Vec<&&str> = lines.iter().filter(|line| line.starts_with("add: [")).collect();
    ensure!(added.len() == 1 && lines.contains(&"drop: [ALL]"), "the manifest's capabilities: {added:?}");
    let names = added[0].trim_start_matches("add: [").trim_end_matches(']').split(',');
    Ok(names.map(|name| name.trim().to_owned()).collect())
}

fn weft(name: &str, command: &[&str]) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        image: IMAGE.to_owned(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        drop_all: true,
        read_only: true,
        memory_bytes: 256 << 20,
        ..ContainerSpec::default()
    }
}

/// One node with the DaemonSet's pod.
struct Node<'a> {
    containerd: &'a Containerd,
    pod: Pod<'a>,
    router: String,
    launch: ContainerSpec,
}

fn node<'a>(containerd: &'a Containerd, host: &Host, peer: &Host) -> Result<Node<'a>> {
    import(containerd, &image()?, IMAGE)?;
    let pod =
        containerd.pod(&PodSpec { name: "weft".to_owned(), host_network: true, ..PodSpec::default() })?;
    let (run, state) = (containerd.folder("run")?, containerd.folder("state-dir")?);
    let socket = run.join("weft.sock").to_string_lossy().into_owned();
    let mut install = weft("install", &["/usr/local/bin/weft", "cni", "install"]);
    install.args =
        ["--bin-dir=/host/opt/cni/bin", "--conf-dir=/host/etc/cni/net.d"].map(str::to_owned).to_vec();
    install.env = vec![("WEFT_SOCKET".to_owned(), socket.clone())];
    install.mounts = vec![
        (containerd.plugins(), "/host/opt/cni/bin".to_owned(), false),
        (containerd.networks(), "/host/etc/cni/net.d".to_owned(), false),
    ];
    pod.start_to_end(&install, UP)?;
    let mut launch = weft("weft", &["/usr/local/bin/weft", "launch"]);
    launch.capabilities = capabilities()?;
    launch.env = [
        ("WEFT_PEERS", peer.address().to_string()),
        ("WEFT_NICKNAME", host.name().to_owned()),
        ("WEFT_SOCKET", socket),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec();
    launch.mounts = vec![
        (run.clone(), run.to_string_lossy().into_owned(), false),
        (state, "/var/lib/weft".to_owned(), false),
    ];
    let router = pod.start(&launch)?;
    Ok(Node { containerd, pod, router, launch })
}

impl Node<'_> {
    /// What the manifest's probes ask.
    fn probe(&self, host: &Host, path: &str) -> Result<String> {
        host.netns().run(|| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 6782))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }

    fn wait_ready(&self, host: &Host) -> Result<()> {
        let ready = || {
            Ok(self.probe(host, "/readyz")?.starts_with("HTTP/1.1 200")
                || self.probe(host, "/readyz")?.starts_with("HTTP/1.0 200"))
        };
        let waited = deadline::until_true("the readiness probe succeeds", UP, ready);
        waited.map(drop).with_context(|| self.pod.log("weft").unwrap_or_default())
    }
}

/// A static program that stays small.
fn check_plugin(path: &Path) -> Result<()> {
    let program = std::fs::read(path).with_context(|| path.display().to_string())?;
    let holds = |word: &[u8]| program.windows(word.len()).any(|window| window == word);
    ensure!(!holds(b"/lib64/ld-") && !holds(b"/lib/ld-"), "{} wants a loader", path.display());
    let limit = PLUGIN[usize::from(holds(b"GLIBC_TUNABLES"))];
    ensure!(program.len() <= limit, "{}: {} bytes, at most {limit}", path.display(), program.len());
    Ok(())
}

#[test]
fn the_daemonset_connects_pods_of_two_nodes_with_the_privileges_of_its_manifest() -> Result<()> {
    image()?;
    scenario(|fabric| {
        let hosts = fabric.hosts(2)?;
        let (near, far) = (
            Containerd::start(fabric, "host1", hosts[0].netns())?,
            Containerd::start(fabric, "host2", hosts[1].netns())?,
        );
        let mut one = node(&near, &hosts[0], &hosts[1])?;
        let two = node(&far, &hosts[1], &hosts[0])?;
        for (node, host) in [(&one, &hosts[0]), (&two, &hosts[1])] {
            node.wait_ready(host)?;
            node.containerd.wait_network(UP)?;
            check_plugin(&node.containerd.plugins().join("weft-net"))?;
        }
        let capable = one.pod.exec(&one.router, &["/usr/local/bin/weft", "status"])?;
        ensure!(capable.code == 0, "{capable:?}");
        let named = |name: &str| PodSpec { name: name.to_owned(), ..PodSpec::default() };
        let (asker, asking) = near.shell(&named("asker"), "exec sleep 1000")?;
        let (server, _) = far.shell(&named("server"), "exec sleep 1000")?;
        let target = server.address()?.to_string();
        let answered = || Ok(asker.exec(&asking, &["ping", "-c", "1", "-W", "1", &target])?.code == 0);
        let reaches = deadline::until_true("a pod reaches one of the other node", UP, answered);
        reaches.with_context(|| one.pod.log("weft").unwrap_or_default())?;
        // An update: the container ends and a new one takes over; pods keep what they have.
        one.pod.stop(&one.router, Duration::from_secs(5))?;
        one.launch.name = "weft-updated".to_owned();
        one.router = one.pod.start(&one.launch)?;
        one.wait_ready(&hosts[0])?;
        let reaches =
            deadline::until_true("a pod reaches one of the other node after an update", UP, answered);
        reaches.with_context(|| one.pod.log("weft-updated").unwrap_or_default())?;
        server.remove()?;
        asker.remove()
    })
}

//! `weft launch`: from the flags to a [`Config`], and on to the daemon.

use std::{fs, io::Read, path::Path, path::PathBuf};

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use super::{args::Launch, error::CliError, log};
use crate::{
    config::{Config, ConfigError, Nickname, PeerAddress, Ports, Secret},
    daemon,
    exit_code::ExitCode,
};

/// A secret file holds a line; what is larger is another file.
const LARGEST_SECRET: u64 = 4096;

/// Runs the router until it ends.
pub(super) fn run(arguments: Box<Launch>, socket: PathBuf) -> Result<ExitCode, CliError> {
    let secret = std::env::var_os("WEFT_SECRET").map(|secret| secret.into_string());
    let secret = match secret {
        Some(Err(_)) => return Err(CliError::Usage("WEFT_SECRET is not text".to_owned())),
        Some(Ok(secret)) => Some(secret),
        None => None,
    };
    let (config, filter) = config(*arguments, socket, secret)?;
    log::start(filter, config.log_format);
    daemon::run(config)?;
    Ok(ExitCode::Done)
}

/// What the flags mean; `secret` is what the environment holds.
fn config(launch: Launch, socket: PathBuf, secret: Option<String>) -> Result<(Config, EnvFilter), CliError> {
    let places = launch.places;
    let filter = log::filter(&launch.log)?;
    let mut peers = launch.peers;
    let mut seen = std::collections::BTreeSet::new();
    peers.retain(|peer| seen.insert(peer.clone()));
    let config = Config {
        nickname: launch.nickname.map_or_else(host_name, Ok)?,
        listen: launch.listen.filter(|address| !address.is_unspecified()),
        ports: Ports::new(places.port, places.vxlan_port, places.quic_port)?,
        vni: launch.vni,
        secret: match (launch.secret_file, secret) {
            (Some(path), _) => Some(read_secret(&path)?),
            (None, Some(secret)) => {
                Some(Secret::new(&secret).map_err(|error| ConfigError(format!("WEFT_SECRET: {error}")))?)
            }
            (None, None) => None,
        },
        trusted_subnets: launch.trusted_subnets.iter().map(ipnet::IpNet::trunc).collect(),
        range: launch.range.0,
        init: launch.init,
        fastpath: !launch.no_fastpath,
        sleeve: !launch.no_sleeve,
        capture: launch.capture,
        mtu: launch.mtu,
        connection_limit: (launch.conn_limit > 0).then_some(launch.conn_limit),
        discovery: !launch.no_discovery,
        resume: launch.resume,
        site: launch.site,
        gateway: launch.gateway,
        bridge: places.bridge,
        state_dir: places.state_dir,
        socket,
        metrics: launch.metrics.0,
        log: launch.log,
        log_format: launch.log_format,
        peers,
    };
    // After all that is usage: what makes no sense is said first.
    config.peers.iter().try_for_each(PeerAddress::supported)?;
    Ok((config, filter))
}

fn host_name() -> Result<Nickname, CliError> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname")
        .context("cannot read the host name; give --nickname")?;
    let name = name.trim();
    name.parse().map_err(|error| {
        CliError::Usage(format!("the host name '{name}' is no nickname, give --nickname: {error}"))
    })
}

fn read_secret(path: &Path) -> Result<Secret, CliError> {
    let shown = path.display();
    let mut text = String::new();
    let file = fs::File::open(path).with_context(|| format!("cannot read the secret file {shown}"))?;
    let read = file.take(LARGEST_SECRET + 1).read_to_string(&mut text);
    let length = read.with_context(|| format!("cannot read the secret file {shown}"))?;
    if length as u64 > LARGEST_SECRET {
        return Err(anyhow::anyhow!("the secret file {shown} is larger than {LARGEST_SECRET} bytes").into());
    }
    Secret::new(&text).map_err(|error| anyhow::anyhow!("the secret file {shown}: {error}").into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        cli::args::{Args, Command},
        config::{Capture, Init, LogFormat},
    };

    fn parse(flags: &[&str], secret: Option<&str>) -> Result<Config, CliError> {
        let arguments = ["weft", "launch"].into_iter().chain(flags.iter().copied());
        let args = Args::try_parse_from(arguments).map_err(|error| CliError::usage(&error))?;
        let Command::Launch(launch) = args.command else { panic!("launch is launch") };
        config(*launch, args.socket, secret.map(str::to_owned)).map(|(config, _)| config)
    }

    #[test]
    fn without_flags_everything_is_as_the_contract_says() {
        let config = parse(&["--nickname", "host1"], None).unwrap();
        assert_eq!(config.nickname.as_str(), "host1");
        assert_eq!(config.listen, None);
        assert_eq!(config.ports, Ports { mesh: 6783, vxlan: 6784, quic: 6785 });
        assert_eq!(config.secret, None);
        assert_eq!(config.range.unwrap().to_string(), "10.32.0.0/12");
        assert_eq!(config.init, Init::Consensus(None));
        assert!(config.fastpath && config.sleeve && config.discovery);
        assert!(!config.resume && !config.gateway);
        assert_eq!(config.capture, Capture::Auto);
        assert_eq!((config.mtu, config.connection_limit), (None, None));
        assert_eq!(config.site.as_str(), "default");
        assert_eq!(config.bridge.as_str(), "weft");
        assert_eq!(config.state_dir, Path::new("/var/lib/weft"));
        assert_eq!(config.socket, Path::new("/run/weft/weft.sock"));
        assert_eq!(config.metrics.unwrap().to_string(), "127.0.0.1:6782");
        assert_eq!((config.log.as_str(), config.log_format), ("info", LogFormat::Text));
        assert!(config.peers.is_empty());
    }

    #[test]
    fn every_flag_is_heard() {
        let flags = "--nickname h --listen 10.0.0.1 --port 7000 --vxlan-port 4789 --quic-port 4433 \
            --trusted-subnets 10.0.0.0/8,fd00::1/64 --range none --init seed=a,b --no-fastpath --no-sleeve \
            --capture pcap --mtu 1400 --conn-limit 30 --no-discovery --resume --site west --gateway --bridge br9 \
            --state-dir /s --socket /x.sock --metrics none --log weft=debug --log-format json \
            host2 host2 [fd00::2]:7000";
        let config = parse(&flags.split_whitespace().collect::<Vec<_>>(), None).unwrap();
        assert_eq!(config.listen.unwrap().to_string(), "10.0.0.1");
        assert_eq!(config.ports, Ports { mesh: 7000, vxlan: 4789, quic: 4433 });
        assert_eq!(config.trusted_subnets, ["10.0.0.0/8".parse().unwrap(), "fd00::/64".parse().unwrap()]);
        assert_eq!(config.range, None);
        assert_eq!(config.init.to_string(), "seed=a,b");
        assert!(!config.fastpath && !config.sleeve && !config.discovery && config.resume && config.gateway);
        assert_eq!(config.capture, Capture::Pcap);
        assert_eq!((config.mtu.unwrap().get(), config.connection_limit), (1400, Some(30)));
        assert_eq!((config.site.as_str(), config.bridge.as_str()), ("west", "br9"));
        assert_eq!(
            (config.state_dir.as_path(), config.socket.as_path()),
            (Path::new("/s"), Path::new("/x.sock"))
        );
        assert_eq!(config.metrics, None);
        assert_eq!((config.log.as_str(), config.log_format), ("weft=debug", LogFormat::Json));
        let peers: Vec<String> = config.peers.iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["host2", "[fd00::2]:7000"]);
    }

    #[test]
    fn a_peer_over_quic_is_refused_but_what_makes_no_sense_is_said_first() {
        let error = parse(&["--nickname", "h", "host2", "quic://q1"], None).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Failed);
        assert_eq!(error.to_string(), "quic://q1: links between sites over QUIC are not in this version");
        let error = parse(&["--nickname", "h", "--port", "65535", "quic://q1"], None).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Usage);
    }

    #[test]
    fn the_secret_is_read_from_the_file_or_the_environment() {
        let dir = crate::io::testing::Directory::new();
        let path = dir.path().join("secret");
        let flag = ["--nickname", "h", "--secret-file", path.to_str().unwrap()];
        fs::write(&path, "from the file\n").unwrap();
        assert_eq!(parse(&flag, Some("other")).unwrap().secret.unwrap().reveal(), "from the file");
        assert_eq!(parse(&flag[..2], Some(" env ")).unwrap().secret.unwrap().reveal(), "env");
        assert_eq!(parse(&flag[..2], Some("")).unwrap_err().exit_code(), ExitCode::Usage);
        for content in [&b"\n"[..], b"", b"\xff\xfe", &[b'x'; 5000]] {
            fs::write(&path, content).unwrap();
            let error = parse(&flag, None).unwrap_err();
            assert_eq!(error.exit_code(), ExitCode::Failed);
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        }
        fs::remove_file(&path).unwrap();
        assert!(parse(&flag, None).unwrap_err().to_string().contains("No such file"));
    }

    #[test]
    fn values_that_make_no_sense_are_usage_errors() {
        for flags in [
            "--port 0",
            "--port 65535",
            "--port x",
            "--vxlan-port 6783",
            "--range 10.32.0.1/12",
            "--range 10.0.0.0/30",
            "--init paxos",
            "--init consensus=0",
            "--capture tap",
            "--mtu 10",
            "--conn-limit -1",
            "--trusted-subnets x",
            "--listen host1",
            "--metrics x",
            "--bridge a/b",
            "--site a,b",
            "--log weft=loud",
            "--log-format xml",
            "host:0",
            "fd00::1",
            "http://x",
            "--nickname=",
            "--frobnicate",
        ] {
            let mut flags: Vec<&str> = flags.split_whitespace().collect();
            if !flags[0].starts_with("--nickname") {
                flags.extend(["--nickname", "h"]);
            }
            let error = parse(&flags, None).unwrap_err();
            assert_eq!(error.exit_code(), ExitCode::Usage, "{flags:?}: {error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}

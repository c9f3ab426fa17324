//! A pod as a kubelet would ask for it: a sandbox with one or more containers in it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Containerd;
use super::messages as cri;
use crate::{Outcome, deadline};

/// The host's own namespace, in the interface's numbers.
const NODE: i32 = 2;
/// The state of a container that has ended.
const EXITED: i32 = 2;

/// What a pod is to be.
#[derive(Debug, Clone, Default)]
pub struct PodSpec {
    /// Its name; also its uid.
    pub name: String,
    /// Whether it stands in the host's network namespace.
    pub host_network: bool,
    /// Container port, and the host's port it answers on, TCP.
    pub ports: Vec<(u16, u16)>,
    /// For plugins: `kubernetes.io/ingress-bandwidth` and its like.
    pub annotations: Vec<(String, String)>,
}

/// What a container is to be; everything not said is as a kubelet leaves it: no capability added, nothing mounted.
#[derive(Debug, Clone, Default)]
pub struct ContainerSpec {
    /// Its name in the pod.
    pub name: String,
    /// `docker.io/local/NAME:TAG`.
    pub image: String,
    /// What runs instead of the image's own.
    pub command: Vec<String>,
    /// Arguments of it.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Host path, container path, whether it can only be read.
    pub mounts: Vec<(PathBuf, String, bool)>,
    /// Whether the defaults are dropped first.
    pub drop_all: bool,
    /// Capabilities on top.
    pub capabilities: Vec<String>,
    /// Whether its root cannot be written.
    pub read_only: bool,
    /// Memory it may use, in bytes; 0 is without limit.
    pub memory_bytes: i64,
}

impl ContainerSpec {
    /// A container of the harness' own image that runs these words.
    pub fn shell(script: &str) -> Self {
        Self {
            name: "main".to_owned(),
            image: super::image::BOX.to_owned(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            ..Self::default()
        }
    }
}

/// A pod that runs; stopped and removed when dropped.
#[derive(Debug)]
pub struct Pod<'a> {
    host: &'a Containerd,
    id: String,
    config: cri::PodSandboxConfig,
    logs: PathBuf,
    /// Where it is reached; none on the host's network.
    address: Option<IpAddr>,
}

impl<'a> Pod<'a> {
    pub(super) fn run(host: &'a Containerd, spec: &PodSpec) -> Result<Self> {
        let logs = host.home().join("pods").join(&spec.name);
        std::fs::create_dir_all(&logs)?;
        let config = sandbox(spec, host, &logs);
        let request = cri::RunPodSandboxRequest { config: Some(config.clone()) };
        let answer: cri::RunPodSandboxResponse = host.cri().call("RuntimeService/RunPodSandbox", request)?;
        let mut pod = Self { host, id: answer.pod_sandbox_id, config, logs, address: None };
        let request = cri::PodSandboxRequest { pod_sandbox_id: pod.id.clone(), verbose: false };
        let status: cri::PodSandboxStatusResponse =
            host.cri().call("RuntimeService/PodSandboxStatus", request)?;
        let ip =
            status.status.and_then(|status| status.network).map(|network| network.ip).unwrap_or_default();
        pod.address = ip.parse().ok();
        Ok(pod)
    }

    /// The sandbox's id: what plugins get as `CNI_CONTAINERID`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its IPv4 address, as the runtime reports it.
    ///
    /// # Errors
    /// When it has none.
    pub fn address(&self) -> Result<Ipv4Addr> {
        match self.address {
            Some(IpAddr::V4(address)) => Ok(address),
            Some(IpAddr::V6(_)) | None => bail!("the pod has no IPv4 address: {:?}", self.address),
        }
    }

    /// Starts a container in it.
    ///
    /// # Errors
    /// When containerd refuses.
    pub fn start(&self, spec: &ContainerSpec) -> Result<String> {
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(container(spec, self.host_network())),
            sandbox_config: Some(self.config.clone()),
        };
        let created: cri::CreateContainerResponse =
            self.host.cri().call("RuntimeService/CreateContainer", request)?;
        let id = created.container_id;
        let request = cri::ContainerRequest { container_id: id.clone() };
        let _: cri::Nothing = self.host.cri().call("RuntimeService/StartContainer", request)?;
        Ok(id)
    }

    /// Starts a container and waits for its end, as a kubelet does with one that initialises; returns its log.
    ///
    /// # Errors
    /// When it fails or does not end in time.
    pub fn start_to_end(&self, spec: &ContainerSpec, limit: Duration) -> Result<String> {
        let id = self.start(spec)?;
        let ended = deadline::until(&format!("container {} ends", spec.name), limit, || {
            let (state, code, message) = self.host.cri().container_state(&id)?;
            Ok((state == EXITED).then_some((code, message)))
        });
        let log = self.log(&spec.name)?;
        let ((code, message), _) = ended.context(log.clone())?;
        if code != 0 {
            bail!("container {} ended with {code} {message}\n{log}", spec.name);
        }
        Ok(log)
    }

    /// Asks a container to end and waits for it.
    ///
    /// # Errors
    /// When containerd cannot end it.
    pub fn stop(&self, container: &str, grace: Duration) -> Result<()> {
        let timeout = i64::try_from(grace.as_secs())?;
        let request = cri::StopContainerRequest { container_id: container.to_owned(), timeout };
        let _: cri::Nothing = self.host.cri().call("RuntimeService/StopContainer", request)?;
        Ok(())
    }

    /// Runs a command in one of its containers.
    ///
    /// # Errors
    /// When containerd cannot run it; the exit code is part of the outcome.
    pub fn exec(&self, container: &str, words: &[&str]) -> Result<Outcome> {
        self.host.cri().exec(container, words, Duration::from_secs(20))
    }

    /// What a container has written so far, both outputs, with the runtime's marks.
    ///
    /// # Errors
    /// When there is no log.
    pub fn log(&self, container: &str) -> Result<String> {
        std::fs::read_to_string(self.logs.join(format!("{container}.log"))).context("no log of a container")
    }

    /// Stops and removes it, and says when that fails.
    ///
    /// # Errors
    /// What containerd says.
    pub fn remove(self) -> Result<()> {
        let removed = self.host.cri().remove_pod(&self.id);
        std::mem::forget(self);
        removed
    }

    fn host_network(&self) -> bool {
        let linux = self.config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        linux.and_then(|context| context.namespace_options.as_ref()).is_some_and(|all| all.network == NODE)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let _ = self.host.cri().remove_pod(&self.id);
    }
}

fn namespaces(host_network: bool) -> cri::NamespaceOption {
    cri::NamespaceOption { network: if host_network { NODE } else { 0 }, pid: 1, ipc: 0 }
}

fn sandbox(spec: &PodSpec, host: &Containerd, logs: &Path) -> cri::PodSandboxConfig {
    let ports = spec.ports.iter().map(|(container, host)| cri::PortMapping {
        protocol: 0,
        container_port: i32::from(*container),
        host_port: i32::from(*host),
        host_ip: String::new(),
    });
    let context = cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec.host_network)),
        seccomp: Some(cri::SecurityProfile { profile_type: 0 }),
    };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: spec.name.clone(),
            uid: spec.name.clone(),
            namespace: "default".to_owned(),
            attempt: 0,
        }),
        hostname: if spec.host_network { String::new() } else { spec.name.clone() },
        log_directory: logs.to_string_lossy().into_owned(),
        port_mappings: ports.collect(),
        annotations: spec.annotations.iter().cloned().collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: host.cgroup(),
            security_context: Some(context),
        }),
    }
}

fn container(spec: &ContainerSpec, host_network: bool) -> cri::ContainerConfig {
    let drop_capabilities = if spec.drop_all { vec!["ALL".to_owned()] } else { Vec::new() };
    let context = cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: spec.capabilities.clone(),
            drop_capabilities,
        }),
        privileged: false,
        namespace_options: Some(namespaces(host_network)),
        readonly_rootfs: spec.read_only,
        no_new_privs: true,
        seccomp: Some(cri::SecurityProfile { profile_type: 0 }),
    };
    let mounts = spec.mounts.iter().map(|(from, to, readonly)| cri::Mount {
        container_path: to.clone(),
        host_path: from.to_string_lossy().into_owned(),
        readonly: *readonly,
        propagation: 0,
    });
    let resources = cri::LinuxContainerResources { cpu_shares: 0, memory_limit_in_bytes: spec.memory_bytes };
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: spec.name.clone(), attempt: 0 }),
        image: Some(cri::ImageSpec { image: spec.image.clone() }),
        command: spec.command.clone(),
        args: spec.args.clone(),
        envs: spec
            .env
            .iter()
            .map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts: mounts.collect(),
        log_path: format!("{}.log", spec.name),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources),
            security_context: Some(context),
        }),
    }
}

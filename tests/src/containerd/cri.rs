//! A blocking client of the Container Runtime Interface: one call after the other, each with a deadline.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use prost::Message;
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::messages as cri;

/// The longest a call may take: a pod with an image already there is up in well under a second.
const LIMIT: Duration = Duration::from_secs(60);

/// A connection to one containerd.
#[derive(Debug)]
pub struct Cri {
    runtime: Runtime,
    channel: Channel,
}

impl Cri {
    /// Connects to a socket.
    ///
    /// # Errors
    /// When nobody listens there.
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display()))?.timeout(LIMIT);
        let channel = runtime.block_on(endpoint.connect()).context("cannot connect to containerd")?;
        Ok(Self { runtime, channel })
    }

    /// One call, named `Service/Method`.
    pub(super) fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A>
    where
        Q: Message + Default + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = Grpc::new(self.channel.clone());
        let path = PathAndQuery::try_from(format!("/runtime.v1.{method}"))?;
        let answered = self.runtime.block_on(async {
            grpc.ready().await.map_err(|error| anyhow!("{error}"))?;
            let codec: ProstCodec<Q, A> = ProstCodec::default();
            let answered = grpc.unary(tonic::Request::new(request), path, codec).await;
            answered.map_err(|status| anyhow!("{}", status.message()))
        });
        Ok(answered.with_context(|| format!("CRI {method}"))?.into_inner())
    }

    /// The runtime's conditions, `RuntimeReady` and `NetworkReady`: whether each holds, and its message.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn conditions(&self) -> Result<Vec<(String, bool, String)>> {
        let status: cri::StatusResponse =
            self.call("RuntimeService/Status", cri::StatusRequest::default())?;
        let conditions = status.status.context("no status")?.conditions;
        Ok(conditions.into_iter().map(|one| (one.r#type, one.status, one.message)).collect())
    }

    /// Whether an image is there to be run.
    pub(super) fn has_image(&self, name: &str) -> Result<bool> {
        let spec = cri::ImageSpec { image: name.to_owned() };
        let request = cri::ImageStatusRequest { image: Some(spec) };
        let answer: cri::ImageStatusResponse = self.call("ImageService/ImageStatus", request)?;
        Ok(answer.image.is_some())
    }

    /// All pods this runtime knows.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub fn pods(&self) -> Result<Vec<String>> {
        let all: cri::ListPodSandboxResponse =
            self.call("RuntimeService/ListPodSandbox", cri::Nothing::default())?;
        Ok(all.items.into_iter().map(|pod| pod.id).collect())
    }

    /// Stops a pod, which runs DEL, and forgets it.
    ///
    /// # Errors
    /// When containerd says so, for instance because DEL failed.
    pub fn remove_pod(&self, id: &str) -> Result<()> {
        let request = cri::PodSandboxRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let _: cri::Nothing = self.call("RuntimeService/StopPodSandbox", request.clone())?;
        let _: cri::Nothing = self.call("RuntimeService/RemovePodSandbox", request)?;
        Ok(())
    }

    /// Runs a command in a running container; its exit code and outputs.
    ///
    /// # Errors
    /// When containerd cannot run it.
    pub fn exec(&self, container: &str, words: &[&str], limit: Duration) -> Result<crate::Outcome> {
        let request = cri::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: words.iter().map(|&word| word.to_owned()).collect(),
            timeout: i64::try_from(limit.as_secs())?,
        };
        let answer: cri::ExecSyncResponse = self.call("RuntimeService/ExecSync", request)?;
        Ok(crate::Outcome {
            code: answer.exit_code,
            stdout: String::from_utf8_lossy(&answer.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&answer.stderr).into_owned(),
        })
    }

    /// The state of a container (0 created, 1 running, 2 exited) and its exit code.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn container_state(&self, id: &str) -> Result<(i32, i32, String)> {
        let request = cri::ContainerRequest { container_id: id.to_owned() };
        let answer: cri::ContainerStatusResponse = self.call("RuntimeService/ContainerStatus", request)?;
        let status = answer.status.context("no status of a container")?;
        Ok((status.state, status.exit_code, status.message))
    }
}

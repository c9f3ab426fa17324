//! The hand on the kernel: one task that owns netlink and carries out one job after the other.
//!
//! Fed by the control loop over a bounded queue, it reports back over another. Between jobs it watches: a
//! notification or a quiet timer makes it look again, bring back what others changed, and tell which
//! container links stand. It ends when the control loop drops its end of the queue.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use weft_api::{ApiError, Descriptors, DoctorLine, Response};
use weft_fastpath::{ContainerLink, Desired, Facts, Fastpath, Monitor, StandingLink};

use super::host::{self, Places};
use crate::node::attachments::LinkKey;
use crate::node::{CallId, Inspection, KernelReport};

/// Jobs waiting: the control loop makes one per call, and calls are bounded by the API's own queue.
const JOBS: usize = 256;

/// Without a notification the kernel is looked at this often: some changes send none.
const QUIET: Duration = Duration::from_secs(30);

/// After a convergence that failed the next is tried.
const RETRY: Duration = Duration::from_secs(2);

/// One job.
#[derive(Debug)]
pub enum Job {
    /// Bring the kernel to this state, and keep it there.
    Converge(Box<Desired>),
    /// Make a container link.
    Attach(CallId, Box<ContainerLink>, Descriptors),
    /// Remove a container link.
    Detach(LinkKey),
    /// Take the port of a container link down, or up again.
    SetPort(LinkKey, bool),
    /// Add what only the host can tell and answer the call.
    /// The addresses are the peers': towards them the underlay is measured.
    Inspect(CallId, Inspection, Vec<IpAddr>),
    /// Remove every object of ours.
    Teardown(CallId),
}

/// What the kernel task has to say.
#[derive(Debug)]
pub enum News {
    /// A job is done.
    Report(KernelReport),
    /// These container links stand.
    Links(Vec<StandingLink>),
    /// A call is answered.
    Inspected(CallId, Result<Response, ApiError>),
    /// Everything of ours is gone, or what could not be removed.
    TornDown(CallId, Vec<String>),
}

/// Starts the task on the running `LocalSet`-free current-thread runtime.
#[must_use]
pub fn spawn(
    fastpath: Fastpath,
    desired: Desired,
    places: Places,
) -> (mpsc::Sender<Job>, mpsc::Receiver<News>) {
    let (jobs, inbox) = mpsc::channel(JOBS);
    let (outbox, news) = mpsc::channel(JOBS);
    let task = Task { fastpath, desired, places, monitor: None, inbox, outbox, look_at: Instant::now() };
    tokio::spawn(task.run());
    (jobs, news)
}

struct Task {
    fastpath: Fastpath,
    desired: Desired,
    places: Places,
    /// `None` before the first look and after it broke; the next look opens it again.
    monitor: Option<Monitor>,
    inbox: mpsc::Receiver<Job>,
    outbox: mpsc::Sender<News>,
    look_at: Instant,
}

impl Task {
    async fn run(mut self) {
        loop {
            let job = tokio::select! {
                biased;
                job = self.inbox.recv() => match job {
                    Some(job) => Some(job),
                    None => return,
                },
                () = changed(&mut self.monitor) => None,
                () = sleep_until(self.look_at) => None,
            };
            match job {
                // The last job: looking again would bring back what was torn down.
                Some(Job::Teardown(call)) => return self.tear_down(call).await,
                Some(job) => self.carry_out(job).await,
                None => self.look().await,
            }
        }
    }

    async fn carry_out(&mut self, job: Job) {
        match job {
            Job::Converge(desired) => {
                self.desired = *desired;
                self.look().await;
            }
            Job::Attach(call, link, descriptors) => {
                let Descriptors { netns, netlink } = descriptors;
                let made = self.fastpath.attach(&link, std::os::fd::AsFd::as_fd(&netns), netlink).await;
                let result = made.map(|_| ()).map_err(|error| error.to_string());
                self.tell(News::Report(KernelReport::Attached(call, result))).await;
            }
            Job::Detach(key) => {
                if let Err(error) = self.fastpath.detach(&key.id, &key.ifname).await {
                    tracing::warn!(id = key.id, ifname = key.ifname, %error, "cannot remove a container link");
                }
            }
            Job::SetPort(key, up) => {
                if let Err(error) = self.fastpath.set_port_up(&key.id, &key.ifname, up).await {
                    tracing::warn!(id = key.id, ifname = key.ifname, up, %error, "cannot switch a port");
                }
            }
            Job::Inspect(call, inspection, peers) => {
                let result = self.inspect(inspection, &peers).await;
                self.tell(News::Inspected(call, result)).await;
            }
            Job::Teardown(call) => self.tear_down(call).await,
        }
    }

    async fn tear_down(&mut self, call: CallId) {
        let done = self.fastpath.teardown().await;
        let errors = done.errors.iter().map(ToString::to_string).collect();
        self.tell(News::TornDown(call, errors)).await;
    }

    /// Brings the kernel to the desired state and tells what stands.
    async fn look(&mut self) {
        if self.monitor.is_none() {
            self.monitor = Fastpath::monitor().ok();
        }
        let result = self.fastpath.converge(&self.desired).await;
        self.look_at = Instant::now() + if result.is_ok() { QUIET } else { RETRY };
        if let Err(error) = &result {
            tracing::warn!(%error, "the kernel is not as it should be");
        }
        let result = result.map(|_| ()).map_err(|error| error.to_string());
        self.tell(News::Report(KernelReport::Converged(result))).await;
        // Only a dump that succeeded says that a link is gone.
        if let Ok(links) = self.fastpath.adopt().await {
            self.tell(News::Links(links.into_iter().collect())).await;
        }
    }

    async fn inspect(&self, inspection: Inspection, peers: &[IpAddr]) -> Result<Response, ApiError> {
        match inspection {
            Inspection::Doctor(mut lines) => {
                lines.extend(self.host_lines(peers).await);
                Ok(Response::Doctor(lines))
            }
            Inspection::Plan(desired) => Ok(Response::Plan(self.plan(&desired).await?)),
            Inspection::Report(mut report, desired) => {
                report.plan = self.plan(&desired).await.unwrap_or_else(|error| vec![error.message]);
                report.doctor.extend(self.host_lines(peers).await);
                Ok(Response::Report(report))
            }
        }
    }

    async fn plan(&self, desired: &Desired) -> Result<Vec<String>, ApiError> {
        let plan = self.fastpath.plan(desired).await.map_err(|error| ApiError::failed(error.to_string()))?;
        Ok(plan.iter().map(ToString::to_string).collect())
    }

    async fn host_lines(&self, peers: &[IpAddr]) -> Vec<DoctorLine> {
        let mut lines = match self.fastpath.facts(Some(&self.desired)).await {
            Ok(facts) => facts_lines(&facts),
            Err(error) => vec![DoctorLine::error(
                "kernel",
                format!("netlink does not answer: {error}"),
                "the router needs CAP_NET_ADMIN and CAP_NET_RAW",
            )],
        };
        lines.extend(self.places.held_lines());
        // That netlink does not answer was said above.
        if let Ok(underlay) = self.fastpath.underlay_mtu(peers).await {
            lines.push(host::mtu_line(self.desired.mtu, underlay));
        }
        lines.push(host::clock_line());
        lines
    }

    async fn tell(&self, news: News) {
        // The control loop drops its end only when it ends.
        let _ = self.outbox.send(news).await;
    }
}

/// What the facts about the kernel mean to people.
#[must_use]
pub fn facts_lines(facts: &Facts) -> Vec<DoctorLine> {
    let mut lines = Vec::new();
    for (what, there) in [("bridge", facts.bridge), ("veth", facts.veth)] {
        lines.push(if there {
            DoctorLine::fine("kernel", format!("{what} devices can be made"))
        } else {
            DoctorLine::error(
                "kernel",
                format!("{what} devices cannot be made"),
                format!("load the kernel module: modprobe {what}"),
            )
        });
    }
    lines.push(if facts.vxlan {
        DoctorLine::fine("kernel", "vxlan devices can be made")
    } else {
        DoctorLine::warning(
            "kernel",
            "vxlan devices cannot be made",
            "sleeve carries; for fastpath: modprobe vxlan",
        )
    });
    if facts.leftovers.is_empty() {
        lines.push(DoctorLine::fine("leftovers", "no interface of ours is left over"));
    } else {
        let names: Vec<String> = facts.leftovers.iter().map(ToString::to_string).collect();
        lines.push(DoctorLine::warning(
            "leftovers",
            format!("no attachment explains {}", names.join(", ")),
            "remove them with `ip link delete NAME`",
        ));
    }
    lines
}

/// Waits for the kernel to say that something changed; for ever without a monitor.
async fn changed(monitor: &mut Option<Monitor>) {
    match monitor {
        Some(open) => {
            if let Err(error) = open.changed().await {
                tracing::warn!(%error, "the netlink monitor broke and is opened again");
                *monitor = None;
            }
        }
        None => std::future::pending().await,
    }
}

//! The hand on the kernel: one task that owns netlink and carries out one job after the other.
//!
//! Fed by the control loop over a bounded queue, it reports back over another. Between jobs it watches: a
//! notification or a quiet timer makes it look again, bring back what others changed, and tell which
//! container links stand. It ends when the control loop drops its end of the queue.
//!
//! Jobs are carried out in order. Of wishes only the last is, since each is the whole of it, when no other job waits:
//! two hundred containers at once do not cost two hundred looks. A wish that differs by container links only, which jobs
//! of their own have made or removed, waits for a quiet moment, so that no caller waits for a look. But of no peer the wish
//! is carried past a move of its addresses: that is what makes a change of carrier safe (`moves.rs`). Of removals all that
//! wait are carried out together.

mod firewall;
mod job;
mod lines;
mod moves;
mod watch;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;
use tokio::time::{Instant, sleep_until, timeout};
use weft_api::{ApiError, Descriptors, DoctorLine, Response};
use weft_fastpath::{ContainerLink, Desired, Error, Fastpath, Lock, MacAddr, Port, PortId, Underlay};
use weft_gossip::PeerName;

use super::host::{self, Places};
use crate::node::attachments::LinkKey;
use crate::node::{CallId, Inspection, KernelReport, LocalWish, Picture};
use firewall::Firewall;
pub use job::{Job, Move, News, Way};
use lines::facts_lines;
use moves::Moves;
use watch::{Change, Watch};

/// Jobs waiting: the control loop makes one per call, and calls are bounded by the API's own queue.
const JOBS: usize = 256;

/// Without a notification the kernel is looked at this often: some changes send none.
const QUIET: Duration = Duration::from_secs(30);

/// After a convergence that failed the next is tried.
const RETRY: Duration = Duration::from_secs(2);

/// How often it is asked which links carry data, where there are few and where there are many, and what counts as lately:
/// the answer is a list of all that was learned.
const CARRIED: Duration = Duration::from_secs(1);
const CARRIED_MANY: Duration = Duration::from_secs(5);
const FEW: usize = 16;

/// Where the list is long, it is asked for so rarely that reading it takes no more than this part of the time.
const CARRIED_SHARE: u32 = 20;

/// How long wishes wait while links are made and removed.
const OWED: Duration = Duration::from_millis(100);

/// Entries are changed together: so much apart for each peer that the kernel knows, and at most so much. A mesh of a
/// hundred that comes up would otherwise be as many transactions for each of them; a small one does not notice.
const APART: Duration = Duration::from_millis(2);
const APART_LIMIT: Duration = Duration::from_millis(250);

/// How long a look that nobody waits for (a wish that confirms what was done already, news that may be of our own doing)
/// waits for a quiet moment, and in all.
const PAUSE: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_millis(500);

/// How long the data half may take to say what it has learned behind a peer; it takes microseconds.
const LEARNED: Duration = Duration::from_secs(1);

/// What came of bringing the kernel to what is wanted.
#[derive(Debug)]
pub struct Brought {
    /// The bridge and all on it but VXLAN.
    pub bridge: Result<(), Error>,
    /// VXLAN and its filter; None: not wanted, or the bridge failed before it was tried.
    pub fastpath: Option<Result<(), String>>,
    /// What could not be had of the host's firewall.
    pub unmet: Vec<Error>,
}

/// Makes the kernel what the picture says: the filter first, so that there is no moment with an open VXLAN port.
pub async fn bring(fastpath: &mut Fastpath, picture: &Picture) -> Brought {
    let guarded = fastpath.converge_filter(Some(&picture.filter()));
    if let (Err(error), None) = (&guarded, picture.tunnel.vni) {
        tracing::warn!(%error, "no source filter: containers can speak to the ports of the mesh");
    }
    let policy = &picture.local.policy;
    let mut unmet = fastpath.converge_policy(policy).await.unmet;
    if policy.masquerade.is_some() {
        unmet.extend(Fastpath::enable_forwarding().err());
    }
    let bridge = fastpath.converge(&picture.desired(guarded.is_ok())).await;
    let ready = match (&guarded, &bridge) {
        _ if picture.tunnel.vni.is_none() => None,
        (Err(error), _) => Some(Err(error.to_string())),
        (Ok(_), Ok(report)) => {
            let obstacle = report.no_vxlan.get(&Underlay::V4).map(ToString::to_string);
            Some(obstacle.map_or(Ok(()), Err))
        }
        (Ok(_), Err(_)) => None,
    };
    if let (Ok(report), Some(Ok(()))) = (&bridge, &ready)
        && let Some(error) = report.no_vxlan.get(&Underlay::V6)
    {
        tracing::warn!(%error, "no VXLAN to IPv6 peers");
    }
    Brought { bridge: bridge.map(drop), fastpath: ready, unmet }
}

/// Starts the task on the running `LocalSet`-free current-thread runtime.
#[must_use]
pub fn spawn(
    fastpath: Fastpath,
    picture: Picture,
    places: Places,
) -> (mpsc::Sender<Job>, mpsc::Receiver<News>) {
    let (jobs, inbox) = mpsc::channel(JOBS);
    let (outbox, news) = mpsc::channel(JOBS);
    let task = Task {
        fastpath,
        picture,
        places,
        watch: Watch::default(),
        inbox,
        aside: None,
        owed: None,
        changed_at: None,
        last_job: Instant::now(),
        quiet_since: Instant::now(),
        outbox,
        look_at: Instant::now(),
        ask_at: Instant::now(),
        ready: None,
        stands: None,
        firewall: Firewall::default(),
    };
    tokio::spawn(task.run());
    (jobs, news)
}

/// A look that is owed.
#[derive(Clone, Copy, Debug)]
struct Owed {
    what: Asked,
    since: Instant,
}

/// What differs between wishes; the greater includes the lesser, and is more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    /// Container links, that have been made or removed already.
    Links,
    /// Forwarding entries.
    Entries,
    /// Anything.
    All,
}

impl Owed {
    /// How long it may wait while there are other jobs.
    fn limit(self) -> Duration {
        match self.what {
            Asked::Links => PATIENCE,
            Asked::Entries | Asked::All => OWED,
        }
    }
}

/// Whether two wishes want the same of everything but container links; `before` is not needed any more, and `after` is
/// left as it is.
fn differ_by_links(mut before: LocalWish, after: &mut LocalWish) -> bool {
    before.desired.ports.clear();
    before.policy.locks.clear();
    // Of hundreds of links nothing is copied, for each that comes or goes.
    let ports = std::mem::take(&mut after.desired.ports);
    let locks = std::mem::take(&mut after.policy.locks);
    let same = before == *after;
    (after.desired.ports, after.policy.locks) = (ports, locks);
    same
}

/// The port of a container link; none for one that the kernel cannot hold, which was never made.
fn port(key: &LinkKey) -> Option<PortId> {
    PortId::new(&key.id, &key.ifname).ok()
}

/// What ended a wait.
enum Woken {
    By(Box<Job>),
    /// Something came up and is done.
    Done,
    /// There will be no job any more.
    Never,
}

struct Task {
    fastpath: Fastpath,
    picture: Picture,
    places: Places,
    watch: Watch,
    inbox: mpsc::Receiver<Job>,
    /// A job that was taken from the inbox and is to be carried out next.
    aside: Option<Job>,
    /// A look that wishes wait for.
    owed: Option<Owed>,
    /// When entries were last changed.
    changed_at: Option<Instant>,
    /// When the last job was done, and when looks last did not have to wait.
    last_job: Instant,
    quiet_since: Instant,
    outbox: mpsc::Sender<News>,
    look_at: Instant,
    /// When to ask who carries data.
    ask_at: Instant,
    /// Whether VXLAN stands, as it was last told; None: not wanted or not tried.
    ready: Option<Result<(), String>>,
    /// What the last look has left standing; None: something has changed since, or it was not all that was wanted.
    stands: Option<Desired>,
    firewall: Firewall,
}

impl Task {
    async fn run(mut self) {
        loop {
            let waiting = self.aside.take().map_or_else(|| self.inbox.try_recv(), Ok);
            let job = match waiting {
                Ok(job) => job,
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => {
                    if self.pause().is_none() {
                        self.quiet_since = Instant::now();
                        self.settle().await;
                    }
                    match self.wait().await {
                        Woken::By(job) => *job,
                        Woken::Done => continue,
                        Woken::Never => return,
                    }
                }
            };
            // After the teardown nothing is looked at again: that would bring back what was torn down.
            let last = matches!(job, Job::Teardown(_));
            self.carry_out(job).await;
            if last {
                return;
            }
        }
    }

    /// Waits for the next job, and does meanwhile what comes up by itself.
    async fn wait(&mut self) -> Woken {
        let pause = self.pause();
        tokio::select! {
            biased;
            job = self.inbox.recv() => return job.map_or(Woken::Never, |job| Woken::By(Box::new(job))),
            // The loop settles what is owed.
            () = sleep_until(pause.unwrap_or(self.look_at)), if pause.is_some() => {}
            change = self.watch.changed(), if pause.is_none() => self.look_again(change).await,
            () = sleep_until(self.look_at) => self.look().await,
            () = sleep_until(self.ask_at), if !self.picture.wish.remotes.is_empty() => {
                self.ask_who_carries().await;
            }
        }
        Woken::Done
    }

    async fn carry_out(&mut self, job: Job) {
        match job {
            Job::Converge(wish) => self.wish(*wish),
            Job::Fastpath(wish) => {
                self.picture.wish = wish;
                self.owe(Asked::Entries);
            }
            Job::Move(first) => self.move_all(first).await,
            Job::Attach { call, link, lock, descriptors } => {
                let Descriptors { netns, netlink } = descriptors;
                self.lock(&link, lock);
                let made = self.fastpath.attach(&link, std::os::fd::AsFd::as_fd(&netns), netlink).await;
                let result = made.map(|_| ()).map_err(|error| error.to_string());
                self.tell(News::Report(KernelReport::Attached(call, result))).await;
            }
            Job::Detach(key) => self.detach(&key).await,
            Job::SetPort(key, up) => {
                if let Err(error) = self.fastpath.set_port_up(&key.id, &key.ifname, up).await {
                    tracing::warn!(id = key.id, ifname = key.ifname, up, %error, "cannot switch a port");
                }
            }
            Job::Fence(call) => {
                self.tell(News::Report(KernelReport::Fenced(call))).await;
            }
            Job::Inspect(call, inspection, peers) => {
                self.settle().await;
                let result = self.inspect(inspection, &peers).await;
                self.tell(News::Inspected(call, result)).await;
            }
            Job::Teardown(call) => self.tear_down(call).await,
        }
        self.last_job = Instant::now();
        if self.owed.is_some_and(|owed| owed.since.elapsed() > owed.limit()) {
            self.settle().await;
        }
    }

    /// Takes over what is wanted.
    fn wish(&mut self, wish: LocalWish) {
        let before = std::mem::replace(&mut self.picture.local, wish);
        let links_only = differ_by_links(before, &mut self.picture.local);
        self.owe(if links_only { Asked::Links } else { Asked::All });
    }

    /// Removes a container link, and with it those whose removal waits already: many cost hardly more than one.
    async fn detach(&mut self, first: &LinkKey) {
        let mut ports: BTreeSet<PortId> = port(first).into_iter().collect();
        let mut fences = Vec::new();
        while self.aside.is_none() {
            match self.inbox.try_recv() {
                Ok(Job::Detach(key)) => ports.extend(port(&key)),
                Ok(Job::Fence(call)) => fences.push(call),
                Ok(Job::Converge(wish)) => self.wish(*wish),
                Ok(other) => self.aside = Some(other),
                Err(_) => break,
            }
        }
        for (port, error) in self.fastpath.detach_all(&ports).await {
            tracing::warn!(%port, %error, "cannot remove a container link");
        }
        for call in fences {
            self.tell(News::Report(KernelReport::Fenced(call))).await;
        }
    }

    /// Notes that a look is owed.
    fn owe(&mut self, what: Asked) {
        let owed = self.owed.get_or_insert(Owed { what, since: Instant::now() });
        owed.what = owed.what.max(what);
    }

    /// Until when looks wait for a quiet moment; None: it is quiet, or one is owed that does not wait.
    fn pause(&self) -> Option<Instant> {
        let until = match self.owed.map(|owed| owed.what) {
            None | Some(Asked::Links) => (self.last_job + PAUSE).min(self.quiet_since + PATIENCE),
            Some(Asked::Entries) => self.changed_at? + self.apart(),
            Some(Asked::All) => return None,
        };
        (until > Instant::now()).then_some(until)
    }

    /// How long after the last change of entries the next may wait for more.
    fn apart(&self) -> Duration {
        let peers = u32::try_from(self.picture.wish.remotes.len()).unwrap_or(u32::MAX);
        APART.saturating_mul(peers).min(APART_LIMIT)
    }

    /// Makes good what is owed.
    async fn settle(&mut self) {
        if let Some(owed) = self.owed.take()
            && !(owed.what == Asked::Entries && self.change_entries().await)
        {
            self.look().await;
        }
    }

    /// Holds a link to what is its container's own, before it is made.
    fn lock(&mut self, link: &ContainerLink, lock: Option<Lock>) {
        let (Some(lock), Ok(port)) = (lock, PortId::new(&link.id, &link.ifname)) else { return };
        let host_end = self.picture.local.desired.bridge.host_end(&port);
        self.picture.local.policy.locks.insert(host_end, lock);
        if let Err(error) = self.fastpath.converge_locks(&self.picture.local.policy) {
            self.firewall.hear(&[error]);
        }
    }

    /// Carries a wish out that changes entries only, without looking at all that stands; whether that was possible.
    /// The monitor tells of these changes too, and the look that follows confirms them.
    async fn change_entries(&mut self) -> bool {
        let Some(before) = self.stands.take() else { return false };
        self.changed_at = Some(Instant::now());
        let after = self.picture.desired(true);
        if self.fastpath.converge_filter(Some(&self.picture.filter())).is_err() {
            return false;
        }
        let Ok(Some(_)) = self.fastpath.converge_entries(&before, &after).await else { return false };
        self.stands = Some(after);
        self.tell(News::Report(KernelReport::Applied(self.picture.wish.serial))).await;
        true
    }

    /// Moves the addresses behind a peer, and behind all others whose move waits already: the wishes between these are one
    /// for the kernel, or two.
    async fn move_all(&mut self, first: Move) {
        let mut moves = Moves::new(first);
        while self.aside.is_none() {
            match self.inbox.try_recv() {
                Ok(Job::Fastpath(wish)) => moves.wish(&mut self.picture.wish, wish),
                Ok(Job::Move(next)) => self.aside = moves.add(next).map(Job::Move),
                Ok(other) => self.aside = Some(other),
                Err(_) => break,
            }
        }
        let (moves, after) = moves.end();
        if after.is_some() {
            self.owe(Asked::Entries);
        }
        self.settle().await;
        for Move { peer, address, job, to } in moves {
            if let Err(error) = self.move_macs(peer, address, to).await {
                tracing::warn!(%peer, %error, "not every address of the peer could be moved to its new carrier");
            }
            self.tell(News::Report(KernelReport::Moved(peer, job))).await;
        }
        if let Some(wish) = after {
            self.picture.wish = wish;
            self.owe(Asked::Entries);
        }
    }

    /// Moves the addresses behind a peer in the tables of bridge and VXLAN device.
    async fn move_macs(&mut self, peer: PeerName, address: IpAddr, to: Way) -> Result<(), Error> {
        match to {
            Way::Sleeve => {
                let learned = self.fastpath.macs().await?;
                let macs: BTreeSet<MacAddr> =
                    learned.into_iter().filter(|(_, host)| *host == address).map(|(mac, _)| mac).collect();
                // Sleeve must know them before the bridge sends the first frame its way.
                self.tell(News::Placed(peer, macs.clone())).await;
                tokio::task::yield_now().await;
                let macs: Vec<MacAddr> = macs.into_iter().collect();
                self.fastpath.move_macs(&macs, Port::Sleeve).await
            }
            Way::Vxlan(learned) => {
                let macs: Vec<MacAddr> = match timeout(LEARNED, learned).await {
                    Ok(Ok(macs)) => macs.into_iter().collect(),
                    // Nobody to ask: there is no sleeve, or its half has ended.
                    Ok(Err(_)) | Err(_) => Vec::new(),
                };
                let remote = self.picture.wish.remotes.get(&peer).filter(|remote| remote.address == address);
                match remote.map(|remote| SocketAddr::new(address, remote.port)) {
                    Some(remote) => self.fastpath.move_macs(&macs, Port::Vxlan(remote)).await,
                    // It has left again: the move back comes next, and finds nothing to move.
                    None => Ok(()),
                }
            }
        }
    }

    /// Each end has to know itself which of its links carry data: they are probed more often.
    async fn ask_who_carries(&mut self) {
        let few = self.picture.wish.remotes.len() <= FEW;
        let asked = Instant::now();
        if let Ok(hosts) = self.fastpath.carried(CARRIED_MANY).await {
            self.tell(News::Report(KernelReport::Carried(hosts))).await;
        }
        let often = if few { CARRIED } else { CARRIED_MANY };
        self.ask_at = Instant::now() + often.max(asked.elapsed() * CARRIED_SHARE);
    }

    async fn tear_down(&mut self, call: CallId) {
        let done = self.fastpath.teardown().await;
        let errors = done.errors.iter().map(ToString::to_string).collect();
        self.tell(News::TornDown(call, errors)).await;
    }

    async fn look_again(&mut self, change: Change) {
        self.stands = None;
        match change {
            Change::Links => self.look().await,
            // Others change their own tables all the time: that alone is no reason to list every link.
            Change::Filter => {
                let report = self.fastpath.converge_policy(&self.picture.local.policy).await;
                self.firewall.hear(&report.unmet);
                if self.fastpath.converge_filter(Some(&self.picture.filter())).is_err() {
                    self.look().await;
                }
            }
        }
    }

    /// Brings the kernel to the desired state and tells what stands.
    async fn look(&mut self) {
        self.watch.open();
        let serial = self.picture.wish.serial;
        let Brought { bridge, fastpath, unmet } = bring(&mut self.fastpath, &self.picture).await;
        let whole = bridge.is_ok() && !matches!(fastpath, Some(Err(_)));
        self.stands = (whole && fastpath.is_some()).then(|| self.picture.desired(true));
        self.look_at = Instant::now() + if whole { QUIET } else { RETRY };
        self.firewall.hear(&unmet);
        if let Err(error) = &bridge {
            tracing::warn!(%error, "the kernel is not as it should be");
        }
        let stands = bridge.map_err(|error| error.to_string());
        self.tell(News::Report(KernelReport::Converged(stands))).await;
        if let Some(ready) = fastpath {
            let applied = ready.is_ok();
            self.ready = Some(ready.clone());
            self.tell(News::Report(KernelReport::Fastpath(ready))).await;
            if applied {
                self.tell(News::Report(KernelReport::Applied(serial))).await;
            }
        }
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
            Inspection::Plan(wish) => Ok(Response::Plan(self.plan(*wish).await?)),
            Inspection::Report(mut report, wish) => {
                report.plan = self.plan(*wish).await.unwrap_or_else(|error| vec![error.message]);
                report.doctor.extend(self.host_lines(peers).await);
                Ok(Response::Report(report))
            }
        }
    }

    /// What the next look would change.
    async fn plan(&self, local: LocalWish) -> Result<Vec<String>, ApiError> {
        let failed = |error: Error| ApiError::failed(error.to_string());
        let picture = Picture { local, ..self.picture.clone() };
        let policy = self.fastpath.plan_policy(&picture.local.policy).await.map_err(failed)?;
        let filter = self.fastpath.plan_filter(Some(&picture.filter())).map_err(failed)?;
        let links = self.fastpath.plan(&picture.desired(true)).await.map_err(failed)?;
        let filter = filter.iter().map(ToString::to_string);
        let policy = policy.iter().map(ToString::to_string);
        Ok(filter.chain(policy).chain(links.iter().map(ToString::to_string)).collect())
    }

    async fn host_lines(&self, peers: &[IpAddr]) -> Vec<DoctorLine> {
        let mut lines = match self.fastpath.facts(Some(&self.picture.desired(true))).await {
            Ok(facts) => facts_lines(&facts),
            Err(error) => vec![DoctorLine::error(
                "kernel",
                format!("netlink does not answer: {error}"),
                "the router needs CAP_NET_ADMIN and CAP_NET_RAW",
            )],
        };
        lines.extend(self.places.held_lines());
        lines.extend(self.fastpath_line());
        lines.extend(self.firewall.lines());
        // That netlink does not answer was said above.
        if let Ok(underlay) = self.fastpath.underlay_mtu(peers).await {
            lines.push(host::mtu_line(self.picture.local.desired.mtu, underlay));
        }
        lines.push(host::clock_line());
        lines
    }

    fn fastpath_line(&self) -> Option<DoctorLine> {
        let port = self.places.ports.vxlan;
        Some(match self.ready.as_ref()? {
            Ok(()) => DoctorLine::fine("fastpath", format!("VXLAN and its filter stand on UDP {port}")),
            Err(reason) => DoctorLine::error(
                "fastpath",
                format!("left out, sleeve carries: {reason}"),
                "it is tried again by itself; --vxlan-port chooses another port, --no-fastpath leaves it out",
            ),
        })
    }

    async fn tell(&self, news: News) {
        // The control loop drops its end only when it ends.
        let _ = self.outbox.send(news).await;
    }
}

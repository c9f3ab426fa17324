//! Watches the kernel for what others change.

use weft_fastpath::{Error, Fastpath, Monitor};

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Links, addresses or lasting forwarding entries.
    Links,
    /// Some nftables table.
    Filter,
}

/// Both monitors; each is `None` before the first look and after it broke, and the next look opens it again.
#[derive(Default)]
pub(super) struct Watch {
    links: Option<Monitor>,
    filter: Option<Monitor>,
}

impl Watch {
    /// Opens what is not open. Where that fails the quiet timer has to do.
    pub(super) fn open(&mut self) {
        self.links = self.links.take().or_else(|| Fastpath::monitor().ok());
        self.filter = self.filter.take().or_else(|| Fastpath::filter_monitor().ok());
    }

    /// Waits until something has changed. May be dropped and called again.
    pub(super) async fn changed(&mut self) -> Change {
        loop {
            let (change, broken) = tokio::select! {
                result = news(&mut self.links) => (Change::Links, result.err()),
                result = news(&mut self.filter) => (Change::Filter, result.err()),
            };
            let Some(error) = broken else { return change };
            tracing::warn!(%error, "a netlink monitor broke and is opened again");
            match change {
                Change::Links => self.links = None,
                Change::Filter => self.filter = None,
            }
        }
    }
}

/// The next news; never without a monitor.
async fn news(monitor: &mut Option<Monitor>) -> Result<(), Error> {
    match monitor {
        Some(open) => open.changed().await,
        None => std::future::pending().await,
    }
}

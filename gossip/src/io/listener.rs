//! The accept loop. Sends to: the transport. Ends: with the transport.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc::Sender;

use super::transport::Report;

/// After an error (no descriptors left, most often) accepting pauses, instead of spinning.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the transport is gone. Connections that wait for the mesh's word are bounded by the queue.
pub(super) async fn run(listener: TcpListener, reports: Sender<Report>) {
    loop {
        let report = match listener.accept().await {
            Ok((stream, remote)) => Report::Accepted { stream, remote },
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

//! How a request from either socket reaches the control loop: one bounded queue, and a way back for each.

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use weft_api::{ApiError, Descriptors, Request, Response};

/// A request that waits for its answer. When nobody waits any more, `reply` is closed.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// The namespace that came with it.
    pub descriptors: Option<Descriptors>,
    /// Where the answer goes; dropping it unanswered tells the caller that the router is ending.
    pub reply: oneshot::Sender<Result<Response, ApiError>>,
}

/// Asks the control loop and waits as long as the request allows.
///
/// Dropping the future is how a caller goes away: `reply` is then closed.
pub(super) async fn ask(
    calls: &mpsc::Sender<Call>,
    request: Request,
    descriptors: Option<Descriptors>,
) -> Result<Response, ApiError> {
    let allowance = request.allowance();
    let ending = || ApiError::no_router("the router is ending");
    let asked = async {
        let (reply, answer) = oneshot::channel();
        calls.send(Call { request, descriptors, reply }).await.map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    };
    let late =
        |_| ApiError::not_now(format!("the router did not get to it within {} s", allowance.as_secs()));
    timeout(allowance, asked).await.map_err(late)?
}

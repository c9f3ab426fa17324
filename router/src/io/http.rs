//! The two HTTP servers: the API on its unix socket, and `/metrics`, `/healthz`, `/readyz` on a TCP address.
//!
//! Neither decides anything: each request becomes a [`Call`] to the control loop, and its answer becomes the response.
//! Whoever goes away takes their call with them; connections are bounded in number and in time.

mod limit;
mod metrics;

use std::{io, net::SocketAddr, path::Path, time::Duration};

use axum::{
    Json, Router,
    extract::{State, rejection::JsonRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response as HttpResponse},
    routing::{get, post},
};
use nix::sys::socket::SockType;
use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
};
use weft_api::{Answer, ApiError, CALL_PATH, ErrorCode, Metrics, Request, Response};

use super::{
    call::{Call, ask},
    socket::{Place, SocketError, claim},
};
use limit::Bounded;

/// Connections to the API at once; a command has one, and more wait in the kernel's queue.
const API_CONNECTIONS: usize = 64;
/// Longer than the longest request may take.
const API_LIFETIME: Duration = Duration::from_secs(3_700);
/// Connections to `/metrics` at once.
const METRICS_CONNECTIONS: usize = 8;
/// A scrape is done long before.
const METRICS_LIFETIME: Duration = Duration::from_secs(20);

/// The API socket, listening.
#[derive(Debug)]
pub struct Api {
    listener: UnixListener,
    place: Place,
}

impl Api {
    /// Takes the socket's path and listens; needs the runtime.
    ///
    /// # Errors
    ///
    /// `Live` when another router answers there.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let (listener, place) = claim(path, SockType::Stream)?;
        let listener = UnixListener::from_std(listener)
            .map_err(|reason| SocketError::Refused { path: path.to_owned(), reason })?;
        Ok(Self { listener, place })
    }

    /// Serves until the queue's other end is dropped, then finishes the answers under way; the socket's file goes with
    /// it. Whoever ends the router gives this a moment, not for ever.
    pub async fn serve(mut self, calls: mpsc::Sender<Call>) {
        self.place.settle();
        let end = calls.clone();
        let router = Router::new()
            .route(CALL_PATH, post(call))
            .route("/v1/status", get(status))
            .route("/v1/report", get(report))
            .with_state(calls);
        let listener = Bounded::new(self.listener, API_CONNECTIONS, API_LIFETIME);
        // axum's serve never fails.
        let _ = axum::serve(listener, router).with_graceful_shutdown(async move { end.closed().await }).await;
    }
}

/// The metrics address, listening.
#[derive(Debug)]
pub struct MetricsServer {
    listener: TcpListener,
}

impl MetricsServer {
    /// Listens at the address.
    ///
    /// # Errors
    ///
    /// When the address cannot be had.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            io::Error::new(error.kind(), format!("cannot listen on {address} for metrics: {error}"))
        })?;
        Ok(Self { listener })
    }

    /// Where it listens, with the port the kernel chose when 0 was asked for.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the queue's other end is dropped, then finishes the answers under way.
    pub async fn serve(self, calls: mpsc::Sender<Call>) {
        let end = calls.clone();
        let router = Router::new()
            .route("/metrics", get(scrape))
            .route("/healthz", get(health))
            .route("/readyz", get(readiness))
            .with_state(calls);
        let listener = Bounded::new(self.listener, METRICS_CONNECTIONS, METRICS_LIFETIME);
        // axum's serve never fails.
        let _ = axum::serve(listener, router).with_graceful_shutdown(async move { end.closed().await }).await;
    }
}

type Calls = State<mpsc::Sender<Call>>;

/// `POST /v1/call`.
async fn call(State(calls): Calls, request: Result<Json<Request>, JsonRejection>) -> HttpResponse {
    let result = match request {
        Ok(Json(Request::Attach(_) | Request::CniAdd(_))) => {
            Err(ApiError::usage("a namespace comes with descriptors: over the attach socket"))
        }
        Ok(Json(request)) => ask(&calls, request, None).await,
        Err(rejection) => Err(ApiError::usage(format!("malformed request: {}", rejection.body_text()))),
    };
    let code = result.as_ref().map_or_else(http_status, |_| StatusCode::OK);
    (code, Json(Answer::from(result))).into_response()
}

/// `GET /v1/status`, for whoever has curl and no client.
async fn status(State(calls): Calls) -> HttpResponse {
    document(ask(&calls, Request::Status, None).await)
}

/// `GET /v1/report`, likewise.
async fn report(State(calls): Calls) -> HttpResponse {
    document(ask(&calls, Request::Report, None).await)
}

fn document(result: Result<Response, ApiError>) -> HttpResponse {
    match result {
        Ok(Response::Status(status)) => Json(status).into_response(),
        Ok(Response::Report(report)) => Json(report).into_response(),
        Ok(other) => Json(other).into_response(),
        Err(error) => (http_status(&error), Json(error)).into_response(),
    }
}

/// `GET /metrics`.
async fn scrape(State(calls): Calls) -> HttpResponse {
    match snapshot(&calls).await {
        Ok(snapshot) => match metrics::encode(snapshot) {
            Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        },
        Err(error) => (http_status(&error), error.message).into_response(),
    }
}

/// `GET /healthz`: the control loop answers.
async fn health(State(calls): Calls) -> HttpResponse {
    match snapshot(&calls).await {
        Ok(_) => (StatusCode::OK, "ok\n").into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

/// `GET /readyz`: the bridge stands and addresses can be given out.
async fn readiness(State(calls): Calls) -> HttpResponse {
    match snapshot(&calls).await {
        Ok(snapshot) if snapshot.status.ready => (StatusCode::OK, "ready\n").into_response(),
        Ok(snapshot) => {
            let ipam = snapshot.status.ipam;
            let reason = ipam.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready; addresses {}{reason}\n", ipam.state))
                .into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

async fn snapshot(calls: &mpsc::Sender<Call>) -> Result<Metrics, ApiError> {
    match ask(calls, Request::Metrics, None).await? {
        Response::Metrics(metrics) => Ok(*metrics),
        Response::Done(_)
        | Response::Addresses(_)
        | Response::Status(_)
        | Response::Report(_)
        | Response::Doctor(_)
        | Response::Plan(_)
        | Response::CniAttached(_)
        | Response::CniStatus(_) => Err(ApiError::failed("the control loop answered another question")),
    }
}

fn http_status(error: &ApiError) -> StatusCode {
    match error.code {
        ErrorCode::Failed => StatusCode::CONFLICT,
        ErrorCode::Usage => StatusCode::BAD_REQUEST,
        ErrorCode::NoRouter | ErrorCode::NotNow => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[cfg(test)]
mod tests;

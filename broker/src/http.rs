//! The HTTP door: what a person, a load balancer or Prometheus may ask. Reads only.
//!
//! Every route stands in one table with the right it needs. The door has a small number of connections of its own, so
//! that a flood at the Kafka door doesn't blind whoever looks for its cause.

use std::convert::Infallible;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::core::Core;
use crate::status::Status;

/// Connections at once; more wait in the listen queue.
const CONNECTIONS_MAX: usize = 16;
/// One request and its answer, whole.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

const PAGE: &str = include_str!("status.html");
const JSON: &str = "application/json";

/// What a route asks of whoever calls it, once listeners know who that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// Anyone: says ok or not, nothing else.
    Health,
    /// Cluster DESCRIBE.
    View,
}

/// Every route: method, path, right.
const ROUTES: [(Method, &str, Right); 4] = [
    (Method::GET, "/", Right::View),
    (Method::GET, "/health", Right::Health),
    (Method::GET, "/metrics", Right::View),
    (Method::GET, "/status", Right::View),
];

/// The door's own bound on connections.
pub(crate) struct HttpDoor {
    places: Rc<Semaphore>,
}

impl HttpDoor {
    pub(crate) fn new() -> Self {
        Self {
            places: Rc::new(Semaphore::new(CONNECTIONS_MAX)),
        }
    }

    /// Serves one connection until it closes or idles.
    pub(crate) async fn serve(&self, core: Rc<Core>, socket: TcpStream) {
        let Ok(_place) = self.places.acquire().await else {
            return;
        };
        let service = service_fn(move |request| {
            let core = core.clone();
            async move { Ok::<_, Infallible>(answer(&core, &request)) }
        });
        let served = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .keep_alive(false)
            .serve_connection(TokioIo::new(socket), service);
        match timeout(REQUEST_MAX, served).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "http connection"),
            Err(_) => tracing::debug!("http connection idled"),
        }
    }
}

fn answer<B>(core: &Core, request: &Request<B>) -> Response<Full<Bytes>> {
    if !host_is_ours(request.headers().get(HOST), core) {
        return text(
            StatusCode::MISDIRECTED_REQUEST,
            "this host name is not this node's\n",
        );
    }
    let path = request.uri().path();
    let Some((method, ..)) = ROUTES.iter().find(|(_, known, _)| *known == path) else {
        return text(
            StatusCode::NOT_FOUND,
            "routes: / /health /metrics /status\n",
        );
    };
    if request.method() != method {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
    }
    match path {
        "/health" => match core.not_ready() {
            reasons if reasons.is_empty() => text(StatusCode::OK, "ok\n"),
            reasons => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {}\n", reasons.join("; ")),
            ),
        },
        "/metrics" => body(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            crate::metrics::encode(core),
        ),
        "/status" => match serde_json::to_vec(&Status::of(core)) {
            Ok(json) => body(StatusCode::OK, JSON, json),
            Err(error) => text(
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("status: {error}\n"),
            ),
        },
        _ => body(StatusCode::OK, "text/html; charset=utf-8", PAGE),
    }
}

/// A page of another origin can make a browser call us by a name that it controls (DNS rebinding): only addresses,
/// `localhost`, and the site's own name for this node are answered.
fn host_is_ours(host: Option<&HeaderValue>, core: &Core) -> bool {
    let Some(host) = host.and_then(|host| host.to_str().ok()) else {
        return true;
    };
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, _)) => v6,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name == core.node_name()
}

fn text(status: StatusCode, message: impl Into<Bytes>) -> Response<Full<Bytes>> {
    body(status, "text/plain; charset=utf-8", message)
}

fn body(status: StatusCode, kind: &'static str, bytes: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(bytes.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

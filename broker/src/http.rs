//! The HTTP door: what a person, a load balancer or Prometheus may ask.
//!
//! Every route stands in one table with the right it needs. One that changes state is refused to other machines, and to a
//! web page that a browser on this one has open. The door has a small number of connections of its own, so that a flood
//! at the Kafka door doesn't blind whoever looks for its cause.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clock;
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
    /// Cluster ALTER: until a request can prove the site's secret, whoever is on this machine.
    Operate,
}

/// What an [`Right::Operate`] request must carry. A page of another origin can have a browser send a POST, but no header
/// of its own without asking first, which nobody here answers.
pub(crate) const OPERATE_HEADER: &str = "howdah-operate";
/// Where [`crate::clock::confirm`] is asked for.
pub(crate) const CONFIRM_CLOCK: &str = "/clock/confirm";

/// Every route: method, path, right.
const ROUTES: [(Method, &str, Right); 5] = [
    (Method::GET, "/", Right::View),
    (Method::POST, CONFIRM_CLOCK, Right::Operate),
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
    pub(crate) async fn serve(&self, core: Rc<Core>, socket: TcpStream, peer: SocketAddr) {
        let Ok(_place) = self.places.acquire().await else {
            return;
        };
        let service = service_fn(move |request| {
            let core = core.clone();
            async move { Ok::<_, Infallible>(answer(&core, peer.ip(), &request)) }
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

fn answer<B>(core: &Core, peer: IpAddr, request: &Request<B>) -> Response<Full<Bytes>> {
    if !host_is_ours(request.headers().get(HOST), core) {
        return text(
            StatusCode::MISDIRECTED_REQUEST,
            "this host name is not this node's\n",
        );
    }
    let path = request.uri().path();
    let Some((method, _, right)) = ROUTES.iter().find(|(_, known, _)| *known == path) else {
        return text(
            StatusCode::NOT_FOUND,
            "routes: / /health /metrics /status, and POST /clock/confirm\n",
        );
    };
    if request.method() != method {
        return text(StatusCode::METHOD_NOT_ALLOWED, format!("only {method}\n"));
    }
    if *right == Right::Operate && !may_operate(peer, request.headers()) {
        return text(
            StatusCode::FORBIDDEN,
            "only for commands on the node's own machine: `howdah cluster`\n",
        );
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
        CONFIRM_CLOCK => text(StatusCode::OK, confirm_clock(core, peer)),
        _ => body(StatusCode::OK, "text/html; charset=utf-8", PAGE),
    }
}

/// Believes the wall clock, and says what that changed.
fn confirm_clock(core: &Core, peer: IpAddr) -> String {
    let Some(forward) = clock::confirm() else {
        return "the clock had made no step that was not believed\n".to_owned();
    };
    let days = forward.as_secs_f64() / 86_400.0;
    tracing::warn!(%peer, days, "an operator confirmed the clock's step: retention by time goes by it again");
    match core.trusted_now() {
        Some(_) => format!("the clock's step of {days:.1} days is believed\n"),
        None => format!(
            "the clock's step of {days:.1} days is believed; the kernel still says that nothing keeps the clock right\n"
        ),
    }
}

/// Whether a request may change the node's state.
fn may_operate(peer: IpAddr, headers: &HeaderMap) -> bool {
    peer.to_canonical().is_loopback() && headers.contains_key(OPERATE_HEADER)
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_on_this_machine_may_operate() {
        let mut ours = HeaderMap::new();
        ours.insert(OPERATE_HEADER, HeaderValue::from_static("1"));
        let none = HeaderMap::new();
        let may = |peer: &str, headers| may_operate(peer.parse().unwrap(), headers);
        for peer in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(may(peer, &ours), "{peer}");
            assert!(!may(peer, &none), "a page in a browser");
        }
        for peer in ["192.0.2.1", "::ffff:192.0.2.1", "fe80::1", "0.0.0.0"] {
            assert!(!may(peer, &ours), "{peer}");
        }
    }

    #[test]
    fn whatever_changes_state_is_a_post_and_needs_the_right_to() {
        for (method, path, right) in ROUTES {
            assert_eq!(method == Method::POST, right == Right::Operate, "{path}");
        }
    }
}

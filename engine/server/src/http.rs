//! `http-port`: whether the server lives and is ready, and what Prometheus collects. GET and HEAD, nothing else.
//!
//! It is served beside the threads that serve clients, so it answers while those are busy, and says so when they do not
//! answer at all.

use crate::config::Settings;
use crate::listen::{self, ListenError};
use crate::metrics;
use crate::server::Server;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// How many connections are served at a time; others wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long the head of a request may be, in bytes.
const HEAD_MAX: usize = 16 << 10;
/// How long a request may take to arrive, and all of it together.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(30);
/// The threads that serve clients answer in this time, or do not live.
const ALIVE_WITHIN: Duration = Duration::from_secs(5);

const TEXT: &str = "text/plain; charset=utf-8";

/// Addresses that are bound, as those for clients are: `bind` says which.
pub(crate) struct Bound(Vec<(SocketAddr, socket2::Socket)>);

/// Binds `http-port`, where there is one.
pub(crate) fn bind(settings: &Settings) -> Result<Bound, ListenError> {
    let port = u16::try_from(settings.http_port).unwrap_or(0);
    listen::bind_port(settings, port, &[]).map(Bound)
}

impl Bound {
    /// Listens, and serves on the current runtime; `serving` is the one that serves clients.
    pub(crate) fn serve(self, server: &Arc<Server>, serving: &Handle) -> Result<(), ListenError> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        for (address, socket) in self.0 {
            let listener = listen::listener(address, socket, 128)?;
            tracing::info!(%address, "serving /livez, /readyz and /metrics");
            tokio::spawn(accept(Arc::clone(server), listener, serving.clone(), Arc::clone(&places)));
        }
        Ok(())
    }
}

async fn accept(server: Arc<Server>, listener: TcpListener, serving: Handle, places: Arc<Semaphore>) {
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (server, serving) = (Arc::clone(&server), serving.clone());
                tokio::spawn(async move {
                    // What a connection does not get through in time is cut off; there is nobody to tell.
                    let _ = timeout(LIMIT, serve(server, serving, stream, peer)).await;
                    drop(place);
                });
            }
            Err(error) => listen::pause(&error).await,
        }
    }
}

/// Answers one request.
async fn serve(server: Arc<Server>, serving: Handle, stream: TcpStream, peer: SocketAddr) {
    let is_turned_away = !peer.ip().to_canonical().is_loopback()
        && server.config.read().protected_mode
        && server.engine.acl().is_open();
    let service = service_fn(|request: Request<Incoming>| {
        let (server, serving) = (Arc::clone(&server), serving.clone());
        async move {
            Ok::<_, Infallible>(if is_turned_away {
                text(StatusCode::FORBIDDEN, PROTECTED.into())
            } else {
                answer(&server, &serving, &request).await
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // Whoever sends garbage or goes away has had an answer, or wants none.
    let _ = connection.await;
}

const PROTECTED: &str = "Cairn is in protected mode: no password is set, so only connections from this machine are accepted. \
To look from elsewhere, set 'requirepass', or 'protected-mode no' where the network itself keeps strangers out.\n";

async fn answer(
    server: &Arc<Server>,
    serving: &Handle,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response =
            text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are answered, and nothing else\n".into());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/livez" => live(serving).await,
        "/readyz" => match server.engine.readiness() {
            Ok(()) => text(StatusCode::OK, "ready\n".into()),
            Err(not_ready) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{not_ready}\n")),
        },
        "/metrics" => measure(server).await,
        _ => text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n".into()),
    }
}

/// Whether the threads that serve clients still do.
async fn live(serving: &Handle) -> Response<Full<Bytes>> {
    match timeout(ALIVE_WITHIN, serving.spawn(async {})).await {
        Ok(_) => text(StatusCode::OK, "alive\n".into()),
        Err(_) => {
            let seconds = ALIVE_WITHIN.as_secs();
            let why = format!(
                "no thread that serves clients has answered for {seconds} s; look at the log, and restart the server\n"
            );
            text(StatusCode::SERVICE_UNAVAILABLE, why)
        }
    }
}

async fn measure(server: &Arc<Server>) -> Response<Full<Bytes>> {
    let server = Arc::clone(server);
    match tokio::task::spawn_blocking(move || metrics::render(&server)).await {
        Ok(Ok(metrics)) => typed(StatusCode::OK, metrics, metrics::CONTENT_TYPE),
        Ok(Err(_)) | Err(_) => {
            text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be collected\n".into())
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, body, TEXT)
}

/// Of an answer to HEAD the body is left out by whoever sends it.
fn typed(status: StatusCode, body: String, content_type: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

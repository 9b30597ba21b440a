//! What watches the broker from outside: `/metrics` for Prometheus, `/healthz` and `/readyz` for whatever starts and
//! stops brokers. HTTP/1.1, one request a connection, on a listener of its own (`metrics.listen`); nothing of it is on
//! the way of a message.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | every metric of `docs/metrics.md`, as OpenMetrics text |
//! | `/healthz` | 200 while the broker can go on; 503 once only a restart helps: the disk has failed it |
//! | `/readyz` | 200 while it serves; 503 when it stops or the disk has failed it |

use std::{convert::Infallible, sync::Arc, time::Duration};

use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::{
    metrics,
    service::{Services, scrape::Scraper, stop::Stop},
};

/// Connections served at a time; more are closed at once. Each may occupy a thread for as long as a scrape takes.
const CONNECTIONS_MAX: usize = 16;
/// Bytes of a request's line and headers; what is longer is refused. No body is ever read.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// Headers of a request.
const REQUEST_HEADERS_MAX: usize = 64;
/// How long a connection may last, from accepting it to the last byte of its answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the operating system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

const TEXT: &str = "text/plain; charset=utf-8";

/// What answers.
struct Watched {
    services: Arc<Services>,
    scraper: Scraper,
    stop: Stop,
}

/// Serves until the stop.
pub(crate) async fn serve(listener: TcpListener, services: Arc<Services>, mut stop: Stop) {
    let watched = Arc::new(Watched { services, scraper: Scraper::default(), stop: stop.clone() });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // dropped at the stop, and its connections with it
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.stopped() => return,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection for metrics");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // who finds no place sees the connection closed; those who watch come again
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let watched = Arc::clone(&watched);
            connections.spawn(async move {
                converse(stream, watched).await;
                drop(place);
            });
        }
    }
}

async fn converse(stream: TcpStream, watched: Arc<Watched>) {
    let answering = service_fn(move |request: Request<Incoming>| {
        let watched = Arc::clone(&watched);
        async move { Ok::<_, Infallible>(watched.answer(request.method(), request.uri().path()).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_TIMEOUT)
        .max_buf_size(REQUEST_BYTES_MAX)
        .max_headers(REQUEST_HEADERS_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answering);
    match tokio::time::timeout(CONNECTION_TIMEOUT, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection for metrics ended"),
        Err(_) => tracing::debug!("a connection for metrics took too long"),
    }
}

impl Watched {
    async fn answer(self: Arc<Self>, method: &Method, path: &str) -> Response<String> {
        if method != Method::GET && method != Method::HEAD {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        let fenced = self.services.store.is_fenced();
        match path {
            "/metrics" => self.metrics().await,
            "/healthz" | "/readyz" if fenced => {
                text(StatusCode::SERVICE_UNAVAILABLE, "the disk has failed: restart to recover from it\n")
            }
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.stop.is_stopped() => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            "/readyz" => text(StatusCode::OK, "ready\n"),
            _ => text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"),
        }
    }

    async fn metrics(self: Arc<Self>) -> Response<String> {
        let scraped = tokio::task::spawn_blocking(move || self.scraper.scrape(&self.services).text()).await;
        match scraped {
            Ok(Ok(told)) => respond(StatusCode::OK, metrics::CONTENT_TYPE, told),
            // stopping, or a panic, which the runtime has reported
            Ok(Err(_)) | Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be read\n"),
        }
    }
}

fn text(status: StatusCode, body: &str) -> Response<String> {
    respond(status, TEXT, body.to_owned())
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

//! How bytes travel to brokers and name servers: plain TCP unless the application says otherwise. The rest of the client
//! sees two byte streams and no socket, so TLS, a proxy or a pair of pipes in memory take one implementation of
//! [`Transport`].

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Makes connections. Name servers and brokers are both reached through it; set it with
/// [`ClientBuilder::transport`](crate::ClientBuilder::transport).
///
/// `address` is what the application gave for a name server, or what a name server gave for a broker: `host:port`. An
/// attempt is given up after `connect_timeout_ms`, whatever the implementation does, and the future is dropped then.
///
/// Closures that return a future are transports. TLS with `tokio-rustls`:
///
/// ```
/// use std::sync::Arc;
///
/// use mezzo_client::{ByteStreams, Client, Error};
/// use tokio::net::TcpStream;
/// use tokio_rustls::TlsConnector;
/// use tokio_rustls::rustls::ClientConfig;
/// use tokio_rustls::rustls::pki_types::ServerName;
///
/// async fn connect(tls: Arc<ClientConfig>) -> Result<Client, Error> {
///     let connector = TlsConnector::from(tls);
///     let transport = move |address: String| {
///         let connector = connector.clone();
///         async move {
///             let host = address.rsplit_once(':').map_or(&*address, |(host, _)| host);
///             let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
///             let socket = TcpStream::connect(&address).await?;
///             socket.set_nodelay(true)?;
///             Ok(ByteStreams::of(connector.connect(name, socket).await?))
///         }
///     };
///     Client::builder("mq.example.com:9876").transport(transport).build().await
/// }
/// ```
pub trait Transport: Send + Sync + 'static {
    /// Connects to `address`.
    ///
    /// # Errors
    /// If nobody can be reached there. The words of the error become those of
    /// [`RequestError::Unreachable`](crate::RequestError::Unreachable).
    fn connect(&self, address: &str) -> impl Future<Output = io::Result<ByteStreams>> + Send;
}

impl<F, Fut> Transport for F
where
    F: Fn(String) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = io::Result<ByteStreams>> + Send,
{
    fn connect(&self, address: &str) -> impl Future<Output = io::Result<ByteStreams>> + Send {
        self(address.to_owned())
    }
}

/// A connection as the client uses it: what comes and what goes. Everything written is flushed at once, so a writer may
/// keep a buffer of its own.
///
/// ```
/// use mezzo_client::ByteStreams;
///
/// // In memory: the client has one end, a peer in the same program the other.
/// let (ours, theirs) = tokio::io::duplex(64 << 10);
/// let streams = ByteStreams::of(ours);
/// # drop((streams, theirs));
/// ```
pub struct ByteStreams {
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) writer: Box<dyn AsyncWrite + Send + Unpin>,
}

impl ByteStreams {
    /// Two halves that can be used by two tasks at one time.
    #[must_use]
    pub fn new(
        reader: impl AsyncRead + Send + Unpin + 'static,
        writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        Self { reader: Box::new(reader), writer: Box::new(writer) }
    }

    /// A stream that goes both ways, like a TLS stream.
    #[must_use]
    pub fn of(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self::new(reader, writer)
    }
}

impl fmt::Debug for ByteStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByteStreams").finish_non_exhaustive()
    }
}

/// Plain TCP without Nagle's delay: what a client uses that was told nothing else.
///
/// ```
/// use mezzo_client::{ByteStreams, Client, TcpTransport, Transport};
///
/// // From a test machine every broker is reached through one tunnel.
/// let through_the_tunnel = |_address: String| async { TcpTransport.connect("127.0.0.1:20911").await };
/// let builder = Client::builder("mq.example.com:9876").transport(through_the_tunnel);
/// # drop(builder);
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpTransport;

impl Transport for TcpTransport {
    async fn connect(&self, address: &str) -> io::Result<ByteStreams> {
        let stream = TcpStream::connect(address).await?;
        // Frames are batched by the writer; waiting for more would only add latency.
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(ByteStreams::new(reader, writer))
    }
}

type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<ByteStreams>> + Send + 'a>>;

/// A transport whose type is forgotten. Connecting is rare: the box is cheap.
pub(crate) trait AnyTransport: Send + Sync {
    /// As [`Transport::connect`].
    fn connect_boxed<'a>(&'a self, address: &'a str) -> Connecting<'a>;
}

impl<T: Transport> AnyTransport for T {
    fn connect_boxed<'a>(&'a self, address: &'a str) -> Connecting<'a> {
        Box::pin(self.connect(address))
    }
}

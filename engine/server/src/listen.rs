//! Where clients connect: binding, accepting, and who is turned away.

use crate::clients::Client;
use crate::config::Settings;
use crate::connection;
use crate::server::Server;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::AbortHandle;

/// How long to wait when the system cannot give another connection: it is out of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is nowhere to connect.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("bind: '{address}' is not an address of a network interface; names are not looked up")]
    NotAnAddress { address: String },
    #[error("cannot listen on {address}: {source}; is another server running there?")]
    Tcp { address: SocketAddr, source: io::Error },
    #[error("none of the addresses of 'bind' is available on this machine")]
    NoAddress,
    #[error("cannot listen on the Unix socket {path}: {source}", path = path.display())]
    Unix { path: PathBuf, source: io::Error },
}

impl ListenError {
    /// 2 where the configuration is wrong, 1 where the machine is not as it says.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            ListenError::NotAnAddress { .. } => 2,
            ListenError::Tcp { .. } | ListenError::NoAddress | ListenError::Unix { .. } => 1,
        }
    }
}

/// Addresses that are bound, so that nobody else can have them, but not yet listened on: who connects is refused.
pub(crate) struct Bound {
    tcp: Vec<(SocketAddr, Socket)>,
    backlog: i32,
    unix: Option<(PathBuf, u32)>,
}

/// Binds all TCP addresses.
pub(crate) fn bind(settings: &Settings) -> Result<Bound, ListenError> {
    let tcp = bind_tcp(settings, &[])?;
    let unix = (!settings.unixsocket.is_empty())
        .then(|| (settings.unixsocket.clone().into(), settings.unixsocketperm));
    Ok(Bound { tcp, backlog: backlog(settings), unix })
}

fn backlog(settings: &Settings) -> i32 {
    i32::try_from(settings.tcp_backlog).unwrap_or(i32::MAX)
}

/// Where to listen for clients, and whether that need not be possible.
fn addresses(settings: &Settings) -> Result<Vec<(SocketAddr, bool)>, ListenError> {
    addresses_at(settings, client_port(settings))
}

fn client_port(settings: &Settings) -> u16 {
    u16::try_from(settings.port).unwrap_or(0)
}

fn addresses_at(settings: &Settings, port: u16) -> Result<Vec<(SocketAddr, bool)>, ListenError> {
    let addresses = settings.bind.iter().map(|word| parse(word)).collect::<Result<Vec<_>, _>>()?;
    let with_port = |(address, optional)| (SocketAddr::new(address, port), optional);
    Ok(if port == 0 { Vec::new() } else { addresses.into_iter().map(with_port).collect() })
}

/// Binds the TCP addresses for clients but for those that are `held`.
fn bind_tcp(settings: &Settings, held: &[SocketAddr]) -> Result<Vec<(SocketAddr, Socket)>, ListenError> {
    bind_port(settings, client_port(settings), held)
}

/// Binds a port of the addresses that `bind` names, but for those that are `held`; 0: nothing.
pub(crate) fn bind_port(
    settings: &Settings,
    port: u16,
    held: &[SocketAddr],
) -> Result<Vec<(SocketAddr, Socket)>, ListenError> {
    let (mut tcp, mut any) = (Vec::new(), port == 0);
    for (address, optional) in addresses_at(settings, port)? {
        if held.contains(&address) {
            any = true;
            continue;
        }
        match bind_one(address) {
            Ok(socket) => tcp.push((address, socket)),
            Err(error) if optional && is_unavailable(&error) => {}
            Err(source) => return Err(ListenError::Tcp { address, source }),
        }
    }
    if tcp.is_empty() && !any { Err(ListenError::NoAddress) } else { Ok(tcp) }
}

/// A change of the addresses, of which all that can fail is done. Dropped unused, all stays as it was.
pub(crate) struct Move {
    server: Arc<Server>,
    added: Vec<(SocketAddr, TcpListener)>,
    wanted: Vec<(SocketAddr, bool)>,
}

/// Prepares to listen where `settings` say, and no longer elsewhere.
pub(crate) fn prepare(server: Arc<Server>, settings: &Settings) -> Result<Move, ListenError> {
    let held: Vec<SocketAddr> = server.listening.lock().iter().map(|(address, _)| *address).collect();
    let mut added = Vec::new();
    for (address, socket) in bind_tcp(settings, &held)? {
        added.push((address, listener(address, socket, backlog(settings))?));
    }
    Ok(Move { server, added, wanted: addresses(settings)? })
}

impl Move {
    /// Listens there from now on. Who is connected stays.
    pub(crate) fn finish(self) {
        let Move { server, added, wanted } = self;
        let mut listening = server.listening.lock();
        let is_wanted = |address: &SocketAddr| wanted.iter().any(|(wanted, _)| wanted == address);
        listening.retain(|(address, task)| {
            if !is_wanted(address) {
                task.abort();
            }
            is_wanted(address)
        });
        listening.extend(added.into_iter().map(|(address, listener)| (address, accept(&server, listener))));
    }
}

/// Listens on an address that is bound. Belongs on a runtime.
pub(crate) fn listener(
    address: SocketAddr,
    socket: Socket,
    backlog: i32,
) -> Result<TcpListener, ListenError> {
    let failed = |source| ListenError::Tcp { address, source };
    socket.listen(backlog).map_err(failed)?;
    TcpListener::from_std(socket.into()).map_err(failed)
}

fn accept(server: &Arc<Server>, listener: TcpListener) -> AbortHandle {
    tokio::spawn(accept_tcp(Arc::clone(server), listener)).abort_handle()
}

/// Reads one word of `bind`; `-` before an address says that it need not be there.
fn parse(word: &str) -> Result<(IpAddr, bool), ListenError> {
    let (optional, text) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let address = match text {
        "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "::*" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        _ => text.parse().map_err(|_| ListenError::NotAnAddress { address: word.to_owned() })?,
    };
    Ok((address, optional))
}

fn bind_one(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The machine has no such address, or no such protocol.
fn is_unavailable(error: &io::Error) -> bool {
    let codes = [libc::EADDRNOTAVAIL, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT, libc::ENOPROTOOPT];
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

/// Removes the Unix socket's file when the server ends.
pub(crate) struct UnixFile(PathBuf);

impl Drop for UnixFile {
    fn drop(&mut self) {
        // It may be gone already; there is nothing to do about it either way.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Bound {
    /// Listens, and serves those who connect on tasks of the current runtime.
    pub(crate) fn serve(self, server: &Arc<Server>) -> Result<Option<UnixFile>, ListenError> {
        for (address, socket) in self.tcp {
            let listener = listener(address, socket, self.backlog)?;
            server.listening.lock().push((address, accept(server, listener)));
        }
        let Some((path, mode)) = self.unix else { return Ok(None) };
        let listener =
            bind_unix(&path, mode).map_err(|source| ListenError::Unix { path: path.clone(), source })?;
        tokio::spawn(accept_unix(Arc::clone(server), listener, path.display().to_string()));
        Ok(Some(UnixFile(path)))
    }
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    if mode != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(listener)
}

async fn accept_tcp(server: Arc<Server>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => welcome_tcp(&server, stream, peer),
            Err(error) => pause(&error).await,
        }
    }
}

async fn accept_unix(server: Arc<Server>, listener: UnixListener, path: String) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => welcome_unix(&server, stream, &path),
            Err(error) => pause(&error).await,
        }
    }
}

/// Waits until another connection may be had.
pub(crate) async fn pause(error: &io::Error) {
    tracing::warn!(%error, "cannot accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

fn welcome_tcp(server: &Arc<Server>, stream: TcpStream, peer: SocketAddr) {
    let keepalive = server.config.read().tcp_keepalive_seconds;
    // A connection that is broken already shows it when it is read.
    let _ = stream.set_nodelay(true);
    if let Some(seconds) = u64::try_from(keepalive).ok().filter(|&s| s > 0) {
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive_every(seconds));
    }
    let is_local = peer.ip().to_canonical().is_loopback();
    let local = stream.local_addr().map_or_else(|_| String::new(), |a| a.to_string());
    welcome(server, stream.as_raw_fd(), stream, peer.to_string(), local, is_local);
}

fn welcome_unix(server: &Arc<Server>, stream: UnixStream, path: &str) {
    let address = format!("{path}:0");
    welcome(server, stream.as_raw_fd(), stream, address.clone(), address, true);
}

/// A first probe after `seconds` of silence; given up after about twice that time, as Redis does.
fn keepalive_every(seconds: u64) -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(seconds))
        .with_interval(Duration::from_secs((seconds / 3).max(1)))
        .with_retries(3)
}

fn welcome<S: connection::Stream>(
    server: &Arc<Server>,
    fd: i32,
    stream: S,
    address: String,
    local_address: String,
    is_local: bool,
) {
    let turned_away = {
        let config = server.config.read();
        let full = server.clients.count() >= usize::try_from(config.maxclients).unwrap_or(usize::MAX);
        let exposed = config.protected_mode && server.engine.acl().is_open() && !is_local;
        if full { Some(FULL) } else { exposed.then_some(PROTECTED) }
    };
    if let Some(why) = turned_away {
        server.stats.connections_rejected_total.fetch_add(1, Relaxed);
        tokio::spawn(turn_away(stream, why));
        return;
    }
    server.stats.connections_received_total.fetch_add(1, Relaxed);
    let session = server.engine.session();
    let client = Client::new(&session, address, local_address, fd, is_local, server.uptime_seconds());
    let client = Arc::new(client);
    server.clients.add(&client);
    let task = tokio::spawn(connection::serve(Arc::clone(server), stream, session, Arc::clone(&client)));
    client.set_task(task.abort_handle());
}

async fn turn_away<S: connection::Stream>(mut stream: S, why: &'static [u8]) {
    // Whether it arrives is up to the other end.
    let _ = stream.write_all(why).await;
    let _ = stream.shutdown().await;
}

const FULL: &[u8] = b"-ERR max number of clients reached\r\n";

const PROTECTED: &[u8] = b"-DENIED Cairn is in protected mode: no password is set, so only connections from this \
machine are accepted. To connect from elsewhere, set 'requirepass', or 'protected-mode no' where the network itself \
keeps strangers out.\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_redis() {
        assert_eq!(parse("127.0.0.1").unwrap(), (Ipv4Addr::LOCALHOST.into(), false));
        assert_eq!(parse("-::1").unwrap(), (Ipv6Addr::LOCALHOST.into(), true));
        assert_eq!(parse("*").unwrap(), (Ipv4Addr::UNSPECIFIED.into(), false));
        assert_eq!(parse("-::*").unwrap(), (Ipv6Addr::UNSPECIFIED.into(), true));
        assert!(parse("example.org").is_err());
    }

    #[test]
    fn a_bound_port_is_taken() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        let mut settings = Settings::defaults();
        settings.port = port.into();
        assert!(matches!(bind(&settings), Err(ListenError::Tcp { .. })));
        // An address that this machine does not have may be missing when it is marked so.
        settings.bind = vec!["-192.0.2.1".into()];
        assert!(matches!(bind(&settings), Err(ListenError::NoAddress)));
    }
}

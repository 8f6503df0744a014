//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::broker::bell::Bell;
use crate::ids::ConnId;
#[cfg(target_os = "linux")]
use crate::limits;
use crate::proto::{ErrorCode, WireError, encode};
use crate::session::task::{self, Context};

use super::workers::Workers;

/// How long to wait when the system has no descriptor for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long sessions get to finish when the server stops.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// Accepts connections until the server stops, then waits for the sessions to finish.
pub(super) async fn serve(
    socket: TcpListener,
    connections_max: usize,
    context: Context,
    mut workers: Workers,
) {
    let mut sessions = JoinSet::new();
    let mut draining = context.draining.clone();
    let mut next = 1;
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) if sessions.len() < connections_max => {
                    let conn = ConnId(next);
                    next += 1;
                    prepare(&stream);
                    let (thread, bell) = workers.next();
                    let context = context.clone();
                    let session = session(stream.into_std(), peer, conn, context, bell);
                    sessions.spawn_on(session, thread);
                }
                Ok((stream, _)) => refuse(stream, connections_max).await,
                Err(error) => {
                    tracing::warn!(event = "accept_failed", "failed to accept a connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = sessions.join_next() => {}
            _ = draining.changed() => break,
        }
    }
    drop(socket);
    let finish = async { while sessions.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_PATIENCE, finish).await.is_err() {
        tracing::warn!(
            event = "drain_cut_short",
            sessions = sessions.len(),
            "connections that did not take their answers in time are closed"
        );
        sessions.shutdown().await;
    }
}

/// Serves a connection on the thread where this runs.
async fn session(
    stream: io::Result<std::net::TcpStream>,
    peer: SocketAddr,
    conn: ConnId,
    context: Context,
    bell: Arc<Bell>,
) {
    match stream.and_then(TcpStream::from_std) {
        Ok(stream) => task::run(stream, peer.to_string(), conn, context, bell).await,
        Err(error) => {
            tracing::warn!(event = "accept_failed", "failed to take a connection over: {error}");
        }
    }
}

/// Small answers leave at once, a peer that vanished without a word is noticed one day, and one that does
/// not read takes little of the system's memory: it would otherwise be given megabytes, and a thousand of
/// them all that the system has for TCP, which then drops what others send.
fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let set = socket.set_tcp_nodelay(true).and(socket.set_keepalive(true));
    #[cfg(target_os = "linux")]
    let set = set.and(socket.set_tcp_notsent_lowat(limits::SOCKET_UNSENT_BYTES_MAX));
    if let Err(error) = set {
        tracing::debug!(event = "socket_option", "failed to set a socket option: {error}");
    }
}

async fn refuse(mut stream: TcpStream, connections_max: usize) {
    let text = "too many connections";
    let error = WireError::new(ErrorCode::Limit, text)
        .with("max", connections_max)
        .with("setting", "limits.connections")
        .with("retry_after", "1s");
    let mut line = Vec::new();
    encode::error(&mut line, None, &error);
    // A new socket's buffer takes one line; whether the peer reads it is not our concern.
    drop(stream.write_all(&line).await);
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;

    /// How much goes into a connection whose peer does not read.
    async fn taken() -> usize {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let peer = TcpSocket::new_v4().unwrap();
        peer.set_recv_buffer_size(64 << 10).unwrap();
        let _peer = peer.connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        prepare(&stream);
        stream.writable().await.unwrap();
        let bytes = vec![b'x'; 64 << 10];
        let mut taken = 0;
        while let Ok(count) = stream.try_write(&bytes) {
            taken += count;
        }
        taken
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_given_little() {
        // What is on its way to it counts as well. Without a bound it is two megabytes and more.
        let taken = taken().await;
        assert!(taken <= 512 << 10, "{taken} bytes");
    }
}

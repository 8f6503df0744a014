//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::broker::bell::Bell;
use crate::ids::ConnId;
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

/// Small answers leave at once, and a peer that vanished without a word is noticed one day.
fn prepare(stream: &TcpStream) {
    let keepalive = rustix::net::sockopt::set_socket_keepalive(stream, true);
    if let Err(error) = stream.set_nodelay(true).and(keepalive.map_err(Into::into)) {
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

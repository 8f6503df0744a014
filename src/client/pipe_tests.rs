//! Tests of what happens to unanswered commands when their connection is lost.

use super::*;
use crate::ids::TopicName;

/// A task as it stands with `writing` written up to `written` and `out` not taken yet, each line
/// being a bulk publish.
fn task(writing: &str, written: usize, out: &str) -> Task {
    let options = Arc::new(Options::new("nowhere:0"));
    let mut state = State {
        out: out.as_bytes().to_vec(),
        out_end: 1000 + (writing.len() + out.len()) as u64,
        pending: VecDeque::new(),
        idle: false,
        stops_when_lost: false,
        over: None,
        results: Results::new(100),
    };
    let mut end = 1000;
    for line in [writing, out].concat().split_inclusive('\n') {
        end += line.len() as u64;
        let waiter = Waiter::Bulk;
        state.results.begun(&waiter);
        state.pending.push_back(Pending { end, waiter });
    }
    let shared = Arc::new(Shared {
        window: 100,
        state: Mutex::new(state),
        work: Notify::new(),
        room: Notify::new(),
        results: Notify::new(),
    });
    let backoff = Backoff::new(options.reconnect);
    let writing = writing.as_bytes().to_vec();
    Task { shared, options, backoff, writing, written, writing_start: 1000 }
}

#[test]
fn a_publish_is_unknown_once_its_line_end_was_written_and_sent_again_before() {
    let (writing, out) = ("PUB t a\nPUB t b\n", "PUB t c\n");
    for written in 0..=writing.len() {
        let mut task = task(writing, written, out);
        task.lost(&ClientError::disconnected("a test cut it"));
        let whole = writing[..written].matches('\n').count();
        let mut state = task.shared.lock();
        assert_eq!(
            String::from_utf8_lossy(&state.out),
            ["PUB t a\n", "PUB t b\n", "PUB t c\n"][whole..].concat(),
            "{written} bytes were written"
        );
        let ends: Vec<u64> = state.pending.iter().map(|pending| pending.end).collect();
        assert_eq!(ends, [8, 16, 24][..3 - whole], "positions begin anew");
        assert_eq!(state.out_end, state.out.len() as u64);
        let unknown: Vec<_> = state.results.take().collect();
        assert_eq!(unknown.len(), whole);
        assert!(unknown.iter().all(|done| matches!(done.result, Err(ClientError::OutcomeUnknown))));
    }
}

#[tokio::test]
async fn who_wants_no_hole_has_nothing_sent_behind_what_is_unknown() {
    let (writing, out) = ("PUB t a\nPUB t b\n", "PUB t c\n");
    for written in 0..=writing.len() {
        let mut task = task(writing, written, out);
        let pipe = Pipe { shared: Arc::clone(&task.shared), task: tokio::spawn(async {}) };
        pipe.stop_when_lost();
        task.lost(&ClientError::disconnected("a test cut it"));
        let whole = writing[..written].matches('\n').count();
        let results: Vec<_> = task.shared.lock().results.take().map(|done| done.result).collect();
        let again = String::from_utf8(task.shared.lock().out.clone()).unwrap();
        let pushed = pipe.try_push(|out| out.extend_from_slice(b"PUB t d\n"), Waiter::Bulk);
        if whole == 0 {
            assert!(results.is_empty() && pushed.is_ok(), "none has failed");
            assert_eq!(again, [writing, out].concat());
            continue;
        }
        assert_eq!(again, "", "{written} bytes were written");
        assert_eq!(results.len(), 3);
        for (n, result) in results.into_iter().enumerate() {
            match result.unwrap_err() {
                ClientError::OutcomeUnknown => assert!(n < whole),
                ClientError::Disconnected { .. } => assert!(n >= whole, "it was not sent"),
                other => panic!("{other}"),
            }
        }
        assert!(matches!(pushed.unwrap_err(), ClientError::Disconnected { .. }));
    }
}

#[test]
fn who_wants_no_hole_has_nothing_sent_after_no_connection_could_be_had() {
    let task = task("", 0, "PUB t a\n");
    task.shared.lock().stops_when_lost = true;
    task.fail_all(&ClientError::disconnected("a test says so"));
    assert_eq!(task.shared.lock().results.take().count(), 1);
    assert!(task.shared.lock().over.is_some());
}

#[tokio::test]
async fn an_answer_to_what_was_not_sent_yet_is_not_believed() {
    let mut task = task("PUB t a\nPUB t b\n", 15, "");
    let mut lines = Lines::default();
    lines.read_from(&mut &b"OK published m 1\nOK published m 2\n"[..]).await.unwrap();
    let error = task.answers(&mut lines).unwrap_err();
    assert!(matches!(error, ClientError::Protocol(_)), "{error}");
    assert_eq!(task.shared.lock().results.take().count(), 1, "the first had been sent");
    assert_eq!(task.shared.lock().pending.len(), 1);
}

#[test]
fn a_ping_is_sent_again_before_what_was_not_sent_yet() {
    let mut task = task("PING\nPUB t b\n", 5, "");
    let (sender, mut answer) = oneshot::channel();
    task.shared.lock().pending[0].waiter = Waiter::Ping(sender);
    task.lost(&ClientError::disconnected("a test cut it"));
    let state = task.shared.lock();
    assert_eq!(String::from_utf8_lossy(&state.out), "PING\nPUB t b\n");
    assert_eq!(state.pending.iter().map(|pending| pending.end).collect::<Vec<_>>(), [5, 13]);
    drop(state);
    assert!(answer.try_recv().is_err(), "it still waits");
}

/// The client's share of the cost of a message; the rest is the broker's.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement: run it in release with --nocapture"]
async fn bulk_publishing_is_fast() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = Arc::new(Options::new(listener.local_addr().unwrap().to_string()));
    // A broker that does nothing: one answer for each LF.
    let (count, message) = (3_000_000u64, [b'x'; 100]);
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.write_all(b"OK connected\n").await.unwrap();
        let (mut buffer, mut answers) = (vec![0; 256 << 10], Vec::new());
        loop {
            let read = tokio::io::AsyncReadExt::read(&mut socket, &mut buffer).await.unwrap();
            if read == 0 {
                return;
            }
            answers.clear();
            for _ in memchr::memchr_iter(b'\n', &buffer[..read]) {
                answers.extend_from_slice(b"OK published msg_1758865780040_e10628bb1 12345678\n");
            }
            socket.write_all(&answers).await.unwrap();
        }
    });
    let connection = Connection::open(&options).await.unwrap();
    let topic = TopicName::parse(b"bench").unwrap();
    let mut publisher = super::super::Publisher::new(Pipe::new(connection, options), topic);
    let started = crate::time::Moment::read();
    for _ in 0..count {
        publisher.send(&message).await.unwrap();
    }
    let summary = publisher.finish().await;
    let took = crate::time::Moment::read().since(started);
    println!("{:.0} messages a second", count as f64 / took.as_secs_f64());
    assert_eq!((summary.published, summary.failed), (count, 0));
}

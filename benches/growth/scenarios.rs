//! What grows.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::client::{Client, answers, member, publish};

/// A scenario; told whether to take its time.
type Run = fn(bool) -> Pin<Box<dyn Future<Output = ()>>>;

/// By name, with a title.
pub(crate) const SCENARIOS: [(&str, &str, Run); 12] = [
    ("topics", "Messages published to so many topics in turn", |_| Box::pin(topics())),
    ("groups", "So many groups on a topic, each of which gets every message", |_| {
        Box::pin(groups())
    }),
    ("members", "So many members of a group, one connection each", |_| Box::pin(members())),
    ("memberships", "So many groups that one connection is in, of which one gets messages", |_| {
        Box::pin(memberships())
    }),
    ("follows", "So many topics that one connection follows, of which one gets messages", |_| {
        Box::pin(follows())
    }),
    ("connections", "So many connections, each of which publishes now and then", |_| {
        Box::pin(connections())
    }),
    ("backlog", "So many messages wait for a group while more are published", |l| {
        Box::pin(backlog(l))
    }),
    ("slow", "A fast group alone, and beside one that handles nothing", |_| Box::pin(slow())),
    (
        "behind",
        "So many subscribers that read nothing, and as many groups that handle nothing",
        |_| Box::pin(behind()),
    ),
    ("history", "Reading from disk and publishing, alone and together", |_| Box::pin(history())),
    ("size", "Bytes of a message", |_| Box::pin(size())),
    ("start", "Starting with so many messages, or topics", |l| Box::pin(start(l))),
];

/// What one run used.
struct Meter {
    begin: Instant,
    cpu: f64,
}

impl Meter {
    fn start(broker: &Broker) -> Self {
        Self { begin: Instant::now(), cpu: broker.cpu() }
    }

    /// Prints a line of a table: what grows, and what each of `count` messages took.
    fn line(&self, broker: &Broker, what: &str, count: u64) {
        let seconds = self.begin.elapsed().as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let count = count as f64;
        let cpu = (broker.cpu() - self.cpu) / count;
        let (memory, files) = (broker.memory_max(), broker.files());
        let rate = count / seconds;
        println!("{what:>20} {cpu:>9.2} µs {rate:>12.0}/s {memory:>9.1} MiB {files:>7} files");
    }
}

/// How long nothing may be handled while something waits to be. Groups get their next message within
/// milliseconds; what was not acknowledged comes again after 30 s.
const STILL_MAX: Duration = Duration::from_secs(60);

/// Waits until the counter is there. Fails when the broker has ended, or nothing comes any more.
async fn reach(broker: &mut Broker, counter: &AtomicU64, count: u64) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let now = counter.load(Ordering::Relaxed);
        if now >= count {
            return;
        }
        if let Some(status) = broker.ended() {
            panic!("the broker ended when {now} of {count} messages were handled: {status}");
        }
        if now > last {
            (last, since) = (now, Instant::now());
        }
        let still = since.elapsed();
        assert!(
            still < STILL_MAX,
            "{now} of {count} messages were handled, and none for {still:?}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn topics() {
    for topics in [1, 1000, 20_000] {
        let broker = Broker::new(5);
        // Topics are made first.
        publish(broker.addr, topics, topics, 100).await;
        let count = 200_000;
        let meter = Meter::start(&broker);
        publish(broker.addr, topics, count, 100).await;
        meter.line(&broker, &format!("{topics} topics"), count);
    }
}

async fn groups() {
    for (groups, count) in [(1, 100_000), (10, 10_000), (1000, 200)] {
        let mut broker = Broker::new(100);
        let handled = Arc::new(AtomicU64::new(0));
        for group in 0..groups {
            drop(member(broker.addr, 1, format!("g{group}"), Arc::clone(&handled)).await);
        }
        let meter = Meter::start(&broker);
        publish(broker.addr, 1, count, 100).await;
        reach(&mut broker, &handled, groups * count).await;
        meter.line(&broker, &format!("{groups} groups"), groups * count);
    }
}

async fn members() {
    for members in [1, 100, 10_000] {
        let mut broker = Broker::new(5);
        let handled = Arc::new(AtomicU64::new(0));
        for _ in 0..members {
            drop(member(broker.addr, 1, "g".to_owned(), Arc::clone(&handled)).await);
        }
        let count = 50_000;
        let meter = Meter::start(&broker);
        publish(broker.addr, 1, count, 100).await;
        reach(&mut broker, &handled, count).await;
        meter.line(&broker, &format!("{members} members"), count);
    }
}

async fn memberships() {
    for topics in [1, 100, 10_000] {
        let mut broker = Broker::new(100);
        let handled = Arc::new(AtomicU64::new(0));
        drop(member(broker.addr, topics, "g".to_owned(), Arc::clone(&handled)).await);
        let count = 200_000;
        let meter = Meter::start(&broker);
        publish(broker.addr, 1, count, 100).await;
        reach(&mut broker, &handled, count).await;
        meter.line(&broker, &format!("in {topics} groups"), count);
    }
}

async fn follows() {
    for topics in [1, 100, 10_000] {
        let broker = Broker::new(5);
        let mut client = Client::new(broker.addr).await;
        for topic in 0..topics {
            client.send(&format!("SUB t{topic}")).await;
            client.expect("OK subscribed").await;
        }
        // Each publisher waits for its answers now and then: what is new comes in many small batches.
        let (publishers, rounds, at_once) = (16, 200, 100);
        let count = publishers * rounds * at_once;
        let meter = Meter::start(&broker);
        let mut writing = JoinSet::new();
        for _ in 0..publishers {
            let addr = broker.addr;
            writing.spawn(async move {
                for _ in 0..rounds {
                    publish(addr, 1, at_once, 100).await;
                }
            });
        }
        answers(client.lines, count).await;
        meter.line(&broker, &format!("follows {topics}"), count);
    }
}

async fn connections() {
    for connections in [10u32, 1000, 10_000] {
        let broker = Broker::new(5);
        let before = broker.memory();
        let mut clients = Vec::new();
        for _ in 0..connections {
            clients.push(Client::new(broker.addr).await);
        }
        let idle = (broker.memory() - before) * 1024.0 / f64::from(connections);
        // In every case as many in all, a hundred at a time.
        let rounds = 20_000 / connections;
        let meter = Meter::start(&broker);
        for _ in 0..rounds {
            for some in clients.chunks_mut(100) {
                for client in some.iter_mut() {
                    client.send("PUB t0 now and then").await;
                }
                for client in some {
                    client.expect("OK published").await;
                }
            }
        }
        let count = u64::from(rounds * connections);
        meter.line(&broker, &format!("{connections} connections"), count);
        println!("{:>20} {idle:>9.2} KiB for each that does nothing", "");
    }
}

async fn backlog(is_large: bool) {
    let large = if is_large { 10_000_000 } else { 1_000_000 };
    for waiting in [1000, large] {
        let mut broker = Broker::new(100);
        let mut client = Client::new(broker.addr).await;
        client.send("SUB t0 g").await;
        client.expect("OK subscribed").await;
        drop(client);
        publish(broker.addr, 1, waiting, 100).await;
        println!("{:>20} {:>9.1} MiB while they wait", waiting, broker.memory());
        let meter = Meter::start(&broker);
        publish(broker.addr, 1, 500_000, 100).await;
        meter.line(&broker, "published", 500_000);
        let handled = Arc::new(AtomicU64::new(0));
        let meter = Meter::start(&broker);
        drop(member(broker.addr, 1, "g".to_owned(), Arc::clone(&handled)).await);
        reach(&mut broker, &handled, 500_000).await;
        meter.line(&broker, "handled", 500_000);
    }
}

async fn slow() {
    for is_beside in [false, true] {
        let mut broker = Broker::new(100);
        let mut deaf = Client::new(broker.addr).await;
        if is_beside {
            deaf.send("SUB t0 slow").await;
            deaf.expect("OK subscribed").await;
        }
        let handled = Arc::new(AtomicU64::new(0));
        drop(member(broker.addr, 1, "fast".to_owned(), Arc::clone(&handled)).await);
        let count = 200_000;
        let meter = Meter::start(&broker);
        publish(broker.addr, 1, count, 100).await;
        reach(&mut broker, &handled, count).await;
        meter.line(&broker, if is_beside { "beside a slow one" } else { "alone" }, count);
    }
}

async fn behind() {
    for deaf in [0, 10, 1000] {
        let broker = Broker::new(5);
        let mut clients = Vec::new();
        for n in 0..deaf {
            for line in ["SUB t0".to_owned(), format!("SUB t0 g{n}")] {
                let mut client = Client::new(broker.addr).await;
                client.send(&line).await;
                client.expect("OK subscribed").await;
                clients.push(client);
            }
        }
        let count = 500_000;
        let meter = Meter::start(&broker);
        publish(broker.addr, 1, count, 100).await;
        meter.line(&broker, &format!("{deaf} of each"), count);
    }
}

async fn history() {
    let broker = Broker::new(5);
    // Together they take about as long.
    let (stored, published) = (4_000_000, 2_000_000);
    publish(broker.addr, 1, stored, 100).await;
    let addr = broker.addr;
    let read = async move || {
        let mut client = Client::new(addr).await;
        client.send(&format!("HISTORY t0 {stored}")).await;
        answers(client.lines, stored + 1).await;
    };
    let write = async move || publish(addr, 1, published, 100).await;
    let meter = Meter::start(&broker);
    read().await;
    meter.line(&broker, "read alone", stored);
    let meter = Meter::start(&broker);
    write().await;
    meter.line(&broker, "published alone", published);
    let meter = Meter::start(&broker);
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        let begin = Instant::now();
        read().await;
        begin.elapsed()
    });
    let begin = Instant::now();
    write().await;
    let wrote = begin.elapsed();
    let read = reading.join_next().await.expect("it was spawned").expect("it does not panic");
    meter.line(&broker, "both", stored + published);
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = |count: u64, time: Duration| count as f64 / time.as_secs_f64();
    let (read, wrote) = (rate(stored, read), rate(published, wrote));
    println!("{:>20} {read:.0}/s read, {wrote:.0}/s published", "of which");
}

async fn size() {
    for (size, count) in [(100, 400_000), (10_000, 20_000), (1 << 20, 400)] {
        let broker = Broker::new(5);
        let meter = Meter::start(&broker);
        publish(broker.addr, 1, count, size).await;
        meter.line(&broker, &format!("{size} B"), count);
    }
}

async fn start(is_large: bool) {
    let large = if is_large { 10_000_000 } else { 1_000_000 };
    for (topics, messages) in [(1, 1000), (1, large), (20_000, 20_000)] {
        let broker = Broker::new(5);
        publish(broker.addr, topics, messages, 100).await;
        let broker = broker.again(false, 5);
        let clean = broker.start_ms;
        publish(broker.addr, topics, topics.max(1000), 100).await;
        let broker = broker.again(true, 5);
        let what = if topics > 1 { format!("{topics} topics") } else { format!("{messages}") };
        let (killed, memory) = (broker.start_ms, broker.memory());
        println!("{what:>20} {clean:>6} ms stopped {killed:>6} ms killed {memory:>6.1} MiB");
    }
}

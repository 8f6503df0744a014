//! What grows.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::broker::Broker;
use crate::client::{Client, Flood, answers, member, publish};

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
    /// How long it took, if it is over.
    took: Option<Duration>,
}

impl Meter {
    fn start(broker: &Broker) -> Self {
        Self { begin: Instant::now(), cpu: broker.cpu(), took: None }
    }

    /// The rate counts up to here, and processor time goes on being counted.
    fn stop(&mut self) {
        self.took = Some(self.begin.elapsed());
    }

    /// Prints a line of a table: what grows, and what each of `count` messages took.
    fn line(&self, broker: &Broker, what: &str, count: u64) {
        let seconds = self.took.unwrap_or_else(|| self.begin.elapsed()).as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let count = count as f64;
        let cpu = (broker.cpu() - self.cpu) / count;
        let (memory, files) = (broker.memory_max(), broker.files());
        let rate = count / seconds;
        println!("{what:>20} {cpu:>9.2} µs {rate:>12.0}/s {memory:>9.1} MiB {files:>7} files");
    }
}

/// Waits until the broker has nothing to do any more: lines may wait for a quarter of a second, and the
/// files of many topics take some time to be made.
async fn quiet(broker: &Broker) {
    const LOOK: Duration = Duration::from_millis(500);
    /// Of processor time, in microseconds.
    const LITTLE: f64 = 5000.0;
    loop {
        let before = broker.cpu();
        tokio::time::sleep(LOOK).await;
        if broker.cpu() < before + LITTLE {
            return;
        }
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
        // Topics are made first, and their files.
        publish(broker.addr, topics, topics, 100).await;
        quiet(&broker).await;
        let count = 1_000_000;
        let mut meter = Meter::start(&broker);
        publish(broker.addr, topics, count, 100).await;
        meter.stop();
        // Lines that wait are part of the work.
        quiet(&broker).await;
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

/// How often reading and publishing are measured alone and together: in turn, since what the machine
/// has to give changes, and what a virtual one's memory costs as well.
const TURNS: usize = 5;

async fn history() {
    let broker = Broker::new(5);
    let stored = 4_000_000;
    publish(broker.addr, 1, stored, 100).await;
    // Requests of a reader are small, and each asks for all that was there at the beginning.
    let read = format!("HISTORY t0 {stored}\n");
    let write = format!("PUB t0 {}\n", "x".repeat(100)).repeat(600);
    println!("{:>20} {:^32}  {:^32}", "", "read a second", "published a second");
    let alone = "alone  together";
    println!("{:>20} {alone:>23}     lost  {alone:>23}     lost", "");
    let mut lost: [Vec<f64>; 2] = Default::default();
    for turn in 1..=TURNS {
        let [reading, _] = rates(broker.addr, [Some(&read), None]).await;
        let [_, writing] = rates(broker.addr, [None, Some(&write)]).await;
        let both = rates(broker.addr, [Some(&read), Some(&write)]).await;
        print!("{turn:>20}");
        for (of, (alone, together)) in [reading, writing].into_iter().zip(both).enumerate() {
            let part = 100.0 * (1.0 - together / alone);
            print!("  {alone:>12.0} {together:>9.0} {part:>6.0} %");
            lost[of].push(part);
        }
        println!();
    }
    let [reading, writing] = lost.map(|mut lost| {
        lost.sort_by(f64::total_cmp);
        lost[TURNS / 2]
    });
    println!("{:>20}  {reading:>29.0} %  {writing:>30.0} %", "median");
    let (memory, files) = (broker.memory_max(), broker.files());
    println!("{:>20} {memory:>9.1} MiB {files:>7} files", "in all");
}

/// The answers a second to each request, of which those that are there are sent without a pause at the
/// same time.
async fn rates(addr: SocketAddr, requests: [Option<&String>; 2]) -> [f64; 2] {
    const BEFORE: Duration = Duration::from_millis(150);
    const MEASURED: Duration = Duration::from_millis(600);
    let counters: [Arc<AtomicU64>; 2] = Default::default();
    let mut clients = Vec::new();
    for (request, counter) in requests.into_iter().zip(&counters) {
        if let Some(request) = request {
            clients.push(Flood::new(addr, request.clone(), Arc::clone(counter)));
        }
    }
    tokio::time::sleep(BEFORE).await;
    let begin = Instant::now();
    let before = counters.each_ref().map(|counter| counter.load(Ordering::Relaxed));
    tokio::time::sleep(MEASURED).await;
    let after = counters.each_ref().map(|counter| counter.load(Ordering::Relaxed));
    let seconds = begin.elapsed().as_secs_f64();
    drop(clients);
    // What they had on their way is done when this is answered.
    publish(addr, 1, 1, 100).await;
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    std::array::from_fn(|of| (after[of] - before[of]) as f64 / seconds)
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

//! Publishing: order, errors, lost connections.

use super::*;

#[tokio::test]
async fn many_publishes_run_at_once_and_each_gets_its_own_answer() {
    let broker = Broker::start().await;
    let (client, mut peer) = broker.client(broker.options()).await;
    let script = async {
        peer.expect("PUB chat one").await;
        peer.expect("PUB chat  two ").await;
        peer.expect("PUB chat ").await;
        peer.say("OK published msg_1 1").await;
        peer.say("MSG chat msg_1 1 1.0 pushed between answers").await;
        peer.say("ERR MSG_TOO_BIG too big size=5 max=4").await;
        peer.say("INFO a line of a later version").await;
        peer.say("OK published msg_2 2").await;
    };
    let chat = topic("chat");
    let test = async {
        let (one, two, three) = tokio::join!(
            client.publish(&chat, b"one"),
            client.publish(&chat, b" two "),
            client.publish(&chat, b""),
        );
        assert_eq!(one.unwrap(), Published { id: "msg_1".to_owned(), offset: Offset::new(1) });
        let refused = "the broker refused: MSG_TOO_BIG too big size=5 max=4";
        assert_eq!(two.unwrap_err().to_string(), refused);
        assert_eq!(three.unwrap().id, "msg_2");
    };
    within(async { tokio::join!(script, test) }).await;
}

#[tokio::test]
async fn answers_say_whether_to_try_again() {
    let broker = Broker::start().await;
    let (client, mut peer) = broker.client(broker.options()).await;
    let script = async {
        for answer in [
            "ERR DISK_FULL no room retry_after=5s",
            "ERR TIMEOUT took too long",
            "ERR OF_TOMORROW never heard",
            "OK pong",
        ] {
            peer.expect("PUB chat x").await;
            peer.say(answer).await;
        }
    };
    let chat = topic("chat");
    let test = async {
        let error = client.publish(&chat, b"x").await.unwrap_err();
        assert!(matches!(error, ClientError::TryAgain { code, .. } if code == "DISK_FULL"));
        let error = client.publish(&chat, b"x").await.unwrap_err();
        assert!(matches!(error, ClientError::OutcomeUnknown));
        let error = client.publish(&chat, b"x").await.unwrap_err();
        assert!(matches!(error, ClientError::Refused { code, .. } if code == "OF_TOMORROW"));
        let error = client.publish(&chat, b"x").await.unwrap_err();
        assert!(matches!(error, ClientError::Protocol(_)));
    };
    within(async { tokio::join!(script, test) }).await;
}

#[tokio::test]
async fn a_message_that_a_line_cannot_carry_is_not_sent() {
    let broker = Broker::start().await;
    let (client, mut peer) = broker.client(broker.options()).await;
    for message in [&b"two\nlines"[..], b"\n", b"end\r"] {
        let error = client.publish(&topic("chat"), message).await.unwrap_err();
        assert!(matches!(error, ClientError::BadMessage(_)), "{error}");
    }
    drop(client);
    peer.expect_end().await;
}

#[tokio::test]
async fn an_answer_that_is_lost_is_an_unknown_outcome_and_nothing_is_sent_twice() {
    let broker = Broker::start().await;
    let options = Options { window: 2, ..broker.options() };
    let (client, mut peer) = broker.client(options).await;
    let script = async {
        peer.expect("PUB chat one").await;
        peer.expect("PUB chat two").await;
        peer.say("OK published msg_1 1").await;
        // Room for the third: it is sent here, or on the next connection.
        drop(peer);
        let mut peer = broker.accept().await;
        let mut next = peer.hear().await.unwrap();
        if next == "PUB chat three" {
            peer.say("OK published msg_3 3").await;
            next = peer.hear().await.unwrap();
        }
        assert_eq!(next, "PUB chat four");
        peer.say("OK published msg_4 4").await;
    };
    let chat = topic("chat");
    let test = async {
        let (one, two, three) = tokio::join!(
            client.publish(&chat, b"one"),
            client.publish(&chat, b"two"),
            client.publish(&chat, b"three"),
        );
        assert_eq!(one.unwrap().id, "msg_1");
        assert!(matches!(two.unwrap_err(), ClientError::OutcomeUnknown));
        assert!(matches!(three, Ok(_) | Err(ClientError::OutcomeUnknown)));
        assert_eq!(client.publish(&chat, b"four").await.unwrap().id, "msg_4");
    };
    within(async { tokio::join!(script, test) }).await;
}

#[tokio::test]
async fn a_client_that_cannot_come_back_says_so_and_tries_anew_with_the_next_command() {
    let broker = Broker::start().await;
    let mut options = broker.options();
    options.reconnect.attempts = Some(2);
    let (client, mut peer) = broker.client(options.clone()).await;
    let chat = topic("chat");
    let publish = client.publish(&chat, b"one");
    let script = async {
        peer.expect("PUB chat one").await;
        drop(peer);
    };
    let (one, ()) = within(async { tokio::join!(publish, script) }).await;
    assert!(matches!(one.unwrap_err(), ClientError::OutcomeUnknown));
    let addr = broker.listener.local_addr().unwrap();
    drop(broker);
    let error = within(client.publish(&chat, b"two")).await.unwrap_err();
    assert!(matches!(error, ClientError::CannotConnect { .. }), "{error:?}");

    let broker = Broker { listener: TcpListener::bind(addr).await.unwrap() };
    let script = async {
        let mut peer = broker.accept().await;
        peer.expect("PUB chat three").await;
        peer.say("OK published msg_1 1").await;
        peer
    };
    let (three, _peer) =
        within(async { tokio::join!(client.publish(&chat, b"three"), script) }).await;
    assert_eq!(three.unwrap().id, "msg_1");
}

#[tokio::test]
async fn closing_without_a_connection_needs_none() {
    let broker = Broker::start().await;
    let (client, mut peer) = broker.client(broker.options()).await;
    let chat = topic("chat");
    let script = async {
        peer.expect("PUB chat one").await;
        drop(peer);
    };
    let (one, ()) = within(async { tokio::join!(client.publish(&chat, b"one"), script) }).await;
    assert!(matches!(one.unwrap_err(), ClientError::OutcomeUnknown));
    within(client.close()).await.unwrap();
}

#[tokio::test]
async fn a_publisher_gives_results_in_order_and_a_sum() {
    let broker = Broker::start().await;
    let (client, _peer) = broker.client(Options { window: 3, ..broker.options() }).await;
    let script = async {
        let mut peer = broker.accept().await;
        for number in 1..=100 {
            peer.expect(&format!("PUB chat message {number}")).await;
            if number == 50 {
                peer.say("ERR BUSY for a moment").await;
            } else {
                peer.say(&format!("OK published msg_{number} {number}")).await;
            }
        }
        peer.expect_end().await;
    };
    let test = async {
        let mut publisher = client.publisher(&topic("chat")).await.unwrap();
        let mut numbers = Vec::new();
        for number in 1..=100 {
            publisher.send(format!("message {number}").as_bytes()).await.unwrap();
            assert!(publisher.unanswered() <= 3, "the window holds");
            numbers.extend(publisher.take_completed().map(|done| (done.number, done.result)));
        }
        while let Some(done) = publisher.completed().await {
            numbers.push((done.number, done.result));
        }
        for (at, (number, result)) in numbers.iter().enumerate() {
            assert_eq!(*number, at as u64);
            assert_eq!(result.is_err(), at == 49);
        }
        assert_eq!(numbers.len(), 100);
        let sum = publisher.finish().await;
        assert_eq!((sum.published, sum.failed, sum.last), (99, 1, Some(Offset::new(100))));
        assert!(matches!(sum.first_error, Some(ClientError::TryAgain { .. })));
    };
    within(async { tokio::join!(script, test) }).await;
}

#[tokio::test]
async fn a_publisher_goes_on_behind_a_lost_connection() {
    let broker = Broker::start().await;
    let (client, _peer) = broker.client(Options { window: 2, ..broker.options() }).await;
    let script = async {
        let mut heard = Vec::new();
        let mut peer = broker.accept().await;
        heard.extend(peer.hear().await);
        drop(peer);
        loop {
            let mut peer = broker.accept().await;
            while let Some(line) = peer.hear().await {
                peer.say("OK published msg_0 1").await;
                let last = line == "PUB chat 9";
                heard.push(line);
                if last {
                    return heard;
                }
            }
        }
    };
    let test = async {
        let mut publisher = client.publisher(&topic("chat")).await.unwrap();
        for number in 0..10 {
            publisher.send(number.to_string().as_bytes()).await.unwrap();
        }
        publisher.finish().await
    };
    let (heard, sum) = within(async { tokio::join!(script, test) }).await;
    let mut once = heard.clone();
    once.dedup();
    assert_eq!(once, heard, "nothing was sent twice");
    assert!(heard.is_sorted(), "{heard:?}");
    assert_eq!(sum.published + sum.failed, 10);
    assert!((1..=2).contains(&sum.failed), "at most a window is unknown: {sum:?}");
    assert!(matches!(sum.first_error, Some(ClientError::OutcomeUnknown)));
}

#[tokio::test]
async fn a_broker_that_answers_what_nobody_asked_is_not_believed() {
    let broker = Broker::start().await;
    let (client, mut peer) = broker.client(broker.options()).await;
    peer.say("OK published msg_1 1").await;
    peer.expect_end().await;
    let script = async {
        let mut peer = broker.accept().await;
        peer.expect("PING").await;
        peer.say("OK pong").await;
        peer
    };
    let (ping, _peer) = within(async { tokio::join!(client.ping(), script) }).await;
    ping.unwrap();
}

//! Subscriptions: order, acknowledgments, liveness, lost connections.

use super::*;

/// A subscription and the broker's end of its connection, subscribed.
async fn subscribe(
    broker: &Broker,
    client: &Client,
    group: Option<&GroupName>,
) -> (Subscription, Peer) {
    let script = async {
        let mut peer = broker.accept().await;
        match group {
            None => {
                peer.expect("HISTORY chat 1").await;
                peer.expect("SUB chat").await;
                peer.say("OK history end").await;
                peer.say("OK subscribed chat").await;
            }
            Some(group) => {
                peer.expect(&format!("SUB chat {group}")).await;
                peer.say(&format!("OK subscribed chat in group {group}")).await;
            }
        }
        peer
    };
    let chat = topic("chat");
    let (subscription, peer) =
        within(async { tokio::join!(client.subscribe(&chat, group), script) }).await;
    (subscription.unwrap(), peer)
}

async fn next(subscription: &mut Subscription) -> String {
    let message = within(subscription.next()).await.unwrap().expect("a message");
    String::from_utf8_lossy(message.body()).into_owned()
}

fn msg(offset: u64, body: &str) -> String {
    format!("MSG chat msg_{offset} {offset} {offset}.5 {body}")
}

fn past(offset: u64, body: &str) -> String {
    msg(offset, body).replacen("MSG", "HISTORY", 1)
}

#[tokio::test]
async fn a_plain_subscription_gives_messages_with_all_their_parts() {
    let broker = Broker::start().await;
    let (client, _peer) = broker.client(broker.options()).await;
    let (mut subscription, mut peer) = subscribe(&broker, &client, None).await;
    peer.say(&msg(1, " first ")).await;
    let message = within(subscription.next()).await.unwrap().unwrap();
    assert_eq!((message.topic(), message.id(), message.ts()), ("chat", "msg_1", "1.5"));
    assert_eq!((message.offset(), message.body()), (Offset::new(1), &b" first "[..]));
    assert_eq!(message.line(), b"MSG chat msg_1 1 1.5  first ");
    peer.say(&msg(2, "")).await;
    assert_eq!(next(&mut subscription).await, "");
}

#[tokio::test]
async fn a_plain_subscription_goes_on_without_a_gap_or_a_double() {
    let broker = Broker::start().await;
    let (client, _peer) = broker.client(broker.options()).await;
    let (mut subscription, mut peer) = subscribe(&broker, &client, None).await;
    peer.say(&msg(1, "one")).await;
    assert_eq!(next(&mut subscription).await, "one");
    drop(peer);
    let script = async {
        // One that fails right away, and one that is lost in the middle of the history.
        drop(broker.accept_silently().await);
        let mut peer = broker.accept().await;
        peer.expect("SUB chat").await;
        peer.expect("HISTORY chat 1").await;
        peer.say("OK subscribed chat").await;
        peer.say(&past(3, "three")).await;
        peer.say("OK history end").await;
        peer.expect("HISTORY chat 18").await;
        peer.say(&past(1, "one")).await;
        peer.say(&past(2, "two")).await;
        drop(peer);
        let mut peer = broker.accept().await;
        peer.expect("SUB chat").await;
        peer.expect("HISTORY chat 1").await;
        peer.say("OK subscribed chat").await;
        peer.say(&msg(5, "five")).await;
        peer.say(&past(5, "five")).await;
        peer.say("OK history end").await;
        peer.expect(&format!("HISTORY chat {}", 3 + 16)).await;
        for (offset, body) in [(1, "one"), (2, "two"), (3, "three"), (4, "four"), (5, "five")] {
            peer.say(&past(offset, body)).await;
        }
        peer.say(&msg(6, "six")).await;
        peer.say("OK history end").await;
        peer.say(&msg(7, "seven")).await;
        peer
    };
    let test = async {
        for body in ["two", "three", "four", "five", "six", "seven"] {
            assert_eq!(next(&mut subscription).await, body);
        }
    };
    within(async { tokio::join!(script, test) }).await;
}

#[tokio::test]
async fn a_subscription_lost_before_its_first_message_misses_nothing() {
    let broker = Broker::start().await;
    let (client, _peer) = broker.client(broker.options()).await;
    let chat = topic("chat");
    let script = async {
        let mut peer = broker.accept().await;
        peer.expect("HISTORY chat 1").await;
        peer.expect("SUB chat").await;
        peer.say(&past(4, "before")).await;
        peer.say("OK history end").await;
        peer.say("OK subscribed chat").await;
        drop(peer);
        let mut peer = broker.accept().await;
        peer.expect("SUB chat").await;
        peer.expect("HISTORY chat 1").await;
        peer.say("OK subscribed chat").await;
        peer.say(&past(5, "meanwhile")).await;
        peer.say("OK history end").await;
        peer.say(&msg(6, "after")).await;
        peer
    };
    let test = async {
        let mut subscription = client.subscribe(&chat, None).await.unwrap();
        assert_eq!(next(&mut subscription).await, "meanwhile");
        assert_eq!(next(&mut subscription).await, "after");
        subscription
    };
    within(async { tokio::join!(script, test) }).await;
}

#[tokio::test]
async fn a_damaged_message_does_not_end_a_subscription() {
    let broker = Broker::start().await;
    let (client, _peer) = broker.client(broker.options()).await;
    let chat = topic("chat");
    let damaged = |offset| format!("ERR CORRUPT message {offset} topic=chat offset={offset}");
    let script = async {
        // The newest one when it begins.
        let mut peer = broker.accept().await;
        peer.expect("HISTORY chat 1").await;
        peer.expect("SUB chat").await;
        peer.say(&damaged(4)).await;
        peer.say("OK subscribed chat").await;
        drop(peer);
        // The newest one of those that were missed, and one before it.
        let mut peer = broker.accept().await;
        peer.expect("SUB chat").await;
        peer.expect("HISTORY chat 1").await;
        peer.say("OK subscribed chat").await;
        peer.say(&damaged(8)).await;
        peer.expect(&format!("HISTORY chat {}", 4 + 16)).await;
        for (offset, body) in [(3, "three"), (5, "five"), (7, "seven")] {
            peer.say(&past(offset, body)).await;
        }
        peer.say(&damaged(4)).await;
        // One that is passed over, since it is damaged.
        peer.say(&msg(9, "nine")).await;
        peer.say(&msg(11, "eleven")).await;
        peer.expect("HISTORY chat 2").await;
        peer.say(&past(11, "eleven")).await;
        peer.say(&damaged(10)).await;
        peer.expect(&format!("HISTORY chat {}", 1 + 16)).await;
        peer.say(&past(9, "nine")).await;
        peer.say(&past(11, "eleven")).await;
        peer.say(&damaged(4)).await;
        peer.say(&msg(12, "twelve")).await;
        peer
    };
    let test = async {
        let mut subscription = client.subscribe(&chat, None).await.unwrap();
        for expected in [
            Ok("five"),
            Err((5, 7)),
            Ok("seven"),
            Err((7, 9)),
            Ok("nine"),
            Err((9, 11)),
            Ok("eleven"),
            Ok("twelve"),
        ] {
            match (subscription.next().await, expected) {
                (Ok(Some(message)), Ok(body)) => assert_eq!(message.body(), body.as_bytes()),
                (Err(ClientError::Gap { after, next, .. }), Err(gap)) => {
                    assert_eq!((after.get(), next.get()), gap);
                }
                (other, expected) => panic!("{other:?} instead of {expected:?}"),
            }
        }
    };
    within(async { tokio::join!(script, test) }).await;
}

#[tokio::test]
async fn a_message_between_an_ack_and_its_answer_is_not_lost() {
    let broker = Broker::start().await;
    let (client, _peer) = broker.client(broker.options()).await;
    let workers = group("workers");
    let (mut subscription, mut peer) = subscribe(&broker, &client, Some(&workers)).await;
    peer.say(&msg(1, "one")).await;
    let one = within(subscription.next()).await.unwrap().unwrap();
    let script = async {
        peer.expect("ACK msg_1").await;
        peer.say(&msg(2, "two")).await;
        peer.say("OK ack_received").await;
        peer.expect("ACK msg_1").await;
        peer.say(&msg(3, "three")).await;
        peer.say("ERR NOT_PENDING message msg_1 not found in pending messages").await;
    };
    let test = async {
        subscription.ack(&one).await.unwrap();
        let error = subscription.acker().ack(&one).await.unwrap_err();
        assert!(matches!(error, ClientError::Refused { code, .. } if code == "NOT_PENDING"));
        assert_eq!(next(&mut subscription).await, "two");
        assert_eq!(next(&mut subscription).await, "three");
    };
    within(async { tokio::join!(script, test) }).await;
}

#[tokio::test]
async fn a_refused_ack_that_nobody_waited_for_comes_out_of_next() {
    let broker = Broker::start().await;
    let (client, _peer) = broker.client(broker.options()).await;
    let workers = group("workers");
    let (mut subscription, mut peer) = subscribe(&broker, &client, Some(&workers)).await;
    peer.say(&msg(1, "one")).await;
    let one = within(subscription.next()).await.unwrap().unwrap();
    subscription.ack_unanswered(&one).await.unwrap();
    subscription.ack_unanswered(&one).await.unwrap();
    peer.expect("ACK msg_1").await;
    peer.expect("ACK msg_1").await;
    peer.say("OK ack_received").await;
    peer.say("ERR NOT_PENDING message msg_1 not found in pending messages").await;
    let error = within(subscription.next()).await.unwrap_err();
    assert!(matches!(&error, ClientError::AckRefused { id, .. } if id == "msg_1"), "{error}");
    peer.say(&msg(2, "two")).await;
    assert_eq!(next(&mut subscription).await, "two");
}

#[tokio::test]
async fn a_member_joins_again_and_sends_unanswered_acks_again() {
    let broker = Broker::start().await;
    let (client, _peer) = broker.client(broker.options()).await;
    let workers = group("workers");
    let (mut subscription, mut peer) = subscribe(&broker, &client, Some(&workers)).await;
    peer.say(&msg(1, "one")).await;
    peer.say(&msg(2, "two")).await;
    let one = within(subscription.next()).await.unwrap().unwrap();
    let two = within(subscription.next()).await.unwrap().unwrap();
    let script = async {
        peer.expect("ACK msg_1").await;
        peer.expect("ACK msg_2").await;
        drop(peer);
        let mut peer = broker.accept().await;
        peer.expect("SUB chat workers").await;
        peer.expect("ACK msg_1").await;
        peer.expect("ACK msg_2").await;
        peer.say("OK subscribed chat in group workers").await;
        peer.say(&msg(1, "one again")).await;
        peer.say("OK ack_received").await;
        peer.say("ERR NOT_PENDING message msg_2 not found in pending messages").await;
        peer
    };
    let test = async {
        let (first, second) = tokio::join!(subscription.ack(&one), subscription.ack(&two));
        first.unwrap();
        assert!(matches!(second.unwrap_err(), ClientError::OutcomeUnknown));
        assert_eq!(next(&mut subscription).await, "one again");
    };
    within(async { tokio::join!(script, test) }).await;
}

#[tokio::test]
async fn a_member_says_that_it_lives_and_a_dead_broker_is_replaced() {
    let broker = Broker::start().await;
    let options = Options { heartbeat: Duration::from_millis(5), ..broker.options() };
    let (client, _peer) = broker.client(options).await;
    let workers = group("workers");
    let (mut subscription, mut peer) = subscribe(&broker, &client, Some(&workers)).await;
    for _ in 0..5 {
        peer.expect("HEARTBEAT").await;
        peer.say("OK heartbeat_received").await;
    }
    // The connection stands, but nobody answers any more.
    let mut next_peer = broker.accept().await;
    next_peer.expect("SUB chat workers").await;
    next_peer.say("OK subscribed chat in group workers").await;
    next_peer.say(&msg(1, "one")).await;
    assert_eq!(next(&mut subscription).await, "one");
    drop(peer);
}

#[tokio::test]
async fn a_refused_subscription_says_why_and_one_that_cannot_go_on_ends() {
    let broker = Broker::start().await;
    let (client, _peer) = broker.client(broker.options()).await;
    let chat = topic("chat");
    let script = async {
        let mut peer = broker.accept().await;
        peer.expect("HISTORY chat 1").await;
        peer.say("OK history end").await;
        peer.say("ERR DENIED not yours").await;
        peer.expect("SUB chat").await;
    };
    let (refused, ()) = within(async { tokio::join!(client.subscribe(&chat, None), script) }).await;
    assert_eq!(refused.unwrap_err().to_string(), "the broker refused: DENIED not yours");

    let (mut subscription, peer) = subscribe(&broker, &client, None).await;
    drop(peer);
    let script = async {
        let mut peer = broker.accept().await;
        peer.expect("SUB chat").await;
        peer.say("ERR BUSY later").await;
        drop(peer);
        let mut peer = broker.accept().await;
        peer.expect("SUB chat").await;
        peer.say("ERR DENIED no longer yours").await;
    };
    let test = async {
        let error = subscription.next().await.unwrap_err();
        assert_eq!(error.to_string(), "the broker refused: DENIED no longer yours");
        assert_eq!(subscription.next().await.unwrap(), None, "it has ended");
    };
    within(async { tokio::join!(script, test) }).await;
}

#[tokio::test]
async fn dropping_unsubscribes_behind_the_last_acks_and_closing_waits_for_them() {
    let broker = Broker::start().await;
    let (client, _peer) = broker.client(broker.options()).await;
    let workers = group("workers");

    let (mut subscription, mut peer) = subscribe(&broker, &client, Some(&workers)).await;
    peer.say(&msg(1, "one")).await;
    let one = within(subscription.next()).await.unwrap().unwrap();
    subscription.ack_unanswered(&one).await.unwrap();
    drop(subscription);
    peer.expect("ACK msg_1").await;
    peer.expect("QUIT").await;
    peer.say("OK ack_received").await;
    peer.say("OK bye").await;
    peer.expect_end().await;

    let (mut subscription, mut peer) = subscribe(&broker, &client, Some(&workers)).await;
    peer.say(&msg(1, "one")).await;
    peer.say(&msg(2, "never taken")).await;
    let one = within(subscription.next()).await.unwrap().unwrap();
    let acker = subscription.acker();
    let script = async {
        peer.expect("ACK msg_1").await;
        peer.expect("QUIT").await;
        peer.say(&msg(3, "too late")).await;
        peer.say("OK ack_received").await;
        peer.say("OK bye").await;
        peer.expect_end().await;
    };
    let (ack, close, ()) =
        within(async { tokio::join!(acker.ack(&one), subscription.close(), script) }).await;
    ack.unwrap();
    close.unwrap();
}

#[tokio::test]
async fn a_consumer_that_takes_nothing_makes_its_socket_wait() {
    let broker = Broker::start().await;
    let (client, _peer) = broker.client(broker.options()).await;
    let (mut subscription, mut peer) = subscribe(&broker, &client, None).await;
    let body = "x".repeat(1000);
    // Far more than the buffers of two sockets and the bounded queue hold together.
    let count = 100_000u64;
    let mut sending = tokio::spawn(async move {
        for offset in 1..=count {
            peer.say(&msg(offset, &body)).await;
        }
        peer
    });
    let stuck = timeout(Duration::from_secs(1), &mut sending).await;
    assert!(stuck.is_err(), "the broker cannot send on while nobody takes");
    for offset in 1..=count {
        let message = within(subscription.next()).await.unwrap().unwrap();
        assert_eq!(message.offset().get(), offset);
    }
    within(sending).await.unwrap();
}

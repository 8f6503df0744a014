//! The brokers that are compared: how each is set up, found, started and stopped.

mod find;
mod install;
mod server;
mod start;
mod watchdog;

use crate::protocol::Protocol;
use crate::protocol::amqp::Amqp;
use crate::protocol::beanstalk::Beanstalk;
use crate::protocol::jetstream::JetStream;
use crate::protocol::nats::Nats;
use crate::protocol::resp::{PubSub, Streams};
use crate::protocol::wiber::Wiber;

pub(crate) use find::{Found, find};
pub(crate) use install::{can_install, install};
pub(crate) use server::Server;
pub(crate) use watchdog::Watchdog;

/// A broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Wiber,
    Redis,
    Valkey,
    Nats,
    Beanstalkd,
    Rabbitmq,
}

impl Peer {
    pub(crate) const ALL: [Self; 6] =
        [Self::Wiber, Self::Redis, Self::Valkey, Self::Nats, Self::Beanstalkd, Self::Rabbitmq];

    /// As flags and results name it.
    pub(crate) fn id(self) -> &'static str {
        match self {
            Self::Wiber => "wiber",
            Self::Redis => "redis",
            Self::Valkey => "valkey",
            Self::Nats => "nats",
            Self::Beanstalkd => "beanstalkd",
            Self::Rabbitmq => "rabbitmq",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wiber => "Wiber",
            Self::Redis => "Redis",
            Self::Valkey => "Valkey",
            Self::Nats => "NATS",
            Self::Beanstalkd => "beanstalkd",
            Self::Rabbitmq => "RabbitMQ",
        }
    }
}

/// What an OK of the broker is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strength {
    /// The message was synced to disk, as with Wiber.
    Same,
    /// It was not: it may be lost with the machine, or is not stored at all.
    Weaker,
}

/// What a broker is used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Everything that it can.
    Everything,
    /// Publishing, and a message's way to a consumer.
    Messages,
    /// Plain subscribers only: nothing is stored.
    Plain,
}

/// A broker with the settings that it is measured with.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) id: &'static str,
    pub(crate) peer: Peer,
    /// The setting that tells it from others of the broker.
    pub(crate) mode: &'static str,
    pub(crate) strength: Strength,
    pub(crate) used_for: Use,
    /// Its settings, for people.
    pub(crate) settings: &'static str,
    /// The setup that stores the messages which this one is to find, where it would take too long
    /// over it itself. The files are the same.
    pub(crate) filled_by: Option<&'static str>,
    /// It gets the whole of `--messages` divided by this to work off: slower ones get fewer.
    pub(crate) share: u64,
}

impl Setup {
    pub(crate) fn name(&self) -> String {
        match self.mode {
            "" => self.peer.name().to_owned(),
            mode => format!("{} {mode}", self.peer.name()),
        }
    }

    pub(crate) fn protocol(&self) -> Box<dyn Protocol> {
        match (self.peer, self.used_for) {
            (Peer::Wiber, _) => Box::new(Wiber),
            (Peer::Redis | Peer::Valkey, Use::Plain) => Box::new(PubSub),
            (Peer::Redis | Peer::Valkey, _) => Box::new(Streams),
            (Peer::Nats, Use::Plain) => Box::new(Nats),
            (Peer::Nats, _) => Box::new(JetStream),
            (Peer::Beanstalkd, _) => Box::new(Beanstalk),
            (Peer::Rabbitmq, _) => Box::new(Amqp),
        }
    }

    pub(crate) fn by_id(id: &str) -> Option<&'static Self> {
        SETUPS.iter().find(|setup| setup.id == id)
    }
}

const SAME: Setup = Setup {
    id: "wiber",
    peer: Peer::Wiber,
    mode: "",
    strength: Strength::Same,
    used_for: Use::Everything,
    settings: "`fsync = always`, `delivery.prefetch = 1000`",
    filled_by: None,
    share: 1,
};

const WEAKER: Setup = Setup { strength: Strength::Weaker, ..SAME };

/// Everything that is measured, in the order of the tables.
pub(crate) static SETUPS: [Setup; 14] = [
    SAME,
    Setup {
        id: "wiber-asleep",
        mode: "asleep",
        used_for: Use::Messages,
        settings: "the same, `server.keep_awake = never`",
        ..SAME
    },
    Setup {
        id: "redis-always",
        peer: Peer::Redis,
        mode: "always",
        settings: "streams; `appendonly yes`, `appendfsync always`, no snapshots, no rewriting",
        ..SAME
    },
    Setup { id: "valkey-always", peer: Peer::Valkey, mode: "always", settings: "as Redis", ..SAME },
    Setup {
        id: "nats-always",
        peer: Peer::Nats,
        mode: "always",
        settings: "JetStream on files, one node, `sync_interval: always`",
        filled_by: Some("nats-default"),
        ..SAME
    },
    Setup {
        id: "beanstalkd-f0",
        peer: Peer::Beanstalkd,
        mode: "-f0",
        settings: "`-b <dir> -f0`",
        filled_by: Some("beanstalkd-f50"),
        share: 50,
        ..SAME
    },
    Setup {
        id: "rabbitmq-quorum",
        peer: Peer::Rabbitmq,
        mode: "quorum",
        settings: "quorum queue, persistent messages, publisher confirms, one node",
        share: 5,
        ..SAME
    },
    Setup {
        id: "redis-everysec",
        peer: Peer::Redis,
        mode: "everysec",
        settings: "the same with `appendfsync everysec`",
        ..WEAKER
    },
    Setup {
        id: "valkey-everysec",
        peer: Peer::Valkey,
        mode: "everysec",
        settings: "as Redis",
        ..WEAKER
    },
    Setup {
        id: "nats-default",
        peer: Peer::Nats,
        mode: "default",
        settings: "JetStream on files, one node, synced every two minutes",
        ..WEAKER
    },
    Setup {
        id: "beanstalkd-f50",
        peer: Peer::Beanstalkd,
        mode: "-f50",
        settings: "`-b <dir> -f50`: synced at most every 50 ms",
        ..WEAKER
    },
    Setup {
        id: "redis-pubsub",
        peer: Peer::Redis,
        mode: "pub/sub",
        used_for: Use::Plain,
        settings: "`PUBLISH` and `SUBSCRIBE`, which store nothing",
        ..WEAKER
    },
    Setup {
        id: "valkey-pubsub",
        peer: Peer::Valkey,
        mode: "pub/sub",
        used_for: Use::Plain,
        settings: "as Redis",
        ..WEAKER
    },
    Setup {
        id: "nats-core",
        peer: Peer::Nats,
        mode: "core",
        used_for: Use::Plain,
        settings: "publish and subscribe without JetStream, which stores nothing",
        ..WEAKER
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setup_can_be_found_and_so_can_what_fills_it() {
        for setup in &SETUPS {
            assert!(std::ptr::eq(setup, Setup::by_id(setup.id).unwrap()));
            assert!(setup.id.starts_with(setup.peer.id()));
            if let Some(other) = setup.filled_by {
                assert_eq!(Setup::by_id(other).unwrap().peer, setup.peer);
            }
        }
    }
}

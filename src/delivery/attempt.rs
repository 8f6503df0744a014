//! One delivery that did not end in an acknowledgement, as it stands in a dead letter.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How a delivery ended that was not acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The member held it for longer than the ack timeout.
    Timeout,
    /// The member refused it.
    Nack,
    /// The member's connection closed.
    Disconnect,
    /// The member was not heard from for too long.
    Dead,
}

/// As in the records.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Timeout => "timeout",
            Outcome::Nack => "nack",
            Outcome::Disconnect => "disconnect",
            Outcome::Dead => "dead",
        })
    }
}

/// One delivery that did not end in an acknowledgement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// 1 for the first delivery of the message to this group.
    pub n: u32,
    /// The name of the member that had the message.
    pub consumer: String,
    /// When it was given to the member.
    #[serde(with = "unix_seconds")]
    pub sent: Timestamp,
    /// When that ended.
    #[serde(with = "unix_seconds")]
    pub ended: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// The code that a nack gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What went wrong, in the words of a nack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Set for a nack that asked not to be counted; left out of the JSON otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncounted: bool,
}

impl Attempt {
    /// Whether this one brings the message nearer to being given up. A member that went away is
    /// never the message's fault.
    pub fn counts(&self) -> bool {
        matches!(self.outcome, Outcome::Timeout | Outcome::Nack) && !self.uncounted
    }
}

/// Unix seconds with exactly six decimals, as a JSON number.
mod unix_seconds {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
    use serde_json::value::RawValue;

    use crate::time::Timestamp;

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(at.to_string()).map_err(ser::Error::custom)?.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let seconds = f64::deserialize(from)?;
        Timestamp::parse(&format!("{seconds:.6}"))
            .ok_or_else(|| de::Error::custom(format!("{seconds} is not a time in Unix seconds")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_written_as_in_a_dead_letter() {
        let bare = Attempt {
            n: 1,
            consumer: "w3".into(),
            sent: Timestamp::from_micros(1_758_865_780_036_983),
            ended: Timestamp::from_micros(1_758_865_810_500_000),
            outcome: Outcome::Timeout,
            reason: None,
            error: None,
            uncounted: false,
        };
        let text = serde_json::to_string(&bare).unwrap();
        assert_eq!(
            text,
            r#"{"n":1,"consumer":"w3","sent":1758865780.036983,"ended":1758865810.500000,"outcome":"timeout"}"#
        );
        let full = Attempt {
            outcome: Outcome::Nack,
            reason: Some("bad".into()),
            error: Some("no \"x\"".into()),
            uncounted: true,
            ..bare.clone()
        };
        for attempt in [bare, full] {
            let text = serde_json::to_string(&attempt).unwrap();
            assert_eq!(serde_json::from_str::<Attempt>(&text).unwrap(), attempt);
        }
        for bad in ["-1", "1e300", "\"1\""] {
            let text = text.replace("1758865780.036983", bad);
            assert!(serde_json::from_str::<Attempt>(&text).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_microsecond_survives_being_a_json_number() {
        for micros in (1_758_865_780_000_000..).step_by(7_919).take(10_000) {
            let at = Timestamp::from_micros(micros);
            let read: f64 = serde_json::from_str(&at.to_string()).unwrap();
            assert_eq!(Timestamp::parse(&format!("{read:.6}")), Some(at));
        }
    }
}

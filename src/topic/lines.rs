//! Stored records as the lines that a level-1 client gets.

use crate::ids::TopicName;
use crate::log::Line;
use crate::planted::{self, Bug};
use crate::proto::{Body, MessageLine, Tag};

/// Appends `MSG …` for a stored record. Of a dead letter the reader gets the whole record.
pub fn write_msg(out: &mut Vec<u8>, topic: &TopicName, record: &Line<'_>) {
    line(topic, record).write_msg(out);
}

/// Appends `HISTORY …` for a stored record. Of a dead letter the reader gets the whole record.
pub fn write_history(out: &mut Vec<u8>, tag: Option<&Tag>, topic: &TopicName, record: &Line<'_>) {
    line(topic, record).write_history(out, tag);
}

fn line<'a>(topic: &'a TopicName, record: &'a Line<'_>) -> MessageLine<'a, &'a str, &'a str> {
    let body = if planted::has(Bug::TextLost) {
        Body::Message(b"")
    } else if topic.is_dead_letter() {
        Body::Message(record.raw)
    } else if record.is_plain {
        Body::Verbatim(&record.message)
    } else {
        Body::Message(&record.message)
    };
    MessageLine { topic, id: &record.id, offset: record.offset, ts: record.ts_text, body }
}

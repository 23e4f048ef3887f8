//! Which names topics, nodes and sites may have, and which are ours from the first release.

use thiserror::Error;

/// Characters of a topic's name: a file name of 255, less Kafka's room for a partition's number.
pub const TOPIC_NAME_CHARS_MAX: usize = 249;
/// Characters of a node's or a site's name; a host name's label has as many.
pub const NAME_CHARS_MAX: usize = 63;

/// Topics that belong to the broker. Reading them is allowed; a client that creates, deletes or produces to one gets
/// INVALID_TOPIC_EXCEPTION. They are all reserved although most are not made yet, so that what comes later meets no
/// user's data.
pub const INTERNAL_TOPICS: [&str; 10] = [
    "__audit",
    "__consumer_offsets",
    "__firmware",
    "__gaps",
    "__lanes",
    "__mqtt_retained",
    "__mqtt_sessions",
    "__node_log",
    "__selftest",
    "__transaction_state",
];

/// Record headers that rules of the site write. They pass through from any client unchanged; nothing trusts them that
/// a rule did not write. `mqtt-*` as a whole is for the properties of MQTT 5.
pub const RESERVED_HEADERS: [&str; 6] = [
    "edge-site",
    "edge-inc",
    "edge-src",
    "edge-time",
    "mqtt-topic",
    "mqtt-packet",
];

/// Prefix of topic configs that only this broker knows.
pub const CONFIG_PREFIX: &str = "howdah.";

/// Why a name can't be a topic's. The sentences fit behind the name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TopicNameFault {
    /// Nothing at all.
    #[error("is empty")]
    Empty,
    /// `.` and `..`, which file systems keep for themselves.
    #[error("stands for a directory")]
    Directory,
    /// Beyond [`TOPIC_NAME_CHARS_MAX`].
    #[error("has {0} characters, {TOPIC_NAME_CHARS_MAX} are allowed")]
    TooLong(usize),
    /// A character that Kafka does not allow.
    #[error("contains {0:?}; letters, digits, '.', '_' and '-' are allowed")]
    Character(char),
    /// One of [`INTERNAL_TOPICS`].
    #[error("belongs to the broker itself")]
    Internal,
}

/// Whether the broker owns this topic.
#[must_use]
pub fn is_internal_topic(name: &str) -> bool {
    INTERNAL_TOPICS.binary_search(&name).is_ok()
}

/// Whether a name is legal as Kafka's are (org.apache.kafka.common.internals.Topic); internal ones pass.
pub fn check_topic_name(name: &str) -> Result<(), TopicNameFault> {
    if name.is_empty() {
        return Err(TopicNameFault::Empty);
    }
    if name == "." || name == ".." {
        return Err(TopicNameFault::Directory);
    }
    if let Some(wrong) = name
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')))
    {
        return Err(TopicNameFault::Character(wrong));
    }
    if name.len() > TOPIC_NAME_CHARS_MAX {
        return Err(TopicNameFault::TooLong(name.len()));
    }
    Ok(())
}

/// Whether a client may create a topic of this name: legal, and not the broker's.
pub fn check_new_topic_name(name: &str) -> Result<(), TopicNameFault> {
    check_topic_name(name)?;
    if is_internal_topic(name) {
        return Err(TopicNameFault::Internal);
    }
    Ok(())
}

/// The form in which two topic names collide: metrics write `.` as `_`, so Kafka refuses `a.b` beside `a_b`.
#[must_use]
pub fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}

/// Whether a node or a site may have this name: it becomes a file name, a label and a part of host names.
pub(crate) fn is_plain_name(name: &str) -> bool {
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && !name.starts_with(['-', '.'])
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// The known word nearest to `word`, if it is near enough to be what was meant: at most a third of its letters differ.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len().max(3) / 3)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete, replace or swap with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Three rows are enough: a swap looks two back. A key of a hostile file may be long, the known ones are not.
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_are_those_of_kafka() {
        for legal in [
            "a",
            "A.b_c-9",
            "__consumer_offsets",
            "...",
            &"x".repeat(249),
        ] {
            assert_eq!(check_topic_name(legal), Ok(()), "{legal}");
        }
        assert_eq!(check_topic_name(""), Err(TopicNameFault::Empty));
        assert_eq!(check_topic_name(".."), Err(TopicNameFault::Directory));
        assert_eq!(check_topic_name("a b"), Err(TopicNameFault::Character(' ')));
        assert_eq!(
            check_topic_name("käse"),
            Err(TopicNameFault::Character('ä'))
        );
        assert_eq!(
            check_topic_name(&"x".repeat(250)),
            Err(TopicNameFault::TooLong(250))
        );
    }

    #[test]
    fn internal_topics_are_found_and_refused() {
        assert!(INTERNAL_TOPICS.is_sorted(), "binary search needs it");
        for name in INTERNAL_TOPICS {
            assert!(is_internal_topic(name));
            assert_eq!(check_new_topic_name(name), Err(TopicNameFault::Internal));
        }
        assert_eq!(check_new_topic_name("__mine"), Ok(()));
    }

    #[test]
    fn the_nearest_word_is_one_that_was_meant() {
        let known = ["partitions", "replication", "retention", "name"];
        assert_eq!(nearest("partitons", known), Some("partitions"));
        assert_eq!(nearest("retenion", known), Some("retention"));
        assert_eq!(nearest("nmae", known), Some("name"));
        assert_eq!(nearest("colour", known), None);
    }
}

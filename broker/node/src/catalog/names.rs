//! Which names a client may give to a topic.

/// Characters of a topic's name: a file name of 255, less Kafka's room for a partition's number.
pub const TOPIC_NAME_CHARS_MAX: usize = 249;
/// The topic of groups and their offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Topics that belong to the broker, most of them not made yet: what comes later shall meet no user's data.
pub const INTERNAL_TOPICS: [&str; 10] = [
    "__audit",
    OFFSETS_TOPIC,
    "__firmware",
    "__gaps",
    "__lanes",
    "__mqtt_retained",
    "__mqtt_sessions",
    "__node_log",
    "__selftest",
    "__transaction_state",
];

/// Whether the broker owns this topic: clients may read it, nothing else.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    INTERNAL_TOPICS.contains(&name)
}

/// Why a client can't create a topic of this name; `None` if it can, unless the name collides with one that is there.
#[must_use]
pub fn topic_name_fault(name: &str) -> Option<String> {
    let wrong = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    let why = if name.is_empty() {
        "is empty".to_owned()
    } else if name == "." || name == ".." {
        "stands for a directory".to_owned()
    } else if let Some(wrong) = name.chars().find(wrong) {
        format!("contains {wrong:?}; letters, digits, '.', '_' and '-' are allowed")
    } else if name.len() > TOPIC_NAME_CHARS_MAX {
        format!(
            "has {} characters, {TOPIC_NAME_CHARS_MAX} are allowed",
            name.len()
        )
    } else if is_internal(name) {
        "belongs to the broker itself".to_owned()
    } else {
        return None;
    };
    // A hostile name is not echoed at length.
    let shown: String = name.chars().take(TOPIC_NAME_CHARS_MAX).collect();
    Some(format!("topic name '{shown}' {why}"))
}

/// The form in which two names collide: metrics write `.` as `_`.
pub(super) fn collision_key(name: &str) -> String {
    name.replace('.', "_")
}
